"""Coefficients of stationary autoregressions and invertible moving averages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probseq.distributions.params import Constraint

__all__ = ["Stationary"]

# Partial autocorrelations stay this far inside (-1, 1).
_INSIDE = 1.0 - 1e-9


class Stationary(Constraint):
    r"""All roots of 1 - sign sum_j c_j z^j outside the unit circle, through partial autocorrelations.

    r_k = x_k / sqrt(1 + x_k^2), then the Durbin-Levinson recursion c_j^(k) = c_j^(k-1) - r_k c_(k-j)^(k-1)
    (Monahan 1984, A note on enforcing stationarity in autoregressive-moving average models, Biometrika 71).

    Parameters
    ----------
    sign : int
        1 for an autoregression 1 - sum_j phi_j z^j; -1 for a moving average 1 + sum_j theta_j z^j.
    """

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        partial = _INSIDE * flat / torch.sqrt(1.0 + flat * flat)
        row = partial[..., :0]
        for k in range(shape[0]):
            r = partial[..., k : k + 1]
            row = torch.cat([row - r * row.flip(-1), r], -1)
        return self.sign * row

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        r = self._partial(self.sign * value).clamp(-(_INSIDE**2), _INSIDE**2) / _INSIDE
        return r / torch.sqrt((1.0 - r) * (1.0 + r))

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        r = _INSIDE * flat / torch.sqrt(1.0 + flat * flat)
        k = torch.arange(shape[0], dtype=flat.dtype, device=flat.device)
        even, odd = torch.ceil(k / 2), torch.floor(k / 2)
        slope = math.log(_INSIDE) - 1.5 * torch.log1p(flat * flat)
        return (even * torch.log1p(-r) + odd * torch.log1p(r) + slope).sum(-1)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        if bool((self._partial(self.sign * value).abs() < 1.0).all()):
            return None
        return "not stationary" if self.sign == 1 else "not invertible"

    @staticmethod
    def _partial(row: Tensor) -> Tensor:
        parts = []
        for _ in range(row.shape[-1]):
            r = row[..., -1:]
            parts.append(r)
            rest = row[..., :-1]
            row = (rest + r * rest.flip(-1)) / ((1.0 - r) * (1.0 + r))
        return torch.cat(parts[::-1], -1) if parts else row
