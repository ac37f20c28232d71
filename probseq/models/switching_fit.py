"""Variational expectation maximisation of switching systems: where it begins, between tensors and arrays."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import ClusterError, kmeans2
from torch import Tensor

from probseq.distributions.params import Params
from probseq.models.base import Batch
from probseq.models.latent import VariationalExpectation, VariationalStart
from probseq.models.linear_system import LinearSystemModel
from probseq.models.switching import SwitchingState, SwitchingSystemModel
from probseq.models.switching_smoother import backward_paths
from probseq.models.switching_step import SwitchingCoefficients, given_regimes, improve

__all__ = ["FittedSwitchingModel"]

_FLOOR, _NONE, _ROUNDING = 1e-12, 1e-9, 1e-9
# Steps of EM for the one system that starts divide, and how certain they are of their division.
_STEPS, _SURE = 20, 0.9
_FEWEST = 2.0


class FittedSwitchingModel(SwitchingSystemModel, VariationalExpectation):
    """A `SwitchingSystemModel` that variational EM can fit."""

    def variational_starts(self, batch: Batch, n_starts: int, generator: torch.Generator) -> list[VariationalStart]:
        """One linear system, its time divided among the regimes: by how it moves locally, then by chance."""
        one = LinearSystemModel(self.observation, self.n_states, start="mean")
        params = one.em_start(batch, 1, "kmeans", generator)
        for _ in range(_STEPS):
            params = one.em_step(params, batch).params
        with torch.no_grad():
            states = one.smooth(params, batch).mean[0].numpy()
        values = {name: value[0].numpy() for name, value in params.items()}
        kk, r = self.n_regimes, self.n_states
        each = kk if self.emission == "own" else 1
        base = SwitchingCoefficients(
            np.full(kk, 1.0 / kk),
            np.full((kk, kk), 0.1 / kk) + 0.9 * np.eye(kk),
            np.tile(values["transition"], (kk, 1, 1)),
            np.zeros((kk, r)),
            np.tile(np.eye(r), (kk, 1, 1)),
            values["start_mean"],
            np.tile(values["loading"], (each, 1, 1)),
            np.tile(values["offset"], (each, 1)),
            np.tile(values["noise_scale"] ** 2, (each, 1)),
        )
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        lengths = batch.lengths.tolist()
        found = []
        for number in range(n_starts):
            local = self._local(states, lengths, rng) if number == 0 else None
            labels = [_segments(t, kk, rng) for t in lengths] if local is None else local
            sure, soft = (_SURE, (1.0 - _SURE) / (kk - 1)) if kk > 1 else (1.0, 0.0)
            belief = [np.where(np.arange(kk) == z[:, None], sure, soft) for z in labels]
            found.append(VariationalStart(self._tensors(base), belief))
        return found

    def _local(self, states: np.ndarray, lengths: list[int], rng: np.random.Generator) -> list[np.ndarray] | None:
        """Clusters of how the states move around each step; None where the data are too short or too much alike."""
        r = self.n_states
        rows, at = [], []
        width = max(4, 2 * r)
        for s, t in zip(states, lengths, strict=True):
            for i in range(1, t):
                around = slice(max(1, i - width), min(t, i + width + 1))
                after, past = s[around], s[around.start - 1 : around.stop - 1]
                c = np.concatenate([past, np.ones((len(past), 1))], 1)
                turn = np.linalg.solve(c.T @ c + 0.1 * len(c) * np.eye(r + 1), c.T @ after)
                rows.append([*turn.ravel(), *np.log(np.square(after - c @ turn).mean(0) + 1e-12)])
                at.append(i)
        if len(rows) < 10 * self.n_regimes or self.n_regimes == 1:
            return None
        table = np.array(rows)
        centre, spread = table.mean(0), table.std(0)
        # What differs by rounding only tells nothing apart.
        table = (table - centre) / np.where(spread > _ROUNDING * (1.0 + np.abs(centre)), spread, np.inf)
        if len(np.unique(table, axis=0)) < self.n_regimes:
            return None
        try:
            _, labels = kmeans2(table, self.n_regimes, minit="++", seed=rng, missing="raise")
        except ClusterError:
            return None
        found, first = [], 0
        for t in lengths:
            own = labels[first : first + max(0, t - 1)]
            first += max(0, t - 1)
            found.append(np.concatenate([own[:1], own]) if len(own) else np.zeros(t, dtype=int))
        return found

    def variational_step(
        self, start: VariationalStart, batch: Batch, weights: Tensor | None = None
    ) -> tuple[float, VariationalStart]:
        seen = batch.seen.numpy()
        x = np.where(seen, batch.x.double().numpy(), 0.0)
        centre, variance = _moments(x, seen)
        lengths = batch.lengths.tolist()
        each = np.ones(batch.n) if weights is None else weights.double().numpy()
        old = self._arrays(start.params)
        old = old._replace(offset=old.offset - centre)
        bound, new, belief = improve(
            old,
            start.belief,
            [np.where(seen[i, :t], x[i, :t] - centre, 0.0) for i, t in enumerate(lengths)],
            [seen[i, :t].astype(float) for i, t in enumerate(lengths)],
            each,
            _FLOOR * variance,
        )
        return bound, VariationalStart(self._tensors(new._replace(offset=new.offset + centre)), belief)

    def variational_problems(self, start: VariationalStart, batch: Batch) -> tuple[str, ...]:
        steps = sum(one.sum(0) for one in start.belief)
        said = [f"Regime {j} has lost all its steps." for j in range(self.n_regimes) if steps[j] < _FEWEST]
        _, variance = _moments(np.where(batch.seen.numpy(), batch.x.double().numpy(), 0.0), batch.seen.numpy())
        scale = np.atleast_2d(start.params["noise_scale"].numpy())
        for i in range(self.observation.n_variables):
            if (scale[:, i] ** 2 < _NONE * variance[i]).any():
                said.append(f"Variable {i} has no noise left: the states explain it exactly.")
        return tuple(said)

    # what was hidden --------------------------------------------------------------------------------------------------

    def filtered(self, params: Params, batch: Batch) -> list[SwitchingState]:
        """The belief after each step of the batch, (*draw, n, ...); steps behind the end of a sequence see nothing."""
        state, found = self.initial_state(params, batch.n), []
        with torch.no_grad():
            for t in range(batch.t):
                state = self._step(params, state, batch.x[:, t], batch.seen[:, t])[2]
                found.append(state)
        return found

    def sample_regimes(self, params: Params, batch: Batch, n_paths: int, generator: torch.Generator) -> Tensor:
        """Paths z_1..z_T given all the data, (n_paths, n, t) int64, -1 on padding; parameters of one draw, (1, ...)."""
        one = {name: value[0] for name, value in params.items()}
        found, log_moves = self.regimes(one), one["switching"].log()
        beliefs = self.filtered(one, batch)
        paths = torch.full((n_paths, batch.n, batch.t), -1, dtype=torch.long)
        with torch.no_grad():
            for i, t in enumerate(batch.lengths.tolist()):
                own = [SwitchingState(*(leaf[i] for leaf in belief)) for belief in beliefs[:t]]
                if t:
                    x, seen = batch.x[i, :t].to(self.dtype), batch.seen[i, :t]
                    paths[:, i, :t] = backward_paths(found, log_moves, own, x, seen, n_paths, generator)
        return paths

    def states_given(self, params: Params, batch: Batch, paths: Tensor) -> tuple[Tensor, Tensor]:
        """E[s_t | x_1..x_T] (n, t, r) and Var (n, t, r, r), averaged over paths of regimes, exact given each."""
        r = self.n_states
        centre, variance = np.zeros((batch.n, batch.t, r)), np.zeros((batch.n, batch.t, r, r))
        old, x, seen = self._arrays({n: v[0] for n, v in params.items()}), batch.x.double().numpy(), batch.seen.numpy()
        for i, t in enumerate(batch.lengths.tolist()):
            if not t:
                continue
            flags = seen[i, :t].astype(float)
            values = np.where(seen[i, :t], x[i, :t], 0.0)
            different, counts = np.unique(paths[:, i, :t].numpy(), axis=0, return_counts=True)
            means, covs = [], 0.0
            for path, count in zip(different, counts, strict=True):
                known = (path[:, None] == np.arange(self.n_regimes)).astype(float)
                moments = given_regimes(old, known, values, flags)
                means.append(moments.mean)
                covs = covs + count * moments.cov
            share = counts / counts.sum()
            centre[i, :t] = np.tensordot(share, np.array(means), 1)
            off = np.array(means) - centre[i, :t]
            variance[i, :t] = covs / counts.sum() + np.einsum("p,pta,ptb->tab", share, off, off)
        return torch.from_numpy(centre), torch.from_numpy(variance)

    # between tensors and arrays ---------------------------------------------------------------------------------------

    def _tensors(self, found: SwitchingCoefficients) -> dict[str, Tensor]:
        first = slice(None) if self.emission == "own" else 0
        arrays = {
            "initial": found.initial,
            "switching": found.switching,
            "transition": found.transition,
            "drift": found.drift,
            "shock_covariance": found.shock,
            "start_mean": found.start,
            "loading": found.loading[first],
            "offset": found.offset[first],
            "noise_scale": np.sqrt(found.noise[first]),
        }
        return {name: torch.from_numpy(np.array(arrays[name], dtype=float)) for name in self.parameters()}

    def _arrays(self, params: dict[str, Tensor]) -> SwitchingCoefficients:
        got = {name: value.detach().numpy() for name, value in params.items()}
        lead = (slice(None) if self.emission == "own" else None,)
        return SwitchingCoefficients(
            got["initial"],
            got["switching"],
            got["transition"],
            got["drift"],
            got["shock_covariance"],
            got["start_mean"],
            got["loading"][lead],
            got["offset"][lead],
            got["noise_scale"][lead] ** 2,
        )


def _moments(x: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each variable, (k,), of values that are zero where they are missing."""
    count = seen.sum((0, 1)).clip(1)
    centre = x.sum((0, 1)) / count
    variance = np.where(seen, np.square(x - centre), 0.0).sum((0, 1)) / count
    return centre, np.where(variance > 0, variance, 1e-20)


def _segments(t: int, n_regimes: int, rng: np.random.Generator) -> np.ndarray:
    """A path that stays where it is for a tenth of the series, on average."""
    stay = 1.0 - 1.0 / max(5.0, 0.1 * t)
    found = np.empty(t, dtype=int)
    now = int(rng.integers(n_regimes))
    for i in range(t):
        if rng.random() > stay:
            now = int(rng.integers(n_regimes))
        found[i] = now
    return found
