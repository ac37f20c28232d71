"""Innovations of a Gaussian ARMA process without gaps, and their adjoint, in O(n r) and later O(n).

phi(B) w_t = theta(B) e_t, Var e_t = 1. With phi(B) v_t = e_t the process is w_t = theta(B) v_t, so the state is
(v_t, ..., v_(t-r+1)), its stationary covariance is the Toeplitz matrix of the autocovariances of v, and the observation
row is (1, theta_1, ...). Of the prediction covariance only the gain is needed, and its increments have rank one (Morf,
Sidhu and Kailath 1974, Some new algorithms for recursive estimation in constant linear discrete-time systems, IEEE TAC
19; Pearlman 1980, Biometrika 67). Once the innovation variance has reached its limit 1 the filter is
v_t = w_t - sum_j theta_j v_(t-j), e_t = v_t - sum_j phi_j v_(t-j).
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.polynomials import autocovariances, autocovariances_adjoint

# The limit of F is 1, so F - 1 bounds what the whole remaining transient can still change; rounding keeps it from
# falling below a few units in the last place of its first value.
STEADY = 1e-14
STEADY_AT_MOST = 1e-12

Trace = namedtuple("Trace", ["steady_from", "gains", "directions", "states", "last", "values", "gamma", "rows", "ok"])
Trace.__doc__ = """What the adjoint needs from a forward pass.

steady_from : int, first step that uses the limit recursion.
gains, directions : (n, r), K_t and L_t before that step. states : (c, n, r), state means before that step.
last : (c, r), state means at that step, or after the last one.
values : (c, n + r), v_t from that step on, shifted by r. gamma, rows : autocovariances and step-down table.
ok : False when the autoregression is not stationary; nothing else then means anything.
"""


@kernel
def state_size(ar_lags, ma_lags):
    """r = max(p, q + 1) for the highest lags p and q."""
    p = ar_lags[-1] if ar_lags.size > 0 else 0
    q = ma_lags[-1] if ma_lags.size > 0 else 0
    return max(p, q + 1)


@kernel
def start(ar_lags, ar, ma_lags, ma, gamma, r):
    """G = P Z', F = Z P Z' and K = T P Z' of the stationary state covariance P (Toeplitz in gamma)."""
    covariance = np.empty(r)
    for i in range(r):
        value = gamma[i]
        for m in range(ma_lags.size):
            value += ma[m] * gamma[abs(i - ma_lags[m])]
        covariance[i] = value
    variance = covariance[0]
    for m in range(ma_lags.size):
        variance += ma[m] * covariance[ma_lags[m]]
    gain = np.zeros(r)
    for m in range(ar_lags.size):
        gain[0] += ar[m] * covariance[ar_lags[m] - 1]
    gain[1:] = covariance[:-1]
    return covariance, variance, gain


