"""The Viterbi recursion of sixteen tracks at once.

Scores are kept and the choices made again on the way back: that costs one row a step, storing the choices would cost
as much as the recursion. All logarithms are in bits.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_emissions import densities, log_emissions
from probseq.kernels.lanes import LANES, greater, load, splat, spread, store, vectors, where_less
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.tracks import Tape, lay_out, new_block, padded_size, seek, write_rows


@kernel(forceinline=True)
def _four_maxima(matrix, entry, size, source, place):
    a = splat(-np.inf)
    b = a
    c = a
    d = a
    for i in range(size):
        score = load(source, place + i * LANES)
        at = entry + 4 * i
        a = greater(a, score + spread(matrix, at))
        b = greater(b, score + spread(matrix, at + 1))
        c = greater(c, score + spread(matrix, at + 2))
        d = greater(d, score + spread(matrix, at + 3))
    return a, b, c, d


@kernel(forceinline=True)
def _propagate(columns, score, row, after):
    """after_j <- max_i score_i + log transition_ij, from one row of the scores."""
    blocks, size, _ = columns.shape
    width = score.shape[1]
    for k in range(blocks):
        a, b, c, d = _four_maxima(columns, k * size * 4, size, score, row * width * LANES)
        place = k * 4 * LANES
        store(after, place, a)
        store(after, place + LANES, b)
        store(after, place + 2 * LANES, c)
        store(after, place + 3 * LANES, d)


@kernel
def score_tracks(
    initial: np.ndarray,
    columns: np.ndarray,
    emission: LogEmission,
    draw: int,
    tape: Tape,
    group: int,
    begin: np.ndarray,
    skip: int,
    ends: np.ndarray,
    score: np.ndarray,
    sums: np.ndarray,
) -> bool:
    """Run 16 tracks from their step ``skip`` on; false where no path is possible.

    Parameters
    ----------
    initial : (n or 1, s), log p(z_1)
    columns : the packed logarithms of the transition matrix
    begin, ends : (tracks, s), best scores before the first step and after the last, relative to the largest
    score : (steps + 1, padded state, lane), best scores in row t + 1
    sums : (n,) gains the log-probability of the best path, unless empty
    """
    size = columns.shape[1]
    width = padded_size(size)
    laws = densities(emission, draw, size)
    block = new_block(size, laws.mean.shape[0])
    rows = block.peak.shape[0]
    cursor = seek(tape, group, skip)
    gained = np.zeros(LANES)
    best = vectors(1, 1)[0]
    after = vectors(1, width)[0]
    for lane in range(LANES):
        for j in range(size):
            after[j, lane] = begin[group * LANES + lane, j]
    for step in range(skip, tape.n_steps, rows):
        count = min(rows, tape.n_steps - step)
        log_emissions(emission, laws, size, draw, tape, group, step, count, cursor, block)
        for i in range(count):
            t = step + i
            if t > skip:
                _propagate(columns, score, t, after)
            if block.special[i]:
                _enter(initial, size, block, i, score[t], after, gained)
            place = (t + 1) * width * LANES
            top = splat(-np.inf)
            for j in range(size):
                value = load(after, j * LANES) + load(block.values, (i * width + j) * LANES)
                store(score, place + j * LANES, value)
                top = greater(top, value)
            store(best, 0, top)
            if block.special[i] and sums.shape[0] > 0:
                for lane in range(LANES):
                    if block.final[i, lane] >= 0:
                        if not abs(best[0, lane]) < np.inf:
                            return False
                        sums[block.final[i, lane]] += gained[lane] + best[0, lane]
        # Once in a block is enough to keep the rounding of scores from growing with the length.
        for lane in range(LANES):
            if not abs(best[0, lane]) < np.inf:
                return False
            gained[lane] += best[0, lane]
        top = load(best, 0)
        for j in range(size):
            place = ((step + count) * width + j) * LANES
            store(score, place, load(score, place) - top)
    _propagate(columns, score, tape.n_steps, after)
    for lane in range(LANES):
        track = group * LANES + lane
        peak = after[:size, lane].max()
        q = cursor.sequence[lane]
        if sums.shape[0] > 0 and 0 < cursor.time[lane] < tape.offsets[q + 1] - tape.offsets[q]:
            sums[q] += gained[lane] + peak
        for j in range(size):
            ends[track, j] = after[j, lane] - peak
    return True


@kernel
def _enter(initial, size, block, i, before, after, gained):
    for lane in range(LANES):
        q = block.first[i, lane]
        if q >= 0:
            gained[lane] = 0.0
            for j in range(size):
                after[j, lane] = initial[q % initial.shape[0], j]
        if block.spent[i, lane]:
            for j in range(size):
                after[j, lane] = before[j, lane]
                block.values[i, j, lane] = 0.0


@kernel
def trace_tracks(turned: np.ndarray, tape: Tape, group: int, score: np.ndarray, states: np.ndarray) -> None:
    """Best states (n, t, 1) of 16 tracks from their scores, as if each track ended with its last step.

    ``turned`` (s, s) is the transpose of the logarithms of the transition matrix.
    """
    size = turned.shape[0]
    width = padded_size(size)
    block = new_block(size, 0)
    rows = block.peak.shape[0]
    found = vectors(rows, 1)
    place = np.zeros(LANES, dtype=np.int64)
    reached = vectors(1, width)[0]
    nothing = np.zeros(size)
    for number in range((tape.n_steps + rows - 1) // rows - 1, -1, -1):
        step = number * rows
        count = min(rows, tape.n_steps - step)
        lay_out(tape, group, step, count, seek(tape, group, step), block)
        for i in range(count - 1, -1, -1):
            t = step + i
            row = (t + 1) * width * LANES
            best = splat(-np.inf)
            choice = splat(0.0)
            if t + 1 < tape.n_steps:
                for lane in range(LANES):
                    source = place[lane]
                    for j in range(size):
                        reached[j, lane] = turned[source, j]
            for j in range(size):
                value = load(score, row + j * LANES) + load(reached, j * LANES)
                choice = where_less(best, value, splat(float(j)), choice)
                best = greater(best, value)
            store(found, i * LANES, choice)
            if block.special[i] or t + 2 >= tape.n_steps:
                for lane in range(LANES):
                    length = tape.begin[group * LANES + lane + 1] - tape.begin[group * LANES + lane]
                    if block.final[i, lane] >= 0 or t + 1 >= length:
                        found[i, 0, lane] = best_state(score, min(t + 1, length), lane, nothing)
            for lane in range(LANES):
                place[lane] = int(found[i, 0, lane])
        write_rows(block, found, states)


@kernel
def best_state(score: np.ndarray, row: int, lane: int, row_of_matrix: np.ndarray) -> int:
    """argmax_i score_i + log transition_ij, the lowest state on ties."""
    choice = 0
    top = -np.inf
    for i in range(row_of_matrix.size):
        value = score[row, i, lane] + row_of_matrix[i]
        if value > top:
            top = value
            choice = i
    return choice


@kernel
def mend_track(turned: np.ndarray, tape: Tape, track: int, score: np.ndarray, states: np.ndarray) -> None:
    """Let a track end in the state that the first state of the next track asks for.

    Only the last steps change: going back, the paths from different states soon meet.
    """
    lane = track % LANES
    sequence = np.searchsorted(tape.offsets, tape.begin[track + 1], side="right") - 1
    t = tape.begin[track + 1] - tape.offsets[sequence]
    row = tape.begin[track + 1] - tape.begin[track]
    while t > 0 and row > 0:
        state = best_state(score, row, lane, turned[states[sequence, t, 0]])
        t -= 1
        row -= 1
        if states[sequence, t, 0] == state:
            return
        states[sequence, t, 0] = state
