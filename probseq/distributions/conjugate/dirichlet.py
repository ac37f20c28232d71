"""Dirichlet laws of probabilities: of the start and the moves of a chain, and of categories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.conjugate.base import ConjugateLaw, Settings, hyper, log_gamma_draws
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.estimation import flat_rows
from probseq.distributions.params import Simplex

__all__ = ["DirichletCategories", "DirichletRows", "dirichlet_divergence"]


@dataclass(frozen=True)
class DirichletRows(Record):
    r"""Rows of probabilities whose free entries share what the fixed ones leave, as a Dirichlet law says.

    Parameters
    ----------
    concentration : (D, *shape)
        Of the free entries; 0 at structural zeros and fixed entries.
    simplex : Simplex
        Which entries are zero or fixed.
    """

    concentration: Tensor
    simplex: Simplex

    @classmethod
    def prior(cls, name: str, simplex: Simplex, shape: tuple[int, ...], settings: Settings) -> Self:
        """D = 1; by default every row has a total concentration of one, 1 / s for each of s entries.

        So sparse a prior leaves states empty that the data do not need (Rousseau and Mengersen 2011).
        """
        alpha = hyper(settings, name, 1.0 / shape[-1], shape)
        return cls(alpha * simplex.free(shape), simplex)

    @property
    def _free(self) -> Tensor:
        return self.simplex.free(tuple(self.concentration.shape[1:]))

    def updated(self, counts: Tensor) -> Self:
        """The posterior given expected counts (D, *shape)."""
        return replace(self, concentration=self.concentration + counts * self._free)

    def expected_log(self) -> Tensor:
        """E[log p], (D, *shape); -inf at structural zeros, log p at fixed entries."""
        free, alpha = self._free, self.concentration
        safe = torch.where(free, alpha, torch.ones_like(alpha))
        total = alpha.sum(-1, keepdim=True)
        total = torch.where(total > 0, total, torch.ones_like(total))
        known = self.simplex.complete(torch.zeros_like(alpha)).log()
        left = (1.0 - self.simplex.complete(torch.zeros_like(alpha)).sum(-1, keepdim=True)).clamp_min(0.0).log()
        return torch.where(free, torch.digamma(safe) - torch.digamma(total) + left, known)

    def divergence(self, prior: DirichletRows) -> Tensor:
        """KL(this || prior), (D,), nats."""
        each = dirichlet_divergence(self.concentration, prior.concentration, self._free)
        return each.reshape(each.shape[0], -1).sum(-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw from each law, (D, *shape)."""
        free = self._free
        some = free.any(-1, keepdim=True)
        log_gamma = log_gamma_draws(torch.where(free, self.concentration, 1.0), generator)
        shares = torch.softmax(torch.where(free | ~some, log_gamma, -torch.inf), -1)
        return self.simplex.complete(torch.where(some, shares, torch.zeros_like(shares)))

    def mean(self) -> Tensor:
        """(D, *shape)."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.simplex.complete(self.concentration / torch.where(total > 0, total, torch.ones_like(total)))

    def take(self, index: Tensor | slice) -> Self:
        """Some of the D laws."""
        return replace(self, concentration=self.concentration[index])

    @classmethod
    def join(cls, laws: Iterable[Self]) -> Self:
        """Laws one after the other along D."""
        every = list(laws)
        return replace(every[0], concentration=torch.cat([law.concentration for law in every]))

    def permuted(self, order: Tensor, n_axes: int) -> Self:
        """The law with the last axes permuted: new entry i is old ``order[i]``."""
        alpha = self.concentration
        for axis in range(-n_axes, 0):
            alpha = alpha.index_select(axis, order)
        return replace(self, concentration=alpha)


@dataclass(frozen=True)
class DirichletCategories(ConjugateLaw):
    """probs_ji ~ Dirichlet(concentration_ji) over the categories, for each state j and variable i.

    The default is Jeffreys' prior, 1/2 for every category.

    Parameters
    ----------
    concentration : (D, s, k, c)
    """

    names = ("concentration",)

    concentration: Tensor

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        size = max((one or 1 for one in observation.categories), default=1)
        shape = (n_states, observation.n_variables, size)
        return cls(hyper(settings, "concentration", 0.5, shape))

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        rows, mask, shares = flat_rows(x, seen, weights)
        draws, s, size = shares.shape[0], shares.shape[-1], self.concentration.shape[-1]
        columns = []
        for variable in range(rows.shape[-1]):
            shown = mask[:, variable]
            counts = torch.zeros(draws, size, s, dtype=shares.dtype)
            counts.index_add_(1, rows[shown, variable].long(), shares[:, shown])
            columns.append(counts.mT)
        return replace(self, concentration=self.concentration + torch.stack(columns, 2))

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        alpha = self.concentration
        log_probs = torch.digamma(alpha) - torch.digamma(alpha.sum(-1, keepdim=True))
        table = torch.zeros(alpha.shape[0], *x.shape[:2], alpha.shape[1], dtype=alpha.dtype)
        codes = torch.where(seen, x, torch.zeros_like(x)).long()
        for variable in range(x.shape[-1]):
            each = log_probs[:, :, variable].movedim(1, -1)[:, codes[..., variable]]
            table += torch.where(seen[..., variable, None], each, torch.zeros_like(each))
        return table

    def divergence(self, prior: Self) -> Tensor:
        free = torch.ones_like(self.concentration, dtype=torch.bool)
        return dirichlet_divergence(self.concentration, prior.concentration, free).sum((-2, -1))

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"probs": torch.softmax(log_gamma_draws(self.concentration, generator), -1)}

    def point(self) -> dict[str, Tensor]:
        return {"probs": self.concentration / self.concentration.sum(-1, keepdim=True)}


def dirichlet_divergence(alpha: Tensor, other: Tensor, free: Tensor) -> Tensor:
    """KL(Dirichlet(alpha) || Dirichlet(other)) over the free entries of the last axis, nats."""
    p, q = (torch.where(free, value, torch.ones_like(value)) for value in (alpha, other.expand_as(alpha)))
    zero = torch.zeros_like(p)
    total_p, total_q = torch.where(free, p, zero).sum(-1), torch.where(free, q, zero).sum(-1)
    some = free.any(-1)
    total_p, total_q = (torch.where(some, total, torch.ones_like(total)) for total in (total_p, total_q))
    gap = torch.digamma(p) - torch.digamma(total_p).unsqueeze(-1)
    inner = torch.where(free, torch.lgamma(q) - torch.lgamma(p) + (p - q) * gap, zero).sum(-1)
    return torch.where(some, torch.lgamma(total_p) - torch.lgamma(total_q) + inner, torch.zeros_like(inner))
