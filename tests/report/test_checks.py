from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.stats.proportion import proportion_confint

from probseq.report.checks import residual_check, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 24), (20, 24), (24, 24), (437, 500)])
def test_wilson_intervals_are_those_of_statsmodels(hits, n):
    np.testing.assert_allclose(wilson(hits, n), proportion_confint(hits, n, method="wilson"), atol=1e-12)


def check(z):
    return residual_check(SimpleNamespace(residuals=lambda name: np.asarray(z, float)), "m")


def test_right_residuals_raise_no_alarm():
    found = check(np.random.default_rng(4).normal(size=300))
    assert found.verdict == "no sign of trouble in 300 values"
    assert min(found.ljung_box, found.berkowitz) > 0.05


def test_ljung_box_is_that_of_statsmodels():
    z = np.random.default_rng(1).normal(size=80)
    found = check(z)
    assert found.lags == 10
    assert found.ljung_box == pytest.approx(float(acorr_ljungbox(z, lags=[10])["lb_pvalue"].iloc[0]), rel=1e-10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda z: special.ndtri(stats.norm.cdf(z) * 0.98 + 0.01) * 1.6, "too sure of itself"),
        (lambda z: z * 0.6, "too cautious"),
        (lambda z: z + 0.5, "came higher than predicted"),
        (lambda z: z - 0.5, "came lower than predicted"),
        (lambda z: np.convolve(z, [1, 0.8], "same") / 1.28, "neighbours resemble"),
        (lambda z: np.convolve(z, [1, -0.8], "same") / 1.28, "neighbours alternate"),
    ],
)
def test_each_fault_is_named(make, words):
    assert words in check(make(np.random.default_rng(2).normal(size=400))).verdict


def test_the_mean_is_judged_by_a_t_test():
    z = np.random.default_rng(5).normal(size=12)
    z = (z - z.mean()) / z.std(ddof=1)
    edge = stats.t.ppf(0.975, 11) / np.sqrt(12)
    assert not check(z + 0.99 * edge).faults
    assert check(z + 1.01 * edge).faults == ["values came higher than predicted on average"]


def test_few_or_missing_values_are_not_tested():
    z = np.random.default_rng(3).normal(size=11)
    assert check(z).verdict == "too few values (11) to test"
    assert check([0.3, np.nan]) is None
    assert check(np.full(30, 0.4)).verdict == "all errors are equal"
    alternate = np.where(np.arange(40) % 2, np.nan, np.random.default_rng(3).normal(size=40))
    assert np.isnan(check(alternate).berkowitz) and not np.isnan(check(alternate).ljung_box)
    holes = np.random.default_rng(3).normal(size=40)
    holes[5:9] = np.nan
    assert check(holes).n == 36
