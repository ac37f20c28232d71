"""Held-out scores by refitting: folds of sequences, or growing windows of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from sklearn.base import clone

from probseq._random import RandomState, numpy_generator
from probseq._types import one_of, whole_number
from probseq.data.sequences import Sequences, sequences
from probseq.errors import ParameterError, ShapeError
from probseq.estimators.base import SequenceEstimator
from probseq.evaluation.uncertainty import clustered_mean, hac_mean

__all__ = ["cross_validate"]


def cross_validate(
    estimator: SequenceEstimator,
    X: Any,
    by: str = "sequence",
    n_splits: int = 5,
    *,
    lengths: Any = None,
    covariates: Any = None,
    static: Any = None,
    random_state: RandomState = None,
) -> xr.Dataset:
    """Mean log p of values that a model was not fitted to, in nats per value, fold by fold.

    Parameters
    ----------
    estimator : SequenceEstimator
        Cloned and fitted anew for every fold, with its transforms.
    X : data in any form
    by : "sequence" or "time"
        "sequence" holds out one of ``n_splits`` groups of whole sequences at a time. "time" cuts every sequence into
        ``n_splits`` + 1 parts of equal length: fold i is fitted to the first i parts and scored on the next one, with
        the parts before it as its history.
    n_splits : int
    random_state : int, Generator or None
        For "sequence": shuffles the sequences before they are dealt to the folds; None deals them in turn.

    Returns
    -------
    Dataset
        ``score`` (fold), nats per scored value, and ``n_values`` (fold). ``mean`` is the mean over all held-out values
        and ``standard_error`` its error: clustered by sequence, or for one sequence by Newey and West along time. The
        errors take the fits as given; those of "time" with few sequences are rough.

    Raises
    ------
    ParameterError
        For an unknown ``by`` or fewer than two folds (one, for "time").
    ShapeError
        For fewer sequences than folds, or steps than parts.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.earthquakes()
    >>> folds = ps.cross_validate(ps.HMM(2, ps.Poisson(), random_state=0), y, by="time", n_splits=3)
    >>> folds.score.sizes["fold"], bool(folds["mean"] > -4)
    (3, True)
    """
    if not isinstance(estimator, SequenceEstimator):
        raise ParameterError(
            got=f"estimator={estimator!r}",
            expected="one estimator, such as ps.HMM(2)",
            remedy="Call cross_validate for each model by itself, or ps.compare for a table of fitted ones.",
        )
    data = sequences(X, lengths=lengths, covariates=covariates, static=static)
    least = 1 if by == "time" else 2
    one_of("by", by, ("sequence", "time"))
    whole_number("n_splits", n_splits, least, "Try n_splits=5.")
    if by == "sequence":
        folds = _by_sequence(estimator, data, int(n_splits), random_state)
    else:
        folds = _by_time(estimator, data, int(n_splits))
    values, owners, rates = [], [], []
    for steps, counts, rows in folds:
        shown = counts > 0
        values.append(steps[shown])
        owners.append(np.broadcast_to(rows[:, None], counts.shape)[shown])
        rates.append(counts[shown])
    return _summary(values, rates, owners, data.n_sequences)


Fold = tuple[np.ndarray, np.ndarray, np.ndarray]
"""log p of each held-out step (n, t), how many values it has (n, t), and whose steps they are (n,)."""


def _by_sequence(estimator: SequenceEstimator, data: Sequences, n_splits: int, random_state: RandomState) -> list[Fold]:
    n = data.n_sequences
    if n < n_splits:
        raise ShapeError(
            got=f"{n} sequence{'s' * (n != 1)} for {n_splits} folds",
            expected="at least one sequence a fold",
            remedy='Use fewer folds, or by="time" for one long sequence.',
        )
    order = np.arange(n) if random_state is None else numpy_generator(random_state).permutation(n)
    folds = []
    for i in range(n_splits):
        held = np.sort(order[i::n_splits])
        fitted = clone(estimator).fit(data.select(np.setdiff1d(order, held)))
        folds.append((*_scores(fitted, data.select(held), None), held))
    return folds


def _by_time(estimator: SequenceEstimator, data: Sequences, n_splits: int) -> list[Fold]:
    shortest = int(data.lengths.min())
    if shortest < n_splits + 1:
        raise ShapeError(
            got=f"a sequence of {shortest} steps for {n_splits} folds",
            expected=f"at least {n_splits + 1} steps",
            remedy="Use fewer folds, or leave short sequences out.",
        )
    rows = np.arange(data.n_sequences)
    cuts = [np.floor(data.lengths * i / (n_splits + 1)).astype(int) for i in range(1, n_splits + 2)]
    folds = []
    for stop, end in zip(cuts[:-1], cuts[1:], strict=True):
        past = data.slice_time(None, stop)
        fitted = clone(estimator).fit(past)
        folds.append((*_scores(fitted, data.slice_time(stop, end), past), rows))
    return folds


def _scores(fitted: SequenceEstimator, held: Sequences, history: Sequences | None) -> tuple[np.ndarray, np.ndarray]:
    data = fitted._read(held)
    steps = fitted._steps(data, fitted._begin(data, history))
    return steps.values.double().numpy(), steps.scored.sum(-1).numpy()


def _summary(
    values: list[np.ndarray], rates: list[np.ndarray], owners: list[np.ndarray], n_sequences: int
) -> xr.Dataset:
    n_values = np.array([rate.sum() for rate in rates])
    with np.errstate(invalid="ignore"):
        score = np.array([value.sum() for value in values]) / n_values
    total, weight = np.concatenate(values), np.concatenate(rates)
    mean = float(total.sum() / weight.sum()) if weight.sum() else np.nan
    error = np.nan
    if len(total) > 1 and np.isfinite(total).all():
        # The error of a ratio of sums, by its linearisation: residuals of each step around the mean.
        apart = (total - mean * weight) / weight.mean()
        found = clustered_mean(apart, np.concatenate(owners)) if n_sequences > 1 else hac_mean(apart)
        error = found.standard_error
    attrs = {"units": "nats per value"}
    return xr.Dataset(
        {
            "score": ("fold", score, attrs),
            "n_values": ("fold", n_values),
            "mean": ((), mean, attrs),
            "standard_error": ((), error, attrs),
        },
        coords={"fold": np.arange(len(values))},
    )
