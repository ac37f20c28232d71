"""Tokens and their integer codes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from probseq._types import whole_number
from probseq.errors import ParameterError, VocabularyError

__all__ = ["END", "UNKNOWN", "Vocabulary", "check_unit", "is_missing", "split"]

END = "<end>"
UNKNOWN = "<unknown>"
_JSON_SCALARS = (str, int, float, bool)
_UNITS = ("character", "word")
# A word may have apostrophes and hyphens inside; every other mark is a token of its own.
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_NO_SPACE_BEFORE = frozenset(",.;:!?%)]}…”’，。、；：？！）》」』")
_NO_SPACE_AFTER = frozenset("([{“‘（《「『")


def _plain(token: Any) -> Any:
    return token.item() if isinstance(token, np.generic) else token


def is_missing(token: Any) -> bool:
    """Whether a token stands for a missing one: None, NaN and their like."""
    if token is None:
        return True
    if isinstance(token, (float, np.floating)):
        return math.isnan(token)
    return type(token).__name__ in {"NAType", "NaTType"}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a categorical sequence; code ``i`` stands for ``tokens[i]``.

    Parameters
    ----------
    tokens : tuple
        All tokens in the order of their codes, `unknown` and `end` included.
    unknown : str or None
        The token that stands for every token not listed; None makes an unlisted token an error.
    end : str or None
        The token that marks the end of a text; it is scored like every other token.
    unit : {"character", "word"}
        What a str is cut into, see `split`.

    Raises
    ------
    VocabularyError
        If a token appears twice, or `unknown` or `end` is not among the tokens.
    ParameterError
        For another unit.

    Examples
    --------
    >>> words = Vocabulary.from_sequences(["banana"], end="<end>")
    >>> words.tokens
    ('a', 'b', 'n', '<end>')
    >>> words.encode("nab", end=True)
    array([2., 0., 1., 3.])
    >>> words.decode([2, 0, 1, 3], text=True)
    'nab'
    """

    tokens: tuple[Hashable, ...]
    unknown: str | None = None
    end: str | None = None
    # Not shown: the fingerprints of data are made from what is.
    unit: str = field(default="character", repr=False)

    def __post_init__(self) -> None:
        check_unit("unit", self.unit)
        object.__setattr__(self, "tokens", tuple(_plain(token) for token in self.tokens))
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated:
            raise VocabularyError(
                got=f"the token {repeated[0]!r} more than once",
                expected="every token once",
                remedy="Remove the repetition, or choose other names for the unknown and end tokens.",
            )
        if not self.tokens:
            raise VocabularyError(got="no tokens", expected="at least one token", remedy="Give some text.")
        for role, token in (("unknown", self.unknown), ("end", self.end)):
            if token is not None and token not in self.tokens:
                raise VocabularyError(
                    got=f"the {role} token {token!r}, which is not among the tokens",
                    expected=f"tokens that include {token!r}",
                    remedy="Add it to the tokens, or build the vocabulary with Vocabulary.from_sequences.",
                )

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Iterable[Hashable]],
        *,
        min_count: int = 1,
        unknown: str | None = None,
        end: str | None = None,
        unit: str = "character",
    ) -> Vocabulary:
        """Collect the tokens of `sequences` in sorted order.

        Parameters
        ----------
        sequences : iterable of str or of iterables of tokens
            A str is cut into its characters, or by `unit`. Missing tokens (None, NaN) are passed over.
        min_count : int
            Tokens seen less often are left out; `unknown` then defaults to ``"<unknown>"``.
        unknown, end : str or None
            Special tokens to add after the others.
        unit : {"character", "word"}

        Raises
        ------
        VocabularyError
            If the text already contains a special token, or nothing is left.
        ParameterError
            For a `min_count` that is not a whole number of 1 or more, or another unit.
        """
        whole_number("min_count", min_count, 1)
        check_unit("unit", unit)
        counts: Counter[Hashable] = Counter()
        for sequence in sequences:
            counts.update(split(sequence, unit) if isinstance(sequence, str) else sequence)
        kept = [token for token, count in counts.items() if count >= min_count and not is_missing(token)]
        try:
            ordered = sorted(kept)  # type: ignore[type-var]
        except TypeError:
            ordered = sorted(kept, key=lambda token: (type(token).__name__, str(token)))
        if min_count > 1 and unknown is None:
            unknown = UNKNOWN
        special = [token for token in (unknown, end) if token is not None]
        return cls((*ordered, *special), unknown=unknown, end=end, unit=unit)

    @cached_property
    def codes(self) -> Mapping[Hashable, int]:
        """The code of each token."""
        return {token: code for code, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self.codes

    @property
    def unknown_code(self) -> int | None:
        """Code of the unknown token, or None."""
        return None if self.unknown is None else self.codes[self.unknown]

    @property
    def end_code(self) -> int | None:
        """Code of the end token, or None."""
        return None if self.end is None else self.codes[self.end]

    def encode(self, sequence: Iterable[Hashable], *, end: bool = False, where: str = "the sequence") -> np.ndarray:
        """Return the codes of `sequence` as float64, NaN where a token is missing (None or NaN).

        Parameters
        ----------
        sequence : str or iterable of tokens
        end : bool
            Whether to append the end token.
        where : str
            Name of the sequence in an error message.

        Raises
        ------
        VocabularyError
            For a token that is not listed when there is no unknown token, and for ``end=True`` without an end token.
        """
        get, missing = self.codes.get, -1
        fallback = missing if self.unknown_code is None else self.unknown_code
        tokens = self.split(sequence) if isinstance(sequence, str) else list(sequence)
        codes = np.fromiter((get(_plain(token), fallback) for token in tokens), dtype=np.float64, count=len(tokens))
        if not isinstance(sequence, str):
            codes[np.fromiter(map(is_missing, tokens), dtype=bool, count=len(tokens))] = np.nan
        if (codes == missing).any():
            step = int(np.flatnonzero(codes == missing)[0])
            listed = ", ".join(map(repr, self.tokens[:8])) + (", ..." if len(self) > 8 else "")
            raise VocabularyError(
                got=f"the token {tokens[step]!r} at step {step} of {where}",
                expected=f"one of the {len(self)} tokens of the vocabulary ({listed})",
                remedy="Fit on data that contain it, or fit to ps.sequences(X, min_count=2): rare tokens become "
                "'<unknown>', as do those that come later.",
            )
        if not end:
            return codes
        if self.end_code is None:
            raise VocabularyError(
                got="end=True with a vocabulary that has no end token",
                expected="a vocabulary with an end token",
                remedy="Pass end=False, or build the vocabulary with end='<end>'.",
            )
        return np.append(codes, float(self.end_code))

    def decode(self, codes: Any, *, text: bool = False) -> Any:
        r"""Return the tokens of `codes`, up to the first end token.

        Parameters
        ----------
        codes : sequence of int or float, shape (t,)
            NaN and negative codes are missing: None among tokens, ``"\ufffd"`` in a text.
        text : bool
            Whether to `join` the tokens into one str; otherwise an object array of tokens is returned.

        Raises
        ------
        VocabularyError
            For a code that is not an integer below ``len(vocabulary)``.
        """
        given = np.asarray(codes, dtype=np.float64).ravel()
        missing = np.isnan(given) | (given < 0)
        whole = np.where(missing, 0.0, given)
        wrong = (whole != np.floor(whole)) | (whole >= len(self))
        if wrong.any():
            raise VocabularyError(
                got=f"the code {given[wrong][0]:g}",
                expected=f"integers from 0 to {len(self) - 1}",
                remedy="Decode with the vocabulary that encoded the data.",
            )
        ends = np.flatnonzero(~missing & (whole == self.end_code)) if self.end_code is not None else np.empty(0, int)
        stop = int(ends[0]) if ends.size else len(given)
        tokens = [
            None if gone else self.tokens[int(code)] for code, gone in zip(whole[:stop], missing[:stop], strict=True)
        ]
        if text:
            return self.join(tokens)
        out = np.empty(len(tokens), dtype=object)
        out[:] = tokens
        return out

    def split(self, text: str) -> list[str]:
        """The tokens of a text: its characters, or its words and every mark between them; blanks part words only."""
        return split(text, self.unit)

    def join(self, tokens: Iterable[Any]) -> str:
        r"""One text of tokens; None is ``"\ufffd"``. Between words stand blanks, except before a comma and the like."""
        words = ["\ufffd" if token is None else str(token) for token in tokens]
        if self.unit == "character" or not words:
            return "".join(words)
        gaps = ["" if b in _NO_SPACE_BEFORE or a in _NO_SPACE_AFTER else " " for a, b in zip(words, words[1:])]
        return words[0] + "".join(gap + word for gap, word in zip(gaps, words[1:], strict=True))

    def translate(self, codes: np.ndarray, other: Vocabulary) -> np.ndarray:
        """Return `codes` of this vocabulary as codes of `other`; NaN stays NaN."""
        table = np.empty(len(self))
        for code, token in enumerate(self.tokens):
            if token == self.end and other.end_code is not None:
                table[code] = other.end_code
            elif token == self.unknown and other.unknown_code is not None:
                table[code] = other.unknown_code
            else:
                used = bool((codes == code).any())
                table[code] = other.encode([token])[0] if used else np.nan
        out = np.full(codes.shape, np.nan)
        real = ~np.isnan(codes)
        out[real] = table[codes[real].astype(np.int64)]
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; `from_dict` reads it back.

        Raises
        ------
        VocabularyError
            If a token is neither str, int, float nor bool.
        """
        odd = [token for token in self.tokens if not isinstance(token, _JSON_SCALARS)]
        if odd:
            raise VocabularyError(
                got=f"a token of type {type(odd[0]).__name__}",
                expected="tokens that are str, int, float or bool",
                remedy="Name the tokens by strings before fitting.",
            )
        return {"tokens": list(self.tokens), "unknown": self.unknown, "end": self.end, "unit": self.unit}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Vocabulary:
        """Read what `to_dict` wrote."""
        tokens: Sequence[Hashable] = description["tokens"]
        unit = description.get("unit", "character")
        return cls(tuple(tokens), unknown=description.get("unknown"), end=description.get("end"), unit=unit)


def check_unit(name: str, unit: Any) -> None:
    """Raise ``ParameterError`` unless texts can be cut into this."""
    if unit not in _UNITS:
        raise ParameterError(
            got=f"{name}={unit!r}",
            expected=" or ".join(f'"{one}"' for one in _UNITS),
            remedy="Cut the texts into lists of tokens of your own.",
        )


def split(text: str, unit: str) -> list[str]:
    """The characters or the words of a text; see ``Vocabulary.split``."""
    return list(text) if unit == "character" else _WORD.findall(text)
