"""Laws of rounded values: the probability that a density gives to each cell of a lattice."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.blend import SideBySide
from probseq.distributions.compose import Mixture
from probseq.distributions.counts import lattice_points
from probseq.distributions.gaussian import FullNormal
from probseq.distributions.intervals import log_interval
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.product import IndependentParts
from probseq.distributions.pushforward import Pushforward
from probseq.errors import IncompatibleError

__all__ = ["Discretized", "discretized"]

# How far, in steps, a number in double precision may lie beside its lattice point, and one in single precision.
_SLACK = {torch.float64: 1e-6, torch.float32: 1e-2}
# Moments: cells between the quartiles that are told apart, cells before their groups grow, and the growth.
_FINE_CELLS, _DENSE, _GROWTH = 128, 1024, 1.02
# Groups that are summed at once, and where what is left of a heavy tail is taken as that of a power law.
_BLOCK, _FAR = 32, 1e6


class Discretized(ProductDistribution):
    r"""P(x_i) = F(x_i + w/2) - F(x_i - w/2) on the lattice of the multiples x_i of w: the law of rounded values.

    With ``lowest`` all that lies below counts as the lowest lattice point, whose probability is F(lowest + w/2).
    Mean and variance are sums over the lattice. Where more than 128 cells lie between the quartiles, they are summed
    in groups of a 128th of that distance, with Sheppard's correction: right to 1e-5 of the standard deviation.

    Parameters
    ----------
    base : law of independent variables, or of one, with a cdf; it is computed in double precision
    width : w, positive, in the unit of the data
    lowest : multiple of w, or None
    """

    discrete: ClassVar[bool] = True

    def __init__(self, base: Distribution, width: float = 1.0, lowest: float | None = None) -> None:
        self.base = base if base.dtype == torch.float64 else base.map_batch(lambda t, e: t.double())
        self.width, self.lowest = float(width), None if lowest is None else float(lowest)
        torch.distributions.Distribution.__init__(self, base.batch_shape, base.event_shape, validate_args=False)

    @property
    def step(self) -> float:  # type: ignore[override]
        return self.width

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return self.base.is_likelihood

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return self.base.margins

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        return type(self)(self.base.map_batch(move), self.width, self.lowest)

    def marginal(self, index: list[int]) -> Distribution:
        return Discretized(self.base.marginal(index), self.width, self.lowest)

    def training_score(self, value: Tensor, seen: Tensor) -> Tensor:
        return self.log_prob_seen(value, seen) if self.is_likelihood else self.base.training_score(value, seen)

    # the lattice -------------------------------------------------------------------------------------------------

    def _floor(self, value: Tensor) -> Tensor:
        """Number of the largest lattice point that is not above a value."""
        return torch.floor(value.double() / self.width + _SLACK.get(value.dtype, 1e-2))

    def _ceil(self, value: Tensor) -> Tensor:
        return torch.ceil(value.double() / self.width - _SLACK.get(value.dtype, 1e-2))

    def _upper(self, index: Tensor) -> Tensor:
        """Upper end of a cell."""
        return (index + 0.5) * self.width

    @property
    def _first(self) -> float:
        return -math.inf if self.lowest is None else round(self.lowest / self.width)

    def rounded(self, value: Tensor) -> Tensor:
        """The lattice points whose cells hold the values."""
        index = torch.ceil(value.double() / self.width - 0.5)
        return lattice_points(index.clamp_min(self._first), self.width)

    # law ---------------------------------------------------------------------------------------------------------

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        index = torch.round(value.double() / self.width)
        distance = (value.double() / self.width - index).abs()
        possible = (distance <= _SLACK.get(value.dtype, 1e-2)) & (index >= self._first) & torch.isfinite(index)
        index = torch.where(possible, index, torch.zeros_like(index).clamp_min(self._first))
        low = torch.where(index <= self._first, torch.full_like(index, -torch.inf), self._upper(index - 1))
        log_mass = log_interval(self.base, low, self._upper(index))
        return torch.where(possible, log_mass, torch.full_like(log_mass, -torch.inf))

    def _cdf(self, index: Tensor) -> Tensor:
        p = self.base.cdf(self._upper(index))
        return torch.where(index < self._first, torch.zeros_like(p), p)

    def cdf(self, value: Tensor) -> Tensor:
        return self._cdf(self._floor(value))

    def cdf_left(self, value: Tensor) -> Tensor:
        return self._cdf(self._ceil(value) - 1.0)

    def icdf(self, q: Tensor) -> Tensor:
        q = q.double()
        found = self.base.icdf(q)
        index = torch.ceil(found / self.width - 0.5)
        index = torch.where(torch.isfinite(found), index, found).clamp_min(self._first)
        # Quantiles of the base have rounding errors, where a level meets a step.
        index = torch.where(self._cdf(index) < q, index + 1.0, index)
        lower = index - 1.0
        index = torch.where((self._cdf(lower) >= q) & (lower >= self._first), lower, index)
        return lattice_points(index, self.width)

    def has_moment(self, order: float) -> Tensor:
        return self.base.has_moment(order)

    @property
    def mean(self) -> Tensor:
        return torch.where(self.has_moment(1), self._moments[0], torch.full_like(self._moments[0], torch.inf))

    @property
    def variance(self) -> Tensor:
        return torch.where(self.has_moment(2), self._moments[1], torch.full_like(self._moments[1], torch.inf))

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, by sums outwards from the median."""
        shape = (*self.batch_shape, *self.event_shape)
        low, middle, high = (self.base.icdf(torch.full(shape, q, dtype=torch.float64)) for q in (0.25, 0.5, 0.75))
        size = torch.ceil((high - low) / (_FINE_CELLS * self.width)).clamp_min(1.0)
        centre = torch.floor(middle / self.width + 0.5)
        if self.lowest is not None:
            # Groups start at the lowest point, whose cell is larger than it looks.
            centre = self._first + size * torch.round((centre - self._first) / size)
        total = [torch.zeros(shape, dtype=torch.float64) for _ in range(2)]
        for side in (1.0, -1.0):
            # Ends of groups, in groups from the centre: 0, 1, 2, ... and then ever farther apart.
            end, before, done = 0.0, total, False
            while not done:
                ends = [end]
                for _ in range(_BLOCK):
                    ends.append(ends[-1] + (1.0 if ends[-1] < _DENSE else math.floor(ends[-1] * (_GROWTH - 1.0))))
                added, left = self._group_sums(centre, size, side, ends)
                end = ends[-1]
                done = bool(((added[1] <= 1e-13 * (total[1] + added[1])) & (left < 1e-6)).all())
                if not done and end > _FAR:
                    # Sums of blocks that all grow alike are a geometric series.
                    added, done = [_series(b, a) for b, a in zip(before, added, strict=True)], True
                total, before = [one + more for one, more in zip(total, added, strict=True)], added
        offset, square = total
        return (centre + offset) * self.width, (square - offset**2).clamp_min(0.0) * self.width**2

    def _group_sums(self, centre: Tensor, size: Tensor, side: float, ends: list[float]) -> tuple[list[Tensor], Tensor]:
        """sum P d and sum P d^2 of groups of cells on one side of the centre, d their distance from it in steps.

        With them the probability that lies behind the groups.
        """
        reach = torch.tensor(ends, dtype=torch.float64).reshape(-1, *(1,) * centre.ndim)
        # The cells of number 0, 1, ..., size - 1 from the centre make the first group upwards.
        edge = centre + side * reach * size
        cut = self._upper(edge - 1.0)
        up_to = self.base.cdf(cut)
        left = 1.0 - up_to[-1] if side > 0 else up_to[-1]
        if ends[-1] <= _DENSE:
            p = up_to.diff(dim=0) * side
        else:
            p = log_interval(self.base, *((cut[:-1], cut[1:]) if side > 0 else (cut[1:], cut[:-1]))).exp()
        first, last = torch.minimum(edge[:-1], edge[1:]), torch.maximum(edge[:-1], edge[1:]) - 1.0
        inside = first >= self._first
        number = last - first + 1.0
        distance = torch.where(inside, 0.5 * (first + last), torch.full_like(first, self._first)) - centre
        excess = torch.where(inside, (number**2 - 1.0) / 12.0, torch.zeros_like(first))
        weighted = p * distance
        return [weighted.sum(0), (weighted * distance - p * excess).sum(0)], left

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        return self.rounded(self.base.sample(tuple(sample_shape), generator=generator))


