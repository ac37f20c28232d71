"""Indexes are kept and go on into the future."""

import warnings

import numpy as np
import pandas as pd
import pytest

from probseq.data.sequences import sequences
from probseq.data.timeindex import check_freq, infer_step, is_default, steps_between
from probseq.errors import HistoryError, HorizonError, IndexWarning

DATES = {
    "month starts": ("MS", "2024-11-01", ["2025-05-01", "2025-06-01"]),
    "month ends": ("ME", "2023-08-31", ["2024-02-29", "2024-03-31"]),
    "weeks to Friday": ("W-FRI", "2024-01-05", ["2024-02-16", "2024-02-23"]),
    "quarters": ("QS", "2024-01-01", ["2025-07-01", "2025-10-01"]),
    "years": ("YE", "2001-12-31", ["2007-12-31", "2008-12-31"]),
    "days": ("D", "2024-02-24", ["2024-03-01", "2024-03-02"]),
    "business days": ("B", "2024-01-05", ["2024-01-15", "2024-01-16"]),
    "hours": ("h", "2024-01-01 22:00", ["2024-01-02 04:00", "2024-01-02 05:00"]),
    "two months": ("2MS", "2024-01-01", ["2025-01-01", "2025-03-01"]),
    "quarter hours": ("15min", "2024-01-01", ["2024-01-01 01:30", "2024-01-01 01:45"]),
}


@pytest.mark.parametrize("case", DATES)
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_dates_go_on_by_their_frequency(case, zone):
    freq, start, ahead = DATES[case]
    stamps = pd.DatetimeIndex(list(pd.date_range(start, periods=6, freq=freq, tz=zone)))
    data = sequences(pd.Series(np.arange(6.0), stamps))
    (future,) = data.future_index(2)
    assert list(future) == [pd.Timestamp(stamp, tz=zone) for stamp in ahead]
    assert future.dtype == stamps.dtype
    assert data.regular


def test_daylight_saving_keeps_local_midnight():
    stamps = pd.date_range("2024-03-27", periods=4, freq="D", tz="Europe/Berlin")
    (future,) = sequences(pd.Series(np.arange(4.0), stamps)).future_index(3)
    assert [str(stamp) for stamp in future][1:] == ["2024-04-01 00:00:00+02:00", "2024-04-02 00:00:00+02:00"]


@pytest.mark.parametrize(
    ("stamps", "ahead"),
    [
        (pd.period_range("2024-11", periods=2, freq="M"), list(pd.period_range("2025-01", periods=2, freq="M"))),
        (pd.PeriodIndex(["2024Q1"], freq="Q"), list(pd.period_range("2024Q2", periods=2, freq="Q"))),
        (pd.Index([1900, 1901, 1902]), [1903, 1904]),
        (pd.Index([10, 20]), [30, 40]),
        (pd.Index([7]), [8, 9]),
        (pd.RangeIndex(0, 6, 2), [6, 8]),
        (pd.timedelta_range("0h", periods=3, freq="30min"), [pd.Timedelta("90min"), pd.Timedelta("120min")]),
    ],
    ids=["periods", "one period", "years", "two numbers", "one number", "range", "durations"],
)
def test_other_indexes_go_on(stamps, ahead):
    data = sequences(pd.Series(np.arange(float(len(stamps))), stamps))
    assert list(data.future_index(2)[0]) == ahead
    assert data.index[0].equals(stamps)


def test_fractions_go_on():
    (future,) = sequences(pd.Series(np.zeros(11), np.arange(11) * 0.1)).future_index(2)
    np.testing.assert_allclose(future, [1.1, 1.2])


IRREGULAR = pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"])


@pytest.mark.parametrize(
    "stamps",
    [IRREGULAR, IRREGULAR[:2], pd.Index([1, 2, 4, 8]), pd.Index(["a", "b", "c"])],
    ids=["dates", "two", "int", "text"],
)
def test_an_irregular_index_counts_steps_and_says_so(stamps):
    data = sequences(pd.Series(np.arange(float(len(stamps))), stamps))
    with pytest.warns(IndexWarning, match="counts steps.*pd.to_datetime"):
        (future,) = data.future_index(3)
    assert future.tolist() == [len(stamps), len(stamps) + 1, len(stamps) + 2]
    assert not data.regular


