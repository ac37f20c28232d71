"""The one door for data: every form of input becomes `Sequences`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data import covariates as inputs
from probseq.data import timeindex
from probseq.data.batch import Sequences, as_intake, pack
from probseq.data.intake import Intake, check_blocks, read
from probseq.data.labels import to_list
from probseq.data.lengths import split_by_lengths
from probseq.data.tables import read_table
from probseq.data.textfile import TextFile
from probseq.data.timeindex import Freq
from probseq.data.vocabulary import END, Vocabulary, check_unit, split
from probseq.errors import DataError, ShapeError, VocabularyError

__all__ = ["Sequences", "borrowed", "sequences", "to_list"]


def sequences(
    X: Any,
    *,
    lengths: Any = None,
    covariates: Any = None,
    static: Any = None,
    sequence: Hashable = None,
    time: Hashable = None,
    variables: Any = None,
    vocabulary: Vocabulary | None = None,
    tokens: str | None = None,
    min_count: int = 1,
    end: bool | None = None,
    freq: Any = None,
) -> Sequences:
    """Read any form of sequence data.

    Parameters
    ----------
    X : array, list, str, pandas, xarray, torch or Sequences
        One sequence: a 1-D array or list of numbers; a 2-D array (time, variable); a str (its characters); a 1-D array
        of str (tokens); a Series, DataFrame or DataArray. Many: a 3-D array (sequence, time, variable); a list or
        mapping of sequences, which may differ in length; a list of texts; a Series or DataFrame with a MultiIndex
        (series, time); a long table (``unique_id, ds, y``); a DataArray with a ``sequence`` dimension; a TextFile, for
        its whole text. NaN is missing.
    lengths : 1-D array of int, optional
        Cuts a concatenated array into sequences.
    covariates : like X, or column names of a table, optional
        Known inputs, matched by time where both carry stamps and by position otherwise.
    static : array (n, s), table, mapping by sequence, or column names, optional
        Inputs that stay the same within a sequence.
    sequence, time, variables : column names of a table, optional
        Their roles; for other data `variables` names the variables.
    vocabulary : Vocabulary, optional
        Codes of the tokens; without it they are collected from X.
    tokens : {"character", "word"}, optional
        What texts are cut into: characters, unless the `vocabulary` says words. A word may have apostrophes and hyphens
        inside, and every mark between words is a token. Lists of tokens are taken as they are.
    min_count : int
        Tokens that X has less often become "<unknown>", as do new ones in data that are read later; 1 knows all tokens
        of X and takes no others.
    end : bool, optional
        Whether the end of each sequence of tokens is a token too. By default what `vocabulary` says; without one, yes
        for texts and no for tokens in arrays.
    freq : str or number, optional
        The step of the time index where it cannot be told from the stamps.

    Returns
    -------
    Sequences

    Raises
    ------
    DataError
        With its kinds DataTypeError, ShapeError, EmptyDataError, VocabularyError and CovariateError.

    Examples
    --------
    >>> sequences([1.0, 2.0, 4.0]).values.shape
    (1, 3, 1)
    >>> sequences([[1.0, 2.0], [3.0]]).lengths
    array([2, 1])
    >>> words = sequences(["To be, or not to be.", "To do is to be."], tokens="word", min_count=2)
    >>> words.vocabulary.tokens
    ('.', 'To', 'be', 'to', '<unknown>', '<end>')
    """
    words = vocabulary if tokens is None and min_count == 1 else _Collect(vocabulary, tokens, min_count)
    return _read(X, lengths, covariates, static, (sequence, time, variables), words, end, freq)


def borrowed(X: Any, *, lengths: Any = None, covariates: Any = None, vocabulary: Vocabulary | None = None) -> Sequences:
    """As `sequences`, for use while the caller waits: the values may lie in the caller's memory, not to be written."""
    return _read(X, lengths, covariates, None, (None, None, None), vocabulary, None, None, copy=False)


@dataclass(frozen=True)
class _Collect:
    """How a vocabulary is to be made of the data."""

    vocabulary: Vocabulary | None = None
    tokens: str | None = None
    min_count: int = 1

    def check(self, intake: Intake) -> None:
        if self.tokens is not None:
            check_unit("tokens", self.tokens)
        asked = "min_count" if self.min_count != 1 else "tokens"
        if self.vocabulary is not None:
            raise VocabularyError(
                got=f"vocabulary= together with {asked}=",
                expected="one of them",
                remedy="Make the vocabulary by Vocabulary.from_sequences(texts, unit=..., min_count=...).",
            )
        if not (intake.text or self.tokens is None and intake.tokens):
            raise VocabularyError(
                got=f"{asked}= for {'tokens' if intake.tokens else 'numbers'}",
                expected="texts" if asked == "tokens" else "texts or tokens",
                remedy=f"Leave {asked}= out.",
            )


