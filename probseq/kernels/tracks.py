"""Sequences laid end to end on one tape, cut into equally long tracks that advance side by side, one in each lane.

A cut may fall inside a sequence. What a track must know of the steps before its first is then guessed from a short
run over the end of the track before, and the guess is checked afterwards (see `sweeps`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lanes import LANES, four_columns, load, splat, store, store_columns, vectors
from probseq.kernels.normal_chain import LogEmission

_LOG2_E = 1.4426950408889634


class Tape(NamedTuple):
    """``offsets`` (n + 1,): where each sequence begins; ``begin`` (tracks + 1,): where each track begins.

    ``n_steps`` is the length of the longest track; the others are at most one step shorter.
    """

    offsets: np.ndarray
    begin: np.ndarray
    n_steps: int


class Cursor(NamedTuple):
    """Sequence and step that each lane reads next."""

    sequence: np.ndarray
    time: np.ndarray


class Block(NamedTuple):
    """A few steps of sixteen tracks.

    ``x`` (step, variable or statistic, lane); ``values`` (step, state, lane), padded to a multiple of four states, log
    emissions in bits and then emissions relative to the best state; ``peak`` (step, lane) the logarithm of the best, in
    bits.
    ``runs`` (any, 5) tells where the steps lie: lane, first step, number, sequence, time; there are ``n_runs[0]``.
    ``first`` and ``final`` (step, lane): the sequence that begins or ends there, or -1. ``special`` (step,): whether
    anything in these two is set, or a track has run out (``spent``).
    """

    x: np.ndarray
    values: np.ndarray
    peak: np.ndarray
    runs: np.ndarray
    n_runs: np.ndarray
    first: np.ndarray
    final: np.ndarray
    spent: np.ndarray
    special: np.ndarray


def cut_tape(lengths: np.ndarray, n_groups: int) -> Tape:
    """Cut all sequences, one after the other, into 16 tracks for each group, equally long up to one step."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n_tracks = n_groups * LANES
    begin = np.arange(n_tracks + 1) * offsets[-1] // n_tracks
    return Tape(offsets, begin, int(np.diff(begin).max()))


@kernel
def padded_size(size: int) -> int:
    """The next multiple of four, the number of states that are worked on together."""
    return (size + 3) // 4 * 4


