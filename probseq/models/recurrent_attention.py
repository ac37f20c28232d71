"""Causal attention of a network over its own last states."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.errors import ParameterError
from probseq.models.recurrent_layout import Part

__all__ = ["Attention"]

_BLOCK = 32


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
        window, heads = whole_number("attention", window, 2), whole_number("attention_heads", heads, 1)
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

    def context(self, weights: Mapping[str, Tensor], outputs: Tensor, past: Tensor, held: Tensor) -> Tensor:
        """c_t at every step of a stretch, the heads' means side by side, (*draw, n, t, heads * h).

        Parameters
        ----------
        weights : pieces of the network
        outputs : (*draw, n, t, h), y_t
        past : (*draw, n, window - 1, h), those of the steps before
        held : (*draw, n, window - 1) bool, which of those there were
        """
        shares, values = self._shares(weights, outputs, past, held)
        means = torch.matmul(shares, values.mT.unsqueeze(-3)).transpose(-2, -3)
        return means.flatten(-2).flatten(-3, -2)[..., : outputs.shape[-2], :]

    def shares(self, weights: Mapping[str, Tensor], outputs: Tensor, past: Tensor, held: Tensor) -> Tensor:
        """a_tj of the same arguments by lag, (*draw, n, t, heads, window), the present first; zero for no step."""
        found, _ = self._shares(weights, outputs, past, held)
        size = found.shape[-2]
        steps, lags = torch.arange(size, device=found.device), torch.arange(self.window, device=found.device)
        column = steps.unsqueeze(-1) + self.window - 1 - lags
        by_lag = found.gather(-1, column.expand(*found.shape[:-2], size, self.window)).transpose(-2, -3)
        return by_lag.flatten(-4, -3)[..., : outputs.shape[-2], :, :]

    def _shares(
        self, weights: Mapping[str, Tensor], outputs: Tensor, past: Tensor, held: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Blocks of steps, each with the states that it can reach, where a whole matrix product serves all its steps.

        Returns the shares (*draw, n, block, heads, step, reached) and the states (*draw, n, block, h, reached).
        """
        t, window = outputs.shape[-2], self.window
        size = min(t, max(window, _BLOCK))
        blocks = -(-t // size)
        filler, span = blocks * size - t, size + window - 1
        rows = torch.nn.functional.pad(outputs, (0, 0, 0, filler))
        every = torch.cat([past, rows], -2)
        there = torch.cat([held, held.new_ones(rows.shape[:-1])], -1)
        each = (self.heads, self.hidden_size // self.heads)
        queries = torch.matmul(rows, weights["attention.query"].mT.unsqueeze(-3)).unflatten(-2, (blocks, size))
        keys = torch.matmul(every, weights["attention.key"].mT.unsqueeze(-3)).unfold(-2, span, size)
        scores = torch.matmul(queries.unflatten(-1, each).transpose(-2, -3), keys.unflatten(-2, each))
        steps, reached = torch.arange(size, device=rows.device), torch.arange(span, device=rows.device)
        lag = steps.unsqueeze(-1) + window - 1 - reached
        liked = weights["attention.lag"][..., lag.clamp(0, window - 1)]
        scores = scores * (1 / math.sqrt(each[1])) + liked.view(*liked.shape[:-3], 1, 1, *liked.shape[-3:])
        near = there.unfold(-1, span, size).unsqueeze(-2).unsqueeze(-2) & (lag >= 0) & (lag < window)
        return torch.softmax(scores.masked_fill(~near, -torch.inf), -1), every.unfold(-2, span, size)
