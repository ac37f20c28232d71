"""Shortest intervals, bands for whole trajectories, and entropies of forecasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from probseq.distributions.counts import lattice_points
from probseq.errors import UnsupportedError
from probseq.results.affine import AffineBackend, core_of
from probseq.results.backends import Backend, LawBackend, PathsBackend
from probseq.results.quantiles import QuantilesBackend
from probseq.results.rows import RowsBackend
from probseq.results.scenario import PartlyKnown

__all__ = ["densest_region", "entropy", "outer_levels", "shortest_interval", "simultaneous_band"]

# Cells of the grid in which regions are searched.
_CELLS = 1000
# Distribution functions are asked for this many numbers at once.
_BLOCK = 2_000_000
# Levels closer than this are one level, and probability below this is none.
_ROUNDING, _NOTHING = 1e-10, 1e-12


def entropy(p: np.ndarray) -> np.ndarray:
    """-sum p log p over the last axis, in nats."""
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(-1)


def shortest_interval(backend: Backend, level: float) -> np.ndarray:
    """Shortest interval of at least this probability, (n, t, k, 2).

    Of paths and counts exactly; of other laws by a grid of lower tails that is refined around its best.
    """
    if isinstance(backend, RowsBackend):
        return backend.joined(lambda part: shortest_interval(part, level))
    if isinstance(backend, AffineBackend):
        return backend.image_of_ends(shortest_interval(backend.inner, level)[..., None])[..., 0]
    if isinstance(backend, PathsBackend):
        return _shortest_of_paths(backend.paths, level)
    counted = np.flatnonzero(backend.discrete_variables)
    both = np.empty((*backend.shape, 2)) if len(counted) == backend.shape[-1] else _shortest_by_tails(backend, level)
    for i in counted:
        both[..., i, :] = _shortest_of_counts(backend.marginal([int(i)]), level)
    return both


def _shortest_of_counts(backend: Backend, level: float) -> np.ndarray:
    """The shortest interval of one counted variable, (n, t, 2): of the lowest ones where several are as short."""
    lowest = backend._inverse(np.full(backend.shape, _NOTHING))
    # None that starts higher than the 1 - level quantile holds enough, none that is longer than the first one is best.
    highest = backend._inverse(np.full(backend.shape, min(1.0 - level + _ROUNDING, 1.0 - _NOTHING)))
    highest = highest + backend._inverse(np.full(backend.shape, level)) - lowest
    both = np.full((*backend.shape[:2], 2), np.nan)
    for at, counts, up_to, below in _masses(backend, lowest, highest):
        last = np.searchsorted(up_to, below + level - _ROUNDING)
        length = np.where(last < len(counts), last - np.arange(len(counts)), len(counts))
        first = int(length.argmin())
        both[at] = counts[first], counts[min(first + int(length[first]), len(counts) - 1)]
    return both


def _masses(
    backend: Backend, lowest: np.ndarray, highest: np.ndarray
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """Of each sequence and step with one counted variable: its values, P(X <= x) and P(X < x) at these."""
    spread = np.rint((highest - lowest) / backend.step)
    finite = np.isfinite(spread)
    if not finite.any():
        return
    start = np.where(finite, lowest, 0.0)
    ahead = np.arange(float(spread[finite].max()) + 1.0).reshape(-1, 1, 1, 1)
    asked = lattice_points(np.rint(start / backend.step) + ahead, backend.step)
    up_to = _blockwise(backend, backend.cdf, asked)
    below = _blockwise(backend, lambda x: backend.cdf(x, left=True), asked)
    for at in np.ndindex(backend.shape[:2]):
        if finite[(*at, 0)]:
            size = int(spread[(*at, 0)]) + 1
            yield (at[0], at[1]), asked[:size, *at, 0], up_to[:size, *at, 0], below[:size, *at, 0]


def _shortest_by_tails(backend: Backend, level: float) -> np.ndarray:
    low, width = np.zeros(backend.shape), np.full(backend.shape, 1.0 - level)
    fractions = np.linspace(0.02, 0.98, 25).reshape(-1, 1, 1, 1)
    best = np.full(backend.shape, np.inf)
    lower = upper = np.zeros(backend.shape)
    tail = low + 0.5 * width
    for _ in range(4):
        p = np.clip(low + fractions * width, 1e-9, 1.0 - level - 1e-9)
        a = _blockwise(backend, backend._inverse, p)
        b = _blockwise(backend, backend._inverse, np.minimum(p + level, 1 - 1e-9))
        gap = np.where(np.isnan(b - a), np.inf, b - a)
        first = gap.argmin(0)[None]
        found, a, b, p = (np.take_along_axis(one, first, 0)[0] for one in (gap, a, b, p))
        better = found < best
        best, tail = np.where(better, found, best), np.where(better, p, tail)
        lower, upper = np.where(better, a, lower), np.where(better, b, upper)
        width = width / 8
        low = np.clip(tail - width / 2, 0.0, 1.0 - level - width)
    return np.stack([lower, upper], -1)


def _shortest_of_paths(paths: np.ndarray, level: float) -> np.ndarray:
    """The shortest interval that holds a share ``level`` of the paths."""
    ordered, n_paths = np.sort(paths, 0), len(paths)
    inside = max(1, int(np.ceil(level * n_paths - 1e-9)))
    gap = ordered[inside - 1 :] - ordered[: n_paths - inside + 1]
    first = np.where(np.isnan(gap), np.inf, gap).argmin(0)[None]
    ends = [np.take_along_axis(ordered, at, 0)[0] for at in (first, first + inside - 1)]
    return np.stack(ends, -1)


def densest_region(backend: Backend, level: float) -> np.ndarray:
    """Highest-density region of probability ``level``, possibly of several intervals: (n, t, k, 2, part), NaN-padded.

    The cells of a grid with the most probability for their width, neighbours joined: the probability exceeds ``level``
    by at most that of one cell, about 1 / 1000. Counts are cells of their own, so that their region is exact.

    Source: Hyndman (1996), The American Statistician 50, section 2.
    """
    if isinstance(backend, RowsBackend):
        each = [densest_region(part, level) for part in backend.parts]
        most, widest = max(one.shape[1] for one in each), max(one.shape[-1] for one in each)
        room = [((0, 0), (0, most - one.shape[1]), (0, 0), (0, 0), (0, widest - one.shape[-1])) for one in each]
        return np.concatenate([np.pad(one, w, constant_values=np.nan) for one, w in zip(each, room, strict=True)])
    core = core_of(backend)
    if isinstance(core, PathsBackend):
        raise UnsupportedError(
            got=f"a region of a forecast made of {backend.substance}",
            expected="a forecast with densities, or quantiles",
            remedy='Use interval(level, kind="hdi").',
        )
    if isinstance(core, QuantilesBackend):
        core.quantile(np.array([(1.0 - level) / 2, (1.0 + level) / 2]))  # raises where it does not know so much
    edges, mass = _cells(core, (1.0 - level) / 20)
    found = np.empty(core.shape, dtype=object)
    for at in np.ndindex(core.shape):
        counted = bool(core.discrete_variables[at[-1]])
        found[at] = _densest(edges[at], mass[at], level, counted)
    n_parts = max(len(parts) for parts in found.flat)
    region = np.full((*core.shape, 2, n_parts), np.nan)
    for at in np.ndindex(core.shape):
        region[at][:, : len(found[at])] = np.array(found[at]).T
    return backend.image_of_ends(region) if isinstance(backend, AffineBackend) else region


def outer_levels(backend: Backend, tail: float) -> tuple[float, float]:
    """Levels between which all but ``tail`` of the probability lies, as far as the backend knows its tails."""
    core = core_of(backend)
    low, high = tail / 2, 1.0 - tail / 2
    if isinstance(core, QuantilesBackend):
        low, high = max(low, float(core.levels[0])), min(high, float(core.levels[-1]))
        if isinstance(backend, AffineBackend) and (backend.scale < 0).any():
            low, high = max(low, 1.0 - high), min(high, 1.0 - low)
    return low, high


def _cells(backend: Backend, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of cells and their probabilities, arrays of arrays (n, t, k): all that lies between two small tails."""
    lowest, highest = outer_levels(backend, tail)
    ends = backend.quantile(np.array([lowest, highest]))
    share = np.linspace(0.0, 1.0, _CELLS // 2 + 1).reshape(-1, 1, 1, 1)
    even = ends[..., 0] + share * (ends[..., 1] - ends[..., 0])
    levels = np.clip(share, lowest, highest) * np.ones(backend.shape)
    grid = np.sort(np.concatenate([even, _blockwise(backend, backend._inverse, levels)]), 0)
    probability = np.diff(_blockwise(backend, backend.cdf, grid), axis=0)
    edges, mass = np.empty(backend.shape, dtype=object), np.empty(backend.shape, dtype=object)
    for at in np.ndindex(backend.shape):
        edges[at], mass[at] = grid[(slice(None), *at)], probability[(slice(None), *at)]
    for i in np.flatnonzero(backend.discrete_variables):
        one = backend.marginal([int(i)])
        for at, counts, up_to, below in _masses(one, ends[..., i : i + 1, 0], ends[..., i : i + 1, 1]):
            edges[(*at, i)], mass[(*at, i)] = counts, up_to - below
    return edges, mass


def _densest(edges: np.ndarray, mass: np.ndarray, level: float, counted: bool) -> list[tuple[float, float]]:
    """Intervals made of the densest cells that have this probability together."""
    if np.isnan(edges).any():
        return [(np.nan, np.nan)]
    width = np.ones_like(mass) if counted else np.diff(edges)
    density = np.where(width > 0, mass / np.where(width > 0, width, 1.0), -1.0)
    if not (density > 0).any():
        return [(float(edges[0]), float(edges[-1]))]
    order = np.argsort(-density, kind="stable")
    n_chosen = int(np.searchsorted(np.cumsum(mass[order]), level - 1e-12)) + 1
    chosen = np.zeros(len(mass), dtype=bool)
    chosen[order[:n_chosen]] = True
    # A cell without width does not part its neighbours.
    chosen |= (width == 0) & np.roll(chosen, 1)
    change = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    left, right = (edges, edges) if counted else (edges[:-1], edges[1:])
    return [(float(left[a]), float(right[b - 1])) for a, b in change.reshape(-1, 2)]


def _blockwise(backend: Backend, function: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """A function of arrays (n, t, k) at many of them, (m, n, t, k); laws take as many as fit into memory at once."""
    core = core_of(backend)
    if not isinstance(core, LawBackend):
        return np.stack([function(one) for one in values])
    block = _at_once(core)
    return np.concatenate([function(values[i : i + block]) for i in range(0, len(values), block)])


def _at_once(core: Backend) -> int:
    parts = 1 if not isinstance(core, LawBackend) or core.weights is None else core.weights.shape[-1]
    return max(1, _BLOCK // (int(np.prod(core.shape)) * parts))


def simultaneous_band(backend: Backend, paths: np.ndarray, level: float) -> np.ndarray:
    """Equal-tailed intervals of one size c at every value, which hold whole trajectories with probability ``level``.

    A path (t, k) is inside where |2 F(x) - 1| <= c at all its values; c is the ``level`` quantile of the largest of
    them over the paths (path, n, t, k). Returns (n, t, k, 2).
    """
    size = np.quantile(_outermost(backend, paths), level, axis=0, method="higher").reshape(-1, 1, 1)
    tail = np.tile((1.0 - np.clip(size, 0.0, 1.0)) / 2, (1, *backend.shape[1:]))
    stepped = backend.discrete_variables | isinstance(core_of(backend), PathsBackend | RowsBackend)
    # A value is inside up to the last one below which there is no more than 1 - tail, and steps end at such levels.
    slack = np.where(stepped, _ROUNDING, 0.0)
    top = np.minimum(1.0 - tail + slack, np.maximum(1.0 - tail, 1.0 - _NOTHING))
    return np.stack([backend._inverse(np.maximum(tail - slack, np.minimum(tail, _NOTHING))), backend._inverse(top)], -1)


def _outermost(backend: Backend, paths: np.ndarray) -> np.ndarray:
    """The largest |2 F(x) - 1| over the values of each path, (path, n), for the side of a step that is farther in."""
    if isinstance(backend, PathsBackend):
        upper, lower = stats.rankdata(paths, "max", axis=0), stats.rankdata(paths, "min", axis=0) - 1.0
        return np.maximum(1.0 - 2.0 * upper / len(paths), 2.0 * lower / len(paths) - 1.0).max((2, 3))
    core = core_of(backend)
    stepped = backend.discrete_variables.any() or isinstance(core, PartlyKnown)
    block, found = _at_once(core), []
    for start in range(0, len(paths), block):
        part = paths[start : start + block]
        upper = backend.cdf(part)
        lower = backend.cdf(part, left=True) if stepped else upper
        found.append(np.maximum(1.0 - 2.0 * upper, 2.0 * lower - 1.0).max((2, 3)))
    return np.concatenate(found)
