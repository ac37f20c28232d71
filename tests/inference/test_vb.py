"""Variational Bayes: the bound is what it says, never falls, stays below the evidence, and prunes states."""

import itertools

import numpy as np
import pytest
import torch
from hmmlearn.vhmm import VariationalCategoricalHMM, VariationalGaussianHMM
from numpy.testing import assert_allclose
from path_sums import log_beta, log_normaliser, over_paths
from scipy.special import digamma, logsumexp, multigammaln

import probseq as ps
from probseq.data import datasets
from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, Product, StudentT
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.chain_laws import ChainLaws, chain_prior
from probseq.inference.gibbs import Gibbs
from probseq.inference.vb import VB, expect
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.transitions import LeftRight, Transitions

EMISSIONS = {
    "diag": Normal(),
    "spherical": Normal("spherical"),
    "full": Normal("full"),
    "tied": Normal("tied"),
    "poisson": Poisson(),
    "categorical": Categorical(4),
    "bernoulli": Bernoulli(),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_batch(values):
    x = torch.as_tensor(np.asarray(values, dtype=float))
    x = x.reshape(1, -1, 1) if x.ndim == 1 else x
    seen = ~torch.isnan(x)
    return Batch(torch.nan_to_num(x), seen, torch.full((x.shape[0],), x.shape[1]))


def hmm(emission, n_states=2, k=1, **options):
    return HiddenMarkovModel(n_states, emission, emission.observation(k), **options)


def regimes(emission, t=60, missing=0.15, seed=0):
    """Three ragged sequences of two variables with two regimes and holes."""
    rng = np.random.default_rng(seed)
    z = (np.arange(t) // 11 % 2)[None, :, None] * np.ones((3, 1, 2))
    if isinstance(emission, Poisson):
        x = rng.poisson(3.0 + 7.0 * z)
    elif isinstance(emission, Categorical):
        x = np.where(rng.random(z.shape) < 0.1, rng.integers(0, 4, z.shape), rng.integers(0, 2, z.shape) + 2 * z)
    elif isinstance(emission, Bernoulli):
        x = rng.random(z.shape) < 0.2 + 0.6 * z
    else:
        x = 100 + 3 * z + rng.normal(size=z.shape) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    batch = as_batch(np.where(rng.random(z.shape) < missing, np.nan, x))
    lengths = torch.tensor([t, t - 10, 1])
    seen = batch.seen & (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return Batch(torch.where(seen, batch.x, emission.fill), seen, lengths)


@pytest.mark.parametrize("name", EMISSIONS)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.5, 0.5])])
def test_the_bound_never_falls(name, weights):
    emission = EMISSIONS[name]
    model, batch = hmm(emission, 3, 2), regimes(emission)
    draws = VB(n_draws=2, n_init=3, tol=1e-9, prune=0.0).fit(model, batch, generator(), weights=weights)
    assert draws.status == "converged" and len(draws.trace) == draws.n_iter
    assert np.all(np.diff(draws.trace) >= -1e-9 * np.abs(draws.trace[:-1]))
    prior = chain_prior(model, batch, None, "VB")
    again = expect(model, batch, prior, draws.law, weights)
    assert_allclose(float(again.bound[0]), draws.objective, rtol=1e-12)
    assert_allclose(again.posterior.sum((0, 1, 2)), draws.occupancy, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EMISSIONS)
def test_a_fixed_point_is_a_maximum(name):
    """No nearby law of the same form has a higher bound."""
    emission = EMISSIONS[name]
    model, batch = hmm(emission, 2, 2), regimes(emission)
    prior = chain_prior(model, batch, None, "VB")
    law = VB(n_draws=1, n_init=2, tol=1e-11).fit(model, batch, generator()).law
    best = float(expect(model, batch, prior, law).bound[0])
    rng = np.random.default_rng(0)
    for _ in range(10):
        other = []
        for part in (law.initial, law.transition, law.emission):
            fields = part.hyper_parameters() if part is law.emission else {"concentration": part.concentration}
            moved = {key: v * torch.from_numpy(np.exp(0.01 * rng.normal(size=v.shape))) for key, v in fields.items()}
            if "scatter" in moved:
                moved["scatter"] = 0.5 * (moved["scatter"] + moved["scatter"].mT)
            other.append(type(part)(**{**vars(part), **moved}))
        assert float(expect(model, batch, prior, ChainLaws(*other)).bound[0]) < best


