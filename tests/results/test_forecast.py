"""Forecasts: labels, joint laws, decompositions, and errors that say what to do."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.errors import ApproximationWarning, DataError, ParameterError, ShapeError, UnsupportedError
from probseq.models.marginal import Marginalized
from probseq.results.backends import PathsBackend
from probseq.results.forecast import Forecast

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=60))


@pytest.fixture(scope="module")
def arma():
    return ps.ARMA(order=(1, 0)).fit(X)


@pytest.fixture(scope="module")
def net():
    model = ps.LSTM(
        hidden_size=3, inference=ps.MeanField(n_draws=4, training=ps.TrainingOptions(max_epochs=3)), random_state=0
    )
    return model.fit(X)


@pytest.fixture(scope="module")
def averaged():
    """An IID normal under two parameter draws, 0.25 and 0.75."""
    model = ps.IID().fit(X)
    params = {"mean": torch.tensor([[0.0], [4.0]]).double(), "scale": torch.tensor([[1.0], [2.0]]).double()}
    model.model_ = Marginalized(model.model_.model, params, torch.log(torch.tensor([0.25, 0.75]).double()))
    model.training_state_ = model.model_.initial_state({}, 1)
    return model


def test_interval_in_percent_says_what_to_write(arma):
    forecast = arma.forecast(3)
    for wrong, hint in ((90, "write 0.9"), (95.0, "write 0.95"), (0, "write 0.9"), (1.0, "write"), (-1, "write 0.9")):
        with pytest.raises(ParameterError, match=hint):
            forecast.interval(wrong)
    with pytest.raises(ParameterError, match=r"Write 0.9"):
        forecast.quantile(90)
    with pytest.raises(ParameterError, match="eti"):
        forecast.interval(0.9, kind="central")


def test_joint_log_prob_is_the_sum_of_one_step_conditionals(arma, net):
    y = X[-1] + np.array([0.3, -0.2, 0.5, 0.9])
    for model, rtol in ((arma, 1e-12), (net, 1e-4)):
        joint = model.forecast(4).log_prob(y, joint=True)
        steps = model.log_prob_steps(y, history=ps.TRAINING)
        assert_allclose(joint, steps.sum(), rtol=rtol)


def test_joint_log_prob_against_the_dense_gaussian(arma):
    phi, mean, scale = (arma.params_[name].values.item() for name in ("ar", "mean", "scale"))
    h = 5
    psi = phi ** np.arange(h)
    root = scale * np.array([[psi[i - j] if j <= i else 0.0 for j in range(h)] for i in range(h)])
    centre = mean + phi ** np.arange(1, h + 1) * (X[-1] - mean)
    y = X[-1] + np.array([0.1, 0.5, -0.4, 1.0, 2.0])
    forecast = arma.forecast(h)
    expected = stats.multivariate_normal(centre, root @ root.T).logpdf(y)
    assert_allclose(forecast.log_prob(y, joint=True), expected, rtol=1e-10)
    assert_allclose(forecast.mean(), centre, rtol=1e-10)
    assert_allclose(forecast.std(), np.sqrt(np.diag(root @ root.T)), rtol=1e-10)
    total = forecast.aggregate("sum", n_paths=20_000)
    ones = np.ones(h)
    assert_allclose(total.mean(), [centre.sum()], rtol=0.02)
    assert_allclose(total.std(), [np.sqrt(ones @ root @ root.T @ ones)], rtol=0.03)
    with_hole = forecast.log_prob(np.where(np.arange(h) == 2, np.nan, y), joint=True)
    keep = np.arange(h) != 2
    cov = (root @ root.T)[np.ix_(keep, keep)]
    assert_allclose(with_hole, stats.multivariate_normal(centre[keep], cov).logpdf(y[keep]), rtol=1e-10)


def test_mixture_over_draws(averaged):
    forecast = averaged.forecast(2)
    assert (forecast.backend, forecast.exact) == ("mixture", True)
    density = 0.25 * stats.norm(0, 1).pdf(1.5) + 0.75 * stats.norm(4, 2).pdf(1.5)
    assert_allclose(forecast.log_prob([1.5, 1.5]), np.log(density), rtol=1e-12)
    parts = forecast.decompose()
    assert_allclose(parts["aleatoric"], 0.25 * 1 + 0.75 * 4)
    assert_allclose(parts["epistemic"], 0.25 * 0.75 * 16)
    each = [stats.norm(0, 1), stats.norm(4, 2)]
    joint = np.logaddexp(*(np.log(w) + law.logpdf([1.5, 3.0]).sum() for w, law in zip((0.25, 0.75), each)))
    assert_allclose(forecast.log_prob([1.5, 3.0], joint=True), joint, rtol=1e-12)


def test_paths_keep_their_draw(averaged):
    """Under draws that never move the steps of a path are correlated: cov = var of the draws' means."""
    paths = averaged.forecast(2).sample(20_000, random_state=0).values
    assert np.cov(paths.T)[0, 1] == pytest.approx(3.0, rel=0.05)
    alone = averaged.forecast(2).aggregate("sum", n_paths=20_000)
    assert alone.var().item() == pytest.approx(2 * (3.25 + 3.0) + 2 * 3.0, rel=0.05)


