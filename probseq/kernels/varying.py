"""Hidden chains whose transition matrix changes with the step, over batches.

Shapes: D draws, n sequences padded to t steps, s states, ``lengths`` (n,). ``initial`` is (D, n or 1, s);
``transition`` (D or 1, n or 1, t, s, s), where transition[:, :, t] drives the move into step t; ``emission`` a
`LogEmission` or a table of log p(x_t | z_t) (D or 1, n, t, s). A sequence is new, with ``initial`` = p(z_1) and
transition[:, :, 0] unused, unless ``begun`` (n,) is true for it: then ``initial`` is p(z_0), the distribution of the
state one step before the first, and transition[:, :, 0] applies. All float64. Results beyond the length of a sequence
are 0 (-1 for states). Sequences run in parallel threads; all results are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels import varying_batches
from probseq.kernels.chain import Filtered, Paths
from probseq.kernels.normal_chain import LogEmission, table_emission
from probseq.kernels.threads import run_blocks, scratch

__all__ = [
    "VaryingExpectations",
    "decode",
    "expectations",
    "filter_states",
    "log_prob_steps",
    "sample_paths",
    "simulate",
]


class VaryingExpectations(NamedTuple):
    """Posterior probabilities of the E-step.

    ``posterior`` p(z_t | x_1:T) (D, n, t, s); ``start`` (D, n, s), the posterior of the state that ``initial``
    describes, 0 for sequences without steps; ``pairs`` (D, n, t, s, s), p(z_{t-1} = i, z_t = j | x_1:T), 0 at the first
    step of a new sequence; ``log_prob`` log p(x_1:T) (D, n).
    """

    posterior: np.ndarray
    start: np.ndarray
    pairs: np.ndarray
    log_prob: np.ndarray


def log_prob_steps(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    *,
    begun: np.ndarray | None = None,
) -> np.ndarray:
    """log p(x_t | x_<t) (D, n, t); extra memory of one block of steps per thread."""
    return filter_states(initial, transition, emission, lengths, begun=begun, keep=False).log_prob_steps


def filter_states(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    *,
    begun: np.ndarray | None = None,
    keep: bool = True,
) -> Filtered:
    """Filtered and predicted state probabilities by the forward recursion.

    After an observation that no state can emit (log-likelihood -inf) the filter goes on as if it were unseen. ``last``
    of a sequence without steps is its ``initial``.
    """
    problem = Problem(initial, transition, emission, lengths, begun)
    n_draws, n, t, s = problem.shape
    steps = np.zeros((n_draws, n, t))
    filtered = np.zeros((n_draws, n, t if keep else 0, s))
    predicted = np.zeros_like(filtered)
    last = np.zeros((n_draws, n, s))
    problem.run(
        lambda lo, hi: varying_batches.filter_varying(lo, hi, *problem.arrays, keep, filtered, predicted, steps, last)
    )
    return Filtered(filtered, predicted, steps, last)


def expectations(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    *,
    begun: np.ndarray | None = None,
    gain: np.ndarray | None = None,
) -> VaryingExpectations:
    """Posterior marginals of states and of pairs of states by forward-backward.

    Parameters
    ----------
    initial, transition, emission, lengths, begun
        as in the module.
    gain
        weights g_t of the steps, broadcast to (D, n, t). The results are then the derivatives of
        sum_t g_t log p(x_t | x_<t) in the log emissions (``posterior``), the log transition probabilities (``pairs``)
        and the log initial probabilities (``start``).
    """
    problem = Problem(initial, transition, emission, lengths, begun)
    n_draws, n, t, s = problem.shape
    gain = np.ones((1, 1, 1)) if gain is None else np.require(gain, dtype=np.float64, requirements=["C", "W"])
    posterior = np.zeros((n_draws, n, t, s))
    pairs = np.zeros((n_draws, n, t, s, s))
    log_prob = np.zeros((n_draws, n))
    problem.run(
        lambda lo, hi: varying_batches.expect_varying(lo, hi, *problem.arrays, gain, posterior, pairs, log_prob)
    )
    start = posterior[:, :, 0].copy() if t > 0 else np.zeros((n_draws, n, s))
    problem.first_pairs(posterior, pairs, start)
    return VaryingExpectations(posterior, start, pairs, log_prob)


def decode(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    *,
    begun: np.ndarray | None = None,
) -> Paths:
    """Viterbi: argmax over paths of p(z_1:T, x_1:T); the lowest state wins ties; -1 beyond a sequence's end."""
    problem = Problem(initial, transition, emission, lengths, begun)
    n_draws, n, t, _ = problem.shape
    states = np.full((n_draws, n, t), -1, dtype=np.int64)
    log_prob = np.zeros((n_draws, n))
    problem.run(
        lambda lo, hi: varying_batches.decode_varying(lo, hi, *problem.arrays, problem.table(), states, log_prob)
    )
    return Paths(states, log_prob)


