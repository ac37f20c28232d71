"""General linear-Gaussian state-space models: what every such family shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor
from probseq.distributions.params import Params
from probseq.kernels.linear_gaussian import filter_series
from probseq.kernels.linear_gaussian_diffuse import proper_coordinates
from probseq.kernels.linear_gaussian_forecast import forecast_covs, forecast_joint, forecast_means, simulate
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state
from probseq.models.linear_gaussian_likelihood import FilteredValues, patterns_of
from probseq.models.linear_gaussian_smoothing import SmoothedStates, smooth_groups
from probseq.models.linear_gaussian_state import GaussianState, StateSpace, Workspace, as_array, systems

__all__ = ["GaussianState", "LinearGaussianModel", "SmoothedStates", "StateSpace", "real_steps"]

_TOGETHER = 2**20
"""Numbers in one covariance of the states of all paths that are smoothed at once."""


class LinearGaussianModel(SequenceModel[GaussianState]):
    r"""x_t = Z s_t + d + B u_t + eps_t, eps_t ~ N(0, H); s_(t+1) = T s_t + c + eta_t, eta_t ~ N(0, Q).

    The likelihood is exact, with any coordinates missing at any step and with an exact diffuse start: coordinates
    whose predictive is still diffuse are conditioned on, not scored. A subclass gives ``parameters`` and ``system``
    (and ``inputs`` where it takes covariates); gradients flow to everything in the system.

    References
    ----------
    Durbin and Koopman (2012), Time Series Analysis by State Space Methods, chapters 4 and 5.
    """

    @abstractmethod
    def system(self, params: Params) -> StateSpace:
        """The state space at these parameters; leaves that do not depend on them may lack the draw dimensions."""

    def inputs(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        """What covariates add to the mean, (*draw, ..., k), for u (..., m) with ``trailing`` dimensions after draws."""
        return 0.0

    def _space(self, params: Params) -> StateSpace:
        return self.system(params).with_draws(self._draw(params))

    # the one-step law -------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> GaussianState:
        space, draw = self._space(params), self._draw(params)
        k, r = space.design.shape[-2:]
        diffuse = torch.zeros(r, r, dtype=self.dtype) if space.diffuse is None else space.diffuse.to(self.dtype)
        proper = np.ones((space.design[..., 0, 0].numel(), k), dtype=bool)
        infinite = as_array(diffuse)
        for i, system in enumerate(systems(space)):
            proper_coordinates(system.z, infinite, proper[i])
        return GaussianState(
            space.mean.unsqueeze(-2).expand(*draw, n, r),
            space.cov.unsqueeze(-3).expand(*draw, n, r, r),
            diffuse.expand(*draw, n, r, r),
            torch.from_numpy(proper).reshape(*draw, 1, k).expand(*draw, n, k),
            torch.zeros(*draw, n, dtype=torch.long),
        )

    def scores_next(self, state: GaussianState) -> Tensor | None:
        n, k = state.proper.shape[-2:]
        return state.proper.reshape(-1, n, k)[0]

    def _law(self, loc: Tensor, cov: Tensor) -> Distribution:
        if self.observation.n_variables == 1:
            return DiagonalNormal(loc=loc, scale=cov[..., 0].sqrt())
        return FullNormal(loc=loc, scale_tril=lower_factor(cov))

    def predict_next(self, params: Params, state: GaussianState, u: Tensor | None = None) -> Distribution:
        space = self._space(params)
        z = space.design.unsqueeze(-3)
        loc = (z @ state.mean.unsqueeze(-1)).squeeze(-1) + space.offset.unsqueeze(-2) + self.inputs(params, u, 1)
        return self._law(loc, z @ state.cov @ z.mT + space.noise.unsqueeze(-3))

    def update(
        self, params: Params, state: GaussianState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> GaussianState:
        draw, n, k = self._draw(params), state.mean.shape[-2], x.shape[-1]
        y = (x.to(self.dtype) - self.inputs(params, u, 1)).expand(*draw, n, k).detach().reshape(-1, n, 1, k)
        flags = seen.expand(*draw, n, k).reshape(-1, n, 1, k)
        work = Workspace(state, draw)
        self._run(params, work, y.numpy(), flags.numpy(), np.ones(n, dtype=np.int64))
        return work.close(state.age + 1)

    # trajectories -----------------------------------------------------------------------------------------------------

    def _run(
        self, params: Params, work: Workspace, y: np.ndarray, seen: np.ndarray, lengths: np.ndarray, keep: bool = False
    ) -> tuple[np.ndarray, ...]:
        """Filter y (D, n, t, k) in groups, without gradients; with ``keep`` the states before every step.

        seen : (D, n, t, k) or (n, t, k) bool. Steps behind the end of a sequence hold its last state.
        """
        size, k, r = (*y.shape[:3],), y.shape[3], work.mean.shape[-1]
        kept = size if keep else (0, 0, 0)
        means, covs, diffuses = np.empty((*kept, r)), np.empty((*kept, r, r)), np.empty((*kept, r, r))
        propers = np.ones((*kept, k), dtype=bool)
        for d, system in enumerate(systems(self._space(params))):
            flags = seen if seen.ndim == 3 else seen[d]
            for rows in work.groups(d, patterns_of(flags, lengths)):
                t = int(lengths[rows[0]])
                state = work.take(d, rows)
                data = np.ascontiguousarray(y[d, rows, :t]), np.ascontiguousarray(flags[rows[0], :t])
                _, proper, *along = filter_series(system, *data, *state, keep)
                work.put(d, rows, *state, proper[t])
                if keep:
                    means[d, rows, :t], means[d, rows, t:] = along[0].swapaxes(0, 1), state[0][:, None]
                    covs[d, rows, :t], covs[d, rows, t:] = along[1], state[1]
                    diffuses[d, rows, :t], diffuses[d, rows, t:] = along[2], state[2]
                    propers[d, rows, :t], propers[d, rows, t:] = proper[:t], proper[t]
        return means, covs, diffuses, propers

    def _centred(self, params: Params, batch: Batch, state: GaussianState) -> Tensor:
        """x_t less what covariates add, (D, n, t, k), zero on padding; x may carry the draw dimensions."""
        shape = batch.x.shape[-3:]
        x = batch.x.to(self.dtype) - self.inputs(params, batch.u, 2)
        x = x.expand(*self._draw(params), *shape).reshape(-1, *shape)
        return torch.where(real_steps(batch), x, torch.zeros_like(x))

    def _scan(self, params: Params, batch: Batch, state: GaussianState) -> Scan[GaussianState]:
        draw = self._draw(params)
        work = Workspace(state, draw)
        y = as_array(self._centred(params, batch, state))
        along = self._run(params, work, y, as_array(batch.seen), batch.lengths.numpy(), True)
        final = work.close(state.age + batch.lengths)
        step = torch.minimum(torch.arange(batch.t), batch.lengths.unsqueeze(-1))
        mean, cov, diffuse, proper = (torch.from_numpy(part).reshape(*draw, *part.shape[1:]) for part in along)
        return Scan(GaussianState(mean, cov, diffuse, proper, state.age.unsqueeze(-1) + step), final)

    def _log_prob_steps(self, params: Params, batch: Batch, state: GaussianState) -> Steps[GaussianState]:
        draw, space = self._draw(params), self._space(params)
        d = len(draw)
        work = Workspace(state, draw)
        leaves = (leaf.reshape(-1, *leaf.shape[d:]) for leaf in space[:6])
        starts = (leaf.reshape(-1, *leaf.shape[d:]) for leaf in state[:2])
        y, seen = self._centred(params, batch, state), as_array(batch.seen)
        values, proper = FilteredValues.apply(*leaves, *starts, y, seen, batch.lengths.numpy(), work)
        scored = batch.seen & proper.reshape(-1, *batch.x.shape)[0]
        final = work.close(state.age + batch.lengths)
        return Steps(values.reshape(*draw, batch.n, batch.t), scored, None, final)

    def smooth(self, params: Params, batch: Batch, state: GaussianState | None = None) -> SmoothedStates:
        """Moments of states, values and disturbances given all values of each sequence; exact, no gradients."""
        start = self.initial_state(params, batch.n) if state is None else state
        draw = self._draw(params)
        y, seen = as_array(self._centred(params, batch, start)), as_array(batch.seen)
        found = list(systems(self._space(params)))
        smoothed = smooth_groups(found, Workspace(start, draw), y, seen, batch.lengths.numpy())
        shaped = SmoothedStates(*(leaf.reshape(*draw, *leaf.shape[1:]) for leaf in smoothed))
        added = self.inputs(params, batch.u, 2)
        if isinstance(added, Tensor):
            added = torch.where(real_steps(batch), added.detach(), torch.zeros_like(added))
        return shaped._replace(x=shaped.x + added, signal=shaped.signal + added)

    def sample_values(
        self,
        params: Params,
        batch: Batch,
        n_paths: int,
        generator: torch.Generator | None = None,
        state: GaussianState | None = None,
    ) -> Tensor:
        """Joint draws of all values given those that were seen, (n_paths, *draw, n, t, k); zero variance at these.

        A path from the model's own law is moved by what smoothing says of it and of the data (Durbin and Koopman 2002,
        Biometrika 89, 603-615); where the start is diffuse any finite one will do.
        """
        start = self.initial_state(params, batch.n) if state is None else state
        expected = self.smooth(params, batch, start).x
        draws = len(self._draw(params))
        size = batch.n * batch.t * start.mean.shape[-1] ** 2
        paths = []
        for first in range(0, n_paths, max(1, _TOGETHER // max(1, size))):
            m = min(n_paths - first, max(1, _TOGETHER // max(1, size)))
            many = map_state(lambda leaf, m=m: torch.cat([leaf] * m, draws), start)
            seen, lengths = batch.seen.repeat(m, 1, 1), batch.lengths.repeat(m)
            u = None if batch.u is None else batch.u.repeat(m, 1, 1)
            certain = many._replace(diffuse=torch.zeros_like(many.diffuse))
            x, _ = self.sample(params, certain, batch.t, generator, u)
            moved = x - self.smooth(params, Batch(x, seen, lengths, u), many).x
            paths.append(moved.unflatten(draws, (m, batch.n)).movedim(draws, 0))
        return expected + torch.cat(paths)

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_means(self, params: Params, work: Workspace, u: Tensor | None, horizon: int) -> Tensor:
        """(*draw, n, horizon, k)."""
        found = [forecast_means(system, work.mean[d], horizon) for d, system in enumerate(systems(self._space(params)))]
        loc = torch.from_numpy(np.stack(found))
        return loc.reshape(*self._draw(params), *loc.shape[1:]) + self.inputs(params, u, 2)

    def _forecast_spread(
        self, params: Params, work: Workspace, horizon: int, spread: Callable[..., np.ndarray]
    ) -> Tensor:
        """What a kernel makes of the covariance of every sequence, (*draw, n, ...)."""
        rows_of: list[np.ndarray] = []
        for d, system in enumerate(systems(self._space(params))):
            each: list[np.ndarray] = [np.empty(0)] * work.mean.shape[1]
            for rows in work.groups(d):
                found = spread(system, work.cov[d, rows[0]], horizon)
                for i in rows:
                    each[i] = found
            rows_of.append(np.stack(each))
        whole = torch.from_numpy(np.stack(rows_of))
        return whole.reshape(*self._draw(params), *whole.shape[1:])

    def _forecast_marginals(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if bool((state.diffuse != 0).any()):
            return None
        work = Workspace(state, self._draw(params))
        covs = self._forecast_spread(params, work, horizon, forecast_covs)
        return self._law(self._forecast_means(params, work, u, horizon), covs)

    def _forecast_joint(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> FullNormal | None:
        """The joint normal law of the next steps, batch (*draw, n), event (horizon * k,), step after step."""
        if bool((state.diffuse != 0).any()):
            return None
        work = Workspace(state, self._draw(params))
        cov = self._forecast_spread(params, work, horizon, forecast_joint)
        loc = self._forecast_means(params, work, u, horizon)
        return FullNormal(loc=loc.flatten(-2), scale_tril=lower_factor(cov))

    def _sample(
        self,
        params: Params,
        state: GaussianState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, GaussianState]:
        if temper is not None:
            return super()._sample(params, state, length, generator, u, temper)
        work = Workspace(state, self._draw(params))
        shape = (*state.age.shape, length, self.observation.n_variables)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype)
        shocks = noise.reshape(-1, *shape[-3:]).numpy()
        x = np.empty(shocks.shape)
        for d, system in enumerate(systems(self._space(params))):
            proper = np.ones(shape[-1], dtype=bool)
            for rows in work.groups(d):
                start = work.take(d, rows)
                x[d, rows] = simulate(system, np.ascontiguousarray(shocks[d, rows]), *start)
                proper_coordinates(system.z, start[2], proper)
                work.put(d, rows, *start, proper)
        return torch.from_numpy(x).reshape(shape) + self.inputs(params, u, 2), work.close(state.age + length)


def real_steps(batch: Batch) -> Tensor:
    """(n, t, 1) bool, False for padding, also where x carries draw dimensions."""
    return (torch.arange(batch.x.shape[-2]) < batch.lengths.unsqueeze(-1)).unsqueeze(-1)
