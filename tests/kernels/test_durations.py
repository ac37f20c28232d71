"""Semi-Markov kernels against enumeration of every path of states and elapsed durations."""

import collections

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain, durations

SHAPES = [(2, 4), (3, 1), (3, 3)]


def random_problem(seed, s, w, zeros=False, scale=3.0, t=6, n=3, n_draws=2):
    """Random hazards, moves and beliefs about the first step; ragged, one step unseen."""
    rng = np.random.default_rng(seed)
    trans = rng.dirichlet(np.ones(s), (n_draws, s))
    trans[:, np.arange(s), np.arange(s)] = 0.0
    hazard = rng.uniform(0.1, 0.9, (n_draws, s, w))
    if zeros:
        hazard[:, 0, 0], hazard[:, 1, -1] = 0.0, 1.0
        if s > 2:
            trans[:, 0, 1] = 0.0
    trans /= trans.sum(-1, keepdims=True)
    belief = rng.dirichlet(np.ones(s * w), (n_draws, n)).reshape(n_draws, n, s, w)
    table = scale * rng.normal(size=(n_draws, n, t, s))
    table[:, 0, 2] = 0.0
    if zeros:
        belief[..., -1, 0] = 0.0
        table[:, 1, 2, 0] = -np.inf
    with np.errstate(divide="ignore"):
        logs = np.log(belief / belief.sum((-2, -1), keepdims=True)), np.log(trans), np.log(hazard), np.log1p(-hazard)
    return durations.Renewals(*logs, table, np.array([t, t - 1, 1]))


class Enumeration:
    """Every path of (state, elapsed duration) of one sequence, its moves and log p(x, path)."""

    def __init__(self, problem, draw, sequence):
        self.belief, self.trans = problem.belief[draw, sequence], problem.trans[draw]
        self.leave, self.stay = problem.leave[draw], problem.stay[draw]
        self.t = int(problem.lengths[sequence])
        self.table = problem.table[draw, sequence]
        self.joint, self.cells, self.moves = [], [], []
        for j, d in np.ndindex(self.belief.shape):
            self._grow(0, j, d, self.belief[j, d], [], [])
        self.joint = np.array(self.joint)
        self.log_prob = np.logaddexp.reduce(self.joint)
        self.weights = np.exp(self.joint - self.log_prob)

    def _grow(self, t, j, d, log_prob, cells, moves):
        log_prob = log_prob + self.table[t, j]
        cells = [*cells, (j, d)]
        if t == self.t - 1:
            self.joint.append(log_prob)
            self.cells.append(cells)
            self.moves.append(moves)
            return
        s, w = self.leave.shape
        self._grow(t + 1, j, min(d + 1, w - 1), log_prob + self.stay[j, d], cells, [*moves, ("stay", j, d)])
        for k in range(s):
            if k != j:
                ahead = log_prob + self.leave[j, d] + self.trans[j, k]
                self._grow(t + 1, k, 0, ahead, cells, [*moves, ("leave", j, d, k)])

    def posterior(self):
        out = np.zeros((self.t, len(self.leave)))
        for weight, cells in zip(self.weights, self.cells, strict=True):
            for t, (j, _) in enumerate(cells):
                out[t, j] += weight
        return out

    def paths(self):
        """Possible paths of states, best first, with log p(x, z): sums over what came before the data."""
        total = collections.defaultdict(lambda: -np.inf)
        for joint, cells in zip(self.joint, self.cells, strict=True):
            key = tuple(j for j, _ in cells)
            total[key] = np.logaddexp(total[key], joint)
        possible = [(value, key) for key, value in total.items() if value > -np.inf]
        return sorted(possible, key=lambda pair: -pair[0])


