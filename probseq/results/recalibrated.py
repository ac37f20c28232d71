"""Forecasts whose cdf was bent so that it says what happens."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from probseq.distributions.counts import lattice_index
from probseq.errors import UnsupportedError
from probseq.evaluation import crps as crps_of
from probseq.evaluation.recalibration import BernsteinMap
from probseq.results.backends import Backend, PathsBackend

__all__ = ["RecalibratedBackend"]

_NORMAL_SCORES = np.linspace(-8.0, 8.0, 129)
# Counts beyond these quantiles add nothing; where there are more of them integrals are as good as sums.
_NO_MASS, _MOST_COUNTS = 1e-14, 5000
# Where the tails are longer a score leaves out what counts by the square of this probability.
_LONG_TAIL = 1e-6


class RecalibratedBackend(Backend):
    r"""P(X <= x) = g(F(x)) for each variable, and the dependence of the variables of a step as it was.

    The density of one variable is g'(F(x)) f(x). Several variables are moved each by itself,
    z_i = Q_i(g_i(F_i(x_i))), and p(x) = f(z) prod_i g_i'(F_i(x_i)) f_i(x_i) / f_i(z_i). Mean and variance are sums over
    paths or counts, and numerical integrals over the quantiles of other laws.

    Parameters
    ----------
    base : Backend
    maps : list (t or 1) of lists (k) of maps
        One for all steps, or one a step.
    """

    def __init__(self, base: Backend, maps: list[list[BernsteinMap]]) -> None:
        self.base, self.maps = base, maps
        self.shape, self.name, self.exact = base.shape, base.name, base.exact

    @property
    def discrete_variables(self) -> np.ndarray:
        return self.base.discrete_variables

    @property
    def step(self) -> float:
        return self.base.step

    def _each(self, what: str, u: np.ndarray) -> np.ndarray:
        """A method of the maps at u (..., n, t, k)."""
        out = np.empty_like(u)
        for i in range(u.shape[-1]):
            if len(self.maps) == 1:
                out[..., i] = getattr(self.maps[0][i], what)(u[..., i])
            else:
                for t, row in enumerate(self.maps):
                    out[..., t, i] = getattr(row[i], what)(u[..., t, i])
        return out

    def unbend(self, u: np.ndarray) -> np.ndarray:
        """Levels of the base law at levels (..., n, t, k) of this one; inside (0, 1), where quantiles are finite."""
        return np.clip(self._each("inverse", u), 1e-300, 1.0 - 2.0**-53)

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        return self._each("cdf", np.clip(self.base.cdf(x, left), 0.0, 1.0))

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        return self.base._inverse(self.unbend(u))

    def quantile(self, q: np.ndarray) -> np.ndarray:
        each = [self._inverse(np.full(self.shape, float(p))) for p in q]
        return np.stack(each, -1) if each else np.zeros((*self.shape, 0))

    @cached_property
    def _weighted_paths(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Paths in the order of their values, (path, n, t, k), and their probabilities; None where there are none."""
        if not isinstance(self.base, PathsBackend):
            return None
        levels = np.linspace(0.0, 1.0, len(self.base.paths) + 1)
        heights = np.array([[one.cdf(levels) for one in row] for row in self.maps])
        return np.sort(self.base.paths, 0), np.moveaxis(np.diff(heights), -1, 0)[:, None]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance, as the base says where they do not exist."""
        if self._weighted_paths is not None:
            x, weights = self._weighted_paths
            mean = (weights * x).sum(0)
            variance = (weights * (x - mean) ** 2).sum(0)
        else:
            mean, variance = self._quadrature()
            for i in np.flatnonzero(self.discrete_variables):
                found = self.marginal([int(i)])._sums()
                if found is not None:
                    mean[..., i : i + 1], variance[..., i : i + 1] = found
        of_base = self.base.mean(), self.base.variance()
        pairs = zip(of_base, (mean, variance), strict=True)
        first, second = (np.where(np.isfinite(known), found, known) for known, found in pairs)
        return first, second

    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Integrals of Q(u) g'(u) and its square about the mean, over normal scores of u.

        The square of a heavy tail is large beyond the last score: what the same sum lacks of the variance of the base,
        about the same centre, lies there, on each side as much as the tail there is long, and counts g' times.
        """
        from scipy import special

        shares = (_NORMAL_SCORES[1] - _NORMAL_SCORES[0]) * np.exp(-0.5 * _NORMAL_SCORES**2) / np.sqrt(2 * np.pi)
        levels = [np.full(self.shape, u) for u in special.ndtr(_NORMAL_SCORES)]
        x = np.stack([self.base._inverse(u) for u in levels])
        slope = np.exp(np.stack([self._each("log_density", u) for u in levels]))
        plain = (shares / shares.sum()).reshape(-1, 1, 1, 1)
        bent = plain * slope / (plain * slope).sum(0)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = (bent * x).sum(0)
            square = (x - mean) ** 2
            lacking = self.base.variance() + (self.base.mean() - mean) ** 2 - (plain * square).sum(0)
            ends = square[[0, -1]] / np.maximum(square[[0, -1]].sum(0), np.finfo(float).tiny)
            variance = (bent * square).sum(0) + lacking * (ends * slope[[0, -1]]).sum(0)
        return mean, variance

    def _sums(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and variance of one counted variable from P(X > x); None of too many counts."""
        step = self.step
        low, high = (self._inverse(np.full(self.shape, p)) / step for p in (_NO_MASS, 1.0 - _NO_MASS))
        width = np.nanmax(high - low, initial=0.0)
        if not width < _MOST_COUNTS:
            return None
        first, second = np.zeros(self.shape), np.zeros(self.shape)
        for j in range(int(width) + 1):
            above = 1.0 - self.cdf((low + j) * step)
            first, second = first + above, second + (2 * j + 1) * above
        return (low + first) * step, (second - first**2) * step**2

    def mean(self) -> np.ndarray:
        return self._moments[0]

    def variance(self) -> np.ndarray:
        return self._moments[1]

    def crps(self, y: np.ndarray) -> np.ndarray:
        if self._weighted_paths is not None:
            score = crps_of.crps_weighted(y, *self._weighted_paths)
            return np.where(np.isfinite(self.base.mean()) | np.isnan(y), score, np.inf)
        counted = self.discrete_variables
        if counted.any() and not counted.all():
            each = [self.marginal([i]).crps(y[..., i : i + 1]) for i in range(self.shape[-1])]
            return np.concatenate(each, -1)
        if counted.all():
            step, nothing = self.step, _NO_MASS
            span = self._inverse(np.full(self.shape, 1.0 - nothing)) - self._inverse(np.full(self.shape, nothing))
            if not np.nanmax(span, initial=0.0) < _MOST_COUNTS * step:
                nothing = _LONG_TAIL
            lowest = lattice_index(self._inverse(np.full(self.shape, nothing)), step)
            index, cdf = lattice_index(y, step), lambda x: self._cdf_at(x * step)
            return step * crps_of.crps_discrete(index, cdf, lower=lowest, tolerance=10 * nothing)
        level = np.nan_to_num(self.cdf(y), nan=0.5)
        score = crps_of.crps_quantile(y, self._quantile_at, level=level, kinks=self.kinks())
        return np.where(np.isfinite(self.base.mean()) | np.isnan(y), score, np.inf)

    def kinks(self) -> np.ndarray:
        return self._each("cdf", self.base.kinks())

    def _cdf_at(self, x: np.ndarray) -> np.ndarray:
        """P(X <= x) for values (..., n, t, k), or that broadcast to these."""
        values = np.broadcast_to(x, np.broadcast_shapes(np.shape(x), self.shape))
        flat = values.reshape(-1, *self.shape)
        return np.stack([self.cdf(one) for one in flat]).reshape(values.shape)

    def _quantile_at(self, p: np.ndarray) -> np.ndarray:
        """Quantiles at levels (..., n, t, k)."""
        levels = np.broadcast_to(p, np.broadcast_shapes(np.shape(p), self.shape))
        flat = levels.reshape(-1, *self.shape)
        return np.stack([self.base._inverse(one) for one in self.unbend(flat)]).reshape(levels.shape)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        counted = self.discrete_variables
        if counted.any():
            return self._log_mass(y)
        seen = ~np.isnan(y)
        u = np.where(seen, self.base.cdf(y), 0.5)
        bent = np.where(seen, self._each("log_density", u), 0.0).sum(-1)
        if self.shape[-1] == 1:
            return self.base.log_prob(y) + np.where(seen.any(-1), bent, np.nan)
        moved = self.base._inverse(np.clip(self._each("cdf", u), 1e-15, 1 - 1e-15))
        moved = np.where(seen, moved, np.nan)
        change = np.zeros(y.shape[:2])
        for i in range(self.shape[-1]):
            margin = self.base.marginal([i])
            gained = margin.log_prob(y[..., i : i + 1]) - margin.log_prob(moved[..., i : i + 1])
            change += np.where(seen[..., i], gained, 0.0)
        return self.base.log_prob(moved) + np.where(seen.any(-1), bent + change, np.nan)

    def _log_mass(self, y: np.ndarray) -> np.ndarray:
        if self.shape[-1] > 1:
            raise UnsupportedError(
                got="log_prob of several recalibrated variables of which some are counted",
                expected="measurements, or one counted variable",
                remedy="Use marginal(variable).log_prob(...), or crps(y).",
            )
        top, bottom = self.base.cdf(y), self.base.cdf(y, left=True)
        jump = top - bottom
        # Differences of probabilities next to 1 are rounding; the slope of the map is not.
        wide = jump > 1e-6
        with np.errstate(divide="ignore", invalid="ignore"):
            chord = np.log((self._each("cdf", top) - self._each("cdf", bottom)) / jump)
        middle = self._each("log_density", np.clip(0.5 * (top + bottom), 0.0, 1.0))
        return self.base.log_prob(y) + np.where(wide, chord, middle)[..., 0]

    def marginal(self, variables: list[int]) -> RecalibratedBackend:
        return RecalibratedBackend(self.base.marginal(variables), [[row[i] for i in variables] for row in self.maps])
