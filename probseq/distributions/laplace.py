"""Laplace distributions of one event."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from probseq.distributions.base import ProductDistribution

__all__ = ["DiagonalLaplace"]


class DiagonalLaplace(ProductDistribution):
    r"""p(x) = prod_i exp(-|x_i - loc_i| / scale_i) / (2 scale_i).

    Parameters
    ----------
    loc : (*B, k)
    scale : (*B, k), positive; the standard deviation is ``sqrt(2) scale``
    """

    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "scale": 1}
    loc: Tensor
    scale: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        return -(value - self.loc).abs() / self.scale - self.scale.log() - math.log(2.0)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 2.0 * self.scale**2

    def cdf(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        tail = 0.5 * torch.exp(-z.abs())
        return torch.where(z < 0, tail, 1.0 - tail)

    def icdf(self, q: Tensor) -> Tensor:
        below = torch.log(2.0 * q)
        above = -torch.log(2.0 * (1.0 - q))
        return self.loc + self.scale * torch.where(q < 0.5, below, above)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        return (self.scale.log() + 1.0 + math.log(2.0)).sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        # The difference of two exponential variables, which has no end for the logarithm to meet.
        pair = torch.empty((2, *shape), dtype=self.loc.dtype, device=self.loc.device).exponential_(generator=generator)
        return (self.loc + self.scale * (pair[0] - pair[1])).detach()
