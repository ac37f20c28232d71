"""Kalman filter of a linear-Gaussian state space with one observed value a step, gaps and an exact diffuse start.

y_t = z' a_t + eps_t, Var eps_t = h; a_(t+1) = T a_t + c + eta_t, Var eta_t = Q. T and z are sparse, so that a step costs
O(k^2) rather than O(k^3). A diffuse start is Var a_1 = P + kappa D with kappa to infinity, treated exactly (Durbin and
Koopman 2012, Time Series Analysis by State Space Methods, section 5.2). Several series may share the covariances: those
with the same gaps.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel

MISSING, SCORED, DIFFUSE = 0, 1, 2

# Relative size below which a diffuse variance is a rounding of zero.
DIFFUSE_ZERO = 1e-10

System = namedtuple("System", ["pointers", "columns", "entries", "z_index", "z_entries", "q", "h"])
System.__doc__ = """A time-invariant state space.

pointers (k + 1,), columns (m,), entries (m,) : rows of T in compressed sparse form.
z_index, z_entries (l,) : where z is not zero, and its values there. q : (k, k). h : float.
"""


@kernel
def condition(system, y, seen, mean, cov, diffuse, e):
    """Condition a state on one value of each series, in place: p(a_t | y_<t) becomes p(a_t | y_<=t).

    Parameters
    ----------
    system : System
    y : (c,) float64
    seen : bool
    mean : (c, k); cov, diffuse : (k, k), the finite and the infinite part of the covariance
    e : (c,) float64
        Receives y - E[y | past], zero when not seen.

    Returns
    -------
    f : float
        Var[y | past], or the diffuse variance where the status is DIFFUSE.
    status : int
        MISSING, SCORED or DIFFUSE: whether the value has a proper predictive density.
    """
    if not seen:
        e[:] = 0.0
        return 1.0, MISSING
    k = cov.shape[0]
    z_index, z = system.z_index, system.z_entries
    for s in range(y.size):
        value = y[s]
        for m in range(z_index.size):
            value -= z[m] * mean[s, z_index[m]]
        e[s] = value
    column = np.zeros(k)
    for m in range(z_index.size):
        column += z[m] * cov[z_index[m]]
    f = system.h
    for m in range(z_index.size):
        f += z[m] * column[z_index[m]]
    largest = 0.0
    for i in range(k):
        largest = max(largest, diffuse[i, i])
    if largest > 0.0:
        spread = np.zeros(k)
        for m in range(z_index.size):
            spread += z[m] * diffuse[z_index[m]]
        f_diffuse = 0.0
        for m in range(z_index.size):
            f_diffuse += z[m] * spread[z_index[m]]
        if f_diffuse > DIFFUSE_ZERO * largest:
            for i in range(k):
                gain = spread[i] / f_diffuse
                for s in range(y.size):
                    mean[s, i] += gain * e[s]
                for j in range(k):
                    other = spread[j] / f_diffuse
                    cov[i, j] += gain * other * f - gain * column[j] - column[i] * other
                    diffuse[i, j] -= gain * spread[j]
            left = 0.0
            for i in range(k):
                left = max(left, diffuse[i, i])
            if left <= DIFFUSE_ZERO * largest:
                diffuse[:] = 0.0
            return f_diffuse, DIFFUSE
    if f <= 0.0:
        # The past determines the value: nothing can be learnt from it.
        return f, SCORED
    for i in range(k):
        gain = column[i] / f
        for s in range(y.size):
            mean[s, i] += gain * e[s]
        for j in range(k):
            cov[i, j] -= gain * column[j]
    return f, SCORED


@kernel
def transform(system, matrix):
    """T M T' of a symmetric (k, k) matrix, with rows of T sparse."""
    k = matrix.shape[0]
    half = np.zeros((k, k))
    result = np.zeros((k, k))
    for i in range(k):
        for m in range(system.pointers[i], system.pointers[i + 1]):
            half[i] += system.entries[m] * matrix[system.columns[m]]
    for j in range(k):
        for m in range(system.pointers[j], system.pointers[j + 1]):
            entry, column = system.entries[m], system.columns[m]
            for i in range(j, k):
                result[j, i] += entry * half[i, column]
    for j in range(k):
        for i in range(j + 1, k):
            result[i, j] = result[j, i]
    return result


@kernel
def advance_mean(system, shift, mean):
    """T a + c for each series, in place on (c, k)."""
    k = mean.shape[1]
    for s in range(mean.shape[0]):
        old = mean[s].copy()
        for i in range(k):
            value = shift[s, i]
            for m in range(system.pointers[i], system.pointers[i + 1]):
                value += system.entries[m] * old[system.columns[m]]
            mean[s, i] = value