def test_scores_adapt_the_weights_and_frozen_scores_do_not(averaged):
    y = np.array([4.0, 5.0, 3.0])
    each = np.stack([stats.norm(0, 1).logpdf(y), stats.norm(4, 2).logpdf(y)])
    weights = np.log([0.25, 0.75])
    frozen = np.logaddexp.reduce(weights[:, None] + each, 0)
    assert_allclose(averaged.log_prob_steps(y, weights="frozen"), frozen, rtol=1e-12)
    assert_allclose(averaged.log_prob(y), np.logaddexp.reduce(weights + each.sum(1)), rtol=1e-12)
    with pytest.raises(ParameterError, match="adapt"):
        averaged.log_prob_steps(y, weights="free")


def test_entropy_of_categories_decomposes():
    codes = np.array([0, 1, 2, 1, 0, 1, 2, 2, 1, 0.0])
    model = ps.LSTM(
        2,
        head=ps.Categorical(),
        inference=ps.MeanField(n_draws=3, training=ps.TrainingOptions(max_epochs=2)),
        random_state=0,
    ).fit(codes)
    parts = model.predictive(codes).decompose()
    assert (parts["epistemic"] >= -1e-6).all() and (parts["total"] <= np.log(3) + 1e-6).all()


def test_categories_answer_with_probabilities_and_refuse_numbers():
    forecast = ps.MarkovChain().fit("abracadabra").forecast(3)
    assert forecast.probs().dims == ("time", "category")
    assert_allclose(forecast.probs().sum("category"), 1.0)
    assert "a" in forecast.probs()["category"].values
    for name in ("mean", "var", "std", "interval"):
        with pytest.raises(UnsupportedError, match="probs"):
            getattr(forecast, name)()


def test_labels_follow_the_data():
    index = pd.date_range("2024-01-01", periods=60, freq="D")
    frame = pd.DataFrame({"a": X, "b": X[::-1]}, index=index)
    forecast = ps.IID(ps.Normal("full")).fit(frame).forecast(2)
    assert forecast.quantile([0.1, 0.9]).dims == ("time", "variable", "quantile")
    assert forecast.interval(0.5).dims == ("time", "variable", "bound")
    assert forecast.sample(3).dims == ("path", "time", "variable")
    assert forecast.mean()["time"].values[0] == np.datetime64("2024-03-01")
    one = forecast.marginal("b")
    assert_allclose(one.mean().squeeze(), forecast.mean().sel(variable="b"))
    with pytest.raises(ParameterError, match="one of"):
        forecast.marginal("c")
    table = forecast.to_dataframe()
    assert list(table.columns[:4]) == ["time", "variable", "mean", "std"] and len(table) == 4


def test_scores_align_with_the_held_out_data_by_time():
    y = pd.Series(X, index=pd.date_range("2024-01-31", periods=60, freq="ME"))
    forecast = ps.ARMA((1, 0)).fit(y[:50]).forecast(5)
    assert_allclose(forecast.log_prob(y), forecast.log_prob(y[50:55]))
    assert_allclose(forecast.crps(y), forecast.crps(y[50:55].to_numpy()))
    with pytest.raises(ShapeError, match="horizon"):
        forecast.log_prob(np.zeros(7))


def test_moment_that_does_not_exist():
    x = np.exp(np.random.default_rng(1).standard_t(3, size=80))
    model = ps.IID(ps.StudentT(), transform=ps.Log()).fit(x)
    with pytest.warns(ApproximationWarning, match="mean.*does not exist"):
        assert np.isinf(model.forecast(2).mean()).all()
    with pytest.warns(ApproximationWarning, match="median"):
        point = model.predict(horizon=2)
    assert_allclose(point, model.forecast(2).median())


def test_paths_and_quantiles_from_elsewhere():
    paths = Xs = np.random.default_rng(2).normal(size=(500, 3))
    forecast = ps.Forecast.from_paths(paths, like=X)
    assert not forecast.exact and forecast.mean()["time"].values[0] == 60
    assert_allclose(forecast.mean(), Xs.mean(0))
    with pytest.raises(UnsupportedError, match="crps"):
        forecast.log_prob(np.zeros(3))
    levels = [0.1, 0.5, 0.9]
    quantiles = ps.Forecast.from_quantiles(levels, np.quantile(paths, levels, axis=0).T)
    assert_allclose(quantiles.quantile(levels), np.quantile(paths, levels, axis=0).T)
    for bad in ([0.5], [0.9, 0.1], [0.0, 0.5]):
        with pytest.raises(ParameterError, match="increasing"):
            ps.Forecast.from_quantiles(bad, np.zeros((3, len(bad))))
    with pytest.raises(ShapeError):
        ps.Forecast.from_quantiles(levels, np.zeros((3, 2)))
    with pytest.raises(ShapeError):
        ps.Forecast.from_paths(np.zeros(3))


