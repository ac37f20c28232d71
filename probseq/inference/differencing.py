"""How often to difference: tests for unit roots and the strength of the season."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probseq.models.base import Batch

__all__ = [
    "adf_statistic",
    "choose_differences",
    "is_constant",
    "kpss_statistic",
    "residual_series",
    "seasonal_strength",
]

# Kwiatkowski et al. (1992), table 1: the 5 % point of the statistic around a level.
_KPSS_5 = 0.463
_STRONG = 0.64
"""Seasonal strength from which on forecasts gain by a seasonal difference (Wang, Smith and Hyndman 2006)."""
# Below so many values every test is noise.
_FEWEST = 5
# The span of the seasonal smoother that R uses for a single season.
_SPAN = 11


def kpss_statistic(x: np.ndarray, lags: int | None = None) -> float:
    r"""sum_t S_t^2 / (n^2 s^2(l)): large where a series does not stay around one level.

    S_t are the partial sums of x - mean(x), s^2(l) their long-run variance with Bartlett weights.

    Parameters
    ----------
    x : (n,)
    lags : int or None
        l; None is floor(3 sqrt(n) / 13).

    References
    ----------
    Kwiatkowski, Phillips, Schmidt and Shin (1992), Testing the null hypothesis of stationarity against the alternative
    of a unit root, Journal of Econometrics 54, equations 6 to 13.
    """
    n = x.size
    top = int(3.0 * np.sqrt(n) / 13.0) if lags is None else lags
    e = x - x.mean()
    variance = e @ e
    for k in range(1, top + 1):
        variance += 2.0 * (1.0 - k / (top + 1.0)) * (e[k:] @ e[:-k])
    sums = np.cumsum(e)
    return float(sums @ sums / (n * variance)) if variance > 0.0 else 0.0


def seasonal_strength(x: np.ndarray, period: int) -> float:
    r"""max(0, 1 - Var(R) / Var(S + R)) of the decomposition x = T + S + R by STL.

    References
    ----------
    Wang, Smith and Hyndman (2006), Characteristic-based clustering for time series data, Data Mining and Knowledge
    Discovery 13.
    """
    from statsmodels.tsa.seasonal import STL

    parts = STL(x, period=period, seasonal=_SPAN).fit()
    whole = float(np.var(parts.seasonal + parts.resid))
    return max(0.0, 1.0 - float(np.var(parts.resid)) / whole) if whole > 0.0 else 0.0


def adf_statistic(x: np.ndarray, lags: int) -> float:
    r"""t value of b in Dx_t = a + b x_{t-1} + sum_{k=1}^lags c_k Dx_{t-k} + e_t: far below zero without a unit root.

    References
    ----------
    Said and Dickey (1984), Testing for unit roots in autoregressive-moving average models of unknown order, Biometrika
    71.
    """
    steps = np.diff(x)
    n = steps.size - lags
    columns = [x[lags:-1], np.ones(n), *(steps[lags - k : steps.size - k] for k in range(1, lags + 1))]
    design, response = np.stack(columns, 1), steps[lags:]
    factor, upper = np.linalg.qr(design)
    coefficients = np.linalg.lstsq(upper, factor.T @ response, rcond=None)[0]
    rest = response - design @ coefficients
    inverse = np.linalg.pinv(upper)
    variance = (rest @ rest) / max(n - design.shape[1], 1) * (inverse[0] @ inverse[0])
    return float(coefficients[0] / np.sqrt(variance)) if variance > 0.0 else -np.inf


def _has_unit_root(x: np.ndarray) -> bool:
    """Whether the augmented test of Dickey and Fuller keeps its unit root at 5 %."""
    from statsmodels.tsa.adfvalues import mackinnonp

    lags = min(int((x.size - 1) ** (1.0 / 3.0)), max(x.size // 2 - 3, 0))
    return float(mackinnonp(adf_statistic(x, lags), regression="c", N=1)) > 0.05


def residual_series(batch: Batch, terms: np.ndarray | None = None) -> list[np.ndarray]:
    """Each sequence without its outer gaps, inner ones interpolated, less its least-squares regression.

    It is on the inputs and on ``terms`` (t, l), known functions of the step. The coefficients are common to the
    sequences, the levels their own.
    """
    y, seen = batch.x[..., 0].numpy().astype(float), batch.seen[..., 0].numpy()
    u = np.zeros((*y.shape, 0)) if batch.u is None else batch.u.numpy().astype(float)
    if terms is not None:
        u = np.concatenate([u, np.broadcast_to(terms, (*y.shape, terms.shape[1]))], -1)
    if u.shape[-1] and seen.any():
        rows = [(u[i, s] - u[i, s].mean(0), y[i, s] - y[i, s].mean()) for i, s in enumerate(seen) if s.any()]
        columns, response = (np.concatenate(part) for part in zip(*rows, strict=True))
        y = y - u @ np.linalg.lstsq(columns, response, rcond=None)[0]
    found = []
    for level, there in zip(y, seen, strict=True):
        at = np.flatnonzero(there)
        if at.size:
            found.append(np.interp(np.arange(at[0], at[-1] + 1), at, level[at]))
    return found


def choose_differences(
    series: list[np.ndarray],
    period: int,
    d: int | None,
    seasonal_d: int | None,
    max_d: int,
    max_seasonal_d: int,
    test: str,
) -> tuple[int, int]:
    """Orders of plain and seasonal differencing on which most of the series agree.

    A seasonal difference is taken while the seasonal strength exceeds 0.64, then plain ones while the test says that
    the series has a unit root (KPSS rejects a level at 5 %, or ADF does not reject a unit root). A difference that
    would leave a constant is not taken.

    Parameters
    ----------
    series : list of (n,)
    d, seasonal_d : int or None
        Known orders; None is chosen.
    test : {"kpss", "adf"}

    References
    ----------
    Hyndman and Khandakar (2008), Automatic time series forecasting: the forecast package for R, Journal of Statistical
    Software 27, section 3.1.
    """

    def seasonal(x: np.ndarray) -> bool:
        return x.size >= 2 * period + 1 and seasonal_strength(x, period) > _STRONG

    def wandering(x: np.ndarray) -> bool:
        if x.size < _FEWEST:
            return False
        return kpss_statistic(x) > _KPSS_5 if test == "kpss" else _has_unit_root(x)

    top = 0 if period < 2 else max_seasonal_d
    series, seasonal_d = _differenced(series, period, seasonal_d, top, seasonal)
    _, d = _differenced(series, 1, d, max_d, wandering)
    return d, seasonal_d


def _differenced(
    series: list[np.ndarray], lag: int, known: int | None, top: int, wanted: Callable[[np.ndarray], bool]
) -> tuple[list[np.ndarray], int]:
    """Difference at a lag as often as known, or as most series want; the differences and how often."""
    count = 0
    while count < (top if known is None else known):
        after = [x[lag:] - x[:-lag] for x in series]
        if known is None:
            votes = [
                not is_constant(x) and not is_constant(w) and wanted(x) for x, w in zip(series, after, strict=True)
            ]
            if 2 * sum(votes) <= len(votes):
                break
        series, count = after, count + 1
    return series, count


def is_constant(x: np.ndarray) -> bool:
    """Whether values differ by no more than rounding."""
    return x.size < 2 or float(np.ptp(x)) <= 1e-12 * float(np.abs(x).max())
