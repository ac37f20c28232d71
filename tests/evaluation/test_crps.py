import numpy as np
import pytest
from scipy import integrate, special, stats

from probseq.errors import ParameterError, ShapeError
from probseq.evaluation import (
    crps_discrete,
    crps_normal,
    crps_normal_mixture,
    crps_poisson,
    crps_quantile,
    crps_samples,
    crps_student_t,
    energy_score,
)

Y = np.array([-30.0, -2.5, -0.3, 0.0, 0.7, 3.0, 40.0])


def integral(y, cdf):
    below = integrate.quad(lambda x: cdf(x) ** 2, -np.inf, y, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
    return below + integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, np.inf, epsabs=1e-13, epsrel=1e-12, limit=400)[0]


@pytest.fixture(scope="module")
def oracle():
    import scoringrules

    return scoringrules


def test_normal_is_its_integral_and_agrees_with_scoringrules(oracle):
    expected = [integral(y, stats.norm(0.4, 1.7).cdf) for y in Y[1:-1]]
    np.testing.assert_allclose(crps_normal(Y[1:-1], 0.4, 1.7), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(crps_normal(Y, 0.4, 1.7), oracle.crps_normal(Y, 0.4, 1.7), rtol=1e-12, atol=1e-12)


def test_normal_at_its_mean_has_the_closed_form():
    # 2 phi(0) - 1 / sqrt(pi) = (sqrt(2) - 1) / sqrt(pi)
    assert crps_normal(2.0, 2.0, 3.0) == pytest.approx(3 * (np.sqrt(2) - 1) / np.sqrt(np.pi), abs=1e-14)


def test_a_point_forecast_scores_its_absolute_error():
    assert crps_normal(3.0, 1.0, 0.0) == 2.0
    assert crps_normal_mixture(3.0, [1.0], [1.0], [0.0]) == 2.0
    assert np.isnan(crps_normal(np.nan, 0.0, 1.0))


@pytest.mark.parametrize("df", [1.3, 2.0, 5.5, 80.0])
def test_student_t_agrees_with_scoringrules(oracle, df):
    expected = oracle.crps_t(Y, df, 0.4, 1.7)
    np.testing.assert_allclose(crps_student_t(Y, df, 0.4, 1.7), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("df", [2.5, 7.0])
def test_student_t_is_its_integral(df):
    expected = [integral(y, stats.t(df, 0.4, 1.7).cdf) for y in Y[1:-1]]
    np.testing.assert_allclose(crps_student_t(Y[1:-1], df, 0.4, 1.7), expected, rtol=0, atol=1e-8)


def test_student_t_ends():
    assert crps_student_t(0.3, 1.0) == np.inf
    assert np.isnan(crps_student_t(np.nan, 1.0))
    for df in (1e9, 1e15, np.inf):
        assert crps_student_t(0.3, df) == pytest.approx(crps_normal(0.3, 0, 1), abs=1e-8)


@pytest.mark.parametrize("rate", [0.05, 1.0, 7.3, 1e4])
def test_poisson_agrees_with_scoringrules_and_with_its_sum(oracle, rate):
    y = np.array([0.0, 1.0, np.floor(rate), np.floor(rate + 3 * np.sqrt(rate)), 3.0])
    score = crps_poisson(y, rate)
    np.testing.assert_allclose(score, crps_discrete(y, lambda k: special.pdtr(k, rate)), rtol=1e-10, atol=1e-11)
    if rate < 100:  # scoringrules overflows beyond
        np.testing.assert_allclose(score, oracle.crps_poisson(y, rate), rtol=1e-10, atol=1e-10)


def test_poisson_below_its_support():
    # F is 0 between -2 and 0, so the score grows by the distance to 0.
    assert crps_poisson(-2.0, 3.0) == pytest.approx(2 + crps_poisson(0.0, 3.0), abs=1e-12)
    assert crps_discrete(-2.0, lambda k: special.pdtr(k, 3.0)) == pytest.approx(crps_poisson(-2.0, 3.0), abs=1e-12)


def test_discrete_stops_at_any_shape_and_skips_missing():
    y = np.array([[0.0, np.nan], [4.0, 9.0]])
    p = np.array([[0.3, 0.4], [0.5, 0.9]])
    score = crps_discrete(y, lambda k: 1 - (1 - p) ** (k + 1))
    k = np.arange(400)
    for i, j in ((0, 0), (1, 0), (1, 1)):
        expected = ((1 - (1 - p[i, j]) ** (k + 1) - (y[i, j] <= k)) ** 2).sum()
        assert score[i, j] == pytest.approx(expected, abs=1e-11)
    assert np.isnan(score[0, 1])


def test_discrete_with_a_support_that_starts_elsewhere():
    law = stats.randint(5, 9)
    for y in (2, 5, 7, 12):
        k = np.arange(0, 30)
        expected = ((law.cdf(k) - (y <= k)) ** 2).sum()
        assert crps_discrete(y, law.cdf, lower=5) == pytest.approx(expected, abs=1e-12)


def test_discrete_refuses_an_endless_tail():
    with pytest.raises(ParameterError, match="falls faster"):
        crps_discrete(1.0, lambda k: 1 - 1 / (k + 2), max_terms=10_000)


def test_mixture_agrees_with_scoringrules_and_with_its_integral(oracle, monkeypatch):
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(5), size=(3, 2))
    means, stds, y = rng.normal(size=(3, 2, 5)), rng.gamma(2, size=(3, 2, 5)), rng.normal(size=(3, 2))
    score = crps_normal_mixture(y, weights, means, stds)
    np.testing.assert_allclose(score, oracle.crps_mixnorm(y, means, stds, weights), rtol=1e-12, atol=1e-12)
    cdf = lambda x: weights[1, 1] @ stats.norm.cdf(x, means[1, 1], stds[1, 1])  # noqa: E731
    assert score[1, 1] == pytest.approx(integral(y[1, 1], cdf), abs=1e-9)
    monkeypatch.setattr("probseq.evaluation.crps._BLOCK", 7)
    np.testing.assert_allclose(crps_normal_mixture(y, weights, means, stds), score, rtol=0, atol=1e-14)


def test_mixture_of_equal_components_is_one_normal():
    y = np.array([0.2, 1.5])
    score = crps_normal_mixture(y, np.full(40, 1 / 40), np.full(40, 0.3), np.full(40, 2.0))
    np.testing.assert_allclose(score, crps_normal(y, 0.3, 2.0), rtol=0, atol=1e-13)


def test_mixture_ignores_components_of_weight_zero():
    assert crps_normal_mixture(0.2, [1.0, 0.0], [0.3, np.nan], [2.0, np.inf]) == crps_normal(0.2, 0.3, 2.0)


@pytest.mark.parametrize("law", [stats.norm(1, 2), stats.t(1.7), stats.expon(), stats.lognorm(1.0)])
def test_quantile_quadrature_agrees_with_the_integral(law):
    y = np.array([0.05, 0.4, 1.3, 6.0])
    scipy_law = {"norm": lambda: crps_normal(y, 1, 2), "t": lambda: crps_student_t(y, 1.7)}.get(law.dist.name)
    expected = scipy_law() if scipy_law else np.array([integral(v, law.cdf) for v in y])
    np.testing.assert_allclose(crps_quantile(y, law.ppf, level=law.cdf(y)), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(crps_quantile(y, law.ppf), expected, rtol=0, atol=1e-9)


def test_quantile_quadrature_takes_y_outside_the_support():
    # Uniform on (0, 1): int (p - 1{y <= p})^2 dp, plus the distance of y from the support.
    y = np.array([-2.0, 0.25, 3.0])
    expected = [2 + 1 / 3, 0.25**3 / 3 + 0.75**3 / 3, 2 + 1 / 3]
    np.testing.assert_allclose(crps_quantile(y, lambda p: p), expected, rtol=0, atol=1e-12)


def test_quantile_quadrature_keeps_missing_values_and_scalars():
    score = crps_quantile(np.array([0.3, np.nan]), special.ndtri, level=np.array([special.ndtr(0.3), np.nan]))
    assert score[0] == pytest.approx(float(crps_normal(0.3, 0, 1)), abs=1e-12)
    assert np.isnan(score[1])
    assert crps_quantile(0.3, special.ndtri).shape == ()


@pytest.mark.parametrize("fair", [True, False])
def test_samples_are_the_double_sum(fair):
    rng = np.random.default_rng(2)
    y, x = rng.normal(size=(4, 3)), rng.normal(size=(11, 4, 3)) + 1e3
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1))
    expected = np.abs(x - y).mean(0) - pairs / (2 * 11 * (10 if fair else 11))
    np.testing.assert_allclose(crps_samples(y, x, fair=fair), expected, rtol=0, atol=1e-11)


