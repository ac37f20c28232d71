"""Missing values filled in: against enumeration of the states and conditional normals."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.distributions.bijections import Exponential
from probseq.distributions.compose import Mixture, push
from probseq.distributions.conditioning import given
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.errors import ParameterError
from probseq.inference.base import Draws

START, MOVES = np.array([0.6, 0.4]), np.array([[0.8, 0.2], [0.3, 0.7]])
MEAN = np.array([[0.0, 1.0, 2.0], [3.0, -1.0, 0.0]])
COVARIANCE = np.array(
    [[[1.0, 0.5, 0.2], [0.5, 2.0, -0.3], [0.2, -0.3, 0.7]], [[0.5, -0.2, 0.0], [-0.2, 0.5, 0.3], [0.0, 0.3, 1.5]]]
)
X = np.array([[0.5, 1.0, 1.0], [np.nan, 2.0, 0.3], [np.nan] * 3, [2.0, np.nan, np.nan], [2.5, -1.0, 0.2]])


def normal(transform=None):
    model = ps.HMM(2, ps.Normal("full"), transform=transform)
    return model.with_parameters(initial=START, transition=MOVES, mean=MEAN, covariance=COVARIANCE)


def dense(x=X):
    """For every path of states: its posterior probability, mean and covariance of all values given those seen."""
    t, k = x.shape
    paths, logs, means, spreads = list(itertools.product(range(2), repeat=t)), [], [], []
    seen = ~np.isnan(x).ravel()
    for z in paths:
        mu, cov = MEAN[list(z)].ravel(), np.zeros((t * k, t * k))
        for i, j in enumerate(z):
            cov[i * k : i * k + k, i * k : i * k + k] = COVARIANCE[j]
        prior = np.log(START[z[0]]) + sum(np.log(MOVES[a, b]) for a, b in itertools.pairwise(z))
        inner = cov[np.ix_(seen, seen)]
        gap = x.ravel()[seen] - mu[seen]
        solved = np.linalg.solve(inner, gap)
        logs.append(prior - 0.5 * gap @ solved - 0.5 * np.linalg.slogdet(2 * np.pi * inner)[1])
        cross = cov[:, seen]
        means.append(np.where(seen, np.nan_to_num(x.ravel()), mu + cross @ solved))
        spreads.append(cov - cross @ np.linalg.solve(inner, cross.T))
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    mean = weights @ np.array(means)
    apart = np.array(means) - mean
    return mean.reshape(t, k), np.einsum("p,pij->ij", weights, np.array(spreads)) + np.einsum(
        "p,pi,pj->ij", weights, apart, apart
    )


def test_expected_values_equal_the_dense_law():
    filled = normal().impute(X)
    assert filled.dims == ("time", "variable") and filled.name == "imputed"
    mean, covariance = dense()
    assert_allclose(filled, mean, rtol=1e-10)
    assert filled["std"].dims == filled.dims
    assert_allclose(filled["std"] ** 2, np.diag(covariance).reshape(X.shape), atol=1e-12, rtol=1e-10)
    assert not normal().impute(X[4:])["std"].any()
    assert_array_equal(np.isnan(X) | (filled.values == X), True)


def test_completions_follow_the_joint_law():
    n = 20000
    paths = normal().impute(X, n_draws=n, random_state=0)
    assert paths.dims == ("path", "time", "variable") and paths.shape == (n, 5, 3)
    assert_array_equal(np.isnan(X) | (paths.values == X).all(0), True)
    mean, covariance = dense()
    flat = paths.values.reshape(n, -1)
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(flat.mean(0) - mean.ravel()) <= 4 * spread / np.sqrt(n) + 1e-12).all()
    unseen = np.isnan(X).ravel()
    found = np.cov(flat[:, unseen].T)
    wanted = covariance[np.ix_(unseen, unseen)]
    assert_allclose(found, wanted, atol=5 * np.abs(wanted).max() / np.sqrt(n))
    once, again = (normal().impute(X, n_draws=30, random_state=0) for _ in range(2))
    assert_array_equal(once, again)


def test_through_a_logarithm():
    """E[e^z] of the law of z, not the exponential of its mean."""
    filled = normal(ps.Log()).impute(np.exp(X))
    mean, covariance = dense()
    gone = np.isnan(X)
    assert (filled.values[gone] > np.exp(mean[gone])).all()
    paths = normal(ps.Log()).impute(np.exp(X), n_draws=20000, random_state=1)
    error = paths.std("path").values[gone] / np.sqrt(20000)
    assert (np.abs(paths.mean("path").values - filled.values)[gone] < 5 * error).all()
    same = np.log(normal(ps.Log()).impute(np.exp(X), n_draws=50, random_state=1))
    assert_allclose(same, normal().impute(X, n_draws=50, random_state=1), atol=1e-9)


def test_counts_and_categories():
    counts = ps.HMM(2, ps.Poisson()).with_parameters(initial=START, transition=MOVES, rate=[2.0, 9.0])
    y = np.array([1.0, 8.0, np.nan, 10.0, np.nan, np.nan, 2.0])
    filled, probs = counts.impute(y), counts.smooth(y).values
    gone = np.isnan(y)
    mean, square = probs @ [2.0, 9.0], probs @ [2.0 + 4.0, 9.0 + 81.0]
    assert_allclose(filled.values[gone], mean[gone], rtol=1e-10)
    assert_allclose(filled["std"], np.where(gone, np.sqrt(square - mean**2), 0.0), rtol=1e-10)
    assert_array_equal(filled.values[~gone], y[~gone])
    drawn = counts.impute(y, n_draws=40, random_state=0)
    assert (drawn == np.floor(drawn)).all()
    table = [[[0.7, 0.2, 0.1]], [[0.1, 0.3, 0.6]]]
    codes = ps.HMM(2, ps.Categorical(n_categories=3)).with_parameters(initial=START, transition=MOVES, probs=table)
    y = np.array([0.0, 0.0, np.nan, 2.0, 2.0, np.nan])
    best = (codes.smooth(y).values @ np.array(table)[:, 0]).argmax(-1)
    assert_array_equal(codes.impute(y), np.where(np.isnan(y), best, y))
    assert_array_equal(np.isnan(codes.impute(y)["std"]), np.isnan(y))


def test_many_sequences_histories_and_names():
    index = pd.date_range("2024-01-01", periods=5, freq="D")
    frame = pd.DataFrame(X, index=index, columns=["a", "b", "c"])
    filled = normal().impute(frame)
    assert list(filled["variable"].values) == ["a", "b", "c"] and filled.indexes["time"].equals(index)
    many = normal().impute([X, X[:3]])
    assert_allclose(many[0], filled)
    assert_allclose(many[1, :3], dense(X[:3])[0], rtol=1e-10)
    assert np.isnan(many[1, 3:]).all()
    assert_allclose(normal().impute(X[2:], history=X[:2]), filled.values[2:], rtol=1e-10)
    whole = np.arange(6.0).reshape(2, 3)
    assert_array_equal(normal().impute(whole), whole)
    assert_array_equal(normal().impute(whole, n_draws=2), np.stack([whole, whole]))
    words = ps.HMM(2, ps.Categorical(), random_state=0).fit(["abba", "abab"])
    assert list(words.impute("ab").values[:2]) == ["a", "b"]
    for wrong in (0, True, 2.5):
        with pytest.raises(ParameterError, match="n_draws"):
            normal().impute(X, n_draws=wrong)


def several_draws():
    model = normal()
    params = {name: torch.cat([value, value]) for name, value in model.model_.params.items()}
    params["mean"] = torch.cat([model.model_.params["mean"], model.model_.params["mean"] + 1.5])
    model._adopt(model.model_.model, model.transforms_, Draws(params, 0.0, 0.0, "exact"), model.info_, None)
    return model


def test_draws_are_weighed_by_what_was_seen():
    singles = [normal()]
    shifted = ps.HMM(2, ps.Normal("full"))
    singles.append(shifted.with_parameters(initial=START, transition=MOVES, mean=MEAN + 1.5, covariance=COVARIANCE))
    logs = np.array([float(one.log_prob(X)) for one in singles])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    each = np.array([one.impute(X).values for one in singles])
    both = several_draws()
    assert_allclose(both.impute(X), np.einsum("d,dti->ti", weights, each), rtol=1e-10)
    paths = both.impute(X, n_draws=8000, random_state=0)
    error = paths.std("path").values / np.sqrt(8000)
    assert (np.abs(paths.mean("path").values - both.impute(X).values) <= 4.5 * error + 1e-12).all()


def test_conditioning_of_laws():
    loc, factor = torch.tensor(MEAN[0]), torch.linalg.cholesky(torch.tensor(COVARIANCE[0]))
    law, value = FullNormal(loc=loc, scale_tril=factor), torch.tensor([0.3, -0.2, 5.0])
    seen = torch.tensor([True, True, False])
    logs = [law.log_prob(torch.tensor([0.3, -0.2, v])) - law.log_prob_seen(value, seen) for v in (0.0, 1.0, 4.0)]
    found = given(law, value, seen).marginal([2])
    assert_allclose([found.log_prob(torch.tensor([v], dtype=torch.float64)) for v in (0.0, 1.0, 4.0)], logs, rtol=1e-12)
    means = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    parts = DiagonalNormal(loc=means, scale=torch.ones(2, 3, dtype=torch.float64))
    for mixed, shift in (
        (Mixture(torch.tensor([0.3, 0.7]).double().log(), parts), lambda v: v),
        (push(Mixture(torch.tensor([0.3, 0.7]).double().log(), parts), Exponential()), np.exp),
    ):
        at = torch.tensor([shift(0.3), shift(-0.2), shift(5.0)])
        logs = [
            mixed.log_prob(torch.tensor([shift(0.3), shift(-0.2), shift(v)])) - mixed.log_prob_seen(at, seen)
            for v in (0.0, 1.0)
        ]
        found = given(mixed, at, seen).marginal([2])
        assert_allclose([found.log_prob(torch.tensor([shift(v)]).double()) for v in (0.0, 1.0)], logs, rtol=1e-10)


def test_generation_goes_on_from_the_filtered_state():
    """The first value after a history has the law of the one-step forecast, and is not the last value again."""
    model = ps.HMM(2).with_parameters(
        initial=[0.5, 0.5], transition=[[0.99, 0.01], [0.01, 0.99]], mean=[0.0, 50.0], scale=[1.0, 2.0]
    )
    history = np.array([0.3, 50.5, 49.0, 52.0])
    n = 4000
    first = model.sample(3, n_sequences=n, history=history, random_state=0).isel(time=0).values
    law = model.forecast(1, history=history)
    assert_allclose(first.mean(), law.mean().values[0], atol=4 * float(law.std()[0]) / np.sqrt(n))
    assert_allclose((first > 25).mean(), 1 - float(law.cdf(25.0)[0]), atol=0.01)
    assert not np.isin(first, history).any() and len(np.unique(first)) == n
    lonely = model.sample(1, n_sequences=n, random_state=0).values
    assert 0.45 < (lonely > 25).mean() < 0.55
    assert list(model.sample(2, history=history, random_state=0)["time"].values) == [4, 5]
