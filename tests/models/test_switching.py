"""Switching linear systems: enumeration of all regimes, unbiased estimates, bounds that rise, paths drawn backwards."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from probseq.distributions.emissions import Observation, Poisson
from probseq.distributions.params import unconstrained_size, unflatten
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError, ShapeError
from probseq.inference.em import EM
from probseq.inference.optimize import MLE
from probseq.inference.variational_em import VariationalEM
from probseq.kernels.switching import field_chain, normal_chain
from probseq.models.latent import VariationalStart
from probseq.models.linear_system import LinearSystemModel
from probseq.models.resampling import reduced, warn_of_chance
from probseq.models.switching_fit import FittedSwitchingModel
from probseq.results.joint import make_batch
from probseq.testing import check_model

K, R, T = 2, 2, 6


def some(emission="shared", n_particles=64, t=T, n=1, k=2, seed=0):
    model = FittedSwitchingModel(Observation(k), K, R, emission, n_particles)
    specs = model.parameters()
    generator = torch.Generator().manual_seed(seed)
    flat = 0.5 * torch.randn(1, unconstrained_size(specs), generator=generator, dtype=torch.float64)
    params = unflatten(specs, flat)
    x = model.sample(params, model.initial_state(params, n), t, generator)[0][0].numpy()
    x[np.random.default_rng(seed).random(x.shape) < 0.15] = np.nan
    return model, params, make_batch(model, x, np.full(n, t))


def enumerated(model, params, batch, i=0):
    """log p(x, z) of every path z, and mean and covariance of the states given it, from the dense normal law."""
    p = {name: value[0].numpy() for name, value in params.items()}
    t = int(batch.lengths[i])
    own = model.emission == "own"
    x, seen = batch.x[i, :t].numpy().ravel(), batch.seen[i, :t].numpy().ravel()
    found = {}
    for path in itertools.product(range(K), repeat=t):
        mean, cov, logp = np.zeros((t, R)), np.zeros((t, R, t, R)), math.log(p["initial"][path[0]])
        for s, z in enumerate(path):
            a, q = p["transition"][z], p["shock_covariance"][z]
            if s == 0:
                mean[0], cov[0, :, 0] = p["start_mean"], p["shock_covariance"][0]
                continue
            logp += math.log(p["switching"][path[s - 1], z])
            mean[s] = a @ mean[s - 1] + p["drift"][z]
            cov[s, :, s] = a @ cov[s - 1, :, s - 1] @ a.T + q
            for before in range(s):
                cov[s, :, before] = a @ cov[s - 1, :, before]
                cov[before, :, s] = cov[s, :, before].T
        k = batch.x.shape[-1]
        c = [p["loading"][z] if own else p["loading"] for z in path]
        d = np.concatenate([p["offset"][z] if own else p["offset"] for z in path])
        noise = np.concatenate([p["noise_scale"][z] if own else p["noise_scale"] for z in path])
        big = np.zeros((t * k, t * R))
        for s in range(t):
            big[s * k : (s + 1) * k, s * R : (s + 1) * R] = c[s]
        states = cov.reshape(t * R, t * R)
        values, spread = big @ mean.ravel() + d, big @ states @ big.T + np.diag(noise**2)
        inner = spread[np.ix_(seen, seen)]
        logp += stats.multivariate_normal(values[seen], inner).logpdf(x[seen])
        gain = (states @ big.T)[:, seen] @ np.linalg.inv(inner)
        centre = mean.ravel() + gain @ (x - values)[seen]
        found[path] = logp, centre.reshape(t, R), states - gain @ (big @ states)[seen]
    return found


@pytest.mark.parametrize("emission", ["shared", "own"])
def test_all_histories_give_the_exact_likelihood_and_moments(emission):
    model, params, batch = some(emission)
    paths = enumerated(model, params, batch)
    logs = np.array([value[0] for value in paths.values()])
    steps = model.log_prob_steps(params, batch)
    assert float(steps.values.sum()) == pytest.approx(np.logaddexp.reduce(logs), rel=1e-10)
    assert not bool(steps.error.any())
    share = np.exp(logs - np.logaddexp.reduce(logs))
    last = model.filtered(params, batch)[-1]
    w = last.log_weights[0, 0].exp()
    expected = [sum(s for s, path in zip(share, paths) if path[-1] == j) for j in range(K)]
    np.testing.assert_allclose([w[last.regime[0, 0] == j].sum() for j in range(K)], expected, rtol=1e-9)
    mean = sum(s * value[1][-1] for s, value in zip(share, paths.values()))
    np.testing.assert_allclose(w @ last.mean[0, 0], mean, rtol=1e-8)


@pytest.mark.parametrize("emission", ["shared", "own"])
def test_paths_drawn_backwards_follow_the_law_given_all_data(emission):
    model, params, batch = some(emission, seed=1)
    paths = enumerated(model, params, batch)
    logs = np.array([value[0] for value in paths.values()])
    share = np.exp(logs - np.logaddexp.reduce(logs))
    n = 4000
    drawn = model.sample_regimes(params, batch, n, torch.Generator().manual_seed(0))
    codes = (drawn[:, 0] * 2 ** torch.arange(T - 1, -1, -1)).sum(-1).numpy()
    counts = np.bincount(codes, minlength=K**T)
    big = share > 0.01
    worst = np.abs(counts[big] / n - share[big]) / np.sqrt(share[big] * (1 - share[big]) / n)
    assert big.sum() > 3 and worst.max() < 4.5
    mean, cov = model.states_given(params, batch, drawn)
    expected = sum(s * value[1] for s, value in zip(share, paths.values()))
    np.testing.assert_allclose(mean[0], expected, atol=0.1)
    one = next(iter(paths))
    mean, cov = model.states_given(params, batch, torch.tensor(one).reshape(1, 1, T))
    np.testing.assert_allclose(mean[0], paths[one][1], atol=1e-9)
    every = paths[one][2].reshape(T, R, T, R)
    np.testing.assert_allclose(cov[0], np.stack([every[t, :, t] for t in range(T)]), atol=1e-9)


def test_few_particles_are_unbiased_and_tell_their_error():
    model, params, batch = some(n_particles=3, t=8, seed=2)
    exact = np.logaddexp.reduce([value[0] for value in enumerated(model, params, batch).values()])
    ratios, errors = [], []
    for seed in range(150):
        model.seed = 104729 * seed
        steps = model.log_prob_steps(params, batch)
        ratios.append(math.exp(float(steps.values.sum()) - exact))
        errors.append(float(steps.error.square().sum().sqrt()))
    spread = np.std(ratios)
    assert 0.005 < spread < 1.0
    assert abs(np.mean(ratios) - 1.0) < 3.5 * spread / math.sqrt(150)
    assert 0.3 < np.sqrt(np.mean(np.square(errors))) / np.std(np.log(ratios)) < 3.0


def test_one_regime_is_a_linear_system():
    model = FittedSwitchingModel(Observation(2), 1, 2, n_particles=1)
    plain = LinearSystemModel(Observation(2), 2, start="mean")
    rng = np.random.default_rng(0)
    batch = make_batch(model, rng.normal(size=(2, 15, 2)), np.array([15, 11]))
    params = plain.em_start(batch, 1, "random", torch.Generator().manual_seed(0))
    same = {name: params[name] for name in ("loading", "offset", "noise_scale", "start_mean")}
    same["transition"] = params["transition"].unsqueeze(1)
    one = torch.ones(1, 1, dtype=torch.float64)
    same |= {"initial": one, "switching": one.unsqueeze(1), "drift": torch.zeros(1, 1, 2, dtype=torch.float64)}
    same["shock_covariance"] = torch.eye(2, dtype=torch.float64).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(model.log_prob(same, batch), plain.log_prob(params, batch), rtol=1e-10)
    start = VariationalStart({name: value[0] for name, value in same.items()}, [np.ones((t, 1)) for t in (15, 11)])
    bound, _ = model.variational_step(start, batch)
    assert bound == pytest.approx(float(plain.log_prob(params, batch).sum()), rel=1e-10)


@pytest.mark.parametrize("emission", ["shared", "own"])
def test_the_bound_rises_below_the_likelihood(emission):
    model, _, batch = some(emission, n_particles=256, t=8, n=2, seed=3)
    start = model.variational_starts(batch, 2, torch.Generator().manual_seed(0))[1]
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    last = -math.inf
    for _ in range(15):
        bound, after = model.variational_step(start, batch, weights)
        exact = model.log_prob({name: value.unsqueeze(0) for name, value in start.params.items()}, batch)[0] @ weights
        assert last - 1e-8 <= bound <= float(exact) + 1e-8
        last, start = bound, after
    assert torch.equal(start.params["shock_covariance"][0], torch.eye(R, dtype=torch.float64))
    loading = start.params["loading"].reshape(-1, 2, R)[0]
    np.testing.assert_allclose(loading[0, 1], 0.0, atol=1e-10)
    assert bool((loading.diagonal() >= 0).all())


def test_chains_of_the_kernel_against_dense_matrices_and_enumeration():
    rng = np.random.default_rng(0)
    n, r, k = 5, 2, 3
    diagonal = np.stack([np.eye(r) * 3.0 + 0.1 * np.ones((r, r))] * n)
    upper, linear = 0.5 * rng.normal(size=(n - 1, r, r)), rng.normal(size=(n, r))
    whole = np.zeros((n * r, n * r))
    for t in range(n):
        whole[t * r : (t + 1) * r, t * r : (t + 1) * r] = diagonal[t]
        if t < n - 1:
            whole[t * r : (t + 1) * r, (t + 1) * r : (t + 2) * r] = upper[t]
            whole[(t + 1) * r : (t + 2) * r, t * r : (t + 1) * r] = upper[t].T
    found, dense = normal_chain(diagonal, upper, linear), np.linalg.inv(whole)
    np.testing.assert_allclose(found.mean.ravel(), dense @ linear.ravel(), atol=1e-12)
    np.testing.assert_allclose(found.cov[2], dense[4:6, 4:6], atol=1e-12)
    np.testing.assert_allclose(found.across[1], dense[2:4, 4:6], atol=1e-12)
    assert found.log_det == pytest.approx(np.linalg.slogdet(whole)[1])
    start, moves, field = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k), size=k), rng.normal(size=(4, k))
    total, probs = 0.0, np.zeros((4, k))
    for path in itertools.product(range(k), repeat=4):
        weight = start[path[0]] * np.prod([moves[a, b] for a, b in itertools.pairwise(path)])
        weight *= np.exp(sum(field[t, z] for t, z in enumerate(path)))
        total += weight
        for t, z in enumerate(path):
            probs[t, z] += weight
    got = field_chain(np.log(start), np.log(moves), field)
    assert got.log_norm == pytest.approx(np.log(total))
    np.testing.assert_allclose(got.probs, probs / total, atol=1e-12)
    np.testing.assert_allclose(got.pairs.sum(1), got.probs[:-1].sum(0), atol=1e-12)


def test_reduced_weights_stay_what_they_are_on_average():
    log_weights = torch.log(torch.tensor([0.4, 0.02, 0.25, 0.03, 0.1, 0.2], dtype=torch.float64))
    total = torch.zeros(6, dtype=torch.float64)
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    for u in grid:
        chosen, weights, drawn = reduced(log_weights, 4, float(u))
        assert len(set(chosen.tolist())) == 4 and float(weights.exp().sum()) == pytest.approx(1.0)
        assert set(chosen[~drawn].tolist()) == {0, 2, 5}
        total[chosen] += weights.exp() / 2000
    np.testing.assert_allclose(total, log_weights.exp(), atol=1e-3)
    few = torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=torch.float64).log()
    chosen, weights, drawn = reduced(few, 3, 0.3)
    assert set(chosen[:2].tolist()) == {0, 2} and not bool(drawn.any())
    np.testing.assert_allclose(weights[:2].exp(), 0.5)


def test_chance_spreads_over_regimes_that_weigh_the_same():
    one = {"initial": [0.5, 0.5], "switching": [[0.5, 0.5], [0.5, 0.5]], "transition": [[[1.0]], [[1.0]]]}
    one |= {"drift": [[0.0], [1.0]], "shock_covariance": [[[0.01]], [[0.01]]], "start_mean": [0.0]}
    one |= {"loading": [[1.0]], "offset": [0.0], "noise_scale": [0.1]}
    params = {name: torch.tensor([value], dtype=torch.float64) for name, value in one.items()}
    model = FittedSwitchingModel(Observation(1), 2, 1, n_particles=30)
    every = FittedSwitchingModel(Observation(1), 2, 1, n_particles=2**9)
    x = np.full((1, 10, 1), np.nan)
    x[0, 0], x[0, 9] = 0.0, 4.0
    batch = make_batch(model, x, np.array([10]))
    for belief in model.filtered(params, batch)[1:9]:
        share = belief.log_weights[0, 0].exp()[belief.regime[0, 0] == 1].sum()
        assert float(share) == pytest.approx(0.5, abs=1.0 / 30.0)
    # 126 of the 512 ways to move lead to 4.0.
    exact, got = float(every.log_prob(params, batch)), []
    for seed in range(20):
        model.seed = seed
        got.append(math.exp(float(model.log_prob(params, batch)) - exact))
    assert np.std(got) < 0.35 and abs(np.mean(got) - 1.0) < 0.25


def test_estimates_do_not_depend_on_the_batch():
    model, params, _ = some(n_particles=8, t=7)
    x = np.random.default_rng(0).normal(size=(2, 7, 2))
    both = make_batch(model, x, np.array([7, 4]))
    together = model.log_prob(params, both)[0]
    for i, t in enumerate((7, 4)):
        alone = model.log_prob(params, make_batch(model, x[i : i + 1, :t], np.array([t])))
        assert float(alone) == pytest.approx(float(together[i]), rel=1e-12)
    # A belief of one history beside one of eight.
    late = model.filter(params, make_batch(model, x[:1, :5], np.array([5])))
    new = model.initial_state(params, 1)
    state = type(late)(*(torch.cat([a, b], 1) for a, b in zip(late, new)))
    mixed = model.log_prob(params, make_batch(model, x[[1, 1]], np.array([7, 7])), state)[0]
    for i, begun in enumerate((late, new)):
        alone = model.log_prob(params, make_batch(model, x[1:], np.array([7])), begun)
        assert float(alone) == pytest.approx(float(mixed[i]), rel=1e-12)


def test_histories_that_chance_took_warn_where_they_explain_the_values():
    errors = torch.tensor([[[0.1, 0.2], [0.5, 0.05]]], dtype=torch.float64)
    with pytest.warns(ApproximationWarning, match=r"4\.0 tell of step 0 of sequence 1.* 1 step"):
        warn_of_chance(errors, 100)
    warn_of_chance(errors, 50)
    warn_of_chance(errors[..., :0], 100)
    # Behind a gap only a history of many rare moves explains a value far away.
    one = {"initial": [0.5, 0.5], "switching": [[0.98, 0.02], [0.3, 0.7]], "transition": [[[1.0]], [[1.0]]]}
    one |= {"drift": [[0.0], [1.0]], "shock_covariance": [[[0.01]], [[0.01]]], "start_mean": [0.0]}
    one |= {"loading": [[1.0]], "offset": [0.0], "noise_scale": [0.1]}
    params = {name: torch.tensor([value], dtype=torch.float64) for name, value in one.items()}
    x = np.full((1, 16, 1), np.nan)
    x[0, 0], x[0, 15] = 0.0, 14.0
    model = FittedSwitchingModel(Observation(1), 2, 1, n_particles=100)
    with pytest.warns(ApproximationWarning, match="step 15 of sequence 0"):
        model.log_prob_steps(params, make_batch(model, x, np.array([16])))


def test_the_unit_of_weights_changes_no_step():
    model, params, batch = some(n=2, t=20, seed=7)
    start = model.variational_starts(batch, 1, torch.Generator().manual_seed(0))[0]
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    (bound, one), (less, other) = (model.variational_step(start, batch, w) for w in (weights, 1e-6 * weights))
    assert less == pytest.approx(1e-6 * bound)
    for name, value in one.params.items():
        np.testing.assert_allclose(other.params[name], value, rtol=1e-9, atol=1e-12)
    assert not torch.equal(one.params["transition"], start.params["transition"])


def test_forecast_means_agree_with_paths():
    model, params, batch = some("own", seed=4)
    state = model.filter(params, batch)
    mean = model.forecast_mean(params, state, 3)[0, 0]
    many = type(state)(*(leaf.repeat_interleave(4000, 1) for leaf in state))
    paths, _ = model.sample(params, many, 3, torch.Generator().manual_seed(0))
    error = paths[0].std(0) / math.sqrt(4000)
    assert float(((paths[0].mean(0) - mean) / error).abs().max()) < 4.5


def test_conforms():
    skip = ("check_missing_values", "check_predictive_laws", "check_marginalized")
    check_model(FittedSwitchingModel(Observation(1), 2, 1, n_particles=512), skip=skip)


def test_missing_values_are_integrated_out():
    model, params, batch = some(t=4, k=1, seed=5)
    complete = batch._replace(x=torch.where(batch.seen, batch.x, 0.3), seen=torch.ones_like(batch.seen))
    hole = complete.seen.clone()
    hole[0, 2] = False
    got = float(model.log_prob(params, complete._replace(seen=hole)))
    grid = torch.linspace(-60.0, 60.0, 4001, dtype=torch.float64)
    x = complete.x.repeat(len(grid), 1, 1)
    x[:, 2, 0] = grid
    every = complete._replace(x=x, seen=complete.seen.repeat(len(grid), 1, 1), lengths=torch.full((len(grid),), 4))
    logs = model.log_prob(params, every)[0]
    assert got == pytest.approx(float(torch.logsumexp(logs, 0) + math.log(grid[1] - grid[0])), abs=1e-6)


@pytest.mark.parametrize("wrong", [{"n_regimes": 0}, {"n_states": 1.5}, {"emission": "none"}, {"n_particles": 0}])
def test_arguments_that_are_none(wrong):
    with pytest.raises(ParameterError):
        FittedSwitchingModel(Observation(2), **wrong)


def test_what_cannot_be_is_named():
    with pytest.raises(ShapeError, match="continuous"):
        FittedSwitchingModel(Poisson().observation(1))
    with pytest.raises(IncompatibleError):
        EM().require(FittedSwitchingModel)
    with pytest.raises(IncompatibleError, match="switching linear"):
        VariationalEM().require(LinearSystemModel)
    assert MLE().can_fit(LinearSystemModel)
    model, params, batch = some(seed=6)
    start = VariationalStart({name: value[0] for name, value in params.items()}, [np.tile([1.0, 0.0], (T, 1))])
    assert model.variational_problems(start, batch) == ("Regime 1 has lost all its steps.",)
    start.params["noise_scale"] = torch.tensor([1e-9, 1.0], dtype=torch.float64)
    assert "Variable 0 has no noise" in model.variational_problems(start, batch)[1]
