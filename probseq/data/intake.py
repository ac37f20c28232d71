"""Readers: each form of input becomes an `Intake`, one block of numbers or tokens per sequence."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data.numeric import as_array, as_numbers, check_finite, holds_tokens, is_bounded, is_number, is_sparse
from probseq.data.timeindex import check_index
from probseq.data.vocabulary import is_missing
from probseq.errors import DataError, DataTypeError, EmptyDataError, ShapeError

__all__ = ["Coords", "Cut", "Intake", "check_blocks", "read"]

Coords = dict[Hashable, tuple[tuple[str, ...], np.ndarray]]


class Cut(Sequence[Any]):
    """Consecutive parts of one array or index, sliced when they are asked for."""

    def __init__(self, whole: Any, lengths: np.ndarray) -> None:
        self.whole, self.lengths, self._stops = whole, lengths, np.cumsum(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: Any) -> Any:
        stop = int(self._stops[i])
        return self.whole[stop - int(self.lengths[i]) : stop]


@dataclass
class Intake:
    """What a reader found: for every sequence a block and an index.

    A block is float64 (t, k), or for tokens an object array (t,) or a str. ``variables`` is None where the user gave no
    names, ``names`` likewise, an index None where there are no stamps.
    """

    blocks: Sequence[Any]
    indexes: Sequence[pd.Index | None]
    names: tuple[Hashable, ...] | None = None
    variables: tuple[Hashable, ...] | None = None
    many: bool = False
    flat: bool = False
    tokens: bool = False
    text: bool = False
    categories: tuple[Hashable, ...] | None = None
    attrs: dict[Hashable, Any] = field(default_factory=dict)
    time_attrs: dict[Hashable, Any] = field(default_factory=dict)
    name: Hashable = None
    coords: Coords = field(default_factory=dict)
    covariates: Sequence[np.ndarray] | None = None
    covariate_names: tuple[Hashable, ...] = ()
    static: np.ndarray | None = None
    static_names: tuple[Hashable, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """The number of steps of each sequence."""
        return self.blocks.lengths.tolist() if isinstance(self.blocks, Cut) else [len(block) for block in self.blocks]

    def called(self, i: int) -> str:
        """Words for sequence `i` in a message."""
        if not self.many:
            return "X"
        return f"sequence {i if self.names is None else self.names[i]!r}"


def read(X: Any, what: str = "X") -> Intake:
    """Read any form of input that needs no further naming; see `probseq.sequences`."""
    if type(X) is np.ndarray:
        return _read_array(X, what)
    if isinstance(X, str):
        return Intake([X], [None], flat=True, tokens=True, text=True)
    if isinstance(X, bytes):
        raise DataTypeError(got=f"bytes for {what}", expected="a str", remedy="Decode it first: X.decode('utf-8').")
    if isinstance(X, (pd.Series, pd.DataFrame)):
        from probseq.data.tables import read_pandas

        return read_pandas(X)
    if isinstance(X, xr.Dataset):
        X = _with_units(X)
    if isinstance(X, xr.DataArray):
        return _read_dataarray(X)
    # A sparse matrix by keys is a mapping too.
    if isinstance(X, Mapping) and not is_sparse(X):
        return _read_list(list(X.values()), names=tuple(X))
    if isinstance(X, (list, tuple)):
        return _read_list(list(X))
    return _read_array(as_array(X), what)


def _read_array(values: np.ndarray, what: str) -> Intake:
    if values.ndim == 0:
        raise ShapeError(
            got=f"the single value {values[()]!r} for {what}",
            expected="at least one dimension, time",
            remedy="Reshape your data: [x] is a sequence of one step.",
        )
    if values.ndim > 3:
        raise ShapeError(
            got=f"{values.ndim} dimensions, shape {values.shape}, for {what}",
            expected="1 (time), 2 (time, variable) or 3 (sequence, time, variable)",
            remedy="Reshape your data.",
        )
    if values.dtype == object and values.ndim == 1 and len(values) and not holds_tokens(values):
        if not all(is_number(v) or isinstance(v, (str, Mapping)) for v in values):
            return _read_list(list(values))
    if holds_tokens(values):
        return _read_token_array(values)
    numbers = as_numbers(values, what)
    if values.ndim == 1:
        return Intake([numbers[:, None]], [None], flat=True)
    if values.ndim == 2:
        return Intake([numbers], [None])
    return Intake(list(numbers), [None] * len(numbers), many=True)


def _read_token_array(values: np.ndarray) -> Intake:
    if values.ndim == 2 and values.shape[1] == 1:
        return Intake([values[:, 0].astype(object)], [None], tokens=True)
    if values.ndim != 1:
        raise ShapeError(
            got=f"text in an array of shape {values.shape}",
            expected="a 1-D array of tokens, one a step",
            remedy="Encode several categorical variables as numbers; give several token sequences as a list.",
        )
    return Intake([values.astype(object)], [None], flat=True, tokens=True)


def _read_list(items: list[Any], names: tuple[Hashable, ...] | None = None) -> Intake:
    if not items:
        raise EmptyDataError(
            got="an empty list: 0 sample(s) (shape=(0,)) while a minimum of 1 is required",
            expected="at least one step or one sequence",
            remedy="Check how the data were selected.",
        )
    texts = [isinstance(item, str) for item in items]
    if names is None and all(texts) and all(len(item) == 1 for item in items):
        return Intake([np.array(items, dtype=object)], [None], flat=True, tokens=True)
    if all(texts):
        return Intake(list(items), [None] * len(items), names, many=True, flat=True, tokens=True, text=True)
    if names is None and all(text or is_number(item) for text, item in zip(texts, items, strict=True)):
        values = np.empty(len(items), dtype=object)
        values[:] = items
        if any(texts) and all(text or is_missing(item) for text, item in zip(texts, items, strict=True)):
            return Intake([values], [None], flat=True, tokens=True)
        if any(texts):
            return Intake([as_numbers(values)], [None], flat=True)
        return _read_array(_compact(items, values), "X")
    return _join([_read_item(item, i) for i, item in enumerate(items)], names)


def _compact(items: list[Any], values: np.ndarray) -> np.ndarray:
    """Return the list as an array of its natural type, or as objects where there is none."""
    if any(item is None for item in items):
        return values
    compact = np.asarray(items)
    return compact if compact.dtype.kind in "fiubcmM" else values


def _read_item(item: Any, i: int) -> Intake:
    where = f"sequence {i}"
    if isinstance(item, (list, tuple, np.ndarray)) and len(item) == 0:
        raise EmptyDataError(
            got=f"0 sample(s) (shape={np.shape(item)}) in {where} while a minimum of 1 is required",
            expected="at least one step in every sequence",
            remedy="Leave empty sequences out.",
        )
    if isinstance(item, (list, tuple)) and all(isinstance(token, str) or token is None for token in item):
        return _read_array(np.array(item, dtype=object), where)
    if isinstance(item, (list, tuple)) and not all(isinstance(entry, str) or is_number(entry) for entry in item):
        rows = [_row(entry, where) for entry in item]
        if len({row.shape for row in rows}) > 1:
            raise ShapeError(
                got=f"rows of different lengths in {where}",
                expected="as many values at every step",
                remedy="Use NaN for what is missing.",
            )
        values = np.stack(rows)
    elif isinstance(item, (str, list, tuple, pd.Series, pd.DataFrame, xr.DataArray)):
        part = read(item, where)
        if part.many:
            raise ShapeError(
                got=f"many sequences in {where}", expected="one sequence in each item", remedy="Flatten the list."
            )
        return part
    else:
        values = as_array(item)
    if values.ndim not in (1, 2):
        raise ShapeError(
            got=f"{values.ndim} dimensions in {where}",
            expected="1 (time) or 2 (time, variable)",
            remedy="Reshape your data: a list holds one sequence in each item.",
        )
    return _read_array(values, where)


def _row(entry: Any, where: str) -> np.ndarray:
    if isinstance(entry, (list, tuple)):
        values = np.empty(len(entry), dtype=object)
        values[:] = entry
        return as_numbers(values, where)
    return as_array(entry)


def _join(parts: list[Intake], names: tuple[Hashable, ...] | None) -> Intake:
    first = parts[0]
    for i, part in enumerate(parts):
        if part.tokens != first.tokens or part.text != first.text:
            raise DataError(
                got=f"{_kind(first)} in sequence 0 and {_kind(part)} in sequence {i}",
                expected="sequences of one kind",
                remedy="Give texts, lists of tokens, or numbers, not a mixture.",
            )
        if not part.tokens and part.blocks[0].shape[1] != first.blocks[0].shape[1]:
            raise ShapeError(
                got=f"{first.blocks[0].shape[1]} variables in sequence 0 and {part.blocks[0].shape[1]} in sequence {i}",
                expected="the same variables in every sequence",
                remedy="Add the missing variables with NaN as their values.",
            )
    labels = [part.name for part in parts]
    variables = [part.variables for part in parts]
    if names is None and None not in labels and len(set(labels)) == len(labels) > 1 and first.flat:
        names, variables = tuple(labels), [None]
    if len(set(variables)) > 1 and not first.flat:
        i = next(i for i, given in enumerate(variables) if given != variables[0])
        raise ShapeError(
            got=f"the variables {variables[0]} in sequence 0 and {variables[i]} in sequence {i}",
            expected="the same variables in the same order in every sequence",
            remedy="Select the columns by name first.",
        )
    alike = len(set(variables)) == 1
    return Intake(
        blocks=[part.blocks[0] for part in parts],
        indexes=[part.indexes[0] for part in parts],
        names=names,
        variables=variables[0] if alike else None,
        many=True,
        flat=all(part.flat for part in parts),
        tokens=first.tokens,
        text=first.text,
        categories=first.categories if all(part.categories == first.categories for part in parts) else None,
        attrs=first.attrs if all(part.attrs == first.attrs for part in parts) else {},
        time_attrs=first.time_attrs if all(part.time_attrs == first.time_attrs for part in parts) else {},
        name=first.name if len(set(labels)) == 1 else None,
    )


def _kind(part: Intake) -> str:
    return "a text" if part.text else "tokens" if part.tokens else "numbers"


def _read_dataarray(X: xr.DataArray) -> Intake:
    free = [dim for dim in X.dims if dim not in ("sequence", "time", "variable")]
    odd = [dim for dim in free if dim in ("draw", "path", "state", "quantile", "horizon", "model", "origin", "bound")]
    if odd or X.ndim == 0 or X.ndim > 3:
        raise ShapeError(
            got=f"a DataArray with dimensions {tuple(X.dims)}",
            expected="time, and possibly sequence and variable",
            remedy="Reshape your data: select from the other dimensions or rename them, for example X.isel(path=0).",
        )
    roles = [role for role in _roles(X) if role not in X.dims]
    renamed: dict[Hashable, str] = dict(zip(free, roles, strict=False))
    if "time" not in X.dims and "time" not in renamed.values():
        raise ShapeError(
            got=f"a DataArray with dimensions {tuple(X.dims)}",
            expected="a time dimension",
            remedy="Rename the dimension that runs over time: X.rename({...: 'time'}).",
        )
    dims = [renamed.get(dim, str(dim)) for dim in X.dims]
    original = dict(zip(dims, X.dims, strict=True))
    order = [dim for dim in ("sequence", "time", "variable") if dim in dims]
    values = X.transpose(*(original[dim] for dim in order)).to_numpy()
    labels = {dim: X.indexes.get(original[dim]) for dim in dims}
    intake = _read_cube(values, "sequence" in dims, "variable" in dims)
    given_names, columns = labels.get("sequence"), labels.get("variable")
    intake.names = None if given_names is None else tuple(given_names.tolist())
    intake.variables = (X.name,) if X.name is not None else None
    if columns is not None:
        intake.variables = tuple(columns.tolist())
    elif "variable" in dims:
        intake.variables = None
    intake.name, intake.attrs = X.name, dict(X.attrs)
    intake.time_attrs = dict(X.coords[original["time"]].attrs) if original["time"] in X.coords else {}
    intake.indexes = [labels["time"]] * len(intake.blocks)
    for key, coord in X.coords.items():
        at = tuple(renamed.get(dim, str(dim)) for dim in coord.dims)
        if key not in X.dims and key not in ("length", "timestamp"):
            intake.coords[key] = (at, coord.to_numpy())
    if "sequence" in dims and "length" in X.coords:
        _cut_ragged(intake, X)
    return intake


def _with_units(X: xr.Dataset) -> xr.DataArray:
    """One array of all variables; names and units of their own become coordinates along ``variable``."""
    found = X.to_dataarray("variable")
    for word in ("long_name", "units"):
        words = [str(one.attrs.get(word, "")) for one in X.data_vars.values()]
        if any(words) and word not in found.coords:
            found = found.assign_coords({word: ("variable", words)})
    return found


def _roles(X: xr.DataArray) -> tuple[str, ...]:
    if X.ndim == 3:
        return "sequence", "time", "variable"
    if X.ndim == 2 and "sequence" in X.dims:
        return ("time",)
    return "time", "variable"


def _read_cube(values: np.ndarray, many: bool, wide: bool) -> Intake:
    if holds_tokens(values):
        if wide and values.shape[-1] != 1:
            return _read_token_array(values.reshape(-1, values.shape[-1]))
        flat = values.reshape(values.shape[:-1]) if wide else values
        rows = [row.astype(object) for row in flat] if many else [flat.astype(object)]
        return Intake(rows, [None] * len(rows), many=many, flat=not wide, tokens=True)
    numbers = as_numbers(values)
    cube = numbers if wide else numbers[..., None]
    blocks = list(cube) if many else [cube]
    return Intake(blocks, [None] * len(blocks), many=many, flat=not wide)


def _cut_ragged(intake: Intake, X: xr.DataArray) -> None:
    """Undo the padding of a ragged result: the inverse of `Sequences.label`."""
    lengths = np.asarray(X.coords["length"].to_numpy(), dtype=np.int64)
    intake.blocks = [block[:stop] for block, stop in zip(intake.blocks, lengths, strict=True)]
    if "timestamp" in X.coords:
        stamps = X.coords["timestamp"].transpose("sequence", ...).to_numpy()
        rows = [row[:stop] for row, stop in zip(stamps, lengths, strict=True)]
        intake.indexes = [pd.Index(row.tolist() if row.dtype == object else row) for row in rows]
    else:
        intake.indexes = [None if ix is None else ix[:n] for ix, n in zip(intake.indexes, lengths, strict=True)]


def check_blocks(intake: Intake, *, end: bool = False) -> None:
    """Raise for empty sequences, infinite values, bad time indexes and repeated names."""
    if not intake.blocks:
        raise EmptyDataError(
            got="0 sample(s) while a minimum of 1 is required",
            expected="at least one sequence",
            remedy="Check how the data were selected.",
        )
    # Blocks cut from one array are looked at together: a look at each of a thousand takes longer than a short analysis.
    parts = intake.blocks
    whole = None if intake.tokens else parts.whole if isinstance(parts, Cut) else parts[0].base
    finite = (
        isinstance(whole, np.ndarray)
        and whole.dtype == np.float64
        and (isinstance(parts, Cut) or all(block.base is whole for block in parts))
        and 0 < whole.size == sum(intake.sizes) * parts[0].shape[1]
        and is_bounded(whole)
    )
    good = finite and all(intake.sizes) and set(map(type, intake.indexes)) == {type(None)}
    for i, (block, index) in enumerate(zip(intake.blocks, intake.indexes, strict=True) if not good else ()):
        if len(block) == 0 and not end:
            shape = (0,) if intake.tokens or intake.flat else block.shape
            raise EmptyDataError(
                got=f"0 sample(s) (shape={shape}) in {intake.called(i)} while a minimum of 1 is required",
                expected="at least one step in every sequence",
                remedy="Leave empty sequences out.",
            )
        if not intake.tokens:
            if block.shape[1] == 0:
                raise EmptyDataError(
                    got=f"0 feature(s) (shape={block.shape}) while a minimum of 1 is required",
                    expected="at least one variable",
                    remedy="Check which columns were selected.",
                )
            if not finite:
                check_finite(block, intake.variables, intake.called(i))
        if index is not None and (i == 0 or index is not intake.indexes[i - 1]):
            check_index(index, intake.called(i))
    for label, given in (("sequence", intake.names), ("variable", intake.variables)):
        if given is not None and len(set(given)) < len(given):
            twice: Sequence[Hashable] = [one for one in given if given.count(one) > 1]
            raise DataError(
                got=f"the {label} name {twice[0]!r} more than once",
                expected=f"a different name for every {label}",
                remedy="Rename them.",
            )
