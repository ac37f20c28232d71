"""Forecasts written down: Datasets through files and back, wide tables, and what notebooks show."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import DataError, ParameterError, UnsupportedError

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=60))
DAYS = pd.date_range("2024-01-01", periods=60)
LEVELS = [0.05, 0.1, 0.5, 0.9, 0.95]


def forecasts():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(60, 2)), DAYS, ["north", "south"])
    named = xr.DataArray(X, dims="time", coords={"time": DAYS}, name="level", attrs={"units": "m", "valid": True})
    panel = xr.DataArray(
        rng.normal(size=(2, 60)), dims=("sequence", "time"), coords={"sequence": ["a", "b"], "time": DAYS}
    )
    ragged = {"long": pd.Series(X, DAYS), "short": pd.Series(X[:40], DAYS[:40])}
    return {
        "plain": ps.RandomWalk().fit(X).forecast(4),
        "named": ps.RandomWalk().fit(named).forecast(4),
        "variables": ps.IID().fit(frame).forecast(3),
        "panel": ps.RandomWalk().fit(panel).forecast(3),
        "origins": ps.RandomWalk().fit(ragged).forecast(3),
        "counts": ps.PoissonProcess().fit(np.arange(60) % 5).forecast(3),
        "predictive": ps.RandomWalk().fit(X).predictive(X[:6]),
    }


@pytest.fixture(scope="module")
def made():
    return forecasts()


NAMES = ["plain", "named", "variables", "panel", "origins", "counts", "predictive"]


@pytest.mark.parametrize("name", NAMES)
def test_quantiles_come_back_from_netcdf(made, name, tmp_path):
    forecast = made[name]
    data = forecast.to_dataset(LEVELS)
    data.to_netcdf(tmp_path / "forecast.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as read:
        again = ps.Forecast.from_dataset(read.load())
    assert again.backend == "quantiles" and not again.exact
    expected = forecast.quantile(LEVELS)
    assert again.quantile(LEVELS).dims == expected.dims
    for dim in expected.dims:
        assert (again.quantile(LEVELS)[dim] == expected[dim]).all()
    assert_allclose(again.quantile(LEVELS), expected, rtol=1e-12)
    assert again.future == forecast.future and again.discrete is False


@pytest.mark.parametrize("name", NAMES)
def test_paths_come_back_from_zarr(made, name, tmp_path):
    forecast = made[name]
    data = forecast.to_dataset(LEVELS, n_paths=20)
    with warnings.catch_warnings():
        # Zarr says of text coordinates that their form is young.
        warnings.filterwarnings("ignore", module="zarr")
        data.to_zarr(tmp_path / "forecast.zarr", consolidated=False)
        with xr.open_zarr(tmp_path / "forecast.zarr", consolidated=False) as read:
            again = ps.Forecast.from_dataset(read.load())
    assert again.backend == "paths" and again.discrete == forecast.discrete
    paths = forecast.sample(20, random_state=0)
    assert_allclose(again.mean(), paths.mean("path"), rtol=1e-10)
    assert again.mean().dims == forecast.mean().dims
    middle = forecast.median()
    y = middle.rename(horizon="time").drop_vars("time") if "horizon" in middle.dims else middle
    assert_allclose(again.crps(y), ps.Forecast.from_dataset(data).crps(y))


def test_categories_come_back_exactly(tmp_path):
    forecast = ps.MarkovChain().fit("abracadabra").forecast(3)
    forecast.to_dataset().to_netcdf(tmp_path / "forecast.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as read:
        again = ps.Forecast.from_dataset(read.load())
    assert again.exact
    xr.testing.assert_allclose(again.probs(), forecast.probs())
    assert_allclose(again.log_prob("abr"), forecast.log_prob("abr"), rtol=1e-10)


def test_attributes_follow_the_conventions(made):
    data = made["named"].to_dataset(n_paths=3)
    assert data.attrs["Conventions"].startswith("CF-") and data.attrs["method"] == "exact"
    assert data["mean"].attrs["units"] == "m" and data["mean"].attrs["long_name"] == "predictive mean of level"
    assert data["std"].attrs["cell_methods"] == "realization: standard_deviation"
    assert data["time"].attrs["standard_name"] == "time" and data["path"].attrs["standard_name"] == "realization"
    assert data["quantile"].attrs["units"] == "1"
    assert made["named"].mean().attrs == {"units": "m", "valid": True}
    again = ps.Forecast.from_dataset(data)
    assert again.mean().attrs["units"] == "m" and "long_name" not in again.mean().attrs


def test_stamps_that_no_file_knows(tmp_path):
    months = ps.RandomWalk().fit(pd.Series(X, pd.period_range("2020-01", periods=60, freq="M"))).forecast(2)
    data = months.to_dataset()
    assert data["time"].values[0] == np.datetime64("2025-01-01") and "frequency M" in data["time"].attrs["comment"]
    assert isinstance(months.to_dataframe()["time"].iloc[0], pd.Period)
    zone = ps.RandomWalk().fit(pd.Series(X, DAYS.tz_localize("Asia/Tokyo"))).forecast(2).to_dataset()
    assert zone["time"].values[0] == np.datetime64("2024-02-29T15:00")
    for number, one in enumerate((data, zone)):
        one.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")


def test_wide_tables_have_the_columns_of_nixtla(made):
    forecast = made["plain"]
    table = forecast.to_dataframe(wide=True, levels=(0.8, 0.95), model="Walk")
    assert list(table.columns) == ["unique_id", "ds", "Walk", "Walk-lo-80", "Walk-hi-80", "Walk-lo-95", "Walk-hi-95"]
    assert_allclose(table["Walk"], forecast.mean())
    assert_allclose(table[["Walk-lo-95", "Walk-hi-95"]], forecast.interval(0.95))
    assert table["ds"].tolist() == [60, 61, 62, 63]
    panel = made["panel"].to_dataframe(wide=True)
    assert panel["unique_id"].tolist() == ["a"] * 3 + ["b"] * 3 and panel["ds"].iloc[0] == pd.Timestamp("2024-03-01")
    assert_allclose(panel["forecast-lo-90"], made["panel"].interval(0.9).sel(bound="lower").values.ravel())
    origins = made["origins"].to_dataframe(wide=True)
    assert origins["ds"].iloc[3] == pd.Timestamp("2024-02-10")
    columns = made["variables"].to_dataframe(wide=True)
    assert columns["unique_id"].unique().tolist() == ["north", "south"]
    ids = ps.RandomWalk().fit({"a": np.stack([X, X], 1), "b": np.stack([X, X], 1)}).forecast(1).to_dataframe(wide=True)
    assert ids["unique_id"].tolist() == ["a/x0", "a/x1", "b/x0", "b/x1"]


def test_wide_tables_refuse_what_they_cannot_hold(made):
    with pytest.raises(ParameterError, match=r"Write 0\.9"):
        made["plain"].to_dataframe(wide=True, levels=(90,))
    with pytest.raises(UnsupportedError, match="wide"):
        ps.MarkovChain().fit("abracadabra").forecast(2).to_dataframe(wide=True)
    heavy = ps.IID(ps.StudentT(), transform=ps.Log()).fit(np.exp(np.random.default_rng(2).standard_t(3, size=80)))
    table = heavy.forecast(2).to_dataframe(wide=True)
    assert_allclose(table["forecast"], heavy.forecast(2).median())


def test_other_datasets_are_named():
    with pytest.raises(DataError, match="to_dataset"):
        ps.Forecast.from_dataset(xr.Dataset({"mean": ("time", [1.0])}))


def test_notebooks_show_what_it_is(made):
    html = made["plain"]._repr_html_()
    assert "&lt;Forecast of values: 4 steps" in html and "<Forecast" not in html and "q0.95" in html
    long = ps.RandomWalk().fit(X).forecast(20)._repr_html_()
    assert "12 of 20 rows" in long and long.count("<tr>") == 12
    assert "probability" in ps.MarkovChain().fit("abracadabra").forecast(2)._repr_html_()
    many = ps.IID().fit(X).predictive(np.resize(X, 6000))._repr_html_()
    assert "6000 steps" in many and "table" not in many


@pytest.mark.parametrize(
    ("index", "span"),
    [
        (pd.period_range("2024-01", periods=30, freq="M"), "(2026-07 .. 2026-09)"),
        (pd.date_range("2024-01-01", periods=30), "(2024-01-31 .. 2024-02-02)"),
        (pd.date_range("2024-01-01", periods=30, freq="h", tz="UTC"), "(2024-01-02 06:00:00+00:00 .. "),
        (pd.RangeIndex(5, 35), "(35 .. 37)"),
    ],
)
def test_a_forecast_shows_its_stamps(index, span):
    forecast = ps.RandomWalk().fit(pd.Series(np.arange(30.0) ** 0.5, index)).forecast(3)
    assert span in repr(forecast) and span.split(" ")[0][1:] in forecast._repr_html_()


def test_a_forecast_shows_one_step_and_different_ends():
    walk = ps.RandomWalk().with_parameters(scale=[1.0])
    assert "1 step (2);" in repr(walk.forecast(1, history=[0.0, 1.0]))
    assert "3 steps (stamps differ), 2 sequences" in repr(walk.forecast(3, history=[[0.0, 1.0], [1.0, 2.0, 3.0]]))


def test_categories_come_back_also_beside_paths():
    forecast = ps.MarkovChain().fit("abracadabra").forecast(3)
    again = ps.Forecast.from_dataset(forecast.to_dataset(n_paths=5))
    np.testing.assert_allclose(again.probs(), forecast.probs(), rtol=1e-12)
    assert again.log_prob("abr").values == pytest.approx(forecast.log_prob("abr").values)
