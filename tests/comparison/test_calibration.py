"""Calibration of forecasts: figures by hand, forecasts that are right and others, every kind of backend."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import probseq as ps
from probseq.errors import EmptyDataError, ParameterError, UnsupportedError
from probseq.evaluation import independence_test, pit_histogram, uniformity_test

LEVELS = [0.5, 0.8, 0.9]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def normal(mean=0.0, scale=1.0):
    return ps.IID().with_parameters(mean=[mean], scale=[scale])


def test_every_figure_by_hand():
    y = np.random.default_rng(0).normal(0.2, 1.5, size=300)
    y[7] = np.nan
    found = ps.calibration(normal().predictive(y), y, levels=LEVELS, n_bins=5)
    seen = y[~np.isnan(y)]
    half = stats.norm.ppf((1 + np.array(LEVELS)) / 2)
    assert_allclose(found.coverage, [(np.abs(seen) <= h).mean() for h in half])
    assert_allclose(found.coverage_error, np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / 299))
    assert_allclose(found.sharpness, 2 * half, rtol=1e-9)
    u = stats.norm.cdf(seen)
    assert_allclose(found.reliability, [(u <= level).mean() for level in LEVELS])
    bars = pit_histogram(u, 5)
    assert_allclose(found.pit_histogram, bars.density)
    assert_allclose(found.bin, [0.1, 0.3, 0.5, 0.7, 0.9])
    assert (found.pit_lower, found.pit_upper) == (bars.lower, bars.upper)
    assert_allclose(found.uniform_p, uniformity_test(u).p_value)
    assert_allclose(found.independent_p, independence_test(np.where(np.isnan(y), np.nan, stats.norm.cdf(y))).p_value)
    assert found.n_values == 299 and found.coverage.dims == ("level",)


def test_a_right_forecast_is_calibrated_and_wrong_ones_are_not():
    model = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.8], mean=[2.0], scale=[3.0])
    y = model.sample(2000, random_state=1)
    right = ps.calibration(model.predictive(y), y)
    assert (np.abs(right.coverage - right.level) < 3.5 * right.coverage_error).all()
    assert (np.abs(right.reliability - right.level) < 3.5 * right.coverage_error).all()
    assert right.uniform_p > 0.01 and right.independent_p > 0.01
    flat = ps.IID().fit(y)
    wide = ps.calibration(flat.predictive(y), y)
    assert wide.independent_p < 1e-10, "the marginal law is calibrated, but its errors follow one another"
    assert float(wide.sharpness[10]) > 1.3 * float(right.sharpness[10])


def test_counts_are_randomised():
    y = np.random.default_rng(0).poisson(1.2, size=3000)
    found = ps.calibration(ps.IID(ps.Poisson()).with_parameters(rate=[1.2]).predictive(y), y)
    assert found.uniform_p > 0.01
    assert (np.abs(found.reliability - found.level) < 3.5 * found.coverage_error).all()
    assert (found.coverage >= found.level - 3.5 * found.coverage_error).all()
    assert float(found.coverage.sel(level=0.5)) > 0.6, "intervals of counts hold more than they say"


def test_sequences_variables_and_units():
    rng = np.random.default_rng(0)
    frames = {name: pd.DataFrame(rng.normal(size=(50, 2)) * [1.0, 3.0], columns=["a", "b"]) for name in "xyz"}
    model = ps.IID().with_parameters(mean=[0.0, 0.0], scale=[1.0, 1.0])
    forecast = model.fit(frames).predictive(frames)
    found = ps.calibration(forecast, frames, levels=LEVELS)
    assert found.coverage.dims == ("variable", "level") and found["variable"].values.tolist() == ["a", "b"]
    assert_array_equal(found.n_values, [150, 150])
    alone = ps.calibration(forecast.marginal("b"), {n: f[["b"]] for n, f in frames.items()}, levels=LEVELS)
    for name in ("coverage", "sharpness", "pit_histogram", "uniform_p", "independent_p"):
        assert_allclose(found[name].sel(variable="b"), np.squeeze(alone[name]), err_msg=name)
    y = xr.DataArray(rng.normal(size=40), dims="time", attrs={"units": "mm"})
    assert ps.calibration(normal().predictive(y), y).sharpness.attrs["units"] == "mm"


def test_trajectories_and_other_backends():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    paths = ps.Forecast.from_paths(rng.normal(size=(4000, 200)))
    found = ps.calibration(paths, y, levels=LEVELS)
    assert_allclose(found.coverage, ps.calibration(normal().predictive(y), y, levels=LEVELS).coverage, atol=0.03)
    assert np.isnan(found.independent_p) and found.uniform_p > 0.01
    grid = np.linspace(0.05, 0.95, 19)
    quantiles = ps.Forecast.from_quantiles(grid, np.tile(stats.norm.ppf(grid), (200, 1)))
    assert_allclose(ps.calibration(quantiles, y, levels=[0.5]).coverage, found.coverage[:1], atol=0.03)


def test_values_that_are_not_predicted_do_not_count():
    y = np.cumsum(np.random.default_rng(0).normal(size=50))
    walk = ps.RandomWalk().with_parameters(scale=[1.0])
    assert ps.calibration(walk.predictive(y), y).n_values == 49
    with pytest.raises(EmptyDataError, match="history"):
        ps.calibration(walk.predictive([1.0]), [1.0])


def test_the_pictures_draw_the_table():
    y = np.random.default_rng(0).normal(size=100)
    found = {name: ps.calibration(normal(scale=s).predictive(y), y) for name, s in (("one", 1.0), ("two", 2.0))}
    covered, pits, widths = ps.plot_calibration(found)
    assert_allclose(covered.lines[2].get_ydata(), found["two"].coverage)
    assert_allclose(pits.lines[1].get_ydata()[1:-1], found["one"].pit_histogram)
    assert_allclose(pits.lines[1].get_xdata()[[0, -1]], [0, 1], atol=1e-12)
    assert_allclose(widths.lines[1].get_ydata(), found["two"].sharpness)
    assert [t.get_text() for t in widths.get_legend().get_texts()] == ["± 2 s.e.", "one", "two"]
    pair = np.column_stack([y, y])
    both = ps.calibration(ps.IID().fit(pair).predictive(pair), pair)
    assert len(ps.plot_calibration(both)[2].lines) == 2
    with pytest.raises(ParameterError, match="Expected 3 axes"):
        ps.plot_calibration(found, ax=plt.gca())
    with pytest.raises(ParameterError, match="calibration"):
        ps.plot_calibration({"one": y})
    with pytest.raises(ParameterError, match="no curve"):
        ps.plot_calibration({})


def test_what_is_no_calibration():
    y = np.zeros(20)
    forecast = normal().predictive(y)
    with pytest.raises(ParameterError, match="Forecast"):
        ps.calibration(normal(), y)
    for levels in ([0.9, 0.5], [90], [0.5, 0.5]):
        with pytest.raises(ParameterError):
            ps.calibration(forecast, y, levels=levels)
    with pytest.raises(ParameterError, match="n_bins"):
        ps.calibration(forecast, y, n_bins=1)
    with pytest.raises(UnsupportedError, match="categories"):
        ps.calibration(ps.MarkovChain().fit("abab").predictive("ab"), "ab")


def test_the_independence_test_is_the_likelihood_ratio():
    z = np.random.default_rng(0).normal(0.1, 1.2, size=60)
    u = stats.norm.cdf(z)
    u[20] = np.nan
    found = independence_test(u, breaks=(40,))
    pairs = [t for t in range(1, 60) if t not in (20, 21, 40)]
    y, x = z[pairs], z[[t - 1 for t in pairs]]
    rho, c = np.polyfit(x, y, 1)
    s = np.sqrt(np.mean((y - c - rho * x) ** 2))
    gain = stats.norm.logpdf(y, c + rho * x, s).sum() - stats.norm.logpdf(y).sum()
    assert_allclose(found.statistic, 2 * gain, rtol=1e-9)
    assert_allclose(found.p_value, stats.chi2.sf(2 * gain, 3), rtol=1e-9)
    assert_allclose(found.autocorrelation, rho)
    assert found.n_pairs == 56


def test_the_independence_test_rejects_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = np.array([independence_test(rng.uniform(size=200)).p_value for _ in range(600)])
    for size in (0.05, 0.2):
        assert abs((p < size).mean() - size) < 3 * np.sqrt(size * (1 - size) / 600) + 0.01
    with pytest.raises(EmptyDataError):
        independence_test([0.1, 0.2, np.nan, 0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert independence_test(np.zeros(20)).p_value < 1e-10, "impossible values are no NaN"
