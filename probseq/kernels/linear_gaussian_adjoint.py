"""Reverse mode of the filter in `probseq.kernels.linear_gaussian`, diffuse steps included.

Where the covariance is constant the gradients of single steps with respect to it are summed first: their sum G solves
G = A' G A + S with A = T (I - K Z), so that such a step costs O(r^2).
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian import (
    condition_diffuse,
    factorise,
    learn,
    make_factor,
    move_cov,
    move_matrix,
    move_mean,
    nothing_left,
    same,
    shrink,
)
from probseq.kernels.linear_gaussian_diffuse import proper_coordinates
from probseq.kernels.linear_gaussian_diffuse_adjoint import condition_diffuse_adjoint

# Numbers of covariances that are kept at once; beyond, the filter runs again from a state kept every sqrt(n) steps.
KEPT = 1 << 20
# Size below which the powers of A count as zero.
VANISHED = 1e-18

Gradients = namedtuple("Gradients", ["z", "d", "h", "t", "c", "q", "y", "mean", "cov", "diffuse"])
Gradients.__doc__ = """Of Z, d, H, T, c, Q, the values (c, n, k), and the mean, P and D of the state that is current."""

Inverse = namedtuple("Inverse", ["v", "gain"])
Inverse.__doc__ = """v (k, k) : V^(-1) of the seen coordinates. gain (r, k) : P Z' V^(-1)."""


@kernel
def _invert(factor, r, inverse):
    n = factor.size[0]
    lower = np.zeros((n, n))
    for a in range(n):
        lower[a, a] = 1.0
        for b in range(a):
            total = 0.0
            for c in range(b, a):
                total -= factor.lower[a, c] * lower[c, b]
            lower[a, b] = total
    for a in range(n):
        for b in range(n):
            total = 0.0
            for c in range(max(a, b), n):
                if factor.f[c] > 0.0:
                    total += lower[c, a] * lower[c, b] / factor.f[c]
            inverse.v[a, b] = total
    for i in range(r):
        for a in range(n):
            total = 0.0
            for b in range(a, n):
                if factor.f[b] > 0.0:
                    total += factor.w[i, b] * lower[b, a] / factor.f[b]
            inverse.gain[i, a] = total


@kernel
def _learn_adjoint(system, factor, inverse, mean, e, weight, gradient, y_gradient, grads, v_gradient, m_gradient):
    # Of one series: `gradient` (r,) is that of the filtered mean on entry, of the predicted one on exit. Adds to the
    # gradients of V and M = P Z' with the gain fixed by them.
    r = mean.size
    n = factor.size[0]
    scaled = np.zeros(n)
    back = np.zeros(n)
    for a in range(n):
        # w = V^(-1) v = L'^(-1) F^(-1) e.
        b = n - 1 - a
        total = e[b] / factor.f[b] if factor.f[b] > 0.0 else 0.0
        for c in range(b + 1, n):
            total -= factor.lower[c, b] * scaled[c]
        scaled[b] = total
        for i in range(r):
            back[a] += inverse.gain[i, a] * gradient[i]
    for a in range(n):
        for b in range(n):
            v_gradient[a, b] -= 0.5 * (
                weight * (inverse.v[a, b] - scaled[a] * scaled[b]) + back[a] * scaled[b] + scaled[a] * back[b]
            )
        for i in range(r):
            m_gradient[i, a] += gradient[i] * scaled[a]
    for a in range(n):
        row = factor.rows[a]
        total = back[a] - weight * scaled[a]
        y_gradient[row] = total
        grads.d[row] -= total
        for i in range(r):
            grads.z[row, i] -= total * mean[i]
    for a in range(n):
        row = factor.rows[a]
        total = back[a] - weight * scaled[a]
        for i in range(r):
            gradient[i] -= system.z[row, i] * total


