"""One file for a fitted model: safetensors with a JSON header; loading runs no code from the file."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from probseq.data.vocabulary import Vocabulary
from probseq.distributions.params import ParamSpec, Positive, PositiveDefinite
from probseq.errors import FileFormatError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.label_files import decode_labels, encode_labels, plain_label
from probseq.estimators.members import Composed, WithMembers
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.records import Reader, Writer, subclasses
from probseq.estimators.registry import FAMILIES
from probseq.estimators.state import leaves_of
from probseq.inference.base import Draws
from probseq.models.base import map_state

__all__ = ["load", "save"]

_FORMAT = "probseq"
_VERSION = 3
_READABLE = ("1", "2", "3")
# Made again from the other parts of the file; every other public attribute of a fit is kept as it is.
_MADE_AGAIN = frozenset(
    ("model_", "emission_", "info_", "transforms_", "training_", "training_state_", "vocabulary_")
    + ("covariate_names_", "feature_names_in_")
)


def save(estimator: SequenceEstimator | Composed, path: Any) -> None:
    """See ``SequenceEstimator.save``."""
    writer = Writer()
    tensors: dict[str, torch.Tensor] = {}
    if isinstance(estimator, SequenceEstimator):
        header = _encode(estimator, writer, tensors)
    else:
        given = estimator.get_params(deep=False)
        header = {
            "composed": type(estimator).__name__,
            "params": {name: writer.write(value, name) for name, value in given.items()},
            "found": writer.write(estimator._found(), "found"),
            "members": _encode_members(estimator, writer, tensors, ""),
        }
    header["records"] = writer.records
    _write(header, tensors | writer.tensors, path)


def _encode_members(whole: WithMembers, writer: Writer, tensors: dict[str, torch.Tensor], at: str) -> dict[str, Any]:
    members = whole._members()
    return {
        "names": [plain_label(name) for name in members],
        "models": [_encode(one, writer, tensors, f"{at}{i}.") for i, one in enumerate(members.values())],
    }


def _encode(
    estimator: SequenceEstimator, writer: Writer, tensors: dict[str, torch.Tensor], at: str = ""
) -> dict[str, Any]:
    """JSON of a fitted estimator; names of its tensors begin with ``at``, those of its state go to ``tensors``."""
    fitted = {name: value for name, value in vars(estimator).items() if _is_kept(name)}
    fitted["training_fingerprint_"] = estimator.training_fingerprint_
    header = {
        "estimator": writer.write(estimator, f"{at}estimator"),
        "info": estimator.info_.to_dict(),
        "constants": list(estimator.transforms_.constants),
        "fitted": {name: writer.write(value, f"{at}{name}") for name, value in fitted.items()},
        "features": [plain_label(name) for name in getattr(estimator, "feature_names_in_", [])],
        "covariates": [plain_label(name) for name in estimator.covariate_names_],
        "vocabulary": None if estimator.vocabulary_ is None else estimator.vocabulary_.to_dict(),
        "training": None if estimator.training_ is None else encode_labels(estimator.training_),
    }
    if estimator.training_state_ is not None:
        leaves = leaves_of(estimator.training_state_)
        tensors |= {f"{at}state.{i:03d}": leaf.detach().contiguous().clone() for i, leaf in enumerate(leaves)}
    if isinstance(estimator, WithMembers):
        header["members"] = _encode_members(estimator, writer, tensors, at)
    return header


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

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import probseq as ps
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "chain.probseq"
    >>> ps.MarkovChain().fit("abracadabra").save(path)
    >>> ps.load(path)
    MarkovChain()
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
            raise _bad(file, f"a panel in format version {version}", "Fit it again, and save it with this version.")
        if version == "1":
            header = _since_version_2(header, tensors)
        for name in _classes(header) & FAMILIES.keys():
            importlib.import_module(FAMILIES[name])  # brings its emissions, transforms and inferences
        reader = Reader(tensors, header["records"], file.name)
        restore = _restore_composed if "composed" in header else _restore
        return restore(header, tensors, reader, file)
    except FileFormatError:
        raise
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        what = f"damaged content ({type(error).__name__}: {error})"
        raise _bad(file, what, "Save it again with this version.") from error


def _bad(file: Path, what: str, remedy: str) -> FileFormatError:
    return FileFormatError(
        got=f"{what} in {file.name}",
        expected=f"a model saved by probseq in format version {_READABLE[0]} to {_READABLE[-1]}",
        remedy=remedy,
    )


def _is_kept(name: str) -> bool:
    """Whether an attribute is public, of a fit, and kept as it is."""
    return re.fullmatch(r"[A-Za-z]\w*_", name) is not None and name not in _MADE_AGAIN


def _restore(
    header: dict[str, Any], tensors: dict[str, torch.Tensor], reader: Reader, file: Path, at: str = ""
) -> SequenceEstimator:
    estimator = reader.read(header["estimator"])
    fitted = {name: reader.read(value) for name, value in header["fitted"].items()}
    draws = fitted["draws_"]
    if not isinstance(estimator, SequenceEstimator) or not isinstance(draws, Draws):
        raise TypeError("no estimator with draws")
    info = DataInfo.from_dict(header["info"])
    estimator.draws_ = draws  # where the fit has chosen the structure of the model, it is written there
    if isinstance(estimator, WithMembers):
        estimator._revive(_restore_members(header["members"], tensors, reader, file, at), {})
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
        past = estimator.training_ = decode_labels(header["training"], estimator.vocabulary_)
        if f"{at}state.000" not in tensors:
            return estimator
        template = estimator.model_.initial_state({}, past.n_sequences)
        queue = iter([tensors[f"{at}state.{i:03d}"] for i in range(len(leaves_of(template)))])
        estimator.training_state_ = map_state(lambda leaf: next(queue), template)
    return estimator


def _restore_members(
    kept: dict[str, Any], tensors: dict[str, torch.Tensor], reader: Reader, file: Path, at: str = ""
) -> dict[Any, SequenceEstimator]:
    models = [_restore(one, tensors, reader, file, f"{at}{i}.") for i, one in enumerate(kept["models"])]
    return dict(zip(kept["names"], models, strict=True))


def _restore_composed(header: dict[str, Any], tensors: dict[str, torch.Tensor], reader: Reader, file: Path) -> Composed:
    known = {cls.__name__: cls for cls in subclasses(Composed)}
    if header["composed"] not in known:
        raise _bad(file, f"an unknown class {header['composed']!r}", "Import the module that defines it.")
    whole: Composed = known[header["composed"]](**{n: reader.read(value) for n, value in header["params"].items()})
    whole._revive(_restore_members(header["members"], tensors, reader, file), reader.read(header["found"]))
    return whole


def _classes(written: Any) -> set[str]:
    """Names of the classes of which a value is made."""
    if isinstance(written, dict):
        own = {name for key in ("class", "composed") if isinstance(name := written.get(key), str)}
        return own.union(*map(_classes, written.values()))
    return set().union(*map(_classes, written)) if isinstance(written, list) else set()


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
