"""Labels of data as JSON and back: what a file of a model keeps of the data that it was fitted to."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences
from probseq.data.vocabulary import Vocabulary

__all__ = ["decode_labels", "encode_labels", "plain_label"]

_KEPT_STAMPS = 3


def encode_labels(data: Sequences) -> dict[str, Any]:
    """Names, frequency and the last stamps of the training data; not its values."""
    return {
        "variables": [plain_label(name) for name in data.variables],
        "names": [plain_label(name) for name in data.names],
        "many": data.many,
        "flat": data.flat,
        "named": data.named,
        "named_sequences": data.named_sequences,
        "is_text": data.is_text,
        "name": None if data.name is None else plain_label(data.name),
        "attrs": {str(k): str(v) for k, v in data.attrs.items()},
        "time_attrs": {str(k): str(v) for k, v in data.time_attrs.items()},
        "covariates": [plain_label(name) for name in data.covariate_names],
        "static": None if data.static is None else data.static.tolist(),
        "static_names": [plain_label(name) for name in data.static_names],
        "steps": [_step(f) for f in data.freq],
        "lengths": list(data.n_steps),
        "index": [_encode_index(index) for index in data.index],
    }


def plain_label(name: Any) -> Any:
    """A name as a number or text."""
    plain = name.item() if isinstance(name, np.generic) else name
    return plain if isinstance(plain, bool | int | float | str) else str(name)


def _step(freq: Any) -> Any:
    if freq is None or isinstance(freq, int | float | str):
        return freq
    return getattr(freq, "freqstr", str(freq))


def _encode_index(index: pd.Index) -> dict[str, Any]:
    tail = index[-_KEPT_STAMPS:]
    if isinstance(tail, pd.RangeIndex):
        return {"kind": "range", "start": int(tail.start), "stop": int(tail.stop), "step": int(tail.step)}
    if isinstance(tail, pd.DatetimeIndex):
        stamps = tail.tz_convert("UTC").tz_localize(None) if tail.tz is not None else tail
        zone = None if tail.tz is None else str(tail.tz)
        return {"kind": "datetime", "values": [s.isoformat() for s in stamps], "zone": zone, "unit": tail.unit}
    if isinstance(tail, pd.TimedeltaIndex):
        return {"kind": "timedelta", "values": [s.isoformat() for s in tail], "unit": tail.unit}
    if isinstance(index, pd.PeriodIndex):
        return {"kind": "period", "values": [str(p) for p in tail], "freq": index.freqstr}
    return {"kind": "number", "values": [_stamp(v) for v in tail]}


def _stamp(value: Any) -> Any:
    """A stamp that is a number, a text or a date; of others, which only count steps, their text."""
    return {"date": value.isoformat()} if type(value) is date else plain_label(value)


def _decode_index(kept: dict[str, Any]) -> pd.Index:
    if kept["kind"] == "range":
        return pd.RangeIndex(kept["start"], kept["stop"], kept["step"])
    if kept["kind"] == "datetime":
        index = pd.DatetimeIndex(kept["values"])
        index = index.as_unit(kept.get("unit", index.unit))
        return index if kept["zone"] is None else index.tz_localize("UTC").tz_convert(kept["zone"])
    if kept["kind"] == "timedelta":
        return pd.TimedeltaIndex(kept["values"]).as_unit(kept["unit"])
    if kept["kind"] == "period":
        return pd.PeriodIndex(kept["values"], freq=kept["freq"])
    return pd.Index([date.fromisoformat(v["date"]) if isinstance(v, dict) else v for v in kept["values"]])


def decode_labels(kept: dict[str, Any], vocabulary: Vocabulary | None) -> Sequences:
    """Data without values, with what ``encode_labels`` kept of them."""
    index = tuple(_decode_index(one) for one in kept["index"])
    width = max(len(one) for one in index)
    n, m = len(index), len(kept["covariates"])
    lengths = kept.get("lengths", [len(one) for one in index])  # those of older files are not known
    return Sequences(
        values=np.full((n, width, len(kept["variables"])), np.nan),
        lengths=np.array([len(one) for one in index], dtype=np.int64),
        index=index,
        names=tuple(kept["names"]),
        variables=tuple(kept["variables"]),
        many=kept["many"],
        flat=kept["flat"],
        named=kept["named"],
        named_sequences=kept["named_sequences"],
        covariates=np.zeros((n, width, m)) if m else None,
        covariate_names=tuple(kept["covariates"]),
        static=None if kept["static"] is None else np.asarray(kept["static"], dtype=np.float64),
        static_names=tuple(kept["static_names"]),
        vocabulary=vocabulary,
        is_text=kept["is_text"],
        cut=tuple((n - len(one), step) for n, one, step in zip(lengths, index, kept["steps"], strict=True)),
        name=kept["name"],
        attrs=kept["attrs"],
        time_attrs=kept.get("time_attrs", {}),
    )
