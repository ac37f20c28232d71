"""Irregular stamps onto a regular grid, with missing values where nothing was seen."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data.timeindex import check_freq, check_index
from probseq.errors import DataError, DataTypeError

__all__ = ["on_grid"]

T = TypeVar("T")


def on_grid(X: T, freq: Any) -> T:
    """Return `X` on the grid of `freq`: every stamp moves to its grid point, empty grid points hold NaN.

    Parameters
    ----------
    X : Series, DataFrame or DataArray with a time index, also with a MultiIndex (series, time), or a list of them
        Rows need not be sorted.
    freq : str or number
        A pandas frequency for dates, durations and periods; a step for a numeric index, whose stamps must lie on the
        grid. Dates move to the label of their interval as in ``DataFrame.resample``.

    Returns
    -------
    The same kind of object.

    Raises
    ------
    DataError
        If two rows fall on one grid point, a number lies off the grid, or the index holds no times.

    Examples
    --------
    >>> days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04"])
    >>> on_grid(pd.Series([1.0, 2.0, 4.0], days), "D").tolist()
    [1.0, 2.0, nan, 4.0]
    """
    step = check_freq(freq)
    if isinstance(X, (list, tuple)):
        return type(X)([on_grid(one, freq) for one in X])  # type: ignore[call-arg,return-value]
    if isinstance(X, xr.DataArray):
        return _dataarray(X, step)  # type: ignore[return-value]
    if not isinstance(X, (pd.Series, pd.DataFrame)):
        raise DataTypeError(
            got=f"an object of type {type(X).__name__}",
            expected="a Series, DataFrame or DataArray with a time index",
            remedy="Attach the times first, for example pandas.Series(values, index=times).",
        )
    if isinstance(X.index, pd.MultiIndex):
        level = X.index.names[0]
        parts = {key: _regular(part.droplevel(0), step) for key, part in X.groupby(level=0, sort=False)}
        return pd.concat(parts, names=[level, X.index.names[1]])  # type: ignore[return-value,arg-type]
    return _regular(X, step)  # type: ignore[return-value]


def _dataarray(X: xr.DataArray, step: Any) -> xr.DataArray:
    dim = "time" if "time" in X.dims else str(X.dims[0])
    if dim not in X.indexes:
        raise DataError(got=f"a DataArray without stamps along {dim!r}", expected="times", remedy="Assign them first.")
    place = pd.Series(np.arange(X.sizes[dim], dtype=float), index=X.indexes[dim])
    target = _regular(place, step)
    rows = target.to_numpy()
    taken = X.drop_vars(dim).isel({dim: np.where(np.isnan(rows), 0, rows).astype(int)})
    present = xr.DataArray(~np.isnan(rows), dims=dim)
    out = taken.where(present) if np.isnan(rows).any() else taken
    return out.assign_coords({dim: (dim, target.index)}).assign_attrs(X.attrs)


def _regular(X: Any, step: Any) -> Any:
    index = X.index
    if index.hasnans:
        check_index(index, "X")
    X = X.sort_index()
    index = X.index
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and isinstance(step, str):
        counts = pd.Series(1, index=index).resample(step).sum()
        if (counts > 1).any():
            raise _crowded(counts.index[counts.to_numpy() > 1][0], step)
        target = counts.index
        codes = np.full(len(target), -1)
        codes[counts.to_numpy() == 1] = np.arange(len(index))
        return _take(X, codes, target)
    if isinstance(index, pd.PeriodIndex) and isinstance(step, str):
        offset: Any = pd.tseries.frequencies.to_offset(step)
        moved = index if index.freq == offset else index.asfreq(offset)  # type: ignore[arg-type]
        target = pd.period_range(moved[0], moved[-1], freq=moved.freq)
    elif index.dtype.kind in "iuf" and isinstance(step, (int, float)):
        places = (index.to_numpy() - index[0]) / step
        near = np.rint(places)
        if (np.abs(places - near) > 1e-6).any():
            raise DataError(
                got=f"the stamp {index[int(np.argmax(np.abs(places - near)))]}, which lies off the grid of step {step}",
                expected="stamps on the grid",
                remedy="Use a finer step.",
            )
        target = pd.Index(index[0] + step * np.arange(int(near[-1]) + 1))
        moved = target.take(near.astype(int))
    else:
        raise DataError(
            got=f"an index of {index.dtype} with freq={step!r}",
            expected="dates, durations or periods with a pandas frequency, or numbers with a numeric step",
            remedy="Convert the index first, for example with pandas.to_datetime.",
        )
    if not moved.is_unique:
        raise _crowded(moved[moved.duplicated()][0], step)
    return _take(X, moved.get_indexer(target), target)


def _take(X: Any, rows: np.ndarray, target: pd.Index) -> Any:
    """Return the rows of `X`, NaN where a row is -1, under the index `target`."""
    plain = X.reset_index(drop=True).reindex(np.where(rows < 0, len(X), rows))
    return plain.set_axis(target.rename(X.index.name), axis=0)


def _crowded(stamp: Any, step: Any) -> DataError:
    return DataError(
        got=f"more than one row for {stamp} on the grid {step!r}",
        expected="at most one row for each grid point",
        remedy=f"Aggregate first, for example X.resample({step!r}).mean(), or use a finer grid.",
    )
