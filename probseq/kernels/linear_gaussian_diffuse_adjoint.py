"""Reverse mode of one step of a filter whose state is still diffuse."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian_diffuse import (
    augment,
    condition_on,
    condition_on_adjoint,
    drop_resolved,
    proper_coordinates,
)


@kernel
def condition_diffuse_adjoint(system, y, seen, mean, cov, diffuse, weight, grads, y_gradient):
    """Pull the gradients of the next state and of the log density back through a diffuse step.

    y (c, k), seen (k,), mean (c, r), cov, diffuse (r, r) are those of the step; weight (c,) is the gradient of its
    values. grads.mean, grads.cov and grads.diffuse are of the next state on entry and of this one on exit; the
    parameters' gradients are added to, y_gradient (c, k) is filled.
    """
    k, r = system.z.shape
    n, n_series = r + k, y.shape[0]
    proper = np.empty(k, dtype=np.bool_)
    proper_coordinates(system.z, diffuse, proper)
    b, a_cov, b_cov = augment(system.z, system.d, system.h, mean, cov, diffuse)
    start = np.diag(b_cov).copy()
    order, kinds = np.empty(k, dtype=np.int64), np.zeros(k, dtype=np.bool_)
    e = np.empty((k, n_series))
    a_before, b_before = np.empty((k, n, n)), np.empty((k, n, n))
    # Where a conditioning resolves an infinite variance, nothing of it is left that later steps depend on.
    kept = np.ones((k, n), dtype=np.bool_)
    m = 0
    for first in (True, False):
        for i in range(k):
            if not seen[i] or proper[i] != first:
                continue
            order[m], kinds[m] = i, not first and b_cov[r + i, r + i] > 0.0
            a_before[m], b_before[m] = a_cov, b_cov
            condition_on(r + i, kinds[m], y[:, i], b, a_cov, b_cov)
            e[m] = b[:, n]
            if kinds[m]:
                drop_resolved(r, start, b_cov)
                for j in range(n):
                    kept[m, j] = b_cov[j, j] != 0.0
            m += 1
    b_gradient, a_gradient, b_cov_gradient = np.zeros((n_series, n)), np.zeros((n, n)), np.zeros((n, n))
    t = system.t
    moved_mean, moved_cov, moved_diffuse = b[:, :r].copy(), a_cov[:r, :r].copy(), b_cov[:r, :r].copy()
    grads.q[:] += grads.cov
    for s in range(n_series):
        grads.c[:] += grads.mean[s]
        for i in range(r):
            grads.t[i] += grads.mean[s, i] * moved_mean[s]
    grads.t[:] += 2.0 * (grads.cov @ (t @ moved_cov)) + 2.0 * (grads.diffuse @ (t @ moved_diffuse))
    b_gradient[:, :r] = grads.mean @ t
    a_gradient[:r, :r] = t.T @ grads.cov @ t
    b_cov_gradient[:r, :r] = t.T @ grads.diffuse @ t
    none = np.zeros(n_series)
    for p in range(m - 1, -1, -1):
        i = order[p]
        if kinds[p]:
            for j in range(n):
                if not kept[p, j]:
                    b_cov_gradient[j] = 0.0
                    b_cov_gradient[:, j] = 0.0
        before = b_gradient[:, r + i].copy()
        condition_on_adjoint(
            r + i, kinds[p], e[p], a_before[p], b_before[p], weight if proper[i] else none, b_gradient, a_gradient,
            b_cov_gradient,
        )  # fmt: skip
        y_gradient[:, i] = before - b_gradient[:, r + i]
    grads.h[:] += a_gradient[r:, r:]
    grads.mean[:] = b_gradient[:, :r]
    for s in range(n_series):
        for i in range(k):
            grads.d[i] += b_gradient[s, r + i]
            grads.z[i] += b_gradient[s, r + i] * mean[s]
            grads.mean[s] += b_gradient[s, r + i] * system.z[i]
    _extend_adjoint(system.z, cov, a_gradient, grads.z, grads.cov)
    _extend_adjoint(system.z, diffuse, b_cov_gradient, grads.z, grads.diffuse)


@kernel
def _extend_adjoint(z, matrix, gradient, z_gradient, result):
    # whole = [I; Z] M [I; Z]': the gradient of M is E' G E, that of Z the lower part of 2 G E M.
    k, r = z.shape
    extended = np.zeros((r + k, r))
    extended[:r] = np.eye(r)
    extended[r:] = z
    half = gradient @ extended
    z_gradient[:] += 2.0 * (half @ matrix)[r:]
    result[:] = extended.T @ half
