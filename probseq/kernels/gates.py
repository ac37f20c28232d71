"""Gates of recurrent cells, one step of some sequences at a time, and their derivatives.

Every array is flat; units are padded to whole vectors, ``width`` of them, and columns of gates come in groups of that
many: input, forget, new, output for the LSTM; what the memory gives to the new value, reset, keep, and what the input
gives to it for the GRU; one group for the plain cells.
"""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.tiles import load, ones_like, sigmoid, store, tanh, where_positive

TANH, RELU, GRU, LSTM = 0, 1, 2, 3


@kernel(fastmath={"contract"})
def open_gates(
    kind: int,
    gates: np.ndarray,
    place: int,
    hidden: np.ndarray,
    before: int,
    after: int,
    cell: np.ndarray,
    rows: int,
    width: int,
    lanes: int,
) -> None:
    """The memory after a step from what enters its gates, which are left open: what the derivatives need of them.

    Parameters
    ----------
    gates : from ``place`` on (rows, groups * width); behind it sigmoid or tanh of each, but for what the memory gives
        to the new value of a GRU
    hidden, cell : (rows, width) from ``before`` on is read, from ``after`` on written; ``cell`` of the LSTM only
    """
    groups = 1 if kind < GRU else 4
    for row in range(rows):
        first = place + row * groups * width
        old = before + row * width
        new = after + row * width
        for unit in range(0, width, lanes):
            at = first + unit
            if kind == LSTM:
                enter = sigmoid(load(gates, at))
                forget = sigmoid(load(gates, at + width))
                value = tanh(load(gates, at + 2 * width))
                leave = sigmoid(load(gates, at + 3 * width))
                held = forget * load(cell, old + unit) + enter * value
                store(gates, at, enter)
                store(gates, at + width, forget)
                store(gates, at + 2 * width, value)
                store(gates, at + 3 * width, leave)
                store(cell, new + unit, held)
                store(hidden, new + unit, leave * tanh(held))
            elif kind == GRU:
                reset = sigmoid(load(gates, at + width))
                keep = sigmoid(load(gates, at + 2 * width))
                value = tanh(load(gates, at + 3 * width) + reset * load(gates, at))
                store(gates, at + width, reset)
                store(gates, at + 2 * width, keep)
                store(gates, at + 3 * width, value)
                store(hidden, new + unit, value + keep * (load(hidden, old + unit) - value))
            else:
                value = load(gates, at)
                value = tanh(value) if kind == TANH else where_positive(value, value)
                store(hidden, new + unit, value)


@kernel(fastmath={"contract"})
def gate_slopes(
    kind: int,
    gates: np.ndarray,
    place: int,
    hidden: np.ndarray,
    before: int,
    after: int,
    cell: np.ndarray,
    slope: np.ndarray,
    cell_slope: np.ndarray,
    found: np.ndarray,
    at: int,
    step: int,
    rows: int,
    width: int,
    lanes: int,
) -> None:
    """Derivatives by what entered the gates, from those by the memory after the step.

    Parameters
    ----------
    gates, hidden, cell : as `open_gates` left them
    slope, cell_slope : (rows, width), by the memory after the step; behind it the part of those by the memory before
        the step that does not pass through the recurrent matrix
    found : from ``at`` on (rows, groups * width), rows ``step`` apart
    """
    groups = 1 if kind < GRU else 4
    for row in range(rows):
        first = place + row * groups * width
        to = at + row * step
        for unit in range(0, width, lanes):
            here = row * width + unit
            d = load(slope, here)
            one = ones_like(d)
            if kind == LSTM:
                enter = load(gates, first + unit)
                forget = load(gates, first + unit + width)
                value = load(gates, first + unit + 2 * width)
                leave = load(gates, first + unit + 3 * width)
                shown = tanh(load(cell, after + here))
                dc = load(cell_slope, here) + d * leave * (one - shown * shown)
                store(found, to + unit, dc * value * enter * (one - enter))
                store(found, to + unit + width, dc * load(cell, before + here) * forget * (one - forget))
                store(found, to + unit + 2 * width, dc * enter * (one - value * value))
                store(found, to + unit + 3 * width, d * shown * leave * (one - leave))
                store(cell_slope, here, dc * forget)
                store(slope, here, d - d)
            elif kind == GRU:
                given = load(gates, first + unit)
                reset = load(gates, first + unit + width)
                keep = load(gates, first + unit + 2 * width)
                value = load(gates, first + unit + 3 * width)
                inner = d * (one - keep) * (one - value * value)
                store(found, to + unit, inner * reset)
                store(found, to + unit + width, inner * given * reset * (one - reset))
                store(found, to + unit + 2 * width, d * (load(hidden, before + here) - value) * keep * (one - keep))
                store(found, to + unit + 3 * width, inner)
                store(slope, here, d * keep)
            else:
                value = load(hidden, after + here)
                store(found, to + unit, d * (one - value * value) if kind == TANH else where_positive(value, d))
                store(slope, here, d - d)
