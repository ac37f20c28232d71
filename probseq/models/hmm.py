"""Hidden Markov models."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.emissions import Emission, Normal, Observation, normal_from_moments
from probseq.distributions.estimation import variance_floor
from probseq.distributions.gaussian import DiagonalNormal
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.distributions.tables import component_log_prob
from probseq.errors import ParameterError
from probseq.kernels import chain
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.chain_likelihood import chain_log_prob_steps, stationary_distribution
from probseq.models.chain_order import arranged
from probseq.models.chain_problem import ChainProblem, DeviceChainProblem, remembered, table_with_known_states
from probseq.models.chain_queries import ChainQueries
from probseq.models.chain_starts import checked_start, start_params
from probseq.models.chain_steps import update_start
from probseq.models.emission_sums import SummedEmission, coded, summed
from probseq.models.latent import EMStep, ExpectationMaximization, StatePaths
from probseq.models.transitions import as_transitions

__all__ = ["Belief", "HiddenMarkovModel"]

_EM_BYTES = 400_000_000
_EMPTY_STEPS = 0.5


class Belief(NamedTuple):
    """probs : (*draw, n, s), p(z_t | x_<t) of the coming step."""

    probs: Tensor


class _LaidOut(NamedTuple):
    """Parameters as the kernels take them; ``normals`` without data, None where the states' laws are others."""

    initial: np.ndarray
    transition: np.ndarray
    normals: chain.LogEmission | None


