"""ARMA innovations against dense Gaussian laws, their adjoints against finite differences, polynomials both ways."""

import numpy as np
import pytest

from probseq.kernels.arima import (
    difference,
    difference_coefficients,
    innovations_with_gaps,
    objective_with_gaps,
    polynomial_trend,
    state_space,
)
from probseq.kernels.arma import covariance_after, innovations, mean_after
from probseq.kernels.arma_adjoint import innovations_adjoint
from probseq.kernels.kalman import filter_states
from probseq.kernels.polynomials import (
    autocovariances,
    autocovariances_adjoint,
    coefficients_from_partial,
    coefficients_from_partial_adjoint,
    multiply,
    multiply_adjoint,
    partial_from_coefficients,
    support,
)
from probseq.kernels.profile import concentrate, free_from_partial, objective, partial_from_free

CASES = [
    (0, 0, 0, 0, 1, 8),
    (2, 1, 0, 0, 1, 60),
    (3, 0, 0, 0, 1, 30),
    (0, 1, 0, 1, 12, 70),
    (1, 1, 1, 1, 12, 80),
    (3, 2, 1, 1, 2, 50),
    (0, 3, 1, 0, 4, 90),
    (5, 0, 2, 0, 7, 3),
    (1, 1, 1, 1, 52, 120),
]


def make_process(p, q, seasonal_p, seasonal_q, period, rng):
    factor = [coefficients_from_partial(rng.uniform(-0.8, 0.8, k)) for k in (p, seasonal_p, q, seasonal_q)]
    ar_lags, ma_lags = support(p, seasonal_p, period), support(q, seasonal_q, period)
    ar = multiply(factor[0], factor[1], period, -1.0, ar_lags)
    ma = multiply(-factor[2], -factor[3], period, 1.0, ma_lags)
    return ar_lags, ar, ma_lags, ma


def dense_covariance(ar_lags, ar, ma_lags, ma, n):
    """Theoretical autocovariances by the linear equations of Brockwell and Davis (1991), section 3.3, second method."""
    p = ar_lags[-1] if len(ar_lags) else 0
    q = ma_lags[-1] if len(ma_lags) else 0
    phi, theta = np.zeros(p + 1), np.zeros(q + 1)
    phi[0] = theta[0] = 1.0
    phi[ar_lags], theta[ma_lags] = -ar, ma
    psi = np.zeros(q + 1)
    for j in range(q + 1):
        psi[j] = theta[j] - sum(phi[i] * psi[j - i] for i in range(1, min(j, p) + 1))
    size = max(n, p + 1)
    right = np.zeros(size)
    for k in range(min(q + 1, size)):
        right[k] = theta[k:] @ psi[: q + 1 - k]
    matrix = np.zeros((p + 1, p + 1))
    for k in range(p + 1):
        for j in range(p + 1):
            matrix[k, abs(k - j)] += phi[j]
    gamma = np.zeros(size)
    gamma[: p + 1] = np.linalg.solve(matrix, right[: p + 1])
    for k in range(p + 1, size):
        gamma[k] = right[k] - phi[1:] @ gamma[k - p : k][::-1]
    return gamma[np.abs(np.subtract.outer(np.arange(n), np.arange(n)))]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def slope(function, x, direction, step=1e-6):
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def test_partial_autocorrelations_both_ways(rng):
    partial = rng.uniform(-0.95, 0.95, 6)
    phi = coefficients_from_partial(partial)
    roots = np.roots(np.concatenate([[1.0], -phi]))
    assert np.abs(roots).max() < 1
    back, stationary = partial_from_coefficients(phi)
    assert stationary
    np.testing.assert_allclose(back, partial, atol=1e-12)
    np.testing.assert_allclose(free_from_partial(partial_from_free(np.array([-3.0, 0.2]))), [-3.0, 0.2], rtol=1e-10)
    assert not partial_from_coefficients(np.array([0.5, 0.6]))[1]
    gradient, direction = rng.normal(size=6), rng.normal(size=6)
    expected = slope(lambda x: coefficients_from_partial(x) @ gradient, partial, direction)
    assert coefficients_from_partial_adjoint(partial, gradient) @ direction == pytest.approx(expected, rel=1e-7)


