"""Conditional ARMA models: naive recursions with scipy's laws, statsmodels, quoted values of arch, recovery."""

import itertools

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from statsmodels.tools.numdiff import approx_hess
from statsmodels.tsa.ar_model import AutoReg

from probseq.data import datasets
from probseq.distributions.emissions import Observation
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.distributions.volatility import Persistence
from probseq.errors import DataError, EmptyDataError, ParameterError
from probseq.inference.optimize import MLE
from probseq.models.base import Batch
from probseq.models.conditional_arma import ConditionalARMAModel
from probseq.models.volatility import GARCH

LAWS = ("normal", "laplace", "studentt", "skewt")
BOTH = list(itertools.product(LAWS, (None, GARCH(1, 1))))


def make_batch(*series, u=None):
    t = max(len(y) for y in series)
    x = np.full((len(series), t, 1), np.nan)
    for i, y in enumerate(series):
        x[i, : len(y), 0] = y
    seen = ~np.isnan(x)
    lengths = torch.tensor([len(y) for y in series])
    covariates = None if u is None else torch.as_tensor(u, dtype=torch.float64)
    return Batch(torch.tensor(np.where(seen, x, 0.0)), torch.tensor(seen), lengths, covariates)


def make_model(order, seasonal_order=(0, 0, 0, 1), **terms):
    return ConditionalARMAModel(Observation(1), order, seasonal_order, **terms)


def fit(model, batch, weights=None, **settings):
    return MLE(**settings).fit(model, batch, torch.Generator().manual_seed(0), weights=weights)


def random_params(model, seed=0, width=0.5):
    specs = model.parameters()
    noise = np.random.default_rng(seed).normal(size=unconstrained_size(specs))
    return unflatten(specs, torch.tensor(width * noise))


def log_density(name, eps, df=None, xi=None):
    """Of a law with mean 0 and variance 1, by scipy; the skewed law is standardised by quadrature."""
    if name == "normal":
        return stats.norm.logpdf(eps)
    if name == "laplace":
        return stats.laplace.logpdf(eps, scale=0.5**0.5)
    if name == "studentt":
        return stats.t.logpdf(eps, df, scale=np.sqrt((df - 2) / df))

    def density(x):
        return 2 / (xi + 1 / xi) * stats.t.pdf(x / xi if x >= 0 else x * xi, df)

    def moment(k):
        parts = ((-np.inf, 0), (0, np.inf))
        return sum(integrate.quad(lambda x: x**k * density(x), *ends, epsabs=1e-13)[0] for ends in parts)

    mean = moment(1)
    spread = np.sqrt(moment(2) - mean**2)
    return np.array([np.log(spread * density(mean + spread * e)) for e in eps])


def naive(y, ar, ma, variance, garch, name, **shapes):
    """Log densities of y (whose mean is 0) after the first len(ar), by the recursion as it is written."""
    p, e, h, found, variances = len(ar), np.zeros(len(y) + len(ma)), variance, [], []
    q = len(ma)
    for t in range(p, len(y)):
        e[q + t] = y[t] - sum(ar[j] * y[t - 1 - j] for j in range(p)) - sum(ma[j] * e[q + t - 1 - j] for j in range(q))
        variances.append(h)
        found.append(e[q + t])
        if garch is not None:
            h = garch[0] + garch[1] * e[q + t] ** 2 + garch[2] * h
    spread = np.sqrt(variances)
    return log_density(name, np.array(found) / spread, **shapes) - np.log(spread)


def returns():
    return 100 * np.diff(np.log(datasets.sp500().values.ravel()))


