"""Laplace and skewed Student t laws against scipy and quadrature; the constants of the compiled densities."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from probseq.distributions.bijections import Exponential
from probseq.distributions.compose import push
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.skewed import DiagonalSkewedStudentT
from probseq.kernels.conditional_profile import SKEWED, density_terms, digamma, standardisation

POINTS = np.array([-30.0, -2.0, -0.3, 0.0, 0.1, 1.0, 25.0])


def one(*values):
    return [torch.full((1,), v, dtype=torch.float64) for v in values]


def skewed(df, xi, loc=0.0, scale=1.0):
    df, xi, loc, scale = one(df, xi, loc, scale)
    return DiagonalSkewedStudentT(df=df, skewness=xi, loc=loc, scale=scale)


def test_laplace_is_that_of_scipy():
    loc, scale = one(0.4, 1.7)
    law, other = DiagonalLaplace(loc=loc, scale=scale), stats.laplace(0.4, 1.7)
    x = torch.tensor(POINTS)[:, None]
    np.testing.assert_allclose(law.log_prob(x), other.logpdf(POINTS), rtol=1e-13)
    np.testing.assert_allclose(law.cdf(x)[:, 0], other.cdf(POINTS), rtol=1e-13)
    levels = torch.tensor([0.001, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(law.icdf(levels.double()[:, None])[:, 0], other.ppf(levels.double()), rtol=1e-12)
    assert float(law.variance) == pytest.approx(other.var())
    assert float(law.entropy()) == pytest.approx(other.entropy())


@pytest.mark.parametrize(("df", "xi"), [(3.0, 1.0), (4.5, 1.8), (12.0, 0.4)])
def test_skewed_student_is_two_halves_of_a_student(df, xi):
    law = skewed(df, xi, 0.5, 2.0)
    z = (POINTS - 0.5) / 2.0
    density = 2 / (xi + 1 / xi) * stats.t.pdf(np.where(z >= 0, z / xi, z * xi), df) / 2.0
    np.testing.assert_allclose(law.log_prob(torch.tensor(POINTS)[:, None]), np.log(density), rtol=1e-12)
    assert float(1 - law.cdf(law.loc)) == pytest.approx(xi**2 / (1 + xi**2), abs=1e-12)
    p = lambda x: float(torch.exp(law.log_prob(torch.tensor([x]))))  # noqa: E731
    quad = lambda f: sum(integrate.quad(f, *ends, limit=200)[0] for ends in ((-np.inf, 0.5), (0.5, np.inf)))  # noqa: E731
    mean = quad(lambda x: x * p(x))
    assert float(law.mean) == pytest.approx(mean, abs=1e-6)
    assert float(law.variance) == pytest.approx(quad(lambda x: (x - mean) ** 2 * p(x)), rel=1e-3 if df < 4 else 1e-6)


def test_skewed_moments_that_do_not_exist():
    assert np.isinf(float(skewed(1.5, 2.0).variance))
    assert np.isnan(float(skewed(0.8, 2.0).mean))
    assert np.isnan(float(skewed(0.8, 2.0).variance))
    assert not skewed(3.0, 2.0).has_moment(3.0)


def test_exponentials_of_heavy_tails_have_no_moments():
    assert np.isinf(float(push(skewed(5.0, 0.5), Exponential()).mean))
    loc, wide, narrow = one(0.3, 1.2, 0.25)
    assert np.isinf(float(push(DiagonalLaplace(loc=loc, scale=wide), Exponential()).mean))
    law = push(DiagonalLaplace(loc=loc, scale=narrow), Exponential())
    # The moment generating function of the Laplace law, exp(loc t) / (1 - scale^2 t^2).
    first, second = (np.exp(0.3 * k) / (1 - (0.25 * k) ** 2) for k in (1, 2))
    assert float(law.mean) == pytest.approx(first, rel=1e-12)
    assert float(law.variance) == pytest.approx(second - first**2, rel=1e-12)


def test_constants_of_the_compiled_densities():
    for x in (0.03, 0.7, 5.5, 40.0, 1e6):
        assert digamma(x) == pytest.approx(special.digamma(x), rel=1e-13, abs=1e-13)
    for df, xi in ((2.3, 0.7), (8.0, 1.5)):
        m, s, slopes = standardisation(df, xi)
        unit = skewed(df, xi, 0.0, np.sqrt((df - 2) / df))
        assert (m, s) == pytest.approx((float(unit.mean), float(unit.stddev)), rel=1e-12)
        step = 1e-6
        for j, move in enumerate(((step, 0.0), (0.0, step))):
            up, down = (standardisation(df + a * move[0], xi + a * move[1])[:2] for a in (1, -1))
            np.testing.assert_allclose(slopes[:, j], (np.array(up) - down) / (2 * step), rtol=1e-6)


def test_compiled_density_weighs_and_skips():
    """Only steps from ``first`` on and before the end count."""
    rng = np.random.default_rng(0)
    e, h = rng.normal(size=(2, 9)), rng.uniform(0.5, 2.0, size=(2, 9))
    first, lengths, weights = np.array([0, 3]), np.array([9, 6]), np.array([1.0, 2.5])
    total, by_e, by_h, *_ = density_terms(SKEWED, 6.0, 1.3, 0.0, e, h, first, lengths, weights)
    law = skewed(6.0, 1.3)
    z = torch.tensor(e / np.sqrt(h)) * law.stddev + law.mean
    each = law.coordinate_log_prob(z).numpy() + np.log(float(law.stddev)) - 0.5 * np.log(h)
    assert total == pytest.approx(each[0].sum() + 2.5 * each[1, 3:6].sum(), rel=1e-12)
    assert (by_e[1, :3] == 0).all()
    assert (by_h[1, 6:] == 0).all()