@kernel
def _through_values(system, factor, v_gradient, m_gradient, gradient):
    # Adds Z' V_g Z + sym(M_g Z), the gradient of P in V = Z P Z' + H and M = P Z'.
    r = gradient.shape[0]
    n = factor.size[0]
    half = np.zeros((r, n))
    for a in range(n):
        for i in range(r):
            half[i, a] = m_gradient[i, a]
            for b in range(n):
                half[i, a] += system.z[factor.rows[b], i] * v_gradient[b, a]
    for a in range(n):
        row = factor.rows[a]
        for j in range(r):
            entry = 0.5 * system.z[row, j]
            if entry != 0.0:
                for i in range(r):
                    gradient[i, j] += entry * half[i, a]
                    gradient[j, i] += entry * half[i, a]
    return gradient


@kernel
def _transpose_move(system, matrix, half):
    # T' M T in place.
    r = matrix.shape[0]
    half[:] = 0.0
    for i in range(r):
        for m in range(system.pointers[i], system.pointers[i + 1]):
            j = system.columns[m]
            entry = system.t[i, j]
            for other in range(r):
                half[j, other] += entry * matrix[i, other]
    matrix[:] = 0.0
    for other in range(r):
        for m in range(system.pointers[other], system.pointers[other + 1]):
            j = system.columns[m]
            entry = system.t[other, j]
            for i in range(r):
                matrix[i, j] += entry * half[i, other]


@kernel
def _move_times(system, matrix, result):
    # T M.
    r = matrix.shape[0]
    for i in range(r):
        for other in range(r):
            result[i, other] = 0.0
        for m in range(system.pointers[i], system.pointers[i + 1]):
            j = system.columns[m]
            entry = system.t[i, j]
            for other in range(r):
                result[i, other] += entry * matrix[j, other]


@kernel
def _add_product(left, right, factor, result):
    # result += factor * left right, for symmetric left.
    r = left.shape[0]
    for i in range(r):
        for j in range(r):
            entry = factor * left[i, j]
            if entry != 0.0:
                for other in range(r):
                    result[i, other] += entry * right[j, other]


@kernel
def _move_mean_adjoint(system, mean, gradient, grads, old):
    # `mean` (r,) is the filtered one; `gradient` that of T mean + c on entry, of mean on exit.
    r = mean.size
    old[:] = gradient
    gradient[:] = 0.0
    for i in range(r):
        grads.c[i] += old[i]
        for other in range(r):
            grads.t[i, other] += old[i] * mean[other]
        for m in range(system.pointers[i], system.pointers[i + 1]):
            j = system.columns[m]
            gradient[j] += system.t[i, j] * old[i]


@kernel
def _cov_adjoint(system, factor, inverse, cov, after, v_gradient, m_gradient, gradient, grads, half):
    # `cov` and `after` (r, r) are P before and after conditioning; v_gradient and m_gradient come from the means;
    # `gradient` is that of T after T' + Q on entry and that of cov on exit.
    r = cov.shape[0]
    n = factor.size[0]
    for i in range(r):
        for j in range(r):
            grads.q[i, j] += gradient[i, j]
    _move_times(system, after, half)
    _add_product(gradient, half, 2.0, grads.t)
    _transpose_move(system, gradient, half)
    if n == 0:
        return
    pulled = np.zeros((r, n))
    for i in range(r):
        for j in range(r):
            entry = gradient[i, j]
            for a in range(n):
                pulled[i, a] += entry * inverse.gain[j, a]
    for a in range(n):
        for b in range(n):
            for i in range(r):
                v_gradient[a, b] += inverse.gain[i, a] * pulled[i, b]
        for i in range(r):
            m_gradient[i, a] -= 2.0 * pulled[i, a]
    for a in range(n):
        row = factor.rows[a]
        for b in range(n):
            grads.h[row, factor.rows[b]] += v_gradient[a, b]
            for i in range(r):
                grads.z[row, i] += 2.0 * v_gradient[a, b] * factor.m[i, b]
        for j in range(r):
            for i in range(r):
                grads.z[row, i] += m_gradient[j, a] * cov[j, i]
    _through_values(system, factor, v_gradient, m_gradient, gradient)


