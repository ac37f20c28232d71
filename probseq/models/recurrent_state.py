"""What a recurrent network knows between two steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probseq.kernels.cells import Memory

__all__ = ["RecurrentState", "along", "at_steps", "recent"]


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


def recent(
    state: RecurrentState, x: Tensor, seen: Tensor, outputs: Tensor, after: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The leaves x, seen, past and held after some steps of a batch that goes on from ``state``.

    Parameters
    ----------
    x, seen : (n, t, k), the values of the batch
    outputs : (*draw, n, t, hidden_size), what the last layer passed on
    after : (n, s) steps, for leaves (*draw, n, s, width, ...); None is the end of the batch, (*draw, n, width, ...)
    """
    leaves = [along(state.x, x), along(state.seen, seen)]
    if state.past.shape[-2]:
        held = state.held.new_ones(outputs.shape[:-1])
        leaves += [torch.cat([state.past, outputs], -2), torch.cat([state.held, held], -1).unsqueeze(-1)]
    if after is None:
        found = [leaf[..., x.shape[-2] :, :] for leaf in leaves]
        empty = state.past, state.held
    else:
        draws, lead = leaves[0].ndim > 3, (*state.held.shape[:-1], after.shape[-1])
        widths = [leaf.shape[-2] - x.shape[-2] for leaf in leaves]
        steps = [after.unsqueeze(-1) + torch.arange(width, device=x.device) for width in widths]
        found = [at_steps(leaf, some, draws) for leaf, some in zip(leaves, steps)]
        empty = state.past.new_zeros((*lead, 0, state.past.shape[-1])), state.held.new_zeros((*lead, 0))
    past, held = (found[2], found[3].squeeze(-1)) if len(found) > 2 else empty
    return found[0], found[1], past, held