def test_the_bound_equals_its_definition_on_a_tiny_model():
    emission = Categorical(3)
    model = hmm(emission, start=[0.3, 0.7], transitions=Transitions(fixed=[[0.8, 0.2], [np.nan, np.nan]]))
    free = hmm(emission)
    batch = as_batch([0.0, 2.0, 1.0, np.nan, 2.0])
    for one in (model, free):
        prior = chain_prior(one, batch, {"concentration": 0.7, "transition": 1.3}, "VB")
        law = VB(n_draws=1, max_iter=3, tol=0.0, prior={"concentration": 0.7, "transition": 1.3})
        q = law.fit(one, batch, generator()).law
        alpha, rows = q.emission.concentration[0, :, 0].numpy(), q.transition.concentration[0].numpy()
        log_b = digamma(alpha) - digamma(alpha.sum(-1, keepdims=True))
        with np.errstate(all="ignore"):
            log_a = digamma(rows) - digamma(rows.sum(-1, keepdims=True))
        log_pi = np.log([0.3, 0.7])
        if one is model:
            log_a[0] = np.log([0.8, 0.2])
        else:
            first = q.initial.concentration[0].numpy()
            log_pi = digamma(first) - digamma(first.sum())
        scores = []
        for path in itertools.product(range(2), repeat=5):
            score = log_pi[path[0]] + sum(log_a[i, j] for i, j in itertools.pairwise(path))
            score += sum(log_b[j, int(x)] for j, x in zip(path, [0, 2, 1, None, 2], strict=True) if x is not None)
            scores.append(score)
        # With the best q(z) the first two terms of the bound are log sum_z exp E[log p(x, z | theta)].
        assert_allclose(
            float(expect(one, batch, prior, q).bound[0] + q.divergence(prior)[0]), logsumexp(scores), rtol=1e-12
        )


@pytest.mark.parametrize("name", ["categorical", "poisson", "diag"])
def test_the_bound_lies_below_the_evidence_and_near_it_for_sharp_priors(name):
    emission, values = EMISSIONS[name], [0.0, 2.0, 2.0, 3.0, 1.0, 0.0]
    model, batch = hmm(emission), as_batch(values)
    sharp = {
        "categorical": {"concentration": 1e4},
        "poisson": {"shape": [[1e4], [2e4]], "rate": 1e4},
        "diag": {"mean": [[0.0], [2.0]], "strength": 1e4, "shape": 1e4, "rate": 1e4},
    }
    for settings, gap in (({}, 3.0), ({"initial": 1e4, "transition": 1e4, **sharp[name]}, 0.01)):
        prior = chain_prior(model, batch, settings, "VB")
        each = over_paths(model, batch, prior)[0]
        constant = log_beta(prior.transition.concentration[0].numpy()).sum()
        constant += log_beta(prior.initial.concentration[0].numpy())
        if name == "poisson":
            constant += float(torch.lgamma(batch.x + 1).sum())
        if name == "diag":
            constant += 3 * np.log(2 * np.pi)
        evidence = logsumexp(each) - constant
        bound = VB(n_draws=1, prior=settings, tol=1e-9, prune=0.0).fit(model, batch, generator()).objective
        assert evidence - gap < bound < evidence
    assert np.isfinite(log_normaliser(prior.emission))


def hmmlearn_start(theirs, x, lengths):
    """One iteration of hmmlearn from its present posterior: the bound there."""
    theirs.n_iter, theirs.init_params = 1, ""
    theirs.fit(x, lengths)
    return theirs.monitor_.history[0]


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_bound_and_update_equal_those_of_hmmlearn_for_normals(covariance):
    emission = Normal(covariance)
    batch = regimes(emission, missing=0.0)
    rows = [batch.x[i, : int(n)].numpy() for i, n in enumerate(batch.lengths)]
    x, lengths = np.concatenate(rows) - 100, batch.lengths.numpy()
    batch = batch._replace(x=torch.where(batch.seen, batch.x - 100, 0.0))
    own = 1 if covariance == "tied" else 3
    scatter = np.array([[2.0, 0.3], [0.3, 1.0]])
    prior_settings = {"mean": 0.0, "strength": 0.5, "dof": 4.0, "scatter": scatter, "initial": 0.3, "transition": 0.4}
    theirs = VariationalGaussianHMM(
        3,
        covariance_type=covariance,
        n_iter=4,
        tol=-np.inf,
        random_state=0,
        startprob_prior=0.3,
        transmat_prior=0.4,
        means_prior=np.zeros((3, 2)),
        beta_prior=np.full(3, 0.5),
        dof_prior=4.0 if covariance == "tied" else np.full(3, 4.0),
        scale_prior=scatter if covariance == "tied" else np.broadcast_to(scatter, (3, 2, 2)),
    ).fit(x, lengths)
    model = hmm(emission, 3, 2)
    prior = chain_prior(model, batch, prior_settings, "VB")

    def laws():
        emissions = type(prior.emission)(
            mean=torch.tensor(theirs.means_posterior_)[None],
            strength=torch.tensor(theirs.beta_posterior_)[None],
            dof=torch.tensor(np.reshape(theirs.dof_posterior_, (1, own)), dtype=torch.float64),
            scatter=torch.tensor(theirs.scale_posterior_).reshape(1, own, 2, 2),
            tied=covariance == "tied",
        )
        chains = [
            type(prior.transition)(torch.tensor(a)[None], b.simplex)
            for a, b in ((theirs.startprob_posterior_, prior.initial), (theirs.transmat_posterior_, prior.transition))
        ]
        return ChainLaws(*chains, emissions)

    before = laws()
    bound = hmmlearn_start(theirs, x, lengths) - len(x) * np.log(2 * np.pi)
    found = expect(model, batch, prior, before)
    # hmmlearn leaves the constant log(2 pi) out of its bound.
    assert_allclose(float(found.bound[0]), bound, rtol=1e-10)
    ours = prior.updated(found.first, found.counts, batch, found.posterior, before)
    for a, b in zip(ours._hyper_parameters(), laws()._hyper_parameters(), strict=True):
        assert_allclose(a, b, rtol=1e-8)


