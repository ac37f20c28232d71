"""Loops of the semi-Markov recursions over blocks of draws and sequences; task k is sequence k % n of draw k // n."""

from __future__ import annotations

import numpy as np

from probseq.kernels import segments
from probseq.kernels.best_segments import best_paths
from probseq.kernels.compiler import kernel
from probseq.kernels.elapsed import backward, block_length, forward


@kernel
def filter_block(lo, hi, belief, trans, leave, stay, table, lengths, filtered, predicted, steps, after):
    """Forward recursion."""
    n = lengths.size
    none = np.empty((0, belief.shape[2]))
    marks = np.empty((0, belief.shape[2], belief.shape[3]))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        after[draw, q] = forward(
            belief[draw, q % belief.shape[1]],
            trans[draw],
            leave[draw],
            stay[draw],
            table[draw % table.shape[0], q],
            lengths[q],
            steps[draw, q],
            filtered[draw, q],
            predicted[draw, q],
            none,
            none,
            marks,
            1,
        )


@kernel
def trajectory_block(lo, hi, belief, trans, leave, stay, table, lengths, beliefs, after):
    """Forward recursion that keeps every belief."""
    n = lengths.size
    none = np.empty((0, belief.shape[2]))
    steps = np.empty(table.shape[2])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        after[draw, q] = forward(
            belief[draw, q % belief.shape[1]],
            trans[draw],
            leave[draw],
            stay[draw],
            table[draw % table.shape[0], q],
            lengths[q],
            steps,
            none,
            none,
            none,
            none,
            beliefs[draw, q],
            1,
        )


@kernel
def expect_block(
    lo,
    hi,
    belief,
    trans,
    leave,
    stay,
    table,
    lengths,
    weights,
    base,
    posterior,
    apart,
    start,
    counts,
    leaves,
    stays,
    log_prob,
):
    """Forward-backward: posteriors and their sums."""
    n = lengths.size
    size, width = leave.shape[1:]
    none = np.empty((0, size))
    longest = 0
    for k in range(lo, hi):
        longest = max(longest, lengths[k % n])
    steps = np.empty(longest)
    entry = np.empty((longest, size))
    left = np.empty((longest, size))
    marks = np.empty((longest // block_length(longest) + 2, size, width))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        length = lengths[q]
        if length == 0:
            continue
        every = block_length(longest)
        rows = table[draw % table.shape[0], q]
        forward(
            belief[draw, q % belief.shape[1]],
            trans[draw],
            leave[draw],
            stay[draw],
            rows,
            length,
            steps,
            none,
            none,
            entry,
            left,
            marks,
            every,
        )
        backward(
            trans[draw],
            leave[draw],
            stay[draw],
            rows,
            length,
            steps,
            entry,
            left,
            marks,
            every,
            weights[draw % weights.shape[0], q],
            posterior[draw, q],
            apart[draw, q],
            start[draw, q],
            counts[draw, q],
            leaves[draw - base],
            stays[draw - base],
        )
        for t in range(length):
            log_prob[draw, q] += steps[t]


@kernel
def decode_block(lo, hi, belief, trans, leave, stay, table, lengths, states, log_prob):
    """The k best paths."""
    n = lengths.size
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        best_paths(
            belief[draw, q % belief.shape[1]],
            trans[draw],
            leave[draw],
            stay[draw],
            table[draw % table.shape[0], q],
            lengths[q],
            states[draw, q],
            log_prob[draw, q],
        )


@kernel
def sample_block(lo, hi, belief, trans, leave, stay, table, lengths, uniform, states):
    """Forward filtering, backward sampling."""
    n = lengths.size
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        segments.sample(
            belief[draw, q % belief.shape[1]],
            trans[draw],
            leave[draw],
            stay[draw],
            table[draw % table.shape[0], q],
            lengths[q],
            block_length(lengths[q]),
            uniform[draw, q],
            states[draw, q],
        )


@kernel
def simulate_all(belief, trans, leave, uniform, states):
    """Forward simulation of all draws and sequences."""
    for draw in range(uniform.shape[0]):
        for q in range(uniform.shape[1]):
            segments.simulate(
                belief[draw, q % belief.shape[1]], trans[draw], leave[draw], uniform[draw, q], states[draw, q]
            )
