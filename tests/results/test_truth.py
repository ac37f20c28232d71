"""Values that came find their place in a forecast by name and by stamp, or are refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import ShapeError

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=100))
DATES = pd.date_range("2024-01-01", periods=100, freq="D")


@pytest.fixture(scope="module")
def dated():
    y = pd.Series(X, index=DATES)
    return y, ps.ARMA((1, 0)).fit(y[:60]).forecast(20)


def test_other_stamps_are_refused(dated):
    y, forecast = dated
    with pytest.raises(ShapeError, match=r"2024-01-01.*2024-03-01.*Select"):
        forecast.crps(y[:20])
    for wrong in (y[61:81], y[:60], y[70:75], y[60:80][::2]):
        with pytest.raises(ShapeError):
            forecast.log_prob(wrong)
    steps = ps.ARMA((1, 0)).fit(y[:60]).predictive(y[60:80])
    with pytest.raises(ShapeError, match="steps of the forecast"):
        steps.crps(y[:20])


def test_longer_truth_is_cut_and_shorter_truth_is_missing_at_the_end(dated):
    y, forecast = dated
    expected = forecast.crps(X[60:80])
    assert_allclose(forecast.crps(y), expected)
    assert_allclose(forecast.crps(y[60:80].to_xarray().rename(index="time")), expected)
    part = forecast.crps(y[:65])
    assert_allclose(part[:5], expected[:5])
    assert np.isnan(part[5:]).all()
    assert_allclose(
        forecast.map(np.exp, n_paths=9).cdf(np.exp(y)), forecast.map(np.exp, n_paths=9).cdf(np.exp(y[60:80]))
    )
    with pytest.raises(ShapeError, match="horizon"):
        forecast.crps(X[60:65])


def test_numbers_count_as_stamps_only_where_both_sides_have_them():
    y = pd.Series(X)
    forecast = ps.ARMA((1, 0)).fit(y[:60]).forecast(20)
    assert_allclose(forecast.crps(y[60:]), forecast.crps(X[60:80]))
    assert_allclose(forecast.crps(y[60:80].reset_index(drop=True)), forecast.crps(X[60:80]))
    with pytest.raises(ShapeError, match="61"):
        forecast.crps(y[61:81])
    model = ps.ARMA((1, 0)).fit(X[:60])
    assert_allclose(model.forecast(20).crps(pd.Series(X[60:80], DATES[60:80])), forecast.crps(X[60:80]))
    state = model.filter(X[:60])
    assert_allclose(model.forecast(20, state=state).crps(y[60:80]), forecast.crps(X[60:80]))


def test_periods_and_dates():
    y = pd.Series(X, pd.period_range("2000-01", periods=100, freq="M"))
    forecast = ps.ARMA((1, 0)).fit(y[:60]).forecast(20)
    assert_allclose(forecast.crps(y), forecast.crps(X[60:80]))
    with pytest.raises(ShapeError):
        forecast.crps(y[:20])


def test_variables_go_by_name():
    frame = pd.DataFrame({"a": X, "b": 100 - X[::-1]}, index=DATES)
    forecast = ps.IID(ps.Normal("full")).fit(frame[:60]).forecast(20)
    truth = frame[60:80]
    expected = forecast.crps(truth)
    assert_allclose(forecast.crps(truth[["b", "a"]]), expected)
    assert_allclose(forecast.log_prob(truth[["b", "a"]]), forecast.log_prob(truth.to_numpy()))
    assert_allclose(forecast.crps(truth.assign(c=0.0)), expected)
    assert_allclose(forecast.marginal("b").crps(truth), expected.sel(variable=["b"]))
    with pytest.raises(ShapeError, match=r"without \['b'\].*Rename"):
        forecast.crps(truth.rename(columns={"b": "c"}))


def test_sequences_go_by_name():
    data = xr.DataArray(X.reshape(4, 25), dims=("sequence", "time"), coords={"sequence": list("abcd")})
    forecast = ps.IID().fit(data).predictive(data)
    expected = forecast.crps(data)
    assert_allclose(forecast.crps(data.isel(sequence=slice(None, None, -1))), expected)
    with pytest.raises(ShapeError, match="sequences"):
        forecast.crps(data.assign_coords(sequence=list("abce")))
    assert_allclose(forecast.crps(data.values[..., None]), expected)
