"""Tests, responses and pictures of ARMA fits; missing values and outliers against dense normal laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.stats.stattools import jarque_bera as peer_jarque_bera
from statsmodels.tsa.arima_process import ArmaProcess
from statsmodels.tsa.stattools import acf, pacf

import probseq as ps
from probseq.errors import EmptyDataError, ParameterError, UnsupportedError
from probseq.evaluation.whiteness import (
    autocorrelations,
    heteroskedasticity,
    jarque_bera,
    ljung_box,
    partial_autocorrelations,
)

AR, MA, SCALE, MEAN = [0.6, -0.2], [0.4], 1.3, 5.0


@pytest.fixture(scope="module")
def known() -> ps.ARMA:
    return ps.ARMA(order=(2, 0, 1)).with_parameters(ar=AR, ma=MA, mean=MEAN, scale=SCALE)


@pytest.fixture(scope="module")
def integrated() -> ps.ARMA:
    return ps.ARMA(order=(1, 1, 1)).with_parameters(ar=[0.5], ma=[0.3], scale=0.7)


def process() -> ArmaProcess:
    return ArmaProcess(np.r_[1, -np.array(AR)], np.r_[1, MA])


def with_gaps(x: np.ndarray, *steps: int) -> np.ndarray:
    out = x.copy()
    out[list(steps)] = np.nan
    return out


# what all the data say about missing values --------------------------------------------------------------------------


def test_missing_values_have_the_conditional_normal_law(known: ps.ARMA) -> None:
    rng = np.random.default_rng(0)
    y = with_gaps(MEAN + rng.normal(size=40), 0, 7, 8, 9, 25, 39)
    gamma = SCALE**2 * process().acovf(40)
    cov = gamma[np.abs(np.subtract.outer(np.arange(40), np.arange(40)))]
    gone = np.isnan(y)
    gain = cov[gone][:, ~gone] @ np.linalg.inv(cov[~gone][:, ~gone])
    mean = MEAN + gain @ (y[~gone] - MEAN)
    left = cov[gone][:, gone] - gain @ cov[~gone][:, gone]
    found = known.impute(y)
    assert_allclose(found.values[gone], mean, rtol=1e-9)
    assert_allclose(found.values[~gone], y[~gone], rtol=0)
    assert_allclose(found["std"].values[gone], np.sqrt(np.diag(left)), rtol=1e-9)
    assert (found["std"].values[~gone] == 0).all()
    paths = known.impute(y, 20_000, random_state=0).values[:, gone]
    assert_allclose(paths.mean(0), mean, atol=5 * np.sqrt(np.diag(left) / 20_000).max())
    assert_allclose(np.cov(paths.T), left, atol=0.06)


def test_missing_values_of_differenced_series(integrated: ps.ARMA) -> None:
    rng = np.random.default_rng(1)
    y = with_gaps(np.cumsum(rng.normal(size=30)), 0, 4, 5, 29)
    # The inverse covariance of the levels, with an infinite variance of the first.
    gamma = 0.49 * ArmaProcess([1, -0.5], [1, 0.3]).acovf(30)
    step = np.diff(np.eye(30), axis=0)
    precision = step.T @ np.linalg.inv(gamma[np.abs(np.subtract.outer(np.arange(29), np.arange(29)))]) @ step
    gone = np.isnan(y)
    left = np.linalg.inv(precision[gone][:, gone])
    found = integrated.impute(y)
    assert_allclose(found.values[gone], -left @ precision[gone][:, ~gone] @ y[~gone], rtol=1e-9)
    assert_allclose(found["std"].values[gone], np.sqrt(np.diag(left)), rtol=1e-9)


def test_missing_values_behind_a_logarithm_and_of_many_series() -> None:
    model = ps.ARMA(order=(1, 0), transform=ps.Log()).with_parameters(ar=[0.8], mean=1.0, scale=0.3)
    plain = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.8], mean=1.0, scale=0.3)
    x = np.exp(1 + 0.3 * np.random.default_rng(2).normal(size=20))
    x[[3, 11]] = np.nan
    logs = plain.impute(np.log(x))
    mu, sd = logs.values[[3, 11]], logs["std"].values[[3, 11]]
    found = model.impute([x, x[:9]])
    assert found.dims == ("sequence", "time")
    assert_allclose(found.values[0, [3, 11]], np.exp(mu + sd**2 / 2), rtol=1e-10)
    assert_allclose(found["std"].values[0, [3, 11]], np.exp(mu + sd**2 / 2) * np.sqrt(np.expm1(sd**2)), rtol=1e-9)
    assert np.isfinite(found.values[1, :9]).all() and np.isnan(found.values[1, 9:]).all()


def test_covariates_and_parameter_draws_reach_missing_values() -> None:
    rng = np.random.default_rng(3)
    u = rng.normal(size=(60, 1))
    y = 2 * u[:, 0] + rng.normal(size=60)
    y[30] = np.nan
    model = ps.ARMA(order=(1, 0), inference=ps.Laplace(n_draws=30), random_state=0).fit(y, covariates=u)
    found = model.impute(y, covariates=u)
    assert abs(found.values[30] - 2 * u[30, 0]) < 1.2
    assert 0.7 < float(found["std"][30]) < 1.4


def test_too_little_is_seen(known: ps.ARMA, integrated: ps.ARMA) -> None:
    with pytest.raises(EmptyDataError, match="seen"):
        known.impute(np.full(5, np.nan))
    with pytest.raises(EmptyDataError):
        integrated.impute([1.0])
    with pytest.raises(ParameterError, match="n_draws"):
        known.impute([1.0, np.nan], 0)
    differenced = ps.ARMA(order=(1, 0), transform=ps.Difference()).with_parameters(ar=[0.5], mean=0.0, scale=1.0)
    with pytest.raises(UnsupportedError, match="Difference"):
        differenced.impute([1.0, 2.0, 3.0])


# outliers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["additive", "level", "temporary", "innovational"])
def test_planted_outliers_are_found_by_kind(known: ps.ARMA, kind: str) -> None:
    y = known.sample(200, random_state=4).values.copy()
    after = np.arange(100)
    effect = {
        "additive": (after == 0).astype(float),
        "level": np.ones(100),
        "temporary": 0.7**after,
        "innovational": known.impulse_response(99).values,
    }[kind]
    y[100:] += 12 * effect
    found = known.outliers(y)
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["time"], row["kind"]) == (100, kind)
    assert abs(row["size"] - 12) < 3 * row["std_error"]


def test_size_and_error_of_an_additive_outlier_are_those_of_its_law(known: ps.ARMA) -> None:
    # The size is the value less its expectation given all others.
    y = known.sample(80, random_state=5).values.copy()
    y[40] += 15
    row = known.outliers(y, threshold=4).iloc[0]
    others = known.impute(with_gaps(y, 40))
    assert row["kind"] == "additive"
    assert_allclose(row["size"], y[40] - others.values[40], rtol=1e-9)
    ratio = row["std_error"] / float(others["std"][40])
    assert 0.7 < ratio < 1.4 and row["t"] == row["size"] / row["std_error"]


def test_outliers_of_many_differenced_series_with_gaps(integrated: ps.ARMA) -> None:
    moves = ps.ARMA(order=(1, 1)).with_parameters(ar=[0.5], ma=[0.3], mean=0.0, scale=0.7)
    first, second = (np.cumsum(moves.sample(120, random_state=seed).values) for seed in (6, 7))
    first[60:] += 9
    second[50] = np.nan
    table = integrated.outliers([first, second])
    assert list(table.columns) == ["sequence", "time", "kind", "size", "std_error", "t"]
    assert (0, 60, "level") in set(table[["sequence", "time", "kind"]].itertuples(index=False, name=None))
    assert not ((table["sequence"] == 1) & (table["time"] == 50)).any()


def test_no_outliers_and_bad_thresholds(known: ps.ARMA) -> None:
    quiet = known.outliers(known.sample(100, random_state=8).values, threshold=8)
    assert len(quiet) == 0 and list(quiet.columns) == ["time", "kind", "size", "std_error", "t"]
    with pytest.raises(ParameterError, match="threshold"):
        known.outliers([1.0, 2.0, 3.0], threshold=-1)


def test_nile_changes_its_level_in_1899() -> None:
    # The first dam of Aswan, and the dry year 1913: Durbin and Koopman (2012), section 2.12.
    from statsmodels.datasets import nile

    y = pd.Series(nile.load_pandas().data["volume"].to_numpy(), index=pd.period_range("1871", periods=100, freq="Y"))
    table = ps.ARMA(order=(0, 1, 1)).fit(y).outliers(y, threshold=3)
    found = [(str(time), kind) for time, kind in zip(table["time"], table["kind"])]
    assert found == [("1899", "level"), ("1913", "additive")]
    assert -400 < table["size"].iloc[0] < -200


# tests of residuals ---------------------------------------------------------------------------------------------------


def test_tests_equal_those_of_statsmodels() -> None:
    z = np.random.default_rng(9).standard_t(5, size=150)
    assert_allclose(autocorrelations(z, 12), acf(z, nlags=12)[1:], rtol=1e-12)
    assert_allclose(partial_autocorrelations(autocorrelations(z, 12)), pacf(z, nlags=12, method="ldb")[1:], rtol=1e-10)
    peer = acorr_ljungbox(z, lags=[10], model_df=2)
    assert_allclose(ljung_box(z, 10, 2)[::2], peer.to_numpy()[0], rtol=1e-10)
    assert_allclose(jarque_bera(z)[::2], peer_jarque_bera(z)[:2], rtol=1e-10)
    h, df, p = heteroskedasticity(z)
    assert_allclose(h, (z[-50:] ** 2).sum() / (z[:50] ** 2).sum(), rtol=1e-12)
    assert df == 50 and p == pytest.approx(2 * min(stats.f.cdf(h, 50, 50), stats.f.sf(h, 50, 50)))


def test_pairs_across_sequences_and_gaps_do_not_count() -> None:
    a, b = np.random.default_rng(10).normal(size=(2, 40))
    both = np.r_[a, b] - np.r_[a, b].mean()
    wanted = (both[:39] @ both[1:40] + both[40:79] @ both[41:]) / (both @ both)
    assert_allclose(autocorrelations(np.r_[a, b], 1, (40,)), [wanted], rtol=1e-12)
    holes = np.r_[a, np.nan, b]
    assert_allclose(autocorrelations(holes, 1), [wanted], rtol=1e-12)


def test_diagnose_knows_a_right_model_from_a_wrong_one() -> None:
    y = ps.ARMA(order=(2, 0)).with_parameters(ar=[0.3, 0.5], mean=0.0, scale=1.0).sample(400, random_state=11)
    right, wrong = (ps.ARMA(order=order).fit(y).diagnose(y) for order in ((2, 0), (1, 0)))
    assert list(right.index) == ["Ljung-Box, 10 lags", "Ljung-Box of squares, 10 lags", "Jarque-Bera", "H"]
    assert right.loc["Ljung-Box, 10 lags", "df"] == 8
    assert (right["p_value"] > 0.01).all()
    assert wrong.loc["Ljung-Box, 10 lags", "p_value"] < 1e-6


def test_diagnose_by_series_season_and_bad_lags() -> None:
    y = np.log(ps.datasets.air_passengers().values.ravel())
    model = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12)).fit(y)
    assert [name for name in model.diagnose(y).index if name.startswith("Ljung-Box,")] == [
        "Ljung-Box, 10 lags",
        "Ljung-Box, 24 lags",
    ]
    table = model.diagnose({"a": y, "b": y[:100]}, lags=[5, 12])
    assert table.index.names == ["sequence", "test"] and len(table.loc["b"]) == 5
    with pytest.raises(ParameterError, match="lags"):
        model.diagnose(y, lags=0)


# what the parameters mean ---------------------------------------------------------------------------------------------


def test_response_autocorrelation_and_spectrum(known: ps.ARMA, integrated: ps.ARMA) -> None:
    assert_allclose(known.impulse_response(10).values, process().impulse_response(11), rtol=1e-12)
    assert_allclose(known.autocorrelation(10).values, process().acf(11), rtol=1e-10)
    spectrum = known.spectrum(2001)
    assert_allclose(
        2 * np.trapezoid(spectrum.values, spectrum["frequency"]), SCALE**2 * process().acovf(1)[0], rtol=1e-5
    )
    levels = np.cumsum(ArmaProcess([1, -0.5], [1, 0.3]).impulse_response(8))
    assert_allclose(integrated.impulse_response(7).values, levels, rtol=1e-12)
    assert_allclose(integrated.impulse_response(7, cumulative=True).values, np.cumsum(levels), rtol=1e-12)
    for wrong in (0, 1.5, True):
        with pytest.raises(ParameterError, match="n_steps"):
            known.impulse_response(wrong)


def test_draws_have_a_dimension() -> None:
    y = np.random.default_rng(12).normal(size=50)
    model = ps.ARMA(order=(1, 0), inference=ps.Laplace(n_draws=7), random_state=0).fit(y)
    assert model.impulse_response(3).dims == ("draw", "horizon") and model.spectrum(5).shape == (7, 5)
    with pytest.raises(UnsupportedError, match="draws"):
        model.outliers(y)


def test_picture_has_nine_panels(known: ps.ARMA) -> None:
    import matplotlib.pyplot as plt

    y = known.sample(90, random_state=13)
    axes = known.plot_diagnostics(y)
    assert axes.shape == (9,) and all(ax.has_data() for ax in axes)
    figure, given = plt.subplots(3, 3)
    assert known.plot_diagnostics([y.values, y.values[:50]], ax=given)[0] is given[0, 0]
    with pytest.raises(ParameterError, match="Expected 9 axes"):
        known.plot_diagnostics(y, ax=given[0])
    plt.close("all")
