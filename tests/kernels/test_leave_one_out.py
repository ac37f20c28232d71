"""Steps left out of a chain, against enumeration of all paths."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probseq.kernels.leave_one_out import leave_one_out


def enumerated(start, moves, table, t):
    """p(z_t | others) and log p(others) by the sum over all paths; ``moves`` (T, s, s) move into each step."""
    total = np.full(table.shape[1], -np.inf)
    with np.errstate(divide="ignore"):
        for path in itertools.product(range(table.shape[1]), repeat=len(table)):
            value = np.log(start[path[0]])
            for step, z in enumerate(path):
                value += np.log(moves[step][path[step - 1], z]) if step else 0.0
                value += table[step, z] if step != t else 0.0
            total[path[t]] = np.logaddexp(total[path[t]], value)
    evidence = np.logaddexp.reduce(total)
    return np.exp(total - evidence), evidence


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_equals_enumeration(varying, scale):
    rng = np.random.default_rng(0)
    n_draws, n, t, s = 2, 2, 5, 3
    start = rng.dirichlet(np.ones(s), (n_draws, n))
    start[0, 0] = [1.0, 0.0, 0.0]
    shape = (n_draws, n, t) if varying else (n_draws,)
    moves = rng.dirichlet(np.ones(s), (*shape, s))
    moves[..., 0, 2] = 0.0
    moves /= moves.sum(-1, keepdims=True)
    table = scale * rng.normal(size=(n_draws, n, t, s))
    table[:, :, 2, 1] = -np.inf
    lengths = np.array([5, 3])
    probs, evidence = leave_one_out(start, moves, table, lengths)
    for d, q in np.ndindex(n_draws, n):
        each = moves[d, q] if varying else np.broadcast_to(moves[d], (t, s, s))
        for step in range(lengths[q]):
            wanted, total = enumerated(start[d, q], each, table[d, q, : lengths[q]], step)
            assert_allclose(probs[d, q, step], wanted, atol=1e-10)
            assert_allclose(evidence[d, q, step], total, rtol=1e-12)
    assert not probs[:, 1, 3:].any() and not evidence[:, 1, 3:].any()


def test_one_start_and_one_table_for_all():
    rng = np.random.default_rng(1)
    start, moves = np.array([[[0.3, 0.7]]]), rng.dirichlet(np.ones(2), (1, 2))
    table = rng.normal(size=(1, 3, 6, 2))
    together = leave_one_out(start, moves, table, np.array([6, 6, 6]))[0]
    for q in range(3):
        alone = leave_one_out(start, moves, table[:, q : q + 1], np.array([6]))[0]
        assert_allclose(together[:, q], alone[:, 0])


def test_what_no_state_can_emit_counts_as_unseen():
    table = np.zeros((1, 1, 3, 2))
    table[0, 0, 0], table[0, 0, 1] = [0.0, -1.0], -np.inf
    start, moves = np.array([[[0.5, 0.5]]]), np.array([[[0.9, 0.1], [0.2, 0.8]]])
    blank = table.copy()
    blank[0, 0, 1] = 0.0
    lengths = np.array([3])
    for a, b in zip(
        leave_one_out(start, moves, table, lengths), leave_one_out(start, moves, blank, lengths), strict=True
    ):
        assert_allclose(a, b)


def test_sums_that_underflow_keep_the_only_way():
    """A state that is e^-5000 less likely is the only one from which the last step can come."""
    moves = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    table = np.array([[[[0.0, -5000.0], [0.0, 0.0], [-np.inf, 0.0]]]])
    probs, evidence = leave_one_out(np.array([[[0.5, 0.5]]]), moves, table, np.array([3]))
    assert_allclose(probs[0, 0], [[0, 1], [0, 1], [1, 0]], atol=1e-300)
    assert_allclose(evidence[0, 0], [np.log(0.5), np.log(0.5) - 5000, np.log(0.5)], rtol=1e-12)
