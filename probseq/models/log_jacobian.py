"""What transforms add to log-likelihoods, by themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Params, ParamSpec
from probseq.errors import UnsupportedError
from probseq.models.base import Batch, SequenceModel, Steps

__all__ = ["UnitDensity"]


class UnitDensity(SequenceModel[Tensor]):
    """A density of one everywhere, so that a transform around it leaves its log-Jacobian of the scored values.

    Parameters
    ----------
    observation : Observation
    dtype : torch.dtype
    """

    def __init__(self, observation: Observation, dtype: torch.dtype = torch.float64, n_covariates: int = 0) -> None:
        self.observation, self.dtype, self.n_covariates = observation, dtype, n_covariates

    def parameters(self) -> Mapping[str, ParamSpec]:
        return {}

    def initial_state(self, params: Params, n: int) -> Tensor:
        return torch.zeros(n, dtype=self.dtype)

    def predict_next(self, params: Params, state: Tensor, u: Tensor | None = None) -> Distribution:
        raise UnsupportedError(
            got="a bound under BoxCox(), whose probability outside its range is shared at each step",
            expected="a transform that reaches every value, such as Log()",
            remedy="Use log_prob, or another transform.",
        )

    def update(self, params: Params, state: Tensor, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Tensor:
        return state

    def _log_prob_steps(self, params: Params, batch: Batch, state: Tensor) -> Steps[Tensor]:
        scored = batch.seen & batch.real.unsqueeze(-1)
        return Steps(torch.zeros(batch.n, batch.t, dtype=torch.float64), scored, None, state)

    def _predictive(self, params: Params, batch: Batch, state: Tensor) -> tuple[Distribution, Tensor]:
        return self.predict_next(params, state), batch.seen
