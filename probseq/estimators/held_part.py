"""A part of the data that a model is not fitted to, and what the model says of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from probseq.data.sequences import Sequences
from probseq.errors import DataError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import model_inputs
from probseq.models.base import map_state
from probseq.results.backends import Backend

__all__ = ["Ahead", "HeldPart", "hold_out", "trajectories"]


class HeldPart(NamedTuple):
    """Data cut in two."""

    first: Sequences
    """What the model is fitted to."""
    rest: Sequences
    """What it is not fitted to."""
    past: Sequences | None
    """What came before ``rest``: ``first`` for one sequence, nothing for other sequences."""


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
        return HeldPart(data.select(kept), data.select(chosen), None)
    length = int(data.lengths[0])
    cut = length - round(share * length)
    if not 0 < cut < length:
        raise DataError(
            got=f"n_samples={length}: one sequence too short to be split for calibration",
            expected="steps to fit the model, and others to calibrate it",
            remedy="Pass more data, or calibration=.",
        )
    first = data.slice_time(0, cut)
    return HeldPart(first, data.slice_time(cut), first)


class Ahead(NamedTuple):
    """Forecasts from every step of held data, in the order of their sequences and steps."""

    backend: Backend
    """laws of (origin, horizon, variable)"""
    values: np.ndarray
    """what came, (origin, horizon, variable); NaN is missing"""


def trajectories(
    model: SequenceEstimator,
    rest: Sequences,
    past: Sequences | None,
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
    data = model._read(rest)
    state = model._begin(data, past)
    law, batch = model.model_, model._batch(data)
    with torch.no_grad():
        start = law.initial_state({}, batch.n) if state is None else state
        along = law._scan({}, batch, start).states
    row, at = np.nonzero(data.mask())
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
    inside = np.minimum(steps, data.max_length - 1)
    there = steps < data.lengths[row][:, None]
    values = np.where(there[..., None], data.values[row[:, None], inside], np.nan)
    inputs = model_inputs(data) if law.n_covariates else None
    future = None if inputs is None else np.nan_to_num(inputs[row[:, None], inside])
    _, backend, _ = model._ahead(tree, horizon, future, n_paths, seed)
    return Ahead(backend, values)
