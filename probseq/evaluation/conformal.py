"""Quantiles with a promise: how often what is new exceeds what was seen before."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ParameterError

__all__ = ["AdaptiveQuantiles", "conformal_levels", "conformal_quantiles", "conformal_rank"]

_GRID = np.arange(1, 200) / 200


def conformal_rank(n: int, level: float) -> int:
    """ceil((n + 1) level): a new value exceeds the one of this rank among n others with probability at most 1 - level.

    For exchangeable values, whatever their law; above n there is no such value. Source: Vovk, Gammerman and Shafer
    (2005), Algorithmic learning in a random world, section 2.2.
    """
    return math.ceil((n + 1) * level - 1e-9)


def conformal_levels(n: int) -> NDArray[np.float64]:
    """The levels at which n values give quantiles: i / (n + 1), or 199 even ones between the first and the last."""
    if n <= len(_GRID):
        return np.arange(1, n + 1) / (n + 1)
    return np.concatenate([[1 / (n + 1)], _GRID, [n / (n + 1)]])


def conformal_quantiles(known: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
    r"""Values q such that a new exchangeable one is at most q with probability ``level``.

    The order statistic of rank (n + 1) level, exact where that is whole and no values are tied; between two ranks a
    line, with a probability off by at most 1 / (n + 1). Levels beyond the first and last rank have no such value; the
    quantile goes on from there by the range of the known values for each 1 / (n + 1).

    Parameters
    ----------
    known
        shape (n,), sorted, without missing values.
    levels
        any shape, any numbers.
    """
    x = np.asarray(known, float)
    n = x.size
    if n < 2:
        raise ParameterError(got=f"{n} known values", expected="at least two", remedy="Pass more data.")
    rank = (n + 1) * np.asarray(levels, float)
    inside = np.interp(rank, np.arange(1, n + 1), x)
    span = x[-1] - x[0]
    return inside + span * (np.maximum(rank - n, 0.0) - np.maximum(1.0 - rank, 0.0))


class AdaptiveQuantiles:
    r"""Quantiles that are exceeded as often as they say in the long run, whatever happens.

    The level at which the known values are asked moves against its errors (Gibbs and Candes 2021, NeurIPS 34, equation
    2, for one bound): a_{t+1} = a_t + step (level - 1{r_t <= q_t}), where q_t is the conformal quantile at a_t. For
    values in a bounded range \|mean 1{r_t <= q_t} - level\| <= C / (T step) for every sequence of values, random or
    not. The newest value takes the place of the oldest one among the known.

    Parameters
    ----------
    known
        shape (n,), values seen before, in their order.
    levels
        shape (Q,).
    step
        how far a level moves for one error.
    """

    def __init__(self, known: ArrayLike, levels: ArrayLike, step: float) -> None:
        self.order = deque(np.asarray(known, float).tolist())
        self.sorted = np.sort(np.asarray(known, float))
        self.levels = np.asarray(levels, float)
        self.at = self.levels.copy()
        self.step = step

    def quantiles(self) -> NDArray[np.float64]:
        """The quantiles of the next value, shape (Q,); each level moves by itself, so that neighbours may cross."""
        return conformal_quantiles(self.sorted, self.at)

    def update(self, value: float, quantiles: NDArray[np.float64] | None = None) -> None:
        """Learn what came, at these quantiles or its own; NaN changes nothing."""
        if math.isnan(value):
            return
        bound = self.quantiles() if quantiles is None else quantiles
        self.at = self.at + self.step * (self.levels - (value <= bound))
        oldest = self.order.popleft()
        self.order.append(float(value))
        kept = np.delete(self.sorted, np.searchsorted(self.sorted, oldest))
        self.sorted = np.insert(kept, np.searchsorted(kept, value), value)

    def copy(self) -> AdaptiveQuantiles:
        """One that learns by itself from here."""
        other = AdaptiveQuantiles(list(self.order), self.levels, self.step)
        other.at = self.at.copy()
        return other

    def along(self, values: ArrayLike) -> NDArray[np.float64]:
        """The quantiles (t, Q) before each of the values (t,), which are learnt one after the other."""
        found = np.empty((len(np.atleast_1d(values)), self.levels.size))
        for t, value in enumerate(np.atleast_1d(np.asarray(values, float))):
            found[t] = self.quantiles()
            self.update(float(value), found[t])
        return found
