"""The beta distribution."""

from __future__ import annotations

from typing import ClassVar

import torch
from scipy import special
from torch import Tensor

from probseq.distributions.exponential import ExponentialFamily
from probseq.distributions.special import by_numpy

__all__ = ["DiagonalBeta"]


class DiagonalBeta(ExponentialFamily):
    r"""p(x) = prod_i x_i^{a_i - 1} (1 - x_i)^{b_i - 1} / B(a_i, b_i) on 0 < x < 1.

    Parameters
    ----------
    a, b : (*B, k), positive; the mean is a / (a + b)
    """

    _event_dims: ClassVar[dict[str, int]] = {"a": 1, "b": 1}
    a_value: ClassVar[float] = 0.5
    a: Tensor
    b: Tensor

    def natural(self) -> list[Tensor]:
        return [self.a, self.b]

    def statistics(self, value: Tensor) -> list[Tensor]:
        return [value.log(), torch.log1p(-value)]

    def log_normaliser(self) -> Tensor:
        return torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)

    def log_base(self, value: Tensor) -> Tensor:
        return -value.log() - torch.log1p(-value)

    def inside(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)

    @property
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        mean = self.mean
        return mean * (1 - mean) / (self.a + self.b + 1)

    def cdf(self, value: Tensor) -> Tensor:
        return by_numpy(special.betainc, self.a, self.b, value.clamp(0.0, 1.0))

    def icdf(self, q: Tensor) -> Tensor:
        return by_numpy(special.betaincinv, self.a, self.b, q)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        a, b = self.a, self.b
        slopes = (a - 1) * torch.digamma(a) + (b - 1) * torch.digamma(b) - (a + b - 2) * torch.digamma(a + b)
        return (self.log_normaliser() - slopes).sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        one, two = (
            torch._standard_gamma(t.detach().expand(shape).contiguous(), generator=generator) for t in (self.a, self.b)
        )
        info = torch.finfo(one.dtype)
        share = one.clamp_min(info.tiny) / (one + two).clamp_min(2 * info.tiny)
        # Rounding must not put a draw on the edge of the support.
        return share.clamp(info.tiny, 1.0 - info.eps / 2)
