"""Chain kernels against enumeration of every path, and against values quoted from public sources."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


class Enumeration:
    """Every path of one sequence with its joint probability, as log densities."""

    def __init__(self, initial, transition, log_emission):
        t, s = log_emission.shape
        self.paths = np.array(list(itertools.product(range(s), repeat=t)))
        with np.errstate(divide="ignore"):
            start, step = np.log(initial), np.log(transition)
        joint = start[self.paths[:, 0]]
        for k in range(1, t):
            joint = joint + step[self.paths[:, k - 1], self.paths[:, k]]
        self.joint = joint + log_emission[np.arange(t), self.paths].sum(1)
        self.log_prob = np.logaddexp.reduce(self.joint)
        self.weights = np.exp(self.joint - self.log_prob)
        self.shape = (t, s)

    def posterior(self):
        t, s = self.shape
        return np.array([[self.weights[self.paths[:, k] == j].sum() for j in range(s)] for k in range(t)])

    def counts(self):
        t, s = self.shape
        out = np.zeros((s, s))
        for k in range(1, t):
            np.add.at(out, (self.paths[:, k - 1], self.paths[:, k]), self.weights)
        return out


def random_chain(seed, n_draws=2, n=3, t=6, s=3, zeros=False):
    rng = np.random.default_rng(seed)
    initial = rng.dirichlet(np.ones(s), (n_draws, n))
    transition = rng.dirichlet(np.ones(s), (n_draws, s))
    log_emission = 3 * rng.normal(size=(n_draws, n, t, s))
    log_emission[:, 0, 2] = 0.0
    if zeros:
        transition[:, 0, 2] = 0.0
        transition[:, 2, 1] = 0.0
        transition /= transition.sum(-1, keepdims=True)
        initial[:, :, 1] = 0.0
        initial /= initial.sum(-1, keepdims=True)
        log_emission[:, 1, 3, 0] = -np.inf
    return initial, transition, log_emission, np.array([t, t - 2, 1])


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("remote", [0.0, 1500.0])
def test_equals_enumeration(zeros, remote):
    initial, transition, log_emission, lengths = random_chain(1, zeros=zeros)
    if remote:
        # State 2 outweighs the others by more than a double can hold, at a step where it may be unreachable.
        log_emission[:, :, ::2, 2] += remote
        log_emission[:, :, 1::2, 0] -= remote
    emission = chain.table_emission(log_emission)
    steps = chain.log_prob_steps(initial, transition, emission, lengths)
    result = chain.filter_states(initial, transition, emission, lengths)
    moments = chain.expectations(initial, transition, emission, lengths)
    paths = chain.decode(initial, transition, emission, lengths)
    counts = np.zeros_like(transition)
    for draw, q in itertools.product(range(2), range(3)):
        t = lengths[q]
        oracle = Enumeration(initial[draw, q], transition[draw], log_emission[draw, q, :t])
        assert_allclose(moments.log_prob[draw, q], oracle.log_prob, **TOLERANCE)
        assert_allclose(steps[draw, q, :t].sum(), oracle.log_prob, **TOLERANCE)
        assert_array_equal(steps[draw, q, t:], 0.0)
        assert_allclose(moments.posterior[draw, q, :t], oracle.posterior(), **TOLERANCE)
        assert_array_equal(moments.posterior[draw, q, t:], 0.0)
        assert_allclose(moments.start[draw, q], oracle.posterior()[0], **TOLERANCE)
        counts[draw] += oracle.counts()
        for k in range(t):
            past = Enumeration(initial[draw, q], transition[draw], log_emission[draw, q, : k + 1])
            assert_allclose(steps[draw, q, : k + 1].sum(), past.log_prob, **TOLERANCE)
            assert_allclose(result.filtered[draw, q, k], past.posterior()[-1], **TOLERANCE)
            unseen = log_emission[draw, q, : k + 1].copy()
            unseen[-1] = 0.0
            ahead = Enumeration(initial[draw, q], transition[draw], unseen)
            assert_allclose(result.predicted[draw, q, k], ahead.posterior()[-1], **TOLERANCE)
        assert_allclose(result.last[draw, q], past.posterior()[-1], **TOLERANCE)
        assert_allclose(paths.log_prob[draw, q], oracle.joint.max(), **TOLERANCE)
        assert_array_equal(paths.states[draw, q, :t], oracle.paths[np.argmax(oracle.joint)])
        assert_array_equal(paths.states[draw, q, t:], -1)
    assert_allclose(moments.counts, counts, **TOLERANCE)
    if zeros:
        assert np.all(moments.counts[transition == 0.0] == 0.0)
        assert np.all(moments.start[initial == 0.0] == 0.0)


@pytest.mark.parametrize("remote", [0.0, 1500.0])
def test_gain_gives_derivatives(remote):
    initial, transition, log_emission, lengths = random_chain(2, zeros=True)
    log_emission[:, :, 3, 1] += remote
    gain = np.random.default_rng(3).normal(size=log_emission.shape[:3])

    def value(initial, transition, log_emission):
        steps = chain.log_prob_steps(initial, transition, chain.table_emission(log_emission), lengths)
        return (steps * gain).sum()

    result = chain.expectations(initial, transition, chain.table_emission(log_emission), lengths, gain=gain)
    h = 1e-6
    for index in [(0, 0, 1, 1), (1, 1, 2, 2), (0, 2, 0, 0), (1, 0, 5, 2), (0, 0, 3, 1)]:
        ends = []
        for sign in (h, -h):
            moved = log_emission.copy()
            moved[index] += sign
            ends.append(value(initial, transition, moved))
        assert_allclose(result.posterior[index], (ends[0] - ends[1]) / (2 * h), rtol=2e-6, atol=2e-7 + remote * 1e-9)
    for index in [(0, 0, 1), (1, 2, 2), (0, 1, 1)]:
        ends = []
        for sign in (h, -h):
            moved = transition.copy()
            moved[index] *= 1 + sign
            ends.append(value(initial, moved, log_emission))
        assert_allclose(result.counts[index], (ends[0] - ends[1]) / (2 * h), rtol=2e-6, atol=2e-7 + remote * 1e-9)


def test_left_to_right_chain_keeps_lost_states():
    """Only state 1 leads to state 2; its mass falls to 1e-1300 before the last steps demand it."""
    t, s = 40, 3
    initial = np.array([[[1.0, 0.0, 0.0]]])
    transition = np.array([[[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    log_emission = np.zeros((1, 1, t, s))
    log_emission[0, 0, :30, 1] = -100.0
    log_emission[0, 0, :30, 2] = -4000.0
    log_emission[0, 0, 30:, 0] = -np.inf
    emission = chain.table_emission(log_emission)
    result = chain.expectations(initial, transition, emission, np.array([t]))
    # From state 0 at step 29 the only way on is to state 1 at step 30.
    stay, enter = 0.9**29 * 0.1, np.log(0.5)
    assert np.isfinite(result.log_prob).all()
    assert_allclose(result.log_prob[0, 0], np.log(stay), rtol=1e-10)
    assert_allclose(result.posterior[0, 0, 29], [1.0, 0.0, 0.0], atol=1e-10)
    assert enter < 0 and result.counts[0, 0, 2] == 0.0


def test_impossible_observation_has_no_nan():
    initial, transition, log_emission, lengths = random_chain(4)
    log_emission[:, 0, 1] = -np.inf
    emission = chain.table_emission(log_emission)
    steps = chain.log_prob_steps(initial, transition, emission, lengths)
    assert np.all(steps[:, 0, 1] == -np.inf)
    assert np.isfinite(steps[:, 1:]).all() and np.isfinite(steps[:, 0, 2:]).all()
    result = chain.expectations(initial, transition, emission, lengths)
    assert np.isfinite(result.posterior).all() and np.isfinite(result.counts).all()
    paths = chain.decode(initial, transition, emission, lengths)
    assert np.all(paths.log_prob[:, 0] == -np.inf)


def test_normals_equal_their_table_with_missing_coordinates():
    rng = np.random.default_rng(5)
    n_draws, n, t, s, d = 2, 3, 700, 5, 3
    initial, transition = rng.dirichlet(np.ones(s), (n_draws, n)), rng.dirichlet(np.ones(s), (n_draws, s))
    mean, variance = 100 + rng.normal(size=(n_draws, s, d)), rng.uniform(0.2, 2, (n_draws, s, d))
    x = 100 + 2 * rng.normal(size=(n, t, d))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0, 10:20] = np.nan
    lengths = np.array([t, 300, 1])
    gap = x[None, :, :, None] - mean[:, None, None]
    density = -0.5 * (np.log(2 * np.pi * variance)[:, None, None] + gap**2 / variance[:, None, None])
    table = chain.table_emission(np.nansum(density, -1))
    fused = chain.normal_emission(x, mean, variance)
    assert_allclose(
        chain.log_prob_steps(initial, transition, fused, lengths),
        chain.log_prob_steps(initial, transition, table, lengths),
        rtol=1e-10,
        atol=1e-11,
    )
    first, second = (chain.decode(initial, transition, e, lengths) for e in (fused, table))
    assert_array_equal(first.states, second.states)
    weight = np.array([2.0, 1.0, 0.5])[None, :, None]
    sums = chain.summed_expectations(initial, transition, fused, lengths, gain=weight)
    kept = chain.expectations(initial, transition, table, lengths, gain=weight)
    assert_allclose(sums.counts, kept.counts, rtol=1e-10)
    seen = np.where(np.isnan(gap), 0.0, 1.0)
    for power in range(3):
        expected = np.einsum("Dnts,Dntsd->Dds", kept.posterior, np.nan_to_num(gap) ** power * seen)
        assert_allclose(sums.sums[:, power], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [6, 900])
@pytest.mark.parametrize("kind", ["coded", "linear", "table"])
def test_other_forms_equal_the_table_and_sum_posteriors(kind, t):
    rng = np.random.default_rng(5)
    initial, transition, _, lengths = random_chain(5, t=t)
    if kind == "coded":
        each, codes = rng.normal(size=(2, 4, 3)), rng.integers(0, 4, (3, t))
        values, statistics = each[:, codes], np.eye(4)[codes]
        emission = chain.coded_emission(each, codes)
    else:
        statistics, natural = rng.normal(size=(3, t, 5)), rng.normal(size=(2, 3, 5))
        values = np.einsum("ntf,Dsf->Dnts", statistics, natural)
        emission = chain.linear_emission(statistics, natural)
    table = chain.table_emission(values, statistics if kind == "table" else None)
    emission = table if kind == "table" else emission
    weight = np.array([2.0, 1.0, 0.5])[None, :, None]
    plain = chain.expectations(initial, transition, chain.table_emission(values), lengths, gain=weight)
    found = chain.summed_expectations(initial, transition, emission, lengths, gain=weight)
    for name in ("start", "counts", "log_prob"):
        assert_allclose(getattr(found, name), getattr(plain, name), **TOLERANCE)
    expected = np.einsum("Dnts,ntf->Dfs", plain.posterior, statistics)
    assert_allclose(found.sums[:, 0], expected, rtol=1e-10, atol=1e-10)
    paths, same = (chain.decode(initial, transition, e, lengths) for e in (emission, chain.table_emission(values)))
    assert_array_equal(paths.states, same.states)


def test_sampled_paths_follow_the_posterior():
    initial, transition, log_emission, lengths = random_chain(6, zeros=True)
    for remote in (0.0, 1500.0):
        log_emission[:, :, 0, 1] += remote
        uniform = np.random.default_rng(7).random((2, 20_000, 3, 6))
        states = chain.sample_paths(initial, transition, chain.table_emission(log_emission), lengths, uniform)
        for draw, q in itertools.product(range(2), range(3)):
            t = lengths[q]
            oracle = Enumeration(initial[draw, q], transition[draw], log_emission[draw, q, :t])
            powers = 3 ** np.arange(t - 1, -1, -1)
            frequency = np.bincount(states[draw, :, q, :t] @ powers, minlength=3**t) / 20_000
            assert np.all(frequency[oracle.weights == 0.0] == 0.0)
            deviation = (frequency - oracle.weights) / np.sqrt(oracle.weights * (1 - oracle.weights) / 2e4 + 1e-9)
            assert np.abs(deviation).max() < 6.0
            assert np.all(states[draw, :, q, t:] == -1)


def test_rainy_or_sunny():
    """hmmlearn test_categorical_hmm.py, from Wikipedia's Viterbi algorithm: states rainy, sunny; walk, shop, clean."""
    initial, transition = np.array([[[0.6, 0.4]]]), np.array([[[0.7, 0.3], [0.4, 0.6]]])
    emission = chain.table_emission(np.log([[0.1, 0.4, 0.5], [0.6, 0.3, 0.1]]).T[None, None])
    paths = chain.decode(initial, transition, emission, np.array([3]))
    assert_allclose(np.exp(paths.log_prob), [[0.01344]], rtol=1e-12)
    assert_array_equal(paths.states[0, 0], [1, 0, 0])
    quoted = [[0.23170303, 0.76829697], [0.62406281, 0.37593719], [0.86397706, 0.13602294]]
    posterior = chain.expectations(initial, transition, emission, np.array([3])).posterior
    assert_allclose(posterior[0, 0], quoted, atol=2e-7)  # the quoted digits come from single precision


