"""Windows of sequences for mini-batches: every value is scored once a pass, after a stretch of context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from probseq.models.base import Batch

__all__ = ["Carried", "MiniBatch", "MiniBatches", "Windows", "hold_back", "whole_sequences"]

_LONGEST_WHOLE = 512
_ENOUGH_SEQUENCES = 10
# How much longer than another a window may be and still come before it in the order of lengths.
_JITTER = 0.25


class Carried(NamedTuple):
    """How the windows of a mini-batch go on from those of the mini-batch before it.

    lane : (b,) int64, ascending: the stream of each window, by its place among those that began together
    n_lanes : how many streams began together
    first : whether they begin here
    """

    lane: Tensor
    n_lanes: int
    first: bool


class MiniBatch(NamedTuple):
    """Windows as a batch.

    batch : the windows, context first, filled up to one length with steps where nothing is seen
    scored : (b, t, k) bool, the values that count; context, padding and missing values do not
    weight : (b,), the weight of each window's sequence
    share : (), the fraction of a pass that these are
    rows : (b, 3) int64: sequence, first scored step, end of the window
    carried : None where every window starts anew
    """

    batch: Batch
    scored: Tensor
    weight: Tensor
    share: Tensor
    rows: Tensor
    carried: Carried | None = None

    def split(self, parts: int) -> list[MiniBatch]:
        """Cut into at most ``parts`` mini-batches of nearly equal size.

        Where states are carried, into exactly ``parts`` by streams, so that a stream stays in its part until it ends;
        some may be empty.
        """
        if self.carried is not None:
            every = self.carried.n_lanes
            bounds = torch.tensor([every * i // parts for i in range(parts + 1)])
            edges = torch.searchsorted(self.carried.lane, bounds).tolist()
        else:
            parts = max(1, min(parts, self.batch.n))
            edges = [self.batch.n * i // parts for i in range(parts + 1)]
        return [self] if parts == 1 else [self._take(first, last) for first, last in zip(edges, edges[1:])]

    def _take(self, first: int, last: int) -> MiniBatch:
        batch = Batch(*(None if leaf is None else leaf[first:last] for leaf in self.batch))  # type: ignore[arg-type]
        carried = self.carried
        if carried is not None:
            carried = carried._replace(lane=carried.lane[first:last])
        scored, weight = self.scored[first:last], self.weight[first:last]
        return MiniBatch(batch, scored, weight, self.share, self.rows[first:last], carried)

    def to(self, device: torch.device) -> MiniBatch:
        """On another device, without waiting for the copy; shares and what names the windows stay where they are."""
        if self.scored.device == device:
            return self
        wait = device.type != "cuda"

        def moved(leaf: Tensor) -> Tensor:
            return leaf.to(device) if wait else leaf.pin_memory().to(device, non_blocking=True)

        batch = Batch(*(None if leaf is None else moved(leaf) for leaf in self.batch))  # type: ignore[arg-type]
        return MiniBatch(batch, moved(self.scored), moved(self.weight), self.share, self.rows, self.carried)


@runtime_checkable
class MiniBatches(Protocol):
    """What training reads its data from: memory, as `Windows`, or anything else that comes in mini-batches.

    n_values : weighted number of scored values of one pass
    n_windows : windows of one pass
    window : steps of the longest window
    """

    n_values: float
    n_windows: int
    window: int

    def n_batches(self, batch_size: int) -> int:
        """Mini-batches of a pass, or nearly so."""
        ...

    def passing(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """One pass: every value is scored once, and the shares of the mini-batches add up to one.

        Whatever is random comes from ``generator``, so that the pass of a generator in the same state is the same
        pass: this is what a stopped training is resumed by.
        """
        ...


class Windows:
    """Cut sequences into windows anew for every pass.

    A sequence of at most ``window`` steps is one window. A longer one is tiled from a random offset; each window is
    preceded by up to ``context`` steps that warm the state up and are not scored, so that a pass scores every value
    once and the only approximation is the state at the start of the context. Windows of about equal length come
    together in a mini-batch, in random order otherwise; what is left to fill up is masked.

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
        self.longest = int(batch.lengths.max()) if batch.n else 0
        self.window = window if window is not None else (self.longest if self.longest <= _LONGEST_WHOLE else 192)
        self.context = self.window // 4 if context is None else context
        self.n_values = float((scored.sum((-2, -1)) * self.weights).sum())
        self._lengths = batch.lengths.tolist()
        self._every = torch.tensor(self._tiles(self.window, 0))
        self.n_windows = len(self._every)
        self._masks: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> Self:
        """Keep the data on a device, so that nothing is moved in training."""
        self.batch = Batch(*(None if leaf is None else leaf.to(device) for leaf in self.batch))  # type: ignore[arg-type]
        self.scored, self.weights, self._masks = self.scored.to(device), self.weights.to(device), None
        return self

    def _tiles(self, size: int, offset: int) -> list[tuple[int, int, int]]:
        """(sequence, first step, end) of tiles of at most ``size`` steps, the first of a long one up to ``offset``."""
        tiles = []
        for sequence, length in enumerate(self._lengths):
            if length <= size:
                tiles += [(sequence, 0, length)] if length else []
                continue
            cuts = [0, *range(offset or size, length, size), length]
            tiles += [(sequence, first, stop) for first, stop in zip(cuts, cuts[1:])]
        return tiles

    def _drawn_tiles(self, size: int, generator: torch.Generator) -> Tensor:
        """Tiles from a random offset, (r, 3)."""
        if size < self.longest:
            return torch.tensor(self._tiles(size, int(torch.randint(size, (), generator=generator))))
        return self._every if size == self.window else torch.tensor(self._tiles(size, 0))

    def passing(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """One pass in random order, in mini-batches of nearly equal numbers of windows."""
        rows = self._drawn_tiles(self.window, generator)
        take = self.take if self.window < self.longest else self._take_whole
        for chosen in bucketed(rows[:, 2] - self._start(rows), batch_size, generator):
            yield take(rows[chosen], len(chosen) / len(rows))

    def _start(self, rows: Tensor) -> Tensor:
        return (rows[:, 1] - self.context).clamp_min(0)

    def take(self, rows: Tensor, share: float = 1.0, start: Tensor | None = None) -> MiniBatch:
        """The mini-batch of some windows, (b, 3), each from step ``start`` (b,) or with its context."""
        sequence, first, stop = rows.unbind(-1)
        start = self._start(rows) if start is None else start
        steps = torch.arange(int((stop - start).max()))
        index = start.unsqueeze(-1) + steps
        inside = (index < stop.unsqueeze(-1)).unsqueeze(-1)
        counts = inside & (index >= first.unsqueeze(-1)).unsqueeze(-1)
        there = self.scored.device
        where = (sequence.unsqueeze(-1), index.clamp_max(self.batch.t - 1), inside, counts)
        row, index, inside, counts = (leaf.to(there, non_blocking=True) for leaf in where)
        u = None if self.batch.u is None else self.batch.u[row, index]
        # Filled up with steps where nothing is seen: sequences of one length need no packing, which is slow.
        lengths = torch.full((len(rows),), len(steps), device=there)
        batch = Batch(self.batch.x[row, index], self.batch.seen[row, index] & inside, lengths, u)
        scored, weight = self.scored[row, index] & counts, self.weights[row[:, 0]]
        return MiniBatch(batch, scored, weight, torch.tensor(share, dtype=weight.dtype), rows)

    def _take_whole(self, rows: Tensor, share: float) -> MiniBatch:
        """As `take`, for windows that are whole sequences."""
        if self._masks is None:
            inside = self.batch.real.unsqueeze(-1)
            self._masks = self.batch.seen & inside, self.scored & inside
        steps, there = int(rows[:, 2].max()), self.scored.device
        sequence = rows[:, 0].to(there, non_blocking=True)

        def chosen(leaf: Tensor) -> Tensor:
            return leaf[:, :steps].index_select(0, sequence)

        x, seen, scored = (chosen(leaf) for leaf in (self.batch.x, *self._masks))
        u = None if self.batch.u is None else chosen(self.batch.u)
        batch = Batch(x, seen, torch.full((len(rows),), steps, device=there), u)
        weight = self.weights.index_select(0, sequence)
        return MiniBatch(batch, scored, weight, torch.tensor(share, dtype=weight.dtype), rows)

    def n_batches(self, batch_size: int) -> int:
        """Mini-batches of a pass (of one with the usual number of windows)."""
        return -(-self.n_windows // batch_size)


def bucketed(lengths: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Rows (r,) in groups of at most ``size`` and of about equal length, random otherwise, in random order."""
    order = torch.randperm(len(lengths), generator=generator)
    n_groups = -(-len(lengths) // size)
    if n_groups < 2 or bool((lengths == lengths[0]).all()):
        return list(order.tensor_split(n_groups))
    blurred = lengths[order] * (1 + _JITTER * torch.rand(len(lengths), generator=generator))
    groups = order[blurred.argsort(stable=True)].tensor_split(n_groups)
    return [groups[i] for i in torch.randperm(n_groups, generator=generator).tolist()]


def whole_sequences(batch: Batch, scored: Tensor | None = None, weights: Tensor | None = None) -> MiniBatch:
    """Every sequence as one window."""
    each = torch.ones(batch.n, dtype=batch.x.dtype) if weights is None else weights.to(batch.x.dtype)
    rows = torch.stack([torch.arange(batch.n), torch.zeros_like(batch.lengths), batch.lengths], -1)
    one = torch.ones((), dtype=batch.x.dtype)
    return MiniBatch(batch, batch.to_explain if scored is None else scored, each, one, rows)


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
        part = whole_sequences(batch, batch.to_explain & late, weights)
        rest, rest_weights = batch._replace(seen=batch.seen & ~late, lengths=cut), weights
    if not bool(part.scored.any()) or not bool(rest.to_explain.any()):
        return batch, weights, None
    return rest, rest_weights, part


def _rows_of(batch: Batch, rows: Tensor) -> Batch:
    u = None if batch.u is None else batch.u[rows]
    given = None if batch.given is None else batch.given[rows]
    return Batch(batch.x[rows], batch.seen[rows], batch.lengths[rows], u, given=given)
