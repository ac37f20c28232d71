"""Recursions of one hidden Markov chain over one sequence, in probabilities or, where those underflow, in logarithms.

``matrix`` is the transition matrix when ``logarithmic`` is false, its logarithm when true; ``turned`` its transpose,
because sums over contiguous rows are the fastest form for few and for many states. Impossible observations (no state
can emit them) count as unseen for the state that follows, while their log-likelihood is -inf.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.normal_chain import LogEmission, fill_block
from probseq.kernels.vector import (
    add_outer,
    dot,
    exp_below,
    exp_rows,
    log_dot,
    log_positive,
    log_sum,
)

# Products of two such numbers stay normal doubles; below it a sum of products may have lost all its digits.
TINY = 1e-200
_DENSE = 1e-100
_RESCALE = 1e-50


@kernel
def block_rows(size: int) -> int:
    """Steps in one block: about 32 kB of emissions, which stay in the fastest cache."""
    return max(8, min(512, 4096 // size))


@kernel
def watch_level(transition: np.ndarray) -> float:
    """Smallest state probability that scaled products keep exact; 0 where no mass that matters can be lost.

    With all transitions above 1e-100 a lost state regains its mass in one step. With exact zeros or tiny entries a lost
    state may be the only way to explain the future, so that the recursion must notice the loss.
    """
    smallest = np.inf
    for value in transition.flat:
        if 0.0 < value < smallest:
            smallest = value
    if np.min(transition) >= _DENSE:
        return 0.0
    return max(TINY, 1e-300 / smallest)


@kernel
def log_matrix(matrix: np.ndarray) -> np.ndarray:
    """Elementwise logarithm, -inf for zero."""
    out = np.empty_like(matrix)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[i, j] = math.log(matrix[i, j]) if matrix[i, j] > 0.0 else -np.inf
    return out


@kernel
def forward(
    start: np.ndarray,
    turned: np.ndarray,
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
    rows = block_rows(size)
    block = np.empty((rows, size))
    peak = np.empty(rows)
    expected = np.empty(size)
    pair = filtered.shape[0] < length
    for first in range(0, length, rows):
        count = min(rows, length - first)
        fill_block(emission, draw, sequence, first, count, block, peak)
        if logarithmic:
            _forward_log(start, turned, first, count, block, peak, pair, filtered, predicted, steps, scale, expected)
        else:
            exp_rows(block, count, -460.0 if watch == 0.0 else -708.0, 0.0 if watch == 0.0 else 1e-307)
            if not _forward_scaled(
                start, turned, watch, first, count, block, peak, pair, filtered, predicted, steps, scale, expected
            ):
                return False
    return True


@kernel(fastmath={"contract", "reassoc"})
def _forward_scaled(
    start: np.ndarray,
    turned: np.ndarray,
    watch: float,
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
) -> bool:
    size = start.size
    sums = np.empty(count)
    # Rescaling is put off until it is needed: a division in every step would be the longest wait of the recursion.
    # ``base`` is the sum of the row before, after the rescaling by ``inverse``.
    inverse = 1.0
    base = 1.0
    for i in range(count):
        t = first + i
        before = (t - 1) & 1 if pair else t - 1
        now = t & 1 if pair else t
        for j in range(size):
            if t == 0:
                expected[j] = start[j]
            else:
                mass = 0.0
                for k in range(size):
                    mass += turned[j, k] * filtered[before, k]
                expected[j] = mass
        if predicted.shape[0] > 0:
            for j in range(size):
                predicted[t, j] = expected[j] * inverse / base
        total = base
        if peak[i] > -np.inf:
            total = 0.0
            for j in range(size):
                value = expected[j] * (block[i, j] * inverse)
                filtered[now, j] = value
                total += value
            if total < TINY:
                return False
            if watch > 0.0:
                for j in range(size):
                    if filtered[now, j] < watch * total and expected[j] > 0.0 and block[i, j] > 0.0:
                        return False
        else:
            for j in range(size):
                filtered[now, j] = expected[j] * inverse
        sums[i] = total
        scale[t] = total / base
        rescale = total < _RESCALE or watch > 0.0
        inverse = 1.0 / total if rescale else 1.0
        base = 1.0 if rescale else total
    for i in range(count):
        steps[first + i] = log_positive(scale[first + i]) + peak[i]
    for i in range(0 if not pair else count - 1, count):
        now = (first + i) & 1 if pair else first + i
        inverse = 1.0 / sums[i]
        for j in range(size):
            filtered[now, j] *= inverse
    return True


@kernel
def _forward_log(
    start: np.ndarray,
    turned: np.ndarray,
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
    for i in range(count):
        t = first + i
        before = filtered[(t - 1) & 1 if pair else max(t - 1, 0)]
        current = filtered[t & 1 if pair else t]
        for j in range(size):
            if t == 0:
                expected[j] = math.log(start[j]) if start[j] > 0.0 else -np.inf
            else:
                expected[j] = log_dot(turned[j], before)
        if predicted.shape[0] > 0:
            for j in range(size):
                predicted[t, j] = math.exp(expected[j])
        total = -np.inf
        if peak[i] > -np.inf:
            for j in range(size):
                current[j] = expected[j] + block[i, j]
            total = log_sum(current)
        if total > -np.inf:
            for j in range(size):
                current[j] -= total
        else:
            for j in range(size):
                current[j] = expected[j]
        scale[t] = total
        steps[t] = total + peak[i]


@kernel
def backward(
    matrix: np.ndarray,
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
    counts: np.ndarray,
) -> None:
    """Posterior marginals by the backward recursion, in place of ``filtered``; ``counts`` gathers pairs of states.

    With a gain g_t the result is the derivative of sum_t g_t log p(x_t | x_<t) in the log emissions: for g = 1 the
    posteriors p(z_t | x_1:T). In the logarithmic mode the gain must not increase with t. ``counts`` gathers pairs of
    states which, times the transition probabilities, are the expected counts; the logarithmic mode includes that
    factor.
    """
    size = matrix.shape[0]
    rows = block_rows(size)
    block = np.empty((rows, size))
    peak = np.empty(rows)
    ratio = np.empty((rows, size))
    later = np.empty(size)
    spare = np.empty(size)
    n_blocks = (length + rows - 1) // rows
    for b in range(n_blocks - 1, -1, -1):
        first = b * rows
        count = min(rows, length - first)
        fill_block(emission, draw, sequence, first, count, block, peak)
        if not logarithmic:
            exp_rows(block, count, -460.0 if watch == 0.0 else -708.0, 0.0 if watch == 0.0 else 1e-307)
        for i in range(count - 1, -1, -1):
            t = first + i
            rise = gain[t] - (gain[t + 1] if t + 1 < length else 0.0)
            after = block[i + 1] if i + 1 < count else spare
            for j in range(size):
                if t + 1 == length:
                    later[j] = -np.inf if logarithmic else 0.0
                else:
                    later[j] = log_dot(matrix[j], after) if logarithmic else dot(matrix[j], after)
            unseen = steps[t] == -np.inf
            weight = ratio[i]
            if logarithmic:
                shift = math.log(rise) if rise > 0.0 else -np.inf
                for j in range(size):
                    high = max(later[j], shift)
                    low = min(later[j], shift)
                    value = high + math.log1p(math.exp(low - high)) if low > -np.inf else high
                    value = value if filtered[t, j] > -np.inf else -np.inf
                    weight[j] = value
                    block[i, j] = value if unseen else value + (block[i, j] - scale[t])
            else:
                inverse = 1.0 if unseen else 1.0 / scale[t]
                for j in range(size):
                    value = later[j] + rise if filtered[t, j] > 0.0 else 0.0
                    weight[j] = value
                    block[i, j] = value if unseen else value * (block[i, j] * inverse)
        skip = 1 if first == 0 else 0
        if count > skip:
            before = filtered[first + skip - 1 : first + count - 1]
            if logarithmic:
                _add_log_pairs(before, matrix, block[skip:count], counts)
            else:
                add_outer(before, block[skip:count], count - skip, counts)
        spare = block[0].copy()
        for i in range(count):
            for j in range(size):
                if logarithmic:
                    filtered[first + i, j] = math.exp(filtered[first + i, j] + ratio[i, j])
                else:
                    filtered[first + i, j] *= ratio[i, j]


@kernel(fastmath={"contract"})
def _add_log_pairs(before: np.ndarray, matrix: np.ndarray, after: np.ndarray, counts: np.ndarray) -> None:
    for t in range(after.shape[0]):
        for i in range(matrix.shape[0]):
            if before[t, i] > -np.inf:
                for j in range(matrix.shape[0]):
                    counts[i, j] += exp_below(before[t, i] + matrix[i, j] + after[t, j], -708.0, 0.0)
