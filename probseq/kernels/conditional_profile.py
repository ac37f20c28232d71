"""Log-likelihood of ARMA models with a law of innovations and a variance of one's choice, and its gradient.

e_t = sqrt(h_t) eps_t, and eps_t has mean 0 and variance 1 under each law:

- normal;
- Laplace: log f = -sqrt(2) |eps| - log(2) / 2;
- Student t: log f = c(df) - (df + 1) / 2 log(1 + eps^2 / (df - 2));
- skewed Student t: x = m + s eps has the density 2 / (xi + 1 / xi) g(x xi^(-sign x)), g the one before (Fernandez and
  Steel 1998, On Bayesian modeling of fat tails and skewness, JASA 93, equation 1), m and s its mean and deviation.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.conditional import conditional_adjoint, conditional_innovations
from probseq.kernels.sparse_profile import (
    factors_from_free,
    factors_from_free_adjoint,
    whole_polynomials,
    whole_polynomials_adjoint,
)

NORMAL, LAPLACE, STUDENT, SKEWED = 0, 1, 2, 3
# Degrees of freedom stay this far from 2, below which there is no variance.
LOWEST_DF = 2.05
# alpha + beta stays this far below 1, so that 1 - alpha - beta keeps its digits.
MOST_PERSISTENT = 1.0 - 1e-8
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
ROOT_2 = math.sqrt(2.0)


@kernel
def digamma(x):
    """d log Gamma(x) / dx for x > 0: upwards by the recurrence, then the asymptotic series."""
    value = 0.0
    while x < 12.0:
        value -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132 - y * 691 / 32760)))))
    return value + math.log(x) - 0.5 / x - series


@kernel
def standardisation(df, xi):
    """m and s of the skewed Student t, and their derivatives by df and by xi, (2, 2)."""
    ratio = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df)
    absolute = 2.0 * math.sqrt(df - 2.0) / (df - 1.0) * math.exp(ratio) / math.sqrt(math.pi)
    by_df = 0.5 / (df - 2.0) - 1.0 / (df - 1.0) + 0.5 * (digamma(0.5 * (df + 1.0)) - digamma(0.5 * df))
    odd = xi - 1.0 / xi
    m = absolute * odd
    s = math.sqrt(xi * xi + 1.0 / (xi * xi) - 1.0 - m * m)
    slopes = np.empty((2, 2))
    slopes[0, 0] = m * by_df
    slopes[0, 1] = absolute * (1.0 + 1.0 / (xi * xi))
    slopes[1, 0] = -m * slopes[0, 0] / s
    slopes[1, 1] = (xi - xi**-3 - m * slopes[0, 1]) / s
    return m, s, slopes


@kernel
def density_terms(law, df, xi, smooth, e, h, first, lengths, weights):
    """Weighted log density of all innovations, its gradients by e and h, and by df and xi.

    Parameters
    ----------
    law : int
    df, xi : float
        Used by the laws that have them.
    smooth : float
        |eps| of Laplace's law is sqrt(eps^2 + smooth^2).
    e, h : (c, n) float64
    first, lengths : (c,) int64
    weights : (c,) float64

    Returns
    -------
    total : float, nats
    e_gradient, h_gradient : (c, n) float64
    df_gradient, xi_gradient : float
    """
    e_gradient, h_gradient = np.zeros(e.shape), np.zeros(h.shape)
    m, s, slopes = 0.0, 1.0, np.zeros((2, 2))
    if law == SKEWED:
        m, s, slopes = standardisation(df, xi)
    else:
        xi = 1.0
    above, below = 1.0 / xi, xi
    tail = 1.0 / (df - 2.0)
    total, count, of_df, of_xi, of_m, of_s, logs = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for c in range(e.shape[0]):
        weight = weights[c]
        # A product and one logarithm now and then cost less than a logarithm a step.
        spread_logs, spreads, tail_logs, tails, square = 0.0, 1.0, 0.0, 1.0, 0.0
        for t in range(first[c], lengths[c]):
            inverse = 1.0 / h[c, t]
            root = math.sqrt(inverse)
            eps = e[c, t] * root
            spreads *= inverse
            if spreads > 1e100 or spreads < 1e-100:
                spread_logs += math.log(spreads)
                spreads = 1.0
            if law == NORMAL:
                square += eps * eps
                slope = -eps
            elif law == LAPLACE:
                size = math.sqrt(eps * eps + smooth * smooth)
                square += size
                slope = -ROOT_2 * (eps / size if size > 0.0 else 0.0)
            else:
                x = m + s * eps
                turn = above if x >= 0.0 else below
                y = x * turn
                q = y * y * tail
                tails *= 1.0 + q
                if tails > 1e100:
                    tail_logs += math.log(tails)
                    tails = 1.0
                heavy = tail / (1.0 + q)
                of_df += weight * y * y * heavy
                by_y = -(df + 1.0) * y * heavy
                if law == SKEWED:
                    of_xi += weight * by_y * (-y if x >= 0.0 else y)
                    of_m += weight * by_y * turn
                    of_s += weight * by_y * turn * eps
                slope = by_y * turn * s
            e_gradient[c, t] = weight * slope * root
            h_gradient[c, t] = -0.5 * weight * (1.0 + slope * eps) * inverse
        steps = weight * max(lengths[c] - first[c], 0)
        count += steps
        total += 0.5 * weight * (spread_logs + math.log(spreads))
        logs += weight * (tail_logs + math.log(tails))
        if law == NORMAL:
            total -= 0.5 * weight * square
        elif law == LAPLACE:
            total -= ROOT_2 * weight * square
    df_gradient, xi_gradient = 0.0, 0.0
    if law == NORMAL:
        total -= count * HALF_LOG_2PI
    elif law == LAPLACE:
        total -= count * 0.5 * math.log(2.0)
    else:
        constant = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df) - 0.5 * math.log(math.pi * (df - 2.0))
        by_df = 0.5 * (digamma(0.5 * (df + 1.0)) - digamma(0.5 * df) - tail)
        total += count * constant - 0.5 * (df + 1.0) * logs
        df_gradient = count * by_df - 0.5 * logs + 0.5 * (df + 1.0) * tail * of_df
        if law == SKEWED:
            total += count * (math.log(2.0 * s) - math.log(xi + 1.0 / xi))
            of_s += count / s
            xi_gradient = of_xi / xi - count * (1.0 - 1.0 / (xi * xi)) / (xi + 1.0 / xi)
            xi_gradient += of_m * slopes[0, 1] + of_s * slopes[1, 1]
            df_gradient += of_m * slopes[0, 0] + of_s * slopes[1, 0]
    return total, e_gradient, h_gradient, df_gradient, xi_gradient


@kernel
def volatility_from_free(x, moves):
    """Unconditional variance exp(2 x_0) and omega, alpha, beta.

    alpha + beta = P = c logistic(x_1), c just below 1, and alpha = P logistic(x_2); omega is what gives that variance.
    A constant variance has x_0 only.
    """
    variance = math.exp(2.0 * x[0])
    garch = np.zeros(3)
    if moves:
        persistence = MOST_PERSISTENT / (1.0 + math.exp(-x[1]))
        share = 1.0 / (1.0 + math.exp(-x[2]))
        garch[0] = variance * (1.0 - MOST_PERSISTENT + MOST_PERSISTENT / (1.0 + math.exp(x[1])))
        garch[1] = persistence * share
        garch[2] = persistence * (1.0 - share)
    return variance, garch


@kernel
def conditional_residuals(beta, columns, n_columns):
    """Responses (c, n) less the fitted regression."""
    z = columns[::n_columns].copy()
    for s in range(z.shape[0]):
        for j in range(n_columns - 1):
            z[s] -= beta[j] * columns[s * n_columns + 1 + j]
    return z


@kernel
def conditional_run(x, counts, lags, period, ar_lags, ma_lags, columns, lengths, n_columns, moves):
    """Everything between the free parameters and the densities: z, e, h and what they were computed from."""
    coefficients = factors_from_free(x[: lags.size], counts, lags)
    ar, ma = whole_polynomials(coefficients, counts, lags, period, ar_lags, ma_lags)
    p = ar_lags[-1] if ar_lags.size > 0 else 0
    q = ma_lags[-1] if ma_lags.size > 0 else 0
    at = lags.size + n_columns - 1
    z = conditional_residuals(x[lags.size : at], columns, n_columns)
    variance, garch = volatility_from_free(x[at:], moves)
    n_series = z.shape[0]
    whole = np.zeros((n_series, p + z.shape[1]))
    whole[:, p:] = z
    first = np.full(n_series, p)
    start = np.full(n_series, variance)
    e, h = conditional_innovations(
        ar_lags, ar, ma_lags, ma, whole, first, lengths, np.zeros((n_series, q)), start, garch, moves
    )
    return coefficients, ar, ma, whole, first, garch, e, h


@kernel
def conditional_objective(
    x, counts, lags, period, ar_lags, ma_lags, columns, lengths, weights, n_columns, moves, law, smooth
):
    """Minus the conditional log-likelihood per scored value, and its gradient.

    Parameters
    ----------
    x : (k + n_columns - 1 + v + l,) float64
        Free parameters: of the k coefficients as in `factors_from_free`; regression coefficients; the v of
        `volatility_from_free`; log(df - LOWEST_DF) and log xi, where the law has them.
    counts, lags, period, ar_lags, ma_lags
        As for `factors_from_free` and `whole_polynomials`.
    columns : (c * n_columns, n) float64
        Differenced responses and regressors of each sequence, zero behind its end.
    lengths : (c,) int64
    weights : (c,) float64
    moves : bool
        Whether the variance is a GARCH(1, 1).
    law : int
    smooth : float
        As for `density_terms`.

    Returns
    -------
    value : float, inf where the parameters leave the region that arithmetic can handle
    gradient : like x
    """
    k, n_beta = lags.size, n_columns - 1
    at = k + n_beta
    shape = at + (3 if moves else 1)
    coefficients, ar, ma, z, first, garch, e, h = conditional_run(
        x, counts, lags, period, ar_lags, ma_lags, columns, lengths, n_columns, moves
    )
    df, xi = 5.0, 1.0
    if law >= STUDENT:
        df = LOWEST_DF + math.exp(x[shape])
    if law == SKEWED:
        xi = math.exp(x[shape + 1])
    n = columns.shape[1]
    q = e.shape[1] - n
    total, e_gradient, h_part, df_gradient, xi_gradient = density_terms(
        law, df, xi, smooth, e[:, q:], h[:, :n], first, lengths, weights
    )
    gradient = np.zeros(x.size)
    if not math.isfinite(total):
        return np.inf, gradient
    h_gradient = np.zeros(h.shape)
    h_gradient[:, :n] = h_part
    d_ar, d_ma, d_z, d_variance, d_garch = conditional_adjoint(
        ar_lags, ar, ma_lags, ma, z, first, lengths, e, h, garch, moves, e_gradient, h_gradient
    )
    pulled = whole_polynomials_adjoint(coefficients, counts, lags, period, ar_lags, ma_lags, d_ar, d_ma)
    gradient[:k] = factors_from_free_adjoint(x[:k], coefficients, counts, lags, pulled)
    p = z.shape[1] - n
    for s in range(lengths.size):
        for j in range(n_beta):
            gradient[k + j] -= np.dot(d_z[s, p:], columns[s * n_columns + 1 + j])
    variance = math.exp(2.0 * x[at])
    gradient[at] = 2.0 * variance * d_variance.sum()
    if moves:
        persistence, share = garch[1] + garch[2], 1.0 / (1.0 + math.exp(-x[at + 2]))
        slope = persistence / (1.0 + math.exp(x[at + 1]))
        gradient[at] += 2.0 * garch[0] * d_garch[0]
        gradient[at + 1] = slope * (share * d_garch[1] + (1.0 - share) * d_garch[2] - variance * d_garch[0])
        gradient[at + 2] = persistence * share * (1.0 - share) * (d_garch[1] - d_garch[2])
    if law >= STUDENT:
        gradient[shape] = df_gradient * (df - LOWEST_DF)
    if law == SKEWED:
        gradient[shape + 1] = xi_gradient * xi
    count = 0.0
    for s in range(lengths.size):
        count += weights[s] * max(lengths[s] - first[s], 0)
    return -total / count, gradient * (-1.0 / count)
