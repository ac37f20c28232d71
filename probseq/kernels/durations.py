"""Hidden semi-Markov chains over batches: likelihood, filter, smoother, expected durations, Viterbi, posterior paths.

Shapes: D draws, n sequences padded to t steps, s states, elapsed durations 1 .. w; ``lengths`` (n,). All float64, all
exact, in O(t s (s + w)) time. Results beyond the length of a sequence are 0 (-1 for states). Sequences run in threads.

Memory beyond input and output, for each thread: filter and likelihood O(s w); expectations and posterior paths
O(t s + sqrt(t) s w), because beliefs are kept at every sqrt(t)-th step and made again between; k best paths O(t s k).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from probseq.kernels import duration_batches
from probseq.kernels.threads import run_blocks

__all__ = [
    "DurationExpectations",
    "DurationFiltered",
    "DurationPaths",
    "Renewals",
    "decode",
    "expectations",
    "filter_states",
    "leave_one_out",
    "sample_paths",
    "simulate_states",
    "trajectory",
]


class Renewals(NamedTuple):
    """One inference problem.

    ``belief`` (D, n or 1, s, w), log p(z, elapsed duration) at the first step; ``trans`` (D, s, s), log probability of
    the next state when one is left (-inf on the diagonal); ``leave`` and ``stay`` (D, s, w), log of the hazard of each
    elapsed duration and of one minus it, the last for all durations from w; ``table`` (D or 1, n, t, s), log
    p(x_t | z_t), 0 where nothing was seen; ``lengths`` (n,).
    """

    belief: np.ndarray
    trans: np.ndarray
    leave: np.ndarray
    stay: np.ndarray
    table: np.ndarray
    lengths: np.ndarray


class DurationFiltered(NamedTuple):
    """p(z_t | x_1:t) and p(z_t | x_<t), both (D, n, t, s); log p(x_t | x_<t) (D, n, t); ``belief`` (D, n, s, w).

    ``belief`` is log p(z, elapsed duration) at the step after the last. Probabilities over all steps are empty where
    only the last was asked for.
    """

    filtered: np.ndarray
    predicted: np.ndarray
    log_prob_steps: np.ndarray
    belief: np.ndarray


class DurationExpectations(NamedTuple):
    """Posterior sums of the E-step.

    ``posterior`` p(z_t | x_1:T) (D, n, t, s), empty if not kept; ``start`` (D, n, s, w), posterior of state and elapsed
    duration at the first step; ``counts`` (D, n, s, s), expected moves from i to j; ``leaves`` (D, s, w), expected
    number of segments left at each elapsed duration; ``stays`` (D, s, w), expected number of times that a state was
    kept at it. A segment that the end of the data cuts at duration d is in ``stays`` below d and in neither at d.
    ``log_prob`` (D, n), log p(x_1:T).
    """

    posterior: np.ndarray
    start: np.ndarray
    counts: np.ndarray
    leaves: np.ndarray
    stays: np.ndarray
    log_prob: np.ndarray


class DurationPaths(NamedTuple):
    """Most probable states (D, n, k, t), -1 beyond a sequence's end and where there are fewer than k possible paths.

    ``log_prob`` (D, n, k) is log p(x_1:T, z_1:T), -inf where there is no path.
    """

    states: np.ndarray
    log_prob: np.ndarray


def filter_states(problem: Renewals, *, keep: bool = True) -> DurationFiltered:
    """Filtered and predicted state probabilities and log p(x_t | x_<t).

    After an observation that no state can emit (log-likelihood -inf) the filter goes on as if it were unseen.
    """
    parts, (n_draws, n, t, s, w) = _plain(problem)
    kept = t if keep else 0
    filtered = np.zeros((n_draws, n, kept, s))
    predicted = np.zeros((n_draws, n, kept, s))
    steps = np.zeros((n_draws, n, t))
    after = np.empty((n_draws, n, s, w))
    _run(lambda lo, hi: duration_batches.filter_block(lo, hi, *parts, filtered, predicted, steps, after), parts)
    return DurationFiltered(filtered, predicted, steps, after)


def trajectory(problem: Renewals) -> tuple[np.ndarray, np.ndarray]:
    """log p(z_t, elapsed duration | x_<t) before every step (D, n, t, s, w), and after the last (D, n, s, w)."""
    parts, (n_draws, n, t, s, w) = _plain(problem)
    beliefs = np.zeros((n_draws, n, t, s, w))
    after = np.empty((n_draws, n, s, w))
    _run(lambda lo, hi: duration_batches.trajectory_block(lo, hi, *parts, beliefs, after), parts)
    return beliefs, after


def expectations(problem: Renewals, *, gain: np.ndarray | None = None, keep: bool = True) -> DurationExpectations:
    """Posterior marginals and expected moves by forward-backward.

    Parameters
    ----------
    problem
        as in the module.
    gain
        weights g_t of the steps, broadcast to (D, n, t). The results are then the derivatives of
        sum_t g_t log p(x_t | x_<t) in the log emissions (``posterior``), the log belief at the start, and the log of
        transitions, hazards and their complements. Constant gains weight whole sequences.
    keep
        whether to return ``posterior``.
    """
    parts, shape = _plain(problem)
    weights = _differences(gain, parts.lengths, shape)
    total = _expect(parts, shape, np.maximum(weights, 0.0), keep)
    if (weights < 0.0).any():
        # Logarithms hold no signs: rising gains are taken off.
        off = _expect(parts, shape, np.maximum(-weights, 0.0), keep)
        pairs = zip(total[:-1], off[:-1], strict=True)
        return DurationExpectations(*(plus - minus for plus, minus in pairs), total.log_prob)
    return total


def leave_one_out(problem: Renewals) -> tuple[np.ndarray, np.ndarray]:
    """p(z_t | x_u for all u != t) (D, n, t, s) and log p(x_u for all u != t) (D, n, t), by forward-backward."""
    parts, (n_draws, n, t, s, w) = _plain(problem)
    apart = np.full((n_draws, n, t, s), -np.inf)
    weights = _differences(None, parts.lengths, (n_draws, n, t, s, w))
    _expect(parts, (n_draws, n, t, s, w), weights, False, apart)
    steps = filter_states(parts, keep=False).log_prob_steps
    # As in the filter, an observation that no state can emit counts as unseen.
    counted = np.where(np.isneginf(steps), 0.0, steps)
    top = apart.max(-1, keepdims=True, initial=-np.inf)
    masses = np.exp(apart - np.where(np.isneginf(top), 0.0, top))
    total = masses.sum(-1)
    real = np.arange(t) < parts.lengths[:, None]
    with np.errstate(divide="ignore"):
        others = counted.sum(-1, keepdims=True) - counted + np.log(total) + top[..., 0]
    probs = masses / np.where(total > 0, total, 1.0)[..., None]
    return np.where(real[..., None], probs, 0.0), np.where(real, others, 0.0)


def decode(problem: Renewals, k: int = 1) -> DurationPaths:
    """The k paths with the highest p(z_1:T, x_1:T), best first; the lowest state comes first on ties.

    A path fixes its segments; only the elapsed duration of a first one that began before the data is summed over.
    """
    parts, (n_draws, n, t, _, _) = _plain(problem)
    states = np.full((n_draws, n, k, t), -1, dtype=np.int64)
    log_prob = np.full((n_draws, n, k), -np.inf)
    _run(lambda lo, hi: duration_batches.decode_block(lo, hi, *parts, states, log_prob), parts)
    return DurationPaths(states, log_prob)


def sample_paths(problem: Renewals, uniform: np.ndarray) -> np.ndarray:
    """Paths from p(z_1:T | x_1:T) by forward filtering, backward sampling; -1 beyond a sequence's end.

    ``uniform`` (D, path, n, t) holds independent uniform numbers in [0, 1); states come back in its shape.
    """
    parts, _ = _plain(problem)
    turned = np.require(np.swapaxes(uniform, 1, 2), dtype=np.float64, requirements=["C", "W"])
    states = np.full(turned.shape, -1, dtype=np.int64)
    _run(lambda lo, hi: duration_batches.sample_block(lo, hi, *parts, turned, states), parts)
    return np.ascontiguousarray(np.swapaxes(states, 1, 2))


def simulate_states(belief: np.ndarray, trans: np.ndarray, leave: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Paths from p(z_1:T), given independent uniform numbers (D, n, t) in [0, 1); states of that shape."""
    states = np.empty(uniform.shape, dtype=np.int64)
    arrays = (np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in (belief, trans, leave, uniform))
    duration_batches.simulate_all(*arrays, states)
    return states


