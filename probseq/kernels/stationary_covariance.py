"""The covariance that a stable linear recursion keeps."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel

__all__ = ["sum_of_powers"]

_DOUBLINGS = 64


@kernel
def sum_of_powers(turn, q):
    """sum_j A^j Q A'^j, the solution of P = A P A' + Q, for A (r, r) of spectral radius below one and Q symmetric.

    By doubling, Anderson and Moore (1979), Optimal Filtering, section 6.7.
    """
    total = 0.5 * (q + q.T)
    power = turn.copy()
    for _ in range(_DOUBLINGS):
        step = power @ total @ power.T
        total = total + 0.5 * (step + step.T)
        if not np.max(np.abs(step)) > 1e-17 * np.max(np.abs(total)):
            break
        power = power @ power
    return total
