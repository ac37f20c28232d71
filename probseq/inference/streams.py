"""Consecutive windows of parallel streams: the state at the end of one window begins the next."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from probseq.inference.options import TrainingOptions
from probseq.inference.windows import Carried, MiniBatch, MiniBatches, Windows, bucketed
from probseq.models.base import Batch

__all__ = ["Streams", "mini_batches"]


class Streams(Windows):
    """Sequences in windows one after the other, side by side with others, for truncated back-propagation.

    A sequence, or a piece of one, is a stream. Streams of about equal length start together, at most ``batch_size`` of
    them; each mini-batch holds the next window of all that have not ended. Nothing is computed twice and, given the
    weights, the log-likelihood of a sequence that is one stream is exact; only gradients end at the start of a window.
    Where there are fewer sequences than ``batch_size``, long ones are cut into pieces from a random offset, each of
    which starts after ``context`` unscored steps.

    Parameters
    ----------
    batch, scored, weights, window, context
        As for `Windows`.
    carry : int or None
        Windows for which a state is carried, then the stream ends; None carries it to the end of each sequence.
    """

    def __init__(
        self,
        batch: Batch,
        scored: Tensor,
        weights: Tensor | None = None,
        window: int | None = None,
        context: int | None = None,
        carry: int | None = None,
    ) -> None:
        super().__init__(batch, scored, weights, window, context)
        self.carry = carry

    def _size(self, batch_size: int) -> int:
        """Scored steps of the longest stream."""
        fair = -(-sum(self._lengths) // (batch_size * self.window)) * self.window
        size = self.longest if batch_size <= len(self._lengths) else max(self.window, min(self.longest, fair))
        return size if self.carry is None else min(size, self.carry * self.window)

    def passing(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """One pass: groups of streams in random order, each from its first window to its last."""
        rows = self._drawn_tiles(self._size(batch_size), generator)
        steps = rows[:, 2] - self._start(rows)
        groups = [chosen.sort().values for chosen in bucketed(steps, batch_size, generator)]
        # The first windows differ in length, so that gradients do not always end at the same steps.
        heads = torch.randint(self.window // 2 + 1, self.window + 1, (len(groups),), generator=generator).tolist()
        share = 1 / sum(self._n_windows(steps[g], head) for g, head in zip(groups, heads))
        for chosen, head in zip(groups, heads):
            yield from self._group(rows[chosen], head + self.context, share)

    def _n_windows(self, steps: Tensor, head: int) -> int:
        return 1 + max(0, -(-(int(steps.max()) - head - self.context) // self.window))

    def _group(self, rows: Tensor, head: int, share: float) -> Iterator[MiniBatch]:
        """The windows of streams (b, 3) that start together, the first of them with ``head`` steps."""
        sequence, first, stop = rows.unbind(-1)
        start, lanes, end = self._start(rows), torch.arange(len(rows)), torch.full_like(first, 0)
        while True:
            begins = not bool(end.any())
            end = start + head if begins else end + self.window
            window = torch.stack([sequence, first, torch.minimum(end, stop)], -1)
            yield self.take(window, share, start)._replace(carried=Carried(lanes, len(rows), begins))
            on = end < stop
            if not bool(on.any()):
                return
            sequence, stop, end, lanes = sequence[on], stop[on], end[on], lanes[on]
            start = first = end

    def n_batches(self, batch_size: int) -> int:
        """Mini-batches of a pass, or nearly so."""
        size = self._size(batch_size)
        steps = torch.tensor([stop - first for _, first, stop in self._tiles(size, 0)]).sort().values
        groups = steps.tensor_split(-(-len(steps) // batch_size))
        return sum(self._n_windows(group + self.context, 3 * self.window // 4) for group in groups)


def mini_batches(batch: Batch, scored: Tensor, weights: Tensor | None, options: TrainingOptions) -> MiniBatches:
    """The data as ``options`` want them cut."""
    if not options.carry_state:
        return Windows(batch, scored, weights, options.window, options.context)
    carry = None if options.carry_state is True else int(options.carry_state)
    return Streams(batch, scored, weights, options.window, options.context, carry)
