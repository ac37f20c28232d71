"""Vector autoregressive moving averages with covariates, exact with gaps in any coordinate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.emissions import Observation
from probseq.distributions.gaussian import lower_factor
from probseq.distributions.params import Params, ParamSpec, PositiveDefinite, Real
from probseq.distributions.stationary_matrices import StationaryMatrices, companion, lyapunov
from probseq.errors import CovariateError, ParameterError, ShapeError
from probseq.models.base import Batch, Steps
from probseq.models.concentrated import ConcentratedLikelihood
from probseq.models.linear_gaussian import GaussianState, LinearGaussianModel, StateSpace
from probseq.models.varma_likelihood import VARMAProfile

__all__ = ["VARMAModel"]


class VARMAModel(LinearGaussianModel, ConcentratedLikelihood):
    r"""Phi(B) (x_t - mean - u_t' beta) = Theta(B) e_t, e_t ~ N(0, covariance), x_t of k variables.

    Phi(B) = I - sum_i ar_i B^i, Theta(B) = I + sum_j ma_j B^j. The likelihood is exact: the start is stationary, the
    covariance of the first state solves the discrete Lyapunov equation, and gaps in any coordinate are integrated out.

    Parameters
    ----------
    observation : Observation
        Continuous variables.
    order : (p, q)
    constant : bool
        Whether the mean is a parameter; it is zero otherwise.
    n_covariates : int

    Raises
    ------
    ParameterError
        For orders that are no whole numbers from 0.
    ShapeError
        For counts and categories.

    Notes
    -----
    A moving average is companioned as in Harvey (1989), Forecasting, Structural Time Series Models and the Kalman
    Filter, section 3.4; a pure autoregression keeps its last p values as its state.
    """

    def __init__(
        self, observation: Observation, order: tuple[int, int] = (1, 0), constant: bool = True, n_covariates: int = 0
    ) -> None:
        good = len(order) == 2 and all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in order)
        if not good or min(order) < 0:
            raise ParameterError(
                got=f"order={order!r}", expected="(p, q) of whole numbers from 0", remedy="Write order=(1, 1)."
            )
        if observation.discrete:
            raise ShapeError(
                got=f"variables with {observation.measure} measure for a vector autoregression",
                expected="continuous variables",
                remedy="Leave counts and categories out.",
            )
        self.observation = observation
        self.order, self.constant, self.n_covariates = (int(order[0]), int(order[1])), constant, n_covariates
        (p, q), k = self.order, observation.n_variables
        self.n_blocks = max(p, q + 1) if q else max(p, 1)
        square = ("variable", "other_variable")
        self._specs: dict[str, ParamSpec] = {}
        if p:
            self._specs["ar"] = ParamSpec((p, k, k), StationaryMatrices(), ("ar_lag", *square))
        if q:
            self._specs["ma"] = ParamSpec((q, k, k), StationaryMatrices(-1), ("ma_lag", *square))
        if constant:
            self._specs["mean"] = ParamSpec((k,), Real(), ("variable",))
        if n_covariates:
            self._specs["coefficients"] = ParamSpec((n_covariates, k), Real(), ("covariate", "variable"))
        self._specs["covariance"] = ParamSpec((k, k), PositiveDefinite(), square)

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    def concentrated(self, batch: Batch, weights: Tensor | None = None) -> VARMAProfile:
        return VARMAProfile(self, batch, weights)

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        profile = self.concentrated(batch)
        return profile.parameters(min(profile.starts(0, generator), key=lambda x: profile.objective(x)[0]))

    # the state space --------------------------------------------------------------------------------------------------

    def matrices(self, params: Params) -> tuple[Tensor, Tensor]:
        """A (*draw, p, k, k) and M (*draw, q, k, k), also where there is none."""
        covariance = params["covariance"]
        none = covariance.new_zeros(*covariance.shape[:-2], 0, *covariance.shape[-2:])
        return params.get("ar", none), params.get("ma", none)

    def system(self, params: Params) -> StateSpace:
        covariance = params["covariance"]
        draw, k, m = covariance.shape[:-2], self.observation.n_variables, self.n_blocks
        ar, ma = self.matrices(params)
        ar = torch.cat([ar, ar.new_zeros(*draw, m - self.order[0], k, k)], -3)
        if self.order[1]:
            # Block i holds what is known at t of x_(t+i).
            shift = torch.zeros(m * k, (m - 1) * k, dtype=self.dtype)
            shift[: (m - 1) * k] = torch.eye((m - 1) * k, dtype=self.dtype)
            transition = torch.cat([ar.flatten(-3, -2), shift.expand(*draw, -1, -1)], -1)
            one = torch.eye(k, dtype=self.dtype).expand(*draw, 1, k, k)
            rest = ar.new_zeros(*draw, m - 1 - self.order[1], k, k)
            loading = torch.cat([one, ma, rest], -3).flatten(-3, -2)
            spread = loading @ covariance @ loading.mT
        else:
            transition = companion(ar)
            spread = torch.nn.functional.pad(covariance, (0, (m - 1) * k, 0, (m - 1) * k))
        zero = torch.zeros(m * k, dtype=self.dtype)
        return StateSpace(
            torch.eye(k, m * k, dtype=self.dtype),
            params["mean"] if self.constant else zero[:k],
            torch.zeros(k, k, dtype=self.dtype),
            transition,
            zero,
            spread,
            zero,
            lyapunov(transition, spread),
        )

    def inputs(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        if not self.n_covariates:
            return 0.0
        if u is None:
            raise CovariateError(
                got="no covariates", expected=f"{self.n_covariates} at every step", remedy="Pass covariates=."
            )
        beta = params["coefficients"]
        return u.to(self.dtype) @ beta.reshape(*beta.shape[:-2], *(1,) * (trailing - 1), *beta.shape[-2:])

    # autoregressions without gaps -------------------------------------------------------------------------------------

    def is_whole(self, batch: Batch) -> bool:
        """Whether this is an autoregression and new sequences of this batch need no filter."""
        p, q = self.order
        complete = bool((batch.seen.all(-1) | ~batch.real).all()) and bool((batch.lengths >= p).all())
        return not q and complete and batch.n > 0 and batch.t > 0

    def _log_prob_steps(self, params: Params, batch: Batch, state: GaussianState) -> Steps[GaussianState]:
        if not self.is_whole(batch) or bool((state.age != 0).any()):
            return super()._log_prob_steps(params, batch, state)
        draw, (p, _), k = self._draw(params), self.order, self.observation.n_variables
        x = batch.x.to(self.dtype) - self.inputs(params, batch.u, 2)
        y = x - params["mean"].reshape(*draw, 1, 1, k) if self.constant else x
        y = torch.where(batch.real.unsqueeze(-1), y, torch.zeros_like(y)).expand(*draw, *batch.x.shape)
        space = self._space(params)
        ar = self.matrices(params)[0].unsqueeze(-4)
        e = y[..., p:, :]
        for i in range(p):
            e = e - y[..., p - 1 - i : batch.t - 1 - i, :] @ ar[..., i, :, :].mT
        factor = lower_factor(params["covariance"])
        values = _log_normal(e, factor.unsqueeze(-3))
        if p:
            # The innovations of the first p steps, from their joint law; the state holds the last value first.
            at = torch.arange(p * k).reshape(p, k).flip(0).flatten()
            start = lower_factor(space.cov[..., at, :][..., at])
            z = torch.linalg.solve_triangular(start.unsqueeze(-3), y[..., :p, :].flatten(-2).unsqueeze(-1), upper=False)
            size = torch.log(start.diagonal(dim1=-2, dim2=-1)).reshape(*draw, 1, p, k).sum(-1)
            each = -0.5 * (z.reshape(*draw, batch.n, p, k) ** 2 + math.log(2.0 * math.pi)).sum(-1) - size
            values = torch.cat([each, values], -1)
        values = torch.where(batch.real, values, torch.zeros_like(values))
        return Steps(values, batch.seen, None, self._after(space, y.detach(), batch.lengths, state))

    def _after(self, space: StateSpace, y: Tensor, lengths: Tensor, state: GaussianState) -> GaussianState:
        """The state after complete sequences y (*draw, n, t, k) of at least p steps."""
        p, k = self.order[0], y.shape[-1]
        if not p:
            return state._replace(age=state.age + lengths)
        back = (lengths.unsqueeze(-1) - 1 - torch.arange(p)).unsqueeze(-1).expand(*y.shape[:-2], p, k)
        last = torch.gather(y, -2, back).flatten(-2).unsqueeze(-1)
        mean = (space.transition.detach().unsqueeze(-3) @ last).squeeze(-1)
        cov = space.spread.detach().unsqueeze(-3).expand(state.cov.shape)
        return GaussianState(mean, cov, state.diffuse.detach(), state.proper, state.age + lengths)


def _log_normal(e: Tensor, factor: Tensor) -> Tensor:
    """log N(e; 0, L L') over the last axis, e (*B, t, k), L (*B, k, k)."""
    z = torch.linalg.solve_triangular(factor, e.mT, upper=False)
    size = torch.log(factor.diagonal(dim1=-2, dim2=-1)).sum(-1, keepdim=True)
    return -0.5 * (z.square().sum(-2) + e.shape[-1] * math.log(2.0 * math.pi)) - size
