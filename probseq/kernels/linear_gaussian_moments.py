"""Smoothed states of a linear-Gaussian state space with shocks in all directions, for expectation maximisation.

The fixed-interval smoother of Rauch, Tung and Striebel (1965, AIAA Journal 3, 1445-1450): backwards from the filter
with J_t = P_(t|t) T' P_(t+1)^(-1), which needs the predicted covariances P to have inverses, as they have where Q is
positive definite. It costs r^3 a step, and what the filter costs.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian import factorise, filter_series, learn, make_factor, shrink

Moments = namedtuple("Moments", ["values", "mean", "cov", "across"])
Moments.__doc__ = """Moments given all values of c series with the same gaps.

values (c, n) : log p(x_t | x_<t). mean (c, n, r), cov (n, r, r) : of the states. across (n - 1, r, r) :
Cov[s_t, s_(t+1)].
"""


@kernel
def smooth_moments(system, y, seen, mean, cov):
    """Smooth series that share their gaps, from a proper start.

    Parameters
    ----------
    system : System
    y : (c, n, k), n >= 1; seen : (n, k) bool
    mean : (c, r); cov : (r, r), of the first step given its past; overwritten

    Returns
    -------
    Moments
    """
    n_series, n, k = y.shape
    r = cov.shape[0]
    values, _, means, covs, _ = filter_series(system, y, seen, mean, cov, np.zeros((r, r)), True)
    found_mean = np.empty((n_series, n, r))
    found_cov = np.empty((n, r, r))
    across = np.empty((n - 1, r, r))
    factor = make_factor(r, k)
    e = np.empty(k)
    now = np.empty((r, r))
    gain, turned = np.empty((r, r)), np.empty((r, r))
    held = False
    for t in range(n - 1, -1, -1):
        # A filter that has settled, with the same coordinates seen, has the same gains as a step later.
        same = held and np.all(covs[t] == covs[t + 1]) and np.all(covs[t + 1] == covs[t + 2])
        same = same and np.all(seen[t] == seen[t + 1])
        if not same:
            now[:] = covs[t]
            factorise(system, now, seen[t], factor)
            shrink(factor, now)
        for s in range(n_series):
            found_mean[s, t] = means[t, s]
            learn(system, factor, y[s, t], found_mean[s, t], e)
        if t == n - 1:
            found_cov[t] = now
            continue
        if not same:
            # J' = P_(t+1)^(-1) T P_(t|t)
            turned[:] = np.linalg.solve(covs[t + 1], system.t @ now)
            gain[:] = turned.T
        for s in range(n_series):
            found_mean[s, t] += gain @ (found_mean[s, t + 1] - means[t + 1, s])
        across[t] = gain @ found_cov[t + 1]
        moved = now + gain @ (found_cov[t + 1] - covs[t + 1]) @ turned
        found_cov[t] = 0.5 * (moved + moved.T)
        held = t < n - 1
    return Moments(values, found_mean, found_cov, across)
