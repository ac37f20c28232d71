"""Text files larger than memory: read block by block, as often as it takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probseq._types import whole_number
from probseq.data.vocabulary import END, UNKNOWN, Vocabulary, check_unit, split
from probseq.errors import DataError, EmptyDataError, VocabularyError

__all__ = ["TextFile"]

_LARGEST_BLOCK = 1 << 18
_SMALLEST_BLOCK = 1 << 12
# As many blocks at least, so that some can be held back and the others come in random order.
_BLOCKS = 64
_CODE_POINTS = 0x110000


class Block(NamedTuple):
    """A part of a file that begins and ends with a line, or between two characters.

    start, stop : bytes
    n_sequences, n_tokens, longest : lines that are not empty, their tokens with their ends, those of the longest
    """

    start: int
    stop: int
    n_sequences: int
    n_tokens: int
    longest: int


class TextFile:
    r"""Text in a file, for ``fit`` and the scores of models of tokens; never in memory as a whole.

    The file is read once for its vocabulary, then again in every pass of a training, in blocks of at most 256 kB in
    random order. So are networks (``LSTM``, ``GRU``, ``RNN``) and Kneser-Ney chains fitted; other families read it into
    memory.

    Parameters
    ----------
    path : str or path
        A file of text in UTF-8.
    lines : bool
        Whether every line is a sequence (a poem, a sentence); empty ones are passed over, and a line must fit into
        memory. False reads the whole file as one long sequence, line breaks included.
    tokens : {"character", "word"}, optional
        As for ``sequences``.
    min_count : int
        Tokens that are rarer become "<unknown>".
    vocabulary : Vocabulary, optional
        Known before: that of a training file for another one. The file is then read once for its length only.
    end : bool, optional
        Whether the end of each sequence is a token too; by default what `vocabulary` says, and without one yes for
        lines and no for one long text, which ends where the file does.

    Attributes
    ----------
    vocabulary : Vocabulary
    n_sequences, n_tokens, longest : int
        Sequences, their tokens with their ends, tokens of the longest.

    Raises
    ------
    DataError
        For a file that is not UTF-8, or that changes while it is in use.
    VocabularyError
        For a token that is not in a `vocabulary` without an unknown token.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "poem.txt"
    >>> _ = path.write_text("春眠不覺曉，\n處處聞啼鳥。\n", encoding="utf-8")
    >>> TextFile(path)
    TextFile('poem.txt', 2 lines, 14 tokens, vocabulary of 12)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lines: bool = True,
        tokens: str | None = None,
        min_count: int = 1,
        vocabulary: Vocabulary | None = None,
        end: bool | None = None,
    ) -> None:
        self.path, self.lines = Path(path), bool(lines)
        whole_number("min_count", min_count, 1)
        if tokens is not None:
            check_unit("tokens", tokens)
        if vocabulary is not None and (tokens is not None or min_count != 1):
            raise VocabularyError(
                got="vocabulary= together with tokens= or min_count=",
                expected="one of them",
                remedy="Leave the others out: the vocabulary knows what texts are cut into.",
            )
        self._unit = (tokens or "character") if vocabulary is None else vocabulary.unit
        self._stamp = self._stat()
        spans = list(self._spans())
        if vocabulary is None:
            closes = self.lines if end is None else bool(end)
            vocabulary = self._collect(spans, min_count, closes)
        self.vocabulary = vocabulary
        self.end = bool(vocabulary.end) if end is None else bool(end)
        if self.end and vocabulary.end is None:
            raise VocabularyError(
                got="end=True with a vocabulary that has no end token",
                expected="a vocabulary with an end token",
                remedy="Pass end=False, or build the vocabulary with end='<end>'.",
            )
        self._codes = _code_points(vocabulary) if self._unit == "character" else None
        self._last = spans[-1][1]
        self.blocks: list[Block] = []
        for start, stop in spans:
            lengths = [len(one) for one in self._encoded(start, stop)]
            self.blocks.append(Block(start, stop, len(lengths), sum(lengths), max(lengths, default=0)))
        self.n_tokens = sum(block.n_tokens for block in self.blocks)
        self.n_sequences = sum(block.n_sequences for block in self.blocks) if self.lines else 1
        self.longest = max(block.longest for block in self.blocks) if self.lines else self.n_tokens
        if not self.n_tokens:
            raise EmptyDataError(
                got=f"no text in {self.path.name}", expected="at least one token", remedy="Check the path."
            )

    def __repr__(self) -> str:
        what = f"{self.n_sequences} lines, " if self.lines else ""
        return f"TextFile({self.path.name!r}, {what}{self.n_tokens} tokens, vocabulary of {len(self.vocabulary)})"

    # parts ------------------------------------------------------------------------------------------------------------

    def read(self, block: int, before: int = 0) -> list[NDArray[np.int64]]:
        """The codes of the sequences of a block; of a long text one piece, after up to ``before`` tokens before it."""
        self._check_unchanged()
        one = self.blocks[block]
        codes = self._encoded(one.start, one.stop)
        if self.lines or not before or not block:
            return codes
        back = self.blocks[block - 1]
        # A character has at most four bytes; a word may be longer than sixteen, and some context is then missing.
        near = max(back.start, one.start - before * (4 if self._unit == "character" else 16))
        tail = self._tokens_between(near, one.start)[-before:]
        return [np.concatenate([tail, codes[0]])]

    def head(self) -> list[str]:
        """The texts of the first block that has some; of one long text its beginning."""
        for start, stop, n_sequences, *_ in self.blocks:
            text = self._text(start, stop)
            if n_sequences:
                return [line for line in _lines(text) if line] if self.lines else [text]
        return []

    def texts(self) -> list[str]:
        """The texts, all in memory: lines that are not empty, or the whole."""
        whole = "".join(self._text(start, stop) for start, stop, *_ in self.blocks)
        return [line for line in _lines(whole) if line] if self.lines else [whole]

    def _encoded(self, start: int, stop: int) -> list[NDArray[np.int64]]:
        text = self._text(start, stop)
        if not self.lines:
            closing = self.end and stop == self._last
            codes = self._encode(text, start)
            return [self._closed(codes) if closing else codes]
        if self._codes is None:
            found = [self._encode(line, start) for line in _lines(text) if line]
            return [self._closed(one) for one in found] if self.end else found
        # All lines of a block at once, since looking up a line takes longer than finding its characters.
        lines = [line for line in _lines(text) if line]
        codes = self._encode("".join(lines), start)
        pieces = np.split(codes, np.cumsum([len(line) for line in lines])[:-1]) if lines else []
        return [self._closed(one) for one in pieces] if self.end else pieces

    def _closed(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.append(codes, self.vocabulary.codes[self.vocabulary.end])

    def _encode(self, text: str, start: int) -> NDArray[np.int64]:
        where = f"{self.path.name} behind byte {start}"
        if self._codes is None:
            return self.vocabulary.encode(text, where=where).astype(np.int64)
        codes = self._codes[_points(text)]
        if (codes < 0).any():
            self.vocabulary.encode(text, where=where)  # names the token
        return codes

    def _tokens_between(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens of any stretch of bytes; one that was cut at the front is left out."""
        raw = self._bytes(start, stop)
        while raw and raw[0] & 0xC0 == 0x80:
            raw = raw[1:]
        text = raw.decode("utf-8")
        if self._unit == "word":
            text = text.partition(" ")[2]
        return self._encode(text, start)

    # bytes ------------------------------------------------------------------------------------------------------------

    def _stat(self) -> tuple[int, int]:
        if not self.path.is_file():
            raise FileNotFoundError(f"No file {self.path}.")
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns

    def _check_unchanged(self) -> None:
        if self._stat() != self._stamp:
            raise DataError(
                got=f"{self.path.name}, which has changed since it was read first",
                expected="the same file throughout",
                remedy="Make a new TextFile of it.",
            )

    def _bytes(self, start: int, stop: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _text(self, start: int, stop: int) -> str:
        raw = self._bytes(start, stop)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                got=f"bytes that are not UTF-8 in {self.path.name}, at byte {start + error.start}",
                expected="text in UTF-8",
                remedy="Save it again as UTF-8: iconv -f <encoding> -t utf-8.",
            ) from error

    def _spans(self) -> Iterator[tuple[int, int]]:
        """First and last byte of each block."""
        size, start = self._stamp[0], 0
        wanted = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, size // _BLOCKS))
        with self.path.open("rb") as file:
            if file.read(3) == b"\xef\xbb\xbf":
                start = 3
            if start >= size:
                raise EmptyDataError(got=f"no text in {self.path.name}", expected="text", remedy="Check the path.")
            while start < size:
                file.seek(start)
                stop = start + self._cut(file.read(wanted), file, start + wanted >= size)
                yield start, stop
                start = stop

    def _cut(self, chunk: bytes, file: Any, last: bool) -> int:
        """How many bytes a block has that begins with a chunk."""
        if last:
            return len(chunk)
        if self.lines:
            return len(chunk) + len(file.readline())
        # Between words, or at least between characters.
        blank = max(chunk.rfind(b" "), chunk.rfind(b"\n"))
        if self._unit == "word" and blank > 0:
            return blank
        end = len(chunk) - 1
        while end > 0 and chunk[end] & 0xC0 == 0x80:
            end -= 1
        return max(end, 1)

    def _collect(self, spans: list[tuple[int, int]], min_count: int, closes: bool) -> Vocabulary:
        """The vocabulary of the whole file."""
        counts: Counter[Any] = Counter()
        points = np.zeros(_CODE_POINTS, dtype=np.int64)
        for start, stop in spans:
            text = self._text(start, stop)
            parts = [line for line in _lines(text) if line] if self.lines else [text]
            if self._unit == "character":
                values, times = np.unique(_points("".join(parts)), return_counts=True)
                points[values] += times
            else:
                for part in parts:
                    counts.update(split(part, self._unit))
        if self._unit == "character":
            counts = Counter({chr(point): int(points[point]) for point in np.flatnonzero(points)})
        kept = sorted(token for token, count in counts.items() if count >= min_count)
        if not kept:
            raise EmptyDataError(
                got=f"no token in {self.path.name} that comes {min_count} times",
                expected="at least one",
                remedy="Lower min_count.",
            )
        special = ([UNKNOWN] if min_count > 1 else []) + ([END] if closes else [])
        return Vocabulary(
            (*kept, *special),
            unknown=UNKNOWN if min_count > 1 else None,
            end=END if closes else None,
            unit=self._unit,
        )


def _lines(text: str) -> list[str]:
    """Lines as editors show them; str.splitlines knows further breaks."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _code_points(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The code of every Unicode character; -1 where there is none."""
    missing = -1 if vocabulary.unknown_code is None else vocabulary.unknown_code
    table = np.full(_CODE_POINTS, missing, dtype=np.int64)
    for token, code in vocabulary.codes.items():
        if isinstance(token, str) and len(token) == 1:
            table[ord(token)] = code
    return table
