"""The defaults of emissions: one with nothing but its parameters and its law is fitted like any other."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from probseq.distributions.ascent import ascend
from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.emissions import (
    AutoregressiveNormal,
    Categorical,
    Emission,
    GaussianMixture,
    Multinomial,
    Normal,
    NormalRegression,
    Observation,
    Poisson,
    Product,
    StudentT,
    Tied,
)
from probseq.distributions.emissions.base import gradient_m_step
from probseq.distributions.params import Params, ParamSpec, Positive, Real
from probseq.distributions.tables import component_log_prob
from probseq.errors import ParameterError
from probseq.inference.em import EM
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel


class LaplaceLaw(ProductDistribution):
    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "scale": 1}

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        return -(value - self.loc).abs() / self.scale - torch.log(2 * self.scale)

    def cdf(self, value):
        return torch.distributions.Laplace(self.loc, self.scale).cdf(value)

    def icdf(self, q):
        return torch.distributions.Laplace(self.loc, self.scale).icdf(q)

    def sample(self, sample_shape=(), generator=None):
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return self.icdf(torch.rand(shape, generator=generator, dtype=self.loc.dtype)).detach()


class Laplace(Emission):
    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        shape, dims = (*components, observation.n_variables), ("state",) * len(components) + ("variable",)
        return {"loc": ParamSpec(shape, Real(), dims), "scale": ParamSpec(shape, Positive(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return LaplaceLaw(loc=params["loc"], scale=params["scale"])


def data(n=2, t=60, k=2, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.as_tensor(rng.laplace(size=(n, t, k)) + 4.0 * (np.arange(t) // 10 % 2)[None, :, None])
    seen = torch.as_tensor(rng.random((n, t, k)) > 0.2)
    return torch.where(seen, x, torch.zeros_like(x)), seen


def objective(emission, x, seen, weights, params):
    table = component_log_prob(emission.distribution(params, weights.shape[3:]), x, seen)
    return (weights * table).sum((1, 2))


def test_an_emission_of_parameters_and_law_alone_is_fitted():
    x, seen = data()
    emission = Laplace()
    model = HiddenMarkovModel(2, emission, emission.observation(2))
    batch = Batch(x, seen, torch.tensor([60, 60]))
    draws = EM(n_init=3, tol=1e-6).fit(model, batch, torch.Generator().manual_seed(0))
    assert draws.status == "converged"
    assert_allclose(draws.params["loc"][0].sort(0).values, [[0.0, 0.0], [4.0, 4.0]], atol=0.5)
    assert_allclose(draws.params["scale"][0], np.ones((2, 2)), atol=0.35)


def test_the_default_m_step_never_lowers_and_leaves_empty_states():
    x, seen = data()
    emission = Laplace()
    weights = torch.rand(3, 2, 60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[..., 3] = 0.0
    params = {
        "loc": torch.randn(3, 4, 2, dtype=torch.float64),
        "scale": torch.full((3, 4, 2), 1e-3, dtype=torch.float64),
    }
    value = objective(emission, x, seen, weights, params)
    for _ in range(4):
        new = emission.m_step(emission.observation(2), x, seen, weights, params)
        after = objective(emission, x, seen, weights, new)
        assert bool((after >= value).all())
        params, value = new, after
    assert_allclose(params["scale"][:, 3], np.full((3, 2), 1e-3), rtol=1e-8)


@pytest.mark.parametrize("covariance", ["diag", "tied"])
def test_gradient_steps_reach_the_closed_form(covariance):
    x, seen = data()
    seen = torch.ones_like(seen)
    emission = Normal(covariance)
    observation = emission.observation(2)
    weights = torch.rand(2, 2, 60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = emission.initial_params(observation, x, seen, torch.rand_like(weights), (3,))
    closed = emission.m_step(observation, x, seen, weights, start)
    climbed = gradient_m_step(emission, observation, x, seen, weights, start, 60)
    for name, value in closed.items():
        assert_allclose(climbed[name], value, rtol=1e-5, atol=1e-5)


def test_pooled_start_by_gradient_alone():
    x = torch.poisson(torch.full((1, 400, 1), 6.0, dtype=torch.float64), generator=torch.Generator().manual_seed(0))
    pooled = Emission.pooled_params(Poisson(), Poisson().observation(1), x, torch.ones_like(x, dtype=torch.bool))
    assert_allclose(pooled["rate"], [float(x.mean())], rtol=1e-5)


def test_ascent_climbs_every_member_of_a_batch():
    bend = torch.tensor([[1.0, 100.0], [1e-3, 10.0], [5.0, 5.0]], dtype=torch.float64)
    top = torch.tensor([[1.0, -2.0], [300.0, 1.0], [0.0, 0.0]], dtype=torch.float64)

    def quadratic(z, with_gradient):
        return -0.5 * (bend * (z - top) ** 2).sum(-1), -bend * (z - top)

    assert_allclose(ascend(quadratic, torch.zeros(3, 2).double(), 60), top, atol=1e-5)


WRONG = [
    *(StudentT(df) for df in (np.inf, np.nan, 0, -1.0, "4", True, [4.0])),
    *(Categorical(n) for n in (0, -2, 2.5, "3", True, np.inf)),
    *(Multinomial(n) for n in (0, -1, 2.0, "3")),
    *(GaussianMixture(n) for n in (0, 1.5, "2", None)),
    *(NormalRegression(n) for n in (-1, 0.5, "1")),
    *(AutoregressiveNormal(n) for n in (0, 1.5)),
]


@pytest.mark.parametrize("emission", [*WRONG, Tied(StudentT(0.0)), Product([Normal(), Categorical(0)])], ids=repr)
def test_arguments_that_no_data_make_right(emission):
    with pytest.raises(ParameterError, match=r"(df|n_\w+|order)=.*Expected a (whole|finite)"):
        emission.check_arguments()
    if not isinstance(emission, Product):
        with pytest.raises(ParameterError):
            emission.parameters(emission.observation(1, 2), (2,))


@pytest.mark.parametrize("emission", [StudentT(np.int64(4)), StudentT(), Categorical(np.int32(3)), Multinomial(3)])
def test_arguments_that_are_right(emission):
    emission.check_arguments()
    assert emission.parameters(emission.observation(2, 3), (2,))
