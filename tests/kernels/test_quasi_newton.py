import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

from probseq.kernels.quasi_newton import (
    CONVERGED,
    EVALUATIONS,
    EXHAUSTED,
    ITERATIONS,
    RUNNING,
    STALLED,
    STATUS,
    VALUE,
    advance,
    begin,
)


def descend(function, x, max_iter=1000, tol=1e-14):
    descent = begin(np.asarray(x, dtype=float))
    while descent.counts[STATUS] == RUNNING:
        value, gradient = function(descent.trial)
        advance(descent, value, gradient, max_iter, tol)
    return descent


def quadratic(matrix, centre):
    def function(x):
        step = x - centre
        return 0.5 * step @ matrix @ step + 3.0, matrix @ step

    return function


def test_a_quadratic_is_minimised_in_about_as_many_steps_as_coordinates():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    centre = rng.normal(size=6)
    descent = descend(quadratic(root @ root.T + 0.1 * np.eye(6), centre), np.zeros(6))
    assert descent.counts[STATUS] == CONVERGED
    np.testing.assert_allclose(descent.point, centre, atol=1e-6)
    assert descent.line[VALUE] == pytest.approx(3.0, abs=1e-12)
    assert descent.counts[ITERATIONS] < 40


@pytest.mark.parametrize("size", [2, 5])
def test_a_curved_valley_is_followed_to_its_end(size):
    start = np.tile([-1.2, 1.0], size)[:size]
    descent = descend(lambda x: (rosen(x), rosen_der(x)), start)
    peer = minimize(rosen, start, jac=rosen_der, method="BFGS", options={"gtol": 1e-9})
    assert descent.counts[STATUS] == CONVERGED
    assert descent.line[VALUE] <= peer.fun + 1e-14
    assert descent.counts[EVALUATIONS] <= 1.5 * peer.nfev


def test_values_that_are_not_numbers_are_walked_around():
    def function(x):
        # The logarithm ends at zero; the first steps go beyond it.
        with np.errstate(invalid="ignore"):
            return 50.0 * x[0] - np.log(x[0]), np.array([50.0 - 1.0 / x[0]])

    descent = descend(function, [1.0])
    assert descent.counts[STATUS] == CONVERGED
    assert descent.point[0] == pytest.approx(0.02, abs=1e-8)


def test_a_start_without_a_value_stalls_there():
    descent = descend(lambda x: (np.inf, np.zeros(2)), [1.0, 2.0])
    assert descent.counts[STATUS] == STALLED
    np.testing.assert_array_equal(descent.point, [1.0, 2.0])


def test_a_wrong_gradient_stalls_and_keeps_the_start():
    descent = descend(lambda x: (float(x @ x), -2.0 * x), [1.0, 1.0])
    assert descent.counts[STATUS] == STALLED
    assert descent.line[VALUE] <= 2.0


def test_the_number_of_iterations_is_bounded():
    descent = descend(lambda x: (rosen(x), rosen_der(x)), [-1.2, 1.0], max_iter=5)
    assert descent.counts[STATUS] == EXHAUSTED
    assert descent.counts[ITERATIONS] == 5


def test_a_minimum_at_infinity_is_approached_by_constant_factors():
    # exp(-x): no minimum; each step gains a constant, so the search ends when a step gains nothing.
    descent = descend(lambda x: (float(np.exp(-x[0])), -np.exp(-x)), [0.0], tol=1e-10)
    assert descent.counts[STATUS] == CONVERGED
    assert descent.line[VALUE] < 1e-9


def test_a_start_at_the_minimum_ends_at_once():
    descent = descend(quadratic(np.eye(3), np.ones(3)), np.ones(3))
    assert descent.counts[STATUS] == CONVERGED
    assert descent.counts[EVALUATIONS] == 1


def test_no_lower_value_is_ever_lost():
    # Noise of the size of rounding near the minimum: the last point is the best accepted one.
    noise = np.random.default_rng(1)
    seen = []

    def function(x):
        value = float(np.sum(np.cosh(x - 0.3))) + 1e-13 * noise.normal()
        seen.append(value)
        return value, np.sinh(x - 0.3)

    descent = descend(function, np.random.default_rng(2).normal(size=4))
    assert descent.counts[STATUS] in (CONVERGED, STALLED)
    assert descent.line[VALUE] <= min(seen) + 1e-12
