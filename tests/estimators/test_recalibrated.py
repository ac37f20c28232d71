"""Recalibrated laws: maps by scipy, densities as derivatives of cdfs, scores of models that are wrong and right."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

import probseq as ps
from probseq.errors import DataError, NotFittedError, ParameterError, UnsupportedError
from probseq.evaluation import uniformity_test
from probseq.evaluation.recalibration import BernsteinMap, fit_map
from probseq.results.backends import LawBackend
from probseq.results.recalibrated import RecalibratedBackend

SKEWED = BernsteinMap([0.4, 0.1, 0.05, 0.15, 0.3])


def test_a_map_is_a_mixture_of_beta_laws():
    u = np.linspace(0.0, 1.0, 41)
    parts = [stats.beta(j, 6 - j) for j in range(1, 6)]
    assert_allclose(SKEWED.cdf(u), sum(w * p.cdf(u) for w, p in zip(SKEWED.weights, parts, strict=True)), atol=1e-14)
    density = sum(w * p.pdf(u) for w, p in zip(SKEWED.weights, parts, strict=True))
    assert_allclose(SKEWED.log_density(u), np.log(density), atol=1e-12)
    assert_allclose(SKEWED.inverse(SKEWED.cdf(u)), u, atol=1e-13)
    equal = BernsteinMap(np.full(8, 1 / 8))
    assert_allclose(equal.cdf(u), u, atol=1e-14)
    assert_array_equal(BernsteinMap([1.0]).inverse(u), u)


def test_weights_are_the_mode_of_the_posterior():
    u = np.random.default_rng(0).beta(0.5, 0.7, size=200)
    found = fit_map(u)
    assert found.degree > 1 and abs(found.weights.sum() - 1) < 1e-12

    def objective(w):
        return BernsteinMap(w).log_density(u).sum() + np.log(w).sum()

    best = objective(found.weights)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-1):
        for _ in range(50):
            other = found.weights * np.exp(size * rng.normal(size=found.degree))
            assert objective(other / other.sum()) <= best + 1e-6


def test_uniform_values_ask_for_nothing_and_others_become_uniform():
    rng = np.random.default_rng(0)
    assert sum(fit_map(rng.uniform(size=300)).degree == 1 for _ in range(20)) >= 16
    learnt, new = rng.beta(0.5, 0.5, size=(2, 2000))
    found = fit_map(learnt)
    assert uniformity_test(new).p_value < 1e-8 < 1e-3 < uniformity_test(found.cdf(new)).p_value
    with pytest.raises(DataError, match="at least 10"):
        fit_map(np.full(9, 0.5))


def bent(model, values, maps):
    data = np.asarray(values, dtype=float)
    base = model.predictive(data)._backend
    assert isinstance(base, LawBackend)
    return RecalibratedBackend(base, [maps])


def test_density_quantiles_and_moments_belong_to_the_cdf():
    normal = ps.IID().with_parameters(mean=[1.0], scale=[2.0])
    x = np.linspace(-6, 8, 29)
    law = bent(normal, x, [SKEWED])
    y = x[None, :, None]
    assert_allclose(law.cdf(y)[0, :, 0], SKEWED.cdf(stats.norm.cdf(x, 1, 2)), atol=1e-14)
    h = 1e-5
    slope = (law.cdf(y + h) - law.cdf(y - h))[0, :, 0] / (2 * h)
    assert_allclose(np.exp(law.log_prob(y))[0], slope, rtol=1e-6, atol=1e-9)
    levels = np.array([0.01, 0.3, 0.5, 0.99])
    quantiles = law.quantile(levels)[0, 0, 0]
    at = bent(normal, quantiles, [SKEWED])
    assert_allclose(at.cdf(quantiles[None, :, None])[0, :, 0], levels, atol=1e-12)

    def moment(power, c=0.0):
        def integrand(x):
            return (x - c) ** power * np.exp(SKEWED.log_density(stats.norm.cdf(x, 1, 2))) * stats.norm.pdf(x, 1, 2)

        return integrate.quad(integrand, -25, 25, epsabs=1e-12)[0]

    assert_allclose(moment(0), 1.0, rtol=1e-10)
    mean = moment(1)
    assert_allclose(law.mean()[0, 0, 0], mean, rtol=1e-9)
    assert_allclose(law.variance()[0, 0, 0], moment(2, mean), rtol=1e-8)


def test_the_crps_is_that_of_the_bent_law():
    normal = ps.IID().with_parameters(mean=[0.0], scale=[1.0])
    y = np.array([-1.0, 0.4, 3.0])
    found = bent(normal, y, [SKEWED]).crps(y[None, :, None])[0, :, 0]
    for value, score in zip(y, found, strict=True):
        expected = integrate.quad(
            lambda x, v=value: (SKEWED.cdf(stats.norm.cdf(x)) - (x >= v)) ** 2, -10, 10, points=[value], epsabs=1e-11
        )[0]
        assert_allclose(score, expected, rtol=1e-7)


def test_masses_of_counts_add_up():
    poisson = ps.IID(ps.Poisson()).with_parameters(rate=[3.0])
    k = np.arange(60.0)
    law = bent(poisson, k, [SKEWED])
    mass = np.exp(law.log_prob(k[None, :, None]))[0]
    assert_allclose(mass.sum(), 1.0, rtol=1e-12)
    assert_allclose(mass[:15], np.diff(SKEWED.cdf(np.concatenate([[0], stats.poisson(3).cdf(k[:15])]))), rtol=1e-9)
    assert mass[-1] > 0, "far in the tail differences of probabilities are rounding"
    score = law.crps(np.full((1, 60, 1), 2.0))[0, 0, 0]
    cdf = SKEWED.cdf(stats.poisson(3).cdf(k))
    assert_allclose(score, ((cdf - (k >= 2)) ** 2).sum(), rtol=1e-8)


def test_several_variables_keep_their_dependence():
    full = ps.IID(ps.Normal("full")).fit(
        np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 400)
    )
    grid = np.linspace(-6, 6, 161)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    other = BernsteinMap([0.2, 0.5, 0.3])
    law = bent(full, x, [SKEWED, other])
    density = np.exp(law.log_prob(x[None]))[0].reshape(161, 161)
    step = grid[1] - grid[0]
    assert_allclose(density.sum() * step**2, 1.0, rtol=1e-4)
    margin = np.exp(law.marginal([0]).log_prob(x[None, :, :1]))[0].reshape(161, 161)[0]
    assert_allclose(density.sum(0) * step, margin, atol=2e-4)
    gap = np.array([[[0.3, np.nan]]])
    one = bent(full, [[0.0, 0.0]], [SKEWED, other])
    assert_allclose(one.log_prob(gap), one.marginal([0]).log_prob(gap[..., :1]), rtol=1e-12)


def test_a_wrong_model_gains_and_a_right_one_stays():
    rng = np.random.default_rng(0)
    x, new = rng.standard_t(2, size=(2, 900))
    plain, found = ps.IID().fit(x), ps.Recalibrated(ps.IID()).fit(x)
    assert found.score(new) > plain.score(new) + 0.1
    assert ps.calibration(found.predictive(new), new).uniform_p > 0.01
    assert ps.calibration(plain.predictive(new), new).uniform_p < 1e-4
    steps = found.log_prob_steps(new)
    model = found.estimator_
    assert_allclose(
        steps, model.log_prob_steps(new) + found.maps_[0].log_density(model.predictive(new).cdf(new)), rtol=1e-10
    )
    assert_allclose(found.log_prob(new), steps.sum(), rtol=1e-12)
    assert_allclose(found.score(new), steps.mean(), rtol=1e-12)
    right = ps.Recalibrated(ps.IID(), max_degree=1).fit(x)
    assert_allclose(right.log_prob_steps(new), right.estimator_.log_prob_steps(new), rtol=1e-12)
    assert_allclose(right.predictive(new).mean(), right.estimator_.predictive(new).mean(), rtol=1e-9, atol=1e-12)


def test_the_map_is_learnt_from_what_the_model_has_not_seen():
    y = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.6], mean=[0.0], scale=[1.0]).sample(400, random_state=0).values
    y = np.exp(y)
    found = ps.Recalibrated(ps.ARMA(order=(1, 0))).fit(y)
    model = ps.ARMA(order=(1, 0)).fit(y[:280])
    expected = fit_map(model.predictive(y[280:], history=y[:280]).cdf(y[280:]))
    assert_allclose(found.maps_[0].weights, expected.weights, rtol=1e-10)
    assert found.maps_[0].degree > 1
    walk = ps.Recalibrated(ps.RandomWalk()).fit(np.cumsum(y))
    assert np.isnan(walk.log_prob_steps([1.0, 2.0])).values.tolist() == [True, False]
    assert np.isfinite(walk.log_prob([1.0, 2.0]))


def test_forecasts_have_a_map_a_step_and_paths_with_memory():
    y = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.9], mean=[0.0], scale=[1.0]).sample(500, random_state=0).values
    found = ps.Recalibrated(ps.ARMA(order=(1, 0)), calibration_share=0.5).fit(np.sign(y) * y**2)
    ahead = found.forecast(3)
    levels = [0.1, 0.5, 0.9]
    assert_allclose(
        np.stack([ahead.cdf(np.full(3, float(q))).values[0] for q in ahead.quantile(levels)[0]]), levels, atol=1e-9
    )
    paths = ahead.sample(4000, random_state=0).values
    assert_allclose((paths[..., None] <= ahead.quantile(levels).values).mean(0), np.tile(levels, (3, 1)), atol=0.03)
    assert np.corrcoef(paths.T)[0, 2] > 0.4
    assert np.isfinite(ahead.log_prob([1.0, 2.0, 3.0])).all()
    assert "recalibrated" in ahead.method
    with pytest.raises(UnsupportedError, match="joint=True"):
        ahead.log_prob([1.0, 2.0, 3.0], joint=True)
    table = ps.compare({"bent": found, "plain": found.estimator_}, y[:20]).table
    assert table["nats"].notna().all()


def test_what_cannot_be_recalibrated():
    y = np.random.default_rng(0).normal(size=100)
    with pytest.raises(ParameterError, match="max_degree"):
        ps.Recalibrated(ps.IID(), max_degree=0).fit(y)
    with pytest.raises(DataError, match="at least 10"):
        ps.Recalibrated(ps.IID()).fit(y[:20])
    with pytest.raises(UnsupportedError, match="categories"):
        ps.Recalibrated(ps.MarkovChain()).fit("ab" * 100)
    with pytest.raises(NotFittedError):
        ps.Recalibrated(ps.IID()).score(y)
