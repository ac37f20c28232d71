import numpy as np
import pytest
from scipy import special, stats

from probseq.errors import EmptyDataError, ParameterError
from probseq.evaluation import coverage, pit, pit_histogram, uniformity_test


def test_coverage_leaves_out_missing_values():
    assert coverage([1.0, 5.0, np.nan, 2.0], 0.0, [2.0, 2.0, 2.0, 2.0]) == pytest.approx(2 / 3)
    with pytest.raises(EmptyDataError):
        coverage([np.nan], 0.0, 1.0)


def test_pit_of_counts_is_uniform_when_the_law_is_right():
    rng = np.random.default_rng(0)
    rate = rng.gamma(2, size=5000)
    y = rng.poisson(rate)

    def p_value(predicted):
        below = np.where(y > 0, special.pdtr(np.maximum(y - 1, 0), predicted), 0.0)
        return uniformity_test(pit(special.pdtr(y, predicted), below, rng.uniform(size=y.size))).p_value

    assert p_value(rate) > 0.01
    assert p_value(1.3 * rate) < 1e-6


def test_pit_bounds_and_mistakes():
    np.testing.assert_array_equal(pit([0.2, np.nan]), [0.2, np.nan])
    assert pit(0.6, 0.2, 0.0) == 0.2
    assert pit(0.6, 0.2, 1.0) == pytest.approx(0.6)
    assert pit(0.6, 0.2) == pytest.approx(0.4)
    with pytest.raises(ParameterError, match="never decreases"):
        pit(0.2, 0.6, 0.5)
    with pytest.raises(ParameterError, match="uniform"):
        pit(0.6, 0.2, 1.5)


def test_histogram_is_a_density_with_a_binomial_band():
    u = np.array([0.0, 0.05, 0.1, 0.55, 0.99, 1.0, np.nan, 0.31])
    found = pit_histogram(u, n_bins=5)
    np.testing.assert_allclose(found.density, np.array([3, 1, 1, 0, 2]) * 5 / 7)
    assert found.n_values == 7
    law = stats.binom(7, 1 / 5)
    assert (found.lower, found.upper) == pytest.approx((law.ppf(0.025) * 5 / 7, law.ppf(0.975) * 5 / 7))
    with pytest.raises(ParameterError, match="1.2"):
        pit_histogram([0.5, 1.2])
    with pytest.raises(EmptyDataError):
        pit_histogram([np.nan])


def test_uniformity_is_scipys_exact_test():
    u = np.random.default_rng(2).beta(1.2, 1.0, size=37)
    expected = stats.kstest(u, "uniform")
    found = uniformity_test(u)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-15)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


def test_histograms_refuse_levels_and_bins_that_are_none():
    with pytest.raises(ParameterError, match=r"Write 0\.95"):
        pit_histogram([0.1, 0.2], level=95)
    with pytest.raises(ParameterError, match="n_bins"):
        pit_histogram([0.1, 0.2], n_bins=0)
