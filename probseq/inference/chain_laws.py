"""The conjugate law of all parameters of a hidden Markov model: start, moves and emissions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.conjugate import (
    ConjugateLaw,
    DirichletRows,
    check_names,
    conjugate_names,
    conjugate_prior,
)
from probseq.distributions.params import Simplex
from probseq.errors import IncompatibleError, ParameterError
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel

__all__ = ["ChainLaws", "chain_prior"]


@dataclass(frozen=True)
class ChainLaws(Record):
    """Independent laws of the start (None where it is no parameter), of each row of the matrix, and of the emissions.

    D laws at once; a prior has D = 1.
    """

    initial: DirichletRows | None
    transition: DirichletRows
    emission: ConjugateLaw

    def updated(
        self, first: Tensor, counts: Tensor, batch: Batch, weights: Tensor, current: ChainLaws | None = None
    ) -> Self:
        """The posterior of this prior.

        Parameters
        ----------
        first : (D, s), expected first states
        counts : (D, s, s), expected moves
        weights : (D, n, t, s), the probability that each step is in each state, zero on padding
        current : under which missing coordinates are completed
        """
        return type(self)(
            None if self.initial is None else self.initial.updated(first),
            self.transition.updated(counts),
            self.emission.updated(batch.x, batch.seen, weights, None if current is None else current.emission),
        )

    def divergence(self, prior: ChainLaws) -> Tensor:
        """KL(this || prior), (D,), nats."""
        total = self.transition.divergence(prior.transition) + self.emission.divergence(prior.emission)
        if self.initial is not None and prior.initial is not None:
            total = total + self.initial.divergence(prior.initial)
        return total

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One draw of the parameters from each law, (D, ...)."""
        start = {} if self.initial is None else {"initial": self.initial.sample(generator)}
        return {**start, "transition": self.transition.sample(generator), **self.emission.sample(generator)}

    def point(self) -> dict[str, Tensor]:
        """The parameters at the mean of each law, (D, ...)."""
        start = {} if self.initial is None else {"initial": self.initial.mean()}
        return {**start, "transition": self.transition.mean(), **self.emission.point()}

    @property
    def symmetric(self) -> bool:
        """Whether the law says the same of every state, so that states may change names."""
        s = self.transition.concentration.shape[-1]
        swaps = torch.arange(s).repeat(max(0, s - 1), 1)
        for i, order in enumerate(swaps):
            order[[i, i + 1]] = order[[i + 1, i]]
        mine = self._hyper_parameters()
        return all(
            torch.allclose(a, b, rtol=1e-12, atol=0.0)
            for order in swaps
            for a, b in zip(mine, self.permuted(order)._hyper_parameters(), strict=True)
        )

    def _hyper_parameters(self) -> list[Tensor]:
        start = [] if self.initial is None else [self.initial.concentration]
        return [*start, self.transition.concentration, *self.emission.hyper_parameters().values()]

    def take(self, index: Tensor | slice) -> Self:
        """Some of the D laws, in that order."""
        start = None if self.initial is None else self.initial.take(index)
        return type(self)(start, self.transition.take(index), self.emission.take(index))

    @classmethod
    def join(cls, laws: Iterable[Self]) -> Self:
        """Laws one after the other along D."""
        every = list(laws)
        starts = [law.initial for law in every if law.initial is not None]
        return cls(
            DirichletRows.join(starts) if starts else None,
            DirichletRows.join(law.transition for law in every),
            type(every[0].emission).join(law.emission for law in every),
        )

    def permuted(self, order: Tensor) -> Self:
        """The law with other names of its states: new state i is old ``order[i]``, (s,)."""
        return type(self)(
            None if self.initial is None else self.initial.permuted(order, 1),
            self.transition.permuted(order, 2),
            self.emission.permuted(order),
        )


def chain_prior(model: HiddenMarkovModel, batch: Batch, settings: Mapping[str, Any] | None, method: str) -> ChainLaws:
    """The prior of a model's parameters: weakly informative and scaled to the data where nothing is set.

    Parameters
    ----------
    settings : hyper-parameters by name: "initial" and "transition", concentrations that broadcast to (s,) and (s, s),
        and those of the emission (see `probseq.distributions.conjugate`)
    method : the inference that asks, for messages

    Raises
    ------
    IncompatibleError
        for an emission without a conjugate prior, and for transitions that depend on covariates.
    ParameterError
        for names, shapes or values that the prior does not have.
    """
    given = {} if settings is None else settings
    if not isinstance(given, Mapping):
        raise ParameterError(
            got=f"prior={settings!r}",
            expected="a dict of hyper-parameters by name, or None",
            remedy='Write prior={"transition": 1.0}.',
        )
    specs = model.parameters()
    transition = specs.get("transition")
    if transition is None or not isinstance(transition.constraint, Simplex):
        raise IncompatibleError(
            got=f"{method} for {type(model.transitions).__name__}",
            expected="transitions that are the same at every step",
            remedy="NUTS and Laplace draw where covariates drive the chain.",
        )
    names = conjugate_names(model.emission)
    chain = ("initial", "transition") if "initial" in specs else ("transition",)
    check_names(given, (*chain, *names), type(model.emission).__name__)
    s = model.n_states
    start = specs["initial"].constraint if "initial" in specs else None
    own = {name: value for name, value in given.items() if name in names}
    return ChainLaws(
        DirichletRows.prior("initial", start, (s,), given) if isinstance(start, Simplex) else None,
        DirichletRows.prior("transition", transition.constraint, (s, s), given),
        conjugate_prior(model.emission, model.observation, s, batch.x, batch.seen, own),
    )
