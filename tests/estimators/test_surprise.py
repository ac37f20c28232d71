"""Surprise and its thresholds: by hand, every family, and the share of false alarms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import probseq as ps
from probseq.errors import DataError, ParameterError
from probseq.testing.registry import ROWS

STANDARD = ps.IID().with_parameters(mean=[0.0], scale=[1.0])


def test_surprise_by_hand():
    x = np.array([0.5, np.nan, -3.0])
    assert_allclose(STANDARD.surprise(x), -stats.norm.logpdf(x))
    assert_array_equal(np.isnan(ps.RandomWalk().with_parameters(scale=[1.0]).surprise([1.0, 2.0])), [True, False])


def test_surprise_of_each_variable_by_hand():
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([0.0, 1.0], [[1.0, 0.8], [0.8, 2.0]], size=50)
    model = ps.IID(ps.Normal("full")).fit(x)
    each = model.surprise(x, per="variable")
    assert each.dims == ("time", "variable")
    assert_allclose(each, -stats.norm.logpdf(x, x.mean(0), x.std(0)), rtol=1e-9)
    assert float(each.sum()) > float(model.surprise(x).sum()) + 1.0


@pytest.mark.parametrize("row", [r for r in ROWS if r.name in ("HMM diag", "LSTM diag", "ARMA", "HMM Product")])
def test_surprise_is_minus_the_score_of_every_family(row):
    x = row.values(seed=1)
    assert_allclose(row.fitted.surprise(x), -row.fitted.log_prob_steps(x), rtol=1e-12)
    each = row.fitted.surprise(x, per="variable")
    assert each.shape == (len(x), row.n_variables) if row.n_variables > 1 else (len(x),)
    assert np.isfinite(each).all()


def test_the_threshold_is_the_conformal_quantile():
    x = np.arange(1.0, 100.0)  # 99 values: rank ceil(100 * 0.95) = 95
    assert_allclose(STANDARD.surprise_threshold(x, 0.05), -stats.norm.logpdf(95.0))
    assert_allclose(STANDARD.surprise_threshold(x, 0.01), -stats.norm.logpdf(99.0))
    with pytest.raises(DataError, match="at least 199"):
        STANDARD.surprise_threshold(x, 0.005)


def test_false_alarms_are_as_rare_as_promised_whatever_the_model():
    """Data with heavy tails that the model does not have: the mean rate of false alarms is that asked for."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        usual, new = rng.standard_t(2, size=49), rng.standard_t(2, size=40)
        found = STANDARD.anomalies(new, STANDARD.surprise(usual), rate=0.1)
        shares.append(float(found.anomaly.mean()))
        assert_array_equal(found.anomaly, found.surprise > STANDARD.surprise_threshold(usual, 0.1))
    assert abs(np.mean(shares) - 0.1) < 0.01  # the rate is exact where (n + 1) rate is whole


def test_anomalies_keep_labels_and_missing_values():
    usual = STANDARD.surprise(np.linspace(-2.0, 2.0, 99))
    x = [np.array([0.1, np.nan, 9.0]), np.array([-9.0])]
    found = STANDARD.anomalies(x, usual, rate=0.05)
    assert found.anomaly.dims == ("sequence", "time")
    assert_array_equal(found.anomaly, [[False, False, True], [True, False, False]])
    assert_allclose(found.p_value[0], [(1 + 94) / 100, np.nan, 0.01], atol=0.02)
    assert np.isnan(found.p_value[1, 1:]).all()


@pytest.mark.parametrize("rate", [0.0, 1.0, 5, True, "1 %"])
def test_rates(rate):
    with pytest.raises(ParameterError):
        STANDARD.surprise_threshold([0.0], rate)


def test_bad_arguments():
    with pytest.raises(ParameterError):
        STANDARD.surprise([0.0], per="day")
    with pytest.raises(DataError):
        STANDARD.anomalies([0.0], [np.nan])
