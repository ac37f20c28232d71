"""Missing values by a regressor each, against the Kalman filter and finite differences."""

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Observation
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.arma_likelihood import ARMAProfile
from probseq.models.base import Batch
from probseq.models.missing_likelihood import MissingProfile, few_missing
from probseq.models.sparse_likelihood import SparseProfile

CASES = [
    ((1, 0, 1), (0, 0, 1, 12), False, (), 0),
    ((0, 1, 1), (0, 1, 1, 12), False, (), 0),
    ((1, 2, 0), (1, 0, 0, 7), True, (), 1),
    (((1, 4), 1, (1, 3)), (0, 1, (2,), 6), True, ((11.3, 1),), 2),
]


def make_batch(rng, holes, m=0, n=70):
    x = torch.tensor(np.cumsum(rng.normal(size=(2, n, 1)), 1))
    seen = torch.ones(2, n, 1, dtype=torch.bool)
    for s, t in holes:
        seen[s, t] = False
    seen[1, n - 9 :] = False
    u = torch.tensor(rng.normal(size=(2, n, m))) if m else None
    return Batch(torch.where(seen, x, 0.0), seen, torch.tensor([n, n - 9]), u)


@pytest.mark.parametrize("order, seasonal, trend, fourier, m", CASES)
@pytest.mark.parametrize(
    "holes",
    [[(0, 40), (1, 33), (1, 34)], [(0, 0), (0, 5), (0, 69), (1, 2)], [(0, t) for t in range(3, 70, 12)]],
    ids=["inside", "early", "season"],
)
def test_equals_the_filter(order, seasonal, trend, fourier, m, holes):
    rng = np.random.default_rng(0)
    model = ARMAModel(Observation(1), order, seasonal, m == 1, m, trend, fourier)
    batch = make_batch(rng, holes, m)
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert few_missing(model, batch)
    fast = model.concentrated(batch, weights)
    slow = (SparseProfile if model.sparse else ARMAProfile)(model, batch, weights)
    assert isinstance(fast, MissingProfile) and fast.same
    for size in (0.0, 0.5, 1.5):
        x = size * rng.normal(size=fast.size)
        (a, slope), (b, other) = fast.objective(x), slow.objective(x)
        assert a == pytest.approx(b, abs=1e-10)
        np.testing.assert_allclose(slope, other, atol=1e-9 * (1 + np.abs(other).max()))
        np.testing.assert_allclose(fast._location_and_scale(x), slow._location_and_scale(x), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(fast._gram(x), slow._gram(x), rtol=1e-6, atol=1e-9)
        moved = [(fast.objective(x + h)[0] - fast.objective(x - h)[0]) / 2e-6 for h in 1e-6 * np.eye(fast.size)]
        np.testing.assert_allclose(slope, moved, atol=1e-7 * (1 + np.abs(slope).max()))


def test_the_fit_is_that_of_the_model():
    rng = np.random.default_rng(3)
    model = ARMAModel(Observation(1), (1, 0, 1), (0, 1, 1, 24), constant=True)
    batch = make_batch(rng, [(0, 30), (0, 31), (1, 50)], n=150)
    draws = MLE().fit(model, batch, torch.Generator())
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch).sum()), abs=1e-7)
    assert np.isfinite(draws.covariance).all()


def test_many_missing_values_go_through_the_filter():
    rng = np.random.default_rng(1)
    batch = make_batch(rng, [(0, t) for t in range(5, 60)])
    assert not few_missing(ARMAModel(Observation(1), (1, 0, 1), (0, 0, 1, 12)), batch)
    assert not few_missing(ARMAModel(Observation(1), (1, 0, 1)), make_batch(rng, [(0, 3)]))
    assert not few_missing(ARMAModel(Observation(1), (1, 0, 1), (0, 0, 1, 12)), make_batch(rng, []))