def sample_paths(
    initial: np.ndarray,
    transition: np.ndarray,
    emission: LogEmission | np.ndarray,
    lengths: np.ndarray,
    uniform: np.ndarray,
    *,
    begun: np.ndarray | None = None,
) -> np.ndarray:
    """Paths from p(z_1:T | x_1:T) by forward filtering, backward sampling; -1 beyond a sequence's end.

    ``uniform`` (D, path, n, t) holds independent uniform numbers in [0, 1); states come back in its shape.
    """
    problem = Problem(initial, transition, emission, lengths, begun)
    states = np.full(uniform.shape, -1, dtype=np.int64)
    uniform = np.require(uniform, dtype=np.float64, requirements=["C", "W"])
    problem.run(
        lambda lo, hi: varying_batches.sample_varying(lo, hi, *problem.arrays, problem.table(), uniform, states)
    )
    return states


def simulate(
    initial: np.ndarray, transition: np.ndarray, uniform: np.ndarray, *, begun: np.ndarray | None = None
) -> np.ndarray:
    """Paths from p(z_1:T), given independent uniform numbers (D, n, t) in [0, 1); states of that shape."""
    n_draws, n, t = uniform.shape
    unseen = np.zeros((1, n, t, np.shape(initial)[-1]))
    problem = Problem(initial, transition, unseen, np.full(n, t), begun)
    uniform = np.require(uniform, dtype=np.float64, requirements=["C", "W"])
    states = np.empty(uniform.shape, dtype=np.int64)
    varying_batches.simulate_varying(*problem.arrays[:2], uniform, states)
    return states


class Problem:
    """Checked arrays in the one memory layout that the kernels are compiled for.

    ``arrays`` holds the distribution of the state at the first step (D, n, s), the matrices, the emission, the lengths.
    With ``constant`` there is one matrix for all steps, (D or 1, n or 1, 1, s, s).
    """

    def __init__(
        self,
        initial: np.ndarray,
        transition: np.ndarray,
        emission: LogEmission | np.ndarray,
        lengths: np.ndarray,
        begun: np.ndarray | None,
        *,
        constant: bool = False,
    ) -> None:
        if not isinstance(emission, LogEmission):
            emission = table_emission(emission)
        initial, transition = (np.require(a, dtype=np.float64, requirements=["C", "W"]) for a in (initial, transition))
        lengths = np.require(lengths, dtype=np.int64, requirements=["C", "W"])
        n_draws, n, t, s = initial.shape[0], lengths.shape[0], emission.n_steps, initial.shape[-1]
        steps = 1 if constant else t
        fits = transition.ndim == 5 and transition.shape[2:] == (steps, s, s)
        fits = fits and transition.shape[0] in (1, n_draws) and transition.shape[1] in (1, n)
        if not fits or initial.ndim != 3 or initial.shape[1] not in (1, n):
            raise ValueError(
                f"got initial {initial.shape}, transition {transition.shape} and {n} lengths, expected transition "
                f"{(n_draws, n, steps, s, s)} and one initial row for each sequence or for all; check the shapes."
            )
        self.shape = (n_draws, n, t, s)
        self._initial, self._transition = initial, transition
        self._begun = np.zeros(n, dtype=bool) if begun is None else np.asarray(begun, dtype=bool)
        if self._begun.shape != (n,):
            raise ValueError(f"got begun of shape {self._begun.shape}, expected ({n},): one flag for each sequence.")
        if constant and self._begun.any():
            raise ValueError("got begun with a constant matrix; give p(z_1) as initial instead.")
        self._begun = self._begun & (lengths > 0)
        first = np.array(np.broadcast_to(initial, (n_draws, n, s)), order="C")
        if self._begun.any():
            moved = (first[..., None, :] @ transition[:, :, 0])[..., 0, :]
            first = np.where(self._begun[:, None], moved, first)
        self.arrays = (first, transition, emission, lengths)

    def first_pairs(self, posterior: np.ndarray, pairs: np.ndarray, start: np.ndarray) -> None:
        """Fill the first step of ``pairs`` of sequences that go on, and ``start``, one step before it."""
        if not self._begun.any():
            return
        first = self.arrays[0]
        ratio = np.divide(posterior[:, :, 0], first, out=np.zeros_like(first), where=first > 0)
        both = self._initial[..., None] * self._transition[:, :, 0] * ratio[..., None, :]
        pairs[:, self._begun, 0] = both[:, self._begun]
        start[:, self._begun] = both[:, self._begun].sum(-1)

    def table(self) -> np.ndarray:
        """Scratch memory of the calling thread for one number a step and state."""
        longest, size = int(self.arrays[3].max(initial=0)), self.shape[3]
        return scratch(longest * size).reshape(longest, size)

    def run(self, block: object) -> list:
        """Call ``block`` over all draws and sequences, in threads where that pays."""
        n_draws, n, t, s = self.shape
        return run_blocks(block, n_draws * n, work=n_draws * n * t * s * (2 * s + 20))  # type: ignore[arg-type]
