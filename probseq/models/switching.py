"""Linear dynamical systems that switch: a Markov chain of regimes, each with its own way to move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.emissions import Observation
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor
from probseq.distributions.params import Params, ParamSpec, Positive, PositiveDefinite, Real, Simplex
from probseq.errors import ShapeError
from probseq.models.base import Batch, SequenceModel, Steps, map_state
from probseq.models.resampling import reduced, warn_of_chance

__all__ = ["EMISSIONS", "Regimes", "SwitchingState", "SwitchingSystemModel"]

EMISSIONS = ("shared", "own")

_ODD = 7919


class SwitchingState(NamedTuple):
    """Histories of regimes: p(z_(t-1), s_(t-1) | x_<t) = sum_p w_p 1(z = regime_p) N(s; mean_p, cov_p).

    mean : (*draw, n, particle, r). cov : (*draw, n, particle, r, r). regime : (*draw, n, particle) int64. log_weights :
    (*draw, n, particle), normalised, -inf for places that are not taken. drawn : (*draw, n, particle) bool, which
    histories went on by chance, in place of others. age : (*draw, n), steps so far; 0 before the first.
    """

    mean: Tensor
    cov: Tensor
    regime: Tensor
    log_weights: Tensor
    drawn: Tensor
    age: Tensor


class Regimes(NamedTuple):
    """What each regime does, with a dimension of regimes everywhere.

    transition (*draw, K, r, r), drift (*draw, K, r), shock (*draw, K, r, r), loading (*draw, K, k, r), offset
    (*draw, K, k), noise (*draw, K, k, k).
    """

    transition: Tensor
    drift: Tensor
    shock: Tensor
    loading: Tensor
    offset: Tensor
    noise: Tensor


class SwitchingSystemModel(SequenceModel[SwitchingState]):
    r"""s_t = A_z s_(t-1) + b_z + eta_t, eta_t ~ N(0, Q_z); x_t = C s_t + d + eps_t, z = z_t a Markov chain.

    Given the regimes z_1..z_t the states are normal, so that only histories of regimes are particles; each carries the
    exact moments of its Kalman filter. At every step each history is continued by all regimes, weighed by what it says
    of x_t, and of the continuations ``n_particles`` go on, chosen so that no weight changes on average (`reduced`).
    While n_particles covers all K^t histories everything is exact; from then on p(x_1:T) is estimated without bias, its
    logarithm too low on average by about half its variance.

    Parameters
    ----------
    observation : Observation
        Continuous variables.
    n_regimes, n_states : int
    emission : "shared" or "own"
        Whether C, d and the noise are the same in all regimes.
    n_particles : int
    seed : int
        The chance is the same whenever the same step of any sequence is scored.

    Notes
    -----
    s_1 ~ N(start_mean, Q of the first regime). Coordinates of the states are free: M s + c has the same law. A fit
    gives the first regime shocks of unit covariance, and (C; A) of it, stacked, zeros right of a diagonal that is not
    negative, as in `LinearSystemModel`.

    References
    ----------
    Chen and Liu (2000), Mixture Kalman filters, J. Royal Statistical Society B 62, 493-508. Doucet, de Freitas, Murphy
    and Russell (2000), Rao-Blackwellised particle filtering for dynamic Bayesian networks. Fearnhead and Clifford
    (2003), On-line inference for hidden Markov models via particle filters, J. Royal Statistical Society B 65, 887-899.
    """

    exact = False
    estimate: str

    def __init__(
        self,
        observation: Observation,
        n_regimes: int = 2,
        n_states: int = 1,
        emission: str = "shared",
        n_particles: int = 100,
        seed: int = 0,
    ) -> None:
        whole_number("n_regimes", n_regimes, 1, "Try 2.")
        whole_number("n_states", n_states, 1, "Try 2.")
        whole_number("n_particles", n_particles, 1, "Try 100.")
        one_of("emission", emission, EMISSIONS)
        if observation.discrete:
            raise ShapeError(
                got=f"variables with {observation.measure} measure for a linear dynamical system",
                expected="continuous variables",
                remedy="Leave counts and categories out, or use ps.HMM.",
            )
        self.observation, self.n_regimes, self.n_states = observation, int(n_regimes), int(n_states)
        self.emission, self.n_particles, self.seed = emission, int(n_particles), seed
        self.estimate = f"particle filter ({self.n_particles} histories)"
        kk, k, r = self.n_regimes, observation.n_variables, self.n_states
        own, words = ((kk,), ("regime",)) if emission == "own" else ((), ())
        square = ("regime", "state", "other_state")
        self._specs = {
            "initial": ParamSpec((kk,), Simplex(), ("regime",)),
            "switching": ParamSpec((kk, kk), Simplex(), ("regime", "next_regime")),
            "transition": ParamSpec((kk, r, r), Real(), ("regime", "next_state", "state"), unitless=True),
            "drift": ParamSpec((kk, r), Real(), ("regime", "state"), unitless=True),
            "shock_covariance": ParamSpec((kk, r, r), PositiveDefinite(), square, unitless=True),
            "start_mean": ParamSpec((r,), Real(), ("state",), unitless=True),
            "loading": ParamSpec((*own, k, r), Real(), (*words, "variable", "state")),
            "offset": ParamSpec((*own, k), Real(), (*words, "variable")),
            "noise_scale": ParamSpec((*own, k), Positive(), (*words, "variable")),
        }

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    @property
    def n_parameters(self) -> int:
        """Number of free parameters: other coordinates of the states are none."""
        return super().n_parameters - self.n_states**2 - self.n_states

    def regimes(self, params: Params) -> Regimes:
        """The matrices of every regime."""
        turn = params["transition"]

        def each(name: str, rank: int) -> Tensor:
            value = params[name]
            if self.emission == "own":
                return value
            value = value.unsqueeze(-rank - 1)
            return value.expand(*value.shape[: -rank - 1], self.n_regimes, *value.shape[value.ndim - rank :])

        noise = torch.diag_embed(each("noise_scale", 1) ** 2)
        return Regimes(turn, params["drift"], params["shock_covariance"], each("loading", 2), each("offset", 1), noise)

    # one step ---------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> SwitchingState:
        draw, p, r = self._draw(params), self.n_particles, self.n_states
        empty = torch.full((*draw, n, p), -torch.inf, dtype=self.dtype)
        empty[..., 0] = 0.0
        none = torch.zeros((*draw, n), dtype=torch.long)
        return SwitchingState(
            torch.zeros(*draw, n, p, r, dtype=self.dtype),
            torch.zeros(*draw, n, p, r, r, dtype=self.dtype),
            torch.zeros(*draw, n, p, dtype=torch.long),
            empty,
            torch.zeros(*draw, n, p, dtype=torch.bool),
            none,
        )

    def _taken(self, state: SwitchingState) -> SwitchingState:
        """Only the places that some sequence has taken; these come first."""
        used = int((state.log_weights > -torch.inf).sum(-1).max()) if state.age.numel() else 1
        if used == self.n_particles:
            return state
        return state._replace(
            mean=state.mean[..., :used, :],
            cov=state.cov[..., :used, :, :],
            regime=state.regime[..., :used],
            log_weights=state.log_weights[..., :used],
            drawn=state.drawn[..., :used],
        )

    def _successors(self, params: Params, state: SwitchingState) -> tuple[Tensor, Tensor, Tensor]:
        """log p(history, z_t | x_<t) (*draw, n, p, K), mean (..., r) and covariance (..., r, r) of s_t given these."""
        found = self.regimes(params)
        new = (state.age == 0).unsqueeze(-1).unsqueeze(-1)
        turn, drift, shock = (
            part.unsqueeze(-3 - i).unsqueeze(-3 - i) for part, i in zip(found, (1, 0, 1), strict=False)
        )
        # A chain that has not begun moves by its initial law, a state by the law of the first.
        moves = params["switching"].log().unsqueeze(-3).expand(*state.regime.shape[:-1], -1, -1)
        places = state.regime.unsqueeze(-1).expand(*state.regime.shape, self.n_regimes)
        begin = params["initial"].log().unsqueeze(-2).unsqueeze(-2)
        log_weights = state.log_weights.unsqueeze(-1) + torch.where(new, begin, moves.gather(-2, places))
        mean = (turn @ state.mean.unsqueeze(-2).unsqueeze(-1)).squeeze(-1) + drift
        first = params["start_mean"].unsqueeze(-2).unsqueeze(-2).unsqueeze(-2)
        mean = torch.where(new.unsqueeze(-1), first, mean)
        cov = turn @ state.cov.unsqueeze(-3) @ turn.mT + shock
        cov = torch.where(new.unsqueeze(-1).unsqueeze(-1), shock[..., :1, :, :], cov)
        return log_weights, mean, cov

    def predict_next(self, params: Params, state: SwitchingState, u: Tensor | None = None) -> Distribution:
        found = self.regimes(params)
        log_weights, mean, cov = self._successors(params, self._taken(state))
        z = found.loading.unsqueeze(-4).unsqueeze(-4)
        loc = (z @ mean.unsqueeze(-1)).squeeze(-1) + found.offset.unsqueeze(-3).unsqueeze(-3)
        spread = z @ cov @ z.mT + found.noise.unsqueeze(-4).unsqueeze(-4)
        loc, spread = loc.flatten(-3, -2), spread.flatten(-4, -3)
        law: Distribution
        if self.observation.n_variables == 1:
            law = DiagonalNormal(loc=loc, scale=spread[..., 0].sqrt())
        else:
            law = FullNormal(loc=loc, scale_tril=lower_factor(spread))
        return mixture(log_weights.flatten(-2), law)

    def update(
        self, params: Params, state: SwitchingState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> SwitchingState:
        return self._step(params, state, x, seen)[2]

    def _step(
        self, params: Params, state: SwitchingState, x: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, SwitchingState]:
        """log p(x_t seen | x_<t) and its Monte Carlo error, both (*draw, n), and the state after the step."""
        found, old = self.regimes(params), self._taken(state)
        log_weights, mean, cov = self._successors(params, old)
        known = seen.to(self.dtype).unsqueeze(-2).unsqueeze(-2)
        both = known.unsqueeze(-1) * known.unsqueeze(-2)
        one = torch.eye(x.shape[-1], dtype=self.dtype)
        # A variable that is not seen is one of unit variance and no residual that knows nothing of the state.
        loading = found.loading.unsqueeze(-4).unsqueeze(-4)
        z = loading * known.unsqueeze(-1)
        h = found.noise.unsqueeze(-4).unsqueeze(-4) * both + one * (1.0 - both)
        loc = (loading @ mean.unsqueeze(-1)).squeeze(-1) + found.offset.unsqueeze(-3).unsqueeze(-3)
        e = (x.to(self.dtype).unsqueeze(-2).unsqueeze(-2) - loc) * known
        factor = lower_factor(z @ cov @ z.mT + h)
        scaled = torch.linalg.solve_triangular(factor, z @ cov, upper=False)
        v = torch.linalg.solve_triangular(factor, e.unsqueeze(-1), upper=False)
        size = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        gain = -0.5 * (v.square().sum((-2, -1)) + known.sum(-1) * math.log(2.0 * math.pi)) - size
        after = log_weights + gain
        total = after.flatten(-2).logsumexp(-1)
        after = after - total.unsqueeze(-1).unsqueeze(-1)
        error = _error(old.log_weights.detach().exp(), after.detach().logsumexp(-1).exp(), old.drawn)
        mean = mean + (scaled.mT @ v).squeeze(-1)
        cov = cov - scaled.mT @ scaled
        return total, error, self._reduced(state, after, mean, 0.5 * (cov + cov.mT))

    def _reduced(self, state: SwitchingState, log_weights: Tensor, mean: Tensor, cov: Tensor) -> SwitchingState:
        """The state whose histories are those (*draw, n, p, K) that go on."""
        d, p, places = state.age.ndim, self.n_particles, log_weights.shape[-2] * self.n_regimes
        # Regimes first, so that chance is spread evenly over them, and within each over those before.
        log_weights, mean, cov = (one.transpose(d, d + 1) for one in (log_weights, mean, cov))
        weights, mean, cov = log_weights.flatten(d), mean.flatten(d, d + 1), cov.flatten(d, d + 1)
        few = places <= p
        if few:
            chosen = torch.argsort((weights == -torch.inf).long(), dim=-1, stable=True)
            weights = weights.gather(-1, chosen)
            drawn = torch.zeros_like(chosen, dtype=torch.bool)
        else:
            chosen, weights, drawn = reduced(weights, p, self._uniform(state.age))
        mean = mean.gather(d, chosen.unsqueeze(-1).expand(*chosen.shape, mean.shape[-1]))
        cov = cov.gather(d, chosen.unsqueeze(-1).unsqueeze(-1).expand(*chosen.shape, *cov.shape[-2:]))
        regime = chosen // log_weights.shape[-1]
        if few and places < p:
            pad = torch.nn.functional.pad
            rest = p - places
            mean, cov = pad(mean, (0, 0, 0, rest)), pad(cov, (0, 0, 0, 0, 0, rest))
            regime, drawn = pad(regime, (0, rest)), pad(drawn, (0, rest))
            weights = pad(weights, (0, rest), value=-torch.inf)
        return SwitchingState(mean, cov, regime, weights, drawn, state.age + 1)

    def _uniform(self, age: Tensor) -> Tensor:
        """One number on [0, 1) for each step, the same for all sequences."""
        numbers = {}
        for step in torch.unique(age).tolist():
            generator = torch.Generator().manual_seed(self.seed + _ODD * int(step))
            numbers[step] = torch.rand((), generator=generator, dtype=torch.float64)
        found = torch.zeros(age.shape, dtype=torch.float64)
        for step, number in numbers.items():
            found = torch.where(age == step, number, found)
        return found

    # whole sequences --------------------------------------------------------------------------------------------------

    def _log_prob_steps(self, params: Params, batch: Batch, state: SwitchingState) -> Steps[SwitchingState]:
        draws = len(self._draw(params))
        values, errors = [], []
        for t in range(batch.t):
            running = t < batch.lengths
            seen = batch.seen[:, t]
            value, error, after = self._step(params, state, batch.x[..., t, :], seen)
            some = seen.any(-1)
            values.append(torch.where(some, value, 0.0))
            errors.append(torch.where(some, error, 0.0))

            def chosen(new: Tensor, old: Tensor, on: Tensor = running) -> Tensor:
                return torch.where(on.reshape(*(1,) * draws, -1, *(1,) * (new.ndim - draws - 1)), new, old)

            state = map_state(chosen, after, state)
        empty = torch.zeros(*self._draw(params), batch.n, 0, dtype=self.dtype)
        stacked = [torch.stack(part, -1) if part else empty for part in (values, errors)]
        warn_of_chance(stacked[1], self.n_particles)
        return Steps(stacked[0], batch.seen, stacked[1], state)

    def _forecast_mean(self, params: Params, state: SwitchingState, u: Tensor | None, horizon: int) -> Tensor | None:
        found = self.regimes(params)
        log_weights, mean, _ = self._successors(params, self._taken(state))
        weights = log_weights.exp()
        # p(z = j | x) and E[s 1(z = j) | x], which move linearly.
        share, moment = weights.sum(-2), (weights.unsqueeze(-1) * mean).sum(-3)
        turn, drift = found.transition.unsqueeze(-4), found.drift.unsqueeze(-3)
        moves = params["switching"].mT.unsqueeze(-3)
        loading, offset = found.loading.unsqueeze(-4), found.offset.unsqueeze(-3)
        steps = []
        for h in range(horizon):
            if h:
                share = (moves @ share.unsqueeze(-1)).squeeze(-1)
                moment = (turn @ (moves @ moment).unsqueeze(-1)).squeeze(-1) + drift * share.unsqueeze(-1)
            seen = (loading @ moment.unsqueeze(-1)).squeeze(-1) + offset * share.unsqueeze(-1)
            steps.append(seen.sum(-2))
        return torch.stack(steps, -2)

    def _sample(
        self,
        params: Params,
        state: SwitchingState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, SwitchingState]:
        """A path keeps the regimes and states that it has drawn: its last state knows them."""
        if temper is not None:
            return super()._sample(params, state, length, generator, u, temper)
        found, draws = self.regimes(params), self._draw(params)
        xs = []
        for _ in range(length):
            log_weights, mean, cov = self._successors(params, self._taken(state))
            d = log_weights.ndim - 2
            flat = log_weights.flatten(d)
            at = torch.multinomial(flat.exp().flatten(0, -2), 1, generator=generator).reshape(*flat.shape[:-1], 1)
            mean = mean.flatten(d, d + 1).gather(d, at.unsqueeze(-1).expand(*at.shape, mean.shape[-1])).squeeze(d)
            place = at.unsqueeze(-1).unsqueeze(-1).expand(*at.shape, *cov.shape[-2:])
            cov = cov.flatten(d, d + 1).gather(d, place).squeeze(d)
            noise = torch.randn(mean.shape, generator=generator, dtype=self.dtype)
            s = mean + (lower_factor(cov) @ noise.unsqueeze(-1)).squeeze(-1)
            z = (at % self.n_regimes).squeeze(-1)
            state = self._known(s, z, state.age + 1)
            rows = z.unsqueeze(-1).unsqueeze(-1).expand(*z.shape, *found.loading.shape[-2:])
            loading = found.loading.expand(*draws, *found.loading.shape[-3:]).gather(len(draws), rows)
            at_regime = z.unsqueeze(-1).expand(*z.shape, found.offset.shape[-1])
            offset = found.offset.gather(len(draws), at_regime)
            scale = found.noise.diagonal(dim1=-2, dim2=-1).sqrt().gather(len(draws), at_regime)
            noise = torch.randn(offset.shape, generator=generator, dtype=self.dtype)
            xs.append((loading @ s.unsqueeze(-1)).squeeze(-1) + offset + scale * noise)
        empty = torch.zeros(*state.age.shape, 0, self.observation.n_variables, dtype=self.dtype)
        return (torch.stack(xs, -2) if xs else empty), state

    def _known(self, s: Tensor, z: Tensor, age: Tensor) -> SwitchingState:
        """The belief that knows s (*draw, n, r) and z (*draw, n)."""
        rest = self.n_particles - 1
        pad = torch.nn.functional.pad
        r = s.shape[-1]
        return SwitchingState(
            pad(s.unsqueeze(-2), (0, 0, 0, rest)),
            torch.zeros(*age.shape, self.n_particles, r, r, dtype=self.dtype),
            pad(z.unsqueeze(-1), (0, rest)),
            pad(torch.zeros(*age.shape, 1, dtype=self.dtype), (0, rest), value=-torch.inf),
            torch.zeros(*age.shape, self.n_particles, dtype=torch.bool),
            age,
        )


def _error(before: Tensor, after: Tensor, drawn: Tensor) -> Tensor:
    """Standard error of log p(x_t | x_<t) for what chance chose at the step before, (*draw, n).

    Weights (..., particle) before and after x_t. The histories that were drawn stand for others that x_t would have
    told something else: how much they differ among themselves says by how much.
    """
    chosen = torch.where(drawn, before, 0.0)
    ratio = torch.where(drawn, after, 0.0).sum(-1, keepdim=True) / chosen.sum(-1, keepdim=True).clamp_min(1e-300)
    off = torch.where(drawn, after - ratio * before, 0.0)
    return off.square().sum(-1).sqrt()
