"""Seasonal ARIMA as a state space that differences inside the state: for gaps, streaming and forecasts.

Delta(B) y_t = w_t with Delta(B) = (1 - B)^d (1 - B^s)^D = 1 - sum_j c_j B^j, and w as in `probseq.kernels.arma`. The
state is (v_t, ..., v_(t-r+1), y_(t-1), ..., y_(t-m)) with m = d + s D; its last m coordinates start diffuse. The value
is y_t = v_t + sum_j theta_j v_(t-j) + sum_j c_j y_(t-j). Variances are relative to that of the innovations.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.arma import state_size
from probseq.kernels.compiler import kernel
from probseq.kernels.kalman import SCORED, System, filter_states
from probseq.kernels.kalman_adjoint import filter_adjoint
from probseq.kernels.polynomials import autocovariances, autocovariances_adjoint, multiply, multiply_adjoint
from probseq.kernels.profile import concentrate, concentrate_gradient, pack_gradient, unpack


@kernel
def difference_coefficients(d, seasonal_d, period):
    """c (d + s D,) of (1 - B)^d (1 - B^s)^D = 1 - sum_j c_j B^j."""
    order = d + period * seasonal_d
    poly = np.zeros(order + 1)
    poly[0] = 1.0
    for i in range(d + seasonal_d):
        lag = 1 if i < d else period
        for j in range(order, lag - 1, -1):
            poly[j] -= poly[j - lag]
    return -poly[1:]


@kernel
def difference(x, c):
    """Delta(B) x along the last axis, (k, n) -> (k, n - m)."""
    m = c.size
    n = max(x.shape[1] - m, 0)
    result = np.empty((x.shape[0], n))
    for s in range(x.shape[0]):
        for t in range(n):
            result[s, t] = x[s, t + m]
        for j in range(m):
            if c[j] != 0.0:
                for t in range(n):
                    result[s, t] -= c[j] * x[s, t + m - 1 - j]
    return result


@kernel
def polynomial_trend(c, n):
    """A sequence g (n,) with Delta(B) g = 1 from the first step on, g_t = 1 + sum_j c_j g_(t-j) from zeros."""
    g = np.empty(n)
    for t in range(n):
        value = 1.0
        for j in range(min(c.size, t)):
            value += c[j] * g[t - 1 - j]
        g[t] = value
    return g


@kernel
def state_space(ar_lags, ar, ma_lags, ma, c):
    """System, stationary covariance, diffuse covariance, and what their adjoint needs.

    Parameters
    ----------
    ar_lags, ar, ma_lags, ma
        Sparse full polynomials, as for `probseq.kernels.arma.innovations`.
    c : (m,) float64
        From `difference_coefficients`.

    Returns
    -------
    system : System
    cov, diffuse : (k, k) float64
        Finite and infinite part of the covariance of the first state; k = r + m.
    gamma, rows : arrays
        From `autocovariances`.
    ok : bool
        Whether the autoregression is stationary.
    """
    r = state_size(ar_lags, ma_lags)
    m = c.size
    k = r + m
    n_c = 0
    for j in range(m):
        n_c += c[j] != 0.0
    z_index = np.empty(1 + ma_lags.size + n_c, dtype=np.int64)
    z = np.empty(z_index.size)
    z_index[0] = 0
    z[0] = 1.0
    z_index[1 : 1 + ma_lags.size] = ma_lags
    z[1 : 1 + ma_lags.size] = ma
    at = 1 + ma_lags.size
    for j in range(m):
        if c[j] != 0.0:
            z_index[at] = r + j
            z[at] = c[j]
            at += 1
    n_entries = ar_lags.size + r - 1
    if m > 0:
        n_entries += z.size + m - 1
    pointers = np.zeros(k + 1, dtype=np.int64)
    columns = np.empty(n_entries, dtype=np.int64)
    entries = np.ones(n_entries)
    at = ar_lags.size
    columns[:at] = ar_lags - 1
    entries[:at] = ar
    pointers[1] = at
    for i in range(1, k):
        if i == r:
            columns[at : at + z.size] = z_index
            entries[at : at + z.size] = z
            at += z.size
        else:
            columns[at] = i - 1
            at += 1
        pointers[i + 1] = at
    q = np.zeros((k, k))
    q[0, 0] = 1.0
    gamma, rows, ok = autocovariances(ar_lags, ar, r - 1)
    cov = np.zeros((k, k))
    for i in range(r):
        for j in range(r):
            cov[i, j] = gamma[abs(i - j)]
    diffuse = np.zeros((k, k))
    for i in range(r, k):
        diffuse[i, i] = 1.0
    return System(pointers, columns, entries, z_index, z, q, 0.0), cov, diffuse, gamma, rows, ok


@kernel
def state_space_adjoint(ar_lags, ar, ma_lags, m, gamma, rows, entries_gradient, z_gradient, cov_gradient):
    """Pull gradients of T's entries, z and the first covariance back to ar and ma; m is the number of differences."""
    r = state_size(ar_lags, ma_lags)
    ar_gradient = entries_gradient[: ar_lags.size].copy()
    ma_gradient = z_gradient[1 : 1 + ma_lags.size].copy()
    if m > 0:
        at = ar_lags.size + r
        ma_gradient += entries_gradient[at : at + ma_lags.size]
    gamma_gradient = np.zeros(gamma.size)
    for i in range(r):
        for j in range(r):
            gamma_gradient[abs(i - j)] += cov_gradient[i, j]
    ar_gradient += autocovariances_adjoint(ar_lags, ar, gamma, rows, gamma_gradient)
    return ar_gradient, ma_gradient


