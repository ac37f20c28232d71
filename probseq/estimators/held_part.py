"""A part of the data that a model is not fitted to, and what the model says of it."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from probseq._types import Record
from probseq.data.covariates import plain_names
from probseq.data.sequences import Sequences
from probseq.errors import DataError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.history import before_the_end, rest_of
from probseq.estimators.pipeline import model_inputs
from probseq.models.base import map_state
from probseq.results.backends import Backend
from probseq.results.joint import make_batch

__all__ = ["Ahead", "HeldPart", "HeldValues", "behind", "hold_out", "trajectories"]


class HeldPart(NamedTuple):
    """Data cut in two."""

    first: Sequences
    """What the model is fitted to."""
    rest: Sequences
    """What it is not fitted to."""
    rows: np.ndarray | None
    """Which of many sequences ``first`` are; None where it is the first steps of one, and ``rest`` follows it."""


def hold_out(data: Sequences, share: float) -> HeldPart:
    """Hold out the last steps of one sequence, or every so many of many sequences.

    Raises
    ------
    DataError
        For a single sequence of too few steps.
    """
    n = data.n_sequences
    if n > 1:
        m = min(n - 1, max(1, round(share * n)))
        chosen = np.floor((np.arange(m) + 0.5) * n / m).astype(int)
        kept = np.setdiff1d(np.arange(n), chosen)
        return HeldPart(data.select(kept), data.select(chosen), kept)
    length = int(data.lengths[0])
    cut = length - round(share * length)
    if not 0 < cut < length:
        raise DataError(
            got=f"n_samples={length}: one sequence too short to be split for calibration",
            expected="steps to fit the model, and others to calibrate it",
            remedy="Pass more data, or calibration=.",
        )
    return HeldPart(data.slice_time(0, cut), data.slice_time(cut), None)


def behind(model: SequenceEstimator, data: Sequences, rows: np.ndarray | None) -> SequenceEstimator:
    """The fitted model, unchanged, with all of the data as what it continues.

    Parameters
    ----------
    model : fitted to some of the data, which therefore do not weigh its draws; the others do
    data : Sequences
    rows : which of the sequences it was fitted to; None where it was fitted to the first steps of one
    """
    data = model._read(data)
    past, law, known = before_the_end(data), model.model_, model._training()
    if rows is None:
        steps, start = np.minimum(known[0].lengths, past.lengths), known[1]
    else:
        steps, at = np.zeros_like(past.lengths), torch.as_tensor(rows)
        steps[rows] = past.lengths[rows]
        fresh = law.initial_state({}, past.n_sequences)
        start = map_state(lambda all_rows, some: all_rows.index_copy(0, at, some), fresh, known[1])
    values, lengths, inputs = rest_of(past, steps)
    with torch.no_grad():
        state = law.filter({}, make_batch(law, values, lengths, inputs), start) if lengths.any() else start
    other = copy(model)
    other.training_, other._fitted_to, other.training_state_ = past, data, state
    other.__dict__.pop("training_fingerprint_", None)
    return other


@dataclass(frozen=True)
class HeldValues(Record):
    """What a fitted model has not seen, as it reads it.

    Parameters
    ----------
    values : array (n, t, k), NaN where missing and beyond the lengths
    lengths : array (n,)
    inputs : array (n, t, m) or None
    variables : tuple of names
    follows : bool
        Whether these are the steps behind the training data.
    """

    values: np.ndarray
    lengths: np.ndarray
    inputs: np.ndarray | None
    variables: tuple[Any, ...]
    follows: bool

    @classmethod
    def of(cls, data: Sequences, follows: bool) -> HeldValues:
        """From data that the model has read."""
        return cls(data.values, data.lengths, model_inputs(data), plain_names(data.variables), follows)


class Ahead(NamedTuple):
    """Forecasts from every step of held data, in the order of their sequences and steps."""

    backend: Backend
    """laws of (origin, horizon, variable)"""
    values: np.ndarray
    """what came, (origin, horizon, variable); NaN is missing"""


def trajectories(
    model: SequenceEstimator,
    held: HeldValues,
    horizon: int,
    *,
    most: int = 500,
    n_paths: int = 1000,
    seed: int = 0,
) -> Ahead:
    """Forecast ``horizon`` steps from before each step of held data, or from ``most`` of these steps.

    The states at all steps come from one pass along the data, the forecasts are one batch.

    Raises
    ------
    DataError
        If no step can be forecast from.
    """
    law, lengths = model.model_, held.lengths
    start = model._training()[1] if held.follows else law.initial_state({}, len(lengths))
    with torch.no_grad():
        along = law._scan({}, make_batch(law, held.values, lengths, held.inputs), start).states
    longest = held.values.shape[1]
    row, at = np.nonzero(np.arange(longest) < lengths[:, None])
    if len(row) > most:
        some = np.floor((np.arange(most) + 0.5) * len(row) / most).astype(int)
        row, at = row[some], at[some]
    i, j = torch.as_tensor(row), torch.as_tensor(at)
    tree: Any = map_state(lambda leaf: leaf[i, j], along)
    with torch.no_grad():
        ready = law.scores_next(tree)
    if ready is not None:
        able = ready.all(-1)
        tree, row, at = map_state(lambda leaf: leaf[able], tree), row[able.numpy()], at[able.numpy()]
    if not len(row):
        raise DataError(
            got="held data from which nothing can be forecast",
            expected="more steps than the model conditions on",
            remedy="Pass more data.",
        )
    steps = at[:, None] + np.arange(horizon)
    inside = np.minimum(steps, longest - 1)
    there = steps < lengths[row][:, None]
    values = np.where(there[..., None], held.values[row[:, None], inside], np.nan)
    inputs = held.inputs if law.n_covariates else None
    future = None if inputs is None else np.nan_to_num(inputs[row[:, None], inside])
    _, backend, _ = model._ahead(tree, horizon, future, n_paths, seed)
    return Ahead(backend, values)
