"""Segments of one hidden semi-Markov chain over one sequence: draws from the posterior, and simulation."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.elapsed import forward, gains, log_masses, refill


@kernel
def _choose(masses: np.ndarray, uniform: float) -> tuple[int, float]:
    """An index with probability proportional to exp(masses), and a uniform number made of what is left over."""
    top = np.max(masses)
    total = 0.0
    for value in masses:
        total += math.exp(value - top)
    goal = uniform * total
    below = 0.0
    choice = -1
    for k in range(masses.size):
        mass = math.exp(masses[k] - top)
        # Rounding may carry the goal to the total: never choose what has no mass.
        if mass > 0.0:
            choice = k
            if below + mass > goal:
                return k, min((goal - below) / mass, 1.0)
        below += mass
    return choice, 0.5


@kernel
def sample(
    belief: np.ndarray,
    trans: np.ndarray,
    leave: np.ndarray,
    stay: np.ndarray,
    table: np.ndarray,
    length: int,
    every: int,
    uniform: np.ndarray,
    states: np.ndarray,
) -> None:
    """Paths from p(z_1:T | x_1:T), backwards, one segment at a time; ``uniform`` and ``states`` are (path, t)."""
    if length == 0:
        return
    size, width = belief.shape
    none = np.empty((0, size))
    steps = np.empty(length)
    entry = np.empty((length, size))
    left = np.empty((length, size))
    marks = np.empty(((length - 1) // every + 1, size, width))
    forward(belief, trans, leave, stay, table, length, steps, none, none, entry, left, marks, every)
    rows = np.empty((every, size, width))
    gain = np.empty(size)
    n_paths = uniform.shape[0]
    cursor = np.full(n_paths, length - 1)
    # What follows the cursor's step: nothing, the entry of a state, or a state at the maximal duration.
    follow = np.full(n_paths, -1)
    entered = np.ones(n_paths, dtype=np.bool_)
    mass = np.empty(size)
    for block in range((length - 1) // every, -1, -1):
        lo = block * every
        refill(marks[block], stay, table, steps, entry, lo, min(length, lo + every), rows)
        for path in range(n_paths):
            while cursor[path] >= lo:
                t = cursor[path]
                u = uniform[path, t]
                row = rows[t - lo]
                j = follow[path]
                d = -1
                if j < 0:
                    gains(table[t], steps[t], gain)
                    for i in range(size):
                        mass[i] = log_masses(row[i], stay[i])[0] + gain[i]
                    j, u = _choose(mass, u)
                    d = _choose(row[j], u)[0]
                elif not entered[path]:
                    gains(table[t], steps[t], gain)
                    d, u = _before_the_last(row[j], stay[j], entry[t + 1, j], gain[j], u)
                if d < 0:
                    for i in range(size):
                        mass[i] = left[t, i] + trans[i, j]
                    j, u = _choose(mass, u)
                    d = _choose(row[j] + leave[j], u)[0]
                follow[path] = j
                entered[path] = d < width - 1
                begin = t - d if entered[path] else t
                for step in range(max(begin, 0), t + 1):
                    states[path, step] = j
                cursor[path] = begin - 1


@kernel
def _before_the_last(row: np.ndarray, stay: np.ndarray, entry: float, gain: float, uniform: float) -> tuple[int, float]:
    # The elapsed duration a step before the maximal one; -1 where the state was entered just then (maximum of 1).
    last = row.size - 1
    masses = np.empty(2)
    masses[1] = row[last] + stay[last] + gain
    masses[0] = row[last - 1] + stay[last - 1] + gain if last > 0 else entry
    choice, u = _choose(masses, uniform)
    return last - 1 + choice, u


@kernel
def simulate(belief: np.ndarray, trans: np.ndarray, leave: np.ndarray, uniform: np.ndarray, states: np.ndarray) -> None:
    """One path from p(z_1:T), with one uniform number for each step."""
    size, width = belief.shape
    mass = np.empty(size)
    state = 0
    d = 0
    for t in range(states.size):
        u = uniform[t]
        if t == 0:
            for j in range(size):
                mass[j] = log_masses(belief[j], leave[j])[0]
            state, u = _choose(mass, u)
            d = _choose(belief[state], u)[0]
        else:
            hazard = math.exp(leave[state, d])
            if u < hazard:
                state = _choose(trans[state], u / hazard)[0]
                d = 0
            else:
                d = min(d + 1, width - 1)
        states[t] = state
