"""Known inputs: read in every form of data and laid beside the steps that they belong to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probseq.data.intake import Intake, check_blocks, read
from probseq.data.numeric import as_array, as_numbers
from probseq.data.timeindex import is_default
from probseq.errors import CovariateError, DataError

__all__ = [
    "ahead",
    "align",
    "align_static",
    "check_complete",
    "covariate_dates",
    "order_by_name",
    "plain_names",
    "read_covariates",
]


def read_covariates(covariates: Any) -> Intake:
    """Read covariates in any form of numeric data.

    Raises
    ------
    CovariateError
        Whatever is wrong with them.
    """
    if covariates is None:
        raise CovariateError(got="None", expected="an array or table of covariates", remedy="Leave covariates out.")
    try:
        intake = read(covariates, "covariates")
        if not intake.tokens:
            check_blocks(intake)
    except CovariateError:
        raise
    except DataError as error:
        raise CovariateError(
            got=f"covariates with {error.got}", expected=error.expected, remedy=error.remedy
        ) from error
    if intake.tokens:
        raise CovariateError(
            got="text as covariates",
            expected="numbers",
            remedy="Encode categories as indicator columns, for example with pandas.get_dummies(..., dtype=float).",
        )
    return intake


def _names(intake: Intake) -> tuple[Hashable, ...]:
    return intake.variables or tuple(f"u{j}" for j in range(intake.blocks[0].shape[1]))


def check_complete(block: np.ndarray, names: Sequence[Hashable], called: str) -> np.ndarray:
    """Return `block`, shape (t, m), or raise a CovariateError that names its first NaN."""
    holes = np.isnan(block)
    if holes.any():
        step, column = (int(i) for i in np.argwhere(holes)[0])
        raise CovariateError(
            got=f"NaN in covariate {names[column]!r} at step {step} of {called}",
            expected="covariates that are known at every step",
            remedy="Fill it in; only the modelled variables may have missing values.",
        )
    return block


def _per_sequence(given: Intake, data: Intake) -> list[tuple[np.ndarray, pd.Index | None]]:
    """Return block and stamps of the covariates of each sequence of `data`."""
    count = len(data.blocks)
    if not given.many or (len(given.blocks) == 1 and count > 1):
        return [(given.blocks[0], given.indexes[0])] * count
    if given.names is not None and data.names is not None:
        at = {name: i for i, name in enumerate(given.names)}
        missing = [name for name in data.names if name not in at]
        if missing:
            raise CovariateError(
                got=f"no covariates for the sequences {missing[:5]}",
                expected="covariates for every sequence",
                remedy="Check the names of the sequences.",
            )
        chosen = [at[name] for name in data.names]
    elif len(given.blocks) == count:
        chosen = list(range(count))
    else:
        raise CovariateError(
            got=f"covariates of {len(given.blocks)} sequences for data of {count}",
            expected="covariates for every sequence, in the same order",
            remedy="Give one block of covariates a sequence.",
        )
    return [(given.blocks[i], given.indexes[i]) for i in chosen]


def _stamped(index: pd.Index | None) -> bool:
    return index is not None and not is_default(index)


def _lookup(block: np.ndarray, stamps: pd.Index, wanted: pd.Index, called: str) -> np.ndarray:
    rows = stamps.get_indexer(wanted)
    if (rows < 0).any():
        gone = wanted[rows < 0]
        raise CovariateError(
            got=f"no covariates at {gone[0]}{f' and {len(gone) - 1} more times' if len(gone) > 1 else ''} of {called}",
            expected="a row of covariates for every time of the data",
            remedy="Extend the covariates to cover the data; rows are matched by their time.",
        )
    return block[rows]


def align(covariates: Any, data: Intake, lengths: Any = None) -> tuple[list[np.ndarray], tuple[Hashable, ...]]:
    """Return the covariates (t_i, m) of every sequence of `data`, and their names.

    Rows are matched by time where both sides carry stamps (further times are allowed), by position otherwise. One table
    serves all sequences where stamps or equal lengths allow it, and is cut by `lengths` as X is.

    Raises
    ------
    CovariateError
        If rows are missing or superfluous, or a value is NaN, infinite or text.
    """
    given = read_covariates(covariates)
    names = _names(given)
    sizes = [len(block) for block in data.blocks]
    if lengths is not None and not given.many and len(given.blocks[0]) == sum(sizes) and len(sizes) > 1:
        cuts = np.cumsum(sizes)[:-1]
        parts = np.split(given.blocks[0], cuts)
        return [check_complete(part, names, data.called(i)) for i, part in enumerate(parts)], names
    out = []
    for i, (block, stamps) in enumerate(_per_sequence(given, data)):
        wanted = data.indexes[i]
        if wanted is not None and stamps is not None and _stamped(wanted) and _stamped(stamps):
            rows = _lookup(block, stamps, wanted, data.called(i))
        elif len(block) == sizes[i]:
            rows = block
        else:
            raise CovariateError(
                got=f"covariates of {len(block)} steps for {data.called(i)} of {sizes[i]} steps",
                expected="one row of covariates for every step",
                remedy="Give both with their time index, or cut the covariates to the data.",
            )
        out.append(check_complete(rows, names, data.called(i)))
    return out, names


def align_static(static: Any, names: tuple[Hashable, ...], named: bool) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Return the static inputs, shape (n, s), in the order of the sequences, and their names.

    A table or mapping is matched by the names of the sequences where both have names.

    Raises
    ------
    CovariateError
        If a sequence has none, or a value is missing, infinite or text.
    """
    n = len(names)
    labels: tuple[Hashable, ...] | None = None
    if isinstance(static, Mapping):
        static = pd.DataFrame.from_dict({key: np.atleast_1d(value) for key, value in static.items()}, orient="index")
        static.columns = [f"s{j}" for j in range(static.shape[1])]
    if isinstance(static, pd.Series):
        one_row = n == 1 and not named and len(static) > 1
        static = static.to_frame().T if one_row else static.to_frame("s0" if static.name is None else static.name)
    if isinstance(static, pd.DataFrame):
        labels = tuple(str(c) if isinstance(c, str) else c for c in static.columns)
        gone = [name for name in names if name not in static.index]
        if named and not gone:
            static = static.loc[list(names)]
        elif named and not is_default(static.index):
            raise CovariateError(
                got=f"no static inputs for the sequences {gone[:5]}",
                expected="a row for every sequence",
                remedy="The rows of the table must be named after the sequences.",
            )
    try:
        values = as_numbers(as_array(static.to_numpy() if labels is not None else static), "static").copy()
    except CovariateError:
        raise
    except DataError as error:
        raise CovariateError(
            got=f"static inputs with {error.got}", expected=error.expected, remedy=error.remedy
        ) from error
    if values.ndim == 1:
        values = values.reshape(1, -1) if n == 1 else values.reshape(-1, 1)
    if values.ndim != 2 or len(values) != n:
        raise CovariateError(
            got=f"static inputs of shape {values.shape} for {n} sequences",
            expected=f"shape ({n}, number of inputs)",
            remedy="Give one row a sequence; inputs that vary in time belong into covariates=.",
        )
    labels = labels or tuple(f"s{j}" for j in range(values.shape[1]))
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise CovariateError(
            got=f"{values[row, column]} in static input {labels[column]!r} of sequence {names[row]!r}",
            expected="finite numbers",
            remedy="Fill it in.",
        )
    return values, labels


