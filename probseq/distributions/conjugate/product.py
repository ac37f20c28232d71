"""Conjugate laws of mixed events: one law for each group of variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from probseq.distributions.conjugate.base import ConjugateLaw, Settings
from probseq.distributions.emissions import Emission, Observation

__all__ = ["ProductLaw"]


@dataclass(frozen=True)
class ProductLaw(ConjugateLaw):
    """Independent laws of the parameters of each group; hyper-parameters and parameters carry the group's name.

    Parameters
    ----------
    laws : tuple of ConjugateLaw
    groups : tuple of slice
        The variables of each.
    prefixes : tuple of str
        The name of each, such as "normal" in "normal_mean".
    """

    laws: tuple[ConjugateLaw, ...]
    groups: tuple[slice, ...]
    prefixes: tuple[str, ...]

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        from probseq.distributions.conjugate import conjugate_family

        parts = emission.parts()  # type: ignore[attr-defined]
        laws = []
        for part in parts:
            start = f"{part.prefix}_"
            own = {name.removeprefix(start): value for name, value in settings.items() if name.startswith(start)}
            family, event = conjugate_family(part.emission), observation.select(part.own)
            laws.append(family.weak(part.emission, event, n_states, x[..., part.own], seen[..., part.own], own))
        return cls(tuple(laws), tuple(part.own for part in parts), tuple(part.prefix for part in parts))

    @property
    def completes(self) -> bool:  # type: ignore[override]
        return any(law.completes for law in self.laws)

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        present: tuple[ConjugateLaw | None, ...] = (None,) * len(self.laws) if current is None else current.laws
        each = zip(self.laws, self.groups, present, strict=True)
        laws = tuple(law.updated(x[..., own], seen[..., own], weights, now) for law, own, now in each)
        return replace(self, laws=laws)

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        each = zip(self.laws, self.groups, strict=True)
        return torch.stack([law.expected_log_prob(x[..., own], seen[..., own]) for law, own in each]).sum(0)

    def divergence(self, prior: Self) -> Tensor:
        each = zip(self.laws, prior.laws, strict=True)
        return torch.stack([law.divergence(other) for law, other in each]).sum(0)

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self._named([law.sample(generator) for law in self.laws])

    def point(self) -> dict[str, Tensor]:
        return self._named([law.point() for law in self.laws])

    def fill_missing(
        self, params: Mapping[str, Tensor], x: Tensor, seen: Tensor, states: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        values, shown = [], []
        for law, own, prefix in zip(self.laws, self.groups, self.prefixes, strict=True):
            start = f"{prefix}_"
            mine = {name.removeprefix(start): value for name, value in params.items() if name.startswith(start)}
            filled = law.fill_missing(mine, x[..., own], seen[..., own], states, generator)
            values.append(filled[0])
            shown.append(filled[1])
        return torch.cat(values, -1), torch.cat(shown, -1)

    def take(self, index: Tensor | slice) -> Self:
        return replace(self, laws=tuple(law.take(index) for law in self.laws))

    @classmethod
    def join(cls, laws: Iterable[Self]) -> Self:
        every = list(laws)
        columns = zip(*(law.laws for law in every), strict=True)
        return replace(every[0], laws=tuple(type(column[0]).join(column) for column in columns))

    def permuted(self, order: Tensor) -> Self:
        return replace(self, laws=tuple(law.permuted(order) for law in self.laws))

    def hyper_parameters(self) -> dict[str, Tensor]:
        return self._named([law.hyper_parameters() for law in self.laws])

    def _named(self, each: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {f"{prefix}_{n}": v for prefix, own in zip(self.prefixes, each, strict=True) for n, v in own.items()}