@kernel
def _closed_loop(system, factor, inverse):
    # T (I - K Z).
    r = system.t.shape[0]
    rest = np.eye(r)
    for a in range(factor.size[0]):
        for i in range(r):
            for j in range(r):
                rest[i, j] -= inverse.gain[i, a] * system.z[factor.rows[a], j]
    loop = np.zeros((r, r))
    _move_times(system, rest, loop)
    return loop


@kernel
def _sum_of_powers(loop, start):
    # X = A' X A + start, by doubling.
    total, power = start.copy(), loop.copy()
    for _ in range(60):
        step = power.T @ total @ power
        total += step
        if np.abs(step).max() <= 1e-17 * np.abs(total).max():
            break
        power = power @ power
    return total


@kernel
def _memory(loop, most):
    # The least power of two m with A^m negligible, or `most` where there is none below.
    power, m = loop.copy(), 1
    while m < most and not np.sum(power * power) <= VANISHED:
        power = power @ power
        m *= 2
    return min(m, most)


@kernel
def filter_adjoint(system, y, seen, mean, cov, diffuse, weights):
    """Pull gradients (c, n) of the values of `filter_series` back to its arguments, which are not changed.

    The covariances shared by the series get the sum of their gradients. Returns `Gradients`.
    """
    n_series, n, k = y.shape
    r = cov.shape[0]
    grads = Gradients(
        np.zeros((k, r)),
        np.zeros(k),
        np.zeros((k, k)),
        np.zeros((r, r)),
        np.zeros(r),
        np.zeros((r, r)),
        np.zeros((n_series, n, k)),
        np.zeros((n_series, r)),
        np.zeros((r, r)),
        np.zeros((r, r)),
    )
    block = n if n * r * (r + n_series) <= KEPT else max(1, int(math.sqrt(n)))
    n_blocks = (n + block - 1) // block
    start_mean = np.empty((n_blocks, n_series, r))
    start_cov, start_diffuse = np.empty((n_blocks, r, r)), np.empty((n_blocks, r, r))
    mean, cov, diffuse = mean.copy(), cov.copy(), diffuse.copy()
    means, which = np.empty((block, n_series, r)), np.empty(block, dtype=np.int64)
    covs, diffuses = np.empty((block, r, r)), np.empty((block, r, r))
    for b in range(n_blocks):
        start_mean[b], start_cov[b], start_diffuse[b] = mean, cov, diffuse
        if b + 1 < n_blocks:
            rows = slice(b * block, (b + 1) * block)
            _trace(system, y[:, rows], seen[rows], mean, cov, diffuse, means, covs, diffuses, which)
    for b in range(n_blocks - 1, -1, -1):
        rows = slice(b * block, min(n, (b + 1) * block))
        mean[:], cov[:], diffuse[:] = start_mean[b], start_cov[b], start_diffuse[b]
        _trace(system, y[:, rows], seen[rows], mean, cov, diffuse, means, covs, diffuses, which)
        _block_adjoint(
            system, y[:, rows], seen[rows], means, covs, diffuses, which, weights[:, rows], grads, grads.y[:, rows]
        )
    return grads


