"""Reverse mode of the ARMA innovations in `probseq.kernels.arma`."""

from __future__ import annotations

import numpy as np

from probseq.kernels.arma import AHEAD, dot, start, state_size, subtract
from probseq.kernels.compiler import kernel
from probseq.kernels.polynomials import autocovariances_adjoint


@kernel(fastmath={"contract", "reassoc"})
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
    state = np.zeros((n_series, steady + r + 1))
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
                state[s, :r],
                ar_gradient,
                ma_gradient,
                steady,
                r,
            )
    covariance, first, _ = start(ar_lags, ar, ma_lags, ma, gamma, r)
    gain = np.zeros(r)
    direction = np.zeros(steady + r + 1)
    variance = 0.0
    first_gradient = 0.0
    one, size = np.uint64(1), np.uint64(r)
    for t in range(steady - 1, -1, -1):
        base = steady - t
        # Indices that cannot be negative need no check, and only loops without checks use vector registers.
        below = np.uint64(base - 1)
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
            step_gradient = 0.0
            for i in range(one, size):
                u_gradient = direction[below + i]
                ratio_gradient -= u_gradient * later[i]
                k_gradient = gain[i] - ratio * u_gradient
                gain[i] = k_gradient
                step_gradient += k_gradient * here[i - one]
                direction[below + i] = u_gradient + step * k_gradient
            ratio_gradient -= direction[base - 1] * later[0]
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
            for i in range(one, size):
                g = state[s, below + i]
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
        gain += direction[steady : steady + r]
        first_gradient += variance
        _start_adjoint(
            ar_lags, ar, ma_lags, ma, gamma, trace.rows, covariance, gain, first_gradient, ar_gradient, ma_gradient
        )
    return ar_gradient, ma_gradient, w_gradient


@kernel(fastmath={"contract"})
def _steady_adjoint(
    ar_lags, ar, ma_lags, ma, values, e_gradient, v_gradient, state_gradient, ar_gradient, ma_gradient, steady, r
):
    n = e_gradient.size
    v_gradient[steady:] = e_gradient[steady:]
    for m in range(ar_lags.size):
        lag, coefficient = ar_lags[m], ar[m]
        ar_gradient[m] -= dot(e_gradient[steady + 1 :], values[r + steady + 1 - lag : r + n - lag])
        begin = max(steady + 1 - lag, steady)
        if n - lag > begin:
            subtract(coefficient, e_gradient[begin + lag :], v_gradient[begin : n - lag])
        for t in range(steady + 1, min(n, steady + lag)):
            state_gradient[lag - (t - steady)] -= coefficient * e_gradient[t]
    _divide_back(ma_lags, ma, v_gradient, steady)
    for m in range(ma_lags.size):
        lag, coefficient = ma_lags[m], ma[m]
        ma_gradient[m] -= dot(v_gradient[steady:], values[r + steady - lag : r + n - lag])
        for t in range(steady, min(n, steady + lag)):
            state_gradient[lag - (t - steady)] -= coefficient * v_gradient[t]
    state_gradient[0] -= e_gradient[steady]


@kernel(fastmath={"contract"})
def _divide_back(lags, coefficients, g, start):
    # g_t <- g_t - sum_m c_m g_(t + lag_m) from the end down to start, in place: the transpose of `_divide`.
    n, size = g.size, lags.size
    if size == 0:
        return
    inner = max(n - lags[-1], start)
    for t in range(n - 1, inner - 1, -1):
        for m in range(size):
            if t + lags[m] < n:
                g[t] -= coefficients[m] * g[t + lags[m]]
    done = inner
    if lags[0] == 1 and (size == 1 or lags[1] >= AHEAD) and inner < n:
        first, last = coefficients[0], g[inner]
        first2, first3, first4 = first * first, first * first * first, first * first * first * first
        done -= AHEAD * ((inner - start) // AHEAD)
        one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
        for t in range(inner - 1, done - 1, -AHEAD):
            here = np.uint64(t)
            a, b, c, d = g[here], g[here - one], g[here - two], g[here - three]
            for m in range(1, size):
                at, other = np.uint64(t + lags[m]), coefficients[m]
                a -= other * g[at]
                b -= other * g[at - one]
                c -= other * g[at - two]
                d -= other * g[at - three]
            b -= first * a
            d -= first * c
            g[here] = a - first * last
            g[here - one] = b + first2 * last
            g[here - two] = (c - first * b) - first3 * last
            last = (d + first2 * b) + first4 * last
            g[here - three] = last
    for t in range(done - 1, start - 1, -1):
        value = g[t]
        for m in range(size - 1, -1, -1):
            value -= coefficients[m] * g[t + lags[m]]
        g[t] = value


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
