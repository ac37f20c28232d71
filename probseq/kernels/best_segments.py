"""The most probable paths of one hidden semi-Markov chain over one sequence."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.elapsed import log_masses


@kernel
def best_paths(
    belief: np.ndarray,
    trans: np.ndarray,
    leave: np.ndarray,
    stay: np.ndarray,
    table: np.ndarray,
    length: int,
    states: np.ndarray,
    log_prob: np.ndarray,
) -> None:
    """The k best paths into ``states`` (k, t), with log p(x_1:T, z_1:T) (k,); -1 and -inf where there are fewer.

    Viterbi over state and elapsed duration with a list of k scores in each cell, O(t s k (s + w)). Without
    self-transitions a path fixes its segments and their durations, except that the first may have begun before the
    data: its elapsed duration is summed over. Every cell's list names segments by their first step and by the rank of
    the path among those that began one there. On ties the lowest state comes first.
    """
    size, width = belief.shape
    k = states.shape[0]
    if length == 0:
        log_prob[0] = 0.0
        return
    score = np.full((size, width, k), -np.inf)
    later = np.full((size, width, k), -np.inf)
    # What is remembered of segments at the longest duration: first step and rank.
    held = np.zeros((size, k, 2), dtype=np.int32)
    held_later = np.zeros((size, k, 2), dtype=np.int32)
    first = belief.copy()
    first_later = np.empty_like(first)
    lead = np.zeros(size)
    # The best segments that end with a step in a state, and what came before those that begin there.
    ended = np.zeros((length, size, k, 2), dtype=np.int32)
    before = np.zeros((length, size, k, 2), dtype=np.int32)
    out = np.empty((size, k))
    alive = np.empty((size, k))
    nothing = np.zeros(width)
    gained = 0.0
    seen = True
    for t in range(length):
        top = -np.inf
        for j in range(size):
            whole, parting = log_masses(first[j], leave[j])
            _best_of_cells(score[j], leave[j], lead[j] + parting, held[j], t, out[j], ended[t, j])
            peak = lead[j] + whole
            for d in range(width):
                peak = max(peak, score[j, d, 0])
            top = max(top, peak + table[t, j])
        # As in the filter, an observation that no possible state can emit counts as unseen.
        seen = top > -np.inf
        gained += top
        if t == length - 1:
            break
        for j in range(size):
            gain = table[t, j] - top if seen else 0.0
            for r in range(k):
                out[j, r] += gain
        for j in range(size):
            gain = table[t, j] - top if seen else 0.0
            _shift(score[j], stay[j], gain, held[j], t, later[j], held_later[j])
            _enter(out, trans[:, j], later[j, 0], before[t + 1, j], held_later[j], width == 1, t + 1)
            _outlast(first[j], stay[j], first_later[j])
            lead[j] += gain
        score, later = later, score
        held, held_later = held_later, held
        first, first_later = first_later, first
    t = length - 1
    final = np.full(k, -np.inf)
    where = np.zeros((k, 3), dtype=np.int32)
    segment = np.zeros((k, 2), dtype=np.int32)
    for j in range(size):
        whole, _ = log_masses(first[j], leave[j])
        _best_of_cells(score[j], nothing, lead[j] + whole, held[j], t, alive[j], segment)
        for r in range(k):
            value = alive[j, r] + (table[t, j] - top if seen else 0.0)
            place = _insert(final, value)
            if place < 0:
                break
            for q in range(k - 1, place, -1):
                where[q] = where[q - 1]
            where[place, 0] = j
            where[place, 1:] = segment[r]
    for r in range(k):
        log_prob[r] = final[r] + gained
        if final[r] > -np.inf:
            _trace(where[r, 0], where[r, 1], where[r, 2], length, ended, before, states[r])


@kernel
def _insert(values: np.ndarray, value: float) -> int:
    # Put a value into a list in decreasing order; its place, or -1 where it is no better than the last.
    last = values.size - 1
    if not value > values[last]:
        return -1
    place = last
    while place > 0 and value > values[place - 1]:
        values[place] = values[place - 1]
        place -= 1
    values[place] = value
    return place


@kernel
def _best_of_cells(
    score: np.ndarray,
    extra: np.ndarray,
    whole: float,
    held: np.ndarray,
    t: int,
    values: np.ndarray,
    segments: np.ndarray,
) -> None:
    # The best of all elapsed durations, and of the segment that was there before the data (first step 0).
    k = values.size
    width = score.shape[0]
    values[:] = -np.inf
    for d in range(width):
        for r in range(k):
            place = _insert(values, score[d, r] + extra[d])
            if place < 0:
                break
            for q in range(k - 1, place, -1):
                segments[q] = segments[q - 1]
            segments[place, 0] = held[r, 0] if d == width - 1 else t - d
            segments[place, 1] = held[r, 1] if d == width - 1 else r
    place = _insert(values, whole)
    if place >= 0:
        for q in range(k - 1, place, -1):
            segments[q] = segments[q - 1]
        segments[place] = 0


@kernel
def _shift(
    score: np.ndarray,
    stay: np.ndarray,
    gain: float,
    held: np.ndarray,
    t: int,
    out: np.ndarray,
    held_out: np.ndarray,
) -> None:
    # All segments one step longer; the two lists that meet at the longest duration are merged.
    width, k = score.shape
    last = width - 1
    for d in range(last - 1):
        for r in range(k):
            out[d + 1, r] = score[d, r] + stay[d] + gain
    a = 0
    b = 0
    for r in range(k):
        grown = score[last - 1, a] + stay[last - 1] + gain if last > 0 else -np.inf
        kept = score[last, b] + stay[last] + gain
        if kept >= grown:
            out[last, r] = kept
            held_out[r] = held[b]
            b += 1
        else:
            out[last, r] = grown
            held_out[r, 0] = t + 1 - last
            held_out[r, 1] = a
            a += 1


@kernel
def _enter(
    out: np.ndarray,
    trans: np.ndarray,
    cell: np.ndarray,
    before: np.ndarray,
    held: np.ndarray,
    single: bool,
    t: int,
) -> None:
    # The k best ways into a state at step t; with a longest duration of 1 they join those that stayed.
    k = cell.size
    entered = np.full(k, -np.inf)
    for i in range(out.shape[0]):
        for r in range(k):
            place = _insert(entered, out[i, r] + trans[i])
            if place < 0:
                break
            for q in range(k - 1, place, -1):
                before[q] = before[q - 1]
            before[place, 0] = i
            before[place, 1] = r
    if not single:
        cell[:] = entered
        return
    for r in range(k):
        place = _insert(cell, entered[r])
        if place < 0:
            break
        for q in range(k - 1, place, -1):
            held[q] = held[q - 1]
        held[place, 0] = t
        held[place, 1] = r


@kernel
def _outlast(row: np.ndarray, stay: np.ndarray, out: np.ndarray) -> None:
    # The first segment, which may be of any age, one step older.
    last = row.size - 1
    kept = row[last] + stay[last]
    out[0] = -np.inf
    for d in range(last):
        out[d + 1] = row[d] + stay[d]
    top = max(kept, out[last])
    if top > -np.inf:
        out[last] = top + math.log1p(math.exp(min(kept, out[last]) - top))


@kernel
def _trace(
    state: int, begin: int, rank: int, length: int, ended: np.ndarray, before: np.ndarray, states: np.ndarray
) -> None:
    stop = length
    while True:
        for t in range(begin, stop):
            states[t] = state
        if begin == 0:
            return
        stop = begin
        state, place = before[begin, state, rank]
        begin, rank = ended[stop - 1, state, place]
