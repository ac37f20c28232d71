"""Recursions over (state, elapsed duration) of one hidden semi-Markov chain over one sequence, in logarithms.

A state is entered at elapsed duration 1. After each step it is left with the hazard of its elapsed duration, otherwise
the duration grows by one; at its maximum D it stays there, so that the hazard of D holds for all longer durations.
``belief`` (s, D) is log p(z_t, d_t | x_<t); ``leave`` and ``stay`` (s, D) are the logarithms of the hazard and of one
minus it; ``trans`` (s, s) the logarithm of the transition matrix, whose diagonal is -inf. Logarithms throughout: with
durations of tiny or no probability a path may survive any number of unlikely steps, so that no scaled product is safe.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.vector import exp_below


@kernel
def block_length(length: int) -> int:
    """Steps in one block of the backward pass, about sqrt(T): beliefs are kept at its start and made again inside."""
    return max(1, int(math.sqrt(length)))


@kernel(fastmath={"nnan", "nsz"})
def two_peaks(row: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """max_d row_d and max_d row_d + other_d."""
    first = -np.inf
    second = -np.inf
    for d in range(row.size):
        value = row[d]
        both = value + other[d]
        first = value if value > first else first
        second = both if both > second else second
    return first, second


@kernel(fastmath={"contract", "reassoc"})
def two_sums(row: np.ndarray, other: np.ndarray, first: float, second: float) -> tuple[float, float]:
    """sum_d exp(row_d - first) and sum_d exp(row_d + other_d - second)."""
    a = 0.0
    b = 0.0
    for d in range(row.size):
        a += exp_below(row[d] - first, -708.0, 0.0)
        b += exp_below(row[d] + other[d] - second, -708.0, 0.0)
    return a, b


@kernel
def log_masses(row: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """log sum_d exp(row_d) and log sum_d exp(row_d + other_d)."""
    first, second = two_peaks(row, other)
    if first == -np.inf:
        return first, first
    reached = second > -np.inf
    a, b = two_sums(row, other, first, second if reached else 0.0)
    return first + math.log(a), second + math.log(b) if reached else -np.inf


@kernel
def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    top = max(a, b)
    return top if top == -np.inf else top + math.log1p(math.exp(min(a, b) - top))


@kernel
def log_total(values: np.ndarray) -> float:
    """log sum_j exp(values_j)."""
    top = np.max(values)
    if top == -np.inf:
        return top
    total = 0.0
    for value in values:
        total += math.exp(value - top)
    return top + math.log(total)


@kernel
def advance(row: np.ndarray, stay: np.ndarray, gain: float, entered: float, out: np.ndarray) -> None:
    """out <- the elapsed durations of one state a step later: all longer by one, and ``entered`` at the first."""
    last = row.size - 1
    if last == 0:
        out[0] = log_add(entered, row[0] + stay[0] + gain)
        return
    for d in range(last):
        out[d + 1] = row[d] + stay[d] + gain
    out[last] = log_add(out[last], row[last] + stay[last] + gain)
    out[0] = entered


@kernel
def gains(table: np.ndarray, step: float, out: np.ndarray) -> None:
    """out_j <- log p(x_t | j) - log p(x_t | x_<t); 0 for an impossible observation, which counts as unseen."""
    for j in range(out.size):
        out[j] = table[j] - step if step > -np.inf else 0.0


@kernel
def forward(
    belief: np.ndarray,
    trans: np.ndarray,
    leave: np.ndarray,
    stay: np.ndarray,
    table: np.ndarray,
    length: int,
    steps: np.ndarray,
    filtered: np.ndarray,
    predicted: np.ndarray,
    entry: np.ndarray,
    left: np.ndarray,
    marks: np.ndarray,
    every: int,
) -> np.ndarray:
    """log p(x_t | x_<t) into ``steps``; returns the belief about the step after the last.

    Kept unless empty: ``filtered`` p(z_t | x_1:t) and ``predicted`` p(z_t | x_<t) (t, s); ``left`` (t, s), log
    p(z_t = i, left after t | x_1:t); ``entry`` (t, s), log p(z_t = k, entered at t | x_<t); ``marks``, the beliefs
    before the steps 0, every, 2 every ...
    """
    size = belief.shape[0]
    now = belief.copy()
    later = np.empty_like(now)
    inside = np.empty(size)
    leaving = np.empty(size)
    joint = np.empty(size)
    gain = np.empty(size)
    for t in range(length):
        if marks.shape[0] > 0 and t % every == 0:
            marks[t // every] = now
        for j in range(size):
            inside[j], leaving[j] = log_masses(now[j], leave[j])
            joint[j] = inside[j] + table[t, j]
        steps[t] = log_total(joint)
        gains(table[t], steps[t], gain)
        for j in range(size):
            leaving[j] += gain[j]
            if filtered.shape[0] > 0:
                filtered[t, j] = math.exp(inside[j] + gain[j])
                predicted[t, j] = math.exp(inside[j])
            if left.shape[0] > 0:
                left[t, j] = leaving[j]
        for k in range(size):
            for i in range(size):
                joint[i] = leaving[i] + trans[i, k]
            entered = log_total(joint)
            if entry.shape[0] > t + 1:
                entry[t + 1, k] = entered
            advance(now[k], stay[k], gain[k], entered, later[k])
        now, later = later, now
    return now


@kernel
def refill(
    mark: np.ndarray,
    stay: np.ndarray,
    table: np.ndarray,
    steps: np.ndarray,
    entry: np.ndarray,
    lo: int,
    hi: int,
    rows: np.ndarray,
) -> None:
    """rows_i <- the belief before step lo + i, from the one before lo and the masses that entered since."""
    size = mark.shape[0]
    gain = np.empty(size)
    rows[0] = mark
    for i in range(hi - lo - 1):
        gains(table[lo + i], steps[lo + i], gain)
        for j in range(size):
            advance(rows[i, j], stay[j], gain[j], entry[lo + i + 1, j], rows[i + 1, j])


@kernel(fastmath={"contract"})
def log_one_plus(x: float) -> float:
    """log(1 + x) for 0 <= x <= 1, within 1 unit in the last place (the polynomial of fdlibm, e_log.c), branch-free."""
    high = x > 0.41421356237309503
    f = 0.5 * (x - 1.0) if high else x
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
    even = 0.6666666666666735130 + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591))
    half = 0.5 * f * f
    return f - (half - s * (half + odd + z * even)) + (0.6931471805599453 if high else 0.0)


@kernel(fastmath={"contract", "reassoc"})
def _back_row(
    row: np.ndarray,
    leave: np.ndarray,
    stay: np.ndarray,
    ahead: np.ndarray,
    gain: float,
    gain_ahead: float,
    after: float,
    out: np.ndarray,
    leaves: np.ndarray,
    stays: np.ndarray,
) -> float:
    # One state and step of the backward pass, ``ahead`` and ``out`` one longer duration apart; returns its posterior
    # probability (times the weights ahead).
    total = 0.0
    for d in range(row.size):
        onwards = stay[d] + gain_ahead + ahead[d]
        away = leave[d] + after
        here = row[d] + gain
        going = exp_below(here + away, -708.0, 0.0)
        staying = exp_below(here + onwards, -708.0, 0.0)
        leaves[d] += going
        stays[d] += staying
        total += going + staying
        top = onwards if onwards > away else away
        low = away if onwards > away else onwards
        summed = top + log_one_plus(exp_below(low - top, -708.0, 0.0))
        out[d] = -np.inf if top == -np.inf else summed
    return total


@kernel
def _count(row: np.ndarray, gain: float, weight: float, out: np.ndarray) -> float:
    # What log p(x_1:t) itself counts at step t.
    total = 0.0
    for d in range(row.size):
        total += weight * math.exp(row[d] + gain)
        out[d] = log_add(out[d], math.log(weight))
    return total


@kernel
def backward(
    trans: np.ndarray,
    leave: np.ndarray,
    stay: np.ndarray,
    table: np.ndarray,
    length: int,
    steps: np.ndarray,
    entry: np.ndarray,
    left: np.ndarray,
    marks: np.ndarray,
    every: int,
    weight: np.ndarray,
    posterior: np.ndarray,
    apart: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    leaves: np.ndarray,
    stays: np.ndarray,
) -> None:
    """Posterior probabilities, and expected moves added to ``counts``, ``leaves`` and ``stays``.

    ``weight`` (t,) >= 0 says how much log p(x_1:t) counts; 0, ..., 0, 1 gives plain posteriors. ``posterior`` (t, s)
    is kept unless empty, as is ``apart`` (t, s), log p(z_t, x_>t | x_<t) / p(x_>t | x_1:t), which leaves x_t out;
    ``start`` (s, D) are the probabilities of state and elapsed duration at the first step.
    """
    size, width = leave.shape
    rows = np.empty((every, size, width))
    # One column more, a copy of the last: the longest duration goes on as itself.
    ahead = np.full((size, width + 1), -np.inf)
    now = np.empty((size, width + 1))
    gain = np.empty(size)
    gain_ahead = np.zeros(size)
    reach = np.full(size, -np.inf)
    after = np.empty(size)
    joint = np.empty(size)
    for block in range((length - 1) // every, -1, -1):
        lo = block * every
        hi = min(length, lo + every)
        refill(marks[block], stay, table, steps, entry, lo, hi, rows)
        for t in range(hi - 1, lo - 1, -1):
            gains(table[t], steps[t], gain)
            for k in range(size):
                reach[k] = gain_ahead[k] + ahead[k, 0]
            for i in range(size):
                for k in range(size):
                    joint[k] = trans[i, k] + reach[k]
                    counts[i, k] += math.exp(left[t, i] + joint[k])
                after[i] = log_total(joint)
            for j in range(size):
                total = _back_row(
                    rows[t - lo, j],
                    leave[j],
                    stay[j],
                    ahead[j, 1:],
                    gain[j],
                    gain_ahead[j],
                    after[j],
                    now[j, :width],
                    leaves[j],
                    stays[j],
                )
                if weight[t] > 0.0:
                    total += _count(rows[t - lo, j], gain[j], weight[t], now[j, :width])
                now[j, width] = now[j, width - 1]
                if posterior.shape[0] > 0:
                    posterior[t, j] = total
                if apart.shape[0] > 0:
                    _, apart[t, j] = log_masses(rows[t - lo, j], now[j, :width])
            now, ahead = ahead, now
            gain, gain_ahead = gain_ahead, gain
    for j in range(size):
        for d in range(width):
            start[j, d] = math.exp(marks[0, j, d] + gain_ahead[j] + ahead[j, d])
