"""Starting values of ARMA fits: two regressions instead of an optimisation.

Hannan and Rissanen (1982), Recursive estimation of mixed autoregressive-moving average order, Biometrika 69: the
residuals of a long autoregression stand for the unseen innovations in a regression of w_t on lags of w and e.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.arma import dot, subtract
from probseq.kernels.compiler import kernel
from probseq.kernels.polynomials import partial_from_coefficients
from probseq.kernels.profile import free_from_partial, solve_normal


@kernel
def long_residuals(w, scored, order):
    """Residuals (c, n) of the Yule-Walker autoregression of that order; holes and the time before the start are 0."""
    n_series, n = w.shape
    gamma = np.zeros(order + 1)
    for s in range(n_series):
        for k in range(order + 1):
            gamma[k] += dot(w[s, k:], w[s, : n - k])
    phi = np.zeros(order)
    previous = np.zeros(order)
    variance = gamma[0]
    for k in range(order):
        if variance <= 1e-12 * gamma[0]:
            break
        value = gamma[k + 1]
        for j in range(k):
            value -= previous[j] * gamma[k - j]
        r = value / variance
        for j in range(k):
            phi[j] = previous[j] - r * previous[k - 1 - j]
        phi[k] = r
        previous[: k + 1] = phi[: k + 1]
        variance *= 1.0 - r * r
    e = w.copy()
    for s in range(n_series):
        for j in range(order):
            subtract(phi[j], w[s, : n - 1 - j], e[s, j + 1 :])
        for t in range(n):
            if not scored[s, t]:
                e[s, t] = 0.0
    return e


@kernel
def hannan_rissanen(w, scored, orders, period, long_order):
    """Least-squares coefficients of the plain and seasonal lags, products of factors left out.

    Parameters
    ----------
    w : (c, n) float64
        Series with zero mean, zero where not scored.
    scored : (c, n) bool
    orders : (4,) int64
        p, q, P, Q.
    period, long_order : int

    Returns
    -------
    (p + q + P + Q,) float64
        phi, theta, Phi, Theta one after the other; neither stationary nor invertible of necessity.
    """
    p, q, seasonal_p, seasonal_q = orders
    e = long_residuals(w, scored, long_order)
    size = p + q + seasonal_p + seasonal_q
    lags = np.empty(size, dtype=np.int64)
    of_e = np.zeros(size, dtype=np.bool_)
    at = 0
    for count, step, shock in (
        (p, 1, False),
        (q, 1, True),
        (seasonal_p, period, False),
        (seasonal_q, period, True),
    ):
        for j in range(count):
            lags[at] = (j + 1) * step
            of_e[at] = shock
            at += 1
    gram = np.zeros((size, size))
    moment = np.zeros(size)
    row = np.empty(size)
    largest = 0
    for i in range(size):
        largest = max(largest, lags[i])
    first = min(largest + long_order, w.shape[1] // 2)
    for s in range(w.shape[0]):
        for t in range(first, w.shape[1]):
            if scored[s, t]:
                for i in range(size):
                    back = t - lags[i]
                    row[i] = 0.0 if back < 0 else (e[s, back] if of_e[i] else w[s, back])
                for i in range(size):
                    moment[i] += row[i] * w[s, t]
                    for j in range(i + 1):
                        gram[i, j] += row[i] * row[j]
    for i in range(size):
        for j in range(i):
            gram[j, i] = gram[i, j]
    return solve_normal(gram, moment)[0]


@kernel
def free_from_coefficients(coefficients, orders, largest):
    """Free parameters of `probseq.kernels.profile.unpack` near given coefficients.

    A factor outside the stationary or invertible region is shrunk, c_j 0.9^(j i), until it is inside; partial
    autocorrelations are cut at ``largest``.
    """
    result = np.empty(coefficients.size)
    at = 0
    for block in range(4):
        count = orders[block]
        sign = -1.0 if block == 1 or block == 3 else 1.0
        phi = sign * coefficients[at : at + count]
        partial, inside = partial_from_coefficients(phi)
        while not inside:
            scale = 1.0
            for j in range(count):
                scale *= 0.9
                phi[j] *= scale
            partial, inside = partial_from_coefficients(phi)
        result[at : at + count] = free_from_partial(np.minimum(np.maximum(partial, -largest), largest))
        at += count
    return result
