"""Recurrent cells over one packed weight vector: whole sequences through the fused kernel, single steps over draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    """Weights of one layer, gates stacked along the first axis: w_x (*draw, g, i), w_h (*draw, g, h), b_x and b_h.

    gain, shift : (*draw, h) of the layer norm behind it, or None
    """

    w_x: Tensor
    w_h: Tensor
    b_x: Tensor
    b_h: Tensor
    gain: Tensor | None = None
    shift: Tensor | None = None


class Passed(NamedTuple):
    """outputs : what the last layer passes on, (*draw, n, h) or (*draw, n, t, h); final : the memory."""

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


def _tanh_now(x: Tensor, layer: Layer, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return _tanh(_gates(x, layer, h)), None


def _relu_now(x: Tensor, layer: Layer, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return _gates(x, layer, h).relu_(), None


def _gru_now(x: Tensor, layer: Layer, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    reset_x, keep_x, new_x = _affine(x, layer.w_x, layer.b_x).chunk(3, -1)
    reset_h, keep_h, new_h = _affine(h, layer.w_h, layer.b_h).chunk(3, -1)
    reset = (reset_x + reset_h).sigmoid_()
    new = _tanh(torch.addcmul(new_x, reset, new_h))
    return torch.lerp(new, h, torch.add(keep_x, keep_h, out=reset).sigmoid_()), None


def _lstm_now(x: Tensor, layer: Layer, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if c is None:
        raise RuntimeError("an LSTM step needs its cell")
    gates = _gates(x, layer, h)
    enter, forget, new, leave = gates.chunk(4, -1)
    new.mul_(2)
    gates.sigmoid_()
    cell = torch.addcmul(forget * c, enter, new, value=2).sub_(enter)  # tanh as in _tanh
    return _tanh(2 * cell, doubled=True).mul_(leave), cell


def _tanh(x: Tensor, doubled: bool = False) -> Tensor:
    """tanh(x) in place as 2 sigmoid(2 x) - 1, which torch computes ten times faster; ``doubled`` gives it 2 x."""
    return (x if doubled else x.mul_(2)).sigmoid_().mul_(2).sub_(1)


class _Cell(NamedTuple):
    """step : with gradients; now : without, in few new arrays, whose making costs more than the arithmetic."""

    gates: int
    fused: Callable[..., tuple[Tensor, ...]]
    step: Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
    now: Callable[[Tensor, Layer, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


CELLS: dict[str, _Cell] = {
    "rnn": _Cell(1, torch._VF.rnn_tanh, _rnn, _tanh_now),  # type: ignore[attr-defined]
    "relu": _Cell(1, torch._VF.rnn_relu, _relu, _relu_now),  # type: ignore[attr-defined]
    "gru": _Cell(3, torch._VF.gru, _gru, _gru_now),  # type: ignore[attr-defined]
    "lstm": _Cell(4, torch._VF.lstm, _lstm, _lstm_now),  # type: ignore[attr-defined]
}


@dataclass(frozen=True)
class CellLayout:
    r"""Where the weights of stacked cells lie in one flat vector, and how the layers are joined.

    With the hidden state h^l of layer l: r^1 = h^1, r^l = h^l + r^{l-1} where ``residual`` (else h^l), and y^l = r^l,
    or with ``layer_norm`` g * (r^l - mean) / sqrt(var + 1e-5) + b with moments over the units (Ba et al. 2016, eq. 4).
    Layer l + 1 reads y^l. The recurrence of a layer stays as it is, so that the fused kernel runs.

    The order is that of ``torch.nn.LSTM``: for each layer the input matrix, the recurrent matrix, and the bias of each;
    gates are in its order too (input, forget, new, output; reset, keep, new for the GRU). Behind the last layer follow
    gain and shift of each layer's norm.

    Parameters
    ----------
    cell : {"rnn", "relu", "gru", "lstm"}
    n_inputs, hidden_size, n_layers : int
    residual, layer_norm : bool
    """

    cell: str
    n_inputs: int
    hidden_size: int
    n_layers: int = 1
    residual: bool = False
    layer_norm: bool = False

    @property
    def gates(self) -> int:
        """Number of blocks of rows in each matrix."""
        return CELLS[self.cell].gates

    @property
    def n_cells(self) -> int:
        """Layers of the ``cell`` leaf of the memory."""
        return self.n_layers if self.cell == "lstm" else 0

    @property
    def plain(self) -> bool:
        """Whether every layer passes on its hidden state as it is."""
        return not self.layer_norm and not (self.residual and self.n_layers > 1)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all pieces in their order."""
        rows = self.gates * self.hidden_size
        shapes: list[tuple[int, ...]] = []
        for layer in range(self.n_layers):
            columns = self.n_inputs if layer == 0 else self.hidden_size
            shapes += [(rows, columns), (rows, self.hidden_size), (rows,), (rows,)]
        if self.layer_norm:
            shapes += [(self.hidden_size,)] * 2 * self.n_layers
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
        views, n = self.views(flat), self.n_layers
        norms: list[Tensor] | list[None] = views[4 * n :] or [None] * (2 * n)
        return [Layer(*views[4 * i : 4 * i + 4], *norms[2 * i : 2 * i + 2]) for i in range(n)]

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """The four pieces of each layer's recurrence as one flat view, without its norm."""
        sizes = [sum(self.sizes[4 * i : 4 * i + 4]) for i in range(self.n_layers)]
        return [*flat.split([*sizes, self.size - sum(sizes)], -1)[: self.n_layers]]

    def empty_memory(self, flat: Tensor, n: int) -> Memory:
        """Zeros for n sequences, (*draw, n, ...)."""
        shape = (*flat.shape[:-1], n)
        return Memory(
            flat.new_zeros(*shape, self.n_layers, self.hidden_size),
            flat.new_zeros(*shape, self.n_cells, self.hidden_size),
        )


