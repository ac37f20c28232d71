"""Seasonal ARIMA with covariates: a linear-Gaussian sequence model, exact with gaps and differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Observation
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, standard_normals
from probseq.distributions.params import Params, ParamSpec, Positive, Real
from probseq.errors import CovariateError, ShapeError
from probseq.kernels.arima import state_space
from probseq.kernels.kalman import DIFFUSE_ZERO, SCORED, System, advance, condition, filter_states
from probseq.kernels.kalman_stops import filter_to_stops
from probseq.models.arma_filter import differentiable, filtered, fresh_state, plain_polynomials
from probseq.models.arma_forecast import forecast_joint, forecast_marginals
from probseq.models.arma_likelihood import ARMAProfile
from probseq.models.arma_orders import FACTORS, Order, SeasonalOrder, check_orders, lag_structure, multiply_factors
from probseq.models.arma_paths import simulate_paths
from probseq.models.arma_state import ARMAState, Workspace
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.concentrated import ConcentratedLikelihood
from probseq.models.deterministic import Deterministic
from probseq.models.innovations import GappedInnovations, Innovations
from probseq.models.integrated import IntegratedLikelihood
from probseq.models.missing_likelihood import MissingProfile, few_missing
from probseq.models.sparse_likelihood import SparseProfile

__all__ = ["ARMAModel", "ARMAState"]


class ARMAModel(SequenceModel[ARMAState], ConcentratedLikelihood, IntegratedLikelihood):
    r"""phi(B) Phi(B^s) (Delta(B) (x_t - u_t' beta - w_t' gamma) - mu - tau t) = theta(B) Theta(B^s) e_t.

    e_t ~ N(0, scale^2), phi(B) = 1 - sum_j ar_j B^j, theta(B) = 1 + sum_j ma_j B^j, Delta(B) = (1 - B)^d (1 - B^s)^D,
    and in the same signs the seasonal factors; j runs over the lags of each. w_t are sines and cosines of the number t
    of the step, 1 at the start of a sequence. The likelihood is exact: a stationary start for the differenced process,
    a diffuse one for the levels; steps whose predictive is still diffuse (the first d + s D without gaps) are
    conditioned on, not scored.

    Parameters
    ----------
    observation : Observation
        One continuous variable.
    order : (p, d, q)
        p and q are numbers, for the lags 1, ..., p, or tuples of lags.
    seasonal_order : (P, D, Q, s)
        The same, in seasons.
    constant : bool
        Whether mu, the mean of the differenced series, is a parameter; it is zero otherwise.
    n_covariates : int
    trend : bool
        Whether tau, the slope of the differenced series, is a parameter; it is zero otherwise.
    fourier : pairs of a period and the number of its harmonics
        What w_t are; `Deterministic` says more.

    Raises
    ------
    ParameterError
        For orders that are negative, lags that are not distinct and positive, a season shorter than two steps, and
        Fourier terms that repeat each other or that the differences remove.
    ShapeError
        For more than one variable.
    """

    def __init__(
        self,
        observation: Observation,
        order: Order = (1, 0, 0),
        seasonal_order: SeasonalOrder = (0, 0, 0, 1),
        constant: bool = True,
        n_covariates: int = 0,
        trend: bool = False,
        fourier: Iterable[tuple[float, int]] = (),
    ) -> None:
        check_orders(order, seasonal_order)
        if observation.n_variables != 1 or observation.discrete:
            raise ShapeError(
                got=f"{observation.n_variables} variables with {observation.measure} measure for an ARMA model",
                expected="one continuous variable",
                remedy="Select one column, or fit one model a column.",
            )
        self.observation = observation
        known = lag_structure(order, seasonal_order)
        self.order, self.seasonal_order = known.order, known.seasonal_order
        self.own_lags, self.lags, self.counts, self.all_lags = known.own_lags, known.lags, known.counts, known.all_lags
        self.sparse = any(isinstance(part, tuple) for part in (*self.order, *self.seasonal_order))
        d, (_, seasonal_d, _, period) = self.order[1], self.seasonal_order
        self.constant, self.n_covariates = constant, n_covariates
        self.terms = Deterministic(constant, trend, fourier, d, seasonal_d, period)
        self.period = period
        self.n_differences = self.lags.differences.size
        highest = [int(lags[-1]) if lags.size else 0 for lags in (self.lags.ar, self.lags.ma)]
        self.n_hidden = max(highest[0], highest[1] + 1)
        self.state_size = self.n_hidden + self.n_differences
        self._specs = dict(known.specs)
        if constant:
            self._specs["mean"] = ParamSpec((), Real())
        if trend:
            self._specs["trend"] = ParamSpec((), Real())
        if self.terms.waves:
            self._specs["fourier"] = ParamSpec((len(self.terms.waves),), Real(), ("fourier_term",))
        if n_covariates:
            self._specs["coefficients"] = ParamSpec((n_covariates,), Real(), ("covariate",))
        self._specs["scale"] = ParamSpec((), Positive())

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    def concentrated(self, batch: Batch, weights: Tensor | None = None) -> ARMAProfile:
        kind = MissingProfile if few_missing(self, batch) else SparseProfile if self.sparse else ARMAProfile
        return kind(self, batch, weights)

    def integrated(self, batch: Batch, weights: Tensor | None = None) -> ARMAProfile:
        return (SparseProfile if self.sparse else ARMAProfile)(self, batch, weights)

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        profile = self.concentrated(batch)
        return profile.parameters(min(profile.starts(0, generator), key=lambda x: profile.objective(x)[0]))

    # polynomials and state space ----------------------------------------------------------------------------------

    def _product(self, params: Params, first: int, sign: float, lags: np.ndarray) -> Tensor:
        """Coefficients (D, len(lags)) of the product of a plain and a seasonal factor, draws flattened."""
        one = torch.ones_like(params["scale"].reshape(-1, 1))
        plain, seasonal = (
            sign * params[FACTORS[i]].reshape(len(one), -1) if FACTORS[i] in params else None
            for i in (first, first + 2)
        )
        own = self.own_lags
        poly = multiply_factors(plain, own[first], seasonal, own[first + 2], self.period, one)
        return sign * poly[:, torch.from_numpy(lags)]

    def polynomials(self, params: Params) -> tuple[Tensor, Tensor]:
        """Full autoregressive (D, a) and moving-average (D, b) coefficients at ``lags.ar`` and ``lags.ma``."""
        if not differentiable(params):
            ar, ma = plain_polynomials(self, params)
            return torch.from_numpy(ar), torch.from_numpy(ma)
        return (
            self._product(params, 0, -1.0, self.lags.ar),
            self._product(params, 1, 1.0, self.lags.ma),
        )

    def _systems(self, params: Params) -> list[tuple[System, np.ndarray, np.ndarray]]:
        """State space, first covariance and its infinite part, for every draw."""
        ar, ma = plain_polynomials(self, params)
        return [state_space(self.lags.ar, a, self.lags.ma, b, self.lags.differences)[:3] for a, b in zip(ar, ma)]

    def _means(self, params: Params) -> Tensor:
        """Mean of the differenced series, (D,)."""
        scale = params["scale"].reshape(-1)
        return params["mean"].reshape(-1) if self.constant else torch.zeros_like(scale)

    def _regression(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        """u' beta for u of shape (..., m) with ``trailing`` dimensions after those of the draws."""
        if not self.n_covariates:
            return 0.0
        if u is None:
            raise CovariateError(
                got="no covariates", expected=f"{self.n_covariates} at every step", remedy="Pass covariates=."
            )
        beta = params["coefficients"]
        return (u * beta.reshape(*beta.shape[:-1], *(1,) * trailing, -1)).sum(-1)

    def _shift(self, params: Params, age: Tensor, u: Tensor | None, n_steps: int | None = None) -> Tensor | float:
        """What covariates, line and waves add to the levels of the step after ``age``, or of ``n_steps`` from there."""
        terms = self.terms.added(params.get("trend"), params.get("fourier"), age, n_steps)
        return self._regression(params, u, 1 if n_steps is None else 2) + terms

    # the one-step law -----------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> ARMAState:
        return fresh_state(self, params, n)

    def _weights(self, params: Params) -> tuple[Tensor, Tensor]:
        """Where the observation row is not zero (l,), and its values (*draw, l)."""
        c = torch.from_numpy(self.lags.differences)
        at = torch.nonzero(c).squeeze(-1)
        _, ma = self.polynomials(params)
        index = torch.cat([torch.zeros(1, dtype=torch.long), torch.from_numpy(self.lags.ma), self.n_hidden + at])
        z = torch.cat([torch.ones(len(ma), 1, dtype=self.dtype), ma, c[at].expand(len(ma), -1)], -1)
        return index, z.reshape(*self._draw(params), -1)

    def scores_next(self, state: ARMAState) -> Tensor | None:
        if not self.n_differences or not bool(state.diffuse.any()):
            return None
        n, m = state.diffuse.shape[-3], self.n_differences
        diffuse = state.diffuse.reshape(-1, n, m, m)[0]
        c = torch.from_numpy(self.lags.differences)
        spread = torch.einsum("i,nij,j->n", c, diffuse, c)
        largest = diffuse.diagonal(dim1=-2, dim2=-1).amax(-1)
        return (spread <= DIFFUSE_ZERO * largest).unsqueeze(-1)

    def predict_next(self, params: Params, state: ARMAState, u: Tensor | None = None) -> DiagonalNormal:
        index, z = self._weights(params)
        row = z.unsqueeze(-2)
        mean = (row * state.mean[..., index]).sum(-1)
        variance = (row * (state.cov[..., index, :][..., index] @ z[..., None, :, None]).squeeze(-1)).sum(-1)
        drift = self._means(params).reshape(*self._draw(params), 1)
        scale = params["scale"].unsqueeze(-1) * variance.sqrt()
        loc = mean + drift + self._shift(params, state.age, u)
        return DiagonalNormal(loc=loc.unsqueeze(-1), scale=scale.unsqueeze(-1))

    def update(self, params: Params, state: ARMAState, x: Tensor, seen: Tensor, u: Tensor | None = None) -> ARMAState:
        y = (x[..., 0] - self._shift(params, state.age, u)).expand(state.age.shape)
        y = self._flat(y, 0) - self._means(params).detach().numpy()[:, None]
        work = Workspace(state, self._draw(params))
        flags = self._flat(seen[..., 0].expand(state.age.shape), 0)
        for d, system, shift in self._draws(params):
            for rows in work.groups(d, flags[d]):
                mean, cov, diffuse = work.take(d, rows)
                condition(system, y[d, rows], bool(flags[d, rows[0]]), mean, cov, diffuse, np.empty(len(rows)))
                advance(system, np.tile(shift, (len(rows), 1)), mean, cov, diffuse)
                work.put(d, rows, mean, cov, diffuse)
        return work.close(state.age + 1)

    # trajectories -----------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: ARMAState) -> Scan[ARMAState]:
        draw = self._draw(params)
        y = self._flat(self._levels(params, batch, state.age), 1) - self._means(params).detach().numpy()[:, None, None]
        seen, lengths = batch.seen[..., 0].numpy(), batch.lengths.numpy()
        work = Workspace(state, self._draw(params))
        k, m = self.state_size, self.n_differences
        size = (len(y), batch.n, batch.t)
        means, covs, diffuses = np.empty((*size, k)), np.empty((*size, k, k)), np.empty((*size, m, m))
        for d, system, shift in self._draws(params):
            for i in range(batch.n):
                mean, cov, diffuse = work.take(d, np.array([i]))
                t = int(lengths[i])
                _, _, _, *along = filter_states(
                    system, shift, y[d, i : i + 1, :t], seen[i, :t], mean, cov, diffuse, True
                )
                work.put(d, np.array([i]), mean, cov, diffuse)
                means[d, i, :t], means[d, i, t:] = along[0][:, 0], mean[0]
                covs[d, i, :t], covs[d, i, t:] = along[1], cov
                diffuses[d, i, :t], diffuses[d, i, t:] = along[2][:, k - m :, k - m :], diffuse[k - m :, k - m :]
        final = work.close(state.age + batch.lengths)
        step = torch.minimum(torch.arange(batch.t), batch.lengths.unsqueeze(-1))
        a, b, c = (torch.from_numpy(part).reshape(*draw, *part.shape[1:]) for part in (means, covs, diffuses))
        return Scan(ARMAState(a, b, c, state.age.unsqueeze(-1) + step), final)

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: ARMAState) -> ARMAState:
        draw = self._draw(params)
        y = self._flat(self._levels(params, batch, state.age), 1) - self._means(params).detach().numpy()[:, None, None]
        seen, stops = batch.seen[..., 0].numpy(), steps.numpy()
        order = np.argsort(stops, axis=-1, kind="stable")
        work = Workspace(state, draw)
        k, m, size = self.state_size, self.n_differences, (len(y), *stops.shape)
        means, covs, diffuses = np.empty((*size, k)), np.empty((*size, k, k)), np.empty((*size, m, m))
        for d, system, shift in self._draws(params):
            for i in range(batch.n):
                start, kept = work.take(d, np.array([i])), (means[d, i], covs[d, i], diffuses[d, i])
                filter_to_stops(system, shift, y[d, i], seen[i], *start, stops[i], order[i], *kept)
        a, b, c = (torch.from_numpy(part).reshape(*draw, *part.shape[1:]) for part in (means, covs, diffuses))
        return ARMAState(a, b, c, state.age.unsqueeze(-1) + steps)

    def _log_prob_fresh(self, params: Params, batch: Batch) -> Steps[ARMAState]:
        age = torch.zeros(*self._draw(params), batch.n, dtype=torch.long)
        quick = None if differentiable(params, batch.x, batch.u) else filtered(self, params, batch, age)
        return super()._log_prob_fresh(params, batch) if quick is None else quick

    def _log_prob_steps(self, params: Params, batch: Batch, state: ARMAState) -> Steps[ARMAState]:
        draw = self._draw(params)
        quick = None if differentiable(params, batch.x, batch.u) else filtered(self, params, batch, state.age)
        if quick is not None:
            return quick
        e, f, scored, final = self._innovations(params, batch, state)
        variance = f * params["scale"].reshape(-1, 1, 1) ** 2
        values = -0.5 * (math.log(2 * math.pi) + torch.log(variance) + e * e / variance)
        values = torch.where(scored, values, torch.zeros_like(values)).reshape(*draw, batch.n, batch.t)
        return Steps(values, scored.unsqueeze(-1), None, final)

    def _predictive(self, params: Params, batch: Batch, state: ARMAState) -> tuple[DiagonalNormal, Tensor]:
        e, f, scored, _ = self._innovations(params, batch, state, every=True)
        shape = (*self._draw(params), batch.n, batch.t, 1)
        loc = (batch.x[..., 0] - e).reshape(shape)
        scale = (f.sqrt() * params["scale"].reshape(-1, 1, 1)).reshape(shape)
        return DiagonalNormal(loc=loc, scale=scale), scored.unsqueeze(-1)

    def _levels(self, params: Params, batch: Batch, age: Tensor) -> Tensor:
        """x_t less what covariates, line and waves add, (*draw, n, t)."""
        levels = batch.x[..., 0].to(self.dtype) - self._shift(params, age, batch.u, batch.t)
        return levels.expand(*self._draw(params), batch.n, batch.t)

    def _innovations(
        self, params: Params, batch: Batch, state: ARMAState, every: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, ARMAState]:
        """x_t - E[x_t | x_<t] (D, n, t), variances over scale^2 (D, n, t), scored mask (n, t), last state.

        Fresh sequences without gaps run in O(t r) through their differences; all others through the Kalman filter.
        With ``every`` the steps that are only conditioned on get their predictive too.
        """
        m, mu = self.n_differences, self._means(params)
        levels = self._levels(params, batch, state.age).reshape(len(mu), batch.n, batch.t)
        ar, ma = self.polynomials(params)
        seen = batch.seen[..., 0]
        fresh = (state.age == 0).reshape(len(mu), batch.n).all(0)
        whole = fresh & (seen.sum(-1) == batch.lengths) & (batch.lengths > m)
        work = Workspace(state, self._draw(params))
        scored = torch.zeros_like(seen)
        e_of: dict[int, Tensor] = {}
        f_of: dict[int, Tensor] = {}
        rows = torch.nonzero(whole).squeeze(-1)
        if len(rows):
            y, lengths = levels[:, rows], batch.lengths[rows]
            w = self._differenced(y) - mu[:, None, None]
            inside = torch.arange(batch.t - m) < (lengths - m).unsqueeze(-1)
            w = torch.where(inside, w, torch.zeros_like(w))
            e, f, mean, cov = Innovations.apply(ar, ma, w, self.lags, (lengths - m).numpy())
            e, f = torch.nn.functional.pad(e, (m, 0)), torch.nn.functional.pad(f, (m, 0), value=1.0)
            scored[rows] = torch.nn.functional.pad(inside, (m, 0))
            work.put_complete(rows.numpy(), mean.numpy(), cov.numpy(), y.detach().numpy(), lengths.numpy())
            if len(rows) == batch.n and not (every and m):
                return e, f.unsqueeze(1).expand(e.shape), scored, work.close(state.age + batch.lengths)
            e_of, f_of = {i: e[:, j] for j, i in enumerate(rows.tolist())}, dict.fromkeys(rows.tolist(), f)
        for i in torch.nonzero(~whole | (whole & (every and m > 0))).squeeze(-1).tolist():
            t = int(batch.lengths[i]) if not whole[i] else m
            start = work.start(i) if not (bool(fresh[i]) or whole[i]) else None
            e, f, status, *after = GappedInnovations.apply(
                ar, ma, levels[:, i, :t] - mu[:, None], mu, seen[i, :t].numpy(), start, self.lags
            )
            if whole[i]:
                e_of[i], f_of[i] = (torch.cat([new, old[:, m:]], -1) for new, old in ((e, e_of[i]), (f, f_of[i])))
                continue
            e_of[i] = torch.nn.functional.pad(e, (0, batch.t - t))
            f_of[i] = torch.nn.functional.pad(f, (0, batch.t - t), value=1.0)
            scored[i, :t] = status[0] == SCORED
            work.put_row(i, *(part.numpy() for part in after))
        e, f = (torch.stack([of[i] for i in range(batch.n)], 1) for of in (e_of, f_of))
        return e, f, scored, work.close(state.age + batch.lengths)

    def _differenced(self, y: Tensor) -> Tensor:
        """Delta(B) y along the last axis, (..., t) -> (..., t - m)."""
        m, t = self.n_differences, y.shape[-1]
        w = y[..., m:]
        for j in np.nonzero(self.lags.differences)[0].tolist():
            w = w - float(self.lags.differences[j]) * y[..., m - 1 - j : t - 1 - j]
        return w

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(
        self, params: Params, state: ARMAState, u: Tensor | None, horizon: int
    ) -> DiagonalNormal | None:
        return forecast_marginals(self, params, state, u, horizon)

    def _forecast_joint(self, params: Params, state: ARMAState, u: Tensor | None, horizon: int) -> FullNormal | None:
        return forecast_joint(self, params, state, u, horizon)

    def _located(self, params: Params, state: ARMAState, y: np.ndarray, u: Tensor | None, horizon: int) -> Tensor:
        """Levels (D, n, horizon) with what the mean, covariates, line and waves add, (*draw, n, horizon)."""
        drift = self._means(params).reshape(*self._draw(params), 1, 1)
        levels = torch.from_numpy(y).reshape(*state.age.shape, horizon) + drift
        return levels + self._shift(params, state.age, u, horizon)

    def _sample(
        self,
        params: Params,
        state: ARMAState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, ARMAState]:
        if temper is not None:
            return super()._sample(params, state, length, generator, u, temper)
        noise = standard_normals((*state.age.shape, length), params["scale"], generator)
        shocks = self._flat(noise.mul_(params["scale"][..., None, None]), 1)
        y, after = simulate_paths(self, params, state, shocks)
        return self._located(params, state, y, u, length).unsqueeze(-1), after

    # arrays -----------------------------------------------------------------------------------------------------------

    def _draws(self, params: Params) -> Iterator[tuple[int, System, np.ndarray]]:
        """Number, state space and state intercept (1, k) of every draw."""
        means = self._means(params).detach().numpy()
        for d, (system, _, _) in enumerate(self._systems(params)):
            shift = np.zeros((1, self.state_size))
            if self.n_differences:
                shift[0, self.n_hidden] = means[d]
            yield d, system, shift

    @staticmethod
    def _flat(tensor: Tensor, trailing: int) -> np.ndarray:
        """(*draw, n, ...) as an array (D, n, ...) with ``trailing`` dimensions after n."""
        shape = tensor.shape
        at = len(shape) - 1 - trailing
        return np.ascontiguousarray(tensor.detach().reshape(math.prod(shape[:at]), *shape[at:]).numpy())
