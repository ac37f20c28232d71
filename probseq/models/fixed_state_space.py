"""A linear-Gaussian state space whose matrices are known: the model of results that another library found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Observation
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.params import Params, ParamSpec
from probseq.models.base import Batch, Scan, Steps
from probseq.models.linear_gaussian import LinearGaussianModel, SmoothedStates
from probseq.models.linear_gaussian_state import GaussianState, StateSpace

__all__ = ["FixedStateSpace", "KnownSystem"]


@dataclass(frozen=True, eq=False, repr=False)
class KnownSystem(Record):
    """x_t = Z s_t + d + B u_t + eps_t, Var eps_t = H; s_(t+1) = T s_t + c + G u_(t+1) + eta_t, Var eta_t = Q.

    s_1 ~ N(a1, P1 + kappa D) with kappa to infinity; the covariates of a sequence's first step do not drive its state.

    Parameters
    ----------
    name : str
        What the state space is of.
    design : Z (k, r). offset : d (k,). noise : H (k, k). transition : T (r, r). drift : c (r,). spread : Q (r, r).
    mean : a1 (r,). cov : P1 (r, r). diffuse : D (r, r).
    coefficients : B (k, m). drive : G (r, m) or None for zero.
    burn : int
        Number of first steps that are conditioned on.
    parameters : tuple of str
        Names of the parameters that the matrices were made of.
    n_free : int
        How many of these were estimated.
    states : tuple of str
        Names of the states.
    """

    name: str
    design: np.ndarray
    offset: np.ndarray
    noise: np.ndarray
    transition: np.ndarray
    drift: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    diffuse: np.ndarray
    coefficients: np.ndarray
    drive: np.ndarray | None
    burn: int
    parameters: tuple[str, ...]
    n_free: int
    states: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<{self.name} with {len(self.mean)} states>"


class FixedStateSpace(LinearGaussianModel):
    """The law of a `KnownSystem`; its parameters are the numbers that its matrices were made of, and do not move it.

    The likelihood is that of ``LinearGaussianModel``; beyond values with a diffuse predictive, all of the first
    ``burn`` steps of a sequence are conditioned on, not scored.
    """

    def __init__(self, known: KnownSystem) -> None:
        self.known = known
        self.observation = Observation(known.design.shape[0])
        self.n_covariates = known.coefficients.shape[1]
        self._coefficients = torch.from_numpy(known.coefficients)
        self._drive = None if known.drive is None else torch.from_numpy(known.drive)
        self._design, self._transition = torch.from_numpy(known.design), torch.from_numpy(known.transition)
        start = (known.mean, known.cov, known.diffuse)
        leaves = (known.design, known.offset, known.noise, known.transition, known.drift, known.spread, *start)
        self._system = StateSpace(*(torch.from_numpy(leaf) for leaf in leaves))

    @property
    def n_parameters(self) -> int:
        """Number of estimated parameters."""
        return self.known.n_free

    def parameters(self) -> dict[str, ParamSpec]:
        return {name: ParamSpec(()) for name in self.known.parameters}

    def system(self, params: Params) -> StateSpace:
        return self._system

    def inputs(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        return u.to(self.dtype) @ self._coefficients.T if u is not None and self.n_covariates else 0.0

    def scores_next(self, state: GaussianState) -> Tensor | None:
        proper = super().scores_next(state)
        late = state.age.reshape(-1, state.age.shape[-1])[0] >= self.known.burn
        return late.unsqueeze(-1) if proper is None else proper & late.unsqueeze(-1)

    # what covariates add to the state ---------------------------------------------------------------------------------

    def _driven(self, u: Tensor | None, age: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """What u (n, t, m) adds to the states of its steps, (*draw, n, t, r), and to those after them, (*draw, n, r).

        Steps before the start of ``u`` are part of a state, whose next step is the one that ``age`` (*draw, n) counts.
        """
        if self._drive is None or u is None:
            return None
        pushes = u.to(self.dtype) @ self._drive.T
        added = torch.zeros(*age.shape, self._drive.shape[0], dtype=self.dtype)
        rows = []
        for t in range(u.shape[-2]):
            here = added + torch.where((age + t > 0).unsqueeze(-1), pushes[..., t, :], 0.0)
            rows.append(here)
            moved = here @ self._transition.T
            added = moved if lengths is None else torch.where((t < lengths).unsqueeze(-1), moved, added)
        return torch.stack(rows, -2) if rows else added.unsqueeze(-2)[..., :0, :], added

    def _undriven(self, batch: Batch, state: GaussianState) -> tuple[Batch, tuple[Tensor, Tensor] | None]:
        """The batch less what covariates add to it through the states."""
        added = self._driven(batch.u, state.age, batch.lengths)
        if added is None:
            return batch, None
        draws = (0,) * (added[0].ndim - 3)
        # Covariates are the same for every draw, and so is the number of steps so far.
        return batch._replace(x=batch.x - (added[0] @ self._design.T)[draws]), added

    def _pushed(self, state: GaussianState, u: Tensor | None) -> GaussianState:
        """The state of the next step once its covariates u (n, m) are known."""
        added = self._driven(None if u is None else u.unsqueeze(-2), state.age)
        return state if added is None else state._replace(mean=state.mean + added[0].squeeze(-2))

    # the law ----------------------------------------------------------------------------------------------------------

    def predict_next(self, params: Params, state: GaussianState, u: Tensor | None = None) -> Distribution:
        return super().predict_next(params, self._pushed(state, u), u)

    def update(
        self, params: Params, state: GaussianState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> GaussianState:
        return super().update(params, self._pushed(state, u), x, seen, u)

    def _scan(self, params: Params, batch: Batch, state: GaussianState) -> Scan[GaussianState]:
        batch, added = self._undriven(batch, state)
        scan = super()._scan(params, batch, state)
        if added is None:
            return scan
        zero = torch.zeros_like(added[1]).unsqueeze(-2)
        before = torch.cat([zero, (added[0] @ self._transition.T)[..., :-1, :]], -2)
        return Scan(scan.states._replace(mean=scan.states.mean + before), _moved(scan.final, added[1]))

    def _log_prob_steps(self, params: Params, batch: Batch, state: GaussianState) -> Steps[GaussianState]:
        batch, added = self._undriven(batch, state)
        steps = super()._log_prob_steps(params, batch, state)
        age = state.age.reshape(-1, batch.n)[0].unsqueeze(-1) + torch.arange(batch.t)
        scored = steps.scored & (age >= self.known.burn).unsqueeze(-1)
        values = torch.where(scored.any(-1), steps.values, torch.zeros_like(steps.values))
        final = steps.final if added is None else _moved(steps.final, added[1])
        return Steps(values, scored, steps.error, final)

    def smooth(self, params: Params, batch: Batch, state: GaussianState | None = None) -> SmoothedStates:
        start = self.initial_state(params, batch.n) if state is None else state
        batch, added = self._undriven(batch, start)
        found = super().smooth(params, batch, start)
        if added is None:
            return found
        own = torch.where(batch.real.unsqueeze(-1), added[0], 0.0)
        seen = own @ self._design.T
        return found._replace(mean=found.mean + own, x=found.x + seen, signal=found.signal + seen)

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        law = super()._forecast_marginals(params, state, u, horizon)
        added = self._driven(u, state.age)
        if law is None or added is None:
            return law
        loc = law.mean + added[0] @ self._design.T
        if isinstance(law, FullNormal):
            return FullNormal(loc=loc, scale_tril=law.scale_tril)
        return DiagonalNormal(loc=loc, scale=law.variance.sqrt())

    def _forecast_joint(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> FullNormal | None:
        law = super()._forecast_joint(params, state, u, horizon)
        added = self._driven(u, state.age)
        if law is None or added is None:
            return law
        return FullNormal(loc=law.loc + (added[0] @ self._design.T).flatten(-2), scale_tril=law.scale_tril)

    def _sample(
        self,
        params: Params,
        state: GaussianState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, GaussianState]:
        x, final = super()._sample(params, state, length, generator, u, temper)
        added = None if temper is not None else self._driven(u, state.age)  # step by step they are pushed already
        return (x, final) if added is None else (x + added[0] @ self._design.T, _moved(final, added[1]))


def _moved(state: GaussianState, by: Tensor) -> GaussianState:
    return state._replace(mean=state.mean + by)