def whole(
    layout: CellLayout,
    flat: Tensor,
    inputs: Tensor,
    memory: Memory,
    lengths: Tensor | None = None,
    masks: Sequence[Tensor] = (),
) -> Passed:
    """Run over whole sequences with a fused kernel, for one set of weights.

    Parameters
    ----------
    flat : (size,)
    inputs : (n, t, i), t >= 1; what lies beyond a sequence's length changes nothing before it
    memory : leaves (n, ...), the memory before the first step
    lengths : (n,) int64 between 0 and t, or None where the final memory is wanted after step t of every sequence
    masks : of the second layer and those above, (n, t, h) or (n, 1, h): what multiplies the inputs of the layer

    On a processor the kernel is our own, in float32 and float64. That of torch takes all layers in one call where they
    are joined plainly and without masks.
    """
    ours = _on_processor(flat, inputs, *memory)
    if layout.plain and not masks and not ours:
        return _fused(layout, layout.views(flat), inputs, memory, lengths)
    if layout.plain and layout.n_layers == 1:
        return _unrolled(layout, flat, inputs, memory, lengths)
    below, stream, finals = inputs, None, []
    for index, (piece, layer) in enumerate(zip(layout.pieces(flat), layout.layers(flat))):
        if masks and index:
            below = below * masks[index - 1]
        own = Memory(*(leaf[:, index : index + 1] for leaf in memory))
        if ours:
            outputs, final = _unrolled(layout, piece, below, own, lengths)
        else:
            outputs, final = _fused(layout, [*layer[:4]], below, own, lengths)
        stream, below = _join(layout, layer, outputs, stream)
        finals.append(final)
    return Passed(below, Memory(*(torch.cat(leaves, 1) for leaves in zip(*finals))))


def _on_processor(*leaves: Tensor) -> bool:
    """Whether our own kernel takes them: it is faster there than that of torch, and need not pack what is ragged."""
    dtype = leaves[0].dtype
    known = dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return known and all(leaf.dtype == dtype and leaf.device.type == "cpu" for leaf in leaves)


