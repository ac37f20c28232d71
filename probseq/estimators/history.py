"""What a past says of the training data: whether it begins with them, and what came after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences
from probseq.data.timeindex import is_default, is_numeric
from probseq.estimators.pipeline import model_inputs

__all__ = [
    "before_the_end",
    "fingerprint",
    "follow",
    "replayed_steps",
    "rest_of",
    "rows_of",
    "same_stamps",
    "without_inputs",
]


def without_inputs(data: Sequences) -> Sequences:
    """The data without their covariates and static features."""
    if data.covariates is None and data.static is None:
        return data
    return replace(data, covariates=None, covariate_names=(), static=None, static_names=())


def fingerprint(data: Sequences) -> str:
    """What tells training data from others: values, lengths and names, whatever inputs stand beside them."""
    return without_inputs(data).fingerprint()


def before_the_end(data: Sequences) -> Sequences:
    """Texts without their end tokens: to go on after them, they must not have ended."""
    words = data.vocabulary
    if words is None or words.end is None:
        return data
    last = data.values[np.arange(data.n_sequences), data.lengths - 1, 0]
    ended = last == words.end_code
    if not ended.any() or (data.lengths <= ended).any():
        return data
    return data.slice_time(0, data.lengths - ended)


def follow(past: Sequences, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``past`` that ``data`` continue, and the missing steps between, both (n,)."""
    last = past.slice_time(past.lengths - 1, past.lengths)
    if not any(map(is_numeric, data.index)):
        # Dates follow steps that were only counted directly.
        counted = (is_numeric(own) and own[0] == n - 1 for own, n in zip(last.index, past.n_steps, strict=True))
        index = (pd.RangeIndex(1) if alone else own for alone, own in zip(counted, last.index, strict=True))
        last = replace(last, index=tuple(index))
    joined = data.concat_history(last)
    return rows_of(past, data), joined.lengths - data.lengths - 1


def rows_of(past: Sequences, data: Sequences) -> np.ndarray:
    """Rows of ``past`` that ``data`` continue, (n,)."""
    if past.n_sequences == data.n_sequences == 1:
        return np.zeros(1, dtype=int)
    at = {name: i for i, name in enumerate(past.names)}
    return np.array([at[name] for name in data.names])


def same_stamps(past: Sequences, training: Sequences | None) -> bool:
    """Whether a past has no stamps other than those of the training data, of which the last are enough."""
    if training is None or past.n_sequences != training.n_sequences:
        return False
    return all(
        is_default(own) or own[-len(known) :].equals(known)
        for own, known in zip(past.index, training.index, strict=True)
    )


def replayed_steps(past: Sequences, training: Sequences | None, mark: str | None) -> np.ndarray | None:
    """How many first steps of each sequence of a past are the training data, (n,); None unless they all are there.

    Parameters
    ----------
    past : Sequences
        Texts without their ends, unless they were read with them.
    training : Sequences or None
        The training data, of which only labels are needed.
    mark : str or None
        The fingerprint of the training data.
    """
    if training is None or mark is None:
        return None
    steps = np.array(training.n_steps, dtype=np.int64)
    if past.n_sequences != len(steps) or (past.lengths < steps).any():
        return None
    first = past.slice_time(0, steps)
    return steps if mark in (fingerprint(first), fingerprint(_ended(first))) else None


def _ended(data: Sequences) -> Sequences:
    """Texts with an end token behind each, where the vocabulary has one."""
    end = None if data.vocabulary is None else data.vocabulary.end_code
    if end is None:
        return data
    values = np.concatenate([data.values, np.full((data.n_sequences, 1, 1), np.nan)], 1)
    values[np.arange(data.n_sequences), data.lengths, 0] = end
    return replace(without_inputs(data), values=values, lengths=data.lengths + 1)


def rest_of(data: Sequences, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Values (n, t, k), lengths (n,) and inputs (n, t, m) behind the first ``steps`` (n,) of each sequence."""
    lengths = data.lengths - steps
    at = np.minimum(steps[:, None] + np.arange(int(lengths.max())), data.max_length - 1)
    rows, inputs = np.arange(data.n_sequences)[:, None], model_inputs(data)
    return data.values[rows, at], lengths, None if inputs is None else inputs[rows, at]
