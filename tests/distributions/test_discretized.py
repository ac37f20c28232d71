"""Laws of rounded values, against differences of scipy's cdfs and sums over the lattice."""

import mpmath
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from probseq.distributions.bijections import Exponential, ScaledSigmoid
from probseq.distributions.compose import Mixture, Pushforward
from probseq.distributions.counts import PoissonCounts, lattice_index, lattice_points
from probseq.distributions.discretized import Discretized, discretized
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.intervals import log_interval
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.product import IndependentParts
from probseq.errors import IncompatibleError
from probseq.evaluation.crps import crps_samples
from probseq.evaluation.recalibration import BernsteinMap
from probseq.results.backends import LawBackend
from probseq.results.recalibrated import RecalibratedBackend
from probseq.results.regions import shortest_interval
from probseq.testing.laws import check_distribution


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(loc=0.3, scale=0.7):
    return DiagonalNormal(loc=t(loc), scale=t(scale))


LAWS = {
    "normal": (normal(), stats.norm(0.3, 0.7)),
    "wide normal": (normal(2.2, 60.0), stats.norm(2.2, 60.0)),
    "Laplace": (DiagonalLaplace(loc=t(0.3), scale=t(0.7)), stats.laplace(0.3, 0.7)),
    "Student t": (DiagonalStudentT(df=t(9.0), loc=t(0.3), scale=t(0.7)), stats.t(9.0, 0.3, 0.7)),
    "log-normal": (Pushforward(normal(), Exponential(-0.5)), stats.lognorm(0.7, loc=-0.5, scale=np.exp(0.3))),
}
LATTICES = [(1.0, None), (1.0, 0.0), (0.5, None), (0.1, -1.0)]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("name", LAWS)
def test_masses_moments_and_quantiles_are_those_of_the_cells(name, lattice):
    base, oracle = LAWS[name]
    width, lowest = lattice
    law = Discretized(base, width, lowest)
    low, high = oracle.ppf(1e-16) / width, oracle.isf(1e-16) / width
    index = np.arange(np.floor(low) if lowest is None else round(lowest / width), np.ceil(high) + 1)
    x = index * width
    ends = oracle.cdf((index + 0.5) * width)
    expected = ends - oracle.cdf((index - 0.5) * width)
    if lowest is not None:
        expected[0] = ends[0]
    mass = law.log_prob(torch.as_tensor(x)[:, None]).exp().numpy()
    assert_allclose(mass, expected, rtol=1e-9, atol=1e-15)
    assert mass.sum() == pytest.approx(1.0, abs=1e-6)
    mean = (x * mass).sum()
    assert float(law.mean) == pytest.approx(mean, abs=2e-5 * oracle.std())
    assert float(law.variance) == pytest.approx((mass * (x - mean) ** 2).sum(), rel=2e-5)
    assert_allclose(law.cdf(torch.as_tensor(x)[:, None])[:, 0], ends, rtol=1e-12, atol=1e-15)
    left = law.cdf_left(torch.as_tensor(x)[:, None])[1:, 0]
    assert_allclose(left, ends[:-1], rtol=1e-12, atol=1e-15)
    for q in (0.01, 0.3, 0.5, 0.8, 0.99):
        assert float(law.icdf(t(q))) == pytest.approx(x[np.searchsorted(ends, q)])
    # A level that is met exactly is the quantile of the point where it is met.
    at = int(np.searchsorted(ends, 0.4))
    assert float(law.icdf(law.cdf(t(x[at])))) == pytest.approx(x[at])


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("x", [0.0, 1.0, -3.0, 20.0, -100.0])
def test_normal_intervals_keep_their_digits_in_both_tails(scale, x):
    with mpmath.workdps(60):
        a, b = sorted(-abs((mpmath.mpf(x) + side - mpmath.mpf(0.3)) / mpmath.mpf(scale)) for side in (-0.5, 0.5))
        if abs(x - 0.3) < 0.5:
            exact = mpmath.log(1 - (mpmath.erfc(-a / mpmath.sqrt(2)) + mpmath.erfc(-b / mpmath.sqrt(2))) / 2)
        else:
            exact = mpmath.log((mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2)
    assert float(log_interval(normal(0.3, scale), t(x - 0.5), t(x + 0.5))) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize("scale", [0.02, 0.7, 40.0])
@pytest.mark.parametrize("family", ["normal", "Laplace", "Student t"])
def test_gradients_are_slopes(family, scale):
    def log_mass(loc, log_scale, low, high):
        location = {"loc": loc, "scale": log_scale.exp()}
        law = {
            "normal": lambda: DiagonalNormal(**location),
            "Laplace": lambda: DiagonalLaplace(**location),
            "Student t": lambda: DiagonalStudentT(df=torch.full_like(loc, 5.0), **location),
        }[family]()
        return log_interval(law, low, high)

    low = torch.tensor([-0.5, 0.5, 2.5, -30.5, -torch.inf, 1.5], dtype=torch.float64)
    high = torch.tensor([0.5, 1.5, 3.5, -29.5, 0.5, torch.inf], dtype=torch.float64)
    loc, log_scale = (torch.full((6,), value, dtype=torch.float64) for value in (0.2, np.log(scale)))
    if scale < 0.1 and family != "Laplace":
        low, high, loc, log_scale = (one[:2] for one in (low, high, loc, log_scale))
    inputs = [one.clone().requires_grad_() for one in (loc, log_scale)]
    if family == "Student t":
        # The tails beyond an open end come from a cdf without gradient.
        inputs, low, high = [one[:4].detach().requires_grad_() for one in inputs], low[:4], high[:4]
    found = torch.autograd.grad(log_mass(*inputs, low, high).sum(), inputs)
    h = 1e-6
    for i, gradient in enumerate(found):
        up, down = ([one.detach() + (sign * h if j == i else 0.0) for j, one in enumerate(inputs)] for sign in (1, -1))
        slope = (log_mass(*up, low, high) - log_mass(*down, low, high)) / (2 * h)
        assert_allclose(gradient, slope, rtol=2e-5, atol=2e-7)


def test_heavy_tails_keep_their_moments():
    """Against sum_j (2j - 1) 2 P(X > j - 1/2), with the power law behind the last term."""
    for df, scale in ((2.2, 0.2), (3.0, 0.2)):
        oracle = stats.t(df)
        j = np.arange(1.0, 100_000.0)
        tail = 4 * oracle.sf(1e5) * 1e5**df * scale**df * (len(j) + 0.5) ** (2 - df) / (df - 2)
        expected = 2 * (2 * j - 1) @ oracle.sf((j - 0.5) / scale) + tail
        law = Discretized(DiagonalStudentT(df=t(df), loc=t(0.0), scale=t(scale)))
        assert float(law.variance) == pytest.approx(expected, rel=1e-3)
    assert float(Discretized(DiagonalStudentT(df=t(2.0), loc=t(0.0), scale=t(1.0))).variance) == np.inf
    assert float(Discretized(DiagonalStudentT(df=t(1.0), loc=t(0.0), scale=t(1.0))).mean) == np.inf


MIXED = Mixture(
    t(0.3, 0.7).log(),
    DiagonalNormal(loc=t(-2.0, 3.0)[:, None], scale=torch.tensor([[0.4], [1.3]], dtype=torch.float64)),
)


@pytest.mark.parametrize("lowest", [None, 0.0])
@pytest.mark.parametrize("base", [normal(3.0, 1.4), LAWS["Laplace"][0], LAWS["Student t"][0], MIXED], ids=repr)
def test_is_one_law(base, lowest):
    check_distribution(discretized(base, 1.0, lowest))


def test_a_mixture_is_rounded_part_by_part():
    law = discretized(MIXED, 0.5)
    index = torch.arange(-20.0, 30.0, dtype=torch.float64)[:, None]
    mass = law.log_prob(index * 0.5).exp()
    one, other = (stats.norm(loc, scale) for loc, scale in ((-2.0, 0.4), (3.0, 1.3)))
    cdf = lambda x: 0.3 * one.cdf(x) + 0.7 * other.cdf(x)  # noqa: E731
    i = index.numpy()[:, 0]
    assert_allclose(mass, cdf(i / 2 + 0.25) - cdf(i / 2 - 0.25), atol=1e-14)
    ends = cdf(i / 2 + 0.25)
    for q in (0.1, 0.3, 0.62):
        assert float(law.icdf(t(q))) == i[np.searchsorted(ends, q)] / 2


@pytest.mark.parametrize("width", [1.0, 0.1])
def test_crps_is_that_of_samples(width):
    law = discretized(normal(-3.0 * width, 2.0 * width), width)
    backend = LawBackend(law.expand((1, 1)))
    samples = law.sample((400_000,), generator=torch.Generator().manual_seed(0)).numpy().reshape(-1, 1, 1, 1)
    y = np.array([[[-5.0 * width]]])
    assert backend.crps(y)[0, 0, 0] == pytest.approx(crps_samples(y, samples)[0, 0, 0], rel=5e-3)
    exact = np.arange(-40, 40)
    below = stats.norm(-3.0, 2.0).cdf(exact + 0.5)
    assert backend.crps(y)[0, 0, 0] == pytest.approx(width * ((below - (exact >= -5)) ** 2).sum(), rel=1e-10)


def test_crps_of_heavy_tails_ends():
    law = Discretized(DiagonalStudentT(df=t(2.5), loc=t(1.0), scale=t(1.0))).expand((1, 1))
    k = np.arange(-20_000, 20_000.0)
    expected = ((stats.t(2.5, 1.0).cdf(k + 0.5) - (k >= 3)) ** 2).sum()
    assert LawBackend(law).crps(np.full((1, 1, 1), 3.0)).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("base", [normal(-0.3, 0.2), DiagonalStudentT(df=t(2.5), loc=t(1.0), scale=t(0.1))], ids=repr)
def test_recalibration_knows_the_step_and_where_tails_are_long(base):
    plain = LawBackend(Discretized(base, 0.1).expand((1, 1)))
    same = RecalibratedBackend(plain, [[BernsteinMap([1.0])]])
    y = np.full((1, 1, 1), 0.4)
    assert_allclose(same.crps(y), plain.crps(y), rtol=1e-7)
    assert_allclose(same.mean(), plain.mean(), rtol=1e-3)


def test_shortest_intervals_know_the_step():
    backend = LawBackend(Discretized(normal(0.02, 1.0), 0.1).expand((1, 1)))
    low, high = shortest_interval(backend, 0.8)[0, 0, 0]
    # Of the intervals of 26 cells that hold enough the lowest; none of 25 does.
    assert (low, high) == (-1.3, 1.2)
    cdf = stats.norm(0.02, 1.0).cdf
    assert cdf(1.25) - cdf(-1.35) >= 0.8 > cdf(1.25) - cdf(-1.25)


def test_values_beside_the_lattice_have_no_probability():
    law = Discretized(normal(), 0.1, 0.0)
    x = t(0.3, 0.1 + 0.2, 0.35, -0.1, np.inf)[:, None]
    assert torch.isfinite(law.log_prob(x)).tolist() == [True, True, False, False, False]
    assert float(law.cdf(t(0.1 + 0.2))) == float(law.cdf(t(0.3)))
    assert float(law.cdf(t(-0.04))) == 0.0
    single = Discretized(DiagonalNormal(loc=t(0.3).float(), scale=t(0.7).float()), 0.1)
    assert float(single.log_prob(t(0.3).float())) == pytest.approx(float(law.log_prob(t(0.3))), rel=1e-6)


def test_multiples_are_the_decimals_that_users_write():
    index = np.arange(-30.0, 31.0)
    assert lattice_points(index, 0.1).tolist() == [float(f"{i / 10:.1f}") for i in index]
    assert lattice_points(index, 0.3)[33] == 0.9 and 3 * 0.3 != 0.9
    assert_allclose(lattice_points(index, 1 / 3), index / 3, rtol=1e-15)
    assert lattice_index(np.array([0.3, 0.35]), 0.1).tolist() == [3.0, 0.35 / 0.1]


def test_a_bounded_map_has_its_ends():
    law = Discretized(Pushforward(normal(), ScaledSigmoid(-0.5, 3.5)))
    z = np.log((np.array([0.5, 1.5, 2.5]) + 0.5) / (3.5 - np.array([0.5, 1.5, 2.5])))
    cdf = np.concatenate([[0.0], stats.norm(0.3, 0.7).cdf(z), [1.0]])
    assert_allclose(law.log_prob(t(0.0, 1.0, 2.0, 3.0)[:, None]).exp(), np.diff(cdf), rtol=1e-12)
    assert law.log_prob(t(4.0)) == law.log_prob(t(-1.0)) == -torch.inf


def test_gamma_counts_from_its_first_cell():
    law = Discretized(DiagonalGamma(**_gamma()))
    x = torch.arange(0.0, 60.0, dtype=torch.float64)[:, None]
    mass = law.log_prob(x).exp()
    below = law.base.cdf(x + 0.5)[:, 0]
    assert_allclose(mass, np.diff(below, prepend=0.0), rtol=1e-8, atol=1e-13)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-9)


def _gamma():
    return {name: t(value) for name, value in zip(DiagonalGamma._event_dims, (1.7, 1.2), strict=True)}


def test_what_has_no_cells_is_refused():
    correlated = FullNormal(loc=t(0.0, 0.0), scale_tril=torch.eye(2, dtype=torch.float64))
    with pytest.raises(IncompatibleError, match="covariance"):
        discretized(correlated)
    with pytest.raises(IncompatibleError, match="counts"):
        discretized(PoissonCounts(rate=t(1.0)))
    both = IndependentParts([normal(), LAWS["Laplace"][0]])
    assert discretized(both).discrete
