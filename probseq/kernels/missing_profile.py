"""Concentrated likelihood of sequences with few gaps, from the recursion for sequences without.

A missing value is filled with any number and given a regressor of its own, 1 there and 0 elsewhere. Integrating its
unknown value out of the law of the filled series leaves the law of what was seen: with the whitened regressors H of
one sequence, l = l(best values of the missing) - 1/2 log|H' F^-1 H| and as many values less that count (Gomez, Maravall
and Pena 1999, Missing observations in ARIMA models: skipping approach versus additive outlier approach, Journal of
Econometrics 88). That costs O(n (r + m)) for each of m gaps, where a Kalman filter costs O(n k^2).
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.arma import dot, innovations
from probseq.kernels.arma_adjoint import innovations_adjoint
from probseq.kernels.compiler import kernel
from probseq.kernels.profile import LOG_2PI, solve_normal
from probseq.kernels.sparse_profile import (
    factors_from_free,
    factors_from_free_adjoint,
    whole_polynomials,
    whole_polynomials_adjoint,
)

# Series whose traces are held at the same time.
_CHUNK = 8


@kernel
def independent_holes(holes, owner, n_sequences):
    """Which regressors (m, n) of missing values are not sums of others before them of the same sequence, (m,) bool.

    Differences remove the sum of those of one season that is missing in every year.
    """
    kept = np.ones(owner.size, dtype=np.bool_)
    for s in range(n_sequences):
        basis = holes[owner == s].copy()
        at = 0
        for i in range(owner.size):
            if owner[i] == s:
                size = math.sqrt(dot(basis[at], basis[at]))
                for j in range(at):
                    basis[at] -= dot(basis[j], basis[at]) * basis[j]
                for j in range(at):
                    basis[at] -= dot(basis[j], basis[at]) * basis[j]
                left = math.sqrt(dot(basis[at], basis[at]))
                kept[i] = left > 1e-9 * max(size, 1e-300) and size > 0.0
                basis[at] /= left if kept[i] else np.inf
                at += 1
    return kept


@kernel
def _cholesky(gram):
    k = gram.shape[0]
    lower = np.zeros((k, k))
    for j in range(k):
        pivot = gram[j, j] - dot(lower[j, :j], lower[j, :j])
        if not pivot > 1e-14 * gram[j, j]:
            return lower, False
        lower[j, j] = math.sqrt(pivot)
        for i in range(j + 1, k):
            lower[i, j] = (gram[i, j] - dot(lower[i, :j], lower[j, :j])) / lower[j, j]
    return lower, True


@kernel
def _solve(lower, right):
    k = right.size
    x = right.copy()
    for j in range(k):
        x[j] = (x[j] - dot(lower[j, :j], x[:j])) / lower[j, j]
    for j in range(k - 1, -1, -1):
        for i in range(j + 1, k):
            x[j] -= lower[i, j] * x[i]
        x[j] /= lower[j, j]
    return x


@kernel
def concentrate_missing(e, of_holes, owner, f, lengths, weights, n_columns):
    """As `probseq.kernels.profile.concentrate`, with the missing values integrated out.

    Parameters
    ----------
    e : (c * n_columns, n) float64
        Innovations of filled responses and of regressors.
    of_holes : (m, n) float64
        Those of the regressors of missing values, of the sequences `owner` (m,) in ascending order.
    f : (n,) float64
    lengths : (c,) int64; weights : (c,) float64

    Returns
    -------
    beta : (n_columns - 1,) float64
    sigma2, log_likelihood, count : float
    values : (m,) float64
        What the best regression adds to each filled value, with a minus sign.
    inverse : (m, m) float64
        Block-diagonal inverse of H' F^-1 H, of zeros beyond the blocks.
    gram : (n_columns - 1, n_columns - 1) float64
        X' Omega^-1 X of what was seen.
    ok : bool
    """
    k = n_columns - 1
    n_holes = owner.size
    inverse = np.zeros((n_holes, n_holes))
    inner = np.zeros((n_holes, n_columns))
    gram = np.zeros((n_columns, n_columns))
    count, log_f = 0.0, 0.0
    begin = 0
    for s in range(lengths.size):
        length, weight = lengths[s], weights[s]
        over = 1.0 / f[:length]
        log_f += weight * np.sum(np.log(f[:length]))
        end = begin
        while end < n_holes and owner[end] == s:
            end += 1
        m = end - begin
        count += weight * (length - m)
        product = np.zeros((n_columns, n_columns))
        for i in range(n_columns):
            scaled = e[s * n_columns + i, :length] * over
            for j in range(i + 1):
                product[i, j] = dot(scaled, e[s * n_columns + j, :length])
                product[j, i] = product[i, j]
            for a in range(m):
                inner[begin + a, i] = dot(scaled, of_holes[begin + a, :length])
        if m > 0:
            own = np.zeros((m, m))
            for a in range(m):
                scaled = of_holes[begin + a, :length] * over
                for b in range(a + 1):
                    own[a, b] = dot(scaled, of_holes[begin + b, :length])
                    own[b, a] = own[a, b]
            lower, ok = _cholesky(own)
            if not ok:
                return np.zeros(k), 1.0, -np.inf, 1.0, np.zeros(n_holes), inverse, gram[1:, 1:], False
            for a in range(m):
                log_f += weight * 2.0 * math.log(lower[a, a])
                unit = np.zeros(m)
                unit[a] = 1.0
                inverse[begin : begin + m, begin + a] = _solve(lower, unit)
            for i in range(n_columns):
                solved = _solve(lower, inner[begin:end, i])
                for j in range(n_columns):
                    product[i, j] -= dot(solved, inner[begin:end, j].copy())
        gram += weight * product
        begin = end
    beta, _ = solve_normal(gram[1:, 1:].copy(), gram[1:, 0].copy())
    total = gram[0, 0]
    for i in range(k):
        total -= 2.0 * beta[i] * gram[0, 1 + i]
        for j in range(k):
            total += beta[i] * beta[j] * gram[1 + i, 1 + j]
    rest = inner[:, 0].copy()
    for i in range(k):
        rest -= beta[i] * inner[:, 1 + i]
    values = np.zeros(n_holes)
    for a in range(n_holes):
        values[a] = dot(inverse[a], rest)
    sigma2 = total / count
    log_likelihood = -0.5 * count * (LOG_2PI + math.log(sigma2) + 1.0) - 0.5 * log_f
    return beta, sigma2, log_likelihood, count, values, inverse, gram[1:, 1:], sigma2 > 0.0


@kernel
def missing_profile_at(ar_lags, ar, ma_lags, ma, w, holes, owner, lengths, weights, n_columns):
    """`concentrate_missing` of data: (differenced) filled responses and regressors w, and those of missing values."""
    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, w, False)
    of_holes, _, _ = innovations(ar_lags, ar, ma_lags, ma, holes, False)
    found = concentrate_missing(e, of_holes, owner, f, lengths, weights, n_columns)
    return found, of_holes, f, trace.ok


@kernel
def objective_with_missing(
    x, counts, lags, period, ar_lags, ma_lags, w, holes, owner, lengths, weights, n_columns, constant
):
    """As `probseq.kernels.sparse_profile.sparse_objective_with_gaps`, by regressors for the missing values.

    Parameters
    ----------
    x, counts, lags, period, ar_lags, ma_lags
        As there.
    w : (c * n_columns, n) float64
        Differenced, filled responses and regressors, zero beyond the sequence's length.
    holes : (m, n) float64; owner : (m,) int64
        Differenced regressors of the missing values and their sequences.
    lengths, weights : (c,)
    constant : float
        What differences of filled values add to the log-likelihood, the same for all parameters.
    """
    coefficients = factors_from_free(x, counts, lags)
    ar, ma = whole_polynomials(coefficients, counts, lags, period, ar_lags, ma_lags)
    found, of_holes, f, stationary = missing_profile_at(
        ar_lags, ar, ma_lags, ma, w, holes, owner, lengths, weights, n_columns
    )
    beta, sigma2, log_likelihood, count, values, inverse, _, ok = found
    if not (ok and stationary):
        return np.inf, np.zeros(x.size)
    response = w[::n_columns].copy()
    for s in range(lengths.size):
        for j in range(beta.size):
            response[s] -= beta[j] * w[s * n_columns + 1 + j]
    for a in range(owner.size):
        response[owner[a]] -= values[a] * holes[a]
    e, f, trace = innovations(ar_lags, ar, ma_lags, ma, response, True)
    e_gradient = np.zeros(e.shape)
    f_gradient = np.zeros(f.size)
    for s in range(lengths.size):
        for t in range(lengths[s]):
            scaled = e[s, t] / (sigma2 * f[t])
            e_gradient[s, t] = -weights[s] * scaled
            f_gradient[t] += 0.5 * weights[s] * (scaled * e[s, t] - 1.0) / f[t]
    pulled = np.zeros(of_holes.shape)
    for a in range(owner.size):
        s = owner[a]
        length = lengths[s]
        for b in range(owner.size):
            if inverse[a, b] != 0.0:
                pulled[a, :length] -= inverse[a, b] * of_holes[b, :length]
        for t in range(length):
            pulled[a, t] *= weights[s] / f[t]
            f_gradient[t] -= 0.5 * pulled[a, t] * of_holes[a, t] / f[t]
    d_ar, d_ma, _ = innovations_adjoint(ar_lags, ar, ma_lags, ma, e, f, trace, e_gradient, f_gradient)
    f_gradient[:] = 0.0
    for first in range(0, owner.size, _CHUNK):
        part = slice(first, min(first + _CHUNK, owner.size))
        e, f, trace = innovations(ar_lags, ar, ma_lags, ma, holes[part], True)
        more_ar, more_ma, _ = innovations_adjoint(ar_lags, ar, ma_lags, ma, e, f, trace, pulled[part], f_gradient)
        d_ar += more_ar
        d_ma += more_ma
    whole = whole_polynomials_adjoint(coefficients, counts, lags, period, ar_lags, ma_lags, d_ar, d_ma)
    gradient = factors_from_free_adjoint(x, coefficients, counts, lags, whole)
    return -(log_likelihood + constant) / count, gradient * (-1.0 / count)
