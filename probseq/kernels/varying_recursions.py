"""Recursions of one hidden chain whose transition matrix changes with the step.

``matrices`` is (t, s, s); matrices[t] drives the move from step t - 1 into step t, matrices[0] is not used. ``start``
is the distribution of the state at step 0. As in `recursions`, probabilities are scaled and the caller repeats in
logarithms what underflows: a product of probabilities costs a tenth of a sum of exponentials for each pair of states.
Impossible observations count as unseen for the state that follows, while their log-likelihood is -inf.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.normal_chain import LogEmission, fill_block
from probseq.kernels.vector import exp_below, exp_rows, log_dot, log_positive, log_sum, propagate_max

# As in `recursions`: products of two such numbers stay normal doubles.
_TINY = 1e-200
_DENSE = 1e-100
# Steps in one block of emissions.
ROWS = 64
# With fewer states a scalar sum for each state is faster than sweeps along the rows of a matrix.
_NARROW = 6
_SMALLEST_NORMAL = 2.2250738585072014e-308
_TWO_54 = 18014398509481984.0
_LOG_TWO_54 = 37.42994775023704670


@kernel(fastmath={"nnan", "nsz"})
def watch_matrices(matrices: np.ndarray, length: int) -> float:
    """Smallest state probability that scaled products keep exact; 0 where no mass that matters can be lost.

    As `recursions.watch_level`, over all matrices of a sequence.
    """
    smallest = np.inf
    least = np.inf
    for t in range(1, length):
        flat = matrices[t].reshape(matrices[t].size)
        for value in flat:
            positive = value if value > 0.0 else np.inf
            smallest = positive if positive < smallest else smallest
            least = value if value < least else least
    if least >= _DENSE:
        return 0.0
    return max(_TINY, 1e-300 / smallest)


@kernel(fastmath={"contract"})
def log_probability(x: float) -> float:
    """log x for x >= 0: -inf for zero, exact to rounding below the smallest normal number too; without branches."""
    small = x < _SMALLEST_NORMAL
    value = log_positive(x * _TWO_54 if small else x) - (_LOG_TWO_54 if small else 0.0)
    return value if x > 0.0 else -np.inf


@kernel(fastmath={"contract"})
def log_entries(matrix: np.ndarray, out: np.ndarray) -> None:
    """out_ij <- log matrix_ij."""
    source = matrix.reshape(matrix.size)
    flat = out.reshape(out.size)
    for k in range(source.size):
        flat[k] = log_probability(source[k])


@kernel(fastmath={"contract"})
def log_propagate(weights: np.ndarray, logs: np.ndarray, top: np.ndarray, out: np.ndarray) -> None:
    """out_j <- log sum_i exp(weights_i + logs_ij); ``top`` is scratch."""
    propagate_max(weights, logs, top)
    for j in range(out.size):
        out[j] = 0.0
        top[j] = top[j] if top[j] > -np.inf else 0.0
    for i in range(weights.size):
        a = weights[i]
        for j in range(out.size):
            out[j] += exp_below(a + logs[i, j] - top[j], -708.0, 0.0)
    for j in range(out.size):
        out[j] = top[j] + log_probability(out[j])


@kernel
def varying_forward(
    start: np.ndarray,
    matrices: np.ndarray,
    logarithmic: bool,
    watch: float,
    emission: LogEmission,
    draw: int,
    sequence: int,
    length: int,
    filtered: np.ndarray,
    predicted: np.ndarray,
    steps: np.ndarray,
    scale: np.ndarray,
) -> bool:
    """p(z_t | x_1:t) and log p(x_t | x_<t) by the forward recursion.

    ``filtered`` keeps all rows, or with two rows row t modulo 2; logarithms in the logarithmic mode. ``predicted``
    (p(z_t | x_<t)) is kept unless empty, ``scale`` gets the normalisers (their logarithms). Returns false where
    probabilities underflow: then the caller repeats the sequence in the logarithmic mode.
    """
    size = start.size
    block = np.empty((ROWS, size))
    peak = np.empty(ROWS)
    expected = np.empty(size)
    pair = filtered.shape[0] < length
    for first in range(0, length, ROWS):
        count = min(ROWS, length - first)
        fill_block(emission, draw, sequence, first, count, block, peak)
        if logarithmic:
            _forward_log(start, matrices, first, count, block, peak, pair, filtered, predicted, steps, scale, expected)
        else:
            exp_rows(block, count, -460.0 if watch == 0.0 else -708.0, 0.0 if watch == 0.0 else 1e-307)
            if not _forward_scaled(
                start, matrices, watch, first, count, block, peak, pair, filtered, predicted, scale, expected
            ):
                return False
            for i in range(count):
                steps[first + i] = log_positive(scale[first + i]) + peak[i]
    return True


@kernel(fastmath={"contract", "reassoc"})
def _forward_scaled(
    start: np.ndarray,
    matrices: np.ndarray,
    watch: float,
    first: int,
    count: int,
    block: np.ndarray,
    peak: np.ndarray,
    pair: bool,
    filtered: np.ndarray,
    predicted: np.ndarray,
    scale: np.ndarray,
    expected: np.ndarray,
) -> bool:
    size = start.size
    for i in range(count):
        t = first + i
        before = (t - 1) & 1 if pair else t - 1
        now = t & 1 if pair else t
        if t == 0:
            for j in range(size):
                expected[j] = start[j]
        elif size < _NARROW:
            for j in range(size):
                mass = 0.0
                for k in range(size):
                    mass += filtered[before, k] * matrices[t, k, j]
                expected[j] = mass
        else:
            for j in range(size):
                expected[j] = filtered[before, 0] * matrices[t, 0, j]
            for k in range(1, size):
                mass = filtered[before, k]
                for j in range(size):
                    expected[j] += mass * matrices[t, k, j]
        if predicted.shape[0] > 0:
            for j in range(size):
                predicted[t, j] = expected[j]
        unseen = peak[i] == -np.inf
        total = 0.0
        for j in range(size):
            value = expected[j] if unseen else expected[j] * block[i, j]
            filtered[now, j] = value
            total += value
        if total < _TINY:
            return False
        if watch > 0.0 and not unseen:
            for j in range(size):
                if filtered[now, j] < watch * total and expected[j] > 0.0 and block[i, j] > 0.0:
                    return False
        inverse = 1.0 / total
        for j in range(size):
            filtered[now, j] *= inverse
        scale[t] = 1.0 if unseen else total
    return True


@kernel
def _forward_log(
    start: np.ndarray,
    matrices: np.ndarray,
    first: int,
    count: int,
    block: np.ndarray,
    peak: np.ndarray,
    pair: bool,
    filtered: np.ndarray,
    predicted: np.ndarray,
    steps: np.ndarray,
    scale: np.ndarray,
    expected: np.ndarray,
) -> None:
    size = start.size
    logs = np.empty((size, size))
    top = np.empty(size)
    for i in range(count):
        t = first + i
        if t == 0:
            for j in range(size):
                expected[j] = log_probability(start[j])
        else:
            log_entries(matrices[t], logs)
            log_propagate(filtered[(t - 1) & 1 if pair else t - 1], logs, top, expected)
        if predicted.shape[0] > 0:
            for j in range(size):
                predicted[t, j] = math.exp(expected[j])
        scale[t] = _condition_log(expected, block[i], peak[i], filtered[t & 1 if pair else t])
        steps[t] = scale[t] + peak[i]


@kernel
def _condition_log(expected: np.ndarray, log_likelihood: np.ndarray, peak: float, out: np.ndarray) -> float:
    total = -np.inf
    if peak > -np.inf:
        for j in range(out.size):
            out[j] = expected[j] + log_likelihood[j]
        total = log_sum(out)
    for j in range(out.size):
        out[j] = out[j] - total if total > -np.inf else expected[j]
    return total


@kernel
def varying_backward(
    matrices: np.ndarray,
    logarithmic: bool,
    watch: float,
    emission: LogEmission,
    draw: int,
    sequence: int,
    length: int,
    filtered: np.ndarray,
    steps: np.ndarray,
    scale: np.ndarray,
    gain: np.ndarray,
    pairs: np.ndarray,
) -> None:
    """Posterior marginals by the backward recursion, in place of ``filtered``, and pairs of states.

    pairs[t, i, j] is p(z_{t-1} = i, z_t = j | x_1:T); pairs[0] is left alone. With a gain g_t both are the derivatives
    of sum_t g_t log p(x_t | x_<t) in the log emissions and the log transition probabilities. In the logarithmic mode
    the gain must not increase with t and not be negative.
    """
    size = matrices.shape[1]
    block = np.empty((ROWS, size))
    peak = np.empty(ROWS)
    after = np.full(size, -np.inf if logarithmic else 0.0)
    for first in range((length - 1) // ROWS * ROWS, -1, -ROWS):
        count = min(ROWS, length - first)
        fill_block(emission, draw, sequence, first, count, block, peak)
        if logarithmic:
            _backward_log(matrices, first, count, block, filtered, steps, scale, gain, length, after, pairs)
        else:
            exp_rows(block, count, -460.0 if watch == 0.0 else -708.0, 0.0 if watch == 0.0 else 1e-307)
            _backward_scaled(matrices, first, count, block, filtered, steps, scale, gain, length, after, pairs)


@kernel(fastmath={"contract", "reassoc"})
def _backward_scaled(
    matrices: np.ndarray,
    first: int,
    count: int,
    block: np.ndarray,
    filtered: np.ndarray,
    steps: np.ndarray,
    scale: np.ndarray,
    gain: np.ndarray,
    length: int,
    after: np.ndarray,
    pairs: np.ndarray,
) -> None:
    # ``after`` is the derivative by the predicted probabilities of the step after.
    size = matrices.shape[1]
    later = np.zeros(size)
    for i in range(count - 1, -1, -1):
        t = first + i
        rise = gain[t] - (gain[t + 1] if t + 1 < length else 0.0)
        if t + 1 < length:
            for j in range(size):
                mass = filtered[t, j]
                total = 0.0
                for k in range(size):
                    value = matrices[t + 1, j, k] * after[k]
                    total += value
                    pairs[t + 1, j, k] = mass * value
                later[j] = total
        unseen = steps[t] == -np.inf
        inverse = 1.0 / scale[t]
        for j in range(size):
            value = later[j] + rise if filtered[t, j] > 0.0 else 0.0
            after[j] = value if unseen else value * (block[i, j] * inverse)
            filtered[t, j] *= value


@kernel
def _backward_log(
    matrices: np.ndarray,
    first: int,
    count: int,
    block: np.ndarray,
    filtered: np.ndarray,
    steps: np.ndarray,
    scale: np.ndarray,
    gain: np.ndarray,
    length: int,
    after: np.ndarray,
    pairs: np.ndarray,
) -> None:
    size = matrices.shape[1]
    later = np.full(size, -np.inf)
    logs = np.empty((size, size))
    for i in range(count - 1, -1, -1):
        t = first + i
        rise = gain[t] - (gain[t + 1] if t + 1 < length else 0.0)
        shift = math.log(rise) if rise > 0.0 else -np.inf
        if t + 1 < length:
            log_entries(matrices[t + 1], logs)
            _log_pairs(filtered[t], logs, after, later, pairs[t + 1])
        unseen = steps[t] == -np.inf
        for j in range(size):
            high = max(later[j], shift)
            low = min(later[j], shift)
            value = high + math.log1p(math.exp(low - high)) if low > -np.inf else high
            value = value if filtered[t, j] > -np.inf else -np.inf
            after[j] = value if unseen else value + (block[i, j] - scale[t])
            filtered[t, j] = math.exp(filtered[t, j] + value)


@kernel(fastmath={"contract"})
def _log_pairs(filtered: np.ndarray, logs: np.ndarray, after: np.ndarray, later: np.ndarray, pairs: np.ndarray) -> None:
    for j in range(later.size):
        later[j] = log_dot(logs[j], after)
        for k in range(later.size):
            pairs[j, k] = exp_below(filtered[j] + logs[j, k] + after[k], -708.0, 0.0)
