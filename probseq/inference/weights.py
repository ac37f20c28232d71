"""Laws of a flat weight vector that gradient training changes: a point, or a normal with independent coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["NormalWeights", "PointWeights", "WeightLaw"]


class WeightLaw(nn.Module, ABC):
    """What is trained: a law of the flat unconstrained vector; a point is one too."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The vectors of one step, each (m,); the mini-batch is shared out among them."""

    @abstractmethod
    def divergence(self) -> Tensor | None:
        """Kullback-Leibler divergence from the prior in nats, or None."""

    @abstractmethod
    def centre(self) -> Tensor:
        """The vector used for validation, (m,)."""

    def after_step(self, done: float, generator: torch.Generator) -> None:
        """Called after each step of the optimiser; ``done`` in [0, 1] is the fraction of the training behind it."""


class PointWeights(WeightLaw):
    """A single vector."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.flat = nn.Parameter(start.clone())

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (self.flat,)

    def divergence(self) -> Tensor | None:
        return None

    def centre(self) -> Tensor:
        return self.flat


class NormalWeights(WeightLaw):
    r"""q(w) = prod_i N(w_i; mean_i, exp(rho_i)^2), with the prior prod_i N(w_i; location_i, scale_i^2).

    Parameters
    ----------
    mean, rho : (m,), where the search starts; rho is the logarithm of the standard deviation
    location, scale : (m,), of the prior
    antithetic : bool
        Every second draw mirrors the one before it at the mean.
    """

    location: Tensor
    log_scale: Tensor
    precision: Tensor

    def __init__(self, mean: Tensor, rho: Tensor, location: Tensor, scale: Tensor, antithetic: bool = True) -> None:
        super().__init__()
        self.mean, self.rho = nn.Parameter(mean.clone()), nn.Parameter(rho.clone())
        self.register_buffer("location", location)
        self.register_buffer("precision", scale**-2)
        self.register_buffer("log_scale", scale.log())
        self.antithetic = antithetic
        self._noise: Tensor | None = None

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """One weight vector for the whole mini-batch, (m,); the pair of a mirrored draw is the next step's."""
        if self._noise is not None:
            noise, self._noise = -self._noise, None
        else:
            noise = torch.empty_like(self.mean).normal_(generator=generator)
            self._noise = noise if self.antithetic else None
        return (torch.addcmul(self.mean, self.rho.exp(), noise),)

    def divergence(self) -> Tensor:
        """KL(q || prior) in nats, exact."""
        moment = (self.mean - self.location).square() + (2 * self.rho).exp()
        return (0.5 * self.precision * moment - self.rho).sum() + (self.log_scale.sum() - 0.5 * self.mean.numel())

    def centre(self) -> Tensor:
        return self.mean

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, m) draws; mirrored pairs where ``antithetic``."""
        with torch.no_grad():
            half = -(-n // 2) if self.antithetic else n
            noise = torch.randn(half, self.mean.numel(), dtype=self.mean.dtype, generator=generator)
            noise = torch.stack([noise, -noise], 1).flatten(0, 1)[:n] if self.antithetic else noise
            return self.mean + self.rho.exp() * noise
