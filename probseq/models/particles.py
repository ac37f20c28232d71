"""Missing inputs imputed by weighted particles, for models that cannot integrate them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.conditioning import given
from probseq.distributions.params import Params
from probseq.errors import UnsupportedError
from probseq.models.base import Batch, SequenceModel, Steps, map_state, where_sequence
from probseq.models.resampling import by_weight, effective_size, of_particles, resample
from probseq.models.wrappers import WrapperModel

__all__ = ["ParticleModel", "ParticleState"]

S = TypeVar("S")


class ParticleState(NamedTuple, Generic[S]):
    """inner : the inner model's state of every particle, leaves (*draw, n, particle, ...)
    log_weights : (*draw, n, particle), normalised
    spread : (*draw, n) bool, whether the particles differ: something was missing
    steps : (*draw, n)
    """

    inner: S
    log_weights: Tensor
    spread: Tensor
    steps: Tensor


class ParticleModel(WrapperModel):
    r"""The inner model whose inputs are complete, with what is missing drawn from its own predictive law.

    p(x_t seen | x_<t seen) is estimated by sum_p w_p p(x_t seen | past of particle p): particles draw the unseen
    coordinates from the law of step t given the seen ones, and are weighed by the density of those (the locally optimal
    proposal, Doucet, Godsill and Andrieu 2000, eq. 13). They are resampled systematically where their effective number
    falls below half. The product of the estimates over the steps is unbiased; its logarithm is too small on average, by
    about half its variance. Without missing values everything is exact, and no particle is run.

    Parameters
    ----------
    inner : SequenceModel
    n_particles : int
    seed : int
        The particles are the same whenever the same values are scored.
    """

    nested_state = True

    def __init__(self, inner: SequenceModel[Any], n_particles: int, seed: int = 0) -> None:
        super().__init__(inner, torch.zeros(inner.observation.n_variables, dtype=torch.bool))
        self.n_particles, self.seed = n_particles, seed
        self.exact, self.missing = False, "particles"
        self.estimate = f"missing inputs by {n_particles} particles"

    def initial_state(self, params: Params, n: int) -> ParticleState[Any]:
        shape = (*self._draw(params), n)
        none = torch.zeros(shape, dtype=torch.long)
        return self._gathered(self.inner.initial_state(params, n), none.bool(), none)

    def _gathered(self, inner: Any, spread: Tensor, steps: Tensor) -> ParticleState[Any]:
        """All particles at the same place, of equal weight."""
        d = steps.ndim

        def all_of(leaf: Tensor) -> Tensor:
            return leaf.unsqueeze(d).expand(*leaf.shape[:d], self.n_particles, *leaf.shape[d:])

        even = -torch.log(torch.tensor(float(self.n_particles), dtype=self.dtype))
        return ParticleState(map_state(all_of, inner), even.expand(*steps.shape, self.n_particles), spread, steps)

    def _one(self, state: ParticleState[Any]) -> Any:
        return map_state(lambda leaf: leaf.select(state.steps.ndim, 0), state.inner)

    def _flat(self, state: ParticleState[Any]) -> Any:
        d = state.steps.ndim
        return map_state(lambda leaf: leaf.flatten(d - 1, d), state.inner)

    def _each(self, x: Tensor, state: ParticleState[Any]) -> Tensor:
        """(n, k) or (*draw, n, k) once for every particle, (*draw, n * particle, k)."""
        draw, n = state.steps.shape[:-1], state.steps.shape[-1]
        every = x.expand(*draw, n, x.shape[-1]).unsqueeze(-2).expand(*draw, n, self.n_particles, x.shape[-1])
        return every.flatten(-3, -2)

    def scores_next(self, state: ParticleState[Any]) -> Tensor | None:
        return self.inner.scores_next(self._one(state))

    def predict_next(self, params: Params, state: ParticleState[Any], u: Tensor | None = None) -> Distribution:
        if not bool(state.spread.any()):
            return self.inner.predict_next(params, self._one(state), u)
        law = self.inner.predict_next(params, self._flat(state), None if u is None else self._each(u, state))
        return mixture(state.log_weights, law.reshape(*state.log_weights.shape))

    def update(
        self, params: Params, state: ParticleState[Any], x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> ParticleState[Any]:
        return self._step(params, state, x, seen, u)[2]

    def _step(
        self, params: Params, state: ParticleState[Any], x: Tensor, seen: Tensor, u: Tensor | None
    ) -> tuple[Tensor, Tensor, ParticleState[Any]]:
        """log p(x_t seen | past) and its Monte Carlo error, both (*draw, n), and the state after the step."""
        shape, steps = state.steps.shape, state.steps + 1
        if bool(seen.all()) and not bool(state.spread.any()):
            one = self._one(state)
            value = self.inner.predict_next(params, one, u).log_prob_seen(x, self._scored(seen, state)).expand(shape)
            return (
                value,
                torch.zeros_like(value),
                self._gathered(self.inner.update(params, one, x, seen, u), state.spread, steps),
            )
        flat, inputs = self._flat(state), None if u is None else self._each(u, state)
        law = self.inner.predict_next(params, flat, inputs)
        each, known = self._each(x.to(self.dtype), state), self._each(seen, state)
        gain = law.log_prob_seen(each, self._each(self._scored(seen, state), state)).unflatten(
            -1, (-1, self.n_particles)
        )
        total = torch.logsumexp(state.log_weights + gain, -1)
        possible = total > -torch.inf
        weights = torch.where(possible.unsqueeze(-1), state.log_weights + gain - total.unsqueeze(-1), state.log_weights)
        off = torch.where(possible.unsqueeze(-1), weights.exp() - state.log_weights.exp(), 0.0)
        spread = state.spread | ~seen.all(-1).expand(shape)
        generator = torch.Generator().manual_seed(self.seed + 7919 * int(steps.max()))
        drawn = given(law, each, known).sample((), generator=generator)
        whole = torch.where(known, each, drawn.to(each.dtype))
        inner = self.inner.update(params, flat, whole, torch.ones_like(known), inputs)
        inner = map_state(lambda leaf: leaf.unflatten(len(shape) - 1, (-1, self.n_particles)), inner)
        return (
            total,
            off.square().sum(-1).sqrt(),
            self._resampled(ParticleState(inner, weights.to(self.dtype), spread, steps), generator),
        )

    def _scored(self, seen: Tensor, state: ParticleState[Any]) -> Tensor:
        counted = self.scores_next(state)
        return seen if counted is None else seen & counted

    def _resampled(self, state: ParticleState[Any], generator: torch.Generator) -> ParticleState[Any]:
        few = effective_size(state.log_weights) < 0.5 * self.n_particles
        if not bool(few.any()):
            return state
        chosen = resample(state.log_weights, generator)
        chosen = torch.where(few.unsqueeze(-1), chosen, torch.arange(self.n_particles))
        even = torch.full_like(state.log_weights, -float(torch.log(torch.tensor(float(self.n_particles)))))
        log_weights = torch.where(few.unsqueeze(-1), even, state.log_weights)
        return state._replace(inner=of_particles(state.inner, chosen), log_weights=log_weights)

    # whole sequences --------------------------------------------------------------------------------------------------

    def inner_problem(self, batch: Batch, state: ParticleState[Any]) -> tuple[Batch, Any, int]:
        if bool(state.spread.any()) or not self._complete(batch):
            raise UnsupportedError(
                got="a look inside a network whose missing inputs are imputed by particles",
                expected="complete data, which leave one state a step",
                remedy='Use missing="mask".',
            )
        return batch, self._one(state), 0

    def _complete(self, batch: Batch) -> bool:
        return bool((batch.seen.all(-1) | ~batch.real).all())

    def _log_prob_steps(self, params: Params, batch: Batch, state: ParticleState[Any]) -> Steps[Any]:
        holes = (~batch.seen.all(-1) & batch.real).any(0)
        first = 0 if bool(state.spread.any()) else int(holes.long().argmax()) if bool(holes.any()) else batch.t
        begun = self.inner._log_prob_steps(params, batch.slice_time(0, first), self._one(state))
        lengths = batch.lengths.clamp_max(first)
        if first:
            state = self._gathered(begun.final, state.spread, state.steps + lengths)
        values, scored = [begun.values], [begun.scored]
        errors = [torch.zeros_like(begun.values)]
        for t in range(first, batch.t):
            running = t < batch.lengths
            seen = batch.seen[:, t] | ~running.unsqueeze(-1)
            u = None if batch.u is None else batch.u[:, t]
            counted = self._scored(batch.seen[:, t], state)
            value, error, after = self._step(params, state, batch.x[:, t], seen, u)
            some = counted.any(-1)
            values.append(torch.where(some, value, 0.0).unsqueeze(-1))
            errors.append(torch.where(some, error, 0.0).unsqueeze(-1))
            scored.append(counted.unsqueeze(1))
            state = map_state(
                lambda new, old, on=running: where_sequence(on, new, old, len(self._draw(params))), after, state
            )
        return Steps(torch.cat(values, -1), torch.cat(scored, 1), torch.cat(errors, -1), state)

    def _predictive(self, params: Params, batch: Batch, state: ParticleState[Any]) -> tuple[Distribution, Tensor]:
        if bool(state.spread.any()) or not self._complete(batch):
            return super()._predictive(params, batch, state)
        return self.inner._predictive(params, batch, self._one(state))

    def _sample(
        self,
        params: Params,
        state: ParticleState[Any],
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        """A path keeps the particle that it starts from."""
        chosen = by_weight(state.log_weights, 1, generator)
        one = map_state(lambda leaf: leaf.squeeze(state.steps.ndim), of_particles(state.inner, chosen))
        x, final = self.inner._sample(params, one, length, generator, u, temper)
        return x, self._gathered(final, torch.zeros_like(state.spread), state.steps + length)
