"""ARMA models: quoted values, the dense Gaussian, the naive step loop, gradients, simulation and recovery."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from statsmodels.tsa.statespace.tests.results import results_sarimax

from probseq.data import datasets
from probseq.distributions.emissions import Observation
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.distributions.stationary import Stationary
from probseq.errors import CovariateError, DataError, ParameterError, ShapeError
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.arma_likelihood import ARMAProfile
from probseq.models.base import Batch, SequenceModel, map_state

WHITE = (0, 0, 0, 1)


def make_batch(*series, u=None):
    t = max(len(y) for y in series)
    x = np.full((len(series), t, 1), np.nan)
    for i, y in enumerate(series):
        x[i, : len(y), 0] = y
    seen = ~np.isnan(x)
    lengths = torch.tensor([len(y) for y in series])
    covariates = None if u is None else torch.as_tensor(u, dtype=torch.float64)
    return Batch(torch.tensor(np.where(seen, x, 0.0)), torch.tensor(seen), lengths, covariates)


def make_model(order, seasonal_order=WHITE, constant=True, n_covariates=0):
    return ARMAModel(Observation(1), order, seasonal_order, constant, n_covariates)


def fit(model, batch, **settings):
    return MLE(**settings).fit(model, batch, torch.Generator().manual_seed(0))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def air():
    return np.log(datasets.air_passengers().values.astype(float).ravel())


def lake():
    return datasets.lake_huron().values.astype(float).ravel() - 570


def test_airline_model_on_air_passengers():
    """theta -.401823, Theta -.556937, llf 244.69649 over 131 scored values, on the log scale (Stata, arima manual)."""
    model, batch = make_model((0, 1, 1), (0, 1, 1, 12), False), make_batch(air())
    draws = fit(model, batch)
    assert draws.log_prob == pytest.approx(244.69649, abs=5e-6)
    assert float(draws.params["ma"]) == pytest.approx(-0.401823, abs=2e-6)
    assert float(draws.params["seasonal_ma"]) == pytest.approx(-0.556937, abs=1e-5)
    steps = model.log_prob_steps(draws.params, batch)
    assert int(steps.scored.sum()) == 131 and not steps.scored[0, :13].any()
    assert float(steps.values.sum()) == pytest.approx(draws.log_prob, abs=1e-9)
    assert draws.converged and not draws.messages


def test_wholesale_price_index():
    """phi .8742288, theta -.4120458, sigma .7250436, llf -135.35131 (Stata, arima manual, example 1)."""
    draws = fit(make_model((1, 1, 1)), make_batch(np.array(results_sarimax.wpi1_data)))
    assert draws.log_prob == pytest.approx(-135.35131, abs=1e-5)
    assert float(draws.params["ar"]) == pytest.approx(0.8742288, abs=5e-5)
    assert float(draws.params["ma"]) == pytest.approx(-0.4120458, abs=5e-5)
    assert float(draws.params["scale"]) == pytest.approx(0.7250436, abs=5e-5)


def test_lake_huron():
    """ARMA(1, 1): .74490 .32058, mean 9.05545, llf -103.24526; AR(2): 1.04361 -.24949, llf -103.63322.

    Brockwell and Davis (2002), series "lake", our run of statsmodels.
    """
    draws = fit(make_model((1, 0, 1)), make_batch(lake()))
    values = [float(draws.params[name]) for name in ("ar", "ma", "mean")]
    np.testing.assert_allclose(values, [0.74490, 0.32058, 9.05545], atol=1.5e-5)
    assert draws.log_prob == pytest.approx(-103.24526, abs=5e-6)
    draws = fit(make_model((2, 0, 0)), make_batch(lake()))
    np.testing.assert_allclose(draws.params["ar"][0], [1.04361, -0.24949], atol=1.5e-5)
    assert draws.log_prob == pytest.approx(-103.63322, abs=5e-6)


@pytest.mark.parametrize("p, expected", [(2, -1307.3185), (3, -1304.7018), (9, -1274.3113)])
def test_sunspots(p, expected):
    """Our run of statsmodels 0.15; its AR(2) stops 3e-4 nats below the maximum."""
    draws = fit(make_model((p, 0, 0)), make_batch(sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy()))
    assert draws.log_prob == pytest.approx(expected, abs=5e-4)
    assert draws.log_prob >= expected - 5e-5


def test_with_gaps_equals_statsmodels_exact_diffuse():
    y = air()
    y[[3, 20, 21, 22, 77, 100]] = np.nan
    model, batch = make_model((0, 1, 1), (0, 1, 1, 12), False), make_batch(y)
    peer = sm.tsa.SARIMAX(y, order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), use_exact_diffuse=True)
    params = {
        "ma": torch.tensor([-0.4], dtype=torch.float64),
        "seasonal_ma": torch.tensor([-0.55], dtype=torch.float64),
        "scale": torch.tensor(0.036, dtype=torch.float64),
    }
    steps = model.log_prob_steps(params, batch)
    assert int(steps.scored.sum()) == 144 - 6 - 13
    each = peer.loglikeobs([-0.4, -0.55, 0.036**2])
    scored = steps.scored[0, :, 0].numpy()
    np.testing.assert_allclose(steps.values[0].numpy()[scored], each[scored], atol=1e-8)
    draws = fit(model, batch)
    assert float(model.log_prob(draws.params, batch)) == pytest.approx(draws.log_prob, abs=1e-9)
    assert draws.log_prob > float(steps.values.sum())


CASES = [
    ((2, 0, 1), WHITE, 0),
    ((0, 0, 0), WHITE, 0),
    ((3, 0, 0), WHITE, 1),
    ((1, 1, 1), (1, 1, 1, 4), 2),
    ((0, 1, 1), (0, 1, 1, 5), 0),
]


def example(order, seasonal_order, m, draw, generator):
    """Three ragged sequences, the second with gaps, and random parameters."""
    model = make_model(order, seasonal_order, True, m)
    specs = model.parameters()
    flat = 0.7 * torch.randn(*draw, unconstrained_size(specs), dtype=torch.float64, generator=generator)
    x = torch.randn(3, 40, 1, dtype=torch.float64, generator=generator).cumsum(1)
    seen = torch.ones(3, 40, 1, dtype=torch.bool)
    seen[1] = torch.rand(40, 1, generator=generator) > 0.2
    seen[2, 29:] = False
    u = torch.randn(3, 40, m, dtype=torch.float64, generator=generator) if m else None
    return model, specs, flat, Batch(torch.where(seen, x, 0.0), seen, torch.tensor([40, 40, 29]), u)


@pytest.mark.parametrize("draw", [(), (2,)])
@pytest.mark.parametrize("order, seasonal_order, m", CASES)
def test_fast_forms_equal_the_step_loop(order, seasonal_order, m, draw, generator):
    model, specs, flat, batch = example(order, seasonal_order, m, draw, generator)
    params = unflatten(specs, flat)
    np.testing.assert_allclose(flatten(specs, params), flat, atol=1e-10)
    start = model.initial_state(params, 3)
    loop = SequenceModel._scan(model, params, batch, start)
    scan = model._scan(params, batch, start)
    fast = model.log_prob_steps(params, batch)
    for a, b in ((loop.states, scan.states), (loop.final, scan.final), (loop.final, fast.final)):
        map_state(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-9) or one, a, b)
    law, scored = model._fold(params, batch, loop)
    values = law.log_prob_seen(batch.x, scored)
    np.testing.assert_array_equal(scored, fast.scored)
    np.testing.assert_allclose(torch.where(scored.any(-1), values, 0.0), fast.values, atol=1e-10)
    predictive, _ = model.predictive(params, batch)
    real = batch.real.expand(*draw, 3, 40)
    np.testing.assert_allclose(predictive.loc[real], law.loc[real], atol=1e-9)
    np.testing.assert_allclose(predictive.scale[real], law.scale[real], atol=1e-9)
    early = model.log_prob_steps(params, batch.slice_time(0, 17))
    late = model.log_prob_steps(params, batch.slice_time(17, 40), early.final)
    np.testing.assert_allclose(torch.cat([early.values, late.values], -1), fast.values, atol=1e-10)


@pytest.mark.parametrize("order, seasonal_order, m", CASES)
def test_gradient_equals_finite_differences(order, seasonal_order, m, generator):
    model, specs, flat, batch = example(order, seasonal_order, m, (2,), generator)
    weights = torch.randn(2, 3, 40, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        middle = model.filter(unflatten(specs, flat), batch.slice_time(0, 17))
    direction = torch.randn(flat.shape, dtype=torch.float64, generator=generator)
    for part, state, w in ((batch, None, weights), (batch.slice_time(17, 40), middle, weights[..., 17:])):

        def value(x, part=part, state=state, w=w):
            return (model.log_prob_steps(unflatten(specs, x), part, state).values * w).sum()

        at = flat.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(value(at), at)
        with torch.no_grad():
            expected = float(value(flat + 1e-6 * direction) - value(flat - 1e-6 * direction)) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_integrated_model_scores_the_differenced_data(generator):
    y = torch.randn(60, dtype=torch.float64, generator=generator).cumsum(0).cumsum(0).numpy()
    params = {
        "ar": torch.tensor([0.5], dtype=torch.float64),
        "ma": torch.tensor([0.3], dtype=torch.float64),
        "mean": torch.tensor(0.2, dtype=torch.float64),
        "scale": torch.tensor(1.3, dtype=torch.float64),
    }
    whole = make_model((1, 2, 1)).log_prob_steps(params, make_batch(y))
    differenced = make_model((1, 0, 1)).log_prob_steps(params, make_batch(np.diff(y, 2)))
    np.testing.assert_allclose(whole.values[0, 2:], differenced.values[0], atol=1e-10)
    assert not whole.scored[0, :2].any() and whole.scored[0, 2:].all()


def test_forecast_is_the_law_of_the_paths(generator):
    for order, seasonal_order, m in (CASES[0], CASES[3]):
        model, specs, flat, batch = example(order, seasonal_order, m, (2,), generator)
        params = unflatten(specs, flat)
        state = model.filter(params, batch)
        u = torch.randn(3, 6, m, dtype=torch.float64, generator=generator) if m else None
        law = model.forecast_marginals(params, state, 6, u)
        later = None if u is None else u.repeat_interleave(4000, 0)
        many = map_state(lambda leaf: leaf.repeat_interleave(4000, 1), state)
        paths, _ = model.sample(params, many, 6, generator, later)
        paths = paths.reshape(2, 3, 4000, 6, 1)
        error = (paths.mean(2) - law.loc) / law.scale * 4000**0.5
        assert float(error.abs().max()) < 4.5
        assert float((paths.std(2) / law.scale - 1).abs().max()) < 0.06


def test_simulated_steps_and_their_state_are_those_of_the_filter(generator):
    model, specs, flat, batch = example(*CASES[4], (2,), generator)
    params = unflatten(specs, flat)
    state = model.filter(params, batch.slice_time(0, 25))
    x, after = model.sample(params, state, 9, generator)
    naive = state
    for t in range(9):
        naive = model.update(params, naive, x[:, :, t], torch.ones(3, 1, dtype=torch.bool))
    map_state(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-9) or one, after, naive)


def test_recovery_within_standard_errors(generator):
    model = make_model((2, 0, 1), n_covariates=1)
    truth = {
        "ar": torch.tensor([0.6, -0.3], dtype=torch.float64),
        "ma": torch.tensor([0.4], dtype=torch.float64),
        "mean": torch.tensor(5.0, dtype=torch.float64),
        "coefficients": torch.tensor([-2.0], dtype=torch.float64),
        "scale": torch.tensor(0.5, dtype=torch.float64),
    }
    u = torch.randn(3, 400, 1, dtype=torch.float64, generator=generator)
    x, _ = model.sample(truth, model.initial_state(truth, 3), 400, generator, u)
    batch = make_batch(*x[..., 0].numpy(), u=u)
    draws = fit(model, batch)
    specs = model.parameters()
    errors = np.sqrt(np.diag(draws.covariance))
    found = flatten(specs, {name: value[0] for name, value in draws.params.items()})
    z = (found - flatten(specs, truth)).numpy() / errors
    assert np.abs(z).max() < 3.5
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch).sum()), abs=1e-8)
    assert draws.log_prob > float(model.log_prob(truth, batch).sum())
    flat = found.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(model.log_prob(unflatten(specs, flat), batch).sum(), flat)
    assert float(slope.abs().max()) < 1e-2


def test_covariance_is_the_inverse_observed_information():
    for y, model in ((air(), make_model((0, 1, 1), (0, 1, 1, 12), False)), (lake(), make_model((1, 0, 1)))):
        batch = make_batch(y)
        draws = fit(model, batch)
        specs = model.parameters()
        at = flatten(specs, {name: value[0] for name, value in draws.params.items()})

        def slope(x, model=model, batch=batch, specs=specs):
            x = x.clone().requires_grad_(True)
            return torch.autograd.grad(model.log_prob(unflatten(specs, x), batch).sum(), x)[0]

        steps = 1e-4 * torch.eye(len(at), dtype=torch.float64)
        hessian = torch.stack([(slope(at + step) - slope(at - step)) / 2e-4 for step in steps])
        np.testing.assert_allclose(draws.covariance, np.linalg.inv(-hessian.numpy()), rtol=1e-4, atol=1e-8)


def test_generic_optimiser_finds_the_concentrated_maximum():
    class Plain(SequenceModel):
        """The same law without its capabilities."""

        def __init__(self, inner):
            self.inner, self.observation = inner, inner.observation

        def __getattribute__(self, name):
            own = name in ("inner", "observation", "__class__", "__dict__", "log_prob_steps", "log_prob")
            return object.__getattribute__(self, name) if own else getattr(self.inner, name)

        parameters = initial_state = predict_next = update = None

    model, batch = make_model((1, 0, 1)), make_batch(lake())
    fast = fit(model, batch)
    slow = fit(Plain(model), batch)
    assert slow.log_prob == pytest.approx(fast.log_prob, abs=1e-6)
    assert slow.converged


def test_sequence_weights_count_like_copies(generator):
    y = [torch.randn(50, dtype=torch.float64, generator=generator).numpy() for _ in range(2)]
    model = make_model((1, 0, 0))
    copies = fit(model, make_batch(y[0], y[0], y[1]))
    weighted = MLE().fit(model, make_batch(*y), torch.Generator(), weights=torch.tensor([2.0, 1.0]))
    assert weighted.log_prob == pytest.approx(copies.log_prob, abs=1e-8)
    np.testing.assert_allclose(weighted.params["ar"], copies.params["ar"], atol=1e-6)


def test_an_interrupted_fit_keeps_the_best_point(monkeypatch):
    model, batch = make_model((2, 0, 1)), make_batch(lake())
    calls = []
    original = ARMAProfile.descend

    def interrupted(self, descent, values, max_iter, tol):
        calls.append(len(values))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(self, descent, values[:2], max_iter, tol)

    monkeypatch.setattr(ARMAProfile, "descend", interrupted)
    draws = fit(model, batch)
    assert draws.status == "interrupted" and not draws.converged
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch).sum()), abs=1e-8)


def test_progress_reports_rising_log_likelihoods():
    model, batch, calls = make_model((2, 0, 1)), make_batch(lake()), []
    draws = MLE().fit(model, batch, torch.Generator(), progress=lambda i, value: calls.append((i, value)))
    assert calls and calls[-1][1] == pytest.approx(draws.log_prob, abs=1e-6)
    assert (np.diff(draws.trace) > 0).all()


def test_tiny_and_deterministic_series_end_in_a_number():
    for n in (6, 9, 13):
        for y in (np.arange(n) ** 2.0, np.sin(np.arange(n)), np.where(np.arange(n) == 1, np.nan, np.cos(np.arange(n)))):
            for model in (make_model((1, 0, 1), (1, 0, 1, 12)), make_model((1, 1, 0)), make_model((2, 0, 0))):
                draws = fit(model, make_batch(y))
                assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, make_batch(y))), rel=1e-6)


def test_several_starts_never_end_lower():
    batch = make_batch(lake())
    one, many = (fit(make_model((2, 0, 2)), batch, n_init=n) for n in (0, 4))
    assert many.log_prob >= one.log_prob - 1e-6
    assert len(many.optima) >= 5 and (np.diff(many.optima) <= 0).all()


def test_levels_and_units_far_from_one():
    base = lake()
    plain = fit(make_model((1, 0, 1)), make_batch(base))
    for shift, unit in ((1e8, 1.0), (0.0, 1e-9), (0.0, 1e9)):
        moved = fit(make_model((1, 0, 1)), make_batch(shift + unit * base))
        expected = plain.log_prob - 98 * np.log(unit)
        assert moved.log_prob == pytest.approx(expected, abs=1e-5)
        assert float(moved.params["ar"]) == pytest.approx(float(plain.params["ar"]), abs=1e-5)


def test_gapped_fit_with_covariates_agrees_with_the_model(generator):
    y = torch.randn(2, 60, dtype=torch.float64, generator=generator).cumsum(1).numpy()
    y[0, [5, 6, 30]] = np.nan
    u = torch.randn(2, 60, 2, dtype=torch.float64, generator=generator)
    model, batch = make_model((1, 1, 1), n_covariates=2), make_batch(*y, u=u)
    draws = fit(model, batch)
    specs = model.parameters()
    flat = flatten(specs, {name: value[0] for name, value in draws.params.items()}).requires_grad_(True)
    total = model.log_prob(unflatten(specs, flat), batch).sum()
    assert draws.log_prob == pytest.approx(float(total.detach()), abs=1e-8)
    assert float(torch.autograd.grad(total, flat)[0].abs().max()) < 1e-3
    assert draws.covariance.shape == (6, 6)


@pytest.mark.parametrize("order", [(0, 0, 0), (1, 0, 0), (1, 1, 0)])
def test_covariates_that_explain_everything_are_named(order, generator):
    u = torch.randn(1, 40, 2, dtype=torch.float64, generator=generator)
    y = (10.0 + 2.0 * u[..., 0] - u[..., 1]).numpy()
    draws = fit(make_model(order, n_covariates=2), make_batch(*y, u=u))
    assert any("explain the series but for rounding" in m for m in draws.messages)
    assert np.allclose(draws.params["coefficients"].squeeze(), [2.0, -1.0], rtol=1e-9)
    assert 0 < float(draws.params["scale"]) < 1e-13 * np.abs(y).max() and np.isfinite(draws.log_prob)
    with pytest.raises(DataError, match="does not vary"):
        fit(make_model(order, n_covariates=2), make_batch(np.full(40, 3.0), u=u))


def test_unit_and_cancelling_roots_are_named(generator):
    noise = torch.randn(300, dtype=torch.float64, generator=generator).numpy()
    over = fit(make_model((0, 1, 1), constant=False), make_batch(noise))
    assert any("moving-average root 1.00" in m and "difference less" in m for m in over.messages)
    profile = make_model((1, 0, 1)).concentrated(make_batch(noise))
    assert any("nearly cancel" in m for m in profile.problems(np.array([0.5, 0.5])))
    assert not profile.problems(np.array([0.5, -0.5]))


def test_stationary_constraint_has_the_right_jacobian(generator):
    for sign, size in ((1, 4), (-1, 3)):
        constraint = Stationary(sign)
        flat = torch.randn(size, dtype=torch.float64, generator=generator)
        jacobian = torch.autograd.functional.jacobian(lambda x, c=constraint, k=size: c.constrain(x, (k,)), flat)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(constraint.log_abs_det(flat, (size,))) == pytest.approx(float(expected), abs=1e-9)
    assert Stationary().violation(torch.tensor([0.5, 0.6])) == "not stationary"
    assert Stationary(-1).violation(torch.tensor([-1.2])) == "not invertible"
    assert Stationary().violation(torch.tensor([0.5, 0.3])) is None


def test_bad_input_raises():
    with pytest.raises(ParameterError, match="order"):
        make_model((1, -1, 0))
    with pytest.raises(ParameterError, match="season of at least 2"):
        make_model((1, 0, 0), (1, 0, 0, 1))
    with pytest.raises(ShapeError, match="2 variables"):
        ARMAModel(Observation(2))
    with pytest.raises(DataError, match="does not vary"):
        fit(make_model((1, 0, 0)), make_batch(np.full(20, 3.7)))
    with pytest.raises(DataError, match="values left to score"):
        fit(make_model((0, 1, 1), (0, 1, 1, 12)), make_batch(np.arange(10.0)))
    with pytest.raises(CovariateError, match="no covariates"):
        model = make_model((1, 0, 0), n_covariates=2)
        params = unflatten(model.parameters(), torch.zeros(5, dtype=torch.float64))
        model.log_prob(params, make_batch(np.arange(5.0)))
    with pytest.raises(ParameterError, match="n_init"):
        fit(make_model((1, 0, 0)), make_batch(lake()), n_init=-1)


def test_one_fit_finds_the_higher_of_several_maxima():
    # From the estimate of Hannan and Rissanen alone these end at -103.2053 and -336.5080.
    both = lake(), np.diff(np.asarray(datasets.earthquakes().values, dtype=float).ravel())
    found = [fit(make_model(order), make_batch(y)).log_prob for order, y in zip(((2, 0, 2), (1, 0, 2)), both)]
    assert found[0] == pytest.approx(-102.79411, abs=1e-4)
    many = fit(make_model((1, 0, 2)), make_batch(both[1]), n_init=30).log_prob
    assert found[1] == pytest.approx(many, abs=1e-6)
