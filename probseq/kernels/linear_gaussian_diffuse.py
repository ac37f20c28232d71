"""One step of a filter whose state is still diffuse: conditioning on single coordinates of the state and the values.

The state and the values of a step form one normal vector (s_t, x_t) with mean b, finite covariance A and infinite
covariance B. Conditioning on its coordinate j maps b, A, B to b + g (x_j - b_j), C A C', C B C' with C = I - g 1_j' and
the gain g = B_j / B_jj where that is infinite, A_j / A_jj otherwise (Koopman and Durbin 2000, Journal of Time Series
Analysis 21, 281-296, for values treated one by one).
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel

# Relative size below which a diffuse variance is a rounding of zero.
DIFFUSE_ZERO = 1e-10


@kernel
def proper_coordinates(z, diffuse, proper):
    """Which values have a finite variance: z_i' D z_i is zero up to rounding."""
    k, r = z.shape
    for i in range(k):
        spread, bound = 0.0, 0.0
        for j in range(r):
            if z[i, j] != 0.0:
                bound += abs(z[i, j]) * math.sqrt(max(0.0, diffuse[j, j]))
                for other in range(r):
                    spread += z[i, j] * diffuse[j, other] * z[i, other]
        proper[i] = not spread > DIFFUSE_ZERO * bound * bound


@kernel
def augment(z, d, h, mean, cov, diffuse):
    """Mean (c, r + k + 1) with a column of room, A and B (r + k, r + k) of the state and the values together."""
    k, r = z.shape
    b = np.zeros((mean.shape[0], r + k + 1))
    b[:, :r] = mean
    for s in range(mean.shape[0]):
        for i in range(k):
            total = d[i]
            for j in range(r):
                total += z[i, j] * mean[s, j]
            b[s, r + i] = total
    a_cov, b_cov = np.zeros((r + k, r + k)), np.zeros((r + k, r + k))
    a_cov[r:, r:] = h
    _extend(z, cov, a_cov)
    _extend(z, diffuse, b_cov)
    proper = np.empty(k, dtype=np.bool_)
    proper_coordinates(z, diffuse, proper)
    for i in range(k):
        if proper[i]:
            b_cov[r + i] = 0.0
            b_cov[:, r + i] = 0.0
    return b, a_cov, b_cov


@kernel
def _extend(z, matrix, whole):
    k, r = z.shape
    whole[:r, :r] = matrix
    for i in range(k):
        for j in range(r):
            total = 0.0
            for other in range(r):
                total += z[i, other] * matrix[other, j]
            whole[r + i, j] = total
            whole[j, r + i] = total
    for i in range(k):
        for other in range(i + 1):
            total = 0.0
            for j in range(r):
                total += whole[r + i, j] * z[other, j]
            whole[r + i, r + other] += total
            if other < i:
                whole[r + other, r + i] += total


@kernel
def condition_on(j, infinite, x, b, a_cov, b_cov):
    """Condition on coordinate j being x (c,), in place; the last column of b receives x - b_j. Returns A_jj before."""
    n = a_cov.shape[0]
    f = a_cov[j, j]
    pivot = b_cov[j, j] if infinite else f
    for s in range(x.size):
        b[s, n] = x[s] - b[s, j]
    if pivot <= 0.0:
        return 0.0
    gain = (b_cov[:, j] if infinite else a_cov[:, j]) / pivot
    for s in range(x.size):
        for i in range(n):
            b[s, i] += gain[i] * b[s, n]
    column = a_cov[:, j].copy()
    for i in range(n):
        for other in range(n):
            a_cov[i, other] += gain[i] * gain[other] * f - gain[i] * column[other] - column[i] * gain[other]
    a_cov[j] = 0.0
    a_cov[:, j] = 0.0
    if infinite:
        column = b_cov[:, j].copy()
        for i in range(n):
            for other in range(n):
                b_cov[i, other] -= gain[i] * column[other]
        b_cov[j] = 0.0
        b_cov[:, j] = 0.0
    return f


@kernel
def drop_resolved(r, start, b_cov):
    """Zero what a conditioning left of infinite variances where that is rounding; ``start`` (r + k,) was their size."""
    n = b_cov.shape[0]
    largest, left = 0.0, 0.0
    for i in range(r):
        largest = max(largest, start[i])
        left = max(left, b_cov[i, i])
    if left <= DIFFUSE_ZERO * largest:
        b_cov[:] = 0.0
        return
    for i in range(r, n):
        if b_cov[i, i] <= DIFFUSE_ZERO * start[i]:
            b_cov[i] = 0.0
            b_cov[:, i] = 0.0


@kernel
def condition_on_adjoint(j, infinite, e, a_cov, b_cov, weight, b_gradient, a_gradient, b_cov_gradient):
    """Reverse mode of `condition_on`, in place: gradients of the results become those of the arguments.

    Parameters
    ----------
    j, infinite : the coordinate and its kind
    e : (c,), x - b_j
    a_cov, b_cov : (n, n), before the conditioning
    weight : (c,), of the log density of the coordinate in what is differentiated; zeros where it is not scored
    b_gradient : (c, n); a_gradient, b_cov_gradient : (n, n), symmetric
    """
    n = a_cov.shape[0]
    pivot_cov = b_cov if infinite else a_cov
    pivot = pivot_cov[j, j]
    if pivot <= 0.0:
        return
    gain = pivot_cov[:, j] / pivot
    # C A C' with C = I - g 1_j': the gradient of A is C' G C, that of g is -2 G C A_j.
    left = a_cov[:, j] - gain * a_cov[j, j]
    gain_gradient = np.zeros(n)
    for i in range(n):
        total = 0.0
        for other in range(n):
            total += a_gradient[i, other] * left[other]
        gain_gradient[i] = -2.0 * total if infinite else 0.0
    _pull(j, gain, a_gradient)
    if infinite:
        _pull(j, gain, b_cov_gradient)
    pivot_gradient = 0.0
    for s in range(e.size):
        back = 0.0
        for i in range(n):
            back += gain[i] * b_gradient[s, i]
            gain_gradient[i] += b_gradient[s, i] * e[s]
        # The gradient of x - b_j, with the density's.
        b_gradient[s, j] -= back - weight[s] * e[s] / pivot
        pivot_gradient -= 0.5 * weight[s] * (1.0 - e[s] * e[s] / pivot) / pivot
    target = b_cov_gradient if infinite else a_gradient
    for i in range(n):
        pivot_gradient -= gain_gradient[i] * gain[i] / pivot
        target[i, j] += 0.5 * gain_gradient[i] / pivot
        target[j, i] += 0.5 * gain_gradient[i] / pivot
    target[j, j] += pivot_gradient


@kernel
def _pull(j, gain, gradient):
    # C' G C in place.
    n = gain.size
    for side in range(2):
        for i in range(n):
            total = 0.0
            for other in range(n):
                total += gain[other] * (gradient[other, i] if side == 0 else gradient[i, other])
            if side == 0:
                gradient[j, i] -= total
            else:
                gradient[i, j] -= total
