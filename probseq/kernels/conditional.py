"""ARMA innovations given the first values, with a constant or a GARCH(1, 1) variance; their adjoint; simulation.

With z_t known and the innovations before the first scored step zero,

    e_t = z_t - sum_j ar_j z_(t-j) - sum_j ma_j e_(t-j),    h_(t+1) = omega + alpha e_t^2 + beta h_t,

where the variance stays what it is when there is no GARCH, and in steps that are not scored. Bollerslev (1986),
Generalized autoregressive conditional heteroskedasticity, Journal of Econometrics 31, equations 1 and 2.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel


@kernel
def conditional_innovations(ar_lags, ar, ma_lags, ma, z, first, lengths, shocks, variance, garch, moves):
    """Innovations and variances of series that share the parameters.

    Parameters
    ----------
    ar_lags, ar : (a,) int64 ascending, (a,) float64
    ma_lags, ma : (b,) int64 ascending, (b,) float64
    z : (c, p + n) float64
        The p values before the first step (p is the highest lag of ``ar_lags``), then those of the steps.
    first, lengths : (c,) int64
        First scored step and number of steps of each series.
    shocks : (c, q) float64
        Innovations before the first step, oldest first; q is the highest lag of ``ma_lags``.
    variance : (c,) float64
        h of the first step.
    garch : (3,) float64
        omega, alpha, beta.
    moves : bool
        False for a constant variance.

    Returns
    -------
    e : (c, q + n) float64
        ``shocks``, then the innovations, zero where nothing is scored.
    h : (c, n + 1) float64
        Variances before every step and after the last; constant behind the end of a series.
    """
    p, q = ar_lags[-1] if ar_lags.size > 0 else 0, shocks.shape[1]
    n_series, n = z.shape[0], z.shape[1] - p
    e = np.zeros((n_series, q + n))
    h = np.empty((n_series, n + 1))
    omega, alpha, beta = garch
    for s in range(n_series):
        values, innovations = z[s], e[s]
        innovations[:q] = shocks[s]
        spread = variance[s]
        begin, end = min(first[s], lengths[s]), lengths[s]
        h[s, : begin + 1] = spread
        for t in range(begin, end):
            value = values[p + t]
            for m in range(ar_lags.size):
                value -= ar[m] * values[p + t - ar_lags[m]]
            for m in range(ma_lags.size):
                value -= ma[m] * innovations[q + t - ma_lags[m]]
            innovations[q + t] = value
            if moves:
                spread = omega + alpha * value * value + beta * spread
            h[s, t + 1] = spread
        h[s, end:] = spread
    return e, h


@kernel
def conditional_adjoint(ar_lags, ar, ma_lags, ma, z, first, lengths, e, h, garch, moves, e_gradient, h_gradient):
    """Pull gradients with respect to the results of `conditional_innovations` back to its arguments.

    Parameters
    ----------
    e_gradient : (c, n) float64
        Without the part of ``shocks``; overwritten.
    h_gradient : (c, n + 1) float64

    Returns
    -------
    d_ar, d_ma : (a,), (b,) float64
    d_z : (c, p + n) float64
    d_variance : (c,) float64
    d_garch : (3,) float64
    """
    p = ar_lags[-1] if ar_lags.size > 0 else 0
    n_series, n = z.shape[0], z.shape[1] - p
    q = e.shape[1] - n
    d_ar, d_ma = np.zeros(ar_lags.size), np.zeros(ma_lags.size)
    d_z, d_variance, d_garch = np.zeros(z.shape), np.zeros(n_series), np.zeros(3)
    _, alpha, beta = garch
    for s in range(n_series):
        values, innovations, pulled, slopes = z[s], e[s], d_z[s], e_gradient[s]
        begin, end = min(first[s], lengths[s]), lengths[s]
        later = 0.0
        for t in range(end, n + 1):
            later += h_gradient[s, t]
        for t in range(end - 1, begin - 1, -1):
            slope = slopes[t]
            if moves:
                value = innovations[q + t]
                d_garch[0] += later
                d_garch[1] += later * value * value
                d_garch[2] += later * h[s, t]
                slope += 2.0 * alpha * value * later
                later *= beta
            later += h_gradient[s, t]
            pulled[p + t] += slope
            for m in range(ar_lags.size):
                d_ar[m] -= slope * values[p + t - ar_lags[m]]
                pulled[p + t - ar_lags[m]] -= slope * ar[m]
            for m in range(ma_lags.size):
                lag = ma_lags[m]
                d_ma[m] -= slope * innovations[q + t - lag]
                if t >= lag:
                    slopes[t - lag] -= slope * ma[m]
        for t in range(begin):
            later += h_gradient[s, t]
        d_variance[s] = later
    return d_ar, d_ma, d_z, d_variance, d_garch


@kernel
def conditional_paths(
    ar_lags, ar, ma_lags, ma, differences, mean, levels, z, shocks, variance, age, garch, moves, noise
):
    """Simulate levels onwards from states that share the parameters.

    Parameters
    ----------
    differences : (m,) float64
        c of Delta(B) = 1 - sum_j c_j B^j.
    mean : float
        Of the differenced series.
    levels : (c, m) float64
        Last levels, newest first; overwritten with those after the last step, as the following three.
    z : (c, p) float64
        Last values of the differenced series less its mean, newest first.
    shocks : (c, q) float64
        Last innovations, newest first.
    variance : (c,) float64
    age : (c,) int64
        Steps so far: the first m have no difference yet, and the next p no innovation.
    noise : (c, n) float64
        Independent draws of the innovations' law with mean 0 and variance 1.

    Returns
    -------
    (c, n) float64
    """
    m, p, q = levels.shape[1], z.shape[1], shocks.shape[1]
    n_series, n = noise.shape
    omega, alpha, beta = garch
    result = np.empty((n_series, n))
    diffs, long, shock = np.zeros(m + n), np.zeros(p + n), np.zeros(q + n)
    for s in range(n_series):
        for j in range(m):
            diffs[m - 1 - j] = levels[s, j]
        for j in range(p):
            long[p - 1 - j] = z[s, j]
        for j in range(q):
            shock[q - 1 - j] = shocks[s, j]
        spread = variance[s]
        for t in range(n):
            step = age[s] + t
            value = np.sqrt(spread) * noise[s, t]
            shock[q + t] = value if step >= m + p else 0.0
            if moves and step >= m + p:
                spread = omega + alpha * value * value + beta * spread
            for i in range(ar_lags.size):
                value += ar[i] * long[p + t - ar_lags[i]]
            for i in range(ma_lags.size):
                value += ma[i] * shock[q + t - ma_lags[i]]
            long[p + t] = value if step >= m else 0.0
            value += mean
            for j in range(m):
                value += differences[j] * diffs[m + t - 1 - j]
            diffs[m + t] = value
            result[s, t] = value
        for j in range(m):
            levels[s, j] = diffs[m + n - 1 - j]
        for j in range(p):
            z[s, j] = long[p + n - 1 - j]
        for j in range(q):
            shocks[s, j] = shock[q + n - 1 - j]
        variance[s] = spread
    return result
