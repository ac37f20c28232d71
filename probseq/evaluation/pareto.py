"""Importance weights whose tail is smoothed by a generalised Pareto law, and how far they can be trusted."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from probseq._types import positive_number
from probseq.errors import ParameterError, ShapeError

__all__ = ["SmoothedWeights", "psis"]

# The prior on k: worth ten tail draws, around one half.
_PRIOR_DRAWS, _PRIOR_K = 10.0, 0.5
# A law is fitted to more tail draws than this.
_FEWEST = 4


class SmoothedWeights(NamedTuple):
    """Weights of draws, and the shape of their tail."""

    log_weights: NDArray[np.float64]
    """(*B, draw), normalised"""
    k_hat: NDArray[np.float64]
    """(*B,); inf where the tail has too few different draws"""


def psis(log_ratios: ArrayLike, relative_efficiency: float = 1.0) -> SmoothedWeights:
    """Pareto smoothed importance sampling: the largest ratios become quantiles of a law fitted to them.

    The M = ceil(min(S / 5, 3 sqrt(S / r))) largest of S ratios, less the next one, get a generalised Pareto law (Zhang
    and Stephens 2009, with a weak prior on its shape k), and are replaced by its (i - 1/2) / M quantiles, none above
    the largest ratio. The estimate has finite variance for k < 1/2, and is practically reliable for k < 0.7.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25, section 3.

    Parameters
    ----------
    log_ratios
        log of target over proposal density, up to a constant, shape (*B, draw).
    relative_efficiency
        r, the independent draws that a draw of a Markov chain is worth.

    Raises
    ------
    ShapeError
        For no draws.
    ParameterError
        For log ratios that are NaN or +inf, or all -inf, and an efficiency that is no positive number.
    """
    ratios = np.asarray(log_ratios, float)
    if ratios.ndim < 1 or ratios.shape[-1] == 0:
        raise ShapeError(got=f"ratios of shape {ratios.shape}", expected="(..., draw) with at least one draw")
    if np.isnan(ratios).any() or np.isposinf(ratios).any() or np.isneginf(ratios).all(-1).any():
        raise ParameterError(got="log ratios that are NaN, +inf or all -inf", expected="finite ones, or some -inf")
    positive_number("relative_efficiency", relative_efficiency)
    n = ratios.shape[-1]
    tail = math.ceil(min(n / 5, 3 * math.sqrt(n / relative_efficiency)))
    rows = ratios.reshape(-1, n) - ratios.reshape(-1, n).max(-1, keepdims=True)
    k_hat = np.array([_smooth(row, tail) for row in rows])
    rows -= logsumexp(rows, axis=-1, keepdims=True)
    return SmoothedWeights(rows.reshape(ratios.shape), k_hat.reshape(ratios.shape[:-1]))


def _smooth(row: NDArray[np.float64], tail: int) -> float:
    """Smooth one row of log ratios, whose largest is zero, in place; its k."""
    order = np.argsort(row, kind="stable")
    least = row[order[-tail - 1]] if tail < len(row) else -np.inf
    cutoff = max(float(least), math.log(np.finfo(float).tiny))
    largest = order[row[order] > cutoff]
    if len(largest) <= _FEWEST:
        return math.inf
    base = math.exp(cutoff)
    k, scale = _pareto(np.exp(row[largest]) - base)
    if math.isfinite(k) and scale > 0:
        level = (np.arange(len(largest)) + 0.5) / len(largest)
        away = -np.log1p(-level)
        quantile = scale * (away if abs(k) < 1e-15 else np.expm1(k * away) / k)
        row[largest] = np.minimum(np.log(quantile + base), 0.0)
    return k


def _pareto(x: NDArray[np.float64]) -> tuple[float, float]:
    """Shape k and scale of a generalised Pareto law of increasing positive x.

    Source: Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto distribution,
    Technometrics 51, with the prior on k of Vehtari et al. (2024), appendix C.
    """
    n = len(x)
    m = 30 + int(math.sqrt(n))
    grid = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    shapes = np.log1p(-grid[:, None] * x).mean(1)
    profile = n * (np.log(-(grid / shapes)) - shapes - 1)
    weights = np.exp(profile - logsumexp(profile))
    weights[weights < 10 * np.finfo(float).eps] = 0.0
    b = float(weights @ grid / weights.sum())
    shape = float(np.log1p(-b * x).mean())
    k = (n * shape + _PRIOR_DRAWS * _PRIOR_K) / (n + _PRIOR_DRAWS)
    return k, -shape / b