def _read(
    X: Any,
    lengths: Any,
    covariates: Any,
    static: Any,
    roles: tuple[Any, Any, Any],
    vocabulary: Vocabulary | _Collect | None,
    end: bool | None,
    freq: Any,
    copy: bool = True,
) -> Sequences:
    sequence, time, variables = roles
    if isinstance(X, Sequences):
        if isinstance(vocabulary, _Collect):
            raise VocabularyError(
                got="tokens= or min_count= together with Sequences",
                expected="Sequences as they are",
                remedy="Pass them where the data are read first.",
            )
        return _again(X, lengths, covariates, static, vocabulary, freq, roles)
    if isinstance(X, TextFile):
        if isinstance(vocabulary, _Collect):
            raise VocabularyError(
                got="tokens= or min_count= together with a TextFile",
                expected="its own vocabulary",
                remedy="Pass them to TextFile.",
            )
        vocabulary, end = vocabulary or X.vocabulary, X.end if end is None else end
    roles_named = any(role is not None for role in (sequence, time))
    by_column = isinstance(X, pd.DataFrame) and (
        roles_named or _are_columns(X, covariates) or _are_columns(X, static) or _are_columns(X, variables)
    )
    if by_column:
        columns = {
            role: given for role, given in (("covariates", covariates), ("static", static)) if _are_columns(X, given)
        }
        intake = read_table(X, sequence=sequence, time=time, variables=variables, **columns)
        covariates = None if "covariates" in columns else covariates
        static = None if "static" in columns else static
    else:
        if roles_named:
            raise DataError(
                got=f"sequence= or time= with X of type {type(X).__name__}",
                expected="a DataFrame whose columns they name",
                remedy="Leave them out, or pass a DataFrame.",
            )
        intake = _read_file(X) if isinstance(X, TextFile) else read(X)
        if variables is not None:
            intake.variables = _names_for(intake, variables)
    if lengths is not None:
        intake = split_by_lengths(intake, lengths)
    return _assemble(intake, lengths, covariates, static, vocabulary, end, timeindex.check_freq(freq), copy)


def _read_file(file: TextFile) -> Intake:
    texts = file.texts()
    return Intake(list(texts), [None] * len(texts), many=file.lines, flat=True, tokens=True, text=True)


@lru_cache(maxsize=4096)
def _count(size: int) -> pd.RangeIndex:
    """The steps 0, 1, ...: one index for all sequences of a length, since making one takes 20 microseconds."""
    return pd.RangeIndex(size)


def _are_columns(X: pd.DataFrame, given: Any) -> bool:
    if given is None or isinstance(given, (np.ndarray, pd.Series, pd.DataFrame, xr.DataArray, Mapping, Sequences)):
        return False
    if isinstance(given, str):
        return True
    return isinstance(given, (list, tuple)) and bool(given) and all(isinstance(one, str) for one in given)


def _names_for(intake: Intake, variables: Any) -> tuple[Hashable, ...]:
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    width = 1 if intake.tokens else intake.blocks[0].shape[1]
    if len(names) != width:
        raise ShapeError(
            got=f"{len(names)} names {list(names)} for {width} variables",
            expected="one name for each variable",
            remedy="Check the number of columns of X.",
        )
    return names


