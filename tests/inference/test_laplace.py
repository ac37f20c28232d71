"""Laplace's approximation against exact posteriors, and the weak priors behind it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import special, stats
from torch.distributions import Gamma, Normal

import probseq as ps
from probseq.errors import DegenerateWarning, ParameterError
from probseq.inference.laplace import log_posterior
from probseq.inference.weak_priors import InverseWishart
from probseq.models.hmm import HiddenMarkovModel
from probseq.results.joint import make_batch

COUNTS = np.random.default_rng(0).poisson(20.0, 200).astype(float)


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def problem(emission, x, n_states=2):
    x = np.asarray(x, dtype=float)
    x = x.reshape(1, len(x), -1)
    model = HiddenMarkovModel(n_states, emission, emission.observation(x.shape[-1]))
    return model, make_batch(model, x, np.array([x.shape[1]]))


def test_many_counts_give_the_gamma_posterior_and_its_evidence():
    inference = ps.Laplace({"rate": Gamma(double(4.0), double(0.2))}, n_draws=4000)
    model = ps.HMM(1, ps.Poisson(), inference=inference, random_state=0).fit(COUNTS)
    shape, rate = 4.0 + COUNTS.sum(), 0.2 + len(COUNTS)
    draws = model.params_["rate"].values.ravel()
    exact = stats.gamma(shape, scale=1 / rate)
    assert abs(draws.mean() - exact.mean()) < 5 * exact.std() / np.sqrt(4000) + 0.02 * exact.std()
    assert_allclose(draws.std(), exact.std(), rtol=0.06)
    evidence = (
        4.0 * np.log(0.2)
        - special.gammaln(4.0)
        + special.gammaln(shape)
        - shape * np.log(rate)
        - special.gammaln(COUNTS + 1).sum()
    )
    assert_allclose(model.draws_.objective, evidence, atol=1e-3)


def test_draws_have_the_moments_of_the_curvature_at_the_mode():
    y = np.asarray(ps.datasets.earthquakes(), dtype=float)
    model, batch = problem(ps.Poisson(), y)
    draws = ps.Laplace(n_draws=20_000).fit(model, batch, torch.Generator().manual_seed(0))
    target = log_posterior(model, batch, None, None)
    flat = target.flat({n: v for n, v in draws.params.items()}).numpy()
    spread = np.cov(flat.T)
    scale = np.sqrt(np.diag(draws.covariance))
    assert_allclose(spread / scale / scale[:, None], draws.covariance / scale / scale[:, None], atol=0.03)
    # The mode of the coordinates' density: no slope there.
    assert draws.status == "converged" and draws.messages == ()
    assert draws.objective < draws.trace[-1] + 10 and np.all(np.diff(draws.trace) > 0)


def test_predictions_average_over_the_draws():
    y = ps.datasets.earthquakes()
    model = ps.HMM(2, ps.Poisson(), inference=ps.Laplace(n_draws=50), random_state=0).fit(y)
    assert model.params_.sizes["draw"] == 50 and model.model_.n_draws == 50
    parts = model.forecast(3).decompose()
    assert (parts["epistemic"] > 0).all()


def test_arma_spreads_as_its_standard_errors_say():
    shocks = np.random.default_rng(0).normal(size=401)
    y = np.zeros(400)
    for t in range(1, 400):
        y[t] = 0.6 * y[t - 1] + shocks[t] + 0.4 * shocks[t - 1]
    model = ps.ARMA(order=(1, 1), inference=ps.Laplace(n_draws=2000), random_state=0).fit(50 + y)
    best = ps.ARMA(order=(1, 1)).fit(50 + y)
    for name in ("ar", "ma", "mean", "scale"):
        error = float(best.standard_errors_[name].squeeze())
        assert_allclose(float(model.params_[name].std("draw").squeeze()), error, rtol=0.15)
        shift = abs(float(model.params_[name].mean("draw").squeeze()) - float(best.params_[name].squeeze()))
        assert shift < 0.4 * error


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_weak_priors_follow_the_unit_of_the_data_and_not_the_states(unit):
    rng = np.random.default_rng(0)
    x = np.repeat([0.0, 4.0, 0.0], 30)[:, None] + rng.normal(size=(90, 2))
    for emission in (ps.Normal(), ps.Normal("full")):
        priors = log_posterior(*problem(emission, unit * x), None, None).priors
        base = log_posterior(*problem(emission, x), None, None).priors
        assert_allclose(priors["mean"].stddev, unit * base["mean"].stddev, rtol=1e-6)
        assert_allclose(priors["mean"].mean, unit * base["mean"].mean, rtol=1e-6)
        assert torch.equal(priors["mean"].mean[0], priors["mean"].mean[1])
        if emission.covariance == "full":
            assert_allclose(priors["covariance"].scale, unit**2 * base["covariance"].scale, rtol=1e-6)
        else:
            assert_allclose(priors["scale"].loc, np.log(unit) + base["scale"].loc, rtol=1e-6)
    assert_allclose(priors["transition"].concentration, 1.0)


def test_given_priors_stay_and_none_is_flat():
    model, batch = problem(ps.Normal(), COUNTS)
    priors = log_posterior(model, batch, None, {"mean": Normal(1.0, 2.0), "scale": None}).priors
    assert float(priors["mean"].loc) == 1.0 and "scale" not in priors and "transition" in priors


def test_the_inverse_wishart_density_is_that_of_scipy():
    a = np.random.default_rng(0).normal(size=(4, 3, 3))
    scale, values = a[0] @ a[0].T + np.eye(3), a[1:] @ np.swapaxes(a[1:], -1, -2) + np.eye(3)
    found = InverseWishart(6.5, double(scale)).log_prob(double(values))
    assert_allclose(found, [stats.invwishart(6.5, scale).logpdf(v) for v in values], rtol=1e-10)


def test_a_posterior_that_does_not_bend_warns():
    x = np.append(np.repeat([1.0, 1.0, 5.0, 5.0, 9.0], 5), 9.5)
    inference = ps.Laplace({"mean": None, "scale": None}, n_draws=10, max_iter=300)
    with pytest.warns(DegenerateWarning) as caught:
        model = ps.HMM(3, inference=inference, random_state=0).fit(x)
    said = " ".join(str(one.message) for one in caught)
    assert "variance of state 0 (Normal) collapsed" in said and "does not bend" in said
    assert not model.converged_


@pytest.mark.parametrize("options", [{"n_draws": 0}, {"n_draws": 1.5}, {"max_iter": 0}, {"priors": {"what": None}}])
def test_wrong_settings_are_refused(options):
    with pytest.raises(ParameterError):
        ps.HMM(2, ps.Poisson(), inference=ps.Laplace(**options)).fit(COUNTS)


def test_a_state_at_zero_does_not_drag_the_prior_of_the_others():
    x = np.r_[np.zeros(30), np.random.default_rng(0).poisson(5.0, 30), np.zeros(30)]
    fitted = ps.HMM(2, ps.Poisson(), inference=ps.Laplace(n_draws=20), random_state=0).fit(x)
    best = ps.HMM(2, ps.Poisson(), random_state=0).fit(x)
    # Priors a factor of e^2 wide around the mean rate cost a few nats, not a dozen.
    assert best.log_likelihood_ - fitted.draws_.objective < 15.0


def test_driven_transitions_have_weak_priors():
    model = ps.HMM(2, transitions=ps.CovariateTransitions(), inference=ps.EM(n_init=1, tol=0.1), random_state=0)
    fitted = model.fit(np.repeat([0.0, 5.0], 30) + np.arange(60) % 3, covariates=np.repeat([0.0, 1.0], 30))
    target = log_posterior(fitted.model_.model, fitted._batch(fitted.training_), None, None)
    for name in ("transition_intercept", "transition_coefficients"):
        assert isinstance(target.priors[name], Normal)
