"""Plain values to float64 arrays, with an error that says what cannot be a number."""

from __future__ import annotations

import datetime
import math
import numbers
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from probseq.errors import DataError, DataTypeError

__all__ = ["as_array", "as_numbers", "check_finite", "holds_tokens", "is_bounded", "is_number", "is_sparse"]

_LARGEST = 1e150


_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)


def is_number(value: Any) -> bool:
    """Whether `value` is a scalar of whatever kind but text, or a missing one."""
    if value is None or isinstance(value, (numbers.Number, np.generic, *_DATES)):
        return not isinstance(value, (str, bytes))
    if is_tensor(value):
        return value.ndim == 0
    return type(value).__name__ in {"NAType", "NaTType", "Decimal"}


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_sparse(value: Any) -> bool:
    """Whether `value` is a scipy sparse matrix or array."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(value))


def as_array(value: Any) -> np.ndarray:
    """Return an array-like, tensor or masked array as a plain array of its own dtype.

    Raises
    ------
    DataTypeError
        For a sparse matrix, None, bytes, and objects that are no array.
    """
    if is_sparse(value):
        raise DataTypeError(
            got="a sparse matrix",
            expected="dense data",
            remedy="Sparse data was passed, but dense data is required. Use '.toarray()' to convert it.",
        )
    if is_tensor(value):
        return value.detach().cpu().resolve_conj().resolve_neg().numpy()
    if isinstance(value, np.ma.MaskedArray):
        return np.asarray(np.ma.filled(value.astype(np.float64), np.nan))
    array = np.asarray(value)
    if array.dtype == object and array.ndim == 0 and not isinstance(value, np.ndarray):
        raise DataTypeError(
            got=f"an object of type {type(value).__name__}",
            expected="an array, a list, a str, a pandas or an xarray object",
            remedy="Expected array-like (array or non-string sequence), or a str that is read as a text.",
        )
    return array


def holds_tokens(values: np.ndarray) -> bool:
    """Whether an array holds only strings (and missing entries), at least one of them a string."""
    if values.dtype.kind in "UT":
        return values.size > 0
    if values.dtype != object:
        return False
    some = False
    for value in values.ravel():
        if isinstance(value, str):
            some = True
        elif not (value is None or value is np.nan or (isinstance(value, float) and math.isnan(value))):
            if type(value).__name__ != "NAType":
                return False
    return some


def _text_in_numbers(value: Any, where: str) -> DataError:
    return DataError(
        got=f"the text {str(value)!r} in {where}",
        expected="numbers, with NaN for missing values",
        remedy="Drop or encode that column, or give the columns of a table their roles: ps.sequences(X, sequence=..., "
        "time=..., variables=[...]).",
    )


def as_numbers(values: np.ndarray, where: str = "X") -> np.ndarray:
    """Return `values` as float64, themselves where they are that already; None and pandas' NA become NaN.

    Raises
    ------
    DataError
        For complex numbers, dates, and text among numbers.
    DataTypeError
        For objects that ``float`` does not take.
    """
    kind = values.dtype.kind
    if kind in "fiub" or (kind in "UT" and not values.size):
        return np.asarray(values, dtype=np.float64)
    if kind == "c":
        raise DataError(
            got=f"complex numbers in {where}",
            expected="real numbers",
            remedy="Complex data not supported: pass real and imaginary parts as two variables.",
        )
    if kind in "mM":
        raise DataError(
            got=f"dates or durations among the values of {where}",
            expected="numbers",
            remedy="Make them the index (set_index), name them with time=, or convert durations to numbers.",
        )
    if kind in "UT":
        raise _text_in_numbers(values.ravel()[0], where)
    if kind == "S":
        raise DataTypeError(got=f"bytes in {where}", expected="text or numbers", remedy="Decode them to str first.")
    return _objects_as_numbers(values, where)


def _objects_as_numbers(values: np.ndarray, where: str) -> np.ndarray:
    out = np.empty(values.size, dtype=np.float64)
    for position, value in enumerate(_flat(values)):
        if value is None or type(value).__name__ == "NAType":
            out[position] = np.nan
        elif isinstance(value, str):
            raise _text_in_numbers(value, where)
        elif isinstance(value, (complex, np.complexfloating)):
            return as_numbers(values.astype(complex), where)
        elif isinstance(value, _DATES):
            return as_numbers(np.array([0], dtype="datetime64[s]"), where)
        else:
            try:
                out[position] = float(value)
            except (TypeError, ValueError):
                kind = type(value).__name__
                raise DataTypeError(
                    got=f"an object of type {kind} in {where}",
                    expected=f"numbers: float() argument must be a string or a real number, not '{kind}'",
                    remedy="Give one number a step and variable.",
                ) from None
    return out.reshape(values.shape)


def _flat(values: np.ndarray) -> Iterable[Any]:
    return values.ravel().tolist()


def is_bounded(values: np.ndarray) -> bool:
    """Whether the squares of all values that are not missing are finite."""
    # The sum of squares takes one look at the memory, where the largest and the smallest take two.
    if values.flags.c_contiguous and np.vdot(values, values) <= _LARGEST**2:
        return True
    return not (np.abs(values) > _LARGEST).any()


def check_finite(values: np.ndarray, variables: tuple[Any, ...] | None, where: str) -> None:
    """Raise a DataError that names the first entry of `values`, shape (t, k), that is infinite or whose square is."""
    if is_bounded(values):
        return
    wrong = np.abs(values) > _LARGEST
    if wrong.any():
        step, column = (int(i) for i in np.argwhere(wrong)[0])
        variable = variables[column] if variables is not None else f"x{column}"
        value = values[step, column]
        raise DataError(
            got=f"{value:+}{' (inf)' if np.isinf(value) else ''} in variable {variable!r} at step {step} of {where}",
            expected="finite numbers, or NaN where a value is missing"
            if np.isinf(value)
            else f"numbers below {_LARGEST:g} in size, whose squares are finite",
            remedy="Replace it by NaN, or correct it.",
        )
