"""The law that is known by its quantiles at some levels."""

from __future__ import annotations

import numpy as np

from probseq.results.backends import Backend

__all__ = ["QuantilesBackend"]


class QuantilesBackend(Backend):
    """Values at given levels, (n, t, k, Q); between them the quantile function is linear, beyond them constant.

    The law is thus uniform between neighbours, with atoms at the first and the last value. Moments and CRPS are exact.
    """

    name = "quantiles"

    def __init__(self, levels: np.ndarray, values: np.ndarray) -> None:
        self.levels = np.asarray(levels, dtype=float)
        self.values = np.sort(values, -1)  # crossing quantiles are put in order
        self.shape = values.shape[:3]  # type: ignore[assignment]

    def _at(self, q: np.ndarray) -> np.ndarray:
        """Quantiles at levels q that broadcast to (n, t, k, m)."""
        q = np.broadcast_to(q, (*self.shape, np.shape(q)[-1]))
        right = np.clip(np.searchsorted(self.levels, q, side="left"), 1, len(self.levels) - 1)
        low, high = self.levels[right - 1], self.levels[right]
        weight = np.clip((q - low) / (high - low), 0.0, 1.0)
        a = np.take_along_axis(self.values, right - 1, -1)
        b = np.take_along_axis(self.values, right, -1)
        return a + weight * (b - a)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        return self._at(np.asarray(q, dtype=float))

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        return self._at(u[..., None])[..., 0]

    @property
    def _segments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probability (Q + 1,), left and right end (n, t, k, Q + 1) of each piece; atoms are pieces of no length."""
        weight = np.diff(np.concatenate([[0.0], self.levels, [1.0]]))
        first, last = self.values[..., :1], self.values[..., -1:]
        return weight, np.concatenate([first, self.values], -1), np.concatenate([self.values, last], -1)

    def mean(self) -> np.ndarray:
        weight, left, right = self._segments
        return (weight * (left + right) / 2).sum(-1)

    def variance(self) -> np.ndarray:
        weight, left, right = self._segments
        mean = self.mean()[..., None]
        a, b = left - mean, right - mean
        return (weight * (a * a + a * b + b * b) / 3).sum(-1)

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        v, levels = self.values, self.levels
        x4 = np.asarray(x, dtype=float)[..., None]
        out = np.zeros(self.shape)
        for j in range(len(levels) - 1):
            a, b = v[..., j], v[..., j + 1]
            slope = np.where(b > a, (x - a) / np.where(b > a, b - a, 1.0), 1.0)
            inside = levels[j] + np.clip(slope, 0.0, 1.0) * (levels[j + 1] - levels[j])
            out = np.where((x > a) if left else (x >= a), np.maximum(out, inside), out)
        top = (x4 > v[..., -1:]) if left else (x4 >= v[..., -1:])
        out = np.where(top[..., 0], 1.0, out)
        return np.where(np.isnan(x), np.nan, out)

    def crps(self, y: np.ndarray) -> np.ndarray:
        """E|X - y| - int (2 p - 1) Q(p) dp, piece by piece."""
        weight, left, right = self._segments
        a, b = left - y[..., None], right - y[..., None]
        inside = (a < 0) & (b > 0)
        length = np.where(inside, b - a, 1.0)
        distance = np.where(inside, (a * a + b * b) / (2 * length), np.abs(a + b) / 2)
        start = np.concatenate([[0.0], self.levels])
        # int (a + (b - a) s / w) (2 (start + s) - 1) ds over s from 0 to w; a shift by y changes nothing in the sum.
        spread = weight * (a * (2 * start + weight - 1) + (b - a) * ((2 * start - 1) / 2 + 2 * weight / 3))
        return (weight * distance - spread).sum(-1)

    def marginal(self, variables: list[int]) -> QuantilesBackend:
        return QuantilesBackend(self.levels, self.values[:, :, variables])
