"""Hidden semi-Markov models: states with explicit durations."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.durations import Duration, DurationTables, log, log_sum
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.distributions.tables import component_log_prob
from probseq.errors import IncompatibleError, ParameterError
from probseq.kernels import durations
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.chain_problem import table_with_known_states
from probseq.models.duration_fit import DurationFit
from probseq.models.duration_likelihood import duration_log_prob_steps, long_run
from probseq.models.duration_queries import DurationQueries
from probseq.models.hmm import needs_gradient
from probseq.models.transitions import Transitions, as_transitions

__all__ = ["ElapsedBelief", "HiddenSemiMarkovModel"]


class ElapsedBelief(NamedTuple):
    """log_probs : (*draw, n, s, w), log p(z_t, elapsed duration | x_<t) of the coming step; w gathers all from w."""

    log_probs: Tensor


class HiddenSemiMarkovModel(DurationFit, DurationQueries, SequenceModel[ElapsedBelief]):
    r"""A chain of segments: state j for d ~ p_j steps, then another state k with probability A_jk, A_jj = 0.

    p(x, z) = p(segments) prod_t p(x_t | z_t). The likelihood is exact, by the forward recursion over state and elapsed
    duration: a state that has lasted d steps is left after them with probability h_j(d) = p_j(d) / P_j(duration >= d).
    Time O(T s (s + w)) with w = ``duration.width``.

    Censoring. Right: the last segment is cut by the end of the data, it counts with P_j(duration >= d). Left: see
    ``left``.

    Parameters
    ----------
    n_states : int
        At least 2.
    emission : Emission
        What a state says about one observed event.
    observation : Observation
    duration : Duration
    left : {"start", "censored", "stationary"}
        "start": a segment begins with the data; its state has the law ``initial`` (s,). "censored": the first state has
        the law ``initial`` too, but was entered before the data: its elapsed duration d has the law
        P_j(duration >= d) / E_j[duration]. "stationary": the process has been running for ever, so that the first state
        has the share of time of its state as its law too, and there is no parameter ``initial``.
    transitions : Transitions, (s, s) bool or None
        Which transitions from one state to another are possible or known; None is all. The diagonal is always zero, and
        every state must lead somewhere.

    References
    ----------
    Guédon (2003), Estimating hidden semi-Markov chains from discrete sequences; Yu (2010), Hidden semi-Markov models.
    """

    def __init__(
        self,
        n_states: int,
        emission: Emission,
        observation: Observation,
        duration: Duration,
        left: str = "start",
        transitions: Any = None,
    ) -> None:
        remedy = "A state is always followed by another one: try 2, or IID for one state for ever."
        self.n_states = whole_number("n_states", n_states, 2, remedy)
        one_of("left", left, ("start", "censored", "stationary"))
        self.emission, self.observation = emission, observation
        self.duration, self.left = duration, left
        self.transitions = _without_stays(as_transitions(transitions), self.n_states)

    @property
    def n_cells(self) -> int:
        """Pairs of state and elapsed duration: the work of a step."""
        return self.n_states * self.duration.width

    def parameters(self) -> dict[str, ParamSpec]:
        s = self.n_states
        specs = {}
        if self.left != "stationary":
            specs["initial"] = ParamSpec((s,), Simplex(), ("state",))
        specs |= self.transitions.parameters(s)
        return {**specs, **self.duration.parameters(s), **self.emission.parameters(self.observation, (s,))}

    # the step loop ------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> ElapsedBelief:
        belief = self._first_belief(params, self.duration.tables(params)).unsqueeze(-3)
        return ElapsedBelief(belief.expand(*belief.shape[:-3], n, *belief.shape[-2:]))

    def predict_next(self, params: Params, state: ElapsedBelief, u: Tensor | None = None) -> Distribution:
        weights = torch.log_softmax(log_sum(state.log_probs), -1)
        return mixture(weights, self._components(params)[..., None, :])

    def update(
        self, params: Params, state: ElapsedBelief, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> ElapsedBelief:
        each = self._components(params)[..., None, :].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
        joint = state.log_probs + each.unsqueeze(-1)
        total = log_sum(joint.flatten(-2))[..., None, None]
        # An observation that no state can emit leaves the belief as if it were unseen.
        possible = total > -torch.inf
        belief = torch.where(possible, joint - torch.where(possible, total, torch.zeros_like(total)), state.log_probs)
        return ElapsedBelief(self._move(params, self.duration.tables(params), belief))

    def _move(self, params: Params, tables: DurationTables, belief: Tensor) -> Tensor:
        """log p(z_t+1, elapsed duration | ...) from that of step t."""
        leaving = log_sum(belief + tables.leave.unsqueeze(-3))
        entered = log_sum(leaving.unsqueeze(-2) + log(params["transition"]).mT.unsqueeze(-3)).unsqueeze(-1)
        kept = belief + tables.stay.unsqueeze(-3)
        longer = torch.cat([entered, kept[..., :-1]], -1)
        last = log_sum(torch.stack([longer[..., -1], kept[..., -1]], -1)).unsqueeze(-1)
        return torch.cat([longer[..., :-1], last], -1)

    # fast forms ---------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: ElapsedBelief) -> Scan[ElapsedBelief]:
        if needs_gradient(params, state.log_probs):
            return super()._scan(params, batch, state)
        beliefs, after = durations.trajectory(self._problem(params, batch, state))
        before = ElapsedBelief(self._as_drawn(params, torch.from_numpy(beliefs)))
        return Scan(before, ElapsedBelief(self._as_drawn(params, torch.from_numpy(after))))

    def _predictive(self, params: Params, batch: Batch, state: ElapsedBelief) -> tuple[Distribution, Tensor]:
        if needs_gradient(params, state.log_probs):
            return super()._predictive(params, batch, state)
        # Without the elapsed durations of every step, which only the next step needs.
        predicted = torch.from_numpy(durations.filter_states(self._problem(params, batch, state)).predicted)
        outside = (~batch.real).unsqueeze(-1).to(predicted.dtype)
        weights = self._as_drawn(params, predicted + outside / self.n_states)
        return mixture(torch.log_softmax(log(weights), -1), self._components(params)[..., None, None, :]), batch.seen

    def _log_prob_steps(self, params: Params, batch: Batch, state: ElapsedBelief) -> Steps[ElapsedBelief]:
        if needs_gradient(params, state.log_probs):
            parts = self._parts(params, batch, state)
            steps, after = duration_log_prob_steps(*parts, batch.lengths)
        else:
            result = durations.filter_states(self._problem(params, batch, state), keep=False)
            steps, after = torch.from_numpy(result.log_prob_steps), torch.from_numpy(result.belief)
        # Where nothing is seen the sum of probabilities is one up to rounding only.
        told = batch.seen.any(-1) if batch.states is None else batch.seen.any(-1) | (batch.states >= 0)
        values = torch.where(told, steps, torch.zeros_like(steps))
        return Steps(self._as_drawn(params, values), batch.seen, None, ElapsedBelief(self._as_drawn(params, after)))

    def _forecast_marginals(self, params: Params, state: ElapsedBelief, u: Tensor | None, horizon: int) -> Distribution:
        tables = self.duration.tables(params)
        belief, weights = state.log_probs, []
        for _ in range(horizon):
            weights.append(log_sum(belief))
            belief = self._move(params, tables, belief)
        shares = torch.log_softmax(torch.stack(weights, -2), -1)
        return mixture(shares, self._components(params)[..., None, None, :])

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.em_start(batch, 1, "kmeans", generator).items()}

    def _sample(
        self, params: Params, state: ElapsedBelief, length: int, generator: Any, u: Tensor | None, temper: Any
    ) -> tuple[Tensor, ElapsedBelief]:
        if temper is not None or length == 0:
            return super()._sample(params, state, length, generator, u, temper)
        x, _, final = self.simulate(params, state, length, generator)
        return x, final

    def simulate(
        self,
        params: Params,
        state: ElapsedBelief,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, ElapsedBelief]:
        """Draw states and observations onwards from a state.

        Returns
        -------
        x : (*draw, n, length, k)
        states : (*draw, n, length) int64
        final : the state after x, a function of x only
        """
        with torch.no_grad():
            belief, trans, leave, stay = self._chain_parts(params, state)
            uniform = torch.rand(*belief.shape[:2], length, generator=generator, dtype=self.dtype)
            arrays = (a.numpy() for a in (belief, trans, leave, uniform))
            path = torch.from_numpy(durations.simulate_states(*arrays))
            states = self._as_drawn(params, path)
            law = self._components(params)
            drawn = len(self._draw(params)) > 0
            row = torch.arange(path.shape[0]).reshape(-1, 1, 1)
            chosen = law.map_batch(lambda tensor, _: tensor[row, states] if drawn else tensor[states])
            x = chosen.sample((), generator=generator)
            table = self._per_draw(params, law[..., None, None, :].log_prob(x.unsqueeze(-2)))
            lengths = torch.full((belief.shape[1],), length)
            problem = (a.numpy() for a in (belief, trans, leave, stay, table, lengths))
            after = durations.filter_states(durations.Renewals(*problem), keep=False).belief
            return x, states, ElapsedBelief(self._as_drawn(params, torch.from_numpy(after)))

    # between torch and the kernels --------------------------------------------------------------------------------

    def _first_belief(self, params: Params, tables: DurationTables) -> Tensor:
        """log p(z_1, elapsed duration), (*draw, s, w)."""
        if self.left == "start":
            first = log(params["initial"]).unsqueeze(-1)
            return torch.nn.functional.pad(first, (0, self.duration.width - 1), value=-torch.inf)
        share = long_run(params["transition"], tables) if self.left == "stationary" else log(params["initial"])
        return share.unsqueeze(-1) + tables.residual()[1]

    def _components(self, params: Params) -> Distribution:
        """The laws of the states, batch shape (*draw, s)."""
        return self.emission.distribution(params, (self.n_states,))

    def _chain_parts(self, params: Params, state: ElapsedBelief | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log belief, transitions, hazards and their complements, each with a draw dimension."""
        tables = self.duration.tables(params)
        belief = self._first_belief(params, tables).unsqueeze(-3) if state is None else state.log_probs
        trans = self._per_draw(params, log(params["transition"]))
        leave, stay = self._per_draw(params, tables.leave), self._per_draw(params, tables.stay)
        return self._per_draw(params, belief), trans, leave, stay

    def _parts(
        self, params: Params, batch: Batch, state: ElapsedBelief | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        table = table_with_known_states(component_log_prob(self._components(params), batch.x, batch.seen), batch)
        return *self._chain_parts(params, state), self._per_draw(params, table)

    def _problem(self, params: Params, batch: Batch, state: ElapsedBelief | None) -> durations.Renewals:
        with torch.no_grad():
            parts = [*self._parts(params, batch, state), batch.lengths]
            return durations.Renewals(*(part.numpy() for part in parts))

    def _per_draw(self, params: Params, value: Tensor) -> Tensor:
        return value if self._draw(params) else value.unsqueeze(0)

    def _as_drawn(self, params: Params, value: Tensor) -> Tensor:
        return value if self._draw(params) else value.squeeze(0)


def _without_stays(given: Transitions, n_states: int) -> Transitions:
    """The same structure with a zero diagonal."""
    if given.varying:
        raise IncompatibleError(
            got=f"{given!r} for explicit durations",
            expected="transitions that no covariate drives",
            remedy="Use Transitions(mask=), or HMM for transitions that depend on covariates.",
        )
    support = given.support(n_states)
    support = torch.ones(n_states, n_states, dtype=torch.bool) if support is None else support
    support = support & ~torch.eye(n_states, dtype=torch.bool)
    if not bool(support.any(-1).all()):
        state = int((~support.any(-1)).nonzero()[0, 0])
        raise ParameterError(
            got=f"transitions that lead from state {state} nowhere but to itself",
            expected="another state after each state, when its duration is over",
            remedy="Allow a transition, or use HMM, where a state may last for ever.",
        )
    return Transitions(mask=support, fixed=given.fixed)
