"""Shortest intervals and entropies of forecasts."""

from __future__ import annotations

import numpy as np

from probseq.results.backends import Backend

__all__ = ["entropy", "shortest_interval"]


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
