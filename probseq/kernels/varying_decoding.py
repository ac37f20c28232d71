"""Paths of one hidden chain whose transition matrix changes with the step: the most probable, and draws."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.normal_chain import LogEmission, fill_block
from probseq.kernels.varying_recursions import ROWS, log_entries, log_probability
from probseq.kernels.vector import propagate_max


@kernel
def varying_viterbi(
    start: np.ndarray,
    matrices: np.ndarray,
    emission: LogEmission,
    draw: int,
    sequence: int,
    length: int,
    score: np.ndarray,
    states: np.ndarray,
) -> float:
    """Most probable path (lowest state on ties) and its log p(x_1:T, z_1:T); ``score`` (t, s) is scratch."""
    size = start.size
    block = np.empty((ROWS, size))
    peak = np.empty(ROWS)
    logs = np.empty((size, size))
    best = 0.0
    for t in range(length):
        i = t % ROWS
        if i == 0:
            fill_block(emission, draw, sequence, t, min(ROWS, length - t), block, peak)
        if t == 0:
            for j in range(size):
                score[0, j] = log_probability(start[j])
        else:
            log_entries(matrices[t], logs)
            propagate_max(score[t - 1], logs, score[t])
        # Scores are kept relative to the best so far: their rounding does not grow with the length.
        top = -np.inf
        if peak[i] > -np.inf:
            for j in range(size):
                top = max(top, score[t, j] + block[i, j])
        best += top + peak[i] if top > -np.inf else -np.inf
        if top > -np.inf:
            for j in range(size):
                score[t, j] += block[i, j] - top
    if length > 0:
        states[length - 1] = np.argmax(score[length - 1])
    for t in range(length - 2, -1, -1):
        choice = 0
        top = -np.inf
        for i in range(size):
            value = score[t, i] + log_probability(matrices[t + 1, i, states[t + 1]])
            if value > top:
                top = value
                choice = i
        states[t] = choice
    return best


@kernel
def varying_sample(
    matrices: np.ndarray,
    logarithmic: bool,
    length: int,
    filtered: np.ndarray,
    uniform: np.ndarray,
    states: np.ndarray,
) -> None:
    """One path from p(z_1:T | x_1:T), backwards from ``filtered``, with one uniform number in [0, 1) for each step."""
    size = matrices.shape[1]
    mass = np.empty(size)
    for t in range(length - 1, -1, -1):
        for j in range(size):
            mass[j] = filtered[t, j]
            if t + 1 < length:
                move = matrices[t + 1, j, states[t + 1]]
                mass[j] = mass[j] + log_probability(move) if logarithmic else mass[j] * move
        if logarithmic:
            top = np.max(mass)
            for j in range(size):
                mass[j] = math.exp(mass[j] - top)
        states[t] = choose(mass, uniform[t])


@kernel
def choose(mass: np.ndarray, uniform: float) -> int:
    """Index drawn with probabilities proportional to ``mass``, never one without mass."""
    total = 0.0
    for value in mass:
        total += value
    goal = uniform * total
    choice = 0
    reached = mass[0]
    while choice < mass.size - 1 and reached <= goal:
        choice += 1
        reached += mass[choice]
    # Rounding may carry the goal to the total.
    while choice > 0 and mass[choice] == 0.0:
        choice -= 1
    return choice