def test_seasonal_product_equals_convolution(rng):
    for p, seasonal_p, period, sign in [(2, 1, 12, -1.0), (3, 2, 2, 1.0), (0, 2, 4, -1.0), (1, 0, 7, 1.0)]:
        plain, seasonal = rng.normal(size=p), rng.normal(size=seasonal_p)
        spread = np.zeros(period * seasonal_p + 1)
        spread[0], spread[period::period] = 1.0, sign * seasonal
        full = np.convolve(np.concatenate([[1.0], sign * plain]), spread)
        lags = support(p, seasonal_p, period)
        dense = np.zeros(full.size)
        dense[0] = 1.0
        dense[lags] = sign * multiply(plain, seasonal, period, sign, lags)
        np.testing.assert_allclose(dense, full, atol=1e-14)
        gradient = rng.normal(size=lags.size)
        d_plain, d_seasonal = multiply_adjoint(plain, seasonal, period, sign, lags, gradient)
        along = rng.normal(size=p + seasonal_p)
        expected = slope(
            lambda x, p=p, period=period, sign=sign, lags=lags, gradient=gradient: (
                multiply(x[:p], x[p:], period, sign, lags) @ gradient
            ),
            np.concatenate([plain, seasonal]),
            along,
        )
        assert np.concatenate([d_plain, d_seasonal]) @ along == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_autocovariances_solve_yule_walker(rng):
    lags, ar, _, _ = make_process(2, 0, 2, 0, 4, rng)
    gamma, rows, stationary = autocovariances(lags, ar, 15)
    assert stationary
    for k in range(16):
        past = sum(a * gamma[abs(k - lag)] for lag, a in zip(lags, ar, strict=True))
        assert gamma[k] - past == pytest.approx(float(k == 0), abs=1e-11)
    gradient, direction = rng.normal(size=16), rng.normal(size=ar.size)
    expected = slope(lambda x: autocovariances(lags, x, 15)[0] @ gradient, ar, direction)
    result = autocovariances_adjoint(lags, ar, gamma, rows, gradient.copy())
    assert result @ direction == pytest.approx(expected, rel=1e-6)
    assert not autocovariances(np.array([1]), np.array([1.0]), 3)[2]


@pytest.mark.parametrize("case", CASES)
def test_innovations_equal_dense_gaussian(case, rng):
    *orders, period, n = case
    process = make_process(*orders, period, rng)
    w = rng.normal(size=(2, n))
    e, f, trace = innovations(*process, w, False)
    assert trace.ok
    factor = np.linalg.cholesky(dense_covariance(*process, n))
    np.testing.assert_allclose(f, np.diag(factor) ** 2, rtol=1e-10)
    np.testing.assert_allclose(e / np.sqrt(f), np.linalg.solve(factor, w.T).T, atol=1e-10)


def test_steady_state_is_reached_and_agrees(rng):
    process = make_process(2, 1, 0, 0, 1, rng)
    w = rng.normal(size=(1, 400))
    e, f, trace = innovations(*process, w, False)
    assert trace.steady_from < 200
    factor = np.linalg.cholesky(dense_covariance(*process, 400))
    np.testing.assert_allclose(e[0] / np.sqrt(f), np.linalg.solve(factor, w[0]), atol=1e-10)


@pytest.mark.parametrize("n_seen", [0, 1, 5, 20, 60])
def test_state_after_equals_filtered_state(n_seen, rng):
    for orders, period in [((2, 1, 0, 0), 1), ((3, 0, 0, 0), 1), ((1, 1, 1, 1), 12)]:
        ar_lags, ar, ma_lags, ma = make_process(*orders, period, rng)
        w = rng.normal(size=(2, 60))
        _, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, True)
        system, cov, diffuse, _, _, _ = state_space(ar_lags, ar, ma_lags, ma, np.zeros(0))
        state = np.zeros((2, len(cov)))
        seen = np.ones(n_seen, bool)
        filter_states(system, np.zeros(state.shape), w[:, :n_seen].copy(), seen, state, cov, diffuse, False)
        for series in range(2):
            mean = mean_after(ar_lags, ar, trace, series, n_seen)
            np.testing.assert_allclose(mean, state[series], atol=1e-10)
        np.testing.assert_allclose(covariance_after(f, trace, n_seen), cov, atol=1e-10)


