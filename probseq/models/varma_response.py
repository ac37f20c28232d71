"""What vector ARMA parameters mean in time: responses to innovations, and where errors of forecasts come from."""

from __future__ import annotations

import numpy as np
import torch

from probseq.distributions.gaussian import lower_factor
from probseq.distributions.params import Params
from probseq.models.varma import VARMAModel

__all__ = ["error_shares", "impulse_response"]


def impulse_response(model: VARMAModel, params: Params, n: int, orthogonal: bool) -> np.ndarray:
    """Psi_0, ..., Psi_(n-1) of x_t = sum_j Psi_j e_(t-j), or Psi_j L with L L' = Var e, for every draw (D, n, k, k)."""
    with torch.no_grad():
        ar, ma = (part.numpy() for part in model.matrices(params))
        factor = lower_factor(params["covariance"]).numpy()
    k = factor.shape[-1]
    psi = np.zeros((len(factor), n, k, k))
    for j in range(n):
        if j == 0:
            psi[:, 0] = np.eye(k)
        elif j <= model.order[1]:
            psi[:, j] = ma[:, j - 1]
        for i in range(1, min(j, model.order[0]) + 1):
            psi[:, j] += ar[:, i - 1] @ psi[:, j - i]
    return psi @ factor[:, None] if orthogonal else psi


def error_shares(model: VARMAModel, params: Params, n: int) -> np.ndarray:
    """Shares of Var[x_(t+h) | x_<=t] that each orthogonal innovation brings, h = 1, ..., n, (D, n, k, k)."""
    parts = np.cumsum(impulse_response(model, params, n, True) ** 2, 1)
    found: np.ndarray = parts / parts.sum(-1, keepdims=True)
    return found
