"""Splits into training and test data, in the form in which the data came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from probseq._random import RandomState, numpy_generator
from probseq.data.batch import Sequences
from probseq.data.datasets import SequenceList
from probseq.data.intake import read
from probseq.data.numeric import as_array, is_number, is_tensor
from probseq.data.sequences import sequences
from probseq.errors import EmptyDataError, HorizonError, ParameterError, ShapeError

__all__ = ["split", "split_sequences"]

T = TypeVar("T")
Count = Callable[[int], int]


def split(y: T, horizon: int | None = None, *, test_size: float | int | None = None) -> tuple[T, T]:
    """Cut the end off every sequence: ``(train, test)``, both in the form of `y` and with its coordinates.

    A list of texts is cut by sequence instead: the last texts are the test data.

    Parameters
    ----------
    y : any form of data that `probseq.sequences` reads
    horizon : int, optional
        Steps of each sequence to hold out.
    test_size : float or int, optional
        Instead of `horizon`: the fraction of each sequence (rounded up), or a number of steps (of texts, in a list).

    Raises
    ------
    HorizonError
        If nothing would be held out, or `horizon` is asked of a list of texts.
    ShapeError
        If nothing of a sequence would be left to train on.

    Examples
    --------
    >>> split([1, 2, 3, 4, 5], horizon=2)
    ([1, 2, 3], [4, 5])
    >>> split(["ab", "cd", "e"], test_size=1)
    (['ab', 'cd'], ['e'])
    """
    count = _counter(horizon, test_size)
    if _is_texts(y):
        if test_size is None:
            raise HorizonError(
                got=f"horizon={horizon} for a list of texts",
                expected="test_size=, as texts are held out whole",
                remedy="Use test_size=0.2, or split_sequences for a random choice.",
            )
        held = _held(len(y), count, "the list of texts")  # type: ignore[arg-type]
        return _pick(y, np.arange(len(y) - held)), _pick(y, np.arange(len(y) - held, len(y)))  # type: ignore[arg-type]
    return _cut(y, count)


def _counter(horizon: Any, test_size: Any) -> Count:
    if (horizon is None) == (test_size is None):
        raise ParameterError(
            got=f"horizon={horizon!r} and test_size={test_size!r}",
            expected="one of the two",
            remedy="For example split(y, horizon=12) or split(y, test_size=0.2).",
        )
    size = horizon if test_size is None else test_size
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if whole and size >= 1:
        return lambda length: int(size)
    if test_size is not None and isinstance(size, (float, np.floating)) and 0 < size < 1:
        return lambda length: math.ceil(length * size)
    if horizon is not None:
        raise HorizonError(got=f"horizon={horizon!r}", expected="a whole number, 1 or more", remedy="Try horizon=1.")
    raise ParameterError(
        got=f"test_size={test_size!r}",
        expected="a fraction between 0 and 1, or a whole number of 1 or more",
        remedy="Try test_size=0.2.",
    )


def _held(length: int, count: Count, called: str) -> int:
    held = count(length)
    if held >= length:
        raise ShapeError(
            got=f"{called} of {length} steps with {held} to hold out",
            expected="at least one step to train on",
            remedy="Use a shorter horizon, or leave short sequences out.",
        )
    return held


def _is_texts(y: Any) -> bool:
    return isinstance(y, (list, tuple)) and bool(y) and isinstance(y[0], str) and read(y).text


def _is_one_list(y: Any) -> bool:
    return isinstance(y, (list, tuple)) and all(isinstance(item, str) or is_number(item) for item in y)


def _pick(y: Any, rows: np.ndarray) -> Any:
    return _like(y, [y[int(row)] for row in rows])


def _like(y: Any, items: list[Any]) -> Any:
    """Return `items` as a list of the class of `y`, with its attributes."""
    out = type(y)(items)
    if isinstance(y, SequenceList):
        out.attrs = dict(y.attrs)
    return out


def _cut(y: Any, count: Count) -> tuple[Any, Any]:
    if isinstance(y, Sequences):
        held = [_held(int(n), count, f"sequence {name!r}") for n, name in zip(y.lengths, y.names, strict=True)]
        return _cut_sequences(y, np.array(held))
    if isinstance(y, xr.DataArray):
        return _cut_dataarray(y, count)
    if isinstance(y, (pd.Series, pd.DataFrame)):
        return _cut_rows(y, count)
    if isinstance(y, dict):
        pairs = {key: _cut(one, count) for key, one in y.items()}
        return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
    if isinstance(y, str) or _is_one_list(y):
        stop = len(y) - _held(len(y), count, "the sequence")
        return y[:stop], y[stop:]
    if isinstance(y, (list, tuple)):
        halves = [_cut(one, count) for one in y]
        return _like(y, [half[0] for half in halves]), _like(y, [half[1] for half in halves])
    values = y if is_tensor(y) else as_array(y)
    if values.ndim not in (1, 2, 3):
        sequences(values)
    axis = 1 if values.ndim == 3 else 0
    stop = values.shape[axis] - _held(values.shape[axis], count, "the sequence")
    return (values[:, :stop], values[:, stop:]) if axis else (values[:stop], values[stop:])


def _cut_sequences(data: Sequences, held: np.ndarray) -> tuple[Sequences, Sequences]:
    if len(set(held.tolist())) == 1:
        return data.slice_time(0, -int(held[0])), data.slice_time(-int(held[0]), None)
    mark = data.lengths - held
    return data.slice_time(0, mark), data.slice_time(mark, None)


def _cut_dataarray(y: xr.DataArray, count: Count) -> tuple[xr.DataArray, xr.DataArray]:
    if "length" in y.coords:
        train, test = _cut(sequences(y), count)
        return train.to_dataarray(), test.to_dataarray()
    others = ("sequence", "variable")
    dim = "time" if "time" in y.dims else next((one for one in y.dims if one not in others), None)
    if dim is None:
        sequences(y)
    stop = y.sizes[dim] - _held(y.sizes[dim], count, "the sequence")
    return y.isel({dim: slice(0, stop)}), y.isel({dim: slice(stop, None)})


def _series_labels(y: pd.Series | pd.DataFrame) -> Any:
    """Return the label of the sequence of each row, or None for one sequence."""
    if isinstance(y.index, pd.MultiIndex):
        return y.index.get_level_values(0)
    if isinstance(y, pd.DataFrame) and "unique_id" in y.columns:
        return y["unique_id"].to_numpy()
    return y.index if y.index.name == "unique_id" else None


def _cut_rows(y: Any, count: Count) -> tuple[Any, Any]:
    labels = _series_labels(y)
    if labels is None:
        stop = len(y) - _held(len(y), count, "the sequence")
        return y.iloc[:stop], y.iloc[stop:]
    codes, uniques = pd.factorize(labels)
    held = np.array(
        [_held(int(n), count, f"sequence {name!r}") for n, name in zip(np.bincount(codes), uniques, strict=True)]
    )
    left = pd.Series(codes).groupby(codes).cumcount(ascending=False).to_numpy()
    is_test = left < held[codes]
    return y[~is_test], y[is_test]


def split_sequences(X: T, test_size: float | int = 0.25, random_state: RandomState = None) -> tuple[T, T]:
    """Choose whole sequences at random: ``(train, test)``, both in the form of `X` and in its order.

    Parameters
    ----------
    X : list, mapping, 3-D array, DataArray with ``sequence``, MultiIndex or long table, Sequences
    test_size : float or int
        The fraction of the sequences (rounded up), or their number.
    random_state : int, Generator or None

    Raises
    ------
    EmptyDataError
        If there are fewer than two sequences, or none would be left to train on.

    Examples
    --------
    >>> import probseq as ps
    >>> train, test = ps.split_sequences(["one", "two", "three", "four"], test_size=1, random_state=0)
    >>> len(train), len(test)
    (3, 1)
    """
    count = _counter(None, test_size)
    n = sequences(X, end=False).n_sequences if not isinstance(X, (list, Sequences)) else _number(X)
    held = count(n)
    if n < 2 or held >= n:
        raise EmptyDataError(
            got=f"{n} sequence(s) with {held} to hold out",
            expected="at least one sequence to train on and one to test on",
            remedy="To cut along time use split(y, horizon=...).",
        )
    chosen = numpy_generator(random_state).permutation(n)[:held]
    is_test = np.zeros(n, dtype=bool)
    is_test[chosen] = True
    return _choose(X, ~is_test), _choose(X, is_test)


def _number(X: Any) -> int:
    if isinstance(X, Sequences):
        return X.n_sequences
    return 1 if _is_one_list(X) and not _is_texts(X) else len(X)


def _choose(X: Any, rows: np.ndarray) -> Any:
    where = np.flatnonzero(rows)
    if isinstance(X, Sequences):
        return X.select(where)
    if isinstance(X, xr.DataArray):
        return X.isel(sequence=where)
    if isinstance(X, (pd.Series, pd.DataFrame)):
        codes, _ = pd.factorize(_series_labels(X))
        return X[rows[codes]]
    if isinstance(X, dict):
        return {key: X[key] for key, keep in zip(X, rows, strict=True) if keep}
    if isinstance(X, (list, tuple)):
        return _pick(X, where)
    return X[where] if is_tensor(X) else as_array(X)[where]
