"""The ARMA kernels as differentiable functions of torch tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.arima import state_space, state_space_adjoint
from probseq.kernels.arma import covariance_after, innovations, mean_after
from probseq.kernels.arma_adjoint import innovations_adjoint
from probseq.kernels.kalman import filter_states
from probseq.kernels.kalman_adjoint import filter_adjoint

__all__ = ["GappedInnovations", "Innovations", "Lags"]


class Lags(NamedTuple):
    """Where the full polynomials are not zero, and the coefficients of the differences.

    ar, ma : int64 arrays of lags, ascending. differences : c of Delta(B) = 1 - sum_j c_j B^j.
    """

    ar: np.ndarray
    ma: np.ndarray
    differences: np.ndarray


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


class Innovations(torch.autograd.Function):
    """e_t and F_t of series without gaps; the backward pass is the adjoint of the recursion.

    Arguments: ar (D, a), ma (D, b) at the lags, w (D, n, t), lags, lengths (n,) or None. Returns e (D, n, t), f (D, t)
    and, where lengths are given, the mean (D, n, r) and covariance (D, n, r, r) of the state after them.
    """

    @staticmethod
    def forward(
        ctx: Any, ar: Tensor, ma: Tensor, w: Tensor, lags: Lags, lengths: np.ndarray | None
    ) -> tuple[Tensor, ...]:
        keep = lengths is not None or any(ctx.needs_input_grad[:3])
        coefficients = [(_array(a), _array(b)) for a, b in zip(ar, ma)]
        runs = [innovations(lags.ar, a, lags.ma, b, _array(x), keep) for (a, b), x in zip(coefficients, w)]
        ctx.runs, ctx.coefficients, ctx.lags = runs, coefficients, lags
        e = torch.from_numpy(np.stack([run[0] for run in runs]))
        f = torch.from_numpy(np.stack([run[1] for run in runs]))
        if lengths is None:
            return e, f
        means: list[np.ndarray] = []
        covs: list[np.ndarray] = []
        for (a, _), (_, f_run, trace) in zip(coefficients, runs):
            spread = {length: covariance_after(f_run, trace, length) for length in set(lengths.tolist())}
            covs.extend(spread[length] for length in lengths.tolist())
            means.extend(mean_after(lags.ar, a, trace, s, length) for s, length in enumerate(lengths.tolist()))
        shape = (*w.shape[:2], -1)
        mean = torch.from_numpy(np.stack(means)).reshape(shape)
        cov = torch.from_numpy(np.stack(covs)).reshape(*shape, mean.shape[-1])
        ctx.mark_non_differentiable(mean, cov)
        return e, f, mean, cov

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        results = []
        for (a, b), (e, f, trace), g_e, g_f in zip(ctx.coefficients, ctx.runs, gradients[0], gradients[1]):
            results.append(innovations_adjoint(ctx.lags.ar, a, ctx.lags.ma, b, e, f, trace, _array(g_e), _array(g_f)))
        ar, ma, w = (torch.from_numpy(np.stack(part)) for part in zip(*results))
        return ar, ma, w, None, None


class GappedInnovations(torch.autograd.Function):
    """e_t and F_t of one series with gaps from any state, differenced inside the state space.

    Arguments: ar (D, a), ma (D, b), y (D, t) less its mean, drift (D,) the mean of the differences, seen (t,) bool,
    state arrays mean (D, k), cov (D, k, k), diffuse (D, k, k) or None for a fresh start, lags. Returns e (D, t),
    f (D, t), status (D, t) int8, and the state after the last step. Gradients flow to the first four.
    """

    @staticmethod
    def forward(
        ctx: Any,
        ar: Tensor,
        ma: Tensor,
        y: Tensor,
        drift: Tensor,
        seen: np.ndarray,
        state: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        lags: Lags,
    ) -> tuple[Tensor, ...]:
        ctx.lags, ctx.seen, ctx.fresh, ctx.runs = lags, seen, state is None, []
        m = lags.differences.size
        outputs = []
        for d in range(ar.shape[0]):
            a = _array(ar[d])
            system, cov, diffuse, gamma, rows, _ = state_space(lags.ar, a, lags.ma, _array(ma[d]), lags.differences)
            mean = np.zeros((1, cov.shape[0]))
            if state is not None:
                mean, cov, diffuse = state[0][d : d + 1].copy(), state[1][d].copy(), state[2][d].copy()
            shift = np.zeros(mean.shape)
            if m > 0:
                shift[0, cov.shape[0] - m] = float(drift[d])
            series = _array(y[d : d + 1])
            ctx.runs.append((system, shift, series, mean.copy(), cov.copy(), diffuse.copy(), gamma, rows, a))
            e, f, status, *_ = filter_states(system, shift, series, seen, mean, cov, diffuse, False)
            outputs.append((e[0], f, status, mean[0], cov, diffuse))
        result = tuple(torch.from_numpy(np.stack(part)) for part in zip(*outputs))
        ctx.mark_non_differentiable(*result[2:])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        lags, results = ctx.lags, []
        m = lags.differences.size
        for (system, shift, series, mean, cov, diffuse, gamma, rows, a), g_e, g_f in zip(ctx.runs, *gradients[:2]):
            entries, z, _, _, d_shift, d_y, _, d_cov = filter_adjoint(
                system, shift, series, ctx.seen, mean, cov, diffuse, _array(g_e)[None], _array(g_f)
            )
            if not ctx.fresh:
                d_cov = np.zeros_like(d_cov)
            d_ar, d_ma = state_space_adjoint(lags.ar, a, lags.ma, m, gamma, rows, entries, z, d_cov)
            d_drift = d_shift[0, cov.shape[0] - m] if m > 0 else 0.0
            results.append((d_ar, d_ma, d_y[0], np.float64(d_drift)))
        ar, ma, y, drift = (torch.from_numpy(np.stack(part)) for part in zip(*results))
        return ar, ma, y, drift, None, None, None
