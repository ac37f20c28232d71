"""Coefficients at some lags only, of stationary autoregressions and invertible moving averages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import Constraint
from probseq.distributions.stationary import Stationary
from probseq.kernels.profile import INSIDE
from probseq.kernels.sparse_profile import (
    common_step,
    complete,
    free_from_sparse,
    sparse_from_free,
    sparse_from_free_adjoint,
    spread,
)

__all__ = ["SparseStationary", "stationary_at"]

_OUT = {1: "not stationary", -1: "not invertible"}


def stationary_at(lags: np.ndarray, sign: int) -> Constraint:
    """The constraint of coefficients at these lags; by partial autocorrelations where they are s, 2 s, ..., m s."""
    own = lags // common_step(lags)
    return Stationary(sign) if complete(own) else SparseStationary(own, sign)


class SparseStationary(Constraint):
    r"""All roots of 1 - sign sum_j c_j z^(l_j) outside the unit circle, for lags l_1 < ... < l_m = p.

    x_j = c_j g(c)^(l_j / 2p) with g(c) = prod_k 1 / (1 - r_k^2) over the partial autocorrelations r_k, the variance of
    the autoregression over that of its innovations. Along c_j s^(l_j) all roots move outwards together as s falls and g
    falls with them, so that the map is smooth and one to one from the region onto R^m. In closed form
    \|dx / dc\| = g^(L / 2p) (1 + sum_j l_j c_j d log g / dc_j / 2p), L = sum_j l_j. It is that of `Stationary` for one
    lag.

    Parameters
    ----------
    lags : (m,) int64, ascending
    sign : int
        1 for an autoregression 1 - sum_j phi_j z^(l_j); -1 for a moving average 1 + sum_j theta_j z^(l_j).
    """

    def __init__(self, lags: np.ndarray, sign: int = 1) -> None:
        self.lags, self.sign = np.asarray(lags, dtype=np.int64), sign

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.sign * _FromFree.apply(flat, self.lags)

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        rows = (self.sign * value.detach()).double().reshape(-1, len(self.lags)).numpy()
        free = np.stack([free_from_sparse(self._shrunk(row), self.lags) for row in rows])
        return torch.from_numpy(free).reshape(value.shape).to(value.dtype)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        lags = torch.as_tensor(self.lags, dtype=flat.dtype)
        top = int(self.lags[-1])
        inner = _FromFree.apply(flat, self.lags) / INSIDE**lags
        # The whole coefficients and their derivative along c_j s^(l_j), stepped down together.
        index = torch.as_tensor(self.lags - 1)
        row = flat.new_zeros(*flat.shape[:-1], top).index_copy(-1, index, inner)
        moved = flat.new_zeros(*flat.shape[:-1], top).index_copy(-1, index, lags * inner)
        log_g, along = torch.zeros_like(flat[..., 0]), torch.zeros_like(flat[..., 0])
        for _ in range(top):
            r, slope = row[..., -1:], moved[..., -1:]
            left = (1.0 - r) * (1.0 + r)
            log_g = log_g - torch.log(left[..., 0])
            along = along + (2.0 * r * slope / left)[..., 0]
            rest, other = row[..., :-1], moved[..., :-1]
            row = (rest + r * rest.flip(-1)) / left
            moved = (other + slope * rest.flip(-1) + r * other.flip(-1) + 2.0 * r * slope * row) / left
        total = float(self.lags.sum())
        return total * math.log(INSIDE) - 0.5 * total / top * log_g - torch.log1p(0.5 * along / top)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        rows = (self.sign * value.detach()).double().reshape(-1, len(self.lags)).numpy()
        whole = torch.from_numpy(np.stack([spread(row, self.lags) for row in rows]))
        return _OUT[self.sign] if Stationary().violation(whole) else None

    def _shrunk(self, row: np.ndarray) -> np.ndarray:
        """Coefficients pulled into the region where they are outside."""
        while Stationary().violation(torch.from_numpy(spread(row, self.lags))[None]):
            row = row * 0.999**self.lags
        return row


class _FromFree(torch.autograd.Function):
    """(*B, m) free parameters -> (*B, m) coefficients of a stationary autoregression."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, lags: np.ndarray) -> Tensor:
        rows = np.ascontiguousarray(flat.detach().double().reshape(-1, len(lags)).numpy())
        found = np.stack([sparse_from_free(row, lags) for row in rows]) if len(rows) else rows
        ctx.rows, ctx.found, ctx.lags = rows, found, lags
        return torch.from_numpy(found).reshape(flat.shape).to(flat.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        given = np.ascontiguousarray(gradients[0].double().reshape(ctx.rows.shape).numpy())
        pulled = [sparse_from_free_adjoint(x, c, ctx.lags, g) for x, c, g in zip(ctx.rows, ctx.found, given)]
        whole = np.stack(pulled) if pulled else given
        return torch.from_numpy(whole).reshape(gradients[0].shape).to(gradients[0].dtype), None
