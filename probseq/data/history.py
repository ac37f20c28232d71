"""A past and what follows it, joined into one sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probseq.data import timeindex
from probseq.data.batch import Sequences, pack
from probseq.errors import HistoryError

__all__ = ["concat_history"]

# A frequency can be told from three dates; a shorter history takes that of the data that follow it.
SHORTEST_REGULAR = 3


def concat_history(history: Sequences, data: Sequences) -> Sequences:
    """Return `history` followed by `data`, matched by the names of the sequences.

    A gap between the two becomes missing steps. Data without stamps, and irregular stamps, follow directly. Each
    sequence has ``joined.lengths - data.lengths`` steps before the first step of `data`.

    Raises
    ------
    HistoryError
        If the two overlap, have no common grid, or differ in sequences, variables, vocabulary or covariates; or if
        there is a gap whose covariates are unknown.
    """
    rows = _rows(history, data)
    _check_alike(history, data)
    blocks, known, stamps = [], [], []
    for i, row in enumerate(rows):
        who = f"sequence {data.names[i]!r}" if data.many else "one sequence"
        past, present = history.index[row], data.index[i]
        step = history.freq[row]
        if step is None and len(past) < SHORTEST_REGULAR:
            step = data.freq[i]
        own = data.freq[i]
        counted = timeindex.is_default(past) or timeindex.is_default(present)
        differ = step is not None and own is not None and own != step
        if differ and not counted and len(present) >= SHORTEST_REGULAR:
            raise HistoryError(
                got=f"data in steps of {own} after a history in steps of {step} ({who})",
                expected="the same step in both",
                remedy="Put both on one grid with ps.on_grid(X, freq).",
            )
        gap = timeindex.steps_between(past, present, step, who) - 1
        if gap and data.covariates is not None:
            raise HistoryError(
                got=f"a gap of {gap} steps between the history and X ({who}), with covariates",
                expected="covariates for the missing steps too",
                remedy="Begin X with rows of NaN for the gap, with their covariates.",
            )
        hole = np.full((gap, data.n_variables), np.nan)
        blocks.append(np.concatenate([history.block(row), hole, data.block(i)]))
        stamps.append(_join_index(past, present, gap, step, len(blocks[-1])))
        if data.covariates is not None and history.covariates is not None:
            parts = history.covariates[row, : history.lengths[row]], data.covariates[i, : data.lengths[i]]
            known.append(np.concatenate(parts))
    return replace(
        data,
        values=pack(blocks),
        lengths=np.array([len(block) for block in blocks], dtype=np.int64),
        index=tuple(stamps),
        covariates=pack(known) if known else None,
        static=data.static if data.static is not None or history.static is None else history.static[rows],
        static_names=data.static_names or history.static_names,
        given_freq=data.given_freq if data.given_freq is not None else history.given_freq,
        coords={key: (at, values) for key, (at, values) in data.coords.items() if "time" not in at},
    )


def _rows(history: Sequences, data: Sequences) -> list[int]:
    if history.n_sequences == data.n_sequences == 1:
        return [0]
    if history.named_sequences == data.named_sequences and history.many and data.many:
        at = {name: row for row, name in enumerate(history.names)}
        missing = [name for name in data.names if name not in at]
        if not missing:
            return [at[name] for name in data.names]
        got = f"no history for the sequences {missing[:5]}"
    else:
        got = f"a history of {history.n_sequences} sequences for data of {data.n_sequences}"
    raise HistoryError(
        got=got,
        expected="a history for every sequence, under the same name",
        remedy="Select or name the sequences alike, or pass history=None to start anew.",
    )


def _check_alike(history: Sequences, data: Sequences) -> None:
    pairs = (
        ("variables", history.n_variables, data.n_variables),
        ("the vocabulary", history.vocabulary, data.vocabulary),
        ("covariates", history.covariate_names, data.covariate_names),
    )
    for what, past, present in pairs:
        if past != present:
            raise HistoryError(
                got=f"a history that differs from X in {what}",
                expected=f"{what} alike in both",
                remedy="Read both in the same way.",
            )
    if history.named and data.named and not data.flat and history.variables != data.variables:
        raise HistoryError(
            got=f"a history of the variables {list(history.variables)} for X with {list(data.variables)}",
            expected="the same variables in the same order",
            remedy="Select the columns by name first.",
        )


def _join_index(past: pd.Index, present: pd.Index, gap: int, step: timeindex.Freq, length: int) -> pd.Index:
    if timeindex.is_default(present):
        if timeindex.is_default(past):
            return pd.RangeIndex(length)
        if timeindex.is_contiguous(past) and step is not None:
            return past.append(timeindex.extend(past, len(present), step))
        return pd.RangeIndex(length)
    if timeindex.is_default(past) and not timeindex.is_numeric(present):
        return pd.RangeIndex(length)
    between = timeindex.extend(past, gap, step) if gap else past[:0]
    return past.append([between, present])
