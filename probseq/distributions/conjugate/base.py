"""What every conjugate law is: hyper-parameters of the parameters of an emission, before or after seeing data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.emissions import Emission, Observation
from probseq.errors import ParameterError

__all__ = ["ConjugateLaw", "Settings", "check_names", "gamma_divergence", "hyper", "log_gamma_draws"]

Settings = Mapping[str, Any]
"""Hyper-parameters of a prior that a user has set, by name."""


class ConjugateLaw(Record, ABC):
    """A law of the parameters of one emission in each of s states that keeps its form when data come in.

    Its fields are tensors of hyper-parameters (D, s, ...), D laws at once; those that all states share are (D, ...).
    A prior has D = 1. Data are x and seen (n, t, k) with weights (D, n, t, s), zero on padding: the probability that
    each step is in each state. Coordinates that are not seen say nothing about the law.
    """

    names: ClassVar[tuple[str, ...]] = ()
    """Hyper-parameters of the prior that can be set."""
    completes: ClassVar[bool] = False
    """Whether ``updated`` needs the missing coordinates of partly seen steps, so that a sampler must draw them."""

    @classmethod
    @abstractmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        """The weakly informative prior scaled to the data, D = 1, with the hyper-parameters in ``settings``."""

    @abstractmethod
    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        """The posterior of this prior, D laws; ``current`` is the law under which missing coordinates are completed."""

    @abstractmethod
    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        """E[log p(x_t seen | theta_j)] over theta ~ this law, (D, n, t, s), nats; 0 where nothing was seen."""

    @abstractmethod
    def divergence(self, prior: Self) -> Tensor:
        """KL(this || prior) over all states, (D,), nats."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """One draw of the emission's parameters from each law, (D, s, ...)."""

    @abstractmethod
    def point(self) -> dict[str, Tensor]:
        """The emission's parameters at the mean of this law, (D, s, ...)."""

    def fill_missing(
        self, params: Mapping[str, Tensor], x: Tensor, seen: Tensor, states: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw what ``updated`` needs of what is missing, given the rest and the states (D, n, t).

        Returns the values (D, n, t, k) and which of them are there now (n, t, k).
        """
        return x.expand(states.shape[0], *x.shape), seen

    def take(self, index: Tensor | slice) -> Self:
        """Some of the D laws, in that order."""
        return replace(self, **{name: value[index] for name, value in self.hyper_parameters().items()})  # type: ignore[type-var]

    @classmethod
    def join(cls, laws: Iterable[Self]) -> Self:
        """Laws one after the other along D."""
        every = list(laws)
        merged = {
            name: torch.cat([law.hyper_parameters()[name] for law in every]) for name in every[0].hyper_parameters()
        }
        return replace(every[0], **merged)  # type: ignore[type-var]

    def permuted(self, order: Tensor) -> Self:
        """The law with other names of its states: new state i is old ``order[i]``, (s,)."""
        shared = self._shared()
        moved = {n: v if n in shared else v.index_select(1, order) for n, v in self.hyper_parameters().items()}
        return replace(self, **moved)  # type: ignore[type-var]

    def _shared(self) -> tuple[str, ...]:
        """Fields that all states share."""
        return ()

    def hyper_parameters(self) -> dict[str, Tensor]:
        """The hyper-parameters by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def check_names(settings: Settings, known: Iterable[str], owner: str) -> None:
    """Raise ``ParameterError`` for a hyper-parameter that the prior does not have."""
    names = list(known)
    for name in settings:
        if name not in names:
            raise ParameterError(
                got=f"{name!r} in the prior of {owner}",
                expected=f"some of {', '.join(map(repr, names))}",
                remedy="Check the spelling.",
            )


def hyper(settings: Settings, name: str, default: Tensor | float, shape: tuple[int, ...], low: float = 0.0) -> Tensor:
    """A hyper-parameter as (1, *shape), from the user's settings or the default.

    Raises
    ------
    ParameterError
        for a value that is not finite, not above ``low``, or does not broadcast to ``shape``.
    """
    given = settings.get(name)
    if given is None:
        value = torch.as_tensor(default, dtype=torch.float64)
        return value.expand(shape).unsqueeze(0).clone()
    try:
        value = torch.as_tensor(np.asarray(given, dtype=np.float64)).expand(shape)
    except (TypeError, ValueError, RuntimeError):
        raise ParameterError(
            got=f"{name}={given!r} in the prior",
            expected=f"a number or an array that broadcasts to shape {shape}",
            remedy="Check the number of states and variables.",
        ) from None
    if not bool(torch.isfinite(value).all()) or not bool((value > low).all()):
        above = "" if low == -torch.inf else f" above {low:g}"
        raise ParameterError(
            got=f"{name}={given!r} in the prior", expected=f"finite numbers{above}", remedy="Try the default, None."
        )
    return value.unsqueeze(0).clone()


def gamma_divergence(shape: Tensor, rate: Tensor, other_shape: Tensor, other_rate: Tensor) -> Tensor:
    """KL between two gamma laws, elementwise."""
    return (
        (shape - other_shape) * torch.digamma(shape)
        - torch.lgamma(shape)
        + torch.lgamma(other_shape)
        + other_shape * (rate.log() - other_rate.log())
        + shape * (other_rate - rate) / rate
    )


def log_gamma_draws(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Logarithms of draws from Gamma(shape, 1); exact for shapes so small that the draws themselves underflow.

    If g ~ Gamma(a + 1) and u is uniform then g u^(1/a) ~ Gamma(a): Marsaglia and Tsang (2000), section 6.
    """
    uniform = 1.0 - torch.rand(shape.shape, generator=generator, dtype=shape.dtype)
    return torch._standard_gamma(shape + 1.0, generator=generator).log() + uniform.log() / shape
