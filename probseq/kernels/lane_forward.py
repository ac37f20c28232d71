"""The forward recursion of sixteen tracks at once, in probabilities."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_emissions import densities, exponentials, log_emissions
from probseq.kernels.lanes import (
    LANES,
    LN_2,
    inverse_power,
    lesser,
    load,
    log,
    splat,
    spread,
    store,
    vectors,
    where_less,
    where_seen,
)
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.recursions import TINY
from probseq.kernels.tracks import Tape, new_block, padded_size, seek, write_rows


@kernel
def packed(matrix: np.ndarray, fill: float) -> np.ndarray:
    """(block, row, 4): the columns in blocks of four, ``fill`` beyond the last, in the order in which they are read."""
    rows, size = matrix.shape
    out = np.full((padded_size(size) // 4, rows, 4), fill)
    for i in range(rows):
        for j in range(size):
            out[j // 4, i, j % 4] = matrix[i, j]
    return out


@kernel
def propagate(matrix: np.ndarray, source: np.ndarray, s: int, target: np.ndarray) -> None:
    """target_j <- sum_i source_i matrix_ij in every lane, for the row s of ``source``; ``matrix`` is packed."""
    blocks, size, _ = matrix.shape
    width = source.shape[1]
    for block in range(blocks):
        a, b, c, d = four_sums(matrix, block * size * 4, size, source, s * width * LANES)
        place = block * 4 * LANES
        store(target, place, a)
        store(target, place + LANES, b)
        store(target, place + 2 * LANES, c)
        store(target, place + 3 * LANES, d)


@kernel(forceinline=True)
def four_sums(matrix, entry, size, source, place):
    """Four neighbouring elements of a vector times a packed matrix, from the flat positions of both on.

    Each number of the matrix that is read serves sixteen chains, each vector of the source four states, and the eight
    sums of 512 bits that are under way are as many as hide the latency of an addition.
    """
    a = splat(0.0)
    b = splat(0.0)
    c = splat(0.0)
    d = splat(0.0)
    for i in range(size):
        mass = load(source, place + i * LANES)
        at = entry + 4 * i
        a = a + mass * spread(matrix, at)
        b = b + mass * spread(matrix, at + 1)
        c = c + mass * spread(matrix, at + 2)
        d = d + mass * spread(matrix, at + 3)
    return a, b, c, d


@kernel
def forward_tracks(
    initial: np.ndarray,
    matrix: np.ndarray,
    watch: float,
    emission: LogEmission,
    draw: int,
    tape: Tape,
    group: int,
    begin: np.ndarray,
    skip: int,
    ends: np.ndarray,
    alpha: np.ndarray,
    steps: np.ndarray,
    sums: np.ndarray,
    last: np.ndarray,
) -> bool:
    """Run 16 tracks from their step ``skip`` on; false where a probability underflows or a step is impossible.

    Parameters
    ----------
    initial : (n or 1, s)
    begin, ends : (tracks, s), p(z_t | x_<t) of the first step and of the step after the last
    alpha : (steps + 1, padded state, lane), p(z_t | x_1:t) up to a factor in row t + 1, or two blocks only
    steps : (n, t, 1) gets log p(x_t | x_<t), unless empty
    sums : (n,) gains log p(x_1:T), unless empty
    last : (n, s) gets p(z_T | x_1:T), unless empty
    """
    size = matrix.shape[0]
    columns = packed(matrix, 0.0)
    width = padded_size(size)
    laws = densities(emission, draw, size)
    block = new_block(size, laws.mean.shape[0] + laws.natural.shape[0])
    rows = block.peak.shape[0]
    totals = vectors(rows, 1)
    bases = vectors(1, rows)[0]
    expected = vectors(1, width)[0]
    carried = vectors(1, 2)[0]
    worst = carried[0]
    cursor = seek(tape, group, skip)
    stored = alpha.shape[0] > tape.n_steps
    for lane in range(LANES):
        for j in range(size):
            expected[j, lane] = begin[group * LANES + lane, j]
    gathered = vectors(1, 1)[0]
    scale = splat(1.0)
    base = splat(1.0)
    for step in range(skip, tape.n_steps, rows):
        count = min(rows, tape.n_steps - step)
        log_emissions(emission, laws, size, draw, tape, group, step, count, cursor, block)
        if not exponentials(size, count, block):
            return False
        row = step if stored else 0
        smallest = splat(1.0)
        for i in range(count):
            if step + i > skip and not block.special[i] and watch == 0.0:
                total = _advance(columns, alpha, row + i, block.values, i, scale)
            else:
                if step + i > skip:
                    propagate(columns, alpha, row + i, expected)
                store(carried, 0, scale)
                store(carried, LANES, base)
                _enter(initial, size, block, i, alpha[row + i], expected, carried)
                scale = load(carried, 0)
                base = load(carried, LANES)
                total = _weigh(expected, block.values, i, scale, alpha, row + i + 1)
                if watch > 0.0:
                    smallest = lesser(smallest, _kept(size, watch, total, expected, block, i, alpha, row + i + 1))
            store(totals, i * LANES, total)
            store(bases, i * LANES, base)
            smallest = lesser(smallest, where_seen(total, total, splat(0.0)))
            scale = inverse_power(total)
            base = total * scale
            if block.special[i] and last.shape[0] > 0:
                _leave(size, block, i, alpha[row + i + 1], totals[i, 0], last)
        store(worst, 0, smallest)
        if worst.min() < TINY:
            return False
        if steps.shape[0] + sums.shape[0] > 0:
            for i in range(count):
                place = i * LANES
                each = log(load(totals, place) / load(bases, place)) + splat(LN_2) * load(block.peak, place)
                store(totals, place, each)
                total = load(gathered, 0) + each
                store(gathered, 0, total)
                if block.special[i] and sums.shape[0] > 0:
                    _add_finished(block, i, gathered, sums)
            if steps.shape[0] > 0:
                write_rows(block, count, totals, steps)
        if not stored:
            alpha[0] = alpha[count]
    if sums.shape[0] > 0:
        for lane in range(LANES):
            if gathered[0, lane] != 0.0:
                sums[min(cursor.sequence[lane], sums.size - 1)] += gathered[0, lane]
    propagate(columns, alpha, tape.n_steps if stored else 0, expected)
    for lane in range(LANES):
        mass = expected[:size, lane].sum()
        for j in range(size):
            ends[group * LANES + lane, j] = expected[j, lane] / mass
    return True


@kernel(forceinline=True)
def _advance(columns, alpha, row, values, i, scale):
    """Row ``row + 1`` of alpha from row ``row``, and its sum."""
    blocks, size, _ = columns.shape
    width = alpha.shape[1]
    total = splat(0.0)
    for block in range(blocks):
        a, b, c, d = four_sums(columns, block * size * 4, size, alpha, row * width * LANES)
        place = (i * width + block * 4) * LANES
        a = a * (load(values, place) * scale)
        b = b * (load(values, place + LANES) * scale)
        c = c * (load(values, place + 2 * LANES) * scale)
        d = d * (load(values, place + 3 * LANES) * scale)
        place = ((row + 1) * width + block * 4) * LANES
        store(alpha, place, a)
        store(alpha, place + LANES, b)
        store(alpha, place + 2 * LANES, c)
        store(alpha, place + 3 * LANES, d)
        total = total + ((a + b) + (c + d))
    return total


@kernel(forceinline=True)
def _weigh(expected, values, i, scale, alpha, row):
    width = alpha.shape[1]
    total = splat(0.0)
    for j in range(width):
        value = load(expected, j * LANES) * (load(values, (i * width + j) * LANES) * scale)
        store(alpha, (row * width + j) * LANES, value)
        total = total + value
    return total


@kernel
def _enter(initial, size, block, i, before, expected, carried):
    """Sequences that begin at this step start from p(z_1); tracks that have run out stand still."""
    for lane in range(LANES):
        q = block.first[i, lane]
        if q >= 0:
            carried[:, lane] = 1.0
            for j in range(size):
                expected[j, lane] = initial[q % initial.shape[0], j]
        if block.spent[i, lane]:
            block.peak[i, lane] = 0.0
            for j in range(size):
                expected[j, lane] = before[j, lane]
                block.values[i, j, lane] = 1.0


@kernel
def _add_finished(block, i, gathered, sums):
    for lane in range(LANES):
        if block.final[i, lane] >= 0:
            sums[block.final[i, lane]] += gathered[0, lane]
            gathered[0, lane] = 0.0


@kernel
def _leave(size, block, i, alpha, totals, last):
    for lane in range(LANES):
        q = block.final[i, lane]
        if q >= 0:
            for j in range(size):
                last[q, j] = alpha[j, lane] / totals[lane]


@kernel(forceinline=True)
def _kept(size, watch, total, expected, block, i, alpha, row):
    """1 in the lanes where no state that might matter later has lost its mass, 0 elsewhere."""
    width = alpha.shape[1]
    bound = splat(watch) * total
    nothing = splat(0.0)
    kept = splat(1.0)
    for j in range(size):
        lost = where_less(load(alpha, (row * width + j) * LANES), bound, nothing, kept)
        lost = where_less(nothing, load(expected, j * LANES), lost, kept)
        kept = where_less(nothing, load(block.values, (i * width + j) * LANES), lost, kept)
    return kept
