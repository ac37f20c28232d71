"""Forecasts from outside: paths or quantiles that somebody else made, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data.sequences import Sequences, sequences
from probseq.errors import DataError, DataTypeError, ParameterError, ShapeError

__all__ = ["labels_for", "path_array", "quantile_array", "select_variables", "single_variable"]

_DIMS = ("sequence", "time", "variable")


def path_array(paths: Any) -> np.ndarray:
    """(path, time), (path, time, variable) or (path, sequence, time, variable) -> (path, n, t, k)."""
    array = _array(_by_name(paths, ("path", *_DIMS)), "paths")
    if array.ndim == 2:
        array = array[:, None, :, None]
    elif array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or 0 in array.shape:
        raise ShapeError(
            got=f"paths of shape {array.shape}", expected="(path, time[, variable])", remedy="Reshape them."
        )
    _need_whole(array, 0, "paths")
    return array


def quantile_array(levels: Sequence[float], values: Any) -> tuple[np.ndarray, np.ndarray]:
    """(time, quantile), (time, variable, quantile) or (sequence, time, variable, quantile) -> (n, t, k, Q)."""
    array = _array(_by_name(values, (*_DIMS, "quantile")), "values")
    if array.ndim == 2:
        array = array[None, :, None]
    elif array.ndim == 3:
        array = array[None]
    grid = _array(levels, "levels")
    if grid.ndim != 1 or len(grid) < 2 or np.any(np.diff(grid) <= 0) or grid[0] <= 0 or grid[-1] >= 1:
        raise ParameterError(
            got=f"levels={levels!r}", expected="at least two increasing numbers in (0, 1)", remedy="Sort them."
        )
    if array.ndim != 4 or array.shape[-1] != len(grid):
        raise ShapeError(
            got=f"values of shape {array.shape} for {len(grid)} levels",
            expected="the levels along the last axis",
            remedy="Transpose the values.",
        )
    _need_whole(array, -1, "quantiles")
    return grid, array


def _by_name(values: Any, order: tuple[str, ...]) -> Any:
    """A DataArray that names its axes, in this order and with those it does not have; anything else as it is."""
    if not isinstance(values, xr.DataArray):
        return values
    named = values.rename(horizon="time") if "horizon" in values.dims and "time" not in values.dims else values
    if not set(named.dims) <= set(order):
        if {"path", "quantile"} & set(order) & set(named.dims):
            raise ShapeError(
                got=f"a DataArray with dimensions {named.dims}",
                expected=f"some of {order}",
                remedy="Rename them, or pass to_numpy().",
            )
        return values
    return named.expand_dims([dim for dim in order if dim not in named.dims]).transpose(*order)


def _need_whole(array: np.ndarray, axis: int, what: str) -> None:
    """A step is there in all of the paths or quantiles, or in none."""
    gaps = np.isnan(array)
    if (gaps.any(axis) & ~gaps.all(axis)).any():
        raise DataError(
            got=f"a value that some {what} have and others lack (NaN)",
            expected=f"all {what} of a value",
            remedy="Leave such a step out, or fill it.",
        )


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataTypeError(
            got=f"{name} that are no rectangular array of numbers ({error})",
            expected="an array of numbers",
            remedy="Pass a NumPy array; rows must be equally long.",
        ) from error


def labels_for(values: np.ndarray, like: Any) -> tuple[Sequences, tuple[pd.Index, ...]]:
    """Names and stamps for values (n, t, k): those of the steps after ``like``, or plain numbers."""
    if like is None:
        flat = values[0, :, 0] if values.shape[0] == 1 and values.shape[2] == 1 else values[0]
        labels = sequences(flat if values.shape[0] == 1 else values)
        return labels, labels.index
    labels = sequences(like)
    given, wanted = (values.shape[0], values.shape[2]), (labels.n_sequences, labels.n_variables)
    if given != wanted:
        raise ShapeError(
            got=f"values of {given[0]} sequences and {given[1]} variables",
            expected=f"those of like=, {wanted[0]} and {wanted[1]}",
            remedy="The order of the axes is sequence, time, variable.",
        )
    return labels, labels.future_index(values.shape[1])


def select_variables(data: Sequences, which: list[int]) -> Sequences:
    """The labels of some of the variables."""
    coords = {key: (at, np.asarray(own)[which]) for key, (at, own) in data.coords.items() if tuple(at) == ("variable",)}
    named = tuple(data.variables[i] for i in which)
    return replace(data, values=data.values[..., which], variables=named, coords=coords)


def single_variable(data: Sequences, name: str) -> Sequences:
    """The labels of one figure for all variables of a step."""
    return replace(data, values=data.values[..., :1], variables=(name,), flat=True, coords={})
