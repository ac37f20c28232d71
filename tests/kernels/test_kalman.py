"""The Kalman filter against dense Gaussian densities, a limit of large variances, and finite differences."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize

from probseq.kernels.kalman import DIFFUSE, MISSING, SCORED, System, filter_states, forecast
from probseq.kernels.kalman_adjoint import filter_adjoint


def make_system(transition, z, q, h):
    transition, z = np.asarray(transition, float), np.asarray(z, float)
    rows = [np.nonzero(row)[0] for row in transition]
    pointers = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    entries = transition[transition != 0]
    index = np.nonzero(z)[0]
    return System(pointers, np.concatenate(rows), entries, index, z[index], np.asarray(q, float), float(h))


def dense_law(transition, z, q, h, mean, cov, shift, n):
    """Mean and covariance of y_1..y_n by stacking every state as a linear map of the start and the shocks."""
    k = len(z)
    loading = [np.hstack([np.eye(k), np.zeros((k, k * n))])]
    centre = [np.asarray(mean, float)]
    for t in range(n - 1):
        new = transition @ loading[-1]
        new[:, k * (t + 1) : k * (t + 2)] += np.eye(k)
        loading.append(new)
        centre.append(transition @ centre[-1] + shift)
    big = np.zeros((k * (n + 1), k * (n + 1)))
    big[:k, :k] = cov
    for t in range(n):
        big[k * (t + 1) : k * (t + 2), k * (t + 1) : k * (t + 2)] = q
    rows = np.array([z @ part for part in loading])
    return np.array([z @ c for c in centre]), rows @ big @ rows.T + h * np.eye(n)


def one_step(centre, cov, y, seen):
    """Innovations and variances of each seen value given the seen ones before it."""
    e, f = np.zeros(len(y)), np.ones(len(y))
    for t in np.nonzero(seen)[0]:
        past = [i for i in range(t) if seen[i]]
        weight = np.linalg.solve(cov[np.ix_(past, past)], cov[past, t]) if past else np.zeros(0)
        e[t] = y[t] - centre[t] - weight @ (y[past] - centre[past])
        f[t] = cov[t, t] - weight @ cov[past, t]
    return e, f


@pytest.fixture
def example(rng):
    transition = np.array([[0.5, 0.3, 0.0], [0.2, -0.4, 0.1], [0.0, 0.0, 0.8]])
    root = rng.normal(size=(3, 3))
    return transition, np.array([1.0, 0.0, -0.7]), root @ root.T, 0.4


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_filter_equals_dense_gaussian_with_gaps(example, rng):
    n = 60
    y, seen = rng.normal(size=(2, n)), rng.random(n) > 0.25
    seen[30:] = True
    mean, cov, shift = rng.normal(size=(2, 3)), np.diag([1.0, 2.0, 0.5]), rng.normal(size=(2, 3))
    final_mean, final_cov = mean.copy(), cov.copy()
    e, f, status, means, covs, _ = filter_states(
        make_system(*example), shift, y, seen, final_mean, final_cov, np.zeros((3, 3)), True
    )
    for s in range(2):
        centre, dense = dense_law(*example, mean[s], cov, shift[s], n)
        expected_e, expected_f = one_step(centre, dense, y[s], seen)
        np.testing.assert_allclose(e[s, seen], expected_e[seen], atol=1e-11)
        np.testing.assert_allclose(f[seen], expected_f[seen], atol=1e-11)
    assert set(status[seen]) == {SCORED} and set(status[~seen]) == {MISSING}
    assert means.shape == (n, 2, 3) and covs.shape == (n, 3, 3)
    np.testing.assert_allclose(covs[0], cov)


def test_forecast_equals_dense_conditional(example, rng):
    n, horizon = 12, 5
    y, seen = rng.normal(size=(1, n)), np.ones(n, bool)
    mean, cov, shift = np.zeros((1, 3)), np.eye(3), rng.normal(size=(1, 3))
    system = make_system(*example)
    state = mean.copy(), cov.copy(), np.zeros((3, 3))
    filter_states(system, shift, y, seen, *state, False)
    centre, variance = forecast(system, shift, *state, horizon)
    m, dense = dense_law(*example, mean[0], cov, shift[0], n + horizon)
    weight = np.linalg.solve(dense[:n, :n], dense[:n, n:])
    np.testing.assert_allclose(centre[0], m[n:] + weight.T @ (y[0] - m[:n]), atol=1e-11)
    np.testing.assert_allclose(variance, np.diag(dense[n:, n:] - dense[n:, :n] @ weight), atol=1e-11)


def diffuse_example():
    transition = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.6]])
    return transition, np.array([1.0, 0.0, 1.0]), np.diag([0.3, 0.1, 1.0]), 0.2


def test_diffuse_start_is_the_limit_of_large_variances(rng):
    n, kappa = 25, 1e7
    example = diffuse_example()
    y, seen = rng.normal(size=n).cumsum(), np.ones(n, bool)
    seen[[1, 2, 9]] = False
    diffuse = np.diag([1.0, 1.0, 0.0])
    e, f, status, *_ = filter_states(
        make_system(*example), np.zeros((1, 3)), y[None], seen, np.zeros((1, 3)), np.eye(3), diffuse.copy(), False
    )
    centre, dense = dense_law(*example, np.zeros(3), np.eye(3) + kappa * diffuse, np.zeros(3), n)
    expected_e, expected_f = one_step(centre, dense, y, seen)
    assert list(np.nonzero(status == DIFFUSE)[0]) == [0, 3]
    late = seen & (np.arange(n) > 3)
    np.testing.assert_allclose(e[0, late], expected_e[late], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(f[late], expected_f[late], rtol=1e-4)


def test_local_level_of_the_nile():
    """llf -633.4646 with the diffuse first value scored as N(0, 1) of it (statsmodels 0.15), -632.5457 without it."""
    y = sm.datasets.nile.load_pandas().data["volume"].to_numpy(float, copy=True)

    def log_likelihood(x):
        level, noise = np.exp(x)
        e, f, status, *_ = filter_states(
            make_system([[1.0]], [1.0], [[level]], noise),
            np.zeros((1, 1)),
            y[None],
            np.ones(100, bool),
            np.zeros((1, 1)),
            np.zeros((1, 1)),
            np.eye(1),
            False,
        )
        assert list(np.nonzero(status == DIFFUSE)[0]) == [0]
        return -0.5 * np.sum(np.log(2 * np.pi * f[1:]) + e[0, 1:] ** 2 / f[1:])

    best = minimize(lambda x: -log_likelihood(x), [7.0, 9.0], method="Nelder-Mead", options={"fatol": 1e-9})
    assert -best.fun == pytest.approx(-632.5457, abs=1e-4)
    assert -best.fun - 0.5 * np.log(2 * np.pi) == pytest.approx(-633.4646, abs=5e-5)
    np.testing.assert_allclose(np.exp(best.x), [1469.1, 15098.5], rtol=2e-3)


@pytest.mark.parametrize("diffuse_start", [False, True])
def test_adjoint_equals_finite_differences(diffuse_start, rng):
    n = 23
    transition, z, q, h = diffuse_example()
    system = make_system(transition, z, q, h)
    y, seen = rng.normal(size=(2, n)), rng.random(n) > 0.2
    seen[1] = False
    mean, shift = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    root = rng.normal(size=(3, 3))
    cov = root @ root.T
    diffuse = np.diag([1.0, 1.0, 0.0]) if diffuse_start else np.zeros((3, 3))
    weights_e, weights_f = rng.normal(size=(2, n)), rng.normal(size=n)

    def value(entries, z_entries, h, q, shift, y, mean, cov):
        changed = system._replace(entries=entries, z_entries=z_entries, h=float(h), q=q)
        e, f, status, *_ = filter_states(changed, shift, y, seen, mean.copy(), cov.copy(), diffuse.copy(), False)
        scored = status == SCORED
        return (weights_e * e)[:, scored].sum() + (weights_f * f)[scored].sum()

    inputs = [system.entries, system.z_entries, np.float64(h), q, shift, y, mean, cov]
    gradients = filter_adjoint(system, shift, y, seen, mean, cov, diffuse, weights_e, weights_f)
    for position, gradient in enumerate(gradients):
        direction = rng.normal(size=np.shape(inputs[position]))
        if direction.shape == (3, 3):
            direction = direction + direction.T
        step = 1e-6

        def along(amount, position=position, direction=direction):
            moved = list(inputs)
            moved[position] = moved[position] + amount * direction
            return value(*moved)

        expected = (along(step) - along(-step)) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-6, abs=1e-6), position
