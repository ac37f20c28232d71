"""Shortest intervals, bands for whole trajectories, and entropies of forecasts."""

from __future__ import annotations

import numpy as np
from scipy import stats

from probseq.results.backends import Backend, LawBackend, PathsBackend
from probseq.results.scenario import PartlyKnown

__all__ = ["entropy", "shortest_interval", "simultaneous_band"]

# Distribution functions are asked for this many numbers at once.
_BLOCK = 2_000_000


def entropy(p: np.ndarray) -> np.ndarray:
    """-sum p log p over the last axis, in nats."""
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(-1)


def shortest_interval(backend: Backend, level: float) -> np.ndarray:
    """Shortest interval of at least this probability, by a grid of lower tails that is refined around its best."""
    low, width = np.zeros(backend.shape), np.full(backend.shape, 1.0 - level)
    best = np.full(backend.shape, np.inf)
    lower = upper = np.zeros(backend.shape)
    tail = low + 0.5 * width
    for _ in range(4):
        for fraction in np.linspace(0.02, 0.98, 25):
            p = np.clip(low + fraction * width, 1e-9, 1.0 - level - 1e-9)
            a, b = backend._inverse(p), backend._inverse(np.minimum(p + level, 1 - 1e-9))
            better = b - a < best
            best, tail = np.where(better, b - a, best), np.where(better, p, tail)
            lower, upper = np.where(better, a, lower), np.where(better, b, upper)
        width = width / 8
        low = np.clip(tail - width / 2, 0.0, 1.0 - level - width)
    return np.stack([lower, upper], -1)


def simultaneous_band(backend: Backend, paths: np.ndarray, level: float) -> np.ndarray:
    """Equal-tailed intervals of one size c at every value, which hold whole trajectories with probability ``level``.

    A path (t, k) is inside where |2 F(x) - 1| <= c at all its values; c is the ``level`` quantile of the largest of
    them over the paths (path, n, t, k). Returns (n, t, k, 2).
    """
    upper, lower = _distribution(backend, paths)
    outermost = np.maximum(1.0 - 2.0 * upper, 2.0 * lower - 1.0).max((2, 3))
    size = np.quantile(outermost, level, axis=0, method="higher").reshape(-1, 1, 1)
    tail = np.tile((1.0 - np.clip(size, 0.0, 1.0)) / 2, (1, *backend.shape[1:]))
    return np.stack([backend._inverse(tail), backend._inverse(1.0 - tail)], -1)


def _distribution(backend: Backend, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(X <= x) and P(X < x) at the values of paths (path, n, t, k)."""
    if isinstance(backend, PathsBackend):
        n_paths = len(paths)
        upper = stats.rankdata(paths, "max", axis=0) / n_paths
        return upper, (stats.rankdata(paths, "min", axis=0) - 1) / n_paths
    parts = 1 if not isinstance(backend, LawBackend) or backend.weights is None else backend.weights.shape[-1]
    block = max(1, _BLOCK // (int(np.prod(backend.shape)) * parts))
    blocks = [paths[i : i + block] for i in range(0, len(paths), block)]
    upper = np.concatenate([backend.cdf(part) for part in blocks])
    if not (backend.discrete_variables.any() or isinstance(backend, PartlyKnown)):
        return upper, upper
    return upper, np.concatenate([backend.cdf(part, left=True) for part in blocks])