def _series(before: Tensor, last: Tensor) -> Tensor:
    """last (1 + r + r^2 + ...) with r = last / before, where that converges."""
    falling = last.abs() < before.abs()
    return torch.where(falling, last / (1.0 - last / torch.where(falling, before, torch.ones_like(before))), last)


def discretized(law: Distribution, width: float = 1.0, lowest: float | None = None) -> Distribution:
    """The law of values of ``law`` rounded to multiples of ``width``, those below ``lowest`` to it.

    Raises
    ------
    IncompatibleError
        For counts, categories, angles, and variables that depend on each other in more ways than by a mixture.
    """
    if isinstance(law, IndependentParts):
        return law.map_parts(lambda part, own: discretized(part, width, lowest))
    if isinstance(law, Mixture):
        return Mixture(law.log_weights, discretized(law.components, width, lowest))
    if isinstance(law, SideBySide):
        return SideBySide([discretized(one, width, lowest) for one in law.laws])
    if bool(law.discrete_variables.any()) or bool(law.circular_variables.any()):
        raise IncompatibleError(
            got=f"Discretize around a {type(law).__name__}",
            expected="numbers that have a density",
            remedy="Leave Discretize out: counts have probabilities already, and angles have no lattice.",
        )
    core: Distribution = law
    while isinstance(core, Pushforward):
        core = core.base
    if law.n_variables > 1 and not isinstance(core, ProductDistribution):
        kind = "correlated normals" if isinstance(core, FullNormal | FactorNormal) else f"a {type(core).__name__}"
        raise IncompatibleError(
            got=f"Discretize around {kind} of {law.n_variables} variables",
            expected="independent variables, or mixtures of such",
            remedy='Use covariance="diag", or a model of one variable.',
        )
    return Discretized(law, width, lowest)
