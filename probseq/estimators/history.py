"""What a past says of the training data: whether it begins with them, and what came after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from probseq.data.sequences import Sequences
from probseq.estimators.pipeline import model_inputs

__all__ = ["before_the_end", "fingerprint", "replayed_steps", "rest_of", "without_inputs"]


def without_inputs(data: Sequences) -> Sequences:
    """The data without their covariates and static features."""
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
