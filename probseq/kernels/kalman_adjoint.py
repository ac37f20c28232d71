"""Reverse mode of the Kalman filter in `probseq.kernels.kalman`, diffuse steps included."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.kalman import MISSING, SCORED, advance, condition


@kernel
def _transform_adjoint(system, matrix, gradient, entries_gradient):
    # result = T M T': the gradient of M is T' G T, that of T is 2 G T M (G and M symmetric), taken where T has entries.
    k = matrix.shape[0]
    half = np.zeros((k, k))
    pulled = np.zeros((k, k))
    for i in range(k):
        for m in range(system.pointers[i], system.pointers[i + 1]):
            half[system.columns[m]] += system.entries[m] * gradient[i]
    for i in range(k):
        for m in range(system.pointers[i], system.pointers[i + 1]):
            entry, column = system.entries[m], system.columns[m]
            total = 0.0
            for j in range(k):
                pulled[j, column] += entry * half[j, i]
                total += half[j, i] * matrix[j, column]
            entries_gradient[m] += 2.0 * total
    return pulled


@kernel
def _reduce_adjoint(system, matrix, column, f, column_gradient, f_gradient, gradient, z_gradient):
    # Adjoint of column = M z, f = z' column (+ h), M - column column' / f; `gradient` is that of the result on entry
    # and that of M on exit.
    k = column.size
    reduced = np.zeros(k)
    for i in range(k):
        for j in range(k):
            reduced[i] += gradient[i, j] * column[j]
    for i in range(k):
        f_gradient += column[i] * reduced[i] / (f * f)
        column_gradient[i] -= 2.0 * reduced[i] / f
    for m in range(system.z_index.size):
        i = system.z_index[m]
        z_gradient[m] += f_gradient * column[i]
        column_gradient[i] += f_gradient * system.z_entries[m]
    for m in range(system.z_index.size):
        i, entry = system.z_index[m], system.z_entries[m]
        for j in range(k):
            z_gradient[m] += matrix[i, j] * column_gradient[j]
            gradient[i, j] += 0.5 * entry * column_gradient[j]
            gradient[j, i] += 0.5 * entry * column_gradient[j]
    return f_gradient


@kernel
def filter_adjoint(system, shift, y, seen, mean, cov, diffuse, e_gradient, f_gradient):
    """Pull gradients with respect to e (c, n) and f (n,) of `filter_states` back to its inputs.

    The filter runs again from a state kept every sqrt(n) steps, so that memory is O(sqrt(n) k^2).

    Parameters
    ----------
    system, shift, y, seen, mean, cov, diffuse
        As `filter_states` received them; not changed.
    e_gradient, f_gradient : (c, n), (n,)
        Those of steps that are not SCORED are ignored.

    Returns
    -------
    entries_gradient : (m,), of the entries of T; z_gradient : (l,); h_gradient : float; q_gradient : (k, k)
    shift_gradient : (c, k); y_gradient : (c, n); mean_gradient : (c, k); cov_gradient : (k, k)
    """
    n_series, n = y.shape
    k = cov.shape[0]
    entries_gradient = np.zeros(system.entries.size)
    z_gradient = np.zeros(system.z_entries.size)
    h_gradient = 0.0
    q_gradient = np.zeros((k, k))
    shift_gradient = np.zeros((n_series, k))
    y_gradient = np.zeros((n_series, n))
    mean_gradient = np.zeros((n_series, k))
    cov_gradient = np.zeros((k, k))
    diffuse_gradient = np.zeros((k, k))
    block = max(1, int(math.sqrt(n)))
    n_blocks = (n + block - 1) // block
    start_mean = np.empty((n_blocks, n_series, k))
    start_cov = np.empty((n_blocks, k, k))
    start_diffuse = np.empty((n_blocks, k, k))
    means = np.empty((block, n_series, k))
    covs = np.empty((block, k, k))
    diffuses = np.empty((block, k, k))
    e = np.empty(n_series)
    mean, cov, diffuse = mean.copy(), cov.copy(), diffuse.copy()
    for t in range(n):
        if t % block == 0:
            start_mean[t // block] = mean
            start_cov[t // block] = cov
            start_diffuse[t // block] = diffuse
        condition(system, y[:, t], seen[t], mean, cov, diffuse, e)
        advance(system, shift, mean, cov, diffuse)
    for b in range(n_blocks - 1, -1, -1):
        first, last = b * block, min(n, (b + 1) * block)
        mean[:] = start_mean[b]
        cov[:] = start_cov[b]
        diffuse[:] = start_diffuse[b]
        for t in range(first, last):
            means[t - first] = mean
            covs[t - first] = cov
            diffuses[t - first] = diffuse
            condition(system, y[:, t], seen[t], mean, cov, diffuse, e)
            advance(system, shift, mean, cov, diffuse)
        for t in range(last - 1, first - 1, -1):
            mean[:] = means[t - first]
            cov[:] = covs[t - first]
            diffuse[:] = diffuses[t - first]
            f, status = condition(system, y[:, t], seen[t], mean, cov, diffuse, e)
            # Adjoint of the move from the filtered state of t (now in mean, cov, diffuse) to t + 1.
            q_gradient += cov_gradient
            for s in range(n_series):
                shift_gradient[s] += mean_gradient[s]
                pulled = np.zeros(k)
                for i in range(k):
                    for m in range(system.pointers[i], system.pointers[i + 1]):
                        column = system.columns[m]
                        pulled[column] += system.entries[m] * mean_gradient[s, i]
                        entries_gradient[m] += mean_gradient[s, i] * mean[s, column]
                mean_gradient[s] = pulled
            cov_gradient[:] = _transform_adjoint(system, cov, cov_gradient, entries_gradient)
            if np.any(diffuse_gradient):
                diffuse_gradient[:] = _transform_adjoint(system, diffuse, diffuse_gradient, entries_gradient)
            if status == MISSING:
                continue
            h_gradient += _condition_adjoint(
                system,
                means[t - first],
                covs[t - first],
                diffuses[t - first],
                e,
                f,
                status,
                e_gradient[:, t],
                f_gradient[t],
                mean_gradient,
                cov_gradient,
                diffuse_gradient,
                z_gradient,
                y_gradient[:, t],
            )
    return (
        entries_gradient,
        z_gradient,
        h_gradient,
        q_gradient,
        shift_gradient,
        y_gradient,
        mean_gradient,
        cov_gradient,
    )


@kernel
def _condition_adjoint(
    system,
    mean,
    cov,
    diffuse,
    e,
    f,
    status,
    e_gradient,
    f_gradient,
    mean_gradient,
    cov_gradient,
    diffuse_gradient,
    z_gradient,
    y_gradient,
):
    n_series, k = mean.shape
    z_index, z = system.z_index, system.z_entries
    column = np.zeros(k)
    h_gradient = 0.0
    matrix = cov if status == SCORED else diffuse
    for m in range(z_index.size):
        column += z[m] * matrix[z_index[m]]
    column_gradient = np.zeros(k)
    gain_gradient = np.zeros(k)
    total = np.zeros(n_series)
    if status != SCORED:
        f = 0.0
        for m in range(z_index.size):
            f += z[m] * column[z_index[m]]
    for s in range(n_series):
        if status == SCORED:
            total[s] = e_gradient[s]
        for i in range(k):
            total[s] += mean_gradient[s, i] * column[i] / f
            gain_gradient[i] += mean_gradient[s, i] * e[s]
    if status == SCORED:
        back = f_gradient
        for i in range(k):
            back -= gain_gradient[i] * column[i] / (f * f)
            column_gradient[i] += gain_gradient[i] / f
        h_gradient = _reduce_adjoint(system, cov, column, f, column_gradient, back, cov_gradient, z_gradient)
    else:
        # P becomes A (P + 0) A' + h g g' with g = column / f and A = I - g z'.
        gain = column / f
        a = np.eye(k)
        for m in range(z_index.size):
            a[:, z_index[m]] -= gain * z[m]
        pulled = cov_gradient @ a
        a_gradient = 2.0 * pulled @ cov
        gain_gradient += 2.0 * system.h * (cov_gradient @ gain)
        h_gradient = gain @ (cov_gradient @ gain)
        cov_gradient[:] = a.T @ pulled
        for m in range(z_index.size):
            z_gradient[m] -= gain @ np.ascontiguousarray(a_gradient[:, z_index[m]])
            gain_gradient -= z[m] * a_gradient[:, z_index[m]]
        back = 0.0
        for i in range(k):
            back -= gain_gradient[i] * column[i] / (f * f)
            column_gradient[i] += gain_gradient[i] / f
        _reduce_adjoint(system, diffuse, column, f, column_gradient, back, diffuse_gradient, z_gradient)
    for s in range(n_series):
        y_gradient[s] = total[s]
        for m in range(z_index.size):
            mean_gradient[s, z_index[m]] -= z[m] * total[s]
            z_gradient[m] -= total[s] * mean[s, z_index[m]]
    return h_gradient