def test_log_emission_example_of_hmmlearn():
    """hmmlearn test_base.py TestBaseAgainstWikipedia: umbrella world of Wikipedia's forward-backward article."""
    initial, transition = np.array([[[0.5, 0.5]]]), np.array([[[0.7, 0.3], [0.3, 0.7]]])
    emission = chain.table_emission(np.log([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8], [0.9, 0.2], [0.9, 0.2]])[None, None])
    lengths = np.array([5])
    result = chain.expectations(initial, transition, emission, lengths)
    assert_allclose(result.log_prob, [[-3.3725]], atol=5e-5)
    assert_allclose(result.posterior[0, 0, :, 0], [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], atol=5e-5)
    paths = chain.decode(initial, transition, emission, lengths)
    assert_allclose(paths.log_prob, [[-4.4590]], atol=5e-5)
    assert_array_equal(paths.states[0, 0], [0, 0, 1, 0, 0])


def test_temperatures_of_tensorflow_probability():
    """Docstring of tfp.distributions.HiddenMarkovModel: the most probable weather is 0 0 0 0 0 1 1."""
    initial, transition = np.array([[[0.8, 0.2]]]), np.array([[[0.7, 0.3], [0.2, 0.8]]])
    x = np.array([-2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0])[None, :, None]
    emission = chain.normal_emission(x, np.array([[[0.0], [15.0]]]), np.array([[[25.0], [100.0]]]))
    assert_array_equal(chain.decode(initial, transition, emission, np.array([7])).states[0, 0], [0, 0, 0, 0, 0, 1, 1])


