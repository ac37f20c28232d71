"""Distributions against scipy, and the agreement of density, cdf, quantiles, moments and samples."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from probseq.distributions.base import Distribution
from probseq.distributions.beta import DiagonalBeta
from probseq.distributions.bijections import Affine, BoxCoxInverse, Exponential, ScaledSigmoid
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.circular import DiagonalVonMises
from probseq.distributions.compose import Mixture, mixture, push
from probseq.distributions.counts import NegativeBinomialCounts, PoissonCounts, ZeroInflatedCounts
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.multinomial import MultinomialCounts
from probseq.distributions.skewed import DiagonalSkewedStudentT
from probseq.errors import IncompatibleError
from probseq.testing import check_distribution

rng = np.random.default_rng(0)


def t(*shape, low=-1.0, high=1.0):
    return torch.as_tensor(rng.uniform(low, high, shape))


def factors(*shape):
    return torch.tril(t(*shape, 2, 2)) + 1.2 * torch.eye(2)


LAWS = {
    "diagonal normal": DiagonalNormal(loc=t(3, 2), scale=t(3, 2, low=0.3)),
    "full normal": FullNormal(loc=t(3, 2), scale_tril=factors(3)),
    "student": DiagonalStudentT(df=t(3, 2, low=2.5, high=9), loc=t(3, 2), scale=t(3, 2, low=0.3)),
    "laplace": DiagonalLaplace(loc=t(3, 2), scale=t(3, 2, low=0.3)),
    "skewed student": DiagonalSkewedStudentT(
        df=t(3, 2, low=2.5, high=9), skewness=t(3, 2, low=0.4, high=2.5), loc=t(3, 2), scale=t(3, 2, low=0.3)
    ),
    "poisson": PoissonCounts(rate=t(3, 2, low=0.2, high=9)),
    "categories": Categories(logits=t(3, 2, 4)),
    "bits": Bits(logit=t(3, 2)),
    "negative binomial": NegativeBinomialCounts(
        location=t(3, 2, low=0.2, high=9), dispersion=t(3, 2, low=0.05, high=2)
    ),
    "nearly poisson": NegativeBinomialCounts(
        location=t(3, 2, low=0.2, high=9), dispersion=t(3, 2, low=1e-6, high=0.01)
    ),
    "zero-inflated": ZeroInflatedCounts(rate=t(3, 2, low=0.2, high=9), zero_prob=t(3, 2, low=0.1, high=0.9)),
    "multinomial": MultinomialCounts(torch.softmax(t(3, 4), -1), torch.zeros(3, 1).double(), 5),
    "part of a multinomial": MultinomialCounts(torch.softmax(t(3, 4), -1), torch.zeros(3, 1).double(), 5).marginal(
        [0, 2]
    ),
    "gamma": DiagonalGamma(shape=t(3, 2, low=0.3, high=9), rate=t(3, 2, low=0.2, high=3)),
    "beta": DiagonalBeta(a=t(3, 2, low=0.5, high=4), b=t(3, 2, low=0.5, high=4)),
    "von mises": DiagonalVonMises(loc=t(3, 2, low=-3, high=3), concentration=t(3, 2, low=0.1, high=9)),
    "sharp von mises": DiagonalVonMises(loc=t(3, 1, low=2, high=4), concentration=t(3, 1, low=60, high=900)),
    "uniform angles": DiagonalVonMises(loc=t(3, 1), concentration=torch.zeros(3, 1).double()),
    "mixture of angles": mixture(
        torch.log_softmax(t(3, 2), -1), DiagonalVonMises(loc=3 * t(3, 2, 1), concentration=t(3, 2, 1, low=0.5, high=5))
    ),
    "lognormal": push(DiagonalNormal(loc=t(3, 2), scale=t(3, 2, low=0.3)), Exponential()),
    "correlated lognormal": push(FullNormal(loc=t(3, 2), scale_tril=0.5 * factors(3)), Exponential(1.0)),
    "logit-normal": push(DiagonalNormal(loc=t(3, 2), scale=t(3, 2, low=0.3)), ScaledSigmoid(-1, 3)),
    "boxcox": push(DiagonalNormal(loc=t(3, 1), scale=t(3, 1, low=0.6)), BoxCoxInverse(0.7)),
    "negative boxcox": push(DiagonalNormal(loc=t(3, 1), scale=t(3, 1, low=0.2, high=0.4)), BoxCoxInverse(-0.5)),
    "scaled full normal": push(FullNormal(loc=t(3, 2), scale_tril=factors(3)), Affine(t(2), t(2, low=1, high=2))),
    "mixture of normals": mixture(
        torch.log_softmax(t(3, 4), -1), DiagonalNormal(loc=5 * t(3, 4, 2), scale=t(3, 4, 2, low=0.3))
    ),
    "mixture of full normals": mixture(
        torch.log_softmax(t(3, 4), -1), FullNormal(loc=t(3, 4, 2), scale_tril=factors(3, 4))
    ),
    "mixture of counts": mixture(torch.log_softmax(t(3, 4), -1), PoissonCounts(rate=t(3, 4, 2, low=0.5, high=9))),
    "mixture of categories": mixture(torch.log_softmax(t(3, 4), -1), Categories(logits=t(3, 4, 2, 3))),
    "mixture with a weight of 0": mixture(
        torch.log(torch.tensor([[0.4, 0.0, 0.6]], dtype=torch.float64)),
        DiagonalNormal(loc=t(1, 3, 1), scale=t(1, 3, 1, low=0.3)),
    ),
    "pushed mixture": push(
        mixture(torch.log_softmax(t(3, 2), -1), DiagonalNormal(loc=t(3, 2, 1), scale=t(3, 2, 1, low=0.6))),
        BoxCoxInverse(0.5),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_one_law(name):
    check_distribution(LAWS[name])


@pytest.mark.parametrize("name", LAWS)
def test_batch_dimensions(name):
    law = LAWS[name]
    n = law.batch_shape[0]
    x = law.sample((), generator=torch.Generator().manual_seed(0))
    expected = law.log_prob(x)
    assert_allclose(law[0].log_prob(x[0]), expected[0])
    assert_allclose(law.reshape(1, n).log_prob(x[None]), expected[None])
    spread = law[None].expand(torch.Size((5, n)))
    assert spread.batch_shape == (5, n)
    assert_allclose(spread.log_prob(x), expected.expand(5, n))
    moved = spread.movedim(0, 1)
    assert moved.batch_shape == (n, 5)
    assert_allclose(moved.log_prob(x[:, None]), expected[:, None].expand(n, 5))
    assert law[..., None].batch_shape == (n, 1)


def test_densities_against_scipy():
    x = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    normal = FullNormal(
        loc=torch.tensor([[0.1, 0.2]], dtype=torch.float64),
        scale_tril=torch.tensor([[[1.0, 0], [0.5, 2.0]]], dtype=torch.float64),
    )
    reference = stats.multivariate_normal([0.1, 0.2], normal.covariance[0].numpy())
    assert_allclose(normal.log_prob(x), reference.logpdf(x.numpy()), rtol=1e-12)
    assert_allclose(normal.entropy(), reference.entropy(), rtol=1e-12)
    student = DiagonalStudentT(
        df=torch.tensor([3.0], dtype=torch.float64),
        loc=torch.tensor([0.5], dtype=torch.float64),
        scale=torch.tensor([2.0], dtype=torch.float64),
    )
    assert_allclose(student.log_prob(x[..., :1]), stats.t(3, 0.5, 2).logpdf(0.7), rtol=1e-12)
    assert_allclose(student.variance, stats.t(3, 0.5, 2).var(), rtol=1e-12)
    poisson = PoissonCounts(rate=torch.tensor([2.5], dtype=torch.float64))
    counts = torch.arange(9).double().unsqueeze(-1)
    assert_allclose(poisson.log_prob(counts), stats.poisson(2.5).logpmf(np.arange(9)), rtol=1e-12)
    assert_allclose(
        poisson.icdf(torch.tensor([[0.001], [0.5], [0.999]], dtype=torch.float64))[:, 0],
        stats.poisson(2.5).ppf([0.001, 0.5, 0.999]),
    )


def test_moments_that_do_not_exist():
    student = DiagonalStudentT(
        df=torch.tensor([1.5, 0.9], dtype=torch.float64), loc=torch.zeros(2).double(), scale=torch.ones(2).double()
    )
    assert torch.isinf(student.variance[0]) and torch.isnan(student.mean[1])
    heavy = push(DiagonalStudentT(df=t(1, low=3, high=9), loc=t(1), scale=t(1, low=1, high=2)), Exponential())
    assert bool(torch.isinf(heavy.mean).all())


def test_mixture_marginalises_missing_coordinates_exactly():
    weights = torch.log(torch.tensor([0.3, 0.7], dtype=torch.float64))
    parts = FullNormal(loc=t(2, 2), scale_tril=factors(2))
    x, seen = t(2), torch.tensor([True, False])
    expected = sum(
        float(w.exp()) * stats.norm(float(m[0]), float(v[0].sqrt())).pdf(float(x[0]))
        for w, m, v in zip(weights, parts.mean, parts.variance)
    )
    assert_allclose(Mixture(weights, parts).log_prob_seen(x, seen).exp(), expected, rtol=1e-12)
    assert float(Mixture(weights, parts).log_prob_seen(x, torch.zeros(2, dtype=torch.bool))) == 0.0


def test_mixture_of_mixtures_is_flat():
    inner = Mixture(torch.log_softmax(t(3, 2), -1), DiagonalNormal(loc=t(3, 2, 1), scale=t(3, 2, 1, low=0.5)))
    outer = torch.log_softmax(t(3), -1)
    both = mixture(outer, inner)
    x = t(1)
    assert not isinstance(both.components, Mixture)
    assert_allclose(both.log_prob(x), torch.logsumexp(outer + inner.log_prob(x.expand(3, 1)), -1), rtol=1e-12)
    single = mixture(torch.zeros(3, 1).double(), DiagonalNormal(loc=t(3, 1, 1), scale=t(3, 1, 1, low=0.5)))
    assert isinstance(single, DiagonalNormal)


def test_values_outside_the_support_have_no_density_and_no_nan():
    law = LAWS["lognormal"]
    x = torch.full((3, 2), -1.0).double().requires_grad_()
    value = law.log_prob(x)
    assert bool(torch.isneginf(value).all()) and bool((law.cdf(x) == 0).all())
    bounded = LAWS["logit-normal"]
    assert bool((bounded.cdf(torch.full((3, 2), 9.0).double()) == 1).all())


def test_a_renormalised_quantile_is_finite_below_level_one():
    law = push(DiagonalNormal(loc=t(1), scale=t(1, low=1.5, high=2)), BoxCoxInverse(0.5))
    level = torch.tensor([1 - 1e-16], dtype=torch.float64)
    assert bool(torch.isfinite(law.icdf(level)).all()) and bool(torch.isinf(law.icdf(torch.ones_like(level))).all())


def test_a_quantile_at_a_level_above_zero_is_inside_the_support():
    law = push(DiagonalNormal(loc=t(1), scale=t(1, low=0.2, high=0.3)), BoxCoxInverse(-0.5))
    levels = torch.tensor([[1e-320], [1e-16], [1 - 1e-16]], dtype=torch.float64)
    assert bool(torch.isfinite(law.icdf(levels)).all())
    # So far inside its range that the level of its end rounds to one.
    sharp = push(DiagonalNormal(loc=t(1), scale=0.01 * t(1, low=0.2, high=0.3)), BoxCoxInverse(-0.5))
    assert bool(torch.isfinite(sharp.icdf(levels)).all())


@pytest.mark.parametrize(("lmbda", "mean", "variance"), [(-0.5, False, False), (-1.5, True, False), (-2.5, True, True)])
def test_moments_of_a_negative_boxcox(lmbda, mean, variance):
    law = push(DiagonalNormal(loc=torch.zeros(1).double(), scale=torch.full((1,), 0.3).double()), BoxCoxInverse(lmbda))
    assert bool(torch.isfinite(law.mean)) is mean and bool(torch.isfinite(law.variance)) is variance
    both = mixture(torch.log(torch.tensor([0.5, 0.5]).double()), law[None].expand(torch.Size((2,))))
    assert bool(torch.isfinite(both.mean)) is mean and bool(both.has_moment(2)) is variance
    if mean:
        z_high = -1 / lmbda
        z = np.linspace(-3, z_high, 2_000_001)[:-1]
        density = stats.norm(0, 0.3).pdf(z) / stats.norm(0, 0.3).cdf(z_high)
        expected = (density * (lmbda * z + 1) ** (1 / lmbda)).sum() * (z[1] - z[0])
        assert_allclose(law.mean, expected, rtol=2e-2)


def test_boxcox_of_a_student_has_the_moments_of_its_power():
    student = DiagonalStudentT(df=t(1, low=3, high=3.9), loc=t(1), scale=t(1, low=0.3, high=1))
    assert not bool(push(student, BoxCoxInverse(0.2)).has_moment(1))
    assert bool(push(student, BoxCoxInverse(0.5)).has_moment(1))
    assert torch.isinf(push(student, BoxCoxInverse(0.5)).variance) and bool(
        push(student, BoxCoxInverse(0.8)).has_moment(2)
    )


@pytest.mark.parametrize(
    ("law", "outside", "inside"),
    [
        (PoissonCounts(rate=torch.tensor([0.01]).double()), [-1.0, -3.0, 0.5, np.inf, np.nan], [0.0, 7.0]),
        (Categories(logits=torch.tensor([[0.3, -1.0, 2.0]]).double()), [-1.0, 3.0, 0.5, 1e30, np.nan], [0.0, 2.0]),
        (Bits(logit=torch.tensor([3.0]).double()), [-1.0, 2.0, 0.5, 5.0, np.nan], [0.0, 1.0]),
    ],
)
def test_discrete_laws_have_no_mass_outside_their_support(law, outside, inside):
    x = torch.tensor(outside).double().unsqueeze(-1)
    assert bool(torch.isneginf(law.log_prob(x)).all())
    within = law.log_prob(torch.tensor(inside).double().unsqueeze(-1))
    assert bool((within <= 0).all()) and bool(torch.isfinite(within).all())


def test_the_left_cdf_of_a_discrete_law_between_integers():
    x = torch.tensor([[-0.5], [0.0], [0.5], [1.0], [2.3]]).double()
    poisson = PoissonCounts(rate=torch.tensor([1.7], dtype=torch.float64))
    assert_allclose(poisson.cdf_left(x)[:, 0], stats.poisson(1.7).cdf([-1, -1, 0, 0, 2]), rtol=1e-12)
    bits = Bits(logit=torch.tensor([0.4], dtype=torch.float64))
    zero = float(torch.sigmoid(torch.tensor(-0.4, dtype=torch.float64)))
    assert_allclose(bits.cdf_left(x)[:, 0], [0, 0, zero, zero, 1], rtol=1e-12)


@pytest.mark.parametrize("law", [PoissonCounts(rate=t(1, low=1, high=2)), Categories(logits=t(1, 3)), Bits(logit=t(1))])
def test_discrete_laws_are_not_transformed(law: Distribution):
    with pytest.raises(IncompatibleError, match="continuous"):
        push(law, Exponential())


def test_a_bounded_map_needs_independent_coordinates():
    with pytest.raises(IncompatibleError, match="independent"):
        push(FullNormal(loc=t(2), scale_tril=factors()), BoxCoxInverse(0.5))
