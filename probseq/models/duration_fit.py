"""Expectation maximisation of hidden semi-Markov models."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.durations import Duration, DurationTables
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.distributions.tables import component_log_prob
from probseq.kernels import durations
from probseq.models.base import Batch
from probseq.models.chain_starts import start_params
from probseq.models.chain_steps import update_start
from probseq.models.duration_likelihood import long_run
from probseq.models.duration_steps import update_durations, update_jumps, weighted
from probseq.models.latent import EMStep, ExpectationMaximization
from probseq.models.transitions import Transitions

__all__ = ["DurationFit"]

_EM_BYTES = 400_000_000
_EMPTY_STEPS = 0.5


class DurationFit(ExpectationMaximization):
    """The EM steps of a model with states, transitions between different ones, durations and emissions."""

    n_states: int
    emission: Emission
    observation: Observation
    duration: Duration
    left: str
    transitions: Transitions

    def em_start(self, batch: Batch, n_starts: int, init: str, generator: torch.Generator) -> dict[str, Tensor]:
        params = start_params(self.emission, self.observation, self.n_states, batch, n_starts, init, generator)
        dwell = 1.0 / (1.0 - params["transition"].diagonal(dim1=-2, dim2=-1)).clamp_min(1e-6)
        if init == "kmeans":
            dwell[0] = self._run_lengths({name: value[:1] for name, value in params.items()}, batch)
        params |= self.transitions.from_matrix(params["transition"])
        params.update(self.duration.with_mean(dwell))
        return {name: params[name] for name in self.parameters()}

    def em_step(self, params: Params, batch: Batch, weights: Tensor | None = None) -> EMStep:
        # Draws in groups, so that the posterior tables of all starts need not fit at once.
        n_draws = params["transition"].shape[0]
        size = max(1, _EM_BYTES // (8 * 4 * max(1, batch.n * batch.t * self.n_states)))
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
            found = []
            for j in range(self.n_states):
                if used[j] < _EMPTY_STEPS:
                    found.append(f"state {j} is empty: {float(used[j]):.2g} of {total} steps are expected in it")
                elif collapsed[j]:
                    found.append(f"the variance of state {j} ({emission}) collapsed to its floor, {floor}")
            problems.append(tuple(found))
        return problems

    def _em_step(self, params: Params, batch: Batch, weights: Tensor | None) -> EMStep:
        gain = None if weights is None else weights.to(torch.float64).reshape(1, -1, 1).numpy()
        sums = durations.expectations(self._problem(params, batch, None), gain=gain)
        posterior = torch.from_numpy(sums.posterior)
        new = self.emission.m_step(self.observation, batch.x, batch.seen, posterior, params)
        first, counts, leaves, stays = (torch.from_numpy(a) for a in (sums.start, sums.counts, sums.leaves, sums.stays))
        new.update(self._chain_step(params, first.sum(1), counts.sum(1), leaves, stays))
        log_prob = torch.from_numpy(sums.log_prob)
        total = log_prob.sum(-1) if weights is None else log_prob @ weights.to(log_prob.dtype)
        return EMStep(total, {name: new[name] for name in params}, posterior.sum((1, 2)))

    def _chain_step(
        self, params: Params, first: Tensor, counts: Tensor, leaves: Tensor, stays: Tensor
    ) -> dict[str, Tensor]:
        """Transitions, then durations: where the start depends on them, each given the other."""
        new: dict[str, Tensor] = {}
        share = first.sum(-1)
        if self.left != "stationary":
            new["initial"] = update_start(share, params["initial"])
            new |= self.transitions.m_step(counts, share, params, False)
        else:
            tables = self.duration.tables(params)

            def share_given(transition: Tensor) -> Tensor:
                return weighted(share, long_run(transition, tables)).sum(-1)

            closed = self.transitions.m_step(counts, share, params, False)["transition"]
            constraint = self.transitions.parameters(self.n_states)["transition"].constraint
            shape = tuple(counts.shape[-2:])
            free = constraint.free(shape) if isinstance(constraint, Simplex) else torch.ones(shape, dtype=torch.bool)
            new["transition"] = update_jumps(counts, params["transition"], closed, free, share_given)
        fixed = {**params, **new}

        def start(given: Params) -> Tensor:
            return weighted(first, self._first_belief({**fixed, **given}, self.duration.tables(given))).sum(-1)

        if self.left == "start":
            return new | update_durations(self.duration, leaves, stays, params, None)
        return new | update_durations(self.duration, leaves, stays, params, start, coupled=self.left == "stationary")

    def _run_lengths(self, params: Params, batch: Batch) -> Tensor:
        """Mean run of each state if every step had its most probable state by the emissions alone, (s,)."""
        with torch.no_grad():
            best = component_log_prob(self._components(params), batch.x, batch.seen)[0].argmax(-1)
        begins = torch.ones_like(best, dtype=torch.bool)
        begins[:, 1:] = best[:, 1:] != best[:, :-1]
        own = torch.nn.functional.one_hot(best, self.n_states) * batch.real.unsqueeze(-1)
        runs = (own * begins.unsqueeze(-1)).sum((0, 1))
        return own.sum((0, 1)).to(torch.float64) / runs.clamp_min(1) + (runs == 0)

    # what the model gives ---------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, ParamSpec]:
        raise TypeError("a mixin of models")

    def _components(self, params: Params) -> Distribution:
        raise TypeError("a mixin of models")

    def _problem(self, params: Params, batch: Batch, state: None) -> durations.Renewals:
        raise TypeError("a mixin of models")

    def _first_belief(self, params: Params, tables: DurationTables) -> Tensor:
        raise TypeError("a mixin of models")
