"""Increasing maps of one coordinate, z (model scale) -> x (data scale), with their Jacobians."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Affine", "Bijection", "BoxCoxInverse", "Exponential", "Extended", "ScaledSigmoid"]


class Bijection(ABC):
    """An increasing map x = forward(z) from ``(z_low, z_high)`` onto ``(x_low, x_high)``."""

    z_low: float = -math.inf
    z_high: float = math.inf
    x_low: float = -math.inf
    x_high: float = math.inf

    @property
    def onto_reals(self) -> bool:
        """Whether the model scale is the whole real line, so that no mass can fall outside."""
        return math.isinf(self.z_low) and math.isinf(self.z_high)

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """x = g(z)."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """z = g^{-1}(x)."""

    @abstractmethod
    def log_slope(self, x: Tensor) -> Tensor:
        """log |dz/dx| at x: what is added to a log density when it moves from z to x."""

    def select(self, index: list[int]) -> Bijection:
        """The map of some of the variables."""
        return self

    def changes(self, n_variables: int) -> Tensor:
        """Which variables it moves at all, (k,) bool."""
        return torch.ones(n_variables, dtype=torch.bool)


class Affine(Bijection):
    """x = loc + scale * z.

    Parameters
    ----------
    loc, scale : tensors that broadcast against (*B, k); scale > 0
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale

    def forward(self, z: Tensor) -> Tensor:
        return self.loc + self.scale * z

    def inverse(self, x: Tensor) -> Tensor:
        return (x - self.loc) / self.scale

    def log_slope(self, x: Tensor) -> Tensor:
        return -torch.log(self.scale).expand_as(x)

    def select(self, index: list[int]) -> Bijection:
        loc, scale = (t[..., index] if t.ndim else t for t in (self.loc, self.scale))
        return Affine(loc, scale)

    def changes(self, n_variables: int) -> Tensor:
        moved = (self.loc != 0) | (self.scale != 1)
        return moved.expand(*moved.shape[:-1], n_variables).reshape(-1, n_variables).any(0)


class Exponential(Bijection):
    """x = shift + exp(z), on x > shift."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = float(shift)
        self.x_low = self.shift

    def forward(self, z: Tensor) -> Tensor:
        return self.shift + torch.exp(z)

    def inverse(self, x: Tensor) -> Tensor:
        return torch.log(x - self.shift)

    def log_slope(self, x: Tensor) -> Tensor:
        return -torch.log(x - self.shift)


class BoxCoxInverse(Bijection):
    """x = (lmbda z + 1)^(1/lmbda), on x > 0; the z-range is bounded, so mass outside it is renormalised."""

    def __init__(self, lmbda: float) -> None:
        self.lmbda = float(lmbda)
        self.x_low = 0.0
        if self.lmbda > 0:
            self.z_low = -1.0 / self.lmbda
        else:
            self.z_high = -1.0 / self.lmbda

    def forward(self, z: Tensor) -> Tensor:
        return (self.lmbda * z + 1.0).clamp_min(0.0) ** (1.0 / self.lmbda)

    def inverse(self, x: Tensor) -> Tensor:
        return (x**self.lmbda - 1.0) / self.lmbda

    def log_slope(self, x: Tensor) -> Tensor:
        return (self.lmbda - 1.0) * torch.log(x)


class ScaledSigmoid(Bijection):
    """x = low + (high - low) / (1 + exp(-z)), on low < x < high."""

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.x_low, self.x_high = float(low), float(high)

    def forward(self, z: Tensor) -> Tensor:
        return self.x_low + (self.x_high - self.x_low) * torch.sigmoid(z)

    def inverse(self, x: Tensor) -> Tensor:
        return torch.log(x - self.x_low) - torch.log(self.x_high - x)

    def log_slope(self, x: Tensor) -> Tensor:
        return math.log(self.x_high - self.x_low) - torch.log(x - self.x_low) - torch.log(self.x_high - x)


class Extended(Bijection):
    """A map taken to the whole line, for laws without noticeable mass outside its range: nothing is renormalised.

    Parameters
    ----------
    inner : Bijection
    """

    def __init__(self, inner: Bijection) -> None:
        self.inner = inner
        self.x_low, self.x_high = inner.x_low, inner.x_high

    def forward(self, z: Tensor) -> Tensor:
        return self.inner.forward(z)

    def inverse(self, x: Tensor) -> Tensor:
        return self.inner.inverse(x)

    def log_slope(self, x: Tensor) -> Tensor:
        return self.inner.log_slope(x)

    def select(self, index: list[int]) -> Bijection:
        return Extended(self.inner.select(index))

    def changes(self, n_variables: int) -> Tensor:
        return self.inner.changes(n_variables)
