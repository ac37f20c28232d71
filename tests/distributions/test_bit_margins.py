"""Single bits of mixtures against sums over all their values."""

import itertools

import numpy as np
import torch

from probseq.distributions.autoregressive_bits import AutoregressiveBits
from probseq.distributions.bit_margins import single_bits
from probseq.distributions.categorical import Bits
from probseq.distributions.compose import Mixture
from probseq.distributions.gaussian import DiagonalNormal
from probseq.results.backends import LawBackend


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoregressive(k, m, n=3, hidden=4):
    encoder, decoder = normal(1, hidden, k, seed=3), normal(1, k, hidden, seed=4)
    law = AutoregressiveBits(normal(n, m, k, seed=1), normal(n, m, hidden, seed=2), encoder, decoder)
    return Mixture(torch.log_softmax(2.0 * normal(n, m, seed=5), -1), law)


def exact(law):
    """P(x_i = 1) by all values of a vector."""
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=law.n_variables)), dtype=torch.float64)
    each = torch.stack([law.log_prob(x.expand(3, -1)).exp() for x in values])
    return torch.einsum("vn,vk->nk", each, values)


def test_independent_bits_are_exact():
    law = Mixture(torch.log_softmax(normal(3, 5), -1), Bits(logit=normal(3, 5, 6, seed=1)))
    found = single_bits(law)
    assert isinstance(found, Bits) and torch.allclose(found.mean, exact(law), atol=1e-12)
    grid = torch.linspace(-0.5, 1.5, 9, dtype=torch.float64)
    for x in grid:
        assert torch.allclose(found.cdf(x.expand(3, 6)), law.cdf(x.expand(3, 6)), atol=1e-12)


def test_dependent_bits_are_exact_where_they_can_be_enumerated():
    law = autoregressive(6, 5)
    assert torch.allclose(single_bits(law).mean, exact(law), atol=1e-12)


def test_many_dependent_bits_are_averages_over_draws_of_the_mixture():
    law = autoregressive(9, 60)
    p = exact(law)
    found = single_bits(law).mean
    assert float((found - p).abs().max()) < 0.12 and float((found - p).square().mean().sqrt()) < 0.035
    assert torch.equal(found, single_bits(law).mean)
    one = autoregressive(10, 1)
    assert torch.equal(single_bits(one.components).mean, one.components.bits.mean)


def test_answers_of_a_forecast_agree():
    law = autoregressive(10, 20).reshape(1, 3)
    backend = LawBackend(law)
    p = backend.mean()
    y = np.random.default_rng(0).integers(0, 2, p.shape).astype(float)
    y[0, 1, 2] = np.nan
    assert np.allclose(backend.crps(y), (y - p) ** 2, equal_nan=True)
    assert np.allclose(backend.variance(), p * (1 - p)) and np.allclose(backend.cdf(np.zeros(p.shape)), 1 - p)
    half = np.full(p.shape, 0.5)
    assert np.allclose(backend.crps(half), 0.5 * (1 - p) ** 2 + 0.5 * p**2)
    assert np.array_equal(backend.quantile(np.array([0.5]))[..., 0], (p > 0.5).astype(float))


def test_other_laws_stay_what_they_are():
    law = DiagonalNormal(loc=normal(3, 2), scale=torch.ones(3, 2).double())
    assert single_bits(law) is law