def test_moving_averages_that_cannot_be_inverted(rng):
    for ma in (np.array([-1.0]), np.array([2.5]), np.array([0.3, 1.7])):
        process = np.array([1]), np.array([0.4]), np.arange(1, ma.size + 1), ma
        w = rng.normal(size=(1, 80))
        e, f, _ = innovations(*process, w, False)
        factor = np.linalg.cholesky(dense_covariance(*process, 80))
        np.testing.assert_allclose(e[0] / np.sqrt(f), np.linalg.solve(factor, w[0]), atol=1e-10)


def test_explosive_autoregression_is_flagged():
    e, _, trace = innovations(np.array([1]), np.array([1.2]), np.zeros(0, int), np.zeros(0), np.ones((1, 4)), False)
    assert not trace.ok and np.isnan(e).all()


@pytest.mark.parametrize("case", CASES)
def test_innovations_adjoint_equals_finite_differences(case, rng):
    *orders, period, n = case
    ar_lags, ar, ma_lags, ma = make_process(*orders, period, rng)
    w, weights_e, weights_f = rng.normal(size=(2, n)), rng.normal(size=(2, n)), rng.normal(size=n)

    def value(x):
        a, b = x[: ar.size], x[ar.size : ar.size + ma.size]
        e, f, _ = innovations(ar_lags, a, ma_lags, b, x[ar.size + ma.size :].reshape(2, n), False)
        return (weights_e * e).sum() + (weights_f * f).sum()

    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, True)
    gradient = np.concatenate(
        [g.ravel() for g in innovations_adjoint(ar_lags, ar, ma_lags, ma, e, f, trace, weights_e, weights_f)]
    )
    x = np.concatenate([ar, ma, w.ravel()])
    for part in (slice(0, ar.size + ma.size), slice(ar.size + ma.size, None)):
        direction = np.zeros(x.size)
        direction[part] = rng.normal(size=direction[part].size)
        assert gradient @ direction == pytest.approx(slope(value, x, direction), rel=2e-6, abs=1e-6)


def test_gapped_filter_equals_dense_gaussian_with_holes(rng):
    for orders, period in [((2, 1, 0, 0), 1), ((1, 1, 1, 1), 4), ((0, 1, 0, 1), 12)]:
        n = 70
        process = make_process(*orders, period, rng)
        y, seen = rng.normal(size=(1, n)), rng.random((1, n)) > 0.3
        system, cov, diffuse, _, _, _ = state_space(*process, np.zeros(0))
        e, f, scored = innovations_with_gaps(system, cov, diffuse, y, seen, 1)
        np.testing.assert_array_equal(scored, seen)
        dense = dense_covariance(*process, n)[np.ix_(seen[0], seen[0])]
        factor = np.linalg.cholesky(dense)
        np.testing.assert_allclose(f[seen], np.diag(factor) ** 2, rtol=1e-10)
        expected = np.linalg.solve(factor, y[seen])
        np.testing.assert_allclose(e[seen] / np.sqrt(f[seen]), expected, atol=1e-10)


@pytest.mark.parametrize("d, seasonal_d, period", [(1, 0, 1), (2, 0, 1), (1, 1, 4), (0, 1, 12)])
def test_differencing_inside_the_state_equals_differenced_data(d, seasonal_d, period, rng):
    n = 60
    process = make_process(1, 1, 0, 1, period, rng)
    c = difference_coefficients(d, seasonal_d, period)
    y = rng.normal(size=(1, n)).cumsum(1)
    expected = y[0]
    for lag in [1] * d + [period] * seasonal_d:
        expected = expected[lag:] - expected[:-lag]
    w = difference(y, c)
    np.testing.assert_allclose(w[0], expected, atol=1e-12)
    np.testing.assert_allclose(difference(polynomial_trend(c, n)[None], c), 1.0, atol=1e-9)
    e, f, _ = innovations(*process, w, False)
    system, cov, diffuse, _, _, _ = state_space(*process, c)
    gapped_e, gapped_f, scored = innovations_with_gaps(system, cov, diffuse, y, np.ones((1, n), bool), 1)
    m = c.size
    np.testing.assert_array_equal(scored[0], np.arange(n) >= m)
    np.testing.assert_allclose(gapped_e[0, m:], e[0], atol=1e-10)
    np.testing.assert_allclose(gapped_f[0, m:], f, atol=1e-10)


