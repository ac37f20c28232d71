"""The Viterbi recursion of sixteen tracks at once. All logarithms are in bits.

For few states the choices are kept: words of 64 bits, four bits a state for up to sixteen states and eight bits for
more. To keep them costs two operations a pair of states. For many states that is more than it saves; then the scores
are kept and the choices made again on the way back (see `lane_tracing`).
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_emissions import densities, log_emissions
from probseq.kernels.lanes import LANES, greater, load, merged, splat, spread, store, vectors, where_less, whole
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.tracks import Tape, new_block, padded_size, seek

FEW_STATES = 64


@kernel
def choice_bits(size: int) -> int:
    """Bits in which a choice among so many states is kept."""
    return 4 if size <= 16 else 8


@kernel
def count_words(size: int) -> int:
    """Words of 64 bits that keep a choice for each state."""
    return (size * choice_bits(size) + 63) // 64


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
def _four_choices(matrix, entry, size, source, place, bits):
    """The maxima, and which of the sources they come from, in so many bits each."""
    a = splat(-np.inf)
    b = a
    c = a
    d = a
    from_a = whole(0)
    from_b = from_a
    from_c = from_a
    from_d = from_a
    for i in range(size):
        score = load(source, place + i * LANES)
        at = entry + 4 * i
        number = whole(i)
        value = score + spread(matrix, at)
        from_a = where_less(a, value, number, from_a)
        a = greater(a, value)
        value = score + spread(matrix, at + 1)
        from_b = where_less(b, value, number, from_b)
        b = greater(b, value)
        value = score + spread(matrix, at + 2)
        from_c = where_less(c, value, number, from_c)
        c = greater(c, value)
        value = score + spread(matrix, at + 3)
        from_d = where_less(d, value, number, from_d)
        d = greater(d, value)
    return a, b, c, d, merged(merged(from_a, from_b, bits), merged(from_c, from_d, bits), 2 * bits)


@kernel(forceinline=True)
def _advance(columns, score, row, values, emitted, words, t, out, target):
    """out_j <- max_i score_i + log transition_ij + values_j, from one row to another, at flat positions.

    ``words`` of step ``t`` get the choices, unless empty.
    """
    blocks, size, _ = columns.shape
    source = row * score.shape[1] * LANES
    n_words = words.shape[1]
    bits = choice_bits(size)
    word = whole(0)
    for k in range(blocks):
        if n_words > 0:
            a, b, c, d, chosen = _four_choices(columns, k * size * 4, size, score, source, bits)
            word = merged(word, chosen, k * 4 * bits % 64)
            if (k + 1) * 4 * bits % 64 == 0 or k == blocks - 1:
                store(words, (t * n_words + k * 4 * bits // 64) * LANES, word)
                word = whole(0)
        else:
            a, b, c, d = _four_maxima(columns, k * size * 4, size, score, source)
        place = emitted + k * 4 * LANES
        a = a + load(values, place)
        b = b + load(values, place + LANES)
        c = c + load(values, place + 2 * LANES)
        d = d + load(values, place + 3 * LANES)
        place = target + k * 4 * LANES
        store(out, place, a)
        store(out, place + LANES, b)
        store(out, place + 2 * LANES, c)
        store(out, place + 3 * LANES, d)


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
    words: np.ndarray,
    sums: np.ndarray,
) -> bool:
    """Run 16 tracks from their step ``skip`` on; false where no path is possible.

    Parameters
    ----------
    initial : (n or 1, s), log p(z_1)
    columns : the packed logarithms of the transition matrix
    begin, ends : (tracks, s), best scores before the first step and after the last, relative to the largest
    score : (steps + 1, padded state, lane), best scores in row t + 1, or one block of steps only
    words : (steps + 1, any, lane) gets for each state of step t the best state before, unless empty. Where a sequence
        begins at t, that is the last state of the sequence before; row ``steps`` looks back from the next track
    sums : (n,) gains the log-probability of the best path, unless empty
    """
    size = columns.shape[1]
    width = padded_size(size)
    laws = densities(emission, draw, size)
    block = new_block(size, laws.mean.shape[0] + laws.natural.shape[0])
    rows = block.peak.shape[0]
    cursor = seek(tape, group, skip)
    gained = np.zeros(LANES)
    best = vectors(1, 1)[0]
    after = vectors(1, width)[0]
    nothing = vectors(1, width)
    stored = score.shape[0] > tape.n_steps
    choosing = words.shape[1] > 0
    for lane in range(LANES):
        for j in range(size):
            after[j, lane] = begin[group * LANES + lane, j]
    for step in range(skip, tape.n_steps, rows):
        count = min(rows, tape.n_steps - step)
        log_emissions(emission, laws, size, draw, tape, group, step, count, cursor, block)
        first = step if stored else 0
        for i in range(count):
            t = step + i
            row = first + i
            place = (row + 1) * width * LANES
            if t > skip and not block.special[i]:
                _advance(columns, score, row, block.values, i * width * LANES, words, t, score, place)
                continue
            if t > skip:
                _advance(columns, score, row, nothing, 0, words, t, after, 0)
            if block.special[i]:
                _enter(initial, size, block, i, score[row], after, gained)
                if choosing:
                    _look_back(size, block, i, score, row, words[t])
            for j in range(size):
                store(score, place + j * LANES, load(after, j * LANES) + load(block.values, (i * width + j) * LANES))
            if block.special[i] and sums.shape[0] > 0:
                store(best, 0, _largest(score, place, size))
                for lane in range(LANES):
                    if block.final[i, lane] >= 0:
                        if not abs(best[0, lane]) < np.inf:
                            return False
                        sums[block.final[i, lane]] += gained[lane] + best[0, lane]
        # Once in a block is enough to keep the rounding of scores from growing with the length.
        place = (first + count) * width * LANES
        top = _largest(score, place, size)
        store(best, 0, top)
        for lane in range(LANES):
            if not abs(best[0, lane]) < np.inf:
                return False
            gained[lane] += best[0, lane]
        for j in range(size):
            store(score, place + j * LANES, load(score, place + j * LANES) - top)
        if not stored:
            score[0] = score[count]
    row = tape.n_steps if stored else 0
    _advance(columns, score, row, nothing, 0, words, tape.n_steps, after, 0)
    for lane in range(LANES):
        track = group * LANES + lane
        peak = after[:size, lane].max()
        q = cursor.sequence[lane]
        if 0 < cursor.time[lane] < tape.offsets[q + 1] - tape.offsets[q]:
            if sums.shape[0] > 0:
                sums[q] += gained[lane] + peak
        elif choosing:
            _choose(words[tape.n_steps], lane, best_of(score, row, lane, size), size)
        for j in range(size):
            ends[track, j] = after[j, lane] - peak
    return True


@kernel(forceinline=True)
def _largest(score, place, size):
    top = load(score, place)
    for j in range(1, size):
        top = greater(top, load(score, place + j * LANES))
    return top


@kernel
def best_of(score: np.ndarray, row: int, lane: int, size: int) -> int:
    """argmax_j score_j, the lowest state on ties."""
    choice = 0
    for j in range(1, size):
        if score[row, j, lane] > score[row, choice, lane]:
            choice = j
    return choice


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
def _look_back(size, block, i, score, row, words):
    """What the state before is where it is no choice of the chain: the best last one, or the same."""
    bits = choice_bits(size)
    for lane in range(LANES):
        if block.first[i, lane] >= 0:
            _choose(words, lane, best_of(score, row, lane, size), size)
        if block.spent[i, lane]:
            _choose(words, lane, 0, size)
            for j in range(size):
                words[j * bits // 64, lane] |= j << (j * bits % 64)


@kernel
def _choose(words, lane, choice, size):
    """The same choice for all states."""
    bits = choice_bits(size)
    word = 0
    for shift in range(0, 64, bits):
        word |= choice << shift
    for k in range(words.shape[0]):
        words[k, lane] = word
