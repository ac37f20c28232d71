"""A fitted model as a part of another one: its parameters are settled, only its state moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.params import Params, ParamSpec
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state
from probseq.models.marginal import Marginalized

__all__ = ["SettledModel"]


class SettledModel(SequenceModel[Any]):
    r"""p(x_{1:T}) = sum_d w_d p(x_{1:T} | theta_d) with nothing left to fit, as one draw of a larger model.

    The states and laws of ``inner``, which have no draw dimension, get one of size one. Laws are in double precision.

    Parameters
    ----------
    inner : Marginalized
    n_covariates : int
        Of the larger model: an inner one without covariates does not see them.
    """

    def __init__(self, inner: Marginalized, n_covariates: int = 0) -> None:
        self.inner, self.n_covariates = inner, n_covariates
        self.observation, self.dtype = inner.observation, torch.float64
        self.exact, self.likelihood, self.missing = inner.exact, inner.likelihood, inner.missing
        self.starts_itself, self.estimate = inner.starts_itself, inner.estimate
        self.n_settled = inner.n_parameters

    def parameters(self) -> dict[str, ParamSpec]:
        return {}

    def initial_state(self, params: Params, n: int) -> Any:
        return _lifted(self.inner.initial_state({}, n))

    def predict_next(self, params: Params, state: Any, u: Tensor | None = None) -> Distribution:
        return _lifted_law(self.inner.predict_next({}, _lowered(state), self._inputs(u, 2)))

    def update(self, params: Params, state: Any, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Any:
        plain = (one.reshape(one.shape[-2:]) for one in (x, seen))
        x, seen = (one.expand(state.log_weights.shape[-2], -1) for one in plain)
        x = self.observation.filled(x, seen)
        return _lifted(self.inner.update({}, _lowered(state), x, seen, self._inputs(u, 2)))

    def scores_next(self, state: Any) -> Tensor | None:
        return self.inner.scores_next(_lowered(state))

    # trajectories -----------------------------------------------------------------------------------------------------

    def _batch(self, batch: Batch) -> Batch:
        x = self.observation.filled(batch.x, batch.seen)
        return batch._replace(x=x, u=self._inputs(batch.u, 3))

    def _scan(self, params: Params, batch: Batch, state: Any) -> Scan[Any]:
        scan = self.inner._scan({}, self._batch(batch), _lowered(state))
        return Scan(_lifted(scan.states), _lifted(scan.final))

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: Any) -> Any:
        return _lifted(self.inner._states_at({}, self._batch(batch), steps, _lowered(state)))

    def _log_prob_steps(self, params: Params, batch: Batch, state: Any) -> Steps[Any]:
        steps = self.inner._log_prob_steps({}, self._batch(batch), _lowered(state))
        error = None if steps.error is None else steps.error.double().unsqueeze(0)
        return Steps(steps.values.double().unsqueeze(0), steps.scored, error, _lifted(steps.final))

    def _predictive(self, params: Params, batch: Batch, state: Any) -> tuple[Distribution, Tensor]:
        law, scored = self.inner._predictive({}, self._batch(batch), _lowered(state))
        return _lifted_law(law), scored

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        law = self.inner._forecast_marginals({}, _lowered(state), self._inputs(u, 3), horizon)
        return None if law is None else _lifted_law(law)

    def _forecast_joint(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        law = self.inner._forecast_joint({}, _lowered(state), self._inputs(u, 3), horizon)
        return None if law is None else _lifted_law(law)

    def _forecast_mean(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Tensor | None:
        mean = self.inner._forecast_mean({}, _lowered(state), self._inputs(u, 3), horizon)
        return None if mean is None else mean.double().unsqueeze(0)

    def _sample(
        self,
        params: Params,
        state: Any,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        x, final = self.inner._sample({}, _lowered(state), length, generator, self._inputs(u, 3), temper)
        return x.double().unsqueeze(0), _lifted(final)

    def _inputs(self, u: Tensor | None, n_dims: int) -> Tensor | None:
        """Covariates of the inner model, without the dimension of the draw."""
        if u is None or not self.inner.n_covariates:
            return None
        return u.reshape(u.shape[u.ndim - n_dims :])


def _lifted(state: Any) -> Any:
    return map_state(lambda leaf: leaf.unsqueeze(0), state)


def _lowered(state: Any) -> Any:
    return map_state(lambda leaf: leaf.squeeze(0), state)


def _lifted_law(law: Distribution) -> Distribution:
    def lift(tensor: Tensor, _: int) -> Tensor:
        return (tensor.double() if tensor.is_floating_point() else tensor).unsqueeze(0)

    return law.map_batch(lift)
