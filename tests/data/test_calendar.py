"""Calendar features: values by hand, matching by time in fits and forecasts, kinds of index, errors."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.tseries.holiday import USFederalHolidayCalendar

import probseq as ps
from probseq.errors import DataError, HorizonError, ParameterError


def test_cyclic_by_hand():
    days = pd.date_range("2024-02-26", periods=5, freq="D")  # a Monday; the 29th is the last of a February
    table = ps.calendar(days, ["weekday", "day", "dayofyear"])
    angle = 2 * np.pi * np.arange(5) / 7
    assert_allclose(table["weekday_sin"], np.sin(angle), atol=1e-15)
    assert_allclose(table["weekday_cos"], np.cos(angle))
    way = np.array([25 / 29, 26 / 29, 27 / 29, 28 / 29, 0.0])
    assert_allclose(table["day_cos"], np.cos(2 * np.pi * way))
    assert_allclose(table["dayofyear_sin"], np.sin(2 * np.pi * np.arange(56, 61) / 366))
    assert table.index.equals(days)


def test_onehot_and_ordinal():
    hours = pd.date_range("2024-01-06 22:00", periods=4, freq="h", tz="Asia/Tokyo")
    table = ps.calendar(hours, ["hour", "weekend"], encoding="onehot")
    assert table.shape == (4, 24)
    assert_array_equal(table.filter(like="hour_").sum(axis=1), [1, 1, 0, 1])  # midnight is the first category
    assert table.loc[hours[0], "hour_23"] == 1 and table.loc[hours[3], "hour_2"] == 1
    assert_array_equal(table["weekend"], [1, 1, 1, 1])
    ordinal = ps.calendar(hours, "hour", encoding="ordinal")["hour"]
    assert_allclose(ordinal, np.array([22, 23, 0, 1]) / 23 - 0.5)


def test_periods_and_weeks():
    weeks = pd.period_range("2020-12-28", periods=2, freq="W")
    table = ps.calendar(weeks, ["week", "quarter"], encoding="onehot")
    assert table.iloc[0]["week_53"] == 1 and table.iloc[1].filter(like="week").sum() == 0
    assert table.index.equals(weeks)


def test_holidays():
    days = pd.date_range("2024-12-24", periods=3, freq="D")
    assert_array_equal(ps.calendar(days, [], holidays=["2024-12-25"])["holiday"], [0, 1, 0])
    named = ps.calendar(days, "weekend", holidays={"eve": "2024-12-24", "feast": ["2024-12-25", "2024-12-26"]})
    assert_array_equal(named[["weekend", "eve", "feast"]].to_numpy(), [[0, 1, 0], [0, 0, 1], [0, 0, 1]])
    by_rule = ps.calendar(days, [], holidays=USFederalHolidayCalendar())
    assert_array_equal(by_rule["holiday"], [0, 1, 0])
    months = pd.period_range("2024-11", periods=3, freq="M")
    assert_array_equal(ps.calendar(months, [], holidays=["2024-12-25"])["holiday"], [0, 1, 0])
    hours = pd.date_range("2024-12-24 22:00", periods=4, freq="h")
    assert_array_equal(ps.calendar(hours, [], holidays=["2024-12-25"])["holiday"], [0, 0, 1, 1])


@pytest.mark.parametrize("period", [False, True])
def test_one_table_for_fit_and_forecast(period):
    """A regression on twelve months, noise-free but for a little: the forecast is next year's pattern."""
    rng = np.random.default_rng(0)
    months = pd.date_range("2010-01-01", periods=96, freq="MS")
    pattern = rng.normal(size=12)
    y = pd.Series(10.0 + pattern[months.month - 1] + 0.01 * rng.normal(size=96), months)
    if period:
        y = y.to_period("M")
    table = ps.calendar(y, "month", encoding="onehot", horizon=12)
    assert len(table) == 108
    model = ps.ARMA((0, 0)).fit(y, covariates=table)
    assert_allclose(model.forecast(12, covariates=table).mean(), 10.0 + pattern, atol=0.02)
    again = model.forecast(12, history=ps.sequences(y[:-12], covariates=table), covariates=table)
    assert_allclose(again.mean(), 10.0 + pattern, atol=0.02)


def test_one_table_for_many_series():
    a = pd.Series(np.arange(10.0), pd.date_range("2024-01-01", periods=10, freq="D"))
    b = pd.Series(np.arange(8.0), pd.date_range("2024-02-01", periods=8, freq="D"))
    table = ps.calendar([a, b], "weekday", encoding="ordinal", horizon=2)
    assert len(table) == 22 and table.index.is_monotonic_increasing
    quick = ps.MLE(training=ps.TrainingOptions(max_epochs=2))
    net = ps.LSTM(2, inference=quick, random_state=0).fit([a, b], covariates=table)
    inputs = net._future_inputs(net.training_, table, 2, net.training_.future_index(2))
    assert_allclose(inputs[..., 0], np.array([[3, 4], [4, 5]]) / 6 - 0.5)  # Thursday 11 January, Friday 9 February


def test_data_in_other_forms():
    y = ps.datasets.air_passengers()
    table = ps.calendar(y, "month", horizon=12)
    assert len(table) == 156 and table.index[-1] == pd.Timestamp("1961-12-01")
    assert table.equals(ps.calendar(ps.sequences(y), "month", horizon=12))


irregular = pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-05"])
BAD = {
    "no dates": (lambda: ps.calendar([1.0, 2.0], "month"), DataError),
    "a numeric index": (lambda: ps.calendar(pd.RangeIndex(3), "month"), DataError),
    "part": (lambda: ps.calendar(irregular, "moon"), ParameterError),
    "encoding": (lambda: ps.calendar(irregular, "month", encoding="sine"), ParameterError),
    "nothing": (lambda: ps.calendar(irregular, []), ParameterError),
    "horizon": (lambda: ps.calendar(irregular, "month", horizon=-1), HorizonError),
    "irregular future": (lambda: ps.calendar(irregular, "month", horizon=2), DataError),
    "holidays": (lambda: ps.calendar(irregular, [], holidays=["Christmas"]), ParameterError),
    "time zones": (
        lambda: ps.calendar(
            [pd.Series([1.0, 2.0], irregular[:2]), pd.Series([1.0, 2.0], irregular[:2].tz_localize("UTC"))], "month"
        ),
        DataError,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name):
    call, error = BAD[name]
    with pytest.raises(error):
        call()


def test_an_irregular_future_by_its_frequency():
    table = ps.calendar(irregular, "day", encoding="ordinal", horizon=2, freq="D")
    assert_array_equal(table.index[-2:], pd.DatetimeIndex(["2024-01-06", "2024-01-07"]))