def covariate_dates(covariates: Any, data: Intake, which: Sequence[int], horizon: int) -> dict[int, pd.Index]:
    """Return the first `horizon` stamps of the covariates after the end of each sequence in `which`, where they reach.

    Covariates without stamps, or with stamps of another kind than the data, date nothing.
    """
    given = _per_sequence(read_covariates(covariates), data)
    out: dict[int, pd.Index] = {}
    for i in which:
        stamps, known = given[i][1], data.indexes[i]
        if stamps is None or known is None or not _stamped(stamps) or stamps.dtype.kind != known.dtype.kind:
            continue
        try:
            later = stamps[stamps > known[-1]][:horizon]
        except TypeError:
            continue
        if len(later) == horizon:
            out[i] = later
    return out


def ahead(
    covariates: Any, data: Intake, wanted: Sequence[pd.Index], names: tuple[Hashable, ...], horizon: int
) -> np.ndarray:
    """Return the future covariates, shape (n, horizon, m), with columns in the order of `names`.

    Rows are matched by the `wanted` times where the covariates carry stamps of that kind, by position otherwise.

    Raises
    ------
    CovariateError
        If covariates are missing by name, time or number.
    """
    given = read_covariates(covariates)
    columns = order_by_name(given.variables, given.blocks[0].shape[1], names)
    out = np.empty((len(data.blocks), horizon, len(names)))
    for i, (block, stamps) in enumerate(_per_sequence(given, data)):
        if stamps is not None and _stamped(stamps) and stamps.dtype.kind == wanted[i].dtype.kind:
            rows = _lookup(block, stamps, wanted[i], f"the forecast of {data.called(i)}")
        elif len(block) == horizon:
            rows = block
        else:
            raise CovariateError(
                got=f"covariates of {len(block)} steps for a forecast of {horizon} steps ({data.called(i)})",
                expected=f"{horizon} rows, or rows with the times of the forecast",
                remedy=f"Give the future values of {', '.join(map(str, names))}.",
            )
        out[i] = check_complete(rows[:, columns], names, data.called(i))
    return out