def test_threads_change_nothing(monkeypatch):
    initial, transition, log_emission, _ = random_chain(8, n_draws=3, n=40, t=60, s=4)
    lengths = np.random.default_rng(9).integers(0, 61, 40)
    emission = chain.table_emission(log_emission)
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PROBSEQ_NUM_THREADS", threads)
        results.append(chain.expectations(initial, transition, emission, lengths))
    for one, other in zip(*results, strict=True):
        assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_long_chain_neither_underflows_nor_drifts():
    """Splitting in time adds up: the second half starts from the state predicted after the first."""
    rng = np.random.default_rng(10)
    t, s = 40_000, 3
    initial, transition = rng.dirichlet(np.ones(s), (1, 1)), rng.dirichlet(np.ones(s), (1, s))
    log_emission = 300 * rng.normal(size=(1, 1, t, s))
    whole = chain.filter_states(initial, transition, chain.table_emission(log_emission), np.array([t]))
    half = t // 2
    ahead = whole.filtered[:, :, half - 1] @ transition[0]
    second = chain.table_emission(log_emission[:, :, half:])
    rest = chain.log_prob_steps(ahead, transition, second, np.array([t - half]))
    assert_allclose(whole.log_prob_steps[:, :, half:], rest, rtol=1e-9, atol=1e-9)
    posterior = chain.expectations(initial, transition, chain.table_emission(log_emission), np.array([t])).posterior
    assert_allclose(posterior.sum(-1), 1.0, atol=1e-10)


def test_shapes_that_do_not_fit_raise():
    initial, transition, log_emission, lengths = random_chain(11)
    with pytest.raises(ValueError, match="expected transition"):
        chain.log_prob_steps(initial, transition[:, :2], chain.table_emission(log_emission), lengths)
