"""Calendar features of time stamps as known inputs, for the past and the future alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.holiday import AbstractHolidayCalendar

from probseq.data import timeindex
from probseq.data.sequences import sequences
from probseq.errors import DataError, HorizonError, ParameterError

__all__ = ["calendar"]

_Clock = pd.DatetimeIndex


def _isoweek(clock: _Clock) -> np.ndarray:
    return clock.isocalendar()["week"].to_numpy(dtype=float)


# Each part: its number, counted from 0, of every stamp, and the length of its cycle where that is the same for all.
_PARTS: dict[str, tuple[Callable[[_Clock], Any], int]] = {
    "quarter": (lambda clock: clock.quarter - 1, 4),
    "month": (lambda clock: clock.month - 1, 12),
    "week": (lambda clock: _isoweek(clock) - 1, 53),
    "dayofyear": (lambda clock: clock.dayofyear - 1, 366),
    "day": (lambda clock: clock.day - 1, 31),
    "weekday": (lambda clock: clock.weekday, 7),
    "hour": (lambda clock: clock.hour, 24),
    "minute": (lambda clock: clock.minute, 60),
}
# Cycles whose length is not whole, or not always the same.
_CYCLES: dict[str, Callable[[_Clock], Any]] = {
    "week": lambda clock: 365.2425 / 7,
    "dayofyear": lambda clock: 365 + clock.is_leap_year,
    "day": lambda clock: clock.days_in_month,
}
_FLAGS: dict[str, Callable[[_Clock], Any]] = {"weekend": lambda clock: clock.weekday >= 5}


def calendar(
    X: Any,
    parts: str | Sequence[str],
    *,
    encoding: str = "cyclic",
    horizon: int = 0,
    holidays: Any = None,
    freq: Any = None,
) -> pd.DataFrame:
    """What the calendar says of the times of a series, and of the ``horizon`` steps after it.

    The result is a table of covariates whose rows are matched by time: one table serves the fit and the forecast, and
    any number of series.

    Parameters
    ----------
    X : time index, or data in any form that has dates
    parts : str or list of str
        Of "quarter", "month", "week" (ISO), "dayofyear", "day" (of the month), "weekday" (Monday first), "hour",
        "minute", and "weekend", which is 0 or 1.
    encoding : {"cyclic", "onehot", "ordinal"}
        ``cyclic`` gives sine and cosine of the way through the cycle, two columns a part, so that December is next to
        January; ``onehot`` one column for each category but the first, which all zeros stand for, so that a
        constant beside them stays determined; ``ordinal`` one number from -1/2 to 1/2.
    horizon : int
        How many steps after the last of each series.
    holidays : dates, mapping from names to dates, or pandas holiday calendar
        One more column "holiday", or one for each name, which is 1 on these days; for periods longer than a day, where
        they hold one of these days.
    freq : str or None
        The frequency of the future steps, where the index does not tell.

    Returns
    -------
    DataFrame of numbers with the times as its index.

    Raises
    ------
    DataError
        For data without dates, or a future whose frequency is not known.
    ParameterError
        For an unknown part or encoding.
    HorizonError
        For a horizon that is no whole number from 0.

    Examples
    --------
    >>> import pandas as pd, probseq as ps
    >>> months = pd.period_range("2024-11", periods=2, freq="M")
    >>> ps.calendar(months, "month", horizon=1).round(2).to_numpy().tolist()  # sine and cosine
    [[-0.87, 0.5], [-0.5, 0.87], [0.0, 1.0]]
    >>> ps.calendar(months, "quarter", encoding="onehot").columns.tolist()
    ['quarter_2', 'quarter_3', 'quarter_4']
    """
    chosen = [parts] if isinstance(parts, str) else list(parts)
    for part in chosen:
        if part not in _PARTS and part not in _FLAGS:
            raise ParameterError(
                got=f"part={part!r}", expected=f"one of {[*_PARTS, *_FLAGS]}", remedy="See holidays= for holidays."
            )
    if encoding not in ("cyclic", "onehot", "ordinal"):
        raise ParameterError(got=f"encoding={encoding!r}", expected='"cyclic", "onehot" or "ordinal"')
    index = _times(X, horizon, freq)
    clock = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    columns: dict[str, Any] = {}
    for part in chosen:
        if part in _FLAGS:
            columns[part] = _FLAGS[part](clock)
            continue
        read, size = _PARTS[part]
        number = np.asarray(read(clock), dtype=float)
        if encoding == "onehot":
            columns |= {f"{part}_{category + 1}": number == category for category in range(1, size)}
        elif encoding == "ordinal":
            columns[part] = number / (size - 1) - 0.5
        else:
            angle = 2 * np.pi * number / np.asarray(_CYCLES.get(part, lambda _, size=size: size)(clock), dtype=float)
            columns |= {f"{part}_sin": np.sin(angle), f"{part}_cos": np.cos(angle)}
    if holidays is not None:
        columns |= _holidays(holidays, index)
    if not columns:
        raise ParameterError(got="no part of the calendar", expected="a part, or holidays=", remedy='Try "month".')
    return pd.DataFrame({name: np.asarray(column, dtype=float) for name, column in columns.items()}, index=index)


def _times(X: Any, horizon: Any, freq: Any) -> pd.DatetimeIndex | pd.PeriodIndex:
    """All times of the data and the steps after them, in order."""
    if not isinstance(horizon, int | np.integer) or isinstance(horizon, bool) or horizon < 0:
        raise HorizonError(got=f"horizon={horizon!r}", expected="a whole number from 0", remedy="Try horizon=12.")
    if isinstance(X, pd.Index) and not isinstance(X, pd.MultiIndex):
        each: tuple[pd.Index, ...] = (X,)
        steps: tuple[Any, ...] = (timeindex.infer_step(X) if _dated(X) else None,)
    else:
        data = sequences(X)
        each, steps = data.index, data.freq
    if not all(_dated(index) for index in each):
        raise DataError(
            got="times that are no dates",
            expected="a DatetimeIndex or PeriodIndex",
            remedy="Attach the dates, for example pandas.Series(values, index=dates).",
        )
    if horizon:
        asked = timeindex.check_freq(freq)
        steps = steps if asked is None else (asked,) * len(each)
        if not all(timeindex.is_extendable(index, step) for index, step in zip(each, steps, strict=True)):
            raise DataError(
                got="dates whose frequency is not known",
                expected="regular dates, or freq=",
                remedy='Pass freq="MS" or so, or put the data on a grid with on_grid(X, freq).',
            )
        ahead = [timeindex.extend(index, int(horizon), step) for index, step in zip(each, steps, strict=True)]
        each = (*each, *ahead)
    try:
        return reduce(_joined, _different(each))  # type: ignore[return-value]
    except (TypeError, ValueError) as error:
        raise DataError(
            got="dates of several kinds or time zones", expected="dates of one kind", remedy="Convert them."
        ) from error


def _different(each: Sequence[pd.Index]) -> list[pd.Index]:
    """Those that are not the one before them: panels have the same times many times."""
    return [index for i, index in enumerate(each) if not i or not (index is each[i - 1] or index.equals(each[i - 1]))]


def _joined(a: pd.Index, b: pd.Index) -> pd.Index:
    joined = a.union(b)
    if not _dated(joined):
        raise TypeError(joined.dtype)
    return joined


def _dated(index: pd.Index) -> bool:
    return isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) and len(index) > 0


def _holidays(holidays: Any, index: pd.DatetimeIndex | pd.PeriodIndex) -> dict[str, np.ndarray]:
    """1 where a holiday falls, by the name of the column."""
    clocks = (index.start_time, index.end_time) if isinstance(index, pd.PeriodIndex) else (index, index)
    start, end = (_days(clock) for clock in clocks)
    if isinstance(holidays, AbstractHolidayCalendar):
        holidays = holidays.holidays(start.min(), end.max())
    named = holidays if isinstance(holidays, Mapping) else {"holiday": holidays}
    columns = {}
    for name, given in named.items():
        try:
            days = _days(pd.DatetimeIndex(pd.to_datetime(np.atleast_1d(np.asarray(given, dtype=object))))).unique()
        except (TypeError, ValueError) as error:
            raise ParameterError(
                got=f"holidays={given!r}", expected="dates", remedy='Write them as "2024-12-25".'
            ) from error
        days = days.sort_values()
        columns[str(name)] = days.searchsorted(end, "right") > days.searchsorted(start, "left")
    return columns


def _days(clock: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return clock.tz_localize(None).normalize()
