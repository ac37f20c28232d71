"""Weights of a recurrent layer cut into panels: the columns that a tile is wide, in one piece of memory each.

``flat`` is the input matrix, the recurrent matrix and the two biases of a layer, as torch lays them out. A matrix with
K rows has its panel of ``wide`` columns from column c on at the places K c + k wide, k < K.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.gates import GRU
from probseq.kernels.tiles import VECTORS

# Rows that are turned at a time: one line of the cache of each.
_TURNED = 16


@kernel
def panel_width(left: int, lanes: int) -> int:
    """Columns of the next panel where ``left`` are left."""
    if left >= VECTORS * lanes:
        return VECTORS * lanes
    if left >= VECTORS // 2 * lanes:
        return VECTORS // 2 * lanes
    return lanes


@kernel
def _block(kind: int, group: int, memory: bool) -> int:
    """The block of rows of a matrix of torch that a group of columns has; -1 for none."""
    if kind != GRU:
        return group
    if memory:
        return 2 if group == 0 else group - 1 if group < 3 else -1
    return group - 1


@kernel
def _turned(kind, flat, at, memory, n_columns, size, width, boundary, out, n_rows, lanes):
    """Panels of the transpose of the matrix (blocks * size, n_columns) that begins ``at``."""
    columns = out.size // n_rows
    start = 0
    while start < columns:
        wide = panel_width((boundary if start < boundary else columns) - start, lanes)
        for first in range(0, n_columns, _TURNED):
            last = min(first + _TURNED, n_columns)
            for j in range(wide):
                block, unit = _block(kind, (start + j) // width, memory), (start + j) % width
                if block >= 0 and unit < size:
                    row = at + (block * size + unit) * n_columns
                    to = n_rows * start + j
                    for k in range(first, last):
                        out[to + k * wide] = flat[row + k]
        start += wide


@kernel
def _straight(kind, flat, at, memory, n_columns, size, width, skipped, out, columns, lanes):
    """Panels of the matrix (blocks * size, n_columns) that begins ``at``, by groups from ``skipped`` on."""
    n_rows = out.size // columns
    start = 0
    while start < columns:
        wide = panel_width(columns - start, lanes)
        for row in range(n_rows):
            block, unit = _block(kind, row // width + skipped, memory), row % width
            if unit < size:
                place = at + (block * size + unit) * n_columns + start
                to = n_rows * start + row * wide
                for j in range(min(wide, n_columns - start)):
                    out[to + j] = flat[place + j]
        start += wide


@kernel
def forward_panels(
    kind: int, flat: np.ndarray, n_inputs: int, size: int, width: int, lanes: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the memory (size) and the inputs with a 1 behind them (i + 1) are multiplied by."""
    groups = 1 if kind < GRU else 4
    blocks = 3 if kind == GRU else groups
    recurrent = blocks * size * n_inputs
    bias = recurrent + blocks * size * size
    boundary, n_rows = blocks * width, n_inputs + 1
    of_memory = np.zeros(size * boundary, flat.dtype)
    of_inputs = np.zeros(n_rows * groups * width, flat.dtype)
    _turned(kind, flat, recurrent, True, size, size, width, boundary, of_memory, size, lanes)
    _turned(kind, flat, 0, False, n_inputs, size, width, boundary, of_inputs, n_rows, lanes)
    columns = groups * width
    start = 0
    while start < columns:
        wide = panel_width((boundary if start < boundary else columns) - start, lanes)
        for j in range(wide):
            group, unit = (start + j) // width, (start + j) % width
            to = n_rows * start + n_inputs * wide + j
            read, kept = _block(kind, group, False), _block(kind, group, True)
            if unit < size and read >= 0:
                of_inputs[to] += flat[bias + read * size + unit]
            if unit < size and kept >= 0:
                of_inputs[to] += flat[bias + (blocks + kept) * size + unit]
        start += wide
    return of_memory, of_inputs


@kernel
def backward_panels(
    kind: int, flat: np.ndarray, n_inputs: int, size: int, width: int, lanes: int
) -> tuple[np.ndarray, np.ndarray]:
    """What slopes by the gates are multiplied by, for those by the memory and by the inputs, both padded."""
    blocks = 1 if kind < GRU else 3 if kind == GRU else 4
    padded = -(-n_inputs // lanes) * lanes
    of_memory = np.zeros(blocks * width * width, flat.dtype)
    of_inputs = np.zeros(blocks * width * padded, flat.dtype)
    skipped = 1 if kind == GRU else 0
    _straight(kind, flat, blocks * size * n_inputs, True, size, size, width, 0, of_memory, width, lanes)
    _straight(kind, flat, 0, False, n_inputs, size, width, skipped, of_inputs, padded, lanes)
    return of_memory, of_inputs


@kernel
def gathered(kind: int, sums: np.ndarray, n_inputs: int, size: int, width: int, flat: np.ndarray) -> None:
    """The gradient as torch lays the weights out, from ([memory, inputs, bias], columns)."""
    groups = 1 if kind < GRU else 4
    blocks = 3 if kind == GRU else groups
    recurrent = blocks * size * n_inputs
    bias = recurrent + blocks * size * size
    for group in range(groups):
        read, kept = _block(kind, group, False), _block(kind, group, True)
        for first in range(0, size, _TURNED):
            last = min(first + _TURNED, size)
            if kept >= 0:
                for k in range(size):
                    for unit in range(first, last):
                        place = recurrent + (kept * size + unit) * size + k
                        flat[place] = sums[k, group * width + unit]
            if read >= 0:
                for k in range(n_inputs):
                    for unit in range(first, last):
                        flat[(read * size + unit) * n_inputs + k] = sums[width + k, group * width + unit]
        for unit in range(size):
            value = sums[width + n_inputs, group * width + unit]
            if kept >= 0:
                flat[bias + (blocks + kept) * size + unit] = value
            if read >= 0:
                flat[bias + read * size + unit] = value
