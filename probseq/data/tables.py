"""Readers of pandas tables: wide, with a MultiIndex (series, time), and long (unique_id, ds, y)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probseq.data.intake import Intake
from probseq.data.numeric import as_numbers, holds_tokens
from probseq.errors import CovariateError, DataError, ShapeError

__all__ = ["LONG_NAMES", "read_pandas", "read_table"]

LONG_NAMES = ("unique_id", "ds", "y")


def read_pandas(X: pd.Series | pd.DataFrame) -> Intake:
    """Read a Series, a wide table, a table with a MultiIndex (series, time), or one with columns unique_id, ds, y."""
    if isinstance(X, pd.Series):
        return _read_series(X)
    if {"unique_id", "ds"} <= {*X.columns, *X.index.names} or {"ds", "y"} <= set(X.columns):
        return read_table(X)
    return _read_wide(X, list(X.columns))


def _values(column: pd.Series, where: str) -> np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.to_numpy(dtype=object)
    if pd.api.types.is_extension_array_dtype(column.dtype) and pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if isinstance(column.dtype, (pd.DatetimeTZDtype, pd.PeriodDtype)):
        return as_numbers(np.array([0], dtype="datetime64[s]"), where)
    return column.to_numpy()


def _read_series(X: pd.Series) -> Intake:
    where = "X" if X.name is None else f"{X.name!r}"
    values = _values(X, where)
    intake = Intake([], [], flat=True, name=X.name, attrs=dict(X.attrs))
    intake.variables = None if X.name is None else (X.name,)
    if isinstance(X.dtype, pd.CategoricalDtype) and all(isinstance(c, str) for c in X.cat.categories):
        intake.categories = tuple(X.cat.categories)
    if intake.categories is not None or holds_tokens(values):
        intake.tokens = True
        block: Any = values.astype(object)
    else:
        block = as_numbers(values, where).reshape(-1, 1)
    _place(intake, block, X.index)
    return intake


def _read_wide(X: pd.DataFrame, columns: list[Hashable]) -> Intake:
    if X.columns.nlevels > 1:
        raise DataError(
            got=f"a table whose columns have {X.columns.nlevels} levels",
            expected="one name a column",
            remedy="Flatten them, or stack the series level: X.stack(0) gives a MultiIndex of rows.",
        )
    if not X.columns.is_unique:
        raise DataError(
            got=f"the column name {X.columns[X.columns.duplicated()][0]!r} more than once",
            expected="a different name for every column",
            remedy="Rename them.",
        )
    if len(columns) == 1 and X[columns[0]].dtype.kind not in "fiubc":
        intake = _read_series(X[columns[0]])
        intake.flat, intake.name, intake.attrs = False, None, dict(X.attrs)
        return intake
    parts = [as_numbers(_values(X[column], f"column {column!r}"), f"column {column!r}") for column in columns]
    block = np.column_stack(parts) if parts else np.empty((len(X), 0))
    intake = Intake([], [], attrs=dict(X.attrs))
    default = isinstance(X.columns, pd.RangeIndex) and X.columns.start == 0 and X.columns.step == 1
    intake.variables = None if default else tuple(columns)
    _place(intake, block, X.index)
    return intake


def _place(intake: Intake, block: Any, index: pd.Index) -> None:
    """Put `block` into `intake`, cut by the first level of a MultiIndex (series, time)."""
    if not isinstance(index, pd.MultiIndex):
        intake.blocks, intake.indexes = [block], [index]
        return
    if index.nlevels != 2:
        raise ShapeError(
            got=f"a MultiIndex of {index.nlevels} levels",
            expected="two levels: series and time",
            remedy="Join the levels that name a series into one.",
        )
    groups = _groups(index.get_level_values(0))
    stamps = index.get_level_values(1)
    intake.many, intake.names = True, tuple(groups)
    intake.blocks = [block[rows] for rows in groups.values()]
    intake.indexes = [stamps[rows] for rows in groups.values()]


def _groups(labels: pd.Index | pd.Series) -> dict[Hashable, np.ndarray]:
    """Return the rows of every label, labels in the order in which they first appear."""
    codes, uniques = pd.factorize(labels)
    if (codes < 0).any():
        raise DataError(
            got=f"a missing sequence name in row {int(np.flatnonzero(codes < 0)[0])}",
            expected="the name of its sequence in every row",
            remedy="Drop the row or fill in the name.",
        )
    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes, minlength=len(uniques)))[:-1]
    return dict(zip(uniques.tolist(), np.split(order, cuts), strict=True))


def _listed(given: Any) -> list[Hashable] | None:
    if given is None:
        return None
    return [given] if isinstance(given, (str, int, tuple)) else list(given)


def read_table(
    X: pd.DataFrame,
    *,
    sequence: Hashable = None,
    time: Hashable = None,
    variables: Hashable | Sequence[Hashable] = None,
    covariates: Hashable | Sequence[Hashable] = None,
    static: Hashable | Sequence[Hashable] = None,
) -> Intake:
    """Read a table whose columns have roles.

    Parameters
    ----------
    X : pd.DataFrame
    sequence, time : column name
        Which series a row belongs to, and when it was seen; ``unique_id`` and ``ds`` are found by themselves.
    variables, covariates, static : column name or names
        The values to model; known inputs; inputs that stay the same within a sequence.

    Raises
    ------
    DataError
        If a column does not exist, or a column has no role.
    CovariateError
        If a static column varies within a sequence.
    """
    levels = [name for name in X.index.names if name is not None]
    if {sequence, time, "unique_id", "ds"} & set(levels) - {None}:
        X = X.reset_index()
    has = set(X.columns)
    sequence = "unique_id" if sequence is None and "unique_id" in has else sequence
    time = "ds" if time is None and "ds" in has else time
    inputs, fixed = _listed(covariates) or [], _listed(static) or []
    claimed = [column for column in (sequence, time, *inputs, *fixed) if column is not None]
    left: list[Hashable] = [column for column in X.columns if column not in claimed]
    asked = _listed(variables)
    chosen: list[Hashable] = left if asked is None else asked
    if asked is None:
        if "y" in left and time == "ds":
            chosen = ["y"]
        elif sequence is not None and len(left) > 1:
            raise DataError(
                got=f"a long table with the columns {left} beside {claimed}",
                expected="to know which of them are the values",
                remedy="Name them: sequences(X, variables=..., covariates=..., static=...).",
            )
    unknown = [column for column in (*claimed, *chosen) if column not in has]
    if unknown:
        raise DataError(
            got=f"the column name {unknown[0]!r}", expected=f"one of {list(X.columns)}", remedy="Check the spelling."
        )
    extra = [column for column in left if column not in chosen]
    if extra:
        raise DataError(
            got=f"the columns {extra} without a role",
            expected="every column to be named",
            remedy="Drop them, or name them as variables=, covariates= or static=.",
        )
    index = X.index if time is None else pd.Index(X[time])
    if sequence is not None:
        index = pd.MultiIndex.from_arrays([X[sequence], index])
    table = X.set_axis(index, axis=0)
    intake = _read_wide(table.loc[:, chosen], chosen)
    intake.variables = tuple(chosen)
    if time is None and isinstance(X.index, pd.RangeIndex):
        intake.indexes = [None] * len(intake.blocks)
    if len(chosen) == 1:
        intake.flat, intake.name = True, chosen[0]
    if inputs:
        part = _read_wide(table.loc[:, inputs], inputs)
        intake.covariates, intake.covariate_names = part.blocks, tuple(inputs)
    if fixed:
        intake.static, intake.static_names = _constant(table.loc[:, fixed], intake), tuple(fixed)
    return intake


def _constant(table: pd.DataFrame, intake: Intake) -> np.ndarray:
    blocks = _read_wide(table, list(table.columns)).blocks
    for i, block in enumerate(blocks):
        varying = np.flatnonzero((block != block[:1]).any(0) & ~np.isnan(block).all(0))
        if varying.size:
            raise CovariateError(
                got=f"the static column {table.columns[varying[0]]!r}, which varies within {intake.called(i)}",
                expected="one value a sequence",
                remedy="Name it in covariates= instead.",
            )
    return np.stack([block[0] for block in blocks])
