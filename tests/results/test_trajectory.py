"""Joint laws of forecasts: exact sums, scenarios and bands, against dense normals, filters and other libraries."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.errors import ParameterError, ShapeError, SupportError, UnsupportedError
from probseq.models.marginal import Marginalized

RNG = np.random.default_rng(0)
X = 10 + np.cumsum(RNG.normal(size=80)) * 0.4
H = 7
GAPPED = np.where(np.isin(np.arange(80), [20, 21, 50, 78]), np.nan, X)

SPECS = {
    "arma": dict(order=(2, 1)),
    "arima": dict(order=(1, 1, 1)),
    "twice": dict(order=(0, 2, 1)),
    "seasonal": dict(order=(0, 1, 1), seasonal_order=(0, 1, 1, 4)),
    "trend": dict(order=(1, 0), trend="ct", fourier={5: 1}),
    "seasonal ar": dict(order=(1, 0, 0), seasonal_order=(1, 0, 1, 4)),
}


def moments(forecast):
    """Mean and covariance of a normal joint law."""
    law = forecast._joint.closed().law
    return law.loc[0].numpy(), law.covariance[0].numpy()


def conditional(mean, cov, at, values):
    """Mean and covariance of a dense normal given some of its coordinates, zero covariance at those."""
    rest = np.setdiff1d(np.arange(len(mean)), at)
    gain = cov[np.ix_(rest, at)] @ np.linalg.inv(cov[np.ix_(at, at)])
    m, c = np.empty(len(mean)), np.zeros_like(cov)
    m[at], m[rest] = values, mean[rest] + gain @ (values - mean[at])
    c[np.ix_(rest, rest)] = cov[np.ix_(rest, rest)] - gain @ cov[np.ix_(at, rest)]
    return m, c


@pytest.fixture(scope="module", params=SPECS)
def fitted(request):
    return ps.ARMA(**SPECS[request.param]).fit(X)


@pytest.fixture(scope="module")
def walk_draws():
    """A random walk with drift under two parameter draws of unequal weight."""
    model = ps.RandomWalk(drift=True).fit(X)
    params = {"scale": torch.tensor([[0.5], [1.0]]).double(), "drift": torch.tensor(np.array([[0.1], [-0.2]]))}
    model.model_ = Marginalized(model.model_.model, params, torch.tensor(np.log([0.3, 0.7])))
    return model, model.forecast(4, history=np.array([4.0]))


def walk(drift, scale, h=4, start=4.0):
    steps = np.arange(1, h + 1)
    return start + drift * steps, scale**2 * np.minimum.outer(steps, steps)


@pytest.mark.parametrize("history", ["whole", "gapped"])
def test_joint_law_has_the_densities_of_the_filter(fitted, history):
    """log p of each prefix under the dense normal is the sum of the filter's one-step log densities."""
    past = X if history == "whole" else GAPPED
    forecast = fitted.forecast(H, history=past)
    mean, cov = moments(forecast)
    assert_allclose(forecast.mean(), mean, rtol=1e-10)
    assert_allclose(forecast.var(), np.diag(cov), rtol=1e-10)
    y = mean + RNG.normal(size=H)
    steps = fitted.log_prob_steps(y, history=past).values
    for t in range(1, H + 1):
        dense = stats.multivariate_normal(mean[:t], cov[:t, :t]).logpdf(y[:t])
        assert_allclose(dense, steps[:t].sum(), rtol=1e-9)


def test_joint_covariance_of_an_autoregression():
    model = ps.ARMA((1, 0)).with_parameters(ar=[0.8], mean=2.0, scale=1.5)
    _, cov = moments(model.forecast(5, history=[1.0, 3.0]))
    i, j = np.indices((5, 5)) + 1
    expected = 1.5**2 * 0.8 ** abs(i - j) * (1 - 0.8 ** (2 * np.minimum(i, j))) / (1 - 0.8**2)
    assert_allclose(cov, expected, rtol=1e-10)


