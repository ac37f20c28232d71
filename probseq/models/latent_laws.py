"""Normal laws of latent states, drawn from by moving given noise, so that gradients flow."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DiagonalLaw", "FullLaw"]

_LOG_2PI = math.log(2.0 * math.pi)


class DiagonalLaw(NamedTuple):
    """N(loc, diag(scale)^2), both (..., d)."""

    loc: Tensor
    scale: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The value that standard normal noise stands for, (..., d)."""
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (...), nats."""
        each = ((z - self.loc) / self.scale).square() + 2.0 * self.scale.log() + _LOG_2PI
        return -0.5 * each.sum(-1)

    def kl(self, other: DiagonalLaw) -> Tensor:
        """KL(self || other) of each coordinate, (..., d), nats."""
        ratio = (self.scale / other.scale).square()
        return 0.5 * (ratio + ((self.loc - other.loc) / other.scale).square() - 1.0 - ratio.log())

    def where(self, chosen: Tensor, other: DiagonalLaw) -> DiagonalLaw:
        """This law where ``chosen`` (..., 1), the other one elsewhere."""
        return DiagonalLaw(torch.where(chosen, self.loc, other.loc), torch.where(chosen, self.scale, other.scale))


class FullLaw(NamedTuple):
    """N(loc, L L'), with loc (..., d) and L (..., d, d) lower triangular."""

    loc: Tensor
    factor: Tensor

    def at(self, noise: Tensor) -> Tensor:
        return self.loc + (self.factor @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        off = torch.linalg.solve_triangular(self.factor, (z - self.loc).unsqueeze(-1), upper=False).squeeze(-1)
        spread = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (off.square() + _LOG_2PI).sum(-1) - spread