def test_map_and_aggregate_check_what_they_get(arma):
    forecast = arma.forecast(3)
    assert_allclose(forecast.map(lambda x: -x, n_paths=5000).mean(), -forecast.mean(), rtol=0.05)
    with pytest.raises(ParameterError, match="mean"):
        forecast.aggregate("median")
    with pytest.raises(ShapeError, match="aggregate"):
        forecast.map(lambda x: x[0])
    with pytest.raises(ParameterError, match="whole number"):
        forecast.sample(0)


def test_crps_of_a_mixture_outside_its_support(averaged):
    """Below the support the score grows by the distance: F is 0 all the way."""
    x = np.exp(X / 20)
    model = ps.LSTM(
        2,
        transform=ps.Log(),
        inference=ps.MeanField(n_draws=3, training=ps.TrainingOptions(max_epochs=2)),
        random_state=0,
    ).fit(x)
    forecast = model.forecast(1) if model.forecast(1).exact else model.predictive(x)
    n = forecast.n_steps
    near, far = forecast.crps(np.full(n, 0.0)).values, forecast.crps(np.full(n, -2.0)).values
    assert np.isfinite(far).all()
    assert_allclose(far - near, 2.0, rtol=1e-6)


def test_a_marginal_keeps_its_law_over_time():
    rng = np.random.default_rng(3)
    y = np.cumsum(rng.normal(size=(200, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]]), 0) * 0.3
    forecast = ps.HMM(2, random_state=0).fit(y).forecast(4, random_state=5)
    assert forecast.marginal("x1")._joint is not None
    one = forecast.marginal("x1")
    assert_allclose(one.sample(50, random_state=1).squeeze(), forecast.sample(50, random_state=1)[..., 1])
    whole = forecast.aggregate("sum", n_paths=500).marginal("x1")
    assert_allclose(one.aggregate("sum", n_paths=500).mean().squeeze(), whole.mean().squeeze())
    truth = np.full((4, 2), np.nan)
    truth[:, 1] = y[-4:, 1]
    assert_allclose(one.log_prob(y[-4:, 1:], joint=True), forecast.log_prob(truth, joint=True), rtol=1e-12)
    assert_allclose(one.sample(3), forecast.marginal("x1").sample(3))
    assert_allclose(forecast.marginal(["x1", "x0"]).marginal("x1").sample(9, random_state=2), one.sample(9, 2))


def test_path_forecasts_decompose_as_their_exact_law(averaged, net):
    exact = averaged.forecast(2)
    paths = Forecast(PathsBackend(exact._paths(4000, 0)), exact._labels, exact._index, joint=exact._joint, future=True)
    found, expected = paths.decompose(n_paths=20_000), exact.decompose()
    for name in ("total", "aleatoric", "epistemic"):
        assert_allclose(found[name], expected[name], rtol=0.05)
    parts = net.forecast(3).decompose(n_paths=50)
    assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"])
    assert (parts["epistemic"] >= 0).all() and parts["total"].dims == ("time",)
    with pytest.raises(ParameterError, match="from 2"):
        net.forecast(3).decompose(n_paths=1)


def test_paths_and_quantiles_go_by_the_names_of_their_dimensions():
    data = np.random.default_rng(0).normal(size=(3, 30)).cumsum(1)
    forecast = ps.RandomWalk().fit(list(data)).forecast(2)
    paths = forecast.sample(40, random_state=0)
    assert paths.dims == ("path", "sequence", "time")
    again = ps.Forecast.from_paths(paths.transpose("time", "sequence", "path"), like=list(data))
    np.testing.assert_allclose(again.mean(), paths.mean("path"))
    values = forecast.quantile([0.1, 0.5, 0.9])
    again = ps.Forecast.from_quantiles([0.1, 0.5, 0.9], values.transpose("quantile", ...), like=list(data))
    np.testing.assert_allclose(again.median(), forecast.median())
    with pytest.raises(ShapeError, match="dimensions"):
        ps.Forecast.from_paths(paths.rename(time="month"))


def test_values_that_do_not_fit_what_they_follow_are_named():
    with pytest.raises(ShapeError, match="2 variables"):
        ps.Forecast.from_paths(np.zeros((5, 3, 2)), like=[1.0, 2.0])
    with pytest.raises(ShapeError, match="2 sequences"):
        ps.Forecast.from_quantiles([0.1, 0.9], np.zeros((2, 3, 1, 2)), like=[1.0, 2.0])
    with pytest.raises(DataError, match="lack"):
        ps.Forecast.from_paths([[1.0, np.nan], [2.0, 3.0]])
    with pytest.raises(DataError, match="lack"):
        ps.Forecast.from_quantiles([0.1, 0.9], [[1.0, 2.0], [1.0, np.nan]])


def test_a_joint_band_needs_paths_that_leave_it():
    forecast = ps.RandomWalk().with_parameters(scale=[1.0]).forecast(3, history=[0.0, 1.0])
    with pytest.raises(ParameterError, match="whole number from 20"):
        forecast.interval(0.95, joint=True, n_paths=19)
