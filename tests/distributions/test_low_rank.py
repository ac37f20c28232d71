"""Normals of a few common factors against the dense normal: densities, margins, conditioning, EM, joint forecasts."""

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.bijections import Affine, Exponential
from probseq.distributions.compose import push
from probseq.distributions.conditioning import given
from probseq.distributions.emissions import LowRankNormal
from probseq.distributions.estimation import variance_floor
from probseq.distributions.low_rank import FactorNormal
from probseq.errors import ParameterError
from probseq.testing import check_distribution

K, R = 5, 2


def law_of(*batch, k=K, r=R, size=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(*batch, k, generator=generator, dtype=torch.float64)
    scale = 0.3 + torch.rand(*batch, k, generator=generator, dtype=torch.float64)
    factors = size * torch.randn(*batch, k, r, generator=generator, dtype=torch.float64)
    return FactorNormal(loc=loc, scale=scale, factors=factors)


def dense(law):
    return torch.distributions.MultivariateNormal(law.loc, law.covariance)


def values(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_log_prob_is_that_of_the_dense_normal(size):
    law, x = law_of(4, size=size), values(6, 4, K)
    torch.testing.assert_close(law.log_prob(x), dense(law).log_prob(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(law.entropy(), dense(law).entropy(), rtol=1e-10, atol=1e-10)


def test_missing_coordinates_are_integrated_out():
    law, x = law_of(3), values(3, K)
    for pattern in ([1, 1, 0, 1, 0], [0, 0, 0, 1, 0], [0, 1, 1, 1, 1]):
        seen = torch.tensor(pattern, dtype=torch.bool)
        own = seen.nonzero().squeeze(-1)
        covariance = law.covariance[..., own, :][..., own]
        expected = torch.distributions.MultivariateNormal(law.loc[..., own], covariance).log_prob(x[..., own])
        torch.testing.assert_close(law.log_prob_seen(x, seen.expand(3, K)), expected, rtol=1e-10, atol=1e-10)
        marginal = law.marginal(own.tolist()).log_prob(x[..., own])
        torch.testing.assert_close(marginal, expected, rtol=1e-10, atol=1e-10)


def test_gradients_ignore_what_is_missing():
    law = law_of(2)
    parts = [part.clone().requires_grad_() for part in (law.loc, law.scale, law.factors)]
    seen = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    FactorNormal(loc=parts[0], scale=parts[1], factors=parts[2]).log_prob_seen(values(2, K), seen).sum().backward()
    for part in parts:
        assert bool((part.grad[~seen] == 0).all())
        assert bool((part.grad[seen].abs() > 0).any())


def test_it_is_one_law():
    check_distribution(law_of(2), n_samples=3000)


def test_tables_equal_the_broadcast():
    law, x = law_of(2, 3), values(7, K)
    seen = torch.rand(7, K, generator=torch.Generator().manual_seed(5)) < 0.7
    seen[0], seen[1] = False, True
    slow = law[..., None, :].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
    torch.testing.assert_close(law.component_table(x, seen), slow, rtol=1e-10, atol=1e-10)
    every = torch.ones_like(seen)
    torch.testing.assert_close(law.component_table(x, every), law[..., None, :].log_prob(x.unsqueeze(-2)))


def test_conditioning_is_that_of_the_dense_normal():
    law, x = law_of(3), values(3, K)
    seen = torch.tensor([1, 0, 0, 1, 1], dtype=torch.bool).expand(3, K)
    ours, theirs = given(law, x, seen), given(law.full(), x, seen)
    assert isinstance(ours, FactorNormal)
    torch.testing.assert_close(ours.mean[:, [1, 2]], theirs.mean[:, [1, 2]], rtol=1e-10, atol=1e-10)
    left = (slice(None), slice(1, 3), slice(1, 3))
    torch.testing.assert_close(ours.covariance[left], theirs.covariance[left], rtol=1e-10, atol=1e-10)


def test_maps_of_it_stay_normal_where_they_are_linear():
    law, x = law_of(3), values(3, K)
    affine = Affine(torch.arange(5.0, dtype=torch.float64), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0]).double())
    moved = push(law, affine)
    assert isinstance(moved, FactorNormal)
    expected = push(law.full(), affine).log_prob(x)
    torch.testing.assert_close(moved.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    logs = push(law, Exponential())
    torch.testing.assert_close(logs.mean, push(law.full(), Exponential()).mean, rtol=1e-10, atol=1e-10)


def test_em_finds_the_maximum_and_never_falls():
    truth = law_of(k=6, r=2, seed=3)
    x = truth.sample((400,), generator=torch.Generator().manual_seed(2)).unsqueeze(0)
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.9
    emission = LowRankNormal(rank=2)
    observation, weights = emission.observation(6), torch.ones(1, 1, 400, 1, dtype=torch.float64)
    start = emission.pooled_params(observation, x, seen)
    params = {name: value[None, None] for name, value in start.items()}

    def objective(params):
        return float(emission.distribution(params).log_prob_seen(x, seen).sum())

    history = [objective(params)]
    for _ in range(40):
        params = emission.m_step(observation, x, seen, weights, params)
        history.append(objective(params))
    assert bool((np.diff(history) > -1e-8).all())
    assert history[-1] - history[-2] < 1e-3
    assert history[-1] > float(truth.log_prob_seen(x, seen).sum())
    unconstrained = [params[name].clone().requires_grad_() for name in ("mean", "scale", "factors")]
    law = FactorNormal(loc=unconstrained[0], scale=unconstrained[1], factors=unconstrained[2])
    slopes = torch.autograd.grad(law.log_prob_seen(x, seen).sum(), unconstrained)
    assert max(float(slope.abs().max()) for slope in slopes) < 1.0
    assert bool((params["factors"].triu(1) == 0).all())


def test_a_state_without_weight_keeps_its_parameters():
    emission, x = LowRankNormal(), values(1, 30, 3)
    seen, observation = torch.ones_like(x, dtype=torch.bool), LowRankNormal().observation(3)
    weights = torch.zeros(1, 1, 30, 2, dtype=torch.float64)
    weights[..., 0] = 1.0
    start = {
        name: value.expand(1, 2, *value.shape) for name, value in emission.pooled_params(observation, x, seen).items()
    }
    found = emission.m_step(observation, x, seen, weights, start)
    for name, value in found.items():
        assert bool(torch.isfinite(value).all())
        torch.testing.assert_close(value[:, 1], start[name][:, 1])
    low = {**found, "scale": variance_floor(x, seen).sqrt().expand(1, 2, 3), "factors": 0 * found["factors"]}
    assert bool(emission.states_at_floor(observation, x, seen, low).all())


def test_parameters_are_counted_without_rotations():
    specs = LowRankNormal(rank=3).parameters(LowRankNormal().observation(5))
    # Anderson and Rubin 1956: k (r + 1) - r (r - 1) / 2 of the covariance, and k means.
    assert sum(spec.n_free for spec in specs.values()) == 5 + 5 * 4 - 3
    assert LowRankNormal(rank=3).parameters(LowRankNormal().observation(2))["factors"].shape == (2, 2)
    with pytest.raises(ParameterError, match="rank"):
        LowRankNormal(rank=0).check_arguments()


def test_a_chain_finds_states_that_differ_in_their_factors():
    rng = np.random.default_rng(0)
    loadings = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    state = (np.arange(400) // 50) % 2
    x = rng.normal(size=(400, 1)) * 2 * loadings[state] + 0.5 * rng.normal(size=(400, 4))
    model = ps.HMM(2, ps.LowRankNormal(rank=1), random_state=0).fit(x)
    decoded = model.decode(x).values
    assert max(np.mean(decoded == state), np.mean(decoded != state)) > 0.95
    dense_model = ps.HMM(2, ps.Normal("full"), random_state=0).fit(x)
    assert model.n_parameters_ == dense_model.n_parameters_ - 2 * 2
    assert model.score(x) > dense_model.score(x) - 0.02


def test_joint_forecasts_are_exact():
    x = values(60, 3).numpy()
    model = ps.IID(ps.LowRankNormal()).fit(x)
    total = model.forecast(4).aggregate("sum", over="variable")
    assert total.exact
    covariance = model.model_.predict_next({}, model.model_.initial_state({}, 1)).covariance[0]
    np.testing.assert_allclose(total.var().values.squeeze(), float(covariance.sum()), rtol=1e-6)
