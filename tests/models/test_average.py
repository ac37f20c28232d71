"""The average of models, against mixtures made by hand and the checks of every model."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError
from probseq.models.arma import ARMAModel
from probseq.models.average import AverageModel
from probseq.models.base import Batch, SequenceModel
from probseq.models.baseline import MarkovChainModel
from probseq.results.joint import make_batch
from probseq.testing.cases import ModelCase, StepLoop
from probseq.testing.models import model_checks

ORDERS = [((1, 0), True), ((0, 1), False), ((2, 1), True)]


def components(d=0, n_covariates=0):
    return [ARMAModel(Observation(1), (p, d, q), (0, 0, 0, 1), constant, n_covariates) for (p, q), constant in ORDERS]


def values(n_covariates=0):
    given = [
        {"ar": [0.6], "mean": 1.0, "scale": 1.2},
        {"ma": [-0.4], "scale": 1.5},
        {"ar": [0.3, 0.4], "ma": [0.2], "mean": 2.0, "scale": 0.9},
    ]
    inputs = {"coefficients": [0.5, -0.2][:n_covariates]} if n_covariates else {}
    return [{k: torch.tensor(v, dtype=torch.float64) for k, v in {**one, **inputs}.items()} for one in given]


def averaged(d=0, n_covariates=0, adapt=True):
    model = AverageModel(components(d, n_covariates), adapt)
    return model, model.join(values(n_covariates), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))


def batch(model, t=12, seed=3):
    y = np.cumsum(np.random.default_rng(seed).normal(size=(2, t, 1)), 1)
    return Batch(torch.from_numpy(y), torch.ones(2, t, 1, dtype=torch.bool), torch.tensor([t, t]))


@pytest.mark.parametrize("n_covariates", [0, 2])
@pytest.mark.parametrize("name", [name for name, _ in model_checks()])
def test_keeps_the_laws_of_a_model(name, n_covariates):
    """Others are among the registered ones: weights that are fixed, weights that forget, differenced models."""
    model, params = averaged(0, n_covariates)
    dict(model_checks())[name](ModelCase(model, params))


def test_likelihood_is_the_weighted_sum():
    model, params = averaged(d=1)
    data = batch(model)
    each = [m.log_prob(own, data) for m, own in zip(components(1), values())]
    expected = torch.logsumexp(torch.stack(each, -1) + params["weights"].log(), -1)
    np.testing.assert_allclose(model.log_prob(params, data), expected, rtol=1e-12)


def test_fixed_weights_multiply_mixtures_of_steps():
    model, params = averaged(adapt=False)
    data = batch(model)
    each = [m.log_prob_steps(own, data).values for m, own in zip(components(), values())]
    expected = torch.logsumexp(torch.stack(each, -1) + params["weights"].log(), -1)
    np.testing.assert_allclose(model.log_prob_steps(params, data).values, expected, rtol=1e-12)


def test_weights_are_posterior_probabilities():
    model, params = averaged()
    data = batch(model)
    each = torch.stack([m.log_prob(own, data) for m, own in zip(components(), values())], -1)
    expected = torch.softmax(each + params["weights"].log(), -1)
    np.testing.assert_allclose(model.filter(params, data).log_weights.exp(), expected, rtol=1e-10)


def test_forecast_is_the_mixture_of_forecasts():
    model, params = averaged(d=1)
    data, horizon = batch(model), 4
    state = model.filter(params, data)
    weights = state.log_weights.exp().unsqueeze(1)
    laws = [m._forecast_marginals(own, m.filter(own, data), None, horizon) for m, own in zip(components(1), values())]
    means, variances = (torch.stack([getattr(law, what)[..., 0] for law in laws], -1) for what in ("mean", "variance"))
    mean = (weights * means).sum(-1)
    got = model.forecast_marginals(params, state, horizon)
    np.testing.assert_allclose(got.mean[..., 0], mean, rtol=1e-12)
    spread = (weights * (variances + (means - mean.unsqueeze(-1)) ** 2)).sum(-1)
    np.testing.assert_allclose(got.variance[..., 0], spread, rtol=1e-10)


def test_joint_forecast_scores_as_the_continued_likelihood():
    model, params = averaged(d=1)
    data = batch(model)
    past, rest = data.slice_time(0, 8), data.slice_time(8, 12)
    state = model.filter(params, past)
    joint = model.forecast_joint(params, state, 4)
    np.testing.assert_allclose(joint.log_prob(rest.x.flatten(1)), model.log_prob(params, rest, state), rtol=1e-9)


def test_paths_keep_their_model_or_change_it():
    far = [
        {"mean": torch.tensor(m, dtype=torch.float64), "scale": torch.tensor(0.1, dtype=torch.float64)}
        for m in (-5.0, 5.0)
    ]
    whites = [ARMAModel(Observation(1), (0, 0, 0)) for _ in far]
    for adapt in (True, False):
        model = AverageModel(whites, adapt)
        params = model.join(far, torch.tensor([0.5, 0.5], dtype=torch.float64))
        generator = torch.Generator().manual_seed(1)
        x, _ = model.sample(params, model.initial_state(params, 200), 6, generator)
        sides = torch.sign(x[..., 0])
        changes = bool((sides != sides[:, :1]).any())
        assert changes is not adapt
        assert 60 < int((sides[:, 0] > 0).sum()) < 140


def test_parameters_of_later_models_are_numbered():
    model, params = averaged()
    assert list(model.parameters()) == list(params)
    assert {"weights", "ar", "mean", "ma_2", "ar_3", "ma_3", "scale_3"} <= set(params)
    for own, expected in zip(model.parts(params), values()):
        assert own.keys() == expected.keys()
        assert all(torch.equal(own[name], expected[name]) for name in own)


def test_what_cannot_be_averaged_raises():
    with pytest.raises(IncompatibleError, match="no model"):
        AverageModel([])
    with pytest.raises(IncompatibleError, match="different data"):
        AverageModel([*components()[:1], *components(n_covariates=1)[:1]])


def test_a_step_counts_where_all_models_score_it():
    mixed = AverageModel([components(0)[0], components(1)[0]])
    params = mixed.join(values()[:1] * 2, torch.tensor([0.5, 0.5], dtype=torch.float64))
    data = batch(mixed)
    steps = mixed.log_prob_steps(params, data)
    assert steps.scored[..., 0].tolist() == [[False] + [True] * 11] * 2
    each = [m.log_prob_steps(values()[0], data).values[:, 1:] for m in (components(0)[0], components(1)[0])]
    expected = torch.logsumexp(torch.stack([one.sum(-1) for one in each], -1), -1) - np.log(2)
    np.testing.assert_allclose(mixed.log_prob(params, data), expected, rtol=1e-12)
    alone = params | {"weights": torch.tensor([1.0, 0.0], dtype=torch.float64)}
    first = components(0)[0].log_prob(values()[0], data)
    np.testing.assert_allclose(mixed.log_prob(alone, data), first, rtol=1e-12)


def test_forgotten_scores_count_less():
    model = AverageModel(components(), forgetting=0.8)
    params = model.join(values(), torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
    data = batch(model)
    each = torch.stack([m.log_prob_steps(own, data).values for m, own in zip(components(), values())], -1)
    ages = torch.arange(12.0, 0.0, -1.0, dtype=torch.float64)  # before the next step
    total = (0.8**ages @ each) + 0.8**12 * params["weights"].log()
    np.testing.assert_allclose(
        model.filter(params, data).log_weights.exp(), torch.softmax(total, -1), rtol=1e-10, atol=1e-14
    )


def walks_of_bits(weights, adapt, forgetting):
    """All paths of four bits from two Markov chains, and the product of the one-step mixtures by hand, (16,)."""
    chains = np.array([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.3, 0.7], [0.6, 0.4], [0.8, 0.2]]])
    paths, chances = list(itertools.product((0, 1), repeat=4)), []
    for path in paths:
        w, chance, last = np.array(weights), 1.0, 2  # the third row is that of the start
        for bit in path:
            each = chains[:, last, bit]
            chance *= w @ each
            if adapt:
                w = (w * each) ** forgetting / ((w * each) ** forgetting).sum()
            last = bit
        chances.append(chance)
    model = AverageModel([MarkovChainModel(Observation(1, "counting", 0.0, 2)) for _ in range(2)], adapt, forgetting)
    params = model.join(
        [{"transition": torch.from_numpy(one)} for one in chains], torch.tensor(weights, dtype=torch.float64)
    )
    return model, params, np.array(paths, dtype=float), np.array(chances)


@pytest.mark.parametrize(("adapt", "forgetting"), [(True, 1.0), (True, 0.5), (False, 1.0)])
def test_paths_have_the_law_of_the_product_of_the_steps(adapt, forgetting):
    model, params, paths, chances = walks_of_bits([0.6, 0.4], adapt, forgetting)
    assert abs(chances.sum() - 1) < 1e-12
    data = make_batch(model, paths[..., None], np.full(16, 4))
    np.testing.assert_allclose(model.log_prob(params, data).exp(), chances, rtol=1e-12)
    n = 20_000
    start = model.initial_state(params, n)

    def surprise(sampler):
        """P-value of the numbers of paths of each kind."""
        x, _ = sampler(params, start, 4, torch.Generator().manual_seed(0))
        codes = (x[..., 0].long() * torch.tensor([8, 4, 2, 1])).sum(-1)
        return stats.chisquare(np.bincount(codes.numpy(), minlength=16), n * chances).pvalue

    anew = partial(SequenceModel._sample, model, u=None, temper=None)
    assert surprise(model.sample) > 1e-3
    assert surprise(anew) > 1e-3, "to draw the model anew at each step is the same law"
    kept, _, _, _ = walks_of_bits([0.6, 0.4], True, 1.0)
    assert (surprise(kept.sample) > 1e-3) == (adapt and forgetting == 1)


def test_weights_go_on_moving_behind_what_no_model_thinks_possible():
    model, params, _, _ = walks_of_bits([0.6, 0.4], True, 1.0)
    for name in ("transition", "transition_2"):
        params[name][1] = torch.tensor([1.0, 0.0])  # a one never follows a one
    path = np.array([0.0, 1, 1, 0, 0, 1])
    data = make_batch(model, path[None, :, None], np.array([6]))
    loop = StepLoop(model, params, data)
    steps = model.log_prob_steps(params, data)
    np.testing.assert_allclose(steps.values[0], loop.values, rtol=1e-12)
    np.testing.assert_allclose(steps.final.log_weights, loop.final.log_weights, rtol=1e-12)
    assert steps.values.isneginf().tolist() == [[False, False, True, False, False, False]]
