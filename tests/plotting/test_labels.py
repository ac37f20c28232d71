"""Names and units on axes come from the data."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probseq as ps

N = 40
LINE = np.cumsum(np.random.default_rng(0).normal(size=N))
DAYS = pd.date_range("2020-01-01", periods=N)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def walk(data):
    return ps.RandomWalk().fit(data)


def array(dim="time", time=DAYS, time_attrs=None, **attrs):
    name = attrs.pop("name", "flow")
    return xr.DataArray(LINE, dims=dim, coords={dim: (dim, time, time_attrs or {})}, name=name, attrs=attrs)


@pytest.mark.parametrize(
    ("attrs", "label"),
    [
        ({"units": "m³/s"}, "flow, m³/s"),
        ({"units": "m³/s", "long_name": "流量"}, "流量, m³/s"),
        ({"long_name": "discharge"}, "discharge"),
        ({}, "flow"),
        ({"units": "thousand flows", "long_name": "many"}, "thousand flows"),
        ({"units": "m", "long_name": "a name that is much too long for an axis"}, "flow, m"),
        ({"units": "m", "name": None}, "m"),
        ({"units": "m", "long_name": "level", "name": None}, "level, m"),
    ],
)
def test_a_variable_has_its_long_name_and_unit(attrs, label):
    forecast = walk(array(**attrs)).forecast(3)
    assert forecast.plot().get_ylabel() == label
    if "name" not in attrs:
        assert forecast.plot(kind="quantiles").get_ylabel() == label
        assert forecast.plot(kind="ridge").get_xlabel() == label


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (array(), ""),
        (array(time_attrs={"long_name": "day of measurement", "units": "ignored"}), "day of measurement"),
        (array("depth", np.arange(N) * 0.5, {"units": "m"}), "depth, m"),
        (array("time", np.arange(N) * 0.5, {"units": "s"}), "time, s"),
        (array("time", np.arange(N) + 1900), ""),
        (pd.Series(LINE, pd.RangeIndex(1900, 1900 + N, name="year")), "year"),
        (pd.Series(LINE, pd.period_range("2020-01", periods=N, freq="M", name="月")), "月"),
        (LINE, "step"),
        ([LINE, LINE[:20]], "step"),
    ],
)
def test_times_have_the_name_and_unit_of_their_coordinate(data, label):
    model = walk(data)
    assert model.forecast(3).plot().get_xlabel() == label
    if isinstance(data, pd.Series):
        assert model.plot_residuals(data)[0].get_xlabel() == label
    hmm = ps.HMM(1).with_parameters(initial=[1.0], transition=[[1.0]], mean=[[0.0]], scale=[[1.0]])
    ax = hmm.plot_states(data)
    assert ax.figure.axes[-1].get_xlabel() == label and ax.get_xlabel() == ""


def test_times_keep_their_name_in_a_file(tmp_path):
    walk(array("time", np.arange(N) * 0.5, {"units": "s"})).save(tmp_path / "model.psq")
    assert ps.load(tmp_path / "model.psq").forecast(3).plot().get_xlabel() == "time, s"


def test_every_variable_of_a_dataset_has_its_own():
    data = xr.Dataset(
        {
            "t": ("time", LINE, {"units": "°C", "long_name": "temperature"}),
            "flow": ("time", LINE[::-1].copy(), {"units": "m³/s"}),
        },
        {"time": DAYS},
    )
    forecast = walk(data).forecast(3)
    assert [ax.get_ylabel() for ax in forecast.plot()] == ["temperature, °C", "flow, m³/s"]
    assert forecast.marginal("flow").plot().get_ylabel() == "flow, m³/s"
    assert forecast.marginal(["flow", "t"]).plot()[1].get_ylabel() == "temperature, °C"
    assert [ax.get_ylabel() for ax in (forecast * 2.0).plot()] == ["t", "flow"]
    assert forecast.mean()["units"].values.tolist() == ["°C", "m³/s"]


def test_units_by_column_of_a_table():
    frame = pd.DataFrame({"price": LINE, "volume": LINE + 1}, index=DAYS)
    frame.attrs["units"] = {"price": "USD"}
    assert [ax.get_ylabel() for ax in walk(frame).forecast(2).plot()] == ["price, USD", "volume"]


def test_comparisons_and_calibration():
    data = array("depth", np.arange(N) * 0.5, units="m")
    fits = {"walk": walk(data), "iid": ps.IID().fit(data)}
    assert ps.compare(fits, data[1:], history=data[:1]).plot().get_xlabel() == "depth"
    found = ps.calibration(fits["iid"].predictive(data), data)
    assert ps.plot_calibration(found)[2].get_ylabel() == "mean width, m"


def test_emissions_and_diagnostics():
    data = array(units="m³/s")
    hmm = ps.HMM(1).with_parameters(initial=[1.0], transition=[[1.0]], mean=[[0.0]], scale=[[1.0]])
    assert hmm.plot_emissions(data).get_xlabel() == "flow, m³/s"
    arma = ps.ARMA((1, 0)).with_parameters(ar=[0.5], mean=0.0, scale=1.0)
    named = pd.Series(LINE, pd.RangeIndex(1900, 1900 + N, name="year"))
    assert arma.plot_diagnostics(named)[0].get_xlabel() == "year"