@pytest.mark.parametrize(("name", "volatility"), BOTH)
def test_likelihood_is_the_naive_recursion(name, volatility):
    """(1,1,1)(1,0,1)_3 with a mean and a covariate: differences, products of factors and all densities."""
    rng = np.random.default_rng(1)
    model = make_model((1, 1, 1), (1, 0, 1, 3), n_covariates=1, innovations=name, volatility=volatility)
    params = random_params(model)
    y, u = rng.normal(size=30).cumsum() + 3, rng.normal(size=(1, 30, 1))
    got = model.log_prob_steps(params, make_batch(y, u=u))
    a, b, c, d = (float(params[n]) for n in ("ar", "ma", "seasonal_ar", "seasonal_ma"))
    ar, ma = -np.convolve([1, -a], [1, 0, 0, -c])[1:], np.convolve([1, b], [1, 0, 0, d])[1:]
    w = np.diff(y - u[0, :, 0] * float(params["coefficients"])) - float(params["mean"])
    variance, garch = float(model._variance(params)), None
    if volatility is not None:
        garch = [float(params["omega"]), *params["garch"].tolist()]
        assert variance == pytest.approx(garch[0] / (1 - garch[1] - garch[2]))
    shapes = {key: float(params[long]) for key, long in (("df", "df"), ("xi", "skewness")) if long in params}
    expected = naive(w, ar, ma, variance, garch, name, **shapes)
    assert model.n_conditioned == 1 + 4
    assert not got.scored[0, :5].any()
    assert got.scored[0, 5:].all()
    np.testing.assert_allclose(got.values[0, 5:], expected, rtol=1e-9, atol=1e-9)


def test_gaussian_autoregression_is_that_of_statsmodels():
    """AutoReg maximises the likelihood given the first p values."""
    y = datasets.lake_huron().values.astype(float).ravel() - 570
    model = make_model((2, 0, 0))
    draws = fit(model, make_batch(y))
    found = AutoReg(y, 2).fit()
    assert draws.log_prob == pytest.approx(found.llf, abs=1e-7)
    np.testing.assert_allclose(draws.params["ar"][0], found.params[1:], atol=1e-5)
    assert float(draws.params["scale"]) == pytest.approx(np.sqrt(found.sigma2), rel=1e-6)


# arch 8.0.0: ARX(lags=1), GARCH(1, 0, 1) on 100 * log returns of sp500, its `backcast` set to the unconditional
# variance and set again until it no longer moved; loglikelihood, then Const, y[1], omega, alpha[1], beta[1], nu.
ARCH = {
    "normal": (-2250.017382163673, 0.2375523203553439, -0.09430972860835074, 0.2734819223513707, 0.22400685919059385)
    + (0.7469477261278938,),
    "studentt": (-2226.023375323505, 0.27167297127871054, -0.10670635356286705, 0.19247011062298308, 0.1686522140330004)
    + (0.8088845179895379, 6.316003796195234),
}


@pytest.mark.parametrize("name", ARCH)
def test_garch_is_that_of_arch(name):
    value, constant, ar, omega, alpha, beta, *df = ARCH[name]
    model = make_model((1, 0, 0), innovations=name, volatility=GARCH())
    theirs = {"ar": [ar], "mean": constant / (1 - ar), "omega": omega, "garch": [alpha, beta]}
    theirs |= {"df": df[0]} if df else {}
    params = {k: torch.tensor(v, dtype=torch.float64) for k, v in theirs.items()}
    batch = make_batch(returns())
    assert float(model.log_prob(params, batch)) == pytest.approx(value, abs=1e-6)
    draws = fit(model, batch)
    assert draws.log_prob > value
    for key, other in theirs.items():
        np.testing.assert_allclose(draws.params[key][0], other, rtol=0.02)


