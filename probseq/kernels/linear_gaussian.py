"""Kalman filter of a general linear-Gaussian state space: several variables, any gaps, exact diffuse start.

x_t = Z s_t + d + eps_t, Var eps_t = H; s_(t+1) = T s_t + c + eta_t, Var eta_t = Q. A step conditions on the seen
coordinates through the factor L F L' of their variance, which is the sequential treatment of a full H. A diffuse start
is Var s_1 = P + kappa D with kappa to infinity, treated exactly (Koopman 1997; Durbin and Koopman 2012, Time Series
Analysis by State Space Methods, section 5.2). Several series may share the covariances: those with the same gaps.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian_diffuse import augment, condition_on, drop_resolved, proper_coordinates

# Relative change of the covariance from step to step below which it counts as constant.
STEADY = 2e-15
# Share of a variance below which what is left after conditioning is rounding.
DETERMINED = 1e-15

System = namedtuple("System", ["z", "d", "h", "t", "c", "q", "pointers", "columns"])
System.__doc__ = """A time-invariant state space: Z (k, r), d (k,), H (k, k), T (r, r), c (r,), Q (r, r).

pointers (r + 1,), columns (m,) : where the rows of T are not zero, so that a step need not cost r^3.
"""

Factor = namedtuple("Factor", ["rows", "m", "w", "lower", "f", "size"])
Factor.__doc__ = """What conditioning on the seen coordinates of a step needs.

rows (k,) int64 : the seen coordinates in order. m, w (r, k) : P Z' of these, and P Z' L'^(-1). lower (k, k) : L.
f (k,) : the diagonal of F. size (1,) int64 : how many are seen.
"""


@kernel
def make_system(z, d, h, t, c, q):
    """The state space with the pattern of its transition."""
    r = t.shape[0]
    pointers = np.zeros(r + 1, dtype=np.int64)
    columns = np.empty(r * r, dtype=np.int64)
    n = 0
    for i in range(r):
        for j in range(r):
            if t[i, j] != 0.0:
                columns[n] = j
                n += 1
        pointers[i + 1] = n
    return System(z, d, h, t, c, q, pointers, columns[:n])


@kernel
def make_factor(r, k):
    """Room for one step."""
    return Factor(
        np.empty(k, dtype=np.int64),
        np.empty((r, k)),
        np.empty((r, k)),
        np.zeros((k, k)),
        np.empty(k),
        np.zeros(1, dtype=np.int64),
    )


@kernel
def factorise(system, cov, seen, factor):
    """Fill ``factor`` for the seen coordinates of a step whose state has covariance ``cov``."""
    z, h = system.z, system.h
    k, r = z.shape
    n = 0
    for i in range(k):
        if seen[i]:
            factor.rows[n] = i
            n += 1
    factor.size[0] = n
    for a in range(n):
        row = factor.rows[a]
        for i in range(r):
            total = 0.0
            for j in range(r):
                total += cov[i, j] * z[row, j]
            factor.m[i, a] = total
            factor.w[i, a] = total
        for b in range(a + 1):
            other = factor.rows[b]
            total = h[row, other]
            for j in range(r):
                total += z[row, j] * factor.m[j, b]
            whole = total
            for c in range(b):
                total -= factor.lower[a, c] * factor.lower[b, c] * factor.f[c]
            if b < a:
                factor.lower[a, b] = total / factor.f[b] if factor.f[b] > 0.0 else 0.0
            else:
                # What the past and the coordinates before determine teaches nothing.
                factor.f[a] = total if total > DETERMINED * whole else 0.0
        for b in range(a):
            entry = factor.lower[a, b]
            if entry != 0.0:
                for i in range(r):
                    factor.w[i, a] -= entry * factor.w[i, b]


@kernel
def shrink(factor, cov):
    """Var[s_t | x_<=t] from Var[s_t | x_<t], in place."""
    r = cov.shape[0]
    for a in range(factor.size[0]):
        f = factor.f[a]
        if f > 0.0:
            for i in range(r):
                gain = factor.w[i, a] / f
                for j in range(i + 1):
                    cov[i, j] -= gain * factor.w[j, a]
    for i in range(r):
        for j in range(i):
            cov[j, i] = cov[i, j]


@kernel
def learn(system, factor, y, mean, e):
    """Condition the mean (r,) of one series on its seen coordinates, in place; the log density of these.

    e (k,) receives the innovations of the sequential treatment, in the order of ``factor.rows``.
    """
    z = system.z
    r = mean.size
    n = factor.size[0]
    value = 0.0
    for a in range(n):
        row = factor.rows[a]
        total = y[row] - system.d[row]
        for j in range(r):
            total -= z[row, j] * mean[j]
        for b in range(a):
            total -= factor.lower[a, b] * e[b]
        e[a] = total
    for a in range(n):
        f = factor.f[a]
        if f > 0.0:
            value -= 0.5 * (math.log(2.0 * math.pi * f) + e[a] * e[a] / f)
            gain = e[a] / f
            for i in range(r):
                mean[i] += factor.w[i, a] * gain
        else:
            value = -np.inf
    return value


@kernel
def move_mean(system, mean, old):
    """T a + c in place on (r,); ``old`` (r,) is room."""
    old[:] = mean
    for i in range(mean.size):
        total = system.c[i]
        for m in range(system.pointers[i], system.pointers[i + 1]):
            j = system.columns[m]
            total += system.t[i, j] * old[j]
        mean[i] = total


@kernel
def move_matrix(system, matrix, half):
    """T M T' in place on a symmetric (r, r); ``half`` (r, r) is room."""
    r = matrix.shape[0]
    for i in range(r):
        for other in range(r):
            half[i, other] = 0.0
        for m in range(system.pointers[i], system.pointers[i + 1]):
            j = system.columns[m]
            entry = system.t[i, j]
            for other in range(r):
                half[i, other] += entry * matrix[j, other]
    for i in range(r):
        for other in range(i + 1):
            total = 0.0
            for m in range(system.pointers[other], system.pointers[other + 1]):
                j = system.columns[m]
                total += half[i, j] * system.t[other, j]
            matrix[i, other] = total
            matrix[other, i] = total


