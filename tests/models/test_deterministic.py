"""Lines and waves in ARMA models: dense Gaussian laws, statsmodels, continuation, streaming, errors."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy.stats import multivariate_normal

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.distributions.params import unconstrained_size, unflatten
from probseq.errors import DataError, ParameterError
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.deterministic import Deterministic

WAVES = ((12.3, 2), (7, 1))


def make_model(order=(1, 0, 1), seasonal=(0, 0, 0, 1), constant=True, trend=True, fourier=WAVES, m=0):
    return ARMAModel(Observation(1), order, seasonal, constant, m, trend, fourier)


def example(model, draw, generator, n=3, t=40):
    """Ragged sequences, the second with gaps, and random parameters."""
    specs = model.parameters()
    flat = 0.6 * torch.randn(*draw, unconstrained_size(specs), dtype=torch.float64, generator=generator)
    x = torch.randn(n, t, 1, dtype=torch.float64, generator=generator).cumsum(1)
    seen = torch.ones(n, t, 1, dtype=torch.bool)
    seen[1] = torch.rand(t, 1, generator=generator) > 0.2
    lengths = torch.full((n,), t)
    lengths[2] = t - 11
    seen[2, t - 11 :] = False
    m = model.n_covariates
    u = torch.randn(n, t, m, dtype=torch.float64, generator=generator) if m else None
    return unflatten(specs, flat), Batch(torch.where(seen, x, 0.0), seen, lengths, u)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(11)


def waves(t, periods=WAVES):
    """The columns written out."""
    columns = []
    for period, harmonics in periods:
        for k in range(1, harmonics + 1):
            columns += [np.sin(2 * np.pi * k * t / period), np.cos(2 * np.pi * k * t / period)]
    return np.stack(columns, -1)


def test_the_law_is_the_dense_normal_around_the_line_and_the_waves():
    rng = np.random.default_rng(0)
    n, phi, scale = 30, 0.6, 1.3
    gamma = rng.normal(size=6)
    t = np.arange(1, n + 1)
    y = rng.normal(size=n)
    params = {"ar": [phi], "mean": 2.0, "trend": 0.3, "fourier": gamma, "scale": scale}
    model = ps.ARMA((1, 0), trend="ct", fourier=dict(WAVES)).with_parameters(**params)
    location = 2.0 + 0.3 * t + waves(t) @ gamma
    cov = scale**2 / (1 - phi**2) * phi ** np.abs(t[:, None] - t)
    assert float(model.log_prob(y)) == pytest.approx(multivariate_normal.logpdf(y, location, cov), abs=1e-9)
    y[[4, 5, 20]] = np.nan
    seen = ~np.isnan(y)
    expected = multivariate_normal.logpdf(y[seen], location[seen], cov[np.ix_(seen, seen)])
    assert float(model.log_prob(y)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("d, seasonal_d", [(1, 0), (2, 0), (1, 1), (0, 1)])
def test_a_trend_with_differences_is_one_of_the_differences(d, seasonal_d):
    """Delta(B) x - mean - trend t is the stationary process, and waves act on the levels."""
    rng = np.random.default_rng(1)
    n, s = 60, 4
    y = np.cumsum(rng.normal(size=n))
    t = np.arange(1.0, n + 1)
    params = {"ar": [0.5], "mean": 0.7, "trend": -0.2, "fourier": [1.0, -2.0], "scale": 1.1}
    seasonal = (0, seasonal_d, 0, s) if seasonal_d else (0, 0, 0)
    model = ps.ARMA((1, d, 0), seasonal, trend="ct", fourier={12.3: 1}).with_parameters(**params)
    left = y - waves(t, ((12.3, 1),)) @ np.array([1.0, -2.0])
    for lag in [1] * d + [s] * seasonal_d:
        left, t = left[lag:] - left[:-lag], t[lag:]
    stationary = ps.ARMA((1, 0), trend="n").with_parameters(ar=[0.5], scale=1.1)
    expected = stationary.log_prob_steps(left - 0.7 + 0.2 * t)
    found = model.log_prob_steps(y)
    np.testing.assert_allclose(found[n - len(left) :], expected, atol=1e-9)
    assert np.isnan(found[: n - len(left)]).all()
    y[[0, 25, 26]] = np.nan
    fitted = ps.ARMA((1, d, 0), seasonal, trend="ct", fourier={12.3: 1}).fit(y)
    assert fitted.log_likelihood_ >= float(model.log_prob(y))
    assert fitted.draws_.log_prob == pytest.approx(fitted.log_likelihood_, abs=1e-7)


def test_estimates_equal_statsmodels():
    """Regression with ARMA errors on [1, t, waves], the trend "ct" of statsmodels' ARIMA."""
    y = ps.datasets.lake_huron().values.ravel()
    n = len(y)
    model = ps.ARMA((1, 1), trend="ct", fourier={11.5: 2}).fit(y)
    peer = sm.tsa.ARIMA(y, order=(1, 0, 1), trend="ct", exog=waves(np.arange(1, n + 1), ((11.5, 2),)))
    p = model.params_
    ours = [p["mean"], p["trend"], *p["fourier"], *p["ar"], *p["ma"], p["scale"] ** 2]
    ours = np.array([float(value) for value in ours])
    assert peer.loglike(ours) == pytest.approx(model.log_likelihood_, abs=1e-7)
    found = peer.fit(cov_type="oim", method_kwargs={"maxiter": 500})
    assert model.log_likelihood_ >= found.llf - 1e-8
    np.testing.assert_allclose(found.params, ours, rtol=2e-3, atol=2e-3)
    errors = model.standard_errors_
    np.testing.assert_allclose([float(errors["trend"]), *errors["fourier"].values], np.array(found.bse)[1:6], rtol=0.01)
    future = np.array(found.forecast(5, exog=waves(np.arange(n + 1, n + 6), ((11.5, 2),))))
    np.testing.assert_allclose(model.forecast(5).mean(), future, atol=2e-2)


