"""Distributions of counts."""

from __future__ import annotations

from typing import ClassVar

import torch
from scipy import special
from torch import Tensor

from probseq.distributions.base import ProductDistribution

__all__ = ["PoissonCounts", "discrete_icdf"]


def discrete_icdf(cdf, q: Tensor, low: Tensor, high: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Smallest integer x in [low, high] with cdf(x) >= q, by bisection over the integers.

    ``cdf(high) >= q`` must hold.
    """
    low, high = torch.broadcast_tensors(low, high)
    low, high = low.clone(), high.clone()
    while bool((low < high).any()):
        middle = torch.floor((low + high) / 2)
        enough = cdf(middle) >= q
        high = torch.where(enough, middle, high)
        low = torch.where(enough, low, torch.minimum(middle + 1, high))
    return high


class PoissonCounts(ProductDistribution):
    r"""P(x) = prod_i rate_i^{x_i} e^{-rate_i} / x_i! on the non-negative integers.

    Parameters
    ----------
    rate : (*B, k), positive, in counts per step
    """

    _event_dims: ClassVar[dict[str, int]] = {"rate": 1}
    discrete: ClassVar[bool] = True
    rate: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = (value >= 0) & (value == torch.floor(value)) & torch.isfinite(value)
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
        x = torch.floor(value).detach().cpu().double().numpy()
        p = special.pdtr(x.clip(min=0), self.rate.detach().cpu().double().numpy())
        return torch.as_tensor(p * (x >= 0), dtype=self.rate.dtype, device=self.rate.device)

    def icdf(self, q: Tensor) -> Tensor:
        q, rate = torch.broadcast_tensors(q, self.rate)
        # Chernoff bound of the upper tail at 1 - q, widened until it holds.
        high = torch.ceil(rate + 10 * rate.sqrt() + 10)
        law = PoissonCounts(rate=rate)
        while bool(((law.cdf(high) < q) & (q < 1)).any()):
            high = torch.where(law.cdf(high) < q, 2 * high, high)
        x = discrete_icdf(law.cdf, q, torch.zeros_like(high), high)
        return torch.where(q >= 1, torch.full_like(x, torch.inf), x)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return torch.poisson(self.rate.detach().expand(shape).contiguous(), generator=generator)
