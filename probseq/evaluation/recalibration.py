"""Smooth monotone maps of (0, 1) that make PIT values uniform."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probseq._types import whole_number
from probseq.errors import DataError, ParameterError

__all__ = ["BernsteinMap", "fit_map"]

_FEWEST = 10
_FOLDS = 5
_HIGHEST = 1000
_ROUNDING = 1e-6


class BernsteinMap:
    r"""g(u) = sum_j w_j I_u(j, m - j + 1), a mixture of beta cdfs: smooth, increasing, g(0) = 0, g(1) = 1.

    Equal weights make the identity, and so does m = 1. A forecast F whose PIT values have the cdf g becomes g(F), with
    the density g'(F(x)) f(x): no atoms, and no value that was possible becomes impossible as long as all w_j are
    positive.

    Source: Vitale (1975), A Bernstein polynomial approach to density function estimation; for forecasts the
    beta-transformed ones of Gneiting and Ranjan (2013), Electronic Journal of Statistics 7, are the case of one beta.

    Parameters
    ----------
    weights
        shape (m,), positive, adding up to one.
    """

    def __init__(self, weights: ArrayLike) -> None:
        self.weights = np.asarray(weights, float)
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.weights)])
        self.cumulative[-1] = 1.0

    @property
    def degree(self) -> int:
        return int(self.weights.size)

    @cached_property
    def _table(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        grid = np.linspace(0.0, 1.0, 513)
        return grid, self.cdf(grid)

    def cdf(self, u: ArrayLike) -> NDArray[np.float64]:
        """g(u), for u in [0, 1] of any shape; NaN stays NaN."""
        return _basis(np.asarray(u, float), self.degree) @ self.cumulative

    def log_density(self, u: ArrayLike) -> NDArray[np.float64]:
        """log g'(u)."""
        return np.log(self.degree * (_basis(np.asarray(u, float), self.degree - 1) @ self.weights))

    def inverse(self, p: ArrayLike) -> NDArray[np.float64]:
        """The u with g(u) = p, for p in [0, 1] of any shape; NaN stays NaN."""
        level = np.asarray(p, float)
        if self.degree == 1:
            return level.copy()
        grid, heights = self._table
        seat = np.clip(np.searchsorted(heights, level, side="right"), 1, len(grid) - 1)
        low, high = grid[seat - 1], grid[seat]
        u = np.interp(level, heights, grid)
        for _ in range(60):
            error = self.cdf(u) - level
            low, high = np.where(error < 0, u, low), np.where(error > 0, u, high)
            step = u - error * np.exp(-self.log_density(u))
            new = np.where((step > low) & (step < high), step, 0.5 * (low + high))
            new = np.where(error == 0, u, new)
            if not np.any(np.abs(new - u) > 1e-15):
                break
            u = new
        return np.where(np.isnan(level), np.nan, np.where(level <= 0, 0.0, np.where(level >= 1, 1.0, u)))


def fit_map(pit_values: ArrayLike, max_degree: int = 32) -> BernsteinMap:
    """The map that PIT values ask for, of the degree among 1, 2, 4, ... that predicts left-out ones well.

    That is the lowest degree whose log score of left-out values is within one standard error of that of the best.

    The weights are those of the highest posterior density under a Dirichlet law with one value more than no knowledge
    for each weight, which draws them towards the identity and keeps them positive. The values are left out in five runs
    in their order, since neighbours may depend on each other.

    Parameters
    ----------
    pit_values
        any shape, in [0, 1]; NaN is left out.
    max_degree
        the highest degree to try, at most 1000.

    Raises
    ------
    DataError
        There are fewer than 10 values.
    ParameterError
        ``max_degree`` is no whole number from 1 to 1000, or a PIT value outside [0, 1].
    """
    whole_number("max_degree", max_degree, 1, "Try 32; 1 changes nothing.")
    if max_degree > _HIGHEST:  # binomial coefficients beyond are larger than any number
        raise ParameterError(
            got=f"max_degree={max_degree}", expected=f"at most {_HIGHEST}", remedy="Try 32; few data need more."
        )
    u = np.asarray(pit_values, float).ravel()
    u = u[~np.isnan(u)]
    outside = u[(u < -_ROUNDING) | (u > 1 + _ROUNDING)]
    if outside.size:
        raise ParameterError(got=f"a PIT value of {outside[0]:g}", expected="values in [0, 1]", remedy="Pass F(y).")
    if u.size < _FEWEST:
        raise DataError(
            got=f"{u.size} PIT values to learn a map from", expected=f"at least {_FEWEST}", remedy="Pass more data."
        )
    u = np.clip(u, 0.0, 1.0)
    degrees = [2**i for i in range(max_degree.bit_length())]
    fold = np.arange(u.size) * _FOLDS // u.size
    scores = np.zeros((len(degrees), u.size))
    for row, degree in zip(scores, degrees, strict=True):
        for i in range(_FOLDS):
            out = fold == i
            row[out] = BernsteinMap(_weights(u[~out], degree)).log_density(u[out])
    behind = scores[np.argmax(scores.sum(1))] - scores
    simple = behind.sum(1) <= behind.std(1) * np.sqrt(u.size)
    return BernsteinMap(_weights(u, degrees[int(np.argmax(simple))]))


def _weights(u: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """The mode of the posterior law of the weights, by damped Newton steps; the objective is self-concordant.

    Its gradient times w is n + m everywhere, so that the maximum less (n + m) sum_j w_j adds up to one by itself.
    """
    w = np.full(degree, 1.0 / degree)
    if degree == 1:
        return w
    density, total = _basis(u, degree - 1), len(u) + degree
    for _ in range(100):
        each = density / (density @ w)[:, None]
        gradient = each.sum(0) + 1.0 / w - total
        curvature = each.T @ each + np.diag(1.0 / w**2)
        step = np.linalg.solve(curvature, gradient)
        decrement = float(np.sqrt(max(gradient @ step, 0.0)))
        w = w + step / (1.0 + decrement if decrement > 0.25 else 1.0)
        if decrement < 1e-9:
            break
    return np.asarray(w / w.sum())


def _basis(u: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """C(m, i) u^i (1 - u)^(m - i) for i = 0, ..., m, shape (..., m + 1)."""
    i = np.arange(degree + 1)
    return special.comb(degree, i) * u[..., None] ** i * (1.0 - u[..., None]) ** (degree - i)
