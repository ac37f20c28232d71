"""How sure is a mean score, or a difference of two?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probseq._types import whole_number
from probseq.errors import EmptyDataError, ShapeError
from probseq.evaluation.scores import check_level

__all__ = [
    "MeanEstimate",
    "clustered_mean",
    "default_lag",
    "hac_degrees",
    "hac_factor",
    "hac_mean",
    "paired_difference",
    "window_sums",
]

_FEW = 50
"""Below this many values the errors of a time series are flagged as unreliable."""


class MeanEstimate(NamedTuple):
    """A mean with its standard error."""

    mean: float
    standard_error: float
    """nan where it cannot be estimated (one value, one cluster)"""
    df: float
    """degrees of freedom of the t distribution that (mean - truth) / standard_error follows, approximately"""
    n_values: int
    method: str
    """"hac" or "cluster" """
    reliable: bool
    """False below 50 values of one series, or 10 clusters"""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval mean -+ t standard_error."""
        alpha = 1 - check_level(level)
        if not self.df > 0:
            return math.nan, math.nan
        half = -float(special.stdtrit(self.df, alpha / 2)) * self.standard_error
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the true mean is zero."""
        if not self.df > 0 or math.isnan(self.standard_error):
            return math.nan
        if self.standard_error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return float(2 * special.stdtr(self.df, -abs(self.mean / self.standard_error)))


def default_lag(n: int) -> int:
    """Autocovariances that count by default: ceil(1.3 sqrt(n)) - 1 of n values, less than n / 2.

    Source: Lazarus, Lewis, Stock and Watson (2018), HAR inference: recommendations for practice, Journal of Business
    and Economic Statistics 36. The older 4 (n / 100)^(2/9) tests too often: where a series has autocorrelation 0.5, it
    calls 9 % of 200 values significant at 5 %, and this one 5 %.
    """
    return max(1, min(math.ceil(1.3 * math.sqrt(n)), n // 2)) - 1


def hac_factor(n: int, lag: int) -> float:
    """n^2 / (n^2 + n (1 - 2 h) + h (h - 1)), h = lag + 1, for a variance, as centred errors vary too little.

    Source: Harvey, Leybourne and Newbold (1997), International Journal of Forecasting 13, equation 9. Infinite for a
    lag of n - 1.
    """
    h = lag + 1
    left = (n + 1 - 2 * h + h * (h - 1) / n) / n
    return 1 / left if left > 0 else math.inf


def hac_degrees(n: int, lag: int) -> float:
    """min(n - 1, 3 n / (2 h)), h = lag + 1: degrees of freedom of a variance with Bartlett weights.

    Source: 1 / (b int k(x)^2 dx) with b = h / n, Lazarus, Lewis, Stock and Watson (2018), section 3.
    """
    return min(n - 1.0, 1.5 * n / (lag + 1))


def window_sums(errors: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Sums (t + lag, ...) of errors (t, ...) over all windows of h = lag + 1 steps, also those over the ends.

    Their products add up to h times sum_k (1 - |k| / h) of the products of errors that are k steps apart.
    """
    zero = np.zeros((lag + 1, *errors.shape[1:]))
    total = np.concatenate([zero, np.cumsum(errors, 0)])
    total = np.concatenate([total, np.repeat(total[-1:], lag, 0)])
    return total[lag + 1 :] - total[: -lag - 1]


