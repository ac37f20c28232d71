"""The Kalman filter as a differentiable function of torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.linear_gaussian import filter_series
from probseq.kernels.linear_gaussian_adjoint import filter_adjoint
from probseq.models.linear_gaussian_state import StateSpace, as_array, systems

__all__ = ["FilteredValues", "patterns_of"]


def patterns_of(seen: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    """What makes two sequences share their covariances: their length and where they have gaps."""
    return [seen[i, :length].tobytes() for i, length in enumerate(lengths.tolist())]


class FilteredValues(torch.autograd.Function):
    """log p(x_t | x_<t) of every step; the backward pass is the adjoint of the filter.

    Arguments: Z (D, k, r), d (D, k), H (D, k, k), T (D, r, r), c (D, r), Q (D, r, r), the mean (D, n, r) and covariance
    (D, n, r, r) of the first states, x (D, n, t, k), seen (n, t, k) bool array, lengths (n,), and the workspace of the
    first states, which becomes that of the last ones. Returns values (D, n, t) and proper (D, n, t, k) bool. Sequences
    that share their covariances get equal shares of the gradient with respect to them.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        z, d, h, t, c, q, _, _, x, seen, lengths, work = arguments
        ctx.systems = list(systems(StateSpace(z, d, h, t, c, q, d, h)))
        ctx.x, ctx.seen, ctx.lengths, ctx.runs = as_array(x), seen, lengths, []
        keep = any(ctx.needs_input_grad)
        values, proper = np.zeros(x.shape[:3]), np.ones(x.shape, dtype=bool)
        patterns = patterns_of(seen, lengths)
        for i, system in enumerate(ctx.systems):
            for rows in work.groups(i, patterns):
                length = int(lengths[rows[0]])
                state = work.take(i, rows)
                if keep:
                    ctx.runs.append((i, system, rows, length, *(part.copy() for part in state)))
                got, along, *_ = filter_series(system, *_data(ctx, i, rows, length), *state, False)
                values[i, rows, :length], proper[i, rows, :length] = got, along[:length]
                work.put(i, rows, *state, along[length])
        result = torch.from_numpy(values), torch.from_numpy(proper)
        ctx.mark_non_differentiable(result[1])
        ctx.shapes = [part.shape for part in arguments[:9]]
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        weights = as_array(gradients[0])
        found = [np.zeros(shape) for shape in ctx.shapes]
        for i, system, rows, length, *state in ctx.runs:
            w = np.ascontiguousarray(weights[i, rows, :length])
            grads = filter_adjoint(system, *_data(ctx, i, rows, length), *state, w)
            for total, part in zip(found[:6], grads[:6], strict=True):
                total[i] += part
            found[6][i, rows] = grads.mean
            found[7][i, rows] = grads.cov / len(rows)
            found[8][i, rows, :length] = grads.y
        return (*(torch.from_numpy(part) for part in found), None, None, None)


def _data(ctx: Any, i: int, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(ctx.x[i, rows, :length]), np.ascontiguousarray(ctx.seen[rows[0], :length])
