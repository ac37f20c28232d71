"""Leave-future-out: exact where every origin has a fit of its own, and nearly so with few fits."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import special, stats
from scipy.special import logsumexp
from sklearn.base import clone

import probseq as ps
from probseq.errors import ConvergenceWarning, HorizonError, ParameterError, UnsupportedError

HURON = ps.datasets.lake_huron()
AR4 = ps.ARMA((4, 0), inference=ps.Collapsed(n_draws=400, n_proposals=500), random_state=0)


def exact(origin):
    """log p(x_origin | x_<origin) under a fit of its own."""
    own = clone(AR4).fit(HURON[:origin])
    each = own.model_.model.log_prob_steps(own.model_.params, own._batch(own._read(HURON))).values[:, 0, origin]
    alone = own.log_prob(HURON[origin : origin + 1], history=HURON[:origin])
    assert_allclose(logsumexp(each) - np.log(own.model_.n_draws), float(alone), rtol=1e-10)
    return float(alone)


def log_evidence(partials, x):
    """log of the integral of p(x_1:t | partials, mean, s) / s over mean and s, for every t: (N, T), by the book."""
    n, phi, rows, variance = len(partials), np.zeros((len(partials), 0)), [], np.ones((len(partials), 5))
    for k in range(5):
        rows.append(phi)
        if k < 4:
            last = partials[:, k : k + 1]
            phi = np.concatenate([phi - last * phi[:, ::-1], last], 1)
            variance[:, : k + 1] /= 1 - last**2
    errors, ones, log_scale = np.zeros((3, n, len(x)))
    for t in range(len(x)):
        k = min(t, 4)
        scale = np.sqrt(variance[:, k])
        errors[:, t] = (x[t] - rows[k] @ x[t - k : t][::-1]) / scale
        ones[:, t] = (1 - rows[k].sum(1)) / scale
        log_scale[:, t] = np.log(scale)
    precision = np.cumsum(ones**2, 1)
    squares = np.cumsum(errors**2, 1) - np.cumsum(errors * ones, 1) ** 2 / precision
    df = np.arange(len(x)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        integral = special.gammaln(df) - math.log(2) - df * np.log(np.pi * squares)
    return integral - 0.5 * np.log(precision) - np.cumsum(log_scale, 1)


def exact_predictives(x, first):
    """log p(x_t+1 | x_1:t) for t >= first of an AR(4) whose partials have arcsine laws, by importance sampling.

    Each ratio of two integrals, both from the same 20,000 points around the posteriors of four lengths.
    """
    rng = np.random.default_rng(0)
    z = np.arctanh(0.99 * np.sin(rng.uniform(-np.pi / 2, np.pi / 2, (4000, 4))))
    logs = log_evidence(np.tanh(z), x)
    for n in (2000, 4000, 20_000):
        laws = []
        for t in (first - 1, 33, 54, len(x) - 1):
            w = np.exp(logs[:, t] - logsumexp(logs[:, t]))
            root = np.linalg.cholesky(1.5 * (w[:, None] * (z - w @ z)).T @ (z - w @ z) + 0.01 * np.eye(4))
            laws.append(stats.multivariate_t(w @ z, root @ root.T, df=5))
        z = np.concatenate([law.rvs(n // 4, random_state=rng) for law in laws]).clip(-8, 8)
        proposed = np.logaddexp.reduce([law.logpdf(z) for law in laws])
        logs = log_evidence(np.tanh(z), x) - np.log(np.cosh(z)).sum(1)[:, None] - proposed[:, None]
    total = logsumexp(logs[:, first - 1 :], axis=0)
    assert (1 / (np.exp(logs[:, first - 1 :] - total) ** 2).sum(0)).min() > 1000
    return np.diff(total)


@pytest.mark.filterwarnings("ignore::probseq.errors.ProbseqWarning")
def test_lake_huron_against_exact_predictives():
    """AR(4) on Lake Huron from 20 years on, as in Buerkner, Gabry and Vehtari (2020), section 3."""
    model = clone(AR4).set_params(inference=ps.Collapsed(n_draws=2000, n_proposals=2000))
    found = ps.leave_future_out(model, HURON, min_steps=20)
    assert found.sizes["origin"] == 78
    assert 2 <= len(np.unique(found["fitted_at"])) <= 10
    assert float(found["pareto_k"].max()) <= 0.7
    values = HURON.values.astype(float)
    apart = found["log_score"].values - exact_predictives(values - values.mean(), 20)
    # What the Monte Carlo error of 2000 draws leaves, and no trend in it.
    assert np.abs(apart).max() < 0.2 and np.sqrt((apart**2).mean()) < 0.05
    assert abs(apart.sum()) < 0.5
    assert_allclose(found["elpd"], found["log_score"].sum())


@pytest.mark.filterwarnings("ignore::probseq.errors.ProbseqWarning")
def test_without_a_threshold_every_origin_has_a_fit_of_its_own():
    found = ps.leave_future_out(AR4, HURON, min_steps=94, k_threshold=-math.inf)
    assert np.isnan(found["pareto_k"]).all()
    assert_allclose(found["fitted_at"], found["origin"])
    assert_allclose(found["log_score"], [exact(origin) for origin in range(94, 98)], rtol=1e-10)


def test_missing_steps_ask_for_no_new_fit():
    y = HURON.astype(float).copy()
    y[90:95] = np.nan
    found = ps.leave_future_out(ps.ARMA((1, 0), inference=AR4.inference, random_state=0), y, min_steps=90)
    assert (found["fitted_at"] == 90).all()
    assert np.isnan(found["log_score"][:5]).all() and np.isnan(found["pareto_k"][:6]).all()
    assert np.isfinite(found["log_score"][5:]).all() and (found["pareto_k"][6:] < 0.7).all()


def test_conjugate_model_is_exact_in_closed_form():
    """Poisson counts with a Gamma(a, b) prior: x_t+1 given x_1:t is negative binomial."""
    rng = np.random.default_rng(0)
    y = [rng.poisson(4.0, size=30), rng.poisson(4.0, size=24)]
    a, b = 3.0, 0.5
    prior = {"rate": torch.distributions.Gamma(a, b)}
    model = ps.IID(ps.Poisson(), inference=ps.Laplace(priors=prior, n_draws=4000), random_state=0)
    found = ps.leave_future_out(model, y, min_steps=10, horizon=2)
    assert found["log_score"].dims == ("origin", "sequence") and found.sizes["origin"] == 19
    assert len(np.unique(found["fitted_at"])) <= 3
    for origin in (10, 17, 28):
        past = [one[:origin] for one in y]
        shape, rate = a + sum(map(np.sum, past)), b + sum(map(len, past))
        for s, one in enumerate(y):
            x = one[origin : origin + 2]
            n, total = len(x), x.sum()
            expected = (
                math.lgamma(shape + total)
                - math.lgamma(shape)
                + shape * math.log(rate)
                - (shape + total) * math.log(rate + n)
                - sum(math.lgamma(v + 1) for v in x)
            )
            score = found["log_score"].sel(origin=origin, sequence=s)
            assert_allclose(score, expected if n else np.nan, atol=0.03)
    assert float(found["standard_error"]) > 0


def test_what_is_wrong_is_named():
    with pytest.raises(UnsupportedError, match="single draw"):
        ps.leave_future_out(ps.ARMA((1, 0)), HURON)
    with pytest.raises(HorizonError, match="min_steps|behind the first 98"):
        ps.leave_future_out(AR4, HURON, min_steps=98)
    with pytest.raises(ParameterError, match="k_threshold"):
        ps.leave_future_out(AR4, HURON, k_threshold="0.7")
    with pytest.raises(ParameterError, match="one estimator"):
        ps.leave_future_out([AR4], HURON)
    few = ps.ARMA((1, 0), inference=ps.Collapsed(n_draws=50, n_proposals=50), random_state=0)
    with pytest.raises(ps.errors.ProbseqError) as raised:
        ps.leave_future_out(few, HURON, min_steps=1)
    assert "fitted to the first 1 steps" in raised.value.__notes__[0]


def test_what_fits_had_to_say_is_said_once():
    stuck = ps.ARMA((1, 0), inference=ps.Laplace(n_draws=50, max_iter=1), random_state=0)
    with pytest.warns(ConvergenceWarning, match="fits had something to say; at the origin 90") as told:
        ps.leave_future_out(stuck, HURON, min_steps=90)
    assert len(told) == 1
