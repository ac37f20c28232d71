"""Hidden Markov chains over batches: likelihood, filter, smoother, expected counts, Viterbi, posterior paths.

Shapes: D draws, n sequences padded to t steps, s states, ``lengths`` (n,). ``initial`` is (D, n or 1, s) = p(z_1), the
distribution of the state at the first step (a continued sequence may start anywhere); ``transition`` (D, s, s) with
rows that sum to one; ``emission`` a `LogEmission`. All float64. Results beyond the length of a sequence are 0 (-1 for
states). Sequences run in parallel threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.decoding import sample_backward, simulate_paths, viterbi
from probseq.kernels.normal_chain import LogEmission, add_normal_moments, normal_emission, table_emission
from probseq.kernels.recursions import backward, forward, log_matrix, watch_level
from probseq.kernels.threads import run_blocks
from probseq.kernels.vector import transposed

__all__ = [
    "Expectations",
    "Filtered",
    "Paths",
    "decode",
    "expectations",
    "filter_states",
    "log_prob_steps",
    "normal_emission",
    "normal_expectations",
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
    (D, s, s) expected transitions i to j over all sequences; ``log_prob`` log p(x_1:T) (D, n); ``moments``
    (D, 3, d, s): sums of posterior, posterior times (x - mean), posterior times (x - mean)^2, for normals only.
    """

    posterior: np.ndarray
    start: np.ndarray
    counts: np.ndarray
    log_prob: np.ndarray
    moments: np.ndarray


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
    steps = np.zeros((n_draws, n, t))
    filtered = np.zeros((n_draws, n, t if keep else 0, s))
    predicted = np.zeros_like(filtered)
    last = np.zeros((n_draws, n, s))
    problem.run(lambda lo, hi: _filter(lo, hi, *problem.arrays, keep, filtered, predicted, steps, last))
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


def normal_expectations(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission,
    lengths: np.ndarray,
    *,
    gain: np.ndarray | None = None,
) -> Expectations:
    """As `expectations` without posteriors, with the moments that the M-step of independent normals needs.

    ``gain`` must be constant over the steps of each sequence.
    """
    return _expectations(_Problem(initial, transition, emission, lengths), gain, False)


def decode(initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray) -> Paths:
    """Viterbi: argmax over paths of p(z_1:T, x_1:T), exact; the lowest state wins ties; -1 beyond a sequence's end."""
    problem = _Problem(initial, transition, emission, lengths)
    n_draws, n, t, _ = problem.shape
    states = np.full((n_draws, n, t), -1, dtype=np.int64)
    log_prob = np.zeros((n_draws, n))
    problem.run(lambda lo, hi: _decode(lo, hi, *problem.arrays, states, log_prob))
    return Paths(states, log_prob)


