"""Structural time series: a level or trend, a season, regression and noise, each with a variance of its own."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Interval, Params, ParamSpec, Positive, Real
from probseq.errors import CovariateError, ShapeError
from probseq.models.base import Batch
from probseq.models.concentrated import ConcentratedLikelihood
from probseq.models.linear_gaussian import LinearGaussianModel, StateSpace
from probseq.models.structural_likelihood import StructuralProfile

__all__ = ["Component", "StructuralModel"]


class Component(NamedTuple):
    """One part of the series: ``weights`` (r,) of the states in it, and ``states``, those that its shocks move."""

    weights: np.ndarray
    states: slice


class StructuralModel(LinearGaussianModel, ConcentratedLikelihood):
    r"""x_t = level_t + season_t + beta' u_t + eps_t, eps_t ~ N(0, scale^2).

    level_(t+1) = level_t [+ slope_t] + xi_t, slope_(t+1) = [damping] slope_t + zeta_t, xi_t ~ N(0, level_scale^2),
    zeta_t ~ N(0, slope_scale^2). The season sums to omega_t ~ N(0, seasonal_scale^2) over any period (dummy form), or
    is made of harmonics that each turn by their frequency and are shaken so (trigonometric form). Everything starts
    diffuse: as many first values as there are states are conditioned on.

    Parameters
    ----------
    observation : Observation
        One continuous variable.
    trend : bool
        Whether the level has a slope.
    damped : bool
        Whether the slope dies away.
    period : int or None
        Steps in a season.
    seasonal : "dummy" or "trigonometric"
    n_covariates : int

    References
    ----------
    Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter, chapter 2.
    """

    def __init__(
        self,
        observation: Observation,
        trend: bool = False,
        damped: bool = False,
        period: int | None = None,
        seasonal: str = "dummy",
        n_covariates: int = 0,
    ) -> None:
        if observation.n_variables != 1 or observation.discrete:
            raise ShapeError(
                got=f"{observation.n_variables} variables with {observation.measure} measure for a structural model",
                expected="one continuous variable",
                remedy="Select one column, or fit one model a column.",
            )
        one_of("seasonal", seasonal, ("dummy", "trigonometric"))
        if period is not None:
            whole_number("period", period, 2, "Use period=12 for months.")
        self.observation, self.trend, self.damped = observation, trend, damped
        self.period, self.seasonal, self.n_covariates = period, seasonal, n_covariates
        blocks = [("level", *_level(trend))] + ([] if period is None else [("seasonal", *_season(period, seasonal))])
        size = sum(len(row) for _, _, row in blocks)
        self.row, self.turn = np.zeros(size), np.zeros((size, size))
        self.components: dict[str, Component] = {}
        at = 0
        for name, turn, row in blocks:
            part = slice(at, at + len(row))
            self.row[part], self.turn[part, part] = row, turn
            weights = np.zeros(size)
            weights[part] = row
            shaken = part if name == "seasonal" and seasonal == "trigonometric" else slice(at, at + 1)
            self.components[name] = Component(weights, shaken)
            if name == "level" and trend:
                self.components["slope"] = Component(np.eye(size)[1], slice(1, 2))
            at = part.stop
        self.scales = ("scale", *(f"{name}_scale" for name in self.components))
        self._specs = {name: ParamSpec((), Positive()) for name in self.scales}
        if damped:
            self._specs["damping"] = ParamSpec((), Interval(0.0, 1.0))
        if n_covariates:
            self._specs["coefficients"] = ParamSpec((n_covariates,), Real(), ("covariate",))
        r = self.row.size
        self._row = torch.from_numpy(self.row).unsqueeze(0)
        self._turn = torch.from_numpy(self.turn)
        self._moved = {name: torch.zeros(r, dtype=self.dtype) for name in self.components}
        for name, component in self.components.items():
            self._moved[name][component.states] = 1.0

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    def inputs(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        if not self.n_covariates:
            return 0.0
        if u is None:
            raise CovariateError(
                got="no covariates", expected=f"{self.n_covariates} at every step", remedy="Pass covariates=."
            )
        beta = params["coefficients"]
        return (u * beta.reshape(*beta.shape[:-1], *(1,) * trailing, -1)).sum(-1, keepdim=True)

    def system(self, params: Params) -> StateSpace:
        r = self.row.size
        turn = self._turn
        if self.damped:
            place = torch.zeros(r, r, dtype=self.dtype)
            place[1, 1] = 1.0
            turn = turn + place * (params["damping"] - 1.0)[..., None, None]
        variance = sum(
            (self._moved[name] * params[f"{name}_scale"].unsqueeze(-1) ** 2 for name in self.components),
            torch.zeros(r, dtype=self.dtype),
        )
        zero = torch.zeros(r, dtype=self.dtype)
        return StateSpace(
            self._row,
            torch.zeros(1, dtype=self.dtype),
            (params["scale"] ** 2)[..., None, None],
            turn,
            zero,
            torch.diag_embed(variance),
            zero,
            torch.zeros(r, r, dtype=self.dtype),
            torch.eye(r, dtype=self.dtype),
        )

    def concentrated(self, batch: Batch, weights: Tensor | None = None) -> StructuralProfile:
        return StructuralProfile(self, batch, weights)

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        profile = self.concentrated(batch)
        return profile.parameters(min(profile.starts(0, generator), key=lambda x: profile.objective(x)[0]))


def _level(trend: bool) -> tuple[np.ndarray, np.ndarray]:
    """Transition and weights of the level and its slope."""
    return (np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([1.0, 0.0])) if trend else (np.ones((1, 1)), np.ones(1))


def _season(period: int, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Transition and weights of a season, ``period - 1`` states."""
    size = period - 1
    turn = np.zeros((size, size))
    if form == "dummy":
        turn[0] = -1.0
        turn[range(1, size), range(size - 1)] = 1.0
        return turn, np.eye(size)[0]
    row = np.zeros(size)
    for j in range(1, period // 2 + 1):
        at = 2 * (j - 1)
        row[at] = 1.0
        angle = 2.0 * math.pi * j / period
        if 2 * j == period:
            turn[at, at] = -1.0
        else:
            c, s = math.cos(angle), math.sin(angle)
            turn[at : at + 2, at : at + 2] = [[c, s], [-s, c]]
    return turn, row
