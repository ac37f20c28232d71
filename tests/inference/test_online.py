"""Stochastic EM: exact statistics where a step is EM's own, windows that hand on their state, and the same optimum."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.online import OnlineEM
from probseq.inference.running import blended, start_averages, take_step
from probseq.kernels import chain
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel

EMISSIONS = {
    "diag": ps.Normal(),
    "full": ps.Normal("full"),
    "spherical": ps.Normal("spherical"),
    "tied": ps.Normal("tied"),
    "lognormal": ps.LogNormal(),
    "poisson": ps.Poisson(),
    "categorical": ps.Categorical(3),
    "bernoulli": ps.Bernoulli(),
    "angles": ps.VonMises(),
    "product": ps.Product([ps.Normal(), ps.Poisson()]),
    "groups": ps.Tied(ps.Normal(), states=[0, 0]),
    "shared scale": ps.Tied(ps.Normal(), shared=("scale",)),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def regimes(name, n=3, t=60, seed=0, holes=0.0):
    rng = np.random.default_rng(seed)
    z = (np.arange(t) // 9 % 2)[None, :, None] * np.ones((n, 1, 2))
    x = {
        "poisson": rng.poisson(2 + 5 * z).astype(float),
        "categorical": np.minimum(rng.integers(0, 2, (n, t, 2)) + z, 2.0),
        "bernoulli": (rng.random((n, t, 2)) < 0.2 + 0.5 * z).astype(float),
        "lognormal": np.exp(z + 0.5 * rng.normal(size=(n, t, 2))),
        "angles": rng.vonmises(np.pi * z, 4.0),
    }.get(name, 3 * z + rng.normal(size=(n, t, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]]))
    if name == "product":
        x[..., 1] = rng.poisson(2 + 5 * z[..., 1])
    x = torch.from_numpy(x)
    seen = torch.from_numpy(rng.random(x.shape) >= holes)
    return Batch(torch.where(seen, x, 1.0), seen, torch.full((n,), t))


def hmm(name, **options):
    emission = EMISSIONS[name]
    return HiddenMarkovModel(2, emission, emission.observation(2), **options)


@pytest.mark.parametrize("name", EMISSIONS)
@pytest.mark.parametrize("start", ["free", "stationary"])
def test_a_first_step_over_all_data_is_a_step_of_em(name, start):
    model, batch = hmm(name, start=start), regimes(name, holes=0.1)
    params = model.em_start(batch, 2, "random", generator())
    weights = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    expected = model.em_step(params, batch, weights)
    got = take_step(model, start_averages(model, params, 0.0, 60.0), batch, 0.9, weights=weights)
    for key, value in expected.params.items():
        # Without missing values the emission's step is the weighted one; weights enter the transitions either way.
        if key in ("initial", "transition"):
            assert_allclose(got.averages.params[key], value, rtol=1e-9, atol=1e-9)
    assert_allclose(got.log_prob, expected.log_prob, rtol=1e-12)
    plain = take_step(model, start_averages(model, params, 0.0, 60.0), batch, 0.9)
    for key, value in model.em_step(params, batch).params.items():
        assert_allclose(plain.averages.params[key], value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", EMISSIONS)
def test_averaged_parameters_are_those_of_pooled_data(name):
    emission, batch = EMISSIONS[name], regimes(name, n=2)
    observation = emission.observation(2)
    rng = np.random.default_rng(1)
    weights = torch.from_numpy(rng.dirichlet(np.ones(2), (1, 2, 60)))
    halves = [(batch.x[i : i + 1], batch.seen[i : i + 1], weights[:, i : i + 1]) for i in range(2)]
    specs = emission.parameters(observation, (2,))
    at = emission.initial_params(observation, batch.x, batch.seen, weights, (2,))
    old, new = (emission.m_step(observation, *half, at) for half in halves)
    sums = [half[2].sum((1, 2)) for half in halves]
    found = blended(emission, specs, old, new, sums[1] / (sums[0] + sums[1]), sums[0] + sums[1])
    pooled = emission.m_step(observation, batch.x, batch.seen, weights, at)
    for key, value in pooled.items():
        assert_allclose(found[key], value, rtol=1e-9, atol=1e-9, err_msg=key)


def test_directions_near_the_cut_of_the_circle_stay_there():
    rng = np.random.default_rng(0)
    x = rng.vonmises(np.pi * (np.arange(600) // 15 % 2), 4.0)
    whole = ps.HMM(2, ps.VonMises(), inference=ps.EM(n_init=1), random_state=0).fit(x)
    found = ps.HMM(2, ps.VonMises(), inference=OnlineEM(window=100, n_init=2), random_state=0).fit(x)
    assert found.log_likelihood_ > whole.log_likelihood_ - 0.01 * abs(whole.log_likelihood_)
    shared = ps.Tied(ps.VonMises(), shared=("concentration",))
    specs = shared.parameters(shared.observation(1), (2,))
    old, new = (
        {"loc": torch.tensor([[[np.pi - gap], [0.0]]]), "concentration": torch.tensor([[4.0]])} for gap in (0.2, -0.4)
    )
    half = torch.full((1, 2), 0.5)
    found = blended(shared, specs, old, {**new, "loc": new["loc"] - 2 * np.pi}, half, half)
    assert_allclose(torch.cos(found["loc"][0, 0]), np.cos(np.pi + 0.1), rtol=1e-6)


def test_a_window_counts_the_move_into_it_and_hands_on_its_last_state():
    model, batch = hmm("poisson"), regimes("poisson", n=2)
    params = model.em_start(batch, 1, "kmeans", generator())
    early, late = batch.slice_time(0, 25), batch.slice_time(25, 60)
    zero = start_averages(model, params, 0.0, 60.0)
    first = take_step(model, zero, early, 0.9)
    assert_allclose(first.last, model.filter_states(params, early)[:, :, -1], rtol=1e-10)
    second = take_step(model, zero, late, 0.9, last=first.last)
    # The same as an unseen step in front that starts from the state handed on.
    held = batch.slice_time(24, 60)
    held = held._replace(seen=held.seen & (torch.arange(36) > 0).reshape(1, -1, 1))
    start = model.initial_state(params, 2)._replace(probs=first.last)
    sums = chain.expectations(*model._problem(params, held, start))
    assert_allclose(second.averages.counts * 70, sums.counts, rtol=1e-10)
    assert_allclose(second.log_prob, sums.log_prob.sum(-1), rtol=1e-10)
    assert float(second.averages.first.sum()) == 0.0
    ahead = first.last @ params["transition"]
    without = take_step(model, zero, late, 0.9, ahead=ahead)
    assert_allclose(without.log_prob, second.log_prob, rtol=1e-12)
    assert_allclose(float(second.averages.counts.sum() - without.averages.counts.sum()) * 70, 2.0, rtol=1e-9)


def test_repeating_a_sequence_is_giving_it_a_weight():
    model, batch = hmm("poisson"), regimes("poisson", n=1)
    params = model.em_start(batch, 1, "kmeans", generator())
    zero = start_averages(model, params, 40.0, 60.0)
    twice = Batch(*(None if leaf is None else torch.cat([leaf, leaf]) for leaf in batch))
    a = take_step(model, zero, twice, 0.8).averages
    b = take_step(model, zero, batch, 0.8, weights=torch.tensor([2.0])).averages
    for key in a.params:
        assert_allclose(a.params[key], b.params[key], rtol=1e-10)
    assert a.n_steps == b.n_steps == 160.0


@pytest.mark.parametrize("n, t", [(1, 4000), (100, 40)])
@pytest.mark.parametrize("emission", [ps.Normal(), ps.StudentT(df=5.0)], ids=["normal", "student"])
def test_it_ends_where_em_ends(n, t, emission):
    d = torch.float64
    model = HiddenMarkovModel(2, emission, emission.observation(1))
    name = "mean" if isinstance(emission, ps.Normal) else "loc"
    truth = {
        "initial": torch.tensor([0.5, 0.5], dtype=d),
        "transition": torch.tensor([[0.95, 0.05], [0.1, 0.9]], dtype=d),
        name: torch.tensor([[0.0], [3.0]], dtype=d),
        "scale": torch.tensor([[1.0], [1.5]], dtype=d),
    }
    x = model.simulate(truth, model.initial_state(truth, n), t, generator())[0]
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))
    best = ps.EM(n_init=2, tol=1e-5).fit(model, batch, generator())
    found = OnlineEM(n_init=2, window=400).fit(model, batch, generator())
    assert found.status == "converged" and found.messages == ()
    assert best.log_prob - 0.001 * abs(best.log_prob) < found.log_prob <= best.log_prob + 1e-3
    assert_allclose(found.log_prob, float(model.log_prob(found.params, batch).sum()), rtol=1e-12)
    assert len(found.trace) == found.n_iter and found.trace[-1] > found.trace[0]


def test_a_sequence_without_weight_is_as_if_it_were_not_there():
    batch, model = regimes("poisson"), hmm("poisson")
    online = OnlineEM(batch_size=1, window=20, n_init=2)
    found = online.fit(model, batch, generator(), weights=torch.tensor([1.0, 0.0, 2.0]))
    rows = torch.tensor([0, 2])
    some = Batch(batch.x[rows], batch.seen[rows], batch.lengths[rows])
    expected = online.fit(model, some, generator(), weights=torch.tensor([1.0, 2.0]))
    assert found.status == "converged" and np.isfinite(found.trace).all()
    assert found.log_prob == expected.log_prob


def test_forbidden_transitions_stay_forbidden_and_weights_count():
    batch = regimes("poisson")
    mask = np.array([[True, True], [False, True]])
    model = hmm("poisson", transitions=mask)
    draws = OnlineEM(n_init=1).fit(model, batch, generator(), weights=torch.tensor([1.0, 0.0, 2.0]))
    assert draws.params["transition"][0, 1, 0] == 0.0
    each = model.log_prob(draws.params, batch)[0]
    assert_allclose(draws.log_prob, float(each[0] + 2 * each[2]), rtol=1e-12)


def test_what_has_degenerated_and_what_has_not_converged_is_said():
    batch = regimes("poisson")
    found = OnlineEM(n_init=1, max_epochs=2, tol=0.0).fit(hmm("poisson"), batch, generator())
    assert found.status == "max_iter" and "2 passes" in found.messages[-1]
    model = HiddenMarkovModel(3, ps.Normal(), ps.Normal().observation(1))
    x = torch.cat([torch.zeros(30), torch.ones(30)]).double().reshape(1, 60, 1)
    flat = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([60]))
    bad = OnlineEM(n_init=1, window=60).fit(model, flat, generator())
    assert bad.status == "degenerate" and "state" in bad.messages[0]


@pytest.mark.parametrize(
    "options",
    [{"kappa": 0.5}, {"kappa": 1.1}, {"window": 1}, {"batch_size": 0}, {"max_epochs": 0}, {"n_init": 0}, {"tol": -1.0}]
    + [{"init": "zeros"}],
)
def test_wrong_settings_are_refused(options):
    with pytest.raises(ParameterError):
        OnlineEM(**options).fit(hmm("poisson"), regimes("poisson"), generator())


def test_other_models_are_refused():
    with pytest.raises(IncompatibleError, match="OnlineEM"):
        ps.ARMA(inference=ps.OnlineEM())
    x = np.random.default_rng(0).normal(size=30)
    model = ps.HMM(2, transitions=ps.CovariateTransitions(), inference=ps.OnlineEM())
    with pytest.raises(IncompatibleError, match="covariates"):
        model.fit(x, covariates=x[:, None])