@kernel
def _trace(system, y, seen, mean, cov, diffuse, means, covs, diffuses, which):
    # As `filter_series`, keeping the states; covs and diffuses at which[t] belong to step t, since steps with the same
    # constant covariance share one place.
    n_series, n, k = y.shape
    r = cov.shape[0]
    factor = make_factor(r, k)
    before, half = np.empty((r, r)), np.empty((r, r))
    e, old, values = np.empty(k), np.empty(r), np.empty(n_series)
    proper = np.empty(k, dtype=np.bool_)
    steady, place = False, -1
    for t in range(n):
        means[t] = mean
        whole = True
        for i in range(k):
            whole = whole and seen[t, i]
        if not (steady and whole):
            place += 1
            covs[place], diffuses[place] = cov, diffuse
        which[t] = place
        if not nothing_left(diffuse):
            proper_coordinates(system.z, diffuse, proper)
            condition_diffuse(system, y[:, t], seen[t], mean, cov, diffuse, proper, values)
            move_cov(system, cov, half)
            move_matrix(system, diffuse, half)
            for s in range(n_series):
                move_mean(system, mean[s], old)
            continue
        if not (steady and whole):
            before[:] = cov
            factorise(system, cov, seen[t], factor)
            shrink(factor, cov)
            move_cov(system, cov, half)
            steady = whole and same(before, cov)
            if steady:
                cov[:] = before
        for s in range(n_series):
            learn(system, factor, y[s, t], mean[s], e)
            move_mean(system, mean[s], old)


@kernel
def _block_adjoint(system, y, seen, means, covs, diffuses, which, weights, grads, y_gradient):
    n_series, n, k = y.shape
    r = system.t.shape[0]
    factor, inverse = make_factor(r, k), Inverse(np.empty((k, k)), np.empty((r, k)))
    after, half, old = np.empty((r, r)), np.empty((r, r)), np.empty(r)
    e, filtered = np.empty(k), np.empty(r)
    v_gradient, m_gradient = np.zeros((k, k)), np.zeros((r, k))
    last = n
    while last > 0:
        # Steps first .. last - 1 share one covariance.
        place = which[last - 1]
        first = last - 1
        while first > 0 and which[first - 1] == place:
            first -= 1
        cov = covs[place]
        if not nothing_left(diffuses[place]):
            condition_diffuse_adjoint(
                system, y[:, first], seen[first], means[first], cov, diffuses[place], weights[:, first], grads,
                y_gradient[:, first],
            )  # fmt: skip
            last = first
            continue
        factorise(system, cov, seen[first], factor)
        _invert(factor, r, inverse)
        after[:] = cov
        shrink(factor, after)
        v_gradient[:] = 0.0
        m_gradient[:] = 0.0
        run = last - first
        loop = _closed_loop(system, factor, inverse) if run > 1 else cov
        memory = _memory(loop, run) if run > 1 else run
        end = grads.cov.copy() if run > 1 else cov
        total = np.zeros((r, r)) if run > 1 else cov
        v_step, m_step = (np.zeros((k, k)), np.zeros((r, k))) if run > 1 else (v_gradient, m_gradient)
        if memory < run:
            grads.cov[:] = 0.0
        for t in range(last - 1, first - 1, -1):
            if run > 1:
                v_step[:] = 0.0
                m_step[:] = 0.0
            for s in range(n_series):
                filtered[:] = means[t, s]
                learn(system, factor, y[s, t], filtered, e)
                _move_mean_adjoint(system, filtered, grads.mean[s], grads, old)
                _learn_adjoint(
                    system, factor, inverse, means[t, s], e, weights[s, t], grads.mean[s], y_gradient[s, t], grads,
                    v_step, m_step,
                )  # fmt: skip
            if run > 1:
                v_gradient += v_step
                m_gradient += m_step
                if t < first + memory:
                    total += grads.cov
                    grads.cov[:] = loop.T @ grads.cov @ loop
                    _through_values(system, factor, v_step, m_step, grads.cov)
        if run == 1:
            _cov_adjoint(system, factor, inverse, cov, after, v_gradient, m_gradient, grads.cov, grads, half)
        else:
            if memory < run:
                source = end - grads.cov
                _through_values(system, factor, v_gradient, m_gradient, source)
                total = _sum_of_powers(loop, source)
            _cov_adjoint(system, factor, inverse, cov, after, v_gradient, m_gradient, total, grads, half)
        last = first
