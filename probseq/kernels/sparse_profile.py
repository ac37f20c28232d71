"""Concentrated likelihood of ARMA models of which only some lags have a coefficient.

Partial autocorrelations cannot say that a coefficient is zero. Instead the free parameters are x_j = c_j g(c)^(l_j/2p)
for the coefficients c_j at lags l_1 < ... < l_m = p, where g(c) = Var v_t / Var e_t of v_t = sum_j c_j v_(t-l_j) + e_t.
Multiplying every root by 1/s turns c_j into s^l_j c_j and g into sum_i s^(2i) psi_i^2, which grows with s without bound
up to the first root on the unit circle; so this is a smooth map of the stationary region onto the whole of R^m, with a
smooth inverse, and x = c / sqrt(1 - c^2) for one lag.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.arima import innovations_with_gaps, state_space, state_space_adjoint
from probseq.kernels.arma import innovations
from probseq.kernels.arma_adjoint import innovations_adjoint
from probseq.kernels.compiler import kernel
from probseq.kernels.kalman_adjoint import filter_adjoint
from probseq.kernels.polynomials import (
    coefficients_from_partial,
    coefficients_from_partial_adjoint,
    multiply,
    multiply_adjoint,
    partial_from_coefficients,
    step_down,
)
from probseq.kernels.profile import (
    INSIDE,
    complete_gradient,
    concentrate,
    concentrate_complete,
    concentrate_gradient,
    free_from_partial,
    partial_from_free,
)


@kernel
def common_step(lags):
    """The greatest common divisor of lags, 1 where there are none: the polynomial is one in B^step."""
    step = 0
    for lag in lags:
        a, b = step, lag
        while b != 0:
            a, b = b, a % b
        step = a
    return max(step, 1)


@kernel
def complete(lags):
    """Whether lags are step, 2 step, ..., so that partial autocorrelations parametrise the polynomial."""
    for j in range(lags.size):
        if lags[j] != (j + 1) * lags[0]:
            return False
    return True


@kernel
def spread(coefficients, lags):
    """Coefficients (m,) at their lags as all coefficients up to the last lag (p,)."""
    row = np.zeros(lags[-1] if lags.size > 0 else 0)
    for j in range(lags.size):
        row[lags[j] - 1] = coefficients[j]
    return row


@kernel
def support_of(plain, seasonal, period):
    """Lags, ascending and distinct, of the product of a factor at `plain` lags and one at `seasonal` lags x period."""
    top = (plain[-1] if plain.size > 0 else 0) + period * (seasonal[-1] if seasonal.size > 0 else 0)
    present = np.zeros(top + 1, dtype=np.bool_)
    for i in range(plain.size + 1):
        for j in range(seasonal.size + 1):
            present[(plain[i - 1] if i > 0 else 0) + period * (seasonal[j - 1] if j > 0 else 0)] = True
    return np.nonzero(present[1:])[0] + 1


@kernel
def log_variance(lags, coefficients):
    """log g = -sum_k log(1 - r_k^2) over the partial autocorrelations r, its gradient (m,), whether it is stationary.

    Parameters
    ----------
    lags, coefficients : (m,) int64 ascending, (m,) float64
    """
    p = lags[-1]
    rows, stationary = step_down(spread(coefficients, lags))
    gradient = np.zeros(lags.size)
    if not stationary:
        return np.inf, gradient, False
    value = 0.0
    below = np.zeros(p)
    pulled = np.zeros(p)
    for k in range(1, p + 1):
        r = rows[k, k - 1]
        left = (1.0 - r) * (1.0 + r)
        value -= math.log(left)
        pulled[:] = 0.0
        pulled[k - 1] = 2.0 * r / left
        scale = 1.0 / left
        for j in range(k - 1):
            step = below[j] * scale
            pulled[j] += step
            pulled[k - 2 - j] += step * r
            pulled[k - 1] += step * (rows[k, k - 2 - j] + rows[k - 1, j] * 2.0 * r)
        below[:k] = pulled[:k]
    for j in range(lags.size):
        gradient[j] = below[lags[j] - 1]
    return value, gradient, True


@kernel
def sparse_from_free(x, lags):
    """Coefficients (m,) of a stationary autoregression at `lags` from free parameters (m,).

    c_j = x_j exp(l_j tau) with tau + log g(c) / 2p = 0, which is convex and increasing in tau: Newton's steps inside a
    bracket.
    """
    p = lags[-1]
    low, high, tau = -np.inf, 0.0, 0.0
    for j in range(lags.size):
        if x[j] != 0.0:
            tau = min(tau, -math.log(abs(x[j])) / lags[j])
    result = np.zeros(x.size)
    for _ in range(200):
        for j in range(x.size):
            result[j] = x[j] * math.exp(lags[j] * tau)
        value, gradient, inside = log_variance(lags, result)
        step = -0.5
        if inside:
            value = tau + 0.5 * value / p
            if abs(value) <= 1e-15 * (1.0 + abs(tau)):
                break
            slope = 1.0
            for j in range(x.size):
                slope += 0.5 * lags[j] * result[j] * gradient[j] / p
            step = -value / slope
        if not inside or value > 0.0:
            high = tau
        else:
            low = tau
        new = tau + step
        if not (new > low and new < high):
            new = 0.5 * (low + high) if low > -np.inf else high - 0.5
        if new == tau or new == low or new == high:
            break
        tau = new
    if low > -np.inf:
        # Rounding may end the search on the outer side.
        for j in range(x.size):
            result[j] = x[j] * math.exp(lags[j] * tau)
        if not partial_from_coefficients(spread(result, lags))[1]:
            tau = low
    for j in range(x.size):
        result[j] = x[j] * math.exp(lags[j] * (tau + math.log(INSIDE)))
    return result


@kernel
def free_from_sparse(coefficients, lags):
    """Free parameters (m,) of a stationary autoregression: the inverse of `sparse_from_free`."""
    p = lags[-1]
    result = np.empty(coefficients.size)
    tau = -math.log(INSIDE)
    value, _, inside = np.inf, result, False
    while not inside:
        for j in range(result.size):
            result[j] = coefficients[j] * math.exp(lags[j] * tau)
        value, _, inside = log_variance(lags, result)
        tau += math.log(INSIDE)
    for j in range(result.size):
        result[j] *= math.exp(0.5 * lags[j] * value / p)
    return result


@kernel
def sparse_from_free_adjoint(x, coefficients, lags, gradient):
    """Pull a gradient (m,) with respect to the coefficients back to the free parameters, both from `sparse_from_free`.

    With u = log g / 2p: dx_j = exp(l_j u) (dc_j + c_j l_j sum_i u_i dc_i), solved for dc.
    """
    p = lags[-1]
    inner = np.empty(x.size)
    shrunk = np.empty(x.size)
    for j in range(x.size):
        shrunk[j] = INSIDE ** lags[j]
        inner[j] = coefficients[j] / shrunk[j]
    value, slopes, _ = log_variance(lags, inner)
    total, along = 1.0, 0.0
    for j in range(x.size):
        total += 0.5 * slopes[j] * lags[j] * inner[j] / p
        along += gradient[j] * shrunk[j] * lags[j] * inner[j]
    result = np.empty(x.size)
    for j in range(x.size):
        rest = gradient[j] * shrunk[j] - 0.5 * slopes[j] / p * along / total
        result[j] = rest * math.exp(-0.5 * lags[j] * value / p)
    return result


@kernel
def factors_from_free(x, counts, lags):
    """Coefficients (k,) of phi, theta, Phi and Theta at their lags, one factor after the other.

    Parameters
    ----------
    x : (k,) float64
    counts : (4,) int64
        Number of coefficients of phi, theta, Phi, Theta.
    lags : (k,) int64
        Their lags, in steps for phi and theta, in seasons for Phi and Theta.
    """
    result = np.empty(x.size)
    at = 0
    for block in range(4):
        part = slice(at, at + counts[block])
        at += counts[block]
        if counts[block] > 0:
            sign = 1.0 if block % 2 == 0 else -1.0
            own = lags[part] // common_step(lags[part])
            if complete(own):
                result[part] = sign * coefficients_from_partial(partial_from_free(x[part]))
            else:
                result[part] = sign * sparse_from_free(x[part], own)
    return result


@kernel
def factors_from_free_adjoint(x, coefficients, counts, lags, gradient):
    """Pull a gradient (k,) with respect to the result of `factors_from_free` back to x (k,)."""
    result = np.empty(x.size)
    at = 0
    for block in range(4):
        part = slice(at, at + counts[block])
        at += counts[block]
        if counts[block] > 0:
            sign = 1.0 if block % 2 == 0 else -1.0
            own = lags[part] // common_step(lags[part])
            free = x[part]
            if complete(own):
                pulled = coefficients_from_partial_adjoint(partial_from_free(free), sign * gradient[part])
                result[part] = pulled * INSIDE * (1.0 + free * free) ** -1.5
            else:
                result[part] = sparse_from_free_adjoint(free, sign * coefficients[part], own, sign * gradient[part])
    return result


@kernel
def free_from_factors(coefficients, counts, lags, largest):
    """Free parameters near given coefficients of the four factors (k,).

    A factor outside the stationary or invertible region is shrunk, c_j 0.9^(l_j i), until it is inside, and until its
    partial autocorrelations do not exceed ``largest``.
    """
    result = np.empty(coefficients.size)
    at = 0
    for block in range(4):
        part = slice(at, at + counts[block])
        at += counts[block]
        if counts[block] > 0:
            sign = 1.0 if block % 2 == 0 else -1.0
            own = lags[part] // common_step(lags[part])
            phi = sign * coefficients[part]
            partial, inside = partial_from_coefficients(spread(phi, own))
            while not inside or np.max(np.abs(partial)) > largest:
                for j in range(phi.size):
                    phi[j] *= 0.9 ** own[j]
                partial, inside = partial_from_coefficients(spread(phi, own))
            result[part] = free_from_partial(partial) if complete(own) else free_from_sparse(phi, own)
    return result


@kernel
def whole_polynomials(coefficients, counts, lags, period, ar_lags, ma_lags):
    """Full autoregressive and moving-average coefficients at `ar_lags` and `ma_lags` of `support_of`."""
    phi, theta, seasonal_phi, seasonal_theta = _spread_all(coefficients, counts, lags)
    ar = multiply(phi, seasonal_phi, period, -1.0, ar_lags)
    return ar, multiply(theta, seasonal_theta, period, 1.0, ma_lags)


@kernel
def _spread_all(coefficients, counts, lags):
    a, b, c = counts[0], counts[0] + counts[1], counts[0] + counts[1] + counts[2]
    return (
        spread(coefficients[:a], lags[:a]),
        spread(coefficients[a:b], lags[a:b]),
        spread(coefficients[b:c], lags[b:c]),
        spread(coefficients[c:], lags[c:]),
    )


@kernel
def whole_polynomials_adjoint(coefficients, counts, lags, period, ar_lags, ma_lags, d_ar, d_ma):
    """Pull gradients with respect to the full polynomials back to the coefficients of the factors (k,)."""
    phi, theta, seasonal_phi, seasonal_theta = _spread_all(coefficients, counts, lags)
    d_phi, d_seasonal_phi = multiply_adjoint(phi, seasonal_phi, period, -1.0, ar_lags, d_ar)
    d_theta, d_seasonal_theta = multiply_adjoint(theta, seasonal_theta, period, 1.0, ma_lags, d_ma)
    result = np.empty(coefficients.size)
    at = 0
    for block in range(4):
        dense = d_phi if block == 0 else d_theta if block == 1 else d_seasonal_phi if block == 2 else d_seasonal_theta
        for _ in range(counts[block]):
            result[at] = dense[lags[at] - 1]
            at += 1
    return result


@kernel
def sparse_objective(x, counts, lags, period, ar_lags, ma_lags, w, lengths, weights, n_columns):
    """As `probseq.kernels.profile.objective`, for factors with gaps between their lags.

    Parameters
    ----------
    x, counts, lags
        As for `factors_from_free`.
    period, ar_lags, ma_lags
        As for `whole_polynomials`.
    w, lengths, weights, n_columns
        As for `probseq.kernels.profile.objective`.
    """
    coefficients = factors_from_free(x, counts, lags)
    ar, ma = whole_polynomials(coefficients, counts, lags, period, ar_lags, ma_lags)
    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, n_columns == 1)
    if not trace.ok:
        return np.inf, np.zeros(x.size)
    beta, sigma2, log_likelihood, count, residual = concentrate_complete(
        e, f, trace.steady_from, lengths, weights, n_columns
    )
    if n_columns > 1:
        # The filter is linear in the data: what it makes of y - X beta is the combination of what it makes of each.
        response = w[::n_columns].copy()
        for s in range(lengths.size):
            for j in range(beta.size):
                response[s] -= beta[j] * w[s * n_columns + 1 + j]
        residual, f, trace = innovations(ar_lags, ar, ma_lags, ma, response, True)
    e_gradient, f_gradient = complete_gradient(residual, f, trace.steady_from, lengths, weights, sigma2)
    d_ar, d_ma, _ = innovations_adjoint(ar_lags, ar, ma_lags, ma, residual, f, trace, e_gradient, f_gradient)
    pulled = whole_polynomials_adjoint(coefficients, counts, lags, period, ar_lags, ma_lags, d_ar, d_ma)
    gradient = factors_from_free_adjoint(x, coefficients, counts, lags, pulled)
    return -log_likelihood / count, gradient * (-1.0 / count)


@kernel
def sparse_objective_with_gaps(x, counts, lags, period, ar_lags, ma_lags, c, y, seen, weights, n_columns):
    """As `probseq.kernels.arima.objective_with_gaps`, for factors with gaps between their lags."""
    coefficients = factors_from_free(x, counts, lags)
    ar, ma = whole_polynomials(coefficients, counts, lags, period, ar_lags, ma_lags)
    system, cov, diffuse, gamma, rows, ok = state_space(ar_lags, ar, ma_lags, ma, c)
    if not ok:
        return np.inf, np.zeros(x.size)
    e, f, scored = innovations_with_gaps(system, cov, diffuse, y, seen, n_columns)
    beta, sigma2, log_likelihood, count, residual = concentrate(e, f, scored, weights, n_columns)
    e_gradient, f_gradient = concentrate_gradient(residual, f, scored, weights, sigma2)
    start = np.zeros((1, cov.shape[0]))
    d_ar = np.zeros(ar.size)
    d_ma = np.zeros(ma.size)
    for s in range(seen.shape[0]):
        response = y[s * n_columns : s * n_columns + 1].copy()
        for j in range(beta.size):
            response[0] -= beta[j] * y[s * n_columns + 1 + j]
        gradients = e_gradient[s : s + 1], f_gradient[s]
        pulled = filter_adjoint(system, start, response, seen[s], start, cov, diffuse, gradients[0], gradients[1])
        from_ar, from_ma = state_space_adjoint(
            ar_lags, ar, ma_lags, c.size, gamma, rows, pulled[0], pulled[1], pulled[7]
        )
        d_ar += from_ar
        d_ma += from_ma
    whole = whole_polynomials_adjoint(coefficients, counts, lags, period, ar_lags, ma_lags, d_ar, d_ma)
    gradient = factors_from_free_adjoint(x, coefficients, counts, lags, whole)
    return -log_likelihood / count, gradient * (-1.0 / count)
