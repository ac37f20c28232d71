"""Emissions whose states share parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import CategoryCounts, Emission, Observation, gradient_m_step
from probseq.distributions.emissions.conditional import ConditionalEmission
from probseq.distributions.emissions.normal import Normal
from probseq.distributions.emissions.student import StudentT
from probseq.distributions.estimation import EMPTY, ratio, variance_floor, weighted_sums
from probseq.distributions.params import Params, ParamSpec
from probseq.errors import IncompatibleError, ParameterError

__all__ = ["Tied"]

_STEPS = 12


class Tied(Emission):
    r"""p(x | z) of another emission, with parameters that several states share.

    States of one group, ``states[i] == states[j]``, have the same law: a left-right model that comes back to a sound.
    Parameters named in ``shared`` have one value for all states, or for all steps under a network. What is shared is
    counted once.

    Parameters
    ----------
    emission : Emission or None
        The law of a state; None is ``Normal()``.
    states : list of int or None
        The group of each state; None gives every state a group of its own. The parameters of groups have the dimension
        ``group``, in the order of these numbers.
    shared : tuple of str
        Names of parameters with one value for all states, such as ``("scale",)``.

    Examples
    --------
    >>> import probseq as ps
    >>> ps.Tied(ps.Poisson(), states=[0, 1, 0])
    Tied(emission=Poisson(), states=[0, 1, 0])
    >>> ps.Tied(ps.StudentT(), shared=("df",))
    Tied(emission=StudentT(), shared=('df',))
    """

    def __init__(
        self, emission: Emission | None = None, states: Sequence[int] | None = None, shared: Sequence[str] = ()
    ) -> None:
        self.emission, self.states, self.shared = emission, states, shared

    @property
    def n_variables(self) -> int | None:
        return self._inner.n_variables

    @property
    def measure(self) -> str | tuple[str, ...]:  # type: ignore[override]
        return self._inner.measure

    @property
    def fill(self) -> float | tuple[float, ...]:  # type: ignore[override]
        return self._inner.fill

    @property
    def nominal(self) -> bool:  # type: ignore[override]
        return self._inner.nominal

    @property
    def shiftable(self) -> bool | tuple[bool, ...]:
        return self._inner.shiftable

    def observation(self, n_variables: int, n_categories: CategoryCounts = None) -> Observation:
        return self._inner.observation(n_variables, n_categories)

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        whole = self._inner.parameters(observation)
        unknown = [name for name in self._shared if name not in whole]
        if unknown:
            raise ParameterError(
                got=f"shared={self.shared!r}",
                expected=f"names among {list(whole)}, the parameters of {self._inner!r}",
                remedy="Check the spelling.",
            )
        if not components:
            return whole
        group = self._groups(components)
        size = int(group.max()) + 1
        word = "state" if size == len(group) else "group"
        return {
            name: whole[name]
            if name in self._shared
            else replace(spec, dims=tuple(word if d == "state" else d for d in spec.dims))
            for name, spec in self._inner.parameters(observation, (size,)).items()
        }

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        if not components:
            return self._inner.distribution(params)
        group = self._groups(components)
        law = self._inner.distribution(self._by_group(params, int(group.max()) + 1), (int(group.max()) + 1,))
        return law.map_batch(lambda t, e: t.index_select(t.ndim - e - 1, group))

    @property
    def constants(self) -> tuple[str, ...]:  # type: ignore[override]
        shared = sorted(self._shared.difference(self._inner.constants), key=list(self.shared).index)
        return (*self._inner.constants, *shared)

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return self._inner.is_likelihood

    def initial_outputs(self, observation: Observation) -> Tensor:
        return super().initial_outputs(observation) if self._shared else self._inner.initial_outputs(observation)

    def initial_constants(self, observation: Observation, generator: torch.Generator) -> dict[str, Tensor]:
        own = self._inner.initial_constants(observation, generator)
        return {**super().initial_constants(observation, generator), **own}

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        if self._shared:
            return super().from_outputs(outputs, observation, constants)
        return self._inner.from_outputs(outputs, observation, constants)

    def check_arguments(self) -> None:
        self._inner.check_arguments()

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        self._inner.check(values, name)

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        return self._inner.points(observation, x, seen)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        return self._inner.pooled_params(observation, x, seen)

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        weights = self._of_groups(responsibilities)
        groups = (weights.shape[-1],)
        start = self._inner.initial_params(observation, x, seen, weights, groups)
        specs, whole = self._inner.parameters(observation, groups), self._inner.parameters(observation)
        for name in self._shared:
            if specs[name].shape == whole[name].shape:
                continue  # the emission shares it already
            # The middle of the groups in unconstrained coordinates is an allowed value.
            constraint, shape = whole[name].constraint, whole[name].shape
            start[name] = constraint.constrain(constraint.unconstrain(start[name], shape).mean(1), shape)
        return start

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """That of the emission, with the weights of a group's states added up; exact where that is.

        Shared parameters have a closed form for the scale or covariance of a Normal, a Newton step of their own for
        the degrees of freedom of a StudentT, otherwise a few quasi-Newton steps on all parameters together. None
        lowers the objective.
        """
        inner, of_groups = self._inner, self._of_groups(weights)
        if not self._shared:
            return inner.m_step(observation, x, seen, of_groups, params)
        if isinstance(inner, Normal) and self._shared == {"covariance"}:
            return Normal("tied").m_step(observation, x, seen, of_groups, params)
        if isinstance(inner, Normal) and self._shared == {"scale"}:
            return _shared_scale(inner, x, seen, of_groups, params)
        if isinstance(inner, StudentT) and self._shared == {"df"}:
            new = inner.climb(x, seen, of_groups, self._by_group(params, of_groups.shape[-1]), common_df=True)
            return {**new, "df": new["df"][:, 0]}
        groups = Tied(inner, None, tuple(self.shared))
        return gradient_m_step(groups, observation, x, seen, of_groups, params, _STEPS)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        own = [name for name in self._inner.parameters(observation) if name not in self._shared]
        size = params[own[0]].shape[1] if own else 1
        low = self._inner.states_at_floor(observation, x, seen, self._by_group(params, size))
        if self.states is None:
            return low
        return low.expand(low.shape[0], size)[:, self._groups((len(self.states),))]

    def floor_name(self, observation: Observation, x: Tensor, seen: Tensor) -> str:
        return self._inner.floor_name(observation, x, seen)

    @property
    def _inner(self) -> Emission:
        inner = Normal() if self.emission is None else self.emission
        if not isinstance(inner, Emission):
            raise ParameterError(
                got=f"Tied({inner!r})", expected="an emission such as ps.Normal()", remedy="Write its parentheses."
            )
        if isinstance(inner, ConditionalEmission):
            raise IncompatibleError(
                got=f"{type(inner).__name__} in Tied",
                expected="an emission that depends on the state alone",
                remedy=f"Use {type(inner).__name__} by itself.",
            )
        return inner

    @property
    def _shared(self) -> set[str]:
        if not isinstance(self.shared, list | tuple) or not all(isinstance(name, str) for name in self.shared):
            raise ParameterError(
                got=f"shared={self.shared!r}", expected="a tuple of names", remedy='Write shared=("scale",).'
            )
        return set(self.shared)

    def _groups(self, components: tuple[int, ...]) -> Tensor:
        """The group of each state, numbered from 0."""
        n_states = components[0]
        if self.states is None:
            return torch.arange(n_states)
        given = self.states
        if not isinstance(given, list | tuple | np.ndarray) or not all(
            isinstance(one, int | np.integer) and not isinstance(one, bool) for one in given
        ):
            raise ParameterError(
                got=f"states={given!r}", expected="one whole number a state", remedy="Write states=[0, 1, 0]."
            )
        if len(given) != n_states:
            raise ParameterError(
                got=f"states={list(given)!r}, the groups of {len(given)} states",
                expected=f"one group for each of the {n_states} states of the model",
                remedy=f"Use n_states={len(given)}, or give {n_states} groups.",
            )
        return torch.from_numpy(np.unique(np.asarray(given), return_inverse=True)[1].astype(np.int64))

    def _of_groups(self, weights: Tensor) -> Tensor:
        """Weights (D, n, t, s) of states added up to those of groups."""
        if self.states is None:
            return weights
        group = self._groups(tuple(weights.shape[-1:]))
        return weights @ torch.nn.functional.one_hot(group).to(weights.dtype)

    def _by_group(self, params: Params, size: int) -> dict[str, Tensor]:
        """Parameters with a value of their own for every group."""
        full = dict(params)
        if self._shared:
            example = self._inner.observation(self._inner.n_variables or 2, 2)
            whole, split = self._inner.parameters(example), self._inner.parameters(example, (1,))
            for name in self._shared:
                if len(split[name].shape) > len(whole[name].shape):
                    axis = full[name].ndim - len(whole[name].shape)
                    shape = full[name].shape
                    full[name] = full[name].unsqueeze(axis).expand(*shape[:axis], size, *shape[axis:])
        return full


def _shared_scale(emission: Normal, x: Tensor, seen: Tensor, weights: Tensor, previous: Params) -> dict[str, Tensor]:
    """Own means and the root of the mean square deviation from them over all states (and all variables: spherical)."""
    sums = weighted_sums(x, seen, weights)
    mean = ratio(sums.first, sums.total)
    square = (ratio(sums.second, sums.total) - mean**2).clamp_min(0.0)
    filled = sums.total > EMPTY
    weight, floor = torch.where(filled, sums.total, torch.zeros_like(square)), variance_floor(x, seen)
    over, floor = ((1,), floor) if emission.covariance == "diag" else ((1, 2), floor.mean())
    total = weight.sum(over)
    pooled = (weight * square).sum(over) / total.clamp_min(EMPTY)
    scale = torch.maximum(pooled, floor).sqrt()
    return {
        "mean": torch.where(filled, sums.centre + mean, previous["mean"]),
        "scale": torch.where(total > EMPTY, scale, previous["scale"]),
    }
