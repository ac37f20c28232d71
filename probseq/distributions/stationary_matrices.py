"""Matrix coefficients of stationary vector autoregressions and invertible vector moving averages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probseq.distributions.params import Constraint

__all__ = ["StableMatrix", "StationaryMatrices", "companion", "lyapunov"]

# Singular values of partial autocorrelations stay this far below one.
_INSIDE = 1.0 - 1e-9
# Free coordinates beyond this are as good as the bound.
_FAR = 1e5
_DOUBLINGS = 64
_INWARDS = 0.999


class StationaryMatrices(Constraint):
    r"""All roots of det(I - sign sum_j C_j z^j) outside the unit circle, through partial autocorrelation matrices.

    A free matrix X_j gives P_j = B_j^(-1) X_j with B_j B_j' = I + X_j X_j', whose singular values are below one;
    Whittle's recursion, the Durbin-Levinson recursion of vectors, gives from P_1, ..., P_p the coefficients of the
    process with these partial autocorrelations and innovations of unit covariance (Ansley and Kohn 1986, A note on
    reparameterizing a vector autoregressive moving average model to enforce stationarity, J. Statistical Computation
    and Simulation 24). Which coefficients are stationary does not depend on the covariance of the innovations, so that
    the unit one serves all: the map is one to one from R^(p k k) onto the region. For k = 1 it is that of
    `Stationary`.

    Parameters
    ----------
    sign : int
        1 for an autoregression I - sum_j A_j z^j; -1 for a moving average I + sum_j M_j z^j.
    """

    def __init__(self, sign: int = 1) -> None:
        self.sign = sign

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.sign * _coefficients(flat.reshape(*flat.shape[:-1], *shape))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        row = self.sign * value
        free = _free(row)
        while not bool(torch.isfinite(free).all()):
            # On the border only rounding is left: coefficients whose roots lie a little further out.
            power = torch.arange(1, shape[0] + 1, dtype=value.dtype)[:, None, None]
            row = torch.where(torch.isfinite(free).all((-3, -2, -1), keepdim=True), row, row * _INWARDS**power)
            free = _free(row)
        return free.reshape(*value.shape[: value.ndim - len(shape)], -1)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        rows = flat.reshape(-1, flat.shape[-1])

        def whole(row: Tensor) -> Tensor:
            return _coefficients(row.reshape(shape)).reshape(-1)

        slopes = torch.func.vmap(torch.func.jacrev(whole))(rows)
        return torch.linalg.slogdet(slopes)[1].reshape(flat.shape[:-1])

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        largest = torch.linalg.eigvals(companion(self.sign * value.detach())).abs().amax(-1)
        if bool((largest < 1.0).all()):
            return None
        return "not stationary" if self.sign == 1 else "not invertible"


class StableMatrix(StationaryMatrices):
    """One square matrix with all eigenvalues inside the unit circle: the transition of a stationary state."""

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return super().constrain(flat, (1, *shape)).squeeze(-3)

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        return super().unconstrain(value.unsqueeze(-3), (1, *shape))

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return super().log_abs_det(flat, (1, *shape))

    def violation(self, value: Tensor) -> str | None:
        return super().violation(value.unsqueeze(-3))


def companion(matrices: Tensor) -> Tensor:
    """T (*B, p k, p k) of (x_t, ..., x_(t-p+1)) = T (x_(t-1), ..., x_(t-p)) + ..., for A (*B, p, k, k)."""
    *lead, p, k, _ = matrices.shape
    top = matrices.transpose(-3, -2).reshape(*lead, k, p * k)
    rest = torch.eye((p - 1) * k, p * k, dtype=matrices.dtype).expand(*lead, -1, -1)
    return torch.cat([top, rest], -2)


def lyapunov(transition: Tensor, spread: Tensor) -> Tensor:
    """P = T P T' + Q for T of spectral radius below one and symmetric Q, (*B, r, r); differentiable."""
    shape = torch.broadcast_shapes(transition.shape, spread.shape)
    result: Tensor = _Lyapunov.apply(transition.expand(shape), spread.expand(shape))
    return result


def _doubling(t: Tensor, q: Tensor) -> Tensor:
    """sum_j T^j Q T'^j."""
    total, power = 0.5 * (q + q.mT), t
    for _ in range(_DOUBLINGS):
        step = power @ total @ power.mT
        total = total + 0.5 * (step + step.mT)
        if not bool((step.abs().amax((-2, -1)) > 1e-18 * total.abs().amax((-2, -1))).any()):
            break
        power = power @ power
    return total


