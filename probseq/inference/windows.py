"""Windows of sequences for mini-batches: every value is scored once a pass, after a stretch of context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.models.base import Batch

__all__ = ["MiniBatch", "Windows", "hold_back", "whole_sequences"]

_LONGEST_WHOLE = 512
_ENOUGH_SEQUENCES = 10


class MiniBatch(NamedTuple):
    """Windows as a batch.

    batch : the windows, context first
    scored : (b, t, k) bool, the values that count; context, padding and missing values do not
    weight : (b,), the weight of each window's sequence
    share : (), the fraction of all windows that these are
    rows : (b, 3) int64: sequence, first scored step, end of the window
    """

    batch: Batch
    scored: Tensor
    weight: Tensor
    share: Tensor
    rows: Tensor

    def split(self, parts: int) -> list[MiniBatch]:
        """Cut into at most ``parts`` mini-batches of nearly equal size."""
        parts = min(parts, self.batch.n)
        if parts == 1:
            return [self]
        pieces = torch.arange(self.batch.n, device=self.rows.device).tensor_split(parts)
        return [self._take(piece) for piece in pieces]

    def _take(self, piece: Tensor) -> MiniBatch:
        first, last = int(piece[0]), int(piece[-1]) + 1
        batch = Batch(*(None if leaf is None else leaf[first:last] for leaf in self.batch))  # type: ignore[arg-type]
        return MiniBatch(batch, self.scored[first:last], self.weight[first:last], self.share, self.rows[first:last])


class Windows:
    """Cut sequences into windows anew for every pass.

    A sequence of at most ``window`` steps is one window. A longer one is tiled from a random offset; each window is
    preceded by up to ``context`` steps that warm the state up and are not scored, so that a pass scores every value
    once and the only approximation is the state at the start of the context.

    Parameters
    ----------
    batch : Batch
    scored : (n, t, k) bool, the values that count
    weights : (n,) or None
    window : int or None
        Scored steps of a window. None keeps sequences of up to 512 steps whole, and takes 192 for longer ones.
    context : int or None
        None is a quarter of the window.
    """

    def __init__(
        self,
        batch: Batch,
        scored: Tensor,
        weights: Tensor | None = None,
        window: int | None = None,
        context: int | None = None,
    ) -> None:
        self.batch, self.scored = batch, scored
        self.weights = torch.ones(batch.n, dtype=batch.x.dtype) if weights is None else weights.to(batch.x.dtype)
        longest = int(batch.lengths.max()) if batch.n else 0
        self.window = window if window is not None else (longest if longest <= _LONGEST_WHOLE else 192)
        self.context = self.window // 4 if context is None else context
        self.n_values = float((scored.sum((-2, -1)) * self.weights).sum())
        self._lengths = batch.lengths.tolist()
        self.n_windows = len(self._rows(0))

    def _rows(self, offset: int) -> list[tuple[int, int, int]]:
        """(sequence, first scored step, end), the first window of a long sequence ending at ``offset``."""
        rows = []
        for sequence, length in enumerate(self._lengths):
            if length <= self.window:
                rows += [(sequence, 0, length)] if length else []
                continue
            cuts = [0, *range(offset or self.window, length, self.window), length]
            rows += [(sequence, first, stop) for first, stop in zip(cuts, cuts[1:])]
        return rows

    def passing(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """One pass in random order, in mini-batches of nearly equal numbers of windows."""
        offset = 0
        if self.window < max(self._lengths, default=0):
            offset = int(torch.randint(self.window, (), generator=generator))
        rows = torch.tensor(self._rows(offset))
        order = torch.randperm(len(rows), generator=generator)
        for chosen in order.tensor_split(-(-len(rows) // batch_size)):
            yield self.take(rows[chosen], len(chosen) / len(rows))

    def take(self, rows: Tensor, share: float = 1.0) -> MiniBatch:
        """The mini-batch of some windows, (b, 3)."""
        sequence, first, stop = rows.unbind(-1)
        start = (first - self.context).clamp_min(0)
        lengths = stop - start
        steps = torch.arange(int(lengths.max()))
        index = (start.unsqueeze(-1) + steps).clamp_max(self.batch.t - 1)
        row = sequence.unsqueeze(-1)
        inside = steps < lengths.unsqueeze(-1)
        counts = inside & (index >= first.unsqueeze(-1))
        u = None if self.batch.u is None else self.batch.u[row, index]
        batch = Batch(self.batch.x[row, index], self.batch.seen[row, index] & inside.unsqueeze(-1), lengths, u)
        scored = self.scored[row, index] & counts.unsqueeze(-1)
        return MiniBatch(batch, scored, self.weights[sequence], torch.tensor(share, dtype=batch.x.dtype), rows)

    def n_batches(self, batch_size: int) -> int:
        """Mini-batches of a pass (of one with the usual number of windows)."""
        return -(-self.n_windows // batch_size)


def whole_sequences(batch: Batch, scored: Tensor | None = None, weights: Tensor | None = None) -> MiniBatch:
    """Every sequence as one window."""
    each = torch.ones(batch.n, dtype=batch.x.dtype) if weights is None else weights.to(batch.x.dtype)
    rows = torch.stack([torch.arange(batch.n), torch.zeros_like(batch.lengths), batch.lengths], -1)
    one = torch.ones((), dtype=batch.x.dtype)
    return MiniBatch(batch, batch.seen if scored is None else scored, each, one, rows)


def hold_back(
    batch: Batch, weights: Tensor | None, fraction: float, generator: torch.Generator
) -> tuple[Batch, Tensor | None, MiniBatch | None]:
    """Split off a part to validate on: whole sequences where there are ten or more, else the end of each.

    Returns
    -------
    The batch and the sequence weights that are left, and what was held back; None where that is nothing.
    """
    if batch.n >= _ENOUGH_SEQUENCES:
        order = torch.randperm(batch.n, generator=generator)
        n_held = int(round(fraction * batch.n))
        held, left = order[:n_held].sort().values, order[n_held:].sort().values
        part = whole_sequences(_rows_of(batch, held), None, None if weights is None else weights[held])
        rest, rest_weights = _rows_of(batch, left), None if weights is None else weights[left]
    else:
        cut = batch.lengths - (fraction * batch.lengths).long()
        late = (torch.arange(batch.t) >= cut.unsqueeze(-1)).unsqueeze(-1)
        part = whole_sequences(batch, batch.seen & late, weights)
        rest, rest_weights = batch._replace(seen=batch.seen & ~late, lengths=cut), weights
    if not bool(part.scored.any()) or not bool(rest.seen.any()):
        return batch, weights, None
    return rest, rest_weights, part


def _rows_of(batch: Batch, rows: Tensor) -> Batch:
    u = None if batch.u is None else batch.u[rows]
    return Batch(batch.x[rows], batch.seen[rows], batch.lengths[rows], u)
