"""What the values of a sparse state space owe to its first state: the rows z' T^i."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel

__all__ = ["observation_rows"]


@kernel
def observation_rows(system, horizon):
    """z' T^i for i = 0, ..., horizon - 1, (horizon, k), so that E[y_(t+i) | a_t] = z' T^i a_t without a shift.

    Parameters
    ----------
    system : probseq.kernels.kalman.System
    horizon : int, from 1
    """
    k = system.pointers.size - 1
    rows = np.zeros((horizon, k))
    for m in range(system.z_index.size):
        rows[0, system.z_index[m]] += system.z_entries[m]
    for t in range(1, horizon):
        for i in range(k):
            weight = rows[t - 1, i]
            if weight != 0.0:
                for m in range(system.pointers[i], system.pointers[i + 1]):
                    rows[t, system.columns[m]] += weight * system.entries[m]
    return rows
