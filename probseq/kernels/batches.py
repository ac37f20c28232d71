"""Loops of the chain recursions over blocks of draws and sequences; task k is sequence k % n of draw k // n."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.decoding import sample_backward, viterbi
from probseq.kernels.normal_chain import add_sums
from probseq.kernels.recursions import backward, forward, log_matrix, watch_level
from probseq.kernels.vector import transposed


@kernel
def filter_block(lo, hi, initial, transition, emission, lengths, keep, filtered, predicted, steps, last):
    """Forward recursion; repeats in logarithms what underflows."""
    n = lengths.size
    size = initial.shape[2]
    pair = np.empty((2, size))
    scale = np.empty(steps.shape[2])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        start = initial[draw, q % initial.shape[1]]
        turned = transposed(transition[draw])
        store = filtered[draw, q] if keep else pair
        logarithmic = False
        if not forward(
            start,
            turned,
            False,
            watch_level(turned),
            emission,
            draw,
            q,
            lengths[q],
            store,
            predicted[draw, q],
            steps[draw, q],
            scale,
        ):
            logarithmic = True
            forward(
                start,
                log_matrix(turned),
                True,
                0.0,
                emission,
                draw,
                q,
                lengths[q],
                store,
                predicted[draw, q],
                steps[draw, q],
                scale,
            )
        if lengths[q] == 0:
            last[draw, q] = start
        else:
            for j in range(size):
                value = store[(lengths[q] - 1) % store.shape[0], j]
                last[draw, q, j] = np.exp(value) if logarithmic else value
        if keep and logarithmic:
            for t in range(lengths[q]):
                for j in range(size):
                    store[t, j] = np.exp(store[t, j])


@kernel
def expect_block(
    lo, hi, initial, transition, emission, lengths, scratch, gain, base, posterior, start, counts, log_prob, sums
):
    """Forward-backward: posteriors (into ``posterior``, or ``scratch`` where that is empty) and their sums."""
    n = lengths.size
    size = initial.shape[2]
    longest = 0
    for k in range(lo, hi):
        longest = max(longest, lengths[k % n])
    keep = posterior.shape[2] > 0
    steps = np.empty(longest)
    scale = np.empty(longest)
    weight = np.empty(longest)
    pairs = np.zeros((size, size))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        length = lengths[q]
        first = initial[draw, q % initial.shape[1]]
        if length == 0:
            continue
        table = posterior[draw, q] if keep else scratch
        steady = True
        for t in range(length):
            weight[t] = gain[draw % gain.shape[0], q % gain.shape[1], t % gain.shape[2]]
            steady = steady and (t == 0 or weight[t] <= weight[t - 1]) and weight[t] >= 0.0
        logarithmic = not _posterior(
            first, transition[draw], emission, draw, q, length, table, steps, scale, weight, steady, pairs
        )
        if logarithmic:
            _log_posterior(
                first,
                transition[draw],
                emission,
                draw,
                q,
                length,
                table,
                steps,
                scale,
                weight,
                steady,
                counts[draw - base],
            )
        else:
            for i in range(size):
                for j in range(size):
                    counts[draw - base, i, j] += pairs[i, j] * transition[draw, i, j]
                    pairs[i, j] = 0.0
        for j in range(size):
            start[draw, q, j] = table[0, j]
        for t in range(length):
            log_prob[draw, q] += steps[t]
        # The gain is inside the posterior already.
        add_sums(emission, draw, q, length, table, sums[draw - base])


@kernel
def _posterior(start, matrix, emission, draw, q, length, table, steps, scale, weight, steady, pairs):
    watch = watch_level(matrix)
    nothing = np.empty((0, start.size))
    if not forward(start, transposed(matrix), False, watch, emission, draw, q, length, table, nothing, steps, scale):
        return False
    backward(matrix, False, watch, emission, draw, q, length, table, steps, scale, weight, pairs)
    return True


@kernel
def _log_posterior(start, matrix, emission, draw, q, length, table, steps, scale, weight, steady, counts):
    logs = log_matrix(matrix)
    nothing = np.empty((0, start.size))
    forward(start, transposed(logs), True, 0.0, emission, draw, q, length, table, nothing, steps, scale)
    if steady:
        backward(logs, True, 0.0, emission, draw, q, length, table, steps, scale, weight, counts)
        return
    # Logarithms hold no signs: a gain that rises somewhere is the difference of two that never do.
    falling = np.zeros(length)
    rising = np.zeros(length)
    for t in range(length - 1, -1, -1):
        change = weight[t] - (weight[t + 1] if t + 1 < length else 0.0)
        falling[t] = (falling[t + 1] if t + 1 < length else 0.0) + max(change, 0.0)
        rising[t] = (rising[t + 1] if t + 1 < length else 0.0) + max(-change, 0.0)
    other = table[:length].copy()
    taken = np.zeros_like(counts)
    backward(logs, True, 0.0, emission, draw, q, length, table, steps, scale, falling, counts)
    backward(logs, True, 0.0, emission, draw, q, length, other, steps, scale, rising, taken)
    counts -= taken
    for t in range(length):
        for j in range(start.size):
            table[t, j] -= other[t, j]


@kernel
def decode_block(lo, hi, initial, transition, emission, lengths, score, states, log_prob):
    """Viterbi paths; ``score`` is scratch."""
    n = lengths.size
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        logs = log_matrix(transition[draw])
        log_prob[draw, q] = viterbi(
            initial[draw, q % initial.shape[1]],
            logs,
            transposed(logs),
            emission,
            draw,
            q,
            lengths[q],
            score,
            states[draw, q],
        )


@kernel
def sample_block(lo, hi, initial, transition, emission, lengths, table, uniform, states):
    """Forward filtering, backward sampling; ``table`` is scratch."""
    n = lengths.size
    size = initial.shape[2]
    steps = np.empty(table.shape[0])
    scale = np.empty(table.shape[0])
    nothing = np.empty((0, size))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        start = initial[draw, q % initial.shape[1]]
        turned = transposed(transition[draw])
        logarithmic = not forward(
            start, turned, False, watch_level(turned), emission, draw, q, lengths[q], table, nothing, steps, scale
        )
        if logarithmic:
            turned = log_matrix(turned)
            forward(start, turned, True, 0.0, emission, draw, q, lengths[q], table, nothing, steps, scale)
        for path in range(uniform.shape[1]):
            sample_backward(turned, logarithmic, lengths[q], table, uniform[draw, path, q], states[draw, path, q])
