"""Forecasts on the data's scale: means and medians after logarithms, powers and differences, many steps ahead."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

import probseq as ps
from probseq.models.marginal import Marginalized

RNG = np.random.default_rng(0)
Z = 0.6 + np.cumsum(RNG.normal(size=90)) * 0.05
X = np.exp(Z)
H = 6


def integral(power, mean, std, lmbda):
    """E[x^power] by adaptive quadrature, x = (lmbda z + 1)^(1 / lmbda), z ~ N(mean, std^2) in the map's range."""
    low, high = (-1 / lmbda, mean + 12 * std) if lmbda > 0 else (mean - 12 * std, -1 / lmbda)
    low, high = max(low, mean - 12 * std), min(high, mean + 12 * std)
    density = lambda z: np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))  # noqa: E731
    return integrate.quad(lambda z: (lmbda * z + 1) ** (power / lmbda) * density(z), low, high, epsabs=0)[0]


@pytest.mark.parametrize("spec", [dict(order=(1, 1)), dict(order=(0, 1, 1), seasonal_order=(1, 0, 0, 4))], ids=str)
def test_log_forecasts_are_log_normal_at_every_step(spec):
    outer = ps.ARMA(**spec, transform=ps.Log()).fit(X)
    inner = ps.ARMA(**spec).with_parameters(**{name: v.values for name, v in outer.params_.items()})
    on_logs = inner.forecast(H, history=np.log(X))
    m, v = on_logs.mean().values, on_logs.var().values
    forecast = outer.forecast(H)
    assert_allclose(forecast.median(), np.exp(m), rtol=1e-10)
    assert_allclose(forecast.mean(), np.exp(m + v / 2), rtol=1e-10)
    assert_allclose(outer.predict(horizon=H), np.exp(m + v / 2), rtol=1e-10)
    assert_allclose(forecast.var(), np.expm1(v) * np.exp(2 * m + v), rtol=1e-10)


@pytest.mark.parametrize("lag", [1, 3])
def test_differences_of_logs_keep_an_exact_law_beyond_their_lag(lag):
    """An ARIMA and an ARMA of the differences are one law: equal means and medians at all steps."""
    order, seasonal = ((1, 1, 1), (0, 0, 0)) if lag == 1 else ((1, 0, 1), (0, 1, 0, lag))
    inside = ps.ARMA(order, seasonal, trend="c", transform=ps.Log()).fit(X)
    parameters = {name: v.values for name, v in inside.params_.items()}
    by_transform = ps.ARMA((1, 1), transform=[ps.Log(), ps.Difference(lag)]).with_parameters(**parameters)
    forecast, expected = by_transform.forecast(2 * lag + 2, history=X), inside.forecast(2 * lag + 2)
    assert forecast.exact and forecast.backend == "analytic"
    for name in ("mean", "median", "std"):
        assert_allclose(getattr(forecast, name)(), getattr(expected, name)(), rtol=1e-7)
    paths = forecast.sample(40_000, random_state=0)
    assert_allclose(paths.mean("path"), forecast.mean(), rtol=0.01)
    simulated = by_transform.sample(2 * lag + 2, 20_000, history=X, random_state=1).squeeze("variable")
    assert_allclose(simulated.mean("sequence"), forecast.mean(), rtol=0.01)
    assert_allclose(simulated.median("sequence"), forecast.median(), rtol=0.01)


def test_a_walk_is_the_sum_of_its_steps():
    y = np.cumsum(RNG.normal(size=(50, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]]), 0)
    changes = np.diff(y, axis=0)
    model = ps.IID(ps.Normal("full"), transform=ps.Difference()).fit(y)
    forecast = model.forecast(4)
    steps = np.arange(1, 5)
    assert forecast.exact
    assert_allclose(forecast.mean(), y[-1] + steps[:, None] * changes.mean(0), rtol=1e-6)
    assert_allclose(forecast.var(), steps[:, None] * changes.var(0), rtol=1e-6)
    joint = stats.multivariate_normal(
        (y[-1] + steps[:, None] * changes.mean(0)).ravel(),
        np.kron(np.minimum.outer(steps, steps), np.cov(changes.T, bias=True)),
    )
    at = y[-1] + RNG.normal(size=(4, 2))
    assert_allclose(forecast.log_prob(at, joint=True), joint.logpdf(at.ravel()), rtol=1e-6)


