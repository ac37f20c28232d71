"""ARMA models of some lags only: statsmodels at equal parameters, the dense region, finite differences, recovery."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy.optimize import minimize

import probseq as ps
from probseq.data import datasets
from probseq.distributions.emissions import Observation
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.distributions.stationary import Stationary
from probseq.errors import ParameterError
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.sparse_stationary import SparseStationary, stationary_at

LAG_SETS = ([2, 3], [1, 3], [1, 4, 12], [4, 5, 9], [1, 24])


def log_air():
    return np.log(datasets.air_passengers().values.astype(float).ravel())


def make_batch(y):
    seen = ~np.isnan(y)
    x = torch.tensor(np.where(seen, y, 0.0)).reshape(1, -1, 1)
    return Batch(x, torch.tensor(seen).reshape(1, -1, 1), torch.tensor([len(y)]))


def fit(model, batch, **settings):
    return MLE(**settings).fit(model, batch, torch.Generator().manual_seed(0))


def inside(lags, rng, margin):
    """Coefficients whose largest root of z^p - sum_j c_j z^(p - l_j) has modulus 1 - margin."""
    lags = np.array(lags)
    row = np.zeros(lags[-1] + 1)
    coefficients = rng.normal(size=lags.size)
    row[0], row[lags] = 1.0, -coefficients
    return coefficients * ((1 - margin) / np.abs(np.roots(row)).max()) ** lags


@pytest.mark.parametrize("lags", LAG_SETS)
@pytest.mark.parametrize("margin", [0.5, 0.1, 1e-3, 1e-6])
def test_the_constraint_covers_the_stationary_region(lags, margin):
    rng = np.random.default_rng(len(lags))
    for sign in (1, -1):
        constraint = SparseStationary(np.array(lags), sign)
        value = torch.tensor(sign * inside(lags, rng, margin))[None]
        assert constraint.violation(value) is None
        flat = constraint.unconstrain(value, (len(lags),))
        np.testing.assert_allclose(constraint.constrain(flat, (len(lags),)), value, atol=1e-13)
        out = value * torch.tensor((1 + 3 * margin) ** np.array(lags)) / (1 - margin) ** torch.tensor(lags)
        assert constraint.violation(out) == ("not stationary" if sign == 1 else "not invertible")


@pytest.mark.parametrize("lags", LAG_SETS)
def test_every_free_number_is_stationary(lags):
    generator = torch.Generator().manual_seed(3)
    constraint = SparseStationary(np.array(lags))
    for size in (0.1, 1.0, 10.0, 1e3, 1e8, 1e300):
        flat = size * torch.randn(20, len(lags), dtype=torch.float64, generator=generator)
        assert constraint.violation(constraint.constrain(flat, (len(lags),))) is None


@pytest.mark.parametrize("lags", LAG_SETS)
def test_the_constraint_has_the_right_jacobian_and_slopes(lags):
    rng = np.random.default_rng(1)
    for sign in (1, -1):
        constraint = SparseStationary(np.array(lags), sign)
        shape = (len(lags),)
        flat = constraint.unconstrain(torch.tensor(sign * inside(lags, rng, 0.05))[None], shape)[0]
        jacobian = torch.autograd.functional.jacobian(lambda x, c=constraint, s=shape: c.constrain(x, s), flat)
        steps = 1e-6 * torch.eye(len(lags), dtype=torch.float64)
        moved = [(constraint.constrain(flat + h, shape) - constraint.constrain(flat - h, shape)) / 2e-6 for h in steps]
        np.testing.assert_allclose(jacobian, torch.stack(moved, -1), atol=1e-7)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert float(constraint.log_abs_det(flat, shape)) == pytest.approx(float(expected), abs=1e-9)
        at = flat.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(constraint.log_abs_det(at, shape), at)
        moved = [
            float(constraint.log_abs_det(flat + h, shape) - constraint.log_abs_det(flat - h, shape)) for h in steps
        ]
        np.testing.assert_allclose(slope, np.array(moved) / 2e-6, rtol=1e-6, atol=1e-6)


def test_one_lag_is_the_usual_constraint():
    flat = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    sparse, plain = SparseStationary(np.array([1])), Stationary()
    np.testing.assert_allclose(sparse.constrain(flat, (1,)), plain.constrain(flat, (1,)), atol=1e-14)
    np.testing.assert_allclose(sparse.log_abs_det(flat, (1,)), plain.log_abs_det(flat, (1,)), atol=1e-9)
    assert isinstance(stationary_at(np.array([4, 8]), 1), Stationary)


CASES = [
    (((1, 4, 12), 0, (1, 4)), (0, 0, 0, 1)),
    (((4,), 1, 1), (0, 0, 0, 1)),
    ((2, 0, (2,)), ((1, 3), 1, 1, 4)),
    ((0, 0, (1, 3)), (0, 0, (2, 3), 4)),
]


@pytest.mark.parametrize("order, seasonal", CASES)
@pytest.mark.parametrize("gaps", [False, True])
def test_likelihood_equals_statsmodels(order, seasonal, gaps):
    rng = np.random.default_rng(2)
    y = np.cumsum(rng.normal(size=90))
    if gaps:
        y[[10, 33, 34, 60]] = np.nan
    model = ARMAModel(Observation(1), order, seasonal, constant=False)
    assert model.n_parameters == sum(lags.size for lags in model.own_lags) + 1
    flat = 0.4 * torch.randn(unconstrained_size(model.parameters()), generator=torch.Generator().manual_seed(1))
    params = unflatten(model.parameters(), flat.double())
    steps = model.log_prob_steps(params, make_batch(y))
    listed = [tuple(list(part) if isinstance(part, tuple) else part for part in one) for one in (order, seasonal)]
    listed[1] = (*listed[1][:3], listed[1][3] if any(listed[1][:3]) else 0)
    peer = sm.tsa.SARIMAX(y, order=listed[0], seasonal_order=listed[1], use_exact_diffuse=True)
    names = [n for n in ("ar", "ma", "seasonal_ar", "seasonal_ma") if n in params]
    each = peer.loglikeobs(np.concatenate([*(params[n] for n in names), [float(params["scale"]) ** 2]]))
    scored = steps.scored[0, :, 0].numpy()
    assert scored.sum() == (~np.isnan(y)).sum() - model.n_differences
    np.testing.assert_allclose(steps.values[0].numpy()[scored], each[scored], atol=1e-8)


@pytest.mark.parametrize("order, seasonal", CASES)
def test_fast_forms_equal_the_step_loop(order, seasonal):
    model = ARMAModel(Observation(1), order, seasonal)
    generator = torch.Generator().manual_seed(5)
    specs = model.parameters()
    params = unflatten(specs, 0.5 * torch.randn(2, unconstrained_size(specs), dtype=torch.float64, generator=generator))
    batch = make_batch(torch.randn(40, dtype=torch.float64, generator=generator).numpy())
    start = model.initial_state(params, 1)
    loop, fast = SequenceModel._scan(model, params, batch, start), model.log_prob_steps(params, batch)
    map_state(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-9) or one, loop.final, fast.final)
    law, scored = model._fold(params, batch, loop)
    values = law.log_prob_seen(batch.x, scored)
    np.testing.assert_allclose(torch.where(scored.any(-1), values, 0.0), fast.values, atol=1e-10)


@pytest.mark.parametrize("gaps", [False, True])
def test_the_profile_is_the_likelihood_and_its_gradient_is_right(gaps):
    y = log_air()
    if gaps:
        y[[5, 60, 61]] = np.nan
    batch = make_batch(y)
    model = ARMAModel(Observation(1), ((1, 4), 1, (1, 3)), (0, 1, (1, 2), 12), constant=True)
    profile = model.concentrated(batch)
    rng = np.random.default_rng(0)
    for x in (*profile.starts(1, torch.Generator().manual_seed(0)), 0.5 * rng.normal(size=profile.size)):
        value, gradient = profile.objective(x)
        params = profile.parameters(x)
        assert float(model.log_prob(params, batch).sum()) == pytest.approx(-value * profile.count, abs=1e-8)
        steps = 1e-6 * np.eye(profile.size)
        slopes = [(profile.objective(x + h)[0] - profile.objective(x - h)[0]) / 2e-6 for h in steps]
        np.testing.assert_allclose(gradient, slopes, atol=2e-7 * (1 + np.abs(gradient).max()))


def test_the_maximum_is_not_below_that_of_a_free_search():
    y = np.diff(log_air())
    order, peer_order = ((1, 4, 12), 0, (1, 4)), ([1, 4, 12], 0, [1, 4])
    model, batch = ARMAModel(Observation(1), order, constant=False), make_batch(y)
    draws = fit(model, batch)
    peer = sm.tsa.SARIMAX(y, order=peer_order)
    peer.tolerance = 0  # no steady state before it is one
    found = np.concatenate([draws.params["ar"][0], draws.params["ma"][0], [float(draws.params["scale"]) ** 2]])
    assert peer.loglike(found) == pytest.approx(draws.log_prob, abs=1e-7)

    def value(z):
        if Stationary().violation(torch.tensor(dense(z[:3], (1, 4, 12)))[None]):
            return 1e6
        if Stationary(-1).violation(torch.tensor(dense(z[3:5], (1, 4)))[None]):
            return 1e6
        return -peer.loglike(np.append(z[:5], np.exp(z[5]))) / len(y)

    start = np.append(found[:-1] * 0.9, np.log(found[-1]))
    best = minimize(value, start, method="Nelder-Mead", options={"maxiter": 600, "xatol": 1e-7, "fatol": 1e-12})
    assert -best.fun * len(y) <= draws.log_prob + 1e-6
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch).sum()), abs=1e-8)


def dense(coefficients, lags):
    row = np.zeros(lags[-1])
    row[np.array(lags) - 1] = coefficients
    return row


def test_listing_every_lag_changes_nothing():
    y = datasets.lake_huron()
    listed, counted = ps.ARMA(([1, 2], [1])).fit(y), ps.ARMA((2, 1)).fit(y)
    assert listed.log_likelihood_ == counted.log_likelihood_ and listed.n_parameters_ == counted.n_parameters_
    stepped = ps.ARMA(([4, 8], 0)).fit(y)
    seasonal = ps.ARMA((0, 0), (2, 0, 0, 4)).fit(y)
    assert stepped.log_likelihood_ == pytest.approx(seasonal.log_likelihood_, abs=1e-7)


def test_recovery_within_standard_errors():
    truth = {"ar": [0.5, 0.3], "ma": [0.4], "mean": 2.0, "scale": 1.5}
    source = ps.ARMA(([1, 6], [3])).with_parameters(**truth)
    x = source.sample(1500, random_state=1)
    model = ps.ARMA(([1, 6], [3])).fit(x)
    for name, value in truth.items():
        z = (model.params_[name] - np.array(value)) / model.standard_errors_[name]
        assert float(abs(z).max()) < 3.5
    np.testing.assert_array_equal(model.params_["ar"].ar_lag, [1, 6])
    assert list(model.summary().index) == ["ar[1]", "ar[6]", "ma[3]", "mean", "scale"]
    assert model.n_parameters_ == 5


def test_standard_errors_are_those_of_the_likelihood():
    y = np.diff(log_air())
    model, batch = ARMAModel(Observation(1), ((1, 12), 0, (1, 4)), constant=False), make_batch(y)
    draws = fit(model, batch)
    specs = model.parameters()
    at = flatten(specs, {name: value[0] for name, value in draws.params.items()})

    def slope(x):
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(model.log_prob(unflatten(specs, x), batch).sum(), x)[0]

    steps = 1e-4 * torch.eye(len(at), dtype=torch.float64)
    hessian = torch.stack([(slope(at + h) - slope(at - h)) / 2e-4 for h in steps])
    np.testing.assert_allclose(draws.covariance, np.linalg.inv(-hessian.numpy()), rtol=1e-4, atol=1e-8)


def test_a_posterior_of_some_lags():
    y = ps.ARMA(([1, 5], 0)).with_parameters(ar=[0.4, 0.4], mean=0.0, scale=1.0).sample(300, random_state=0)
    point = ps.ARMA(([1, 5], 0)).fit(y)
    law = ps.ARMA(([1, 5], 0), inference=ps.Laplace(n_draws=400), random_state=0).fit(y)
    np.testing.assert_allclose(law.params_["ar"].mean("draw"), point.params_["ar"], atol=0.03)
    np.testing.assert_allclose(law.params_["ar"].std("draw"), point.standard_errors_["ar"], rtol=0.15)
    mode = ps.ARMA(([1, 5], 0), inference=ps.MAP()).fit(y)
    assert mode.log_likelihood_ == pytest.approx(point.log_likelihood_, abs=1e-5)


def test_roots_are_those_of_the_whole_polynomial():
    model = ps.ARMA(([1, 3], [2]), ([2], 0, 1, 4)).with_parameters(
        ar=[0.3, 0.4], ma=[0.5], seasonal_ar=[0.5], seasonal_ma=[-0.3], mean=0.0, scale=1.0
    )
    inner = model._arma()
    for kind, lags, sign in (("ar", inner.lags.ar, -1), ("ma", inner.lags.ma, 1)):
        row = np.zeros(lags[-1] + 1)
        row[0] = 1
        row[lags] = sign * inner.polynomials(model.model_.params)[kind == "ma"][0].numpy()
        found = model.roots()[kind].values
        assert len(found) == lags[-1]
        np.testing.assert_allclose(np.polyval(row[::-1], found), 0, atol=1e-9)


def test_problems_name_roots_of_some_lags():
    noise = np.random.default_rng(0).normal(size=400)
    over = ARMAModel(Observation(1), (0, 1, (1, 3)), constant=False)
    near = over.parameters()["ma"].constraint.unconstrain(torch.tensor([[-0.9, -0.0999]], dtype=torch.float64), (2,))
    (message,) = over.concentrated(make_batch(noise)).problems(near[0].numpy())
    assert "moving-average root 1.0001" in message and "difference less" in message
    profile = ARMAModel(Observation(1), ((4,), 0, 0), (0, 0, 1, 4), constant=False).concentrated(make_batch(noise))
    assert any("nearly cancel" in m and "leave a lag" in m for m in profile.problems(np.array([0.5, 0.5])))


def test_bad_lags_raise():
    for order in (([1, 1], 0), ([0, 2], 1), ([1.5], 0), ([1, 2], [1], 0), (["1"], 0), ([True], 0)):
        with pytest.raises(ParameterError, match="distinct lags"):
            ps.ARMA(order).fit(np.arange(9.0))
    with pytest.raises(ParameterError, match="distinct lags"):
        ARMAModel(Observation(1), ((1, 1), 0, 0))
    with pytest.raises(ParameterError, match="period of at least 2"):
        ps.ARMA((1, 0), ([1, 2], 0, 0)).fit(np.arange(9.0))
