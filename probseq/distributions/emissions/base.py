"""The interface of emissions, with defaults for all but their parameters and their law."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration
from probseq.distributions.ascent import ascend
from probseq.distributions.base import Distribution
from probseq.distributions.estimation import floor_name
from probseq.distributions.params import Params, ParamSpec, flatten, read_outputs, unconstrained_size, unflatten
from probseq.distributions.tables import component_log_prob

__all__ = ["CategoryCounts", "Emission", "Observation"]

CategoryCounts = int | tuple[int | None, ...] | None
"""The number of categories of all variables, or of each; None for numbers."""

_STEPS = 6
_POOLED_STEPS = 50
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Observation:
    """What one event is: its size, its base measure, and a harmless value inside its support.

    Measure, fill and number of categories are one value for all variables, or a tuple with one a variable.

    Parameters
    ----------
    n_variables : int
    measure : str
        "lebesgue" for densities, "counting" for probability masses; "lattice of step 0.5" for masses on the multiples
        of another number than one.
    fill : float
        A value inside the support that stands where nothing was seen.
    n_categories : int or None
        For categorical data.
    n_covariates : int
        Known inputs beside the event, for emissions that depend on them.
    """

    n_variables: int
    measure: str | tuple[str, ...] = "lebesgue"
    fill: float | tuple[float, ...] = 0.0
    n_categories: CategoryCounts = None
    n_covariates: int = 0

    @classmethod
    def join(cls, groups: Sequence[Observation]) -> Observation:
        """The event whose variables are those of the groups, one after the other."""
        return cls(
            sum(group.n_variables for group in groups),
            _common([measure for group in groups for measure in group.measures]),
            _common([fill for group in groups for fill in group.fills]),
            _common([size for group in groups for size in group.categories]),
            groups[0].n_covariates,
        )

    def select(self, variables: slice) -> Observation:
        """The event of some of the variables."""
        measures, fills, sizes = self.measures[variables], self.fills[variables], self.categories[variables]
        return Observation(len(fills), _common(measures), _common(fills), _common(sizes), self.n_covariates)

    @property
    def measures(self) -> tuple[str, ...]:
        """The base measure of every variable."""
        return self.measure if isinstance(self.measure, tuple) else (self.measure,) * self.n_variables

    @property
    def fills(self) -> tuple[float, ...]:
        """The fill value of every variable."""
        return self.fill if isinstance(self.fill, tuple) else (self.fill,) * self.n_variables

    @property
    def categories(self) -> tuple[int | None, ...]:
        """The number of categories of every variable, None for numbers."""
        each = self.n_categories
        return each if isinstance(each, tuple) else (each,) * self.n_variables

    @property
    def discrete_variables(self) -> Tensor:
        """Which variables are counted, (k,) bool."""
        return torch.tensor([measure != "lebesgue" for measure in self.measures])

    @property
    def discrete(self) -> bool:
        """All variables are counted."""
        return all(measure != "lebesgue" for measure in self.measures)

    def filled(self, x: Tensor, seen: Tensor) -> Tensor:
        """``x`` (*B, k) with the fill value where nothing was seen."""
        return torch.where(seen, x, torch.tensor(self.fills, dtype=x.dtype, device=x.device))

    def like(self, x: Tensor) -> Tensor:
        """The fill value everywhere, in the shape of ``x`` (*B, k)."""
        return torch.tensor(self.fills, dtype=x.dtype, device=x.device).expand(x.shape)


def _common(values: Sequence[Any]) -> Any:
    """The one value that all variables have, or one a variable."""
    return values[0] if len(set(values)) == 1 else tuple(values)


class Emission(Configuration, ABC):
    """A family of distributions of one event, indexed by its parameters.

    An emission is a hyper-parameter: its constructor only stores. The same object serves the states of a hidden Markov
    model (``components=(n_states,)``) and the output of a network (``components=()``).

    A new emission needs ``parameters`` and ``distribution`` only: its M-step then climbs the weighted likelihood by
    its gradient. It is worth overriding ``pooled_params`` (a better start), ``m_step`` (where there is a closed form),
    ``check`` (where the support is not the whole line) and ``states_at_floor`` (where a density can be unbounded).
    """

    measure: ClassVar[str] = "lebesgue"
    fill: ClassVar[float] = 0.0
    nominal: ClassVar[bool] = False
    """Values are labels without order, so that tokens may be read."""
    whole_line: ClassVar[bool] = True
    """Every number is possible (where the law is a density)."""
    binary: ClassVar[bool] = False
    """Values are 0 or 1."""
    constants: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that a network learns once, instead of giving them anew at every step."""
    is_likelihood: ClassVar[bool] = True
    """Whether training maximises the law's own log probability, so that it may be compared with other likelihoods."""

    @property
    def shiftable(self) -> bool | tuple[bool, ...]:
        """Whether values may be shifted and scaled, as by ``Standardize``: of all variables, or of each."""
        return self.measure == "lebesgue" and self.whole_line

    @property
    def n_variables(self) -> int | None:
        """Number of variables that the family describes; None for any."""
        return None

    def observation(self, n_variables: int, n_categories: CategoryCounts = None) -> Observation:
        """Describe the event.

        ``n_categories`` is what the data suggest for all variables, or for each, to families that have categories.
        """
        return Observation(n_variables, self.measure, self.fill)

    @abstractmethod
    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        """Parameter specifications; every shape starts with ``components`` unless the parameter is tied."""

    @abstractmethod
    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        """The law of the event, batch shape (*B, *components), for parameters of shape (*B, *spec.shape)."""

    def output_specs(self, observation: Observation) -> dict[str, ParamSpec]:
        """The parameters that a network gives anew at every step."""
        names = self.constants
        return {name: spec for name, spec in self.parameters(observation).items() if name not in names}

    def constant_specs(self, observation: Observation) -> dict[str, ParamSpec]:
        """The parameters that a network learns once."""
        names = self.constants
        return {name: spec for name, spec in self.parameters(observation).items() if name in names}

    def initial_outputs(self, observation: Observation) -> Tensor:
        """Raw outputs (m,) from which the search for outputs that fit all data begins, double precision; zeros.

        A family whose likelihood has no slope there, as where its parts are all alike, overrides it.
        """
        return torch.zeros(unconstrained_size(self.output_specs(observation)), dtype=torch.float64)

    def initial_constants(self, observation: Observation, generator: torch.Generator) -> dict[str, Tensor]:
        """Values that training starts from, (*spec.shape); by default near the origin of the unconstrained space."""
        specs = self.constant_specs(observation)
        flat = torch.randn(unconstrained_size(specs), generator=generator, dtype=torch.float64)
        return unflatten(specs, 0.01 * flat)

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        """The law given by a network.

        Parameters
        ----------
        outputs : (*draw, ..., m), m = ``unconstrained_size(output_specs(observation))``
            Raw, any number.
        observation : Observation
        constants : (*draw, *spec.shape) for each of ``constant_specs(observation)``
            Allowed values; None where there is none.

        Returns
        -------
        Distribution of batch shape (*draw, ...).
        """
        known = along(constants or {}, self.constant_specs(observation), outputs.ndim - 1)
        return self.distribution({**read_outputs(self.output_specs(observation), outputs), **known})

    def check_arguments(self) -> None:
        """Raise ``ParameterError`` for arguments of the constructor that no data could make right."""

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        """Raise ``SupportError`` for values (NaN = missing) to which this family gives no probability."""

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        """Events (r, k) as points of a space (r, p) where close means alike, for the clusters that fits start from.

        Numbers in units of their standard deviation, missing ones at the mean; categories as indicators.
        """
        if not any(observation.categories):
            return standardized(x, seen)
        each = [
            standardized(x[:, i : i + 1], seen[:, i : i + 1])
            if size is None
            else torch.nn.functional.one_hot(x[:, i].long().clamp_min(0), size).to(x.dtype) * seen[:, i : i + 1]
            for i, size in enumerate(observation.categories)
        ]
        return torch.cat(each, -1)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Parameters of all the data together, without draw or state dimensions.

        ``x`` and ``seen`` are (n, t, k). States start from it, and a state without weight stays there.
        """
        specs = self.parameters(observation)
        flat = torch.zeros(1, unconstrained_size(specs), dtype=x.dtype)
        weights = torch.ones(1, *x.shape[:2], 1, dtype=x.dtype)
        params = {name: value.unsqueeze(1) for name, value in unflatten(specs, flat).items()}
        found = gradient_m_step(self, observation, x, seen, weights, params, _POOLED_STEPS)
        return {name: found[name].reshape(spec.shape) for name, spec in specs.items()}

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) that follow from soft assignments (D, n, t, s) of the steps to the states."""
        pooled = self.pooled_params(observation, x, seen)
        start = spread(pooled, self.parameters(observation, components), responsibilities.shape[0])
        return self.m_step(observation, x, seen, responsibilities, start)

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) with sum_t w_t log p(x_t seen) no lower than at ``params``, for every draw.

        ``x`` and ``seen`` are (n, t, k), ``weights`` (D, n, t, s) with zeros on padding. A state without weight keeps
        its parameters. Of counted events each may come once, its weights summed. The default takes a few quasi-Newton
        steps in the unconstrained coordinates.
        """
        return gradient_m_step(self, observation, x, seen, weights, params, _STEPS)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        """Which states have collapsed onto a point, (D, s) bool (D, 1 where the spread is tied)."""
        value = next(iter(params.values()))
        return torch.zeros(value.shape[:2], dtype=torch.bool)

    def floor_name(self, observation: Observation, x: Tensor, seen: Tensor) -> str:
        """What the variance of a collapsed state is, in words."""
        return floor_name(x, seen)


class SufficientEmission(Emission):
    """An emission whose M-step needs only sums over the steps of a few statistics f(x_t), weighted by the state."""

    @abstractmethod
    def statistics(self, x: Tensor, seen: Tensor) -> Tensor | None:
        """f(x_t) for events (n, t, k), (n, t, f); where a variable is not seen its statistics are zero.

        None where what is missing allows no such sums.
        """

    @abstractmethod
    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        """Parameters (D, s, ...) that maximise the likelihood, from sum_t w_t f(x_t), (D, s, f).

        ``x`` and ``seen`` are those of ``statistics``, for floors and centres of the data.
        """

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor | None:
        """eta (D, s, f) with log p(x_t seen) = eta . f(x_t) + log_base_t; None where the law is not of that form."""
        return None

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        """The part of the log densities that is the same for all parameters, (n, t)."""
        return torch.zeros(x.shape[:2], dtype=x.dtype)

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        found = self.statistics(x, seen)
        if found is None:
            return super().m_step(observation, x, seen, weights, params)
        sums = (found.flatten(0, 1).T @ weights.flatten(1, 2)).mT
        return self.from_statistics(x, seen, sums, params)


def standardized(x: Tensor, seen: Tensor) -> Tensor:
    """Columns (r, k) in units of their standard deviation, unseen values at the mean."""
    mask = seen.to(x.dtype)
    count = mask.sum(0).clamp_min(1.0)
    gap = mask * (x - (mask * x).sum(0) / count)
    # In units of the largest first: the squares of tiny values would be zero.
    largest = gap.abs().amax(0) if len(gap) else torch.ones_like(count)
    gap = gap / torch.where(largest > 0, largest, torch.ones_like(largest))
    spread = (gap.square().sum(0) / count).sqrt()
    return gap / torch.where(spread > 0, spread, torch.ones_like(spread))


def masked(seen: Tensor, *statistics: Tensor) -> Tensor:
    """Which variables are seen and, where they are, their statistics, side by side: (..., (1 + f) k)."""
    mask = seen.to(statistics[0].dtype)
    return torch.cat([mask, *(torch.where(seen, one, torch.zeros_like(one)) for one in statistics)], -1)


def along(constants: Params, specs: Mapping[str, ParamSpec], n_batch: int) -> dict[str, Tensor]:
    """Values (*draw, *spec.shape) with axes of length 1 behind the draws, (*draw, 1, ..., *spec.shape)."""
    placed = {}
    for name, spec in specs.items():
        value = constants[name]
        n_draws = value.ndim - len(spec.shape)
        ones = (1,) * (n_batch - n_draws)
        placed[name] = value.reshape(*value.shape[:n_draws], *ones, *spec.shape)
    return placed


def spread(pooled: Params, specs: dict[str, ParamSpec], n_draws: int) -> dict[str, Tensor]:
    """One set of parameters for every draw and every component, (D, *spec.shape)."""
    full = {}
    for name, spec in specs.items():
        value = pooled[name]
        lead = len(spec.shape) - value.ndim
        full[name] = value.reshape(1, *(1,) * lead, *value.shape).expand(n_draws, *spec.shape).clone()
    return full


def gradient_m_step(
    emission: Emission,
    observation: Observation,
    x: Tensor,
    seen: Tensor,
    weights: Tensor,
    params: Params,
    n_steps: int,
) -> dict[str, Tensor]:
    """Quasi-Newton steps on sum_t w_t log p(x_t seen), state by state where no parameter is tied."""
    components = weights.shape[3:]
    own, all_specs = emission.parameters(observation), emission.parameters(observation, components)
    apart = all(spec.shape == (*components, *own[name].shape) for name, spec in all_specs.items())
    specs = own if apart else all_specs
    fixed = {name: params[name] for name, spec in specs.items() if not spec.trainable}
    rows, mask = x.reshape(1, -1, x.shape[-1]), seen.reshape(1, -1, x.shape[-1])
    shares = weights.reshape(weights.shape[0], -1, *components)
    used = seen.any(-1).flatten() & (shares != 0).any(-1).any(0)
    rows, mask, shares = rows[:, used], mask[:, used], shares[:, used]
    step = max(1, _CHUNK // max(1, shares[:, :1].numel() * x.shape[-1]))

    def objective(flat: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
        total, slope = torch.zeros(flat.shape[:-1], dtype=flat.dtype), torch.zeros_like(flat)
        for i in range(0, rows.shape[1], step):
            with torch.set_grad_enabled(with_gradient):
                leaf = flat.detach().requires_grad_(with_gradient)
                law = emission.distribution({**fixed, **unflatten(specs, leaf)}, components)
                table = component_log_prob(law, rows[:, i : i + step], mask[:, i : i + step]).squeeze(1)
                w = shares[:, i : i + step]
                # A state without weight at a step says nothing there, however impossible the step is for it.
                value = torch.where(w > 0, w * table, torch.zeros_like(table)).sum(1)
                value = value if apart else value.sum(-1)
                if with_gradient:
                    slope += torch.nan_to_num(torch.autograd.grad(value.sum(), leaf)[0], 0.0, 0.0, 0.0)
                total += value.detach()
        return total, slope

    start = flatten(specs, params).detach()
    found = unflatten(specs, ascend(objective, start, n_steps))
    return {name: found[name] if name in found else params[name] for name in specs}
