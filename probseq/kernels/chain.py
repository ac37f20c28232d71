"""Hidden Markov chains over batches: likelihood, filter, smoother, expected counts, Viterbi, posterior paths.

Shapes: D draws, n sequences padded to t steps, s states, ``lengths`` (n,). ``initial`` is (D, n or 1, s) = p(z_1), the
distribution of the state at the first step (a continued sequence may start anywhere); ``transition`` (D, s, s) with
rows that sum to one; ``emission`` a `LogEmission`. All float64. Results beyond the length of a sequence are 0 (-1 for
states). Sequences run in parallel threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from probseq._memory import spare
from probseq.kernels import batches
from probseq.kernels.decoding import simulate_paths
from probseq.kernels.normal_chain import (
    LogEmission,
    coded_emission,
    linear_emission,
    normal_emission,
    plain,
    table_emission,
)
from probseq.kernels.sweeps import Chain, run_both_ways, run_forward, run_viterbi, tape_for
from probseq.kernels.threads import run_blocks, scratch

__all__ = [
    "Expectations",
    "Filtered",
    "Paths",
    "coded_emission",
    "decode",
    "expectations",
    "filter_states",
    "linear_emission",
    "log_prob_steps",
    "normal_emission",
    "plain",
    "summed_expectations",
    "sample_paths",
    "simulate_states",
    "table_emission",
]


class Filtered(NamedTuple):
    """p(z_t | x_1:t) and p(z_t | x_<t), both (D, n, t, s); log p(x_t | x_<t) (D, n, t); p(z_T | x_1:T) (D, n, s).

    Probabilities over all steps are empty where only the last was asked for.
    """

    filtered: np.ndarray
    predicted: np.ndarray
    log_prob_steps: np.ndarray
    last: np.ndarray


class Expectations(NamedTuple):
    """Posterior sums of the E-step.

    ``posterior`` p(z_t | x_1:T) (D, n, t, s), empty if not kept; ``start`` its first step (D, n, s); ``counts``
    (D, s, s) expected transitions i to j over all sequences; ``log_prob`` log p(x_1:T) (D, n). ``sums`` over all
    steps: for normals (D, 3, d, s), of posterior, posterior times (x - mean), posterior times (x - mean)^2; with
    statistics (D, 1, f, s), of posterior times each; with codes (D, 1, code, s), of posterior where the step has it.
    """

    posterior: np.ndarray
    start: np.ndarray
    counts: np.ndarray
    log_prob: np.ndarray
    sums: np.ndarray


class Paths(NamedTuple):
    """Most probable states (D, n, t) and their log p(x_1:T, z_1:T) (D, n)."""

    states: np.ndarray
    log_prob: np.ndarray


def log_prob_steps(
    initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray
) -> np.ndarray:
    """log p(x_t | x_<t) (D, n, t), exact; extra memory of one block of steps per thread."""
    return filter_states(initial, transition, emission, lengths, keep=False).log_prob_steps


def filter_states(
    initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray, *, keep: bool = True
) -> Filtered:
    """Filtered and predicted state probabilities by the forward recursion, exact.

    After an observation that no state can emit (log-likelihood -inf) the filter goes on as if it were unseen.
    """
    problem = _Problem(initial, transition, emission, lengths)
    n_draws, n, t, s = problem.shape
    steps = spare((n_draws, n, t))
    if problem.is_ragged:
        steps.fill(0.0)
    filtered = np.zeros((n_draws, n, t if keep else 0, s))
    predicted = np.zeros_like(filtered)
    last = np.zeros((n_draws, n, s))
    if keep or not problem.by_tracks(lambda each, draw: run_forward(each, steps[draw], last[draw])):
        steps[:] = 0.0
        problem.run(
            lambda lo, hi: batches.filter_block(lo, hi, *problem.arrays, keep, filtered, predicted, steps, last)
        )
    return Filtered(filtered, predicted, steps, last)


def expectations(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission,
    lengths: np.ndarray,
    *,
    gain: np.ndarray | None = None,
    keep: bool = True,
) -> Expectations:
    """Posterior marginals and expected transition counts by forward-backward, exact, without a (t, s, s) table.

    Parameters
    ----------
    initial, transition, emission, lengths
        as in the module.
    gain
        weights g_t of the steps, broadcast to (D, n, t). The results are then the derivatives of
        sum_t g_t log p(x_t | x_<t) in the log emissions (``posterior``) and, times the probability, in the initial
        (``start``) and transition probabilities (``counts``). Constant gains weight whole sequences.
    keep
        whether to return ``posterior``.
    """
    return _expectations(_Problem(initial, transition, emission, lengths), gain, keep)


def summed_expectations(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission,
    lengths: np.ndarray,
    *,
    gain: np.ndarray | None = None,
) -> Expectations:
    """As `expectations` without posteriors, with the sums over the steps that an M-step needs.

    ``gain`` must be constant over the steps of each sequence.
    """
    return _expectations(_Problem(initial, transition, emission, lengths), gain, False)


def decode(initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray) -> Paths:
    """Viterbi: argmax over paths of p(z_1:T, x_1:T), exact; the lowest state wins ties; -1 beyond a sequence's end."""
    problem = _Problem(initial, transition, emission, lengths)
    n_draws, n, t, _ = problem.shape
    states = spare((n_draws, n, t), np.int64)
    if problem.is_ragged:
        states.fill(-1)
    log_prob = np.zeros((n_draws, n))
    if not problem.by_tracks(lambda each, draw: run_viterbi(each, states[draw], log_prob[draw])):
        states[:] = -1
        problem.run(lambda lo, hi: batches.decode_block(lo, hi, *problem.arrays, problem.table(), states, log_prob))
    return Paths(states, log_prob)