class HiddenMarkovModel(SequenceModel[Belief], ChainQueries, ExpectationMaximization):
    r"""p(x, z) = pi_{z_1} prod_t A_{z_{t-1}, z_t} p(x_t | z_t), exact likelihood by the forward recursion.

    Parameters
    ----------
    n_states : int
    emission : Emission
        What a state says about one observed event.
    observation : Observation
    start : {"free", "stationary"} or array (s,)
        Whether pi is a parameter ``initial`` (s,), the stationary distribution of A, or known.
    transitions : Transitions, (s, s) bool or None
        Which transitions are possible or known; None is all free.

    References
    ----------
    Rabiner (1989), A tutorial on hidden Markov models; Zucchini and MacDonald (2009), chapters 2 to 5.
    """

    def __init__(
        self,
        n_states: int,
        emission: Emission,
        observation: Observation,
        start: Any = "free",
        transitions: Any = None,
    ) -> None:
        if isinstance(n_states, bool) or not isinstance(n_states, int | np.integer) or n_states < 1:
            raise ParameterError(got=f"n_states={n_states!r}", expected="an integer of at least 1", remedy="Try 2.")
        self.n_states, self.emission, self.observation = int(n_states), emission, observation
        self.start, self.known_start = checked_start(start, self.n_states)
        self.transitions = as_transitions(transitions)
        self.transitions.support(self.n_states)

    def parameters(self) -> dict[str, ParamSpec]:
        s = self.n_states
        specs = {}
        if self.start == "free":
            specs["initial"] = ParamSpec((s,), Simplex(), ("state",))
        specs |= self.transitions.parameters(s, self.n_covariates)
        return {**specs, **self.emission.parameters(self.observation, (s,))}

    @property
    def has_structure(self) -> bool:
        """Whether the chain tells some states from others before any data are seen."""
        free = self.transitions.support(self.n_states) is None and self.transitions.fixed is None
        return self.known_start is not None or not free

    # the step loop ------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> Belief:
        start = self._start(params)
        return Belief(start.unsqueeze(-2).expand(*start.shape[:-1], n, self.n_states))

    def predict_next(self, params: Params, state: Belief, u: Tensor | None = None) -> Distribution:
        return mixture(log_of(state.probs), self._components(params)[..., None, :])

    def update(self, params: Params, state: Belief, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Belief:
        each = self._components(params)[..., None, :].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
        joint = log_of(state.probs) + each
        possible = joint.amax(-1, keepdim=True) > -torch.inf
        # An observation that no state can emit leaves the belief as if it were unseen.
        joint = torch.where(possible, joint, log_of(state.probs))
        return Belief(torch.softmax(joint, -1) @ params["transition"])

    # fast forms ---------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: Belief) -> Scan[Belief]:
        if needs_gradient(params, state.probs):
            return super()._scan(params, batch, state)
        problem = self._chains(params, batch, state)
        result = problem.filter_states()
        before, after = (torch.as_tensor(a) for a in (result.predicted, problem.after(result.last)))
        return Scan(Belief(self._as_drawn(params, before)), Belief(self._as_drawn(params, after)))

    def _log_prob_steps(self, params: Params, batch: Batch, state: Belief) -> Steps[Belief]:
        if not needs_gradient(params, state.probs):
            return self._steps_by_kernel(params, batch, state)
        initial, transition = self._per_draw(params, state.probs), self._per_draw(params, params["transition"])
        table = self._per_draw(params, self._table(params, batch))
        steps, last = chain_log_prob_steps(initial, transition, table, batch.lengths)
        after = torch.where((batch.lengths > 0).unsqueeze(-1), last @ transition.detach(), last)
        return self._as_steps(params, batch, batch.complete, steps, after)

    def _log_prob_fresh(self, params: Params, batch: Batch) -> Steps[Belief]:
        if needs_gradient(params):
            return super()._log_prob_fresh(params, batch)
        return self._steps_by_kernel(params, batch, None)

    def _steps_by_kernel(self, params: Params, batch: Batch, state: Belief | None) -> Steps[Belief]:
        complete = batch.complete
        problem = self._chains(params, batch, state, complete)
        result = problem.filter_states(keep=False)
        steps, after = torch.as_tensor(result.log_prob_steps), torch.as_tensor(problem.after(result.last))
        return self._as_steps(params, batch, complete, steps, after)

    def _as_steps(self, params: Params, batch: Batch, complete: bool, steps: Tensor, after: Tensor) -> Steps[Belief]:
        if not complete:
            # Where nothing is seen the sum of probabilities is one up to rounding only.
            told = batch.seen.any(-1) if batch.states is None else batch.seen.any(-1) | (batch.states >= 0)
            steps = torch.where(told, steps, torch.zeros_like(steps))
        final = Belief(self._as_drawn(params, after))
        return Steps(self._as_drawn(params, steps), batch.seen, None, final)

    def _forecast_marginals(self, params: Params, state: Belief, u: Tensor | None, horizon: int) -> Distribution:
        beliefs = [state.probs]
        for _ in range(horizon - 1):
            beliefs.append(beliefs[-1] @ params["transition"])
        return mixture(log_of(torch.stack(beliefs, -2)), self._components(params)[..., None, None, :])

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.em_start(batch, 1, "kmeans", generator).items()}

    def _sample(
        self, params: Params, state: Belief, length: int, generator: Any, u: Tensor | None, temper: Any
    ) -> tuple[Tensor, Belief]:
        if temper is not None or length == 0:
            return super()._sample(params, state, length, generator, u, temper)
        x, _, final = self.simulate(params, state, length, generator)
        return x, final

    def simulate(
        self,
        params: Params,
        state: Belief,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Belief]:
        """Draw states and observations onwards from a state.

        Returns
        -------
        x : (*draw, n, length, k)
        states : (*draw, n, length) int64
        final : the state after x, a function of x only
        """
        with torch.no_grad():
            start, transition = self._per_draw(params, state.probs), self._per_draw(params, params["transition"])
            uniform = torch.rand(*start.shape[:2], length, generator=generator, dtype=self.dtype)
            path = torch.from_numpy(chain.simulate_states(start.numpy(), transition.numpy(), uniform.numpy()))
            states = self._as_drawn(params, path)
            law = self._components(params)
            drawn = len(self._draw(params)) > 0
            row = torch.arange(path.shape[0]).reshape(-1, 1, 1)
            chosen = law.map_batch(lambda tensor, _: tensor[row, states] if drawn else tensor[states])
            x = chosen.sample((), generator=generator)
            each = law[..., None, None, :].log_prob(x.unsqueeze(-2))
            lengths = np.full(start.shape[1], length)
            table = chain.table_emission(self._per_draw(params, each).numpy())
            last = chain.filter_states(start.numpy(), transition.numpy(), table, lengths, keep=False).last
            return x, states, Belief(self._as_drawn(params, torch.from_numpy(last) @ transition))

    # latent states ------------------------------------------------------------------------------------------------

    def filter_states(self, params: Params, batch: Batch, state: Belief | None = None) -> Tensor:
        result = self._chains(params, batch, state).filter_states()
        return self._as_drawn(params, torch.as_tensor(result.filtered))

    def smooth(self, params: Params, batch: Batch, state: Belief | None = None) -> Tensor:
        return self._as_drawn(params, torch.as_tensor(self._chains(params, batch, state).smooth()))

    def decode(self, params: Params, batch: Batch, state: Belief | None = None, k: int | None = None) -> StatePaths:
        problem = self._chains(params, batch, state)
        paths = problem.decode() if k is None else problem.decode_k(k)
        states, log_prob = (torch.as_tensor(a) for a in paths)
        if k is not None:
            states, log_prob = states.movedim(1, 2), log_prob.movedim(1, 2)
        return StatePaths(self._as_drawn(params, states), self._as_drawn(params, log_prob))

    def sample_states(
        self, params: Params, batch: Batch, n_paths: int, generator: torch.Generator, state: Belief | None = None
    ) -> Tensor:
        problem = self._chains(params, batch, state)
        shape = (problem.initial.shape[0], n_paths, batch.n, batch.t)
        uniform = torch.rand(shape, generator=generator, dtype=self.dtype)
        return self._as_drawn(params, torch.as_tensor(problem.sample_paths(uniform)))

    def stationary_distribution(self, params: Params) -> Tensor:
        return stationary_distribution(params["transition"])

    # EM -----------------------------------------------------------------------------------------------------------

    def em_start(self, batch: Batch, n_starts: int, init: str, generator: torch.Generator) -> dict[str, Tensor]:
        params = start_params(self.emission, self.observation, self.n_states, batch, n_starts, init, generator)
        params |= self.transitions.from_matrix(params["transition"])
        return arranged(self, {name: params[name] for name in self.parameters()}, batch)

    def em_step(self, params: Params, batch: Batch, weights: Tensor | None = None) -> EMStep:
        # Draws in groups, so that the posterior tables of all starts need not fit at once.
        n_draws = self._draw(params)[0]
        size = max(1, _EM_BYTES // (8 * 3 * max(1, batch.n * batch.t * self.n_states)))
        groups = [
            self._em_step({name: value[i : i + size] for name, value in params.items()}, batch, weights)
            for i in range(0, n_draws, size)
        ]
        if len(groups) == 1:
            return groups[0]
        merged = {name: torch.cat([group.params[name] for group in groups]) for name in params}
        return EMStep(torch.cat([g.log_prob for g in groups]), merged, torch.cat([g.occupancy for g in groups]))

    def em_problems(self, params: Params, batch: Batch, occupancy: Tensor) -> list[tuple[str, ...]]:
        flat = self.emission.states_at_floor(self.observation, batch.x, batch.seen, params)
        emission = type(self.emission).__name__
        floor = self.emission.floor_name(self.observation, batch.x, batch.seen)
        total = int(batch.lengths.sum())
        problems = []
        for used, collapsed in zip(occupancy, flat.expand_as(occupancy), strict=True):
            found = [
                f"state {j} is empty: {float(used[j]):.2g} of {total} steps are expected in it"
                for j in range(self.n_states)
                if used[j] < _EMPTY_STEPS
            ]
            found += [
                f"the variance of state {j} ({emission}) collapsed to its floor, {floor}"
                for j in range(self.n_states)
                if collapsed[j] and used[j] >= _EMPTY_STEPS
            ]
            problems.append(tuple(found))
        return problems

    def _em_step(self, params: Params, batch: Batch, weights: Tensor | None) -> EMStep:
        gain = None if weights is None else weights.to(self.dtype).reshape(1, -1, 1).numpy()
        short = self._summed(params, batch)
        if short is not None:
            initial, transition = self._start(params).unsqueeze(-2).numpy(), params["transition"].numpy()
            sums = chain.summed_expectations(initial, transition, short.emission, batch.lengths.numpy(), gain=gain)
            new = short.m_step(torch.from_numpy(sums.sums))
        else:
            sums = chain.expectations(*self._problem(params, batch, None), gain=gain)
            posterior = torch.from_numpy(sums.posterior)
            new = self.emission.m_step(self.observation, batch.x, batch.seen, posterior, params)
        # A state before the first step of an empty sequence says nothing.
        first = torch.from_numpy(sums.start).sum(1)
        counts = torch.from_numpy(sums.counts)
        if self.start == "free":
            new["initial"] = update_start(first, params["initial"])
        new |= self.transitions.m_step(counts, first, params, self.start == "stationary")
        log_prob = torch.from_numpy(sums.log_prob)
        if short is not None and short.base is not None:
            log_prob = log_prob + short.base
        total = log_prob.sum(-1) if weights is None else log_prob @ weights.to(self.dtype)
        return EMStep(total, {name: new[name] for name in params}, counts.sum(-2) + first)

    def _summed(self, params: Params, batch: Batch) -> SummedEmission | None:
        """Emissions whose M-step needs sums over the steps only; None for others."""
        emission, x, seen = self.emission, batch.x, batch.seen
        with torch.no_grad():
            short = None
            if batch.states is None:
                law = self._components(params)
                if isinstance(law, DiagonalNormal) and isinstance(emission, Normal):
                    moments = self._problem(params, batch, None).emission
                    return SummedEmission(moments, None, lambda sums: _normal_step(emission, params, batch, sums.mT))
                short = coded(emission, self.observation, law, params, x, seen)
            if short is None:
                short = summed(emission, lambda: self._table(params, batch), params, x, seen, batch.states is None)
            return short

    # between torch and the kernels --------------------------------------------------------------------------------

    def _start(self, params: Params) -> Tensor:
        if self.start == "free":
            return params["initial"]
        if self.known_start is None:
            return stationary_distribution(params["transition"])
        return self.known_start.expand(*self._draw(params), self.n_states)

    def _components(self, params: Params) -> Distribution:
        """The laws of the states, batch shape (*draw, s)."""
        return self.emission.distribution(params, (self.n_states,))

    def _table(self, params: Params, batch: Batch) -> Tensor:
        """log p(x_t | z_t), (*draw, n, t, s); states that are known to be others have -inf."""
        return table_with_known_states(component_log_prob(self._components(params), batch.x, batch.seen), batch)

    def _chains(
        self, params: Params, batch: Batch, state: Any, complete: bool | None = None
    ) -> ChainProblem | DeviceChainProblem:
        """The chains on the device of the batch."""
        if _on_processor(batch):
            return self._problem(params, batch, state, complete)
        with torch.no_grad():
            return DeviceChainProblem(*self._tensors(params, batch, state), batch.lengths)

    def _tensors(self, params: Params, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Tensor]:
        """First states (D, n or 1, s), transitions and log emissions (D, n, t, s)."""
        start = self._start(params).unsqueeze(-2) if state is None else state.probs
        initial, transition = self._per_draw(params, start), self._per_draw(params, params["transition"])
        return initial, transition, self._per_draw(params, self._table(params, batch))

    def _problem(
        self, params: Params, batch: Batch, state: Belief | None, complete: bool | None = None
    ) -> ChainProblem:
        """The chains as the kernels take them; ``complete`` tells whether every value is seen, None if unknown."""
        laid = remembered(self, params, lambda: self._laid_out(params))
        initial = laid.initial if state is None else self._per_draw(params, state.probs.detach()).numpy()
        if laid.normals is None or batch.states is not None:
            with torch.no_grad():
                emission = chain.table_emission(self._per_draw(params, self._table(params, batch)).numpy())
        else:
            whole = batch.complete if complete is None else complete
            x = batch.x if whole else torch.where(batch.seen, batch.x, torch.nan)
            emission = laid.normals._replace(x=chain.plain(x.numpy()))
        return ChainProblem(initial, laid.transition, emission, batch.lengths.numpy())

    def _laid_out(self, params: Params) -> _LaidOut:
        with torch.no_grad():
            start, transition = (
                self._per_draw(params, each) for each in (self._start(params).unsqueeze(-2), params["transition"])
            )
            law, normals = self._components(params), None
            if isinstance(law, DiagonalNormal):
                mean, scale = self._per_draw(params, law.loc), self._per_draw(params, law.scale.expand_as(law.loc))
                nothing = np.empty((0, 0, mean.shape[-1]))
                normals = chain.normal_emission(nothing, mean.numpy(), (scale**2).numpy())
        return _LaidOut(start.detach().numpy(), transition.detach().numpy(), normals)

    def _per_draw(self, params: Params, value: Tensor) -> Tensor:
        return value if self._draw(params) else value.unsqueeze(0)

    def _as_drawn(self, params: Params, value: Tensor) -> Tensor:
        return value if self._draw(params) else value.squeeze(0)


def log_of(probs: Tensor) -> Tensor:
    """log p with -inf, and no NaN in gradients, at exact zeros."""
    positive = probs > 0
    return torch.where(positive, torch.where(positive, probs, torch.ones_like(probs)).log(), -torch.inf)


def _normal_step(emission: Normal, params: Params, batch: Batch, moments: Tensor) -> dict[str, Tensor]:
    """M-step from the kernel's sums around the previous means, (D, 3, s, k)."""
    total, first, second = moments.unbind(1)
    shift = first / total.clamp_min(1e-8)
    square = (second / total.clamp_min(1e-8) - shift**2).clamp_min(0.0)
    floor = variance_floor(batch.x, batch.seen)
    return normal_from_moments(emission, total, params["mean"] + shift, square, floor, params)


def _on_processor(batch: Batch) -> bool:
    return batch.x.is_cpu


def needs_gradient(params: Params, *others: Tensor) -> bool:
    """Whether derivatives in the parameters, or in others such as the start, are wanted."""
    return torch.is_grad_enabled() and any(v.requires_grad for v in (*params.values(), *others))
