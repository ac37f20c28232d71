"""M-steps against direct maximisation; starts, floors, support and gradients of every emission."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize

from probseq.distributions.emissions import (
    Beta,
    Gamma,
    GaussianMixture,
    LogNormal,
    Multinomial,
    NegativeBinomial,
    Normal,
    Poisson,
    Product,
    StudentT,
    Tied,
    VonMises,
    ZeroInflatedPoisson,
)
from probseq.distributions.estimation import floor_name, variance_floor
from probseq.distributions.params import flatten, read_outputs, unconstrained_size, unflatten
from probseq.distributions.tables import component_log_prob
from probseq.errors import ParameterError, SupportError

DRAWS, N, T, K, S = 2, 2, 60, 2, 3

EMISSIONS = {
    "negative binomial": NegativeBinomial(),
    "zero-inflated": ZeroInflatedPoisson(),
    "poisson": Poisson(),
    "gamma": Gamma(),
    "log-normal": LogNormal(),
    "full log-normal": LogNormal("full"),
    "beta": Beta(),
    "von mises": VonMises(),
    "multinomial": Multinomial(),
    "multinomial of 6": Multinomial(6),
    "mixture": GaussianMixture(2),
    "full mixture": GaussianMixture(2, "full"),
    "tied mixture": GaussianMixture(3, "tied"),
    "spherical mixture": GaussianMixture(2, "spherical"),
    "normal": Normal(),
    "student": StudentT(df=4.0),
}
LATENT = ("mixture", "student", "multinomial of 6", "full log-normal")
"""One M-step is one step of an inner EM."""


def data(name, seed=0, holes=0.2):
    rng = np.random.default_rng(seed)
    shape = (N, T, K)
    z = (np.arange(T) // 12 % 2)[None, :, None]
    if name == "negative binomial":
        x = rng.negative_binomial(2, 0.3, shape) * (1 + 2 * z)
    elif name == "zero-inflated":
        x = rng.poisson(3 + 2 * z, shape) * (rng.random(shape) < 0.6)
    elif name == "poisson":
        x = rng.poisson(3 + 4 * z, shape)
    elif name in ("gamma", "log-normal", "full log-normal"):
        x = rng.gamma(2.0, 1.0 + z, shape) * 50
    elif name == "beta":
        x = rng.beta(2.0 + z, 3.0, shape)
    elif name == "von mises":
        x = rng.vonmises(3.0 - z, 2.0, shape)
    elif name.startswith("multinomial"):
        x = rng.multinomial(6, [0.3, 0.7], shape[:2])
    else:
        x = rng.normal(size=shape) * (1 + z) + 4 * (rng.random(shape) < 0.4)
    seen = rng.random(shape) >= holes
    if name == "multinomial":
        seen = np.repeat(seen[..., :1], K, -1)
    x, seen = torch.as_tensor(np.asarray(x, dtype=float)), torch.as_tensor(seen)
    return torch.where(seen, x, torch.full_like(x, EMISSIONS[name].fill)), seen


def weights_of(seed=0):
    return torch.rand(DRAWS, N, T, S, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(emission, x, seen, weights, params):
    table = component_log_prob(emission.distribution(params, (S,)), x, seen)
    return (weights * table).sum((1, 2))


def started(name, seed=1):
    emission = EMISSIONS[name]
    x, seen = data(name)
    observation = emission.observation(K)
    soft = weights_of(seed) ** 3
    return emission, observation, x, seen, emission.initial_params(observation, x, seen, soft, (S,))


@pytest.mark.parametrize("name", EMISSIONS)
def test_m_step_reaches_the_maximum(name):
    emission, observation, x, seen, params = started(name)
    weights = weights_of()
    value = objective(emission, x, seen, weights, params)
    for _ in range(3000 if name.endswith(LATENT) else 2):
        params = emission.m_step(observation, x, seen, weights, params)
        new = objective(emission, x, seen, weights, params)
        assert bool((new >= value - 1e-11 * value.abs()).all())
        if bool((new - value < 1e-12 * value.abs()).all()):
            break
        value = new
    specs = emission.parameters(observation)
    own = {n: v[1, 2:3] for n, v in params.items()}

    def loss(flat):
        leaf = torch.as_tensor(flat).requires_grad_()
        law = emission.distribution({n: v.unsqueeze(0) for n, v in unflatten(specs, leaf).items()}, (1,))
        f = -(weights[1, ..., 2] * component_log_prob(law, x, seen).squeeze(-1)).sum()
        return float(f.detach()), torch.autograd.grad(f, leaf)[0].numpy()

    z = flatten(specs, own)[0]
    best, slope = loss(z.numpy())
    rough = np.array([(loss(z.numpy() + h)[0] - loss(z.numpy() - h)[0]) / 2e-5 for h in 1e-5 * np.eye(len(z))])
    assert_allclose(slope, rough, atol=2e-4)
    assert np.abs(slope).max() < 2e-3
    rng = np.random.default_rng(0)
    for _ in range(2):
        found = optimize.minimize(loss, z.numpy() + 0.3 * rng.normal(size=len(z)), jac=True, options={"gtol": 1e-7})
        assert found.fun >= best - 1e-6 * abs(best)


@pytest.mark.parametrize("name", EMISSIONS)
def test_m_step_never_lowers_from_anywhere_and_leaves_empty_states(name):
    emission, observation, x, seen, _ = started(name)
    specs = emission.parameters(observation)
    g = torch.Generator().manual_seed(5)
    weights = weights_of(2) ** 8
    weights[0, ..., 1] = 0.0
    for size in (0.5, 3.0):
        flat = size * torch.randn(DRAWS, S, unconstrained_size(specs), generator=g, dtype=torch.float64)
        params = unflatten(specs, flat)
        new = emission.m_step(observation, x, seen, weights, params)
        before, after = (objective(emission, x, seen, weights, p) for p in (params, new))
        assert bool((after >= before - 1e-10 * (1 + before.abs())).all())
        for key, value in new.items():
            assert bool(torch.isfinite(value).all())
            assert specs[key].constraint.violation(value) is None
            assert_allclose(value[0, 1], params[key][0, 1], rtol=1e-12)


@pytest.mark.parametrize("name", EMISSIONS)
def test_gradients_are_finite_everywhere(name):
    emission, observation, x, seen, _ = started(name)
    specs = emission.parameters(observation)
    m = unconstrained_size(specs)
    g = torch.Generator().manual_seed(6)
    rows = [torch.full((m,), v, dtype=torch.float64) for v in (-30.0, 0.0, 30.0)]
    rows += [30.0 * torch.randn(m, generator=g, dtype=torch.float64) for _ in range(20)]
    flat = torch.stack(rows).requires_grad_()
    law = emission.distribution(unflatten(specs, flat), ())
    for holes in (seen, torch.ones_like(seen) & (seen.all(-1, keepdim=True))):
        table = component_log_prob(law, x, holes)
        assert bool(torch.isfinite(table).all())
        assert bool(torch.isfinite(torch.autograd.grad(table.sum(), flat, retain_graph=True)[0]).all())


@pytest.mark.parametrize("name", EMISSIONS)
def test_starts_from_constant_and_from_missing_data(name):
    emission = EMISSIONS[name]
    observation = emission.observation(K)
    constant = torch.full((1, 30, K), {"von mises": 1.0, "beta": 0.3}.get(name, 3.0), dtype=torch.float64)
    zeros = torch.zeros_like(constant) if observation.discrete and "multinomial" not in name else constant
    for x in (constant, zeros):
        for seen in (torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.bool)):
            soft = torch.rand(2, 1, 30, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            params = emission.initial_params(observation, x, seen, soft, (S,))
            for key, spec in emission.parameters(observation, (S,)).items():
                assert params[key].shape == (2, *spec.shape)
                assert spec.constraint.violation(params[key]) is None
            table = component_log_prob(emission.distribution(params, (S,)), x, seen)
            assert bool(torch.isfinite(table).all())
            assert bool(torch.isfinite(emission.points(observation, x[0], seen[0])).all())


@pytest.mark.parametrize(
    "name", ["gamma", "log-normal", "beta", "von mises", "mixture", "full mixture", "tied mixture"]
)
def test_a_state_on_one_value_is_at_the_floor(name):
    emission = EMISSIONS[name]
    observation = emission.observation(1)
    x = torch.linspace(0.1, 0.9, 40, dtype=torch.float64).reshape(1, -1, 1)
    x[:, :20] = 0.5
    seen = torch.ones_like(x, dtype=torch.bool)
    weights = torch.zeros(1, 1, 40, 2, dtype=torch.float64)
    weights[:, :, :20, 0], weights[:, :, 20:, 1] = 1.0, 1.0
    params = emission.initial_params(observation, x, seen, weights, (2,))
    for _ in range(3):
        params = emission.m_step(observation, x, seen, weights, params)
    assert emission.states_at_floor(observation, x, seen, params).tolist() == [[True, False]]


WRONG = [
    (NegativeBinomial(), [[1.0], [2.5]], "2.5", "NegativeBinomial"),
    (ZeroInflatedPoisson(), [[1.0], [-1.0]], "-1", "ZeroInflatedPoisson"),
    (Gamma(), [[1.0], [0.0]], "0 in", "Gamma"),
    (LogNormal(), [[1.0], [-2.0]], "-2", "LogNormal"),
    (Gamma(), [[1.0], [np.inf]], "inf", "Gamma"),
    (Beta(), [[0.5], [1.0]], "1 in", "Beta"),
    (VonMises(), [[0.5], [3.5]], "3.5", "VonMises"),
    (Multinomial(), [[1.0, 2.0], [np.nan, 1.0]], "total is unknown", "Multinomial"),
    (Multinomial(3), [[1.0, 2.0], [2.0, 2.0]], "sums to 4", "n_trials=3"),
    (Multinomial(3), [[1.0, 2.0], [4.0, np.nan]], "sums to 4", "n_trials=3"),
    (Multinomial(3), [[1.5, 1.5]], "1.5", "counts"),
]


@pytest.mark.parametrize(("emission", "values", "got", "expected"), WRONG)
def test_values_outside_the_support_are_named(emission, values, got, expected):
    with pytest.raises(SupportError, match=got) as caught:
        emission.check(np.array(values))
    assert expected in str(caught.value)
    emission.check(np.array(values)[:1][:0])


def test_values_inside_the_support_pass():
    Multinomial().check(np.array([[1.0, 2.0], [np.nan, np.nan], [0.0, 9.0]]))
    Multinomial(3).check(np.array([[1.0, 2.0], [np.nan, 1.0]]))
    VonMises().check(np.array([[-np.pi], [np.pi], [np.nan]]))
    Gamma().check(np.array([[1e-300], [np.nan]]))


@pytest.mark.parametrize(
    "emission", [Multinomial(0), Multinomial(2.5), GaussianMixture(0), GaussianMixture(2, "round"), LogNormal("round")]
)
def test_hyper_parameters_out_of_range_raise(emission):
    with pytest.raises(ParameterError):
        emission.parameters(emission.observation(2))


def test_the_start_of_a_mixture_finds_the_clusters_of_a_state():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [6.0, 1.0], [0.0, 8.0]])
    x = torch.as_tensor(centres[rng.integers(0, 3, 300)] + 0.5 * rng.normal(size=(300, 2)))[None]
    weights = torch.ones(1, 1, 300, 1, dtype=torch.float64)
    emission = GaussianMixture(3)
    params = emission.initial_params(emission.observation(2), x, torch.ones_like(x, dtype=torch.bool), weights, (1,))
    for _ in range(20):
        params = emission.m_step(emission.observation(2), x, torch.ones_like(x, dtype=torch.bool), weights, params)
    found = params["mean"][0, 0].numpy()
    assert np.linalg.norm(found[:, None] - centres, axis=-1).min(0).max() < 0.2


def test_networks_give_laws_of_any_output():
    outputs = 20 * torch.randn(50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    for emission in EMISSIONS.values():
        observation = emission.observation(K)
        size = unconstrained_size(emission.parameters(observation))
        law = emission.from_outputs(outputs[:, :size], observation)
        assert law.batch_shape == (50,)
    raw = torch.randn(4, 12, dtype=torch.float64)
    for covariance in ("full", "tied", "diag"):
        emission = GaussianMixture(2, covariance)
        specs = emission.parameters(emission.observation(2))
        flat = raw[:, : unconstrained_size(specs)]
        x = torch.randn(4, 2, dtype=torch.float64)
        one = emission.from_outputs(flat, emission.observation(2))
        two = emission.distribution(read_outputs(specs, flat))
        assert_allclose(one.log_prob(x), two.log_prob(x), rtol=1e-10)


def test_the_floor_is_rounding_where_data_hardly_vary():
    def floor(x):
        x = torch.as_tensor(np.asarray(x, dtype=float)).reshape(1, -1, 1)
        seen = torch.ones_like(x, dtype=torch.bool)
        return float(variance_floor(x, seen)), floor_name(x, seen)

    noise = np.random.default_rng(0).normal(size=500)
    for zero, unit in [(0.0, 1.0), (0.0, 1e-30), (1e8, 1.0), (1.7e9, 60.0), (1e5, 1e-3)]:
        least, name = floor(zero + unit * noise)
        assert_allclose(least, 1e-6 * unit**2 * noise.var(), rtol=1e-3)
        assert name == "1e-6 of the variance of the data"
    for value in (0.0, 1.0, -0.1, 1.7e9):
        least, name = floor(np.full(500, value))
        assert 1e-16 * abs(value) < np.sqrt(least) <= max(1e-12, 1e-14 * abs(value))
        assert name == "the rounding of the data, which hardly vary at all"


@pytest.mark.parametrize(
    ("emission", "name"),
    [
        (StudentT(), "1e-6 of the variance of the data"),
        (LogNormal(), "1e-6 of the variance of the data's logarithms"),
        (Gamma(), "1e-6 of the variance of the data's logarithms"),
        (Tied(Gamma(), shared=["shape"]), "1e-6 of the variance of the data's logarithms"),
        (
            Product([Normal(), Gamma()]),
            "1e-6 of the variance of the data or 1e-6 of the variance of the data's logarithms",
        ),
    ],
)
def test_emissions_name_their_floor(emission, name):
    x = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    assert emission.floor_name(emission.observation(2), x, torch.ones_like(x, dtype=torch.bool)) == name