def test_an_irregular_index_follows_freq_or_the_dates_of_covariates():
    y = pd.Series(np.arange(4.0), IRREGULAR)
    ahead = pd.DatetimeIndex(["2024-01-10", "2024-01-20"])
    calendar = pd.DataFrame({"u": np.arange(6.0)}, IRREGULAR.append(ahead))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequences(y, freq="D").future_index(1)[0].equals(pd.DatetimeIndex(["2024-01-07"]))
        assert sequences(y).future_index(1, freq="MS")[0].equals(pd.DatetimeIndex(["2024-02-01"]))
        data = sequences(y, covariates=calendar)
        (future,) = data.future_index(2, calendar)
        assert future.equals(ahead)
        np.testing.assert_array_equal(data.future_covariates(2, calendar), [[[4.0], [5.0]]])


def test_each_irregular_sequence_has_the_dates_of_its_own_covariates():
    y = {"a": pd.Series([1.0, 2, 3, 4], IRREGULAR), "b": pd.Series([1.0, 2, 3, 4], IRREGULAR + pd.Timedelta("1D"))}
    u = {name: pd.Series(np.zeros(4), one.index) for name, one in y.items()}
    ahead = {"a": pd.DatetimeIndex(["2024-02-01"]), "b": pd.DatetimeIndex(["2024-03-01"])}
    future = {name: pd.Series([1.0], stamps) for name, stamps in ahead.items()}
    data = sequences(y, covariates=u)
    assert [index.equals(ahead[name]) for index, name in zip(data.future_index(1, future), "ab", strict=True)] == [
        True
    ] * 2
    np.testing.assert_array_equal(data.future_covariates(1, future), [[[1.0]], [[1.0]]])


def test_many_irregular_sequences_warn_once():
    data = sequences({name: pd.Series([1.0, 2, 3, 4], IRREGULAR) for name in "abcdefg"})
    with pytest.warns(IndexWarning, match="sequence 'a', 'b', 'c', 'd', 'e' and 2 more") as caught:
        data.future_index(1)
    assert len(caught) == 1


def test_a_short_sequence_takes_the_frequency_of_the_others():
    stamps = pd.date_range("2024-01-01", periods=3, freq="MS")
    data = sequences({"a": pd.Series([1.0, 2, 3], list(stamps)), "b": pd.Series([1.0], stamps[:1].delete([]))})
    assert data.freq == ("MS", "MS")
    assert data.future_index(1)[1].equals(pd.DatetimeIndex(["2024-02-01"]))


def test_a_slice_keeps_the_frequency():
    data = sequences(pd.Series(np.arange(6.0), list(pd.date_range("2024-01-31", periods=6, freq="ME"))))
    assert data.slice_time(-1).future_index(1)[0].equals(pd.DatetimeIndex(["2024-07-31"]))


@pytest.mark.parametrize("horizon", [0, -1, 1.5, None, True, "3"])
def test_impossible_horizons(horizon):
    with pytest.raises(HorizonError, match="horizon="):
        sequences([1.0, 2.0]).future_index(horizon)


def test_frequencies_of_periods_are_understood():
    assert (check_freq("M"), check_freq("ME"), check_freq(2.0), check_freq(0.5)) == ("ME", "ME", 2, 0.5)


def test_default_indexes():
    assert all(is_default(ix) for ix in (pd.RangeIndex(3), pd.Index([0, 1, 2]), pd.RangeIndex(1)))
    assert not any(is_default(ix) for ix in (pd.RangeIndex(1, 3), pd.Index([0, 2]), pd.Index([0.0, 1.0]), IRREGULAR))
    assert infer_step(pd.PeriodIndex(["2024-01", "2024-03"], freq="M")) == "M"


def test_steps_between():
    months = pd.date_range("2024-01-31", periods=3, freq="ME")
    assert steps_between(months, pd.DatetimeIndex(["2024-04-30"]), "ME", "X") == 1
    assert steps_between(months, pd.DatetimeIndex(["2024-06-30"]), "ME", "X") == 3
    assert steps_between(pd.Index([0.1, 0.2]), pd.Index([0.5]), 0.1, "X") == 3
    assert steps_between(IRREGULAR, pd.DatetimeIndex(["2025-01-01"]), None, "X") == 1
    for first in ("2024-03-31", "2024-05-01"):
        with pytest.raises(HistoryError):
            steps_between(months, pd.DatetimeIndex([first]), "ME", "X")
    with pytest.raises(HistoryError, match="same kind and time zone"):
        steps_between(months, pd.DatetimeIndex(["2024-04-30"], tz="UTC"), "ME", "X")
