"""The smoother against the dense normal law of states and values, first states under a flat prior where diffuse."""

import numpy as np
import pytest

from probseq.kernels.linear_gaussian import make_system
from probseq.kernels.linear_gaussian_smoother import smooth_series


def random_space(k, r, n_diffuse, rng):
    z, d, c, a = rng.normal(size=(k, r)), rng.normal(size=k), rng.normal(size=r), rng.normal(size=r)
    h, q, p = (m @ m.T for m in (rng.normal(size=(k, k)), rng.normal(size=(r, r)), rng.normal(size=(r, r))))
    t = rng.normal(size=(r, r))
    t *= 0.7 / np.abs(np.linalg.eigvals(t)).max()
    if n_diffuse:
        t = np.triu(t)
        t[range(n_diffuse), range(n_diffuse)] = 1.0
    infinite = np.diag((np.arange(r) < n_diffuse).astype(float))
    return (z, d, h, t, c, q, a, p), infinite


def posterior(space, n, y, seen, n_diffuse):
    """Mean and covariance of (s_1, ..., s_n, x_1, ..., x_n) given the seen values."""
    z, d, h, t, c, q, a, p = space
    r = len(a)
    means, cov, effect, spread = [], np.zeros((n * r, n * r)), [], p
    for i in range(n):
        across = spread
        for j in range(i, n):
            cov[j * r : (j + 1) * r, i * r : (i + 1) * r] = across
            cov[i * r : (i + 1) * r, j * r : (j + 1) * r] = across.T
            across = t @ across
        means.append(a)
        effect.append(np.linalg.matrix_power(t, i)[:, :n_diffuse])
        a, spread = t @ a + c, t @ spread @ t.T + q
    mean, effect, design = np.concatenate(means), np.concatenate(effect), np.kron(np.eye(n), z)
    mean = np.concatenate([mean, design @ mean + np.tile(d, n)])
    effect = np.concatenate([effect, design @ effect])
    values = design @ cov @ design.T + np.kron(np.eye(n), h)
    cov = np.block([[cov, cov @ design.T], [design @ cov, values]])
    at = n * r + np.nonzero(seen.ravel())[0]
    precision = np.linalg.inv(cov[np.ix_(at, at)])
    gain, residual, x = cov[:, at] @ precision, y.ravel()[seen.ravel()] - mean[at], effect[at]
    left = cov - gain @ cov[at]
    if n_diffuse:
        inverse = np.linalg.inv(x.T @ precision @ x)
        beta = inverse @ x.T @ precision @ residual
        rest = effect - gain @ x
        mean, residual, left = mean + effect @ beta, residual - x @ beta, left + rest @ inverse @ rest.T
    return mean + gain @ residual, left


@pytest.mark.parametrize(
    "k, r, n, gaps, n_diffuse",
    [(1, 1, 6, 0.2, 0), (2, 3, 7, 0.3, 0), (1, 1, 6, 0.2, 1), (1, 3, 10, 0.2, 2), (2, 3, 9, 0.3, 2), (3, 4, 8, 0.2, 3)],
)
def test_moments_equal_the_dense_posterior(k, r, n, gaps, n_diffuse):
    rng = np.random.default_rng(n)
    space, infinite = random_space(k, r, n_diffuse, rng)
    y, seen = rng.normal(size=(2, n, k)), rng.random((n, k)) >= gaps
    start = np.tile(space[6], (2, 1)), space[7].copy(), infinite
    found = smooth_series(make_system(*space[:6]), y, seen, *start)
    mean, cov = posterior(space, n, y[1], seen, n_diffuse)
    states, x = mean[: n * r].reshape(n, r), mean[n * r :].reshape(n, k)
    np.testing.assert_allclose(found.mean[1], states, atol=1e-10)
    np.testing.assert_allclose(found.x[1], x, atol=1e-10)
    for i in range(n):
        here, value = slice(i * r, (i + 1) * r), slice(n * r + i * k, n * r + (i + 1) * k)
        np.testing.assert_allclose(found.cov[i], cov[here, here], atol=1e-9)
        np.testing.assert_allclose(found.x_cov[i], cov[value, value], atol=1e-9)
        if i + 1 < n:
            after = slice((i + 1) * r, (i + 2) * r)
            np.testing.assert_allclose(found.across[i], cov[here, after], atol=1e-9)
    np.testing.assert_allclose(found.noise[1], x - states @ space[0].T - space[1], atol=1e-10)
    np.testing.assert_allclose(found.shock[1, :-1], states[1:] - states[:-1] @ space[3].T - space[4], atol=1e-10)
    assert not found.shock[1, -1].any()


def test_variances_of_disturbances_are_what_data_explain():
    """Var E[eps | x] = H - Var[eps | x], and so for eta, where nothing is diffuse."""
    rng = np.random.default_rng(0)
    space, infinite = random_space(2, 3, 0, rng)
    z, _, h, t, _, q, a, p = space
    n = 6
    y, seen = rng.normal(size=(1, n, 2)), rng.random((n, 2)) >= 0.2
    found = smooth_series(make_system(*space[:6]), y, seen, a[None].copy(), p.copy(), infinite)
    _, cov = posterior(space, n, y[0], seen, 0)
    for i in range(n):
        here, value = slice(3 * i, 3 * i + 3), slice(3 * n + 2 * i, 3 * n + 2 * i + 2)
        both = np.r_[here, value]
        way = np.concatenate([-z, np.eye(2)], 1)
        np.testing.assert_allclose(found.noise_cov[i], h - way @ cov[np.ix_(both, both)] @ way.T, atol=1e-10)
        if i + 1 < n:
            both, way = slice(3 * i, 3 * i + 6), np.concatenate([-t, np.eye(3)], 1)
            np.testing.assert_allclose(found.shock_cov[i], q - way @ cov[both, both] @ way.T, atol=1e-10)
