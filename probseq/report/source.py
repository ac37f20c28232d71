"""One numeric series from a CSV file or from the example data."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data import datasets
from probseq.data.grid import on_grid
from probseq.data.timeindex import check_index, infer_step
from probseq.errors import DataError, EmptyDataError, ParameterError

__all__ = ["Source", "read_source", "trimmed"]

_TIME_NAMES = ("time", "date", "datetime", "timestamp", "ds", "period", "month", "week", "day", "quarter", "year")
_GROUPED = r"[+-]?\d{1,3}(,\d{3})*(\.\d+)?"
_SUFFIXES = (".csv", ".tsv", ".txt", ".gz")


@dataclass(frozen=True)
class Source:
    """A series and what is known about it.

    Parameters
    ----------
    series : DataArray (time,)
    title : str
    origin : str
        Where it came from, in words.
    notes : tuple of str
        What was done while reading.
    code : str
        Python lines after ``import probseq as ps`` that read the series as ``y``.
    """

    series: xr.DataArray
    title: str
    origin: str
    notes: tuple[str, ...] = field(default=())
    code: str = "\ny = ...  # the series of this report"

    @property
    def unit(self) -> str:
        return str(self.series.attrs.get("units", ""))

    @property
    def freq(self) -> Any:
        """The step of the time index: a pandas frequency, a number, or None where it is irregular."""
        return infer_step(self.series.indexes["time"])


def read_source(data: str, column: str | None = None, time: str | None = None) -> Source:
    """Read a CSV file or an example data set.

    Parameters
    ----------
    data : str
        Path of a CSV file, or a name that ``ps.datasets.load`` knows.
    column : str or None
        Which column (variable) to model; needed where there are several.
    time : str or None
        Column of the time stamps; None takes it from its name or its content where that is obvious.

    Raises
    ------
    ParameterError
        For a name that is neither a file nor a data set, or a column that is not there.
    DataError
        For a file that holds no series of numbers.
    """
    path = Path(data)
    if data in datasets.names():
        return _dataset(data, column, time)
    if path.is_file():
        return _file(path, column, time)
    if path.suffix.lower() in _SUFFIXES or "/" in data:
        raise ParameterError(got=f"the file {data!r}", expected="a CSV file that exists", remedy="Check the path.")
    raise ParameterError(
        got=f"{data!r}, which is neither a file nor an example data set",
        expected=f"a CSV file or one of {', '.join(datasets.names())}",
        remedy=_did_you_mean(data, datasets.names()),
    )


def _dataset(name: str, column: str | None, time: str | None) -> Source:
    found = datasets.load(name)
    if not isinstance(found, xr.DataArray):
        raise DataError(
            got=f"the data set {name!r}, a list of sequences",
            expected="one series of numbers",
            remedy="Lists of sequences are for the Python interface; see probseq datasets.",
        )
    if time is not None:
        raise ParameterError(got=f"--time {time}", expected="no time column for an example data set")
    code = f"\ny = ps.datasets.load({name!r})"
    if "variable" in found.dims:
        names = [str(v) for v in found["variable"].values]
        wanted = _choose(column, names, f"the data set {name!r}")
        found = found.isel(variable=names.index(wanted), drop=True).rename(wanted)
        code += f".sel(variable={wanted!r}, drop=True).rename({wanted!r})"
    elif column is not None:
        _choose(column, [str(found.name)], f"the data set {name!r}")
    title = str(found.attrs.get("long_name", name))
    origin = f"example data set {name}; source: {found.attrs.get('source', 'unknown')}"
    return trimmed(Source(found.astype(float), title[:1].upper() + title[1:], origin, code=code))


def _file(path: Path, column: str | None, time: str | None) -> Source:
    table = _table(path)
    stamps, index, notes = _time(table, time, path.name)
    candidates = [name for name in table.columns if name != stamps]
    separator = table.attrs.get("separator", ",")
    numbers = {name: values for name in candidates if (values := _numbers(table[name], separator)) is not None}
    wanted = _choose(column, list(numbers), path.name, list(table.columns))
    series = pd.Series(numbers[wanted].to_numpy(), index=index, name=wanted)
    if index is not None:
        if not index.is_monotonic_increasing:
            series = series.sort_index()
            notes.append("Rows were sorted by time.")
        if series.index.has_duplicates:
            raise DataError(
                got=f"several rows for the time {series.index[series.index.duplicated()][0]} in {path.name}",
                expected="one row a time",
                remedy="Keep one series in the file, or add its rows up; ps.compare takes many series.",
            )
        series.index.name = None
        check_index(series.index, path.name)
        series, note = _gridded(series)
        notes += [note] if note else []
    times = np.arange(len(series)) if index is None else _naive(series.index)
    if index is None:
        notes.append("No column of times was found, so rows are counted.")
    array = xr.DataArray(series.to_numpy(), dims="time", coords={"time": times}, name=wanted)
    options = "".join(f", {key}={value!r}" for key, value in (("column", column), ("time", time)) if value is not None)
    code = f"from probseq.report import read_source\n\ny = read_source({str(path)!r}{options}).series"
    return trimmed(Source(array, f"{wanted} of {path.name}", f"file {path.name}", tuple(notes), code))


def _naive(index: pd.Index) -> Any:
    """xarray stores dates without a time zone: local clock times are kept."""
    return index.tz_localize(None) if isinstance(index, pd.DatetimeIndex) else index


def _table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".gz":
            return _stripped(pd.read_csv(path))
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            head = stream.read(65536)
        try:
            separator = csv.Sniffer().sniff(head, delimiters=",;\t|").delimiter
        except csv.Error:
            separator = ","
        table = pd.read_csv(path, sep=separator, encoding="utf-8-sig", skipinitialspace=True)
        table.attrs["separator"] = separator
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            got=f"{path.name}, which cannot be read as a table ({reason})",
            expected="a CSV file with one header line",
            remedy="Check the file.",
        ) from error
    return _stripped(table)


def _stripped(table: pd.DataFrame) -> pd.DataFrame:
    table.columns = [str(name).strip() for name in table.columns]
    if not len(table):
        raise EmptyDataError(got="a table without rows", expected="at least one row", remedy="Check the file.")
    return table


def _numbers(values: pd.Series, separator: str = ",") -> pd.Series | None:
    """The column as float64, or None if it holds something else.

    A comma inside a number is the decimal point where columns are not separated by commas, else it groups thousands.
    """
    if pd.api.types.is_bool_dtype(values):
        return None
    if not pd.api.types.is_numeric_dtype(values):
        text = values.astype("string").str.strip()
        plain = pd.to_numeric(text, errors="coerce")
        if bool((plain.isna() & text.notna()).any()):
            if separator != ",":
                text = text.str.replace(",", ".", regex=False)
            elif bool(text.dropna().str.fullmatch(_GROUPED).all()):
                text = text.str.replace(",", "", regex=False)
            plain = pd.to_numeric(text, errors="coerce")
        if bool((plain.isna() & text.notna() & (text != "")).any()):
            return None
        values = plain
    return None if values.isna().all() else values.astype(float)


def _time(table: pd.DataFrame, wanted: str | None, where: str) -> tuple[str | None, pd.Index | None, list[str]]:
    names = list(table.columns)
    if wanted is not None:
        index = _stamps(table[_choose(wanted, names, where)])
        if index is None:
            raise DataError(
                got=f"the time column {wanted!r} of {where}, first value {table[wanted].iloc[0]!r}",
                expected="dates or increasing numbers",
                remedy="Write dates as 2024-01-31.",
            )
        return wanted, index, []
    named = [name for name in names if name.lower() in _TIME_NAMES]
    textual = [name for name in names if name not in named and not pd.api.types.is_numeric_dtype(table[name])]
    for name in named + textual:
        if name in textual and _numbers(table[name]) is not None:
            continue
        index = _stamps(table[name])
        repeated = index is not None and not index.is_unique and pd.api.types.is_numeric_dtype(index)
        if index is not None and not repeated:
            return name, index, [] if len(named) < 2 else [f"Times were taken from the column {name!r}."]
    first = table[names[0]]
    if len(names) == 2 and pd.api.types.is_integer_dtype(first) and (np.diff(first) == np.diff(first)[:1]).all():
        return names[0], pd.Index(first, name=None), []
    return None, None, []


def _stamps(values: pd.Series) -> pd.Index | None:
    if values.isna().any():
        return None
    if pd.api.types.is_numeric_dtype(values):
        whole = bool((values == values.round()).all())
        if whole and values.between(17000101, 21001231).all():
            days = pd.to_datetime(values.astype("int64").astype(str), format="%Y%m%d", errors="coerce")
            if not days.isna().any():
                return pd.DatetimeIndex(days)
        return pd.Index(values.astype("int64" if whole else "float64").to_numpy())
    text = values.astype("string").str.strip()
    zoned = bool(text.str.contains(r"[+-]\d\d:\d\d$|Z$").any())
    for options in ({}, {"format": "ISO8601"}, {"dayfirst": True, "format": "mixed"}):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that the format is guessed value by value
                found = pd.to_datetime(text, utc=zoned, **options)
        except (ValueError, TypeError, OverflowError):
            continue
        return pd.DatetimeIndex(found)
    return None


def _gridded(series: pd.Series) -> tuple[pd.Series, str]:
    """Fill a regular calendar in where rows are left out."""
    index = series.index
    if not isinstance(index, pd.DatetimeIndex) or len(index) < 6 or pd.infer_freq(index) is not None:
        return series, ""
    for start in range(len(index) - 4):
        freq = pd.infer_freq(index[start : start + 5])
        if freq is not None:
            break
    else:
        return series, ""
    if freq == "D" and len(index) >= 14 and (index.dayofweek < 5).all():
        freq = "B"  # two weeks without a weekend: the calendar of offices and exchanges
    try:
        full = on_grid(series, freq)
    except DataError:
        return series, ""
    added = len(full) - len(series)
    if added < 0 or added > len(series) or not series.index.isin(full.index).all():
        return series, ""
    return full, f"{added} steps without a row (step {freq}) are taken as missing values."


def _choose(wanted: str | None, names: list[str], where: str, everything: list[str] | None = None) -> str:
    """The column asked for, or the only one there is."""
    listed = ", ".join(names)
    if wanted is None:
        if len(names) == 1:
            return names[0]
        if not names:
            raise DataError(
                got=f"{where} with the columns {', '.join(everything or [])}",
                expected="at least one column of numbers",
                remedy="Check the separator and the decimals.",
            )
        raise ParameterError(
            got=f"{where} with several columns of numbers",
            expected=f"--column with one of {listed}",
            remedy=f"For example: --column {names[-1]}",
        )
    if wanted in names:
        return wanted
    if everything and wanted in everything:
        raise DataError(
            got=f"the column {wanted!r} of {where}, which does not hold numbers",
            expected=f"one of {listed}" if names else "a column of numbers",
        )
    raise ParameterError(
        got=f"the column {wanted!r}, which is not in {where}",
        expected=f"one of {', '.join(everything or names)}",
        remedy=_did_you_mean(wanted, everything or names),
    )


def _did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"Did you mean {close[0]!r}?" if close else ""


def trimmed(source: Source) -> Source:
    """Without missing values at both ends, which say nothing."""
    seen = np.flatnonzero(~np.isnan(source.series.values))
    if not len(seen):
        raise EmptyDataError(got=f"{source.title} without a value", expected="at least one number")
    if np.isinf(source.series.values).any():
        raise DataError(got=f"an infinite value in {source.title}", expected="finite numbers")
    return replace(source, series=source.series.isel(time=slice(int(seen[0]), int(seen[-1]) + 1)))
