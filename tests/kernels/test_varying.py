"""A transition matrix for each step, against enumeration of every path, the constant chain and finite differences."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain, varying

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
BEGUN = np.array([False, True, True])


class Enumeration:
    """Every path of one sequence with its joint log probability."""

    def __init__(self, initial, matrices, log_emission, begun):
        t, s = log_emission.shape
        self.paths = np.array(list(itertools.product(range(s), repeat=t)))
        self.before = matrices[0] * initial[:, None]
        with np.errstate(divide="ignore"):
            start = np.log(self.before.sum(0) if begun else initial)
            step = np.log(matrices)
        joint = start[self.paths[:, 0]]
        for k in range(1, t):
            joint = joint + step[k][self.paths[:, k - 1], self.paths[:, k]]
        self.joint = joint + log_emission[np.arange(t), self.paths].sum(1)
        self.log_prob = np.logaddexp.reduce(self.joint)
        self.weights = np.exp(self.joint - self.log_prob)
        self.shape, self.begun, self.initial = (t, s), begun, initial

    def posterior(self):
        t, s = self.shape
        return np.array([[self.weights[self.paths[:, k] == j].sum() for j in range(s)] for k in range(t)])

    def pairs(self):
        t, s = self.shape
        out = np.zeros((t, s, s))
        for k in range(1, t):
            np.add.at(out[k], (self.paths[:, k - 1], self.paths[:, k]), self.weights)
        if self.begun:
            total = self.before.sum(0)
            share = np.divide(self.before, total, out=np.zeros_like(self.before), where=total > 0)
            out[0] = share * self.posterior()[0]
        return out


def random_chain(seed, n_draws=2, n=3, t=6, s=3, zeros=False, remote=0.0):
    rng = np.random.default_rng(seed)
    initial = rng.dirichlet(np.ones(s), (n_draws, n))
    transition = rng.dirichlet(np.ones(s), (n_draws, n, t, s))
    log_emission = 3 * rng.normal(size=(n_draws, n, t, s))
    log_emission[:, 0, 2] = 0.0
    if zeros:
        transition[..., 0, 2] = 0.0
        transition[:, :, ::2, 2, 1] = 0.0
        transition /= transition.sum(-1, keepdims=True)
        initial[:, :, 1] = 0.0
        initial /= initial.sum(-1, keepdims=True)
        log_emission[:, 1, 3, 0] = -np.inf
    # A state outweighs the others by more than a double can hold, at a step where it may be unreachable.
    log_emission[:, :, ::2, 2] += remote
    log_emission[:, :, 1::2, 0] -= remote
    return initial, transition, log_emission, np.array([t, t - 2, 1])


@pytest.mark.parametrize("begun", [None, BEGUN])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("remote", [0.0, 1500.0, 11_600.0])
def test_equals_enumeration(zeros, remote, begun):
    initial, transition, log_emission, lengths = random_chain(1, zeros=zeros, remote=remote)
    problem = (initial, transition, log_emission, lengths)
    steps = varying.log_prob_steps(*problem, begun=begun)
    result = varying.filter_states(*problem, begun=begun)
    sums = varying.expectations(*problem, begun=begun)
    paths = varying.decode(*problem, begun=begun)
    flags = np.zeros(3, bool) if begun is None else begun
    for draw, q in itertools.product(range(2), range(3)):
        t = lengths[q]
        arrays = (initial[draw, q], transition[draw, q])
        oracle = Enumeration(*arrays, log_emission[draw, q, :t], flags[q])
        assert_allclose(sums.log_prob[draw, q], oracle.log_prob, **TOLERANCE)
        assert_array_equal(steps[draw, q, t:], 0.0)
        assert_allclose(sums.posterior[draw, q, :t], oracle.posterior(), **TOLERANCE)
        assert_array_equal(sums.posterior[draw, q, t:], 0.0)
        assert_allclose(sums.pairs[draw, q, :t], oracle.pairs(), **TOLERANCE)
        assert_array_equal(sums.pairs[draw, q, t:], 0.0)
        first = oracle.pairs()[0].sum(-1) if flags[q] else oracle.posterior()[0]
        assert_allclose(sums.start[draw, q], first, **TOLERANCE)
        for k in range(t):
            past = Enumeration(*arrays, log_emission[draw, q, : k + 1], flags[q])
            assert_allclose(steps[draw, q, : k + 1].sum(), past.log_prob, **TOLERANCE)
            assert_allclose(result.filtered[draw, q, k], past.posterior()[-1], **TOLERANCE)
            unseen = log_emission[draw, q, : k + 1].copy()
            unseen[-1] = 0.0
            ahead = Enumeration(*arrays, unseen, flags[q])
            assert_allclose(result.predicted[draw, q, k], ahead.posterior()[-1], **TOLERANCE)
        assert_allclose(result.last[draw, q], past.posterior()[-1], **TOLERANCE)
        assert_allclose(paths.log_prob[draw, q], oracle.joint.max(), **TOLERANCE)
        assert_array_equal(paths.states[draw, q, :t], oracle.paths[np.argmax(oracle.joint)])
        assert_array_equal(paths.states[draw, q, t:], -1)
    if zeros:
        assert np.all(sums.pairs[transition == 0.0] == 0.0)
        assert np.all(sums.start[initial == 0.0] == 0.0)


@pytest.mark.parametrize("remote", [0.0, 1500.0])
def test_constant_matrices_equal_the_constant_chain(remote):
    """Also where matrices and emissions are shared by all draws or sequences, and over several blocks of steps."""
    rng = np.random.default_rng(2)
    n_draws, n, t, s = 2, 3, 150, 9
    initial, matrix = rng.dirichlet(np.ones(s), (n_draws, 1)), rng.dirichlet(np.ones(s), (1, s))
    matrix[0, 0, 1:4] = 0.0
    matrix /= matrix.sum(-1, keepdims=True)
    table = 3 * rng.normal(size=(1, n, t, s))
    table[:, 1, 40:] += remote * rng.integers(-1, 2, (t - 40, s))
    lengths = np.array([t, 100, 0])
    gain = rng.normal(size=(1, n, t))
    shared = np.broadcast_to(matrix[:, None, None], (1, 1, t, s, s))
    known = (initial, np.repeat(matrix, 2, 0), chain.table_emission(table), lengths)
    for one, other in zip(
        varying.filter_states(initial, shared, table, lengths), chain.filter_states(*known), strict=True
    ):
        assert_allclose(one, other, rtol=1e-10, atol=1e-11)
    for weight in (None, gain):
        sums = varying.expectations(initial, shared, table, lengths, gain=weight)
        expected = chain.expectations(*known, gain=weight)
        assert_allclose(sums.posterior, expected.posterior, rtol=1e-9, atol=1e-10)
        assert_allclose(sums.pairs.sum((1, 2)), expected.counts, rtol=1e-9, atol=1e-10)
        assert_allclose(sums.log_prob, expected.log_prob, rtol=1e-10)
    paths, expected = varying.decode(initial, shared, table, lengths), chain.decode(*known)
    assert_array_equal(paths.states, expected.states)
    assert_allclose(paths.log_prob, expected.log_prob, rtol=1e-10)


@pytest.mark.parametrize("begun", [None, BEGUN])
@pytest.mark.parametrize("remote", [0.0, 1500.0])
def test_gain_gives_derivatives(remote, begun):
    initial, transition, log_emission, lengths = random_chain(3, zeros=True)
    log_emission[:, :, 3, 1] += remote
    gain = np.random.default_rng(4).normal(size=log_emission.shape[:3])

    def value(initial, transition, log_emission):
        return (varying.log_prob_steps(initial, transition, log_emission, lengths, begun=begun) * gain).sum()

    arrays = [initial, transition, log_emission]
    sums = varying.expectations(*arrays, lengths, gain=gain, begun=begun)
    places = {
        0: [(0, 0, 0), (1, 2, 2), (0, 1, 0)],
        1: [(0, 0, 1, 1, 2), (1, 1, 0, 1, 0), (0, 0, 4, 0, 0), (1, 2, 0, 2, 2), (1, 2, 1, 0, 0)],
        2: [(0, 0, 1, 1), (1, 1, 2, 2), (0, 2, 0, 0), (1, 0, 5, 2), (0, 0, 3, 1)],
    }
    h = 1e-6
    for number, derivative in enumerate((sums.start, sums.pairs, sums.posterior)):
        for index in places[number]:
            ends = []
            for sign in (h, -h):
                moved = [a.copy() for a in arrays]
                moved[number][index] = moved[2][index] + sign if number == 2 else moved[number][index] * (1 + sign)
                ends.append(value(*moved))
            expected = (ends[0] - ends[1]) / (2 * h)
            assert_allclose(derivative[index], expected, rtol=2e-6, atol=2e-7 + remote * 1e-9)


def test_splitting_in_time_adds_up():
    initial, transition, log_emission, _ = random_chain(5, t=80, zeros=True)
    whole = varying.filter_states(initial, transition, log_emission, np.full(3, 80))
    first = varying.filter_states(initial, transition[:, :, :30], log_emission[:, :, :30], np.full(3, 30), keep=False)
    second = varying.filter_states(
        first.last, transition[:, :, 30:], log_emission[:, :, 30:], np.full(3, 50), begun=np.ones(3, bool)
    )
    steps = np.concatenate([first.log_prob_steps, second.log_prob_steps], 2)
    assert_allclose(steps, whole.log_prob_steps, rtol=1e-10, atol=1e-12)
    assert_allclose(second.predicted, whole.predicted[:, :, 30:], rtol=1e-10, atol=1e-12)
    assert_allclose(second.last, whole.last, rtol=1e-10, atol=1e-12)


def test_sequence_without_steps_keeps_what_was_known():
    initial, transition, log_emission, _ = random_chain(6)
    result = varying.filter_states(initial, transition, log_emission, np.zeros(3, int), begun=np.ones(3, bool))
    assert_array_equal(result.last, initial)
    empty = varying.expectations(initial, transition[:, :, :0], log_emission[:, :, :0], np.zeros(3, int), begun=BEGUN)
    assert empty.pairs.shape == (2, 3, 0, 3, 3) and np.all(empty.start == 0.0)


def test_lost_states_are_kept_exactly():
    """Only state 1 leads to state 2; its mass falls to 1e-1300 before the last steps demand it."""
    t, s = 40, 3
    initial = np.array([[[1.0, 0.0, 0.0]]])
    matrix = np.array([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    transition = np.broadcast_to(matrix, (1, 1, t, s, s)).copy()
    transition[0, 0, 31:, 0] = [0.2, 0.3, 0.5]
    log_emission = np.zeros((1, 1, t, s))
    log_emission[0, 0, :30, 1] = -100.0
    log_emission[0, 0, :30, 2] = -4000.0
    log_emission[0, 0, 30:, 0] = -np.inf
    sums = varying.expectations(initial, transition, log_emission, np.array([t]))
    assert_allclose(sums.log_prob[0, 0], np.log(0.9**29 * 0.1), rtol=1e-10)
    assert_allclose(sums.posterior[0, 0, 29], [1.0, 0.0, 0.0], atol=1e-10)
    assert np.all(sums.pairs[0, 0, :, 0, 2] == 0.0)


def test_tiny_transitions_keep_their_digits():
    """A move of probability 1e-310, below the normal numbers, that the data demand."""
    matrix = np.array([[1.0 - 1e-16, 1e-310], [0.0, 1.0]])
    transition = np.broadcast_to(matrix, (1, 1, 4, 2, 2))
    log_emission = np.array([[0.0, -np.inf], [0.0, -np.inf], [-np.inf, 0.0], [-np.inf, 0.0]])[None, None]
    initial, lengths = np.array([[[1.0, 0.0]]]), np.array([4])
    log_prob = varying.expectations(initial, transition, log_emission, lengths).log_prob
    assert_allclose(log_prob, np.log(1e-310), rtol=1e-12)
    assert_allclose(varying.decode(initial, transition, log_emission, lengths).log_prob, np.log(1e-310), rtol=1e-12)


def test_impossible_observation_has_no_nan():
    initial, transition, log_emission, lengths = random_chain(7, zeros=True)
    log_emission[:, 0, 1] = -np.inf
    log_emission[:, 1, 1] = [0.0, -1.0, -np.inf]
    initial[:, 1], transition[:, 1, 1, 0] = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]
    result = varying.filter_states(initial, transition, log_emission, lengths)
    steps = result.log_prob_steps
    assert np.all(steps[:, :2, 1] == -np.inf) and np.isfinite(np.delete(steps, 1, axis=2)).all()
    assert_allclose(result.filtered[:, :2, 1], result.predicted[:, :2, 1], rtol=1e-12)
    unseen = log_emission.copy()
    unseen[:, :2, 1] = 0.0
    sums = varying.expectations(initial, transition, log_emission, lengths)
    expected = varying.expectations(initial, transition, unseen, lengths)
    assert_allclose(sums.posterior, expected.posterior, **TOLERANCE)
    assert_allclose(sums.pairs, expected.pairs, **TOLERANCE)
    paths = varying.decode(initial, transition, log_emission, lengths)
    assert np.all(paths.log_prob[:, :2] == -np.inf) and np.isfinite(paths.log_prob[:, 2]).all()
    assert_array_equal(paths.states, varying.decode(initial, transition, unseen, lengths).states)


@pytest.mark.parametrize("begun", [None, BEGUN])
def test_sampled_paths_follow_the_posterior(begun):
    initial, transition, log_emission, lengths = random_chain(8, t=5, zeros=True)
    flags = np.zeros(3, bool) if begun is None else begun
    for remote in (0.0, 1500.0):
        log_emission[:, :, 0, 1] += remote
        uniform = np.random.default_rng(9).random((2, 20_000, 3, 5))
        states = varying.sample_paths(initial, transition, log_emission, lengths, uniform, begun=begun)
        for draw, q in itertools.product(range(2), range(3)):
            t = lengths[q]
            oracle = Enumeration(initial[draw, q], transition[draw, q], log_emission[draw, q, :t], flags[q])
            assert_frequencies(states[draw, :, q, :t], oracle)
            assert np.all(states[draw, :, q, t:] == -1)


def test_simulated_paths_follow_the_prior():
    initial, transition, log_emission, _ = random_chain(10, n_draws=1, n=2, t=4, zeros=True)
    flags = np.array([False, True])
    uniform = np.random.default_rng(11).random((20_000, 2, 4))
    start = np.repeat(initial, 20_000, 0)
    states = varying.simulate(start, transition, uniform, begun=flags)
    for q in range(2):
        oracle = Enumeration(initial[0, q], transition[0, q], np.zeros((4, 3)), flags[q])
        assert_frequencies(states[:, q], oracle)


def assert_frequencies(states, oracle):
    t = states.shape[-1]
    frequency = np.bincount(states @ 3 ** np.arange(t - 1, -1, -1), minlength=3**t) / len(states)
    assert np.all(frequency[oracle.weights == 0.0] == 0.0)
    deviation = (frequency - oracle.weights) / np.sqrt(oracle.weights * (1 - oracle.weights) / len(states) + 1e-9)
    assert np.abs(deviation).max() < 6.0


def test_fused_normals_equal_their_table():
    rng = np.random.default_rng(12)
    initial, transition, _, _ = random_chain(13, t=90)
    mean, variance = rng.normal(size=(2, 3, 2)), rng.uniform(0.2, 2, (2, 3, 2))
    x = 2 * rng.normal(size=(3, 90, 2))
    x[rng.random(x.shape) < 0.2] = np.nan
    gap = x[None, :, :, None] - mean[:, None, None]
    table = np.nansum(-0.5 * (np.log(2 * np.pi * variance)[:, None, None] + gap**2 / variance[:, None, None]), -1)
    lengths = np.array([90, 70, 1])
    fused = chain.normal_emission(x, mean, variance)
    for one, other in zip(
        varying.expectations(initial, transition, fused, lengths),
        varying.expectations(initial, transition, table, lengths),
        strict=True,
    ):
        assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_threads_change_nothing(monkeypatch):
    initial, transition, log_emission, _ = random_chain(14, n_draws=3, n=40, t=60, s=4)
    lengths = np.random.default_rng(15).integers(0, 61, 40)
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PROBSEQ_NUM_THREADS", threads)
        results.append(varying.expectations(initial, transition, log_emission, lengths))
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


def test_shapes_that_do_not_fit_raise():
    initial, transition, log_emission, lengths = random_chain(16)
    with pytest.raises(ValueError, match="expected transition"):
        varying.log_prob_steps(initial, transition[:, :, :2], log_emission, lengths)
    with pytest.raises(ValueError, match="one flag for each sequence"):
        varying.log_prob_steps(initial, transition, log_emission, lengths, begun=np.ones(2, bool))
