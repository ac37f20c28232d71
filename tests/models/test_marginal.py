"""Averaging over draws that never move, against the sum over draws written out."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from probseq.distributions.emissions import Normal, Observation, Poisson
from probseq.models.arma import ARMAModel
from probseq.models.baseline import IIDModel, MarkovChainModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.marginal import Marginalized, _Together
from probseq.results.joint import make_batch
from probseq.testing.cases import ModelCase, StepLoop, stream

WEIGHTS = torch.log(torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))
MODELS = {
    "IID": IIDModel(Normal(), Observation(2)),
    "HMM": HiddenMarkovModel(2, Poisson(), Poisson().observation(1)),
    "ARMA": ARMAModel(Observation(1), (1, 0, 1)),
}


@pytest.fixture(params=MODELS)
def setup(request):
    case = ModelCase(MODELS[request.param])
    many = case.random_params((3,))
    return case, many, Marginalized(case.model, many, WEIGHTS)


def test_log_prob_is_the_mixture_and_the_state_holds_the_posterior(setup):
    case, many, model = setup
    each = case.model.log_prob(many, case.batch)
    joint = WEIGHTS.unsqueeze(-1) + each
    steps = model.log_prob_steps({}, case.batch)
    assert_allclose(steps.values.sum(-1), torch.logsumexp(joint, 0), rtol=1e-10)
    assert_allclose(steps.final.log_weights, torch.log_softmax(joint, 0).T, atol=1e-9)
    assert_allclose(model.reset_weights(steps.final).log_weights[0], WEIGHTS)


def test_frozen_weights_average_each_step(setup):
    case, many, model = setup
    each = case.model.log_prob_steps(many, case.batch)
    expected = torch.logsumexp(WEIGHTS[:, None, None] + each.values, 0)
    frozen = model.frozen().log_prob_steps({}, case.batch)
    assert_allclose(frozen.values, torch.where(each.scored.any(-1), expected, 0.0), rtol=1e-9, atol=1e-10)


def test_one_draw_is_the_model_itself(setup):
    case, many, _ = setup
    one = {name: value[:1] for name, value in many.items()}
    alone = case.model.log_prob(one, case.batch)[0]
    assert_allclose(Marginalized(case.model, one).log_prob({}, case.batch), alone, rtol=1e-12)


def test_paths_choose_draws_by_their_weights_and_keep_them():
    params = {"mean": torch.tensor([[0.0], [100.0], [200.0]], dtype=torch.float64), "scale": torch.ones(3, 1).double()}
    model = Marginalized(IIDModel(Normal(), Observation(1)), params, WEIGHTS)
    x, final = model.sample({}, model.initial_state({}, 4000), 3, stream(0, "paths"))
    chosen = torch.round(x[..., 0] / 100)
    assert bool((chosen == chosen[:, :1]).all())
    shares = torch.bincount(chosen[:, 0].long()) / 4000
    assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.03)
    # After a path its draw is known, to the path and to whoever scores it.
    assert_allclose(final.log_weights.exp().argmax(-1), chosen[:, 0])
    batch = make_batch(model, x.numpy(), np.full(4000, 3))
    assert_allclose(model.filter({}, batch).log_weights.exp(), final.log_weights.exp(), atol=1e-12)


def test_state_after_sampling_continues_the_same_path():
    case = ModelCase(MODELS["ARMA"])
    model = Marginalized(case.model, case.random_params((3,)), WEIGHTS)
    x, final = model.sample({}, model.initial_state({}, 5), 4, stream(1, "paths"))
    chosen = final.log_weights.argmax(-1)
    batch = make_batch(model, x.numpy(), np.full(5, 4))
    replayed = model.filter({}, batch)
    rows = torch.arange(5)
    assert_allclose(final.inner.mean[rows, chosen], replayed.inner.mean[rows, chosen], rtol=1e-8, atol=1e-10)


def test_weights_survive_impossible_values():
    params = {"rate": torch.tensor([[1e-12], [5.0]], dtype=torch.float64)}
    model = Marginalized(IIDModel(Poisson(), Poisson().observation(1)), params)
    batch = make_batch(model, np.full((1, 40, 1), 9.0), np.array([40]))
    steps = model.log_prob_steps({}, batch)
    assert bool(torch.isfinite(steps.values).all())
    assert_allclose(steps.final.log_weights.exp(), [[0.0, 1.0]], atol=1e-12)


def test_weights_stay_where_every_draw_is_surprised():
    params = {"rate": torch.tensor([[2.0], [5.0]], dtype=torch.float64)}
    model = Marginalized(IIDModel(Poisson(), Poisson().observation(1)), params, WEIGHTS[:2])
    x = np.array([3.0, -1.0, 4.0])[None, :, None]  # no Poisson law gives a negative count any probability
    steps = model.log_prob_steps({}, make_batch(model, x, np.array([3])))
    assert bool(torch.isneginf(steps.values[0, 1]))
    assert bool(torch.isfinite(steps.values[0, [0, 2]]).all())
    state = model.initial_state({}, 1)
    for t in range(3):
        state = model.update({}, state, torch.tensor(x[:, t]), torch.ones(1, 1, dtype=torch.bool))
    assert bool(torch.isfinite(state.log_weights).all())


def test_paths_in_rows_of_one_draw_come_back_in_order():
    choice = torch.tensor([2, 0, 2, 2, 2, 2, 2, 3])
    run = _Together.of(choice, 5)
    assert run.held.shape == (4, 3)  # three draws are used: two of the rows are of draw 2
    assert run.draws.tolist() == [0, 2, 2, 3]
    values = torch.zeros(4, 3)
    values[run.row, run.slot] = choice[run.path].double().float()
    assert (run.back(values) == choice).all()
    assert (choice[run.held[run.row, run.slot]] == run.draws[run.row]).all()


def test_paths_of_all_draws_follow_the_mixture(setup):
    case, many, model = setup
    state = model.filter({}, case.batch)
    x = model.sample_paths(state, 4000, 2, stream(0, "paths"))
    assert x.shape == (case.batch.n, 4000, 2, model.observation.n_variables)
    law = model.predict_next({}, state)
    share = (x[:, :, 0] <= law.mean.unsqueeze(1)).double().mean(1)
    assert_allclose(share, law.cdf(law.mean), atol=5 * 0.5 / 4000**0.5)
    each = model.sample_paths(state, 2000, 1, stream(1, "paths"), by_draw=True)[:, :, :, 0]
    laws = model.draw_laws(state)
    share = (each <= laws.mean.unsqueeze(2)).double().mean(2)
    assert_allclose(share, laws.cdf(laws.mean), atol=5 * 0.5 / 2000**0.5)


def test_draws_go_on_being_weighed_behind_what_none_thinks_possible():
    chains = np.array([[[0.9, 0.1], [1.0, 0.0], [0.5, 0.5]], [[0.3, 0.7], [1.0, 0.0], [0.8, 0.2]]])
    inner = MarkovChainModel(Observation(1, "counting", 0.0, 2))
    model = Marginalized(inner, {"transition": torch.from_numpy(chains)}, torch.tensor([0.6, 0.4]).double().log())
    data = make_batch(model, np.array([0.0, 1, 1, 0, 0, 1])[None, :, None], np.array([6]))
    loop, steps = StepLoop(model, {}, data), model.log_prob_steps({}, data)
    assert steps.values.isneginf().tolist() == [[False, False, True, False, False, False]]
    assert_allclose(steps.values[0], loop.values, rtol=1e-12)
    assert_allclose(steps.final.log_weights, loop.final.log_weights, rtol=1e-12)
