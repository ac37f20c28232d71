"""Conformal bands: quantiles by hand, cover without the right model, long-run frequencies of a series that shifts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import probseq as ps
from probseq.errors import DataError, NotFittedError, ParameterError, ShapeError, UnsupportedError
from probseq.evaluation.conformal import AdaptiveQuantiles, conformal_levels, conformal_quantiles, conformal_rank

AR = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.8], mean=[0.0], scale=[1.0])


def residuals(forecast, y):
    low, middle, high = np.moveaxis(forecast.quantile([0.25, 0.5, 0.75]).values, -1, 0)
    return (np.asarray(y) - middle) / (high - low)


def test_ranks_and_levels():
    x = np.arange(1.0, 10.0)
    assert_allclose(conformal_quantiles(x, conformal_levels(9)), x, rtol=1e-14)
    assert_allclose(conformal_quantiles(x, [0.05, 0.25, 1.1]), [1 - 0.5 * 8, 2.5, 9 + 2 * 8], rtol=1e-12)
    assert [conformal_rank(99, level) for level in (0.95, 0.951, 0.05)] == [95, 96, 5]
    assert conformal_levels(500)[[0, -1]].tolist() == [1 / 501, 500 / 501] and len(conformal_levels(500)) == 201


def test_split_quantiles_by_hand():
    x = np.random.default_rng(0).gamma(2.0, size=300)
    found = ps.Conformal(ps.ARMA(order=(1, 0)), calibration_share=0.33).fit(x)
    model = ps.ARMA(order=(1, 0)).fit(x[:201])
    known = np.sort(residuals(model.predictive(x[201:], history=x[:201]), x[201:]))
    assert found.n_calibration_ == 99
    new = x[:40] + 0.3
    base = model.predictive(new)
    low, middle, high = np.moveaxis(base.quantile([0.25, 0.5, 0.75]).values, -1, 0)
    for rank in (1, 5, 50, 95, 99):
        expected = middle + (high - low) * known[rank - 1]
        assert_allclose(found.predictive(new).quantile(rank / 100), expected, rtol=1e-9)
    assert_allclose(found.interval(new, 0.9), found.predictive(new).quantile([0.05, 0.95]), rtol=1e-12)
    assert_allclose(found.predict(new), found.predictive(new).median(), rtol=1e-12)


def test_quantiles_of_several_steps_are_those_of_forecasts_from_every_origin():
    y = AR.sample(260, random_state=0).values
    found = ps.Conformal(ps.ARMA(order=(1, 0)), calibration_share=0.4).fit(y)
    model = ps.ARMA(order=(1, 0)).fit(y[:156])
    bands = found.forecast(3)
    base = model.forecast(3, history=y)
    low, middle, high = np.moveaxis(base.quantile([0.25, 0.5, 0.75]).values, -1, 0)
    for ahead in (1, 3):
        known = [
            float(residuals(model.forecast(ahead, history=y[:origin]), np.full(ahead, y[origin + ahead - 1]))[-1])
            for origin in range(156, 260 - ahead + 1)
        ]
        at = ahead - 1
        levels = np.array([10, 51, 93]) / 103  # of the grid that the 102 origins of the third step allow
        expected = middle[at] + (high[at] - low[at]) * conformal_quantiles(np.sort(known), levels)
        assert_allclose(bands.quantile(levels)[at], expected, rtol=1e-7)
    assert_allclose(found.predict(horizon=3), bands.median())
    assert_array_equal(bands["time"] if hasattr(bands, "time") else bands.median()["time"], base.mean()["time"])


def test_split_bands_cover_whatever_the_model():
    """A new value lies in the band of 90 % with probability 0.9 exactly, over held-out and new values together."""
    rng = np.random.default_rng(0)
    shares, m = [], 100
    for _ in range(60):
        found = ps.Conformal(ps.IID()).fit(rng.standard_t(2, 50) ** 3, calibration=rng.standard_t(2, 99) ** 3)
        new = rng.standard_t(2, m) ** 3
        inside = found.interval(new, 0.9).values
        shares.append(np.mean((new >= inside[:, 0]) & (new <= inside[:, 1])))
    # Given the held-out values the cover is Beta(90, 10), with the first variance; new values add the binomial one.
    spread = 0.9 * 0.1 / 101 + 0.9 * 0.1 / m
    assert abs(np.mean(shares) - 0.9) < 3 * np.sqrt(spread / 60)


def test_adaptive_levels_by_hand():
    rng = np.random.default_rng(0)
    known, new, levels = rng.normal(size=30), rng.normal(1.0, 2.0, size=25), np.array([0.1, 0.5, 0.9])
    new[4] = np.nan
    found = AdaptiveQuantiles(known, levels, 0.05).along(new)
    at, pool = levels.copy(), known.tolist()
    for value, said in zip(new, found, strict=True):
        expected = conformal_quantiles(np.sort(pool), at)
        assert_allclose(said, expected, rtol=1e-12)
        if not np.isnan(value):
            at = at + 0.05 * (levels - (value <= expected))
            pool = [*pool[1:], value]


def test_adaptive_bands_keep_their_frequency_where_a_series_shifts():
    rng = np.random.default_rng(0)
    scale = np.repeat([1.0, 4.0, 0.5, 3.0], 500)
    y = rng.normal(size=2000) * scale
    before = rng.normal(size=400)
    covers = {}
    for method in ("split", "adaptive"):
        found = ps.Conformal(ps.IID(), method, step_size=0.05).fit(before)
        low, high = np.moveaxis(found.interval(y, 0.9, history=ps.TRAINING).values, -1, 0)
        inside = (y >= low) & (y <= high)
        covers[method] = [inside[scale == s].mean() for s in (1.0, 4.0, 0.5, 3.0)]
        if method == "adaptive":
            # Each bound errs by at most (range of its level + step) / (T step); the range stays below two here.
            assert abs(inside.mean() - 0.9) < 2 * 2.05 / (2000 * 0.05)
    assert covers["split"][1] < 0.5 and covers["split"][2] > 0.98
    assert all(abs(cover - 0.9) < 0.05 for cover in covers["adaptive"])


def test_what_adaptive_bands_learn_in_prediction_they_forget():
    y = np.random.default_rng(0).normal(size=200)
    found = ps.Conformal(ps.IID(), "adaptive").fit(y)
    first = found.interval(y * 5, 0.9)
    assert_array_equal(found.interval(y * 5, 0.9), first)
    assert float(first[-1, 1]) > float(first[0, 1]) + 1.0
    assert found.forecast(2).interval(0.9).shape == (2, 2)
    with pytest.raises(ShapeError, match="adaptive"):
        ps.Conformal(ps.IID(), "adaptive").fit([y, y])


def test_sequences_variables_counts_and_names():
    rng = np.random.default_rng(0)
    frames = {f"s{i}": pd.DataFrame(rng.normal(size=(30, 2)) * [1, 9], columns=["a", "b"]) for i in range(6)}
    found = ps.Conformal(ps.IID()).fit(frames)
    bands = found.forecast(2).interval(0.9)
    assert bands.dims == ("sequence", "time", "variable", "bound") and bands["variable"].values.tolist() == ["a", "b"]
    assert found.n_calibration_ == 60
    width = np.diff(bands.isel(sequence=0, time=0).values)[:, 0]
    assert 5 < width[1] / width[0] < 14
    counts = ps.Conformal(ps.IID(ps.Poisson())).fit(rng.poisson(0.2, size=300))
    low, high = counts.forecast(1).interval(0.9).values[0]
    assert low <= 0 <= high and high >= 1
    gaps = rng.normal(size=300)
    gaps[::7] = np.nan
    assert np.isfinite(ps.Conformal(ps.IID()).fit(gaps).interval(gaps)).all()


def test_paths_keep_the_memory_of_the_model():
    y = AR.sample(400, random_state=0)
    bands = ps.Conformal(ps.ARMA(order=(1, 0))).fit(y).forecast(2)
    paths = bands.sample(4000, random_state=0).values
    assert abs(np.corrcoef(paths.T)[0, 1] - 0.8 / np.sqrt(1 + 0.8**2)) < 0.06
    assert_allclose(np.quantile(paths, [0.1, 0.5, 0.9], axis=0).T, bands.quantile([0.1, 0.5, 0.9]), atol=0.12)


def test_no_likelihood_and_no_quantile_that_is_not_known():
    y = np.random.default_rng(0).normal(size=100)
    found = ps.Conformal(ps.IID(), calibration_share=0.2).fit(y)
    for ask in (found.log_prob, found.log_prob_steps, found.score, found.predictive(y).log_prob):
        with pytest.raises(UnsupportedError):
            ask(y)
    with pytest.raises(DataError, match="levels from"):
        found.forecast(1).interval(0.95)
    table = ps.compare({"conformal": found, "plain": ps.IID().fit(y)}, y[:30]).table
    assert np.isnan(table.loc["conformal", "nats"]) and table.loc["conformal", "note"]
    assert table["crps"].notna().all()


def test_arguments_and_clones():
    y = np.random.default_rng(0).normal(size=100)
    for arguments in (
        {"method": "jackknife"},
        {"calibration_share": 0.0},
        {"step_size": 2.0},
        {"model": ps.IID},
    ):
        with pytest.raises(ParameterError, match=next(iter(arguments))):
            ps.Conformal(**{"model": ps.IID(), **arguments}).fit(y)
    with pytest.raises(DataError, match="at least 19"):
        ps.Conformal(ps.IID()).fit(y[:40])
    with pytest.raises(UnsupportedError, match="categories"):
        ps.Conformal(ps.MarkovChain()).fit("ab" * 100)
    with pytest.raises(NotFittedError):
        ps.Conformal(ps.IID()).forecast(1)
    found = ps.Conformal(ps.IID()).fit(y)
    with pytest.raises(ParameterError):
        found.predict()
    assert not hasattr(clone(found), "estimator_") and found.get_params()["model__emission"] is None