def test_bound_and_update_equal_those_of_hmmlearn_for_categories():
    x = np.random.default_rng(0).integers(0, 4, (80, 1))
    theirs = VariationalCategoricalHMM(
        3, n_iter=4, tol=-np.inf, random_state=0, startprob_prior=0.3, transmat_prior=0.4, emissionprob_prior=0.7
    ).fit(x, [50, 30])
    model = hmm(Categorical(4), 3)
    padded = np.zeros((2, 50, 1))
    padded[0], padded[1, :30] = x[:50], x[50:]
    real = np.arange(50) < np.array([[50], [30]])
    batch = Batch(torch.from_numpy(padded), torch.from_numpy(real).unsqueeze(-1), torch.tensor([50, 30]))
    prior = chain_prior(model, batch, {"initial": 0.3, "transition": 0.4, "concentration": 0.7}, "VB")

    def laws():
        chains = [
            type(prior.transition)(torch.tensor(a)[None], b.simplex)
            for a, b in ((theirs.startprob_posterior_, prior.initial), (theirs.transmat_posterior_, prior.transition))
        ]
        return ChainLaws(*chains, type(prior.emission)(torch.tensor(theirs.emissionprob_posterior_)[None, :, None]))

    before = laws()
    bound = hmmlearn_start(theirs, x, [50, 30])
    found = expect(model, batch, prior, before)
    assert_allclose(float(found.bound[0]), bound, rtol=1e-10)
    ours = prior.updated(found.first, found.counts, batch, found.posterior, before)
    for a, b in zip(ours._hyper_parameters(), laws()._hyper_parameters(), strict=True):
        assert_allclose(a, b, rtol=1e-8)


def test_states_that_are_not_needed_are_pruned():
    rng = np.random.default_rng(0)
    states = np.repeat([0, 1, 0, 2] * 4, 40)
    x = as_batch(rng.normal(size=640) + 4.0 * states)
    draws = VB(n_draws=20).fit(hmm(Normal(), 8), x, generator())
    assert draws.pruned == (3, 4, 5, 6, 7) and draws.converged
    assert "5 of 8 states" in draws.messages[0]
    assert_allclose(draws.occupancy[:3], [320, 160, 160], atol=12)
    assert bool((draws.occupancy[3:] < 1e-3).all())
    assert_allclose(draws.point["mean"][0, :3, 0].sort().values, [0, 4, 8], atol=0.4)
    assert_allclose(draws.params["mean"][:, :3].mean(0), draws.point["mean"][0, :3], atol=0.2)
    assert draws.params["mean"].shape == (20, 8, 1)
    three = VB(n_draws=1).fit(hmm(Normal(), 3), x, generator())
    two = VB(n_draws=1).fit(hmm(Normal(), 2), x, generator())
    assert three.pruned == () and three.objective > max(two.objective, draws.objective)


def test_mixed_columns():
    emission = Product([Normal("full"), Poisson()], sizes=[2, 1])
    parts = [regimes(Normal("full")), regimes(Poisson())]
    x, seen = (torch.cat([parts[0][i], parts[1][i][..., :1]], -1) for i in (0, 1))
    batch = Batch(x, seen, parts[0].lengths)
    draws = VB(n_draws=4, n_init=2, tol=1e-8).fit(hmm(emission, 2, 3), batch, generator())
    assert draws.converged and np.all(np.diff(draws.trace) >= -1e-9 * np.abs(draws.trace[:-1]))
    gibbs = Gibbs(n_draws=40, n_chains=2, n_warmup=30, thin=1).fit(hmm(emission, 2, 3), batch, generator())
    for name in ("normal_mean", "poisson_rate"):
        order = gibbs.params["poisson_rate"].mean(0).flatten().argsort()
        own = draws.point["poisson_rate"].flatten().argsort()
        assert_allclose(gibbs.params[name].mean(0)[order], draws.point[name][0][own], rtol=0.1)


