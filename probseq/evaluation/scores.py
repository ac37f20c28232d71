"""Scores of forecasts against what happened. Smaller is better, except for log scores.

Functions of one value broadcast their arguments and return one score a value; NaN in, NaN out. Functions named after an
average (``mean_log_score``, ``rmse``, ``mase``) return a float and skip NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probseq._types import whole_number
from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation.crps import cloud_around, energy_score

__all__ = [
    "brier_score",
    "check_level",
    "check_levels",
    "energy_score",
    "interval_score",
    "log_mean_exp",
    "mase",
    "mean_log_score",
    "naive_scale",
    "perplexity",
    "pinball_loss",
    "ranked_probability_score",
    "rmse",
    "smape",
    "symmetric_error",
    "to_bits",
    "variogram_score",
    "weighted_quantile_loss",
]


def check_levels(level: ArrayLike, name: str = "level") -> NDArray[np.float64]:
    """Return probabilities strictly between 0 and 1 as an array.

    Raises
    ------
    ParameterError
        A level is no number, or outside (0, 1); for 90 the message says: write 0.9.
    """
    try:
        levels = np.asarray(level, float)
    except (TypeError, ValueError):
        raise ParameterError(got=f"{name}={level!r}", expected="a probability between 0 and 1") from None
    wrong = levels[~((levels > 0) & (levels < 1))]
    if wrong.size:
        first = float(wrong.flat[0])
        remedy = f"Write {first / 100:g}." if 1 < first < 100 else "Levels are probabilities, such as 0.9."
        raise ParameterError(got=f"{name}={first:g}", expected="a probability between 0 and 1", remedy=remedy)
    return levels


def check_level(level: Any) -> float:
    """Return one probability strictly between 0 and 1; a ParameterError otherwise."""
    found = check_levels(level)
    if found.ndim:
        raise ParameterError(got=f"level={level!r}", expected="one probability", remedy="Ask for one after another.")
    return float(found)


def mean_log_score(log_prob: ArrayLike) -> float:
    """Mean nats per scored value; NaN marks what is not scored.

    Raises
    ------
    EmptyDataError
        Nothing is scored.
    """
    values = np.asarray(log_prob, float)
    scored = values[~np.isnan(values)]
    if not scored.size:
        raise EmptyDataError(got="no scored value", expected="at least one value that is not missing")
    return float(scored.mean())


def to_bits(nats: ArrayLike) -> NDArray[np.float64]:
    """nats / ln 2."""
    return np.asarray(nats, float) / math.log(2)


def perplexity(log_prob: ArrayLike) -> float:
    """exp(-mean log p): the number of equally likely tokens that would be as surprising; inf beyond all numbers."""
    nats = -mean_log_score(log_prob)
    return math.exp(nats) if nats < 709.0 else math.inf


def log_mean_exp(log_prob: ArrayLike, log_weights: ArrayLike | None = None, axis: int = 0) -> NDArray[np.float64]:
    """log sum_s w_s p_s along an axis: the log score of a mixture from those of its components.

    Parameters
    ----------
    log_prob
        log p_s of every component, in nats.
    log_weights
        log w_s, broadcasting against ``log_prob``; normalised here. Equal when not given.
    axis
        the axis of the components.
    """
    values = np.asarray(log_prob, float)
    log_w = np.zeros_like(values) if log_weights is None else np.broadcast_to(log_weights, values.shape)
    return np.asarray(special.logsumexp(values + log_w, axis=axis) - special.logsumexp(log_w, axis=axis))


def pinball_loss(y: ArrayLike, quantile: ArrayLike, level: ArrayLike) -> NDArray[np.float64]:
    """(y - q) (p - 1{y < q}): what the p-quantile of y minimises in expectation.

    Source: Koenker and Bassett (1978), Econometrica 46.
    """
    p = check_levels(level)
    error = np.asarray(y, float) - np.asarray(quantile, float)
    return np.maximum(p * error, (p - 1) * error)


def weighted_quantile_loss(y: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """mean over p of 2 sum_t pinball_p(y_t, q_pt) / sum_t |y_t|. Missing values are left out of both sums.

    NaN where every value is zero.

    Source: Park et al. (2022), AISTATS, section 4 (the measure that GluonTS calls mean_wQuantileLoss).

    Parameters
    ----------
    y
        shape (*value).
    quantiles
        shape (level, *value).
    levels
        shape (level,).

    Raises
    ------
    ShapeError
        The quantiles do not have one row a level, each of the shape of ``y``.
    EmptyDataError
        Every value is missing.
    """
    y, q, p = np.asarray(y, float), np.asarray(quantiles, float), np.atleast_1d(check_levels(levels, "levels"))
    if q.shape != (p.size, *y.shape):
        raise ShapeError(
            got=f"quantiles of shape {q.shape}",
            expected=f"shape {(p.size, *y.shape)}: one level a row",
            remedy="Put the levels on the first axis.",
        )
    loss = pinball_loss(y, q, p.reshape(-1, *([1] * y.ndim)))
    scored = ~np.isnan(loss).any(0)
    if not scored.any():
        raise EmptyDataError(got="no value that is not missing", expected="at least one")
    size = float(np.abs(y[scored]).sum())
    return float(2 * loss[:, scored].sum(1).mean() / size) if size > 0 else math.nan


def interval_score(y: ArrayLike, lower: ArrayLike, upper: ArrayLike, level: ArrayLike) -> NDArray[np.float64]:
    """Winkler score (u - l) + 2/a (l - y)^+ + 2/a (y - u)^+, a = 1 - level, of a central interval.

    Source: Gneiting and Raftery (2007), JASA 102, equation 43.
    """
    alpha = 1 - check_levels(level)
    y, lower, upper = (np.asarray(a, float) for a in (y, lower, upper))
    return (upper - lower) + 2 / alpha * (np.maximum(lower - y, 0) + np.maximum(y - upper, 0))


def brier_score(y: ArrayLike, probs: ArrayLike) -> NDArray[np.float64]:
    """sum_k (p_k - 1{y = k})^2 over all categories, between 0 and 2; -1 in ``y`` marks what is missing.

    With two categories it is twice (p - y)^2, the form that many books give for binary events.

    Source: Brier (1950), Monthly Weather Review 78.

    Parameters
    ----------
    y
        labels 0..k-1, shape (*value).
    probs
        shape (*value, category).
    """
    p, hit, missing = _labels(y, probs)
    return np.where(missing, np.nan, ((p - hit) ** 2).sum(-1))


def ranked_probability_score(y: ArrayLike, probs: ArrayLike) -> NDArray[np.float64]:
    """sum_k (F_k - 1{y <= k})^2 over ordered categories; -1 in ``y`` marks what is missing.

    Source: Epstein (1969), Journal of Applied Meteorology 8, not divided by the number of categories.
    """
    p, hit, missing = _labels(y, probs)
    return np.where(missing, np.nan, ((np.cumsum(p, -1) - np.cumsum(hit, -1))[..., :-1] ** 2).sum(-1))


def _labels(y: ArrayLike, probs: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    p, label = np.asarray(probs, float), np.asarray(y)
    missing = np.isnan(label) | (label == -1)
    outside = ~missing & ((label < 0) | (label >= p.shape[-1]) | (label != np.floor(label)))
    if outside.any():
        raise ParameterError(
            got=f"label {label[outside].flat[0]:g}", expected=f"labels 0 to {p.shape[-1] - 1}", remedy="-1 is missing."
        )
    return p, np.asarray(label)[..., None] == np.arange(p.shape[-1]), missing


def rmse(y: ArrayLike, point: ArrayLike) -> float:
    """sqrt(mean (y - point)^2) over the values that are not missing.

    Raises
    ------
    ShapeError
        One is neither a single number nor of the shape of the other; so do `mase` and `smape`.
    """
    y, point = _paired(y, point)
    return math.sqrt(_mean_seen((y - point) ** 2))


def mase(y: ArrayLike, point: ArrayLike, history: ArrayLike, period: int = 1) -> float:
    """mean |y - point| / mean_t |h_t - h_{t - period}|: error relative to the seasonal naive forecast of the history.

    Below 1 is better than naive one step ahead in the history. nan where the history never changes.

    Source: Hyndman and Koehler (2006), International Journal of Forecasting 22.

    Parameters
    ----------
    y, point
        what happened and its point forecast, shape (time,) or (time, variable).
    history
        the data before it, time on the first axis.
    period
        length of a season in steps.

    Raises
    ------
    ShapeError
        The history is not longer than one period.
    """
    y, point = _paired(y, point)
    return _mean_seen(np.abs(y - point) / naive_scale(history, period), default=math.nan)


def naive_scale(history: ArrayLike, period: int = 1) -> NDArray[np.float64]:
    """mean_t |h_t - h_{t - period}| of every variable, over the pairs that are not missing; NaN where it is zero.

    Parameters
    ----------
    history
        shape (time,) or (time, variable).
    period
        length of a season in steps.

    Raises
    ------
    ParameterError
        The period is no whole number.
    ShapeError
        The history is not longer than one period.
    EmptyDataError
        No two values lie one period apart.
    """
    past = np.atleast_1d(np.asarray(history, float))
    whole_number("period", period, 1, "The number of steps in a season.")
    if not period < len(past):
        raise ShapeError(
            got=f"a history of {len(past)} steps with period={period}",
            expected="a history longer than one period",
            remedy="Pass a longer history or a smaller period.",
        )
    step = np.abs(past[period:] - past[:-period])
    if past.ndim == 1:
        scale = np.asarray(_mean_seen(step))
    else:
        scale = np.array([_mean_seen(column) for column in step.reshape(len(step), -1).T]).reshape(past.shape[1:])
    return np.where(scale > 0, scale, np.nan)


def symmetric_error(y: ArrayLike, point: ArrayLike) -> NDArray[np.float64]:
    """2 |y - point| / (|y| + |point|), between 0 and 2; 0 where both are zero.

    Source: Makridakis, Spiliotis and Assimakopoulos (2020), International Journal of Forecasting 36, equation 1.
    """
    y, point = np.broadcast_arrays(np.asarray(y, float), np.asarray(point, float))
    size = np.abs(y) + np.abs(point)
    return 2 * np.abs(y - point) / np.where(size == 0, 1.0, size)


def smape(y: ArrayLike, point: ArrayLike) -> float:
    """mean of `symmetric_error` over the values that are not missing, a share between 0 and 2 (not in percent)."""
    return _mean_seen(symmetric_error(*_paired(y, point)))


def variogram_score(
    y: ArrayLike, samples: ArrayLike, *, p: float = 0.5, weights: ArrayLike | None = None
) -> NDArray[np.float64]:
    """sum_ij w_ij (|y_i - y_j|^p - mean_m |x_mi - x_mj|^p)^2: it sees wrong dependence, and no error of level.

    Source: Scheuerer and Hamill (2015), Monthly Weather Review 143, equation 12.

    Parameters
    ----------
    y
        shape (*value, variable). To score a whole trajectory as one vector, put its steps on the last axis.
    samples
        shape (path, *value, variable).
    p
        order of the variogram, positive.
    weights
        w_ij >= 0, shape (*value, variable, variable) or what broadcasts to it; all 1 when not given.

    Raises
    ------
    ParameterError
        ``p`` is not positive.
    ShapeError
        The samples are not of the shape of ``y``.
    """
    if not p > 0:
        raise ParameterError(got=f"p={p!r}", expected="a positive order", remedy="Try 0.5.")
    y, x = cloud_around(y, samples)
    shape, d = y.shape[:-1], y.shape[-1]
    flat, cloud = y.reshape(-1, d), np.moveaxis(x, 0, -1).reshape(-1, d, x.shape[0])
    w = np.broadcast_to(1.0 if weights is None else np.asarray(weights, float), (*shape, d, d)).reshape(-1, d, d)
    score = np.zeros(len(flat))
    for row, (target, paths) in enumerate(zip(flat, cloud, strict=True)):
        for i in range(d - 1):
            rest = slice(i + 1, None)
            expected = (np.abs(paths[rest] - paths[i]) ** p).mean(1)
            seen = np.abs(target[rest] - target[i]) ** p
            score[row] += ((w[row, i, rest] + w[row, rest, i]) * (seen - expected) ** 2).sum()
    return score.reshape(shape)


def _paired(y: ArrayLike, point: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Arrays of one shape, or one of them a single number: broadcasting a column against a row pairs all with all."""
    a, b = np.asarray(y, float), np.asarray(point, float)
    if a.ndim and b.ndim and a.shape != b.shape:
        raise ShapeError(
            got=f"values of shape {a.shape} and forecasts of shape {b.shape}",
            expected="one forecast a value",
            remedy="Reshape one of them, such as by .ravel().",
        )
    return a, b


def _mean_seen(values: NDArray[np.float64], default: float | None = None) -> float:
    seen = values[~np.isnan(values)]
    if seen.size:
        return float(seen.mean())
    if default is not None:
        return default
    raise EmptyDataError(got="no value that is not missing", expected="at least one")
