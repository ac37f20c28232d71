"""Structural models: quoted values, statsmodels, the step loop, gradients of the profile, draws of missing values."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.errors import DataError, EmptyDataError, ParameterError, ShapeError
from probseq.inference.optimize import MLE
from probseq.models.base import Batch
from probseq.models.structural import StructuralModel
from probseq.testing import check_model


def make_batch(*series, u=None):
    t = max(len(y) for y in series)
    x = np.full((len(series), t, 1), np.nan)
    for i, y in enumerate(series):
        x[i, : len(y), 0] = y
    seen = ~np.isnan(x)
    lengths = torch.tensor([len(y) for y in series])
    covariates = None if u is None else torch.as_tensor(u, dtype=torch.float64)
    return Batch(torch.tensor(np.where(seen, x, 0.0)), torch.tensor(seen), lengths, covariates)


def make_model(**settings):
    return StructuralModel(Observation(1), **settings)


def fit(model, batch):
    return MLE().fit(model, batch, torch.Generator().manual_seed(0))


def nile():
    return sm.datasets.nile.load_pandas().data["volume"].to_numpy(dtype=float, copy=True)


def air_with_gaps():
    y = np.log(ps.datasets.air_passengers().values.astype(float).ravel())
    y[[3, 20, 21, 50, 77]] = np.nan
    return y


def test_nile():
    """Log-likelihood -632.5456 over the values 2..100 at variances 15099 and 1469.1 (Durbin and Koopman 2012, table 2.1
    and section 2.10; -633.4646 also scores the diffuse first value)."""
    model, batch = make_model(), make_batch(nile())
    params = {"scale": torch.tensor(15099.0).double().sqrt(), "level_scale": torch.tensor(1469.1).double().sqrt()}
    steps = model.log_prob_steps(params, batch)
    assert float(steps.values.sum()) == pytest.approx(-632.5456, abs=5e-5)
    assert not steps.scored[0, 0] and steps.scored[0, 1:].all()
    draws = fit(model, batch)
    assert draws.log_prob == pytest.approx(-632.5456, abs=5e-5) and draws.converged
    assert float(draws.params["scale"]) ** 2 == pytest.approx(15099, abs=1)
    assert float(draws.params["level_scale"]) ** 2 == pytest.approx(1469.1, abs=0.2)
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch)), abs=1e-9)


PEERS = {
    "level": ({}, "llevel", {}),
    "trend": ({"trend": True}, "lltrend", {}),
    "dummies": ({"period": 12}, "llevel", {"seasonal": 12}),
    "harmonics": (
        {"trend": True, "period": 12, "seasonal": "trigonometric"},
        "lltrend",
        {"freq_seasonal": [{"period": 12}]},
    ),
    "regression": ({"trend": True, "n_covariates": 1}, "lltrend", {}),
}


@pytest.mark.parametrize("name", PEERS)
def test_equals_statsmodels(name):
    """Log-likelihoods of scored values, smoothed components with their variances, forecasts; gaps; exact diffuse."""
    settings, kind, more = PEERS[name]
    y = air_with_gaps()
    u = np.random.default_rng(0).normal(size=(1, len(y), settings.get("n_covariates", 0)))
    model, batch = make_model(**settings), make_batch(y, u=u if u.size else None)
    if u.size:
        more = {"exog": u[0], "mle_regression": True}
    peer = sm.tsa.UnobservedComponents(y, kind, use_exact_diffuse=True, **more)
    peer.ssm.tolerance = 0.0  # else it takes covariances for constant that still change by 1e-5
    values = dict(zip(model.scales, (0.012, 0.03, 0.002, 0.006), strict=False))
    if "slope_scale" not in model.parameters() and model.period:
        values = dict(zip(model.scales, (0.012, 0.03, 0.006), strict=True))
    params = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
    theirs = [v**2 for v in values.values()]
    if u.size:
        params["coefficients"] = torch.tensor([0.05], dtype=torch.float64)
        theirs.append(0.05)
    steps = model.log_prob_steps(params, batch)
    scored = steps.scored[0, :, 0].numpy()
    assert scored.sum() == len(y) - 5 - model.row.size
    np.testing.assert_allclose(steps.values[0].numpy()[scored], peer.loglikeobs(theirs)[scored], atol=1e-9)
    result = peer.smooth(theirs)
    smoothed = model.smooth(params, batch)
    level = result.states.smoothed.to_numpy() if hasattr(result.states.smoothed, "to_numpy") else result.states.smoothed
    np.testing.assert_allclose(smoothed.mean[0, :, 0], level[:, 0], atol=1e-8)
    peer_cov = result.smoother_results.smoothed_state_cov
    np.testing.assert_allclose(smoothed.cov[0, :, 0, 0], peer_cov[0, 0], atol=1e-8)
    ahead = np.random.default_rng(1).normal(size=(1, 6, u.shape[-1]))
    future = {"exog": ahead[0]} if u.size else {}
    theirs_ahead = result.get_forecast(6, **future)
    law = model.forecast_marginals(params, steps.final, 6, torch.tensor(ahead) if u.size else None)
    np.testing.assert_allclose(law.mean[0, :, 0], theirs_ahead.predicted_mean, atol=1e-8)
    np.testing.assert_allclose(law.variance[0, :, 0], theirs_ahead.var_pred_mean, atol=1e-8)


def test_fit_is_no_worse_than_statsmodels():
    y = air_with_gaps()
    model, batch = make_model(trend=True, period=12, seasonal="trigonometric"), make_batch(y)
    draws = fit(model, batch)
    peer = sm.tsa.UnobservedComponents(y, "lltrend", freq_seasonal=[{"period": 12}], use_exact_diffuse=True)
    best = peer.fit(disp=0, maxiter=500).params
    theirs = {name: torch.tensor(max(v, 1e-24)).double().sqrt() for name, v in zip(model.scales, best, strict=True)}
    assert draws.converged and draws.log_prob >= float(model.log_prob(theirs, batch))
    # The slope does not vary.
    assert float(draws.params["slope_scale"]) < 1e-6 * float(draws.params["scale"])


def panel():
    rng = np.random.default_rng(2)
    series = [rng.normal(size=t).cumsum() + rng.normal(size=t) for t in (40, 40, 25)]
    series[1][[5, 6, 20]] = np.nan
    return make_batch(*series, u=rng.normal(size=(3, 40, 2)))


@pytest.mark.parametrize("settings", [{}, {"trend": True, "damped": True}, {"period": 4, "seasonal": "trigonometric"}])
def test_profile_of_a_weighted_panel(settings):
    """Gradient against finite differences; value against the likelihood at its own parameters."""
    model, batch = make_model(n_covariates=2, **settings), panel()
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    profile = model.concentrated(batch, weights)
    rng = np.random.default_rng(0)
    x = rng.normal(size=profile.size) + 0.5
    value, gradient = profile.objective(x)
    whole = float((model.log_prob(profile.parameters(x), batch) * weights).sum())
    assert -value * profile.count == pytest.approx(whole, abs=1e-8)
    for i in range(profile.size):
        move = 1e-6 * np.eye(profile.size)[i]
        slope = (profile.objective(x + move)[0] - profile.objective(x - move)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)


def test_scaling_the_data_scales_the_fit():
    y = nile()
    small, large = fit(make_model(), make_batch(y)), fit(make_model(), make_batch(1e8 * y - 3e9))
    for name in ("scale", "level_scale"):
        assert float(large.params[name]) == pytest.approx(1e8 * float(small.params[name]), rel=1e-4)


@pytest.mark.parametrize("settings, start", [
    ({"trend": True, "period": 3}, 4),
    ({"trend": True, "damped": True, "n_covariates": 1}, 2),
])  # fmt: skip
def test_conforms(settings, start):
    check_model(make_model(**settings), start=start)


def test_draws_of_missing_values_follow_the_smoothed_law():
    y = nile()
    y[[0, 30, 31, 32, 99]] = np.nan
    model, batch = make_model(), make_batch(y)
    params = {"scale": torch.tensor(122.9).double(), "level_scale": torch.tensor(38.3).double()}
    n = 4000
    x = model.sample_values(params, batch, n, torch.Generator().manual_seed(0))[:, 0, :, 0]
    law = model.smooth(params, batch)
    np.testing.assert_allclose(x[:, 5], y[5], rtol=1e-12)
    for t in (0, 30, 31, 99):
        mean, variance = float(law.x[0, t, 0]), float(law.x_cov[0, t, 0, 0])
        assert abs(float(x[:, t].mean()) - mean) < 4 * (variance / n) ** 0.5
        assert float(x[:, t].var()) == pytest.approx(variance, rel=0.1)
    joint = float(torch.cov(x[:, 30:32].T)[0, 1])
    assert joint == pytest.approx(float(law.across[0, 30, 0, 0]), rel=0.2)


def test_wrong_settings_and_data():
    with pytest.raises(ParameterError, match="period=1"):
        make_model(period=1)
    with pytest.raises(ParameterError, match="seasonal='dummies'"):
        make_model(period=4, seasonal="dummies")
    with pytest.raises(ShapeError, match="2 variables"):
        StructuralModel(Observation(2))
    with pytest.raises(EmptyDataError, match="left to score"):
        make_model(trend=True).concentrated(make_batch(np.arange(3.0)))
    with pytest.raises(DataError, match="does not vary"):
        make_model().concentrated(make_batch(np.full(20, 3.0)))


@pytest.mark.parametrize("trend", [False, True])
def test_covariates_that_explain_everything_are_named(trend):
    u = torch.randn(1, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (10.0 + 2.0 * u[..., 0] - u[..., 1]).numpy()
    draws = fit(make_model(trend=trend, n_covariates=2), make_batch(*y, u=u))
    assert any("explain the series but for rounding" in m for m in draws.messages)
    assert np.allclose(draws.params["coefficients"].squeeze(), [2.0, -1.0], rtol=1e-6)
    assert float(draws.params["scale"]) < 1e-6 and np.isfinite(draws.log_prob)
    noisy = y + 1e-3 * np.random.default_rng(0).standard_normal(40)
    assert not fit(make_model(trend=trend, n_covariates=2), make_batch(*noisy, u=u)).messages
