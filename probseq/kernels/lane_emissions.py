"""Emissions of sixteen tracks, relative to the best state of each step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lanes import LANES, exp2, greater, load, splat, spread, store, where_seen
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.tracks import Block, Cursor, Tape, lay_out, padded_size, read_block

_LOG2_E = 1.4426950408889634


class Densities(NamedTuple):
    """Normals of one draw, (variable, padded state), and the sum of their constants (padded state,), in bits.

    The log density of x is constant + half (x - mean)^2. For exponential families ``natural`` is
    (statistic, padded state).
    """

    mean: np.ndarray
    half: np.ndarray
    constant: np.ndarray
    total: np.ndarray
    natural: np.ndarray


@kernel
def densities(emission: LogEmission, draw: int, size: int) -> Densities:
    """Parameters of one draw in the units of the lanes; empty for a table."""
    width = padded_size(size)
    d = emission.mean.shape[1]
    f = emission.natural.shape[1]
    out = Densities(
        np.zeros((d, width)), np.zeros((d, width)), np.zeros((d, width)), np.zeros(width), np.zeros((f, width))
    )
    for i in range(f):
        for j in range(size):
            out.natural[i, j] = _LOG2_E * emission.natural[draw % emission.natural.shape[0], i, j]
    if emission.mean.size > 0:
        k = draw % emission.mean.shape[0]
        for i in range(d):
            for j in range(size):
                out.mean[i, j] = emission.mean[k, i, j]
                out.half[i, j] = -0.5 * _LOG2_E * emission.precision[k, i, j]
                out.constant[i, j] = _LOG2_E * emission.constant[k, i, j]
                out.total[j] += out.constant[i, j]
    return out


@kernel
def log_emissions(
    emission: LogEmission,
    laws: Densities,
    size: int,
    draw: int,
    tape: Tape,
    group: int,
    step: int,
    count: int,
    cursor: Cursor,
    block: Block,
) -> bool:
    """``values`` <- log emissions in bits, of steps ``step`` to ``step + count``; returns whether ``x`` has holes."""
    lay_out(tape, group, step, count, cursor, block)
    missing = read_block(emission, draw, count, block)
    if laws.natural.size > 0:
        _linear(laws.natural, count, block.x, block.values)
    if laws.mean.size == 0:
        return False
    if missing:
        _normals_with_holes(laws, size, count, block.x, block.values)
    else:
        _normals(laws, count, block.x, block.values)
    return missing


@kernel
def _normals(laws: Densities, count: int, x: np.ndarray, values: np.ndarray) -> None:
    n_variables, width = laws.mean.shape
    for i in range(count):
        for j in range(0, width, 4):
            a = spread(laws.total, j)
            b = spread(laws.total, j + 1)
            c = spread(laws.total, j + 2)
            d = spread(laws.total, j + 3)
            for k in range(n_variables):
                point = load(x, (i * n_variables + k) * LANES)
                place = k * width + j
                gap = point - spread(laws.mean, place)
                a = a + gap * (gap * spread(laws.half, place))
                gap = point - spread(laws.mean, place + 1)
                b = b + gap * (gap * spread(laws.half, place + 1))
                gap = point - spread(laws.mean, place + 2)
                c = c + gap * (gap * spread(laws.half, place + 2))
                gap = point - spread(laws.mean, place + 3)
                d = d + gap * (gap * spread(laws.half, place + 3))
            place = (i * width + j) * LANES
            store(values, place, a)
            store(values, place + LANES, b)
            store(values, place + 2 * LANES, c)
            store(values, place + 3 * LANES, d)


@kernel
def _linear(natural: np.ndarray, count: int, x: np.ndarray, values: np.ndarray) -> None:
    n_statistics, width = natural.shape
    room = x.shape[1]
    for i in range(count):
        for j in range(0, width, 4):
            a = splat(0.0)
            b = splat(0.0)
            c = splat(0.0)
            d = splat(0.0)
            for k in range(n_statistics):
                value = load(x, (i * room + k) * LANES)
                place = k * width + j
                a = a + value * spread(natural, place)
                b = b + value * spread(natural, place + 1)
                c = c + value * spread(natural, place + 2)
                d = d + value * spread(natural, place + 3)
            place = (i * width + j) * LANES
            store(values, place, a)
            store(values, place + LANES, b)
            store(values, place + 2 * LANES, c)
            store(values, place + 3 * LANES, d)


@kernel
def _normals_with_holes(laws: Densities, size: int, count: int, x: np.ndarray, values: np.ndarray) -> None:
    n_variables, width = laws.mean.shape
    nothing = splat(0.0)
    for i in range(count):
        for j in range(size):
            a = nothing
            for k in range(n_variables):
                point = load(x, (i * n_variables + k) * LANES)
                place = k * width + j
                gap = point - spread(laws.mean, place)
                value = spread(laws.constant, place) + gap * (gap * spread(laws.half, place))
                a = a + where_seen(point, value, nothing)
            store(values, (i * width + j) * LANES, a)


@kernel
def exponentials(size: int, count: int, block: Block) -> bool:
    """``values`` <- 2^(values - peak), ``peak`` <- the largest of the step; false where no state can emit a step."""
    width = block.values.shape[1]
    lowest = splat(0.0)
    for i in range(count):
        peak = load(block.values, i * width * LANES)
        for j in range(1, size):
            peak = greater(peak, load(block.values, (i * width + j) * LANES))
        store(block.peak, i * LANES, peak)
        lowest = lowest + splat(0.0) * peak
        for j in range(size):
            place = (i * width + j) * LANES
            store(block.values, place, exp2(load(block.values, place) - peak))
        for j in range(size, width):
            store(block.values, (i * width + j) * LANES, splat(0.0))
    check = np.empty(LANES)
    store(check, 0, lowest)
    return check.sum() == 0.0
