"""Counts of n-grams: which tokens followed which contexts, how often, and in how many different surroundings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probseq._types import Record
from probseq.errors import ParameterError

__all__ = ["NGramCounter", "NGramTable", "NGramTables", "windows"]

_LARGEST_KEY = 2**62


class NGramTable(NamedTuple):
    """What followed each context of one length; rows are contexts in the order of their keys.

    keys : (c,) int64, the contexts as numbers in base ``n_tokens + 2``, newest token last
    first : (c + 1,) int64, where the entries of each context begin
    token : (e,) int64, in ascending order within a context
    times : (e,) int64
    """

    keys: NDArray[np.int64]
    first: NDArray[np.int64]
    token: NDArray[np.int64]
    times: NDArray[np.int64]


@dataclass(frozen=True)
class NGramTables(Record):
    r"""The counts that Kneser-Ney smoothing works with, by length of the context.

    At the longest context a count is how often the n-gram occurs, below it N_{1+}(. h w), the number of different
    tokens before it (Kneser and Ney 1995). An n-gram before which there can be nothing, since the sequence begins with
    it or what stood there is missing, counts as often as it occurs.

    Parameters
    ----------
    n_tokens : int
        Number of tokens C; code C is the start of a sequence, C + 1 stands for what is not known.
    tables : tuple of four arrays (keys, first, token, times), one for each context length 0, 1, ..., order
    """

    n_tokens: int
    tables: tuple[tuple[NDArray[np.int64], ...], ...]

    @property
    def levels(self) -> list[NGramTable]:
        """One table for each context length, the shortest first."""
        return [NGramTable(*table) for table in self.tables]

    @property
    def n_entries(self) -> int:
        """Number of different n-grams of all lengths."""
        return sum(len(table[2]) for table in self.tables)

    @classmethod
    def empty(cls, n_tokens: int, order: int) -> NGramTables:
        """Every token was seen once, no context ever."""
        none = np.zeros(0, dtype=np.int64)
        every = np.arange(n_tokens, dtype=np.int64)
        unigrams = (np.zeros(1, dtype=np.int64), np.array([0, n_tokens]), every, np.ones_like(every))
        return cls(n_tokens, (unigrams, *((none, np.zeros(1, dtype=np.int64), none, none) for _ in range(order))))


class NGramCounter:
    """Count n-grams part by part, so that data larger than memory can be counted.

    Parameters
    ----------
    n_tokens, order : int
        The longest context has ``order`` tokens.

    Raises
    ------
    ParameterError
        Where the n-grams are too many to be numbered.
    """

    def __init__(self, n_tokens: int, order: int) -> None:
        if (n_tokens + 2) ** (order + 1) > _LARGEST_KEY:
            raise ParameterError(
                got=f"order={order} with {n_tokens} tokens",
                expected="at most 2^62 possible n-grams",
                remedy="Lower the order, or raise the vocabulary's min_count.",
            )
        self.n_tokens, self.order, self.base = n_tokens, order, n_tokens + 2
        # By the length of the known context: n-grams as numbers, and how often each was seen.
        self._seen = [_Tally() for _ in range(order + 1)]

    def add(
        self,
        codes: NDArray[np.int64],
        weights: NDArray[np.int64] | None = None,
        before: NDArray[np.int64] | None = None,
    ) -> None:
        """Count sequences, (n, t) codes; -1 is missing or beyond the end.

        ``weights`` (n,) say how often, ``before`` (n, order) what came before them; see `windows`.
        """
        n, t = codes.shape
        grams = windows(codes, self.n_tokens, self.order, before).reshape(n * t, self.order + 1)
        times = np.ones(n, dtype=np.int64) if weights is None else weights
        each = np.repeat(times, t)
        there = (grams[:, -1] < self.n_tokens) & (each > 0)
        grams, each = grams[there], each[there]
        unknown = grams[:, :-1] == self.n_tokens + 1
        # The length of the context behind the last token that is not known.
        known = np.where(unknown.any(1), np.argmax(unknown[:, ::-1], 1), self.order)
        for length, tally in enumerate(self._seen):
            chosen = known == length
            tally.add(_number(grams[chosen, self.order - length :], self.base), each[chosen])

    def tables(self) -> NGramTables:
        """The counts of all that was added."""
        found: list[tuple[NDArray[np.int64], ...]] = []
        longer = np.zeros(0, dtype=np.int64)
        for length in range(self.order, -1, -1):
            tally = self._seen[length].copy()
            if length < self.order:
                # One more token of context than this length: the number without its leading digit.
                shorter = longer % self.base ** (length + 1)
                tally.add(shorter, np.ones_like(shorter))
            longer, count = tally.keys, tally.counts
            context, token = np.divmod(longer, self.base)
            keys, first = np.unique(context, return_index=True)
            found.append((keys, np.append(first, len(context)).astype(np.int64), token, count))
        return NGramTables(self.n_tokens, tuple(reversed(found)))


class _Tally:
    """Sums by key, the keys in ascending order."""

    def __init__(self) -> None:
        self.keys, self.counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def add(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        both = np.concatenate([self.keys, keys])
        self.keys, inverse = np.unique(both, return_inverse=True)
        total = np.zeros(len(self.keys), dtype=np.int64)
        np.add.at(total, inverse, np.concatenate([self.counts, counts]))
        self.counts = total

    def copy(self) -> _Tally:
        other = _Tally()
        other.keys, other.counts = self.keys, self.counts
        return other


def windows(
    codes: NDArray[np.int64], n_tokens: int, order: int, before: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Each token after its context, (n, t, order + 1), from codes (n, t) with -1 for what is missing.

    ``before`` (n, order) are the tokens before the first; None is the start of a sequence.
    """
    n = len(codes)
    if before is None:
        before = np.full((n, order), n_tokens + 1, dtype=np.int64)
        before[:, -1:] = n_tokens
    whole = np.concatenate([before, np.where(codes < 0, n_tokens + 1, codes)], 1)
    return np.lib.stride_tricks.sliding_window_view(whole, order + 1, axis=1)


def _number(digits: Iterable[NDArray[np.int64]], base: int) -> NDArray[np.int64]:
    """Rows of digits (r, m) as numbers, the last digit the lowest."""
    rows = np.asarray(digits)
    out = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        out = out * base + column
    return out
