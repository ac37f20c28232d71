"""Forecasters of sktime beside models of ours."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.errors import DataError, DataTypeError, HistoryError, NotFittedError, UnsupportedError

pytest.importorskip("sktime", reason="sktime is not installed")
# sktime announces its next version whenever a forecaster is made.
pytestmark = pytest.mark.filterwarnings("ignore:The default of config:FutureWarning")

Y = ps.datasets.lake_huron().to_series()
TRAIN, TEST = Y.iloc[:80], Y.iloc[80:92]


@pytest.fixture(scope="module")
def sarimax():
    from sktime.forecasting.sarimax import SARIMAX

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return SARIMAX(order=(1, 0, 0), trend="c")


@pytest.fixture(scope="module")
def naive():
    from sktime.forecasting.naive import NaiveForecaster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return NaiveForecaster()


def test_a_model_of_ours_comes_back_through_sktime():
    own = ps.ARMA((1, 0)).fit(TRAIN)
    back = ps.from_sktime(ps.to_sktime(ps.ARMA((1, 0))), refit=False, normal=True).fit(TRAIN)
    quantiles = ps.from_sktime(ps.to_sktime(ps.ARMA((1, 0))), refit=False).fit(TRAIN)
    found = ps.compare({"own": own, "back": back, "quantiles": quantiles}, TEST, history=TRAIN)
    columns = ["nats", "crps", "pinball", "cover50", "cover90"]
    assert_allclose(*(found.table.loc[name, columns].astype(float) for name in ("own", "back")), rtol=1e-9)
    assert np.isnan(found.table.loc["quantiles", "nats"])
    assert_allclose(*(found.table.loc[name, columns[1:]].astype(float) for name in ("own", "quantiles")), rtol=2e-3)


def test_a_forecaster_of_statsmodels_in_sktime(sarimax):
    """The adopted results of the same fit have the same law."""
    theirs = ps.from_sktime(sarimax, refit=False, normal=True).fit(TRAIN)
    adopted = ps.from_statsmodels(theirs._fitted._fitted_forecaster)
    found = ps.compare({"theirs": theirs, "adopted": adopted}, TEST, history=TRAIN)
    assert_allclose(*found.table["nats"], rtol=1e-6)
    fitted = sarimax.clone().fit(TRAIN)
    again = ps.compare({"fitted": ps.from_sktime(fitted, refit=False, normal=True)}, TEST, history=TRAIN)
    assert again.table["nats"].iloc[0] == found.table.loc["theirs", "nats"]
    assert fitted.cutoff[0] == TRAIN.index[-1], "the forecaster that was passed has moved"


def test_a_fit_before_every_step(naive):
    from sktime.forecasting.naive import NaiveVariance

    wrapped = NaiveVariance(naive, initial_window=70)
    theirs = ps.from_sktime(wrapped, normal=True).fit(TRAIN)
    forecast = theirs.forecast(2, Y[:85])
    direct = wrapped.clone().fit(Y[:85])
    variance = direct.predict_var(fh=[1, 2]).to_numpy().ravel()
    assert_allclose(forecast.mean(), direct.predict(fh=[1, 2]))
    assert_allclose(forecast.var(), variance)
    expected = stats.norm.logpdf(580.0, direct.predict(fh=[1, 2]), np.sqrt(variance))
    assert_allclose(forecast.log_prob(np.full(2, 580.0)), expected)
    assert forecast.mean()["time"].values.tolist() == [1960, 1961]


def test_backtests_take_them():
    each = {"own": ps.ARMA((1, 0)), "theirs": ps.from_sktime(ps.to_sktime(ps.ARMA((1, 0))), refit=False, normal=True)}
    found = ps.backtest(each, Y[:60], horizon=2, min_steps=50, refit=4)
    for name in ("log_score", "crps"):
        assert_allclose(*(found[name].sel(model=model).values for model in each), rtol=1e-9)


def test_several_variables_and_dates():
    rng = np.random.default_rng(0)
    days = pd.date_range("2001-01-01", periods=60, freq="D")
    table = pd.DataFrame(rng.normal(size=(60, 2)), days, columns=["u", "v"])
    theirs = ps.from_sktime(ps.to_sktime(ps.VAR()), normal=True)
    found = theirs.forecast(2, table.set_axis(pd.DatetimeIndex(days.values)))
    expected = ps.VAR().fit(table).forecast(2)
    assert_allclose(found.mean(), expected.mean(), rtol=1e-9)
    assert found.mean()["variable"].values.tolist() == ["u", "v"]
    assert found.mean()["time"].values[1] == np.datetime64("2001-03-03")


@pytest.mark.parametrize(("freq", "period"), [("MS", "M"), ("ME", "M"), ("QS", "Q"), ("W-WED", "W-WED"), ("h", "h")])
def test_seasons_of_dates_are_those_of_periods(naive, freq, period):
    dates = pd.date_range("2001-01-01", periods=30, freq=freq)
    y = pd.Series(np.arange(30.0) % 12 + 0.1 * np.sin(np.arange(30)), dates, name="y")
    seasonal = naive.clone().set_params(sp=12)
    found = ps.from_sktime(seasonal).forecast(3, y.set_axis(pd.DatetimeIndex(dates.values)))
    expected = seasonal.clone().fit(y.set_axis(dates.to_period(period))).predict_quantiles(fh=[1, 2, 3], alpha=0.5)
    assert_allclose(found.median(), expected.to_numpy().ravel())
    assert found.median()["time"].values[0] == pd.date_range(dates[-1], periods=2, freq=freq)[1]


def test_a_forecaster_that_was_fitted_to_dates_goes_on_with_dates(sarimax):
    y = Y.set_axis(pd.date_range("2001-01-01", periods=len(Y), freq="D"))
    fitted = sarimax.clone().fit(y[:80])
    theirs = ps.from_sktime(fitted, refit=False, normal=True)
    expected = ps.from_statsmodels(fitted._fitted_forecaster).forecast(2, history=Y.iloc[:85].to_numpy())
    assert_allclose(theirs.forecast(2, y[:85]).mean(), expected.mean(), rtol=1e-9)


def test_what_cannot_be_is_told(naive, sarimax):
    from sktime.forecasting.theta import ThetaForecaster
    from sktime.forecasting.trend import PolynomialTrendForecaster

    with pytest.raises(DataTypeError, match="parentheses"):
        ps.from_sktime(type(naive))
    with pytest.raises(DataTypeError, match="forecaster of sktime"):
        ps.from_sktime(ps.ARMA())
    with pytest.raises(UnsupportedError, match="NaiveVariance"):
        ps.from_sktime(PolynomialTrendForecaster())
    with pytest.raises(NotFittedError):
        ps.from_sktime(sarimax, refit=False).forecast(1, TRAIN)
    still = ps.from_sktime(ThetaForecaster(deseasonalize=False), refit=False).fit(TRAIN)
    with pytest.raises(HistoryError, match="refit=True"):
        still.forecast(1, Y[:85])
    moving = ps.from_sktime(sarimax, refit=False).fit(TRAIN)
    with pytest.raises(HistoryError, match="without 1954"):
        moving.forecast(1, TRAIN[:40])
    holes = TRAIN.copy()
    holes.iloc[3] = np.nan
    with pytest.raises(DataError, match="Imputer"):
        moving.forecast(1, holes)
    with pytest.raises(DataError, match="2 sequences"):
        ps.from_sktime(sarimax).fit([TRAIN.values, TRAIN.values])
