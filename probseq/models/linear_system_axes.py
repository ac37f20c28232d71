"""Which coordinates the states of a linear dynamical system have: rotations and signs that leave its law as it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import Params, ParamSpec, flatten
from probseq.distributions.stationary_matrices import lyapunov

__all__ = ["explained_variance", "flipped", "pivot_signs", "principal_axes", "turned", "turned_state"]


def turned(params: Params, turn: Tensor) -> dict[str, Tensor]:
    """The same law with states U s, for orthogonal U (*draw, r, r)."""
    found = dict(params)
    found["transition"] = turn @ params["transition"] @ turn.mT
    found["loading"] = params["loading"] @ turn.mT
    for name in ("drive", "start_covariance", "start_mean"):
        if name in params:
            value = params[name]
            if name == "start_mean":
                found[name] = (turn @ value.unsqueeze(-1)).squeeze(-1)
            else:
                found[name] = turn @ value @ turn.mT if name == "start_covariance" else turn @ value
    return found


def turned_state(mean: Tensor, cov: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Moments (*draw, n, r) and (*draw, n, r, r) of U s."""
    by = turn.unsqueeze(-3)
    return (by @ mean.unsqueeze(-1)).squeeze(-1), by @ cov @ by.mT


def explained_variance(params: Params) -> Tensor:
    """Var of variable i that the shocks of state j make, sum_h (C A^h)_ij^2, (*draw, k, r), for a stable A.

    Shocks are independent, so that these and the variance of the noise add up to the variance of the variable.
    """
    loading, turn = params["loading"], params["transition"]
    rows = loading.unsqueeze(-1) * loading.unsqueeze(-2)
    return lyapunov(turn.mT.unsqueeze(-3), rows).diagonal(dim1=-2, dim2=-1)


def principal_axes(params: Params, noise: Tensor) -> Tensor:
    """U (*draw, r, r) whose states come in the order of the variance that their shocks explain, each as much as it can.

    Of the share of every variable's variance: U diagonalises sum_h (C A^h)' W (C A^h) with W = diag(1 / Var x_i). The
    loading of a state that is largest in units of its variable is positive.

    Parameters
    ----------
    params : with a stable transition
    noise : (*draw, k, k)
    """
    turn, loading = params["transition"], params["loading"]
    variance = explained_variance(params).sum(-1) + noise.diagonal(dim1=-2, dim2=-1)
    scaled = loading / variance.sqrt().unsqueeze(-1)
    _, vectors = torch.linalg.eigh(lyapunov(turn.mT, scaled.mT @ scaled))
    axes = vectors.flip(-1).mT
    seen = scaled @ axes.mT
    largest = seen.gather(-2, seen.abs().argmax(-2, keepdim=True)).squeeze(-2)
    return axes * torch.where(largest < 0, -1.0, 1.0).to(axes.dtype).unsqueeze(-1)


def pivot_signs(params: Params) -> Tensor:
    """Signs (*draw, r) that make the diagonal of (C; A), stacked, nowhere negative."""
    loading, turn = params["loading"], params["transition"]
    k, r = loading.shape[-2:]
    signs: list[Tensor] = []
    for i in range(r):
        pivot = loading[..., i, i] if i < k else turn[..., i - k, i] * signs[i - k]
        signs.append(torch.where(pivot < 0, -1.0, 1.0).to(turn.dtype))
    return torch.stack(signs, -1)


def flipped(specs: dict[str, ParamSpec], params: Params, signs: Tensor) -> tuple[dict[str, Tensor], np.ndarray]:
    """The parameters with states of other signs, and the signs (m,) that the coordinates of the first draw get."""
    found = turned(params, torch.diag_embed(signs))
    both = flatten(specs, params) * flatten(specs, found)
    return found, np.where(both[0].detach().numpy() < 0, -1.0, 1.0)
