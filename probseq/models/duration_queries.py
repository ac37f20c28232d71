"""What users ask of the states of a hidden semi-Markov model: paths, probabilities, expected counts and durations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.durations import Duration
from probseq.distributions.params import Params
from probseq.kernels import durations
from probseq.models.base import Batch
from probseq.models.duration_likelihood import long_run
from probseq.models.latent import DiscreteLatent, LeftOut, StatePaths

__all__ = ["DurationQueries"]


class DurationQueries(DiscreteLatent):
    """Answers for models whose states have explicit durations."""

    duration: Duration

    @abstractmethod
    def _components(self, params: Params) -> Distribution:
        """The laws of the states, batch shape (*draw, s)."""

    @abstractmethod
    def _problem(self, params: Params, batch: Batch, state: Any) -> durations.Renewals:
        """The chains and their observations as arrays."""

    @abstractmethod
    def _as_drawn(self, params: Params, value: Tensor) -> Tensor:
        """With the draw dimensions of the parameters."""

    def state_laws(self, params: Params, batch: Batch | None = None) -> Distribution:
        law = self._components(params)
        if batch is None:
            return law
        between = law[..., None, None, :]
        return between.expand((*between.batch_shape[:-3], batch.n, batch.t, self.n_states))

    def filter_states(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        result = durations.filter_states(self._problem(params, batch, state))
        return self._as_drawn(params, torch.from_numpy(result.filtered))

    def smooth(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        result = durations.expectations(self._problem(params, batch, state))
        return self._as_drawn(params, torch.from_numpy(result.posterior))

    def decode(self, params: Params, batch: Batch, state: Any = None, k: int | None = None) -> StatePaths:
        """argmax over z_1:T of p(z_1:T | x_1:T), or the k best paths, exact.

        A path fixes the durations of its segments; only that of a first one that began before the data is summed over.
        """
        paths = durations.decode(self._problem(params, batch, state), 1 if k is None else k)
        states, log_prob = (torch.from_numpy(a).movedim(2, 1) for a in paths)
        if k is None:
            states, log_prob = states.squeeze(1), log_prob.squeeze(1)
        return StatePaths(self._as_drawn(params, states), self._as_drawn(params, log_prob))

    def sample_states(
        self, params: Params, batch: Batch, n_paths: int, generator: torch.Generator, state: Any = None
    ) -> Tensor:
        problem = self._problem(params, batch, state)
        shape = (problem.trans.shape[0], n_paths, batch.n, batch.t)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        return self._as_drawn(params, torch.from_numpy(durations.sample_paths(problem, uniform.numpy())))

    def leave_one_out(self, params: Params, batch: Batch, state: Any = None) -> LeftOut:
        found = durations.leave_one_out(self._problem(params, batch, state))
        return LeftOut(*(self._as_drawn(params, torch.from_numpy(a)) for a in found))

    def expected_transitions(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        """E[number of moves from i to j | x_1:T], (*draw, n, s, s), exact; none from a state to itself."""
        sums = durations.expectations(self._problem(params, batch, state), keep=False)
        return self._as_drawn(params, torch.from_numpy(sums.counts))

    def expected_durations(self, params: Params) -> Tensor:
        """E[steps that a visit of a state lasts], (*draw, s), its tail included."""
        return self.duration.tables(params).residual()[0].exp()

    def stationary_distribution(self, params: Params) -> Tensor:
        """The share of time that each state has in the long run, (*draw, s)."""
        return long_run(params["transition"], self.duration.tables(params)).exp()

    def permute_state(self, state: Any, permutation: Tensor) -> Any:
        log_probs = state.log_probs
        lead = permutation.shape[:-1]
        order = permutation.reshape(*lead, *(1,) * (log_probs.ndim - permutation.ndim - 1), -1, 1)
        return state._replace(log_probs=torch.take_along_dim(log_probs, order, -2))
