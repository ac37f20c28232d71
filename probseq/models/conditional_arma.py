"""Seasonal ARIMA with a law of innovations of one's choice and, if wanted, a moving variance."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Params, ParamSpec, Positive
from probseq.errors import DataError, ParameterError
from probseq.kernels.conditional import conditional_paths
from probseq.models.arma import ARMAModel
from probseq.models.arma_orders import Order, SeasonalOrder
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.concentrated import ConcentratedLikelihood
from probseq.models.conditional_likelihood import ConditionalProfile
from probseq.models.conditional_state import ConditionalInnovations, ConditionalState, windows
from probseq.models.innovation_laws import INNOVATIONS
from probseq.models.volatility import GARCH

__all__ = ["ConditionalARMAModel", "ConditionalState"]

# Steps that a simulation without a past runs before its first value.
_BURN_IN = 500


class ConditionalARMAModel(SequenceModel[ConditionalState], ConcentratedLikelihood):
    r"""phi(B) Phi(B^s) (Delta(B) (x_t - u_t' beta - w_t' gamma) - mu) = theta(B) Theta(B^s) e_t, e_t = sqrt(h_t) eps_t.

    eps_t are independent with mean 0 and variance 1: normal, Student t, Laplace or skewed Student t. h_t is scale^2, or
    a GARCH(1, 1) whose first value is the unconditional variance. The likelihood is conditional: on the first m = d + s
    D values, and on the next p, the highest lag of phi(B) Phi(B^s); none of them is scored, and innovations before the
    first scored step are zero. Given those values it is exact. A line and waves are as in `ARMAModel`.

    Parameters
    ----------
    observation : Observation
        One continuous variable.
    order, seasonal_order, constant, n_covariates, trend, fourier
        As for `ARMAModel`.
    innovations : {"normal", "studentt", "laplace", "skewt"}
    volatility : GARCH or None
        None is a constant variance.

    Raises
    ------
    ParameterError
        As `ARMAModel`, and for unknown innovations or volatility.
    """

    likelihood = "conditional"
    starts_itself: bool

    def __init__(
        self,
        observation: Observation,
        order: Order = (1, 0, 0),
        seasonal_order: SeasonalOrder = (0, 0, 0, 1),
        constant: bool = True,
        n_covariates: int = 0,
        trend: bool = False,
        fourier: Iterable[tuple[float, int]] = (),
        innovations: str = "normal",
        volatility: GARCH | None = None,
    ) -> None:
        if innovations not in INNOVATIONS:
            raise ParameterError(
                got=f"innovations={innovations!r}",
                expected=f"one of {list(INNOVATIONS)}",
                remedy="Check the spelling.",
            )
        if volatility is not None:
            if not isinstance(volatility, GARCH):
                raise ParameterError(
                    got=f"volatility={volatility!r}", expected="a GARCH or None", remedy="Write ps.GARCH(1, 1)."
                )
            volatility.check()
        self.linear = ARMAModel(observation, order, seasonal_order, constant, n_covariates, trend, fourier)
        self.observation, self.n_covariates = observation, n_covariates
        self.innovations, self.volatility = INNOVATIONS[innovations], volatility
        linear = self.linear
        self.order, self.seasonal_order, self.period = linear.order, linear.seasonal_order, linear.period
        self.constant, self.terms, self.own_lags = linear.constant, linear.terms, linear.own_lags
        self.lags, self.n_differences = linear.lags, linear.n_differences
        self.n_lags = int(self.lags.ar[-1]) if self.lags.ar.size else 0
        self.n_shocks = int(self.lags.ma[-1]) if self.lags.ma.size else 0
        self.n_conditioned = self.n_differences + self.n_lags
        self.starts_itself = self.n_differences == 0
        self._specs = {name: spec for name, spec in linear.parameters().items() if name != "scale"}
        self._specs |= {"scale": ParamSpec((), Positive())} if volatility is None else volatility.parameters()
        self._specs |= self.innovations.parameters()

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    def concentrated(self, batch: Batch, weights: Tensor | None = None) -> ConditionalProfile:
        self._check_complete(batch.seen[..., 0].sum(-1) == batch.lengths)
        return ConditionalProfile(self, batch, weights)

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        profile = self.concentrated(batch)
        return profile.parameters(min(profile.starts(0, generator), key=lambda x: profile.objective(x)[0]))

    @staticmethod
    def _check_complete(complete: Tensor) -> None:
        if not bool(complete.all()):
            raise DataError(
                got="a missing value",
                expected="no missing values: the laws of innovations other than the normal, and moving variances, do "
                "not integrate them out",
                remedy='Use innovations="normal" without volatility, which is exact with gaps, or complete the data by '
                "impute(X, n_draws=...) of such a model.",
            )

    # parameters -------------------------------------------------------------------------------------------------------

    def _variance(self, params: Params) -> Tensor:
        """Unconditional variance of the innovations, (*draw,)."""
        return params["scale"] ** 2 if self.volatility is None else self.volatility.unconditional(params)

    def unconditional_scale(self, params: Params) -> Tensor:
        """Standard deviation of the innovations, (*draw,)."""
        return self._variance(params).sqrt()

    def _linear_params(self, params: Params) -> dict[str, Tensor]:
        return {**params, "scale": self.unconditional_scale(params)}

    def _garch(self, params: Params) -> Tensor:
        """omega, alpha, beta, (*draw, 3); zeros for a constant variance."""
        if self.volatility is None:
            return torch.zeros(*self._draw(params), 3, dtype=self.dtype)
        return torch.cat([params["omega"].unsqueeze(-1), params["garch"]], -1)

    def polynomials(self, params: Params) -> tuple[Tensor, Tensor]:
        """Full autoregressive (D, a) and moving-average (D, b) coefficients at ``lags.ar`` and ``lags.ma``."""
        return self.linear.polynomials(self._linear_params(params))

    def _coefficients(self, params: Params) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coefficients of levels, lags and shocks at all their places, and the mean, (*draw, 1, ...)."""
        draw = self._draw(params)
        ar, ma = self.polynomials(params)
        whole = []
        for size, lags, part in ((self.n_lags, self.lags.ar, ar), (self.n_shocks, self.lags.ma, ma)):
            row = torch.zeros(len(part), size, dtype=self.dtype).index_copy(1, torch.from_numpy(lags - 1), part)
            whole.append(row.reshape(*draw, 1, size))
        mean = self.linear._means(self._linear_params(params)).reshape(*draw, 1)
        return torch.from_numpy(self.lags.differences), whole[0], whole[1], mean

    # the one-step law -------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> ConditionalState:
        draw = self._draw(params)
        sizes = (self.n_differences, self.n_lags, self.n_shocks)
        levels, lags, shocks = (torch.zeros(*draw, n, size, dtype=self.dtype) for size in sizes)
        return ConditionalState(
            levels,
            lags,
            shocks,
            self._variance(params).unsqueeze(-1).expand(*draw, n),
            torch.zeros(*draw, n, dtype=torch.long),
        )

    def scores_next(self, state: ConditionalState) -> Tensor | None:
        if not self.n_conditioned:
            return None
        age = state.age.reshape(-1, state.age.shape[-1])[0]
        return (age >= self.n_conditioned).unsqueeze(-1)

    def _expected(self, params: Params, state: ConditionalState) -> Tensor:
        """E[x_t | x_<t] less what covariates, line and waves add, (*draw, n)."""
        differences, ar, ma, mean = self._coefficients(params)
        of_past = (ar * state.lags).sum(-1) + (ma * state.shocks).sum(-1)
        return (differences * state.levels).sum(-1) + mean + of_past

    def predict_next(self, params: Params, state: ConditionalState, u: Tensor | None = None) -> Distribution:
        added = self.linear._shift(self._linear_params(params), state.age, u)
        loc = self._expected(params, state) + added
        return self.innovations.law(params, loc, state.variance.sqrt(), len(self._draw(params)))

    def update(
        self, params: Params, state: ConditionalState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> ConditionalState:
        self._check_complete(seen[..., 0])
        y = x[..., 0] - self.linear._shift(self._linear_params(params), state.age, u)
        return self._advance(params, state, y.expand(state.age.shape))

    def _advance(self, params: Params, state: ConditionalState, y: Tensor) -> ConditionalState:
        """The state after a value less what covariates, line and waves add to it, (*draw, n)."""
        differences, _, _, mean = self._coefficients(params)
        z = y - (differences * state.levels).sum(-1) - mean
        z = torch.where(state.age >= self.n_differences, z, torch.zeros_like(z))
        scored = state.age >= self.n_conditioned
        e = y - self._expected(params, state)
        e = torch.where(scored, e, torch.zeros_like(e))
        variance = state.variance
        if self.volatility is not None:
            omega, alpha, beta = self._garch(params).unsqueeze(-2).unbind(-1)
            variance = torch.where(scored, omega + alpha * e**2 + beta * variance, variance)
        pairs = ((y, state.levels), (z, state.lags), (e, state.shocks))
        levels, lags, shocks = (torch.cat([new.unsqueeze(-1), old], -1)[..., : old.shape[-1]] for new, old in pairs)
        return ConditionalState(levels, lags, shocks, variance, state.age + 1)

    # trajectories -----------------------------------------------------------------------------------------------------

    def _run(self, params: Params, batch: Batch, state: ConditionalState) -> tuple[list[Tensor], Tensor, Tensor]:
        """Levels, differences and innovations behind those of the state (*draw, n, . + t); variances (*draw, n, t + 1).

        The last result is which steps are scored, (n, t).
        """
        self._check_complete(batch.seen[..., 0].sum(-1) == batch.lengths)
        draw, n, t = self._draw(params), batch.n, batch.t
        linear, own = self.linear, self._linear_params(params)
        levels = torch.cat([state.levels.flip(-1), linear._levels(own, batch, state.age)], -1)
        z = linear._differenced(levels) - linear._means(own).reshape(*draw, 1, 1)
        step = torch.arange(t)
        age = state.age.reshape(-1, n)[0]
        known = batch.real & (age.unsqueeze(-1) + step >= self.n_differences)
        z = torch.cat([state.lags.flip(-1), torch.where(known, z, torch.zeros_like(z))], -1)
        first = (self.n_conditioned - age).clamp_min(0)
        ar, ma = self.polynomials(params)
        d = len(ar)
        e, h = ConditionalInnovations.apply(
            ar,
            ma,
            z.reshape(d, n, -1),
            state.variance.reshape(d, n),
            self._garch(params).reshape(d, 3),
            state.shocks.flip(-1).reshape(d, n, self.n_shocks),
            self.lags,
            first.numpy(),
            batch.lengths.numpy(),
            self.volatility is not None,
        )
        e, h = e.reshape(*draw, n, -1), h.reshape(*draw, n, -1)
        return [levels, z, e], h, batch.real & (step >= first.unsqueeze(-1))

    def _states(self, series: list[Tensor], h: Tensor, age: Tensor, ends: Tensor) -> ConditionalState:
        """States after ``ends`` (n, s) steps, leaves (*draw, n, s, ...)."""
        sizes = (self.n_differences, self.n_lags, self.n_shocks)
        levels, lags, shocks = (windows(part, ends, size) for part, size in zip(series, sizes, strict=True))
        variance = h.gather(-1, ends.expand(*h.shape[:-1], ends.shape[-1]))
        return ConditionalState(levels, lags, shocks, variance, age.unsqueeze(-1) + ends)

    def _final(self, series: list[Tensor], h: Tensor, batch: Batch, state: ConditionalState) -> ConditionalState:
        last = self._states(series, h, state.age, batch.lengths.unsqueeze(-1))
        d = state.age.ndim
        return ConditionalState(*(leaf.squeeze(d) for leaf in last))

    def _scan(self, params: Params, batch: Batch, state: ConditionalState) -> Scan[ConditionalState]:
        series, h, _ = self._run(params, batch, state)
        before = torch.minimum(torch.arange(batch.t), batch.lengths.unsqueeze(-1))
        return Scan(self._states(series, h, state.age, before), self._final(series, h, batch, state))

    def _log_prob_steps(self, params: Params, batch: Batch, state: ConditionalState) -> Steps[ConditionalState]:
        series, h, scored = self._run(params, batch, state)
        e = series[2][..., self.n_shocks :]
        law = self.innovations.law(params, torch.zeros_like(e), h[..., :-1].sqrt(), len(self._draw(params)))
        values = law.log_prob(e.unsqueeze(-1))
        values = torch.where(scored, values, torch.zeros_like(values))
        return Steps(values, scored.unsqueeze(-1), None, self._final(series, h, batch, state))

    def _predictive(self, params: Params, batch: Batch, state: ConditionalState) -> tuple[Distribution, Tensor]:
        series, h, scored = self._run(params, batch, state)
        loc = batch.x[..., 0] - series[2][..., self.n_shocks :]
        law = self.innovations.law(params, loc, h[..., :-1].sqrt(), len(self._draw(params)))
        return law, scored.unsqueeze(-1)

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(
        self, params: Params, state: ConditionalState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if horizon > 1:
            return None  # sums of innovations that are not normal, or whose variance is not known
        law = self.predict_next(params, state, None if u is None else u.select(-2, 0))
        return law.map_batch(lambda part, event: part.unsqueeze(part.ndim - event))

    def _forecast_mean(self, params: Params, state: ConditionalState, u: Tensor | None, horizon: int) -> Tensor | None:
        added = self.linear._shift(self._linear_params(params), state.age, u, horizon)
        means, ahead = [], state
        for _ in range(horizon):
            means.append(self._expected(params, ahead))
            ahead = self._advance(params, ahead, means[-1])
        return (torch.stack(means, -1) + added).unsqueeze(-1)

    def _sample(
        self,
        params: Params,
        state: ConditionalState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, ConditionalState]:
        if temper is not None:
            return super()._sample(params, state, length, generator, u, temper)
        parts, begun = [], state
        if self.starts_itself and self.n_lags and not bool(state.age.any()):
            before = state._replace(age=state.age + self.n_conditioned)
            _, after = self._simulate(params, before, _BURN_IN + self.n_lags, generator)
            first = after.lags.flip(-1)[..., :length]
            mean = self.linear._means(self._linear_params(params)).reshape(*self._draw(params), 1, 1)
            parts.append(first + mean)
            size = first.shape[-1]
            lags = torch.cat([first.flip(-1), state.lags], -1)[..., : self.n_lags]
            begun = state._replace(lags=lags, age=state.age + size)
            length -= size
        x, final = self._simulate(params, begun, length, generator)
        x = torch.cat([*parts, x], -1)
        added = self.linear._shift(self._linear_params(params), state.age, u, x.shape[-1])
        return (x + added).unsqueeze(-1), final

    def _simulate(
        self, params: Params, state: ConditionalState, length: int, generator: torch.Generator | None
    ) -> tuple[Tensor, ConditionalState]:
        """Levels less what covariates, line and waves add, (*draw, n, length), and the state after them."""
        shape, draw = (*state.age.shape, length), len(self._draw(params))
        zero = torch.zeros(shape, dtype=self.dtype)
        noise = self.innovations.law(params, zero, torch.ones_like(zero), draw).sample((), generator)[..., 0]
        ar, ma = (part.detach().numpy() for part in self.polynomials(params))
        means = self.linear._means(self._linear_params(params)).detach().numpy()
        garch = self._garch(params).detach().reshape(-1, 3).numpy()
        n = shape[-2]
        # Overwritten by the kernel, so copies.
        leaves = [np.array(leaf.detach().reshape(len(ar), n, *leaf.shape[draw + 1 :]).numpy()) for leaf in state]
        shocks = noise.reshape(len(ar), n, length).numpy()
        moves, lags = self.volatility is not None, self.lags
        x = np.empty(shocks.shape)
        for d in range(len(ar)):
            x[d] = conditional_paths(
                lags.ar,
                ar[d],
                lags.ma,
                ma[d],
                lags.differences,
                means[d],
                *(leaf[d] for leaf in leaves),
                garch[d],
                moves,
                shocks[d],
            )
        after = [torch.from_numpy(leaf).reshape(old.shape) for leaf, old in zip(leaves, state, strict=True)]
        return torch.from_numpy(x).reshape(shape), ConditionalState(*after)._replace(age=state.age + length)