def _unrolled(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> Passed:
    """One layer by our own kernel."""
    from probseq.kernels.recurrent_layer import run_layer

    counts = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
    hidden = memory.hidden[:, 0]
    cell = memory.cell[:, 0] if layout.n_cells else hidden[:, :0]
    outputs, hidden, cell = run_layer(layout.cell, flat, inputs, hidden, cell, counts)
    return Passed(outputs, Memory(hidden.unsqueeze(1), cell.unsqueeze(1) if layout.n_cells else memory.cell))


def _fused(layout: CellLayout, weights: list[Tensor], inputs: Tensor, memory: Memory, lengths: Tensor | None) -> Passed:
    """One call of the kernel of torch over as many layers as there are fours of weights."""
    h = memory.hidden.transpose(0, 1).contiguous()
    c = memory.cell.transpose(0, 1).contiguous()
    start = (h, c) if layout.n_cells else h
    fused = CELLS[layout.cell].fused
    setting = (weights, True, len(weights) // 4, 0.0, torch.is_grad_enabled(), False)
    if lengths is None or bool((lengths == inputs.shape[1]).all()):
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


def _join(layout: CellLayout, layer: Layer, hidden: Tensor, stream: Tensor | None) -> tuple[Tensor, Tensor]:
    """r^l and y^l from h^l (*draw, ..., h) and r^{l-1}, which is None below the second layer."""
    stream = hidden + stream if layout.residual and stream is not None else hidden
    if layer.gain is None or layer.shift is None:
        return stream, stream
    between = (1,) * (stream.ndim - layer.gain.ndim)
    shape = (*layer.gain.shape[:-1], *between, layout.hidden_size)
    normal = torch.nn.functional.layer_norm(stream, shape[-1:])
    return stream, torch.addcmul(layer.shift.view(shape), normal, layer.gain.view(shape))


def step(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory) -> Passed:
    """One step for every draw at once.

    Parameters
    ----------
    flat : (*draw, size)
    inputs : (*draw, n, i) or (n, i)
    memory : leaves (*draw, n, ...), the memory before the step

    Returns
    -------
    outputs (*draw, n, h) and the memory after the step
    """
    cell, tracked = CELLS[layout.cell], torch.is_grad_enabled()
    below, stream, hidden, cells = inputs, None, [], []
    for index, layer in enumerate(layout.layers(flat)):
        h = memory.hidden[..., index, :]
        c = memory.cell[..., index, :] if layout.n_cells else None
        if tracked:
            h, c = cell.step(_affine(below, layer.w_x, layer.b_x), _affine(h, layer.w_h, layer.b_h), h, c)
        else:
            h, c = cell.now(below, layer, h, c)
        stream, below = _join(layout, layer, h, stream)
        hidden.append(h)
        if c is not None:
            cells.append(c)
    return Passed(below, Memory(torch.stack(hidden, -2), torch.stack(cells, -2) if cells else memory.cell))


def scan(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory) -> Passed:
    """The memory before every step and after the last, all draws side by side.

    The fused kernel keeps the outputs of the last layer only; this pass keeps everything that a state needs.

    Parameters
    ----------
    flat : (*draw, size)
    inputs : (*draw, n, t, i) or (n, t, i)
    memory : leaves (*draw, n, ...)

    Returns
    -------
    outputs (*draw, n, t, h) and a memory with leaves (*draw, n, t + 1, n_layers, h)
    """
    advance = CELLS[layout.cell].step
    steps, below, stream = inputs.shape[-2], inputs, None
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
        stream, below = _join(layout, layer, trajectory[..., 1:, :], stream)
        hidden.append(trajectory)
        if layout.n_cells:
            cells.append(torch.stack([leaf for leaf in along_c if leaf is not None], -2))
    along = torch.stack(hidden, -2)
    return Passed(below, Memory(along, torch.stack(cells, -2) if cells else along[..., :0, :]))


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(*draw, n, i), (*draw, o, i), (*draw, o) -> (*draw, n, o)."""
    if x.ndim == weight.ndim == 3:
        return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)
    if x.ndim == weight.ndim == 2:
        return torch.addmm(bias, x, weight.mT)
    return torch.matmul(x, weight.mT) + bias.unsqueeze(-2)


def _gates(x: Tensor, layer: Layer, h: Tensor) -> Tensor:
    """What enters the gates, in one new array where there is none or one draw dimension; without gradients."""
    gates = _affine(x, layer.w_x, layer.b_x + layer.b_h)
    if gates.ndim == h.ndim == layer.w_h.ndim == 3:
        return gates.baddbmm_(h, layer.w_h.mT)
    return gates.add_(torch.matmul(h, layer.w_h.mT))