def test_integrated_series_with_gaps_equals_dense_law_of_contrasts(rng):
    """The density of the scored values given the conditioned ones, from any proper law that makes the start vague."""
    n, process, c = 30, make_process(1, 1, 0, 0, 1, rng), difference_coefficients(1, 0, 1)
    y, seen = rng.normal(size=(1, n)).cumsum(1), rng.random((1, n)) > 0.3
    seen[0, :3] = [False, True, False]
    system, cov, diffuse, _, _, _ = state_space(*process, c)
    e, f, scored = innovations_with_gaps(system, cov, diffuse, y, seen, 1)
    assert list(np.nonzero(seen[0] & ~scored[0])[0]) == [1]
    at = np.nonzero(seen[0])[0]
    sums = np.tril(np.ones((n, n)))[:, 1:]
    levels = sums @ dense_covariance(*process, n - 1) @ sums.T
    contrast = np.zeros((len(at) - 1, n))
    contrast[np.arange(len(at) - 1), at[1:]] = 1.0
    contrast[:, at[0]] = -1.0
    factor = np.linalg.cholesky(contrast @ levels @ contrast.T)
    expected = np.linalg.solve(factor, contrast @ y[0])
    np.testing.assert_allclose(f[0, at[1:]], np.diag(factor) ** 2, rtol=1e-10)
    np.testing.assert_allclose(e[0, at[1:]] / np.sqrt(f[0, at[1:]]), expected, atol=1e-10)


def test_concentrated_objective_and_its_gradient(rng):
    orders, period, n = np.array([1, 1, 1, 1]), 4, 60
    ar_lags, ma_lags = support(1, 1, 4), support(1, 1, 4)
    y = rng.normal(size=(2, n))
    columns = np.vstack([y[0], np.ones(n), np.arange(n) / n, y[1], np.ones(n), np.cos(np.arange(n))])
    scored = np.arange(n) < np.array([[n], [n - 11]])
    x = np.array([0.5, -0.4, 0.3, 0.2])
    arguments = (orders, period, ar_lags, ma_lags, columns, scored.sum(1), np.array([1.0, 0.7]), 3)
    value, gradient = objective(x, *arguments)
    for i in range(4):
        expected = slope(lambda x: objective(x, *arguments)[0], x, np.eye(4)[i])
        assert gradient[i] == pytest.approx(expected, rel=1e-6, abs=1e-8)
    gapped = (orders, period, ar_lags, ma_lags, np.zeros(0), columns, scored, np.array([1.0, 0.7]), 3)
    other, other_gradient = objective_with_gaps(x, *gapped)
    assert other == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-11)
    holes = scored & (rng.random(scored.shape) > 0.2)
    gapped = (
        orders,
        period,
        ar_lags,
        ma_lags,
        difference_coefficients(1, 0, 1),
        columns,
        holes,
        np.array([1.0, 0.7]),
        3,
    )
    _, gradient = objective_with_gaps(x, *gapped)
    for i in range(4):
        expected = slope(lambda x: objective_with_gaps(x, *gapped)[0], x, np.eye(4)[i])
        assert gradient[i] == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_concentrated_coefficients_are_generalised_least_squares(rng):
    n = 40
    process = make_process(1, 1, 0, 0, 1, rng)
    y, design = rng.normal(size=n), np.column_stack([np.ones(n), rng.normal(size=n)])
    e, f, _ = innovations(*process, np.ascontiguousarray(np.vstack([y, design.T])), False)
    beta, sigma2, log_likelihood, count, _ = concentrate(e, f[None], np.ones((1, n), bool), np.ones(1), 3)
    inverse = np.linalg.inv(dense_covariance(*process, n))
    expected = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ y)
    np.testing.assert_allclose(beta, expected, atol=1e-10)
    residual = y - design @ expected
    assert sigma2 == pytest.approx(residual @ inverse @ residual / n, rel=1e-11)
    _, log_det = np.linalg.slogdet(2 * np.pi * sigma2 * np.linalg.inv(inverse))
    assert log_likelihood == pytest.approx(-0.5 * (log_det + n), abs=1e-10)
    assert count == n
    doubled = np.vstack([e, e[2]])
    assert np.isfinite(concentrate(doubled, f[None], np.ones((1, n), bool), np.ones(1), 4)[2])
