"""What a network holds at every step: hidden states of all layers, and whom it attends to."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.errors import UnsupportedError
from probseq.kernels import cells
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel, RecurrentState

__all__ = ["attention_weights", "hidden_states"]


def hidden_states(model: RecurrentModel, params: Params, batch: Batch, state: RecurrentState) -> Tensor:
    """h_t of every layer, a function of x_<t and u_<=t, (*draw, n, t, n_layers, hidden_size)."""
    if not batch.t:
        shape = (batch.n, 0, model.layout.n_layers, model.layout.hidden_size)
        return torch.zeros((*model._draw(params), *shape), dtype=model.dtype)
    weights = model._split(params)
    inputs = model._sequence_inputs(weights, batch, state)
    return cells.scan(model.layout, weights["layers"], inputs, state.memory).final.hidden[..., 1:, :, :]


def attention_weights(model: RecurrentModel, params: Params, batch: Batch, state: RecurrentState) -> Tensor:
    """a_tj by lag j, (*draw, n, t, heads, window); zero where the sequence had not begun.

    Raises
    ------
    UnsupportedError
        For a network without attention.
    """
    if model.attention is None:
        raise UnsupportedError(
            got="a network without attention",
            expected="one that was made with attention=",
            remedy="Fit with attention=10, say.",
        )
    if not batch.t:
        shape = (batch.n, 0, model.attention.heads, model.attention.window)
        return torch.zeros((*model._draw(params), *shape), dtype=model.dtype)
    weights = model._split(params)
    inputs = model._sequence_inputs(weights, batch, state)
    outputs = cells.scan(model.layout, weights["layers"], inputs, state.memory).outputs
    return model.attention.shares(weights, outputs, state.past, state.held)
