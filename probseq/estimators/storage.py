"""One file for a fitted model: safetensors with a JSON header; loading runs no code from the file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributions import Distribution

from probseq._types import Configuration
from probseq.data.sequences import Sequences
from probseq.data.vocabulary import Vocabulary
from probseq.errors import FileFormatError, ParameterError
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.registry import FAMILIES
from probseq.estimators.state import leaves_of
from probseq.estimators.state_names import StateNames
from probseq.inference.base import Draws
from probseq.models.base import map_state

if TYPE_CHECKING:
    from probseq.estimators.base import SequenceEstimator

__all__ = ["load", "save"]

_FORMAT = "probseq"
_VERSION = 1
_KEPT_STAMPS = 3


def save(estimator: SequenceEstimator, path: Any) -> None:
    """See ``SequenceEstimator.save``."""
    model = estimator.model_
    tensors = {f"param.{name}": value.contiguous() for name, value in model.params.items()}
    tensors["log_weights"] = model.log_weights.contiguous()
    if estimator.draws_.covariance is not None:
        tensors["covariance"] = torch.from_numpy(np.ascontiguousarray(estimator.draws_.covariance))
    if estimator.training_state_ is not None:
        for i, leaf in enumerate(leaves_of(estimator.training_state_)):
            tensors[f"state.{i:03d}"] = leaf.contiguous().clone()
    header = {
        "estimator": _encode(estimator),
        "info": estimator.info_.to_dict(),
        "constants": list(estimator.transforms_.constants),
        "fit": {
            "log_likelihood": estimator.log_likelihood_,
            "n_scored": estimator.n_scored_,
            "n_scored_steps": estimator.n_scored_steps_,
            "path_log_prob": estimator.path_log_prob_ if isinstance(estimator, StateNames) else None,
            "seconds": estimator.fit_seconds_,
            "status": estimator.status_,
            "n_iter": estimator.n_iter_,
            "objective": estimator.draws_.objective,
        },
        "features": [str(f) for f in getattr(estimator, "feature_names_in_", [])],
        "covariates": [str(name) for name in estimator.covariate_names_],
        "vocabulary": None if estimator.vocabulary_ is None else estimator.vocabulary_.to_dict(),
        "training": None if estimator.training_ is None else _encode_labels(estimator.training_),
        "fingerprint": estimator.training_fingerprint_,
        "state_names": estimator.state_names_ if isinstance(estimator, StateNames) else None,
    }
    metadata = {"format": _FORMAT, "version": str(_VERSION), "header": json.dumps(header, allow_nan=True)}
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"No folder {file.absolute().parent}; make it first.")
    save_file({k: v.detach().clone() for k, v in tensors.items()}, str(file), metadata=metadata)


def load(path: Any) -> SequenceEstimator:
    """Read a fitted model that ``save`` wrote.

    Raises
    ------
    FileFormatError
        If the file is not a probseq model, is damaged, or has a version or a class that is not known here.
    FileNotFoundError
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"No file {file}.")
    try:
        with safe_open(str(file), framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        if metadata.get("format") != _FORMAT:
            raise _bad(file, "a file without the mark of probseq")
        if metadata.get("version") != str(_VERSION):
            raise _bad(file, f"format version {metadata.get('version')}")
        header = json.loads(metadata["header"])
        return _restore(header, tensors, file)
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise _bad(file, f"damaged content ({type(error).__name__}: {error})") from error


def _bad(file: Path, what: str) -> FileFormatError:
    return FileFormatError(
        got=f"{what} in {file.name}",
        expected=f"a model saved by probseq in format version {_VERSION}",
        remedy="Save it again with this version.",
    )


def _restore(header: dict[str, Any], tensors: dict[str, torch.Tensor], file: Path) -> SequenceEstimator:
    estimator: SequenceEstimator = _decode(header["estimator"], _known_classes(header["estimator"]["class"]), file)
    info = DataInfo.from_dict(header["info"])
    model = estimator._build(info)
    params = {name: tensors[f"param.{name}"] for name in model.parameters()}
    for name, spec in model.parameters().items():
        if tuple(params[name].shape[1:]) != spec.shape or spec.constraint.violation(params[name]):
            raise _bad(file, f"an impossible value of parameter {name}")
    fit = header["fit"]
    draws = Draws(
        params,
        fit["log_likelihood"],
        fit["objective"],
        fit["status"],
        fit["n_iter"],
        log_weights=tensors["log_weights"],
        covariance=tensors["covariance"].numpy() if "covariance" in tensors else None,
    )
    transforms = FittedTransforms(tuple(estimator._transforms()), tuple(header["constants"]))
    estimator._adopt(model, transforms, draws, info, None)
    estimator.fit_seconds_ = fit["seconds"]
    estimator.log_likelihood_, estimator.n_scored_ = fit["log_likelihood"], fit["n_scored"]
    estimator.n_scored_steps_ = fit["n_scored_steps"]
    estimator.covariate_names_ = tuple(header["covariates"])
    if header["vocabulary"] is not None:
        estimator.vocabulary_ = Vocabulary.from_dict(header["vocabulary"])
    if header["features"]:
        estimator.feature_names_in_ = np.asarray(header["features"], dtype=object)
    if header["training"] is not None:
        estimator.training_ = _decode_labels(header["training"], estimator.vocabulary_)
        template = estimator.model_.initial_state({}, estimator.training_.n_sequences)
        queue = iter([tensors[f"state.{i:03d}"] for i in range(len(leaves_of(template)))])
        estimator.training_state_ = map_state(lambda leaf: next(queue), template)
        estimator.training_fingerprint_ = header["fingerprint"]
    if isinstance(estimator, StateNames) and header.get("state_names") is not None:
        estimator = estimator.label_states(header["state_names"])
    if isinstance(estimator, StateNames):
        estimator.path_log_prob_ = fit["path_log_prob"]
    return estimator


# hyper-parameters -----------------------------------------------------------------------------------------------------


def _known_classes(family: str) -> dict[str, type]:
    """Classes that a file may name: our configurations and estimators, and those of code already imported."""
    from probseq.estimators.base import SequenceEstimator

    if family in FAMILIES:
        importlib.import_module(FAMILIES[family])  # brings its emissions, transforms and inferences
    return {cls.__name__: cls for base in (Configuration, SequenceEstimator) for cls in _descendants(base)}


def _descendants(cls: type) -> list[type]:
    below: list[type] = cls.__subclasses__()
    return below + [d for sub in below for d in _descendants(sub)]


def _encode(value: Any) -> Any:
    from probseq.estimators.base import SequenceEstimator

    if isinstance(value, Configuration | SequenceEstimator):
        params = value.get_params(deep=False)
        return {"class": type(value).__name__, "params": {name: _encode(v) for name, v in params.items()}}
    if isinstance(value, list | tuple):
        return {"sequence": type(value).__name__, "items": [_encode(v) for v in value]}
    if isinstance(value, dict):
        return {"mapping": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.asarray(value)
        return {"array": array.tolist(), "dtype": str(array.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Distribution):
        return {"law": _law_name(value), "arguments": {n: _encode(getattr(value, n)) for n in _law_arguments(value)}}
    if isinstance(value, np.random.Generator | np.random.RandomState | np.random.SeedSequence):
        return None  # a stream cannot be kept; the loaded model draws anew
    raise ParameterError(
        got=f"a hyper-parameter of type {type(value).__name__}",
        expected="numbers, text, lists, arrays and probseq objects",
        remedy="Leave it out before saving.",
    )


def _decode(value: Any, known: dict[str, type], file: Path) -> Any:
    if not isinstance(value, dict):
        return value
    if "class" in value:
        cls = known.get(value["class"])
        if cls is None:
            raise _bad(file, f"an unknown class {value['class']!r}")
        return cls(**{name: _decode(v, known, file) for name, v in value["params"].items()})
    if "law" in value:
        return _decode_law(value, file)
    if "sequence" in value:
        items = [_decode(v, known, file) for v in value["items"]]
        return tuple(items) if value["sequence"] == "tuple" else items
    if "mapping" in value:
        return {_decode(k, known, file): _decode(v, known, file) for k, v in value["mapping"]}
    return np.asarray(value["array"], dtype=value["dtype"])


def _law_name(law: Distribution) -> str:
    """The name in ``torch.distributions`` of a law, or of the one that Pyro's is made of."""
    for cls in type(law).__mro__:
        if getattr(torch.distributions, cls.__name__, None) is cls and _law_arguments(law):
            return cls.__name__
    raise ParameterError(
        got=f"a hyper-parameter {law!r}",
        expected="a distribution of torch.distributions given by numbers",
        remedy="Leave it out before saving.",
    )


def _law_arguments(law: Distribution) -> list[str]:
    """Names of the arguments that make a law again; where several mean the same, those that it was given."""
    names = list(getattr(law, "arg_constraints", {}))
    return [name for name in names if name in vars(law)] or names


def _decode_law(value: dict[str, Any], file: Path) -> Distribution:
    cls = getattr(torch.distributions, value["law"], None)
    if not (isinstance(cls, type) and issubclass(cls, Distribution)):
        raise _bad(file, f"an unknown distribution {value['law']!r}")
    arguments: dict[str, Any] = {n: torch.as_tensor(_decode(v, {}, file)) for n, v in value["arguments"].items()}
    return cls(**arguments)


# labels ---------------------------------------------------------------------------------------------------------------


def _encode_labels(data: Sequences) -> dict[str, Any]:
    """Names, frequency and the last stamps of the training data; not its values."""
    return {
        "variables": [str(v) for v in data.variables],
        "names": [name if isinstance(name, int | str) else str(name) for name in data.names],
        "many": data.many,
        "flat": data.flat,
        "named": data.named,
        "named_sequences": data.named_sequences,
        "is_text": data.is_text,
        "name": None if data.name is None else str(data.name),
        "attrs": {str(k): str(v) for k, v in data.attrs.items()},
        "covariates": [str(c) for c in data.covariate_names],
        "static": None if data.static is None else data.static.tolist(),
        "static_names": [str(name) for name in data.static_names],
        "steps": [_step(f) for f in data.freq],
        "index": [_encode_index(index) for index in data.index],
    }


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
        return {"kind": "datetime", "values": [s.isoformat() for s in stamps], "zone": zone}
    if isinstance(index, pd.PeriodIndex):
        return {"kind": "period", "values": [str(p) for p in tail], "freq": index.freqstr}
    return {"kind": "number", "values": [v.item() if hasattr(v, "item") else v for v in tail]}


def _decode_index(kept: dict[str, Any]) -> pd.Index:
    if kept["kind"] == "range":
        return pd.RangeIndex(kept["start"], kept["stop"], kept["step"])
    if kept["kind"] == "datetime":
        index = pd.DatetimeIndex(kept["values"])
        return index if kept["zone"] is None else index.tz_localize("UTC").tz_convert(kept["zone"])
    if kept["kind"] == "period":
        return pd.PeriodIndex(kept["values"], freq=kept["freq"])
    return pd.Index(kept["values"])


def _decode_labels(kept: dict[str, Any], vocabulary: Vocabulary | None) -> Sequences:
    index = tuple(_decode_index(one) for one in kept["index"])
    width = max(len(one) for one in index)
    n, m = len(index), len(kept["covariates"])
    steps = {s for s in kept["steps"] if s is not None}
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
        given_freq=steps.pop() if len(steps) == 1 else None,
        name=kept["name"],
        attrs=kept["attrs"],
    )