def _plain(problem: Renewals) -> tuple[Renewals, tuple[int, int, int, int, int]]:
    # One memory layout: each other would compile every kernel once more.
    parts = [np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in problem[:-1]]
    lengths = np.require(problem.lengths, dtype=np.int64, requirements=["C", "W"])
    belief, trans, leave, stay, table = parts
    n_draws, _, s, w = belief.shape
    n, t = lengths.shape[0], table.shape[2]
    fits = trans.shape == (n_draws, s, s) and leave.shape == stay.shape == (n_draws, s, w)
    if not fits or belief.shape[1] not in (1, n) or table.shape not in ((n_draws, n, t, s), (1, n, t, s)):
        raise ValueError(
            f"got belief {belief.shape}, transitions {trans.shape}, hazards {leave.shape}, table {table.shape} and {n} "
            "lengths, expected (draw, n or 1, s, w), (draw, s, s), (draw, s, w), (draw or 1, n, t, s); check the order."
        )
    return Renewals(*parts, lengths), (n_draws, n, t, s, w)


def _run(block: Callable[[int, int], Any], parts: Renewals) -> list[Any]:
    n_draws, _, s, w = parts.belief.shape
    steps = n_draws * parts.lengths.size * parts.table.shape[2]
    return run_blocks(block, n_draws * parts.lengths.size, work=steps * s * (s + 10 * w))


