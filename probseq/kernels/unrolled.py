"""One layer of recurrent cells over whole sequences, and its derivatives: loops over time for a block of sequences.

Sequences are rows, in multiples of ``ROWS``; units are padded to whole vectors, ``width`` of them, with weights that
are zero. Kept values of a block lie together, step after step, so that each step works on neighbours in memory.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.gates import GRU, LSTM, gate_slopes, open_gates
from probseq.kernels.panels import panel_width
from probseq.kernels.tiles import ROWS, VECTORS, blank_half, blank_one, blank_wide, put, taken, with_product

# Rows of (step, sequence) that a gradient of the weights adds up in one go.
_AT_ONCE = 128


@kernel(fastmath={"contract"})
def _enter_gates(z, read, of_inputs, hidden, before, width, size, of_memory, boundary, gates, at, columns, rows, lanes):
    """gates <- Z P + H Q for the inputs and the memory before the step; Q has the columns up to ``boundary``."""
    column = 0
    while column < columns:
        inside = column < boundary
        wide = panel_width((boundary if inside else columns) - column, lanes)
        count = size if inside else 0
        p, q = read * column, size * column
        for row in range(0, rows, ROWS):
            a, b, to = row * read, before + row * width, at + row * columns + column
            if wide == VECTORS * lanes:
                tile = with_product(blank_wide(gates), z, a, read, 1, of_inputs, p, wide, read)
                put(with_product(tile, hidden, b, width, 1, of_memory, q, wide, count), gates, to, columns)
            elif wide > lanes:
                half = with_product(blank_half(gates), z, a, read, 1, of_inputs, p, wide, read)
                put(with_product(half, hidden, b, width, 1, of_memory, q, wide, count), gates, to, columns)
            else:
                one = with_product(blank_one(gates), z, a, read, 1, of_inputs, p, wide, read)
                put(with_product(one, hidden, b, width, 1, of_memory, q, wide, count), gates, to, columns)
        column += wide


@kernel(fastmath={"contract"})
def _add_back(found, at, step, count, panels, columns, out, rows, lanes):
    """out (rows, columns) += D P for D (rows, count) from ``at`` on, rows ``step`` apart, and panels P."""
    column = 0
    while column < columns:
        wide = panel_width(columns - column, lanes)
        for row in range(0, rows, ROWS):
            a, p, to = at + row * step, count * column, row * columns + column
            if wide == VECTORS * lanes:
                tile = taken(blank_wide(out), out, to, columns)
                put(with_product(tile, found, a, step, 1, panels, p, wide, count), out, to, columns)
            elif wide > lanes:
                half = taken(blank_half(out), out, to, columns)
                put(with_product(half, found, a, step, 1, panels, p, wide, count), out, to, columns)
            else:
                one = taken(blank_one(out), out, to, columns)
                put(with_product(one, found, a, step, 1, panels, p, wide, count), out, to, columns)
        column += wide


@kernel(fastmath={"contract"})
def _add_outer(values, at, width, found, step, columns, count, sums, first, row_size, lanes):
    """sums (width, columns) += V' D from row ``first`` on, for V (count, width) and D (count, columns)."""
    column = 0
    while column < columns:
        wide = panel_width(columns - column, lanes)
        for row in range(0, width, ROWS):
            a, to = at + row, (first + row) * row_size + column
            if wide == VECTORS * lanes:
                tile = taken(blank_wide(sums), sums, to, row_size)
                put(with_product(tile, values, a, 1, width, found, column, step, count), sums, to, row_size)
            elif wide > lanes:
                half = taken(blank_half(sums), sums, to, row_size)
                put(with_product(half, values, a, 1, width, found, column, step, count), sums, to, row_size)
            else:
                one = taken(blank_one(sums), sums, to, row_size)
                put(with_product(one, values, a, 1, width, found, column, step, count), sums, to, row_size)
        column += wide