def order_by_name(given: tuple[Hashable, ...] | None, width: int, names: tuple[Hashable, ...]) -> list[int]:
    """Return the columns of the given inputs in the order of `names`; inputs without names go by position.

    Parameters
    ----------
    given : tuple or None
        Their names; None, or the names u0, u1, ... and s0, s1, ... that inputs get here, where they came without.
    width : int
        How many they are.
    names : tuple
        Those of the fit.
    """
    unnamed = given is None or _is_counted(given)
    if given is not None and width == len(names) and set(given) == set(names):
        return [given.index(name) for name in names]
    if given is not None and len(set(plain_names(given))) == width and set(plain_names(given)) == {*plain_names(names)}:
        return [plain_names(given).index(name) for name in plain_names(names)]
    if width == len(names) and (unnamed or _is_counted(names)):
        numbered = given is not None and set(given) == set(range(width))
        return [given.index(j) for j in range(width)] if given is not None and numbered else list(range(width))
    missing = [name for name in names if not unnamed and name not in (given or ())]
    extra = [name for name in given or () if not unnamed and name not in names]
    raise CovariateError(
        got=f"{width} covariates" + (f" {list(given)}" if given and not unnamed else ""),
        expected=f"the {len(names)} covariates {list(names)}",
        remedy=" ".join(
            [*([f"Missing: {missing}."] if missing else []), *([f"Not known to the model: {extra}."] if extra else [])]
        )
        or "Give the covariates that the model was fitted with, in the same order (a history and static inputs "
        "through ps.sequences(X, covariates=..., static=...)).",
    )


def plain_names(names: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """Return names as a file keeps them: numbers and text; what is neither is compared by its text."""
    plain = (name.item() if isinstance(name, np.generic) else name for name in names)
    return tuple(name if isinstance(name, (bool, int, float, str)) else str(name) for name in plain)


def _is_counted(names: tuple[Hashable, ...]) -> bool:
    """Whether the names are those of inputs that came without any."""
    varying = [f"u{j}" for j in range(len(names))]
    n_varying = sum(name in varying for name in names)
    return list(names) == [*varying[:n_varying], *(f"s{j}" for j in range(len(names) - n_varying))]
