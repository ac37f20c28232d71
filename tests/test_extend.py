"""What is exported for laws, emissions and families of others suffices to write them."""

import math

import pytest
import torch

import probseq as ps
import probseq.extend as extend
from probseq.extend import Emission, ParamSpec, Positive, ProductDistribution, Real
from probseq.testing import Row, check_distribution, check_estimator, check_model


class GumbelLaw(ProductDistribution):
    _event_dims = {"loc": 1, "scale": 1}

    def coordinate_log_prob(self, value):
        z = (value - self.loc) / self.scale
        return -z - torch.exp(-z) - torch.log(self.scale)

    def cdf(self, value):
        return torch.exp(-torch.exp(-(value - self.loc) / self.scale))

    def icdf(self, q):
        return self.loc - self.scale * torch.log(-torch.log(q))

    @property
    def mean(self):
        return self.loc + 0.5772156649015329 * self.scale

    @property
    def variance(self):
        return (math.pi * self.scale) ** 2 / 6


class Gumbel(Emission):
    def parameters(self, observation, components=()):
        shape = (*components, observation.n_variables)
        dims = ("state",) * len(components) + ("variable",)
        return {"loc": ParamSpec(shape, Real(), dims), "scale": ParamSpec(shape, Positive(), dims)}

    def distribution(self, params, components=()):
        return GumbelLaw(loc=params["loc"], scale=params["scale"])


def law(dtype=torch.float64):
    return GumbelLaw(loc=torch.tensor([[0.0, 30.0]], dtype=dtype), scale=torch.tensor([[1.0, 0.2]], dtype=dtype))


def test_all_names_exist():
    assert all(hasattr(extend, name) for name in extend.__all__)


def test_samples_are_quantiles_where_nothing_faster_is_given():
    check_distribution(law())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_type_of_the_parameters_and_are_finite(dtype):
    drawn = law(dtype).sample((3, 1000), generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == dtype and drawn.shape == (3, 1000, 1, 2)
    assert bool(torch.isfinite(drawn).all()) and not drawn.requires_grad


def test_an_emission_of_two_methods_serves_values_and_states():
    check_estimator(Row("values", lambda: ps.IID(Gumbel())))
    check_model(Row("states", lambda: ps.HMM(2, Gumbel())).model())
