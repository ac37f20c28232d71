"""Shortest intervals, highest-density regions, and laws known by their quantiles."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats

import probseq as ps
from probseq.data.sequences import sequences
from probseq.distributions.compose import mixture
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalNormal
from probseq.errors import ApproximationWarning, DataError, ParameterError, UnsupportedError
from probseq.results.backends import LawBackend
from probseq.results.forecast import Forecast
from probseq.results.quantiles import QuantilesBackend
from probseq.results.regions import shortest_interval


def forecast_of(law):
    labels = sequences(np.zeros(law.batch_shape[1]))
    return Forecast(LawBackend(law), labels, labels.index, future=True)


def two_peaks(gap=6.0):
    loc = torch.tensor([[[[-gap / 2], [gap / 2]]]]).double()
    return forecast_of(
        mixture(torch.log(torch.tensor([[[0.5, 0.5]]])).double(), DiagonalNormal(loc=loc, scale=torch.ones_like(loc)))
    )


def test_region_of_a_normal_is_its_central_interval():
    law = DiagonalNormal(loc=torch.tensor([[[1.0], [5.0]]]).double(), scale=torch.tensor([[[2.0], [0.1]]]).double())
    region = forecast_of(law).region(0.9)
    assert region.dims == ("time", "bound", "part") and region.sizes["part"] == 1
    z = stats.norm.ppf(0.95)
    assert_allclose(region[:, :, 0], [[1 - 2 * z, 1 + 2 * z], [5 - 0.1 * z, 5 + 0.1 * z]], rtol=0, atol=0.03)


def test_region_of_two_peaks_has_two_parts():
    forecast = two_peaks()
    region = forecast.region(0.8).values[0]
    assert region.shape == (2, 2)
    assert_allclose(region[:, 0], -region[::-1, 1], atol=0.02)
    cdf = lambda x: 0.5 * (stats.norm.cdf(x + 3) + stats.norm.cdf(x - 3))  # noqa: E731
    covered = (cdf(region[1]) - cdf(region[0])).sum()
    assert 0.8 - 1e-9 <= covered <= 0.805
    assert (region[1] - region[0]).sum() < np.diff(forecast.interval(0.8, kind="hdi").values).item()
    density = 0.5 * (stats.norm.pdf(region + 3) + stats.norm.pdf(region - 3))
    assert_allclose(density, density.mean(), rtol=0.05)
    turned = (1 - 2 * forecast).region(0.8).values[0]
    assert_allclose(np.sort(turned.ravel()), np.sort((1 - 2 * region).ravel()))
    assert (turned[0] < turned[1]).all()
    # At a higher level the valley between the peaks belongs to it too.
    assert two_peaks(3.0).region(0.99).sizes["part"] == 1


def test_region_of_counts_is_the_smallest_set():
    forecast = forecast_of(PoissonCounts(rate=torch.tensor([[[3.3], [0.2]]]).double()))
    region = forecast.region(0.75).values[..., 0]
    for (low, high), rate in zip(region, (3.3, 0.2), strict=True):
        inside = np.arange(low, high + 1)
        mass = np.sort(stats.poisson.pmf(np.arange(60), rate))[::-1]
        smallest = int(np.searchsorted(mass.cumsum(), 0.75)) + 1
        assert len(inside) == smallest and stats.poisson.pmf(inside, rate).sum() >= 0.75


def test_regions_that_cannot_be_had_are_named():
    with pytest.raises(UnsupportedError, match="hdi"):
        ps.Forecast.from_paths(np.zeros((5, 2))).region()
    with pytest.raises(ParameterError, match=r"Write 0\.9"):
        two_peaks().region(90)


def test_shortest_interval_of_paths_is_found_by_looking_at_all():
    rng = np.random.default_rng(0)
    paths = rng.gamma(1.0, size=(40, 2))
    found = ps.Forecast.from_paths(paths).interval(0.6, kind="hdi").values
    for j in range(2):
        x = np.sort(paths[:, j])
        every = [(x[b] - x[a], x[a], x[b]) for a in range(40) for b in range(a, 40) if b - a + 1 >= 24]
        assert_allclose(found[j], min(every)[1:])


def test_shortest_interval_of_a_skewed_law():
    law = stats.lognorm(0.5)
    model = ps.IID(transform=ps.Log()).with_parameters(mean=[0.0], scale=[0.5])
    low, high = model.forecast(1, history=[1.0]).interval(0.8, kind="hdi").values[0]
    assert law.cdf(high) - law.cdf(low) == pytest.approx(0.8, abs=1e-6)
    assert law.pdf(low) == pytest.approx(law.pdf(high), rel=2e-3)


def test_quantiles_have_exact_moments_and_scores():
    levels, values = np.array([0.1, 0.4, 0.7]), np.array([[[[-1.0, 0.5, 4.0]]]])
    backend = QuantilesBackend(levels, values)
    q = lambda p: backend._inverse(np.full((1, 1, 1), p))[0, 0, 0]  # noqa: E731
    points = levels.tolist()
    mean = integrate.quad(q, 0, 1, points=points, epsabs=1e-12)[0]
    assert backend.mean()[0, 0, 0] == pytest.approx(mean, abs=1e-10)
    variance = integrate.quad(lambda p: (q(p) - mean) ** 2, 0, 1, points=points, epsabs=1e-12)[0]
    assert backend.variance()[0, 0, 0] == pytest.approx(variance, abs=1e-10)
    for y in (-3.0, -1.0, 0.2, 1.7, 4.0, 6.0):
        level = float(backend.cdf(np.full((1, 1, 1), y))[0, 0, 0])
        score = integrate.quad(
            lambda p, y=y: 2 * max(p * (y - q(p)), (p - 1) * (y - q(p))),
            0, 1, points=sorted({*points, min(max(level, 0.01), 0.99)}), epsabs=1e-12,
        )[0]  # fmt: skip
        assert backend.crps(np.full((1, 1, 1), y))[0, 0, 0] == pytest.approx(score, abs=1e-9)
    assert np.isnan(backend.crps(np.full((1, 1, 1), np.nan))).all()


def test_ends_of_a_narrow_law_in_many_blocks(monkeypatch):
    law = DiagonalNormal(loc=torch.zeros(2, 3, 1).double(), scale=torch.full((2, 3, 1), 1e-3).double())
    whole = shortest_interval(LawBackend(law), 0.5)
    monkeypatch.setattr("probseq.results.regions._BLOCK", 1)
    assert_allclose(shortest_interval(LawBackend(law), 0.5), whole)


@pytest.mark.parametrize("rate", [0.05, 0.5, 2.0, 3.7, 20.0, 150.0])
@pytest.mark.parametrize("turned", [False, True])
def test_shortest_interval_of_counts_is_found_by_looking_at_all(rate, turned):
    forecast = forecast_of(PoissonCounts(rate=torch.tensor([[[rate], [3.0]]]).double()))
    image = 5 - 2 * forecast if turned else forecast
    counts = np.arange(int(rate + 12 * rate**0.5) + 9)
    up_to = stats.poisson.cdf(counts, rate)
    for level in (0.1, 0.25, 0.5, 0.8, 0.95):
        low, high = image.interval(level, kind="hdi").values[0]
        low, high = ((5 - high) / 2, (5 - low) / 2) if turned else (low, high)
        assert stats.poisson.cdf(high, rate) - stats.poisson.cdf(low - 1, rate) >= level - 1e-9
        last = np.searchsorted(up_to, up_to - stats.poisson.pmf(counts, rate) + level - 1e-10)
        assert high - low == (last - counts)[last < len(counts)].min()


def test_regions_and_shortest_intervals_of_panels_are_those_of_their_parts():
    rng = np.random.default_rng(0)
    data = {"a": rng.normal(size=30), "b": rng.normal(5.0, size=20)}
    forecast = ps.PerSequence(ps.RandomWalk()).fit(list(data.values())).forecast(2)
    single = [ps.RandomWalk().fit(one).forecast(2) for one in data.values()]
    hdi, region = forecast.interval(0.8, kind="hdi").values, forecast.region(0.8).values
    for i, one in enumerate(single):
        assert_allclose(hdi[i], one.interval(0.8, kind="hdi").values, rtol=1e-12)
        assert_allclose(region[i], one.region(0.8).values, rtol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("by_paths", [False, True])
def test_joint_bands_of_counts_hold_what_they_promise(turned, by_paths):
    laws = forecast_of(PoissonCounts(rate=torch.full((1, 4, 1), 0.5).double()))
    with pytest.warns(ApproximationWarning, match="independent"):
        drawn = laws.sample(4000, random_state=0).values
    forecast = (
        ps.Forecast.from_paths(drawn, discrete=True)
        if by_paths
        else ps.PoissonProcess().with_parameters(rate=[0.5]).forecast(4, history=[0.0, 1.0])
    )
    image = 3 - forecast if turned else forecast
    for level in (0.3, 0.5, 0.8, 0.9, 0.95):
        band = image.interval(level, joint=True, n_paths=4000).values
        low, high = (3 - band[:, 1], 3 - band[:, 0]) if turned else band.T
        assert (low == 0).all()
        held = stats.poisson.cdf(high, 0.5).prod()
        # The counts of one step less far out hold too little together.
        assert level - 0.03 <= held and stats.poisson.cdf(high - 1, 0.5).prod() < level + 0.03


def test_regions_of_quantiles_keep_to_the_levels_that_are_known():
    x = np.random.default_rng(0).normal(size=100).cumsum()
    forecast = ps.Conformal(ps.RandomWalk()).fit(x).forecast(2)
    region, hdi = forecast.region(0.5).values, forecast.interval(0.5, kind="hdi").values
    lengths = np.nansum(region[:, 1] - region[:, 0], -1)
    assert (lengths <= (hdi[:, 1] - hdi[:, 0]) * 1.02).all()
    covered = np.nansum(
        [forecast.cdf(region[:, 1, i]) - forecast.cdf(region[:, 0, i]) for i in range(region.shape[-1])], 0
    )
    assert (covered >= 0.5 - 1e-6).all()
    with pytest.raises(DataError, match="held-out"):
        forecast.region(0.99)
    forecast.plot(kind="ridge")
    (-forecast).plot(kind="ridge")
    plt.close("all")
