"""The gamma distribution."""

from __future__ import annotations

from typing import ClassVar

import torch
from scipy import special
from torch import Tensor

from probseq.distributions.exponential import ExponentialFamily
from probseq.distributions.special import by_numpy

__all__ = ["DiagonalGamma"]


class DiagonalGamma(ExponentialFamily):
    r"""p(x) = prod_i b_i^{a_i} x_i^{a_i - 1} e^{-b_i x_i} / Gamma(a_i) on x > 0, with shape a and rate b.

    Parameters
    ----------
    shape : (*B, k), positive
    rate : (*B, k), positive, in the reciprocal unit of the data; the mean is shape / rate
    """

    _event_dims: ClassVar[dict[str, int]] = {"shape": 1, "rate": 1}
    a_value: ClassVar[float] = 1.0
    shape: Tensor
    rate: Tensor

    def natural(self) -> list[Tensor]:
        return [self.shape, -self.rate]

    def statistics(self, value: Tensor) -> list[Tensor]:
        return [value.log(), value]

    def log_normaliser(self) -> Tensor:
        return torch.lgamma(self.shape) - self.shape * self.rate.log()

    def log_base(self, value: Tensor) -> Tensor:
        return -value.log()

    def inside(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < torch.inf)

    @property
    def mean(self) -> Tensor:
        return self.shape / self.rate

    @property
    def variance(self) -> Tensor:
        return self.shape / self.rate**2

    def cdf(self, value: Tensor) -> Tensor:
        return by_numpy(special.gammainc, self.shape, (value * self.rate).clamp_min(0.0))

    def icdf(self, q: Tensor) -> Tensor:
        return by_numpy(special.gammaincinv, self.shape, q) / self.rate

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        a = self.shape
        return (a - self.rate.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)).sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        drawn = torch._standard_gamma(self.shape.detach().expand(shape).contiguous(), generator=generator)
        # A shape near zero underflows, yet every draw is inside the support.
        return (drawn / self.rate.detach()).clamp_min(torch.finfo(drawn.dtype).tiny)
