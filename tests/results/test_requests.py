"""What forecasts refuse, and what they say where an answer does not exist."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import ApproximationWarning, ParameterError, ProbseqError, ShapeError, UnsupportedError

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=60))


@pytest.fixture(scope="module")
def arma():
    return ps.ARMA(order=(2, 0)).fit(X)


def test_moments_that_do_not_exist_warn_and_tables_show_them():
    positive = np.exp(np.random.default_rng(1).normal(size=80) * 0.3)
    forecast = ps.IID(transform=ps.BoxCox(-0.5)).fit(positive).predictive(positive[:2])
    for name in ("mean", "var", "std"):
        with pytest.warns(ApproximationWarning, match="median"):
            assert np.isinf(getattr(forecast, name)()).all()
    assert np.isinf(forecast.to_dataframe()["mean"]).all()
    assert np.isinf(forecast.crps(positive[:2])).all()
    finite = ps.IID(transform=ps.BoxCox(-1.5)).fit(positive).predictive(positive[:2])
    assert np.isfinite(finite.mean()).all()
    with pytest.warns(ApproximationWarning, match="std"):
        finite.std()


def test_values_that_the_model_conditions_on_have_no_draws():
    model = ps.SeasonalNaive(3).fit(X)
    predictive = model.predictive(X[:8])
    draws = predictive.sample(5, random_state=0)
    blank = np.isnan(predictive.quantile(0.5).values)
    assert 0 < blank.sum() < 8
    assert (np.isnan(draws.values) == blank).all()
    mapped = predictive.map(np.exp, n_paths=20)
    assert (np.isnan(mapped.mean().values) == blank).all() and (np.isnan(mapped.cdf(3.0).values) == blank).all()


def test_one_step_predictions_are_no_trajectory(arma):
    for predictive in (arma.predictive(X[:8]), arma.predictive([X[:8], X[:5]])):
        for ask in (lambda f: f.aggregate("sum"), lambda f: f.energy_score(X[:8])):
            with pytest.raises(UnsupportedError, match="forecast\\(horizon\\)"):
                ask(predictive)
    assert arma.predictive(X[:1]).n_steps == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda f: f.quantile("a"),
        lambda f: f.quantile([0.1, "b"]),
        lambda f: f.quantile(None),
        lambda f: f.crps(None),
        lambda f: f.log_prob({}),
        lambda f: f.aggregate(3),
        lambda f: f.aggregate(lambda a: a),
        lambda f: f.aggregate(lambda a, axis: a),
        lambda f: f.map(3),
        lambda f: f.map(lambda x: None),
        lambda f: f.to_dataframe(quantiles=[0.5, 0.5]),
        lambda f: f.to_dataset(quantiles="ab"),
        lambda f: f.from_paths("abc"),
        lambda f: f.from_paths([[1, 2], [3]]),
        lambda f: f.from_paths(None),
        lambda f: f.from_quantiles("ab", np.zeros((3, 2))),
        lambda f: f.from_quantiles([0.1, 0.9], [[1, 2], [3]]),
    ],
)
def test_bad_requests_are_named(arma, ask):
    with pytest.raises(ProbseqError) as raised:
        ask(arma.forecast(3))
    assert raised.value.expected


def test_aggregate_takes_functions_of_an_axis(arma):
    forecast = arma.forecast(3)
    assert forecast.aggregate(np.median, n_paths=9).method == "median of 9 paths"
    spread = forecast.aggregate(lambda a, axis: np.ptp(a, axis=axis), n_paths=9)
    assert spread.method == "function of 9 paths"
    assert not re.search("0x", repr(spread))
    with pytest.raises(ShapeError, match="axis"):
        forecast.aggregate(lambda a, axis: a)
    with pytest.raises(ParameterError, match="such as"):
        forecast.map("exp")


def test_units_do_not_survive_a_map():
    data = xr.DataArray(X, dims="time", attrs={"units": "m"})
    forecast = ps.IID().fit(data).forecast(2)
    assert forecast.mean().attrs == {"units": "m"}
    assert forecast.map(np.exp, n_paths=9).mean().attrs == {}


def test_integer_stamps_of_ragged_forecasts_stay_integers():
    forecast = ps.IID().fit([X[:30], X[:20]]).forecast(2)
    stamps = forecast.mean()["timestamp"]
    assert stamps.dtype == np.int64 and stamps.values.tolist() == [[30, 31], [20, 21]]
    dated = [pd.Series(X[:n], pd.date_range("2024-01-01", periods=n)) for n in (30, 20)]
    assert ps.IID().fit(dated).forecast(2).mean()["timestamp"].dtype.kind == "M"


def test_categories_have_no_cdf():
    codes = np.array(list("abcabcaabbcc"))
    forecast = ps.MarkovChain().fit(codes).forecast(2)
    with pytest.raises(UnsupportedError, match="probs"):
        forecast.cdf(1)
    assert_allclose(forecast.probs().sum("category"), 1.0)
