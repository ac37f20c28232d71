"""Vector ARMA models: against the dense joint law, statsmodels' VARMAX, the model of one variable, and differences."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from statsmodels.tsa.statespace.varmax import VARMAX

from probseq.distributions.emissions import Observation
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.distributions.stationary import Stationary
from probseq.distributions.stationary_matrices import StationaryMatrices, companion, lyapunov
from probseq.errors import CovariateError, EmptyDataError, ParameterError
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch
from probseq.models.linear_gaussian import LinearGaussianModel
from probseq.models.varma import VARMAModel
from probseq.models.varma_problems import varma_problems
from probseq.results.joint import make_batch
from probseq.testing import check_model


def normal(shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def example(k, order, m=0, seed=0, draw=()):
    model = VARMAModel(Observation(k), order, n_covariates=m)
    return model, unflatten(model.parameters(), 0.6 * normal((*draw, unconstrained_size(model.parameters())), seed))


def data(model, t, seed=1, n=1, gaps=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, t, model.observation.n_variables)) + 1.0
    x[rng.random(x.shape) < gaps] = np.nan
    u = rng.normal(size=(n, t, model.n_covariates)) if model.n_covariates else None
    return make_batch(model, x, np.full(n, t), u)


# coefficients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p, k", [(1, 1), (3, 1), (1, 2), (2, 3), (4, 2)])
@pytest.mark.parametrize("sign", [1, -1])
def test_free_matrices_are_stationary_and_come_back(p, k, sign):
    constraint = StationaryMatrices(sign)
    flat = normal((5, p * k * k), 0)
    value = constraint.constrain(flat, (p, k, k))
    assert constraint.violation(value) is None
    assert float(torch.linalg.eigvals(companion(sign * value)).abs().max()) < 1.0
    np.testing.assert_allclose(constraint.unconstrain(value, (p, k, k)), flat, atol=1e-9)
    slopes = [torch.func.jacrev(lambda z: constraint.constrain(z, (p, k, k)).flatten())(row) for row in flat]
    expected = torch.stack([torch.linalg.slogdet(matrix)[1] for matrix in slopes])
    np.testing.assert_allclose(constraint.log_abs_det(flat, (p, k, k)), expected, atol=1e-10)


def test_matrices_of_one_variable_are_those_of_the_scalar_recursion():
    flat = normal((4, 3), 2)
    scalar, matrices = Stationary(), StationaryMatrices()
    np.testing.assert_allclose(matrices.constrain(flat, (3, 1, 1))[..., 0, 0], scalar.constrain(flat, (3,)), atol=1e-14)
    expected = scalar.log_abs_det(flat, (3,))
    np.testing.assert_allclose(matrices.log_abs_det(flat, (3, 1, 1)), expected, atol=1e-12)


def test_every_stationary_matrix_is_reached():
    """Those with a large off-diagonal entry too."""
    value = torch.tensor([[[0.9, 40.0], [0.0, -0.8]]], dtype=torch.float64)
    constraint = StationaryMatrices()
    flat = constraint.unconstrain(value, (1, 2, 2))
    np.testing.assert_allclose(constraint.constrain(flat, (1, 2, 2)), value, atol=1e-11)


@pytest.mark.parametrize("sign, word", [(1, "not stationary"), (-1, "not invertible")])
def test_a_violation_is_named_and_pulled_inwards(sign, word):
    value = sign * torch.tensor([[[1.1, 0.3], [0.0, 0.2]], [[0.0, 0.0], [0.1, 0.4]]], dtype=torch.float64)
    constraint = StationaryMatrices(sign)
    assert constraint.violation(value) == word
    assert constraint.violation(torch.full((1, 2, 2), torch.nan, dtype=torch.float64)) == "not finite"
    flat = constraint.unconstrain(value, (2, 2, 2))
    assert bool(torch.isfinite(flat).all())
    assert constraint.violation(constraint.constrain(flat, (2, 2, 2))) is None


def test_log_abs_det_and_unconstrain_have_gradients():
    constraint, flat = StationaryMatrices(), normal((2, 8), 3)
    assert torch.autograd.gradcheck(lambda z: constraint.log_abs_det(z, (2, 2, 2)), flat.requires_grad_())
    value = constraint.constrain(flat, (2, 2, 2)).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: constraint.unconstrain(v, (2, 2, 2)), value)


def test_lyapunov_solves_its_equation():
    t, half = 0.3 * normal((4, 5, 5), 4), normal((4, 5, 5), 5)
    q = half @ half.mT
    p = lyapunov(t, q)
    np.testing.assert_allclose(t @ p @ t.mT + q, p, atol=1e-10)
    assert torch.autograd.gradcheck(
        lambda a, b: lyapunov(a, b + b.mT), (t[:1].requires_grad_(), q[:1].requires_grad_())
    )


# likelihood -----------------------------------------------------------------------------------------------------------

CASES = [(1, (2, 1), 1), (2, (0, 0), 0), (2, (2, 0), 1), (3, (1, 1), 0), (3, (1, 2), 2), (2, (0, 1), 0)]


@pytest.mark.parametrize("k, order, m", CASES)
def test_conforms(k, order, m):
    check_model(VARMAModel(Observation(k), order, n_covariates=m))


def dense(model, params, batch):
    """Mean and covariance of (x_1, ..., x_T) by summing x_t = sum_j Psi_j e_(t-j) up to where Psi vanishes."""
    k, (p, q), t = model.observation.n_variables, model.order, batch.t
    ar, ma = (part.numpy() for part in model.matrices(params))
    far = 3000
    psi = np.zeros((far, k, k))
    for j in range(far):
        psi[j] = np.eye(k) if j == 0 else (ma[j - 1] if j <= q else 0.0)
        psi[j] += sum((ar[i - 1] @ psi[j - i] for i in range(1, min(j, p) + 1)), np.zeros((k, k)))
    sigma = params["covariance"].numpy()
    gamma = [np.einsum("jab,bc,jdc->ad", psi[h:], sigma, psi[: far - h]) for h in range(t)]
    cov = np.block([[gamma[i - j] if i >= j else gamma[j - i].T for j in range(t)] for i in range(t)])
    mean = np.tile(params["mean"].numpy(), (t, 1))
    if model.n_covariates:
        mean = mean + batch.u[0].numpy() @ params["coefficients"].numpy()
    return mean.ravel(), cov


@pytest.mark.parametrize("k, order, m", CASES)
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_log_prob_equals_the_dense_normal(k, order, m, gaps):
    model, params = example(k, order, m)
    batch = data(model, 12, gaps=gaps)
    mean, cov = dense(model, params, batch)
    seen = batch.seen[0].numpy().ravel()
    expected = multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(batch.x[0].numpy().ravel()[seen])
    assert float(model.log_prob(params, batch)[0]) == pytest.approx(expected, rel=1e-9)


def varmax(model, params, x):
    """statsmodels' model and its parameters at ours."""
    (p, q), k = model.order, model.observation.n_variables
    ar, ma = (part.numpy() for part in model.matrices(params))
    intercept = (np.eye(k) - ar.sum(0)) @ params["mean"].numpy()
    lower = np.linalg.cholesky(params["covariance"].numpy())[np.tril_indices(k)]
    lags = [np.concatenate(list(part), 1).ravel() for part in (ar, ma) if len(part)]
    with pytest.warns() if p and q else np.errstate():
        peer = VARMAX(x, order=(p, q), trend="c")
    return peer, np.concatenate([intercept, *lags, lower])


