"""Filtering with ARMA models where nothing is differentiated: compiled from the parameters to the last state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels.arma_filter import draw_polynomials, filter_complete, stationary_covariances
from probseq.models.arma_orders import FACTORS
from probseq.models.arma_state import ARMAState
from probseq.models.base import Batch, Steps

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["differentiable", "filtered", "fresh_state", "plain_polynomials"]


def differentiable(params: Params, *others: Tensor | None) -> bool:
    """Whether gradients must flow."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*params.values(), *others))


def plain_polynomials(model: ARMAModel, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Full autoregressive (D, a) and moving-average (D, b) coefficients, without gradients."""
    n_draws = params["scale"].numel()
    parts = [params[name].detach().reshape(n_draws, -1).numpy() for name in FACTORS if name in params]
    coefficients = np.concatenate(parts, 1) if parts else np.zeros((n_draws, 0))
    lags = model.lags
    return draw_polynomials(coefficients, model.counts, model.all_lags, model.period, lags.ar, lags.ma)


def fresh_state(model: ARMAModel, params: Params, n: int) -> ARMAState:
    """The state before the first step, draws of which share their memory."""
    draw, k, m = model._draw(params), model.state_size, model.n_differences
    ar, _ = plain_polynomials(model, params)
    cov = torch.from_numpy(stationary_covariances(model.lags.ar, ar, model.lags.ma, m)).reshape(*draw, 1, k, k)
    return ARMAState(
        torch.zeros(*draw, n, k, dtype=model.dtype),
        cov.expand(*draw, n, k, k),
        torch.eye(m, dtype=model.dtype).expand(*draw, n, m, m),
        torch.zeros(*draw, n, dtype=torch.long),
    )


def filtered(model: ARMAModel, params: Params, batch: Batch, age: Tensor) -> Steps[ARMAState] | None:
    """What filtering a batch gives, or None unless all its sequences are complete and start fresh, at ``age`` 0."""
    m, lengths = model.n_differences, batch.lengths.numpy()
    seen = batch.seen[..., 0].numpy()
    if age.numpy().any() or lengths.min() <= m or not np.array_equal(np.count_nonzero(seen, axis=-1), lengths):
        return None
    draw, n_draws = model._draw(params), params["scale"].numel()
    if model.n_covariates or model.terms.moving:
        y = model._levels(params, batch, age).detach().reshape(n_draws, batch.n, batch.t).numpy()
    else:
        y = batch.x[..., 0].detach().to(model.dtype).reshape(-1, batch.n, batch.t).numpy()
    ar, ma = plain_polynomials(model, params)
    drift = params["mean"].detach().numpy().ravel() if model.constant else np.zeros(n_draws)
    scale = params["scale"].detach().numpy().ravel()
    lags = model.lags
    arrays = (np.ascontiguousarray(x) for x in (y, drift, scale, lengths))
    values, mean, cov = filter_complete(lags.ar, ar, lags.ma, ma, lags.differences, *arrays)
    shape = (*draw, batch.n)
    final = ARMAState(
        torch.from_numpy(mean.reshape(*shape, -1)),
        torch.from_numpy(cov.reshape(*shape, *cov.shape[2:])),
        torch.zeros(*shape, m, m, dtype=model.dtype),
        age + batch.lengths,
    )
    scored = seen[..., None].copy()
    scored[:, :m] = False
    return Steps(torch.from_numpy(values.reshape(*shape, batch.t)), torch.from_numpy(scored), None, final)
