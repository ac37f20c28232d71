import numpy as np
import pytest
from scipy import signal, stats

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import clustered_mean, hac_mean, paired_difference


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    x = np.zeros(80)
    for t in range(1, 80):
        x[t] = 0.6 * x[t - 1] + rng.normal()
    return x + 0.3


def test_without_lags_it_is_the_t_test(series):
    found, expected = hac_mean(series, lag=0), stats.ttest_1samp(series, 0)
    assert found.standard_error == pytest.approx(series.std(ddof=1) / np.sqrt(80), rel=1e-13)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-11)
    assert found.interval(0.9) == pytest.approx(tuple(expected.confidence_interval(0.9)), rel=1e-11)


@pytest.mark.parametrize("lag", [1, 4, 12])
def test_with_lags_it_is_newey_and_west_of_statsmodels(series, lag):
    import statsmodels.api as sm

    fit = sm.OLS(series, np.ones(80)).fit(cov_type="HAC", cov_kwds={"maxlags": lag})
    n, h = 80, lag + 1
    correction = np.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    found = hac_mean(series, lag)
    assert found.standard_error == pytest.approx(fit.bse[0] / correction, rel=1e-11)
    assert found.df == pytest.approx(1.5 * n / h)


def test_default_lag_and_flags(series):
    assert hac_mean(series) == hac_mean(series, lag=11)  # ceil(1.3 * sqrt(80)) - 1
    assert hac_mean(series[:2]).standard_error == pytest.approx(abs(series[0] - series[1]) / 2)
    assert hac_mean(series).reliable
    assert not hac_mean(series[:49]).reliable
    assert np.isnan(hac_mean(series[:1]).standard_error)
    assert np.isnan(hac_mean(series[:1]).p_value)
    with pytest.raises(ParameterError, match="lag=-1"):
        hac_mean(series, lag=-1)


def test_missing_values_keep_their_place_in_time():
    x = np.array([1.0, -1.0, np.nan, 1.0, -1.0, 1.0, -1.0])
    found = hac_mean(x, lag=1)
    # Sum of squares 6, products of neighbours -1 -1 -1 -1 (those across the gap do not exist): 6 + 2 * 1/2 * (-4) = 2.
    expected = np.sqrt(2 / 36 / ((6 + 1 - 4 + 2 / 6) / 6))
    assert (found.mean, found.n_values) == (0.0, 6)
    assert found.standard_error == pytest.approx(expected, abs=1e-15)
    with pytest.raises(EmptyDataError):
        hac_mean(np.array([np.nan]))


def test_the_interval_covers_the_mean_of_correlated_series():
    rng = np.random.default_rng(1)
    hits = {"default": 0, "short": 0, "naive": 0}
    for _ in range(400):
        x = signal.lfilter([1], [1, -0.7], rng.normal(size=320))[20:]
        for name, lag in (("default", None), ("short", 5), ("naive", 0)):
            low, high = hac_mean(x, lag).interval(0.9)
            hits[name] += low < 0 < high
    assert 345 <= hits["default"] <= 370  # 360 by its promise, of standard deviation 6
    assert hits["naive"] < 240 < hits["short"] < hits["default"]


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_two_errors_are_exceeded_in_two_to_ten_percent(phi):
    rng = np.random.default_rng(4)
    found = [hac_mean(signal.lfilter([1], [1, -phi], rng.normal(size=250))[50:]) for _ in range(2000)]
    share = np.mean([abs(one.mean) > 2 * one.standard_error for one in found])
    assert 0.035 < share < 0.075
    assert np.mean([one.p_value < 0.05 for one in found]) == pytest.approx(0.043, abs=0.014)


def test_what_is_not_finite_has_no_error():
    x = np.r_[np.zeros(60), -np.inf]
    for found in (hac_mean(x), clustered_mean(x, np.arange(61)), paired_difference(x[None], np.zeros((1, 61)))):
        assert found.mean == -np.inf and np.isnan(found.standard_error) and np.isnan(found.p_value)
    assert np.isnan(hac_mean([np.inf, -np.inf]).mean) and np.isnan(clustered_mean([np.inf, -np.inf], [0, 1]).mean)
    both = np.array([[0.0, -np.inf, 1.0]])
    assert np.isnan(paired_difference(both, both - 1.0).mean)


def test_clusters_agree_with_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(12), 7)
    x = rng.normal(size=84) + rng.normal(size=12)[group]
    fit = sm.OLS(x, np.ones(84)).fit(cov_type="cluster", cov_kwds={"groups": group, "use_correction": False})
    found = clustered_mean(x, group)
    assert found.standard_error == pytest.approx(fit.bse[0] * np.sqrt(12 / 11), rel=1e-12)
    assert found.df == 11
    assert found.reliable
    padded = np.concatenate([x.reshape(12, 7), np.full((12, 2), np.nan)], axis=1)
    assert clustered_mean(padded, np.arange(12)[:, None]) == pytest.approx(found)


def test_clusters_of_one_value_are_the_t_test():
    x = np.random.default_rng(3).normal(size=15)
    assert clustered_mean(x, np.arange(15)).standard_error == pytest.approx(x.std(ddof=1) / np.sqrt(15), rel=1e-13)
    assert np.isnan(clustered_mean(x, np.zeros(15)).standard_error)


def test_paired_difference_chooses_by_the_number_of_sequences(series):
    other = np.roll(series, 3)
    one = paired_difference(series[None], other[None])
    assert one.method == "hac"
    assert one == hac_mean(series - other)
    many = paired_difference(series.reshape(8, 10), other.reshape(8, 10))
    assert many == clustered_mean(series - other, np.repeat(np.arange(8), 10))
    padded = np.stack([np.full(80, np.nan), series, np.full(80, np.nan)])
    assert paired_difference(padded, np.zeros((3, 80))) == hac_mean(series)


def test_paired_difference_scores_the_intersection():
    a, b = np.array([[1.0, np.nan, 3.0], [2.0, 2.0, 2.0]]), np.array([[0.0, 1.0, np.nan], [1.0, 1.0, np.nan]])
    found = paired_difference(a, b)
    assert (found.mean, found.n_values, found.method) == (1.0, 3, "cluster")
    with pytest.raises(ShapeError):
        paired_difference(a, b[:, :2])


def test_equal_scores_are_not_a_difference():
    same = np.ones((1, 60))
    assert paired_difference(same, same).p_value == 1.0
    assert paired_difference(same, 2 * same).p_value == 0.0
