"""The general Kalman filter and its adjoint: the dense Gaussian, its diffuse limit, finite differences."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from probseq.kernels.linear_gaussian import filter_series, make_system
from probseq.kernels.linear_gaussian_adjoint import filter_adjoint
from probseq.kernels.linear_gaussian_forecast import forecast_covs, forecast_joint, forecast_means, simulate


def random_space(k, r, n_diffuse, rng):
    """Z, d, H, T, c, Q, a1, P1 and D; the first ``n_diffuse`` states are integrated."""
    z, d, c, a = rng.normal(size=(k, r)), rng.normal(size=k), rng.normal(size=r), rng.normal(size=r)
    h, q, p = (m @ m.T for m in (rng.normal(size=(k, k)), rng.normal(size=(r, r)), rng.normal(size=(r, r))))
    t = rng.normal(size=(r, r))
    t *= 0.7 / np.abs(np.linalg.eigvals(t)).max()
    if n_diffuse:
        t = np.triu(t)
        t[range(n_diffuse), range(n_diffuse)] = 1.0
    infinite = np.zeros((r, r))
    infinite[range(n_diffuse), range(n_diffuse)] = 1.0
    return [z, d, h, t, c, q, a, p], infinite


def values_of(space, infinite, y, seen):
    start = np.tile(space[6], (len(y), 1)), space[7].copy(), infinite.copy()
    values, proper, *_ = filter_series(make_system(*space[:6]), y, seen, *start, False)
    return values, proper, start


def dense(space, n, extra=0.0):
    """Mean (n k,) and covariance (n k, n k) of the values, with ``extra`` added to the first covariance."""
    z, d, h, t, c, q, a, p = space
    r = len(a)
    cov = np.zeros((n * r, n * r))
    means, spread = [], p + extra
    for i in range(n):
        means.append(z @ a + d)
        across = spread
        for j in range(i, n):
            cov[j * r : (j + 1) * r, i * r : (i + 1) * r] = across
            cov[i * r : (i + 1) * r, j * r : (j + 1) * r] = across.T
            across = t @ across
        a, spread = t @ a + c, t @ spread @ t.T + q
    design = np.kron(np.eye(n), z)
    return np.concatenate(means), design @ cov @ design.T + np.kron(np.eye(n), h)


@pytest.mark.parametrize("k, r, n, gaps", [(1, 1, 10, 0.2), (2, 3, 9, 0.3), (3, 4, 8, 0.2), (3, 1, 60, 0.0)])
def test_values_equal_the_dense_normal(k, r, n, gaps):
    rng = np.random.default_rng(k)
    space, infinite = random_space(k, r, 0, rng)
    y, seen = rng.normal(size=(2, n, k)), rng.random((n, k)) >= gaps
    values, proper, _ = values_of(space, infinite, y, seen)
    mean, cov = dense(space, n)
    at = seen.ravel()
    law = multivariate_normal(mean[at], cov[np.ix_(at, at)])
    np.testing.assert_allclose(values.sum(1), law.logpdf(y.reshape(2, -1)[:, at]), rtol=1e-11)
    assert proper.all()


@pytest.mark.parametrize("k, r, n, gaps, n_diffuse", [(1, 1, 8, 0.2, 1), (1, 3, 12, 0.2, 2), (2, 3, 9, 0.3, 2)])
def test_diffuse_start_equals_a_flat_prior(k, r, n, gaps, n_diffuse):
    """log p(proper values of a step | all before), with the first states as coefficients under a flat prior."""
    rng = np.random.default_rng(k)
    space, infinite = random_space(k, r, n_diffuse, rng)
    y, seen = rng.normal(size=(1, n, k)), rng.random((n, k)) >= gaps
    values, proper, _ = values_of(space, infinite, y, seen)
    mean, cov = dense(space, n)
    z, t = space[0], space[3]
    effect = np.concatenate([z @ np.linalg.matrix_power(t, i) for i in range(n)])[:, :n_diffuse]
    residual = y.ravel() - mean

    def log_density(rows, basis):
        x, v = effect[rows] @ basis, np.linalg.inv(cov[np.ix_(rows, rows)])
        information = x.T @ v @ x
        beta = np.linalg.solve(information, x.T @ v @ residual[rows])
        e = residual[rows] - x @ beta
        free = len(v) - len(beta)
        sizes = np.linalg.slogdet(v)[1] - np.linalg.slogdet(information)[1]
        return 0.5 * (sizes - e @ v @ e - free * np.log(2 * np.pi))

    known = np.zeros(n * k, dtype=bool)
    for i in range(n):
        scored = np.zeros((n, k), dtype=bool)
        scored[i] = seen[i] & proper[i]
        both = known | scored.ravel()
        if scored.any():
            _, size, way = np.linalg.svd(effect[both], full_matrices=False)
            basis = way[size > 1e-9].T
            assert values[0, i] == pytest.approx(log_density(both, basis) - log_density(known, basis), abs=1e-9)
        else:
            assert values[0, i] == 0.0
        known[i * k : (i + 1) * k] |= seen[i]
    assert not proper[0].any() and proper[-1].all()


@pytest.mark.parametrize("k, r, n, gaps, n_diffuse", [
    (1, 1, 10, 0.2, 0),
    (2, 3, 9, 0.3, 0),
    (3, 4, 8, 0.2, 0),
    (2, 3, 300, 0.0, 0),
    (2, 3, 300, 0.01, 0),
    (1, 1, 10, 0.2, 1),
    (1, 3, 14, 0.2, 2),
    (2, 3, 12, 0.3, 2),
    (3, 4, 10, 0.3, 3),
])  # fmt: skip
def test_adjoint_equals_finite_differences(k, r, n, gaps, n_diffuse):
    rng = np.random.default_rng(n)
    space, infinite = random_space(k, r, n_diffuse, rng)
    y, seen, weights = rng.normal(size=(2, n, k)), rng.random((n, k)) >= gaps, rng.normal(size=(2, n))
    grads = filter_adjoint(make_system(*space[:6]), y, seen, np.tile(space[6], (2, 1)), space[7], infinite, weights)
    found = [grads.z, grads.d, grads.h, grads.t, grads.c, grads.q, grads.mean.sum(0), grads.cov]
    for i, gradient in enumerate(found):
        way = rng.normal(size=gradient.shape)
        if i in (2, 5, 7):
            way = way + way.T
        if i == 3 and n_diffuse:
            way = np.triu(way)
            way[range(n_diffuse), range(n_diffuse)] = 0.0
        ends = []
        for side in (1e-6, -1e-6):
            moved = [part + side * way if j == i else part for j, part in enumerate(space)]
            ends.append(float((values_of(moved, infinite, y, seen)[0] * weights).sum()))
        assert float((gradient * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=2e-7, abs=2e-7)
    way = rng.normal(size=y.shape)
    up, down = (values_of(space, infinite, y + side * way, seen)[0] for side in (1e-6, -1e-6))
    slope = float(((up - down) * weights).sum()) / 2e-6
    assert float((grads.y * way).sum()) == pytest.approx(slope, rel=1e-6)


def test_adjoint_of_a_long_series_keeps_few_states():
    """More numbers than are kept at once: the filter runs again block by block, with the same gradients."""
    rng = np.random.default_rng(0)
    space, infinite = random_space(1, 20, 0, rng)
    y, weights = rng.normal(size=(1, 3000, 1)), rng.normal(size=(1, 3000))
    seen = rng.random((3000, 1)) > 0.3
    whole = filter_adjoint(make_system(*space[:6]), y, seen, space[6][None], space[7], infinite, weights)
    cut, start = 1234, values_of(space, infinite, y[:, :1234], seen[:1234])[2]
    late = filter_adjoint(make_system(*space[:6]), y[:, cut:], seen[cut:], *start, weights[:, cut:])
    np.testing.assert_allclose(whole.y[:, cut:], late.y, atol=1e-10)
    way = rng.normal(size=space[3].shape)
    ends = []
    for side in (1e-7, -1e-7):
        moved = [*space[:3], space[3] + side * way, *space[4:]]
        ends.append(float((values_of(moved, infinite, y, seen)[0] * weights).sum()))
    assert float((whole.t * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-6)


def test_forecasts_continue_the_dense_normal():
    rng = np.random.default_rng(0)
    space, _ = random_space(2, 3, 0, rng)
    system = make_system(*space[:6])
    mean, cov = dense(space, 5)
    np.testing.assert_allclose(forecast_means(system, space[6][None], 5).ravel(), mean, rtol=1e-12)
    np.testing.assert_allclose(forecast_joint(system, space[7], 5), cov, rtol=1e-12, atol=1e-12)
    covs = forecast_covs(system, space[7], 5)
    for i in range(5):
        np.testing.assert_allclose(covs[i], cov[2 * i : 2 * i + 2, 2 * i : 2 * i + 2], rtol=1e-12)


def test_simulation_is_the_filter_run_backwards():
    """x made from standard normals e has log density sum log N(e) - log |dx/de|, here by the linearity of x in e."""
    rng = np.random.default_rng(0)
    space, infinite = random_space(2, 3, 0, rng)
    system = make_system(*space[:6])
    noise = np.concatenate([np.zeros((1, 8)), np.eye(8)]).reshape(9, 4, 2)
    start = np.tile(space[6], (9, 1)), space[7].copy(), infinite
    x = simulate(system, noise, *start).reshape(9, -1)
    mean, cov = dense(space, 4)
    np.testing.assert_allclose(x[0], mean, rtol=1e-12)
    factor = (x[1:] - x[0]).T
    np.testing.assert_allclose(factor @ factor.T, cov, rtol=1e-11, atol=1e-11)
    after = values_of(space, infinite, x[3].reshape(1, 4, 2), np.ones((4, 2), dtype=bool))[2]
    np.testing.assert_allclose(start[0][3], after[0][0], rtol=1e-10)
