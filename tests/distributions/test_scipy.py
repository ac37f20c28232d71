"""Laws against scipy.stats: densities, cdf, quantiles and moments, in the middle and at extreme parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, special, stats

from probseq.distributions.beta import DiagonalBeta
from probseq.distributions.bijections import Exponential
from probseq.distributions.circular import DiagonalVonMises, wrap
from probseq.distributions.compose import Mixture, push
from probseq.distributions.counts import NegativeBinomialCounts, PoissonCounts, ZeroInflatedCounts
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.gaussian import DiagonalNormal
from probseq.distributions.multinomial import MultinomialCounts
from probseq.errors import UnsupportedError

LEVELS = np.array([1e-6, 0.01, 0.3, 0.5, 0.8, 0.999, 1 - 1e-9])


def f(value):
    return torch.as_tensor(value, dtype=torch.float64).reshape(-1)


def negative_binomial(mean, dispersion):
    r = 1 / dispersion
    return stats.nbinom(r, r / (r + mean))


CASES = {
    "gamma": (lambda: DiagonalGamma(shape=f(2.5), rate=f(0.3)), stats.gamma(2.5, scale=1 / 0.3), 1e-12),
    "gamma of small shape": (lambda: DiagonalGamma(shape=f(0.02), rate=f(4.0)), stats.gamma(0.02, scale=0.25), 1e-11),
    "gamma of large shape": (lambda: DiagonalGamma(shape=f(1e6), rate=f(1e3)), stats.gamma(1e6, scale=1e-3), 1e-9),
    "beta": (lambda: DiagonalBeta(a=f(0.7), b=f(3.1)), stats.beta(0.7, 3.1), 1e-12),
    "concentrated beta": (lambda: DiagonalBeta(a=f(3e5), b=f(7e5)), stats.beta(3e5, 7e5), 1e-8),
    "log-normal": (
        lambda: push(DiagonalNormal(loc=f(0.4), scale=f(0.7)), Exponential()),
        stats.lognorm(0.7, scale=np.exp(0.4)),
        1e-12,
    ),
    "negative binomial": (
        lambda: NegativeBinomialCounts(location=f(4.2), dispersion=f(0.7)),
        negative_binomial(4.2, 0.7),
        1e-12,
    ),
    "negative binomial, r = 500": (
        lambda: NegativeBinomialCounts(location=f(40.0), dispersion=f(1 / 500)),
        negative_binomial(40.0, 1 / 500),
        1e-10,
    ),
    "negative binomial of many zeros": (
        lambda: NegativeBinomialCounts(location=f(3.0), dispersion=f(200.0)),
        negative_binomial(3.0, 200.0),
        1e-11,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_against_scipy(name):
    make, reference, rtol = CASES[name]
    law = make()
    x = f(reference.ppf(LEVELS)).unsqueeze(-1)
    expected = reference.logpmf(x[:, 0]) if law.discrete else reference.logpdf(x[:, 0])
    usable = np.isfinite(expected)
    assert_allclose(law.log_prob(x)[usable], expected[usable], rtol=rtol, atol=rtol)
    assert_allclose(law.cdf(x)[:, 0], reference.cdf(x[:, 0]), rtol=1e-9)
    found = law.icdf(f(LEVELS).unsqueeze(-1))[:, 0]
    assert_allclose(found, x[:, 0], rtol=0 if law.discrete else 1e-7)
    assert_allclose(law.mean, [reference.mean()], rtol=1e-12)
    assert_allclose(law.variance, [reference.var()], rtol=1e-9)


def test_entropies():
    assert_allclose(DiagonalGamma(shape=f(2.5), rate=f(0.3)).entropy(), stats.gamma(2.5, scale=1 / 0.3).entropy())
    assert_allclose(DiagonalBeta(a=f(0.7), b=f(3.1)).entropy(), stats.beta(0.7, 3.1).entropy())
    assert_allclose(
        DiagonalVonMises(loc=f(1.0), concentration=f(2.0)).entropy(), stats.vonmises(2.0, loc=1.0).entropy(), rtol=1e-9
    )


@pytest.mark.parametrize("dispersion", [1e-3, 1e-5, 1e-8])
def test_negative_binomial_tends_to_poisson(dispersion):
    """log NB - log Poisson = dispersion ((x - mean)^2 - x) / 2 + O(dispersion^2)."""
    x, mean = torch.arange(60.0, dtype=torch.float64).unsqueeze(-1), f(20.0)
    gap = NegativeBinomialCounts(location=mean, dispersion=f(dispersion)).log_prob(x) - PoissonCounts(
        rate=mean
    ).log_prob(x)
    first = 0.5 * dispersion * ((x[:, 0] - 20.0) ** 2 - x[:, 0])
    assert_allclose(gap, first, atol=40_000 * dispersion**2 + 1e-12)


def test_rising_factorial_of_any_size():
    from probseq.distributions.counts import log_rising

    for r in (1e-6, 0.5, 99.9, 100.1, 1e5, 1e12):
        x = torch.tensor([0.0, 1.0, 2.0, 30.0], dtype=torch.float64)
        expected = [sum(np.log1p(j / r) for j in range(int(n))) for n in x]
        assert_allclose(log_rising(x, f(r)), expected, rtol=1e-12, atol=1e-13)


def test_zero_inflated():
    law, poisson = ZeroInflatedCounts(rate=f(2.5), zero_prob=f(0.3)), stats.poisson(2.5)
    x = np.arange(12.0)
    mass = 0.7 * poisson.pmf(x) + 0.3 * (x == 0)
    assert_allclose(law.log_prob(f(x).unsqueeze(-1)), np.log(mass), rtol=1e-12)
    assert_allclose(law.cdf(f(x).unsqueeze(-1))[:, 0], np.cumsum(mass), rtol=1e-12)
    whole = np.arange(200.0)
    probs = 0.7 * poisson.pmf(whole) + 0.3 * (whole == 0)
    assert_allclose(law.mean, [probs @ whole], rtol=1e-12)
    assert_allclose(law.variance, [probs @ whole**2 - (probs @ whole) ** 2], rtol=1e-12)


@pytest.mark.parametrize("concentration", [0.0, 1e-6, 0.5, 5.0, 49.0, 51.0, 300.0, 1e6])
def test_von_mises(concentration):
    loc = 2.9
    law = DiagonalVonMises(loc=f(loc), concentration=f(concentration))
    x = f(np.linspace(-np.pi, np.pi, 41)).unsqueeze(-1)

    def density(t):
        return np.exp(concentration * (np.cos(t - loc) - 1)) / (2 * np.pi * special.i0e(concentration))

    assert_allclose(law.log_prob(x).exp(), density(x[:, 0].numpy()), rtol=1e-9, atol=1e-300)
    width = 8 / np.sqrt(concentration + 1)
    breaks = [p for p in (loc - width, loc, loc - 2 * np.pi + width, loc - 2 * np.pi) if -np.pi < p < np.pi]
    points = f([-3.1, -2.0, 0.3, 2.5, 2.85, 2.9, 2.91, 3.0]).unsqueeze(-1)
    for at, p in zip(points[:, 0].numpy(), law.cdf(points)[:, 0].numpy(), strict=True):
        ends = sorted({-np.pi, at, *(b for b in breaks if b < at)})
        expected = sum(integrate.quad(density, a, b, epsabs=1e-13)[0] for a, b in zip(ends, ends[1:]))
        assert_allclose(p, expected, atol=2e-10)
    levels = f(LEVELS[1:-1]).unsqueeze(-1)
    assert_allclose(law.cdf(law.icdf(levels)), levels, atol=1e-9)
    assert_allclose(law.icdf(f([0.0, 1.0]).unsqueeze(-1))[:, 0], [-np.pi, np.pi])
    if concentration:
        assert_allclose(law.mean, [wrap(f(loc))[0]])
        inner = integrate.quad(lambda t: (1 - np.cos(t - loc)) * density(t), loc - width, loc + width)[0]
        if concentration > 300:
            assert_allclose(law.variance, [inner], rtol=1e-4)
    assert bool(torch.isneginf(law.log_prob(f([3.2, -3.2]).unsqueeze(-1))).all())


def test_the_mean_direction_of_a_mixture_of_angles_is_no_average():
    parts = DiagonalVonMises(loc=f([3.0, -3.0]).unsqueeze(-1), concentration=f([20.0, 20.0]).unsqueeze(-1))
    law = Mixture(torch.log(f([0.5, 0.5])), parts)
    assert_allclose(law.mean.cos(), [-1.0])
    assert 0 < float(law.variance) < 0.1


def test_multinomial():
    probs = f([0.2, 0.5, 0.3])
    law = MultinomialCounts(probs, f([0.0]), 7)
    reference = stats.multinomial(7, probs.numpy())
    x = f([2.0, 4.0, 1.0])
    assert_allclose(law.log_prob(x), reference.logpmf(x.numpy()), rtol=1e-12)
    assert_allclose(MultinomialCounts(probs, f([0.0])).log_prob(x), reference.logpmf(x.numpy()), rtol=1e-12)
    assert float(law.log_prob(f([2.0, 4.0, 2.0]))) == -np.inf
    assert_allclose(law.mean, reference.mean()[:], rtol=1e-12)
    assert_allclose(law.variance, np.diag(reference.cov()), rtol=1e-12)
    points = torch.arange(-1.0, 9.0, dtype=torch.float64).unsqueeze(-1).expand(-1, 3)
    assert_allclose(law.cdf(points), stats.binom(7, probs.numpy()).cdf(points.numpy()), rtol=1e-10)
    level = f(LEVELS).unsqueeze(-1).expand(-1, 3)
    assert_allclose(law.icdf(level), stats.binom(7, probs.numpy()).ppf(level.numpy()))
    seen = torch.tensor([True, False, True])
    total = sum(reference.pmf([2, n, 1]) for n in range(8))
    assert_allclose(law.log_prob_seen(x, seen).exp(), total, rtol=1e-12)
    assert_allclose(law.marginal([0, 2]).log_prob(x[[0, 2]]).exp(), total, rtol=1e-12)


def test_a_multinomial_without_its_total_says_what_it_cannot_do():
    law = MultinomialCounts(f([0.2, 0.8]), f([0.0]))
    for ask in (lambda: law.mean, lambda: law.sample(), lambda: law.cdf(f([1.0, 1.0])), lambda: law.marginal([0])):
        with pytest.raises(UnsupportedError, match="n_trials"):
            ask()
    with pytest.raises(UnsupportedError, match="n_trials"):
        law.log_prob_seen(f([1.0, 2.0]), torch.tensor([True, False]))
