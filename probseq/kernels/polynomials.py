"""Lag polynomials: partial autocorrelations to coefficients and back, products with a seasonal factor, adjoints.

An autoregression is written phi(B) = 1 - sum_j phi_j B^j and a moving average theta(B) = 1 + sum_j theta_j B^j.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel


@kernel
def coefficients_from_partial(partial):
    """phi_j^(k) = phi_j^(k-1) - r_k phi_(k-j)^(k-1), phi_k^(k) = r_k: the Durbin-Levinson recursion.

    Parameters
    ----------
    partial : (p,) float64
        Partial autocorrelations r_1..r_p, each in (-1, 1).

    Returns
    -------
    (p,) float64
        Coefficients of a stationary autoregression. Their negatives are those of an invertible moving average.
        Monahan (1984), A note on enforcing stationarity in autoregressive-moving average models, Biometrika 71.
    """
    p = partial.size
    phi = np.zeros(p)
    previous = np.zeros(p)
    for k in range(p):
        r = partial[k]
        for j in range(k):
            phi[j] = previous[j] - r * previous[k - 1 - j]
        phi[k] = r
        previous[: k + 1] = phi[: k + 1]
    return phi


@kernel
def coefficients_from_partial_adjoint(partial, gradient):
    """Pull a gradient with respect to the coefficients back to the partial autocorrelations, both (p,)."""
    p = partial.size
    rows = np.zeros((p + 1, p))
    for k in range(p):
        r = partial[k]
        for j in range(k):
            rows[k + 1, j] = rows[k, j] - r * rows[k, k - 1 - j]
        rows[k + 1, k] = r
    current = gradient.copy()
    below = np.zeros(p)
    result = np.zeros(p)
    for k in range(p - 1, -1, -1):
        r = partial[k]
        total = current[k]
        below[:k] = current[:k]
        for j in range(k):
            below[k - 1 - j] -= r * current[j]
            total -= current[j] * rows[k, k - 1 - j]
        result[k] = total
        current[:k] = below[:k]
    return result


@kernel
def step_down(phi):
    """Every order's coefficients from the highest: phi_j^(k-1) = (phi_j^(k) + r_k phi_(k-j)^(k)) / (1 - r_k^2).

    Parameters
    ----------
    phi : (p,) float64

    Returns
    -------
    rows : (p + 1, p) float64
        Row k holds the k coefficients of the best linear prediction from k values; rows[k, k - 1] is the partial
        autocorrelation r_k.
    stationary : bool
        Whether all |r_k| < 1; rows below the first failure are zero.
    """
    p = phi.size
    rows = np.zeros((p + 1, p))
    if p == 0:
        return rows, True
    rows[p] = phi
    for k in range(p, 0, -1):
        r = rows[k, k - 1]
        if not abs(r) < 1.0:
            return rows, False
        scale = 1.0 / ((1.0 - r) * (1.0 + r))
        for j in range(k - 1):
            rows[k - 1, j] = (rows[k, j] + r * rows[k, k - 2 - j]) * scale
    return rows, True


@kernel
def partial_from_coefficients(phi):
    """Partial autocorrelations (p,) of an autoregression, and whether it is stationary (all of them inside (-1, 1))."""
    p = phi.size
    rows, stationary = step_down(phi)
    partial = np.zeros(p)
    for k in range(p):
        partial[k] = rows[k + 1, k]
    return partial, stationary


@kernel
def support(n_plain, n_seasonal, period):
    """Lags, ascending and distinct, at which the product of a plain and a seasonal polynomial may differ from zero."""
    order = n_plain + period * n_seasonal
    present = np.zeros(order + 1, dtype=np.bool_)
    for j in range(n_seasonal + 1):
        for i in range(n_plain + 1):
            present[i + period * j] = True
    count = 0
    for lag in range(1, order + 1):
        count += present[lag]
    lags = np.empty(count, dtype=np.int64)
    count = 0
    for lag in range(1, order + 1):
        if present[lag]:
            lags[count] = lag
            count += 1
    return lags


@kernel
def multiply(plain, seasonal, period, sign, lags):
    """Coefficients at `lags` of (1 + sign sum_i a_i B^i)(1 + sign sum_j A_j B^(sj)), in the sign of the factors.

    Parameters
    ----------
    plain, seasonal : (p,), (P,) float64
    period : int
    sign : float
        -1 for an autoregression, +1 for a moving average.
    lags : (m,) int64
        From `support`.

    Returns
    -------
    (m,) float64
        c with product = 1 + sign sum_m c_m B^lags[m].
    """
    order = plain.size + period * seasonal.size
    dense = np.zeros(order + 1)
    for i in range(plain.size):
        dense[i + 1] += plain[i]
    for j in range(seasonal.size):
        dense[period * (j + 1)] += seasonal[j]
        for i in range(plain.size):
            dense[i + 1 + period * (j + 1)] += sign * plain[i] * seasonal[j]
    result = np.empty(lags.size)
    for m in range(lags.size):
        result[m] = dense[lags[m]]
    return result


@kernel
def multiply_adjoint(plain, seasonal, period, sign, lags, gradient):
    """Pull a gradient with respect to the product's coefficients back to the plain (p,) and seasonal (P,) factors."""
    order = plain.size + period * seasonal.size
    dense = np.zeros(order + 1)
    for m in range(lags.size):
        dense[lags[m]] = gradient[m]
    plain_gradient = np.zeros(plain.size)
    seasonal_gradient = np.zeros(seasonal.size)
    for i in range(plain.size):
        plain_gradient[i] = dense[i + 1]
    for j in range(seasonal.size):
        seasonal_gradient[j] = dense[period * (j + 1)]
        for i in range(plain.size):
            cross = sign * dense[i + 1 + period * (j + 1)]
            plain_gradient[i] += cross * seasonal[j]
            seasonal_gradient[j] += cross * plain[i]
    return plain_gradient, seasonal_gradient


