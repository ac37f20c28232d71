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
from probseq.kernels.polynomials import autocovariances

# The limit of F is 1, so F - 1 bounds what the whole remaining transient can still change; rounding keeps it from
# falling below a few units in the last place of its first value.
STEADY = 1e-14
STEADY_AT_MOST = 1e-12
BUFFER = 256
# Steps of a division by a polynomial that are solved together.
AHEAD = 4

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


@kernel(fastmath={"contract"})
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
    # Both vectors live in a buffer whose origin moves down one place a step: the shift of the state is then free. At
    # the bottom of the buffer they are copied back to its top.
    top = min(n, r + BUFFER)
    base = top
    direction = np.empty(top + r)
    direction[top:] = gain
    state = np.empty((n_series, top + r))
    state[:, top:] = 0.0
    one, size, at = np.uint64(1), np.uint64(r), np.uint64(0)
    for t in range(n):
        if variance - 1.0 < tolerance:
            steady = t
            break
        if base == 0:
            base = top
            direction[top:] = direction[:r].copy()
            state[:, top:] = state[:, :r].copy()
        f[t] = variance
        if keep:
            at = np.uint64(base)
            for i in range(size):
                gains[t, i] = gain[i]
                directions[t, i] = direction[at + i]
        inverse = 1.0 / variance
        # Indices that cannot be negative need no check, and only loops without checks use vector registers.
        below = np.uint64(base - 1)
        for s in range(n_series):
            value = w[s, t] - state[s, base]
            for m in range(ma_lags.size):
                value -= ma[m] * state[s, base + ma_lags[m]]
            e[s, t] = value
            if keep:
                for i in range(size):
                    states[s, t, i] = state[s, at + i]
            scaled = value * inverse
            head = gain[0] * scaled
            for m in range(ar_lags.size):
                head += ar[m] * state[s, base + ar_lags[m] - 1]
            for i in range(one, size):
                state[s, below + i] += gain[i] * scaled
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
        for i in range(one, size):
            u = direction[below + i]
            k = gain[i] + step * u
            gain[i] = k
            direction[below + i] = u - ratio * k
        gain[0] += step * head
        direction[base - 1] = head - ratio * gain[0]
        base -= 1
    if steady < n:
        for s in range(n_series):
            for i in range(1, r):
                values[s, r + steady - i] = state[s, base + i]
            _steady(ar_lags, ar, ma_lags, ma, w[s], values[s], e[s], state[s, base], steady, r)
    last = state[:, base : base + r].copy()
    return e, f, Trace(steady, gains, directions, states, last, values, gamma, rows, ok)


@kernel(fastmath={"contract"})
def _steady(ar_lags, ar, ma_lags, ma, w, values, e, predicted, steady, r):
    n = w.size
    _divide(ma_lags, ma, w, values, steady, r)
    e[steady] = values[r + steady] - predicted
    after = steady + 1
    if ar_lags.size == 0:
        _difference(0.0, values[r + after : r + n], values[r + after : r + n], e[after:])
    for m in range(ar_lags.size):
        back = values[r + after - ar_lags[m] : r + n - ar_lags[m]]
        if m == 0:
            _difference(ar[m], back, values[r + after : r + n], e[after:])
        else:
            subtract(ar[m], back, e[after:])


@kernel(fastmath={"contract"})
def _divide(lags, coefficients, w, values, start, r):
    """v_t = w_t - sum_m c_m v_(t - lag_m) for t >= start, values[r + t] = v_t.

    Each step waits for the one before only through lag 1. Where the other lags are longer than four steps, these four
    are solved for the last of the four before, which all of them then wait for.
    """
    n, size = w.size, lags.size
    done = start
    if size > 0 and lags[0] == 1 and (size == 1 or lags[1] >= AHEAD):
        first, last = coefficients[0], values[r + start - 1]
        first2, first3, first4 = first * first, first * first * first, first * first * first * first
        done += AHEAD * ((n - start) // AHEAD)
        one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
        for t in range(start, done, AHEAD):
            here = np.uint64(t)
            a, b, c, d = w[here], w[here + one], w[here + two], w[here + three]
            for m in range(1, size):
                at, other = np.uint64(r + t - lags[m]), coefficients[m]
                a -= other * values[at]
                b -= other * values[at + one]
                c -= other * values[at + two]
                d -= other * values[at + three]
            b -= first * a
            d -= first * c
            here = np.uint64(r + t)
            values[here] = a - first * last
            values[here + one] = b + first2 * last
            values[here + two] = (c - first * b) - first3 * last
            last = (d + first2 * b) + first4 * last
            values[here + three] = last
    for t in range(done, n):
        value = w[t]
        for m in range(size - 1, -1, -1):
            value -= coefficients[m] * values[r + t - lags[m]]
        values[r + t] = value


@kernel(fastmath={"contract"})
def subtract(coefficient, x, y):
    """y_t <- y_t - c x_t, in place."""
    for t in range(x.size):
        y[t] -= coefficient * x[t]


@kernel(fastmath={"contract"})
def _difference(coefficient, x, z, y):
    # y_t <- z_t - c x_t, in place.
    for t in range(x.size):
        y[t] = z[t] - coefficient * x[t]


@kernel(fastmath={"contract", "reassoc"})
def dot(x, y):
    """sum_t x_t y_t, in an order that vector registers like."""
    total = 0.0
    for t in range(x.size):
        total += x[t] * y[t]
    return total


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
