"""How far back the score of a step reaches: its gradients with respect to what a network held before."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels import cells
from probseq.kernels.cells import CELLS, CellLayout, Memory
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel, RecurrentState

__all__ = ["gradient_norms", "growth_rate", "spread_steps"]

# Numbers that one pass may hold at once.
_LARGEST = 2_000_000


def spread_steps(batch: Batch, max_lag: int, n_steps: int) -> tuple[Tensor, Tensor]:
    """Sequences and steps (w,), at most ``n_steps`` in even distances among those seen with ``max_lag`` steps behind.

    Empty where no sequence is so long.
    """
    there = batch.seen.any(-1) & batch.real
    there[:, :max_lag] = False
    rows, steps = torch.nonzero(there, as_tuple=True)
    if len(rows) > n_steps:
        chosen = torch.linspace(0, len(rows) - 1, n_steps, dtype=torch.float64).round().long()
        rows, steps = rows[chosen], steps[chosen]
    return rows, steps


def gradient_norms(
    model: RecurrentModel,
    params: Params,
    batch: Batch,
    state: RecurrentState,
    rows: Tensor,
    steps: Tensor,
    max_lag: int,
    *,
    memory: bool = True,
) -> Tensor:
    r"""|| d log p(x_t | x_<t) / d h^l_{t-j} || for j = 0 .. max_lag, (D, w, n_layers, max_lag + 1) float64.

    h^l_s is moved after it was computed: the layers above at the same step, the steps after it and attention to it all
    see the move. With ``memory`` the LSTM's cell is moved beside it, h staying what it is, and the norm is that of both
    gradients together. The data stay as they are.

    Each step t is a row of its own, run anew from what the network held at t - max_lag - 1, so that one backward pass
    gives the gradients of many steps; no Jacobian is made.

    Parameters
    ----------
    params : weights (D, m)
    state : leaves (D, n, ...)
    rows, steps : (w,), which sequences and steps t of the batch, t >= max_lag

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, equations 3 to 5.
    """
    each = model.layout.hidden_size * (model.layout.gates + 4) * model.layout.n_layers * (max_lag + 1)
    at_once = max(1, _LARGEST // each)
    n_draws = max(1, min(len(params["weights"]), at_once // len(rows)))
    n_windows = max(1, at_once // n_draws)
    score, found = _Score(model, batch, memory), []
    for first in range(0, len(params["weights"]), n_draws):
        own = slice(first, first + n_draws)
        weights = model._split({"weights": params["weights"][own]})
        ran = _Ran(model, weights, batch, RecurrentState(*(leaf[own] for leaf in state)))
        norms = [
            score.norms(weights, ran, *some, max_lag) for some in zip(rows.split(n_windows), steps.split(n_windows))
        ]
        found.append(torch.cat(norms, 1))
    return torch.cat(found)


def growth_rate(norms: Tensor) -> Tensor:
    """g of the line log || . ||_j = a + j log g through lags 1 .. L by least squares, (...) from (..., L + 1), L >= 2.

    Lags whose norm is exactly zero or no finite number are left out; 0 where fewer than two are left.
    """
    values = norms[..., 1:].double()
    used = (values > 0) & values.isfinite()
    lag = torch.arange(1, values.shape[-1] + 1, dtype=torch.float64).expand(values.shape)
    height = torch.where(used, values, 1.0).log()
    n = used.sum(-1, keepdim=True).clamp_min(1)
    centred = torch.where(used, lag - torch.where(used, lag, 0.0).sum(-1, keepdim=True) / n, 0.0)
    slope = (centred * height).sum(-1) / centred.square().sum(-1).clamp_min(0.5)
    return torch.where(used.sum(-1) > 1, slope.exp(), torch.zeros_like(slope))


class _Ran:
    """A pass: inputs (D, n, t, i), memory before each step (D, n, t + 1, ...), and what attention may read."""

    def __init__(self, model: RecurrentModel, weights: dict[str, Tensor], batch: Batch, state: RecurrentState) -> None:
        before = Memory(*(leaf.double() for leaf in state.memory))
        with torch.no_grad():
            self.inputs = model._sequence_inputs(weights, batch, state).double()
            outputs, self.memory = cells.scan(model.layout, weights["layers"].double(), self.inputs, before)
        self.past = torch.cat([state.past.double(), outputs], 2)
        self.held = torch.cat([state.held, torch.ones_like(outputs[..., 0], dtype=torch.bool)], 2)


class _Score:
    """log p(x_t | x_<t) of chosen steps as a function of what the network held before."""

    def __init__(self, model: RecurrentModel, batch: Batch, memory: bool) -> None:
        self.model, self.seen, self.both = model, batch.seen, memory
        self.x = model._filled(batch.x, batch.seen)

    def norms(self, weights: dict[str, Tensor], ran: _Ran, rows: Tensor, steps: Tensor, max_lag: int) -> Tensor:
        """(D, w, n_layers, max_lag + 1), lag 0 first."""
        layout, start = self.model.layout, steps - max_lag
        before = Memory(*(leaf[:, rows, start] for leaf in ran.memory))
        inputs = ran.inputs[:, rows.unsqueeze(-1), start.unsqueeze(-1) + torch.arange(max_lag + 1)]
        back = start.unsqueeze(-1) + torch.arange(ran.past.shape[2] - ran.inputs.shape[2])
        past, held = (leaf[:, rows.unsqueeze(-1), back] for leaf in (ran.past, ran.held))
        own = {name: value.double() for name, value in weights.items()}
        with torch.enable_grad():
            moves = [torch.zeros((max_lag + 1, *leaf.shape), dtype=leaf.dtype, requires_grad=True) for leaf in before]
            outputs = _moved(layout, own["layers"], inputs, before, Memory(*moves))
            features = self.model._features(own, outputs, past, held)[..., -1, :]
            # The head holds constants of its own precision.
            dtype = self.model.dtype
            law = self.model.output.law(weights, features.to(dtype), inputs[..., -1, :].to(dtype))
            total = law.training_score(self.x[rows, steps], self.seen[rows, steps]).sum()
            wanted = moves if self.both and layout.n_cells else moves[:1]
            slopes = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
        norm = torch.stack([slope.square().sum(-1) for slope in slopes]).sum(0).sqrt()
        return norm.movedim(0, -1).flip(-1)


def _moved(layout: CellLayout, flat: Tensor, inputs: Tensor, memory: Memory, moves: Memory) -> Tensor:
    """Outputs (D, w, t, h) of steps whose memories are moved by ``moves`` (t, D, w, ...) once they are computed."""
    advance, layers = CELLS[layout.cell].step, layout.layers(flat)
    hidden = list(memory.hidden.unbind(-2))
    held = list(memory.cell.unbind(-2)) if layout.n_cells else []
    outputs = []
    for t in range(inputs.shape[-2]):
        below, stream = inputs[..., t, :], None
        for index, layer in enumerate(layers):
            gate_x = cells._affine(below, layer.w_x, layer.b_x)
            gate_h = cells._affine(hidden[index], layer.w_h, layer.b_h)
            h, c = advance(gate_x, gate_h, hidden[index], held[index] if held else None)
            hidden[index] = h + moves.hidden[t, ..., index, :]
            if c is not None:
                held[index] = c + moves.cell[t, ..., index, :]
            stream, below = cells._join(layout, layer, hidden[index], stream)
        outputs.append(below)
    return torch.stack(outputs, -2)