@kernel
def _write_padded(rows, first, n, out, at, n_padded, width):
    """Rows first .. first + n - 1 as rows of ``width``, filled up with zeros and with rows of them."""
    size = rows.shape[1]
    for row in range(n_padded):
        for j in range(width):
            out[at + row * width + j] = rows[first + row, j] if row < n and j < size else 0.0


@kernel
def _write(values, at, width, first, n, out):
    """The n rows of ``width`` behind each other, without what fills them up, to rows ``first`` on."""
    for row in range(n):
        for j in range(out.shape[1]):
            out[first + row, j] = values[at + row * width + j]


@kernel
def _with_ones(rows, n_inputs, width, like):
    """Room for rows of inputs, with the 1 behind them that a bias is multiplied by."""
    room = np.zeros(rows * width, like.dtype)
    for row in range(rows):
        room[row * width + n_inputs] = 1.0
    return room


@kernel
def _read_inputs(x, t, lengths, first, n, z, at, step):
    """Inputs of step t of n sequences from ``first`` on; zero beyond a sequence's end."""
    for row in range(n):
        place, inside = at + row * step, t < lengths[first + row]
        for k in range(x.shape[2]):
            z[place + k] = x[first + row, t, k] if inside else 0.0


@kernel
def run_block(
    kind: int,
    first: int,
    n: int,
    of_memory: np.ndarray,
    of_inputs: np.ndarray,
    x: np.ndarray,
    lengths: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    kept_gates: np.ndarray,
    kept_hidden: np.ndarray,
    kept_cell: np.ndarray,
    outputs: np.ndarray,
    last_h: np.ndarray,
    last_c: np.ndarray,
    width: int,
    lanes: int,
) -> None:
    """Run n sequences, those from ``first`` on (a multiple of ``ROWS``).

    Parameters
    ----------
    of_memory, of_inputs : `forward_panels`
    x : (n_all, t, i); lengths : (n_all,); h, c : (n_all, size), the memory before the first step
    kept_gates : flat, for t * columns * rows of all blocks, or for one step of them
    kept_hidden, kept_cell : flat, for (t + 1) * width * rows of all blocks, or for two steps
    outputs : (n_all, t, size); last_h, last_c : (n_all, size), the memory after each sequence's last step
    """
    steps, read, size = x.shape[1], x.shape[2] + 1, h.shape[1]
    rows = -(-n // ROWS) * ROWS
    columns = (1 if kind < GRU else 4) * width
    boundary = 3 * width if kind == GRU else columns
    padded = -(-x.shape[0] // ROWS) * ROWS
    slots, held = kept_hidden.size // (padded * width), kept_gates.size // (padded * columns)
    begin, gates = first * slots * width, first * held * columns
    _write_padded(h, first, n, kept_hidden, begin, rows, width)
    _write(kept_hidden, begin, width, first, n, last_h)
    if kind == LSTM:
        _write_padded(c, first, n, kept_cell, begin, rows, width)
        _write(kept_cell, begin, width, first, n, last_c)
    z = _with_ones(rows, x.shape[2], read, x)
    origin = first - first
    for t in range(steps):
        _read_inputs(x, t, lengths, first, n, z, origin, read)
        before = begin + (t % slots) * rows * width
        after = begin + ((t + 1) % slots) * rows * width
        at = gates + (t % held) * rows * columns
        _enter_gates(
            z,
            read,
            of_inputs,
            kept_hidden,
            before,
            width,
            size,
            of_memory,
            boundary,
            kept_gates,
            at,
            columns,
            rows,
            lanes,
        )
        open_gates(kind, kept_gates, at, kept_hidden, before, after, kept_cell, rows, width, lanes)
        for row in range(n):
            place = after + row * width
            for j in range(size):
                outputs[first + row, t, j] = kept_hidden[place + j]
            if t == lengths[first + row] - 1:
                for j in range(size):
                    last_h[first + row, j] = kept_hidden[place + j]
                    if kind == LSTM:
                        last_c[first + row, j] = kept_cell[place + j]


@kernel
def slopes_block(
    kind: int,
    first: int,
    n: int,
    of_memory: np.ndarray,
    of_inputs: np.ndarray,
    x: np.ndarray,
    lengths: np.ndarray,
    kept_gates: np.ndarray,
    kept_hidden: np.ndarray,
    kept_cell: np.ndarray,
    by_outputs: np.ndarray,
    by_last_h: np.ndarray,
    by_last_c: np.ndarray,
    sums: np.ndarray,
    by_x: np.ndarray,
    by_h: np.ndarray,
    by_c: np.ndarray,
    width: int,
    lanes: int,
) -> None:
    """Derivatives of n sequences from ``first`` on, which `run_block` has run with everything kept.

    Parameters
    ----------
    of_memory, of_inputs : `backward_panels`
    by_outputs, by_last_h, by_last_c : derivatives by the results of `run_block`
    sums : (width + padded inputs, columns), to which those by the weights are added: memory, inputs, bias
    by_x : (n_all, t, i), or empty where it is not wanted; by_h, by_c : (n_all, size)
    """
    steps, n_inputs, size = x.shape[1], x.shape[2], by_h.shape[1]
    rows = -(-n // ROWS) * ROWS
    columns = (1 if kind < GRU else 4) * width
    boundary = 3 * width if kind == GRU else columns
    begin, gates = first * (steps + 1) * width, first * steps * columns
    # Rows that lie a power of two apart would crowd into few places of the cache.
    stride = columns + lanes
    read = sums.shape[0] - width
    x_columns = -(-n_inputs // lanes) * lanes
    at_once = max(1, _AT_ONCE // rows)
    slope, cell_slope = np.zeros(rows * width, x.dtype), np.zeros(rows * width, x.dtype)
    found = np.zeros(at_once * rows * stride, x.dtype)
    z = _with_ones(at_once * rows, n_inputs, read, x)
    x_slope = np.empty(rows * x_columns, x.dtype)
    flat_sums = sums.reshape(sums.size)
    origin = first - first
    stop = steps
    while stop > 0:
        start = max(0, stop - at_once)
        for t in range(stop - 1, start - 1, -1):
            for row in range(n):
                for j in range(size):
                    slope[row * width + j] += by_outputs[first + row, t, j]
                if t == lengths[first + row] - 1:
                    for j in range(size):
                        slope[row * width + j] += by_last_h[first + row, j]
                        if kind == LSTM:
                            cell_slope[row * width + j] += by_last_c[first + row, j]
            before, after = begin + t * rows * width, begin + (t + 1) * rows * width
            at, opened = (t - start) * rows * stride, gates + t * rows * columns
            gate_slopes(
                kind, kept_gates, opened, kept_hidden, before, after, kept_cell, slope, cell_slope, found, at, stride,
                rows, width, lanes,
            )  # fmt: skip
            _add_back(found, at, stride, boundary, of_memory, width, slope, rows, lanes)
            _read_inputs(x, t, lengths, first, n, z, (t - start) * rows * read, read)
            if by_x.size:
                for k in range(x_slope.size):
                    x_slope[k] = 0.0
                _add_back(found, at + columns - boundary, stride, boundary, of_inputs, x_columns, x_slope, rows, lanes)
                for row in range(n):
                    inside = t < lengths[first + row]
                    for k in range(n_inputs):
                        by_x[first + row, t, k] = x_slope[row * x_columns + k] if inside else 0.0
        count = (stop - start) * rows
        at = begin + start * rows * width
        _add_outer(kept_hidden, at, width, found, stride, boundary, count, flat_sums, origin, columns, lanes)
        _add_outer(z, origin, read, found, stride, columns, count, flat_sums, width, columns, lanes)
        stop = start
    _write(slope, origin, width, first, n, by_h)
    if kind == LSTM:
        _write(cell_slope, origin, width, first, n, by_c)
    for row in range(n):
        if lengths[first + row] == 0:
            for j in range(size):
                by_h[first + row, j] += by_last_h[first + row, j]
                if kind == LSTM:
                    by_c[first + row, j] += by_last_c[first + row, j]
