"""The k most probable state paths of hidden chains, by the list Viterbi algorithm."""

from __future__ import annotations

import numpy as np

from probseq.kernels.chain import Paths
from probseq.kernels.compiler import kernel
from probseq.kernels.normal_chain import LogEmission, fill_block
from probseq.kernels.varying import Problem
from probseq.kernels.varying_recursions import ROWS, log_entries, log_probability

__all__ = ["decode_k"]


def decode_k(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    k: int,
    *,
    begun: np.ndarray | None = None,
) -> Paths:
    """The k distinct paths of highest p(z_1:T, x_1:T), in decreasing order, exact.

    Time between O(T s^2), where few paths change ranks, and O(T s^2 k min(s, k)); memory of T s k integers of 4 bytes
    per thread.

    Parameters
    ----------
    initial : (D, n or 1, s), p(z_1)
    transition : (D, s, s), or a matrix for each step (D or 1, n or 1, t, s, s) as in `varying`
    emission : LogEmission or a table (D or 1, n, t, s) of log p(x_t | z_t)
    lengths : (n,)
    k : number of paths, at least 1
    begun : (n,) bool or None, as in `varying`; only with a matrix for each step

    Returns
    -------
    Paths
        ``states`` (D, n, k, t), -1 beyond a sequence's end; ``log_prob`` (D, n, k), nats. Where fewer than k paths are
        possible the rest have states -1 and log_prob -inf. An observation that no state can emit counts as unseen for
        the choice of paths, and makes every log_prob -inf. The first path is that of `chain.decode`.

    References
    ----------
    Seshadri and Sundberg (1994), List Viterbi decoding algorithms with applications, section III.
    """
    if k < 1:
        raise ValueError(f"got k={k}, expected at least one path; write k=1 for the most probable path alone.")
    transition = np.asarray(transition)
    constant = transition.ndim == 3
    if constant:
        transition = transition[:, None, None]
    problem = Problem(initial, transition, emission, lengths, begun, constant=constant)
    n_draws, n, t, _ = problem.shape
    states = np.full((n_draws, n, k, t), -1, dtype=np.int64)
    log_prob = np.full((n_draws, n, k), -np.inf)
    problem.run(lambda lo, hi: decode_k_block(lo, hi, *problem.arrays, states, log_prob))
    return Paths(states, log_prob)


@kernel
def decode_k_block(lo, hi, first, transition, emission, lengths, states, log_prob):
    """List Viterbi over tasks; task number m is sequence m % n of draw m // n."""
    n = lengths.size
    size = first.shape[2]
    longest = 0
    for task in range(lo, hi):
        longest = max(longest, lengths[task % n])
    back = np.empty((longest, size, states.shape[2]), dtype=np.int32)
    for task in range(lo, hi):
        draw = task // n
        q = task % n
        matrices = transition[draw % transition.shape[0], q % transition.shape[1]]
        _list_viterbi(first[draw, q], matrices, emission, draw, q, lengths[q], back, states[draw, q], log_prob[draw, q])


@kernel
def _list_viterbi(
    start: np.ndarray,
    matrices: np.ndarray,
    emission: LogEmission,
    draw: int,
    sequence: int,
    length: int,
    back: np.ndarray,
    states: np.ndarray,
    log_prob: np.ndarray,
) -> None:
    # score[j, r] is that of the path of rank r among those that end in j; ``back`` its predecessor, state * k + rank.
    size = start.size
    count = log_prob.size
    block = np.empty((ROWS, size))
    peak = np.empty(ROWS)
    logs = np.empty((size, size))
    score = np.full((size, count), -np.inf)
    fresh = np.full((size, count), -np.inf)
    heads = np.empty(size)
    ranks = np.empty(size, dtype=np.int64)
    best = 0.0
    if length == 0:
        log_prob[0] = 0.0
        return
    for t in range(length):
        i = t % ROWS
        if i == 0:
            fill_block(emission, draw, sequence, t, min(ROWS, length - t), block, peak)
        if t == 0:
            for j in range(size):
                score[j, 0] = log_probability(start[j])
        else:
            if t == 1 or matrices.shape[0] > 1:
                log_entries(matrices[t % matrices.shape[0]], logs)
            for j in range(size):
                if count > size:
                    _merge_by_heads(score, logs, j, heads, ranks, fresh[j], back[t, j])
                else:
                    _merge(score, logs, j, fresh[j], back[t, j])
            score, fresh = fresh, score
        # Scores are kept relative to the best so far: their rounding does not grow with the length.
        top = -np.inf
        if peak[i] > -np.inf:
            for j in range(size):
                top = max(top, score[j, 0] + block[i, j])
        best += top + peak[i] if top > -np.inf else -np.inf
        if top > -np.inf:
            for j in range(size):
                for r in range(count):
                    score[j, r] += block[i, j] - top
    _trace(score, back, length, best, states, log_prob)


@kernel
def _merge(score: np.ndarray, logs: np.ndarray, j: int, out: np.ndarray, back: np.ndarray) -> None:
    # The lists of all predecessors are in decreasing order: one that does not enter ends its list.
    count = out.size
    last = count - 1
    for r in range(count):
        out[r] = -np.inf
    for i in range(score.shape[0]):
        move = logs[i, j]
        for rank in range(count):
            value = score[i, rank] + move
            if not value > out[last]:
                break
            place = last
            while place > 0 and value > out[place - 1]:
                out[place] = out[place - 1]
                back[place] = back[place - 1]
                place -= 1
            out[place] = value
            back[place] = i * count + rank


@kernel
def _merge_by_heads(
    score: np.ndarray,
    logs: np.ndarray,
    j: int,
    heads: np.ndarray,
    ranks: np.ndarray,
    out: np.ndarray,
    back: np.ndarray,
) -> None:
    # For long lists: the best of the predecessors' first unused scores, again and again.
    size, count = score.shape
    for i in range(size):
        heads[i] = score[i, 0] + logs[i, j]
        ranks[i] = 0
    for place in range(count):
        choice = 0
        top = -np.inf
        for i in range(size):
            if heads[i] > top:
                top = heads[i]
                choice = i
        out[place] = top
        back[place] = choice * count + ranks[choice]
        ranks[choice] += 1
        used = ranks[choice] == count
        heads[choice] = -np.inf if used else score[choice, ranks[choice]] + logs[choice, j]


@kernel
def _trace(
    score: np.ndarray, back: np.ndarray, length: int, best: float, states: np.ndarray, log_prob: np.ndarray
) -> None:
    size, count = score.shape
    taken = np.zeros(size, dtype=np.int64)
    for r in range(count):
        state = 0
        top = -np.inf
        for j in range(size):
            if taken[j] < count and score[j, taken[j]] > top:
                top = score[j, taken[j]]
                state = j
        if top == -np.inf:
            return
        log_prob[r] = best + top
        rank = taken[state]
        taken[state] += 1
        for t in range(length - 1, 0, -1):
            states[r, t] = state
            before = back[t, state, rank]
            state = before // count
            rank = before % count
        states[r, 0] = state
