"""Conjugate laws: Bayes' rule holds as a ratio of densities, expectations and divergences equal others' values."""

import numpy as np
import pytest
import torch
from hmmlearn import _kl_divergence as peer
from hmmlearn.vhmm import VariationalGaussianHMM
from numpy.testing import assert_allclose
from scipy import integrate, stats

from probseq.distributions.conjugate import DirichletRows, conjugate_prior
from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, Product, StudentT
from probseq.distributions.params import Simplex
from probseq.distributions.tables import component_log_prob
from probseq.errors import IncompatibleError, ParameterError

EMISSIONS = {
    "diag": Normal(),
    "spherical": Normal("spherical"),
    "full": Normal("full"),
    "tied": Normal("tied"),
    "poisson": Poisson(),
    "categorical": Categorical(4),
    "bernoulli": Bernoulli(),
}
S, K = 3, 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(emission, missing=0.2, t=25, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(emission, Poisson):
        x = rng.poisson(4.0, (2, t, K))
    elif isinstance(emission, Categorical):
        x = rng.integers(0, 4, (2, t, K))
    elif isinstance(emission, Bernoulli):
        x = rng.integers(0, 2, (2, t, K))
    else:
        x = 50 + rng.normal(size=(2, t, K)) @ np.array([[2.0, 0.7], [0.0, 1.0]])
    seen = torch.from_numpy(rng.random((2, t, K)) >= missing)
    x = torch.where(seen, torch.from_numpy(x.astype(float)), 0.0)
    weights = torch.from_numpy(rng.dirichlet(np.ones(S), size=(2, 2, t)))
    return x, seen, weights


def prior_of(emission, x, seen, **settings):
    return conjugate_prior(emission, emission.observation(K), S, x, seen, settings)


def log_density(law, params, d):
    """log of the law d at one value of the parameters, by scipy."""
    total, name = 0.0, type(law).__name__
    for j in range(S):
        if name == "NormalGamma":
            precision = params["scale"][j].numpy() ** -2.0
            shape, rate = law.shape[d, j].numpy(), law.rate[d, j].numpy()
            total += stats.gamma(shape, scale=1 / rate).logpdf(precision).sum()
            width = 1 / np.sqrt(law.strength[d, j].numpy() * precision)
            total += stats.norm(law.mean[d, j].numpy(), width).logpdf(params["mean"][j].numpy()).sum()
        elif name == "NormalWishart":
            own = 0 if law.tied else j
            covariance = (params["covariance"] if law.tied else params["covariance"][j]).numpy()
            if j == own or not law.tied:
                wishart = stats.invwishart(float(law.dof[d, own]), law.scatter[d, own].numpy())
                total += wishart.logpdf(covariance)
            where = stats.multivariate_normal(law.mean[d, j].numpy(), covariance / float(law.strength[d, j]))
            total += where.logpdf(params["mean"][j].numpy())
        elif name == "GammaRates":
            total += (
                stats.gamma(law.shape[d, j].numpy(), scale=1 / law.rate[d, j].numpy()).logpdf(params["rate"][j]).sum()
            )
        elif name == "BetaBits":
            p = torch.sigmoid(params["logit"][j]).numpy()
            total += stats.beta(law.ones[d, j].numpy(), law.zeros[d, j].numpy()).logpdf(p).sum()
        else:
            for i in range(K):
                total += stats.dirichlet(law.concentration[d, j, i].numpy()).logpdf(params["probs"][j, i].numpy())
    return total


@pytest.mark.parametrize("name", EMISSIONS)
def test_posterior_is_prior_times_likelihood(name):
    emission = EMISSIONS[name]
    x, seen, weights = data(emission, missing=0.0 if name in ("full", "tied") else 0.2)
    prior = prior_of(emission, x, seen)
    posterior = prior.updated(x, seen, weights)
    draws = posterior.sample(generator())
    draws = {key: torch.cat([value, posterior.sample(generator(1))[key]]) for key, value in draws.items()}
    table = component_log_prob(emission.distribution(draws, (S,)), x, seen)
    for d in range(2):
        evidence = []
        for i in (0, 1, 2, 3):
            one = {key: value[i] for key, value in draws.items()}
            likelihood = float((weights[d] * table[i]).sum())
            evidence.append(log_density(prior, one, 0) + likelihood - log_density(posterior, one, d))
        assert_allclose(evidence, evidence[0], rtol=1e-9)


@pytest.mark.parametrize("name", EMISSIONS)
def test_splitting_the_data_changes_nothing_and_no_weight_keeps_the_prior(name):
    emission = EMISSIONS[name]
    x, seen, weights = data(emission, missing=0.0)
    prior = prior_of(emission, x, seen)
    whole = prior.updated(x, seen, weights)
    parts = prior.updated(x[:, :10], seen[:, :10], weights[:, :, :10])
    parts = parts.updated(x[:, 10:], seen[:, 10:], weights[:, :, 10:])
    nothing = prior.updated(x, seen, torch.zeros_like(weights))
    for key, value in whole.hyper_parameters().items():
        assert_allclose(parts.hyper_parameters()[key], value, rtol=1e-9)
        assert_allclose(nothing.hyper_parameters()[key][:1], prior.hyper_parameters()[key], rtol=1e-12)
    assert_allclose(nothing.divergence(prior), 0.0, atol=1e-12)
    assert bool((whole.divergence(prior) > 0).all())


@pytest.mark.parametrize("name", EMISSIONS)
def test_expectations_equal_averages_over_draws(name):
    emission = EMISSIONS[name]
    x, seen, weights = data(emission, missing=0.0 if name in ("full", "tied") else 0.3, t=4)
    posterior = prior_of(emission, x, seen).updated(x, seen, 5 * weights)
    many = posterior.take(torch.zeros(20_000, dtype=torch.long))
    draws = many.sample(generator())
    table = component_log_prob(emission.distribution(draws, (S,)), x, seen)
    expected = posterior.expected_log_prob(x, seen)[0]
    error = table.std(0) / np.sqrt(len(table))
    assert bool(((table.mean(0) - expected).abs() <= 5 * error + 1e-12).all())
    assert bool((expected[~seen.any(-1)] == 0).all())
    point = posterior.point()
    for key in ("mean", "rate", "probs"):
        if key in point:
            error = draws[key].std(0) / np.sqrt(20_000)
            assert bool(((draws[key].mean(0) - point[key][0]).abs() <= 5 * error).all())
    again = many.sample(generator())
    assert all(torch.equal(again[key], value) for key, value in draws.items())
    for key, spec in emission.parameters(emission.observation(K), (S,)).items():
        assert spec.constraint.violation(draws[key]) is None and draws[key].shape[1:] == spec.shape
        assert spec.constraint.violation(point[key]) is None and point[key].shape[1:] == spec.shape


def test_divergences_equal_those_of_torch_and_hmmlearn():
    gamma = prior_of(Poisson(), *data(Poisson())[:2])
    late = gamma.updated(*data(Poisson()))
    law = torch.distributions.Gamma
    theirs = torch.distributions.kl_divergence(law(late.shape, late.rate), law(gamma.shape, gamma.rate))
    assert_allclose(late.divergence(gamma), theirs.sum((-2, -1)), rtol=1e-10)
    beta = prior_of(Bernoulli(), *data(Bernoulli())[:2])
    late = beta.updated(*data(Bernoulli()))
    law = torch.distributions.Beta
    theirs = torch.distributions.kl_divergence(law(late.ones, late.zeros), law(beta.ones, beta.zeros))
    assert_allclose(late.divergence(beta), theirs.sum((-2, -1)), rtol=1e-10)
    start = prior_of(Categorical(4), *data(Categorical(4))[:2])
    late = start.updated(*data(Categorical(4)))
    law = torch.distributions.Dirichlet
    theirs = torch.distributions.kl_divergence(law(late.concentration), law(start.concentration.expand(2, -1, -1, -1)))
    assert_allclose(late.divergence(start), theirs.sum((-2, -1)), rtol=1e-10)
    wishart = prior_of(Normal("full"), *data(Normal())[:2])
    late = wishart.updated(*data(Normal()))
    theirs = 0.0
    for j in range(S):
        precision = np.linalg.inv(late.scatter[0, j]) * float(late.dof[0, j])
        covariances = [np.linalg.inv(float(one.strength[0, j]) * precision) for one in (late, wishart)]
        theirs += peer.kl_multivariate_normal_distribution(
            late.mean[0, j], covariances[0], wishart.mean[0, j], covariances[1]
        )
        theirs += peer.kl_wishart_distribution(
            float(late.dof[0, j]), late.scatter[0, j], float(wishart.dof[0, j]), wishart.scatter[0, j]
        )
    assert_allclose(float(late.divergence(wishart)[0]), theirs, rtol=1e-9)


def test_one_variable_is_the_same_under_all_normal_laws():
    x, seen, weights = data(Normal(), missing=0.2)
    x, seen = x[..., :1], seen[..., :1]
    observation = Normal().observation(1)
    laws = [conjugate_prior(Normal(c), observation, S, x, seen, {}) for c in ("diag", "spherical", "full")]
    late = [law.updated(x, seen, weights) for law in laws]
    table = late[0].expected_log_prob(x, seen)
    for prior, posterior in zip(laws[1:], late[1:], strict=True):
        assert_allclose(posterior.expected_log_prob(x, seen), table, rtol=1e-10, atol=1e-12)
        assert_allclose(posterior.divergence(prior), late[0].divergence(laws[0]), rtol=1e-9)


def test_whole_covariances_have_the_expectations_of_hmmlearn():
    x, seen, weights = data(Normal(), missing=0.0)
    law = prior_of(Normal("full"), x, seen).updated(x, seen, weights)
    theirs = VariationalGaussianHMM(S, covariance_type="full")
    theirs.n_features = K
    theirs.dof_posterior_, theirs.scale_posterior_ = law.dof[0].numpy(), law.scatter[0].numpy()
    theirs.beta_posterior_, theirs.means_posterior_ = law.strength[0].numpy(), law.mean[0].numpy()
    expected = theirs._compute_subnorm_log_likelihood(x[0].numpy()) - 0.5 * K * np.log(2 * np.pi)
    assert_allclose(law.expected_log_prob(x, seen)[0, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_missing_coordinates_of_whole_covariances_are_integrated_out_of_the_expectation(covariance):
    x, seen, weights = data(Normal(), missing=0.0)
    law = prior_of(Normal(covariance), x, seen).updated(x, seen, weights)
    hole = seen[:1, :1].clone()
    hole[..., 1] = False
    part = law.expected_log_prob(x[:1, :1], hole)[0, 0, 0]
    for j in range(S):

        def mass(value, j=j):
            point = torch.tensor([[[float(x[0, 0, 0]), value]]], dtype=torch.float64)
            return float(law.expected_log_prob(point, seen[:1, :1])[0, 0, 0, j].exp())

        total = integrate.quad(mass, 30.0, 70.0, points=[50.0], epsabs=0, epsrel=1e-10)[0]
        assert_allclose(float(part[j]), np.log(total), rtol=1e-8)


def test_completing_by_draws_and_by_moments_agree():
    x, seen, _ = data(Normal(), missing=0.3, t=6)
    law = prior_of(Normal("full"), x, seen)
    law = law.updated(x, seen, torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(S), size=(1, 2, 6))))
    states = torch.from_numpy(np.random.default_rng(2).integers(0, S, (1, 2, 6)))
    hard = torch.nn.functional.one_hot(states, S).double()
    by_moments = law.updated(x, seen, hard, law)
    repeats = 4000
    params = {key: value.expand(repeats, *value.shape[1:]) for key, value in law.point().items()}
    filled, shown = law.fill_missing(params, x, seen, states.expand(repeats, 2, 6), generator())
    sums = torch.stack([law.updated(f, shown, hard).mean[0] for f in filled])
    error = sums.std(0) / np.sqrt(repeats)
    assert bool(((sums.mean(0) - by_moments.mean[0]).abs() <= 5 * error + 1e-12).all())
    scatter = torch.stack([law.updated(f, shown, hard).scatter[0] for f in filled])
    # The scatter is Psi + sum x x^T + k m m^T - k' m' m'^T, so its mean over completions lacks k' Cov(m').
    spread = torch.stack([torch.cov(sums[:, j].T, correction=0) for j in range(S)])
    total = scatter.mean(0) + by_moments.strength[0, :, None, None] * spread
    assert_allclose(total, by_moments.scatter[0], rtol=0.02, atol=0.02)
    assert torch.equal(filled[:, seen], x[seen].expand(repeats, -1))


def test_rows_keep_zeros_and_fixed_entries():
    support = torch.tensor([[True, True, False], [True, True, True], [False, False, True]])
    fixed = torch.tensor([[torch.nan] * 3, [0.2, torch.nan, torch.nan], [torch.nan] * 3], dtype=torch.float64)
    simplex = Simplex(support, fixed)
    prior = DirichletRows.prior("transition", simplex, (3, 3), {"transition": 2.0})
    counts = torch.tensor([[[3.0, 1.0, 0.0], [5.0, 2.0, 2.0], [0.0, 0.0, 7.0]]], dtype=torch.float64)
    law = prior.updated(counts)
    assert_allclose(law.concentration[0], [[5.0, 3.0, 0.0], [0.0, 4.0, 4.0], [0.0, 0.0, 9.0]])
    draws = law.take(torch.zeros(4000, dtype=torch.long)).sample(generator())
    assert simplex.violation(draws) is None
    assert bool((draws[:, [0, 2, 2], [2, 0, 1]] == 0).all()) and bool((draws[:, 1, 0] == 0.2).all())
    assert_allclose(draws.mean(0), law.mean()[0], atol=0.02)
    assert_allclose(law.mean()[0], [[0.625, 0.375, 0.0], [0.2, 0.4, 0.4], [0.0, 0.0, 1.0]])
    expected = law.expected_log()[0]
    assert_allclose(expected[0, 0], torch.digamma(torch.tensor(5.0)) - torch.digamma(torch.tensor(8.0)), rtol=1e-6)
    assert_allclose(expected[1, 0], np.log(0.2))
    assert expected[0, 2] == -torch.inf and expected[2, 2] == 0.0
    theirs = peer.kl_dirichlet(np.array([5.0, 3.0]), np.array([2.0, 2.0]))
    theirs += peer.kl_dirichlet(np.array([4.0, 4.0]), np.array([2.0, 2.0]))
    assert_allclose(law.divergence(prior), theirs, rtol=1e-10)


def test_tiny_concentrations_give_probabilities():
    prior = DirichletRows.prior("transition", Simplex(), (4,), {"transition": 1e-4})
    draws = prior.take(torch.zeros(500, dtype=torch.long)).sample(generator())
    assert Simplex().violation(draws) is None
    assert float((draws.max(-1).values > 0.999).double().mean()) > 0.98
    assert_allclose(draws.mean(0), 0.25, atol=0.1)


def test_default_priors_follow_the_scale_of_the_data():
    x, seen, weights = data(Normal())
    for name in ("diag", "spherical", "full", "tied"):
        emission = EMISSIONS[name]
        law = prior_of(emission, x, seen).updated(x, seen, weights).point()
        wide = prior_of(emission, 1000 * x, seen).updated(1000 * x, seen, weights).point()
        assert_allclose(wide["mean"], 1000 * law["mean"], rtol=1e-9)
        key = "scale" if "scale" in law else "covariance"
        assert_allclose(wide[key], law[key] * (1000 if key == "scale" else 1000**2), rtol=1e-8)


def test_mixed_events_have_the_laws_of_their_parts():
    emission = Product([Normal("full"), Poisson(), Categorical(4)], sizes=[2, 1, 1])
    parts = [data(Normal("full")), data(Poisson(), seed=1), data(Categorical(4), seed=2)]
    x, seen = (torch.cat([parts[0][i], parts[1][i][..., :1], parts[2][i][..., :1]], -1) for i in (0, 1))
    weights = parts[0][2]
    observation = emission.observation(4, (None, None, None, 4))
    prior = conjugate_prior(emission, observation, S, x, seen, {"normal_strength": 2.0, "poisson_shape": 3.0})
    posterior = prior.updated(x, seen, weights)
    groups = {"normal": (Normal("full"), slice(0, 2)), "poisson": (Poisson(), slice(2, 3))}
    settings = {"normal": {"strength": 2.0}, "poisson": {"shape": 3.0}}
    table, divergence = posterior.expected_log_prob(x, seen), posterior.divergence(prior)
    for name, (own, columns) in groups.items():
        event = own.observation(columns.stop - columns.start)
        alone = conjugate_prior(own, event, S, x[..., columns], seen[..., columns], settings[name])
        late = alone.updated(x[..., columns], seen[..., columns], weights)
        table = table - late.expected_log_prob(x[..., columns], seen[..., columns])
        divergence = divergence - late.divergence(alone)
        for key, value in late.hyper_parameters().items():
            assert_allclose(posterior.hyper_parameters()[f"{name}_{key}"], value, rtol=1e-12)
    rest = posterior.laws[2]
    assert_allclose(table, rest.expected_log_prob(x[..., 3:], seen[..., 3:]), atol=1e-9)
    assert_allclose(divergence, rest.divergence(prior.laws[2]), rtol=1e-9)
    specs = emission.parameters(observation, (S,))
    assert set(posterior.sample(generator())) == set(posterior.point()) == set(specs)
    order = torch.tensor([2, 0, 1])
    moved = posterior.permuted(order).take(slice(0, 1))
    assert_allclose(moved.point()["poisson_rate"][0], posterior.point()["poisson_rate"][0][order])
    assert prior.completes
    filled, shown = prior.fill_missing(
        posterior.sample(generator()), x, seen, torch.zeros(2, 2, 25, dtype=torch.long), generator()
    )
    assert torch.equal(shown[..., 2:], seen[..., 2:])
    assert torch.equal(shown[..., :2], seen[..., :2].any(-1, keepdim=True).expand(-1, -1, 2))
    assert torch.equal(filled[:, seen], x[seen].expand(2, -1))
    with pytest.raises(ParameterError, match="normal_shape"):
        conjugate_prior(emission, observation, S, x, seen, {"normal_shape": 1.0})
    with pytest.raises(IncompatibleError, match="StudentT"):
        conjugate_prior(Product([StudentT(), Poisson()]), observation, S, x, seen, {})


def test_settings_that_make_no_sense_raise():
    x, seen, _ = data(Normal())
    for name, settings in (
        ("diag", {"dof": 3.0}),
        ("full", {"shape": 1.0}),
        ("poisson", {"mean": 1.0}),
        ("diag", {"mean": [1.0, 2.0, 3.0]}),
        ("diag", {"strength": 0.0}),
        ("full", {"dof": 1.0}),
        ("full", {"scatter": [[1.0, 2.0], [2.0, 1.0]]}),
        ("poisson", {"rate": -1.0}),
        ("categorical", {"concentration": np.ones((S, 5))}),
        ("bernoulli", {"ones": "many"}),
    ):
        with pytest.raises(ParameterError, match=next(iter(settings))):
            prior_of(EMISSIONS[name], x, seen, **settings)
    with pytest.raises(IncompatibleError, match="StudentT"):
        prior_of(StudentT(), x, seen)
    own = prior_of(Normal(), x, seen, mean=[1.0, 2.0], strength=3.0)
    assert_allclose(own.mean[0], [[1.0, 2.0]] * S)
