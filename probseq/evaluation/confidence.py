"""Which of many models may be the best: a set that holds the truth with a known probability."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.errors import EmptyDataError, ShapeError
from probseq.evaluation.uncertainty import default_lag, hac_degrees, hac_factor, window_sums

__all__ = ["model_confidence_set"]


def model_confidence_set(
    scores: ArrayLike, *, lag: int | None = None, n_draws: int = 5000, random_state: RandomState = 0
) -> NDArray[np.float64]:
    """p-values of the model confidence set: the models with p >= a hold the best with probability 1 - a.

    While more than one model is left, equal predictive ability is tested by T = max_i t_i with
    t_i = (mean of all models left - mean of i) / se_i. The model of the largest t_i leaves, with the largest p-value of
    the tests so far; the last one has p = 1. A model that gave probability zero leaves first, with p = 0.

    The law of T under equality is that of draws from a multivariate Student t whose covariance is that of the means:
    the one of ``hac_mean`` for one sequence, of ``clustered_mean`` for several. So for two models p is that of
    ``paired_difference``, up to the error of the draws. Approximate: first order in the number of values, or sequences.

    Source: Hansen, Lunde and Nason (2011), Econometrica 79, section 3.1.2 (the statistic T_max; they draw its law by
    resampling blocks).

    Parameters
    ----------
    scores
        scores of which more is better, such as nats, shape (sequence, time, model); a step with NaN in any model is
        missing, its place in time counts.
    lag
        autocovariances that count, as in ``hac_mean``.
    n_draws
        draws of the errors.
    random_state
        seed of the draws.

    Returns
    -------
    p-values, shape (model,).

    Raises
    ------
    ShapeError
        The scores have no such shape.
    EmptyDataError
        No step is scored by all models.
    ParameterError
        ``lag`` is no whole number from 0, or ``n_draws`` none from 1.
    """
    table = np.asarray(scores, float)
    if table.ndim != 3 or table.shape[-1] == 0:
        raise ShapeError(got=f"scores of shape {table.shape}", expected="shape (sequence, time, model)")
    whole_number("n_draws", n_draws, 1, "Try n_draws=5000.")
    lag = None if lag is None else whole_number("lag", lag, 0, "Leave it out.")
    seen = ~np.isnan(table).any(-1)
    if not seen.any():
        raise EmptyDataError(got="no step that every model scores", expected="at least one common step")
    possible = np.flatnonzero(np.isfinite(table[seen]).all(0))
    p = np.zeros(table.shape[-1])
    if not possible.size:
        return p
    # Against the best, so that equal models differ by nothing; in an order that is not that of the columns.
    order = possible[np.argsort(-table[seen][:, possible].mean(0), kind="stable")]
    behind = np.where(seen[..., None], table[..., order] - table[..., order[:1]], 0.0)
    mean = behind.sum((0, 1)) / seen.sum()
    covariance, degrees = _covariance(np.where(seen[..., None], behind - mean, 0.0), seen, lag)
    p[order] = _eliminate(mean, covariance, degrees, n_draws, numpy_generator(random_state))
    return p


def _covariance(
    errors: NDArray[np.float64], seen: NDArray[np.bool_], lag: int | None
) -> tuple[NDArray[np.float64], float]:
    """Covariance (m, m) of the mean scores from errors (n, t, m), zero where not seen, and its degrees of freedom."""
    filled, n = np.flatnonzero(seen.any(1)), int(seen.sum())
    if len(filled) > 1:
        sums, degrees = errors[filled].sum(1), len(filled) - 1.0
        return sums.T @ sums * (len(filled) / degrees / n**2), degrees
    lag = default_lag(n) if lag is None else min(lag, n - 1)
    window, factor = window_sums(errors[filled[0]], lag), hac_factor(n, lag)
    if not math.isfinite(factor):
        return np.zeros((errors.shape[-1],) * 2), 0.0
    return window.T @ window * (factor / (lag + 1) / n**2), hac_degrees(n, lag)


def _eliminate(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    degrees: float,
    n_draws: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """p-values (m,) from the mean scores (m,) and their covariance; without degrees of freedom none is told apart."""
    p = np.ones(len(mean))
    if degrees <= 0:
        return p
    values, vectors = np.linalg.eigh(covariance)
    draws = generator.standard_normal((n_draws, len(mean))) @ (vectors * np.sqrt(values.clip(0.0))).T
    draws *= np.sqrt(degrees / generator.chisquare(degrees, (n_draws, 1)))
    # What rounding leaves of the difference of equal models.
    least, nothing = 1e-8 * math.sqrt(values.max(initial=0.0)), 1e-12 * np.abs(mean).max()
    left, largest = list(range(len(mean))), 0.0
    while len(left) > 1:
        gap = mean[left].mean() - mean[left]
        part = covariance[np.ix_(left, left)]
        se = np.sqrt((part.mean() + np.diag(part) - 2 * part.mean(0)).clip(0.0))
        error = draws[:, left].mean(1, keepdims=True) - draws[:, left]
        varies = se > least
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(varies, gap / se, np.where(np.abs(gap) > nothing, np.sign(gap) * np.inf, 0.0))
            top = np.where(varies, error / se, 0.0).max(1)
        largest = max(largest, float((top >= t.max()).mean()))
        worst = left.pop(int(np.argmax(t)))
        p[worst] = largest
    return p
