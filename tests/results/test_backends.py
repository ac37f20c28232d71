import numpy as np
import pytest
import torch
from scipy import stats

import probseq as ps
from probseq.distributions.compose import mixture
from probseq.distributions.counts import PoissonCounts
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
