"""Loops of the recursions with a matrix per step over blocks; task k is sequence k % n of draw k // n."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.varying_decoding import choose, varying_sample, varying_viterbi
from probseq.kernels.varying_recursions import varying_backward, varying_forward, watch_matrices


@kernel
def filter_varying(lo, hi, first, transition, emission, lengths, keep, filtered, predicted, steps, last):
    """Forward recursion; repeats in logarithms what underflows."""
    n = lengths.size
    size = first.shape[2]
    pair = np.empty((2, size))
    scale = np.empty(steps.shape[2])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
        store = filtered[draw, q] if keep else pair
        logarithmic = _forward(
            first[draw, q], matrices, emission, draw, q, lengths[q], store, predicted[draw, q], steps[draw, q], scale
        )
        for j in range(size):
            if lengths[q] == 0:
                last[draw, q, j] = first[draw, q, j]
            else:
                value = store[lengths[q] - 1 if keep else (lengths[q] - 1) & 1, j]
                last[draw, q, j] = np.exp(value) if logarithmic else value
        if keep and logarithmic:
            for t in range(lengths[q]):
                for j in range(size):
                    store[t, j] = np.exp(store[t, j])


@kernel
def _forward(start, matrices, emission, draw, q, length, store, predicted, steps, scale):
    # Whether logarithms were needed.
    watch = watch_matrices(matrices, length)
    if varying_forward(start, matrices, False, watch, emission, draw, q, length, store, predicted, steps, scale):
        return False
    varying_forward(start, matrices, True, 0.0, emission, draw, q, length, store, predicted, steps, scale)
    return True


@kernel
def expect_varying(lo, hi, first, transition, emission, lengths, gain, posterior, pairs, log_prob):
    """Forward-backward: posteriors and pairs of states."""
    n = lengths.size
    size = first.shape[2]
    nothing = np.empty((0, size))
    steps = np.empty(posterior.shape[2])
    scale = np.empty(posterior.shape[2])
    weight = np.empty(posterior.shape[2])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        length = lengths[q]
        if length == 0:
            continue
        matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
        table = posterior[draw, q]
        steady = True
        for t in range(length):
            weight[t] = gain[draw % gain.shape[0], q % gain.shape[1], t % gain.shape[2]]
            steady = steady and (t == 0 or weight[t] <= weight[t - 1]) and weight[t] >= 0.0
        logarithmic = _forward(first[draw, q], matrices, emission, draw, q, length, table, nothing, steps, scale)
        if not logarithmic or steady:
            watch = watch_matrices(matrices, length)
            varying_backward(
                matrices, logarithmic, watch, emission, draw, q, length, table, steps, scale, weight, pairs[draw, q]
            )
        else:
            _signed_backward(matrices, emission, draw, q, length, table, steps, scale, weight, pairs[draw, q])
        for t in range(length):
            log_prob[draw, q] += steps[t]


@kernel
def _signed_backward(matrices, emission, draw, q, length, table, steps, scale, weight, pairs):
    # Logarithms hold no signs: a gain that rises somewhere is the difference of two that never do.
    falling = np.zeros(length)
    rising = np.zeros(length)
    for t in range(length - 1, -1, -1):
        change = weight[t] - (weight[t + 1] if t + 1 < length else 0.0)
        falling[t] = (falling[t + 1] if t + 1 < length else 0.0) + max(change, 0.0)
        rising[t] = (rising[t + 1] if t + 1 < length else 0.0) + max(-change, 0.0)
    other = table[:length].copy()
    taken = np.zeros_like(pairs)
    varying_backward(matrices, True, 0.0, emission, draw, q, length, table, steps, scale, falling, pairs)
    varying_backward(matrices, True, 0.0, emission, draw, q, length, other, steps, scale, rising, taken)
    for t in range(length):
        for i in range(table.shape[1]):
            table[t, i] -= other[t, i]
            for j in range(table.shape[1]):
                pairs[t, i, j] -= taken[t, i, j]


@kernel
def decode_varying(lo, hi, first, transition, emission, lengths, score, states, log_prob):
    """Viterbi paths; ``score`` is scratch."""
    n = lengths.size
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
        log_prob[draw, q] = varying_viterbi(
            first[draw, q], matrices, emission, draw, q, lengths[q], score, states[draw, q]
        )


@kernel
def sample_varying(lo, hi, first, transition, emission, lengths, table, uniform, states):
    """Forward filtering, backward sampling; ``table`` is scratch."""
    n = lengths.size
    nothing = np.empty((0, first.shape[2]))
    steps = np.empty(table.shape[0])
    scale = np.empty(table.shape[0])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
        logarithmic = _forward(first[draw, q], matrices, emission, draw, q, lengths[q], table, nothing, steps, scale)
        for path in range(uniform.shape[1]):
            varying_sample(matrices, logarithmic, lengths[q], table, uniform[draw, path, q], states[draw, path, q])


@kernel
def simulate_varying(first, transition, uniform, states):
    """Forward simulation of all draws and sequences, with one uniform number for each step."""
    for draw in range(uniform.shape[0]):
        for q in range(uniform.shape[1]):
            matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
            for t in range(uniform.shape[2]):
                row = first[draw, q] if t == 0 else matrices[t, states[draw, q, t - 1]]
                states[draw, q, t] = choose(row, uniform[draw, q, t])
