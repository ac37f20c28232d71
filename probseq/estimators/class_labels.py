"""Labels of sequences and the probabilities of their classes before anything is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences
from probseq.errors import DataError, ParameterError, ShapeError

__all__ = ["class_labels", "class_priors"]


def class_labels(y: Any, data: Sequences, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The classes, sorted, and the number of that of each sequence.

    Parameters
    ----------
    y : array (sequence,) of labels, or mapping of the names of the sequences to labels
    least : how few classes there may be

    Raises
    ------
    DataError
        There are no labels, not one a sequence, too few different ones, missing ones, or measurements.
    """
    from sklearn.utils import column_or_1d
    from sklearn.utils.multiclass import type_of_target

    if y is None:
        raise DataError(
            got="no labels (SequenceClassifier requires y to be passed, but the target y is None)",
            expected="one label a sequence",
            remedy="Pass fit(X, y).",
        )
    try:
        labels = _by_name(y, data) if isinstance(y, Mapping) else column_or_1d(y, warn=True)
    except ValueError as error:
        raise ShapeError(
            got=f"labels that are no list ({error})", expected="one label a sequence", remedy="Pass a 1-D array."
        ) from error
    if len(labels) != data.n_sequences:
        raise ShapeError(
            got=f"{len(labels)} labels for {data.n_sequences} sequences",
            expected="one label a sequence",
            remedy="2-D arrays are one sequence a row; pass lists, a 3-D array or lengths= for all else.",
        )
    if pd.isna(labels).any() or (labels.dtype.kind == "f" and np.isinf(labels).any()):
        raise DataError(
            got="a label that is missing (NaN, None) or infinite",
            expected="a class for every sequence",
            remedy="Drop it.",
        )
    kind = type_of_target(labels, input_name="y")
    if kind not in ("binary", "multiclass"):
        raise DataError(
            got=f"labels that are no classes (Unknown label type: {kind})",
            expected="whole numbers or words",
            remedy="Cut measurements into classes first.",
        )
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < least:
        raise DataError(
            got=f"one class, {classes.tolist()[0]!r}",
            expected="two or more, to tell apart",
            remedy="Pass sequences of each class; AnomalyDetector learns from a single one.",
        )
    return classes, codes


def _by_name(y: Mapping[Any, Any], data: Sequences) -> np.ndarray:
    missing = [name for name in data.names if name not in y]
    if missing or len(y) != data.n_sequences:
        extra = [name for name in y if name not in data.names]
        raise ShapeError(
            got=f"no label of sequence {missing[0]!r}" if missing else f"a label of {extra[:1]}, which is no sequence",
            expected="a label by the name of every sequence",
            remedy="Check the names.",
        )
    return np.asarray([y[name] for name in data.names])


def class_priors(prior: Any, classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """P(c) of every class, from the constructor's argument.

    Raises
    ------
    ParameterError
        For another word, and for what are no probabilities that add up to one.
    """
    n = len(classes)
    if isinstance(prior, str) and prior in ("empirical", "uniform"):
        return np.bincount(codes, minlength=n) / len(codes) if prior == "empirical" else np.full(n, 1.0 / n)
    wrong = ParameterError(
        got=f"prior={prior!r}",
        expected=f'"empirical", "uniform", or probabilities of {classes.tolist()} that add up to 1',
        remedy="Write them in the order of classes_, or as a dict.",
    )
    labels = classes.tolist()
    if isinstance(prior, Mapping):
        if set(prior) != set(labels):
            raise wrong
        prior = [prior[label] for label in labels]
    try:
        shares = np.asarray(prior, dtype=float)
    except (TypeError, ValueError):
        raise wrong from None
    if shares.shape != (n,) or not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-8:
        raise wrong
    return shares
