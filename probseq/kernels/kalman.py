"""Kalman filter of a linear-Gaussian state space with one observed value a step, gaps and an exact diffuse start.

y_t = z' a_t + eps_t, Var eps_t = h; a_(t+1) = T a_t + c + eta_t, Var eta_t = Q. T and z are sparse: a step costs O(k^2)
rather than O(k^3). A diffuse start is Var a_1 = P + kappa D with kappa to infinity, treated exactly (Durbin and
Koopman 2012, Time Series Analysis by State Space Methods, section 5.2). Several series may share the covariances: those
with the same gaps.
"""

from __future__ import annotations

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
        Receives y - E[y | past], also when not seen.

    Returns
    -------
    f : float
        Var[y | past], without its infinite part where there is one.
    status : int
        MISSING, SCORED or DIFFUSE: whether the value has a proper predictive density.
    """
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
    if not seen:
        return f, MISSING
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
            return f, DIFFUSE
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
def simulate(system, shift, mean, cov, diffuse, noise):
    """Draw y (c, n) one step at a time given the state, which becomes that after the last draw.

    noise : (c, n) standard normals times the scale of the innovations. While the predictive is diffuse the draw uses
    its finite part, and the path goes on from there.
    """
    n_series, n = noise.shape
    k = cov.shape[0]
    y = np.empty((n_series, n))
    e = np.empty(n_series)
    before = np.empty((k, k))
    gain = np.zeros(k)
    steady = False
    for t in range(n):
        f = system.h
        column = np.zeros(k)
        if not steady:
            for m in range(system.z_index.size):
                column += system.z_entries[m] * cov[system.z_index[m]]
            for m in range(system.z_index.size):
                f += system.z_entries[m] * column[system.z_index[m]]
            gain = column / f
            root = np.sqrt(f)
        for s in range(n_series):
            e[s] = root * noise[s, t]
            value = e[s]
            for m in range(system.z_index.size):
                value += system.z_entries[m] * mean[s, system.z_index[m]]
            y[s, t] = value
        if steady:
            for s in range(n_series):
                mean[s] += gain * e[s]
            advance_mean(system, shift, mean)
            continue
        before[:] = cov
        condition(system, y[:, t], True, mean, cov, diffuse, e)
        advance(system, shift, mean, cov, diffuse)
        steady = not np.any(diffuse) and _same(before, cov)
    return y
