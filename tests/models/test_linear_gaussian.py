"""Linear-Gaussian models: the conformance checks with every matrix free, joint forecasts, gradients of single steps."""

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Observation
from probseq.distributions.params import ParamSpec, PositiveDefinite, unconstrained_size, unflatten
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.linear_gaussian import LinearGaussianModel, StateSpace
from probseq.testing import check_model


class Free(LinearGaussianModel):
    """Every matrix is a parameter; the first ``n_diffuse`` states are random walks."""

    def __init__(self, k, r, n_diffuse=0, n_covariates=0):
        self.observation, self.k, self.r = Observation(k), k, r
        self.n_diffuse, self.n_covariates = n_diffuse, n_covariates

    def parameters(self):
        k, r = self.k, self.r
        shapes = {"z": (k, r), "d": (k,), "t": (r, r), "c": (r,), "a": (r,)}
        specs = {name: ParamSpec(shape) for name, shape in shapes.items()}
        specs |= {name: ParamSpec((m, m), PositiveDefinite()) for name, m in (("h", k), ("q", r), ("p", r))}
        if self.n_covariates:
            specs["beta"] = ParamSpec((k, self.n_covariates))
        return specs

    def inputs(self, params, u, trailing):
        if not self.n_covariates:
            return 0.0
        beta = params["beta"]
        beta = beta.reshape(*beta.shape[:-2], *(1,) * trailing, *beta.shape[-2:])
        return (beta @ u.unsqueeze(-1)).squeeze(-1)

    def system(self, params):
        walks = (torch.arange(self.r) < self.n_diffuse).double()
        t = torch.tanh(params["t"]) / self.r * (1.0 - walks).unsqueeze(-1) + torch.diag(walks)
        rest = [params[name] for name in ("c", "q", "a", "p")]
        return StateSpace(params["z"], params["d"], params["h"], t, *rest, torch.diag(walks))


@pytest.mark.parametrize("k, r, n_diffuse, m, start", [(1, 1, 0, 0, 0), (2, 3, 0, 0, 0), (1, 3, 0, 2, 0),
    (1, 2, 2, 0, 2), (2, 3, 2, 1, 1)])  # fmt: skip
def test_conforms(k, r, n_diffuse, m, start):
    check_model(Free(k, r, n_diffuse, m), start=start)


def test_partly_diffuse_steps_conform():
    """Three diffuse states, two values a step: the second step is only partly known. A hole would delay it."""
    check_model(Free(2, 3, 3), start=2, skip=("check_missing_values",))


def example(n_diffuse, draw):
    generator = torch.Generator().manual_seed(5)
    model = Free(2, 3, n_diffuse)
    specs = model.parameters()
    flat = 0.7 * torch.randn(*draw, unconstrained_size(specs), dtype=torch.float64, generator=generator)
    x = torch.randn(3, 30, 2, dtype=torch.float64, generator=generator)
    seen = torch.rand(3, 30, 2, generator=generator) > 0.2
    seen[2, 20:] = False
    return model, specs, flat, Batch(torch.where(seen, x, 0.0), seen, torch.tensor([30, 30, 20]))


@pytest.mark.parametrize("n_diffuse", [0, 3])
def test_scan_equals_the_step_loop(n_diffuse):
    model, specs, flat, batch = example(n_diffuse, (2,))
    params = unflatten(specs, flat)
    start = model.initial_state(params, 3)
    loop, scan = SequenceModel._scan(model, params, batch, start), model._scan(params, batch, start)
    fast = model.log_prob_steps(params, batch)
    for a, b in ((loop.states, scan.states), (loop.final, scan.final), (loop.final, fast.final)):
        map_state(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-10) or one, a, b)


@pytest.mark.parametrize("n_diffuse", [0, 3])
def test_gradient_of_single_steps(n_diffuse):
    model, specs, flat, batch = example(n_diffuse, (2,))
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, 3, 30, dtype=torch.float64, generator=generator)
    way = torch.randn(flat.shape, dtype=torch.float64, generator=generator)

    def value(at):
        return (model.log_prob_steps(unflatten(specs, at), batch).values * weights).sum()

    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    with torch.no_grad():
        slope = float(value(flat + 1e-6 * way) - value(flat - 1e-6 * way)) / 2e-6
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-6)


def test_joint_forecast_is_the_law_of_what_follows():
    model, specs, flat, batch = example(0, (2,))
    params = unflatten(specs, flat)
    state = model.filter(params, batch)
    law = model._forecast_joint(params, state, None, 4)
    assert law.batch_shape == (2, 3) and law.event_shape == (8,)
    x = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    later = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((3,), 4))
    expected = model.log_prob_steps(params, later, state).values.sum(-1)
    np.testing.assert_allclose(law.log_prob(x.flatten(1)), expected, rtol=1e-10)
    marginals = model.forecast_marginals(params, state, 4)
    np.testing.assert_allclose(marginals.mean.flatten(-2), law.mean, rtol=1e-12)
    np.testing.assert_allclose(marginals.variance.flatten(-2), law.variance, rtol=1e-12)
    assert Free(2, 3, 1)._forecast_joint(params, Free(2, 3, 1).initial_state(params, 3), None, 4) is None
