"""Finished parts of a long run in a folder, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from probseq.comparison.foreign import ForeignForecaster
from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.per_sequence import PerSequence
from probseq.estimators.records import Writer

__all__ = ["Checkpoints", "describe_model"]


class Checkpoints:
    """A folder of parts, each in a file of its own that is there whole or not at all.

    A part is named by what it was made from: another question, other data or another model never finds it.

    Parameters
    ----------
    path : folder, made if need be; None keeps nothing

    Raises
    ------
    ParameterError
        If there is something else at ``path``, or it is no path.
    """

    def __init__(self, path: Any) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise ParameterError(got=f"path={path!r}", expected="a folder, or None", remedy='Try path="runs".')
        self.folder = None if path is None else Path(path)
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ParameterError(
                got=f"path={str(path)!r}, which is a file", expected="a folder", remedy="Choose another path."
            ) from error

    def _file(self, folder: Path, name: str, made_from: Any) -> Path:
        mark = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:20]
        return folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}-{mark}.npz"

    def load(self, name: str, made_from: Any) -> dict[str, np.ndarray] | None:
        """The arrays of a part, or None where it is not there or cannot be read."""
        if self.folder is None:
            return None
        try:
            # The file is opened here, since numpy leaves open those that it cannot read.
            with open(self._file(self.folder, name, made_from), "rb") as stream:
                held = np.load(stream, allow_pickle=False)
                return {key: held[key] for key in held.files}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, name: str, made_from: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a part: to a file of another name first, which then takes its place."""
        if self.folder is None:
            return
        handle, draft = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, self._file(self.folder, name, made_from))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise


def describe_model(model: SequenceEstimator | PerSequence | ForeignForecaster, fitted: bool) -> Any:
    """What tells a model from others: its arguments, and its parameters where it is taken as it is."""
    if isinstance(model, PerSequence):
        inner = describe_model(model.estimator, False)
        each = {str(name): describe_model(one, True) for name, one in model.models_.items()} if fitted else {}
        return {"panel": inner, "models": each}
    if not isinstance(model, SequenceEstimator):
        own = clone(model) if isinstance(model, BaseEstimator) else model
        holds = getattr(own, "__dict__", {"all": own})
        return {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "holds": {name: _mark(value) for name, value in holds.items()},
        }
    writer = Writer()
    told: dict[str, Any] = {"arguments": writer.write(model, "model")}
    if fitted:
        told["params"] = writer.write(dict(model.draws_.params), "params")
        told["weights"] = writer.write(model.draws_.log_weights, "weights")
        told["training"] = model.training_fingerprint_
    digest = hashlib.sha256()
    for name, tensor in writer.tensors.items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return {**told, "records": writer.records, "tensors": digest.hexdigest()}


def _mark(value: Any) -> str:
    """What tells values apart: those that cannot be pickled by how they show themselves."""
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()
    except Exception:
        return repr(value)
