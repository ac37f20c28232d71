"""Models made of another model: its law on another scale, or of its differences."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Affine, Bijection, Extended
from probseq.distributions.compose import push
from probseq.distributions.params import Params, ParamSpec
from probseq.distributions.stacked import is_normal, linear_image, single_steps
from probseq.errors import DataError, IncompatibleError
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state

__all__ = [
    "DifferenceState",
    "DifferencedModel",
    "ElementwiseModel",
    "WrapperModel",
    "gap_error",
    "innermost",
    "layers",
    "map_innermost",
    "unwrap",
]

S = TypeVar("S")

# Total probability outside the range of a map below which a law through it is that without the bound.
_NEGLIGIBLE = 1e-12


class WrapperModel(SequenceModel[Any]):
    """A sequence model made of another one; parameters are the inner model's."""

    nested_state: ClassVar[bool] = False
    """Whether the inner model's state is the part ``inner`` of this model's, rather than all of it."""

    def __init__(self, inner: SequenceModel[Any], changed: Tensor | None = None) -> None:
        counted = inner.observation.discrete_variables
        if bool((counted if changed is None else counted & changed).any()):
            which = "" if inner.observation.discrete else f" (variable {int(counted.long().argmax())} is counted)"
            raise IncompatibleError(
                got=f"a transform around {type(inner).__name__} with discrete values{which}",
                expected="continuous values: a count that is shifted or scaled is no count",
                remedy="Use a continuous emission (Normal, StudentT) with transform=, or no transform with counts, of "
                "which networks read logarithms. Standardize and ContextScale take variables= where others are real.",
            )
        self.inner = inner
        self.observation = inner.observation
        self.dtype = inner.dtype
        self.n_covariates = inner.n_covariates
        self.exact, self.likelihood, self.missing = inner.exact, inner.likelihood, inner.missing
        self.estimate, self.shares_noise = inner.estimate, inner.shares_noise
        self.n_settled = inner.n_settled

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self.inner.parameters())

    @abstractmethod
    def inner_problem(self, batch: Batch, state: Any) -> tuple[Batch, Any, int]:
        """The inner model's batch and state, and the number of leading steps that it does not see."""


def innermost(model: SequenceModel[Any]) -> SequenceModel[Any]:
    """The model behind all wrappers."""
    while isinstance(model, WrapperModel):
        model = model.inner
    return model


def layers(model: SequenceModel[Any]) -> list[WrapperModel]:
    """The wrappers around the innermost model, from the outermost inwards."""
    found = []
    while isinstance(model, WrapperModel):
        found.append(model)
        model = model.inner
    return found


def map_innermost(model: SequenceModel[Any], state: Any, function: Callable[[Any], Any]) -> Any:
    """A state of ``model`` with ``function`` applied to the part that belongs to the innermost model."""
    if isinstance(model, WrapperModel) and model.nested_state:
        return state._replace(inner=map_innermost(model.inner, state.inner, function))
    if isinstance(model, WrapperModel):
        return map_innermost(model.inner, state, function)
    return function(state)


def unwrap(model: SequenceModel[Any], batch: Batch, state: Any) -> tuple[SequenceModel[Any], Batch, Any, int]:
    """The innermost model with its own batch and state, and the number of leading steps that it does not see."""
    first = 0
    while isinstance(model, WrapperModel):
        batch, state, skipped = model.inner_problem(batch, state)
        model, first = model.inner, first + skipped
    return model, batch, state, first


