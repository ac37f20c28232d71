"""How sure is a mean score, or a difference of two?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation.scores import check_levels

__all__ = ["MeanEstimate", "clustered_mean", "hac_mean", "paired_difference"]

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
        alpha = 1 - float(check_levels(level))
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


def hac_mean(x: ArrayLike, lag: int | None = None) -> MeanEstimate:
    """Mean of one series and its standard error when neighbours are correlated.

    se^2 = (g_0 + 2 sum_{k=1}^{L} (1 - k / (L + 1)) g_k) / n with autocovariances g_k (Newey and West 1987), times
    n^2 / (n^2 + n (1 - 2 h) + h (h - 1)), h = L + 1, the small-sample correction of Harvey, Leybourne and Newbold
    (1997, IJF 13, equation 9), with t quantiles of n - 1 degrees of freedom. With L = 0 it is s / sqrt(n).

    Parameters
    ----------
    x
        shape (time,); NaN is missing: its products are left out of g_k, its place in time counts.
    lag
        L. Not given: floor(4 (n / 100)^(2/9)), at most n - 1. For errors of h-step forecasts take at least h - 1.

    Raises
    ------
    EmptyDataError
        Every value is missing.
    ParameterError
        The lag is negative.
    """
    x = np.asarray(x, float)
    if x.ndim != 1:
        raise ShapeError(got=f"values of shape {x.shape}", expected="one series", remedy="Use clustered_mean for many.")
    seen = ~np.isnan(x)
    n = int(seen.sum())
    if n == 0:
        raise EmptyDataError(got="no value that is not missing", expected="at least one")
    if lag is None:
        lag = math.floor(4 * (n / 100) ** (2 / 9))
    if lag < 0:
        raise ParameterError(got=f"lag={lag}", expected="a number of steps, 0 or more")
    lag = min(lag, n - 1)
    mean = float(x[seen].mean())
    error = np.where(seen, x - mean, 0.0)
    variance = float(error @ error)
    for k in range(1, lag + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(error[k:] @ error[:-k])
    variance = max(variance, 0.0) / n**2
    h = lag + 1
    correction = (n + 1 - 2 * h + h * (h - 1) / n) / n
    se = math.sqrt(variance / correction) if n > 1 and correction > 0 else math.nan
    return MeanEstimate(mean, se, n - 1, n, "hac", n >= _FEW)


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
    mean = float(x[seen].mean())
    group, index = np.unique(labels[seen], return_inverse=True)
    sums = np.bincount(index.ravel(), weights=x[seen] - mean)
    g = len(group)
    se = math.sqrt(g / (g - 1) * float(sums @ sums)) / n if g > 1 else math.nan
    return MeanEstimate(mean, se, g - 1, n, "cluster", g >= 10)


def paired_difference(a: ArrayLike, b: ArrayLike, lag: int | None = None) -> MeanEstimate:
    """Mean of a - b over the values that both score, with its standard error.

    Many sequences: clustered by sequence. One: ``hac_mean`` along time.

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
    difference = a - b
    if len(difference) == 1:
        return hac_mean(difference[0], lag)
    return clustered_mean(difference, np.arange(len(difference))[:, None])
