"""Tests for differences against statsmodels and against series whose orders are known."""

import warnings

import numpy as np
import pytest
import torch
from statsmodels.tsa.stattools import adfuller, kpss

from probseq.inference.differencing import (
    adf_statistic,
    choose_differences,
    kpss_statistic,
    residual_series,
    seasonal_strength,
)
from probseq.models.base import Batch


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def choose(series, period=1, d=None, seasonal_d=None, test="kpss"):
    return choose_differences(series, period, d, seasonal_d, 2, 1, test)


@pytest.mark.parametrize("lags", [0, 1, 4, 12])
@pytest.mark.parametrize("n", [20, 141])
def test_kpss_statistic_is_that_of_statsmodels(n, lags):
    for x in (noise(n), np.cumsum(noise(n, 1)), 1e6 + noise(n, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = kpss(x, regression="c", nlags=lags)[0]
        np.testing.assert_allclose(kpss_statistic(x, lags), expected, rtol=1e-10)


@pytest.mark.parametrize("lags", [0, 1, 5])
def test_adf_statistic_is_that_of_statsmodels(lags):
    for x in (noise(60), np.cumsum(noise(60, 1)), 1e3 + noise(40, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = adfuller(x, maxlag=lags, autolag=None)[0]
        np.testing.assert_allclose(adf_statistic(x, lags), expected, rtol=1e-8)


@pytest.mark.parametrize("test", ["kpss", "adf"])
def test_noise_walks_and_integrated_walks_are_told_apart(test):
    e = noise(300)
    assert choose([e], test=test) == (0, 0)
    assert choose([np.cumsum(e)], test=test) == (1, 0)
    assert choose([np.cumsum(np.cumsum(e))], test=test) == (2, 0)


def test_strong_seasons_are_differenced():
    season = 10 * np.sin(2 * np.pi * np.arange(120) / 12)
    assert seasonal_strength(season + noise(120), 12) > 0.9
    assert seasonal_strength(noise(120), 12) < 0.6
    assert choose([season + noise(120)], 12) == (0, 1)
    assert choose([noise(120)], 12) == (0, 0)
    assert choose([(season + noise(120))[:20]], 12) == (0, 0)  # less than two seasons


def test_known_orders_are_kept_and_the_others_chosen():
    walk = np.cumsum(noise(200))
    assert choose([walk], d=0) == (0, 0)
    assert choose([walk], 4, seasonal_d=1)[1] == 1
    assert choose([noise(200)], d=2) == (2, 0)


def test_the_majority_of_series_decides():
    walks, noises = [np.cumsum(noise(200, i)) for i in range(3)], [noise(200, 10 + i) for i in range(3)]
    assert choose([*walks, *noises[:2]])[0] == 1
    assert choose([*walks[:2], *noises])[0] == 0


def test_a_line_is_not_differenced_into_a_constant():
    assert choose([np.arange(50.0)]) == (0, 0)
    assert choose([np.full(50, 3.0)], 4) == (0, 0)


def test_residuals_leave_out_inputs_and_bridge_gaps():
    rng = np.random.default_rng(4)
    u = np.cumsum(rng.normal(size=(2, 60, 1)), 1)
    y = 3.0 * u[..., 0] + np.array([[5.0], [-2.0]])
    seen = np.ones(y.shape, dtype=bool)
    seen[0, :3] = seen[0, 20:23] = seen[1, 50:] = False
    data = Batch(
        torch.from_numpy(np.where(seen, y, 0.0))[..., None],
        torch.from_numpy(seen)[..., None],
        torch.tensor([60, 60]),
        torch.from_numpy(u),
    )
    first, second = residual_series(data)
    assert (first.size, second.size) == (57, 50)
    np.testing.assert_allclose(first, 5.0, rtol=1e-10)
    np.testing.assert_allclose(second, -2.0, rtol=1e-10)
    bridged, _ = residual_series(data._replace(u=None))
    np.testing.assert_allclose(bridged[16:21], np.linspace(y[0, 19], y[0, 23], 5), rtol=1e-12)
    wave = np.sin(np.arange(60.0))[:, None]
    waving = data._replace(x=torch.from_numpy(np.where(seen, y + 7 * wave[:, 0], 0.0))[..., None])
    np.testing.assert_allclose(residual_series(waving, wave)[0], 5.0, rtol=1e-9)
