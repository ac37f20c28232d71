"""Emissions that depend on known inputs beside the state: covariates and earlier values."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation, spread
from probseq.distributions.params import Params
from probseq.errors import CovariateError, IncompatibleError

__all__ = ["ConditionalEmission"]


class ConditionalEmission(Emission):
    """p(x_t | z_t, inputs_t), where the inputs are the last ``order`` values, newest first, and then the covariates.

    Only models that carry the inputs from step to step can use one: hidden Markov models.
    """

    order: int = 0
    """How many earlier values enter."""

    def n_inputs(self, observation: Observation) -> int:
        """Inputs a step: ``order`` times the variables, plus the covariates."""
        return self.order * observation.n_variables + observation.n_covariates

    @abstractmethod
    def condition(self, params: Params, inputs: Tensor, components: tuple[int, ...]) -> Distribution:
        """The laws given the inputs.

        Parameters
        ----------
        params : (*draw, s, ...)
        inputs : (*draw or *1s, r, q)
        components : (s,)

        Returns
        -------
        Distribution of batch shape (*draw, r, s).
        """

    @abstractmethod
    def climb(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, inputs: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) whose weighted likelihood is not lower.

        ``x`` and ``seen`` are (r, k), ``weights`` (D, r, s), ``inputs`` (r, q).
        """

    @abstractmethod
    def flat_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Parameters of all the values (r, k) together, without influence of the inputs and without state axis."""

    def start(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, inputs: Tensor
    ) -> dict[str, Tensor]:
        """Parameters (D, s, ...) that follow from soft assignments (D, r, s) of the rows to the states."""
        draws, r, s = weights.shape
        one = self.parameters(observation, (1,))
        pooled = spread(self.flat_params(observation, x, seen), one, 1)
        for _ in range(3):
            pooled = self.climb(observation, x, seen, torch.ones(1, r, 1, dtype=x.dtype), inputs, pooled)
        every = {name: value.expand(draws, s, *value.shape[2:]).clone() for name, value in pooled.items()}
        return self.climb(observation, x, seen, weights, inputs, every)

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        raise IncompatibleError(
            got=f"{type(self).__name__} without its inputs",
            expected="a model that carries covariates and earlier values: HMM",
            remedy="Use it as the emission of an HMM, or choose an emission without inputs.",
        )

    def _require_inputs(self, observation: Observation) -> None:
        if self.n_inputs(observation) == 0:
            raise CovariateError(
                got=f"{type(self).__name__} without covariates",
                expected="at least one covariate at every step",
                remedy="Pass covariates= to fit, or n_covariates= to with_parameters.",
            )
