"""Forecasts in another unit: laws, joint laws, draws and paths of a x + b follow from those of x."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.errors import ParameterError, ShapeError, UnsupportedError
from probseq.models.marginal import Marginalized

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=60))
Y = X[-1] + np.array([0.4, -0.3, 1.2])


@pytest.fixture(scope="module")
def arma():
    return ps.ARMA(order=(1, 1)).fit(X).forecast(3)


@pytest.fixture(scope="module")
def counts():
    return ps.PoissonProcess().fit(np.random.default_rng(1).poisson(4, size=50)).forecast(3)


@pytest.mark.parametrize(("scale", "shift"), [(2.5, -3.0), (-0.5, 1.0)])
def test_a_normal_stays_normal(arma, scale, shift):
    image = arma * scale + shift
    assert image.exact and image.method == arma.method and image.backend == "analytic"
    law = stats.norm(scale * arma.mean().values + shift, abs(scale) * arma.std().values)
    y = scale * Y + shift
    assert_allclose(image.mean(), law.mean(), rtol=1e-12)
    assert_allclose(image.std(), law.std(), rtol=1e-12)
    assert_allclose(image.quantile(0.1), law.ppf(0.1), rtol=1e-10)
    assert_allclose(image.quantile([0.1, 0.7]), np.stack([law.ppf(0.1), law.ppf(0.7)], -1), rtol=1e-10)
    assert_allclose(image.cdf(y), law.cdf(y), atol=1e-12)
    assert_allclose(image.log_prob(y), law.logpdf(y), rtol=1e-10)
    assert_allclose(image.crps(y), abs(scale) * arma.crps(Y), rtol=1e-10)
    assert_allclose(image.log_prob(y, joint=True), arma.log_prob(Y, joint=True) - 3 * np.log(abs(scale)), rtol=1e-12)
    assert_allclose(image.sample(9, random_state=1), scale * arma.sample(9, random_state=1) + shift)
    total, plain = image.aggregate("sum"), arma.aggregate("sum")
    assert total.exact
    assert_allclose(total.mean(), scale * plain.mean() + 3 * shift, rtol=1e-10)
    assert_allclose(total.std(), abs(scale) * plain.std(), rtol=1e-10)
    assert_allclose(image.interval(0.8, kind="hdi"), image.interval(0.8), atol=1e-3)


def test_every_way_of_writing_it(arma):
    mean, term = arma.mean().values, np.array([1.0, 2.0, 3.0])
    for image, expected in (
        (-arma, -mean),
        (arma + 1, mean + 1),
        (1 + arma, mean + 1),
        (arma - 2, mean - 2),
        (2 - arma, 2 - mean),
        (3 * arma, 3 * mean),
        (arma / 4, mean / 4),
        (np.float64(3) * arma, 3 * mean),
        (arma - term, mean - term),
        (term + arma, mean + term),
        (term * arma, mean * term),
        (arma / pd.Series(term), mean / term),
        (arma - xr.DataArray(term, dims="time"), mean - term),
        ((arma * 2 + 1) * 3, 6 * mean + 3),
    ):
        assert_allclose(image.mean(), expected, rtol=1e-12)
        assert_allclose(image.quantile(0.5), expected, rtol=1e-10)


def test_functions_of_numpy_map(arma):
    assert_allclose(np.exp(arma / 10).mean(), (arma / 10).map(np.exp).mean())
    assert np.tanh(arma).method == "map of 2000 paths"
    with pytest.raises(TypeError):
        np.power(arma, 2)


def test_counts_turn_around(counts):
    rate = counts.mean().values[0]
    image = 10 - 2 * counts
    law = stats.poisson(rate)
    for q in (0.03, 0.4, 0.9, 1.0 - law.cdf(3)):
        # The smallest 10 - 2 k with P(K >= k) >= q.
        at = np.arange(60)
        expected = 10 - 2 * at[law.sf(at - 1) >= q - 1e-12].max()
        assert_allclose(image.quantile(q), expected)
    assert_allclose(image.cdf(4.0), law.sf(2))
    assert_allclose(image.cdf(4.5), law.sf(2))
    assert_allclose(image.log_prob([4.0, 10.0, 2.0]), law.logpmf([3, 0, 4]), rtol=1e-10)
    assert_allclose(image.crps([4.0, 10.0, 2.0]), 2 * counts.crps([3, 0, 4]))
    assert_allclose(image.var(), 4 * rate)
    pit = image.pit([4.0, 10.0, 2.0])
    assert ((pit >= law.sf([3, 0, 4])) & (pit <= law.sf(np.array([3, 0, 4]) - 1))).all()
    assert_allclose((counts * 0.1).log_prob([0.3, 0.0, 0.4]), law.logpmf([3, 0, 4]), rtol=1e-10)


def test_paths_and_quantiles_stay_what_they_are():
    paths = np.random.default_rng(2).normal(size=(20, 3))
    image = 1 - ps.Forecast.from_paths(paths) * 2
    assert image.backend == "paths"
    assert_allclose(image.quantile(0.3), ps.Forecast.from_paths(1 - 2 * paths).quantile(0.3))
    levels, values = [0.1, 0.4, 0.9], np.sort(np.random.default_rng(3).normal(size=(3, 3)))
    quantiles = ps.Forecast.from_quantiles(levels, values)
    turned = 5 - quantiles
    assert turned.backend == "quantiles"
    assert_allclose(turned.quantile([0.1, 0.6, 0.9]), 5 - values[:, ::-1])
    mixed = quantiles * np.array([1.0, -1.0, 2.0])
    assert_allclose(mixed.quantile(0.1)[0], values[0, 0])
    assert_allclose(mixed.quantile(0.1)[1], -values[1, 2])
    assert_allclose(mixed.crps([0.1, -0.2, 0.6]), quantiles.crps([0.1, 0.2, 0.3]) * [1, 1, 2])


def test_scenarios_of_an_image_are_images_of_scenarios(arma):
    known = np.array([np.nan, 50.0, np.nan])
    image = (arma * 5).given(known)
    plain = arma.given(known / 5)
    assert_allclose(image.mean(), 5 * plain.mean(), rtol=1e-10)
    assert_allclose(image.std(), 5 * plain.std(), atol=1e-10)
    y = np.array([52.0, 50.0, 49.0])
    assert_allclose(image.log_prob(y, joint=True), plain.log_prob(y / 5, joint=True) - 2 * np.log(5), rtol=1e-10)
    assert_allclose(image.log_prob(y)[[0, 2]], plain.log_prob(y / 5)[[0, 2]] - np.log(5), rtol=1e-10)
    log = ps.RandomWalk(transform=ps.Log()).fit(np.exp(X / 10)).forecast(3)
    assert_allclose((log * 3).given(known).mean(), 3 * log.given(known / 3).mean(), rtol=1e-12)


def test_draws_decompose_in_the_new_unit():
    model = ps.IID().fit(X)
    params = {"mean": torch.tensor([[0.0], [4.0]]).double(), "scale": torch.tensor([[1.0], [2.0]]).double()}
    model.model_ = Marginalized(model.model_.model, params, torch.log(torch.tensor([0.25, 0.75]).double()))
    model.training_state_ = model.model_.initial_state({}, 1)
    forecast = model.forecast(2)
    image = 3 * forecast - 1
    assert image.backend == "mixture"
    parts, plain = image.decompose(), forecast.decompose()
    for name in ("total", "aleatoric", "epistemic"):
        assert_allclose(parts[name], 9 * plain[name])
    total = image.aggregate("sum")
    assert total.exact
    assert_allclose(total.var(), 9 * forecast.aggregate("sum").var(), rtol=1e-10)


def test_marginals_scores_and_bands_of_an_image():
    frame = pd.DataFrame(np.stack([X, X[::-1]], 1), columns=["a", "b"])
    forecast = ps.VAR(order=1).fit(frame).forecast(3)
    image = forecast * 2 - 1
    assert_allclose(image.marginal("b").mean(), 2 * forecast.marginal("b").mean() - 1)
    y = np.stack([Y, Y - 1], 1)
    assert_allclose(
        image.marginal("a").log_prob(2 * y[:, :1] - 1), forecast.marginal("a").log_prob(y[:, :1]) - np.log(2)
    )
    assert_allclose(image.log_prob(2 * y - 1), forecast.log_prob(y) - 2 * np.log(2))
    assert_allclose(image.energy_score(2 * y - 1, 50), 2 * forecast.energy_score(y, 50))
    band = image.interval(0.8, joint=True, n_paths=200)
    assert_allclose(band, 2 * forecast.interval(0.8, joint=True, n_paths=200) - 1, rtol=1e-9)
    assert_allclose(image.aggregate("sum", over="variable").mean(), 2 * forecast.mean().sum("variable") - 2)


def test_names_stamps_units_and_history_follow():
    y = xr.DataArray(X, dims="time", coords={"time": pd.date_range("2024-01-01", periods=60)}, attrs={"units": "m"})
    forecast = ps.RandomWalk().fit(y).forecast(2)
    assert (forecast + 1).mean().attrs == {"units": "m"} and (-forecast).mean().attrs == {"units": "m"}
    image = forecast * 100
    assert image.mean().attrs == {}
    assert (image.mean()["time"] == forecast.mean()["time"]).all() and image.mean()["horizon"].values.tolist() == [1, 2]
    assert_allclose(image.mase(100 * Y[:2]), forecast.mase(Y[:2]), rtol=1e-10)
    assert_allclose(image.scores(100 * Y[:2], which=["smape"])["mean"], forecast.scores(Y[:2], which=["smape"])["mean"])


def test_ragged_sequences_and_unscored_steps_keep_their_shape():
    dated = [pd.Series(X[:n], pd.date_range("2024-01-01", periods=n)) for n in (30, 20)]
    forecast = ps.IID().fit(dated).forecast(2)
    assert_allclose((forecast * 2).mean(), 2 * forecast.mean())
    model = ps.SeasonalNaive(3).fit(X)
    predictive = model.predictive(X[:8])
    assert_allclose((predictive * 2).mean(), 2 * predictive.mean())
    many = ps.PerSequence(ps.ARMA((1, 0))).fit([X[:30], X[:40]]).forecast(2)
    assert_allclose((1 - many).quantile(0.2), 1 - many.quantile(0.8), rtol=1e-9)


def test_what_cannot_be_done_is_named(arma):
    with pytest.raises(UnsupportedError, match="from_paths"):
        arma + arma
    with pytest.raises(ParameterError, match="zero"):
        arma * 0
    with pytest.raises(ParameterError, match="zero"):
        arma / 0
    with pytest.raises(ParameterError, match="NaN"):
        arma + [1.0, np.nan, 2.0]
    with pytest.raises(ParameterError, match="NaN"):
        arma + np.inf
    for wrong in ("a", None, True, {}):
        with pytest.raises(TypeError):
            arma + wrong
    with pytest.raises(TypeError):
        1 / arma
    with pytest.raises(UnsupportedError, match="on the left"):
        xr.DataArray([1.0, 2.0, 3.0], dims="time") * arma
    with pytest.raises(UnsupportedError, match="mean"):
        np.asarray(arma)
    with pytest.raises(UnsupportedError, match="probs"):
        ps.MarkovChain().fit("abracadabra").forecast(2) * 2


def test_numpy_functions_and_series_on_the_left_are_operators(arma):
    mean, term = arma.mean().values, np.array([1.0, 2.0, 3.0])
    for image, expected in (
        (np.add(arma, 1), mean + 1),
        (np.subtract(arma, term), mean - term),
        (np.subtract(term, arma), term - mean),
        (np.multiply(2, arma), 2 * mean),
        (np.divide(arma, 4), mean / 4),
        (arma - xr.DataArray(2.0), mean - 2),
    ):
        assert image.exact
        assert_allclose(image.mean(), expected, rtol=1e-12)
    # The stamps of the Series say which value belongs to which step.
    dated = ps.RandomWalk().fit(pd.Series(X, pd.date_range("2024-01-01", periods=60))).forecast(3)
    stamps = pd.date_range("2024-03-01", periods=3)
    shuffled = pd.Series(term, stamps)
    assert_allclose((shuffled - dated).mean(), term - dated.mean().values, rtol=1e-12)
    assert_allclose((dated - shuffled).mean(), dated.mean().values - term, rtol=1e-12)
    with pytest.raises(ShapeError, match="steps of the forecast"):
        pd.Series(term, stamps + pd.Timedelta("30D")) - dated
    with pytest.raises(TypeError):
        np.divide(2, arma)
