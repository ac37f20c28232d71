"""Recurrent cells over one packed weight vector: whole sequences through the fused kernel, single steps over draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["CELLS", "CellLayout", "Layer", "Memory", "Passed", "scan", "step", "whole"]


class Memory(NamedTuple):
    """What a recurrent net remembers.

    hidden : (*draw, n, n_layers, hidden_size)
    cell : (*draw, n, n_layers, hidden_size) for the LSTM; for the others (*draw, n, 0, hidden_size)
    """

    hidden: Tensor
    cell: Tensor


class Layer(NamedTuple):
    """Weights of one layer, gates stacked along the first axis: w_x (*draw, g, i), w_h (*draw, g, h), b_x and b_h."""

    w_x: Tensor
    w_h: Tensor
    b_x: Tensor
    b_h: Tensor


class Passed(NamedTuple):
    """outputs : (n, t, hidden_size) of the last layer after each step; final : memory after each sequence's end."""

    outputs: Tensor
    final: Memory


def _rnn(gate_x: Tensor, gate_h: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return torch.tanh(gate_x + gate_h), None


def _relu(gate_x: Tensor, gate_h: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return torch.relu(gate_x + gate_h), None


def _gru(gate_x: Tensor, gate_h: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    reset_x, keep_x, new_x = gate_x.chunk(3, -1)
    reset_h, keep_h, new_h = gate_h.chunk(3, -1)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return torch.lerp(new, h, torch.sigmoid(keep_x + keep_h)), None


def _lstm(gate_x: Tensor, gate_h: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if c is None:
        raise RuntimeError("an LSTM step needs its cell")
    enter, forget, new, leave = (gate_x + gate_h).chunk(4, -1)
    cell = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


class _Cell(NamedTuple):
    gates: int
    fused: Callable[..., tuple[Tensor, ...]]
    step: Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


CELLS: dict[str, _Cell] = {
    "rnn": _Cell(1, torch._VF.rnn_tanh, _rnn),  # type: ignore[attr-defined]
    "relu": _Cell(1, torch._VF.rnn_relu, _relu),  # type: ignore[attr-defined]
    "gru": _Cell(3, torch._VF.gru, _gru),  # type: ignore[attr-defined]
    "lstm": _Cell(4, torch._VF.lstm, _lstm),  # type: ignore[attr-defined]
}


@dataclass(frozen=True)
class CellLayout:
    """Where the weights of stacked cells lie in one flat vector.

    The order, within a layer, is that of ``torch.nn.LSTM``: input matrix, recurrent matrix, and the bias of each; gates
    are in its order too (input, forget, new, output; reset, keep, new for the GRU).

    Parameters
    ----------
    cell : {"rnn", "relu", "gru", "lstm"}
    n_inputs, hidden_size, n_layers : int
    """

    cell: str
    n_inputs: int
    hidden_size: int
    n_layers: int = 1

    @property
    def gates(self) -> int:
        """Number of blocks of rows in each matrix."""
        return CELLS[self.cell].gates

    @property
    def n_cells(self) -> int:
        """Layers of the ``cell`` leaf of the memory."""
        return self.n_layers if self.cell == "lstm" else 0

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all pieces in their order."""
        rows = self.gates * self.hidden_size
        shapes: list[tuple[int, ...]] = []
        for layer in range(self.n_layers):
            columns = self.n_inputs if layer == 0 else self.hidden_size
            shapes += [(rows, columns), (rows, self.hidden_size), (rows,), (rows,)]
        return tuple(shapes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each piece."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The pieces of (*draw, size) as views (*draw, *shape), without copying."""
        draw = flat.shape[:-1]
        pieces = flat.split(self.sizes, -1)
        return [piece.view(*draw, *shape) for piece, shape in zip(pieces, self.shapes)]

    def layers(self, flat: Tensor) -> list[Layer]:
        """The same views, layer by layer."""
        views = self.views(flat)
        return [Layer(*views[4 * i : 4 * i + 4]) for i in range(self.n_layers)]

    def empty_memory(self, flat: Tensor, n: int) -> Memory:
        """Zeros for n sequences, (*draw, n, ...)."""
        shape = (*flat.shape[:-1], n)
        return Memory(
            flat.new_zeros(*shape, self.n_layers, self.hidden_size),
            flat.new_zeros(*shape, self.n_cells, self.hidden_size),
        )


def whole(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> Passed:
    """Run over whole sequences with the fused kernel, for one set of weights.

    Parameters
    ----------
    flat : (size,)
    inputs : (n, t, i), t >= 1; what lies beyond a sequence's length changes nothing before it
    memory : leaves (n, ...), the memory before the first step
    lengths : (n,) int64 between 0 and t, or None where the final memory is wanted after step t of every sequence
    """
    h = memory.hidden.transpose(0, 1).contiguous()
    c = memory.cell.transpose(0, 1).contiguous()
    start = (h, c) if layout.n_cells else h
    fused = CELLS[layout.cell].fused
    setting = (layout.views(flat), True, layout.n_layers, 0.0, torch.is_grad_enabled(), False)
    if lengths is None:
        outputs, *after = fused(inputs, start, *setting, True)
        return Passed(outputs, _memory(after, memory))
    packed = pack_padded_sequence(inputs, lengths.cpu().clamp_min(1), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    start = (h[:, order], c[:, order]) if layout.n_cells else h[:, order]
    data, *after = fused(packed.data, packed.batch_sizes, start, *setting)
    outputs, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=inputs.shape[1])
    final = _memory([leaf[:, back] for leaf in after], memory)
    begun = (lengths > 0)[:, None, None]
    return Passed(outputs, Memory(*(torch.where(begun, new, old) for new, old in zip(final, memory))))


def _memory(after: list[Tensor], before: Memory) -> Memory:
    leaves = [leaf.transpose(0, 1) for leaf in after]
    return Memory(leaves[0], leaves[1] if len(leaves) > 1 else before.cell)


def step(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory) -> Memory:
    """One step for every draw at once.

    Parameters
    ----------
    flat : (*draw, size)
    inputs : (*draw, n, i) or (n, i)
    memory : leaves (*draw, n, ...), the memory before the step
    """
    advance = CELLS[layout.cell].step
    below, hidden, cells = inputs, [], []
    for index, layer in enumerate(layout.layers(flat)):
        h = memory.hidden[..., index, :]
        c = memory.cell[..., index, :] if layout.n_cells else None
        below, c = advance(_affine(below, layer.w_x, layer.b_x), _affine(h, layer.w_h, layer.b_h), h, c)
        hidden.append(below)
        if c is not None:
            cells.append(c)
    return Memory(torch.stack(hidden, -2), torch.stack(cells, -2) if cells else memory.cell)


def scan(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory) -> Memory:
    """The memory before every step and after the last, all draws side by side.

    The fused kernel keeps the outputs of the last layer only; this pass keeps everything that a state needs.

    Parameters
    ----------
    flat : (*draw, size)
    inputs : (*draw, n, t, i) or (n, t, i)
    memory : leaves (*draw, n, ...)

    Returns
    -------
    Memory with leaves (*draw, n, t + 1, n_layers, hidden_size)
    """
    advance = CELLS[layout.cell].step
    steps, below = inputs.shape[-2], inputs
    hidden, cells = [], []
    for index, layer in enumerate(layout.layers(flat)):
        h = memory.hidden[..., index, :]
        c = memory.cell[..., index, :] if layout.n_cells else None
        gates = _affine(below.flatten(-3, -2), layer.w_x, layer.b_x).unflatten(-2, below.shape[-3:-1])
        w_h, b_h = layer.w_h.mT, layer.b_h.unsqueeze(-2)
        along_h, along_c = [h], [c]
        for t in range(steps):
            h, c = advance(gates[..., t, :], torch.matmul(h, w_h) + b_h, h, c)
            along_h.append(h)
            along_c.append(c)
        trajectory = torch.stack(along_h, -2)
        below = trajectory[..., 1:, :]
        hidden.append(trajectory)
        if layout.n_cells:
            cells.append(torch.stack([leaf for leaf in along_c if leaf is not None], -2))
    along = torch.stack(hidden, -2)
    return Memory(along, torch.stack(cells, -2) if cells else along[..., :0, :])


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(*draw, n, i), (*draw, o, i), (*draw, o) -> (*draw, n, o)."""
    return torch.matmul(x, weight.mT) + bias.unsqueeze(-2)
