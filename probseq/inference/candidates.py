"""Fast fits of candidates that differ in their orders only: data are differenced and checked once for all."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.hannan_rissanen import free_from_coefficients, hannan_rissanen
from probseq.kernels.polynomials import support
from probseq.kernels.profile import descend_profile, objective
from probseq.kernels.quasi_newton import CONVERGED, RUNNING, STALLED, STATUS, VALUE, begin
from probseq.models.arma_likelihood import ARMAProfile

__all__ = ["CandidateLikelihood", "SharedData"]

_INSIDE = 0.98
# Evaluations without a look at the interpreter.
_AT_ONCE = 256


class SharedData:
    """Differenced responses and regressors that all candidates of one trend share.

    Parameters
    ----------
    profile : ARMAProfile
        Of the model without lags, for complete sequences.
    n_fixed : int
        Free parameters of that model.
    count : float
        Values that are scored.
    gapped : bool
        Whether missing values were interpolated, so that candidates only start here.
    """

    def __init__(self, profile: ARMAProfile, n_fixed: int, count: float, gapped: bool = False) -> None:
        self.n_fixed, self.count, self.gapped, self.scored = n_fixed, count, gapped, profile.scored
        self.columns = (profile.columns, profile.lengths, profile.weights, profile.n_columns)
        self.response = profile._unexplained()


class CandidateLikelihood:
    """Minus the concentrated log-likelihood per scored value of one candidate.

    Parameters
    ----------
    shared : SharedData
    orders : (p, q, P, Q)
    period : int
    """

    def __init__(self, shared: SharedData, orders: tuple[int, int, int, int], period: int) -> None:
        p, q, seasonal_p, seasonal_q = orders
        self.shared, self.period = shared, period
        self.orders, self.size = np.array(orders), sum(orders)
        self.lags = (support(p, seasonal_p, period), support(q, seasonal_q, period))

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient at free parameters x."""
        value, gradient = objective(x, self.orders, self.period, *self.lags, *self.shared.columns)
        return (value, gradient) if math.isfinite(value) else (math.inf, gradient)

    def start(self) -> np.ndarray:
        """The estimate of Hannan and Rissanen."""
        if self.size == 0:
            return np.zeros(0)
        _, q, _, seasonal_q = self.orders.tolist()
        n = self.shared.response.shape[1]
        wanted = int(10 * math.log10(max(n, 2))) + self.period * seasonal_q if q + seasonal_q else 0
        data = (self.shared.response, self.shared.scored)
        guess = hannan_rissanen(*data, self.orders, self.period, min(wanted, n // 3))
        return free_from_coefficients(guess, self.orders, _INSIDE)

    def descend(self, x: np.ndarray, max_iter: int, tol: float) -> tuple[np.ndarray, float, str]:
        """Minimise from x, compiled; where it ends, the value there, "converged" or "max_iter"."""
        descent, values = begin(np.arcsinh(x)), np.empty(_AT_ONCE)
        data = (self.orders, self.period, *self.lags, *self.shared.columns)
        while descent.counts[STATUS] == RUNNING:
            descend_profile(descent, values, max_iter, tol, *data)
        status = "converged" if descent.counts[STATUS] in (CONVERGED, STALLED) else "max_iter"
        return np.sinh(descent.point), float(descent.line[VALUE]), status
