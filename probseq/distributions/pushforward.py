"""The law of a value that a map sends another value to."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Self

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Affine, Bijection, BoxCoxInverse, Exponential, Extended
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.quantiles import QuantileLaw
from probseq.distributions.skewed import DiagonalSkewedStudentT
from probseq.errors import IncompatibleError

__all__ = ["Pushforward"]

_NODES = 512
# Quantiles that are held at once.
_AT_ONCE = 1_000_000


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights, an eigenvalue problem that costs more than the sum over them."""
    return np.polynomial.legendre.leggauss(_NODES)


class Pushforward(Distribution):
    r"""The law of x = g(z): p(x) = p_z(g^{-1}(x)) |dz/dx| / P(z in range of the inverse).

    Parameters
    ----------
    base : law of z; where the z-range of ``bijection`` is bounded its mass outside is renormalised (independent
        coordinates only)
    bijection : increasing map applied to each coordinate
    """

    def __init__(self, base: Distribution, bijection: Bijection) -> None:
        if isinstance(bijection, Affine):
            shape = (*base.batch_shape, *base.event_shape)
            bijection = Affine(bijection.loc.expand(shape), bijection.scale.expand(shape))
        self.base, self.bijection = base, bijection
        bounded = not bijection.onto_reals
        if bounded and isinstance(base, FullNormal | FactorNormal) and base.n_variables > 1:
            raise IncompatibleError(
                got="a map with a bounded range over correlated normals",
                expected="independent coordinates",
                remedy='Use covariance="diag" or a transform onto the whole line, such as Log.',
            )
        torch.distributions.Distribution.__init__(self, base.batch_shape, base.event_shape, validate_args=False)

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        bijection = self.bijection
        if isinstance(bijection, Affine):
            bijection = Affine(move(bijection.loc, 1), move(bijection.scale, 1))
        return type(self)(self.base.map_batch(move), bijection)

    def marginal(self, index: list[int]) -> Distribution:
        bijection = self.bijection
        if isinstance(bijection, Affine):
            bijection = Affine(bijection.loc[..., index], bijection.scale[..., index])
        return Pushforward(self.base.marginal(index), bijection)

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return self.base.is_likelihood

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return self.base.margins

    def range_probability(self) -> tuple[Tensor, Tensor]:
        """P(z <= z_low) and P(z_low < z < z_high) for each variable, (*B, k)."""
        like = self.base.icdf(torch.full(self.event_shape, 0.5, dtype=self.base.dtype))
        low, high = torch.zeros_like(like), torch.ones_like(like)
        if np.isfinite(self.bijection.z_low):
            low = self.base.cdf(torch.full_like(like, self.bijection.z_low))
        if np.isfinite(self.bijection.z_high):
            high = self.base.cdf(torch.full_like(like, self.bijection.z_high))
        return low, high - low

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        inside = (value > self.bijection.x_low) & (value < self.bijection.x_high)
        shared = self.bijection.onto_reals and not isinstance(self.bijection, Affine)
        if not shared or not bool((inside | ~seen).all()):
            return super().component_table(value, seen)
        safe = torch.where(inside, value, self.bijection.forward(torch.zeros_like(value)))
        slope = torch.where(seen, self.bijection.log_slope(safe), torch.zeros_like(safe)).sum(-1, keepdim=True)
        return self.base.component_table(self.bijection.inverse(safe), seen) + slope

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        inside = (value > self.bijection.x_low) & (value < self.bijection.x_high)
        # Values outside the support must not reach the logarithm: the density is zero there, not NaN.
        safe = torch.where(inside, value, self.bijection.forward(torch.zeros_like(value)))
        slope = self.bijection.log_slope(safe)
        if not self.bijection.onto_reals:
            slope = slope - torch.log(self.range_probability()[1])
        log_prob = self.base.log_prob_seen(self.bijection.inverse(safe), seen)
        log_prob = log_prob + torch.where(seen, slope, torch.zeros_like(slope)).sum(-1)
        possible = (inside | ~seen).all(-1)
        return torch.where(possible, log_prob, torch.full_like(log_prob, -torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        inside = (value > self.bijection.x_low) & (value < self.bijection.x_high)
        safe = torch.where(inside, value, self.bijection.forward(torch.zeros_like(value)))
        p = self.base.cdf(self.bijection.inverse(safe))
        if not self.bijection.onto_reals:
            low, mass = self.range_probability()
            p = ((p - low) / mass).clamp(0.0, 1.0)
        p = torch.where(value <= self.bijection.x_low, torch.zeros_like(p), p)
        return torch.where(value >= self.bijection.x_high, torch.ones_like(p), p)

    def icdf(self, q: Tensor) -> Tensor:
        if not self.bijection.onto_reals:
            low, mass = self.range_probability()
            # A level inside (0, 1) stays there, whatever the rounding: its quantile is finite.
            info = torch.finfo(torch.promote_types(mass.dtype, q.dtype))
            inner = low + q * mass
            inner = torch.where(q < 1, inner.clamp_max(1.0 - info.eps / 2), inner)
            inner = torch.where(q > 0, inner.clamp_min(info.tiny), inner)
            z = self.base.icdf(inner)
            # The end of the z-range itself may be where x is infinite.
            ends = (self.bijection.z_low, self.bijection.z_high)
            near = [
                end * (1.0 - math.copysign(4 * info.eps, end * side)) for end, side in zip(ends, (-1, 1), strict=True)
            ]
            within = z.clamp(*(end if math.isfinite(end) else None for end in near))
            return self.bijection.forward(torch.where((q > 0) & (q < 1), within, z))
        return self.bijection.forward(self.base.icdf(q))

    def has_moment(self, order: float) -> Tensor:
        """E|x|^order is finite: never for the exponential of a Student t, by its scale for that of a Laplace law.

        For Box-Cox by the tail of its power.
        """
        g, every = self.bijection, self.base.has_moment(0.0)
        g = g.inner if isinstance(g, Extended) else g
        if isinstance(g, Affine):
            return self.base.has_moment(order)
        if isinstance(g, Exponential):
            if isinstance(self.base, DiagonalLaplace):
                return order * self.base.scale < 1
            if isinstance(self.base, QuantileLaw):
                return order * self.base.upper_tail < 1
            return every & (order == 0 or not isinstance(self.base, DiagonalStudentT | DiagonalSkewedStudentT))
        if isinstance(g, BoxCoxInverse):
            # lmbda < 0: P(X > x) falls as x^lmbda, since the density of z is positive at the end of its range.
            return self.base.has_moment(order / g.lmbda) if g.lmbda > 0 else every & (order == 0 or g.lmbda < -order)
        return every

    @property
    def mean(self) -> Tensor:
        """Exact for affine maps and for log-normals; otherwise by Gauss-Legendre quadrature over the quantiles.

        inf where the mean does not exist: the exponential of a Student t, Box-Cox with -1 <= lmbda < 0.
        """
        exact = self._exact_moments()
        return exact[0] if exact is not None else self._where_finite(1, self._quadrature(lambda x: x))

    @property
    def variance(self) -> Tensor:
        """As the mean; inf where it does not exist, as for Box-Cox with -2 <= lmbda < 0."""
        exact = self._exact_moments()
        if exact is not None:
            return exact[1]
        mean = self._quadrature(lambda x: x)
        return self._where_finite(2, self._quadrature(lambda x: (x - mean) ** 2))

    def _where_finite(self, order: float, moment: Tensor) -> Tensor:
        return torch.where(self.has_moment(order), moment, torch.full_like(moment, torch.inf))

    def _exact_moments(self) -> tuple[Tensor, Tensor] | None:
        g, base = self.bijection, self.base
        if isinstance(g, Affine):
            return g.forward(base.mean), base.variance * g.scale**2
        if isinstance(g, Exponential) and isinstance(base, DiagonalNormal | FullNormal | FactorNormal):
            m, v = base.mean, base.variance
            mean = torch.exp(m + 0.5 * v)
            return g.shift + mean, torch.expm1(v) * mean**2
        if isinstance(g, Exponential) and isinstance(base, DiagonalLaplace):
            first, second = (torch.exp(k * base.loc) / (1.0 - (k * base.scale) ** 2) for k in (1.0, 2.0))
            variance = self._where_finite(2, second - first**2)
            return g.shift + self._where_finite(1, first), variance
        if isinstance(g, Exponential) and isinstance(base, DiagonalStudentT | DiagonalSkewedStudentT):
            infinite = torch.full_like(base.loc, torch.inf)
            return infinite, infinite
        return None

    def _quadrature(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        # Nodes in u = logistic(s), so that both tails get their share of the points.
        nodes, weights = _rule()
        s = 36.0 * nodes
        u = 1.0 / (1.0 + np.exp(-s))
        w = 36.0 * weights * u * (1.0 - u)
        dtype, n_batch = self.base.dtype, len(self.batch_shape)
        weight = torch.as_tensor(w / w.sum(), dtype=dtype)
        level = torch.as_tensor(u, dtype=dtype).reshape(-1, *(1,) * (n_batch + 1))
        level = level.expand(-1, *(1,) * n_batch, *self.event_shape)
        block = max(1, _AT_ONCE // max(1, math.prod((*self.batch_shape, *self.event_shape))))
        total = torch.zeros((), dtype=dtype)
        for some, at in zip(weight.split(block), level.split(block), strict=True):
            value = function(self.icdf(at))
            total = total + torch.tensordot(some.to(value.dtype), value, 1)
        return total

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        if self.bijection.onto_reals:
            return self.bijection.forward(self.base.sample(sample_shape, generator=generator))
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        u = torch.rand(shape, generator=generator, dtype=self.base.dtype)
        return self.icdf(u).detach()