@kernel
def move_cov(system, cov, half):
    """T P T' + Q in place."""
    move_matrix(system, cov, half)
    for i in range(cov.shape[0]):
        for j in range(cov.shape[0]):
            cov[i, j] += system.q[i, j]


@kernel
def nothing_left(diffuse):
    """Whether the infinite part is zero."""
    for i in range(diffuse.shape[0]):
        if diffuse[i, i] != 0.0:
            return False
    return True


@kernel
def condition_diffuse(system, y, seen, mean, cov, diffuse, proper, values):
    """One step while the state is diffuse: coordinates with a proper predictive first (scored), then the others.

    y (c, k), seen, proper (k,), mean (c, r), cov, diffuse (r, r) are of the step; the last three become those given
    x_<=t. values (c,) receives the log densities of the scored coordinates.
    """
    k, r = system.z.shape
    b, a_cov, b_cov = augment(system.z, system.d, system.h, mean, cov, diffuse)
    start = np.diag(b_cov).copy()
    values[:] = 0.0
    for first in (True, False):
        for i in range(k):
            if not seen[i] or proper[i] != first:
                continue
            infinite = not first and b_cov[r + i, r + i] > 0.0
            f = condition_on(r + i, infinite, y[:, i], b, a_cov, b_cov)
            for s in range(y.shape[0]):
                if first:
                    e = b[s, r + k]
                    values[s] += -0.5 * (math.log(2.0 * math.pi * f) + e * e / f) if f > 0.0 else -np.inf
            if infinite:
                drop_resolved(r, start, b_cov)
    mean[:] = b[:, :r]
    cov[:] = a_cov[:r, :r]
    diffuse[:] = b_cov[:r, :r]


