"""What a driven chain remembers between steps, and the inputs of its emissions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probseq.models.base import Batch

__all__ = ["DrivenBelief", "choose_state", "lagged_values", "side_by_side"]


class DrivenBelief(NamedTuple):
    """What is known before step t.

    probs : (*draw, n, s), p(z_{t-1} | x_<t); before the first step p(z_1).
    age : (*draw, n), steps so far.
    past : (*draw, n, order, k), the last values, newest first.
    """

    probs: Tensor
    age: Tensor
    past: Tensor


def lagged_values(batch: Batch, past: Tensor) -> Tensor:
    """The last values before each step and after the last, (*draw, n, t + 1, order, k), newest first.

    ``past`` (*draw, n, order, k) are those before the batch, newest first.
    """
    order = past.shape[-2]
    if not order:
        return past.unsqueeze(-3).expand(*past.shape[:-2], batch.t + 1, *past.shape[-2:])
    values = torch.cat([past.flip(-2), batch.x.expand(*past.shape[:-2], *batch.x.shape[-2:])], -2)
    return values.unfold(-2, order, 1).movedim(-1, -2).flip(-2)


def side_by_side(lags: Tensor | None, u: Tensor | None) -> Tensor:
    """Lags (..., order, k), newest first, and covariates (..., m) as one row of inputs (..., order k + m)."""
    parts = ([] if lags is None else [lags.flatten(-2)]) + ([] if u is None else [u])
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)


def choose_state(tensor: Tensor, event: int, z: Tensor) -> Tensor:
    """The component z (*B) of a tensor (*B, s, *event), where ``event`` is the number of its event dimensions."""
    index = z.reshape(*z.shape, 1, *(1,) * event).expand(*z.shape, 1, *tensor.shape[tensor.ndim - event :])
    return tensor.gather(z.ndim, index).squeeze(z.ndim)