@kernel
def advance(system, shift, mean, cov, diffuse):
    """Move a filtered state one step on, in place: a, P, D become T a + c, T P T' + Q, T D T'."""
    advance_mean(system, shift, mean)
    cov[:] = transform(system, cov) + system.q
    if np.any(diffuse):
        diffuse[:] = transform(system, diffuse)


@kernel
def filter_states(system, shift, y, seen, mean, cov, diffuse, keep):
    """Run the filter; `mean`, `cov` and `diffuse` become those of the step after the last.

    Parameters
    ----------
    system : System
    shift : (c, k), the constant c of each series
    y : (c, n); seen : (n,) bool, shared by the series
    mean : (c, k); cov, diffuse : (k, k), of the first step given its past; overwritten
    keep : bool
        Whether the states before each step are returned too.

    Returns
    -------
    e : (c, n), innovations
    f : (n,), their variances
    status : (n,) int8, MISSING, SCORED or DIFFUSE
    means : (n, c, k); covs, diffuses : (n, k, k), before each step, empty unless kept
    """
    n_series, n = y.shape
    k = cov.shape[0]
    e = np.zeros((n_series, n))
    f = np.ones(n)
    status = np.zeros(n, dtype=np.int8)
    kept = n if keep else 0
    means = np.empty((kept, n_series, k))
    covs = np.empty((kept, k, k))
    diffuses = np.empty((kept, k, k))
    innovation = np.empty(n_series)
    before = np.empty((k, k))
    gain = np.empty(k)
    steady = False
    steady_f = 1.0
    for t in range(n):
        if keep:
            means[t] = mean
            covs[t] = cov
            diffuses[t] = diffuse
        if steady and seen[t]:
            for s in range(n_series):
                value = y[s, t]
                for m in range(system.z_index.size):
                    value -= system.z_entries[m] * mean[s, system.z_index[m]]
                e[s, t] = value
                for i in range(k):
                    mean[s, i] += gain[i] * value
            f[t] = steady_f
            status[t] = SCORED
            advance_mean(system, shift, mean)
            continue
        steady = False
        before[:] = cov
        f[t], status[t] = condition(system, y[:, t], seen[t], mean, cov, diffuse, innovation)
        e[:, t] = innovation
        advance(system, shift, mean, cov, diffuse)
        if status[t] == SCORED and f[t] > 0.0 and not np.any(diffuse):
            steady = _same(before, cov)
            if steady:
                cov[:] = before
                steady_f = f[t]
                gain[:] = 0.0
                for m in range(system.z_index.size):
                    gain += system.z_entries[m] * cov[system.z_index[m]]
                gain /= steady_f
    return e, f, status, means, covs, diffuses


@kernel
def _same(before, after):
    largest = 0.0
    for i in range(before.shape[0]):
        largest = max(largest, before[i, i])
    for i in range(before.shape[0]):
        for j in range(i + 1):
            if not abs(before[i, j] - after[i, j]) <= 4e-16 * largest:
                return False
    return True


@kernel
def forecast(system, shift, mean, cov, diffuse, horizon):
    """E[y_(t+h) | past] (c, horizon) and Var[y_(t+h) | past] (horizon,); the variance is inf while it is diffuse."""
    mean, cov, diffuse = mean.copy(), cov.copy(), diffuse.copy()
    n_series = mean.shape[0]
    centre = np.zeros((n_series, horizon))
    variance = np.empty(horizon)
    z_index, z = system.z_index, system.z_entries
    for t in range(horizon):
        f, f_diffuse, largest = system.h, 0.0, 0.0
        for i in range(cov.shape[0]):
            largest = max(largest, diffuse[i, i])
        for a in range(z_index.size):
            for s in range(n_series):
                centre[s, t] += z[a] * mean[s, z_index[a]]
            for b in range(z_index.size):
                f += z[a] * z[b] * cov[z_index[a], z_index[b]]
                f_diffuse += z[a] * z[b] * diffuse[z_index[a], z_index[b]]
        variance[t] = np.inf if f_diffuse > DIFFUSE_ZERO * largest else f
        if t + 1 < horizon:
            advance(system, shift, mean, cov, diffuse)
    return centre, variance


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
    # Adjoint of column = M z, f = z' column (+ h), M - column column' / f; `gradient` is that of the result on entry and
    # that of M on exit.
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
                system, means[t - first], covs[t - first], diffuses[t - first], e, f, status,
                e_gradient[:, t], f_gradient[t], mean_gradient, cov_gradient, diffuse_gradient, z_gradient,
                y_gradient[:, t],
            )
    return (
        entries_gradient, z_gradient, h_gradient, q_gradient, shift_gradient, y_gradient, mean_gradient, cov_gradient
    )


@kernel
def _condition_adjoint(
    system, mean, cov, diffuse, e, f, status, e_gradient, f_gradient, mean_gradient, cov_gradient, diffuse_gradient,
    z_gradient, y_gradient,
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