def test_samples_agree_with_scoringrules(oracle):
    rng = np.random.default_rng(3)
    y, x = rng.normal(size=6), rng.normal(size=(50, 6))
    for fair, estimator in ((True, "fair"), (False, "nrg")):
        expected = oracle.crps_ensemble(y, x.T, estimator=estimator)
        np.testing.assert_allclose(crps_samples(y, x, fair=fair), expected, rtol=0, atol=1e-12)


def test_fair_scores_are_unbiased():
    rng = np.random.default_rng(4)
    y = np.full(40_000, 0.6)
    score = crps_samples(y, rng.normal(size=(2, y.size)))
    assert abs(score.mean() - crps_normal(0.6, 0, 1)) < 4 * score.std() / np.sqrt(y.size)


@pytest.mark.parametrize("fair", [True, False])
def test_energy_score_is_the_double_sum(oracle, monkeypatch, fair):
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=(2, 3, 4)), rng.normal(size=(9, 2, 3, 4))
    pairs = np.linalg.norm(x[:, None] - x[None], axis=-1).sum((0, 1))
    expected = np.linalg.norm(x - y, axis=-1).mean(0) - pairs / (2 * 9 * (8 if fair else 9))
    np.testing.assert_allclose(energy_score(y, x, fair=fair), expected, rtol=0, atol=1e-12)
    library = oracle.es_ensemble(y, np.moveaxis(x, 0, -2), estimator="fair" if fair else "nrg")
    np.testing.assert_allclose(expected, library, rtol=0, atol=1e-12)
    monkeypatch.setattr("probseq.evaluation.crps._BLOCK", 72)
    np.testing.assert_allclose(energy_score(y, x, fair=fair), expected, rtol=0, atol=1e-12)


