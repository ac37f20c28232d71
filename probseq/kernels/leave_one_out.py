"""What the other steps say about each step of a hidden chain: p(z_t | x_u for all u != t), in logarithms.

Forward and backward messages meet at a step without its own emission. Logarithms keep exact zeros exact: a step whose
own observation rules a state out says nothing here.
"""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.threads import run_blocks

__all__ = ["leave_one_out"]


def leave_one_out(
    initial: np.ndarray, transition: np.ndarray, log_emission: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """p(z_t | x_u, u != t) (D, n, t, s) and log p(x_u, u != t) (D, n, t), exact; zeros beyond a sequence's end.

    As in the filter, an observation that no state can emit counts as unseen.

    Parameters
    ----------
    initial
        (D, n or 1, s), p(z_1).
    transition
        (D, s, s), or (D, n, t, s, s) where [:, :, t] moves into step t.
    log_emission
        (D or 1, n, t, s), nats.
    lengths
        (n,).
    """
    n_draws, n, (t, s) = initial.shape[0], lengths.shape[0], log_emission.shape[2:]
    matrix = transition.reshape(n_draws, 1, 1, s, s) if transition.ndim == 3 else transition
    arrays = [np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in (initial, matrix, log_emission)]
    steps = np.require(lengths, dtype=np.int64, requirements=["C", "W"])
    probs, total = np.zeros((n_draws, n, t, s)), np.zeros((n_draws, n, t))
    run_blocks(
        lambda lo, hi: _leave_out(lo, hi, *arrays, steps, probs, total),
        n_draws * n,
        work=n_draws * n * t * s * (s + 20),
    )
    return probs, total


@kernel
def _leave_out(
    lo: int,
    hi: int,
    initial: np.ndarray,
    matrix: np.ndarray,
    log_emission: np.ndarray,
    lengths: np.ndarray,
    probs: np.ndarray,
    total: np.ndarray,
) -> None:
    n, size = lengths.size, initial.shape[2]
    message, turned, seen = np.empty(size), np.empty(size), np.empty(size)
    for item in range(lo, hi):
        draw, q = item // n, item % n
        moves = matrix[draw, q % matrix.shape[1]]
        emission = log_emission[draw % log_emission.shape[0], q]
        found, evidence = probs[draw, q], total[draw, q]
        length = lengths[q]
        start = initial[draw, q % initial.shape[1]]
        for j in range(size):
            message[j] = math.log(start[j]) if start[j] > 0.0 else -np.inf
        for t in range(length):
            if t > 0:
                _through(message, moves[t % moves.shape[0]], True, turned)
                message[:] = turned
            found[t] = message
            _observe(message, emission[t], seen)
            message[:] = seen
        message[:] = 0.0
        for t in range(length - 1, -1, -1):
            top = -np.inf
            for j in range(size):
                found[t, j] += message[j]
                top = max(top, found[t, j])
            mass = 0.0
            for j in range(size):
                found[t, j] = math.exp(found[t, j] - top) if top > -np.inf else 0.0
                mass += found[t, j]
            evidence[t] = top + math.log(mass) if top > -np.inf else -np.inf
            if mass > 0.0:
                for j in range(size):
                    found[t, j] /= mass
            _observe(message, emission[t], seen)
            _through(seen, moves[t % moves.shape[0]], False, message)


@kernel
def _observe(message: np.ndarray, emission: np.ndarray, out: np.ndarray) -> None:
    """out_j = message_j + log emission_j, or the message where no state can emit."""
    possible = False
    for value in emission:
        possible = possible or value > -np.inf
    for j in range(message.size):
        out[j] = message[j] + emission[j] if possible else message[j]


@kernel
def _through(message: np.ndarray, matrix: np.ndarray, forwards: bool, out: np.ndarray) -> None:
    """out_j = log sum_i e^message_i A_ij, or log sum_i A_ji e^message_i backwards."""
    size = message.size
    top = -np.inf
    for value in message:
        top = max(top, value)
    exact = True
    for j in range(size):
        mass = 0.0
        if top > -np.inf:
            for i in range(size):
                share = matrix[i, j] if forwards else matrix[j, i]
                if share > 0.0 and message[i] > -np.inf:
                    mass += share * math.exp(message[i] - top)
        out[j] = top + math.log(mass) if mass > 0.0 else -np.inf
        exact = exact and mass > 1e-200
    if exact or top == -np.inf:
        return
    # Sums that lost their digits below the largest message, each around its own largest term.
    for j in range(size):
        own = -np.inf
        for i in range(size):
            share = matrix[i, j] if forwards else matrix[j, i]
            if share > 0.0:
                own = max(own, message[i] + math.log(share))
        mass = 0.0
        if own > -np.inf:
            for i in range(size):
                share = matrix[i, j] if forwards else matrix[j, i]
                if share > 0.0:
                    mass += math.exp(message[i] + math.log(share) - own)
        out[j] = own + math.log(mass) if mass > 0.0 else -np.inf
