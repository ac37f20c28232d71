"""Baselines: closed-form fits against formulas, gaps against dense Gaussians and enumeration."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.errors import ParameterError
from probseq.models.baseline import MarkovChainModel, SeasonalWalkModel
from probseq.results.joint import make_batch

X = np.cumsum(np.random.default_rng(0).normal(size=50))


def test_iid_normal():
    model = ps.IID().fit(X)
    assert_allclose(model.params_["mean"], [X.mean()])
    assert_allclose(model.params_["scale"], [X.std()])
    assert_allclose(model.log_prob(X), stats.norm(X.mean(), X.std()).logpdf(X).sum(), rtol=1e-12)
    assert model.n_parameters_ == 2 and model.converged_
    assert model.aic == pytest.approx(-2 * model.log_likelihood_ + 4)
    assert model.bic == pytest.approx(-2 * model.log_likelihood_ + 2 * np.log(50))


def test_iid_student_is_no_worse_than_scipy():
    x = stats.t(4, 1.0, 2.0).rvs(300, random_state=0)
    model = ps.IID(ps.StudentT()).fit(x)
    assert model.log_likelihood_ >= stats.t(*stats.t.fit(x)).logpdf(x).sum() - 1e-4


def test_weights_count_sequences():
    a, b = X[:20], X[20:]
    weighted = ps.IID().fit([a, b], weights=[2.0, 1.0])
    assert_allclose(weighted.params_["mean"], [np.concatenate([a, a, b]).mean()])


def test_random_walk():
    model = ps.RandomWalk(drift=True).fit(X)
    change = np.diff(X)
    assert_allclose(model.params_["drift"], [change.mean()])
    assert_allclose(model.params_["scale"], [change.std()])
    steps = model.log_prob_steps(X)
    assert np.isnan(steps[0])
    assert_allclose(steps[1:], stats.norm(change.mean(), change.std()).logpdf(change), rtol=1e-10)
    ahead = model.forecast(3)
    h = np.arange(1, 4)
    assert_allclose(ahead.mean(), X[-1] + h * change.mean())
    assert_allclose(ahead.std(), np.sqrt(h) * change.std())


def test_random_walk_with_gaps_is_the_dense_gaussian():
    x = X[:10].copy()
    x[[0, 3, 4, 8]] = np.nan
    model = SeasonalWalkModel(Observation(1), 1, drift=True)
    params = {"scale": torch.tensor([0.7], dtype=torch.float64), "drift": torch.tensor([0.2], dtype=torch.float64)}
    at = np.flatnonzero(~np.isnan(x))
    gaps = np.diff(at)
    expected = stats.norm(0.2 * gaps, 0.7 * np.sqrt(gaps)).logpdf(np.diff(x[at]))
    steps = model.log_prob_steps(params, make_batch(model, x[None, :, None], np.array([10])))
    assert_allclose(steps.values[0, at[1:]], expected, rtol=1e-12)
    assert not bool(steps.scored[0, : at[0] + 1].any())


def test_seasonal_naive():
    model = ps.SeasonalNaive(period=4).fit(X)
    change = X[4:] - X[:-4]
    scale = np.sqrt((change**2).mean())
    assert_allclose(model.params_["scale"], [scale])
    assert_allclose(model.log_prob(X), stats.norm(0, scale).logpdf(change).sum(), rtol=1e-10)
    ahead = model.forecast(9)
    assert_allclose(ahead.mean(), np.concatenate([X[-4:], X[-4:], X[-4:-3]]))
    assert_allclose(ahead.std(), scale * np.sqrt([1] * 4 + [2] * 4 + [3]))


def test_poisson_process():
    x = np.random.default_rng(1).poisson(3.3, 60)
    model = ps.PoissonProcess().fit(x)
    assert_allclose(model.params_["rate"], [x.mean()])
    assert_allclose(model.log_prob(x), stats.poisson(x.mean()).logpmf(x).sum(), rtol=1e-12)


def test_markov_chain_counts():
    codes = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    model = ps.MarkovChain(smoothing=0.0).fit(codes)
    # From 0: to 1, 1, 0, 1; from 1: to 1, 0, 0; the first value follows the start symbol.
    assert_allclose(model.params_["transition"], [[1 / 4, 3 / 4], [2 / 3, 1 / 3], [1, 0]])
    expected = np.log([1, 3 / 4, 1 / 3, 2 / 3, 3 / 4, 2 / 3, 1 / 4, 3 / 4])
    assert_allclose(model.log_prob_steps(codes), expected, rtol=1e-12, atol=1e-12)
    smoothed = ps.MarkovChain(smoothing=1.0).fit(codes).params_["transition"]
    assert_allclose(smoothed, [[2 / 6, 4 / 6], [3 / 5, 2 / 5], [2 / 3, 1 / 3]])
    assert model.n_parameters_ == 3


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_chain_with_gaps_against_enumeration(order):
    model = MarkovChainModel(Observation(1, "counting", 0.0, 3), order)
    rows = np.random.default_rng(2).dirichlet(np.ones(3), size=model.n_contexts)
    params = {"transition": torch.as_tensor(rows)}
    x = np.array([1.0, np.nan, 0.0, 2.0, np.nan, np.nan, 1.0])
    holes = np.flatnonzero(np.isnan(x))
    total = -np.inf
    for values in itertools.product(range(3), repeat=len(holes)):
        y = x.copy()
        y[holes] = values
        total = np.logaddexp(total, float(model.log_prob(params, make_batch(model, y[None, :, None], np.array([7])))))
    assert_allclose(model.log_prob(params, make_batch(model, x[None, :, None], np.array([7]))), total, rtol=1e-12)


def test_texts_with_their_end():
    texts = ["abab", "aba", "ab"]
    model = ps.MarkovChain(order=2).fit(texts)
    steps = model.log_prob_steps(texts)
    assert np.isfinite(steps[0]).sum() == 5  # four letters and the end
    assert model.sample(3, random_state=0).strip("ab\x03") is not None
    assert isinstance(model.sample(5, n_sequences=2, random_state=0), list)


def test_settings():
    with pytest.raises(ParameterError, match="table"):
        MarkovChainModel(Observation(1, "counting", 0.0, 500), 4)
    with pytest.raises(ParameterError, match="one variable"):
        MarkovChainModel(Observation(2, "counting", 0.0, 3))
