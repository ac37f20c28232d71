"""The exact laws of the next values of an ARMA model: of each step by itself, and of all together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg.blas import dtrmm, dtrsm
from torch import Tensor

from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.params import Params
from probseq.kernels.kalman import forecast
from probseq.kernels.observation_rows import observation_rows
from probseq.models.arma_state import ARMAState, Workspace

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["forecast_joint", "forecast_marginals"]


def forecast_marginals(
    model: ARMAModel, params: Params, state: ARMAState, u: Tensor | None, horizon: int
) -> DiagonalNormal | None:
    """p(x_(T+i) | state) for i = 1, ..., horizon, batch (*draw, n, horizon); None while the state is diffuse."""
    if bool((state.diffuse != 0).any()):
        return None
    work = Workspace(state, model._draw(params))
    size = (*work.mean.shape[:2], horizon)
    centre, variance = np.empty(size), np.empty(size)
    for d, system, shift in model._draws(params):
        for rows in work.groups(d):
            mean, cov, diffuse = work.take(d, rows)
            shifts = np.tile(shift, (len(rows), 1))
            centre[d, rows], variance[d, rows] = forecast(system, shifts, mean, cov, diffuse, horizon)
    loc = model._located(params, state, centre, u, horizon)
    scale = torch.from_numpy(np.sqrt(variance)).reshape(loc.shape) * params["scale"][..., None, None]
    return DiagonalNormal(loc=loc.unsqueeze(-1), scale=scale.unsqueeze(-1))


def forecast_joint(
    model: ARMAModel, params: Params, state: ARMAState, u: Tensor | None, horizon: int
) -> FullNormal | None:
    """p(x_(T+1), ..., x_(T+horizon) | state), batch (*draw, n); None while the state is diffuse."""
    if bool((state.diffuse != 0).any()):
        return None
    work = Workspace(state, model._draw(params))
    size = work.mean.shape[:2]
    centre, factor = np.empty((*size, horizon)), np.empty((*size, horizon, horizon))
    for d, system, shift in model._draws(params):
        ahead = observation_rows(system, horizon)
        centre[d] = work.mean[d] @ ahead.T
        centre[d, :, 1:] += np.cumsum(ahead[:-1] @ shift[0])
        for rows in work.groups(d):
            factor[d, rows] = _factor(ahead, work.cov[d, rows[0]])
    loc = model._located(params, state, centre, u, horizon)
    scale_tril = torch.from_numpy(factor).reshape(*loc.shape, horizon)
    return FullNormal(loc=loc, scale_tril=scale_tril * params["scale"][..., None, None, None])


def _factor(ahead: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Cholesky factor of R P R' + Psi Psi' - Psi_1 Psi_1', the covariance of the next values, over scale^2.

    P is the covariance of the state with its newest innovation, which is the first column of the unit lower triangular
    Toeplitz matrix Psi of the answers to innovations. With A = Psi^-1 R, whose rows stay bounded for an invertible
    moving average, it is Psi times the factor of I + A (P - i i') A', which differences do not make singular.

    Parameters
    ----------
    ahead : R, (horizon, k), the first column of which are the answers
    cov : P, (k, k)
    """
    horizon = len(ahead)
    step = np.arange(horizon)
    answers = np.append(ahead[:, 0], 0.0)[np.maximum(step[:, None] - step, -1)]
    inverted = dtrsm(1.0, answers, ahead, lower=1, diag=1)
    past = cov.copy()
    past[0, 0] -= 1.0
    gram = inverted @ past @ inverted.T
    gram[step, step] += 1.0
    return dtrmm(1.0, answers, np.linalg.cholesky(gram), lower=1, diag=1)