@kernel
def autocovariances(lags, coefficients, n_lags):
    """gamma_k = Cov(v_t, v_(t-k)) of phi(B) v_t = e_t with Var e_t = 1, in O(p^2) without a linear system.

    gamma_0 = prod_k 1 / (1 - r_k^2) and gamma_k = sum_j phi_j^(min(k, p)) gamma_(k-j), the Yule-Walker equations of the
    order min(k, p) (Brockwell and Davis 1991, Time Series, section 5.2).

    Parameters
    ----------
    lags, coefficients : (m,) int64, (m,) float64
        The autoregression, sparse.
    n_lags : int
        How many autocovariances beyond gamma_0 are wanted; at least the order p is returned.

    Returns
    -------
    gamma : (max(n_lags, p) + 1,) float64
    rows : (p + 1, p) float64
        From `step_down`, for the adjoint.
    stationary : bool
        When False, gamma is meaningless.
    """
    p = lags[-1] if lags.size > 0 else 0
    phi = np.zeros(p)
    for m in range(lags.size):
        phi[lags[m] - 1] = coefficients[m]
    rows, stationary = step_down(phi)
    total = max(n_lags, p)
    gamma = np.zeros(total + 1)
    if not stationary:
        return gamma, rows, False
    gamma[0] = 1.0
    for k in range(p):
        r = rows[k + 1, k]
        gamma[0] /= (1.0 - r) * (1.0 + r)
    for k in range(1, p + 1):
        value = 0.0
        for j in range(1, k + 1):
            value += rows[k, j - 1] * gamma[k - j]
        gamma[k] = value
    for k in range(p + 1, total + 1):
        value = 0.0
        for m in range(lags.size):
            value += coefficients[m] * gamma[k - lags[m]]
        gamma[k] = value
    return gamma, rows, True


@kernel
def autocovariances_adjoint(lags, coefficients, gamma, rows, gradient):
    """Pull a gradient with respect to gamma back to the coefficients (m,); `gradient` is overwritten."""
    p = lags[-1] if lags.size > 0 else 0
    result = np.zeros(lags.size)
    for k in range(gamma.size - 1, p, -1):
        for m in range(lags.size):
            result[m] += gradient[k] * gamma[k - lags[m]]
            gradient[k - lags[m]] += gradient[k] * coefficients[m]
    pulled = np.zeros((p + 1, p))
    for k in range(p, 0, -1):
        for j in range(1, k + 1):
            pulled[k, j - 1] += gradient[k] * gamma[k - j]
            gradient[k - j] += gradient[k] * rows[k, j - 1]
    for k in range(p):
        r = rows[k + 1, k]
        pulled[k + 1, k] += gradient[0] * gamma[0] * 2.0 * r / ((1.0 - r) * (1.0 + r))
    for k in range(2, p + 1):
        r = rows[k, k - 1]
        scale = 1.0 / ((1.0 - r) * (1.0 + r))
        for j in range(k - 1):
            step = pulled[k - 1, j]
            pulled[k, j] += step * scale
            pulled[k, k - 2 - j] += step * scale * r
            pulled[k, k - 1] += step * (scale * rows[k, k - 2 - j] + rows[k - 1, j] * 2.0 * r * scale)
    for m in range(lags.size):
        result[m] += pulled[p, lags[m] - 1]
    return result
