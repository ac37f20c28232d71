"""Fast fits of candidates: the likelihood is that of the model, the descent ends at minima that are known."""

import math

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Observation
from probseq.inference.candidates import CandidateLikelihood, SharedData
from probseq.inference.optimize import MLE
from probseq.inference.orders import Candidate, CandidateFits, SearchSpace, exhaustive
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch


def series(n=80, seed=0):
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(np.cumsum(rng.normal(size=(2, n, 1)), 1))
    u = torch.from_numpy(rng.normal(size=(2, n, 2)))
    lengths = torch.tensor([n, n - 11])
    return Batch(y, (torch.arange(n) < lengths.unsqueeze(-1)).unsqueeze(-1), lengths, u)


def model(orders, trend="c"):
    p, q, seasonal_p, seasonal_q = orders
    return ARMAModel(Observation(1), (p, 1, q), (seasonal_p, 1, seasonal_q, 4), trend == "c", 2)


@pytest.mark.parametrize("orders", [(0, 0, 0, 0), (2, 1, 0, 0), (0, 2, 1, 0), (1, 1, 1, 2), (0, 0, 2, 0)])
@pytest.mark.parametrize("trend", ["c", "n"])
def test_shared_data_give_the_likelihood_of_the_model(orders, trend):
    batch, weights = series(), torch.tensor([1.0, 2.5], dtype=torch.float64)
    empty = model((0, 0, 0, 0), trend)
    profile = empty.concentrated(batch, weights)
    shared = SharedData(profile, empty.n_parameters, profile.count)
    fast = CandidateLikelihood(shared, orders, 4)
    whole = model(orders, trend)
    slow = whole.concentrated(batch, weights)
    assert shared.count == slow.count
    assert shared.n_fixed + sum(orders) == whole.n_parameters
    x = np.linspace(-0.5, 0.7, sum(orders))
    for got, expected in zip(fast(x), slow.objective(x)):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(fast.start(), slow.starts(0, torch.Generator())[0], rtol=1e-10)


def test_gaps_are_filtered_to_the_same_maximum():
    batch = series()
    batch.seen[0, 40:43] = False
    fits = CandidateFits(lambda c: model(c.orders, c.trend), batch, None, "aicc", period=4)
    exhaustive(fits, SearchSpace(1, 1, 0, 1, ("n",)))
    assert len(fits.found) == 8
    for candidate, fit in fits.found.items():
        draws = MLE(covariance=False).fit(model(candidate.orders, "n"), batch, torch.Generator())
        # The search stops earlier, on the long way to a root on the circle above all.
        assert fit.log_likelihood <= draws.log_prob + 1e-6
        # Without the season that is in the data, the likelihood of an ARMA(1, 1) has two maxima.
        if candidate.orders != (1, 1, 0, 0):
            np.testing.assert_allclose(fit.log_likelihood, draws.log_prob, atol=0.02)
        assert fit.n_parameters == sum(candidate.orders) + 3


@pytest.mark.parametrize("orders", [(0, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 0, 1)])
def test_descent_ends_where_maximum_likelihood_does(orders):
    batch = series(seed=2)
    empty = model((0, 0, 0, 0))
    profile = empty.concentrated(batch)
    fast = CandidateLikelihood(SharedData(profile, empty.n_parameters, profile.count), orders, 4)
    x, value, status = fast.descend(fast.start(), 200, 1e-12)
    draws = MLE(n_init=6, covariance=False).fit(model(orders), batch, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(-profile.count * value, draws.log_prob, atol=1e-6)
    assert status == "converged" and fast(x)[0] == pytest.approx(value, rel=1e-12)


def test_descent_says_when_it_was_stopped():
    empty = model((0, 0, 0, 0))
    profile = empty.concentrated(series())
    fast = CandidateLikelihood(SharedData(profile, empty.n_parameters, profile.count), (2, 2, 0, 0), 4)
    assert fast.descend(np.full(4, 0.8), 2, 0.0)[2] == "max_iter"


def test_near_unit_roots_have_no_criterion():
    e = np.random.default_rng(1).normal(size=201)
    y = torch.from_numpy(e[1:] - e[:-1])[None, :, None]  # a moving average with its root on the circle
    batch = Batch(y, torch.ones(1, 200, 1, dtype=torch.bool), torch.tensor([200]))

    def build(candidate):
        return ARMAModel(Observation(1), (candidate.p, 0, candidate.q), (0, 0, 0, 1), candidate.trend == "c")

    for min_root, status in ((1.01, "unit root"), (1.0, "converged")):
        fits = CandidateFits(build, batch, None, "aicc", min_root=min_root)
        fits.add([Candidate(0, 1, 0, 0, "n")])
        fit = fits.found[Candidate(0, 1, 0, 0, "n")]
        assert fit.status == status
        assert math.isfinite(fit.criterion) is (min_root == 1.0)
