"""Hidden Markov models whose transitions or emissions depend on covariates or on earlier values."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.emissions import ConditionalEmission, Emission, Observation
from probseq.distributions.params import Params
from probseq.errors import CovariateError, DataError, ParameterError, UnsupportedError
from probseq.kernels import chain, varying
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.chain_likelihood import chain_log_prob_steps, varying_log_prob_steps
from probseq.models.chain_order import arranged
from probseq.models.chain_problem import ChainProblem, table_with_known_states
from probseq.models.chain_starts import start_params
from probseq.models.chain_steps import update_start
from probseq.models.driven_state import DrivenBelief, choose_state, lagged_values, side_by_side
from probseq.models.hmm import HiddenMarkovModel, log_of, needs_gradient
from probseq.models.latent import EMStep, LeftOut

__all__ = ["DrivenBelief", "DrivenHiddenMarkovModel"]


class DrivenHiddenMarkovModel(HiddenMarkovModel):
    r"""p(x, z | u) = pi_{z_1} prod_t A(u_t)_{z_{t-1}, z_t} p(x_t | z_t, u_t, x_{t-1}, ..., x_{t-order}).

    The likelihood is exact. Where the emission uses earlier values, the first ``order`` values are conditioned on, and
    no value may be missing.

    Parameters
    ----------
    n_states, emission, observation, start, transitions
        As in `HiddenMarkovModel`; a stationary start needs transitions that no covariate drives.
    n_covariates : int
    """

    def __init__(
        self,
        n_states: int,
        emission: Emission,
        observation: Observation,
        start: Any = "free",
        transitions: Any = None,
        n_covariates: int = 0,
    ) -> None:
        super().__init__(n_states, emission, observation, start, transitions)
        self.n_covariates = n_covariates
        if self.transitions.varying and self.start == "stationary":
            raise ParameterError(
                got='start="stationary" with CovariateTransitions',
                expected='start="free" or known probabilities: a chain that covariates drive has no stationary law',
                remedy='Use start="free".',
            )

    @property
    def order(self) -> int:
        """How many earlier values the emission uses."""
        return self.emission.order if isinstance(self.emission, ConditionalEmission) else 0

    # the step loop ------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> DrivenBelief:  # type: ignore[override]
        start = self._start(params)
        draw = start.shape[:-1]
        probs = start.unsqueeze(-2).expand(*draw, n, self.n_states)
        fill = torch.full((*draw, n, self.order, self.observation.n_variables), 0.0, dtype=self.dtype)
        return DrivenBelief(probs, torch.zeros(*draw, n, dtype=self.dtype), fill)

    def scores_next(self, state: DrivenBelief) -> Tensor | None:  # type: ignore[override]
        if not self.order:
            return None
        age = state.age.reshape(-1, state.age.shape[-1])[0]
        return (age >= self.order).unsqueeze(-1).expand(-1, self.observation.n_variables)

    def predict_next(self, params: Params, state: DrivenBelief, u: Tensor | None = None) -> Distribution:  # type: ignore[override]
        return mixture(log_of(self._ahead(params, state, u)), self._laws(params, state.past, u))

    def update(  # type: ignore[override]
        self, params: Params, state: DrivenBelief, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> DrivenBelief:
        self._require_complete(bool(seen.all()))
        probs = self._ahead(params, state, u)
        each = self._laws(params, state.past, u).log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
        each = torch.where((state.age >= self.order).unsqueeze(-1), each, torch.zeros_like(each))
        joint = log_of(probs) + each
        possible = joint.amax(-1, keepdim=True) > -torch.inf
        joint = torch.where(possible, joint, log_of(probs))
        past = state.past
        if self.order:
            newest = x.expand(*past.shape[:-2], past.shape[-1]).unsqueeze(-2)
            past = torch.cat([newest, past[..., :-1, :]], -2)
        return DrivenBelief(torch.softmax(joint, -1), state.age + 1.0, past)

    # fast forms ---------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: DrivenBelief) -> Scan[DrivenBelief]:  # type: ignore[override]
        if needs_gradient(params, state.probs):
            return SequenceModel._scan(self, params, batch, state)  # type: ignore[arg-type]
        result = self._chains(params, batch, state).filter_states()
        filtered = self._as_drawn(params, torch.as_tensor(result.filtered))
        before = torch.cat([state.probs.unsqueeze(-2), filtered[..., :-1, :]], -2)[..., : batch.t, :]
        age = state.age.unsqueeze(-1) + torch.arange(batch.t, dtype=self.dtype)
        past = lagged_values(batch, state.past)[..., : batch.t, :, :].expand(*age.shape, *state.past.shape[-2:])
        along = DrivenBelief(before, age, past)
        at = (batch.lengths - 1).clamp_min(0).reshape(-1, 1, 1).expand(*filtered.shape[:-2], 1, self.n_states)
        last = filtered.gather(-2, at).squeeze(-2) if batch.t else state.probs
        return Scan(along, self._final(batch, state, last))

    def _log_prob_steps(self, params: Params, batch: Batch, state: DrivenBelief) -> Steps[DrivenBelief]:  # type: ignore[override]
        if needs_gradient(params, state.probs):
            initial, matrices = self._moves(params, batch, state)
            table = self._per_draw(params, self._emission_table(params, batch, state))
            steps_of = varying_log_prob_steps if self.transitions.varying else chain_log_prob_steps
            steps, last = steps_of(initial, matrices, table, batch.lengths)
        else:
            result = self._chains(params, batch, state).filter_states(keep=False)
            steps, last = torch.as_tensor(result.log_prob_steps), torch.as_tensor(result.last)
        scored = batch.seen & self._old_enough(batch, state).unsqueeze(-1)
        told = scored.any(-1) if batch.states is None else scored.any(-1) | (batch.states >= 0)
        values = self._as_drawn(params, torch.where(told, steps, torch.zeros_like(steps)))
        return Steps(values, scored, None, self._final(batch, state, self._as_drawn(params, last)))

    def _log_prob_fresh(self, params: Params, batch: Batch) -> Steps[DrivenBelief]:  # type: ignore[override]
        return self._log_prob_steps(params, batch, self.initial_state(params, batch.n))

    def _forecast_marginals(  # type: ignore[override]
        self, params: Params, state: DrivenBelief, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if self.order and horizon > 1:
            # The law would be a mixture over all paths of states, not over the states.
            return None
        beliefs = []
        ahead = state
        for h in range(horizon):
            probs = self._ahead(params, ahead, None if u is None else u.select(-2, h))
            ahead = DrivenBelief(probs, ahead.age + 1.0, ahead.past)
            beliefs.append(probs)
        weights = log_of(torch.stack(beliefs, -2))
        if not isinstance(self.emission, ConditionalEmission):
            return mixture(weights, self._components(params)[..., None, None, :])
        laws = self._laws_of(params, self._with_draws(params, u, 2), state.past.unsqueeze(-3))
        return mixture(weights, laws.expand(weights.shape))

    def simulate(  # type: ignore[override]
        self,
        params: Params,
        state: DrivenBelief,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, DrivenBelief]:
        """As `HiddenMarkovModel.simulate`, with covariates u (n, length, m) or (*draw, n, length, m)."""
        values, path = [], []
        z: Tensor | None = None
        with torch.no_grad():
            for t in range(length):
                now = None if u is None else u.select(-2, t)
                probs = self._ahead(params, state, now)
                if z is not None:
                    matrix = self._matrix(params, now, 1).expand(*probs.shape, self.n_states)
                    probs = matrix.gather(-2, z[..., None, None].expand(*z.shape, 1, self.n_states)).squeeze(-2)
                flat = probs.reshape(-1, self.n_states)
                z = torch.multinomial(flat, 1, generator=generator).reshape(probs.shape[:-1])
                laws = self._laws(params, state.past, now).expand((*z.shape, self.n_states))
                chosen = laws.map_batch(partial(choose_state, z=z))
                x = chosen.sample((), generator=generator)
                state = self.update(params, state, x, torch.ones_like(x, dtype=torch.bool), now)
                values.append(x)
                path.append(z)
        return torch.stack(values, -2), torch.stack(path, -1), state

    def _sample(  # type: ignore[override]
        self, params: Params, state: DrivenBelief, length: int, generator: Any, u: Tensor | None, temper: Any
    ) -> tuple[Tensor, DrivenBelief]:
        if length == 0:
            return state.probs.new_zeros(*state.probs.shape[:-1], 0, self.observation.n_variables), state
        return SequenceModel._sample(self, params, state, length, generator, u, temper)  # type: ignore[arg-type]

    # what users ask of states ---------------------------------------------------------------------------------------

    def state_laws(self, params: Params, batch: Batch | None = None) -> Distribution:
        if not isinstance(self.emission, ConditionalEmission):
            return super().state_laws(params, batch)
        if batch is None:
            raise UnsupportedError(
                got="one law a state of a model with covariates or earlier values as inputs",
                expected="the data whose inputs are meant, or a parameter",
                remedy='Order states by a parameter, such as by="intercept".',
            )
        begun = self.initial_state(params, batch.n)
        lags = lagged_values(batch, begun.past)[..., : batch.t, :, :]
        return self._laws_of(params, self._with_draws(params, batch.u, 2), lags).expand(
            (*begun.probs.shape[:-1], batch.t, self.n_states)
        )

    def leave_one_out(self, params: Params, batch: Batch, state: Any = None) -> LeftOut:
        if self.order:
            raise UnsupportedError(
                got=f"the law of a step given all others under {type(self.emission).__name__}",
                expected="an emission without earlier values: here a step also enters the laws of those after it",
                remedy='Use residuals(X, kind="forecast").',
            )
        return super().leave_one_out(params, batch, state)

    def expected_transitions(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        begun = self.initial_state(params, batch.n) if state is None else state
        problem = self._problem(params, batch, begun)
        if self.transitions.varying:
            sums = varying.expectations(problem.initial, problem.transition, problem.emission, problem.lengths)
            return self._as_drawn(params, torch.from_numpy(sums.pairs.sum(2)))
        each = [
            chain.expectations(
                problem.initial[:, i : i + 1],
                problem.transition,
                chain.table_emission(problem.emission.table[:, i : i + 1]),
                problem.lengths[i : i + 1],
                keep=False,
            ).counts
            for i in range(batch.n)
        ]
        return self._as_drawn(params, torch.stack([torch.from_numpy(one) for one in each], 1))

    def expected_durations(self, params: Params) -> Tensor:
        self._require_constant("one expected duration a state")
        return super().expected_durations(params)

    def stationary_distribution(self, params: Params) -> Tensor:
        self._require_constant("a stationary distribution")
        return super().stationary_distribution(params)

    # EM -----------------------------------------------------------------------------------------------------------

    def em_start(self, batch: Batch, n_starts: int, init: str, generator: torch.Generator) -> dict[str, Tensor]:
        inputs = self._inputs(batch) if isinstance(self.emission, ConditionalEmission) else None
        params = start_params(self.emission, self.observation, self.n_states, batch, n_starts, init, generator, inputs)
        params |= self.transitions.from_matrix(params["transition"], self.n_covariates)
        return arranged(self, {name: params[name] for name in self.parameters()}, batch)

    def _em_step(self, params: Params, batch: Batch, weights: Tensor | None) -> EMStep:
        begun = self.initial_state(params, batch.n)
        problem = self._problem(params, batch, begun)
        share = torch.ones(batch.n, dtype=self.dtype) if weights is None else weights.to(self.dtype)
        if self.transitions.varying:
            result = varying.expectations(problem.initial, problem.transition, problem.emission, problem.lengths)
            pairs = torch.from_numpy(result.pairs) * share.reshape(-1, 1, 1, 1)
            posterior, first = torch.from_numpy(result.posterior), torch.from_numpy(result.start)
            log_prob = torch.from_numpy(result.log_prob)
            new = self.transitions.climb(pairs.flatten(1, 2), batch.u.flatten(0, 1), params)  # type: ignore[attr-defined,union-attr]
        else:
            sums = chain.expectations(*problem, gain=share.reshape(1, -1, 1).numpy())
            posterior, first = torch.from_numpy(sums.posterior), torch.from_numpy(sums.start)
            log_prob = torch.from_numpy(sums.log_prob)
            first = first / share.clamp_min(1e-300).reshape(-1, 1)
            posterior = posterior / share.clamp_min(1e-300).reshape(-1, 1, 1)
            counts = torch.from_numpy(sums.counts)
            new = self.transitions.m_step(
                counts, (first * share.unsqueeze(-1)).sum(1), params, self.start == "stationary"
            )
        posterior = posterior * share.reshape(-1, 1, 1)
        if self.start == "free":
            new["initial"] = update_start((first * share.unsqueeze(-1)).sum(1), params["initial"])
        new |= self._emission_step(params, batch, posterior)
        return EMStep(log_prob @ share, {name: new[name] for name in params}, posterior.sum((1, 2)))

    def _emission_step(self, params: Params, batch: Batch, posterior: Tensor) -> dict[str, Tensor]:
        if not isinstance(self.emission, ConditionalEmission):
            return self.emission.m_step(self.observation, batch.x, batch.seen, posterior, params)
        used = batch.real & batch.seen.any(-1) & (torch.arange(batch.t) >= self.order)
        x, seen, inputs = batch.x[used], batch.seen[used], self._inputs(batch)[used]
        return self.emission.climb(self.observation, x, seen, posterior[:, used], inputs, params)

    # inputs -------------------------------------------------------------------------------------------------------

    def _matrix(self, params: Params, u: Tensor | None, rows: int) -> Tensor:
        """A, (*draw, *1s, s, s), or A(u) of covariates (*rows, m) or (*draw, *rows, m)."""
        if self.transitions.varying:
            return self.transitions.matrix(params, self._with_draws(params, u, rows))
        matrix = self.transitions.matrix(params)
        return matrix.reshape(*matrix.shape[:-2], *(1,) * rows, *matrix.shape[-2:])

    def _ahead(self, params: Params, state: DrivenBelief, u: Tensor | None) -> Tensor:
        """p(z_t | x_<t, u_t), (*draw, n, s)."""
        moved = (state.probs.unsqueeze(-2) @ self._matrix(params, u, 1)).squeeze(-2)
        return torch.where((state.age > 0).unsqueeze(-1), moved, state.probs)

    def _laws(self, params: Params, past: Tensor, u: Tensor | None) -> Distribution:
        """p(x_t | z_t, inputs), batch (*draw, n or 1, s)."""
        if not isinstance(self.emission, ConditionalEmission):
            return self._components(params)[..., None, :]
        return self._laws_of(params, self._with_draws(params, u, 1), past)

    def _laws_of(self, params: Params, u: Tensor | None, lags: Tensor | None) -> Distribution:
        """Laws given covariates (*draw or 1s, *rows, m) and lags (*draw, *rows, order, k), batch (*draw, *rows, s)."""
        if not isinstance(self.emission, ConditionalEmission):
            raise TypeError("only emissions with inputs have laws that differ from row to row")
        inputs = side_by_side(lags if self.order else None, u)
        draw = len(self._draw(params))
        flat = inputs.reshape(*inputs.shape[:draw], -1, inputs.shape[-1])
        law = self.emission.condition(params, flat, (self.n_states,))
        return law.reshape(*law.batch_shape[:-2], *inputs.shape[draw:-1], self.n_states)

    def _inputs(self, batch: Batch) -> Tensor:
        """The inputs of every step of new sequences, (n, t, q)."""
        nothing = torch.zeros(batch.n, self.order, self.observation.n_variables, dtype=self.dtype)
        lags = lagged_values(batch, nothing)[:, : batch.t] if self.order else None
        return side_by_side(lags, self._covariates(batch.u))

    def _with_draws(self, params: Params, u: Tensor | None, rows: int) -> Tensor | None:
        """Covariates with draw dimensions (or ones) in front of their ``rows`` leading ones."""
        u = self._covariates(u)
        missing = 0 if u is None else len(self._draw(params)) + rows + 1 - u.ndim
        return u if u is None or missing <= 0 else u.reshape(*(1,) * missing, *u.shape)

    def _covariates(self, u: Tensor | None) -> Tensor | None:
        if self.n_covariates and u is None:
            raise CovariateError(
                got="no covariates",
                expected=f"{self.n_covariates} at every step, also at those where the values are missing",
                remedy="Pass covariates=.",
            )
        return u

    # between torch and the kernels --------------------------------------------------------------------------------

    def _old_enough(self, batch: Batch, state: DrivenBelief) -> Tensor:
        """Steps that are not only conditioned on, (n, t)."""
        age = state.age.reshape(-1, batch.n)[0] if batch.n else state.age.reshape(-1)
        return age.unsqueeze(-1) + torch.arange(batch.t) >= self.order

    def _emission_table(self, params: Params, batch: Batch, state: DrivenBelief) -> Tensor:
        self._require_complete(bool((batch.seen | ~batch.real.unsqueeze(-1)).all()))
        if not isinstance(self.emission, ConditionalEmission):
            return self._table(params, batch)
        lags = lagged_values(batch, state.past)[..., : batch.t, :, :]
        laws = self._laws_of(params, self._with_draws(params, batch.u, 2), lags)
        table = laws.log_prob_seen(batch.x.unsqueeze(-2), batch.seen.unsqueeze(-2))
        table = torch.where(self._old_enough(batch, state).unsqueeze(-1), table, torch.zeros_like(table))
        return table_with_known_states(table, batch)

    def _moves(self, params: Params, batch: Batch, state: DrivenBelief) -> tuple[Tensor, Tensor]:
        """The law of the state at the first step (D, n, s), and the matrices (D, s, s) or (D, n, t, s, s)."""
        first = None if batch.u is None or batch.t == 0 else batch.u[:, 0]
        initial = self._ahead(params, state, first) if batch.t else state.probs
        if not self.transitions.varying:
            return self._per_draw(params, initial), self._per_draw(params, self.transitions.matrix(params))
        return self._per_draw(params, initial), self._per_draw(params, self._matrix(params, batch.u, 2))

    def _problem(self, params: Params, batch: Batch, state: Any, complete: bool | None = None) -> ChainProblem:
        with torch.no_grad():
            initial, matrices, table = self._tensors(params, batch, state)
            emission = chain.table_emission(table.numpy())
            return ChainProblem(initial.numpy(), matrices.numpy(), emission, batch.lengths.numpy())

    def _tensors(self, params: Params, batch: Batch, state: Any) -> tuple[Tensor, Tensor, Tensor]:
        begun = self.initial_state(params, batch.n) if state is None else state
        table = self._per_draw(params, self._emission_table(params, batch, begun))
        return *self._moves(params, batch, begun), table

    def _final(self, batch: Batch, state: DrivenBelief, last: Tensor) -> DrivenBelief:
        probs = torch.where((batch.lengths > 0).unsqueeze(-1), last, state.probs)
        past = state.past
        if self.order:
            lags = lagged_values(batch, state.past)
            at = batch.lengths.reshape(-1, 1, 1, 1).expand(*lags.shape[:-3], 1, *lags.shape[-2:])
            past = lags.gather(-3, at).squeeze(-3)
        return DrivenBelief(probs, state.age + batch.lengths.to(self.dtype), past)

    def _require_complete(self, complete: bool) -> None:
        if self.order and not complete:
            raise DataError(
                got="missing values",
                expected=f"complete values: {type(self.emission).__name__} uses the last {self.order} as inputs",
                remedy="Use an emission without lags, or one that is exact over gaps, such as ps.ARMA.",
            )

    def _require_constant(self, what: str) -> None:
        if self.transitions.varying:
            raise UnsupportedError(
                got=f"{what} of a chain that covariates drive",
                expected="transitions that do not vary",
                remedy="The law of the state differs from step to step; use smooth(X).",
            )
