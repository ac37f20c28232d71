"""Evidence against closed forms and quadrature."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import gammaln, logsumexp
from torch.distributions import Dirichlet, Gamma, LogNormal, Normal

import probseq as ps
from probseq.errors import DataError, ParameterError, UnsupportedError

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(4.0, size=40)
A, B = 3.0, 0.5
GAMMA = {"rate": Gamma(A, B)}


def nuts(priors, n_draws=200):
    return ps.NUTS(priors=priors, n_draws=n_draws, n_chains=1, n_warmup=60)


def poisson_evidence(y):
    shape, rate = A + y.sum(), B + len(y)
    total = A * math.log(B) - math.lgamma(A) + math.lgamma(shape) - shape * math.log(rate)
    return total - gammaln(y + 1).sum()


def test_poisson_with_its_conjugate_prior():
    exact = poisson_evidence(COUNTS)
    laplace = ps.marginal_likelihood(ps.IID(ps.Poisson(), inference=ps.Laplace(priors=GAMMA)).fit(COUNTS))
    assert laplace.method == "laplace" and math.isnan(laplace.standard_error)
    assert_allclose(laplace.log_prob, exact, atol=0.005)
    fitted = ps.IID(ps.Poisson(), inference=nuts(GAMMA), random_state=0).fit(COUNTS)
    bridge = ps.marginal_likelihood(fitted)
    assert bridge.method == "bridge" and 0 < bridge.standard_error < 0.05
    assert abs(bridge.log_prob - exact) < 4 * bridge.standard_error
    many = ps.marginal_likelihood(fitted, COUNTS, n_proposals=5000, random_state=1)
    assert many.standard_error < bridge.standard_error
    assert abs(many.log_prob - exact) < 4 * many.standard_error
    with pytest.raises(DataError, match="other than those of the fit"):
        ps.marginal_likelihood(fitted, COUNTS + 1)


def test_categories_with_a_dirichlet_prior():
    tokens = np.array(list("abacabaa" * 6))
    prior = torch.tensor([1.5, 2.0, 0.5], dtype=torch.float64)
    model = ps.IID(ps.Categorical(), inference=nuts({"probs": Dirichlet(prior)}), random_state=0).fit(tokens)
    counts = np.array([(tokens == token).sum() for token in model.vocabulary_.tokens])
    a = prior.numpy()
    exact = gammaln(a.sum()) - gammaln(a.sum() + len(tokens)) + (gammaln(a + counts) - gammaln(a)).sum()
    found = ps.marginal_likelihood(model)
    assert abs(found.log_prob - exact) < 4 * found.standard_error < 0.4


def test_a_regression_on_the_past_by_quadrature_on_the_scale_of_the_data():
    """AR(1) of logarithms with a uniform coefficient: a grid over the three parameters, and sum log 1/y."""
    y = np.exp(1.0 + stats.norm.rvs(scale=0.3, size=25, random_state=1))
    x = np.log(y)
    priors = {"mean": Normal(1.0, 0.5), "scale": LogNormal(-1.0, 0.5)}
    phi, mu, s = np.meshgrid(
        np.linspace(-0.995, 0.995, 80), np.linspace(0.4, 1.6, 40), np.exp(np.linspace(-2.2, -0.2, 40)), indexing="ij"
    )
    z = x[:, None, None, None] - mu
    logs = stats.norm.logpdf(z[0], scale=s / np.sqrt(1 - phi**2)) + sum(
        stats.norm.logpdf(z[t] - phi * z[t - 1], scale=s) for t in range(1, len(x))
    )
    logs += stats.norm.logpdf(mu, 1.0, 0.5) + stats.norm.logpdf(np.log(s), -1.0, 0.5) + math.log(0.5)
    cell = (1.99 / 79) * (1.2 / 39) * (2.0 / 39)
    exact = logsumexp(logs) + math.log(cell) - x.sum()
    model = ps.ARMA((1, 0), transform=ps.Log(), inference=ps.Laplace(priors=priors)).fit(y)
    # The error of the approximation is of order 1 / T.
    assert abs(ps.marginal_likelihood(model).log_prob - exact) < 5 / len(x)


def test_a_normal_law_by_quadrature_and_bridge():
    y = np.exp(1.0 + stats.norm.rvs(scale=0.3, size=25, random_state=1))
    x = np.log(y)
    priors = {"mean": Normal(1.0, 0.5), "scale": LogNormal(-1.0, 0.5)}
    mu, log_s = np.meshgrid(np.linspace(0.4, 1.6, 300), np.linspace(-2.4, 0.2, 300), indexing="ij")
    logs = stats.norm.logpdf(x[:, None, None], mu, np.exp(log_s)).sum(0)
    logs += stats.norm.logpdf(mu, 1.0, 0.5) + stats.norm.logpdf(log_s, -1.0, 0.5)
    exact = logsumexp(logs) + math.log(1.2 / 299 * 2.6 / 299) - x.sum()
    model = ps.IID(ps.Normal(), transform=ps.Log(), inference=nuts(priors), random_state=0).fit(y)
    found = ps.marginal_likelihood(model)
    assert abs(found.log_prob - exact) < 4 * found.standard_error < 0.3


def test_hidden_states_count_with_all_their_names():
    """All paths of two states, given which rates, start and rows of the transition matrix integrate in closed form."""
    y = np.array([1, 0, 2, 1, 9, 12, 10, 8, 11, 1, 0, 2])
    start, rows = np.ones(2), np.array([[2.0, 1.0], [1.0, 2.0]])

    def dirichlet(counts, a):
        return gammaln(a.sum(-1)) - gammaln((a + counts).sum(-1)) + (gammaln(a + counts) - gammaln(a)).sum(-1)

    paths = (np.arange(2 ** len(y))[:, None] >> np.arange(len(y))) & 1
    named = np.stack([1 - paths, paths], -1)
    moves = np.einsum("nti,ntj->nij", named[:, :-1], named[:, 1:])
    shape, rate = A + y @ named, B + named.sum(1)
    logs = dirichlet(named[:, 0], start) + dirichlet(moves, rows).sum(-1) - gammaln(y + 1).sum()
    logs += (A * math.log(B) - math.lgamma(A) + gammaln(shape) - shape * np.log(rate)).sum(-1)
    priors = {**GAMMA, "initial": Dirichlet(torch.ones(2)), "transition": Dirichlet(torch.as_tensor(rows))}
    model = ps.HMM(2, ps.Poisson(), inference=ps.Laplace(priors=priors), random_state=0).fit(y)
    found = ps.marginal_likelihood(model).log_prob
    assert_allclose(found, model.draws_.objective + math.log(2), rtol=1e-6)
    # Laplace's error is of order 1 / T, and far less than the log 2 of the names.
    assert abs(found - logsumexp(logs)) < 0.4


def test_the_prequential_likelihood_adds_up_to_a_ratio_of_evidences():
    model = ps.IID(ps.Poisson(), inference=ps.Laplace(priors=GAMMA, n_draws=2000), random_state=0)
    one_by_one = ps.backtest(model, COUNTS, 1, min_steps=20, refit=1)["log_score"].sum()
    assert_allclose(one_by_one, poisson_evidence(COUNTS) - poisson_evidence(COUNTS[:20]), atol=0.05)


@pytest.mark.filterwarnings("ignore::probseq.errors.ConvergenceWarning")
def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UnsupportedError, match="fitted by MLE"):
        ps.marginal_likelihood(ps.ARMA((1, 0)).fit(COUNTS.astype(float)))
    flat = ps.IID(ps.Poisson(), inference=ps.Laplace(priors={"rate": None})).fit(COUNTS)
    with pytest.raises(UnsupportedError, match="a flat prior of rate"):
        ps.marginal_likelihood(flat)
    few = ps.IID(ps.Poisson(), inference=ps.NUTS(priors=GAMMA, n_draws=20, n_chains=1, n_warmup=20)).fit(COUNTS)
    with pytest.raises(ParameterError, match="20 draws of 1 parameters"):
        ps.marginal_likelihood(few)
    few.save(tmp_path / "few")
    with pytest.raises(DataError, match="a model without its data"):
        ps.marginal_likelihood(ps.load(tmp_path / "few"))