def test_covariates_move_the_mean_only():
    u = pd.DataFrame({"a": RNG.normal(size=80 + H)})
    model = ps.ARMA((1, 1)).fit(X + 2 * u["a"].to_numpy()[:80], covariates=u.iloc[:80])
    with_zero, with_u = (model.forecast(H, covariates=future) for future in (u.iloc[80:] * 0.0, u.iloc[80:]))
    (m0, c0), (m1, c1) = moments(with_zero), moments(with_u)
    assert_allclose(c0, c1, rtol=1e-12)
    assert_allclose(m1 - m0, u["a"].to_numpy()[80:] * float(model.params_["coefficients"].item()), rtol=1e-9)


def test_sums_are_exact(fitted):
    forecast = fitted.forecast(6)
    mean, cov = moments(forecast)
    total, quarters = forecast.aggregate("sum"), forecast.aggregate("mean", every=3)
    assert total.exact and total.method == "sum, exact" and quarters.n_steps == 2
    assert_allclose(total.mean(), [mean.sum()], rtol=1e-10)
    assert_allclose(total.var(), [cov.sum()], rtol=1e-10)
    a = np.kron(np.eye(2), np.ones(3) / 3)
    assert_allclose(quarters.mean(), a @ mean, rtol=1e-10)
    assert_allclose(quarters.var(), np.diag(a @ cov @ a.T), rtol=1e-10)
    assert_allclose(quarters.aggregate("sum").var() * 9, total.var(), rtol=1e-10)
    y = np.array([9.0, 12.0])
    expected = stats.multivariate_normal(a @ mean, a @ cov @ a.T).logpdf(y)
    assert_allclose(quarters.log_prob(y, joint=True), expected, rtol=1e-9)
    assert list(quarters.mean()["time"].values) == [82, 85] and list(quarters.mean()["horizon"].values) == [1, 2]


def test_cumulative_variance_equals_that_of_statsmodels():
    """statsmodels gives the same figure where the running sum is itself the observed series: one more difference."""
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    model = ps.ARMA((2, 1), trend="n").with_parameters(ar=[0.5, 0.2], ma=[0.4], scale=0.7)
    sums = np.cumsum(X)
    summed = SARIMAX(sums, order=(2, 1, 1)).smooth([0.5, 0.2, 0.4, 0.49]).get_forecast(12)
    forecast = model.forecast(12, history=X[1:])
    assert_allclose(forecast.aggregate("sum").mean() + sums[-1], summed.predicted_mean[-1:], rtol=1e-6)
    assert_allclose(forecast.aggregate("sum").var(), summed.var_pred_mean[-1:], rtol=1e-6)


def test_sums_over_draws_are_a_mixture(walk_draws):
    _, forecast = walk_draws
    total = forecast.aggregate("sum")
    assert total.exact and total.backend == "mixture"
    laws = [walk(0.1, 0.5), walk(-0.2, 1.0)]
    parts = [stats.norm(m.sum(), np.sqrt(c.sum())) for m, c in laws]
    assert_allclose(total.cdf(17.0), [0.3 * parts[0].cdf(17.0) + 0.7 * parts[1].cdf(17.0)], rtol=1e-10)
    assert_allclose(total.decompose()["aleatoric"], [0.3 * parts[0].var() + 0.7 * parts[1].var()], rtol=1e-10)
    draws = total.sample(40_000, random_state=0).values
    assert draws.mean() == pytest.approx(float(total.mean().item()), abs=0.1)
    assert draws.std() == pytest.approx(float(total.std().item()), rel=0.02)


def test_aggregates_that_are_not_linear_come_from_joint_paths(fitted):
    forecast = fitted.forecast(6)
    highest = forecast.aggregate("max", n_paths=500, every=2)
    assert highest.method == "max of 500 paths" and not highest.exact and highest.n_steps == 3
    paths = forecast.sample(500, random_state=0).values
    assert_allclose(highest.mean(), paths.reshape(500, 3, 2).max(2).mean(0), rtol=1e-10)
    under_log = ps.ARMA((1, 0), transform=ps.Log()).fit(X + 5).forecast(3).aggregate("sum")
    assert under_log.method == "sum of 2000 paths"
    for wrong in (4, 0, 2.0, True):
        with pytest.raises(ParameterError, match="divides"):
            forecast.aggregate("sum", every=wrong)
    with pytest.raises(ParameterError, match="variable"):
        forecast.aggregate("sum", over="path")


