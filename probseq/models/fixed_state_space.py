"""A linear-Gaussian state space whose matrices are known: the model of results that another library found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Params, ParamSpec
from probseq.models.base import Batch, Steps
from probseq.models.linear_gaussian_driven import DrivenLinearGaussian
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


class FixedStateSpace(DrivenLinearGaussian):
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

    def drive(self, params: Params) -> Tensor | None:
        return self._drive

    def _log_prob_steps(self, params: Params, batch: Batch, state: GaussianState) -> Steps[GaussianState]:
        steps = super()._log_prob_steps(params, batch, state)
        age = state.age.reshape(-1, batch.n)[0].unsqueeze(-1) + torch.arange(batch.t)
        scored = steps.scored & (age >= self.known.burn).unsqueeze(-1)
        values = torch.where(scored.any(-1), steps.values, torch.zeros_like(steps.values))
        return steps._replace(values=values, scored=scored)
