"""The backward recursion of sixteen tracks at once, with the sums that an M-step needs.

beta_t is scaled so that sum_j alpha_tj beta_tj = 1 whatever the scale of alpha; then alpha_tj beta_tj is the posterior
and (alpha_t-1,i) A_ij (b_tj beta_tj), scaled like beta_t-1, the expected transition.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_emissions import densities, exponentials, log_emissions
from probseq.kernels.lane_forward import packed, propagate
from probseq.kernels.lane_sums import (
    add_code_sums,
    add_normal_sums,
    add_pairs,
    add_statistic_sums,
    unpacked_moments,
    unpacked_pairs,
    unpacked_statistics,
)
from probseq.kernels.lanes import LANES, load, splat, store, vectors, where_less
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.tracks import Tape, new_block, padded_size, read_statistics, seek, write_rows
from probseq.kernels.vector import transposed


class Message(NamedTuple):
    """What tracks tell each other, one row a track.

    ``begin`` and ``ends`` (tracks, s): beta of the last step, and of the step before the first. ``leaving``:
    alpha of the last step; ``entering``: b beta of the first, so scaled that their product with the transition matrix
    is the expected transition across the cut.
    """

    begin: np.ndarray
    ends: np.ndarray
    leaving: np.ndarray
    entering: np.ndarray


@kernel
def backward_tracks(
    matrix: np.ndarray,
    emission: LogEmission,
    draw: int,
    tape: Tape,
    group: int,
    message: Message,
    skip: int,
    alpha: np.ndarray,
    weights: np.ndarray,
    posterior: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Run 16 tracks backwards from ``skip`` steps before the end of the longest.

    Parameters
    ----------
    alpha : (steps + 1, padded state, lane) from `forward_tracks`
    weights : (n or 1,), a factor for everything that a sequence contributes
    posterior : (n, t, s), gets p(z_t | x_1:T), unless empty
    start : (n, s), gets the posterior of first steps
    counts : (s, s), gets sums that, times the transition probabilities, are the expected transitions within tracks
    totals : (``sums_shape``, s), gets the sums of `Expectations`; nothing is summed if ``skip`` is positive
    """
    size = matrix.shape[0]
    width = padded_size(size)
    columns = packed(transposed(matrix), 0.0)
    laws = densities(emission, draw, size)
    n_variables = laws.mean.shape[0]
    n_statistics = emission.statistics.shape[2]
    block = new_block(size, n_variables + n_statistics)
    rows = block.peak.shape[0]
    left = vectors(rows, width)
    right = vectors(rows + 1, width)
    gamma = vectors(rows, width)
    later = vectors(1, width)[0]
    shares = vectors(1, 2)[0]
    pairs = np.zeros((width // 2, width // 4, 8))
    sums = np.zeros((width // 4, n_variables, 16))
    statistics = np.zeros((width // 4, (n_statistics + 1) // 2, 8))
    weighted = weights.size > 1 or weights[0] != 1.0
    weight = np.ones((rows, LANES))
    nothing = splat(0.0)
    stop = tape.n_steps - skip
    for number in range((stop + rows - 1) // rows - 1, -1, -1):
        step = number * rows
        count = min(rows, stop - step)
        cursor = seek(tape, group, step)
        missing = log_emissions(emission, laws, size, draw, tape, group, step, count, cursor, block)
        exponentials(size, count, block)
        if weighted:
            for lane, first, run, q, _ in block.runs[: block.n_runs[0]]:
                weight[first : first + run, lane] = weights[q % weights.size]
        for i in range(count - 1, -1, -1):
            t = step + i
            if t + 1 < stop:
                propagate(columns, right, i + 1, later)
            shares[:] = 1.0
            if block.special[i] or t + 2 >= stop:
                _receive(tape, group, t, stop, size, block, i, message.begin, later, shares)
            if weighted:
                for lane in range(LANES):
                    shares[0, lane] *= weight[i, lane]
            total = nothing
            for j in range(width):
                total = total + load(alpha, ((t + 1) * width + j) * LANES) * load(later, j * LANES)
            inverse = splat(1.0) / total
            share = inverse * load(shares, 0)
            onwards = share * load(shares, LANES)
            for j in range(width):
                place = (i * width + j) * LANES
                filtered = load(alpha, ((t + 1) * width + j) * LANES)
                beta = load(later, j * LANES)
                store(left, place, filtered * onwards)
                store(gamma, place, filtered * (beta * share))
                # What cannot be reached has no bound, and never matters.
                scaled = where_less(nothing, filtered, beta * inverse, nothing)
                store(right, place, scaled * load(block.values, place))
            if block.special[i] or t + 2 >= stop:
                _tell(tape, group, t, size, block, i, left, gamma, message.leaving, start)
        if skip == 0:
            add_pairs(left, right, count, pairs)
            if n_variables > 0:
                add_normal_sums(laws.mean, block.x, missing, gamma, count, sums)
            if n_statistics > 0:
                if laws.natural.size == 0:
                    read_statistics(emission, block)
                add_statistic_sums(block.x, gamma, count, statistics)
            if emission.codes.shape[0] > 0:
                add_code_sums(emission, block, gamma, totals[0])
            if posterior.shape[0] > 0:
                write_rows(block, count, gamma, posterior)
        # The block before ends where this one begins.
        right[rows] = right[0]
    propagate(columns, right, 0, later)
    for lane in range(LANES):
        track = group * LANES + lane
        mass = later[:size, lane].sum()
        for j in range(size):
            message.ends[track, j] = later[j, lane] / mass
            message.entering[track, j] = right[0, j, lane] / mass
    unpacked_pairs(pairs, counts)
    if n_variables > 0:
        unpacked_moments(sums, totals)
    if n_statistics > 0:
        unpacked_statistics(statistics, totals[0])


@kernel
def _receive(tape, group, t, stop, size, block, i, begin, later, shares):
    """Sequences that end at this step, tracks whose last step it is, and tracks that have run out."""
    for lane in range(LANES):
        track = group * LANES + lane
        length = tape.begin[track + 1] - tape.begin[track]
        if block.spent[i, lane]:
            later[:size, lane] = 1.0
            shares[0, lane] = 0.0
            block.values[i, :, lane] = 0.0
        elif block.final[i, lane] >= 0:
            later[:size, lane] = 1.0
            shares[1, lane] = 0.0
        elif t + 1 == min(stop, length):
            for j in range(size):
                later[j, lane] = begin[track, j]


@kernel
def _tell(tape, group, t, size, block, i, left, gamma, leaving, start):
    for lane in range(LANES):
        track = group * LANES + lane
        if block.first[i, lane] >= 0:
            for j in range(size):
                start[block.first[i, lane], j] = gamma[i, j, lane]
        if t + 1 == tape.begin[track + 1] - tape.begin[track]:
            for j in range(size):
                leaving[track, j] = left[i, j, lane]
