"""Bent laws: moments and scores of counts, of heavy tails and of paths, against sums and integrals."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.errors import ParameterError
from probseq.evaluation import crps_samples
from probseq.evaluation.recalibration import BernsteinMap, fit_map
from probseq.results.backends import LawBackend, PathsBackend
from probseq.results.recalibrated import RecalibratedBackend

SAME = BernsteinMap([1.0])
SYMMETRIC, SLOPED = BernsteinMap([0.4, 0.1, 0.1, 0.4]), BernsteinMap([0.2, 0.3, 0.5])


def number(x):
    return torch.tensor([[[x]]], dtype=torch.float64)


def at(y):
    return np.full((1, 1, 1), float(y))


@pytest.mark.parametrize("rate", [0.1, 3.0, 200.0])
@pytest.mark.parametrize("bent", [SAME, SYMMETRIC, SLOPED])
def test_moments_and_score_of_counts_are_sums(rate, bent):
    backend = RecalibratedBackend(LawBackend(PoissonCounts(rate=number(rate))), [[bent]])
    k = np.arange(rate + 20 * rate**0.5 + 20)
    up_to = bent.cdf(stats.poisson.cdf(k, rate))
    mass = np.diff(up_to, prepend=0.0)
    mean = k @ mass
    assert_allclose(backend.mean(), mean, rtol=1e-10)
    assert_allclose(backend.variance(), (k - mean) ** 2 @ mass, rtol=1e-9)
    y = rate // 1 + 2
    assert_allclose(backend.crps(at(y)), ((up_to - (k >= y)) ** 2).sum(), rtol=1e-10)


@pytest.mark.parametrize(("df", "rtol"), [(2.1, 2e-5), (3.0, 1e-9), (30.0, 1e-10)])
def test_moments_of_heavy_tails_are_integrals(df, rtol):
    law = stats.t(df, 1.0, 2.0)
    base = LawBackend(DiagonalStudentT(df=number(df), loc=number(1.0), scale=number(2.0)))
    backend = RecalibratedBackend(base, [[SYMMETRIC]])

    def moment(function):
        density = lambda x: np.exp(SYMMETRIC.log_density(np.array(law.cdf(x)))) * law.pdf(x)  # noqa: E731
        inner = lambda s: function(np.sinh(s)) * density(np.sinh(s)) * np.cosh(s)  # noqa: E731
        return sum(integrate.quad(inner, *ends, limit=500, epsrel=1e-11)[0] for ends in ((-120, 0), (0, 120)))

    mean = moment(lambda x: x)
    assert_allclose(backend.mean(), mean, rtol=1e-9)
    assert_allclose(backend.variance(), moment(lambda x: (x - mean) ** 2), rtol=rtol)
    same = RecalibratedBackend(base, [[SAME]])
    assert_allclose(same.variance(), law.var(), rtol=1e-10)


def test_moments_that_do_not_exist_stay_so():
    base = LawBackend(DiagonalStudentT(df=number(1.5), loc=number(1.0), scale=number(2.0)))
    backend = RecalibratedBackend(base, [[SLOPED]])
    assert np.isfinite(backend.mean()).all() and np.isinf(backend.variance()).all()


def test_paths_are_weighed():
    paths = np.random.default_rng(0).gamma(2.0, size=(60, 2, 3, 2))
    base, y = PathsBackend(paths), np.full((2, 3, 2), 1.7)
    same = RecalibratedBackend(base, [[SAME, SAME]])
    assert_allclose(same.mean(), base.mean())
    assert_allclose(same.variance(), base.variance())
    assert_allclose(same.crps(y), crps_samples(y, paths))
    maps = [[SYMMETRIC, SLOPED], [SLOPED, SAME], [SAME, SAME]]
    bent = RecalibratedBackend(base, maps)
    for t, row in enumerate(maps):
        for i, one in enumerate(row):
            x, w = np.sort(paths[:, 1, t, i]), np.diff(one.cdf(np.arange(61) / 60))
            assert bent.mean()[1, t, i] == pytest.approx(w @ x, rel=1e-12)
            assert bent.variance()[1, t, i] == pytest.approx(w @ (x - w @ x) ** 2, rel=1e-12)
            pairs = w @ np.abs(x[:, None] - x) @ w / (2 * (1 - w @ w))
            assert bent.crps(y)[1, t, i] == pytest.approx(w @ np.abs(x - 1.7) - pairs, rel=1e-11)
    missing = np.full((2, 3, 2), np.nan)
    assert np.isnan(bent.crps(missing)).all()


def test_scores_of_measurements_are_integrals():
    law, backend = (
        stats.norm(1.0, 2.0),
        RecalibratedBackend(LawBackend(DiagonalNormal(loc=number(1.0), scale=number(2.0))), [[SLOPED]]),
    )
    cdf = lambda x: SLOPED.cdf(np.array(law.cdf(x)))  # noqa: E731
    for y in (-3.0, 1.2, 6.0):
        below = integrate.quad(lambda x: cdf(x) ** 2, -np.inf, y, epsabs=1e-12, limit=300)[0]
        above = integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, np.inf, epsabs=1e-12, limit=300)[0]
        assert_allclose(backend.crps(at(y)), below + above, rtol=0, atol=1e-9)
        slope = (cdf(y + 1e-5) - cdf(y - 1e-5)) / 2e-5
        assert_allclose(backend.log_prob(at(y)), np.log(slope), rtol=0, atol=1e-6)


def test_density_of_two_variables_has_mass_one():
    tril = torch.tensor([[[[1.0, 0.0], [0.8, 0.6]]]], dtype=torch.float64)
    x = np.linspace(-6.0, 6.0, 61)
    grid = np.stack(np.meshgrid(x, x), -1).reshape(1, -1, 2)
    law = FullNormal(loc=torch.zeros(1, 3721, 2, dtype=torch.float64), scale_tril=tril.expand(1, 3721, 2, 2))
    backend = RecalibratedBackend(LawBackend(law), [[SYMMETRIC, SLOPED]])
    density = np.exp(backend.log_prob(grid)).reshape(61, 61)
    assert density.sum() * 0.04 == pytest.approx(1.0, abs=1e-6)


def test_maps_of_no_degree_and_of_no_levels_are_named():
    with pytest.raises(ParameterError, match="at most 1000"):
        fit_map(np.linspace(0.1, 0.9, 20), max_degree=2048)
    with pytest.raises(ParameterError, match=r"PIT value of 1\.2"):
        fit_map([*np.linspace(0.1, 0.9, 20), 1.2])
    steep = BernsteinMap(np.full(1000, 1e-3))
    assert_allclose(steep.cdf(np.linspace(0.0, 1.0, 7)), np.linspace(0.0, 1.0, 7), atol=1e-12)
