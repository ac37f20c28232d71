"""One file for a fitted model: safetensors with a JSON header; loading runs no code from the file."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from probseq.data.sequences import Sequences
from probseq.data.vocabulary import Vocabulary
from probseq.distributions.params import ParamSpec, Positive, PositiveDefinite
from probseq.errors import FileFormatError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.records import Reader, Writer
from probseq.estimators.registry import FAMILIES
from probseq.estimators.state import leaves_of
from probseq.inference.base import Draws
from probseq.models.base import map_state

if TYPE_CHECKING:
    from probseq.estimators.per_sequence import PerSequence

__all__ = ["load", "save", "save_panel"]

_FORMAT = "probseq"
_VERSION = 2
_READABLE = ("1", "2")
_KEPT_STAMPS = 3
# Made again from the other parts of the file; every other public attribute of a fit is kept as it is.
_MADE_AGAIN = frozenset(
    ("model_", "emission_", "info_", "transforms_", "training_", "training_state_", "vocabulary_")
    + ("covariate_names_", "feature_names_in_")
)


def save(estimator: SequenceEstimator, path: Any) -> None:
    """See ``SequenceEstimator.save``."""
    header, tensors = _encode(estimator)
    _write(header, tensors, path)


def save_panel(panel: PerSequence, path: Any) -> None:
    """See ``PerSequence.save``."""
    writer, models = Writer(), []
    tensors: dict[str, torch.Tensor] = {}
    for i, model in enumerate(panel.models_.values()):
        header, own = _encode(model)
        models.append(header)
        tensors |= {f"{i}.{name}": value for name, value in own.items()}
    tables = {
        name: {"rows": [_label(one) for one in table.index], "columns": table.to_dict("list")}
        for name, table in (("failures_", panel.failures_), ("problems_", panel.problems_))
    }
    header = {
        "panel": {name: writer.write(value, name) for name, value in panel.get_params(deep=False).items()},
        "records": writer.records,
        "names": [_label(name) for name in panel.models_],
        "models": models,
        "tables": tables,
        "labels": _encode_labels(panel.labels_),
        "n_features": panel.n_features_in_,
    }
    _write(header, tensors | {f"panel.{name}": value for name, value in writer.tensors.items()}, path)


def _encode(estimator: SequenceEstimator) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    writer = Writer()
    fitted = {name: value for name, value in vars(estimator).items() if _is_kept(name)}
    fitted["training_fingerprint_"] = estimator.training_fingerprint_
    header = {
        "estimator": writer.write(estimator, "estimator"),
        "info": estimator.info_.to_dict(),
        "constants": list(estimator.transforms_.constants),
        "fitted": {name: writer.write(value, name) for name, value in fitted.items()},
        "records": writer.records,
        "features": [_label(name) for name in getattr(estimator, "feature_names_in_", [])],
        "covariates": [_label(name) for name in estimator.covariate_names_],
        "vocabulary": None if estimator.vocabulary_ is None else estimator.vocabulary_.to_dict(),
        "training": None if estimator.training_ is None else _encode_labels(estimator.training_),
    }
    tensors = writer.tensors
    if estimator.training_state_ is not None:
        leaves = leaves_of(estimator.training_state_)
        tensors |= {f"state.{i:03d}": leaf.detach().contiguous().clone() for i, leaf in enumerate(leaves)}
    return header, tensors


def _write(header: dict[str, Any], tensors: dict[str, torch.Tensor], path: Any) -> None:
    metadata = {"format": _FORMAT, "version": str(_VERSION), "header": json.dumps(header, allow_nan=True)}
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; pass the name of a file.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"No folder {file.absolute().parent}; make it first.")
    save_file(tensors, str(file), metadata=metadata)


def load(path: Any) -> Any:
    """Read a fitted model that ``save`` wrote, with all that it showed after the fit but the training values.

    Raises
    ------
    FileFormatError
        If the file is not a probseq model, is damaged, or has a version or a class that is not known here.
    FileNotFoundError, IsADirectoryError
    """
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder; pass the name of a file that save(path) wrote.")
    if not file.is_file():
        raise FileNotFoundError(f"No file {file}.")
    try:
        with safe_open(str(file), framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        if metadata.get("format") != _FORMAT:
            raise _bad(file, "a file without the mark of probseq", "Pass a file that save(path) wrote.")
        version = metadata.get("version")
        if version not in _READABLE:
            raise _bad(file, f"format version {version}", "Update probseq, or save the model again with this version.")
        header = json.loads(metadata["header"])
        if "panel" in header:
            return _restore_panel(header, tensors, file)
        return _restore(_since_version_2(header, tensors) if version == "1" else header, tensors, file)
    except FileFormatError:
        raise
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"damaged content ({type(error).__name__}: {error})"
        raise _bad(file, what, "Save it again with this version.") from error


def _bad(file: Path, what: str, remedy: str) -> FileFormatError:
    return FileFormatError(
        got=f"{what} in {file.name}",
        expected=f"a model saved by probseq in format version {' or '.join(_READABLE)}",
        remedy=remedy,
    )


def _is_kept(name: str) -> bool:
    """Whether an attribute is public, of a fit, and kept as it is."""
    return re.fullmatch(r"[A-Za-z]\w*_", name) is not None and name not in _MADE_AGAIN


def _restore(header: dict[str, Any], tensors: dict[str, torch.Tensor], file: Path) -> SequenceEstimator:
    for name in _classes(header["estimator"]) & FAMILIES.keys():
        importlib.import_module(FAMILIES[name])  # brings its emissions, transforms and inferences
    reader = Reader(tensors, header["records"], file.name)
    estimator = reader.read(header["estimator"])
    fitted = {name: reader.read(value) for name, value in header["fitted"].items()}
    draws = fitted["draws_"]
    if not isinstance(estimator, SequenceEstimator) or not isinstance(draws, Draws):
        raise TypeError("no estimator with draws")
    info = DataInfo.from_dict(header["info"])
    estimator.draws_ = draws  # where the fit has chosen the structure of the model, it is written there
    model = estimator._build(info)
    specs = model.parameters()
    if header.get("softplus"):
        fitted["draws_"] = estimator.draws_ = draws = _by_logarithms(draws, specs)
    for name, spec in specs.items():
        value = draws.params[name]
        if tuple(value.shape[1:]) != spec.shape or spec.constraint.violation(value):
            raise _bad(file, f"an impossible value of parameter {name}", "Save it again with this version.")
    transforms = FittedTransforms(tuple(estimator._transforms()), tuple(header["constants"]))
    estimator._adopt(model, transforms, draws, info, None)
    for name, value in fitted.items():
        if not _is_kept(name):
            raise _bad(file, f"an impossible attribute {name}", "Save it again with this version.")
        setattr(estimator, name, value)
    estimator.covariate_names_ = tuple(header["covariates"])
    if header["vocabulary"] is not None:
        estimator.vocabulary_ = Vocabulary.from_dict(header["vocabulary"])
    if header["features"]:
        estimator.feature_names_in_ = np.asarray(header["features"], dtype=object)
    if header["training"] is not None:
        past = estimator.training_ = _decode_labels(header["training"], estimator.vocabulary_)
        if not any(name.startswith("state.") for name in tensors):
            return estimator
        template = estimator.model_.initial_state({}, past.n_sequences)
        queue = iter([tensors[f"state.{i:03d}"] for i in range(len(leaves_of(template)))])
        estimator.training_state_ = map_state(lambda leaf: next(queue), template)
    return estimator


def _classes(written: Any) -> set[str]:
    """Names of the classes of which a value is made."""
    if isinstance(written, dict):
        own = {written["class"]} if isinstance(written.get("class"), str) else set()
        return own.union(*map(_classes, written.values()))
    return set().union(*map(_classes, written)) if isinstance(written, list) else set()


def _restore_panel(header: dict[str, Any], tensors: dict[str, torch.Tensor], file: Path) -> PerSequence:
    from probseq.estimators.per_sequence import PerSequence

    own: list[dict[str, torch.Tensor]] = [{} for _ in header["models"]]
    rest: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        place, _, inner = name.partition(".")
        (own[int(place)] if place.isdigit() else rest)[inner] = value
    models = [_restore(each, held, file) for each, held in zip(header["models"], own, strict=True)]
    reader = Reader(rest, header["records"], file.name)
    panel = PerSequence(**{name: reader.read(value) for name, value in header["panel"].items()})
    panel.models_ = dict(zip(header["names"], models, strict=True))
    for name in ("failures_", "problems_"):
        kept = header["tables"][name]
        index = pd.Index(kept["rows"], name="sequence", tupleize_cols=False)
        setattr(panel, name, pd.DataFrame(kept["columns"], index=index))
    panel.labels_ = _decode_labels(header["labels"], models[0].vocabulary_)
    panel.n_features_in_ = header["n_features"]
    return panel


def _since_version_2(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A header of version 1, which kept points or draws of the parameters and some numbers of the fit, as of now."""
    names = [name.removeprefix("param.") for name in tensors if name.startswith("param.")]
    fit = header["fit"]
    draws = {
        "params": {"mapping": [[name, {"tensor": f"param.{name}"}] for name in names]},
        "log_prob": fit["log_likelihood"],
        "log_weights": {"tensor": "log_weights"},
        "covariance": {"numpy": "covariance"} if "covariance" in tensors else None,
    }
    draws |= {name: fit[name] for name in ("objective", "status", "n_iter")}
    fitted = {f"{name}_": fit[name] for name in ("log_likelihood", "n_scored", "n_scored_steps")}
    fitted |= {"draws_": {"record": 0}, "fit_seconds_": fit["seconds"], "training_fingerprint_": header["fingerprint"]}
    if fit["path_log_prob"] is not None:
        fitted["path_log_prob_"] = fit["path_log_prob"]
    if header.get("state_names") is not None:
        fitted["state_names_"] = {"sequence": "tuple", "items": header["state_names"]}
    return {**header, "records": [{"class": "Draws", "fields": draws}], "fitted": fitted, "softplus": True}