def sample_paths(
    initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Paths from p(z_1:T | x_1:T) by forward filtering, backward sampling, exact; -1 beyond a sequence's end.

    ``uniform`` (D, path, n, t) holds independent uniform numbers in [0, 1); states come back in its shape.
    """
    problem = _Problem(initial, transition, emission, lengths)
    states = np.full(uniform.shape, -1, dtype=np.int64)
    uniform = plain(uniform)
    problem.run(lambda lo, hi: batches.sample_block(lo, hi, *problem.arrays, problem.table(), uniform, states))
    return states


def simulate_states(initial: np.ndarray, transition: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Paths from p(z_1:T), given independent uniform numbers (D, n, t) in [0, 1); states of that shape."""
    states = np.empty(uniform.shape, dtype=np.int64)
    arrays = (plain(a) for a in (initial, transition, uniform))
    simulate_paths(*arrays, states)
    return states


class _Problem:
    """Checked arrays in the one memory layout that the kernels are compiled for."""

    def __init__(self, initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray) -> None:
        initial, transition, lengths = plain(initial), plain(transition), plain(lengths, np.int64)
        self.shape = (initial.shape[0], lengths.shape[0], emission.n_steps, initial.shape[2])
        expected = (initial.shape[0], initial.shape[2], initial.shape[2])
        if transition.shape != expected or initial.shape[1] not in (1, lengths.shape[0]):
            raise ValueError(
                f"got initial {initial.shape}, transition {transition.shape} and {lengths.shape[0]} lengths, expected "
                f"transition {expected} and one initial row for each sequence or for all; check the shapes."
            )
        self.arrays = (initial, transition, emission, lengths)

    @property
    def is_ragged(self) -> bool:
        """Whether some sequence is shorter than the padded batch."""
        n_steps = self.shape[2]
        return bool(self.arrays[3].min(initial=n_steps) < n_steps)

    def by_tracks(self, run: Callable[[Chain, int], bool]) -> bool:
        """Whether ``run`` did all draws as tracks side by side."""
        initial, transition, emission, lengths = self.arrays
        tape = tape_for(lengths, self.shape[0])
        if tape is None:
            return False

        def block(lo: int, hi: int) -> bool:
            return all(
                run(Chain(initial[draw], transition[draw], emission, draw, tape), draw) for draw in range(lo, hi)
            )

        return all(run_blocks(block, self.shape[0]))

    def table(self) -> np.ndarray:
        """Scratch memory of the calling thread for one number a step and state."""
        longest, size = int(self.arrays[3].max(initial=0)), self.shape[3]
        return scratch(longest * size).reshape(longest, size)

    def run(self, block: object) -> list:
        n_draws, n, t, s = self.shape
        return run_blocks(block, n_draws * n, work=n_draws * n * t * s * (s + 20))  # type: ignore[arg-type]


def _expectations(problem: _Problem, gain: np.ndarray | None, keep: bool) -> Expectations:
    n_draws, n, t, s = problem.shape
    emission = problem.arrays[2]
    gain = np.ones((1, 1, 1)) if gain is None else plain(gain)
    posterior = np.zeros((n_draws, n, t if keep else 0, s))
    start = np.zeros((n_draws, n, s))
    log_prob = np.zeros((n_draws, n))
    counts = np.zeros((n_draws, s, s))
    sums = np.zeros((n_draws, *emission.sums_shape, s))
    result = Expectations(posterior, start, counts, log_prob, sums)

    def tracks(each: Chain, draw: int) -> bool:
        weights = gain[draw % gain.shape[0], :, 0]
        found = run_both_ways(each, np.ascontiguousarray(weights), posterior[draw] if keep else np.empty((0, 0, 0)))
        if found is not None:
            start[draw], counts[draw], sums[draw], log_prob[draw] = found
        return found is not None

    if gain.shape[2] == 1 and problem.by_tracks(tracks):
        return result
    for array in result:
        array[...] = 0.0

    def block(lo: int, hi: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        first, last = lo // n, (hi - 1) // n + 1
        table = problem.table() if not keep else np.empty((0, s))
        counts = np.zeros((last - first, s, s))
        sums = np.zeros((last - first, *emission.sums_shape, s))
        batches.expect_block(lo, hi, *problem.arrays, table, gain, first, posterior, start, counts, log_prob, sums)
        return first, last, counts, sums

    # Summed in the order of blocks, so that the same call gives the same bits.
    for first, last, part, more in problem.run(block):
        counts[first:last] += part
        sums[first:last] += more
    return result
