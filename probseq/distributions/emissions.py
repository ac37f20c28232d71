"""Emissions: what a state, or a network's output, says about one observed event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.params import Params, ParamSpec, Positive, PositiveDefinite, Real, Simplex, unflatten
from probseq.errors import ParameterError, SupportError

__all__ = ["Bernoulli", "Categorical", "Emission", "Normal", "Observation", "Poisson", "StudentT"]


@dataclass(frozen=True)
class Observation:
    """What one event is: its size, its base measure, and a harmless value inside its support.

    Parameters
    ----------
    n_variables : int
    measure : str
        "lebesgue" for densities, "counting" for probability masses.
    fill : float
        A value inside the support that stands where nothing was seen.
    n_categories : int or None
        For categorical data.
    """

    n_variables: int
    measure: str = "lebesgue"
    fill: float = 0.0
    n_categories: int | None = None

    @property
    def discrete(self) -> bool:
        return self.measure == "counting"


class Emission(Configuration, ABC):
    """A family of distributions of one event, indexed by its parameters.

    An emission is a hyper-parameter: its constructor only stores. The same object serves the states of a hidden Markov
    model (``components=(n_states,)``) and the output of a network (``components=()``).
    """

    measure: ClassVar[str] = "lebesgue"
    fill: ClassVar[float] = 0.0
    nominal: ClassVar[bool] = False
    """Values are labels without order, so that tokens may be read."""

    def observation(self, n_variables: int, n_categories: int | None = None) -> Observation:
        """Describe the event; ``n_categories`` is what the data suggest, for families that have categories."""
        return Observation(n_variables, self.measure, self.fill)

    @abstractmethod
    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        """Parameter specifications; every shape starts with ``components`` unless the parameter is tied."""

    @abstractmethod
    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        """The law of the event, batch shape (*B, *components), for parameters of shape (*B, *spec.shape)."""

    def from_outputs(self, outputs: Tensor, observation: Observation) -> Distribution:
        """The law given by a network's raw outputs (*B, m), m = ``unconstrained_size(parameters(observation))``."""
        return self.distribution(unflatten(self.parameters(observation), outputs))

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        """Raise ``SupportError`` for values (NaN = missing) to which this family gives no probability."""

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) that follow from soft assignments (D, n, t, s) of the steps to the states."""
        from probseq.distributions import estimation

        return estimation.initial_params(self, observation, x, seen, responsibilities, components)

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) with sum_t w_t log p(x_t seen) no lower than at ``params``.

        ``x`` and ``seen`` are (n, t, k), ``weights`` (D, n, t, s) with zeros on padding.
        """
        from probseq.distributions import estimation

        return estimation.m_step(self, observation, x, seen, weights, params)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        """Which states have collapsed onto a point, (D, s) bool (D, 1 where the spread is tied)."""
        from probseq.distributions import estimation

        return estimation.states_at_floor(self, observation, x, seen, params)


class Normal(Emission):
    r"""x ~ N(mean, Sigma).

    Parameters
    ----------
    covariance : {"diag", "full", "spherical", "tied"}
        One variance a variable, a whole matrix, one variance for all variables, or one whole matrix shared by all
        states. Parameters: ``mean`` (k,), and ``scale`` (k,) or () for "diag" and "spherical" (standard deviations),
        ``covariance`` (k, k) for "full" and "tied".
    """

    def __init__(self, covariance: str = "diag") -> None:
        self.covariance = covariance

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        k = observation.n_variables
        state = ("state",) * len(components)
        specs = {"mean": ParamSpec((*components, k), Real(), (*state, "variable"))}
        if self.covariance == "diag":
            specs["scale"] = ParamSpec((*components, k), Positive(), (*state, "variable"))
        elif self.covariance == "spherical":
            specs["scale"] = ParamSpec(components, Positive(), state)
        elif self.covariance in ("full", "tied"):
            lead, dims = (components, state) if self.covariance == "full" else ((), ())
            specs["covariance"] = ParamSpec((*lead, k, k), PositiveDefinite(), (*dims, "variable", "other_variable"))
        else:
            raise ParameterError(
                got=f"covariance={self.covariance!r}",
                expected='"diag", "full", "spherical" or "tied"',
                remedy="Choose one of them.",
            )
        return specs

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        mean = params["mean"]
        if "covariance" in params:
            factor = torch.linalg.cholesky(params["covariance"])
            if self.covariance == "tied":
                factor = factor.reshape(*factor.shape[:-2], *(1,) * len(components), *factor.shape[-2:])
            return FullNormal(loc=mean, scale_tril=factor)
        scale = params["scale"]
        if self.covariance == "spherical":
            scale = scale.unsqueeze(-1).expand_as(mean)
        return DiagonalNormal(loc=mean, scale=scale)

    def from_outputs(self, outputs: Tensor, observation: Observation) -> Distribution:
        if self.covariance not in ("full", "tied"):
            return super().from_outputs(outputs, observation)
        # The outputs are the factor: multiplying it out to factor it again fails in single precision.
        k = observation.n_variables
        return FullNormal(loc=outputs[..., :k], scale_tril=PositiveDefinite().factor(outputs[..., k:], (k, k)))