def test_structure_known_states_and_reports():
    x = as_batch(datasets.earthquakes().values)
    model = hmm(Poisson(), 3, transitions=LeftRight())
    calls = []
    draws = VB(n_draws=5, n_init=4, prune=0.0).fit(model, x, generator(), progress=lambda i, v: calls.append((i, v)))
    assert bool((draws.params["transition"].tril(-1) == 0).all()) and bool(
        (draws.point["transition"].tril(-1) == 0).all()
    )
    assert draws.optima.shape == (4,) and draws.optima[0] == draws.objective and calls[-1][1] == draws.objective
    each = model.log_prob(draws.params, x).sum(-1)
    assert_allclose(draws.log_prob, torch.logsumexp(each, 0) - np.log(5), rtol=1e-10)
    states = torch.full((1, 107), -1)
    states[0, :4] = 1
    known = VB(n_draws=2, n_init=2).fit(hmm(Poisson()), x._replace(states=states), generator())
    assert_allclose(hmm(Poisson()).smooth(known.point, x._replace(states=states))[0, 0, :4, 1], 1.0)
    early = VB(n_draws=1, max_iter=2).fit(hmm(Poisson()), x, generator())
    assert early.status == "max_iter" and early.n_iter == 2 and "max_iter" in early.messages[-1]


def test_interrupting_keeps_the_best_so_far():
    def stop(iteration, value):
        if iteration == 3:
            raise KeyboardInterrupt

    model, x = hmm(Poisson()), as_batch(datasets.earthquakes().values)
    draws = VB(n_draws=3, n_init=2).fit(model, x, generator(), progress=stop)
    assert draws.status == "interrupted" and draws.params["rate"].shape == (3, 2, 1)


def test_long_data_need_no_table_of_all_starts(monkeypatch):
    model, x = hmm(Poisson()), as_batch(datasets.earthquakes().values)
    whole = VB(n_draws=1, n_init=3).fit(model, x, generator())
    monkeypatch.setattr("probseq.inference.vb._BYTES", 1)
    grouped = VB(n_draws=1, n_init=3).fit(model, x, generator())
    assert_allclose(grouped.objective, whole.objective, rtol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_draws": 0},
        {"n_init": 1.5},
        {"init": "zeros"},
        {"max_iter": 0},
        {"tol": -1.0},
        {"prune": np.inf},
        {"prior": {"mean": 1.0}},
        {"prior": {"shape": np.ones((5, 1))}},
    ],
)
def test_settings_out_of_range_raise(bad):
    name, value = next(iter(bad.items()))
    with pytest.raises(ParameterError, match=next(iter(value)) if isinstance(value, dict) else name):
        VB(**bad).fit(hmm(Poisson()), as_batch(datasets.earthquakes().values), generator())


def test_what_has_no_conjugate_prior_raises():
    x = as_batch(datasets.earthquakes().values)
    with pytest.raises(IncompatibleError, match="StudentT.*Poisson"):
        VB().fit(hmm(StudentT()), x, generator())
    with pytest.raises(IncompatibleError, match="stationary"):
        VB().fit(hmm(Poisson(), start="stationary"), x, generator())


@pytest.mark.parametrize("covariance", ["full", "tied"])
@pytest.mark.parametrize(("zero", "unit"), [(0.0, 1.0), (1e5, 1e-3)])
def test_the_bound_of_one_state_is_the_evidence_under_a_normal_inverse_wishart_law(covariance, zero, unit):
    rng = np.random.default_rng(5)
    x = zero + unit * (rng.normal(size=(40, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]]))
    model = ps.HMM(1, ps.Normal(covariance), inference=ps.VB(n_draws=4), random_state=0).fit(x)
    # Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution, equation 266, under the default prior.
    n, k, strength, dof = 40, 2, 0.01, 4.0
    gap = x - x.mean(0)
    before, after = np.diag((gap**2).mean(0)), np.diag((gap**2).mean(0)) + gap.T @ gap
    evidence = (
        -0.5 * n * k * np.log(np.pi)
        + multigammaln(0.5 * (dof + n), k)
        - multigammaln(0.5 * dof, k)
        + 0.5 * dof * np.linalg.slogdet(before)[1]
        - 0.5 * (dof + n) * np.linalg.slogdet(after)[1]
        + 0.5 * k * np.log(strength / (strength + n))
    )
    assert_allclose(model.draws_.objective, evidence, rtol=1e-7)
