"""Baselines with the whole interface: the scores to beat."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from probseq._types import number_in, whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Categories
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.params import Params, ParamSpec, Positive, Real, Simplex
from probseq.errors import DataError, ParameterError
from probseq.models.base import Batch, Scan, SequenceModel, Steps

__all__ = ["ClosedForm", "IIDModel", "MarkovChainModel", "SeasonalWalkModel"]

_MAX_TABLE = 50_000_000


class ClosedForm(ABC):
    """Capability of a model whose maximum-likelihood parameters are computed directly."""

    @abstractmethod
    def maximum_likelihood(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters that maximise the likelihood, without draw dimensions; ``weights`` (n,) weigh sequences."""

    def problems(self, params: Params, batch: Batch) -> tuple[str, ...]:
        """What has degenerated at these parameters, in words."""
        return ()


class Count(NamedTuple):
    """steps : (*draw, n), the number of steps so far."""

    steps: Tensor


class IIDModel(SequenceModel[Count], ClosedForm):
    """p(x_t | x_<t) = p(x_t): independent, identically distributed events.

    Parameters
    ----------
    emission : Emission
    observation : Observation
    """

    def __init__(self, emission: Emission, observation: Observation) -> None:
        self.emission, self.observation = emission, observation

    def parameters(self) -> dict[str, ParamSpec]:
        return self.emission.parameters(self.observation)

    def initial_state(self, params: Params, n: int) -> Count:
        return Count(torch.zeros(*self._draw(params), n, dtype=torch.long))

    def predict_next(self, params: Params, state: Count, u: Tensor | None = None) -> Distribution:
        law = self.emission.distribution(params)
        return law[..., None].expand(torch.Size(state.steps.shape))

    def update(self, params: Params, state: Count, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Count:
        return Count(state.steps + 1)

    def _scan(self, params: Params, batch: Batch, state: Count) -> Scan[Count]:
        passed = torch.arange(batch.t).minimum(batch.lengths.unsqueeze(-1))
        return Scan(Count(state.steps.unsqueeze(-1) + passed), Count(state.steps + batch.lengths))

    def _log_prob_steps(self, params: Params, batch: Batch, state: Count) -> Steps[Count]:
        law = self.emission.distribution(params)[..., None, None]
        values = law.log_prob_seen(batch.x, batch.seen)
        return Steps(values, batch.seen, None, Count(state.steps + batch.lengths))

    def _forecast_marginals(self, params: Params, state: Count, u: Tensor | None, horizon: int) -> Distribution:
        draw = self._draw(params)
        n = state.steps.shape[-1]
        return self.emission.distribution(params)[..., None, None].expand(torch.Size((*draw, n, horizon)))

    def _forecast_joint(self, params: Params, state: Count, u: Tensor | None, horizon: int) -> FullNormal | None:
        law = self.emission.distribution(params)
        law = law.full() if isinstance(law, FactorNormal) else law
        if not isinstance(law, DiagonalNormal | FullNormal):
            return None
        root = law.scale_tril if isinstance(law, FullNormal) else torch.diag_embed(law.scale)
        blocks = torch.kron(torch.eye(horizon, dtype=root.dtype), root.contiguous())
        loc = law.mean.repeat(*(1,) * len(law.batch_shape), horizon)
        joint = FullNormal(loc=loc.unsqueeze(-2), scale_tril=blocks.unsqueeze(-3))
        return joint.expand(torch.Size(state.steps.shape))

    def maximum_likelihood(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Tensor]:
        one = torch.ones(1, batch.n, batch.t, 1, dtype=self.dtype)
        if weights is not None:
            one = one * weights.reshape(1, -1, 1, 1)
        specs = self.emission.parameters(self.observation, (1,))
        params = self.emission.initial_params(self.observation, batch.x, batch.seen, one, (1,))
        previous = -math.inf
        for _ in range(500):
            law = self.emission.distribution(params, (1,))[0, 0]
            value = float((law.log_prob_seen(batch.x, batch.seen) * one[0, :, :, 0]).sum())
            if value - previous <= 1e-12 * (1.0 + abs(value)):
                break
            previous = value
            params = self.emission.m_step(self.observation, batch.x, batch.seen, one, params)
        whole = {name: value[0] for name, value in params.items()}
        return {name: v[0] if "state" in specs[name].dims else v for name, v in whole.items()}

    def problems(self, params: Params, batch: Batch) -> tuple[str, ...]:
        specs = self.emission.parameters(self.observation, (1,))
        one = {name: params[name].reshape(1, *spec.shape) for name, spec in specs.items()}
        if not bool(self.emission.states_at_floor(self.observation, batch.x, batch.seen, one).any()):
            return ()
        name = type(self.emission).__name__
        return (
            f"the spread of {name} collapsed to its floor: a variable has (nearly) the same value everywhere, "
            "or follows from the others",
        )


class Walk(NamedTuple):
    """What is known of the next value of each season, leaves (*draw, n, period, k), next season first.

    level : its expectation; variance : its variance in units of the innovation variance; known : whether it was seen.
    """

    level: Tensor
    variance: Tensor
    known: Tensor


class SeasonalWalkModel(SequenceModel[Walk], ClosedForm):
    r"""x_t = x_{t-s} + drift + e_t, e_t ~ N(0, scale^2), s = period; a random walk for s = 1.

    The first value of every season is conditioned on. Over a gap the walk goes on unseen: g periods after the last
    seen value the variance is g scale^2, exactly.

    Parameters
    ----------
    observation : Observation
    period : int
    drift : bool
        Estimate a mean change a period.
    """

    def __init__(self, observation: Observation, period: int = 1, drift: bool = False) -> None:
        self.observation, self.period, self.drift = observation, period, drift

    def parameters(self) -> dict[str, ParamSpec]:
        k = self.observation.n_variables
        specs = {"scale": ParamSpec((k,), Positive(), ("variable",))}
        if self.drift:
            specs["drift"] = ParamSpec((k,), Real(), ("variable",))
        return specs

    def initial_state(self, params: Params, n: int) -> Walk:
        shape = (*self._draw(params), n, self.period, self.observation.n_variables)
        zero = torch.zeros(shape, dtype=self.dtype)
        return Walk(zero, zero, torch.zeros(shape, dtype=torch.bool))

    def _drift(self, params: Params) -> Tensor:
        return params["drift"] if self.drift else torch.zeros_like(params["scale"])

    def scores_next(self, state: Walk) -> Tensor:
        known = state.known[..., 0, :]
        return known.reshape(-1, *known.shape[-2:])[0]

    def _law(self, params: Params, level: Tensor, variance: Tensor, dims: int) -> DiagonalNormal:
        drift, scale = self._drift(params), params["scale"]
        for _ in range(dims):
            drift, scale = drift.unsqueeze(-2), scale.unsqueeze(-2)
        return DiagonalNormal(loc=level + drift, scale=scale * (variance + 1.0).sqrt())

    def predict_next(self, params: Params, state: Walk, u: Tensor | None = None) -> DiagonalNormal:
        return self._law(params, state.level[..., 0, :], state.variance[..., 0, :], 1)

    def update(self, params: Params, state: Walk, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Walk:
        drift = self._drift(params).unsqueeze(-2)
        level, variance, known = state.level[..., 0, :], state.variance[..., 0, :], state.known[..., 0, :]
        level = torch.where(seen, x, torch.where(known, level + drift, level))
        variance = torch.where(seen, torch.zeros_like(variance), torch.where(known, variance + 1.0, variance))

        def turn(leaf: Tensor, last: Tensor) -> Tensor:
            return torch.cat([leaf[..., 1:, :], last.unsqueeze(-2)], -2)

        return Walk(turn(state.level, level), turn(state.variance, variance), turn(state.known, known | seen))

    def _complete(self, batch: Batch, state: Walk) -> bool:
        """Whether nothing is missing and all sequences start or go on together, with one past for all draws."""
        together = bool((batch.seen.all(-1) | ~batch.real).all())
        fresh = not bool(state.known.any())
        return together and (fresh or (bool(state.known.all()) and state.level.ndim == 4 and state.level.shape[0] == 1))

    def _log_prob_steps(self, params: Params, batch: Batch, state: Walk) -> Steps[Walk]:
        if not self._complete(batch, state):
            return super()._log_prob_steps(params, batch, state)
        s, k = self.period, self.observation.n_variables
        draw = self._draw(params)
        past = state.level.reshape(-1, batch.n, s, k)[0]
        spread = state.variance.reshape(-1, batch.n, s, k)[0]
        known = state.known.reshape(-1, batch.n, s, k)[0]
        values = torch.cat([past, batch.x], 1)
        t = batch.t
        ones = torch.ones_like(batch.x, dtype=torch.bool)
        variance = torch.cat([spread, torch.zeros_like(batch.x)], 1)
        scored = batch.seen & torch.cat([known, ones], 1)[:, :t]
        law = self._law(params, values[:, :t], variance[:, :t], 2)
        steps = law.log_prob_seen(batch.x.expand(*draw, *batch.x.shape), scored)
        index = (batch.lengths.unsqueeze(-1) + torch.arange(s)).unsqueeze(-1).expand(-1, -1, k)

        def last(whole: Tensor) -> Tensor:
            return whole.gather(1, index).expand(state.level.shape)

        final = Walk(last(values), last(variance), last(torch.cat([known, ones], 1)))
        return Steps(steps, scored, None, final)

    def _forecast_marginals(self, params: Params, state: Walk, u: Tensor | None, horizon: int) -> DiagonalNormal | None:
        if not bool(state.known.all()):
            return None
        step = torch.arange(horizon)
        season, cycle = step % self.period, (step // self.period).to(self.dtype).unsqueeze(-1)
        level, variance = state.level[..., season, :], state.variance[..., season, :]
        drift = self._drift(params)[..., None, None, :]
        scale = params["scale"][..., None, None, :]
        return DiagonalNormal(loc=level + (cycle + 1) * drift, scale=scale * (variance + cycle + 1.0).sqrt())

    def _forecast_joint(self, params: Params, state: Walk, u: Tensor | None, horizon: int) -> FullNormal | None:
        marginals = self._forecast_marginals(params, state, u, horizon)
        if marginals is None:
            return None
        step = torch.arange(horizon)
        first = (step < self.period).unsqueeze(-1)
        spread = torch.where(first, (state.variance[..., step % self.period, :] + 1.0).sqrt(), 1.0)
        gap = step.unsqueeze(-1) - step
        sums = ((gap >= 0) & (gap % self.period == 0)).to(self.dtype)
        noise = (spread * params["scale"][..., None, None, :]).flatten(-2)
        eye = torch.eye(self.observation.n_variables, dtype=self.dtype)
        return FullNormal(loc=marginals.loc.flatten(-2), scale_tril=torch.kron(sums, eye) * noise.unsqueeze(-2))

    def maximum_likelihood(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Tensor]:
        k = self.observation.n_variables
        unit = {"scale": torch.ones(k, dtype=self.dtype), "drift": torch.zeros(k, dtype=self.dtype)}
        scan = self._scan(unit, batch, self.initial_state(unit, batch.n))
        scored = batch.seen & scan.states.known[:, :, 0, :]
        gap = scan.states.variance[:, :, 0, :] + 1.0
        # With a unit scale and no drift the scanned level is the last seen value.
        change = batch.x - scan.states.level[:, :, 0, :]
        w = scored.to(self.dtype) if weights is None else scored * weights.reshape(-1, 1, 1)
        n = w.sum((0, 1))
        if bool((n < 1).any()):
            raise DataError(
                got=f"{int(batch.seen.any(-1).sum())} sample(s) and no pair of values {self.period} step(s) apart",
                expected="at least one in every variable",
                remedy="Pass a longer series or a smaller period.",
            )
        params = {}
        drift = torch.zeros(k, dtype=self.dtype)
        if self.drift:
            drift = (w * change).sum((0, 1)) / (w * gap).sum((0, 1))
            params["drift"] = drift
        scale = ((w * (change - gap * drift) ** 2 / gap).sum((0, 1)) / n).sqrt()
        floor = 1e-8 * (1.0 + (w * batch.x.abs()).sum((0, 1)) / n)
        return {"scale": torch.maximum(scale, floor), **params}


class Context(NamedTuple):
    """belief : (*draw, n, M), P(the last ``order`` tokens = m-th context | x_<t)."""

    belief: Tensor


class MarkovChainModel(SequenceModel[Context], ClosedForm):
    r"""P(x_t = c | x_{t-order..t-1}) = (N(context, c) + smoothing) / (N(context) + smoothing C).

    A sequence starts in the context of ``order`` start symbols, so every token is scored. Missing tokens are summed
    out exactly.

    Parameters
    ----------
    observation : Observation with C categories and one variable
    order : int
    smoothing : float
        Additive (Lidstone) smoothing; 0 is maximum likelihood.
    """

    def __init__(self, observation: Observation, order: int = 1, smoothing: float = 0.5) -> None:
        if not isinstance(observation.n_categories, int) or observation.n_variables != 1:
            raise ParameterError(
                got=f"{observation.n_variables} variables",
                expected="one variable of categories",
                remedy="Pass one text, or codes in one column.",
            )
        self.observation, self.order = observation, whole_number("order", order, 1)
        self.smoothing = number_in("smoothing", smoothing, "[0, inf)", "Use smoothing=0.5.")
        self.n_tokens = observation.n_categories
        self.base = self.n_tokens + 1
        self.n_contexts = self.base**order
        if self.n_contexts * self.n_tokens > _MAX_TABLE:
            raise ParameterError(
                got=f"order={order} with {self.n_tokens} tokens",
                expected=f"a table of at most {_MAX_TABLE} entries",
                remedy="Lower the order, or raise the vocabulary's min_count.",
            )

    def parameters(self) -> dict[str, ParamSpec]:
        shape = (self.n_contexts, self.n_tokens)
        return {"transition": ParamSpec(shape, Simplex(), ("context", "category"))}

    @property
    def n_parameters(self) -> int:
        """Contexts that can occur (start symbols only at the front) times free probabilities."""
        contexts = sum(self.n_tokens**i for i in range(self.order + 1))
        return contexts * (self.n_tokens - 1)

    def initial_state(self, params: Params, n: int) -> Context:
        belief = torch.zeros(*self._draw(params), n, self.n_contexts, dtype=self.dtype)
        belief[..., -1] = 1.0  # the start symbol is the last digit of every place
        return Context(belief)

    def predict_next(self, params: Params, state: Context, u: Tensor | None = None) -> Distribution:
        probs = state.belief @ params["transition"]
        return Categories(logits=probs.log().unsqueeze(-2))

    def update(self, params: Params, state: Context, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Context:
        c, m = self.n_tokens, self.n_contexts
        lead = state.belief.shape[:-1]
        joint = state.belief.unsqueeze(-1) * params["transition"].unsqueeze(-3)
        code = x[..., 0].long().clamp(0, c - 1)
        chosen = torch.nn.functional.one_hot(code, c).to(self.dtype)
        weight = torch.where(seen[..., :1], chosen, torch.ones_like(chosen)).expand(*lead, c)
        possible = (joint * weight.unsqueeze(-2)).sum((-2, -1), keepdim=True) > 0
        # A token of probability zero was seen all the same: what follows is predicted from it.
        joint = torch.where(possible, joint, state.belief.unsqueeze(-1)) * weight.unsqueeze(-2)
        # Dropping the oldest token: contexts are numbers in base C+1 with the newest token as last digit.
        oldest = joint.reshape(*lead, self.base, m // self.base, c).sum(-3)
        new = torch.zeros(*lead, m // self.base, self.base, dtype=self.dtype)
        new[..., :c] = oldest
        new = new.reshape(*lead, m)
        return Context(new / new.sum(-1, keepdim=True).clamp_min(1e-300))

    def _codes(self, batch: Batch, start: Tensor) -> Tensor:
        """Context number before every step (n, t+1) when nothing is missing, from the start contexts (n,)."""
        code = batch.x[..., 0].long()
        digits = [(start // self.base ** (self.order - 1 - i)) % self.base for i in range(self.order)]
        whole = torch.cat([torch.stack(digits, 1), code], 1)
        windows = whole.unfold(1, self.order, 1)
        place = self.base ** torch.arange(self.order - 1, -1, -1)
        return (windows * place).sum(-1)

    def _log_prob_steps(self, params: Params, batch: Batch, state: Context) -> Steps[Context]:
        complete = bool((batch.seen[..., 0] | ~batch.real).all())
        start = state.belief.argmax(-1)
        certain = bool((state.belief.amax(-1) == 1.0).all())
        flat = start.reshape(-1, batch.n)
        if not (complete and certain and bool((flat == flat[:1]).all())):
            return super()._log_prob_steps(params, batch, state)
        contexts = self._codes(batch, flat[0])
        code = batch.x[..., 0].long()
        values = params["transition"][..., contexts[:, :-1], code].log()
        values = torch.where(batch.seen[..., 0], values, torch.zeros_like(values))
        last = contexts.gather(1, batch.lengths.unsqueeze(-1)).squeeze(-1)
        belief = torch.nn.functional.one_hot(last, self.n_contexts).to(self.dtype)
        return Steps(values, batch.seen, None, Context(belief.expand(state.belief.shape)))

    def _forecast_marginals(self, params: Params, state: Context, u: Tensor | None, horizon: int) -> Distribution:
        laws = []
        unseen = torch.zeros(state.belief.shape[-2], 1, dtype=torch.bool)
        for _ in range(horizon):
            laws.append(self.predict_next(params, state).logits)  # type: ignore[attr-defined]
            state = self.update(params, state, torch.zeros(unseen.shape, dtype=self.dtype), unseen)
        return Categories(logits=torch.stack(laws, -3))

    def maximum_likelihood(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Tensor]:
        counts = torch.full((self.n_contexts * self.n_tokens,), float(self.smoothing), dtype=self.dtype)
        real, seen = batch.real, batch.seen[..., 0]
        start = torch.full((batch.n,), self.n_contexts - 1)
        # A context with a missing token is left out: its count is unknown.
        contexts = self._codes(batch, start)[:, :-1]
        before = torch.cat([torch.ones(batch.n, self.order, dtype=torch.bool), seen], 1)
        known = before.unfold(1, self.order, 1)[:, : batch.t].all(-1) & seen & real
        index = contexts[known] * self.n_tokens + batch.x[..., 0].long()[known]
        w = torch.ones(batch.n, 1, dtype=self.dtype) if weights is None else weights.reshape(-1, 1)
        counts.index_add_(0, index, w.expand(batch.n, batch.t)[known])
        table = counts.reshape(self.n_contexts, self.n_tokens)
        total = table.sum(-1, keepdim=True)
        uniform = torch.full_like(table, 1.0 / self.n_tokens)
        return {"transition": torch.where(total > 0, table / total.clamp_min(1e-300), uniform)}