class ElementwiseModel(WrapperModel):
    r"""x_t = g(z_t) coordinate by coordinate, z ~ the inner model.

    log p(x_t | x_<t) = log p(z_t | z_<t) + sum_i log |dz_ti / dx_ti|, over the scored coordinates.

    Parameters
    ----------
    inner : SequenceModel
        The law of z.
    bijection : Bijection
        The map g. Where it cannot reach every z the mass outside is renormalised at each step.
    n_settled : int
        Number of constants of the map that were estimated from the data.
    """

    def __init__(self, inner: SequenceModel[Any], bijection: Bijection, n_settled: int = 0) -> None:
        super().__init__(inner, bijection.changes(inner.observation.n_variables))
        self.starts_itself = inner.starts_itself
        self.bijection = bijection
        self.n_settled += n_settled
        fill = bijection.forward(torch.tensor(inner.observation.fills, dtype=self.dtype))
        self.observation = replace(inner.observation, fill=tuple(fill.tolist()))

    def initial_state(self, params: Params, n: int) -> Any:
        return self.inner.initial_state(params, n)

    def predict_next(self, params: Params, state: Any, u: Tensor | None = None) -> Distribution:
        return push(self.inner.predict_next(params, state, u), self.bijection)

    def update(self, params: Params, state: Any, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Any:
        return self.inner.update(params, state, self._inverse(x, seen), seen, u)

    def scores_next(self, state: Any) -> Tensor | None:
        return self.inner.scores_next(state)

    def _inverse(self, x: Tensor, seen: Tensor) -> Tensor:
        filled = self.inner.observation.like(x)
        inside = seen & (x > self.bijection.x_low) & (x < self.bijection.x_high)
        safe = torch.where(inside, x, self.bijection.forward(filled))
        return torch.where(seen, self.bijection.inverse(safe), filled)

    def _inner_batch(self, batch: Batch) -> Batch:
        return batch._replace(x=self._inverse(batch.x, batch.seen))

    def inner_problem(self, batch: Batch, state: Any) -> tuple[Batch, Any, int]:
        return self._inner_batch(batch), state, 0

    def _scan(self, params: Params, batch: Batch, state: Any) -> Scan[Any]:
        return self.inner._scan(params, self._inner_batch(batch), state)

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: Any) -> Any:
        return self.inner._states_at(params, self._inner_batch(batch), steps, state)

    def _log_prob_steps(self, params: Params, batch: Batch, state: Any) -> Steps[Any]:
        inner_batch = self._inner_batch(batch)
        steps = self.inner._log_prob_steps(params, inner_batch, state)
        inside = (batch.x > self.bijection.x_low) & (batch.x < self.bijection.x_high)
        filled = self.bijection.forward(self.inner.observation.like(batch.x))
        slope = self.bijection.log_slope(torch.where(inside, batch.x, filled))
        slope = torch.where(inside, slope, torch.full_like(slope, -torch.inf))
        if not self.bijection.onto_reals:
            law, _ = self.inner._predictive(params, inner_batch, state)
            slope = slope - self._log_range(law)
        jacobian = torch.where(steps.scored, slope, torch.zeros_like(slope)).sum(-1)
        return steps._replace(values=steps.values + jacobian)

    def _log_range(self, law: Distribution) -> Tensor:
        """log P(z inside the range of the map) for each variable, (*B, k)."""
        push(law, self.bijection)  # raises where coordinates that depend on each other would need a joint range
        return torch.log(self._range_probability(law))

    def _range_probability(self, law: Distribution) -> Tensor:
        """P(z inside the range of the map) for each variable, (*B, k)."""
        like = torch.zeros(*law.batch_shape, law.n_variables, dtype=self.dtype)
        high = law.cdf(torch.full_like(like, self.bijection.z_high)) if math.isfinite(self.bijection.z_high) else 1.0
        low = law.cdf(torch.full_like(like, self.bijection.z_low)) if math.isfinite(self.bijection.z_low) else 0.0
        return torch.as_tensor(high - low)

    def _predictive(self, params: Params, batch: Batch, state: Any) -> tuple[Distribution, Tensor]:
        law, scored = self.inner._predictive(params, self._inner_batch(batch), state)
        return push(law, self.bijection), scored

    def _reaches(self, marginals: Distribution) -> bool:
        """Whether renormalising at each step changes no path of a law (*B, h), but for a probability below rounding."""
        if self.bijection.onto_reals:
            return True
        outside = 1.0 - self._range_probability(marginals)
        return bool((outside.sum((-2, -1)) <= _NEGLIGIBLE).all())

    def _sample(
        self,
        params: Params,
        state: Any,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        if temper is not None or not self.bijection.onto_reals:
            return super()._sample(params, state, length, generator, u, temper)
        z, final = self.inner._sample(params, state, length, generator, u, None)
        return self.bijection.forward(z), final

    def _forecast_marginals(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        inner = self.inner._forecast_marginals(params, state, u, horizon)
        if inner is None or not self._reaches(inner):
            return None
        return push(inner, self.bijection)

    def _forecast_mean(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Tensor | None:
        if not isinstance(self.bijection, Affine):
            return None  # a map that bends does not send means to means
        means = self.inner._forecast_mean(params, state, u, horizon)
        return None if means is None else self.bijection.forward(means)

    def _forecast_joint(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        inner = self.inner._forecast_joint(params, state, u, horizon)
        if inner is None or not self._reaches(single_steps(inner, self.observation.n_variables)):
            return None
        bijection = self.bijection
        if isinstance(bijection, Affine):
            bijection = Affine(*(t.repeat(horizon) if t.ndim else t for t in (bijection.loc, bijection.scale)))
        return push(inner, bijection if bijection.onto_reals else Extended(bijection))


class DifferenceState(NamedTuple, Generic[S]):
    """inner : state of the model of the differences; recent : (*draw, n, lag, k) last values, oldest first;
    steps : (*draw, n) values seen so far.
    """

    inner: S
    recent: Tensor
    steps: Tensor


class DifferencedModel(WrapperModel):
    r"""x_t = x_{t-lag} + z_t, z ~ the inner model; the first ``lag`` values are conditioned on and not scored.

    Interior missing values raise, since the inner law need not be Gaussian; ARMA models difference inside their state
    space and have no such limit.
    """

    nested_state = True

    def __init__(self, inner: SequenceModel[Any], lag: int = 1) -> None:
        super().__init__(inner)
        self.lag = lag

    def initial_state(self, params: Params, n: int) -> DifferenceState[Any]:
        draw = self._draw(params)
        k = self.observation.n_variables
        recent = torch.zeros(*draw, n, self.lag, k, dtype=self.dtype)
        count = torch.zeros(*draw, n, dtype=torch.long)
        return DifferenceState(self.inner.initial_state(params, n), recent, count)

    def scores_next(self, state: DifferenceState[Any]) -> Tensor | None:
        count = state.steps.reshape(-1, state.steps.shape[-1])[0] if state.steps.ndim > 1 else state.steps
        started = (count >= self.lag).unsqueeze(-1).expand(-1, self.observation.n_variables)
        inner = self.inner.scores_next(state.inner)
        return started if inner is None else started & inner

    def predict_next(self, params: Params, state: DifferenceState[Any], u: Tensor | None = None) -> Distribution:
        law = self.inner.predict_next(params, state.inner, u)
        return push(law, Affine(state.recent[..., 0, :], torch.ones((), dtype=self.dtype)))

    def update(
        self, params: Params, state: DifferenceState[Any], x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> DifferenceState[Any]:
        if not bool(seen.all()):
            raise gap_error(self.lag)
        draw = len(self._draw(params))
        x = x.expand(state.recent.shape[:-2] + x.shape[-1:])
        after = self.inner.update(params, state.inner, x - state.recent[..., 0, :], seen, u)
        started = state.steps >= self.lag

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(started.reshape(*started.shape, *(1,) * (new.ndim - draw - 1)), new, old)

        inner = map_state(choose, after, state.inner)
        recent = torch.cat([state.recent[..., 1:, :], x.unsqueeze(-2)], -2)
        return DifferenceState(inner, recent, state.steps + 1)

    def _windows(self, batch: Batch, state: DifferenceState[Any]) -> tuple[Batch, Tensor, int]:
        """The batch of differences from the first defined one on, the values with their past, and that first step."""
        if not bool((batch.seen.all(-1) | ~batch.real).all()):
            raise gap_error(self.lag)
        past = state.recent.reshape(-1, *state.recent.shape[-3:])[0]
        values = torch.cat([past.to(batch.x.dtype), batch.x], 1)
        first = min(batch.t, max(0, self.lag - int(state.steps.flatten()[0])))
        z = (values[:, self.lag :] - values[:, : -self.lag])[:, first:]
        u = None if batch.u is None else batch.u[:, first:]
        lengths = (batch.lengths - first).clamp_min(0)
        seen = batch.seen[:, first:]
        return Batch(self.inner.observation.filled(z, seen), seen, lengths, u), values, first

    def inner_problem(self, batch: Batch, state: DifferenceState[Any]) -> tuple[Batch, Any, int]:
        if not bool((state.steps.clamp_max(self.lag) == state.steps.flatten()[0].clamp_max(self.lag)).all()):
            raise DataError(
                got=f"histories of different lengths, some shorter than lag={self.lag}",
                expected="at least as many steps as the lag in every history",
                remedy="Lengthen the short histories, or ask for one sequence at a time.",
            )
        inner_batch, _, first = self._windows(batch, state)
        return inner_batch, state.inner, first

    def _together(self, state: DifferenceState[Any]) -> bool:
        """Whether all sequences have the same number of past values, so that they can run as one batch."""
        recent = state.recent.reshape(-1, *state.recent.shape[-3:])
        return bool((state.steps == state.steps.flatten()[0]).all()) and bool((recent == recent[:1]).all())

    def _scan(self, params: Params, batch: Batch, state: DifferenceState[Any]) -> Scan[Any]:
        if not self._together(state):
            return super()._scan(params, batch, state)
        d = len(self._draw(params))
        inner_batch, values, first = self._windows(batch, state)
        inner = self.inner._scan(params, inner_batch, state.inner)

        if first:

            def lead_in(start: Tensor, leaves: Tensor) -> Tensor:
                shape = (*leaves.shape[: d + 1], first, *leaves.shape[d + 2 :])
                return torch.cat([start.unsqueeze(d + 1).expand(shape), leaves], d + 1)

            states = map_state(lead_in, state.inner, inner.states)
        else:
            states = inner.states
        draw = self._draw(params)
        windows = values.unfold(1, self.lag, 1)[:, : batch.t].movedim(-1, 2)
        recent = windows.expand(*draw, *windows.shape)
        steps = torch.arange(batch.t)
        count = (state.steps.unsqueeze(-1) + steps).expand(*draw, batch.n, batch.t)
        return Scan(DifferenceState(states, recent, count), self._final(batch, state, values, inner.final))

    def _final(self, batch: Batch, state: DifferenceState[Any], values: Tensor, inner: Any) -> DifferenceState[Any]:
        index = batch.lengths.unsqueeze(-1) + torch.arange(self.lag)
        recent = values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return DifferenceState(inner, recent.expand(state.recent.shape), state.steps + batch.lengths)

    def _log_prob_steps(self, params: Params, batch: Batch, state: DifferenceState[Any]) -> Steps[Any]:
        if not self._together(state):
            return super()._log_prob_steps(params, batch, state)
        inner_batch, values, first = self._windows(batch, state)
        steps = self.inner._log_prob_steps(params, inner_batch, state.inner)
        log_prob = torch.nn.functional.pad(steps.values, (first, 0))
        scored = torch.nn.functional.pad(steps.scored, (0, 0, first, 0))
        error = None if steps.error is None else torch.nn.functional.pad(steps.error, (first, 0))
        return Steps(log_prob, scored, error, self._final(batch, state, values, steps.final))

    def _forecast_marginals(
        self, params: Params, state: DifferenceState[Any], u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if horizon > self.lag:
            # Sums of dependent differences: the marginals of the inner law do not determine them.
            joint = self._forecast_joint(params, state, u, horizon)
            return None if joint is None else single_steps(joint, self.observation.n_variables)
        inner = self.inner._forecast_marginals(params, state.inner, u, horizon)
        if inner is None:
            return None
        return push(inner, Affine(state.recent[..., :horizon, :], torch.ones((), dtype=self.dtype)))

    def _forecast_joint(
        self, params: Params, state: DifferenceState[Any], u: Tensor | None, horizon: int
    ) -> Distribution | None:
        inner = self.inner._forecast_joint(params, state.inner, u, horizon)
        if inner is None or not is_normal(inner):
            return None
        step = torch.arange(horizon)
        gap = step.unsqueeze(-1) - step
        sums = ((gap >= 0) & (gap % self.lag == 0)).to(inner.dtype)
        k = self.observation.n_variables
        start = state.recent[..., step % self.lag, :].flatten(-2).to(inner.dtype)
        return linear_image(inner, torch.kron(sums, torch.eye(k, dtype=inner.dtype)), start)


def gap_error(lag: int) -> DataError:
    """What a missing value under a difference raises."""
    return DataError(
        got=f"a missing value under Difference(lag={lag})",
        expected="no missing values, because a difference over a gap is not defined for a general model",
        remedy="Use ARMA(order=(p, d, q)), which differences inside its state space, or model the levels: "
        f"a network without Difference, with lags=({lag},), reads the value before and is told what is missing.",
    )
