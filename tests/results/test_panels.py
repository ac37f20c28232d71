"""The score of mixtures against numerical integration of its definition, and against closed forms."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

from probseq.distributions.bijections import BoxCoxInverse, Exponential
from probseq.distributions.compose import Mixture, push
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT
from probseq.evaluation.crps import crps_normal, crps_student_t
from probseq.results.backends import LawBackend
from probseq.results.panels import crps_mixture


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1, 1)


def log_weights(*values):
    return torch.log(torch.tensor(values, dtype=torch.float64)).reshape(1, 1, -1)


def score(law, y):
    return LawBackend(law).crps(np.array([[[float(y)]]]))[0, 0, 0]


def integrated(cdf, y, edges):
    """Piecewise over the given edges, the tails by the integral over log |x|."""
    ends = np.unique([*edges, y])
    total = sum(
        integrate.quad(lambda x: (cdf(x) - (x >= y)) ** 2, a, b, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
        for a, b in zip(ends[:-1], ends[1:])
    )
    below = integrate.quad(lambda s: cdf(ends[0] - np.expm1(s)) ** 2 * np.exp(s), 0, 40, epsabs=1e-13, limit=400)[0]
    above = integrate.quad(
        lambda s: (1 - cdf(ends[-1] + np.expm1(s))) ** 2 * np.exp(s), 0, 14, epsabs=1e-13, limit=400
    )[0]
    return total + below + above


@pytest.mark.parametrize("y", [-400.0, -3.0, 0.2, 5.5, 80.0])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_a_mixture_with_a_heavy_tail(y, scale):
    df, loc, scales = (2.05, 6.0), (0.0, 5.0), (2.0, scale)
    law = Mixture(log_weights(0.7, 0.3), DiagonalStudentT(df=tensor(*df), loc=tensor(*loc), scale=tensor(*scales)))
    parts = [stats.t(d, m, s) for d, m, s in zip(df, loc, scales)]
    expected = integrated(
        lambda x: 0.7 * parts[0].cdf(x) + 0.3 * parts[1].cdf(x),
        y,
        [q for law_ in parts for q in law_.ppf([1e-4, 0.01, 0.2, 0.5, 0.8, 0.99, 1 - 1e-4])],
    )
    assert_allclose(score(law, y), expected, rtol=1e-7)


@pytest.mark.parametrize("df", [1.2, 2.0, 30.0])
def test_equal_components_score_as_one(df):
    one = DiagonalStudentT(df=tensor(df, df), loc=tensor(0.3, 0.3), scale=tensor(1.5, 1.5))
    for y in (-20.0, 0.0, 3.0, 1e4):
        expected = crps_student_t(y, df, 0.3, 1.5)
        assert_allclose(score(Mixture(log_weights(0.4, 0.6), one), y), expected, rtol=1e-8)
        assert_allclose(LawBackend(one[..., 0]).crps(np.array([[[y]]])), expected, rtol=1e-12)


def test_many_components_of_different_width_against_the_closed_form():
    rng = np.random.default_rng(0)
    loc, scale = tensor(*rng.normal(size=12) * 5), tensor(*np.exp(rng.normal(size=12) * 2))
    law = Mixture(log_weights(*np.full(12, 1 / 12)), DiagonalNormal(loc=loc, scale=scale))
    for y in (-30.0, 0.0, 4.0):
        at = np.array([[[y]]])
        assert_allclose(crps_mixture(at, law), LawBackend(law).crps(at), rtol=1e-4)
    narrow = Mixture(law.log_weights[..., :1], law.components[..., :1])
    narrow = Mixture(torch.zeros_like(narrow.log_weights), narrow.components)
    assert_allclose(crps_mixture(at, narrow), crps_normal(4.0, loc[0, 0, 0], scale[0, 0, 0])[None, None], rtol=1e-9)


def test_no_score_without_a_mean():
    student = DiagonalStudentT(df=tensor(3.0, 9.0), loc=tensor(0.0, 1.0), scale=tensor(1.0, 1.0))
    weights = log_weights(0.5, 0.5)
    assert score(push(Mixture(weights, student), Exponential()), 2.0) == np.inf
    assert score(push(student[..., 0], Exponential()), 2.0) == np.inf
    heavy = DiagonalStudentT(df=tensor(0.9, 9.0), loc=tensor(0.0, 1.0), scale=tensor(1.0, 1.0))
    assert score(Mixture(weights, heavy), 2.0) == np.inf
    assert np.isfinite(score(Mixture(log_weights(0.0, 1.0), heavy), 2.0))
    assert np.isnan(score(Mixture(weights, heavy), np.nan))
    normal = DiagonalNormal(loc=tensor(0.0, 0.4), scale=tensor(0.3, 0.4))
    for lmbda, finite in ((-0.5, False), (-1.5, True), (0.5, True)):
        assert np.isfinite(score(push(Mixture(weights, normal), BoxCoxInverse(lmbda)), 2.0)) == finite
        assert np.isfinite(score(push(normal[..., 0], BoxCoxInverse(lmbda)), 2.0)) == finite


def test_single_precision_does_not_leak_weight_into_the_tails():
    law = Mixture(
        log_weights(*np.full(30, 1 / 30)).float(),
        DiagonalStudentT(df=torch.full((1, 1, 30, 1), 1.25), loc=torch.zeros(1), scale=torch.ones(1)),
    )
    assert_allclose(score(law, 0.5), crps_student_t(0.5, 1.25), rtol=1e-7)