class _Lyapunov(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor, q: Tensor) -> Tensor:
        p = _doubling(t, q)
        ctx.save_for_backward(t, p)
        return p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        t, p = ctx.saved_tensors
        s = _doubling(t.mT, gradients[0])
        return 2.0 * s @ t @ p, s


def _factor(matrix: Tensor) -> Tensor:
    factor: Tensor = torch.linalg.cholesky_ex(matrix)[0]
    return factor


def _coefficients(free: Tensor) -> Tensor:
    """(*B, p, k, k) free matrices -> coefficients of a stationary autoregression."""
    p, k = free.shape[-3], free.shape[-1]
    one = torch.eye(k, dtype=free.dtype)
    inside = _INSIDE**2
    ahead: list[Tensor] = []
    back: list[Tensor] = []
    # Cholesky factors of the covariances of the errors of prediction forwards and backwards in time.
    of_ahead = of_back = one
    for s in range(p):
        x = free[..., s, :, :].clamp(-_FAR, _FAR)
        b = _factor(one + x @ x.mT)
        inverse = torch.linalg.solve_triangular(b, one.expand_as(b), upper=False)
        partial = _INSIDE * inverse @ x
        left = _factor((1.0 - inside) * one + inside * inverse @ inverse.mT)
        right = _factor((1.0 - inside) * one + inside * torch.cholesky_inverse(_factor(one + x.mT @ x)))
        last = _right_solve(of_ahead @ partial, of_back)
        last_back = _right_solve(of_back @ partial.mT, of_ahead)
        ahead, back = (
            [*(a - last @ c for a, c in zip(ahead, back[::-1])), last],
            [*(c - last_back @ a for a, c in zip(ahead[::-1], back)), last_back],
        )
        of_ahead, of_back = of_ahead @ left, of_back @ right
    if not p:
        return free
    lower = of_ahead
    return torch.stack([torch.linalg.solve_triangular(lower, a @ lower, upper=False) for a in ahead], -3)


def _right_solve(matrix: Tensor, lower: Tensor) -> Tensor:
    """M L^(-1)."""
    return torch.linalg.solve_triangular(lower.expand_as(matrix), matrix, upper=False, left=False)


def _free(matrices: Tensor) -> Tensor:
    """The inverse of `_coefficients`."""
    p, k = matrices.shape[-3], matrices.shape[-1]
    if not p:
        return matrices
    one = torch.eye(k, dtype=matrices.dtype)
    noise = torch.zeros(p * k, p * k, dtype=matrices.dtype)
    noise[:k, :k] = one
    t = companion(matrices)
    stacked = lyapunov(t, noise)
    # Gamma_h = Cov(x_t, x_(t-h)); the last is one step of the autoregression from the first row of blocks.
    rows = [stacked[..., :k, h * k : (h + 1) * k] for h in range(p)]
    rows.append((t @ stacked)[..., :k, (p - 1) * k :])
    ahead: list[Tensor] = []
    back: list[Tensor] = []
    v_ahead = v_back = rows[0]
    found = []
    for s in range(p):
        delta = rows[s + 1]
        for i, a in enumerate(ahead):
            delta = delta - a @ rows[s - i]
        of_ahead, of_back = _factor(v_ahead), _factor(v_back)
        partial = torch.linalg.solve_triangular(of_ahead, delta, upper=False)
        partial = torch.linalg.solve_triangular(of_back, partial.mT, upper=False).mT
        last = _right_solve(of_ahead @ partial, of_back)
        last_back = _right_solve(of_back @ partial.mT, of_ahead)
        ahead, back = (
            [*(a - last @ c for a, c in zip(ahead, back[::-1])), last],
            [*(c - last_back @ a for a, c in zip(ahead[::-1], back)), last_back],
        )
        v_ahead = v_ahead - last @ delta.mT
        v_back = v_back - last_back @ delta
        scaled = _shrunk(partial / _INSIDE)
        found.append(torch.linalg.solve_triangular(_factor(one - scaled @ scaled.mT), scaled, upper=False))
    return torch.stack(found, -3)


def _shrunk(partial: Tensor) -> Tensor:
    """Partial autocorrelations whose singular values are at most `_INSIDE`."""
    largest = torch.linalg.matrix_norm(torch.nan_to_num(partial.detach(), posinf=0.0, neginf=0.0), ord=2)
    factor = torch.where(largest > _INSIDE, _INSIDE / largest, torch.ones_like(largest))
    return partial * factor[..., None, None]
