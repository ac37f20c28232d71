"""Gibbs: posterior moments equal sums over all paths of tiny models; structure is kept; misuse raises."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from path_sums import log_normaliser, over_paths
from scipy.special import logsumexp

from probseq.data import datasets
from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, StudentT
from probseq.errors import IncompatibleError, ParameterError, UnsupportedError
from probseq.inference.chain_laws import chain_prior
from probseq.inference.em import EM
from probseq.inference.gibbs import Gibbs
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.transitions import Transitions


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_batch(values):
    x = torch.as_tensor(np.asarray(values, dtype=float))
    x = x.reshape(1, -1, 1) if x.ndim == 1 else x
    seen = ~torch.isnan(x)
    return Batch(torch.nan_to_num(x), seen, torch.full((x.shape[0],), x.shape[1]))


def hmm(emission, n_states=2, k=1, **options):
    return HiddenMarkovModel(n_states, emission, emission.observation(k), **options)


def assert_same_mean(draws, name, exact):
    """Within Monte Carlo error, by the spread of the means of many chains."""
    value = draws.params[name].numpy()
    chains = value.reshape(draws.n_chains, -1, *value.shape[1:]).mean(1)
    error = chains.std(0, ddof=1) / np.sqrt(draws.n_chains)
    assert np.all(np.abs(chains.mean(0) - exact) <= 4.5 * error + 1e-12), (name, chains.mean(0), exact, error)


X = [0.0, 2.0, 2.0, np.nan, 1.0, 0.0]
CHAIN = {"initial": [2.0, 1.0], "transition": [[3.0, 1.0], [1.0, 2.0]]}
TINY = {
    "categorical": (Categorical(3), X, {"concentration": [[[2.0, 1.0, 0.5]], [[1.0, 1.0, 3.0]]]}),
    "poisson": (Poisson(), X, {"shape": [[2.0], [4.0]], "rate": [[2.0], [1.5]]}),
    "bernoulli": (Bernoulli(), [0.0, 1.0, 1.0, np.nan, 1.0, 0.0], {"ones": [[2.0], [1.0]], "zeros": [[1.0], [2.0]]}),
    "diag": (Normal(), X, {"mean": [[0.0], [2.0]], "strength": 1.0, "shape": 4.0, "rate": 2.0}),
    "spherical": (Normal("spherical"), X, {"mean": [[0.0], [2.0]], "strength": 1.0, "shape": 4.0, "rate": 2.0}),
    "tied": (Normal("tied"), X, {"mean": [[0.0], [2.0]], "strength": 1.0, "dof": 6.0, "scatter": [[3.0]]}),
}


@pytest.mark.parametrize("name", TINY)
def test_posterior_means_equal_the_sum_over_all_paths(name):
    emission, values, settings = TINY[name]
    model, batch = hmm(emission), as_batch(values)
    settings = {**CHAIN, **settings}
    log_weights, means = over_paths(model, batch, chain_prior(model, batch, settings, "Gibbs"))
    share = np.exp(log_weights - logsumexp(log_weights))
    draws = Gibbs(n_draws=12_000, n_chains=300, n_warmup=30, thin=1, prior=settings).fit(model, batch, generator())
    assert draws.permutation is None, "the prior tells the states apart"
    for key in ("initial", "transition", "mean", "rate", "probs"):
        if key in means:
            assert_same_mean(draws, key, np.tensordot(share, means[key], 1))


def test_missing_coordinates_of_whole_covariances_are_drawn_exactly():
    emission = Normal("full")
    values = np.array([[[0.0, 0.5], [0.3, np.nan], [2.0, 2.5], [np.nan, np.nan]]])
    model, batch = hmm(emission, k=2), as_batch(values)
    settings = {**CHAIN, "mean": [[0.0, 0.0], [2.0, 2.0]], "strength": 1.0, "dof": 6.0}
    settings["scatter"] = [[2.0, 1.0], [1.0, 2.0]]
    prior = chain_prior(model, batch, settings, "Gibbs")
    short = batch._replace(x=batch.x[:, :3], seen=batch.seen[:, :3], lengths=torch.tensor([3]))
    grid = torch.linspace(-15.0, 18.0, 100, dtype=torch.float64)
    points = short.x.expand(100, 1, 3, 2).clone()
    points[:, 0, 1, 1] = grid
    log_weights, means = over_paths(model, short, prior, points)
    share = np.exp(log_weights - logsumexp(log_weights))
    draws = Gibbs(n_draws=3000, n_chains=60, n_warmup=20, thin=1, prior=settings).fit(model, batch, generator())
    assert_same_mean(draws, "mean", np.tensordot(share, means["mean"], 1))


def test_a_stationary_start_enters_by_the_metropolis_step():
    emission = Categorical(2)
    model, batch = hmm(emission, start="stationary"), as_batch([1.0, 1.0, 0.0])
    settings = {"transition": [[2.0, 1.0], [1.0, 1.0]], "concentration": [[[3.0, 1.0]], [[1.0, 3.0]]]}
    prior = chain_prior(model, batch, settings, "Gibbs")
    # Midpoints over the two free probabilities of leaving.
    p = (np.arange(400) + 0.5) / 400
    leave, back = np.meshgrid(p, p, indexing="ij")
    matrix = np.stack([1 - leave, leave, back, 1 - back], -1).reshape(-1, 2, 2)
    start = np.stack([back, leave], -1).reshape(-1, 2) / (leave + back).reshape(-1, 1)
    alpha = prior.transition.concentration[0].numpy()
    total, moment = 0.0, np.zeros((2, 2))
    for path in itertools.product(range(2), repeat=3):
        hard = torch.nn.functional.one_hot(torch.tensor(path), 2).double().reshape(1, 1, 3, 2)
        law = prior.emission.updated(batch.x, batch.seen, hard)
        each = np.exp(log_normaliser(law)) * start[:, path[0]] * np.prod(matrix ** (alpha - 1), (-2, -1))
        for i, j in itertools.pairwise(path):
            each = each * matrix[:, i, j]
        total, moment = total + each.sum(), moment + np.tensordot(each, matrix, 1)
    draws = Gibbs(n_draws=16_000, n_chains=400, n_warmup=30, thin=1, prior=settings).fit(model, batch, generator())
    assert_same_mean(draws, "transition", moment / total)


def earthquakes():
    return as_batch(datasets.earthquakes().values)


def test_earthquakes_and_what_is_reported():
    model, batch, seen = hmm(Poisson()), earthquakes(), []
    run = Gibbs(n_draws=198, n_chains=4, n_warmup=50, thin=2)
    draws = run.fit(model, batch, generator(), progress=lambda i, v: seen.append((i, v)))
    assert draws.status == "converged" and draws.messages == () and draws.converged
    rate = draws.params["rate"].squeeze(-1)
    assert rate.shape == (200, 2) and draws.n_chains == 4 and draws.n_iter == 150
    # Many values: the posterior mean lies near the maximum. "match" puts the state that occurs more first.
    found = EM(n_init=5).fit(model, batch, generator()).params["rate"].sort(1).values.reshape(2)
    assert_allclose(rate.mean(0), found, atol=0.6)
    each = model.log_prob(draws.params, batch).sum(-1)
    assert_allclose(draws.objective, each.mean(), rtol=1e-10)
    assert_allclose(draws.log_prob, torch.logsumexp(each, 0) - np.log(200), rtol=1e-10)
    assert [i for i, _ in seen] == list(range(2, 151, 2))
    assert_allclose(draws.trace, [v for _, v in seen])
    assert draws.diagnostics.r_hat["rate"].shape == (2, 1) and np.all(draws.diagnostics.ess_bulk["rate"] > 20)


def test_labels_agree_and_rules_of_order_are_kept():
    model, batch = hmm(Poisson(), 3), earthquakes()
    options = {"n_draws": 60, "n_chains": 3, "n_warmup": 60, "thin": 1}
    raw = Gibbs(**options, order=None).fit(model, batch, generator())
    sorted_ = Gibbs(**options, order="rate").fit(model, batch, generator())
    matched = Gibbs(**options).fit(model, batch, generator())
    assert raw.permutation is None and matched.permutation.shape == (60, 3)
    assert_allclose(sorted_.params["rate"], raw.params["rate"].sort(1).values)
    assert bool((sorted_.params["rate"].diff(dim=1) >= 0).all())
    assert_allclose(model.log_prob(matched.params, batch), model.log_prob(raw.params, batch), rtol=1e-10)
    assert matched.params["rate"].std(0).max() < raw.params["rate"].std(0).max()


def test_zeros_fixed_entries_and_known_states_stay():
    fixed = np.array([[0.9, np.nan, np.nan], [np.nan, np.nan, np.nan], [np.nan] * 3])
    mask = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1]], dtype=bool)
    model = hmm(Poisson(), 3, transitions=Transitions(mask, fixed))
    states = torch.full((1, 107), -1)
    states[0, :5], states[0, 60:62] = 2, 1
    batch = earthquakes()._replace(states=states)
    draws = Gibbs(n_draws=20, n_chains=2, n_warmup=10, thin=1).fit(model, batch, generator())
    assert bool((draws.params["transition"][:, 0, 0] == 0.9).all())
    assert bool((draws.params["transition"][:, 1, 0] == 0.0).all())
    assert draws.permutation is None
    assert_allclose(model.smooth(draws.params, batch)[:, 0, :5, 2], 1.0)


def test_weights_repeat_sequences():
    model = hmm(Normal())
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 12, 1)))
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((3,), 12))
    run = Gibbs(n_draws=4, n_chains=2, n_warmup=2, thin=1)
    weighted = run.fit(model, batch, generator(), weights=torch.tensor([2.0, 0.0, 1.0]))
    rows = torch.tensor([0, 0, 2])
    repeated = run.fit(model, Batch(x[rows], batch.seen[rows], batch.lengths[rows]), generator())
    assert torch.equal(weighted.params["mean"], repeated.params["mean"])
    with pytest.raises(UnsupportedError, match="whole numbers"):
        run.fit(model, batch, generator(), weights=torch.tensor([0.5, 1.0, 1.0]))


def test_chains_that_disagree_are_reported():
    # Two ways to see these data that no short run leaves: warm-up of nothing, a handful of iterations.
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(m, 0.1, 60) for m in (0.0, 5.0, 10.0, 15.0)])
    draws = Gibbs(n_draws=64, n_chains=8, n_warmup=0, thin=1).fit(hmm(Normal(), 3), as_batch(x), generator())
    assert draws.status == "max_iter" and "R-hat" in draws.messages[0] and not draws.converged


def test_interrupting_keeps_the_draws_so_far():
    def stop(iteration, value):
        if iteration == 8:
            raise KeyboardInterrupt

    run = Gibbs(n_draws=40, n_chains=2, n_warmup=5, thin=1)
    draws = run.fit(hmm(Poisson()), earthquakes(), generator(), progress=stop)
    assert draws.status == "interrupted" and draws.params["rate"].shape == (6, 2, 1)
    early = Gibbs(n_draws=40, n_chains=2, n_warmup=50, thin=1)
    with pytest.raises(KeyboardInterrupt):
        early.fit(hmm(Poisson()), earthquakes(), generator(), progress=stop)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_draws": 0},
        {"n_chains": 1.5},
        {"n_warmup": -1},
        {"thin": 0},
        {"order": "size"},
        {"prior": {"mean": 1.0}},
        {"prior": {"transition": np.ones((3, 3))}},
        {"prior": {"initial": -1.0}},
        {"prior": 3.0},
    ],
)
def test_settings_out_of_range_raise(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ParameterError, match=next(iter(value)) if isinstance(value, dict) else name):
        Gibbs(**bad).fit(hmm(Poisson()), earthquakes(), generator())


def test_emissions_without_a_conjugate_prior_raise():
    with pytest.raises(IncompatibleError, match="StudentT.*Poisson"):
        Gibbs().fit(hmm(StudentT()), earthquakes(), generator())
