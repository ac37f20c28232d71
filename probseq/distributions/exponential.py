"""Exponential families: log densities that are linear in a few statistics of the value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from probseq.distributions.base import ProductDistribution

__all__ = ["ExponentialFamily", "linear_table"]

_LARGEST = 1e5
_FEW = 4
"""Of so few discrete variables the masses are looked up faster than multiplied."""


class ExponentialFamily(ProductDistribution):
    r"""log p(x_i) = sum_f eta_f(theta_i) T_f(x_i) + log h(x_i) - A(theta_i), independent over the variables.

    The table of many components at many values is one matrix product.
    """

    a_value: ClassVar[float] = 0.0
    """A value inside the support."""

    @abstractmethod
    def natural(self) -> list[Tensor]:
        """eta_f, each (*B, k)."""

    @abstractmethod
    def log_normaliser(self) -> Tensor:
        """A, (*B, k)."""

    @abstractmethod
    def statistics(self, value: Tensor) -> list[Tensor]:
        """T_f of values inside the support, each (*B, k)."""

    @abstractmethod
    def log_base(self, value: Tensor) -> Tensor | None:
        """log h of values inside the support, (*B, k); None where it is zero everywhere."""

    @abstractmethod
    def inside(self, value: Tensor) -> Tensor:
        """Which values are inside the support, (*B, k) bool."""

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = self.inside(value)
        safe = torch.where(possible, value, torch.full_like(value, self.a_value))
        total = -self.log_normaliser()
        for eta, statistic in zip(self.natural(), self.statistics(safe), strict=True):
            total = total + eta * statistic
        base = self.log_base(safe)
        total = total if base is None else total + base
        return torch.where(possible, total, torch.full_like(total, -torch.inf))

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        if self.discrete and self.n_variables <= _FEW:
            return super().component_table(value, seen)
        inside = self.inside(value)
        if not bool((inside | ~seen).all()):
            return super().component_table(value, seen)
        safe = torch.where(inside, value, torch.full_like(value, self.a_value))
        base = self.log_base(safe)
        found = linear_table(self.statistics(safe), self.natural(), -self.log_normaliser(), base, seen)
        return super().component_table(value, seen) if found is None else found


def linear_table(
    statistics: Sequence[Tensor], natural: Sequence[Tensor], constant: Tensor, base: Tensor | None, seen: Tensor
) -> Tensor | None:
    """sum over seen variables of sum_f eta_f T_f + constant + base, as a matrix product.

    None where terms are so large that their sum could lose more than about 1e-10.

    Parameters
    ----------
    statistics : (r, k) each
    natural : (*draw, s, k) each
    constant : (*draw, s, k)
    base : (r, k) or None
    seen : (r, k)

    Returns
    -------
    (*draw, r, s)
    """
    mask = seen.to(constant.dtype)
    count = mask.sum(0).clamp_min(1.0)
    gaps, size = [], 0.0
    for statistic, eta in zip(statistics, natural, strict=True):
        # Around the middle of the data the terms are small even where the parameters are large.
        middle = ((mask * statistic).sum(0) / count).detach()
        gap = mask * (statistic - middle)
        constant = constant + eta * middle
        gaps.append(gap)
        if gap.numel() and eta.numel():
            size = max(size, float(gap.detach().abs().amax()) * float(eta.detach().abs().amax()))
    if not size < _LARGEST or not bool(torch.isfinite(constant.detach()).all()):
        return None
    if bool(seen.all()):
        table = torch.cat(list(natural), -1) @ torch.cat(gaps, -1).mT + constant.sum(-1).unsqueeze(-1)
    else:
        table = torch.cat([*natural, constant], -1) @ torch.cat([*gaps, mask], -1).mT
    # The rows run along the last axis until here: products with few components are fastest so.
    table = table if base is None else table + (mask * base).sum(-1)
    return table.mT