def hac_mean(x: ArrayLike, lag: int | None = None) -> MeanEstimate:
    """Mean of one series and its standard error when neighbours are correlated.

    se^2 = (g_0 + 2 sum_{k=1}^{L} (1 - k / (L + 1)) g_k) / n with autocovariances g_k (Newey and West 1987), times the
    small-sample correction ``hac_factor``, with t quantiles of ``hac_degrees`` degrees of freedom. With L = 0 it is
    s / sqrt(n) with n - 1.

    Parameters
    ----------
    x
        shape (time,); NaN is missing: its products are left out of g_k, its place in time counts.
    lag
        L, at most n - 1. Not given: ``default_lag``. For errors of h-step forecasts take at least h - 1.

    Raises
    ------
    ShapeError
        Not one series.
    EmptyDataError
        Every value is missing.
    ParameterError
        The lag is no whole number from 0.
    """
    x = np.asarray(x, float)
    if x.ndim != 1:
        raise ShapeError(got=f"values of shape {x.shape}", expected="one series", remedy="Use clustered_mean for many.")
    seen = ~np.isnan(x)
    n = int(seen.sum())
    if n == 0:
        raise EmptyDataError(got="no value that is not missing", expected="at least one")
    lag = default_lag(n) if lag is None else min(int(whole_number("lag", lag, 0, "Leave it out.")), n - 1)
    with np.errstate(invalid="ignore"):
        mean = float(x[seen].mean())
    if not math.isfinite(mean):
        return MeanEstimate(mean, math.nan, hac_degrees(n, lag), n, "hac", False)
    window = window_sums(np.where(seen, x - mean, 0.0), lag)
    factor = hac_factor(n, lag)
    se = math.sqrt(float(window @ window) / (lag + 1) * factor) / n if math.isfinite(factor) else math.nan
    return MeanEstimate(mean, se, hac_degrees(n, lag), n, "hac", n >= _FEW)


def clustered_mean(x: ArrayLike, clusters: ArrayLike) -> MeanEstimate:
    """Mean of all values and its standard error when values of one cluster are correlated in any way.

    se^2 = G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2 over G clusters, with t quantiles of G - 1 degrees of
    freedom. Exact for equal clusters, first order otherwise.

    Source: Cameron and Miller (2015), Journal of Human Resources 50, section II.

    Parameters
    ----------
    x
        any shape; NaN is missing.
    clusters
        labels that broadcast against ``x``; for scores (sequence, time) pass ``np.arange(n)[:, None]``.
    """
    x, labels = np.broadcast_arrays(np.asarray(x, float), np.asarray(clusters))
    seen = ~np.isnan(x)
    n = int(seen.sum())
    if n == 0:
        raise EmptyDataError(got="no value that is not missing", expected="at least one")
    with np.errstate(invalid="ignore"):
        mean = float(x[seen].mean())
    group, index = np.unique(labels[seen], return_inverse=True)
    g = len(group)
    if not math.isfinite(mean):
        return MeanEstimate(mean, math.nan, g - 1, n, "cluster", False)
    sums = np.bincount(index.ravel(), weights=x[seen] - mean)
    se = math.sqrt(g / (g - 1) * float(sums @ sums)) / n if g > 1 else math.nan
    return MeanEstimate(mean, se, g - 1, n, "cluster", g >= 10)


def paired_difference(a: ArrayLike, b: ArrayLike, lag: int | None = None) -> MeanEstimate:
    """Mean of a - b over the values that both score, with its standard error.

    Many sequences: clustered by sequence. One, or one that has values: ``hac_mean`` along time. NaN where both models
    have the same infinite score.

    Source: Diebold and Mariano (1995), Journal of Business and Economic Statistics 13.

    Parameters
    ----------
    a, b
        scores of two models, shape (sequence, time), NaN where a model does not score.
    lag
        as in ``hac_mean``.

    Raises
    ------
    ShapeError
        The tables differ in shape.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 2 or a.shape != b.shape:
        raise ShapeError(
            got=f"scores of shapes {a.shape} and {b.shape}",
            expected="two tables (sequence, time) of the same values",
            remedy="NaN marks what a model does not score.",
        )
    with np.errstate(invalid="ignore"):
        difference = a - b
    filled = np.flatnonzero(~np.isnan(difference).all(1))
    if (np.isinf(a) & (a == b)).any():
        n = int((~np.isnan(a) & ~np.isnan(b)).sum())
        return MeanEstimate(math.nan, math.nan, math.nan, n, "hac" if len(a) == 1 else "cluster", False)
    if len(filled) == 1:
        return hac_mean(difference[filled[0]], lag)
    return clustered_mean(difference, np.arange(len(difference))[:, None])
