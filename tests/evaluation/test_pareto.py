"""Pareto smoothed importance sampling against ArviZ and against laws whose shape is known."""

import arviz
import numpy as np
import pytest
from numpy.testing import assert_allclose

from probseq.errors import ParameterError, ShapeError
from probseq.evaluation.pareto import psis


@pytest.mark.parametrize("n", [30, 100, 1001])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_weights_equal_those_of_arviz(n, spread):
    ratios = spread * np.random.default_rng(n).standard_normal((3, n))
    ratios[2] = spread * np.random.default_rng(n).standard_t(2, n)
    found = psis(ratios)
    logs, k = arviz.psislw(ratios)
    assert_allclose(found.log_weights, logs, rtol=1e-9, atol=1e-10)
    assert_allclose(found.k_hat, k, rtol=1e-9)
    assert_allclose(psis(ratios[0], 0.5).log_weights, arviz.psislw(ratios[0], reff=0.5)[0], rtol=1e-9, atol=1e-10)


def test_the_shape_of_a_known_tail_is_found():
    """exp(k E) with E a standard exponential has a Pareto tail of shape k."""
    draws = np.random.default_rng(0).exponential(size=(4, 20_000))
    for k in (0.2, 0.7, 1.2):
        assert_allclose(psis(k * draws).k_hat, k, atol=0.2)


def test_equal_and_impossible_draws():
    assert np.isposinf(psis(np.zeros(50)).k_hat)
    assert_allclose(psis(np.zeros(50)).log_weights, -np.log(50))
    some = np.random.default_rng(1).standard_normal(200)
    some[:20] = -np.inf
    found = psis(some)
    assert np.isneginf(found.log_weights[:20]).all() and np.isfinite(found.k_hat)
    assert_allclose(np.exp(found.log_weights).sum(), 1.0)
    for wrong in (np.full(5, -np.inf), np.array([0.0, np.nan]), np.array([0.0, np.inf])):
        with pytest.raises(ParameterError, match="log ratios"):
            psis(wrong)
    for efficiency in (0.0, -1.0, np.nan):
        with pytest.raises(ParameterError, match="relative_efficiency"):
            psis(np.zeros(50), efficiency)
    with pytest.raises(ShapeError):
        psis(np.zeros((3, 0)))