@pytest.mark.parametrize(("name", "volatility"), BOTH)
def test_gradients_are_slopes(name, volatility):
    """Of the compiled objective over its own coordinates, and of log_prob over the parameters' flat ones."""
    rng = np.random.default_rng(2)
    series = [rng.standard_t(5, size=n).cumsum() for n in (60, 35)]
    u = rng.normal(size=(2, 60, 1))
    model = make_model((2, 1, 1), (1, 0, 1, 4), n_covariates=1, innovations=name, volatility=volatility)
    batch = make_batch(*series, u=u)
    profile = model.concentrated(batch, torch.tensor([1.0, 2.0]))
    x = 0.5 * rng.normal(size=profile.size)
    gradient, step = profile.objective(x)[1], 1e-6 * np.eye(profile.size)
    slopes = [(profile.objective(x + d)[0] - profile.objective(x - d)[0]) / 2e-6 for d in step]
    np.testing.assert_allclose(gradient, slopes, atol=3e-7 if name == "laplace" else 2e-8)
    params, specs = profile.parameters(x), model.parameters()
    flat = flatten(specs, params).detach().requires_grad_()
    each = model.log_prob(unflatten(specs, flat), batch)
    total = each[0] + 2.0 * each[1]
    assert -float(total.detach()) / profile.count == pytest.approx(profile.objective(x)[0], abs=1e-8)
    (gradient,) = torch.autograd.grad(total, flat)
    for i in range(len(flat)):
        move = 1e-6 * torch.eye(len(flat), dtype=torch.float64)[i]
        ends = [model.log_prob(unflatten(specs, flat.detach() + side * move), batch) for side in (1, -1)]
        up, down = (float(e[0] + 2.0 * e[1]) for e in ends)
        assert float(gradient[i]) == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-5)


def test_predictive_keeps_its_gradient():
    """The laws of `_predictive` are differentiable, as a transform with a bounded range needs them."""
    model = make_model((1, 0, 1), innovations="studentt", volatility=GARCH())
    batch = make_batch(np.random.default_rng(0).normal(size=20))
    specs = model.parameters()
    flat = flatten(specs, random_params(model)).requires_grad_()
    params = unflatten(specs, flat)
    law, scored = model.predictive(params, batch)
    total = torch.where(scored[..., 0], law.log_prob(batch.x), 0.0).sum()
    expected = torch.autograd.grad(model.log_prob(params, batch).sum(), flat, retain_graph=True)[0]
    np.testing.assert_allclose(torch.autograd.grad(total, flat)[0], expected, rtol=1e-9, atol=1e-10)


def test_persistence_has_its_jacobian():
    constraint, shape = Persistence(), (2,)
    flat = torch.tensor([[0.3, -1.2], [3.0, 0.7]], dtype=torch.float64)
    value = constraint.constrain(flat, shape)
    np.testing.assert_allclose(constraint.unconstrain(value, shape), flat, rtol=1e-9)
    for row, got in zip(flat, constraint.log_abs_det(flat, shape), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z: constraint.constrain(z, shape), row)
        assert float(got) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-9)
    assert constraint.violation(value) is None
    assert constraint.violation(torch.tensor([-0.1, 0.5])) == "not above 0"
    assert "below 1" in constraint.violation(torch.tensor([0.3, 0.8]))
    beyond = constraint.constrain(torch.tensor([80.0, 90.0], dtype=torch.float64), shape)
    assert constraint.violation(beyond) is None


TRUTH = {"ar": [0.6], "ma": [0.3], "mean": 2.0, "scale": 1.5, "df": 6.0, "skewness": 1.4, "omega": 0.1}


@pytest.mark.parametrize(("name", "volatility"), BOTH)
def test_simulation_then_fit_recovers_the_parameters(name, volatility):
    model = make_model((1, 0, 1), innovations=name, volatility=volatility)
    truth = {**TRUTH, "garch": [0.15, 0.8]}
    params = {k: torch.tensor(truth[k], dtype=torch.float64) for k in model.parameters()}
    generator = torch.Generator().manual_seed(5)
    x, _ = model.sample(params, model.initial_state(params, 2), 1500, generator)
    draws = fit(model, make_batch(*x[..., 0].numpy()))
    assert draws.status == "converged"
    assert not draws.messages
    specs = model.parameters()
    at, goal = (flatten(specs, {k: v.reshape(specs[k].shape) for k, v in p.items()}) for p in (draws.params, params))
    errors = np.sqrt(np.diag(draws.covariance))
    assert np.abs((at - goal).numpy() / errors).max() < 3.5
    with torch.no_grad():
        total = float(model.log_prob(params, make_batch(*x[..., 0].numpy())).sum())
    assert draws.log_prob >= total


