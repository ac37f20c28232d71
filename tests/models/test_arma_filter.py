import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Observation
from probseq.models.arma import ARMAModel
from probseq.models.arma_filter import filtered
from probseq.models.arma_paths import paths_by_steps
from probseq.models.base import Batch

MODELS = {
    "white noise": ((0, 0, 0), (0, 0, 0, 1), {}),
    "arma": ((2, 0, 1), (0, 0, 0, 1), {}),
    "airline": ((0, 1, 1), (0, 1, 1, 12), {}),
    "sparse": (((1, 4), 0, (2,)), (0, 0, 0, 1), {}),
    "trend": ((1, 1, 1), (0, 0, 0, 1), {"trend": True, "fourier": ((7.5, 2),)}),
}


def make_model(name):
    order, seasonal, other = MODELS[name]
    return ARMAModel(Observation(1), order, seasonal, order[1] == 0, **other)


def draw_parameters(model, draw, generator):
    values = {}
    for name, spec in model.parameters().items():
        value = 0.2 * torch.randn((*draw, *spec.shape), generator=generator, dtype=torch.float64)
        values[name] = value.exp() if name == "scale" else value
    return values


def make_batch(lengths, generator):
    n, t = len(lengths), max(lengths)
    x = torch.randn(n, t, 1, generator=generator, dtype=torch.float64).cumsum(1)
    inside = torch.arange(t) < torch.tensor(lengths)[:, None]
    return Batch(torch.where(inside[..., None], x, 0.0), inside[..., None], torch.tensor(lengths))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("draw", [(), (3,), (2, 2)])
def test_filtering_without_gradients_equals_that_with(name, draw):
    generator = torch.Generator().manual_seed(0)
    model, batch = make_model(name), make_batch((60, 47, 16), generator)
    params = draw_parameters(model, draw, generator)
    traced = {name: value.clone().requires_grad_(name == "scale") for name, value in params.items()}
    start = model.initial_state(params, 3)
    slow = model.log_prob_steps(traced, batch, start)
    fast = model.log_prob_steps(params, batch, start)
    assert slow.values.requires_grad and not fast.values.requires_grad
    assert filtered(model, params, batch, start.age) is not None
    fresh = model.log_prob_steps(params, batch)
    np.testing.assert_allclose(fast.values, slow.values.detach(), atol=1e-11)
    np.testing.assert_array_equal(fast.scored, slow.scored)
    np.testing.assert_array_equal(fresh.values, fast.values)
    for one, other in zip(fast.final, slow.final, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_gaps_and_later_starts_are_left_to_the_filter():
    generator = torch.Generator().manual_seed(1)
    model, batch = make_model("arma"), make_batch((30,), generator)
    params = draw_parameters(model, (), generator)
    start = model.initial_state(params, 1)
    after = model.log_prob_steps(params, batch, start).final
    assert filtered(model, params, batch, after.age) is None
    holes = batch.seen.clone()
    holes[0, 5] = False
    assert filtered(model, params, Batch(batch.x, holes, batch.lengths), start.age) is None
    model, short = make_model("airline"), Batch(batch.x[:, :13], batch.seen[:, :13], torch.tensor([13]))
    params = draw_parameters(model, (), generator)
    assert filtered(model, params, short, model.initial_state(params, 1).age) is None


@pytest.mark.parametrize("name", list(MODELS))
def test_many_paths_from_one_state_are_those_of_the_filter(name):
    generator = torch.Generator().manual_seed(2)
    model, batch = make_model(name), make_batch((40,), generator)
    params = draw_parameters(model, (2,), generator)
    state = model.log_prob_steps(params, batch).final
    many = type(state)(*(leaf.expand(2, 50, *leaf.shape[2:]) for leaf in state))
    x, after = model.sample(params, many, 9, torch.Generator().manual_seed(3))
    copies = type(state)(*(leaf.clone() for leaf in many))
    shocks = torch.randn(2, 50, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    shocks = shocks * params["scale"][:, None, None]
    y, slow = paths_by_steps(model, params, copies, shocks.numpy())
    added = model._shift(params, many.age, None, 9)
    drift = model._means(params).reshape(2, 1, 1)
    np.testing.assert_allclose(x[..., 0], torch.from_numpy(y) + drift + added, atol=1e-10)
    for one, other in zip(after, slow, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("gap", [slice(0, 0), slice(10, 13), slice(37, 39)], ids=["whole", "old gap", "new gap"])
@pytest.mark.parametrize("name", list(MODELS))
def test_joint_forecast_has_the_answers_of_the_filter_to_unit_innovations(name, gap):
    generator = torch.Generator().manual_seed(4)
    model, batch = make_model(name), make_batch((40,), generator)
    seen = batch.seen.clone()
    seen[:, gap] = False
    params = draw_parameters(model, (2,), generator)
    state = model.log_prob_steps(params, batch._replace(seen=seen)).final
    law = model.forecast_joint(params, state, 9)
    shocks = torch.cat([torch.zeros(1, 9), torch.eye(9)]).double() * params["scale"][:, None, None]
    many = type(state)(*(leaf.expand(2, 10, *leaf.shape[2:]) for leaf in state))
    y, _ = paths_by_steps(model, params, many, shocks.numpy())
    added = model._shift(params, state.age, None, 9) + model._means(params).reshape(2, 1, 1)
    np.testing.assert_allclose(law.loc, torch.from_numpy(y[:, :1]) + added, atol=1e-10)
    np.testing.assert_allclose(law.scale_tril[:, 0], (y[:, 1:] - y[:, :1]).swapaxes(1, 2), atol=1e-10)
