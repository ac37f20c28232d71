"""The values that came, brought into the order of a forecast: by name and by stamp where the data carry them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences
from probseq.data.timeindex import is_default
from probseq.errors import ShapeError

__all__ = ["aligned_values", "has_stamps", "scattered_values"]

_SHOWN = 4


def has_stamps(index: Sequence[pd.Index], follows_data: bool) -> bool:
    """Whether steps can be found by their stamps: dates always, numbers where they are those of some data."""
    if all(one.dtype.kind in "iuf" for one in index):
        return follows_data and not all(is_default(one) for one in index)
    return True


def aligned_values(
    data: Sequences, labels: Sequences, index: tuple[pd.Index, ...], shape: tuple[int, int, int], stamped: bool
) -> np.ndarray:
    """Values (n, t, k) of ``data`` for a forecast.

    Variables and sequences are matched by name where both sides name several, steps by stamp where both have stamps;
    everything else by position. Steps behind the last one of ``data`` are NaN. The values of a single step may also
    come as ``update`` takes them: (k,), or a row of a table by its names.

    Raises
    ------
    ShapeError
        Names or stamps of the forecast are not in ``data``, or the sizes differ.
    """
    step = _one_step(data, labels, shape)
    if step is not None:
        return step
    data = _by_sequence(_by_variable(data, labels), labels)
    values = data.values
    if data.n_sequences == shape[0] and stamped and not all(is_default(one) for one in data.index):
        values = np.full((*shape[:2], data.n_variables), np.nan)
        for i, (own, theirs) in enumerate(zip(index, data.index, strict=True)):
            counted = is_default(theirs) or (own.dtype.kind in "iuf" and theirs.dtype.kind not in "iuf")
            if counted and len(own) != len(theirs):
                return _checked(data.values, shape)
            rows = np.arange(len(own)) if counted else _rows(own, theirs)
            values[i, : len(rows)] = data.values[i, rows]
    return _checked(values, shape)


def scattered_values(
    data: Sequences, labels: Sequences, index: tuple[pd.Index, ...], shape: tuple[int, int, int], stamped: bool
) -> np.ndarray:
    """As `aligned_values`, for data of which steps and named variables may be left out; they are NaN.

    Raises
    ------
    ShapeError
        Names or stamps of ``data`` are not in the forecast, or the sizes differ.
    """
    if data.named and labels.named and not (data.flat or labels.flat) and len(data.variables) < shape[-1]:
        where = _places(labels.variables, data.variables, "variables")
        whole = np.full((*data.values.shape[:2], shape[-1]), np.nan)
        whole[..., where] = data.values
        data = replace(data, values=whole, variables=labels.variables, coords={})
    data = _by_sequence(data, labels)
    if data.n_sequences != shape[0] or not stamped or all(is_default(one) for one in data.index):
        return aligned_values(data, labels, index, shape, stamped)
    data = _by_variable(data, labels)
    values = np.full(shape, np.nan)
    for i, (own, theirs) in enumerate(zip(index, data.index, strict=True)):
        there = _instants(theirs)
        at = _instants(own).get_indexer(there)
        if (at < 0).any() or not there.is_unique:
            raise ShapeError(
                got=f"values at {_span(theirs)}",
                expected=f"some steps of the forecast, {_span(own)}",
                remedy="Select those steps, or pass a bare array (to_numpy()) to go by position.",
            )
        values[i, at] = _checked(data.values[i : i + 1, : len(there)], (1, len(there), shape[-1]))[0]
    return values


def _one_step(data: Sequences, labels: Sequences, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Values of one step in all its variables, which were read as several steps of one variable."""
    n, steps, k = shape
    if steps != 1 or k == 1 or not data.flat or data.values.shape != (n, k, 1):
        return None
    values = data.values.transpose(0, 2, 1)
    if all(is_default(one) for one in data.index):
        return values
    names = list(data.index[0])
    if n > 1 or set(names) != set(labels.variables):
        return None
    return values[..., [names.index(name) for name in labels.variables]]


def _checked(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    if values.shape != shape:
        raise ShapeError(
            got=f"values of shape {values.shape} (sequence, time, variable)",
            expected=f"the forecast's {shape}",
            remedy="Cut the data to the horizon.",
        )
    return values


def _by_variable(data: Sequences, labels: Sequences) -> Sequences:
    if data.flat or labels.flat or not (data.named and labels.named) or data.variables == labels.variables:
        return data
    which = _places(data.variables, labels.variables, "variables")
    return replace(data, values=data.values[..., which], variables=labels.variables, coords={})


def _by_sequence(data: Sequences, labels: Sequences) -> Sequences:
    if not (data.named_sequences and labels.named_sequences) or data.names == labels.names:
        return data
    return data.select(_places(data.names, labels.names, "sequences"))


def _places(given: tuple[Hashable, ...], wanted: tuple[Hashable, ...], what: str) -> list[int]:
    place = {name: i for i, name in enumerate(given)}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise ShapeError(
            got=f"the {what} {_few(given)}, without {_few(missing)}",
            expected=f"the {what} of the forecast, {_few(wanted)}",
            remedy=f"Rename the {what}, or pass a bare array in the order of the forecast.",
        )
    return [place[name] for name in wanted]


def _rows(own: pd.Index, theirs: pd.Index) -> np.ndarray:
    """Rows of ``theirs`` at the steps of ``own``; fewer than those where it ends before."""
    own, theirs = _instants(own), _instants(theirs)
    at = theirs.get_indexer(own) if theirs.is_unique else np.full(len(own), -1)
    n_found = int((at >= 0).sum())
    ends_there = n_found == len(own) or (
        n_found > 0 and bool((at[:n_found] >= 0).all()) and at.max() == len(theirs) - 1
    )
    if not ends_there:
        raise ShapeError(
            got=f"values at {_span(theirs)}",
            expected=f"the steps of the forecast, {_span(own)}",
            remedy="Select those steps, or pass a bare array (to_numpy()) to go by position.",
        )
    return at[:n_found]


def _instants(index: pd.Index) -> pd.Index:
    """Periods as their first instants, so that they compare with dates."""
    if index.dtype == object and len(index) and all(isinstance(one, pd.Period) for one in index):
        index = pd.PeriodIndex(index)
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index


def _few(names: Sequence[Hashable]) -> str:
    return f"{list(names[:_SHOWN])}{'...' if len(names) > _SHOWN else ''}"


def _span(index: pd.Index) -> str:
    return f"{index[0]} .. {index[-1]}" if len(index) else "no steps"
