"""The way back of the Viterbi recursion: best paths of sixteen tracks from kept choices or from kept scores."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_decoding import best_of, choice_bits
from probseq.kernels.lanes import LANES, four_columns, greater, load, nibble, splat, store, where_less, whole
from probseq.kernels.tracks import Tape, lay_out, new_block, seek, write_states


@kernel
def walk_tracks(words: np.ndarray, tape: Tape, group: int, ends: np.ndarray, states: np.ndarray) -> None:
    """Best states (n, t) of 16 tracks from their choices, each to the best state after its last step.

    ``words`` and ``ends`` are those of `score_tracks`.
    """
    size = ends.shape[1]
    block = new_block(1, 0)
    rows = block.peak.shape[0]
    found = np.zeros((rows, LANES), dtype=np.int64)
    later = np.zeros(LANES, dtype=np.int64)
    for lane in range(LANES):
        later[lane] = np.argmax(ends[group * LANES + lane])
    state = load(later, 0)
    for number in range((tape.n_steps + rows - 1) // rows - 1, -1, -1):
        step = number * rows
        count = min(rows, tape.n_steps - step)
        if words.shape[1] == 1 and size <= 16:
            for i in range(count - 1, -1, -1):
                state = nibble(load(words, (step + i + 1) * LANES), state)
                store(found, i * LANES, state)
        else:
            for i in range(count - 1, -1, -1):
                for lane in range(LANES):
                    later[lane] = _choice(words, step + i + 1, lane, later[lane], size)
                    found[i, lane] = later[lane]
        lay_out(tape, group, step, count, seek(tape, group, step), block)
        write_states(block, count, found, states)


@kernel(forceinline=True)
def _choice(words, row, lane, state, size):
    bits = choice_bits(size)
    place = state * bits
    return (words[row, place >> 6, lane] >> (place & 63)) & ((1 << bits) - 1)


@kernel
def mend_walks(words: np.ndarray, tape: Tape, group: int, size: int, states: np.ndarray) -> None:
    """Let each of 16 tracks, the last one first, end in the state that the first state of the next track asks for.

    Only the last steps change: going back, the paths from different states soon meet.
    """
    for lane in range(LANES - 1, -1, -1):
        sequence, t, row = _cut(tape, group * LANES + lane)
        later = tape.n_steps
        while t > 0 and row > 0:
            state = _choice(words, later, lane, states[sequence, t], size)
            t -= 1
            row -= 1
            if states[sequence, t] == state:
                break
            states[sequence, t] = state
            later = row


@kernel(inline="always")
def _cut(tape, track):
    """Sequence and time of the step after a track, and the number of its own steps; time 0 where none follows."""
    position = tape.begin[track + 1]
    if track + 2 == tape.begin.size:
        return 0, 0, 0
    sequence = np.searchsorted(tape.offsets, position, side="right") - 1
    return sequence, position - tape.offsets[sequence], position - tape.begin[track]


@kernel
def trace_tracks(turned: np.ndarray, tape: Tape, group: int, score: np.ndarray, states: np.ndarray) -> None:
    """Best states (n, t) of 16 tracks from their scores, as if each track ended with its last step.

    ``turned`` (s, padded state) is the transpose of the logarithms of the transition matrix, -inf in the padding.
    """
    size, width = turned.shape
    block = new_block(1, 0)
    rows = block.peak.shape[0]
    found = np.zeros((rows, LANES), dtype=np.int64)
    # Where the row of the state that follows begins.
    place = np.zeros(LANES, dtype=np.int64)
    for number in range((tape.n_steps + rows - 1) // rows - 1, -1, -1):
        step = number * rows
        count = min(rows, tape.n_steps - step)
        lay_out(tape, group, step, count, seek(tape, group, step), block)
        for i in range(count - 1, -1, -1):
            t = step + i
            row = (t + 1) * width * LANES
            best = splat(-np.inf)
            choice = whole(0)
            for j in range(0, width, 4):
                columns = four_columns(turned, place, j)
                for k in range(4):
                    value = load(score, row + (j + k) * LANES) + columns[k]
                    choice = where_less(best, value, whole(j + k), choice)
                    best = greater(best, value)
            store(found, i * LANES, choice)
            if block.special[i] or t + 2 >= tape.n_steps:
                for lane in range(LANES):
                    length = tape.begin[group * LANES + lane + 1] - tape.begin[group * LANES + lane]
                    if block.final[i, lane] >= 0 or t + 1 >= length:
                        found[i, lane] = best_of(score, min(t + 1, length), lane, size)
            for lane in range(LANES):
                place[lane] = found[i, lane] * width
        write_states(block, count, found, states)


@kernel
def mend_tracks(turned: np.ndarray, tape: Tape, group: int, score: np.ndarray, states: np.ndarray) -> None:
    """As `mend_walks`, from scores."""
    for lane in range(LANES - 1, -1, -1):
        sequence, t, row = _cut(tape, group * LANES + lane)
        while t > 0 and row > 0:
            state = _best_source(score, row, lane, turned[states[sequence, t]])
            t -= 1
            row -= 1
            if states[sequence, t] == state:
                break
            states[sequence, t] = state


@kernel
def _best_source(score: np.ndarray, row: int, lane: int, row_of_matrix: np.ndarray) -> int:
    """argmax_i score_i + log transition_ij, the lowest state on ties."""
    choice = 0
    top = -np.inf
    for i in range(row_of_matrix.size):
        value = score[row, i, lane] + row_of_matrix[i]
        if value > top:
            top = value
            choice = i
    return choice
