"""What a recurrent network knows between two steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probseq.kernels.cells import Memory

__all__ = ["RecurrentState", "along", "at_steps"]


class RecurrentState(NamedTuple):
    """The memory after step t-1 read its input, and the values that step t will read.

    hidden : (*draw, n, n_layers, hidden_size)
    cell : the same for the LSTM, (*draw, n, 0, hidden_size) for other cells
    x : (*draw, n, lag, k), the last values up to the longest lag, oldest first; the fill value where they were not seen
    seen : (*draw, n, lag, k) bool, all False before the first step
    past : (*draw, n, window - 1, hidden_size), what the last layer passed on before, oldest first; without attention
        (*draw, n, 0, hidden_size)
    held : (*draw, n, window - 1) bool, whether the sequence had begun by then
    """

    hidden: Tensor
    cell: Tensor
    x: Tensor
    seen: Tensor
    past: Tensor
    held: Tensor

    @property
    def memory(self) -> Memory:
        """What the cells remember."""
        return Memory(self.hidden, self.cell)


def along(state: Tensor, batch: Tensor) -> Tensor:
    """The values before the batch and those of it, (*draw, n, lag + t, k)."""
    return torch.cat([state, batch.expand(*state.shape[:-2], *batch.shape[-2:])], -2)


def at_steps(leaf: Tensor, steps: Tensor, draws: bool) -> Tensor:
    """Choose for each sequence, (n, ...) steps, from leaves (n, t, ...), or (D, n, t, ...) where there are draws."""
    rows = torch.arange(steps.shape[0], device=steps.device).view(-1, *(1,) * (steps.ndim - 1))
    return leaf[:, rows, steps] if draws else leaf[rows, steps]