@pytest.mark.parametrize("draw", [(), (2,)])
@pytest.mark.parametrize(
    "order, seasonal, m",
    [((1, 0, 1), (0, 0, 0, 1), 0), ((2, 1, 0), (0, 1, 1, 4), 1), (((1, 3), 0, 0), (0, 0, 0, 1), 2)],
)
def test_fast_forms_equal_the_step_loop(order, seasonal, m, draw, generator):
    model = make_model(order, seasonal, m=m)
    params, batch = example(model, draw, generator)
    start = model.initial_state(params, 3)
    loop, scan = SequenceModel._scan(model, params, batch, start), model._scan(params, batch, start)
    fast = model.log_prob_steps(params, batch)
    for a, b in ((loop.states, scan.states), (loop.final, scan.final), (loop.final, fast.final)):
        map_state(lambda one, other: np.testing.assert_allclose(one, other, atol=2e-8) or one, a, b)
    law, scored = model._fold(params, batch, loop)
    values = law.log_prob_seen(batch.x, scored)
    np.testing.assert_allclose(torch.where(scored.any(-1), values, 0.0), fast.values, atol=1e-9)
    early = model.log_prob_steps(params, batch.slice_time(0, 17))
    late = model.log_prob_steps(params, batch.slice_time(17, 40), early.final)
    np.testing.assert_allclose(torch.cat([early.values, late.values], -1), fast.values, atol=1e-9)
    predictive, _ = model.predictive(params, batch)
    real = batch.real.expand(*draw, 3, 40)
    np.testing.assert_allclose(predictive.loc[real], law.loc[real], atol=2e-8)


