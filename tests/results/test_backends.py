import numpy as np
import pytest
import torch
from scipy import stats

import probseq as ps
from probseq.distributions.beta import DiagonalBeta
from probseq.distributions.bijections import Exponential
from probseq.distributions.compose import mixture, push
from probseq.distributions.counts import NegativeBinomialCounts, PoissonCounts
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.quantiles import QuantileLaw
from probseq.distributions.skewed import DiagonalSkewedStudentT
from probseq.errors import ApproximationWarning
from probseq.evaluation import crps_poisson
from probseq.results.backends import LawBackend
from probseq.results.forecast import Forecast


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crps_of_a_mixture_of_counts_is_the_sum_over_its_cdf(dtype):
    rates = torch.linspace(3.0, 9.0, 30, dtype=dtype).reshape(1, 1, 30, 1)
    weights = torch.log_softmax(torch.linspace(0.0, 1.7, 30, dtype=dtype), -1).reshape(1, 1, 30)
    law = mixture(weights, PoissonCounts(rate=rates))
    found = LawBackend(law).crps(np.array([[[4.0]]]))
    k = torch.arange(200, dtype=torch.float64)
    wide = torch.distributions.Poisson(rates.double().reshape(30, 1)).log_prob(k).exp().cumsum(-1)
    cdf = (weights.double().exp().reshape(30, 1) * wide).sum(0)
    expected = ((cdf - (k >= 4).double()) ** 2).sum()
    assert found[0, 0, 0] == pytest.approx(float(expected), rel=1e-12 if dtype == torch.float64 else 1e-5)


def test_quantiles_of_paths_invert_their_cdf_at_the_steps():
    paths = np.arange(100.0)[:, None]
    forecast = Forecast.from_paths(paths)
    for i in range(1, 100):
        assert forecast.quantile(i / 100).item() == i - 1 == forecast._backend._inverse(np.full((1, 1, 1), i / 100))
        assert forecast.cdf(i - 1.0).item() == i / 100


@pytest.mark.parametrize("rate", [3.0, 2e3, 1e6])
def test_crps_of_large_counts_is_the_closed_form(rate):
    law = LawBackend(PoissonCounts(rate=torch.tensor([[[rate], [rate]]]).double()))
    y = np.array([[[rate + 2.0 * rate**0.5 // 1], [5.0 * rate + 3.5]]])
    np.testing.assert_allclose(law.crps(y), crps_poisson(y, rate), rtol=1e-9)


def test_moments_of_sums_do_not_exist_where_those_of_the_values_do_not():
    model = ps.IID(emission=ps.StudentT()).with_parameters(df=[1.5], loc=[0.0], scale=[1.0])
    forecast = model.forecast(4, history=[0.0, 1.0])
    for how in ("sum", "mean", "max"):
        total = forecast.aggregate(how, n_paths=200, every=2)
        with pytest.warns(ApproximationWarning, match="std"):
            assert np.isinf(total.std().values).all()
        assert np.isfinite(total.mean().values).all()
    assert np.isfinite(forecast.aggregate(np.median, n_paths=200).std().values).all()


def test_sums_over_counted_variables_and_functions_of_counts_are_counted():
    counts = np.random.default_rng(0).poisson(3.0, size=(60, 2))
    forecast = ps.IID(emission=ps.Poisson()).fit(counts).forecast(400)
    total = forecast.aggregate("sum", over="variable", n_paths=500)
    assert total.discrete and np.sqrt(forecast + 1).discrete
    pit = total.pit(np.random.default_rng(1).poisson(counts.sum(1).mean(), size=400))
    assert stats.kstest(pit.values.ravel(), "uniform").pvalue > 0.001


def test_crps_of_laws_agrees_with_scoringrules():
    import scoringrules as rules

    def steps(*values):
        return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)

    one, two = np.array([0.7, 2.5, 6.0]), np.array([1.3, 0.4, 2.0])
    a, b = steps(*one), steps(*two)
    size, counted = np.array([0.1, 1.2, 9.0]), np.array([0.0, 3.0, 11.0])
    normal = DiagonalNormal(loc=a, scale=b)
    for law, y, expected in (
        (DiagonalGamma(shape=a, rate=b), size, rules.crps_gamma(size, one, two)),
        (DiagonalBeta(a=a, b=b), size / 10, rules.crps_beta(size / 10, one, two)),
        (DiagonalLaplace(loc=a, scale=b), size, rules.crps_laplace(size, one, two)),
        (push(normal, Exponential(0.0)), size, rules.crps_lognormal(size, one, two)),
        (normal, size, rules.crps_normal(size, one, two)),
        (DiagonalStudentT(df=a + 1, loc=a, scale=b), size, rules.crps_t(size, one + 1, one, two)),
        (PoissonCounts(rate=a), counted, rules.crps_poisson(counted, one)),
        (
            NegativeBinomialCounts(location=a, dispersion=b),
            counted,
            rules.crps_negbinom(counted, 1 / two, 1 / (1 + one * two)),
        ),
    ):
        found = LawBackend(law).crps(y.reshape(1, -1, 1)).ravel()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=type(law).__name__)


def test_crps_of_laws_with_kinks_is_the_integral():
    def number(x):
        return torch.tensor([[[x]]], dtype=torch.float64)

    quantiles = torch.tensor([[[[-1.0, 0.5, 2.0, 5.0]]]], dtype=torch.float64)
    for law in (
        QuantileLaw((0.1, 0.4, 0.7, 0.9), quantiles),
        DiagonalSkewedStudentT(df=number(5.0), loc=number(0.3), scale=number(1.2), skewness=number(1.8)),
        push(DiagonalLaplace(loc=number(0.3), scale=number(0.2)), Exponential(0.0)),
    ):
        backend = LawBackend(law)
        levels = np.concatenate([10.0 ** np.arange(-12.0, -2.0, 0.5), np.linspace(0.01, 0.99, 99)])
        levels = np.unique([*levels, *(1.0 - levels), *backend.kinks().ravel()])
        nodes, weights = np.polynomial.legendre.leggauss(20)
        for y in (-0.7, 1.1, 4.0):
            ends = np.sort([*backend.quantile(levels).ravel(), y])
            x = ends[:-1, None] + np.diff(ends)[:, None] * (1 + nodes) / 2
            cdf = law.cdf(torch.as_tensor(x.reshape(-1, 1, 1, 1))).numpy().reshape(x.shape)
            expected = (np.diff(ends)[:, None] / 2 * weights * (cdf - (ends[:-1, None] >= y)) ** 2).sum()
            found = backend.crps(np.full((1, 1, 1), y)).item()
            assert found == pytest.approx(expected, abs=1e-8), type(law).__name__
