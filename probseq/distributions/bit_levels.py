r"""log p of bit vectors whose bits depend on those before them, with an analytic gradient.

The hidden vector of bit i, sigmoid(c + sum of W_j over the bits j < i that are on), changes only behind a bit that is
on. Level l holds the vectors behind the first l such bits: an event with m bits on has m + 1 of them instead of one for
each of its k bits. Sorted by m, the events of a level are the first rows, and the bits that a level decides are read
off one product of matrices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["nade_log_prob"]


def nade_log_prob(x: Tensor, bias: Tensor, hidden: Tensor, reading: Tensor, writing: Tensor) -> Tensor:
    r"""log p(x) = sum_i log Bernoulli(x_i; sigmoid(b_i + V_i . sigmoid(c + sum_{j < i} W_j x_j))).

    Parameters
    ----------
    x : (r, k) of 0 and 1
    bias : b, (r, k)
    hidden : c, (r, h)
    reading : W, (h, k)
    writing : V, (k, h)

    Returns
    -------
    (r,), differentiable once in all but ``x``; time and memory grow with the bits that are on, not with k h.
    """
    return _LogProb.apply(x, bias, hidden, reading, writing)  # type: ignore[no-any-return]


class _Block(NamedTuple):
    """Rows and columns that hold all bits which one level decides for these rows."""

    rows: slice
    columns: slice


class _Level(NamedTuple):
    n: int
    keys: Tensor
    """The bit that led here, for each of the first ``n`` rows."""
    blocks: list[_Block]


class _Levels(NamedTuple):
    order: Tensor
    """Events by decreasing number of bits that are on."""
    rank: Tensor
    """How many bits before this one are on, which is the level that decides it, (r, k)."""
    levels: list[_Level]


def _levels(on: Tensor) -> _Levels:
    """The levels of events (r, k) bool."""
    k = on.shape[-1]
    order = torch.argsort(on.sum(-1), descending=True, stable=True)
    on = on[order]
    count = on.sum(-1)
    rank = (on.cumsum(-1) - on.long()).to(torch.int16)
    at_least = [int(n) for n in torch.bincount(count).flip(0).cumsum(0).flip(0)]
    columns = on.nonzero()[:, 1]
    first = count.cumsum(0) - count
    keys = [columns[:0], *(columns[first[:n] + level] for level, n in enumerate(at_least[1:]))]
    levels = []
    for level, n in enumerate(at_least):
        # Rows that have a further bit on, then those that stay at this level to the end.
        further = at_least[level + 1] if level + 1 < len(at_least) else 0
        blocks = []
        for rows in (slice(0, further), slice(further, n)):
            if rows.stop > rows.start:
                low = int(keys[level][rows].min()) + 1 if level else 0
                high = int(keys[level + 1].max()) + 1 if rows.start == 0 and further else k
                if high > low:
                    blocks.append(_Block(rows, slice(low, high)))
        levels.append(_Level(n, keys[level], blocks))
    return _Levels(order, rank, levels)


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, hidden: Tensor, reading: Tensor, writing: Tensor) -> Tensor:
        plan = _levels(x > 0.5)
        logits, activity = bias[plan.order], hidden[plan.order]
        columns = reading.mT.contiguous()
        vectors = []
        for place, level in enumerate(plan.levels):
            if place:
                activity = activity[: level.n] + columns[level.keys]
            vector = torch.sigmoid(activity)
            vectors.append(vector)
            for rows, own in level.blocks:
                decided = plan.rank[rows, own] == place
                logits[rows, own] += decided * (vector[rows] @ writing[own].mT)
        sorted_x = x[plan.order]
        each = sorted_x * logits - torch.nn.functional.softplus(logits)
        ctx.plan = plan
        ctx.save_for_backward(sorted_x, logits, writing, *vectors)
        total = torch.empty_like(each[:, 0])
        total[plan.order] = each.sum(-1)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc,no-untyped-call]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, logits, writing, *vectors = ctx.saved_tensors
        plan: _Levels = ctx.plan
        slope = (x - torch.sigmoid(logits)) * grad[plan.order].unsqueeze(-1)
        d_writing = torch.zeros_like(writing)
        d_columns = torch.zeros_like(writing)
        later: Tensor | None = None
        for place in range(len(plan.levels) - 1, -1, -1):
            level, vector = plan.levels[place], vectors[place]
            d_vector = torch.zeros_like(vector)
            for rows, own in level.blocks:
                part = slope[rows, own] * (plan.rank[rows, own] == place)
                d_vector[rows] = part @ writing[own]
                d_writing[own] += part.mT @ vector[rows]
            d_activity = d_vector * vector * (1.0 - vector)
            if later is not None:
                d_activity[: len(later)] += later
            if place:
                d_columns.index_add_(0, level.keys, d_activity)
            later = d_activity
        d_bias, d_hidden = torch.empty_like(slope), torch.empty_like(slope[:, :0])
        d_bias[plan.order] = slope
        if later is not None:
            d_hidden = torch.empty_like(later)
            d_hidden[plan.order] = later
        return None, d_bias, d_hidden, d_columns.mT, d_writing
