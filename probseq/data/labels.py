"""Labels out: arrays become DataArrays with the fixed dimension words and the user's coordinates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data.timeindex import is_default
from probseq.errors import ShapeError

if TYPE_CHECKING:
    from probseq.data.batch import Sequences

__all__ = ["DIMS", "dataset", "label", "stamps_2d", "to_list"]

DIMS = ("draw", "path", "sequence", "time", "horizon", "variable", "state", "quantile", "bound", "category")


def stamps_2d(indexes: Sequence[pd.Index], width: int) -> np.ndarray:
    """Return the stamps of ragged sequences as one array (n, width), padded by NaT, NaN or None."""
    kinds = {index.dtype for index in indexes}
    first = indexes[0]
    if len(kinds) == 1 and isinstance(first.dtype, np.dtype) and first.dtype.kind in "mM":
        out: np.ndarray = np.full((len(indexes), width), np.array("NaT", dtype=first.dtype))
    elif all(index.dtype.kind in "iuf" for index in indexes):
        out = np.full((len(indexes), width), np.nan)
    else:
        out = np.full((len(indexes), width), None, dtype=object)
    for row, index in zip(out, indexes, strict=True):
        row[: len(index)] = index.to_numpy() if out.dtype != object else index.astype(object)
    return out


def _pad(array: np.ndarray, dims: Sequence[str], lengths: np.ndarray) -> np.ndarray:
    """Blank the steps beyond each length: NaN, -1 for labels, False for flags."""
    width = array.shape[dims.index("time")]
    padding = np.arange(width) >= lengths[:, None]
    if not padding.any():
        return array
    shape = [array.shape[i] if dim in ("sequence", "time") else 1 for i, dim in enumerate(dims)]
    blank: Any = {"f": np.nan, "i": -1, "u": 0, "b": False}.get(array.dtype.kind)
    if blank is None:
        blank = None if array.dtype == object else array.dtype.type()
    if tuple(dims) == ("sequence", "time") and array.dtype.kind in "iub" and (array[padding] == blank).all():
        return array
    return np.where(padding.reshape(shape), np.asarray(blank, dtype=array.dtype), array)


def label(
    data: Sequences,
    array: Any,
    dims: Sequence[str],
    *,
    name: Hashable = None,
    index: Sequence[pd.Index] | None = None,
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[Hashable, Any] | None = None,
    padded: bool = False,
) -> xr.DataArray:
    """See `Sequences.label`."""
    array = np.asarray(array)
    dims = tuple(dims)
    if len(dims) != array.ndim or len(set(dims)) != len(dims):
        raise ShapeError(
            got=f"an array of shape {array.shape} with dimensions {dims}",
            expected="one dimension word for each axis",
            remedy="This is a defect of the calling code.",
        )
    order = sorted(range(len(dims)), key=lambda i: DIMS.index(dims[i]) if dims[i] in DIMS else len(DIMS))
    dims, array = tuple(dims[i] for i in order), array.transpose(order)
    extra = dict(coords or {})
    labels: dict[Hashable, Any] = {}
    given = data.index if index is None else tuple(index)
    sizes = data.lengths if index is None else np.array([len(one) for one in given], dtype=np.int64)
    if "time" in dims:
        width = array.shape[dims.index("time")]
        if "sequence" in dims and data.many:
            alike = all(one is given[0] or one.equals(given[0]) for one in given[1:]) and len(given[0]) == width
            if alike:
                labels["time"] = given[0]
            else:
                array = array if padded else _pad(array, dims, sizes)
                counted = all(map(is_default, dict(zip(map(id, given), given, strict=True)).values()))
                if counted and dims == ("sequence", "time") and not (extra or data.coords or data.named_sequences):
                    return _filled(_ragged_frame(data.names, sizes.tobytes(), width), array, name, attrs)
                labels["time"] = range(width)
                labels["length"] = ("sequence", sizes)
                if not counted:
                    labels["timestamp"] = (("sequence", "time"), stamps_2d(given, width))
        elif len(given[0]) == width and not (data.many and len(given) > 1):
            labels["time"] = given[0]
        else:
            labels["time"] = range(width)
    if "horizon" in dims:
        labels["horizon"] = range(1, array.shape[dims.index("horizon")] + 1)
    if "sequence" in dims:
        if data.many:
            labels["sequence"] = pd.Index(list(data.names), tupleize_cols=False)
        else:
            array, dims = _drop(array, dims, "sequence")
    if "variable" in dims:
        if data.flat:
            array, dims = _drop(array, dims, "variable")
        else:
            labels["variable"] = pd.Index(list(data.variables), tupleize_cols=False)
    for word in ("draw", "path", "state"):
        if word in dims:
            labels[word] = range(array.shape[dims.index(word)])
    size = dict(zip(dims, array.shape, strict=True))
    for key, (at, values) in data.coords.items():
        fits = set(at) <= set(dims) and tuple(size[dim] for dim in at) == np.shape(values)
        if fits and key not in labels and not (index is not None and "time" in at):
            labels[key] = (at, values)
    labels.update(extra)
    counts = tuple((key, *_counted(key, value)) for key, value in labels.items())
    if all(count is not None for _, _, count in counts):
        return _filled(_frame(dims, array.shape, counts), array, name, attrs)
    coordinates = {
        key: _coordinate(key, value) if count is None else _numbers(key, at, count)
        for (key, at, count), value in zip(counts, labels.values(), strict=True)
    }
    return xr.DataArray(array, coordinates, dims, name, dict(attrs or {}))


def _counted(key: Hashable, value: Any) -> tuple[Any, range | None]:
    """The dimension of a coordinate and the numbers that it counts; None for those where it does something else."""
    at, values = value if isinstance(value, tuple) and len(value) == 2 else (key, value)
    if type(values) is pd.RangeIndex:
        values = range(values.start, values.stop, values.step)
    return at, values if isinstance(values, range) else None


class _Frame(NamedTuple):
    """Dimensions and coordinates without an array, kept: making them takes longer than a short filter."""

    dims: tuple[Hashable, ...]
    variables: dict[Hashable, xr.Variable]
    indexes: dict[Hashable, Any]


@lru_cache(maxsize=64)
def _frame(dims: tuple[str, ...], shape: tuple[int, ...], counts: tuple[tuple[Hashable, Any, range], ...]) -> _Frame:
    """Of coordinates that only count."""
    return _kept(shape, dims, {key: _numbers(key, *rest) for key, *rest in counts})


@lru_cache(maxsize=16)
def _ragged_frame(names: tuple[Hashable, ...], lengths: bytes, width: int) -> _Frame:
    """Of sequences of different lengths (int64) that have no names of their own."""
    sizes = np.frombuffer(lengths, dtype=np.int64)
    coords = {
        "time": pd.RangeIndex(width),
        "length": ("sequence", sizes),
        "sequence": pd.Index(list(names)),
    }
    return _kept((len(sizes), width), ("sequence", "time"), coords)


def _kept(shape: tuple[int, ...], dims: tuple[str, ...], coords: Mapping[Any, Any]) -> _Frame:
    whole = xr.DataArray(np.broadcast_to(np.zeros(()), shape), coords, dims)
    return _Frame(dims, dict(whole.coords.variables), dict(whole.xindexes))


def _filled(frame: _Frame, array: np.ndarray, name: Hashable, attrs: Mapping[Hashable, Any] | None) -> xr.DataArray:
    # With its variables made, a DataArray costs a third of a copy. The indexes never change; the variables are copied,
    # since users may add attributes to them.
    variables = {key: variable.copy(deep=False) for key, variable in frame.variables.items()}
    data = xr.Variable(frame.dims, array, attrs)
    return xr.DataArray(data, variables, name=name, indexes=frame.indexes, fastpath=True)


def dataset(
    variables: Mapping[str, tuple[tuple[str, ...], np.ndarray, Mapping[Hashable, Any]]],
    labels: Mapping[str, Any],
    coords: Mapping[str, tuple[tuple[str, ...], Any]],
) -> xr.Dataset:
    """A Dataset of arrays that are known to fit together, without the search for what does not.

    Parameters
    ----------
    variables : name -> dimensions, array, attributes
    labels : dimension -> its labels, an array or Index; tuples and ranges are kept from call to call
    coords : name -> dimensions and array of further coordinates; tuples as above
    """
    held: dict[Hashable, xr.Variable] = {}
    indexes: dict[Hashable, Any] = {}
    for dim, given in labels.items():
        index, variable = (_kept_labels if isinstance(given, tuple | range) else _labels)(dim, given)
        # Not the kept variable itself, to which users may add attributes.
        held[dim], indexes[dim] = xr.IndexVariable((dim,), variable._data, fastpath=True), index
    for name, (dims, given) in coords.items():
        held[name] = _kept_words(dims, given).copy(deep=False) if isinstance(given, tuple) else xr.Variable(dims, given)
    names = set(held)
    held.update({name: xr.Variable(*parts) for name, parts in variables.items()})
    # The public way aligns all variables and merges their coordinates, which takes longer than many a backtest.
    return xr.Dataset._construct_direct(held, names, indexes=indexes)


def _labels(dim: str, given: Any) -> tuple[Any, xr.Variable]:
    array = _array(given) if isinstance(given, tuple) else given
    if isinstance(array, np.ndarray) and array.dtype.kind in "iufmM":
        index = xr.indexes.PandasIndex(array, dim)
        return index, index.create_variables()[dim]
    variable = xr.Variable((dim,), array)
    index = xr.indexes.PandasIndex.from_variables({dim: variable}, options={})
    return index, index.create_variables({dim: variable})[dim]


def _words(dims: tuple[str, ...], given: tuple[Any, ...]) -> xr.Variable:
    return xr.Variable(dims, _array(given))


def _array(given: tuple[Any, ...]) -> np.ndarray:
    # Words would otherwise become strings of a fixed length.
    return np.array(given, dtype=float if all(isinstance(one, float) for one in given) else object)


_kept_labels = lru_cache(maxsize=64)(_labels)
_kept_words = lru_cache(maxsize=64)(_words)


def _numbers(key: Hashable, at: Any, count: range) -> tuple[Any, Any]:
    index = pd.RangeIndex(count.start, count.stop, count.step)
    if key == at:
        return at, index
    numbers = index.to_numpy().copy()
    numbers.flags.writeable = False  # results of one shape share it
    return at, numbers


def _coordinate(key: Hashable, value: Any) -> Any:
    return (key, value) if isinstance(value, (pd.Index, np.ndarray)) and np.ndim(value) == 1 else value


def _drop(array: np.ndarray, dims: tuple[str, ...], dim: str) -> tuple[np.ndarray, tuple[str, ...]]:
    axis = dims.index(dim)
    return array[(slice(None),) * axis + (0,)], dims[:axis] + dims[axis + 1 :]


def to_list(ragged: xr.DataArray) -> list[xr.DataArray]:
    """Cut a result over many sequences into one DataArray a sequence, each without its padding.

    Parameters
    ----------
    ragged : xr.DataArray
        With a ``sequence`` dimension, and ``length(sequence)`` and possibly ``timestamp(sequence, time)`` where the
        sequences differ in length. Without a ``sequence`` dimension it comes back as the only item.

    Returns
    -------
    list of xr.DataArray
        The stamps of each sequence are its ``time`` coordinate again; ``sequence`` stays as a scalar coordinate.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.IID().fit([[0.0, 1.0, 2.0], [1.0, 3.0]])
    >>> [len(x) for x in ps.to_list(model.predict([[0.0, 1.0, 2.0], [1.0, 3.0]]))]
    [3, 2]
    """
    if "sequence" not in ragged.dims:
        return [ragged]
    out = []
    for i in range(ragged.sizes["sequence"]):
        one = ragged.isel(sequence=i)
        if "length" in one.coords and "time" in one.dims:
            one = one.isel(time=slice(0, int(one.coords["length"])))
        if "timestamp" in one.coords:
            stamps = one.coords["timestamp"].to_numpy()
            index = pd.Index(stamps.tolist() if stamps.dtype == object else stamps)
            if index.dtype.kind == "f" and (index == np.floor(index)).all():
                index = index.astype(np.int64)
            one = one.drop_vars("timestamp").assign_coords(time=("time", index))
        out.append(one.drop_vars("length", errors="ignore"))
    return out
