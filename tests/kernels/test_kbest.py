"""The k best paths against a sorted enumeration of every path."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain, varying
from probseq.kernels.kbest import decode_k


def random_chain(seed, n_draws=2, n=3, t=6, s=3, zeros=False):
    rng = np.random.default_rng(seed)
    initial = rng.dirichlet(np.ones(s), (n_draws, n))
    transition = rng.dirichlet(np.ones(s), (n_draws, s))
    log_emission = 2 * rng.normal(size=(n_draws, n, t, s))
    log_emission[:, 0, 2] = 0.0
    if zeros:
        transition[:, 0, 1:] = 0.0
        transition[:, 2, :2] = 0.0
        transition /= transition.sum(-1, keepdims=True)
        initial[:, :, 1] = 0.0
        initial /= initial.sum(-1, keepdims=True)
        log_emission[:, 1, 1, 0] = -np.inf
    return initial, transition, log_emission, np.array([t, t - 2, 1])


def sorted_paths(initial, matrices, log_emission):
    """Possible paths (path, t) in decreasing order of their joint log probability."""
    t, s = log_emission.shape
    paths = np.array(list(itertools.product(range(s), repeat=t)))
    with np.errstate(divide="ignore"):
        joint = np.log(initial)[paths[:, 0]] + log_emission[np.arange(t), paths].sum(1)
        for k in range(1, t):
            joint = joint + np.log(matrices[k])[paths[:, k - 1], paths[:, k]]
    order = np.argsort(-joint, kind="stable")
    order = order[joint[order] > -np.inf]
    return paths[order], joint[order]


def assert_equal_to_enumeration(result, draw, q, t, paths, joint):
    k = result.log_prob.shape[-1]
    found = min(k, len(joint))
    assert_allclose(result.log_prob[draw, q, :found], joint[:found], rtol=1e-10, atol=1e-12)
    assert_array_equal(result.states[draw, q, :found, :t], paths[:found])
    assert np.all(result.log_prob[draw, q, found:] == -np.inf)
    assert np.all(result.states[draw, q, found:] == -1) and np.all(result.states[draw, q, :, t:] == -1)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("remote", [0.0, 11_600.0])
def test_equals_enumeration(zeros, k, remote):
    initial, transition, log_emission, lengths = random_chain(1, zeros=zeros)
    log_emission[:, :, 1::2, 2] -= remote
    result = decode_k(initial, transition, chain.table_emission(log_emission), lengths, k)
    assert result.states.shape == (2, 3, k, 6) and result.log_prob.shape == (2, 3, k)
    for draw, q in itertools.product(range(2), range(3)):
        t = lengths[q]
        matrices = np.broadcast_to(transition[draw], (t, 3, 3))
        expected = sorted_paths(initial[draw, q], matrices, log_emission[draw, q, :t])
        assert_equal_to_enumeration(result, draw, q, t, *expected)


def test_matrices_of_each_step_equal_enumeration():
    initial, _, log_emission, lengths = random_chain(2, zeros=True)
    transition = np.random.default_rng(3).dirichlet(np.ones(3), (2, 3, 6, 3))
    transition[:, :, 3, 0, 1] = 0.0
    begun = np.array([False, False, True])
    result = decode_k(initial, transition, log_emission, lengths, 7, begun=begun)
    for draw, q in itertools.product(range(2), range(3)):
        t = lengths[q]
        start = initial[draw, q] @ transition[draw, q, 0] if begun[q] else initial[draw, q]
        expected = sorted_paths(start, transition[draw, q], log_emission[draw, q, :t])
        assert_equal_to_enumeration(result, draw, q, t, *expected)
    best = varying.decode(initial, transition, log_emission, lengths, begun=begun)
    assert_array_equal(result.states[:, :, 0], best.states)


def test_long_chain_begins_with_the_viterbi_path_and_scores_its_paths():
    rng = np.random.default_rng(4)
    initial, transition = rng.dirichlet(np.ones(4), (1, 2)), rng.dirichlet(np.ones(4), (1, 4))
    x = 2 * rng.normal(size=(2, 300, 1))
    mean, variance = np.arange(4.0).reshape(1, 4, 1), np.full((1, 4, 1), 0.7)
    emission, lengths = chain.normal_emission(x, mean, variance), np.array([300, 170])
    result = decode_k(initial, transition, emission, lengths, 20)
    best = chain.decode(initial, transition, emission, lengths)
    assert_array_equal(result.states[:, :, 0], best.states)
    assert_allclose(result.log_prob[:, :, 0], best.log_prob, rtol=1e-12)
    assert np.all(np.diff(result.log_prob) <= 0)
    table = -0.5 * (np.log(2 * np.pi * 0.7) + (x - mean[:, :, 0]) ** 2 / 0.7)
    for q in range(2):
        paths = result.states[0, q, :, : lengths[q]]
        assert len({tuple(path) for path in paths}) == 20
        joint = np.log(initial[0, q][paths[:, 0]]) + table[q, np.arange(lengths[q]), paths].sum(1)
        joint += np.log(transition[0][paths[:, :-1], paths[:, 1:]]).sum(1)
        assert_allclose(result.log_prob[0, q], joint, rtol=1e-11)


def test_ties_go_to_the_lowest_states():
    even = np.full((1, 1, 2), 0.5)
    result = decode_k(even, np.full((1, 2, 2), 0.5), np.zeros((1, 1, 2, 2)), np.array([2]), 4)
    assert_allclose(result.log_prob, 2 * np.log(0.5), rtol=1e-14)
    assert_array_equal(result.states[0, 0], [[0, 0], [1, 0], [0, 1], [1, 1]])


def test_impossible_observation_counts_as_unseen():
    initial, transition, log_emission, lengths = random_chain(5)
    unseen = log_emission.copy()
    log_emission[:, 0, 3], unseen[:, 0, 3] = -np.inf, 0.0
    result = decode_k(initial, transition, log_emission, lengths, 3)
    expected = decode_k(initial, transition, unseen, lengths, 3)
    assert np.all(result.log_prob[:, 0] == -np.inf)
    assert_array_equal(result.states, expected.states)
    assert_allclose(result.log_prob[:, 1:], expected.log_prob[:, 1:], rtol=1e-12)


def test_empty_sequence_has_one_path():
    initial, transition, log_emission, _ = random_chain(6)
    result = decode_k(initial, transition, log_emission, np.zeros(3, int), 2)
    assert_array_equal(result.log_prob, np.broadcast_to([0.0, -np.inf], (2, 3, 2)))
    assert np.all(result.states == -1)


def test_no_paths_raise():
    initial, transition, log_emission, lengths = random_chain(7)
    with pytest.raises(ValueError, match="at least one path"):
        decode_k(initial, transition, log_emission, lengths, 0)
    with pytest.raises(ValueError, match="constant matrix"):
        decode_k(initial, transition, log_emission, lengths, 2, begun=np.ones(3, bool))