@pytest.mark.parametrize("s, w", SHAPES)
@pytest.mark.parametrize("zeros, scale", [(False, 3.0), (True, 3.0), (False, 3000.0), (True, 3000.0)])
def test_sums_equal_enumeration(s, w, zeros, scale):
    problem = random_problem(s + w, s, w, zeros, scale)
    forward, sums = durations.filter_states(problem), durations.expectations(problem)
    apart, others = durations.leave_one_out(problem)
    leaves, stays = np.zeros_like(sums.leaves), np.zeros_like(sums.stays)
    for draw, q in np.ndindex(2, 3):
        every = Enumeration(problem, draw, q)
        t, posterior = every.t, every.posterior()
        assert_allclose(forward.log_prob_steps[draw, q].sum(), every.log_prob, rtol=1e-10)
        assert_allclose(sums.log_prob[draw, q], every.log_prob, rtol=1e-10)
        assert_allclose(sums.posterior[draw, q, :t], posterior, atol=1e-10)
        assert_allclose(forward.filtered[draw, q, t - 1], posterior[-1], atol=1e-10)
        assert not sums.posterior[draw, q, t:].any()
        start, counts = np.zeros((s, w)), np.zeros((s, s))
        for weight, cells, moves in zip(every.weights, every.cells, every.moves, strict=True):
            start[cells[0]] += weight
            for word, j, d, *to in moves:
                if word == "stay":
                    stays[draw, j, d] += weight
                else:
                    leaves[draw, j, d] += weight
                    counts[j, to[0]] += weight
        assert_allclose(sums.start[draw, q], start, atol=1e-10)
        assert_allclose(sums.counts[draw, q], counts, atol=1e-10)
        for step in range(t):
            table = problem.table.copy()
            table[draw, q, step] = 0.0
            without = durations.expectations(problem._replace(table=table))
            assert_allclose(apart[draw, q, step], without.posterior[draw, q, step], atol=1e-10)
            assert_allclose(others[draw, q, step], without.log_prob[draw, q], rtol=1e-10, atol=1e-10)
    assert_allclose(sums.leaves, leaves, atol=1e-10)
    assert_allclose(sums.stays, stays, atol=1e-10)


@pytest.mark.parametrize("s, w", SHAPES)
@pytest.mark.parametrize("zeros, scale", [(False, 2.0), (True, 2.0), (True, 3000.0)])
def test_best_paths_equal_the_sorted_enumeration(s, w, zeros, scale):
    problem = random_problem(10 + s + w, s, w, zeros, scale)
    many, best = durations.decode(problem, 7), durations.decode(problem)
    for draw, q in np.ndindex(2, 3):
        every = Enumeration(problem, draw, q)
        paths = every.paths()[:7]
        assert_allclose(many.log_prob[draw, q, : len(paths)], [value for value, _ in paths], rtol=1e-10)
        for rank, (_, path) in enumerate(paths):
            assert_array_equal(many.states[draw, q, rank, : every.t], path)
        assert np.all(many.states[draw, q, :, every.t :] == -1)
        assert np.all(many.states[draw, q, len(paths) :] == -1)
        assert np.all(many.log_prob[draw, q, len(paths) :] == -np.inf)
        assert_array_equal(best.states[draw, q, 0], many.states[draw, q, 0])
        assert best.log_prob[draw, q, 0] == many.log_prob[draw, q, 0]


@pytest.mark.parametrize("s, w", SHAPES)
@pytest.mark.parametrize("zeros", [False, True])
def test_sampled_paths_follow_the_posterior(s, w, zeros):
    problem = random_problem(20 + s + w, s, w, zeros)
    size = 3000
    drawn = durations.sample_paths(problem, np.random.default_rng(0).random((2, size, 3, 6)))
    for draw, q in np.ndindex(2, 3):
        every = Enumeration(problem, draw, q)
        found = collections.Counter(map(tuple, drawn[draw, :, q, : every.t].tolist()))
        law = {path: np.exp(value - every.log_prob) for value, path in every.paths()}
        assert set(found) <= set(law)
        for path, p in law.items():
            error = np.sqrt(max(p * (1 - p), 0.0) / size)
            assert abs(found[path] / size - p) < 5 * error + 1.0 / size
        assert np.all(drawn[draw, :, q, every.t :] == -1)


def test_simulated_paths_follow_the_law():
    problem = random_problem(30, 3, 3)
    problem = problem._replace(table=np.zeros((2, 3, 4, 3)), lengths=np.full(3, 4))
    size = 3000
    uniform = np.random.default_rng(1).random((2, size, 4))
    drawn = durations.simulate_states(problem.belief[:, :1], problem.trans, problem.leave, uniform)
    for draw in range(2):
        found = collections.Counter(map(tuple, drawn[draw].tolist()))
        for value, path in Enumeration(problem, draw, 0).paths():
            p = np.exp(value)
            assert abs(found[path] / size - p) < 5 * np.sqrt(p * (1 - p) / size) + 1.0 / size