@kernel
def run_steady(z, d, turn, c, pointers, columns, rows, lower, f, w, y, mean, values):
    """Filter y (n, k), seen whole, of one series whose covariance is constant; ``mean`` (r,) moves, values (n,) fill.

    Plain arrays and no calls: a step costs no more than its arithmetic.
    """
    n, k = y.shape
    r = mean.size
    e, old = np.empty(k), np.empty(r)
    constant = 0.0
    for a in range(k):
        constant -= 0.5 * math.log(2.0 * math.pi * f[a]) if f[a] > 0.0 else np.inf
    for t in range(n):
        value = constant
        for a in range(k):
            row = rows[a]
            total = y[t, row] - d[row]
            for j in range(r):
                total -= z[row, j] * mean[j]
            for b in range(a):
                total -= lower[a, b] * e[b]
            e[a] = total
        for j in range(r):
            old[j] = mean[j]
        for a in range(k):
            if f[a] > 0.0:
                gain = e[a] / f[a]
                value -= 0.5 * e[a] * gain
                for i in range(r):
                    old[i] += w[i, a] * gain
        for i in range(r):
            total = c[i]
            for m in range(pointers[i], pointers[i + 1]):
                total += turn[i, columns[m]] * old[columns[m]]
            mean[i] = total
        values[t] = value


@kernel
def same(before, after):
    """Whether two covariances agree up to rounding, each entry on the scale of its variances."""
    r = before.shape[0]
    for i in range(r):
        if not abs(before[i, i] - after[i, i]) <= STEADY * before[i, i]:
            return False
    for i in range(r):
        for j in range(i):
            scale = math.sqrt(before[i, i] * before[j, j])
            if not abs(before[i, j] - after[i, j]) <= STEADY * scale:
                return False
    return True


@kernel
def filter_series(system, y, seen, mean, cov, diffuse, keep):
    """Run the filter over series with the same gaps; mean, cov and diffuse become those of the step after the last.

    Parameters
    ----------
    system : System
    y : (c, n, k); seen : (n, k) bool, shared by the series
    mean : (c, r); cov, diffuse : (r, r), of the first step given its past; overwritten
    keep : bool
        Whether the states before each step are returned too.

    Returns
    -------
    values : (c, n), log p(scored coordinates of x_t | x_<t)
    proper : (n + 1, k) bool, which coordinates have a proper predictive given the past, also after the last step
    means : (n, c, r); covs, diffuses : (n, r, r), before each step, empty unless kept
    """
    n_series, n, k = y.shape
    r = cov.shape[0]
    values = np.zeros((n_series, n))
    proper = np.ones((n + 1, k), dtype=np.bool_)
    kept = n if keep else 0
    means = np.empty((kept, n_series, r))
    covs = np.empty((kept, r, r))
    diffuses = np.zeros((kept, r, r))
    factor = make_factor(r, k)
    before, half = np.empty((r, r)), np.empty((r, r))
    e, old, at_once = np.empty(k), np.empty(r), np.empty(n_series)
    steady = False
    certain = nothing_left(diffuse)
    done = 0
    for t in range(n):
        if t < done:
            continue
        if keep:
            means[t] = mean
            covs[t] = cov
            diffuses[t] = diffuse
        if not certain:
            proper_coordinates(system.z, diffuse, proper[t])
            condition_diffuse(system, y[:, t], seen[t], mean, cov, diffuse, proper[t], at_once)
            values[:, t] = at_once
            move_cov(system, cov, half)
            move_matrix(system, diffuse, half)
            certain = nothing_left(diffuse)
            for s in range(n_series):
                move_mean(system, mean[s], old)
            continue
        whole = True
        for i in range(k):
            whole = whole and seen[t, i]
        if steady and whole and not keep:
            done = t + 1
            while done < n and np.all(seen[done]):
                done += 1
            for s in range(n_series):
                run_steady(
                    system.z, system.d, system.t, system.c, system.pointers, system.columns, factor.rows,
                    factor.lower, factor.f, factor.w, y[s, t:done], mean[s], values[s, t:done],
                )  # fmt: skip
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
            values[s, t] = learn(system, factor, y[s, t], mean[s], e)
            move_mean(system, mean[s], old)
    if not certain:
        proper_coordinates(system.z, diffuse, proper[n])
    return values, proper, means, covs, diffuses
