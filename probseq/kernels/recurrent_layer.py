"""One recurrent layer on the processor as a torch function with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels import gates
from probseq.kernels.panels import backward_panels, forward_panels, gathered
from probseq.kernels.threads import run_blocks
from probseq.kernels.tiles import ROWS, lanes_of
from probseq.kernels.unrolled import run_block, slopes_block

__all__ = ["run_layer"]

_KINDS = {"rnn": gates.TANH, "relu": gates.RELU, "gru": gates.GRU, "lstm": gates.LSTM}
# Sequences that one thread runs at a time; more of them where there would be too many blocks.
_BLOCK = 32
_MOST_BLOCKS = 16


class _Sizes(NamedTuple):
    """n sequences of so many steps, inputs and hidden units; the units padded to whole vectors of so many lanes."""

    kind: int
    n: int
    steps: int
    n_inputs: int
    size: int
    lanes: int

    @property
    def width(self) -> int:
        return -(-self.size // self.lanes) * self.lanes

    @property
    def columns(self) -> int:
        return (1 if self.kind < gates.GRU else 4) * self.width

    @property
    def weights(self) -> tuple[int, int, int, int]:
        return self.n_inputs, self.size, self.width, self.lanes

    def blocks(self) -> list[tuple[int, int]]:
        """The first sequence and the number of sequences of each; they do not depend on the number of threads."""
        each = max(_BLOCK, -(-self.n // (_MOST_BLOCKS * ROWS)) * ROWS)
        return [(first, min(each, self.n - first)) for first in range(0, self.n, each)]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: str, *leaves: Tensor) -> tuple[Tensor, ...]:
        found, ctx.kept = _run(kind, leaves, True)
        ctx.kind = kind
        ctx.save_for_backward(*leaves)
        return found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        leaves = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (None, *_slopes_with_gradients(ctx.kind, leaves, slopes), None)
        return (None, *_slopes(ctx.kind, leaves, ctx.kept, slopes, ctx.needs_input_grad[2]), None)


def run_layer(kind: str, flat: Tensor, inputs: Tensor, hidden: Tensor, cell: Tensor, lengths: Tensor) -> Any:
    """Run over whole sequences, with gradients by everything but the lengths.

    Parameters
    ----------
    kind : {"rnn", "relu", "gru", "lstm"}
    flat : (size,), the input matrix, the recurrent matrix and the two biases of the layer as torch lays them out
    inputs : (n, t, i); what lies beyond a sequence's length is not read
    hidden, cell : (n, h), the memory before the first step; ``cell`` is (n, 0) but for the LSTM
    lengths : (n,) int64 between 0 and t

    All are float32 or all float64, in the memory of the processor.

    Returns
    -------
    outputs (n, t, h), and the memory after each sequence's last step: hidden (n, h) and cell
    """
    leaves = (flat, inputs, hidden, cell, lengths)
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        return _Layer.apply(kind, *leaves)
    return _run(kind, leaves, False)[0]


def _sizes(kind: str, inputs: Tensor, hidden: Tensor) -> _Sizes:
    n, steps, n_inputs = inputs.shape
    return _Sizes(_KINDS[kind], n, steps, n_inputs, hidden.shape[1], lanes_of(inputs.element_size()))


def _arrays(leaves: Sequence[Tensor]) -> list[np.ndarray]:
    return [leaf.detach().contiguous().numpy() for leaf in leaves]


def _run(kind: str, leaves: Sequence[Tensor], keep: bool) -> tuple[tuple[Tensor, ...], tuple[np.ndarray, ...]]:
    """Outputs and memory, and what the derivatives need."""
    _, inputs, hidden, cell, _ = leaves
    sizes = _sizes(kind, inputs, hidden)
    weights, x, h, c, lengths = _arrays(leaves)
    padded = -(-sizes.n // ROWS) * ROWS
    slots = padded * sizes.width * (sizes.steps + 1 if keep else 2)
    rows = padded * (sizes.steps if keep and sizes.kind >= gates.GRU else 1)
    made = (rows * sizes.columns, slots, slots if sizes.kind == gates.LSTM else 0)
    kept = tuple(inputs.new_empty(size).numpy() for size in made)
    shapes = ((sizes.n, sizes.steps, sizes.size), hidden.shape, cell.shape)
    found = tuple(inputs.new_empty(shape) for shape in shapes)
    out = [leaf.numpy() for leaf in found]
    panels = forward_panels(sizes.kind, weights, *sizes.weights)
    blocks = sizes.blocks()

    def run(start: int, stop: int) -> None:
        for first, n in blocks[start:stop]:
            run_block(sizes.kind, first, n, *panels, x, lengths, h, c, *kept, *out, sizes.width, sizes.lanes)

    run_blocks(run, len(blocks))
    return found, kept


def _slopes(
    kind: str, leaves: Sequence[Tensor], kept: tuple[np.ndarray, ...], slopes: Sequence[Tensor], by_inputs: bool
) -> tuple[Tensor | None, ...]:
    """Derivatives by weights, inputs (where they are wanted), hidden and cell."""
    flat, inputs, hidden, cell, _ = leaves
    sizes = _sizes(kind, inputs, hidden)
    weights, x, _, _, lengths = _arrays(leaves)
    given = _arrays(slopes)
    by_flat, by_h, by_c = (inputs.new_empty(leaf.shape) for leaf in (flat, hidden, cell))
    by_x = inputs.new_empty(inputs.shape if by_inputs else (0, 0, 0))
    out = [leaf.numpy() for leaf in (by_x, by_h, by_c)]
    panels = backward_panels(sizes.kind, weights, *sizes.weights)
    blocks = sizes.blocks()
    n_rows = sizes.width + -(-(sizes.n_inputs + 1) // ROWS) * ROWS

    def run(start: int, stop: int) -> list[np.ndarray]:
        own = []
        for first, n in blocks[start:stop]:
            sums = np.zeros((n_rows, sizes.columns), x.dtype)
            some = sizes.kind, first, n, *panels, x, lengths, *kept, *given, sums
            slopes_block(*some, *out, sizes.width, sizes.lanes)
            own.append(sums)
        return own

    each = [sums for some in run_blocks(run, len(blocks)) for sums in some]
    total = each[0] if each else np.zeros((n_rows, sizes.columns), x.dtype)
    for sums in each[1:]:
        total += sums
    gathered(sizes.kind, total, sizes.n_inputs, sizes.size, sizes.width, by_flat.numpy())
    return by_flat, by_x if by_inputs else None, by_h, by_c


def _slopes_with_gradients(kind: str, leaves: Sequence[Tensor], slopes: Sequence[Tensor]) -> list[Tensor | None]:
    """The same derivatives as functions with gradients of their own, step by step."""
    from probseq.kernels.cells import CellLayout, Memory, scan

    flat, inputs, hidden, cell, lengths = leaves
    inside = torch.arange(inputs.shape[1]) < lengths.unsqueeze(-1)
    held = cell.unsqueeze(1) if kind == "lstm" else hidden.new_empty(len(hidden), 0, hidden.shape[1])
    ran = scan(
        CellLayout(kind, inputs.shape[2], hidden.shape[1]),
        flat,
        torch.where(inside.unsqueeze(-1), inputs, 0.0),
        Memory(hidden.unsqueeze(1), held),
    )
    rows = torch.arange(len(lengths))
    last = [leaf[rows, lengths].squeeze(1) for leaf in ran.final[: 2 if kind == "lstm" else 1]]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    results = [ran.outputs, *last]
    found = iter(torch.autograd.grad(results, wanted, slopes[: len(results)], create_graph=True, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves[:4]]