def test_sequences_of_different_ages_forecast_from_their_own_step(generator):
    model = make_model((2, 1, 0), (0, 1, 1, 4))
    params, batch = example(model, (2,), generator)
    state = model.filter(params, batch)
    assert len(set(state.age[0].tolist())) == 2
    law = model.forecast_marginals(params, state, 5)
    for i in range(3):
        one = map_state(lambda leaf, i=i: leaf[:, i : i + 1], state)
        alone = model.forecast_marginals(params, one, 5)
        np.testing.assert_allclose(law.loc[:, i], alone.loc[:, 0], atol=1e-10)
        step, after = model.predict_next(params, one), one
        np.testing.assert_allclose(step.loc[:, 0], alone.loc[:, 0, 0], atol=1e-9)
        after = model.update(params, after, step.loc, torch.zeros(1, 1, dtype=torch.bool))
        np.testing.assert_allclose(model.predict_next(params, after).loc[:, 0], alone.loc[:, 0, 1], atol=1e-9)
    many = map_state(lambda leaf: leaf.repeat_interleave(4000, 1), state)
    paths, _ = model.sample(params, many, 5, generator)
    error = (paths.reshape(2, 3, 4000, 5, 1).mean(2) - law.loc) / law.scale * 4000**0.5
    assert float(error.abs().max()) < 4.5


def test_gradients_equal_finite_differences(generator):
    for order, seasonal in (((1, 0, 1), (0, 0, 0, 1)), ((0, 1, 1), (0, 1, 1, 4))):
        model = make_model(order, seasonal, m=1)
        params, batch = example(model, (2,), generator)
        specs = model.parameters()
        flat = torch.randn(2, unconstrained_size(specs), dtype=torch.float64, generator=generator)
        direction = torch.randn(flat.shape, dtype=torch.float64, generator=generator)

        def value(x, model=model, batch=batch, specs=specs):
            return model.log_prob(unflatten(specs, x), batch).sum()

        at = flat.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(value(at), at)
        expected = float(value(flat + 1e-6 * direction) - value(flat - 1e-6 * direction)) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gaps", [False, True])
def test_the_profile_is_the_likelihood(gaps, generator):
    for order, seasonal in (((1, 0, 1), (0, 0, 0, 1)), ((1, 1, 1), (0, 1, 1, 4)), (((1, 3), 1, 1), (0, 0, 0, 1))):
        model = make_model(order, seasonal, m=1)
        _, batch = example(model, (), generator, t=60)
        if not gaps:
            batch = batch._replace(seen=batch.real.unsqueeze(-1))
        draws = MLE().fit(model, batch, torch.Generator())
        params = {name: value[0] for name, value in draws.params.items()}
        assert draws.log_prob == pytest.approx(float(model.log_prob(params, batch).sum()), abs=1e-7)
        moved = {name: value.clone().requires_grad_(True) for name, value in params.items()}
        model.log_prob(moved, batch).sum().backward()
        for name in ("mean", "trend", "fourier", "coefficients", "scale"):
            assert float((moved[name].grad * params["scale"]).abs().max()) < 2e-3, name
        assert draws.covariance.shape == (unconstrained_size(model.parameters()),) * 2


def test_forecasts_continue_the_waves_and_streams_follow():
    t = np.arange(1, 401)
    rng = np.random.default_rng(4)
    clean = 5 + 0.02 * t + waves(t, ((36.525, 2),)) @ np.array([3.0, 1.0, -1.0, 0.5])
    y = clean + 0.1 * rng.normal(size=400)
    model = ps.ARMA((1, 0), trend="ct", fourier={36.525: 2}).fit(y[:300])
    np.testing.assert_allclose(model.forecast(100).mean(), clean[300:], atol=0.15)
    state = model.initial_state()
    for value in y[:50]:
        state = model.update(state, value)
    np.testing.assert_allclose(
        float(model.predictive_at(state).mean().squeeze()), float(model.predictive(y[:51]).mean()[50]), atol=1e-10
    )
    whole = model.log_prob_steps(y)
    np.testing.assert_allclose(model.log_prob_steps(y[120:], history=y[:120]), whole[120:], atol=1e-9)
    np.testing.assert_allclose(model.forecast(7, history=y[:350]).mean(), clean[350:357], atol=0.3)
    np.testing.assert_allclose(model.forecast(state=state, horizon=3).mean().squeeze(), clean[50:53], atol=0.3)
    assert list(model.params_["fourier"].fourier_term.values[:2]) == ["sin(2 pi 1 t/36.525)", "cos(2 pi 1 t/36.525)"]
    assert "fourier[cos(2 pi 2 t/36.525)]" in model.summary().index
    assert model.n_parameters_ == 8


