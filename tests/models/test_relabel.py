"""Relabelling: the law stays, labels agree; permutations found equal those that were made."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from probseq.distributions.emissions import Categorical, Normal, Poisson, Tied
from probseq.distributions.params import unconstrained_size, unflatten
from probseq.errors import ParameterError
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.relabel import exchangeable, match_states, moved_start, order_states, permute_states, relabel
from probseq.models.transitions import Transitions

EMISSIONS = {
    "diag": Normal(),
    "tied": Normal("tied"),
    "full": Normal("full"),
    "poisson": Poisson(),
    "categorical": Categorical(3),
}


def random_params(model, draws, seed=0):
    generator = torch.Generator().manual_seed(seed)
    specs = model.parameters()
    return unflatten(specs, torch.randn(draws, unconstrained_size(specs), generator=generator, dtype=torch.float64))


def data(model, seed=0, t=30):
    generator = torch.Generator().manual_seed(seed)
    params = random_params(model, 1, seed=9)
    x, _ = model.sample(params, model.initial_state(params, 2), t, generator)
    return Batch(x[0], torch.ones_like(x[0], dtype=torch.bool), torch.tensor([t, t - 4]))


def random_permutations(draws, s, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(s, generator=generator) for _ in range(draws)])


@pytest.mark.parametrize("start", ["free", "stationary"])
@pytest.mark.parametrize("name", EMISSIONS)
def test_permuting_states_keeps_the_law_and_permutes_posteriors(name, start):
    emission = EMISSIONS[name]
    model = HiddenMarkovModel(4, emission, emission.observation(2), start)
    batch, params = data(model), random_params(model, 3)
    order = random_permutations(3, 4)
    moved = permute_states(model.parameters(), params, order)
    assert_allclose(model.log_prob(moved, batch), model.log_prob(params, batch), rtol=1e-12)
    before = model.smooth(params, batch)
    expected = torch.take_along_dim(before, order[:, None, None, :], -1)
    assert_allclose(model.smooth(moved, batch), expected, atol=1e-12)
    assert exchangeable(model, params, batch)
    back = permute_states(model.parameters(), moved, order.argsort(-1))
    for key, value in params.items():
        assert torch.equal(back[key], value)
    alone = permute_states(model.parameters(), {key: value[0] for key, value in params.items()}, order[0])
    assert all(torch.equal(alone[key], moved[key][0]) for key in params)


def test_a_structure_that_tells_states_apart_is_not_permuted():
    mask = np.triu(np.ones((3, 3), dtype=bool))
    model = HiddenMarkovModel(3, Normal(), Normal().observation(1), transitions=mask)
    params = random_params(model, 2)
    assert not exchangeable(model, params, data(model))
    with pytest.raises(ParameterError, match="cannot change places"):
        permute_states(model.parameters(), params, torch.tensor([1, 0, 2]))
    cycle = HiddenMarkovModel(3, Normal(), Normal().observation(1), transitions=~np.eye(3, dtype=bool))
    assert exchangeable(cycle, random_params(cycle, 2), data(cycle))


@pytest.mark.parametrize(
    "options, alike",
    [
        ({"start": [1.0, 0.0, 0.0]}, False),
        ({"start": [1 / 3, 1 / 3, 1 / 3]}, True),
        ({"transitions": Transitions(fixed=[[0.8, np.nan, np.nan]] + [[np.nan] * 3] * 2)}, False),
        ({"transitions": Transitions(fixed=np.where(np.eye(3) > 0, 0.8, np.nan))}, True),
        ({"emission": Tied(Normal(), states=[0, 1, 0])}, False),
    ],
)
def test_structure_is_found_where_the_data_and_the_parameters_do_not_show_it(options, alike):
    model = HiddenMarkovModel(3, options.pop("emission", Normal()), Normal().observation(1), **options)
    same = {name: value.mean(1, keepdim=True).expand(value.shape) for name, value in random_params(model, 1).items()}
    gone = data(model)
    gone = gone._replace(seen=torch.zeros_like(gone.seen))
    assert exchangeable(model, same, gone) is alike


def test_known_states_are_not_renamed():
    model = HiddenMarkovModel(2, Normal(), Normal().observation(1))
    batch = data(model)
    assert exchangeable(model, random_params(model, 1), batch._replace(states=torch.full((2, 30), -1)))
    told = torch.full((2, 30), -1)
    told[1, 4] = 0
    assert not exchangeable(model, random_params(model, 1), batch._replace(states=told))


def test_ordering_is_lexicographic_and_needs_a_parameter_of_states():
    model = HiddenMarkovModel(3, Normal(), Normal().observation(2))
    params = random_params(model, 2)
    params["mean"] = torch.tensor([[[1.0, 5.0], [0.0, 9.0], [1.0, 4.0]], [[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]]])
    assert_array_equal(order_states(model.parameters(), params, "mean"), [[1, 2, 0], [2, 1, 0]])
    moved, order = relabel(model, params, "mean")
    assert_array_equal(order, [[1, 2, 0], [2, 1, 0]])
    assert_allclose(moved["mean"][0], [[0.0, 9.0], [1.0, 4.0], [1.0, 5.0]])
    for bad in ("transition", "rate"):
        with pytest.raises(ParameterError, match=bad):
            relabel(model, params, bad)
    with pytest.raises(ParameterError, match="without data"):
        relabel(model, params, "occupancy")
    with pytest.raises(ParameterError, match="exactly once"):
        permute_states(model.parameters(), params, torch.tensor([0, 0, 1]))
    with pytest.raises(ParameterError, match="3 states"):
        permute_states(model.parameters(), params, torch.tensor([1, 0]))


def test_matching_finds_the_least_divergence_over_all_permutations():
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(rng.dirichlet(np.ones(3), size=(4, 12)))
    reference = probs[0]
    found = match_states(probs, reference)

    def divergence(p):
        return float((torch.xlogy(p, p) - p * reference.log()).sum())

    for d in range(4):
        every = {order: divergence(probs[d][:, list(order)]) for order in itertools.permutations(range(3))}
        assert tuple(found[d].tolist()) == min(every, key=every.get)


@pytest.mark.parametrize("order", ["match", "occupancy", "mean"])
def test_switched_labels_are_undone(order):
    rng = np.random.default_rng(1)
    states = np.repeat([0, 1, 2, 1, 2, 2], 20)
    x = torch.from_numpy(np.array([0.0, 4.0, 8.0])[states] + rng.normal(size=120)).reshape(1, -1, 1)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([120]))
    model = HiddenMarkovModel(3, Normal(), Normal().observation(1))
    noise = torch.from_numpy(rng.normal(size=(20, 3, 1)))
    params = {
        "initial": torch.full((20, 3), 1 / 3, dtype=torch.float64),
        "transition": torch.full((20, 3, 3), 0.05, dtype=torch.float64) + 0.85 * torch.eye(3),
        "mean": torch.tensor([[0.0], [4.0], [8.0]]) + 0.1 * noise,
        "scale": torch.ones(20, 3, 1, dtype=torch.float64),
    }
    switched = permute_states(model.parameters(), params, random_permutations(20, 3))
    assert switched["mean"].std(0).max() > 1.0
    fixed, permutation = relabel(model, switched, order, batch)
    assert fixed["mean"].std(0).max() < 0.2
    again = permute_states(model.parameters(), switched, permutation)
    assert torch.equal(again["mean"], fixed["mean"])
    if order != "mean":
        assert_allclose(fixed["mean"].mean(0).squeeze(-1), [8.0, 4.0, 0.0], atol=0.2)


def test_a_known_start_stays_with_its_states():
    model = HiddenMarkovModel(3, Poisson(), Poisson().observation(1, None), [0.2, 0.2, 0.6])
    params = random_params(model, 2)
    turned, alike = params | {"rate": params["rate"].clone()}, params | {"rate": params["rate"].clone()}
    turned["rate"][:, :, 0] = torch.tensor([3.0, 2.0, 1.0])
    alike["rate"][:, :, 0] = torch.tensor([2.0, 1.0, 3.0])
    with pytest.raises(ParameterError, match="first state is known"):
        relabel(model, turned, "rate")
    assert_array_equal(relabel(model, alike, "rate")[1], [[1, 0, 2]] * 2)
    assert_array_equal(moved_start(model, torch.tensor([2, 0, 1])), [0.6, 0.2, 0.2])
    with pytest.raises(ParameterError, match="differs between draws"):
        moved_start(model, torch.tensor([[0, 1, 2], [2, 0, 1]]))
