"""Does what was said to happen with probability p happen with frequency p?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq._types import whole_number
from probseq.errors import EmptyDataError, ParameterError
from probseq.evaluation.scores import check_levels

__all__ = [
    "Independence",
    "PitHistogram",
    "Uniformity",
    "coverage",
    "independence_test",
    "pit",
    "pit_histogram",
    "uniformity_test",
]


class PitHistogram(NamedTuple):
    """A histogram of PIT values, with the band that a calibrated forecast stays in."""

    edges: NDArray[np.float64]
    """bounds of the bins, shape (bin + 1,), from 0 to 1"""
    density: NDArray[np.float64]
    """share of the values in each bin times the number of bins, shape (bin,); 1 everywhere is calibrated"""
    lower: float
    upper: float
    """bounds of one bin's density under calibration, at the level asked for (binomial)"""
    n_values: int


class Uniformity(NamedTuple):
    """Kolmogorov and Smirnov's test that values are uniform on (0, 1)."""

    statistic: float
    """largest distance between the empirical cdf and the diagonal"""
    p_value: float
    n_values: int


class Independence(NamedTuple):
    """Berkowitz's test that PIT values in their order are independent and uniform."""

    statistic: float
    """twice the gain in log-likelihood, chi-squared with 3 degrees of freedom"""
    p_value: float
    autocorrelation: float
    """slope of the normal scores on those one step before"""
    n_pairs: int


def coverage(y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Share of the values in [lower, upper]; missing values are left out.

    Raises
    ------
    EmptyDataError
        Every value is missing.
    """
    y, lower, upper = np.broadcast_arrays(*(np.asarray(a, float) for a in (y, lower, upper)))
    seen = ~(np.isnan(y) | np.isnan(lower) | np.isnan(upper))
    if not seen.any():
        raise EmptyDataError(got="no value that is not missing", expected="at least one value to cover")
    return float(((y >= lower) & (y <= upper))[seen].mean())


def pit(cdf: ArrayLike, cdf_below: ArrayLike | None = None, uniforms: ArrayLike | None = None) -> NDArray[np.float64]:
    """Probability integral transform u = F(y-) + v (F(y) - F(y-)): uniform and independent if the forecast is right.

    Independence holds for one-step-ahead forecasts only.

    Source: Czado, Gneiting and Held (2009), Biometrics 65, section 2.

    Parameters
    ----------
    cdf
        F(y), the predictive cdf at what happened.
    cdf_below
        F(y-) = P(X < y) of a law with atoms. Not given: the law is continuous and u = F(y).
    uniforms
        v in (0, 1), one a value, drawn by the caller. Not given: 1/2, the middle of the jump (not uniform then).

    Raises
    ------
    ParameterError
        F(y-) exceeds F(y), or a uniform lies outside [0, 1].
    """
    top = np.asarray(cdf, float)
    if cdf_below is None:
        return top.copy()
    bottom = np.asarray(cdf_below, float)
    v = np.asarray(0.5 if uniforms is None else uniforms, float)
    if np.any(bottom > top + 1e-12):
        raise ParameterError(got="P(X < y) above P(X <= y)", expected="a cdf that never decreases")
    if np.any((v < 0) | (v > 1)):
        raise ParameterError(got="uniforms outside [0, 1]", expected="uniform random numbers")
    return bottom + v * np.maximum(top - bottom, 0.0)


def pit_histogram(pit_values: ArrayLike, n_bins: int = 10, level: float = 0.95) -> PitHistogram:
    """Histogram of PIT values on equal bins, as a density; U-shaped is too narrow, humped is too wide.

    The band is that of one bin: with ten bins at 95 %, one bin in every second histogram may leave it.

    Raises
    ------
    EmptyDataError
        There is no value.
    ParameterError
        A value lies outside [0, 1], ``level`` outside (0, 1), or there is no bin.
    """
    from scipy import special

    u = _unit_values(pit_values)
    whole_number("n_bins", n_bins, 1, "Try 10.")
    check_levels(level)
    counts, edges = np.histogram(u, bins=n_bins, range=(0.0, 1.0))
    tail = (1 - level) / 2
    k = np.arange(u.size + 1)
    cdf = special.bdtr(k, u.size, 1 / n_bins)
    low, high = k[np.searchsorted(cdf, tail)], k[np.searchsorted(cdf, 1 - tail)]
    unit = n_bins / u.size
    return PitHistogram(edges, counts * unit, float(low * unit), float(high * unit), int(u.size))


def uniformity_test(pit_values: ArrayLike) -> Uniformity:
    """Test that PIT values are uniform (Kolmogorov and Smirnov, exact). Assumes that they are independent.

    Raises
    ------
    EmptyDataError
        There is no value.
    ParameterError
        A value lies outside [0, 1].
    """
    from scipy import stats

    u = np.sort(_unit_values(pit_values))
    n = u.size
    rank = np.arange(1, n + 1)
    statistic = float(max((rank / n - u).max(), (u - (rank - 1) / n).max()))
    return Uniformity(statistic, float(stats.kstwo.sf(statistic, n)), n)


def independence_test(pit_values: ArrayLike, breaks: tuple[int, ...] = ()) -> Independence:
    r"""Likelihood ratio test that one-step PIT values in their order are independent and uniform.

    With z_t = Phi^{-1}(u_t) the model z_t = c + rho z_{t-1} + s e_t is fitted to all pairs of neighbours; c = rho = 0
    and s = 1 if the forecast is right. Twice the gain in log-likelihood is then chi-squared with 3 degrees of freedom.

    Source: Berkowitz (2001), Journal of Business & Economic Statistics 19, equation 10, conditional on the first value.

    Parameters
    ----------
    pit_values
        shape (t,), in their order; NaN is missing and has no neighbours.
    breaks
        steps at which a new sequence begins.

    Raises
    ------
    EmptyDataError
        There are fewer than five pairs of neighbours.
    ParameterError
        A value lies outside [0, 1].
    """
    from scipy import special, stats

    u = np.asarray(pit_values, float).ravel()
    _unit_values(u)
    # A value of 0 or 1 says that the forecast was impossible; its normal score is kept finite.
    z = special.ndtri(np.clip(u, 1e-15, 1 - 1e-15))
    pairs = np.flatnonzero(~(np.isnan(z[1:]) | np.isnan(z[:-1]))) + 1
    pairs = pairs[~np.isin(pairs, np.asarray(breaks, dtype=int))]
    n = pairs.size
    if n < 5:
        raise EmptyDataError(got=f"{n} pairs of neighbours", expected="at least 5", remedy="Pass more values.")
    y, before = z[pairs], z[pairs - 1]
    design = np.stack([np.ones(n), before], 1)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    variance = float(((y - design @ beta) ** 2).mean())
    statistic = float((y**2).sum() - n - n * np.log(variance)) if variance > 0 else np.inf
    return Independence(statistic, float(stats.chi2.sf(statistic, 3)), float(beta[1]), int(n))


def _unit_values(pit_values: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(pit_values, float).ravel()
    values = values[~np.isnan(values)]
    if not values.size:
        raise EmptyDataError(got="no PIT value", expected="at least one value that is not missing")
    if np.any((values < 0) | (values > 1)):
        raise ParameterError(
            got=f"a PIT value of {values[(values < 0) | (values > 1)][0]:g}", expected="values in [0, 1]"
        )
    return values
