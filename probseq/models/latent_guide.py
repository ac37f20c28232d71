"""Inference networks: the law from which latent states are proposed, given the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.kernels import cells
from probseq.kernels.cells import CellLayout, Memory
from probseq.models.dense import Dense, positive
from probseq.models.latent_flow import Flow
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.recurrent_layout import Part, cell_parts
from probseq.models.recurrent_start import start_cells

__all__ = ["DIRECTIONS", "Guide", "Proposal"]

DIRECTIONS = ("none", "left", "right", "both")


class Proposal(NamedTuple):
    """law : normal, of z_t or of what flows bend to z_t; context : (..., h), what flows read"""

    law: DiagonalLaw
    context: Tensor


class Guide:
    r"""q(z_t | z_{t-1}, x) = N([mu_t +] m_t, diag(s_t)^2), (m_t, s_t) from tanh(W_a a_t + W_h h_t + W_z z_{t-1} + b).

    a_t describes the data: those of step t alone ("none"), what a recurrent net has made of x_1, ..., x_t ("left"), of
    x_T, ..., x_t ("right"), or both side by side. Only the first two can filter. mu_t is the mean of the prior where
    ``residual`` (Fraccaro et al. 2016, eq. 14); h_t is the memory of the model where each path has its own. With flows
    this is the law of what they bend to z_t; their context is the argument of the tanh, without b.

    Parameters
    ----------
    name : str
        First part of the names of its pieces.
    n_read : int
        Numbers that describe x_t.
    n_memory, n_latent : int
        Sizes of h_t (0 without one) and z_t.
    hidden_size, rnn_size : int
    direction : {"none", "left", "right", "both"}
    residual, reads_latent : bool
    flow_layers : int
        See ``Flow``; 0 leaves the law normal.
    """

    def __init__(
        self,
        name: str,
        n_read: int,
        n_memory: int,
        n_latent: int,
        hidden_size: int,
        rnn_size: int,
        direction: str,
        residual: bool = False,
        reads_latent: bool = True,
        flow_layers: int = 0,
    ) -> None:
        self.name, self.direction, self.residual, self.n_latent = name, direction, residual, n_latent
        layout = CellLayout("gru", n_read, rnn_size)
        self.left = layout if direction in ("left", "both") else None
        self.right = layout if direction in ("right", "both") else None
        n_features = n_read if direction == "none" else rnn_size * (2 if direction == "both" else 1)
        sizes = (n_features, n_memory, n_latent if reads_latent else 0)
        self.combine = Dense(f"{name}.combine", sizes, (hidden_size, 2 * n_latent))
        flow = Flow(f"{name}.flow", n_latent, hidden_size, hidden_size, flow_layers)
        self.flow = flow if flow_layers else None
        self.block_left, self.block_right = f"{name}_left", f"{name}_right"

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the stacks of cells."""
        return (self.block_left, self.block_right)

    @property
    def parts(self) -> dict[str, Part]:
        parts = {} if self.left is None else cell_parts(self.left, self.block_left)
        if self.right is not None:
            parts |= cell_parts(self.right, self.block_right)
        return parts | self.combine.parts | ({} if self.flow is None else self.flow.parts)

    def start(self, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        for layout, block in ((self.left, self.block_left), (self.right, self.block_right)):
            if layout is not None:
                start_cells(layout, weights[block], "uniform", generator)
        self.combine.start(weights, generator, last=0.5)
        if self.flow is not None:
            self.flow.start(weights, generator)

    def empty_reader(self, like: Tensor) -> Memory:
        """What the net that reads from the left remembers at first, for sequences (*draw, n)."""
        if self.left is None:
            nothing = like.new_zeros((*like.shape, 0, 0))
            return Memory(nothing, nothing)
        hidden = like.new_zeros((*like.shape, self.left.n_layers, self.left.hidden_size))
        return Memory(hidden, hidden[..., :0, :])

    def read(self, weights: Mapping[str, Tensor], reader: Memory, x: Tensor) -> tuple[Tensor, Memory]:
        """a_t (*draw, n, f) and the memory of the reader after step t, from what describes x_t, (*draw, n, n_read)."""
        if self.left is None:
            return x, reader
        passed = cells.step(self.left, weights[self.block_left], x, reader)
        return passed.outputs, passed.final

    def read_all(self, weights: Mapping[str, Tensor], reader: Memory, x: Tensor, last: Tensor) -> tuple[Tensor, Memory]:
        """a_t of all steps (n, t, f) and the reader after them, for one set of weights.

        Parameters
        ----------
        x : (n, t, n_read)
        last : (n,) int64
            Number of steps up to the last one in which anything was seen: reading from the right begins there.
        """
        if self.direction == "none":
            return x, reader
        features = []
        if self.left is not None:
            passed = cells.whole(self.left, weights[self.block_left], x, reader)
            features.append(passed.outputs)
            reader = passed.final
        if self.right is not None:
            step = torch.arange(x.shape[1], device=x.device)
            turn = torch.where(step < last.unsqueeze(-1), last.unsqueeze(-1) - 1 - step, step).unsqueeze(-1)
            turned = x.gather(1, turn.expand_as(x))
            empty = x.new_zeros((len(x), 1, self.right.hidden_size))
            from_right = cells.whole(self.right, weights[self.block_right], turned, Memory(empty, empty[:, :0])).outputs
            features.append(from_right.gather(1, turn.expand_as(from_right)))
        return torch.cat(features, -1), reader

    def context(self, weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """What a_t has in the hidden layer."""
        return self.combine.first(weights, {0: features})

    def propose(
        self,
        weights: Mapping[str, Tensor],
        context: Tensor,
        memory: Tensor | None,
        z: Tensor,
        prior: DiagonalLaw | None,
    ) -> Proposal:
        """q(z_t | z_{t-1}, x) from the context, h_t and z_{t-1}, (..., d); the prior is needed where residual."""
        others = {2: z} if self.combine.inputs[2] else {}
        if memory is not None and self.combine.inputs[1]:
            others[1] = memory
        hidden = context + self.combine.first(weights, others) if others else context
        shift, spread = self.combine.finish(weights, hidden).chunk(2, -1)
        if self.residual and prior is not None:
            shift = shift + prior.loc
        return Proposal(DiagonalLaw(shift.expand_as(z), positive(spread).expand_as(z)), hidden)

    def bend(self, weights: Mapping[str, Tensor], proposal: Proposal, base: Tensor) -> tuple[Tensor, Tensor | None]:
        """z_t (..., d) and log |det| (...) from what the normal law gave; itself and None without flows."""
        if self.flow is None:
            return base, None
        return self.flow(weights, base, self._beside(proposal, base))

    def log_prob(self, weights: Mapping[str, Tensor], proposal: Proposal, z: Tensor) -> Tensor:
        """log q(z_t | z_{t-1}, x), (...), nats; with flows this takes one pass for each coordinate."""
        if self.flow is None:
            return proposal.law.log_prob(z)
        base, log_det = self.flow.inverse(weights, z, self._beside(proposal, z))
        return proposal.law.log_prob(base) - log_det

    def _beside(self, proposal: Proposal, z: Tensor) -> Tensor:
        return proposal.context.expand(*z.shape[:-1], proposal.context.shape[-1])
