"""Tests of residuals that are independent and standard normal if a model is right; NaN is missing."""

from __future__ import annotations

import numpy as np
from scipy import stats

__all__ = ["autocorrelations", "heteroskedasticity", "jarque_bera", "ljung_box", "partial_autocorrelations"]

Test = tuple[float, float, float]
"""Statistic, degrees of freedom, p-value."""


def autocorrelations(z: np.ndarray, n_lags: int, breaks: tuple[int, ...] = ()) -> np.ndarray:
    """r_1, ..., r_n of values (t,): sums over the pairs that are there, over the sum of squares.

    ``breaks`` are steps where a new sequence begins: pairs across them do not count.
    """
    seen = np.isfinite(z)
    block = np.searchsorted(np.asarray(breaks, dtype=int), np.arange(len(z)), side="right")
    x = np.where(seen, z - (z[seen].mean() if seen.any() else 0.0), 0.0)
    power = float(x @ x)
    lags = range(1, n_lags + 1)
    sums = [float((x[lag:] * x[:-lag] * (block[lag:] == block[:-lag])).sum()) if lag < len(x) else 0.0 for lag in lags]
    return np.array(sums) / power if power > 0 else np.zeros(n_lags)


def partial_autocorrelations(r: np.ndarray) -> np.ndarray:
    """From autocorrelations r_1, ..., r_n by the recursion of Durbin (1960) and Levinson."""
    phi = np.zeros(0)
    found = []
    for k in range(len(r)):
        top = r[k] - phi @ r[:k][::-1]
        bottom = 1.0 - phi @ r[:k]
        last = top / bottom if bottom > 0 else 0.0
        phi = np.append(phi - last * phi[::-1], last)
        found.append(last)
    return np.array(found)


def ljung_box(z: np.ndarray, lags: int, n_fitted: int, breaks: tuple[int, ...] = ()) -> Test:
    """Q = n (n + 2) sum_k r_k^2 / (n - k), chi-squared with lags - n_fitted degrees of freedom.

    References
    ----------
    Ljung and Box (1978), On a measure of lack of fit in time series models, Biometrika 65.
    """
    n = int(np.isfinite(z).sum())
    r = autocorrelations(z, lags, breaks)
    statistic = float(n * (n + 2) * (r**2 / np.maximum(n - np.arange(1, lags + 1), 1)).sum())
    df = lags - n_fitted
    return statistic, float(df), float(stats.chi2.sf(statistic, df)) if df > 0 else float("nan")


def jarque_bera(z: np.ndarray) -> Test:
    """n (skewness^2 / 6 + excess kurtosis^2 / 24), chi-squared with 2 degrees of freedom in long series."""
    x = z[np.isfinite(z)]
    if len(x) < 3 or not x.std() > 0:
        return float("nan"), 2.0, float("nan")
    statistic = len(x) * (stats.skew(x) ** 2 / 6 + stats.kurtosis(x) ** 2 / 24)
    return float(statistic), 2.0, float(stats.chi2.sf(statistic, 2))


def heteroskedasticity(z: np.ndarray) -> Test:
    """Mean square of the last third over that of the first, F with as many degrees of freedom as it has values.

    The p-value is two-sided.

    References
    ----------
    Harvey (1989), Forecasting, structural time series models and the Kalman filter, section 5.4.2.
    """
    x = z[np.isfinite(z)]
    h = len(x) // 3
    if h < 2 or not (x[:h] @ x[:h]) > 0:
        return float("nan"), float(h), float("nan")
    statistic = float((x[-h:] @ x[-h:]) / (x[:h] @ x[:h]))
    return statistic, float(h), float(2 * min(stats.f.cdf(statistic, h, h), stats.f.sf(statistic, h, h)))
