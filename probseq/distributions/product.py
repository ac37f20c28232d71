"""The law of mixed events: independent groups of variables, each with a law of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from probseq.distributions.base import Distribution

__all__ = ["IndependentParts"]


class IndependentParts(Distribution):
    r"""p(x) = prod_g p_g(x_g) for groups x_g of the variables; some may be counted and others measured.

    A density with respect to the product of the parts' base measures.

    Parameters
    ----------
    parts : laws of the groups, with batch shapes that broadcast
    columns : positions of each group's variables in the event; None puts the groups one after the other
    """

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[Sequence[int]] | None = None) -> None:
        shape = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        self.parts = tuple(part if part.batch_shape == shape else part.expand(shape) for part in parts)
        ends = list(accumulate(part.n_variables for part in parts))
        if columns is None:
            columns = [range(end - part.n_variables, end) for part, end in zip(parts, ends, strict=True)]
        self.columns = tuple(list(each) for each in columns)
        self._place = sorted(range(ends[-1]), key=[i for each in self.columns for i in each].__getitem__)
        self.discrete = all(part.discrete for part in parts)  # type: ignore[misc]
        self.nominal = all(part.nominal for part in parts)  # type: ignore[misc]
        torch.distributions.Distribution.__init__(self, shape, torch.Size([ends[-1]]), validate_args=False)

    @property
    def step(self) -> float:  # type: ignore[override]
        return self.parts[0].step

    @property
    def blocks(self) -> list[list[int]]:
        return [[own[i] for i in block] for part, own in self._pairs() for block in part.blocks]

    @property
    def discrete_variables(self) -> Tensor:
        return self._joined([part.discrete_variables for part in self.parts])

    @property
    def nominal_variables(self) -> Tensor:
        return self._joined([part.nominal_variables for part in self.parts])

    @property
    def circular_variables(self) -> Tensor:
        return self._joined([part.circular_variables for part in self.parts])

    @property
    def resultant(self) -> Tensor:
        return self._joined([part.resultant.mT for part in self.parts]).mT

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return all(part.is_likelihood for part in self.parts)

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return next((part.margins for part in self.parts if part.margins), None)

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        return type(self)([part.map_batch(move) for part in self.parts], self.columns)

    def marginal(self, index: list[int]) -> Distribution:
        """Parts without a listed variable drop out; one that is left alone, in its order, stands for itself."""
        parts, columns = [], []
        for part, own in self._pairs():
            places = [place for place, i in enumerate(index) if i in own]
            if places:
                inner = [own.index(index[place]) for place in places]
                parts.append(part if inner == list(range(part.n_variables)) else part.marginal(inner))
                columns.append(places)
        return parts[0] if len(parts) == 1 else IndependentParts(parts, columns)

    def map_parts(self, function: Callable[[Distribution, list[int]], Distribution]) -> IndependentParts:
        """Replace every part by ``function(part, its variables)``."""
        return IndependentParts([function(part, own) for part, own in self._pairs()], self.columns)

    # law ---------------------------------------------------------------------------------------------------------

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        value, seen = torch.broadcast_tensors(value, seen)
        each = [part.log_prob_seen(value[..., own], seen[..., own]) for part, own in self._pairs()]
        return torch.stack(each).sum(0)

    def training_score(self, value: Tensor, seen: Tensor) -> Tensor:
        value, seen = torch.broadcast_tensors(value, seen)
        each = [part.training_score(value[..., own], seen[..., own]) for part, own in self._pairs()]
        return torch.stack(each).sum(0)

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        each = [part.component_table(value[..., own], seen[..., own]) for part, own in self._pairs()]
        return torch.stack(each).sum(0)

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.stack([part.log_prob(value[..., own]) for part, own in self._pairs()]).sum(0)

    @property
    def mean(self) -> Tensor:
        return self._joined([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._joined([part.variance for part in self.parts])

    def has_moment(self, order: float) -> Tensor:
        return self._joined([part.has_moment(order) for part in self.parts])

    def cdf(self, value: Tensor) -> Tensor:
        return self._each(lambda part, x: part.cdf(x), value)

    def cdf_left(self, value: Tensor) -> Tensor:
        return self._each(lambda part, x: part.cdf_left(x), value)

    def icdf(self, q: Tensor) -> Tensor:
        return self._each(lambda part, level: part.icdf(level), q)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        return self._joined([part.sample(sample_shape, generator=generator) for part in self.parts])

    def _pairs(self) -> list[tuple[Distribution, list[int]]]:
        return list(zip(self.parts, self.columns, strict=True))

    def _each(self, ask: Callable[[Distribution, Tensor], Tensor], value: Tensor) -> Tensor:
        """What each part answers for its variables of ``value``, which broadcasts against (*B, k)."""
        value = value.expand(torch.broadcast_shapes(value.shape, self.event_shape))
        return self._joined([ask(part, value[..., own]) for part, own in self._pairs()])

    def _joined(self, each: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(list(each), -1)
        return joined if self._place == list(range(len(self._place))) else joined[..., self._place]
