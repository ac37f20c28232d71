"""Chains run as sixteen tracks side by side, against the same chains run one sequence after the other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain


@pytest.fixture
def tracks(monkeypatch):
    """Counts how often tracks were asked for and used; ``off`` switches them off."""

    class Tracks:
        off = False
        tapes = 0
        finished = 0

    make, run = chain.tape_for, chain._Problem.by_tracks

    def tape_for(*arguments):
        tape = None if Tracks.off else make(*arguments)
        Tracks.tapes += tape is not None
        return tape

    def by_tracks(*arguments):
        done = run(*arguments)
        Tracks.finished += done
        return done

    monkeypatch.setattr(chain, "tape_for", tape_for)
    monkeypatch.setattr(chain._Problem, "by_tracks", by_tracks)
    return Tracks


def lengths_of(kind, rng):
    if kind == "one":
        return np.array([2001])
    if kind == "long":
        return np.array([700, 0, 1, 900])
    return rng.integers(0, 90, 40)


def random_problem(s, kind, data, n_draws=1, seed=0):
    rng = np.random.default_rng(seed)
    lengths = lengths_of(kind, rng)
    n, t, d = lengths.size, lengths.max(), 3
    initial, transition = rng.dirichlet(np.ones(s), (n_draws, n)), rng.dirichlet(np.ones(s), (n_draws, s))
    if data == "table":
        log_emission = 3 * rng.normal(size=(n_draws, n, t, s))
        if s > 2:
            log_emission[rng.random(log_emission.shape) < 0.05] = -np.inf
            log_emission[..., 0] = np.where(np.isinf(log_emission).all(-1), 0.0, log_emission[..., 0])
        return initial, transition, chain.table_emission(log_emission), lengths
    if data == "coded":
        table, codes = 3 * rng.normal(size=(n_draws, 500, s)), rng.integers(0, 500, (n, t))
        return initial, transition, chain.coded_emission(table, codes), lengths
    if data in ("linear", "summed"):
        statistics, natural = rng.normal(size=(n, t, d)), rng.normal(size=(n_draws, s, d))
        emission = chain.linear_emission(statistics, natural)
        if data == "summed":
            table = np.einsum("ntf,Dsf->Dnts", statistics, natural)
            emission = chain.table_emission(table, statistics)
        return initial, transition, emission, lengths
    x = 100 + 3 * rng.normal(size=(n, t, d))
    if data == "holes":
        x[rng.random(x.shape) < 0.2] = np.nan
        x[:, 3] = np.nan  # of several such steps the order would be a matter of rounding
    mean, variance = 100 + rng.normal(size=(n_draws, s, d)), rng.uniform(0.5, 2.0, (n_draws, s, d))
    return initial, transition, chain.normal_emission(x, mean, variance), lengths


def assert_same(one, other, **tolerance):
    for name, a, b in zip(one._fields, one, other, strict=True):
        assert_allclose(a, b, err_msg=name, **(tolerance or {"rtol": 1e-10, "atol": 1e-10}))


CASES = [(s, "ragged", "normal") for s in (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31, 32, 33, 64)]
CASES += [(128, "one", "normal")]
CASES += [(s, kind, data) for s in (3, 8) for kind in ("one", "long") for data in ("normal", "holes", "table")]
CASES += [(s, kind, data) for s in (2, 8, 13) for kind in ("one", "ragged") for data in ("coded", "linear", "summed")]


@pytest.mark.parametrize("s, kind, data", CASES)
def test_tracks_change_nothing(tracks, s, kind, data):
    problem = random_problem(s, kind, data, n_draws=2 if s < 10 else 1)
    gain = np.random.default_rng(1).uniform(0, 2, (1, problem[3].size, 1))
    results = []
    for off in (False, True):
        tracks.off = off
        results.append(
            (
                chain.filter_states(*problem, keep=False),
                chain.expectations(*problem, gain=gain),
                chain.summed_expectations(*problem),
                chain.decode(*problem),
            )
        )
    assert tracks.tapes == 4 and tracks.finished == 4
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


def test_a_chain_that_does_not_forget_is_run_in_sequence(tracks):
    """Without transitions the first state decides all, and no guess of it can be right."""
    x = np.random.default_rng(2).normal(size=(1, 2000, 1))
    emission = chain.normal_emission(x, np.zeros((1, 2, 1)), np.array([[[1.0], [1.001]]]))
    initial, transition = np.array([[[0.3, 0.7]]]), np.eye(2)[None]
    steps = chain.log_prob_steps(initial, transition, emission, np.array([2000]))
    assert tracks.tapes == 1 and tracks.finished == 0
    variance = np.array([1.0, 1.001])
    each = (-0.5 * np.log(2 * np.pi * variance) - 0.5 * x[0] ** 2 / variance).sum(0)
    assert_allclose(steps.sum(), np.logaddexp.reduce(np.log(initial[0, 0]) + each), rtol=1e-12)


def test_lost_and_impossible_states_leave_the_tracks(tracks):
    """A left-to-right chain whose middle state is out of reach of doubles for a while, and a step no state emits."""
    t, s = 2000, 3
    initial = np.array([[[1.0, 0.0, 0.0]]])
    transition = np.array([[[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    table = np.zeros((1, 1, t, s))
    table[..., :30, 1:] = -1000.0
    table[..., 30:, 0] = -np.inf
    result = chain.expectations(initial, transition, chain.table_emission(table), np.array([t]))
    assert tracks.tapes == 1 and tracks.finished == 0
    assert_allclose(result.log_prob[0, 0], np.log(0.9**29 * 0.1), rtol=1e-10)
    table[..., 40, :] = -np.inf
    result = chain.expectations(initial, transition, chain.table_emission(table), np.array([t]))
    assert tracks.finished == 0 and result.log_prob[0, 0] == -np.inf and np.isfinite(result.posterior).all()
    paths = chain.decode(initial, transition, chain.table_emission(table), np.array([t]))
    assert tracks.finished == 0 and paths.log_prob[0, 0] == -np.inf


def test_paths_are_mended_where_the_guess_at_a_cut_was_wrong(tracks):
    """Sticky states and little evidence: the best last state of a track is often not where the path goes through."""
    rng = np.random.default_rng(6)
    transition = np.full((1, 3, 3), 1e-3) + np.diag([0.997] * 3)
    emission = chain.table_emission(rng.normal(size=(1, 1, 4000, 3)))
    problem = np.full((1, 1, 3), 1 / 3), transition, emission, np.array([4000])
    paths = chain.decode(*problem)
    assert tracks.finished == 1
    tracks.off = True
    other = chain.decode(*problem)
    assert_array_equal(paths.states, other.states)
    assert_allclose(paths.log_prob, other.log_prob, rtol=1e-12)


def test_sparse_transitions_stay_in_the_tracks(tracks):
    rng = np.random.default_rng(3)
    s = 5
    mask = np.triu(np.ones((s, s))) * np.tril(np.ones((s, s)), 1)
    mask[-1, 0] = 1.0
    transition = (mask / mask.sum(-1, keepdims=True))[None]
    x = np.cumsum(rng.normal(size=(1, 3000, 1)) * 0.1, 1)
    mean = np.linspace(-2, 2, s).reshape(1, s, 1)
    problem = np.full((1, 1, s), 0.2), transition, chain.normal_emission(x, mean, np.ones((1, s, 1))), np.array([3000])
    result = chain.expectations(*problem)
    assert tracks.finished == 1
    assert np.all(result.counts[transition == 0.0] == 0.0)
    tracks.off = True
    assert_same(result, chain.expectations(*problem))


def test_extreme_emissions(tracks):
    """Log densities down to -1e8 and apart by more than a double can hold."""
    rng = np.random.default_rng(4)
    initial, transition = rng.dirichlet(np.ones(4), (1, 1)), rng.dirichlet(np.ones(4), (1, 4))
    emission = chain.normal_emission(
        1e4 * rng.normal(size=(1, 1500, 1)), rng.normal(size=(1, 4, 1)), np.ones((1, 4, 1))
    )
    problem = initial, transition, emission, np.array([1500])
    result = chain.expectations(*problem)
    assert tracks.finished == 1
    tracks.off = True
    assert_same(result, chain.expectations(*problem), rtol=1e-10, atol=1e-7)


def test_several_groups_of_tracks(tracks, monkeypatch):
    monkeypatch.setenv("PROBSEQ_NUM_THREADS", "2")
    problem = random_problem(3, "one", "normal")
    lengths = np.array([20_001])
    x = 100 + np.random.default_rng(5).normal(size=(1, 20_001, 3))
    emission = problem[2]._replace(x=x)
    problem = (*problem[:2], emission, lengths)
    results = []
    for off in (False, True):
        tracks.off = off
        results.append(
            (chain.filter_states(*problem, keep=False), chain.expectations(*problem), chain.decode(*problem))
        )
    assert tracks.finished == 3
    for one, other in zip(*results, strict=True):
        assert_same(one, other)


def test_states_of_empty_sequences_are_their_start(tracks):
    problem = random_problem(3, "long", "normal")
    result = chain.filter_states(*problem, keep=False)
    assert tracks.finished == 1
    assert_array_equal(result.last[0, 1], problem[0][0, 1])


@pytest.mark.parametrize("s", [2, 16, 17, 64, 65])
def test_the_lowest_state_wins_ties(tracks, s):
    lengths = np.array([500, 0, 701])
    start, transition = np.full((1, 1, s), 1.0 / s), np.full((1, s, s), 1.0 / s)
    table = np.zeros((1, 3, 701, s))
    table[:, :, 100, : s - 1] = -50.0
    found = chain.decode(start, transition, chain.table_emission(table), lengths)
    assert tracks.finished == 1
    expected = np.where(np.arange(701) < lengths[:, None], 0, -1)
    expected[[0, 2], 100] = s - 1
    assert_array_equal(found.states[0], expected)
    assert_allclose(found.log_prob[0], -lengths * np.log(s), rtol=1e-12)
