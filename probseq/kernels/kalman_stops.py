"""States of the Kalman filter after some of the steps, without those between."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.kalman import SCORED, advance, condition


@kernel
def filter_to_stops(system, shift, y, seen, mean, cov, diffuse, stops, order, means, covs, diffuses):
    """Run the filter along one series and keep p(a_(t+1) | y_<=t) after some numbers t of steps.

    Parameters
    ----------
    system : System
    shift : (1, k), the constant of the state equation
    y : (n,); seen : (n,) bool
    mean : (1, k); cov, diffuse : (k, k), of the first step given its past; overwritten by those after the last stop
    stops : (m,) int64, from 0 to n
    order : (m,) int64, which sorts the stops
    means : (m, k); covs : (m, k, k); diffuses : (m, d, d), for the last d coordinates; overwritten by what is kept
    """
    k = cov.shape[0]
    r = k - diffuses.shape[1]
    e = np.empty(1)
    gain = np.zeros(k)
    known = np.empty(k)
    # Whether the covariance stays as it is from one seen value to the next, so that only the mean moves.
    steady = False
    at = 0
    for j in order:
        while at < stops[j]:
            if steady and seen[at]:
                e[0] = y[at]
                for i in range(system.z_index.size):
                    e[0] -= system.z_entries[i] * mean[0, system.z_index[i]]
                for i in range(k):
                    known[i] = mean[0, i] + gain[i] * e[0]
                for i in range(k):
                    value = shift[0, i]
                    for c in range(system.pointers[i], system.pointers[i + 1]):
                        value += system.entries[c] * known[system.columns[c]]
                    mean[0, i] = value
            else:
                before = cov.copy()
                f, status = condition(system, y[at : at + 1], seen[at], mean, cov, diffuse, e)
                advance(system, shift, mean, cov, diffuse)
                steady = status == SCORED and f > 0.0 and not np.any(diffuse)
                steady = steady and np.abs(before - cov).max() <= 4e-16 * before.max()
                if steady:
                    cov[:] = before
                    gain[:] = 0.0
                    for i in range(system.z_index.size):
                        gain += system.z_entries[i] * cov[system.z_index[i]]
                    gain /= f
            at += 1
        means[j] = mean[0]
        covs[j] = cov
        diffuses[j] = diffuse[r:, r:]