@pytest.mark.parametrize("order", [(1, 0), (3, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_log_prob_and_forecasts_equal_those_of_varmax(order, gaps):
    model, params = example(3, order, seed=7)
    batch = data(model, 60, gaps=gaps)
    x = np.where(batch.seen[0].numpy(), batch.x[0].numpy(), np.nan)
    peer, at = varmax(model, params, x)
    assert float(model.log_prob(params, batch)[0]) == pytest.approx(peer.loglike(at), abs=1e-8)
    forecast = peer.smooth(at).get_forecast(6)
    law = model.forecast_marginals(params, model.filter(params, batch), 6)
    np.testing.assert_allclose(law.mean[0], forecast.predicted_mean, atol=1e-8)
    expected = np.stack([np.diag(forecast.var_pred_mean[h]) for h in range(6)])
    np.testing.assert_allclose(law.variance[0], expected, atol=1e-8)


def test_one_variable_equals_the_arma_model():
    model, params = example(1, (2, 1), 1)
    scalar = ARMAModel(Observation(1), (2, 0, 1), n_covariates=1)
    same = {
        "ar": params["ar"][:, 0, 0],
        "ma": params["ma"][:, 0, 0],
        "mean": params["mean"][0],
        "coefficients": params["coefficients"][:, 0],
        "scale": params["covariance"][0, 0].sqrt(),
    }
    batch = data(model, 40, gaps=0.1)
    np.testing.assert_allclose(
        model.log_prob_steps(params, batch).values, scalar.log_prob_steps(same, batch).values, atol=1e-10
    )


@pytest.mark.parametrize("order", [(0, 0), (2, 0)])
def test_autoregressions_without_gaps_need_no_filter(order):
    model, params = example(2, order, 1, draw=(2,))
    batch = data(model, 9, n=3)
    lengths = torch.tensor([9, 5, 2])
    real = (torch.arange(9) < lengths.unsqueeze(-1)).unsqueeze(-1)
    batch = Batch(torch.where(real, batch.x, 0.0), batch.seen & real, lengths, batch.u)
    assert model.is_whole(batch)
    fast = model.log_prob_steps(params, batch)
    start = model.initial_state(params, 3)
    slow = LinearGaussianModel._log_prob_steps(model, params, batch, start)
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-11)
    for one, other in zip(fast.final, slow.final):
        np.testing.assert_allclose(one, other, atol=1e-11)


@pytest.mark.parametrize("order, gaps", [((2, 0), 0.0), ((2, 0), 0.2), ((1, 2), 0.2)])
def test_gradient_equals_differences(order, gaps):
    model, params = example(2, order, 1)
    batch, specs = data(model, 20, gaps=gaps), model.parameters()
    flat = flatten(specs, params)

    def value(at):
        return model.log_prob(unflatten(specs, at), batch).sum()

    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    steps = 1e-6 * torch.eye(len(flat), dtype=torch.float64)
    expected = [float(value(flat + step) - value(flat - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


# the profile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order, m, gaps", [((2, 0), 1, 0.0), ((0, 0), 0, 0.0), ((1, 1), 1, 0.1)])
def test_profile_is_the_likelihood_in_other_coordinates(order, m, gaps):
    model, _ = example(2, order, m)
    batch = data(model, 50, n=3, gaps=gaps)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    profile = model.concentrated(batch, weights)
    assert profile.whole == (order[1] == 0)
    for x in profile.starts(1, torch.Generator().manual_seed(0)):
        value, gradient = profile.objective(x)
        params = profile.parameters(x)
        assert -value * profile.count == pytest.approx(float(model.log_prob(params, batch) @ weights), rel=1e-11)
        step = 1e-6 * np.eye(len(x))[1]
        slope = (profile.objective(x + step)[0] - profile.objective(x - step)[0]) / 2e-6
        assert gradient[1] == pytest.approx(slope, abs=1e-7)


def test_covariance_is_the_inverse_information_in_the_flat_coordinates():
    from probseq.inference.information import observed_information
    from probseq.inference.optimize import MLE

    model, _ = example(2, (1, 0))
    batch = data(model, 120)
    draws = MLE().fit(model, batch, torch.Generator().manual_seed(0))
    expected = observed_information(model, draws.params, batch)
    np.testing.assert_allclose(draws.covariance, expected.covariance, rtol=1e-4, atol=1e-7)


def test_units_do_not_matter_to_the_search():
    from probseq.inference.optimize import MLE

    model = VARMAModel(Observation(2), (0, 1))
    batch = data(model, 100, seed=3)
    unit = torch.tensor([1e6, 1e-4], dtype=torch.float64)
    scaled = batch._replace(x=batch.x * unit)
    plain, other = (MLE().fit(model, b, torch.Generator().manual_seed(0)) for b in (batch, scaled))
    assert other.log_prob == pytest.approx(plain.log_prob - 100 * float(unit.log().sum()), abs=1e-6)


# problems and errors --------------------------------------------------------------------------------------------------


def test_what_is_not_identified_is_named():
    ar = np.array([[[0.5, 0.0], [0.0, 0.3]]])
    assert "nearly cancels" in " ".join(varma_problems(ar, -ar))
    low = np.array([[[0.5, 0.2], [0.0, 0.0]]])
    assert "nearly rank 1 of 2" in " ".join(varma_problems(low, np.array([[[-0.4, 0.3], [0.0, 0.0]]])))
    assert varma_problems(ar, np.array([[[0.2, 0.4], [0.3, -0.5]]])) == ()
    assert "hardly determined" in varma_problems(ar, np.array([[[0.2, 0.4], [0.3, -0.5]]]), np.array([1e-3, 50.0]))[0]
    near = varma_problems(np.array([[[0.9995, 0.0], [0.0, 0.3]]]), np.zeros((0, 2, 2)))
    assert len(near) == 1 and "autoregressive root 1.0005" in near[0]


def test_bad_orders_and_data():
    for order in ((-1, 0), (1,), (1.5, 0), (True, 0)):
        with pytest.raises(ParameterError, match="order="):
            VARMAModel(Observation(2), order)
    model, params = example(2, (2, 0), 1)
    with pytest.raises(CovariateError, match="no covariates"):
        model.log_prob(params, data(model, 5)._replace(u=None))
    with pytest.raises(EmptyDataError):
        model.concentrated(data(model, 6))
