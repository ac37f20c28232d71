"""What users ask of a hidden chain beyond its best path: laws of states, expected counts, steps left out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.params import Params
from probseq.kernels import chain
from probseq.kernels.leave_one_out import leave_one_out
from probseq.models.base import Batch
from probseq.models.chain_problem import ChainProblem
from probseq.models.latent import DiscreteLatent, LeftOut

__all__ = ["ChainQueries"]


class ChainQueries(DiscreteLatent):
    """Answers for models whose states form a Markov chain."""

    @abstractmethod
    def _components(self, params: Params) -> Distribution:
        """The laws of the states, batch shape (*draw, s)."""

    @abstractmethod
    def _table(self, params: Params, batch: Batch) -> Tensor:
        """log p(x_t | z_t), (*draw, n, t, s)."""

    @abstractmethod
    def _problem(self, params: Params, batch: Batch, state: Any) -> ChainProblem:
        """The chains and their observations as arrays."""

    @abstractmethod
    def _per_draw(self, params: Params, value: Tensor) -> Tensor:
        """With a draw dimension in any case."""

    @abstractmethod
    def _as_drawn(self, params: Params, value: Tensor) -> Tensor:
        """With the draw dimensions of the parameters."""

    def state_laws(self, params: Params, batch: Batch | None = None) -> Distribution:
        law = self._components(params)
        if batch is None:
            return law
        between = law[..., None, None, :]
        return between.expand((*between.batch_shape[:-3], batch.n, batch.t, self.n_states))

    def leave_one_out(self, params: Params, batch: Batch, state: Any = None) -> LeftOut:
        problem = self._problem(params, batch, state)
        table = problem.emission.table
        if not table.size:
            table = self._per_draw(params, self._table(params, batch)).numpy()
        found = leave_one_out(problem.initial, problem.transition, table, problem.lengths)
        return LeftOut(*(self._as_drawn(params, torch.from_numpy(a)) for a in found))

    def expected_transitions(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        each = []
        for i in range(batch.n):
            one = Batch(*(None if part is None else part[i : i + 1] for part in batch))  # type: ignore[arg-type]
            begun = None if state is None else type(state)(*(leaf[..., i : i + 1, :] for leaf in state))
            each.append(torch.from_numpy(chain.expectations(*self._problem(params, one, begun), keep=False).counts))
        return self._as_drawn(params, torch.stack(each, 1))

    def expected_durations(self, params: Params) -> Tensor:
        """1 / (1 - A_jj), the mean of a geometric law; inf for a state that is never left."""
        return 1.0 / (1.0 - params["transition"].diagonal(dim1=-2, dim2=-1))

    def permute_state(self, state: Any, permutation: Tensor) -> Any:
        probs = state.probs
        order = permutation.reshape(*permutation.shape[:-1], *(1,) * (probs.ndim - permutation.ndim), -1)
        return state._replace(probs=torch.take_along_dim(probs, order, -1))