def _assemble(
    intake: Intake,
    lengths: Any,
    covariates: Any,
    static: Any,
    vocabulary: Vocabulary | _Collect | None,
    end: bool | None,
    freq: Freq,
    copy: bool,
) -> Sequences:
    collect = vocabulary if isinstance(vocabulary, _Collect) else _Collect()
    if isinstance(vocabulary, _Collect):
        vocabulary.check(intake)
        vocabulary = None
    if vocabulary is not None and not intake.tokens:
        intake = _codes_as_tokens(intake)
    unit = collect.tokens or "character" if vocabulary is None else vocabulary.unit
    if intake.text and unit == "word":
        intake = replace(intake, blocks=[np.array(split(text, unit), dtype=object) for text in intake.blocks])
    closes = intake.tokens and (end if end is not None else intake.text if vocabulary is None else bool(vocabulary.end))
    check_blocks(intake, end=closes)
    if vocabulary is None and intake.tokens:
        vocabulary = _collected(intake, closes, unit, collect.min_count)
    blocks = intake.blocks if vocabulary is None else _encode(intake, vocabulary, closes)
    sizes = intake.sizes if blocks is intake.blocks else [len(block) for block in blocks]
    index = [
        _count(size) if stamps is None else _with_end(stamps, size, freq)
        for stamps, size in zip(intake.indexes, sizes, strict=True)
    ]
    names = intake.names if intake.names is not None else tuple(range(len(blocks)))
    known, known_names = intake.covariates, intake.covariate_names
    if covariates is not None:
        laid = replace(intake, blocks=blocks, indexes=index)
        known, known_names = inputs.align(covariates, laid, lengths)
    elif known is not None:
        for i, block in enumerate(known):
            inputs.check_complete(block, known_names, intake.called(i))
    fixed, fixed_names = intake.static, intake.static_names
    if static is not None:
        fixed, fixed_names = inputs.align_static(static, names, intake.names is not None)
    elif fixed is not None:
        fixed, fixed_names = inputs.align_static(pd.DataFrame(fixed, columns=list(fixed_names)), names, False)
    width = blocks[0].shape[1]
    return Sequences(
        values=pack(blocks, copy),
        lengths=np.array(sizes, dtype=np.int64),
        index=tuple(index),
        names=names,
        variables=intake.variables or tuple(f"x{j}" for j in range(width)),
        many=intake.many,
        flat=intake.flat,
        named=intake.variables is not None and intake.variables != tuple(range(width)),
        named_sequences=intake.names is not None,
        covariates=None if known is None else pack(known),
        covariate_names=known_names,
        static=fixed,
        static_names=fixed_names,
        vocabulary=vocabulary,
        is_text=intake.text,
        given_freq=freq,
        name=intake.name,
        attrs=intake.attrs,
        time_attrs=intake.time_attrs,
        coords=intake.coords,
    )


def _collected(intake: Intake, end: bool, unit: str, min_count: int) -> Vocabulary:
    """The vocabulary of the data, and what rare tokens become."""
    closing = END if end else None
    if intake.categories is None:
        found = Vocabulary.from_sequences(intake.blocks, min_count=min_count, end=closing)
        return replace(found, unit=unit)
    return Vocabulary((*intake.categories, *([END] if end else [])), end=closing)


def _encode(intake: Intake, vocabulary: Vocabulary, end: bool) -> list[np.ndarray]:
    return [
        vocabulary.encode(block, end=end, where=intake.called(i)).reshape(-1, 1)
        for i, block in enumerate(intake.blocks)
    ]


def _codes_as_tokens(intake: Intake) -> Intake:
    """Read whole numbers as tokens, for a vocabulary of numbers."""
    if any(block.shape[1] != 1 for block in intake.blocks):
        raise VocabularyError(
            got=f"{intake.blocks[0].shape[1]} variables together with a vocabulary",
            expected="one token a step",
            remedy="Leave the vocabulary out, or select one column.",
        )
    blocks = [
        np.array([None if np.isnan(v) else int(v) if v.is_integer() else v for v in block[:, 0].tolist()], dtype=object)
        if np.isnan(block).any() or len(block)
        else block
        for block in intake.blocks
    ]
    return replace(intake, blocks=blocks, tokens=True)


def _with_end(stamps: pd.Index, length: int, freq: Freq) -> pd.Index:
    """Return `stamps`, with one more for the end token where there is one."""
    if len(stamps) == length:
        return stamps
    if timeindex.is_default(stamps):
        return pd.RangeIndex(length)
    return stamps.append(timeindex.extend(stamps, 1, freq if freq is not None else timeindex.infer_step(stamps)))


def _again(
    X: Sequences, lengths: Any, covariates: Any, static: Any, vocabulary: Any, freq: Any, roles: tuple[Any, ...]
) -> Sequences:
    if lengths is not None or any(role is not None for role in roles):
        raise DataError(
            got="lengths=, sequence=, time= or variables= together with Sequences",
            expected="Sequences as they are",
            remedy="Pass them where the data are read first.",
        )
    changes: dict[str, Any] = {}
    if covariates is not None:
        blocks, names = inputs.align(covariates, as_intake(X))
        changes.update(covariates=pack(blocks), covariate_names=names)
    if static is not None:
        fixed, fixed_names = inputs.align_static(static, X.names, X.named_sequences)
        changes.update(static=fixed, static_names=fixed_names)
    if freq is not None:
        changes.update(given_freq=timeindex.check_freq(freq))
    if vocabulary is not None and vocabulary != X.vocabulary:
        if X.vocabulary is None:
            raise VocabularyError(
                got="numbers", expected="tokens of the vocabulary", remedy="Read the tokens with sequences(X) first."
            )
        changes.update(values=X.vocabulary.translate(X.values, vocabulary), vocabulary=vocabulary)
    return replace(X, **changes) if changes else X