@pytest.mark.parametrize("period, gap", [(1, False), (3, False), (3, True)])
def test_seasonal_walks_have_the_joint_law_of_their_filter(period, gap):
    x = X.copy()
    if gap:
        x[-2] = np.nan
    model = ps.RandomWalk(drift=True) if period == 1 else ps.SeasonalNaive(period)
    model.fit(x)
    forecast = model.forecast(7)
    y = forecast.mean().values + RNG.normal(size=7) * 0.1
    law = forecast._joint.closed().law
    dense = stats.multivariate_normal(law.loc[0].numpy(), law.covariance[0].numpy()).logpdf(y)
    assert_allclose(dense, model.log_prob(y, history=ps.TRAINING), rtol=1e-10)
    assert_allclose(law.stddev[0].numpy(), forecast.std(), rtol=1e-10)


@pytest.mark.parametrize("lmbda", [0.5, -0.4, 2.0])
def test_power_forecasts_have_their_mean_and_median(lmbda):
    outer = ps.ARMA((1, 1), transform=ps.BoxCox(lmbda)).fit(X + 2)
    inner = ps.ARMA((1, 1)).with_parameters(**{name: v.values for name, v in outer.params_.items()})
    on_powers = inner.forecast(H, history=stats.boxcox(X + 2, lmbda))
    m, s = on_powers.mean().values, on_powers.std().values
    forecast = outer.forecast(H)
    assert forecast.exact
    assert_allclose(forecast.median(), (lmbda * m + 1) ** (1 / lmbda), rtol=1e-10)
    if lmbda > 0:
        expected = [integral(1, *one, lmbda) for one in zip(m, s, strict=True)]
        second = [integral(2, *one, lmbda) for one in zip(m, s, strict=True)]
        assert_allclose(forecast.mean(), expected, rtol=1e-9)
        assert_allclose(forecast.var(), np.array(second) - np.square(expected), rtol=1e-7)
    y = forecast.median().values * (1 + 0.05 * RNG.normal(size=H))
    assert_allclose(forecast.log_prob(y, joint=True), outer.log_prob(y, history=ps.TRAINING), rtol=1e-10)
    assert_allclose(
        forecast._joint.closed().log_prob(y[None, :, None]), outer.log_prob(y, history=ps.TRAINING), rtol=1e-9
    )
    known = forecast.given([np.nan, y[1], *[np.nan] * (H - 2)])
    assert_allclose(
        known.given([y[0], *[np.nan] * (H - 1)]).median()[2],
        outer.forecast(1, history=np.append(X + 2, y[:2])).median()[0],
        rtol=1e-8,
    )


def test_powers_near_their_bound_stay_with_paths():
    """Where mass outside the range of the map counts, renormalising at every step has no closed form ahead."""
    x = np.abs(RNG.normal(size=80)) + 0.01
    forecast = ps.ARMA((1, 0), transform=ps.BoxCox(0.5)).fit(x).forecast(3)
    assert not forecast.exact and "paths" in forecast.method
    assert (forecast.sample(500).values > 0).all()


@pytest.mark.parametrize("transform", [ps.Log(), ps.BoxCox(0.5)], ids=str)
def test_draws_mix_on_the_data_scale(transform):
    """The mean is the mean of the draws' means and the median that of the mixture, not of the averaged parameters."""
    model = ps.ARMA((1, 0), transform=transform).fit(X + 2)
    params = {
        "ar": torch.tensor([[0.5], [0.95]]).double(),
        "mean": torch.tensor([1.2, 1.8]).double(),
        "scale": torch.tensor([0.1, 0.3]).double(),
    }
    model.model_ = Marginalized(model.model_.model, params, torch.tensor(np.log([0.4, 0.6])))
    forecast = model.forecast(4, history=np.array([4.0]))
    weights = model.filter(np.array([4.0])).tree.log_weights.exp().numpy()[0]
    parts = []
    for d in range(2):
        one = {name: value[d].numpy() for name, value in params.items()}
        z = np.log(4.0) if isinstance(transform, ps.Log) else stats.boxcox(4.0, 0.5)
        ahead = ps.ARMA((1, 0)).with_parameters(**one).forecast(4, history=np.array([float(z)]))
        parts.append((ahead.mean().values, ahead.std().values))
    if isinstance(transform, ps.Log):
        means = [np.exp(m + s**2 / 2) for m, s in parts]
        back = np.log
    else:
        means = [np.array([integral(1, *one, 0.5) for one in zip(m, s, strict=True)]) for m, s in parts]
        back = lambda x: 2 * (np.sqrt(x) - 1)  # noqa: E731
    assert forecast.exact and forecast.backend == "mixture"
    assert_allclose(forecast.mean(), weights @ np.array(means), rtol=1e-7)
    below = sum(
        w * stats.norm(m, s).cdf(back(forecast.median().values)) for w, (m, s) in zip(weights, parts, strict=True)
    )
    assert_allclose(below, 0.5, rtol=1e-9)
