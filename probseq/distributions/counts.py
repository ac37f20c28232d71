"""Distributions of counts."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

from probseq.distributions.base import ProductDistribution
from probseq.distributions.exponential import ExponentialFamily
from probseq.distributions.special import by_numpy

__all__ = [
    "NegativeBinomialCounts",
    "PoissonCounts",
    "ZeroInflatedCounts",
    "discrete_icdf",
    "lattice_index",
    "lattice_points",
    "log_rising",
]

Numbers = TypeVar("Numbers", Tensor, np.ndarray)

_SERIES = 100.0
# Decimals that a step may be written in, and the rounding error of a quotient by it.
_DECIMALS, _BESIDE = 13, 1e-9


def lattice_points(index: Numbers, step: float) -> Numbers:
    """``index * step`` for whole numbers: the double next to the decimal that the step is written in, where it is."""
    for decimals in range(_DECIMALS):
        scaled = step * 10**decimals
        if abs(scaled - round(scaled)) <= 1e-14 * scaled:
            return index * round(scaled) / 10**decimals
    return index * step


def lattice_index(values: np.ndarray, step: float) -> np.ndarray:
    """``values / step``, whole numbers where this is what rounding alone has moved them from."""
    index = values / step
    whole = np.rint(index)
    return np.where(np.abs(index - whole) <= _BESIDE * (1.0 + np.abs(whole)), whole, index)


def discrete_icdf(cdf, q: Tensor, low: Tensor, high: Tensor, step: float = 1.0) -> Tensor:  # type: ignore[no-untyped-def]
    """Smallest multiple x of ``step`` in [low, high] with cdf(x) >= q, by bisection over the integers.

    ``cdf(high) >= q`` must hold.
    """
    if step != 1.0:
        first, last = (torch.round(end / step) for end in (low, high))
        found = discrete_icdf(lambda index: cdf(lattice_points(index, step)), q, first, last)
        return lattice_points(found, step)
    low, high = torch.broadcast_tensors(low, high)
    low, high = low.clone(), high.clone()
    while bool((low < high).any()):
        middle = torch.floor((low + high) / 2)
        enough = cdf(middle) >= q
        high = torch.where(enough, middle, high)
        low = torch.where(enough, low, torch.minimum(middle + 1, high))
    return high


def _is_count(value: Tensor) -> Tensor:
    return (value >= 0) & (value == torch.floor(value)) & torch.isfinite(value)


class CountDistribution(ProductDistribution):
    """Independent counts with a cdf, from which quantiles follow by bisection."""

    discrete: ClassVar[bool] = True

    def icdf(self, q: Tensor) -> Tensor:
        centre = self.mean
        q = q.expand(torch.broadcast_shapes(q.shape, centre.shape))
        high = torch.ceil(centre + 10 * self.stddev + 10).expand(q.shape)
        while bool((short := (self.cdf(high) < q) & (q < 1)).any()):
            high = torch.where(short, 2 * high, high)
        x = discrete_icdf(self.cdf, q, torch.zeros_like(high), high)
        return torch.where(q >= 1, torch.full_like(x, torch.inf), x)


class PoissonCounts(ExponentialFamily, CountDistribution):
    r"""P(x) = prod_i rate_i^{x_i} e^{-rate_i} / x_i! on the non-negative integers.

    Parameters
    ----------
    rate : (*B, k), positive, in counts per step
    """

    _event_dims: ClassVar[dict[str, int]] = {"rate": 1}
    rate: Tensor

    def natural(self) -> list[Tensor]:
        return [self.rate.log()]

    def statistics(self, value: Tensor) -> list[Tensor]:
        return [value]

    def log_normaliser(self) -> Tensor:
        return self.rate

    def log_base(self, value: Tensor) -> Tensor:
        return -torch.lgamma(value + 1)

    def inside(self, value: Tensor) -> Tensor:
        return _is_count(value)

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = _is_count(value)
        count = torch.where(possible, value, torch.zeros_like(value))
        log_mass = torch.xlogy(count, self.rate) - self.rate - torch.lgamma(count + 1)
        return torch.where(possible, log_mass, torch.full_like(log_mass, -torch.inf))

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate

    def cdf(self, value: Tensor) -> Tensor:
        return by_numpy(lambda rate, x: special.pdtr(np.floor(x).clip(min=0), rate) * (x >= 0), self.rate, value)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return torch.poisson(self.rate.detach().expand(shape).contiguous(), generator=generator)


class NegativeBinomialCounts(CountDistribution):
    r"""P(x) = prod_i Gamma(x_i + r_i) / (Gamma(r_i) x_i!) p_i^{r_i} (1 - p_i)^{x_i}.

    Here r = 1 / dispersion and p = r / (r + mean). A Poisson whose rate is gamma distributed:
    overdispersed counts. The Poisson law is the limit of dispersion 0.

    Parameters
    ----------
    location : (*B, k), positive: the mean
    dispersion : (*B, k), positive; the variance is mean + dispersion mean^2
    """

    _event_dims: ClassVar[dict[str, int]] = {"location": 1, "dispersion": 1}
    location: Tensor
    dispersion: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = _is_count(value)
        x = torch.where(possible, value, torch.zeros_like(value))
        r = 1.0 / self.dispersion
        log_mass = log_rising(x, r) + torch.xlogy(x, self.location)
        log_mass = log_mass - (x + r) * torch.log1p(self.location * self.dispersion) - torch.lgamma(x + 1)
        return torch.where(possible, log_mass, torch.full_like(log_mass, -torch.inf))

    @property
    def mean(self) -> Tensor:
        return self.location

    @property
    def variance(self) -> Tensor:
        return self.location + self.dispersion * self.location**2

    def cdf(self, value: Tensor) -> Tensor:
        def function(mean: np.ndarray, dispersion: np.ndarray, x: np.ndarray) -> np.ndarray:
            share = 1 / (1 + mean * dispersion)
            return special.betainc(1 / dispersion, np.floor(x).clip(min=0) + 1, share) * (x >= 0)

        return by_numpy(function, self.location, self.dispersion, value)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        r = (1.0 / self.dispersion).detach().expand(shape).contiguous()
        rate = torch._standard_gamma(r, generator=generator) * (self.location * self.dispersion).detach()
        return torch.poisson(rate, generator=generator)


def log_rising(x: Tensor, r: Tensor) -> Tensor:
    r"""log Gamma(x + r) - log Gamma(r) - x log r = sum_{j<x} log(1 + j / r), without cancellation for large r."""
    x, r = torch.broadcast_tensors(x, r)
    small = r < _SERIES
    near, far = torch.where(small, r, torch.ones_like(r)), torch.where(small, torch.full_like(r, _SERIES), r)
    direct = torch.lgamma(x + near) - torch.lgamma(near) - x * near.log()
    series = (x + far - 0.5) * torch.log1p(x / far) - x + _stirling(x + far) - _stirling(far)
    return torch.where(small, direct, series)


def _stirling(z: Tensor) -> Tensor:
    """log Gamma(z) - (z - 1/2) log z + z - log(2 pi) / 2 for large z."""
    w = 1.0 / (z * z)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w / 1680))) / z


class ZeroInflatedCounts(CountDistribution):
    r"""P(x) = zero_prob 1(x = 0) + (1 - zero_prob) Poisson(x; rate), independent over the variables.

    Parameters
    ----------
    rate : (*B, k), positive, of the counts that are no structural zeros
    zero_prob : (*B, k), inside [0, 1): the probability of a structural zero
    """

    _event_dims: ClassVar[dict[str, int]] = {"rate": 1, "zero_prob": 1}
    rate: Tensor
    zero_prob: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = _is_count(value)
        x = torch.where(possible, value, torch.zeros_like(value))
        log_rest = torch.log1p(-self.zero_prob)
        positive = log_rest + torch.xlogy(x, self.rate) - self.rate - torch.lgamma(x + 1)
        zero = torch.log(self.zero_prob + (1 - self.zero_prob) * torch.exp(-self.rate))
        log_mass = torch.where(x == 0, zero, positive)
        return torch.where(possible, log_mass, torch.full_like(log_mass, -torch.inf))

    @property
    def mean(self) -> Tensor:
        return (1 - self.zero_prob) * self.rate

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 + self.zero_prob * self.rate)

    def cdf(self, value: Tensor) -> Tensor:
        def function(rate: np.ndarray, zero_prob: np.ndarray, x: np.ndarray) -> np.ndarray:
            return (zero_prob + (1 - zero_prob) * special.pdtr(np.floor(x).clip(min=0), rate)) * (x >= 0)

        return by_numpy(function, self.rate, self.zero_prob, value)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        count = torch.poisson(self.rate.detach().expand(shape).contiguous(), generator=generator)
        kept = torch.bernoulli((1 - self.zero_prob).detach().expand(shape), generator=generator)
        return count * kept