def _differences(gain: np.ndarray | None, lengths: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """How much log p(x_1:t) counts, g_t - g_t+1 with nothing after the end, (D or 1, n or 1, t)."""
    n_draws, n, t = shape[:3]
    given = np.ones((1, 1, 1)) if gain is None else np.asarray(gain, dtype=np.float64)
    inside = np.arange(t) < lengths[:, None]
    full = np.where(inside, np.broadcast_to(given, (given.shape[0], n, t)), 0.0)
    return np.require(full - np.pad(full[..., 1:], ((0, 0), (0, 0), (0, min(t, 1)))), requirements=["C", "W"])


def _expect(
    parts: Renewals, shape: tuple[int, ...], weights: np.ndarray, keep: bool, apart: np.ndarray | None = None
) -> DurationExpectations:
    n_draws, n, t, s, w = shape
    apart = np.empty((n_draws, n, 0, s)) if apart is None else apart
    posterior = np.zeros((n_draws, n, t if keep else 0, s))
    start = np.zeros((n_draws, n, s, w))
    log_prob = np.zeros((n_draws, n))

    counts = np.zeros((n_draws, n, s, s))

    def block(lo: int, hi: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        first, last = lo // n, (hi - 1) // n + 1
        leaves = np.zeros((last - first, s, w))
        stays = np.zeros((last - first, s, w))
        tables = (posterior, apart, start, counts)
        duration_batches.expect_block(lo, hi, *parts, weights, first, *tables, leaves, stays, log_prob)
        return first, last, leaves, stays

    sums = (np.zeros((n_draws, s, w)), np.zeros((n_draws, s, w)))
    # Summed in the order of blocks, so that the same call gives the same bits.
    for first, last, *found in _run(block, parts):
        for total, part in zip(sums, found, strict=True):
            total[first:last] += part
    return DurationExpectations(posterior, start, counts, *sums, log_prob)
