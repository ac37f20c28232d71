"""Everything that filtering complete sequences under several draws of ARMA parameters gives, in one call."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.arima import difference
from probseq.kernels.arma import covariance_after, innovations, mean_after, state_size
from probseq.kernels.compiler import kernel
from probseq.kernels.polynomials import autocovariances
from probseq.kernels.profile import LOG_2PI
from probseq.kernels.sparse_profile import whole_polynomials


@kernel
def draw_polynomials(coefficients, counts, own_lags, period, ar_lags, ma_lags):
    """Full polynomials of every draw: coefficients (D, k) of the four factors to (D, a) and (D, b).

    Arguments as for `probseq.kernels.sparse_profile.whole_polynomials`.
    """
    n_draws = coefficients.shape[0]
    ar = np.empty((n_draws, ar_lags.size))
    ma = np.empty((n_draws, ma_lags.size))
    for d in range(n_draws):
        ar[d], ma[d] = whole_polynomials(coefficients[d], counts, own_lags, period, ar_lags, ma_lags)
    return ar, ma


@kernel
def stationary_covariances(ar_lags, ar, ma_lags, n_differences):
    """Finite part of the covariance of the first state of every draw, (D, k, k), as in `state_space`."""
    r = state_size(ar_lags, ma_lags)
    k = r + n_differences
    cov = np.zeros((ar.shape[0], k, k))
    for d in range(ar.shape[0]):
        gamma = autocovariances(ar_lags, ar[d], r - 1)[0]
        for i in range(r):
            for j in range(r):
                cov[d, i, j] = gamma[abs(i - j)]
    return cov


@kernel
def filter_complete(ar_lags, ar, ma_lags, ma, c, y, drift, scale, lengths):
    """Log densities and last states of complete sequences from fresh starts.

    Parameters
    ----------
    ar_lags, ar, ma_lags, ma
        (a,) lags and (D, a) coefficients, (b,) and (D, b).
    c : (m,) float64
        From `difference_coefficients`.
    y : (D or 1, n, t) float64
        Levels; anything finite beyond their lengths, all of which exceed m.
    drift, scale : (D,) float64
        Mean of the differenced series, and standard deviation of the innovations.
    lengths : (n,) int64

    Returns
    -------
    values : (D, n, t) float64
        log p(y_t | y_<t), nats; zero where not scored.
    mean, cov : (D, n, k), (D, n, k, k) float64
        The state after each sequence, r + m = k coordinates.
    """
    n_draws = ar.shape[0]
    n_series, t = y.shape[1:]
    m = c.size
    r = state_size(ar_lags, ma_lags)
    values = np.zeros((n_draws, n_series, t))
    mean = np.zeros((n_draws, n_series, r + m))
    cov = np.zeros((n_draws, n_series, r + m, r + m))
    for d in range(n_draws):
        levels = y[min(d, y.shape[0] - 1)]
        w = difference(levels, c)
        for s in range(n_series):
            for i in range(lengths[s] - m):
                w[s, i] -= drift[d]
            w[s, lengths[s] - m :] = 0.0
        e, f, trace = innovations(ar_lags, ar[d], ma_lags, ma[d], w, True)
        variance = scale[d] * scale[d]
        at_rest = -0.5 * (LOG_2PI + math.log(variance))
        last, spread = -1, np.zeros((r, r))
        for s in range(n_series):
            n = lengths[s] - m
            early = min(trace.steady_from, n)
            for i in range(early):
                square = e[s, i] * e[s, i]
                values[d, s, m + i] = at_rest - 0.5 * (math.log(f[i]) + square / (variance * f[i]))
            for i in range(early, n):
                values[d, s, m + i] = at_rest - 0.5 * (e[s, i] * e[s, i] / variance)
            if n != last:
                last, spread = n, covariance_after(f, trace, n)
            cov[d, s, :r, :r] = spread
            mean[d, s, :r] = mean_after(ar_lags, ar[d], trace, s, n)
            for j in range(m):
                mean[d, s, r + j] = levels[s, lengths[s] - 1 - j]
    return values, mean, cov
