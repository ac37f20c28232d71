"""Time indexes: checks, steps, and continuation into the future."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from probseq.errors import DataError, HistoryError, IndexWarning

__all__ = [
    "Freq",
    "check_freq",
    "check_index",
    "extend",
    "infer_step",
    "is_contiguous",
    "is_default",
    "is_extendable",
    "steps_between",
    "warn_counted",
]

Freq = str | int | float | None
_CLOCKS = (pd.DatetimeIndex, pd.TimedeltaIndex)
# Relative spacing error allowed in an index of floats such as 0.1, 0.2, 0.3.
_FLOAT_STEP_TOLERANCE = 1e-6


def is_numeric(index: pd.Index) -> bool:
    """Whether the stamps are plain numbers."""
    return index.dtype.kind in "iuf"


def is_default(index: pd.Index) -> bool:
    """Whether `index` only counts steps from 0, which is what comes with data that have no stamps."""
    if isinstance(index, pd.RangeIndex):
        return index.start == 0 and (index.step == 1 or len(index) <= 1)
    if len(index) == 0 or index.dtype.kind not in "iu":
        return False
    return bool(index[0] == 0 and (np.asarray(index) == np.arange(len(index))).all())


def check_index(index: pd.Index, where: str) -> pd.Index:
    """Return `index` if it can be the time of a sequence.

    Raises
    ------
    DataError
        If a stamp is missing, appears twice or goes back in time.
    """
    if isinstance(index, pd.RangeIndex) and index.step > 0:
        return index
    if isinstance(index, pd.MultiIndex):
        raise DataError(
            got=f"a time index of {index.nlevels} levels in {where}",
            expected="one stamp a step",
            remedy="Use a MultiIndex (series, time), or reset the other levels.",
        )
    if index.hasnans:
        raise DataError(
            got=f"a missing time stamp at step {int(np.flatnonzero(index.isna())[0])} of {where}",
            expected="a stamp for every step",
            remedy="Drop the row or fill in its time.",
        )
    if not index.is_unique:
        step = int(np.flatnonzero(index.duplicated())[0])
        raise DataError(
            got=f"the duplicated time stamp {index[step]} at step {step} of {where}",
            expected="every time once in a sequence",
            remedy="Aggregate the repeated rows, or name the column that tells the sequences apart with sequence=.",
        )
    ordered = is_numeric(index) or isinstance(index, (*_CLOCKS, pd.PeriodIndex))
    if ordered and not index.is_monotonic_increasing:
        step = next(i for i in range(1, len(index)) if index[i] < index[i - 1])
        raise DataError(
            got=f"an unsorted time index in {where}: {index[step - 1]} is followed by {index[step]}",
            expected="times in increasing order",
            remedy="Sort first, for example with sort_index().",
        )
    return index


def check_freq(freq: Any) -> Freq:
    """Return `freq` as a pandas frequency string, a number (the step of a numeric index) or None.

    Raises
    ------
    DataError
        If pandas does not know the frequency, or a numeric step is not positive.
    """
    if freq is None:
        return None
    if isinstance(freq, (int, float, np.integer, np.floating)) and not isinstance(freq, bool):
        if freq > 0:
            return int(freq) if float(freq).is_integer() else float(freq)
    else:
        for parse in (pd.tseries.frequencies.to_offset, _period_offset):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    return str(parse(freq).freqstr)
            except (ValueError, TypeError, AttributeError):
                continue
    raise DataError(
        got=f"freq={freq!r}",
        expected="a pandas frequency such as 'D', 'MS' or 'W-FRI', or a positive step of a numeric index",
        remedy="See the table of offset aliases in the pandas documentation.",
    )


def _period_offset(freq: Any) -> Any:
    """Return the offset of a frequency of periods: ``"M"`` is the month whose stamp is ``"ME"``."""
    return pd.period_range("2000-01-01", periods=1, freq=freq).freq


def infer_step(index: pd.Index) -> Freq:
    """Return the step of a regular `index`: a pandas frequency, a number, or None when it is irregular or too short."""
    if isinstance(index, pd.RangeIndex):
        return int(index.step)
    if isinstance(index, pd.PeriodIndex):
        return str(index.freqstr)
    if isinstance(index, _CLOCKS):
        if index.freq is not None:
            return str(index.freqstr)
        if len(index) < 3:
            return None
        return pd.infer_freq(index)
    if not is_numeric(index) or len(index) < 2:
        return 1 if len(index) == 1 and index.dtype.kind in "iu" else None
    gaps = np.diff(np.asarray(index))
    if index.dtype.kind in "iu":
        return int(gaps[0]) if (gaps == gaps[0]).all() else None
    return float(np.mean(gaps)) if np.allclose(gaps, gaps[0], rtol=_FLOAT_STEP_TOLERANCE, atol=0.0) else None


def is_contiguous(index: pd.Index) -> bool:
    """Whether `index` has one stamp for every step between its first and its last."""
    if isinstance(index, pd.PeriodIndex):
        return bool((np.diff(index.asi8) == 1).all())
    return len(index) == 1 or infer_step(index) is not None


def _clock_range(index: pd.DatetimeIndex | pd.TimedeltaIndex, freq: str, periods: int) -> pd.Index:
    last = index[-1]
    return _clock_after(last, getattr(last, "tz", None), index.unit, freq, periods)


@lru_cache(maxsize=1024)
def _clock_after(last: Any, zone: Any, unit: str, freq: str, periods: int) -> pd.Index:
    """Stamps after ``last``, kept: many series end together, and offsets of the calendar are walked one by one.

    Equal instants of different time zones are equal as keys, so that the zone is one too.
    """
    make = pd.date_range if isinstance(last, pd.Timestamp) else pd.timedelta_range
    ahead = make(start=last, periods=periods + 1, freq=freq)
    return ahead[ahead > last][:periods].as_unit(unit)


def is_extendable(index: pd.Index, freq: Freq) -> bool:
    """Whether `extend` can continue `index` by the step `freq` rather than count."""
    if isinstance(index, pd.PeriodIndex):
        return True
    if isinstance(index, _CLOCKS):
        return isinstance(freq, str)
    return is_numeric(index) and isinstance(freq, (int, float))


def extend(index: pd.Index, horizon: int, freq: Freq, n_steps: int | None = None) -> pd.Index:
    """Return the next `horizon` stamps after `index`; one that is not extendable has its steps counted.

    Parameters
    ----------
    index : pd.Index
    horizon : int
    freq : str, number or None
        The step. None, or a step of the wrong kind for this index, means that it is not known.
    n_steps : int, optional
        How many steps there were, where `index` has only the last of them.
    """
    if isinstance(index, pd.PeriodIndex):
        return pd.period_range(start=index[-1] + 1, periods=horizon, freq=index.freq)
    if isinstance(index, _CLOCKS) and isinstance(freq, str):
        return _clock_range(index, freq, horizon)
    if is_numeric(index) and isinstance(freq, (int, float)):
        last = index[-1].item() if isinstance(index[-1], np.generic) else index[-1]
        if isinstance(last, int) and isinstance(freq, int):
            return pd.RangeIndex(last + freq, last + freq * (horizon + 1), freq)
        return pd.Index(last + freq * np.arange(1, horizon + 1))
    n_steps = len(index) if n_steps is None else n_steps
    return pd.RangeIndex(n_steps, n_steps + horizon)


def warn_counted(names: Sequence[Hashable]) -> None:
    """Warn once that the steps after these sequences are counted; no names mean the only sequence."""
    shown = ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    warnings.warn(
        f"The frequency of the time index{f' of sequence {shown}' if names else ''} is not known (irregular stamps, "
        "fewer than three, dates that are text, or no times at all), so the forecast counts steps. Pass freq=, put the "
        "data on a grid with on_grid(X, freq), turn text into dates with pd.to_datetime, or give future covariates "
        "that carry their dates.",
        IndexWarning,
        stacklevel=3,
    )


def steps_between(last: pd.Index, first: pd.Index, freq: Freq, who: str) -> int:
    """Return how many steps lead from the end of `last` to the start of `first`: 1 if it follows directly.

    Data without stamps follow directly, and so do irregular stamps that are later.

    Raises
    ------
    HistoryError
        If `first` starts before `last` has ended, lies off the grid, or has stamps of another kind.
    """
    if is_default(first):
        return 1
    if is_default(last) and not is_numeric(first):
        return 1
    a, b = last[-1], first[0]
    try:
        overlap = not a < b
    except TypeError:
        raise HistoryError(
            got=f"a history that ends at {a!r} and data that start at {b!r} ({who})",
            expected="time indexes of the same kind and time zone",
            remedy="Convert one of them, or drop the index of X to continue right after the history.",
        ) from None
    if overlap:
        raise HistoryError(
            got=f"data that start at {b} although the history ends at {a} ({who}): they overlap",
            expected="data that begin after the history has ended",
            remedy="Cut the history, or pass history=None to start anew.",
        )
    count = _count_steps(a, b, last, freq)
    if count is None:
        raise HistoryError(
            got=f"data that start at {b} after a history that ends at {a} ({who})",
            expected=f"a start on the grid of the history, whose step is {freq}",
            remedy="Put both on one grid with on_grid(X, freq).",
        )
    return count


def _count_steps(a: Any, b: Any, index: pd.Index, freq: Freq) -> int | None:
    if isinstance(index, pd.PeriodIndex):
        return int(b.ordinal - a.ordinal)
    if isinstance(index, _CLOCKS) and isinstance(freq, str):
        make = pd.date_range if isinstance(index, pd.DatetimeIndex) else pd.timedelta_range
        grid = make(start=a, end=b, freq=freq)
        return len(grid) - 1 if len(grid) > 1 and grid[0] == a and grid[-1] == b else None
    if is_numeric(index) and isinstance(freq, (int, float)):
        steps = float(b - a) / freq
        near = round(steps)
        return int(near) if near >= 1 and abs(steps - near) < 1e-6 * max(1.0, near) else None
    return 1