@kernel
def objective_with_gaps(x, orders, period, ar_lags, ma_lags, c, y, seen, weights, n_columns):
    """As `probseq.kernels.profile.objective`, for sequences with gaps, differenced inside the state.

    Parameters
    ----------
    x, orders, period, ar_lags, ma_lags
        As there.
    c : (m,) float64
        From `difference_coefficients`.
    y : (n_sequences * n_columns, n) float64
        Undifferenced responses and regressors; finite everywhere.
    seen : (n_sequences, n) bool
    weights : (n_sequences,) float64

    Returns
    -------
    value : float
    gradient : (p + q + P + Q,) float64
    """
    p, q, seasonal_p, seasonal_q = orders
    phi, theta, seasonal_phi, seasonal_theta = unpack(x, p, q, seasonal_p, seasonal_q)
    ar = multiply(phi, seasonal_phi, period, -1.0, ar_lags)
    ma = multiply(theta, seasonal_theta, period, 1.0, ma_lags)
    system, cov, diffuse, gamma, rows, ok = state_space(ar_lags, ar, ma_lags, ma, c)
    if not ok:
        return np.inf, np.zeros(x.size)
    e, f, scored = innovations_with_gaps(system, cov, diffuse, y, seen, n_columns)
    beta, sigma2, log_likelihood, count, residual = concentrate(e, f, scored, weights, n_columns)
    e_gradient, f_gradient = concentrate_gradient(residual, f, scored, weights, sigma2)
    k = cov.shape[0]
    d_ar = np.zeros(ar.size)
    d_ma = np.zeros(ma.size)
    for s in range(seen.shape[0]):
        response = y[s * n_columns : s * n_columns + 1].copy()
        for j in range(beta.size):
            response[0] -= beta[j] * y[s * n_columns + 1 + j]
        pulled = filter_adjoint(
            system,
            np.zeros((1, k)),
            response,
            seen[s],
            np.zeros((1, k)),
            cov,
            diffuse,
            e_gradient[s : s + 1],
            f_gradient[s],
        )
        from_ar, from_ma = state_space_adjoint(
            ar_lags, ar, ma_lags, c.size, gamma, rows, pulled[0], pulled[1], pulled[7]
        )
        d_ar += from_ar
        d_ma += from_ma
    d_phi, d_seasonal_phi = multiply_adjoint(phi, seasonal_phi, period, -1.0, ar_lags, d_ar)
    d_theta, d_seasonal_theta = multiply_adjoint(theta, seasonal_theta, period, 1.0, ma_lags, d_ma)
    gradient = pack_gradient(x, p, q, seasonal_p, seasonal_q, d_phi, d_theta, d_seasonal_phi, d_seasonal_theta)
    return -log_likelihood / count, gradient * (-1.0 / count)


@kernel
def innovations_with_gaps(system, cov, diffuse, y, seen, n_columns):
    """Innovations (n_sequences * n_columns, n), variances and scored mask (n_sequences, n) of fresh sequences."""
    n_sequences, n = seen.shape
    k = cov.shape[0]
    e = np.zeros(y.shape)
    f = np.ones((n_sequences, n))
    scored = np.zeros((n_sequences, n), dtype=np.bool_)
    for s in range(n_sequences):
        rows = slice(s * n_columns, (s + 1) * n_columns)
        e[rows], f[s], status, _, _, _ = filter_states(
            system,
            np.zeros((n_columns, k)),
            y[rows],
            seen[s],
            np.zeros((n_columns, k)),
            cov.copy(),
            diffuse.copy(),
            False,
        )
        scored[s] = status == SCORED
    return e, f, scored
