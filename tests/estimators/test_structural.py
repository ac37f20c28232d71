"""Local levels and trends for users: components, outliers, missing values, draws."""

import numpy as np
import pytest
import statsmodels.api as sm

import probseq as ps
from probseq.errors import ParameterError, UnsupportedError


def nile():
    return sm.datasets.nile.load_pandas().data["volume"].astype(float)


def test_smooth_gives_components_that_add_up():
    y = np.log(ps.datasets.air_passengers().values.astype(float).ravel())
    y[[10, 50, 51]] = np.nan
    u = np.random.default_rng(0).normal(size=(len(y), 1))
    model = ps.LocalTrend(period=12).fit(y, covariates=u)
    found = model.smooth(y, covariates=u)
    assert found["level"].dims == ("time",)
    total = found["level"] + found["seasonal"] + found["regression"]
    np.testing.assert_allclose(total, found["signal"], atol=1e-10)
    assert bool((found["level_std"] > 0).all()) and float(abs(found["regression_std"]).max()) == 0.0
    for name in ("irregular_z", "level_z", "slope_z", "seasonal_z"):
        assert np.isfinite(found[name]).all()


def test_disturbances_mark_the_outlier_and_the_shift():
    """The Aswan dam shifted the level of the Nile after 1898 (step 27); 1877 and 1913 (6, 42) were droughts."""
    y = nile()
    model = ps.LocalLevel().with_parameters(scale=122.9, level_scale=38.33)
    found = model.smooth(y)
    assert int(np.argmax(np.abs(found["level_z"].values))) == 27
    assert set(np.argsort(-np.abs(found["irregular_z"].values))[:2]) == {6, 42}


def test_impute_equals_the_smoothed_signal_and_keeps_seen_values():
    y = nile()
    y[[20, 21, 22]] = np.nan
    model = ps.LocalLevel(random_state=0).fit(y)
    filled, found = model.impute(y), model.smooth(y)
    np.testing.assert_allclose(filled[[20, 21, 22]], found["signal"][[20, 21, 22]], rtol=1e-12)
    np.testing.assert_array_equal(filled[:20], y[:20])
    draws = model.impute(y, n_draws=300)
    assert draws.dims == ("path", "time") and bool((draws[:, 0] == y[0]).all())
    spread = float(draws[:, 21].std())
    expected = float(np.hypot(found["signal_std"][21], model.params_["scale"]))
    assert spread == pytest.approx(expected, rel=0.15)
    assert float(filled["std"][21]) == pytest.approx(expected, rel=1e-10) and float(filled["std"][0]) == 0
    assert not model.impute(y[:20])["std"].any()
    with pytest.raises(ParameterError, match="n_draws=0"):
        model.impute(y, n_draws=0)


def test_impute_behind_a_logarithm_is_the_mean_of_a_lognormal():
    y = nile()
    y[50] = np.nan
    model = ps.LocalLevel(transform=ps.Log()).fit(y)
    found = model.smooth(y)
    variance = float(found["signal_std"][50]) ** 2 + float(model.params_["scale"]) ** 2
    expected = np.exp(float(found["signal"][50]) + 0.5 * variance)
    assert float(model.impute(y)[50]) == pytest.approx(expected, rel=1e-10)
    differenced = ps.LocalLevel(transform=ps.Difference()).fit(nile())
    with pytest.raises(UnsupportedError, match="Difference"):
        differenced.impute(nile())


def test_smooth_averages_over_draws():
    y = nile()[:40]
    model = ps.LocalLevel(inference=ps.Laplace(n_draws=20), random_state=0).fit(y)
    found, point = model.smooth(y), ps.LocalLevel().fit(y).smooth(y)
    assert found["level"].dims == ("time",)
    assert float(abs(found["level"] - point["level"]).max()) < float(point["level_std"].max())


def test_ragged_panel_leaves_padding_empty():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=t).cumsum() for t in (30, 20)]
    model = ps.LocalLevel().fit(parts)
    found = model.smooth(parts)
    assert found["level"].dims == ("sequence", "time")
    assert np.isnan(found["level"][1, 20:]).all() and np.isfinite(found["level"][1, :20]).all()
    np.testing.assert_allclose(found["level"][1, :20], model.smooth(parts[1])["level"], rtol=1e-10)


def test_saved_models_come_back(tmp_path):
    y = nile()
    model = ps.LocalTrend(damped=True).fit(y)
    model.save(tmp_path / "model.probseq")
    again = ps.load(tmp_path / "model.probseq")
    np.testing.assert_array_equal(again.smooth(y)["level"], model.smooth(y)["level"])
