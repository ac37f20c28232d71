"""Recursions over tracks: guess what a track must know of its neighbour, run all tracks at once, check the guess.

A step of the chain multiplies by a matrix without negative entries, so that a relative error of all elements never
grows: a start that agrees with its neighbour's end to 1e-13 gives results that exact arithmetic in sequence would give
to 1e-13. Chains forget their start, most within a few dozen steps; one that does not is run in sequence instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.lane_backward import Message, backward_tracks
from probseq.kernels.lane_decoding import FEW_STATES, count_words, score_tracks
from probseq.kernels.lane_forward import forward_tracks, packed
from probseq.kernels.lane_tracing import mend_tracks, mend_walks, trace_tracks, walk_tracks
from probseq.kernels.lanes import LANES, LN_2, LOG2_E, vectors
from probseq.kernels.normal_chain import LogEmission
from probseq.kernels.recursions import log_matrix, watch_level
from probseq.kernels.threads import number_of_threads, run_blocks, scratch
from probseq.kernels.tracks import Tape, block_steps, cut_tape, padded_size, starts_inside

_SWEEPS = 3
_AGREEMENT = 1e-13
# Shorter tracks than this are not worth the guess.
_SHORTEST = 48
_LONG = 512
_NOTHING = np.empty((0, 0))
_NO_SUMS = np.empty(0)
_NO_STEPS = np.empty((0, 0, 0))


class Chain(NamedTuple):
    """One draw of a batch: p(z_1) (n or 1, s), transition matrix (s, s), emissions, tape."""

    initial: np.ndarray
    transition: np.ndarray
    emission: LogEmission
    draw: int
    tape: Tape

    @property
    def groups(self) -> range:
        """Groups of 16 tracks."""
        return range((self.tape.begin.size - 1) // LANES)


def tape_for(lengths: np.ndarray, n_draws: int) -> Tape | None:
    """The tape of a batch for the threads at hand, None where tracks would be too short to pay."""
    return _tape(lengths.tobytes(), max(1, number_of_threads() // max(1, n_draws)))


@lru_cache(maxsize=32)
def _tape(lengths: bytes, threads: int) -> Tape | None:
    """Kept: cutting it takes as long as the recursion over a few thousand steps."""
    each = np.frombuffer(lengths, dtype=np.int64)
    total = int(each.sum())
    if total < LANES * _SHORTEST:
        return None
    return cut_tape(each, max(1, min(threads, total // (LANES * _LONG))))


class Sums(NamedTuple):
    """What the backward recursion of one draw returns.

    ``start`` (n, s), ``counts`` (s, s) expected transitions, ``totals`` (``sums_shape``, s), ``log_prob`` (n,).
    """

    start: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    log_prob: np.ndarray


def run_forward(chain: Chain, steps: np.ndarray, last: np.ndarray) -> bool:
    """log p(x_t | x_<t) (n, t) and p(z_T | x_1:T) (n, s) of one draw; false where the caller must go another way."""
    size = chain.transition.shape[0]
    memory = [few_rows(size) for _ in chain.groups]
    last[:] = chain.initial  # of sequences without steps
    return _forward(chain, memory, steps[..., None], [_NO_SUMS] * len(memory), last)


def run_both_ways(chain: Chain, weights: np.ndarray, posterior: np.ndarray) -> Sums | None:
    """Posterior sums of one draw, each sequence times its weight, and posteriors (n, t, s) unless that is empty.

    None where the caller must go another way.
    """
    tape, size = chain.tape, chain.transition.shape[0]
    n, shape = tape.offsets.size - 1, (*chain.emission.sums_shape, size)
    alpha = filters(tape, size, len(chain.groups))
    parts = [np.zeros(n) for _ in chain.groups]
    if not _forward(chain, alpha, _NO_STEPS, parts, _NOTHING):
        return None
    message = Message(*(np.zeros((tape.begin.size - 1, size)) for _ in range(4)))
    result = Sums(np.zeros((n, size)), np.zeros((size, size)), np.zeros(shape), np.sum(parts, 0))

    def sweep(begin: np.ndarray, skip: int, ends: np.ndarray) -> bool:
        passed = message._replace(begin=begin, ends=ends)

        def run(lo: int, hi: int) -> list[tuple[np.ndarray, np.ndarray]]:
            return [_backward(group, passed, skip) for group in range(lo, hi)]

        sums = [one for block in run_blocks(run, len(chain.groups)) for one in block]
        result.counts[:], result.totals[:] = sum(c for c, _ in sums), sum(m for _, m in sums)
        return True

    def _backward(group: int, passed: Message, skip: int) -> tuple[np.ndarray, np.ndarray]:
        counts, totals = np.zeros((size, size)), np.zeros(shape)
        backward_tracks(
            chain.transition,
            chain.emission,
            chain.draw,
            tape,
            group,
            passed,
            skip,
            alpha[group],
            weights,
            posterior,
            result.start,
            counts,
            totals,
        )
        return counts, totals

    if not settle(tape, size, sweep, -1):
        return None
    result.counts[:] += message.leaving[:-1].T @ message.entering[1:]
    result.counts[:] *= chain.transition
    return result


def run_viterbi(chain: Chain, states: np.ndarray, log_prob: np.ndarray) -> bool:
    """Best paths (n, t) of one draw and their log p(x, z) (n,); false where the caller must go another way."""
    tape, size = chain.tape, chain.transition.shape[0]
    logs = log_matrix(chain.transition) * LOG2_E
    columns, initial = packed(logs, -np.inf), log_matrix(chain.initial) * LOG2_E
    few = size <= FEW_STATES
    turned = np.full((0 if few else size, padded_size(size)), -np.inf)
    turned[:, :size] = logs.T[: len(turned)]
    score = [few_rows(size) for _ in chain.groups] if few else filters(tape, size, len(chain.groups))
    shape = (len(chain.groups), tape.n_steps + 1, count_words(size) if few else 0, LANES)
    words = scratch(math.prod(shape)).view(np.int64).reshape(shape)
    parts = [np.zeros(log_prob.size) for _ in chain.groups]
    last = np.empty((tape.begin.size - 1, size))

    def sweep(begin: np.ndarray, skip: int, ends: np.ndarray) -> bool:
        def run(lo: int, hi: int) -> bool:
            return all(
                score_tracks(
                    initial,
                    columns,
                    chain.emission,
                    chain.draw,
                    tape,
                    group,
                    begin,
                    skip,
                    ends,
                    score[group],
                    words[group],
                    _NO_SUMS if skip else parts[group],
                )
                for group in range(lo, hi)
            )

        for part in parts:
            part[:] = 0.0
        possible = all(run_blocks(run, len(parts)))
        last[:] = ends
        return possible

    def trace(lo: int, hi: int) -> None:
        for group in range(lo, hi):
            if few:
                walk_tracks(words[group], tape, group, last, states)
            else:
                trace_tracks(turned, tape, group, score[group], states)

    if not settle(tape, size, sweep, 1, logarithmic=True):
        return False
    run_blocks(trace, len(parts))
    for group in reversed(chain.groups):
        if few:
            mend_walks(words[group], tape, group, size, states)
        else:
            mend_tracks(turned, tape, group, score[group], states)
    log_prob[:] = LN_2 * np.sum(parts, 0)
    return True


def _forward(
    chain: Chain, alpha: list[np.ndarray], steps: np.ndarray, sums: list[np.ndarray], last: np.ndarray
) -> bool:
    watch = watch_level(chain.transition)

    def sweep(begin: np.ndarray, skip: int, ends: np.ndarray) -> bool:
        def run(lo: int, hi: int) -> bool:
            return all(
                forward_tracks(
                    chain.initial,
                    chain.transition,
                    watch,
                    chain.emission,
                    chain.draw,
                    chain.tape,
                    group,
                    begin,
                    skip,
                    ends,
                    alpha[group],
                    _NO_STEPS if skip else steps,
                    _NO_SUMS if skip else sums[group],
                    _NOTHING if skip else last,
                )
                for group in range(lo, hi)
            )

        for part in sums:
            part[:] = 0.0
        return all(run_blocks(run, len(chain.groups)))

    return settle(chain.tape, chain.transition.shape[0], sweep, 1)


def settle(
    tape: Tape,
    size: int,
    sweep: Callable[[np.ndarray, int, np.ndarray], bool],
    direction: int,
    *,
    logarithmic: bool = False,
) -> bool:
    """Repeat ``sweep(begin, skip, ends)`` until each track began where its neighbour in ``direction`` ended."""
    begin = np.full((tape.begin.size - 1, size), 0.0 if logarithmic else 1.0 / size)
    ends = np.empty_like(begin)
    # The first, short sweep makes the guess.
    skip = tape.n_steps - min(tape.n_steps, max(32, tape.n_steps // 16))
    for _ in range(_SWEEPS + 1):
        if not sweep(begin, skip, ends):
            return False
        if agree(tape, begin, ends, direction, logarithmic) and skip == 0:
            return True
        hand_over(begin, ends, direction)
        skip = 0
    return False


@kernel
def agree(tape: Tape, begin: np.ndarray, ends: np.ndarray, direction: int, logarithmic: bool) -> bool:
    """Whether the ends of tracks equal the begins of their neighbours, wherever a sequence runs on between them."""
    for track in range(1, begin.shape[0]):
        if starts_inside(tape, track):
            guess = begin[track] if direction > 0 else begin[track - 1]
            truth = ends[track - 1] if direction > 0 else ends[track]
            for j in range(guess.size):
                tolerance = _AGREEMENT * (1000.0 if logarithmic else truth[j])
                if guess[j] != truth[j] and not abs(guess[j] - truth[j]) <= tolerance:
                    return False
    return True


@kernel
def hand_over(begin: np.ndarray, ends: np.ndarray, direction: int) -> None:
    """Each track begins where its neighbour ended."""
    n = begin.shape[0]
    if direction > 0:
        begin[1:] = ends[: n - 1]
    else:
        begin[: n - 1] = ends[1:]


@kernel
def few_rows(size: int) -> np.ndarray:
    """Memory for the filter of one block of steps and the step before."""
    return vectors(block_steps(size) + 1, padded_size(size))


def filters(tape: Tape, size: int, n_groups: int) -> list[np.ndarray]:
    """Memory for the filter of all steps, one array for each group, aligned like `vectors`."""
    rows, width = tape.n_steps + 1, padded_size(size)
    each = rows * width * LANES
    flat = scratch(n_groups * each + 8)
    flat = flat[-flat.ctypes.data // 8 % 8 :]
    return [flat[k * each : (k + 1) * each].reshape(rows, width, LANES) for k in range(n_groups)]
