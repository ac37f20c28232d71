"""Mini-batches of a text file that is larger than memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probseq.data.textfile import TextFile
from probseq.distributions.params import Params
from probseq.inference.options import TrainingOptions
from probseq.inference.streams import mini_batches
from probseq.inference.windows import MiniBatch, MiniBatches, whole_sequences
from probseq.models.base import Batch, SequenceModel
from probseq.models.ngrams import NGramCounter, NGramTables

__all__ = ["FileBatch", "FileTotals", "FileWindows", "count_file", "score_file"]

_LONGEST_WHOLE, _WINDOW = 512, 192
# Tokens that are in memory at a time, among which windows are shuffled, and those that a start is found from.
_POOL, _EXAMPLE = 500_000, 20_000
# Tokens that are held back at most, and in one piece.
_HELD, _HELD_PIECE = 50_000, 256
# A piece of a long sequence has so many windows.
_WINDOWS_A_PIECE = 16
_SHORTEST = 32
# Numbers that the laws of a stretch of a long sequence may hold.
_LARGEST_LAW = 50_000_000

Codes = NDArray[np.int64]


class FileBatch(Batch):
    """The first sequences of a text file, and the way to all of them.

    As a batch it is what starting values are found from. ``mini_batches``, ``hold_back`` and ``log_prob`` take the
    place of what other batches are put through.
    """

    file: TextFile
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, file: TextFile, blocks: Iterable[int] | None = None) -> FileBatch:
        """The batch of some blocks of a file, all by default."""
        chosen = tuple(range(len(file.blocks)) if blocks is None else blocks)
        first: list[Codes] = []
        for block in chosen:
            first += file.read(block)
            if sum(map(len, first)) >= _EXAMPLE:
                break
        batch = cls(*_padded([codes[:_LONGEST_WHOLE] for codes in first[:_EXAMPLE]]))
        batch.file, batch.blocks = file, chosen
        return batch

    def mini_batches(self, options: TrainingOptions) -> FileWindows:
        """The whole as training reads it."""
        return FileWindows(self.file, self.blocks, options)

    def hold_back(self, fraction: float, generator: torch.Generator) -> tuple[FileBatch, MiniBatch | None]:
        """Split off random blocks, of which at most 50000 tokens are kept to validate on.

        Returns
        -------
        The batch of what is left, and what was held back; None for a file of one block.
        """
        n = len(self.blocks)
        n_held = min(n - 1, max(1, round(fraction * n)))
        if n_held < 1:
            return self, None
        order = torch.randperm(n, generator=generator).tolist()
        held: list[Codes] = []
        count = 0
        for taken, place in enumerate(order[:n_held], start=1):
            for codes in self.file.read(self.blocks[place]):
                pieces = [codes[i : i + _HELD_PIECE] for i in range(0, len(codes), _HELD_PIECE)]
                held += pieces[: max(0, -(-(_HELD - count) // _HELD_PIECE))]
                count += len(codes)
            if count >= _HELD:
                n_held = taken
                break
        batch = Batch(*_padded(held))
        rest = FileBatch.of(self.file, sorted(self.blocks[place] for place in order[n_held:]))
        return rest, whole_sequences(batch, batch.seen)

    def log_prob(self, model: SequenceModel[Any], params: Params) -> Tensor:
        """log p of the whole file, held-back blocks included, (*draw,) in double precision."""
        return score_file(model, params, self.file).log_prob


class FileWindows(MiniBatches):
    """Windows of a text file, shuffled within pools of blocks that come in random order.

    A sequence that is longer than sixteen windows is read in pieces of that length, which begin with ``context`` tokens
    that are not scored, or, with ``carry_state``, carry the state to the end of the piece.

    Parameters
    ----------
    file : TextFile
    blocks : sequence of int
    options : TrainingOptions
    """

    def __init__(self, file: TextFile, blocks: Sequence[int], options: TrainingOptions) -> None:
        self.file, self.blocks, self.options = file, list(blocks), options
        whole = [file.blocks[i] for i in self.blocks]
        self.n_values = float(sum(block.n_tokens for block in whole))
        longest_whole, size = options.window or _LONGEST_WHOLE, options.window or _WINDOW
        self.context = size // 4 if options.context is None else options.context
        self._piece = max(_WINDOWS_A_PIECE * size, longest_whole)
        self.window = min(longest_whole, max(block.longest for block in whole))
        self.n_windows = sum(
            block.n_sequences if block.longest <= longest_whole else block.n_sequences + block.n_tokens // size
            for block in whole
        )

    def n_batches(self, batch_size: int) -> int:
        """Mini-batches of a pass, or nearly so."""
        return -(-self.n_windows // batch_size) + int(self.n_values // _POOL)

    def passing(self, batch_size: int, generator: torch.Generator) -> Iterator[MiniBatch]:
        """One pass: blocks in random order, windows in random order among those of some blocks."""
        pool: list[tuple[Codes, int]] = []
        size = 0
        order = torch.randperm(len(self.blocks), generator=generator).tolist()
        for i, place in enumerate(order):
            block = self.blocks[place]
            for codes in self.file.read(block, self.context):
                n_before = 0 if self.file.lines else len(codes) - self.file.blocks[block].n_tokens
                pool += self._pieces(codes, n_before)
                size += len(codes)
            if size >= _POOL or i == len(order) - 1:
                yield from self._of_pool(pool, batch_size, generator)
                pool, size = [], 0

    def _pieces(self, codes: Codes, n_before: int) -> Iterator[tuple[Codes, int]]:
        """Pieces of a sequence, each with the number of its first tokens that are not scored."""
        for first in range(n_before, len(codes), self._piece):
            start = max(0, first - self.context)
            yield codes[start : first + self._piece], first - start

    def _of_pool(
        self, pool: list[tuple[Codes, int]], batch_size: int, generator: torch.Generator
    ) -> Iterator[MiniBatch]:
        groups: dict[int, list[tuple[Codes, int]]] = {}
        for codes, given in pool:
            # Lengths in a group differ by at most a factor of two, so that padding takes no more than the data.
            groups.setdefault(max(_SHORTEST, len(codes) - 1).bit_length(), []).append((codes, given))
        passes, left = [], []
        for members in groups.values():
            batch = Batch(*_padded([codes for codes, _ in members]))
            batch = batch._replace(given=torch.tensor([given for _, given in members]))
            data = mini_batches(batch, batch.to_explain, None, self.options)
            passes.append((data.passing(batch_size, generator), data.n_values / self.n_values))
            left.append(float(data.n_batches(batch_size)))
        while any(left):
            # Where a state is carried, what follows it must come next.
            chosen = (
                next(i for i, n in enumerate(left) if n)
                if self.options.carry_state
                else int(torch.multinomial(torch.tensor(left), 1, generator=generator))
            )
            windows, part = passes[chosen]
            mini = next(windows, None)
            if mini is None:
                left[chosen] = 0.0
                continue
            left[chosen] = max(1.0, left[chosen] - 1.0)
            yield mini._replace(share=mini.share * part)


class FileTotals(NamedTuple):
    """Log-likelihood of a file.

    log_prob, ends : (*draw,), nats of all tokens, and of the end tokens among them
    n_tokens, n_ends : how many these are
    final : the state after one long sequence, None for lines
    """

    log_prob: Tensor
    ends: Tensor
    n_tokens: int
    n_ends: int
    final: Any


def score_file(
    model: SequenceModel[Any], params: Params, file: TextFile, state: Any = None, n_draws: int | None = None
) -> FileTotals:
    """log p of every sequence of a file, exact: the state of a long one goes on from block to block.

    Parameters
    ----------
    state : the state before the file, for one long sequence
    n_draws : of a model without parameters of its own, such as an average over draws
    """
    draw = model._draw(params)
    width = math.prod(draw) * (n_draws or 1) * len(file.vocabulary)
    most = max(64, min(8192, _LARGEST_LAW // width))
    totals, ends = torch.zeros(draw, dtype=torch.float64), torch.zeros(draw, dtype=torch.float64)
    n_ends, end = 0, file.vocabulary.end_code
    final = state
    with torch.no_grad():
        for block in range(len(file.blocks)):
            for batch in _stretches(file.read(block), file.lines, most):
                steps = model.log_prob_steps(params, batch, None if file.lines else final)
                final = None if file.lines else steps.final
                values = steps.values.double()
                totals = totals + values.sum((-2, -1))
                if file.end:
                    closing = batch.seen[..., 0] & (batch.x[..., 0] == end)
                    ends = ends + torch.where(closing, values, 0.0).sum((-2, -1))
                    n_ends += int(closing.sum())
    return FileTotals(totals, ends, file.n_tokens, n_ends, final)


def _stretches(sequences: list[Codes], lines: bool, most: int) -> Iterator[Batch]:
    """Lines of about equal length together, a long sequence piece by piece."""
    if not lines:
        for codes in sequences:
            for first in range(0, len(codes), most):
                yield Batch(*_padded([codes[first : first + most]]))
        return
    rows: list[Codes] = []
    for codes in sorted(sequences, key=len):
        if rows and (len(rows) + 1) * len(codes) > max(most, len(codes)):
            yield Batch(*_padded(rows))
            rows = []
        rows.append(codes)
    if rows:
        yield Batch(*_padded(rows))


def count_file(file: TextFile, n_tokens: int, order: int) -> NGramTables:
    """The n-grams of a file, counted block by block."""
    counter = NGramCounter(n_tokens, order)
    before = None
    for block in range(len(file.blocks)):
        for codes in _grouped(file.read(block)):
            counter.add(codes, before=before)
            if not file.lines:
                before = np.concatenate([_start(n_tokens, order) if before is None else before, codes], 1)[:, -order:]
    return counter.tables()


def _start(n_tokens: int, order: int) -> Codes:
    start = np.full((1, order), n_tokens + 1)
    start[:, -1] = n_tokens
    return start


def _grouped(sequences: list[Codes]) -> Iterator[Codes]:
    """Sequences as (n, t) with -1 behind their ends, those of about equal length together."""
    groups: dict[int, list[Codes]] = {}
    for codes in sequences:
        groups.setdefault(max(_SHORTEST, len(codes) - 1).bit_length(), []).append(codes)
    for members in groups.values():
        out = np.full((len(members), max(map(len, members))), -1, dtype=np.int64)
        for row, codes in zip(out, members, strict=True):
            row[: len(codes)] = codes
        yield out


def _padded(sequences: list[Codes]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (n, t, 1), what was seen of them, lengths (n,)."""
    lengths = torch.tensor([len(codes) for codes in sequences])
    x = np.zeros((len(sequences), int(lengths.max()), 1))
    for row, codes in zip(x, sequences, strict=True):
        row[: len(codes), 0] = codes
    seen = (torch.arange(x.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return torch.from_numpy(x), seen, lengths
