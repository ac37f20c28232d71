"""Fast fits of candidates that differ in their orders only: data are differenced and checked once for all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from probseq.kernels.hannan_rissanen import free_from_coefficients, hannan_rissanen
from probseq.kernels.polynomials import support
from probseq.kernels.profile import objective
from probseq.models.arma_likelihood import ARMAProfile

__all__ = ["CandidateLikelihood", "Likelihood", "SharedData", "descend"]

Likelihood = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Minus a log-likelihood per value, and its gradient, at free parameters."""

_INSIDE = 0.98
_FLAT = 1e-7
_ARMIJO, _WOLFE = 1e-4, 0.9
_TRIALS = 25
# Longer first steps would leave the region in which the starting point was reasoned.
_FIRST_STEP = 0.5


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


def descend(function: Likelihood, x: np.ndarray, max_iter: int, tol: float) -> tuple[np.ndarray, float, str]:
    """Minimise a smooth function of few variables by BFGS; little work besides the function itself.

    Parameters
    ----------
    function : returns a value and its gradient; inf where there is none
    tol : float
        It has converged when a step lowers the value by less than this, relative to it, or no slope exceeds 1e-7.

    Returns
    -------
    x, value, status : "converged" or "max_iter"

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, algorithm 6.1; the step is found by bisection under the weak
    conditions of Wolfe.
    """
    value, gradient = function(x)
    inverse = np.eye(x.size)
    fresh = True
    for _ in range(max_iter):
        if np.abs(gradient).max(initial=0.0) <= _FLAT:
            return x, value, "converged"
        direction = -(inverse @ gradient)
        slope = float(direction @ gradient)
        if slope >= 0.0:
            inverse, direction, fresh = np.eye(x.size), -gradient, True
            slope = -float(gradient @ gradient)
        step = min(1.0, _FIRST_STEP / math.sqrt(-slope)) if fresh else 1.0
        low, high = 0.0, math.inf
        for _ in range(_TRIALS):
            after = x + step * direction
            new_value, new_gradient = function(after)
            if not new_value <= value + _ARMIJO * step * slope:
                high = step
            elif float(new_gradient @ direction) < _WOLFE * slope:
                low = step
            else:
                break
            step = 0.5 * (low + high) if high < math.inf else 2.0 * low
        if not new_value < value:
            return x, value, "converged"  # nothing lower along the steepest way that rounding leaves
        moved, turned = after - x, new_gradient - gradient
        gain, curvature = value - new_value, float(moved @ turned)
        x, value, gradient = after, new_value, new_gradient
        if gain <= tol * max(abs(value), 1.0):
            return x, value, "converged"
        if curvature > 1e-14:
            if fresh:
                inverse *= curvature / float(turned @ turned)
                fresh = False
            image = inverse @ turned
            mixed = (0.5 * (1.0 + float(turned @ image) / curvature) / curvature) * moved - image / curvature
            cross = mixed[:, None] * moved
            inverse += cross
            inverse += cross.T
    return x, value, "max_iter"
