"""Causal attention of a network over its own last states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.errors import ParameterError
from probseq.models.recurrent_layout import Part

__all__ = ["Attended", "Attention"]


class Attended(NamedTuple):
    """context : (*draw, n, t, heads * h); weights : (*draw, n, t, heads, window), by lag, the present first."""

    context: Tensor
    weights: Tensor


class Attention:
    r"""c_t = sum_{j < window} a_tj y_{t-j}, a_t = softmax_j(q_t . k_{t-j} / sqrt(d) + r_j), q = Q y, k = K y.

    y_t is what the last layer passes on at step t. The mean runs over the present and the ``window`` - 1 steps before
    it, as far as the sequence has them; r_j is a learnt preference for the lag j. Each head has its own Q, K and r,
    with d = h / heads rows, and a mean of its own; what Vaswani et al. (2017, section 3.2) multiply by value and output
    matrices is here multiplied by the matrix of the network's head.

    Parameters
    ----------
    window : int
        From 2: with the present alone there is nothing to attend to.
    heads : int
        A divisor of the hidden size.
    hidden_size : int

    Raises
    ------
    ParameterError
    """

    def __init__(self, window: int, heads: int, hidden_size: int) -> None:
        for name, value, least in (("attention", window, 2), ("attention_heads", heads, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ParameterError(
                    got=f"{name}={value!r}", expected=f"a whole number from {least}", remedy=f"Try {name}={least}."
                )
        if hidden_size % heads:
            raise ParameterError(
                got=f"attention_heads={heads} with hidden_size={hidden_size}",
                expected="a divisor of hidden_size",
                remedy="Choose sizes that divide.",
            )
        self.window, self.heads, self.hidden_size = window, heads, hidden_size

    @property
    def parts(self) -> dict[str, Part]:
        """Q and K (h, h), the heads' rows one below the other, and r (heads, window)."""
        square = Part((self.hidden_size, self.hidden_size), "attention", self.hidden_size**-0.5)
        lag = Part((self.heads, self.window), "attention", 1.0)
        return {"attention.query": square, "attention.key": square, "attention.lag": lag}

    def __call__(self, weights: Mapping[str, Tensor], outputs: Tensor, past: Tensor, held: Tensor) -> Attended:
        """Attend at every step of a stretch.

        Parameters
        ----------
        weights : pieces of the network
        outputs : (*draw, n, t, h), y_t
        past : (*draw, n, window - 1, h), those of the steps before
        held : (*draw, n, window - 1) bool, which of those there were
        """
        every = torch.cat([past, outputs], -2)
        there = torch.cat([held, held.new_ones(outputs.shape[:-1])], -1)
        queries = torch.matmul(outputs, weights["attention.query"].mT.unsqueeze(-3))
        keys = torch.matmul(every, weights["attention.key"].mT.unsqueeze(-3))
        size = (self.heads, self.hidden_size // self.heads)
        near = keys.unfold(-2, self.window, 1).unflatten(-2, size)
        scores = torch.matmul(queries.unflatten(-1, size).unsqueeze(-2), near).squeeze(-2)
        lag = weights["attention.lag"].flip(-1)
        scores = scores * (1 / math.sqrt(size[1])) + lag.view(*lag.shape[:-2], 1, 1, *lag.shape[-2:])
        reach = there.unfold(-1, self.window, 1).unsqueeze(-2)
        share = torch.softmax(scores.masked_fill(~reach, -torch.inf), -1)
        context = torch.matmul(share, every.unfold(-2, self.window, 1).mT).flatten(-2)
        return Attended(context, share.flip(-1))