class StudentT(Emission):
    r"""x_i ~ t(df_i, loc_i, scale_i), independent over the variables: a normal with heavy tails.

    Parameters
    ----------
    df : float or None
        Degrees of freedom held fixed; None estimates them (above 1, so that a mean exists).
    """

    def __init__(self, df: float | None = None) -> None:
        self.df = df

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        shape = (*components, observation.n_variables)
        dims = ("state",) * len(components) + ("variable",)
        if self.df is not None and not self.df > 0:
            raise ParameterError(got=f"df={self.df!r}", expected="a positive number or None", remedy="Use df > 0.")
        specs = {"loc": ParamSpec(shape, Real(), dims), "scale": ParamSpec(shape, Positive(), dims)}
        if self.df is None:
            specs["df"] = ParamSpec(shape, Positive(low=1.0), dims)
        return specs

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        loc = params["loc"]
        df = params["df"] if self.df is None else torch.full_like(loc, float(self.df))
        return DiagonalStudentT(df=df, loc=loc, scale=params["scale"])


class Poisson(Emission):
    r"""x_i ~ Poisson(rate_i), independent over the variables: counts per step."""

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        return {"rate": ParamSpec((*components, observation.n_variables), Positive(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return PoissonCounts(rate=params["rate"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        bad = bad[(bad < 0) | (bad != np.floor(bad))]
        if bad.size:
            raise SupportError(
                got=f"{bad.flat[0]:g} in {name}",
                expected="counts: whole numbers from 0 upwards, for Poisson",
                remedy="Use Normal or StudentT for measurements, or correct the data.",
            )


class Categorical(Emission):
    r"""P(x = c) = probs_c for the categories c = 0 .. C-1 (codes, or tokens of a vocabulary).

    Parameters
    ----------
    n_categories : int or None
        None takes the vocabulary's size, or one more than the largest code of the data that are fitted.
    """

    measure: ClassVar[str] = "counting"
    nominal: ClassVar[bool] = True

    def __init__(self, n_categories: int | None = None) -> None:
        self.n_categories = n_categories

    def observation(self, n_variables: int, n_categories: int | None = None) -> Observation:
        size = self.n_categories if self.n_categories is not None else n_categories
        if size is None or size < 1:
            raise ParameterError(
                got=f"{size!r} categories", expected="at least one category", remedy="Pass n_categories=."
            )
        return Observation(n_variables, self.measure, self.fill, int(size))

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable", "category")
        shape = (*components, observation.n_variables, observation.n_categories or 1)
        return {"probs": ParamSpec(shape, Simplex(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return Categories(logits=torch.log(params["probs"]))

    def from_outputs(self, outputs: Tensor, observation: Observation) -> Distribution:
        shape = (observation.n_variables, observation.n_categories or 1)
        return Categories(logits=outputs.reshape(*outputs.shape[:-1], *shape))

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        wrong = bad[(bad < 0) | (bad != np.floor(bad))]
        if wrong.size:
            raise SupportError(
                got=f"{wrong.flat[0]:g} in {name}",
                expected="category codes: whole numbers from 0 upwards, for Categorical",
                remedy="Pass tokens (strings) or codes.",
            )
        if self.n_categories is not None and bad.size and bad.max() >= self.n_categories:
            raise SupportError(
                got=f"code {bad.max():g} in {name}",
                expected=f"codes below n_categories={self.n_categories}",
                remedy="Raise n_categories or correct the data.",
            )


class Bernoulli(Emission):
    r"""P(x_i = 1) = sigmoid(logit_i), independent over the variables: a vector of bits, such as the keys of a piano."""

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        return {"logit": ParamSpec((*components, observation.n_variables), Real(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return Bits(logit=params["logit"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        bad = bad[(bad != 0) & (bad != 1)]
        if bad.size:
            raise SupportError(
                got=f"{bad.flat[0]:g} in {name}", expected="0 or 1, for Bernoulli", remedy="Code the bits as 0 and 1."
            )