def test_sums_over_variables():
    y = RNG.normal(size=(60, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    model = ps.IID(ps.Normal("full")).fit(y)
    both = model.forecast(3)
    cov = np.cov(y.T, bias=True)
    across = both.aggregate("sum", over="variable")
    assert across.exact and across.mean().dims == ("time",)
    assert_allclose(across.var(), np.full(3, cov.sum()), rtol=1e-6)
    assert_allclose(across.aggregate("sum").var(), [3 * cov.sum()], rtol=1e-6)
    every = both.aggregate("sum", over="variable", n_paths=50).sample(2)
    assert every.dims == ("path", "time")
    with pytest.raises(ParameterError, match="one of them"):
        both.aggregate("sum", over="variable", every=3)
    assert both.aggregate("max", over="variable", n_paths=50).mean().shape == (3,)


@pytest.mark.parametrize("at", [[2], [0, 3, 6], [4, 5], list(range(H))])
def test_scenarios_are_conditional_normals(fitted, at):
    forecast = fitted.forecast(H)
    mean, cov = moments(forecast)
    values = mean[at] + np.array([1.0, -0.5, 0.7, 0.2, 0.1, 0.4, -0.3])[: len(at)]
    scenario = np.full(H, np.nan)
    scenario[at] = values
    known = forecast.given(scenario)
    m, c = conditional(mean, cov, at, values)
    assert_allclose(known.mean(), m, rtol=1e-8)
    assert_allclose(known.var(), np.diag(c), rtol=1e-7, atol=1e-12)
    assert_allclose(known.median(), m, rtol=1e-8)
    assert_allclose(known.aggregate("sum").var(), [c.sum()], rtol=1e-6, atol=1e-9)
    assert_allclose(known.aggregate("sum").mean(), [m.sum()], rtol=1e-8)
    assert known.exact and f"given {len(at)} value" in known.method
    assert_allclose(known.quantile([0.1, 0.9]).values[at], np.stack([values, values], 1))


@pytest.mark.parametrize("name", ["arma", "arima", "seasonal"])
def test_scenarios_agree_with_filtering_the_known_values(name):
    """What follows the last known value is what a filter says that saw them as data with gaps between."""
    model = ps.ARMA(**SPECS[name]).fit(X)
    scenario = np.full(H, np.nan)
    scenario[[1, 4]] = X[-1] + 0.8, X[-1] - 0.3
    known = model.forecast(H).given(scenario)
    later = model.forecast(H - 5, history=np.concatenate([X, scenario[:5]]))
    assert_allclose(known.mean()[5:], later.mean(), rtol=1e-8)
    assert_allclose(known.std()[5:], later.std(), rtol=1e-8)
    y = later.mean().values + RNG.normal(size=2)
    whole = np.concatenate([np.full(5, np.nan), y])
    assert_allclose(known.log_prob(whole, joint=True), later.log_prob(y, joint=True), rtol=1e-8)
    before = X[-1] + RNG.normal(size=H) * 0.3
    conditions = model.log_prob(scenario, history=ps.TRAINING)
    filled = np.where(np.isnan(scenario), before, scenario)
    assert_allclose(
        known.log_prob(before, joint=True), model.log_prob(filled, history=ps.TRAINING) - conditions, rtol=1e-8
    )


def test_known_steps_are_certain_and_not_scored(fitted):
    scenario = np.array([np.nan, 11.0, np.nan])
    known = fitted.forecast(3).given(scenario)
    y = np.array([10.0, 12.5, 10.5])
    assert known.std().values[1] == 0 and known.crps(y).values[1] == 1.5
    assert known.cdf(11.0).values[1] == 1 and known.cdf(10.9).values[1] == 0
    assert np.isnan(known.log_prob(y).values[1]) and np.isfinite(known.log_prob(y).values[[0, 2]]).all()
    assert (known.sample(5).values[:, 1] == 11.0).all()
    assert (known.interval(0.9).values[1] == 11.0).all() and (known.interval(0.9, "hdi").values[1] == 11.0).all()
    assert np.isfinite(known.energy_score(y).item())
    again = known.given([10.5, np.nan, np.nan])
    assert_allclose(again.mean(), fitted.forecast(3).given([10.5, 11.0, np.nan]).mean(), rtol=1e-9)
    assert_allclose(known.given([np.nan, 11.0, np.nan]).std(), known.std(), rtol=1e-12)
    with pytest.raises(ParameterError, match="known to be 11"):
        known.given([np.nan, 11.5, np.nan])


def test_known_values_weigh_the_draws(walk_draws):
    model, forecast = walk_draws
    at, values = [1, 3], np.array([4.5, 5.5])
    scenario = np.full(4, np.nan)
    scenario[at] = values
    known = forecast.given(scenario)
    laws = [walk(0.1, 0.5), walk(-0.2, 1.0)]
    weights = np.array([0.3, 0.7]) * [stats.multivariate_normal(m[at], c[np.ix_(at, at)]).pdf(values) for m, c in laws]
    weights /= weights.sum()
    parts = [conditional(m, c, at, values) for m, c in laws]
    assert_allclose(known.mean(), sum(w * m for w, (m, _) in zip(weights, parts, strict=True)), rtol=1e-10)
    first = [stats.norm(m[0], np.sqrt(c[0, 0])) for m, c in parts]
    density = sum(w * law.pdf(4.0) for w, law in zip(weights, first, strict=True))
    assert_allclose(known.log_prob([4.0, np.nan, np.nan, np.nan])[0], np.log(density), rtol=1e-10)
    split = known.decompose()
    assert_allclose(split["aleatoric"][0], sum(w * law.var() for w, law in zip(weights, first, strict=True)), rtol=1e-9)
    assert (split["total"].values[at] == 0).all() and (split["aleatoric"].values[at] == 0).all()
    filtered = model.forecast(1, history=np.array([4.0, np.nan, 4.5]))
    assert_allclose(forecast.given([np.nan, 4.5, np.nan, np.nan]).mean()[2], filtered.mean()[0], rtol=1e-9)
    paths = known.sample(40_000, random_state=1)
    assert_allclose(paths.mean("path"), known.mean(), atol=0.02)
    assert_allclose(paths.std("path"), known.std(), rtol=0.02)


@pytest.mark.parametrize(
    "transform",
    [ps.Log(), ps.Standardize(), [ps.Standardize(), ps.Difference()], [ps.Log(), ps.Difference(2)]],
    ids=str,
)
def test_scenarios_through_transforms(transform):
    """The known values go through the transform, and the open ones come back through it."""
    x = np.exp(X / 20)
    model = ps.ARMA((1, 1), transform=transform).fit(x)
    forecast = model.forecast(5)
    scenario = np.array([np.nan, x[-1] * 1.05, np.nan, np.nan, np.nan])
    known = forecast.given(scenario)
    y = x[-1] * np.array([1.01, 1.0, 0.97, 1.1, 1.04])
    open_steps = np.array([0, 2, 3, 4])
    filled = np.where(np.isnan(scenario), y, scenario)
    joint = forecast.log_prob(filled, joint=True) - forecast.log_prob(scenario)[1]
    assert_allclose(known.log_prob(y, joint=True), joint, rtol=1e-9)
    assert known.sample(3).shape == (3, 5) and (known.std().values[open_steps] > 0).all()
    paths = known.sample(30_000, random_state=2)
    assert_allclose(paths.mean("path"), known.mean(), rtol=5e-3)
    assert_allclose(paths.quantile(0.2, "path"), known.quantile(0.2), rtol=5e-3)


def test_scenarios_are_matched_by_name_and_stamp():
    index = pd.date_range("2020-01-31", periods=60, freq="ME")
    y = RNG.normal(size=(60, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    frame = pd.DataFrame(y, index=index, columns=["oil", "demand"])
    forecast = ps.IID(ps.Normal("full")).fit(frame).forecast(4)
    stamps = forecast.mean()["time"].to_index()
    bare = np.full((4, 2), np.nan)
    bare[2, 0] = 1.5
    expected = forecast.given(bare)
    assert expected.mean().sel(variable="demand").values[2] != pytest.approx(forecast.mean().values[2, 1])
    by_name = pd.DataFrame({"oil": [1.5]}, index=stamps[2:3])
    as_array = xr.DataArray(
        [[np.nan, 1.5]], dims=("time", "variable"), coords={"time": stamps[2:3], "variable": ["demand", "oil"]}
    )
    for given in (by_name, as_array):
        assert_allclose(forecast.given(given).mean(), expected.mean(), rtol=1e-12)
    one = expected.marginal("demand")
    assert_allclose(one.mean().squeeze(), expected.mean().sel(variable="demand"), rtol=1e-12)
    assert_allclose(one.aggregate("sum").var().item(), expected.var().sel(variable="demand").sum(), rtol=1e-9)
    with pytest.raises(ShapeError, match="some steps"):
        forecast.given(pd.DataFrame({"oil": [1.0]}, index=index[:1]))
    with pytest.raises(ShapeError, match="gas"):
        forecast.given(pd.DataFrame({"gas": [1.0]}, index=stamps[:1]))
    with pytest.raises(ShapeError, match="horizon"):
        forecast.given(np.zeros((3, 2)))


def test_scenarios_that_cannot_be():
    positive = ps.ARMA((1, 0), transform=ps.Log()).fit(np.exp(X / 20))
    with pytest.raises(SupportError, match="-1"):
        positive.forecast(2).given([np.nan, -1.0])
    with pytest.raises(UnsupportedError, match="fitted model"):
        ps.Forecast.from_paths(RNG.normal(size=(50, 3))).given([0.0, np.nan, np.nan])


def test_many_sequences_have_their_own_laws():
    series = [X[:40], GAPPED[10:70], X[20:80]]
    model = ps.ARMA((1, 1, 1)).with_parameters(ar=[0.6], ma=[-0.5], scale=0.4)
    forecast = model.forecast(3, history=series)
    scenario = np.full((3, 3, 1), np.nan)
    scenario[1, 1], scenario[2, 0] = 10.0, 11.0
    known, total = forecast.given(scenario), forecast.aggregate("sum")
    for i, one in enumerate(series):
        alone = model.forecast(3, history=one)
        assert_allclose(total.std()[i], alone.aggregate("sum").std(), rtol=1e-10)
        row = alone.given(scenario[i, :, 0]) if i else alone
        assert_allclose(known.mean()[i], row.mean(), rtol=1e-10)
        assert_allclose(known.std()[i], row.std(), rtol=1e-10)


def test_joint_bands_hold_whole_trajectories(fitted, walk_draws):
    _, mixture = walk_draws
    known = fitted.forecast(5).given([np.nan, 10.0, np.nan, np.nan, np.nan])
    paths = ps.Forecast.from_paths(fitted.forecast(5).sample(4000, random_state=3))
    for forecast in (fitted.forecast(12), mixture, known, paths):
        band, single = forecast.interval(0.8, joint=True), forecast.interval(0.8)
        x = forecast.sample(40_000, random_state=7)
        inside = ((x >= band.sel(bound="lower")) & (x <= band.sel(bound="upper"))).all("time").mean()
        assert inside.item() == pytest.approx(0.8, abs=0.015)
        assert (band.sel(bound="upper") >= single.sel(bound="upper")).all()
    one = fitted.forecast(1)
    assert_allclose(one.interval(0.8, joint=True), one.interval(0.8), rtol=0.02)
    with pytest.raises(UnsupportedError, match="hdi"):
        fitted.forecast(2).interval(0.8, "hdi", joint=True)
    with pytest.raises(UnsupportedError, match="trajectory"):
        fitted.predictive(X).interval(0.8, joint=True)
    quantiles = ps.Forecast.from_quantiles([0.1, 0.9], [[0.0, 1.0], [0.0, 2.0]])
    with pytest.raises(UnsupportedError, match="joint"):
        quantiles.interval(0.8, joint=True)


def test_frozen_weights_have_no_common_joint_law(walk_draws):
    model, _ = walk_draws
    frozen = model.model_.frozen()
    state = frozen.filter({}, model._batch(model._read(np.array([4.0]), None, None)))
    assert frozen.forecast_joint({}, state, 3) is None
    assert model.model_.forecast_joint({}, state, 3).batch_shape == (1,)


def test_a_joint_law_of_one_step_is_its_marginal(fitted):
    forecast = fitted.forecast(1)
    total = forecast.aggregate("mean")
    assert_allclose([total.mean().item(), total.std().item()], [forecast.mean().item(), forecast.std().item()])
