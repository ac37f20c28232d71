"""MAP: conjugate modes, an objective that includes the prior, and priors that are refused."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from torch.distributions import Beta, Dirichlet, Gamma, LogNormal, Normal, Uniform

import probseq as ps
from probseq.data.sequences import sequences
from probseq.distributions.params import flatten, unflatten
from probseq.errors import ParameterError
from probseq.inference.priors import checked_priors, log_prior
from probseq.results.joint import make_batch

COUNTS = np.random.default_rng(0).poisson(6.0, 25).astype(float)


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    "make", [lambda i: ps.IID(ps.Poisson(), inference=i), lambda i: ps.HMM(1, ps.Poisson(), inference=i)]
)
def test_a_gamma_prior_on_a_rate_has_its_conjugate_mode_and_curvature(make):
    model = make(ps.MAP({"rate": Gamma(double(3.0), double(2.0))})).fit(COUNTS)
    n, total = len(COUNTS), COUNTS.sum()
    mode = (total + 2.0) / (n + 2.0)
    assert_allclose(model.params_["rate"].values.ravel(), mode, rtol=1e-6)
    # -d^2/d rate^2 = (total + 2) / rate^2 at the mode, where the slope is zero.
    assert_allclose(model.standard_errors_["rate"].values.ravel(), mode / np.sqrt(total + 2.0), rtol=1e-5)
    expected = stats.poisson(mode).logpmf(COUNTS).sum()
    assert_allclose(model.draws_.log_prob, expected, rtol=1e-10)
    assert_allclose(model.draws_.objective, expected + stats.gamma(3.0, scale=0.5).logpdf(mode), rtol=1e-10)
    assert model.log_likelihood_ == pytest.approx(expected)


def test_a_dirichlet_prior_adds_pseudo_counts_to_a_chain():
    y = ps.datasets.earthquakes()
    prior = Dirichlet(double([[20.0, 2.0], [3.0, 15.0]]))
    model = ps.HMM(2, ps.Poisson(), inference=ps.MAP({"transition": prior}), random_state=0).fit(y)
    # At the mode A_ij is proportional to the expected transitions plus a_ij - 1, the fixed point of EM with this prior.
    moves = model.expected_counts(y)["transitions"].values
    wanted = moves + prior.concentration.numpy() - 1.0
    assert_allclose(model.params_["transition"], wanted / wanted.sum(-1, keepdims=True), atol=2e-5)
    assert model.status_ == "converged" and model.draws_.trace[-1] == model.draws_.objective
    assert np.all(np.diff(model.draws_.trace) > 0)


def test_without_priors_the_mode_is_the_maximum_of_the_likelihood():
    model = ps.HMM(2, ps.Poisson(), "stationary", inference=ps.MAP(), random_state=0).fit(ps.datasets.earthquakes())
    assert_allclose(model.log_likelihood_, -342.3183, atol=5e-5)
    assert model.draws_.objective == pytest.approx(model.draws_.log_prob)


def test_the_slope_of_the_posterior_vanishes_on_the_constrained_scale():
    rng = np.random.default_rng(1)
    x = np.where(np.arange(90) // 15 % 2, 3.0, 0.0) + rng.normal(size=90)
    x[7:9] = np.nan
    priors = {"mean": Normal(1.0, 2.0), "scale": LogNormal(0.0, 0.3), "initial": Dirichlet(double([2.0, 2.0]))}
    fitted = ps.HMM(2, inference=ps.MAP(priors, n_init=2, tol=0.0), random_state=0).fit(x)
    model = fitted.model_.model
    specs = model.parameters()
    batch = make_batch(model, x[None, :, None], np.array([90]))
    flat = flatten(specs, fitted.model_.params).requires_grad_()
    params = unflatten(specs, flat)
    total = model.log_prob(params, batch).sum() + log_prior(specs, checked_priors(specs, priors), params).sum()
    total.backward()
    assert_allclose(flat.grad, 0.0, atol=1e-4)
    value = (
        stats.norm(1, 2).logpdf(fitted.params_["mean"]).sum() + stats.lognorm(0.3).logpdf(fitted.params_["scale"]).sum()
    )
    value += stats.dirichlet([2, 2]).logpdf(fitted.params_["initial"].values)
    assert_allclose(fitted.draws_.objective - fitted.draws_.log_prob, value, rtol=1e-6)
    assert len(fitted.draws_.optima) == 3 and fitted.draws_.optima[0] == pytest.approx(fitted.draws_.objective)


def test_priors_keep_forbidden_transitions_and_are_taken_over_the_free_entries():
    mask = np.array([[True, True, False], [False, True, True], [False, False, True]])
    prior = {"transition": Dirichlet(double([2.0, 3.0, 4.0]))}
    model = ps.HMM(3, ps.Poisson(), transitions=mask, inference=ps.MAP(prior), random_state=0).fit(COUNTS)
    p = model.params_["transition"].values
    assert np.all((p > 0) == mask)
    specs = model.model_.model.parameters()
    found = float(log_prior(specs, checked_priors(specs, prior), model.model_.params)[0])
    expected = stats.beta(2, 3).logpdf(p[0, 0]) + stats.beta(3, 4).logpdf(p[1, 1])
    assert_allclose(found, expected, rtol=1e-10)


def test_arma_takes_priors_too():
    y = np.asarray(ps.datasets.air_passengers(), dtype=float)[:60]
    plain = ps.ARMA(order=(1, 0), inference=ps.MAP(tol=1e-14)).fit(y)
    best = ps.ARMA(order=(1, 0)).fit(y)
    assert_allclose(plain.log_likelihood_, best.log_likelihood_, atol=1e-4)
    tight = ps.ARMA(order=(1, 0), inference=ps.MAP({"ar": Normal(0.0, 0.01)})).fit(y)
    assert abs(float(tight.params_["ar"].squeeze())) < 0.1 < float(best.params_["ar"].squeeze())
    assert tight.log_likelihood_ < best.log_likelihood_


def test_sequence_weights_weigh_the_data_not_the_prior():
    data = [COUNTS, COUNTS[::-1] + 1]
    prior = {"rate": Gamma(double(30.0), double(2.0))}
    twice = ps.IID(ps.Poisson(), inference=ps.MAP(prior)).fit(data, weights=[2.0, 0.0])
    once = ps.IID(ps.Poisson(), inference=ps.MAP(prior)).fit([COUNTS, COUNTS])
    assert_allclose(twice.params_["rate"], once.params_["rate"], rtol=1e-6)


WRONG = {
    "a name": ({"rates": Gamma(1.0, 1.0)}, "'rates'"),
    "a shape": ({"transition": Dirichlet(torch.ones(3))}, "shape"),
    "a support": ({"mean": Gamma(1.0, 1.0)}, "'mean'"),
    "part of a support": ({"scale": Uniform(0.0, 1.0)}, "'scale'"),
    "entries of a simplex": ({"transition": Beta(1.0, 1.0)}, "'transition'"),
    "no distribution": ({"mean": 3.0}, "torch.distributions"),
    "no mapping": ([Normal(0.0, 1.0)], "dict"),
}


@pytest.mark.parametrize("priors, match", WRONG.values(), ids=WRONG)
def test_wrong_priors_are_refused(priors, match):
    with pytest.raises(ParameterError, match=match):
        ps.HMM(2, inference=ps.MAP(priors)).fit(COUNTS)


@pytest.mark.parametrize("options", [{"n_init": -1}, {"max_iter": 0}, {"tol": 2.0}, {"tol": "small"}])
def test_wrong_settings_are_refused(options):
    with pytest.raises(ParameterError):
        ps.HMM(2, inference=ps.MAP(**options)).fit(COUNTS)


def test_priors_are_kept_in_files(tmp_path):
    priors = {"rate": Gamma(double(3.0), double(2.0)), "transition": Dirichlet(double([[2.0, 1.0], [1.0, 2.0]]))}
    model = ps.HMM(2, ps.Poisson(), inference=ps.MAP(priors), random_state=0).fit(ps.datasets.earthquakes())
    model.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    kept = again.inference.priors
    assert_allclose(kept["rate"].log_prob(double(1.5)), priors["rate"].log_prob(double(1.5)))
    assert torch.equal(kept["transition"].concentration, priors["transition"].concentration)


def test_pyro_distributions_are_taken():
    import pyro.distributions as dist

    model = ps.IID(ps.Poisson(), inference=ps.MAP({"rate": dist.Gamma(double(3.0), double(2.0))})).fit(COUNTS)
    assert_allclose(model.params_["rate"].values.ravel(), (COUNTS.sum() + 2) / (len(COUNTS) + 2), rtol=1e-6)


def test_progress_reports_the_objective_with_its_prior():
    seen = []
    y = ps.datasets.earthquakes()
    model = ps.HMM(2, ps.Poisson(), inference=ps.MAP({"rate": Gamma(double(3.0), double(2.0))}), random_state=0)
    model.fit(sequences(y), progress=lambda i, value: seen.append(value))
    assert_allclose(seen[-1], model.draws_.objective, rtol=1e-9)


def test_a_prior_of_driven_transitions_leaves_structural_zeros_out():
    u = np.linspace(-1, 1, 30)
    fitted = ps.HMM(2, transitions=ps.CovariateTransitions(), inference=ps.EM(n_init=1, tol=0.1), random_state=0).fit(
        np.random.default_rng(0).normal(size=30), covariates=u
    )
    inner = fitted.model_.model
    priors = checked_priors(inner.parameters(), {"transition_intercept": Normal(double(0.0), double(3.0))})
    free = fitted.params_["transition_intercept"].values[[0, 1], [1, 0]]
    assert_allclose(
        float(log_prior(inner.parameters(), priors, fitted.model_.params)), stats.norm(0, 3).logpdf(free).sum()
    )