@kernel
def innovations(ar_lags, ar, ma_lags, ma, w, keep):
    """e_t = w_t - E[w_t | w_<t] and F_t = Var[w_t | w_<t] for unit innovation variance; exact.

    Parameters
    ----------
    ar_lags, ar : (m,) int64 ascending, (m,) float64
        w_t = sum_m ar_m w_(t - ar_lags_m) + e_t + ...
    ma_lags, ma : (m,) int64 ascending, (m,) float64
        ... + sum_m ma_m e_(t - ma_lags_m). Any values; the O(n) limit is used only where the polynomial is invertible.
    w : (c, n) float64
        Series with zero mean that share the parameters; no NaN.
    keep : bool
        Whether the trace is kept, O(n r) memory in the transient.

    Returns
    -------
    e : (c, n) float64
    f : (n,) float64
    trace : Trace
    """
    n_series, n = w.shape
    r = state_size(ar_lags, ma_lags)
    gamma, rows, ok = autocovariances(ar_lags, ar, r - 1)
    e = np.empty((n_series, n))
    f = np.ones(n)
    kept = n if keep else 0
    gains = np.empty((kept, r))
    directions = np.empty((kept, r))
    states = np.empty((n_series, kept, r))
    values = np.empty((n_series, n + r))
    steady = n
    if not ok:
        e[:] = np.nan
        f[:] = np.nan
        last = np.zeros((n_series, r))
        return e, f, Trace(0, gains, directions, states, last, values, gamma, rows, ok)
    _, variance, gain = start(ar_lags, ar, ma_lags, ma, gamma, r)
    first = variance
    tolerance = min(STEADY * (1.0 + first), STEADY_AT_MOST)
    # Both vectors live in a buffer whose origin moves down one place a step: the shift of the state is then free.
    direction = np.empty(n + r)
    direction[n : n + r] = gain
    state = np.zeros((n_series, n + r))
    for t in range(n):
        if variance - 1.0 < tolerance:
            steady = t
            break
        base = n - t
        f[t] = variance
        if keep:
            gains[t] = gain
            directions[t] = direction[base : base + r]
        inverse = 1.0 / variance
        for s in range(n_series):
            value = w[s, t] - state[s, base]
            for m in range(ma_lags.size):
                value -= ma[m] * state[s, base + ma_lags[m]]
            e[s, t] = value
            if keep:
                states[s, t] = state[s, base : base + r]
            scaled = value * inverse
            head = gain[0] * scaled
            for m in range(ar_lags.size):
                head += ar[m] * state[s, base + ar_lags[m] - 1]
            for i in range(1, r):
                state[s, base - 1 + i] += gain[i] * scaled
            state[s, base - 1] = head
        z = direction[base]
        for m in range(ma_lags.size):
            z += ma[m] * direction[base + ma_lags[m]]
        head = 0.0
        for m in range(ar_lags.size):
            head += ar[m] * direction[base + ar_lags[m] - 1]
        weight = -variance / (first * first)
        step = weight * z
        variance += step * z
        ratio = z / variance
        for i in range(1, r):
            u = direction[base - 1 + i]
            k = gain[i] + step * u
            gain[i] = k
            direction[base - 1 + i] = u - ratio * k
        gain[0] += step * head
        direction[base - 1] = head - ratio * gain[0]
    if steady < n:
        base = n - steady
        for s in range(n_series):
            for i in range(1, r):
                values[s, r + steady - i] = state[s, base + i]
            _steady(ar_lags, ar, ma_lags, ma, w[s], values[s], e[s], state[s, base], steady, r)
    last = state[:, n - steady : n - steady + r].copy()
    return e, f, Trace(steady, gains, directions, states, last, values, gamma, rows, ok)


@kernel
def _steady(ar_lags, ar, ma_lags, ma, w, values, e, predicted, steady, r):
    n = w.size
    if ma_lags.size == 1 and ma_lags[0] == 1:
        last = values[r + steady - 1]
        coefficient = ma[0]
        for t in range(steady, n):
            last = w[t] - coefficient * last
            values[r + t] = last
    else:
        for t in range(steady, n):
            value = w[t]
            for m in range(ma_lags.size - 1, -1, -1):
                value -= ma[m] * values[r + t - ma_lags[m]]
            values[r + t] = value
    e[steady] = values[r + steady] - predicted
    e[steady + 1 :] = values[r + steady + 1 :]
    for m in range(ar_lags.size):
        lag, coefficient = ar_lags[m], ar[m]
        for t in range(steady + 1, n):
            e[t] -= coefficient * values[r + t - lag]


@kernel
def mean_after(ar_lags, ar, trace, series, n_seen):
    """E[(v_t, ..., v_(t-r+1)) | w_<t], (r,), after the first n_seen = t values of one series; needs a kept trace."""
    r = trace.gains.shape[1]
    if n_seen < trace.steady_from and n_seen < trace.gains.shape[0]:
        return trace.states[series, n_seen].copy()
    if n_seen <= trace.steady_from:
        return trace.last[series].copy()
    mean = np.zeros(r)
    for i in range(1, r):
        mean[i] = trace.values[series, r + n_seen - i]
    for m in range(ar_lags.size):
        mean[0] += ar[m] * trace.values[series, r + n_seen - ar_lags[m]]
    return mean


