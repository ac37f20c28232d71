"""The state of a conditional ARMA model, and its recursion as a differentiable function."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.conditional import conditional_adjoint, conditional_innovations
from probseq.models.innovations import Lags

__all__ = ["ConditionalInnovations", "ConditionalState", "windows"]


class ConditionalState(NamedTuple):
    """What p(x_t | x_<t) depends on, newest first.

    levels : (*draw, n, m), the last values less what covariates, line and waves add. lags : (*draw, n, p), the last
    differences less their mean. shocks : (*draw, n, q), the last innovations. variance : (*draw, n), that of the next
    innovation. age : (*draw, n), steps so far.
    """

    levels: Tensor
    lags: Tensor
    shocks: Tensor
    variance: Tensor
    age: Tensor


def windows(series: Tensor, ends: Tensor, size: int) -> Tensor:
    """The ``size`` values before each end, newest first.

    Parameters
    ----------
    series : (*draw, n, size + t)
        ``size`` values before the first step, then those of the steps.
    ends : (n, s), numbers of steps

    Returns
    -------
    (*draw, n, s, size)
    """
    index = ends.unsqueeze(-1) + torch.arange(size - 1, -1, -1)
    n, s = ends.shape
    flat = index.reshape(n, s * size).expand(*series.shape[:-1], s * size)
    return series.gather(-1, flat).reshape(*series.shape[:-1], s, size)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())


class ConditionalInnovations(torch.autograd.Function):
    """e_t and h_t given the values before the first step; the backward pass is the adjoint of the recursion.

    Arguments: ar (D, a), ma (D, b) at the lags, z (D, n, p + t), variance (D, n) of the first step, garch (D, 3) of
    omega, alpha, beta, shocks (D, n, q) oldest first, lags, first and lengths (n,), moves. Returns e (D, n, q + t) and
    h (D, n, t + 1). Gradients flow to the first five.
    """

    @staticmethod
    def forward(
        ctx: Any,
        ar: Tensor,
        ma: Tensor,
        z: Tensor,
        variance: Tensor,
        garch: Tensor,
        shocks: Tensor,
        lags: Lags,
        first: np.ndarray,
        lengths: np.ndarray,
        moves: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.fixed, ctx.runs = (lags, first, lengths, moves), []
        results = []
        for a, b, x, v, g, s in zip(*(_array(part) for part in (ar, ma, z, variance, garch, shocks)), strict=True):
            e, h = conditional_innovations(lags.ar, a, lags.ma, b, x, first, lengths, s, v, g, moves)
            ctx.runs.append((a, b, x, g, e, h))
            results.append((e, h))
        es, hs = (torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True))
        return es, hs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        lags, first, lengths, moves = ctx.fixed
        results = []
        for (a, b, x, g, e, h), by_e, by_h in zip(ctx.runs, *(part.numpy() for part in gradients), strict=True):
            steps = h.shape[1] - 1
            own = by_e[:, e.shape[1] - steps :].copy()
            results.append(
                conditional_adjoint(
                    lags.ar, a, lags.ma, b, x, first, lengths, e, h, g, moves, own, np.ascontiguousarray(by_h)
                )
            )
        found = (torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True))
        return (*found, None, None, None, None, None)