def sample_paths(
    initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Paths from p(z_1:T | x_1:T) by forward filtering, backward sampling, exact; -1 beyond a sequence's end.

    ``uniform`` (D, path, n, t) holds independent uniform numbers in [0, 1); states come back in its shape.
    """
    problem = _Problem(initial, transition, emission, lengths)
    states = np.full(uniform.shape, -1, dtype=np.int64)
    uniform = np.require(uniform, dtype=np.float64, requirements=["C", "W"])
    problem.run(lambda lo, hi: _sample(lo, hi, *problem.arrays, uniform, states))
    return states


def simulate_states(initial: np.ndarray, transition: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Paths from p(z_1:T), given independent uniform numbers (D, n, t) in [0, 1); states of that shape."""
    states = np.empty(uniform.shape, dtype=np.int64)
    arrays = (np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in (initial, transition, uniform))
    simulate_paths(*arrays, states)
    return states


class _Problem:
    """Checked arrays in the one memory layout that the kernels are compiled for."""

    def __init__(self, initial: np.ndarray, transition: np.ndarray, emission: LogEmission, lengths: np.ndarray) -> None:
        initial, transition = (np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in (initial, transition))
        lengths = np.require(lengths, dtype=np.int64, requirements=["C", "W"])
        self.shape = (initial.shape[0], lengths.shape[0], emission.n_steps, initial.shape[2])
        expected = (initial.shape[0], initial.shape[2], initial.shape[2])
        if transition.shape != expected or initial.shape[1] not in (1, lengths.shape[0]):
            raise ValueError(
                f"got initial {initial.shape}, transition {transition.shape} and {lengths.shape[0]} lengths, expected "
                f"transition {expected} and one initial row for each sequence or for all; check the shapes."
            )
        self.arrays = (initial, transition, emission, lengths)

    def run(self, block: object) -> list:
        n_draws, n, t, s = self.shape
        return run_blocks(block, n_draws * n, work=n_draws * n * t * s * (s + 20))  # type: ignore[arg-type]


def _expectations(problem: _Problem, gain: np.ndarray | None, keep: bool) -> Expectations:
    n_draws, n, t, s = problem.shape
    emission = problem.arrays[2]
    gain = np.ones((1, 1, 1)) if gain is None else np.require(gain, dtype=np.float64, requirements=["C", "W"])
    posterior = np.zeros((n_draws, n, t if keep else 0, s))
    start = np.zeros((n_draws, n, s))
    log_prob = np.zeros((n_draws, n))

    def block(lo: int, hi: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        first, last = lo // n, (hi - 1) // n + 1
        counts = np.zeros((last - first, s, s))
        moments = np.zeros((last - first, 3, emission.mean.shape[1], s))
        _expect(lo, hi, *problem.arrays, gain, first, posterior, start, counts, log_prob, moments)
        return first, last, counts, moments

    counts = np.zeros((n_draws, s, s))
    moments = np.zeros((n_draws, 3, emission.mean.shape[1], s))
    # Summed in the order of blocks, so that the same call gives the same bits.
    for first, last, part, moment in problem.run(block):
        counts[first:last] += part
        moments[first:last] += moment
    return Expectations(posterior, start, counts, log_prob, moments)


@kernel
def _filter(lo, hi, initial, transition, emission, lengths, keep, filtered, predicted, steps, last):
    n = lengths.size
    size = initial.shape[2]
    pair = np.empty((2, size))
    scale = np.empty(steps.shape[2])
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        start = initial[draw, q % initial.shape[1]]
        turned = transposed(transition[draw])
        store = filtered[draw, q] if keep else pair
        logarithmic = False
        if not forward(
            start,
            turned,
            False,
            watch_level(turned),
            emission,
            draw,
            q,
            lengths[q],
            store,
            predicted[draw, q],
            steps[draw, q],
            scale,
        ):
            logarithmic = True
            forward(
                start,
                log_matrix(turned),
                True,
                0.0,
                emission,
                draw,
                q,
                lengths[q],
                store,
                predicted[draw, q],
                steps[draw, q],
                scale,
            )
        if lengths[q] == 0:
            last[draw, q] = start
        else:
            for j in range(size):
                value = store[(lengths[q] - 1) % store.shape[0], j]
                last[draw, q, j] = np.exp(value) if logarithmic else value
        if keep and logarithmic:
            for t in range(lengths[q]):
                for j in range(size):
                    store[t, j] = np.exp(store[t, j])


@kernel
def _expect(lo, hi, initial, transition, emission, lengths, gain, base, posterior, start, counts, log_prob, moments):
    n = lengths.size
    size = initial.shape[2]
    longest = 0
    for k in range(lo, hi):
        longest = max(longest, lengths[k % n])
    keep = posterior.shape[2] > 0
    scratch = np.empty((0 if keep else longest, size))
    steps = np.empty(longest)
    scale = np.empty(longest)
    weight = np.empty(longest)
    pairs = np.zeros((size, size))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        length = lengths[q]
        first = initial[draw, q % initial.shape[1]]
        if length == 0:
            continue
        table = posterior[draw, q] if keep else scratch
        steady = True
        for t in range(length):
            weight[t] = gain[draw % gain.shape[0], q % gain.shape[1], t % gain.shape[2]]
            steady = steady and (t == 0 or weight[t] <= weight[t - 1]) and weight[t] >= 0.0
        logarithmic = not _posterior(
            first, transition[draw], emission, draw, q, length, table, steps, scale, weight, steady, pairs
        )
        if logarithmic:
            _log_posterior(
                first,
                transition[draw],
                emission,
                draw,
                q,
                length,
                table,
                steps,
                scale,
                weight,
                steady,
                counts[draw - base],
            )
        else:
            for i in range(size):
                for j in range(size):
                    counts[draw - base, i, j] += pairs[i, j] * transition[draw, i, j]
                    pairs[i, j] = 0.0
        for j in range(size):
            start[draw, q, j] = table[0, j]
        for t in range(length):
            log_prob[draw, q] += steps[t]
        if emission.mean.size > 0:
            # The gain is inside the posterior already.
            add_normal_moments(emission, draw, q, length, table, moments[draw - base])


@kernel
def _posterior(start, matrix, emission, draw, q, length, table, steps, scale, weight, steady, pairs):
    watch = watch_level(matrix)
    nothing = np.empty((0, start.size))
    if not forward(start, transposed(matrix), False, watch, emission, draw, q, length, table, nothing, steps, scale):
        return False
    backward(matrix, False, watch, emission, draw, q, length, table, steps, scale, weight, pairs)
    return True


@kernel
def _log_posterior(start, matrix, emission, draw, q, length, table, steps, scale, weight, steady, counts):
    logs = log_matrix(matrix)
    nothing = np.empty((0, start.size))
    forward(start, transposed(logs), True, 0.0, emission, draw, q, length, table, nothing, steps, scale)
    if steady:
        backward(logs, True, 0.0, emission, draw, q, length, table, steps, scale, weight, counts)
        return
    # Logarithms hold no signs: a gain that rises somewhere is the difference of two that never do.
    falling = np.zeros(length)
    rising = np.zeros(length)
    for t in range(length - 1, -1, -1):
        change = weight[t] - (weight[t + 1] if t + 1 < length else 0.0)
        falling[t] = (falling[t + 1] if t + 1 < length else 0.0) + max(change, 0.0)
        rising[t] = (rising[t + 1] if t + 1 < length else 0.0) + max(-change, 0.0)
    other = table[:length].copy()
    taken = np.zeros_like(counts)
    backward(logs, True, 0.0, emission, draw, q, length, table, steps, scale, falling, counts)
    backward(logs, True, 0.0, emission, draw, q, length, other, steps, scale, rising, taken)
    counts -= taken
    for t in range(length):
        for j in range(start.size):
            table[t, j] -= other[t, j]


@kernel
def _decode(lo, hi, initial, transition, emission, lengths, states, log_prob):
    n = lengths.size
    longest = 0
    for k in range(lo, hi):
        longest = max(longest, lengths[k % n])
    score = np.empty((longest, initial.shape[2]))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        logs = log_matrix(transition[draw])
        log_prob[draw, q] = viterbi(
            initial[draw, q % initial.shape[1]],
            logs,
            transposed(logs),
            emission,
            draw,
            q,
            lengths[q],
            score,
            states[draw, q],
        )


@kernel
def _sample(lo, hi, initial, transition, emission, lengths, uniform, states):
    n = lengths.size
    size = initial.shape[2]
    longest = 0
    for k in range(lo, hi):
        longest = max(longest, lengths[k % n])
    table = np.empty((longest, size))
    steps = np.empty(longest)
    scale = np.empty(longest)
    nothing = np.empty((0, size))
    for k in range(lo, hi):
        draw = k // n
        q = k % n
        start = initial[draw, q % initial.shape[1]]
        turned = transposed(transition[draw])
        logarithmic = not forward(
            start, turned, False, watch_level(turned), emission, draw, q, lengths[q], table, nothing, steps, scale
        )
        if logarithmic:
            turned = log_matrix(turned)
            forward(start, turned, True, 0.0, emission, draw, q, lengths[q], table, nothing, steps, scale)
        for path in range(uniform.shape[1]):
            sample_backward(turned, logarithmic, lengths[q], table, uniform[draw, path, q], states[draw, path, q])