@kernel
def covariance_after(f, trace, n_seen):
    """Covariance (r, r) of the state of `mean_after`: that of the start plus the rank-one increments.

    In the limit only v_t itself is uncertain, with variance 1.
    """
    r = trace.gains.shape[1]
    cov = np.zeros((r, r))
    if n_seen > trace.steady_from:
        cov[0, 0] = 1.0
        return cov
    for i in range(r):
        for j in range(r):
            cov[i, j] = trace.gamma[abs(i - j)]
    for t in range(n_seen):
        direction = trace.directions[t]
        weight = f[t] / (f[0] * f[0])
        for i in range(r):
            scaled = weight * direction[i]
            for j in range(r):
                cov[i, j] -= scaled * direction[j]
    return cov


@kernel
def innovations_adjoint(ar_lags, ar, ma_lags, ma, e, f, trace, e_gradient, f_gradient):
    """Pull gradients with respect to e (c, n) and f (n,) back to ar, ma and w.

    Parameters
    ----------
    e, f, trace
        From `innovations` with `keep=True`.
    e_gradient, f_gradient : (c, n), (n,) float64

    Returns
    -------
    ar_gradient, ma_gradient : (m,) float64
    w_gradient : (c, n) float64
    """
    n_series, n = e.shape
    steady = trace.steady_from
    gamma = trace.gamma
    r = state_size(ar_lags, ma_lags)
    ar_gradient = np.zeros(ar_lags.size)
    ma_gradient = np.zeros(ma_lags.size)
    w_gradient = np.zeros((n_series, n))
    # As in the forward pass the origin of a moving buffer makes the transposed shift free.
    state = np.zeros((n_series, n + r + 1))
    for s in range(n_series):
        if steady < n:
            _steady_adjoint(
                ar_lags,
                ar,
                ma_lags,
                ma,
                trace.values[s],
                e_gradient[s],
                w_gradient[s],
                state[s, n - steady : n - steady + r],
                ar_gradient,
                ma_gradient,
                steady,
                r,
            )
    covariance, first, _ = start(ar_lags, ar, ma_lags, ma, gamma, r)
    gain = np.zeros(r)
    direction = np.zeros(n + r + 1)
    variance = 0.0
    first_gradient = 0.0
    for t in range(steady - 1, -1, -1):
        base = n - t
        k, v = trace.gains[t], f[t]
        if t < steady - 1:
            later = trace.gains[t + 1]
            here = trace.directions[t]
            z = here[0]
            for m in range(ma_lags.size):
                z += ma[m] * here[ma_lags[m]]
            head = 0.0
            for m in range(ar_lags.size):
                head += ar[m] * here[ar_lags[m] - 1]
            weight = -v / (first * first)
            step = weight * z
            ratio = z / f[t + 1]
            ratio_gradient = 0.0
            for i in range(r):
                ratio_gradient -= direction[base - 1 + i] * later[i]
            step_gradient = 0.0
            for i in range(1, r):
                u_gradient = direction[base - 1 + i]
                gain[i] -= ratio * u_gradient
                step_gradient += gain[i] * here[i - 1]
                direction[base - 1 + i] = u_gradient + step * gain[i]
            head_gradient = direction[base - 1]
            gain[0] -= ratio * head_gradient
            step_gradient += gain[0] * head
            head_gradient += step * gain[0]
            direction[base - 1 + r] = 0.0
            z_gradient = ratio_gradient / f[t + 1]
            variance -= ratio_gradient * ratio / f[t + 1]
            weight_gradient = variance * z * z + step_gradient * z
            z_gradient += variance * 2.0 * step + step_gradient * weight
            variance -= weight_gradient / (first * first)
            first_gradient += weight_gradient * 2.0 * v / (first * first * first)
            for m in range(ar_lags.size):
                direction[base + ar_lags[m] - 1] += ar[m] * head_gradient
                ar_gradient[m] += head_gradient * here[ar_lags[m] - 1]
            direction[base] += z_gradient
            for m in range(ma_lags.size):
                direction[base + ma_lags[m]] += ma[m] * z_gradient
                ma_gradient[m] += z_gradient * here[ma_lags[m]]
        for s in range(n_series):
            here = trace.states[s, t]
            scaled = e[s, t] / v
            head_gradient = state[s, base - 1]
            dot = head_gradient * k[0]
            gain[0] += head_gradient * scaled
            for i in range(1, r):
                g = state[s, base - 1 + i]
                dot += g * k[i]
                gain[i] += g * scaled
            state[s, base - 1 + r] = 0.0
            variance -= dot * scaled / v
            total = e_gradient[s, t] + dot / v
            w_gradient[s, t] = total
            for m in range(ar_lags.size):
                state[s, base + ar_lags[m] - 1] += ar[m] * head_gradient
                ar_gradient[m] += head_gradient * here[ar_lags[m] - 1]
            state[s, base] -= total
            for m in range(ma_lags.size):
                state[s, base + ma_lags[m]] -= ma[m] * total
                ma_gradient[m] -= total * here[ma_lags[m]]
        variance += f_gradient[t]
    if steady > 0:
        gain += direction[n : n + r]
        first_gradient += variance
        _start_adjoint(
            ar_lags, ar, ma_lags, ma, gamma, trace.rows, covariance, gain, first_gradient, ar_gradient, ma_gradient
        )
    return ar_gradient, ma_gradient, w_gradient