def test_covariance_is_the_inverse_of_the_hessian():
    """Against second differences of the naive likelihood over the parameters themselves."""
    y = returns()
    model = make_model((1, 0, 0), innovations="studentt", volatility=GARCH())
    batch = make_batch(y)
    draws = fit(model, batch)
    specs = model.parameters()
    one = {k: v[0] for k, v in draws.params.items()}

    def negative(theta):
        ar, mean, omega, alpha, beta, df = theta
        start = omega / (1 - alpha - beta)
        return -naive(y - mean, [ar], [], start, [omega, alpha, beta], "studentt", df=df).sum()

    theta = np.concatenate([np.atleast_1d(v.numpy()) for v in one.values()])
    assert negative(theta) == pytest.approx(-draws.log_prob, abs=1e-8)
    expected = np.sqrt(np.diag(np.linalg.inv(approx_hess(theta, negative, epsilon=1e-4 * np.abs(theta)))))
    flat = flatten(specs, one)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: torch.cat([v.reshape(-1) for v in unflatten(specs, z).values()]), flat
    ).numpy()
    got = np.sqrt(np.diag(jacobian @ draws.covariance @ jacobian.T))
    np.testing.assert_allclose(got, expected, rtol=5e-3)


def test_laplace_errors_are_those_of_the_theory():
    """Independent values: median, mean absolute deviation, and scale / sqrt(2 n), scale / sqrt(n)."""
    y = np.random.default_rng(3).laplace(5.0, 2.0, size=2001)
    model = make_model((0, 0, 0), innovations="laplace")
    draws = fit(model, make_batch(y))
    scale = np.sqrt(2) * np.abs(y - np.median(y)).mean()
    assert float(draws.params["mean"]) == pytest.approx(np.median(y), abs=1e-4)
    assert float(draws.params["scale"]) == pytest.approx(scale, rel=1e-6)
    expected = stats.laplace.logpdf(y, np.median(y), scale / np.sqrt(2)).sum()
    assert draws.log_prob == pytest.approx(expected, abs=1e-4)
    errors = np.sqrt(np.diag(draws.covariance))
    assert errors[0] == pytest.approx(scale / np.sqrt(2 * 2001), rel=1e-3)
    assert errors[1] == pytest.approx(1 / np.sqrt(2001), rel=0.05)


@pytest.mark.parametrize("share", [-900.0, 900.0])
def test_estimates_on_the_boundary_are_possible_values(share):
    model = make_model((0, 0, 0), volatility=GARCH())
    profile = model.concentrated(make_batch(np.random.default_rng(0).normal(size=50)))
    params = profile.parameters(np.array([0.0, 0.0, 30.0, share]))
    for name, spec in model.parameters().items():
        assert spec.constraint.violation(params[name]) is None


def test_the_unit_of_the_data_does_not_matter():
    y = returns()[:500]
    model = make_model((1, 0, 0), innovations="skewt", volatility=GARCH())
    one, small = (fit(model, make_batch(y * unit)) for unit in (1.0, 1e-6))
    assert small.log_prob - 499 * np.log(1e6) == pytest.approx(one.log_prob, abs=1e-5)
    assert float(small.params["omega"]) == pytest.approx(1e-12 * float(one.params["omega"]), rel=1e-3)
    np.testing.assert_allclose(small.params["garch"], one.params["garch"], rtol=1e-3)
    np.testing.assert_allclose(np.diag(small.covariance)[3:], np.diag(one.covariance)[3:], rtol=2e-2)


def test_weights_count_sequences():
    rng = np.random.default_rng(4)
    a, b = rng.standard_t(4, size=(2, 150))
    model = make_model((1, 0, 0), innovations="studentt")
    weighed = fit(model, make_batch(a, b), torch.tensor([1.0, 2.0]))
    thrice = fit(model, make_batch(a, b, b))
    assert weighed.log_prob == pytest.approx(thrice.log_prob, abs=1e-8)
    np.testing.assert_allclose(weighed.covariance, thrice.covariance, rtol=1e-4)