@kernel
def block_steps(size: int) -> int:
    """Steps in one block, so many as stay in fast memory."""
    return max(4, min(64, 512 // padded_size(size)))


@kernel
def new_block(size: int, n_variables: int) -> Block:
    """Room for one block."""
    width = padded_size(size)
    steps = block_steps(size)
    return Block(
        vectors(steps, n_variables),
        vectors(steps, width),
        vectors(1, steps)[0],
        np.zeros((LANES * steps, 5), dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.full((steps, LANES), -1),
        np.full((steps, LANES), -1),
        np.zeros((steps, LANES), dtype=np.bool_),
        np.zeros(steps, dtype=np.bool_),
    )


@kernel
def seek(tape: Tape, group: int, step: int) -> Cursor:
    """The cursor at one step of sixteen tracks."""
    cursor = Cursor(np.empty(LANES, dtype=np.int64), np.empty(LANES, dtype=np.int64))
    for lane in range(LANES):
        position = tape.begin[group * LANES + lane] + step
        sequence = np.searchsorted(tape.offsets, position, side="right") - 1
        cursor.sequence[lane] = sequence
        cursor.time[lane] = position - tape.offsets[sequence]
    return cursor


@kernel
def lay_out(tape: Tape, group: int, step: int, count: int, cursor: Cursor, block: Block) -> None:
    """Find the runs of the next ``count`` steps and mark where sequences begin and end; the cursor moves on."""
    for i in range(block.special.size):
        if block.special[i]:
            block.special[i] = False
            block.first[i] = -1
            block.final[i] = -1
            block.spent[i] = False
    number = 0
    for lane in range(LANES):
        track = group * LANES + lane
        stop = max(0, min(count, tape.begin[track + 1] - tape.begin[track] - step))
        q = cursor.sequence[lane]
        t = cursor.time[lane]
        i = 0
        while i < stop:
            length = tape.offsets[q + 1] - tape.offsets[q]
            if t >= length:
                q += 1
                t = 0
                continue
            size = min(stop - i, length - t)
            block.runs[number] = (lane, i, size, q, t)
            number += 1
            if t == 0:
                block.first[i, lane] = q
                block.special[i] = True
            i += size
            t += size
            if t == length:
                block.final[i - 1, lane] = q
                block.special[i - 1] = True
        for k in range(stop, count):
            block.spent[k, lane] = True
            block.special[k] = True
        cursor.sequence[lane] = q
        cursor.time[lane] = t
    block.n_runs[0] = number


@kernel
def read_block(emission: LogEmission, draw: int, count: int, block: Block) -> bool:
    """Fill ``x``, or ``values`` from a table, with zeros where a track has run out; whether a coordinate is missing."""
    missing = False
    if emission.mean.size > 0 and _runs_through(block, count):
        return _read_sixteen(emission.x, count, block)
    coded = emission.codes.shape[0] > 0
    for lane, i, size, q, t in block.runs[: block.n_runs[0]]:
        if emission.mean.size > 0:
            missing = _read_x(emission.x[q], t, size, block.x, i, lane) or missing
        elif emission.natural.size > 0:
            _read_x(emission.statistics[q], t, size, block.x, i, lane)
        elif coded:
            table = emission.table[draw % emission.table.shape[0], 0]
            _read_codes(table, emission.codes[q], t, size, block.values, i, lane)
        else:
            _read_table(emission.table[draw % emission.table.shape[0], q], t, size, block.values, i, lane)
    for i in range(count):
        if block.special[i]:
            for lane in range(LANES):
                if block.spent[i, lane]:
                    block.x[i, :, lane] = 0.0
                    block.values[i, :, lane] = 0.0
    return missing


@kernel
def read_statistics(emission: LogEmission, block: Block) -> None:
    """Fill ``x`` with statistics that stand beside a table."""
    for lane, i, size, q, t in block.runs[: block.n_runs[0]]:
        _read_x(emission.statistics[q], t, size, block.x, i, lane)


@kernel
def _runs_through(block: Block, count: int) -> bool:
    """Whether each lane reads one run of ``count`` steps."""
    if block.n_runs[0] != LANES:
        return False
    for lane in range(LANES):
        if block.runs[lane, 2] != count:
            return False
    return True


@kernel
def _places(block: Block, n_steps: int) -> np.ndarray:
    """Where the run of each lane begins in an array (sequence, ``n_steps``)."""
    places = np.empty(LANES, dtype=np.int64)
    for lane in range(LANES):
        places[lane] = block.runs[lane, 3] * n_steps + block.runs[lane, 4]
    return places


@kernel
def _read_sixteen(x: np.ndarray, count: int, block: Block) -> bool:
    """``x`` of one run a lane, four numbers of each lane at a time; whether one is missing."""
    _, n_steps, n_variables = x.shape
    places = _places(block, n_steps) * n_variables
    size = count * n_variables
    found = splat(0.0)
    for i in range(0, size - 3, 4):
        a, b, c, d = four_columns(x, places, i)
        store(block.x, i * LANES, a)
        store(block.x, (i + 1) * LANES, b)
        store(block.x, (i + 2) * LANES, c)
        store(block.x, (i + 3) * LANES, d)
        found = found + splat(0.0) * ((a + b) + (c + d))
    source = x.reshape(-1)
    target = block.x.reshape(-1)
    for i in range(size - size % 4, size):
        for lane in range(LANES):
            target[i * LANES + lane] = source[places[lane] + i]
        found = found + splat(0.0) * load(block.x, i * LANES)
    check = np.empty(LANES)
    store(check, 0, found)
    return not check.sum() == 0.0


@kernel
def _read_x(x, t, run, out, i, lane):
    missing = False
    for d in range(x.shape[1]):
        for k in range(run):
            value = x[t + k, d]
            out[i + k, d, lane] = value
            missing |= value != value
    return missing


@kernel
def _read_table(table, t, run, out, i, lane):
    for k in range(run):
        for j in range(table.shape[1]):
            out[i + k, j, lane] = table[t + k, j] * _LOG2_E


@kernel
def _read_codes(table, codes, t, run, out, i, lane):
    for k in range(run):
        code = codes[t + k]
        for j in range(table.shape[1]):
            out[i + k, j, lane] = table[code, j] * _LOG2_E


@kernel
def write_rows(block: Block, count: int, source: np.ndarray, target: np.ndarray) -> None:
    """target (sequence, time, k) <- ``count`` rows of source (step, k or more, lane), where the tracks have a step."""
    first = _write_sixteen(block, count, source, target) if target.shape[2] == 1 else 0
    for lane, i, size, q, t in block.runs[: block.n_runs[0]]:
        for j in range(target.shape[2]):
            for k in range(first, size):
                target[q, t + k, j] = source[i + k, j, lane]


@kernel
def write_states(block: Block, count: int, source: np.ndarray, target: np.ndarray) -> None:
    """target (sequence, time) <- ``count`` rows of source (step, lane), where the tracks have a step."""
    first = _write_sixteen(block, count, source, target)
    for lane, i, size, q, t in block.runs[: block.n_runs[0]]:
        row = target[q]
        for k in range(first, size):
            row[t + k] = source[i + k, lane]


@kernel
def _write_sixteen(block, count, source, target):
    """Four rows at a time where each lane has one run; how many rows are done."""
    if not _runs_through(block, count):
        return 0
    places = _places(block, target.shape[1])
    row = source.size // source.shape[0]
    done = count - count % 4
    for i in range(0, done, 4):
        place = i * row
        a, b = load(source, place), load(source, place + row)
        c, d = load(source, place + 2 * row), load(source, place + 3 * row)
        store_columns(target, places, i, a, b, c, d)
    return done


@kernel
def starts_inside(tape: Tape, track: int) -> bool:
    """Whether a track begins inside a sequence, so that its first step depends on the track before."""
    sequence = np.searchsorted(tape.offsets, tape.begin[track], side="right") - 1
    return tape.begin[track] > tape.offsets[sequence]
