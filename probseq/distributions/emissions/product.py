"""The emission of mixed events: one emission for each group of variables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import CategoryCounts, Emission, Observation
from probseq.distributions.emissions.conditional import ConditionalEmission
from probseq.distributions.params import Params, ParamSpec, unconstrained_size
from probseq.distributions.product import IndependentParts
from probseq.errors import IncompatibleError, ParameterError, ShapeError

__all__ = ["Product"]

_SHARED_DIMS = ("state", "group")


class Part(NamedTuple):
    emission: Emission
    own: slice
    prefix: str

    @property
    def size(self) -> int:
        return int(self.own.stop - self.own.start)


class Product(Emission):
    r"""p(x) = prod_g p_g(x_g), independent given the state or the network's output: columns of different kinds.

    x_g are consecutive groups of the variables, in the order of the data's columns. Parameters carry the name of
    their emission in front, ``normal_mean`` and ``poisson_rate``; where a class occurs more than once also its place
    in the list, ``normal0_mean`` and ``normal2_mean``.

    Parameters
    ----------
    emissions : list of Emission
    sizes : list of int or None
        How many variables each emission describes; None is one each.

    Examples
    --------
    >>> import probseq as ps
    >>> ps.Product([ps.Normal("full"), ps.Poisson()], sizes=[2, 1])
    Product(emissions=[Normal(covariance='full'), Poisson()], sizes=[2, 1])
    """

    def __init__(self, emissions: Sequence[Emission] = (), sizes: Sequence[int] | None = None) -> None:
        self.emissions, self.sizes = emissions, sizes

    @property
    def n_variables(self) -> int:
        return self.parts()[-1].own.stop

    @property
    def measure(self) -> str | tuple[str, ...]:  # type: ignore[override]
        return Observation.join([Observation(p.size, p.emission.measure) for p in self.parts()]).measure

    @property
    def fill(self) -> float | tuple[float, ...]:  # type: ignore[override]
        return Observation.join([Observation(p.size, fill=p.emission.fill) for p in self.parts()]).fill

    @property
    def shiftable(self) -> tuple[bool, ...]:
        each = [(p.emission.shiftable, p.size) for p in self.parts()]
        return tuple(one for own, size in each for one in (own if isinstance(own, tuple) else (own,) * size))

    def observation(self, n_variables: int, n_categories: CategoryCounts = None) -> Observation:
        self._check_width(n_variables, "the data")
        each = n_categories if isinstance(n_categories, tuple) else (n_categories,) * n_variables
        return Observation.join([p.emission.observation(p.size, each[p.own]) for p in self.parts()])

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        specs = {}
        for part in self.parts():
            for name, spec in part.emission.parameters(observation.select(part.own), components).items():
                dims = tuple(d if d in _SHARED_DIMS else f"{part.prefix}_{d}" for d in spec.dims)
                specs[f"{part.prefix}_{name}"] = replace(spec, dims=dims)
        return specs

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        each = zip(self.parts(), self._split(params), strict=True)
        return IndependentParts([part.emission.distribution(own, components) for part, own in each])

    @property
    def constants(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{part.prefix}_{name}" for part in self.parts() for name in part.emission.constants)

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return all(part.emission.is_likelihood for part in self.parts())

    def initial_outputs(self, observation: Observation) -> Tensor:
        return torch.cat([p.emission.initial_outputs(observation.select(p.own)) for p in self.parts()])

    def initial_constants(self, observation: Observation, generator: torch.Generator) -> dict[str, Tensor]:
        found = {}
        for part in self.parts():
            found.update(_named(part, part.emission.initial_constants(observation.select(part.own), generator)))
        return found

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        parts = self.parts()
        events = [observation.select(p.own) for p in parts]
        sizes = [unconstrained_size(p.emission.output_specs(event)) for p, event in zip(parts, events, strict=True)]
        known = self._split(constants or {})
        each = zip(parts, outputs.split(sizes, -1), events, known, strict=True)
        return IndependentParts([p.emission.from_outputs(raw, event, own) for p, raw, event, own in each])

    def check_arguments(self) -> None:
        for part in self.parts():
            part.emission.check_arguments()

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        self._check_width(values.shape[-1], name)
        for part in self.parts():
            first, last = part.own.start, part.own.stop - 1
            where = f"column {first}" if first == last else f"columns {first} to {last}"
            part.emission.check(values[..., part.own], f"{where} of {name}")

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        parts = self.parts()
        return torch.cat([p.emission.points(observation.select(p.own), x[:, p.own], seen[:, p.own]) for p in parts], -1)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        found = {}
        for part in self.parts():
            own = part.emission.pooled_params(observation.select(part.own), x[..., part.own], seen[..., part.own])
            found.update(_named(part, own))
        return found

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        found = {}
        for part in self.parts():
            own = part.emission.initial_params(
                observation.select(part.own), x[..., part.own], seen[..., part.own], responsibilities, components
            )
            found.update(_named(part, own))
        return found

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        found = {}
        for part, previous in zip(self.parts(), self._split(params), strict=True):
            own = part.emission.m_step(
                observation.select(part.own), x[..., part.own], seen[..., part.own], weights, previous
            )
            found.update(_named(part, own))
        return found

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        low = torch.zeros(1, 1, dtype=torch.bool)
        for part, own in zip(self.parts(), self._split(params), strict=True):
            low = low | part.emission.states_at_floor(
                observation.select(part.own), x[..., part.own], seen[..., part.own], own
            )
        return low

    def floor_name(self, observation: Observation, x: Tensor, seen: Tensor) -> str:
        names = [
            part.emission.floor_name(observation.select(part.own), x[..., part.own], seen[..., part.own])
            for part in self.parts()
        ]
        return " or ".join(dict.fromkeys(names))

    def parts(self) -> list[Part]:
        """The emissions, where their variables stand, and what their parameters' names begin with."""
        given = self.emissions
        if not isinstance(given, list | tuple) or not given or not all(isinstance(one, Emission) for one in given):
            raise ParameterError(
                got=f"Product of {given!r}",
                expected="a list of emissions, such as [ps.Normal(), ps.Poisson()]",
                remedy="Write their parentheses." if isinstance(given, list | tuple) and given else "Pass a list.",
            )
        inputs = next((one for one in given if isinstance(one, ConditionalEmission)), None)
        if inputs is not None:
            raise IncompatibleError(
                got=f"{type(inputs).__name__} in a Product",
                expected="emissions that depend on the state alone",
                remedy=f"Use {type(inputs).__name__} as the emission of all columns.",
            )
        sizes = (1,) * len(given) if self.sizes is None else self.sizes
        if (
            not isinstance(sizes, list | tuple)
            or len(sizes) != len(given)
            or any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in sizes)
        ):
            raise ParameterError(
                got=f"sizes={self.sizes!r} for {len(given)} emissions",
                expected="one whole number of 1 or more for each emission",
                remedy="Leave sizes out for one variable each.",
            )
        ends = list(accumulate(int(n) for n in sizes))
        stems = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(one).__name__).lower() for one in given]
        often = Counter(stems)
        prefixes = [stem if often[stem] == 1 else f"{stem}{i}" for i, stem in enumerate(stems)]
        return [
            Part(one, slice(end - int(n), end), prefix)
            for one, end, n, prefix in zip(given, ends, sizes, prefixes, strict=True)
        ]

    def _split(self, params: Params) -> list[dict[str, Tensor]]:
        """Each part's parameters, under the names that it knows."""
        parts = self.parts()
        split: list[dict[str, Tensor]] = [{} for _ in parts]
        for name, value in params.items():
            # One prefix may begin with another: normal and normal_regression.
            owners = [i for i, part in enumerate(parts) if name.startswith(f"{part.prefix}_")]
            if owners:
                owner = max(owners, key=lambda i: len(parts[i].prefix))
                split[owner][name.removeprefix(f"{parts[owner].prefix}_")] = value
        return split

    def _check_width(self, n_variables: int, name: str) -> None:
        if n_variables != self.n_variables:
            raise ShapeError(
                got=f"{n_variables} variable{'s' * (n_variables != 1)} in {name}",
                expected=f"{self.n_variables}, for {self!r}",
                remedy="Give every column an emission; sizes= says how many columns each one takes.",
            )


def _named(part: Part, params: Params) -> dict[str, Tensor]:
    return {f"{part.prefix}_{name}": value for name, value in params.items()}
