"""Averaging over parameter draws: the draw is a latent variable that never moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.conditioning import given
from probseq.distributions.params import Params, ParamSpec, take_draw
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state

__all__ = ["MarginalState", "Marginalized"]


class MarginalState(NamedTuple):
    """inner : leaves (n, draw, ...), the states of the inner model; log_weights : (n, draw), normalised."""

    inner: Any
    log_weights: Tensor


class Marginalized(SequenceModel[MarginalState]):
    r"""p(x_{1:T}) = sum_d w_d p(x_{1:T} | theta_d).

    A fitted model is this model of its draws; a point estimate is one draw. The weights are those given at the start
    of a sequence; seeing data multiplies them by each draw's predictive density, so that the one-step factors multiply
    to the sum above, and simulation keeps one draw a path.

    Parameters
    ----------
    model : SequenceModel
    params : values of shape (D, *spec.shape)
    log_weights : (D,) or None for equal weights
    adapt : bool
        False keeps the weights of a state as they are at every step: the product of one-step averages that the neural
        literature reports, which is not the law above.
    """

    def __init__(
        self, model: SequenceModel[Any], params: Params, log_weights: Tensor | None = None, adapt: bool = True
    ) -> None:
        self.model, self.params, self.adapt = model, dict(params), adapt
        self.n_draws = model._draw(params)[0]
        even = torch.full((self.n_draws,), -math.log(self.n_draws), dtype=torch.float64)
        self.log_weights = even if log_weights is None else torch.log_softmax(log_weights, -1)
        self.observation = model.observation
        self.dtype = model.dtype
        self.n_covariates = model.n_covariates
        self.exact, self.likelihood, self.starts_itself = model.exact, model.likelihood, model.starts_itself
        self.missing, self.estimate = model.missing, model.estimate

    @property
    def n_parameters(self) -> int:
        """Free parameters of the averaged model."""
        return self.model.n_parameters

    def parameters(self) -> dict[str, ParamSpec]:
        return {}

    def frozen(self) -> Marginalized:
        """The same draws with weights that data do not move."""
        return Marginalized(self.model, self.params, self.log_weights, adapt=False)

    def initial_state(self, params: Params, n: int) -> MarginalState:
        inner = self.model.initial_state(self.params, n)
        return self._pack(inner, self.log_weights.expand(n, self.n_draws))

    def reset_weights(self, state: MarginalState) -> MarginalState:
        """The state with the weights of the start: for histories on which the draws were already fitted."""
        return MarginalState(state.inner, self.log_weights.expand_as(state.log_weights))

    def _pack(self, inner: Any, log_weights: Tensor) -> MarginalState:
        return MarginalState(map_state(lambda leaf: leaf.movedim(0, 1), inner), log_weights)

    def _unpack(self, state: MarginalState) -> Any:
        return map_state(lambda leaf: leaf.movedim(0, 1), state.inner)

    def scores_next(self, state: MarginalState) -> Tensor | None:
        return self.model.scores_next(self._unpack(state))

    def draw_laws(self, state: MarginalState, u: Tensor | None = None) -> Distribution:
        """The predictive law of each draw, batch (n, draw)."""
        return self.model.predict_next(self.params, self._unpack(state), u).movedim(0, 1)

    def predictive_draws(self, batch: Batch, state: MarginalState) -> tuple[Distribution, Tensor, Tensor]:
        """One-step laws of every draw, batch (n, t, draw), their log-weights (n, t, draw), the scored mask."""
        if self.n_draws == 1:
            one, scored = self.model._predictive(self.params, batch, self._unpack(state))
            return one.movedim(0, 2), state.log_weights.unsqueeze(1).expand(batch.n, batch.t, 1), scored
        scan = self._scan({}, batch, state)
        folded = map_state(lambda leaf: leaf.flatten(0, 1), scan.states)
        u = None if batch.u is None else batch.u.flatten(0, 1)
        laws = self.draw_laws(folded, u).reshape(batch.n, batch.t, self.n_draws)
        scores = self.scores_next(folded)
        scored = batch.seen if scores is None else batch.seen & scores.reshape(batch.n, batch.t, -1)
        return laws, scan.states.log_weights, scored

    def predict_next(self, params: Params, state: MarginalState, u: Tensor | None = None) -> Distribution:
        return mixture(state.log_weights.to(self.dtype), self.draw_laws(state, u))

    def update(
        self, params: Params, state: MarginalState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> MarginalState:
        inner = self._unpack(state)
        log_weights = state.log_weights
        if self.adapt and self.n_draws > 1 and not self.exact:
            # What estimates a factor need not be the law of the next step: one step is scored as many are.
            one = torch.ones(len(log_weights), dtype=torch.long)
            inputs = None if u is None else u.unsqueeze(1)
            batch = Batch(x.unsqueeze(1), seen.unsqueeze(1), one, inputs)
            steps = self.model._log_prob_steps(self.params, batch, inner)
            return self._pack(steps.final, self._weights_along(log_weights, steps.values)[1])
        if self.adapt and self.n_draws > 1:
            scores = self.model.scores_next(inner)
            scored = seen if scores is None else seen & scores
            law = self.model.predict_next(self.params, inner, u)
            log_weights = _normalised(log_weights + law.log_prob_seen(x, scored).movedim(0, 1), log_weights)
        return self._pack(self.model.update(self.params, inner, x, seen, u), log_weights)

    def _weights_along(self, start: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights before each step (n, t, D) and after the last (n, D), from the draws' factors (D, n, t)."""
        each = values.movedim(0, -1).to(start.dtype)
        if not self.adapt:
            return start.unsqueeze(1).expand(*each.shape), start
        total = torch.cat([start.unsqueeze(1), start.unsqueeze(1) + torch.cumsum(each, 1)], 1)
        if bool((total == -torch.inf).all(-1).any()):
            return _step_along(start, each)
        total = torch.log_softmax(total, -1)
        return total[:, :-1], total[:, -1]

    def _scan(self, params: Params, batch: Batch, state: MarginalState) -> Scan[MarginalState]:
        scan = self.model._scan(self.params, batch, self._unpack(state))
        states = map_state(lambda leaf: leaf.movedim(0, 2), scan.states)
        if self.n_draws == 1 or not self.adapt:
            along = state.log_weights.unsqueeze(1).expand(batch.n, batch.t, self.n_draws)
            return Scan(MarginalState(states, along), self._pack(scan.final, state.log_weights))
        if self.exact:
            law, scored = self.model._fold(self.params, batch, scan)
            values = law.log_prob_seen(batch.x, scored)
        else:
            values = self.model._log_prob_steps(self.params, batch, self._unpack(state)).values
        along, last = self._weights_along(state.log_weights, values)
        return Scan(MarginalState(states, along), self._pack(scan.final, last))

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: MarginalState) -> MarginalState:
        inner, log_weights = self._unpack(state), state.log_weights
        if self.n_draws == 1 or not self.adapt:
            weights = log_weights.unsqueeze(1).expand(-1, steps.shape[1], -1)
        elif self.exact:
            along, last = self._weights_along(log_weights, self.model._log_prob_steps(self.params, batch, inner).values)
            weights = torch.cat([along, last.unsqueeze(1)], 1)[torch.arange(batch.n).unsqueeze(-1), steps]
        else:
            # Estimates of another run would not belong to the states of this one.
            return super()._states_at(params, batch, steps, state)
        kept = self.model._states_at(self.params, batch, steps, inner)
        return MarginalState(map_state(lambda leaf: leaf.movedim(0, 2), kept), weights)

    def _log_prob_steps(self, params: Params, batch: Batch, state: MarginalState) -> Steps[MarginalState]:
        steps = self.model._log_prob_steps(self.params, batch, self._unpack(state))
        return self._averaged(steps, state.log_weights)

    def _log_prob_fresh(self, params: Params, batch: Batch) -> Steps[MarginalState]:
        steps = self.model._log_prob_fresh(self.params, batch)
        return self._averaged(steps, self.log_weights.expand(batch.n, self.n_draws))

    def _averaged(self, steps: Steps[Any], log_weights: Tensor) -> Steps[MarginalState]:
        """Steps of every draw averaged, with the draws' log-weights (n, D) before the first."""
        if self.n_draws == 1:
            error = None if steps.error is None else steps.error[0]
            return Steps(steps.values[0], steps.scored, error, self._pack(steps.final, log_weights))
        along, last = self._weights_along(log_weights, steps.values)
        values = torch.logsumexp(along + steps.values.movedim(0, -1), -1)
        values = torch.where(steps.scored.any(-1), values, torch.zeros_like(values))
        error = None if steps.error is None else self._error(along, steps.values, steps.error)
        return Steps(values, steps.scored, error, self._pack(steps.final, last))

    def _error(self, along: Tensor, values: Tensor, errors: Tensor) -> Tensor:
        r"""Standard errors of the averaged steps, (n, t), to first order, from those of the draws, (D, n, t).

        Var v_t = sum_d r_dt^2 e_dt^2 + (r_dt - w_dt)^2 sum_{s<t} e_ds^2, with the weights w_t before and r_t after step
        t: the factors of earlier steps have moved the weights. Those of different draws and steps are estimated apart;
        weights that a state brought along count as known. Frozen weights have no second part. Draws that share their
        noise err alike at one step, so that the first part is (sum_d r_dt e_dt)^2, the most that it can be.
        """
        before = along.exp()
        after = _normalised(along + values.movedim(0, -1), along).exp()
        square = errors.to(before.dtype).square().movedim(0, -1)
        own = after * square.sqrt()
        variance = own.sum(-1).square() if self.model.shares_noise else own.square().sum(-1)
        if self.adapt:
            variance = variance + ((after - before).square() * (square.cumsum(1) - square)).sum(-1)
        return variance.sqrt().to(errors.dtype)

    def _forecast_marginals(
        self, params: Params, state: MarginalState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        laws = self.forecast_draws(state, horizon, u)
        if laws is None:
            return None
        n = state.log_weights.shape[0]
        weights = state.log_weights.to(self.dtype).unsqueeze(1).expand(n, horizon, self.n_draws)
        return mixture(weights, laws)

    def forecast_draws(self, state: MarginalState, horizon: int, u: Tensor | None = None) -> Distribution | None:
        """Exact forecast marginals of each draw, batch (n, horizon, draw), or None."""
        laws = self.model._forecast_marginals(self.params, self._unpack(state), u, horizon)
        return None if laws is None else laws.movedim(0, 2)

    def _forecast_mean(self, params: Params, state: MarginalState, u: Tensor | None, horizon: int) -> Tensor | None:
        means = self.model._forecast_mean(self.params, self._unpack(state), u, horizon)
        return None if means is None else torch.einsum("dnhk,nd->nhk", means, state.log_weights.to(means.dtype).exp())

    def _forecast_joint(
        self, params: Params, state: MarginalState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if self.n_draws > 1 and not self.adapt:
            return None  # each step has a draw of its own: a mixture of all combinations
        laws = self.model._forecast_joint(self.params, self._unpack(state), u, horizon)
        return None if laws is None else mixture(state.log_weights.to(self.dtype), laws.movedim(0, 1))

    def _sample(
        self,
        params: Params,
        state: MarginalState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, MarginalState]:
        n, n_draws = state.log_weights.shape
        if not self.adapt:
            return super()._sample(params, state, length, generator, u, temper)
        if n_draws == 1:
            future = None if u is None else u.unsqueeze(0)
            x, last = self.model._sample(self.params, self._unpack(state), length, generator, future, temper)
            return x[0], self._pack(last, state.log_weights)
        choice = torch.multinomial(state.log_weights.exp(), 1, generator=generator).squeeze(-1)
        run = _Together.of(choice, n_draws)
        x, after = self._run(state, run, torch.arange(n), length, generator, u, temper)

        def put(old: Tensor, new: Tensor) -> Tensor:
            old = old.clone()
            old[run.path, choice[run.path]] = new[run.row, run.slot]
            return old

        certain = torch.full_like(state.log_weights, -torch.inf)
        certain[torch.arange(n), choice] = 0.0
        return run.back(x), MarginalState(map_state(put, state.inner, after), certain)

    def sample_paths(
        self,
        state: MarginalState,
        n_paths: int,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
        by_draw: bool = False,
    ) -> Tensor:
        """Many paths onwards from each sequence in one pass over all draws, without their states at the end.

        Parameters
        ----------
        u : (n, length, m) or None
        by_draw : bool
            Whether ``n_paths`` are wanted of every draw rather than in all.

        Returns
        -------
        (n, n_paths, length, k), or (n, draw, n_paths, length, k)
        """
        n, n_draws = state.log_weights.shape
        with torch.no_grad():
            if by_draw:
                choice = torch.arange(n_draws).repeat_interleave(n_paths).expand(n, -1)
            else:
                choice = torch.multinomial(state.log_weights.exp(), n_paths, replacement=True, generator=generator)
            sequence = torch.arange(n).repeat_interleave(choice.shape[1])
            run = _Together.of(choice.flatten(), n_draws)
            x = run.back(self._run(state, run, sequence, length, generator, u, None)[0])
        return x.reshape(n, *((n_draws, n_paths) if by_draw else (n_paths,)), *x.shape[1:])

    def sample_through(
        self,
        state: MarginalState,
        values: Tensor,
        seen: Tensor,
        n_paths: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Paths through known values, with importance weights.

        The open coordinates of a step are drawn given its known ones, and a path is weighed by the density of these:
        weighted, the paths have the law of the future given all known values.

        Parameters
        ----------
        values, seen : (n, length, k)
        u : (n, length, m) or None

        Returns
        -------
        paths (n, n_paths, length, k) and their log-weights (n, n_paths), not normalised
        """
        n, n_draws = state.log_weights.shape
        with torch.no_grad():
            choice = torch.multinomial(state.log_weights.exp(), n_paths, replacement=True, generator=generator)
            sequence = torch.arange(n).repeat_interleave(n_paths)
            run = _Together.of(choice.flatten(), n_draws)
            start = sequence[run.held]
            inner = map_state(lambda leaf: leaf[start, run.draws.unsqueeze(-1)], state.inner)
            params, gain, steps = take_draw(self.params, run.draws), torch.zeros(start.shape, dtype=torch.float64), []
            for t in range(values.shape[1]):
                u_t, known = None if u is None else u[start, t], seen[start, t]
                law = self.model.predict_next(params, inner, u_t)
                there = torch.where(known, values[start, t].to(law.mean.dtype), self.observation.like(law.mean))
                gain = gain + law.log_prob_seen(there, known)
                drawn = given(law, there, known).sample((), generator=generator)
                steps.append(torch.where(known, there, drawn.to(there.dtype)))
                inner = self.model.update(params, inner, steps[-1], torch.ones_like(known), u_t)
            x = run.back(torch.stack(steps, -2)).unflatten(0, (n, n_paths))
        return x, run.back(gain).reshape(n, n_paths)

    def _run(
        self,
        state: MarginalState,
        run: _Together,
        sequence: Tensor,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        """Paths in rows of one draw each, (row, slot, length, k); ``sequence`` says from which one each path starts."""
        start = sequence[run.held]
        inner = map_state(lambda leaf: leaf[start, run.draws.unsqueeze(-1)], state.inner)
        params = take_draw(self.params, run.draws)
        return self.model._sample(params, inner, length, generator, None if u is None else u[start], temper)


class _Together(NamedTuple):
    """Paths that chose the same draw side by side, in rows of equal length; free slots repeat path 0.

    draws : (r,), the draw of each row, several where many paths chose it
    held : (r, s), the path in each slot
    path, row, slot : (p,), where each path is
    """

    draws: Tensor
    held: Tensor
    path: Tensor
    row: Tensor
    slot: Tensor

    @classmethod
    def of(cls, choice: Tensor, n_draws: int) -> _Together:
        """From the draw of each path, (p,)."""
        counts = torch.bincount(choice, minlength=n_draws)
        # No longer than if all draws were chosen alike: a draw that nearly all paths chose takes several rows.
        slots = -(-len(choice) // int((counts > 0).sum()))
        rows = -(-counts // slots)
        path = torch.argsort(choice, stable=True)
        place = torch.arange(len(choice)) - (counts.cumsum(0) - counts)[choice[path]]
        row = (rows.cumsum(0) - rows)[choice[path]] + place // slots
        held = torch.zeros(int(rows.sum()), slots, dtype=torch.long)
        held[row, place % slots] = path
        return cls(torch.repeat_interleave(torch.arange(n_draws), rows), held, path, row, place % slots)

    def back(self, x: Tensor) -> Tensor:
        """Values (r, s, ...) in the order of the paths."""
        values = x.new_empty((len(self.path), *x.shape[2:]))
        values[self.path] = x[self.row, self.slot]
        return values


def _step_along(start: Tensor, each: Tensor) -> tuple[Tensor, Tensor]:
    """Log-weights before each step and after the last, where a step is impossible to all draws: it moves none."""
    now, along = start, []
    for t in range(each.shape[1]):
        along.append(now)
        now = _normalised(now + each[:, t], now)
    return torch.stack(along, 1), now


def _normalised(log_weights: Tensor, otherwise: Tensor) -> Tensor:
    """Log-weights that sum to one; those given where every draw thought the data impossible, as none is preferred."""
    possible = (log_weights > -torch.inf).any(-1, keepdim=True)
    safe = torch.where(possible, log_weights, torch.zeros_like(log_weights))
    return torch.where(possible, torch.log_softmax(safe, -1), otherwise)