@kernel
def _steady_adjoint(
    ar_lags, ar, ma_lags, ma, values, e_gradient, v_gradient, state_gradient, ar_gradient, ma_gradient, steady, r
):
    n = e_gradient.size
    v_gradient[steady:] = e_gradient[steady:]
    for m in range(ar_lags.size):
        lag, coefficient, total = ar_lags[m], ar[m], 0.0
        for t in range(steady + 1, n):
            total += e_gradient[t] * values[r + t - lag]
        ar_gradient[m] -= total
        for t in range(steady, n - lag):
            if t + lag > steady:
                v_gradient[t] -= coefficient * e_gradient[t + lag]
        for t in range(max(steady + 1, 0), min(n, steady + lag)):
            state_gradient[lag - (t - steady)] -= coefficient * e_gradient[t]
    for t in range(n - 1, steady - 1, -1):
        value = v_gradient[t]
        for m in range(ma_lags.size - 1, -1, -1):
            lag = ma_lags[m]
            if t + lag < n:
                value -= ma[m] * v_gradient[t + lag]
        v_gradient[t] = value
    for m in range(ma_lags.size):
        lag, coefficient, total = ma_lags[m], ma[m], 0.0
        for t in range(steady, n):
            total += v_gradient[t] * values[r + t - lag]
        ma_gradient[m] -= total
        for t in range(steady, min(n, steady + lag)):
            state_gradient[lag - (t - steady)] -= coefficient * v_gradient[t]
    state_gradient[0] -= e_gradient[steady]


@kernel
def _start_adjoint(
    ar_lags, ar, ma_lags, ma, gamma, rows, covariance, gain_gradient, first_gradient, ar_gradient, ma_gradient
):
    r = covariance.size
    pulled = np.zeros(r)
    pulled[: r - 1] = gain_gradient[1:]
    for m in range(ar_lags.size):
        ar_gradient[m] += gain_gradient[0] * covariance[ar_lags[m] - 1]
        pulled[ar_lags[m] - 1] += gain_gradient[0] * ar[m]
    pulled[0] += first_gradient
    for m in range(ma_lags.size):
        ma_gradient[m] += first_gradient * covariance[ma_lags[m]]
        pulled[ma_lags[m]] += first_gradient * ma[m]
    gamma_gradient = np.zeros(gamma.size)
    for i in range(r):
        gamma_gradient[i] += pulled[i]
        for m in range(ma_lags.size):
            ma_gradient[m] += pulled[i] * gamma[abs(i - ma_lags[m])]
            gamma_gradient[abs(i - ma_lags[m])] += pulled[i] * ma[m]
    ar_gradient += autocovariances_adjoint(ar_lags, ar, gamma, rows, gamma_gradient)