def test_a_saved_model_goes_on(tmp_path):
    y = np.random.default_rng(0).normal(size=80)
    model = ps.ARMA(([1, 3], 0), trend="t", fourier={7: 3, 30.4: 1}).fit(y)
    model.save(tmp_path / "model.probseq")
    again = ps.load(tmp_path / "model.probseq")
    np.testing.assert_array_equal(again.forecast(9).mean(), model.forecast(9).mean())
    assert again.get_params()["fourier"] == {7: 3, 30.4: 1} and again.get_params()["order"] == ([1, 3], 0)


def test_a_bayesian_trend():
    y = 0.05 * np.arange(120) + np.random.default_rng(3).normal(size=120)
    point = ps.ARMA((1, 0), trend="ct").fit(y)
    law = ps.ARMA((1, 0), trend="ct", inference=ps.Laplace(n_draws=300), random_state=0).fit(y)
    error = float(point.standard_errors_["trend"])
    assert float(law.params_["trend"].mean()) == pytest.approx(float(point.params_["trend"]), abs=0.3 * error)
    assert float(law.params_["trend"].std()) == pytest.approx(error, rel=0.3)


def test_the_last_harmonic_of_an_even_period_has_no_sine():
    names = Deterministic(fourier=((4, 2),)).names
    assert names == ["sin(2 pi 1 t/4)", "cos(2 pi 1 t/4)", "cos(2 pi 2 t/4)"]
    y = np.random.default_rng(1).normal(size=60) + np.tile([1.0, -2.0, 0.5, 3.0], 15)
    by_waves = ps.ARMA((1, 0), fourier={4: 2}).fit(y)
    dummies = np.eye(4)[np.arange(60) % 4][:, 1:]
    by_dummies = ps.ARMA((1, 0)).fit(y, covariates=dummies)
    assert by_waves.log_likelihood_ == pytest.approx(by_dummies.log_likelihood_, abs=1e-7)


def test_waves_are_exact_after_many_steps():
    steps = torch.tensor([10**12 + 3])
    found = Deterministic(fourier=((7, 1),)).fourier(steps)[0].numpy()
    turn = 2 * np.pi * ((10**12 + 3) % 7) / 7
    np.testing.assert_allclose(found, [np.sin(turn), np.cos(turn)], atol=1e-12)


def test_terms_that_cannot_be_told_apart_raise():
    y = np.random.default_rng(0).normal(size=60)
    for fourier, words in (
        ({12: 7}, "half the period"),
        ({12: 2, 6: 1}, "which are the same"),
        ({1.5: 1}, "at least 2"),
        ({12: 0}, "whole number from 1"),
        ({"week": 1}, "number of steps"),
        ([(12, 2)], "a dict"),
    ):
        with pytest.raises(ParameterError, match=words):
            ps.ARMA((1, 0), fourier=fourier).fit(y)
    with pytest.raises(ParameterError, match="seasonal differences over 12"):
        ps.ARMA((1, 0, 0), (0, 1, 1, 12), fourier={12: 2}).fit(y)
    with pytest.raises(ParameterError, match="trend='q'"):
        ps.ARMA((1, 0), trend="q").fit(y)
    with pytest.raises(DataError, match="explain"):
        ps.ARMA((1, 0), fourier={1e9: 1}).fit(y)
    with pytest.raises(DataError, match="around the terms"):
        ps.ARMA((1, 0), trend="ct").fit(np.arange(30.0))


def test_joint_forecasts_hold_the_line_and_the_waves(generator):
    for order, seasonal in (((1, 0, 1), (0, 0, 0, 1)), ((1, 1, 0), (0, 1, 1, 4))):
        model = make_model(order, seasonal)
        params, batch = example(model, (2,), generator)
        state = model.filter(params, batch)
        law, joint = model.forecast_marginals(params, state, 6), model.forecast_joint(params, state, 6)
        np.testing.assert_allclose(joint.loc, law.loc.squeeze(-1), atol=1e-8)
