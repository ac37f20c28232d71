"""Irregular stamps on a grid."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probseq.data.grid import on_grid
from probseq.data.sequences import sequences
from probseq.errors import DataError

STAMPS = pd.DatetimeIndex(["2024-01-05", "2024-01-01", "2024-01-02"])


def test_holes_are_missing_and_rows_sorted():
    out = on_grid(pd.Series([5.0, 1.0, 2.0], STAMPS, name="y"), "D")
    np.testing.assert_array_equal(out, [1, 2, np.nan, np.nan, 5])
    assert out.name == "y" and sequences(out).regular
    assert sequences(out).freq == ("D",)


def test_stamps_move_to_their_interval():
    stamps = pd.DatetimeIndex(["2024-01-01 10:03", "2024-01-01 11:59", "2024-01-01 13:00"], tz="UTC")
    out = on_grid(pd.DataFrame({"a": [1.0, 2.0, 3.0]}, stamps), "h")
    np.testing.assert_array_equal(out["a"], [1, 2, np.nan, 3])
    assert str(out.index[0]) == "2024-01-01 10:00:00+00:00"
    month_ends = on_grid(pd.Series([1.0, 2.0], pd.DatetimeIndex(["2024-01-10", "2024-03-02"])), "ME")
    assert list(month_ends.index.strftime("%m-%d")) == ["01-31", "02-29", "03-31"]


def test_dataarrays_keep_their_coordinates():
    given = xr.DataArray(
        [[5.0, 50.0], [1.0, 10.0], [2.0, 20.0]],
        dims=("time", "variable"),
        coords={"time": STAMPS, "variable": ["a", "b"]},
        name="y",
        attrs={"units": "m"},
    )
    out = on_grid(given, "D")
    np.testing.assert_array_equal(out.sel(variable="b"), [10, 20, np.nan, np.nan, 50])
    assert out.attrs == {"units": "m"} and out.name == "y" and out.indexes["time"][-1] == STAMPS[0]
    pd.testing.assert_series_equal(
        on_grid(given.sel(variable="a"), "D").to_series().rename("a"),
        on_grid(given.to_pandas()["a"], "D"),
        check_freq=False,
    )


def test_numbers_periods_durations_and_integers():
    np.testing.assert_array_equal(on_grid(pd.Series([1, 2], [1900, 1903]), 1), [1, np.nan, np.nan, 2])
    assert on_grid(pd.Series([1, 2], [1900, 1910]), 5).index.tolist() == [1900, 1905, 1910]
    periods = on_grid(pd.Series([1.0, 2.0], pd.PeriodIndex(["2024-01", "2024-03"], freq="M")), "M")
    assert len(periods) == 3 and isinstance(periods.index, pd.PeriodIndex)
    coarser = on_grid(periods.dropna().set_axis(pd.PeriodIndex(["2024-01-07", "2024-02-02"], freq="D")), "M")
    assert coarser.index.equals(pd.period_range("2024-01", periods=2, freq="M"))
    durations = on_grid(pd.Series([1.0, 2.0], pd.to_timedelta(["0h", "2h"])), "h")
    np.testing.assert_array_equal(durations, [1, np.nan, 2])


def test_panels_and_lists_are_gridded_one_by_one():
    index = pd.MultiIndex.from_tuples([("b", 0), ("b", 2), ("a", 5), ("a", 6)], names=["shop", "day"])
    out = on_grid(pd.Series([1.0, 2.0, 3.0, 4.0], index), 1)
    data = sequences(out)
    assert data.names == ("b", "a") and data.lengths.tolist() == [3, 2]
    assert out.index.names == ["shop", "day"]
    parts = on_grid([pd.Series([1.0, 2.0], [0, 2]), pd.Series([1.0, 2.0], [0, 3])], 1)
    assert [len(part) for part in parts] == [3, 4]


@pytest.mark.parametrize(
    ("X", "freq", "match"),
    [
        (pd.Series([1.0, 2.0], pd.DatetimeIndex(["2024-01-01", "2024-01-01 12:00"])), "D", "more than one row"),
        (pd.Series([1.0, 2.0], [0, 3]), 2, "3, which lies off the grid"),
        (pd.Series([1.0, 2.0], [0, 3]), "D", "freq='D'"),
        (pd.Series([1.0], ["a"]), "D", "to_datetime"),
        (pd.Series([1.0, 2.0], [STAMPS[0], pd.NaT]), "D", "missing time stamp"),
        (np.arange(3.0), "D", "Attach the times"),
        (xr.DataArray([1.0], dims="time"), "D", "without stamps"),
        (pd.Series([1.0], STAMPS[:1]), "no such", "freq="),
    ],
)
def test_impossible_grids(X, freq, match):
    with pytest.raises(DataError, match=match):
        on_grid(X, freq)
