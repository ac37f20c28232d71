"""Fixed-interval smoother of a linear-Gaussian state space, exact with gaps and a diffuse start.

What the values from t on say about the state is r_t and its variance N_t, so that E[s_t | x] = a_t + P_t r_t and
Var[s_t | x] = P_t - P_t N_t P_t. While P = P* + kappa D they are series in 1 / kappa: r0 + r1 / kappa and N0 +
N1 / kappa + N2 / kappa^2 (Durbin and Koopman 2012, Time Series Analysis by State Space Methods, section 5.3; values are
conditioned on one by one). The disturbances follow (Koopman 1993, Biometrika 80, 117-126).
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian import filter_series
from probseq.kernels.linear_gaussian_diffuse import augment, condition_on, drop_resolved

Smoothed = namedtuple(
    "Smoothed", ["mean", "cov", "across", "x", "x_cov", "noise", "noise_cov", "shock", "shock_cov"]
)  # fmt: skip
Smoothed.__doc__ = """Moments given all values of c series with the same gaps.

mean (c, n, r), cov (n, r, r) : of the states. across (n, r, r) : Cov[s_t, s_(t+1)]. x (c, n, k), x_cov (n, k, k) : of
the values. noise (c, n, k) : E[eps_t | x]; noise_cov (n, k, k) : its variance over repeated data. shock (c, n, r),
shock_cov (n, r, r) : the same of eta_t.
"""


@kernel
def _pull(j, gain, matrix):
    # (I - g 1_j')' M (I - g 1_j') in place, for symmetric M.
    n = gain.size
    product = matrix @ gain
    inner = 0.0
    for i in range(n):
        inner += gain[i] * product[i]
    for i in range(n):
        matrix[i, j] -= product[i]
        matrix[j, i] -= product[i]
    matrix[j, j] += inner


@kernel
def _times_first(j, gain, minor, matrix, result):
    # result += L1' M L0 + L0' M L1 with L0 = I - g 1_j' and L1 = -h 1_j', for symmetric M.
    product = matrix @ minor
    inner = 0.0
    for i in range(gain.size):
        inner += gain[i] * product[i]
    for i in range(gain.size):
        result[j, i] -= product[i]
        result[i, j] -= product[i]
    result[j, j] += 2.0 * inner


@kernel
def smooth_series(system, y, seen, mean, cov, diffuse):
    """Smooth series that share their gaps; mean, cov and diffuse become those of the step after the last.

    Parameters
    ----------
    system : System
    y : (c, n, k); seen : (n, k) bool
    mean : (c, r); cov, diffuse : (r, r), of the first step given its past; overwritten

    Returns
    -------
    Smoothed
    """
    n_series, n, k = y.shape
    r = cov.shape[0]
    q = r + k
    _, propers, means, covs, diffuses = filter_series(system, y, seen, mean, cov, diffuse, True)
    found = Smoothed(
        np.empty((n_series, n, r)),
        np.empty((n, r, r)),
        np.empty((n, r, r)),
        np.empty((n_series, n, k)),
        np.empty((n, k, k)),
        np.empty((n_series, n, k)),
        np.empty((n, k, k)),
        np.empty((n_series, n, r)),
        np.empty((n, r, r)),
    )
    extended = np.zeros((q, r))
    extended[:r] = np.eye(r)
    extended[r:] = system.z
    said0, said1 = np.zeros((n_series, q)), np.zeros((n_series, q))
    sure0, sure1, sure2 = np.zeros((q, q)), np.zeros((q, q)), np.zeros((q, q))
    state0, state1 = np.zeros((n_series, r)), np.zeros((n_series, r))
    n0, n1, n2 = np.zeros((r, r)), np.zeros((r, r)), np.zeros((r, r))
    gains, minors, e = np.empty((k, q)), np.empty((k, q)), np.empty((k, n_series))
    order, kinds = np.empty(k, dtype=np.int64), np.empty(k, dtype=np.int64)
    sizes, finite = np.empty(k), np.empty(k)
    t_turned = np.ascontiguousarray(system.t.T)
    after_cov, after_diffuse = cov, diffuse
    for t in range(n - 1, -1, -1):
        for s in range(n_series):
            found.shock[s, t] = system.q @ state0[s]
        found.shock_cov[t] = system.q @ n0 @ system.q
        b, a_cov, b_cov = augment(system.z, system.d, system.h, means[t], covs[t], diffuses[t])
        start_mean, start_cov, start_diffuse = b.copy(), a_cov.copy(), b_cov.copy()
        start = np.diag(b_cov).copy()
        path0, path1 = extended.copy(), np.zeros((q, r))
        m = 0
        for first in (True, False):
            for i in range(k):
                if not seen[t, i] or propers[t, i] != first:
                    continue
                j = r + i
                infinite = not first and b_cov[j, j] > 0.0
                size = b_cov[j, j] if infinite else a_cov[j, j]
                order[m], sizes[m], finite[m] = j, size, a_cov[j, j]
                kinds[m] = 2 if infinite else (1 if size > 0.0 else 0)
                minors[m] = 0.0
                if kinds[m] > 0:
                    gains[m] = (b_cov[:, j] if infinite else a_cov[:, j]) / size
                    if infinite:
                        minors[m] = (a_cov[:, j] - gains[m] * finite[m]) / size
                    row0, row1 = path0[j].copy(), path1[j].copy()
                    for to in range(q):
                        path0[to] -= gains[m, to] * row0
                        path1[to] -= gains[m, to] * row1 + minors[m, to] * row0
                condition_on(j, infinite, y[:, t, i], b, a_cov, b_cov)
                e[m] = b[:, q]
                if infinite:
                    drop_resolved(r, start, b_cov)
                m += 1
        loop0, loop1 = system.t @ path0[:r], system.t @ path1[:r]
        left = covs[t] @ loop0.T + diffuses[t] @ loop1.T
        found.across[t] = left @ (np.eye(r) - n0 @ after_cov - n1 @ after_diffuse)
        found.across[t] -= diffuses[t] @ loop0.T @ (n1 @ after_cov + n2 @ after_diffuse)
        after_cov, after_diffuse = covs[t], diffuses[t]
        said0[:] = 0.0
        said1[:] = 0.0
        said0[:, :r] = state0 @ system.t
        said1[:, :r] = state1 @ system.t
        sure0[:] = 0.0
        sure1[:] = 0.0
        sure2[:] = 0.0
        sure0[:r, :r] = t_turned @ n0 @ system.t
        sure1[:r, :r] = t_turned @ n1 @ system.t
        sure2[:r, :r] = t_turned @ n2 @ system.t
        for p in range(m - 1, -1, -1):
            j, gain, minor, size = order[p], gains[p], minors[p], sizes[p]
            if kinds[p] == 0:
                continue
            if kinds[p] == 2:
                for s in range(n_series):
                    said1[s, j] += e[p, s] / size - gain @ said1[s] - minor @ said0[s]
                    said0[s, j] -= gain @ said0[s]
                cross = sure0 @ minor
                _pull(j, gain, sure2)
                _times_first(j, gain, minor, sure1, sure2)
                sure2[j, j] += minor @ cross - finite[p] / (size * size)
                _pull(j, gain, sure1)
                _times_first(j, gain, minor, sure0, sure1)
                sure1[j, j] += 1.0 / size
                _pull(j, gain, sure0)
                continue
            for s in range(n_series):
                said0[s, j] += e[p, s] / size - gain @ said0[s]
                said1[s, j] -= gain @ said1[s]
            _pull(j, gain, sure0)
            _pull(j, gain, sure1)
            _pull(j, gain, sure2)
            sure0[j, j] += 1.0 / size
        cross = start_diffuse @ sure1 @ start_cov
        whole = start_cov - start_cov @ sure0 @ start_cov - cross - cross.T - start_diffuse @ sure2 @ start_diffuse
        for s in range(n_series):
            smooth = start_mean[s, :q] + start_cov @ said0[s] + start_diffuse @ said1[s]
            found.mean[s, t] = smooth[:r]
            found.x[s, t] = smooth[r:]
            found.noise[s, t] = system.h @ said0[s, r:]
        found.cov[t] = 0.5 * (whole[:r, :r] + whole[:r, :r].T)
        found.x_cov[t] = 0.5 * (whole[r:, r:] + whole[r:, r:].T)
        for i in range(k):
            if seen[t, i]:
                found.x[:, t, i] = y[:, t, i]
                found.x_cov[t, i] = 0.0
                found.x_cov[t, :, i] = 0.0
        found.noise_cov[t] = system.h @ np.ascontiguousarray(sure0[r:, r:]) @ system.h
        state0[:] = said0 @ extended
        state1[:] = said1 @ extended
        turned = np.ascontiguousarray(extended.T)
        n0, n1, n2 = turned @ sure0 @ extended, turned @ sure1 @ extended, turned @ sure2 @ extended
    return found