def test_constant_hazards_are_a_markov_chain():
    rng = np.random.default_rng(3)
    s, t, lengths = 4, 40, np.array([40, 17])
    problem = random_problem(40, s, 5)
    hazard = rng.uniform(0.02, 0.9, (2, s, 1))
    moves = rng.dirichlet(np.ones(s), (2, s))
    moves[:, np.arange(s), np.arange(s)] = 0.0
    moves /= moves.sum(-1, keepdims=True)
    table = 3 * rng.normal(size=(2, 2, t, s))
    table[1, 0, 7, 1] = -np.inf
    leave, stay = (np.broadcast_to(a, (2, s, 5)) for a in (np.log(hazard), np.log1p(-hazard)))
    with np.errstate(divide="ignore"):
        problem = durations.Renewals(problem.belief[:, :2], np.log(moves), leave, stay, table, lengths)
    initial = np.exp(problem.belief).sum(-1)
    transition = hazard * moves + (1 - hazard) * np.eye(s)
    plain = (initial, transition, chain.table_emission(table), lengths)
    assert_allclose(
        durations.filter_states(problem).log_prob_steps, chain.filter_states(*plain).log_prob_steps, rtol=1e-10
    )
    semi, markov = durations.expectations(problem), chain.expectations(*plain)
    assert_allclose(semi.posterior, markov.posterior, atol=1e-10)
    off = ~np.eye(s, dtype=bool)
    assert_allclose(semi.counts.sum(1)[:, off], markov.counts[:, off], atol=1e-10)
    assert_allclose(semi.stays.sum(-1), markov.counts[:, ~off], atol=1e-10)
    # Whatever is known of the first elapsed duration, it changes nothing.
    viterbi = chain.decode(*plain)
    assert_array_equal(durations.decode(problem).states[:, :, 0], viterbi.states)
    assert_allclose(durations.decode(problem).log_prob[:, :, 0], viterbi.log_prob, rtol=1e-10)


@pytest.mark.parametrize("zeros", [False, True])
def test_weighted_steps_give_derivatives(zeros):
    problem = random_problem(50, 3, 3, zeros)
    gain = np.random.default_rng(4).normal(size=(2, 3, 6))
    sums = durations.expectations(problem, gain=gain)

    def value(**changes):
        return (durations.filter_states(problem._replace(**changes)).log_prob_steps * gain).sum()

    found = {
        "table": sums.posterior,
        "belief": sums.start,
        "trans": sums.counts.sum(1),
        "leave": sums.leaves,
        "stay": sums.stays,
    }
    rng = np.random.default_rng(5)
    for name, slope in found.items():
        array = getattr(problem, name)
        finite = np.isfinite(array)
        direction = np.where(finite, rng.normal(size=array.shape), 0.0)
        up, down = (value(**{name: np.where(finite, array + side * direction, array)}) for side in (1e-5, -1e-5))
        assert_allclose((slope * direction).sum(), (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_impossible_observations_count_as_unseen():
    problem = random_problem(60, 3, 3)
    problem.table[:, :, 3] = -np.inf
    skipped = problem.table.copy()
    skipped[:, :, 3] = 0.0
    plain = problem._replace(table=skipped)
    here, there = durations.filter_states(problem), durations.filter_states(plain)
    assert np.all(here.log_prob_steps[:, 0, 3] == -np.inf)
    assert_allclose(np.delete(here.log_prob_steps, 3, 2), np.delete(there.log_prob_steps, 3, 2), rtol=1e-12)
    assert_allclose(durations.expectations(problem).posterior, durations.expectations(plain).posterior, atol=1e-12)
    for found, expected in zip(durations.leave_one_out(problem), durations.leave_one_out(plain), strict=True):
        assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.all(durations.decode(problem).log_prob[:, 0] == -np.inf)


def test_long_sequences_do_not_drift():
    """A long sequence equals the sum of two parts, and blocks made again equal beliefs that were kept."""
    rng = np.random.default_rng(6)
    t, s, w = 20_000, 3, 6
    problem = random_problem(70, s, w)
    problem = problem._replace(belief=problem.belief[:1, :1], table=rng.normal(size=(1, 1, t, s)) * 40)
    problem = durations.Renewals(*(a[:1] for a in problem[:-2]), problem.table, np.array([t]))
    whole = durations.filter_states(problem)
    first = durations.filter_states(problem._replace(table=problem.table[:, :, :7000], lengths=np.array([7000])))
    rest = durations.filter_states(
        problem._replace(belief=first.belief, table=problem.table[:, :, 7000:], lengths=np.array([t - 7000]))
    )
    joined = np.concatenate([first.log_prob_steps, rest.log_prob_steps], -1)
    assert_allclose(joined, whole.log_prob_steps, rtol=1e-11, atol=1e-11)
    sums = durations.expectations(problem)
    assert_allclose(sums.posterior.sum(-1), 1.0, rtol=1e-10)
    assert_allclose(sums.posterior[0, 0, -1], whole.filtered[0, 0, -1], atol=1e-10)
    assert_allclose(sums.counts.sum(), sums.leaves.sum(), rtol=1e-10)
    assert_allclose(sums.leaves.sum() + sums.stays.sum(), t - 1, rtol=1e-10)


def test_wrong_shapes_raise():
    problem = random_problem(0, 2, 3)
    with pytest.raises(ValueError, match="check the order"):
        durations.filter_states(problem._replace(leave=problem.leave[..., :2]))