@pytest.mark.parametrize("volatility", [None, GARCH()])
def test_exact_means_are_those_of_simulated_paths(volatility):
    model = make_model((1, 1, 1), (0, 0, 1, 4), n_covariates=1, innovations="skewt", volatility=volatility)
    params = random_params(model, 7)
    rng = np.random.default_rng(0)
    u = rng.normal(size=(1, 30, 1))
    state = model.filter(params, make_batch(rng.normal(size=30), u=u))
    future = torch.tensor(rng.normal(size=(1, 6, 1)))
    means = model.forecast_mean(params, state, 6, future)[0, :, 0]
    many = type(state)(*(leaf.expand(20000, *leaf.shape[1:]) for leaf in state))
    x, _ = model.sample(params, many, 6, torch.Generator().manual_seed(1), future)
    error = x[..., 0].std(0) / 20000**0.5
    assert float(((x[..., 0].mean(0) - means).abs() / error).max()) < 4
    first = model.forecast_marginals(params, state, 1, future[:, :1])
    assert float(first.mean[0, 0, 0]) == pytest.approx(float(means[0]), abs=1e-10)
    assert model.forecast_marginals(params, state, 6, future) is None


def test_simulation_from_nothing_starts_in_the_stationary_law():
    """An autoregression: variance and autocorrelation of the first values, which are conditioned on when scored."""
    model = make_model((2, 0, 0), innovations="laplace")
    params = {"ar": [0.5, 0.3], "mean": 4.0, "scale": 2.0}
    params = {k: torch.tensor(v, dtype=torch.float64) for k, v in params.items()}
    x, state = model.sample(params, model.initial_state(params, 20000), 4, torch.Generator().manual_seed(0))
    rho = 0.5 / (1 - 0.3)
    variance = 4.0 / (1 - 0.5 * rho - 0.3 * (0.5 * rho + 0.3))
    x = x[..., 0].numpy() - 4.0
    np.testing.assert_allclose(x.var(0), variance, rtol=0.06)
    assert np.corrcoef(x[:, 0], x[:, 1])[0, 1] == pytest.approx(rho, abs=0.03)
    one, _ = model.sample(params, model.initial_state(params, 1), 1, torch.Generator().manual_seed(0))
    assert one.shape == (1, 1, 1)
    assert (state.age == 4).all()


def test_gaps_raise():
    model = make_model((1, 0, 0), innovations="studentt")
    y = np.random.default_rng(0).normal(size=40)
    y[7] = np.nan
    with pytest.raises(DataError, match="missing value"):
        fit(model, make_batch(y))
    params = random_params(model)
    state = model.initial_state(params, 1)
    with pytest.raises(DataError, match="innovations"):
        model.update(params, state, torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))


def test_arguments_that_cannot_be():
    with pytest.raises(ParameterError, match="studentt"):
        make_model((1, 0, 0), innovations="cauchy")
    with pytest.raises(ParameterError, match=r"GARCH\(1, 1\)"):
        make_model((1, 0, 0), volatility=GARCH(2, 1))
    with pytest.raises(ParameterError, match=r"ps.GARCH"):
        make_model((1, 0, 0), volatility="garch")
    with pytest.raises(EmptyDataError, match="number of parameters"):
        fit(make_model((1, 0, 0), volatility=GARCH()), make_batch(np.random.default_rng(0).normal(size=6)))


def test_what_degenerates_is_named():
    rng = np.random.default_rng(0)
    model = make_model((0, 0, 0), innovations="studentt")
    messages = fit(model, make_batch(rng.standard_cauchy(size=400))).messages
    assert any("lower bound" in message for message in messages)
    profile = make_model((0, 0, 0), volatility=GARCH()).concentrated(make_batch(rng.normal(size=400)))
    x = profile.starts(0, torch.Generator())[0]
    assert profile.problems(x) == ()
    x[2] = 12.0
    assert any("nearly 1" in message for message in profile.problems(x))
    x[1] = -20.0
    assert any("collapsed" in message for message in profile.problems(x))
