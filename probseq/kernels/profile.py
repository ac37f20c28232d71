"""Gaussian ARMA log-likelihood with regression coefficients and innovation variance concentrated out.

Given innovations e_t of y - X beta with variances sigma^2 F_t, the best beta is generalised least squares, the best
variance is sigma^2 = sum e_t^2 / F_t / N, and what remains is l = -N/2 (log(2 pi sigma^2) + 1) - 1/2 sum log F_t. Its
gradient is that of the full likelihood at those values (the envelope theorem).
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.arma import Trace, dot, innovations
from probseq.kernels.arma_adjoint import innovations_adjoint
from probseq.kernels.compiler import kernel
from probseq.kernels.polynomials import (
    coefficients_from_partial,
    coefficients_from_partial_adjoint,
    multiply,
    multiply_adjoint,
)
from probseq.kernels.quasi_newton import RUNNING, STATUS, VALUE, advance

LOG_2PI = math.log(2.0 * math.pi)
# Partial autocorrelations stay this far inside (-1, 1), so that a root on the circle is approached, not reached.
INSIDE = 1.0 - 1e-9


@kernel
def partial_from_free(x):
    """r = x / sqrt(1 + x^2), the real line to (-1, 1), up to the margin `INSIDE`."""
    return INSIDE * x / np.sqrt(1.0 + x * x)


@kernel
def free_from_partial(partial):
    """x = r / sqrt(1 - r^2), the inverse of `partial_from_free`."""
    r = partial / INSIDE
    return r / np.sqrt(np.maximum((1.0 - r) * (1.0 + r), 1e-18))


@kernel
def solve_normal(gram, moment):
    """Solve gram beta = moment (k, k), (k,) by Cholesky; a coefficient that the others explain is zero."""
    k = moment.size
    lower = np.zeros((k, k))
    rank = 0
    half = np.zeros(k)
    for j in range(k):
        pivot = gram[j, j]
        value = moment[j]
        for i in range(j):
            pivot -= lower[j, i] * lower[j, i]
            value -= lower[j, i] * half[i]
        if pivot > 1e-13 * gram[j, j]:
            rank += 1
            root = math.sqrt(pivot)
            lower[j, j] = root
            half[j] = value / root
            for m in range(j + 1, k):
                entry = gram[m, j]
                for i in range(j):
                    entry -= lower[m, i] * lower[j, i]
                lower[m, j] = entry / root
    beta = np.zeros(k)
    for j in range(k - 1, -1, -1):
        if lower[j, j] > 0.0:
            value = half[j]
            for m in range(j + 1, k):
                value -= lower[m, j] * beta[m]
            beta[j] = value / lower[j, j]
    return beta, rank


@kernel
def concentrate(e, f, scored, weights, n_columns):
    """Best coefficients and variance given innovations of responses and regressors.

    Parameters
    ----------
    e : (c * n_columns, n) float64
        For each of c sequences its response, then its n_columns - 1 regressors.
    f : (c, n) float64
        Innovation variances relative to sigma^2.
    scored : (c, n) bool
    weights : (c,) float64
        What each sequence counts.

    Returns
    -------
    beta : (n_columns - 1,) float64
    sigma2 : float
    log_likelihood : float, nats
    count : float
        Scored values, weighted.
    residual : (c, n) float64
        e of the response minus that of the fitted regression.
    """
    n_sequences, n = f.shape
    k = n_columns - 1
    gram = np.zeros((k, k))
    moment = np.zeros(k)
    count = 0.0
    log_f = 0.0
    for s in range(n_sequences):
        row = s * n_columns
        # A product of variances and one logarithm a hundred steps cost less than a logarithm a step.
        product = 1.0
        log_product = 0.0
        for t in range(n):
            if scored[s, t]:
                count += weights[s]
                if f[s, t] != 1.0:
                    product *= f[s, t]
                    if product > 1e100 or product < 1e-100:
                        log_product += math.log(product)
                        product = 1.0
                for i in range(k):
                    x = weights[s] * e[row + 1 + i, t] / f[s, t]
                    moment[i] += x * e[row, t]
                    for j in range(i + 1):
                        gram[i, j] += x * e[row + 1 + j, t]
        log_f += weights[s] * (log_product + math.log(product))
    for i in range(k):
        for j in range(i):
            gram[j, i] = gram[i, j]
    beta, _ = solve_normal(gram, moment)
    residual = np.zeros((n_sequences, n))
    total = 0.0
    for s in range(n_sequences):
        row = s * n_columns
        for t in range(n):
            value = e[row, t]
            for i in range(k):
                value -= beta[i] * e[row + 1 + i, t]
            residual[s, t] = value
            if scored[s, t]:
                total += weights[s] * value * value / f[s, t]
    sigma2 = total / count
    log_likelihood = -0.5 * count * (LOG_2PI + math.log(sigma2) + 1.0) - 0.5 * log_f
    return beta, sigma2, log_likelihood, count, residual


@kernel(fastmath={"contract"})
def concentrate_complete(e, f, steady, lengths, weights, n_columns):
    """As `concentrate` for sequences without gaps, which share f (n,), equal to 1 from step `steady` on.

    Parameters
    ----------
    lengths : (c,) int64
        Scored steps of each sequence, from its first on.
    """
    n = f.size
    k = n_columns - 1
    gram = np.zeros((k, k))
    moment = np.zeros(k)
    count = 0.0
    log_f = 0.0
    inverse = 1.0 / f[:steady]
    for s in range(lengths.size):
        row, length = s * n_columns, lengths[s]
        early = min(steady, length)
        count += weights[s] * length
        log_f += weights[s] * _log_product(f[:early])
        for i in range(k):
            scaled = e[row + 1 + i, :early] * inverse[:early]
            late = e[row + 1 + i, early:length]
            moment[i] += weights[s] * (dot(scaled, e[row, :early]) + dot(late, e[row, early:length]))
            for j in range(i + 1):
                other = e[row + 1 + j]
                gram[i, j] += weights[s] * (dot(scaled, other[:early]) + dot(late, other[early:length]))
    for i in range(k):
        for j in range(i):
            gram[j, i] = gram[i, j]
    beta, _ = solve_normal(gram, moment)
    residual = np.empty((lengths.size, n))
    total = 0.0
    for s in range(lengths.size):
        row, length = s * n_columns, lengths[s]
        early = min(steady, length)
        left = residual[s]
        left[:] = e[row]
        for i in range(k):
            for t in range(n):
                left[t] -= beta[i] * e[row + 1 + i, t]
        scaled = left[:early] * inverse[:early]
        total += weights[s] * (dot(scaled, left[:early]) + dot(left[early:length], left[early:length]))
    sigma2 = total / count
    log_likelihood = -0.5 * count * (LOG_2PI + math.log(sigma2) + 1.0) - 0.5 * log_f
    return beta, sigma2, log_likelihood, count, residual


@kernel(fastmath={"contract"})
def _log_product(f):
    # A product of variances and one logarithm now and then cost less than a logarithm a step.
    total, product = 0.0, 1.0
    for t in range(f.size):
        product *= f[t]
        if product > 1e100 or product < 1e-100:
            total += math.log(product)
            product = 1.0
    return total + math.log(product)


@kernel(fastmath={"contract"})
def complete_gradient(residual, f, steady, lengths, weights, sigma2):
    """Derivatives of the result of `concentrate_complete` with respect to the residuals (c, n) and to f (n,)."""
    e_gradient = np.zeros(residual.shape)
    f_gradient = np.zeros(f.size)
    for s in range(lengths.size):
        length = lengths[s]
        for t in range(min(steady, length)):
            scaled = residual[s, t] / (sigma2 * f[t])
            e_gradient[s, t] = -weights[s] * scaled
            f_gradient[t] += 0.5 * weights[s] * (scaled * residual[s, t] - 1.0) / f[t]
        factor = -weights[s] / sigma2
        for t in range(min(steady, length), length):
            e_gradient[s, t] = factor * residual[s, t]
    return e_gradient, f_gradient


@kernel
def concentrate_gradient(residual, f, scored, weights, sigma2):
    """Derivatives of the concentrated log-likelihood with respect to the residuals (c, n) and to f (c, n)."""
    e_gradient = np.zeros(residual.shape)
    f_gradient = np.zeros(residual.shape)
    for s in range(residual.shape[0]):
        for t in range(residual.shape[1]):
            if scored[s, t]:
                scaled = residual[s, t] / (sigma2 * f[s, t])
                e_gradient[s, t] = -weights[s] * scaled
                f_gradient[s, t] = 0.5 * weights[s] * (scaled * residual[s, t] - 1.0) / f[s, t]
    return e_gradient, f_gradient


@kernel
def unpack(x, p, q, seasonal_p, seasonal_q):
    """Split free parameters into the coefficients of phi, theta, Phi and Theta."""
    partial = partial_from_free(x)
    a, b, c = p, p + q, p + q + seasonal_p
    return (
        coefficients_from_partial(partial[:a]),
        -coefficients_from_partial(partial[a:b]),
        coefficients_from_partial(partial[b:c]),
        -coefficients_from_partial(partial[c:]),
    )


@kernel
def pack_gradient(x, p, q, seasonal_p, seasonal_q, d_phi, d_theta, d_seasonal_phi, d_seasonal_theta):
    """Pull gradients with respect to the four factors back to the free parameters of `unpack`."""
    partial = partial_from_free(x)
    a, b, c = p, p + q, p + q + seasonal_p
    result = np.empty(x.size)
    result[:a] = coefficients_from_partial_adjoint(partial[:a], d_phi)
    result[a:b] = coefficients_from_partial_adjoint(partial[a:b], -d_theta)
    result[b:c] = coefficients_from_partial_adjoint(partial[b:c], d_seasonal_phi)
    result[c:] = coefficients_from_partial_adjoint(partial[c:], -d_seasonal_theta)
    for i in range(x.size):
        scale = 1.0 + x[i] * x[i]
        result[i] *= INSIDE / (scale * math.sqrt(scale))
    return result


@kernel
def objective(x, orders, period, ar_lags, ma_lags, w, lengths, weights, n_columns):
    """Minus the concentrated log-likelihood per scored value, and its gradient; sequences without gaps.

    Parameters
    ----------
    x : (p + q + P + Q,) float64
        Free parameters of phi, theta, Phi, Theta.
    orders : (4,) int64
        p, q, P, Q.
    ar_lags, ma_lags : (m,) int64
        From `support`.
    w : (c * n_columns, n) float64
        Differenced responses and regressors, zero beyond the sequence's length.
    lengths : (c,) int64
    weights : (c,) float64

    Returns
    -------
    value : float
        inf where the parameters leave the region that arithmetic can handle.
    gradient : (p + q + P + Q,) float64
    """
    p, q, seasonal_p, seasonal_q = orders
    phi, theta, seasonal_phi, seasonal_theta = unpack(x, p, q, seasonal_p, seasonal_q)
    ar = multiply(phi, seasonal_phi, period, -1.0, ar_lags)
    ma = multiply(theta, seasonal_theta, period, 1.0, ma_lags)
    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, True)
    if not trace.ok:
        return np.inf, np.zeros(x.size)
    beta, sigma2, log_likelihood, count, residual = concentrate_complete(
        e, f, trace.steady_from, lengths, weights, n_columns
    )
    e_gradient, f_gradient = complete_gradient(residual, f, trace.steady_from, lengths, weights, sigma2)
    if n_columns > 1:
        trace = _combine(trace, beta, n_columns, lengths.size, f.size)
    d_ar, d_ma, _ = innovations_adjoint(ar_lags, ar, ma_lags, ma, residual, f, trace, e_gradient, f_gradient)
    d_phi, d_seasonal_phi = multiply_adjoint(phi, seasonal_phi, period, -1.0, ar_lags, d_ar)
    d_theta, d_seasonal_theta = multiply_adjoint(theta, seasonal_theta, period, 1.0, ma_lags, d_ma)
    gradient = pack_gradient(x, p, q, seasonal_p, seasonal_q, d_phi, d_theta, d_seasonal_phi, d_seasonal_theta)
    return -log_likelihood / count, gradient * (-1.0 / count)


@kernel
def profile_at(x, orders, period, ar_lags, ma_lags, w, lengths, weights, n_columns):
    """Best coefficients (n_columns - 1,), variance and concentrated log-likelihood (nats); arguments as `objective`."""
    p, q, seasonal_p, seasonal_q = orders
    phi, theta, seasonal_phi, seasonal_theta = unpack(x, p, q, seasonal_p, seasonal_q)
    ar = multiply(phi, seasonal_phi, period, -1.0, ar_lags)
    ma = multiply(theta, seasonal_theta, period, 1.0, ma_lags)
    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, False)
    beta, sigma2, log_likelihood, _, _ = concentrate_complete(e, f, trace.steady_from, lengths, weights, n_columns)
    return beta, sigma2, log_likelihood


@kernel(fastmath={"contract"})
def _combine(trace, beta, n_columns, n_sequences, n):
    # The filter is linear in the data, so the states of y - X beta are those of the columns, combined.
    steady = trace.steady_from
    r = trace.gains.shape[1]
    for s in range(n_sequences):
        row = s * n_columns
        for t in range(steady):
            for i in range(r):
                value = trace.states[row, t, i]
                for j in range(beta.size):
                    value -= beta[j] * trace.states[row + 1 + j, t, i]
                trace.states[s, t, i] = value
        if steady < n:
            for t in range(steady + 1, n + r):
                value = trace.values[row, t]
                for j in range(beta.size):
                    value -= beta[j] * trace.values[row + 1 + j, t]
                trace.values[s, t] = value
    return Trace(
        steady,
        trace.gains,
        trace.directions,
        trace.states[:n_sequences],
        trace.last,
        trace.values[:n_sequences],
        trace.gamma,
        trace.rows,
        trace.ok,
    )


@kernel
def descend_profile(descent, values, max_iter, tol, orders, period, ar_lags, ma_lags, w, lengths, weights, n_columns):
    """Go on minimising `objective` in z = arsinh(x) for at most ``values.size`` evaluations.

    A partial autocorrelation is tanh z: a root that goes to the unit circle does so by a constant factor a step.

    Parameters
    ----------
    descent : Descent
        In z; changed in place.
    values : float64
        Receives the lowest value after each evaluation.
    max_iter, tol
        As for `probseq.kernels.quasi_newton.advance`.
    orders, ...
        As for `objective`.

    Returns
    -------
    int, the number of evaluations.
    """
    for i in range(values.size):
        if descent.counts[STATUS] != RUNNING:
            return i
        value, gradient = objective(
            np.sinh(descent.trial), orders, period, ar_lags, ma_lags, w, lengths, weights, n_columns
        )
        advance(descent, value, gradient * np.cosh(descent.trial), max_iter, tol)
        values[i] = descent.line[VALUE]
    return values.size