def _by_logarithms(draws: Draws, specs: Mapping[str, ParamSpec]) -> Draws:
    """Draws whose covariance is that of log(v - low) for positive parameters v, where it was that of their softplus."""
    if draws.covariance is None:
        return draws
    if any(isinstance(spec.constraint, PositiveDefinite) for spec in specs.values()):
        return replace(draws, covariance=None)  # its factor had other coordinates, too
    slopes = []
    for name, spec in specs.items():
        if not spec.trainable:
            continue
        size = spec.constraint.size(spec.shape)
        above = draws.params[name][0].double().reshape(-1).numpy() - getattr(spec.constraint, "low", 0.0)
        slopes.append(-np.expm1(-above) / above if isinstance(spec.constraint, Positive) else np.ones(size))
    slope = np.concatenate(slopes)
    return replace(draws, covariance=draws.covariance * slope * slope[:, None])


def _encode_labels(data: Sequences) -> dict[str, Any]:
    """Names, frequency and the last stamps of the training data; not its values."""
    return {
        "variables": [_label(name) for name in data.variables],
        "names": [_label(name) for name in data.names],
        "many": data.many,
        "flat": data.flat,
        "named": data.named,
        "named_sequences": data.named_sequences,
        "is_text": data.is_text,
        "name": None if data.name is None else _label(data.name),
        "attrs": {str(k): str(v) for k, v in data.attrs.items()},
        "covariates": [_label(name) for name in data.covariate_names],
        "static": None if data.static is None else data.static.tolist(),
        "static_names": [_label(name) for name in data.static_names],
        "steps": [_step(f) for f in data.freq],
        "lengths": list(data.n_steps),
        "index": [_encode_index(index) for index in data.index],
    }


def _label(name: Any) -> Any:
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
    return {"date": value.isoformat()} if type(value) is date else _label(value)


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


def _decode_labels(kept: dict[str, Any], vocabulary: Vocabulary | None) -> Sequences:
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
    )
