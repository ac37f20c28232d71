"""Paths of one hidden Markov chain over one sequence: the most probable, and draws from the posterior."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.normal_chain import LogEmission, fill_block
from probseq.kernels.recursions import block_rows
from probseq.kernels.vector import propagate_max


@kernel
def viterbi(
    start: np.ndarray,
    logs: np.ndarray,
    turned: np.ndarray,
    emission: LogEmission,
    draw: int,
    sequence: int,
    length: int,
    score: np.ndarray,
    states: np.ndarray,
) -> float:
    """Most probable path (lowest state on ties) and its log p(x_1:T, z_1:T); ``score`` (t, s) is scratch.

    ``logs`` is the logarithm of the transition matrix, ``turned`` its transpose. Only scores are kept: choosing again
    on the way back costs one row a step, less than storing the choices.
    """
    size = start.size
    rows = block_rows(size)
    block = np.empty((rows, size))
    peak = np.empty(rows)
    best = 0.0
    padded = np.full((8, 8), -np.inf)
    if size <= 8:
        padded[:size, :size] = logs
    for first in range(0, length, rows):
        count = min(rows, length - first)
        fill_block(emission, draw, sequence, first, count, block, peak)
        if size <= 8:
            best += _score_eight(start, padded, first, count, block, peak, score)
        else:
            best += _score_columns(start, logs, first, count, block, peak, score)
    if length > 0:
        states[length - 1] = np.argmax(score[length - 1])
    for t in range(length - 2, -1, -1):
        row = turned[states[t + 1]]
        before = score[t]
        choice = 0
        top = -np.inf
        for i in range(size):
            value = before[i] + row[i]
            if value > top:
                top = value
                choice = i
        states[t] = choice
    return best


@kernel(fastmath={"nnan", "nsz"})
def _score_eight(
    start: np.ndarray,
    padded: np.ndarray,
    first: int,
    count: int,
    block: np.ndarray,
    peak: np.ndarray,
    score: np.ndarray,
) -> float:
    # Up to eight states fit a register: a fixed size lets the compiler unroll the whole step.
    size = start.size
    current = np.full(8, -np.inf)
    gained = 0.0
    for j in range(size):
        if first == 0:
            current[j] = math.log(start[j]) if start[j] > 0.0 else -np.inf
        else:
            current[j] = score[first - 1, j]
    for i in range(count):
        if first + i > 0:
            a, b, c, d = current[0], current[1], current[2], current[3]
            e, f, g, h = current[4], current[5], current[6], current[7]
            for j in range(8):
                left = max(max(a + padded[0, j], b + padded[1, j]), max(c + padded[2, j], d + padded[3, j]))
                right = max(max(e + padded[4, j], f + padded[5, j]), max(g + padded[6, j], h + padded[7, j]))
                current[j] = max(left, right)
        best = -np.inf
        for j in range(size):
            best = max(best, current[j] + block[i, j])
        if best > -np.inf and peak[i] > -np.inf:
            for j in range(size):
                current[j] += block[i, j]
            gained += peak[i]
        else:
            gained = -np.inf
        for j in range(size):
            score[first + i, j] = current[j]
    # Once in a block is enough to keep the rounding of scores from growing with the length.
    best = -np.inf
    for j in range(size):
        best = max(best, current[j])
    for j in range(size):
        score[first + count - 1, j] -= best
    return gained + best


@kernel
def _score_columns(
    start: np.ndarray,
    logs: np.ndarray,
    first: int,
    count: int,
    block: np.ndarray,
    peak: np.ndarray,
    score: np.ndarray,
) -> float:
    # A maximum along a row stays scalar code; down the columns it is vector code, which pays for many states.
    gained = 0.0
    for i in range(count):
        t = first + i
        if t == 0:
            for j in range(start.size):
                score[t, j] = math.log(start[j]) if start[j] > 0.0 else -np.inf
        else:
            propagate_max(score[t - 1], logs, score[t])
        gained += _add_emission(score[t], block[i], peak[i])
    return gained


@kernel
def _add_emission(score: np.ndarray, emission: np.ndarray, peak: float) -> float:
    # Scores are kept relative to the best so far: their rounding does not grow with the length.
    top = -np.inf
    if peak > -np.inf:
        for j in range(score.size):
            value = score[j] + emission[j]
            top = value if value > top else top
    if top > -np.inf:
        for j in range(score.size):
            score[j] += emission[j] - top
    return top + peak


@kernel
def sample_backward(
    turned: np.ndarray,
    logarithmic: bool,
    length: int,
    filtered: np.ndarray,
    uniform: np.ndarray,
    states: np.ndarray,
) -> None:
    """One path from p(z_1:T | x_1:T), backwards from ``filtered``, with one uniform number in [0, 1) for each step."""
    size = turned.shape[0]
    mass = np.empty(size)
    for t in range(length - 1, -1, -1):
        row = turned[states[t + 1]] if t + 1 < length else turned[0]
        last = t + 1 == length
        total = 0.0
        if logarithmic:
            for j in range(size):
                mass[j] = filtered[t, j] if last else filtered[t, j] + row[j]
            top = np.max(mass)
            for j in range(size):
                total += math.exp(mass[j] - top) if mass[j] > -np.inf else 0.0
                mass[j] = total
        else:
            for j in range(size):
                total += filtered[t, j] if last else filtered[t, j] * row[j]
                mass[j] = total
        goal = uniform[t] * total
        choice = 0
        while choice < size - 1 and mass[choice] <= goal:
            choice += 1
        # Rounding may carry the goal to the total: never choose a state without mass.
        while choice > 0 and mass[choice] == mass[choice - 1]:
            choice -= 1
        states[t] = choice


@kernel
def simulate_paths(initial: np.ndarray, transition: np.ndarray, uniform: np.ndarray, states: np.ndarray) -> None:
    """Forward simulation of all draws and sequences, with one uniform number for each step."""
    size = initial.shape[2]
    for draw in range(uniform.shape[0]):
        for q in range(uniform.shape[1]):
            for t in range(uniform.shape[2]):
                row = initial[draw, q % initial.shape[1]] if t == 0 else transition[draw, states[draw, q, t - 1]]
                goal = uniform[draw, q, t] * row.sum()
                choice = 0
                mass = row[0]
                while choice < size - 1 and mass <= goal:
                    choice += 1
                    mass += row[choice]
                while choice > 0 and row[choice] == 0.0:
                    choice -= 1
                states[draw, q, t] = choice
