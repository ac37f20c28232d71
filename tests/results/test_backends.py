import numpy as np
import pytest
import torch

from probseq.distributions.compose import mixture
from probseq.distributions.counts import PoissonCounts
from probseq.results.backends import LawBackend


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