def test_energy_score_of_one_variable_is_crps():
    rng = np.random.default_rng(6)
    y, x = rng.normal(size=5), rng.normal(size=(20, 5))
    np.testing.assert_allclose(energy_score(y[:, None], x[..., None]), crps_samples(y, x), rtol=0, atol=1e-13)


def test_one_sample_is_too_few():
    with pytest.raises(ShapeError, match="2 samples"):
        crps_samples(np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="2 samples"):
        energy_score(np.zeros((3, 1)), np.zeros((1, 3, 1)))


def test_values_that_properscoring_prints():
    # README of properscoring 0.1 (pypi.org/project/properscoring): five ways to calculate CRPS, and a skill score.
    assert crps_normal(0.0, 0.0, 1.0) == pytest.approx(0.23369497725510913, abs=1e-15)
    ensemble = np.random.RandomState(0).randn(1000)
    assert crps_samples(np.zeros(()), ensemble, fair=False) == pytest.approx(0.2297109370729622, abs=1e-13)
    observed = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    forecast = crps_normal(observed, 0.0, 1.0)
    np.testing.assert_allclose(forecast, [1.45279182, 0.60244136, 0.23369498, 0.60244136, 1.45279182], atol=5e-9)
    baseline = crps_samples(observed, np.zeros((5, 5)), fair=False).mean()
    assert 1 - forecast.mean() / baseline == pytest.approx(0.27597311068630859, abs=1e-14)


@pytest.mark.parametrize("y", [-1.5, 0.4, 2.5, 9.75])
def test_discrete_between_integers_is_the_integral(y):
    # The integrand is constant between the integers and y.
    ends = np.sort(np.append(np.arange(-3.0, 80.0), y))
    cdf = special.pdtr(np.floor(ends[:-1]), 3.0)
    cdf[ends[:-1] < 0] = 0.0
    expected = (np.diff(ends) * (cdf - (ends[:-1] >= y)) ** 2).sum()
    assert crps_discrete(y, lambda k: special.pdtr(np.maximum(k, 0), 3.0) * (k >= 0)) == pytest.approx(
        expected, abs=1e-12
    )
    assert crps_poisson(y, 3.0) == pytest.approx(expected, abs=1e-12)


def test_discrete_beyond_its_tail_counts_the_rest_at_once():
    assert crps_discrete(1e15, lambda k: special.pdtr(k, 3.0)) == pytest.approx(crps_poisson(1e15, 3.0), rel=1e-14)


def test_numbers_near_the_ends_of_floating_point():
    assert crps_normal(1.0, 0.0, 1e-320) == 1.0 and crps_normal(1e160, 0.0, 1.0) == 1e160
    assert crps_student_t(1e160, 3.0) == 1e160 and crps_student_t(-5.0, 3.0, scale=1e-300) == 5.0
    # A Poisson law of a large rate is nearly normal.
    assert crps_poisson(1e12 + 2e6, 1e12) == pytest.approx(crps_normal(2e6, 0.0, 1e6), rel=1e-4)


def test_lists_are_arrays_and_other_shapes_are_named():
    assert crps_samples(0.5, [1.0, 2.0]) == 0.5
    assert energy_score([0.0, 1.0], [[0.0, 1.0], [3.0, 5.0]]) == 0.0
    for score in (crps_samples, energy_score):
        with pytest.raises(ShapeError, match="first axis"):
            score(np.zeros((2, 3)), np.zeros((5, 3)))
