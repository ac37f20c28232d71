"""Hidden semi-Markov models against sums over all segmentations, plain hidden Markov models, and the step loop."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from probseq.distributions.durations import (
    FreeDuration,
    GeometricDuration,
    NegativeBinomialDuration,
    PoissonDuration,
)
from probseq.distributions.emissions import Categorical, Normal, Poisson, Product, StudentT
from probseq.distributions.emissions.mixture import GaussianMixture
from probseq.distributions.emissions.vonmises import VonMises
from probseq.distributions.params import flatten, unflatten
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.em import EM
from probseq.models.base import Batch, SequenceModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.hsmm import HiddenSemiMarkovModel
from probseq.models.transitions import Cyclic, Transitions
from probseq.testing import check_model

DURATIONS = {
    "free": FreeDuration(4),
    "poisson": PoissonDuration(3),
    "truncated": PoissonDuration(3, tail="truncated"),
    "negative binomial": NegativeBinomialDuration(4),
    "geometric": GeometricDuration(),
}
LEFT = ("start", "censored", "stationary")


def make(name, left="start", s=3, emission=None, **options):
    emission = Normal() if emission is None else emission
    observation = emission.observation(1, 3 if isinstance(emission, Categorical) else None)
    return HiddenSemiMarkovModel(s, emission, observation, DURATIONS[name], left, **options)


def random_params(model, draw=(), seed=0):
    specs = model.parameters()
    size = sum(spec.constraint.size(spec.shape) for spec in specs.values())
    generator = torch.Generator().manual_seed(seed)
    return unflatten(specs, 0.8 * torch.randn(*draw, size, generator=generator, dtype=torch.float64))


def as_batch(x, lengths=None):
    x = torch.as_tensor(np.asarray(x, dtype=float))
    lengths = torch.full((x.shape[0],), x.shape[1]) if lengths is None else torch.as_tensor(lengths)
    seen = ~torch.isnan(x) & (torch.arange(x.shape[1]) < lengths[:, None])[..., None]
    return Batch(torch.where(seen, x, 0.0), seen, lengths)


def data(n=2, t=6, seed=1, holes=True):
    x = np.random.default_rng(seed).normal(size=(n, t, 1))
    if holes:
        x[0, 2] = np.nan
    return as_batch(x, np.maximum(t - np.arange(n), 1))


def segmentations(t, s):
    """Every way to cut t steps into segments of states, neighbours different: lists of (state, length)."""
    for z in itertools.product(range(s), repeat=t):
        yield z, [(j, len(list(group))) for j, group in itertools.groupby(z)]


def law_of_segments(model, params, z, segments, longest=400):
    """p(z) from the probabilities of whole durations, without hazards or elapsed durations."""
    tables = model.duration.tables(params)
    mass = tables.log_mass(longest).exp().numpy()
    survivor = mass[:, ::-1].cumsum(-1)[:, ::-1]
    mean = survivor.sum(-1)
    move = params["transition"].numpy()
    if model.left == "stationary":
        visits = np.linalg.matrix_power(0.5 * (np.eye(len(move)) + move), 5000)[0]
        first = visits * mean / (visits * mean).sum()
    else:
        first = params["initial"].numpy()
    p = first[z[0]]
    for index, (j, d) in enumerate(segments):
        last = index == len(segments) - 1
        if index == 0 and model.left != "start":
            # The forward recurrence time: P(residual = d) = P(D >= d) / E[D].
            p *= survivor[j, d - 1 :].sum() / mean[j] if last else survivor[j, d - 1] / mean[j]
        else:
            p *= survivor[j, d - 1] if last else mass[j, d - 1]
        if not last:
            p *= move[j, segments[index + 1][0]]
    return p


def enumerated(model, params, batch, q):
    t = int(batch.lengths[q])
    law = model.state_laws(params)
    each = law[None].log_prob_seen(batch.x[q, :t, None], batch.seen[q, :t, None]).numpy()
    paths, joint = [], []
    for z, segments in segmentations(t, model.n_states):
        with np.errstate(divide="ignore"):
            joint.append(np.log(law_of_segments(model, params, z, segments)) + each[np.arange(t), z].sum())
        paths.append(z)
    return np.array(paths), np.array(joint)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("left", LEFT)
def test_equals_the_sum_over_all_segmentations(name, left):
    model = make(name, left, s=2 if name == "free" else 3)
    params, batch = random_params(model), data()
    total, posterior = model.log_prob(params, batch), model.smooth(params, batch)
    decoded, best = model.decode(params, batch), model.decode(params, batch, k=3)
    for q in range(batch.n):
        paths, joint = enumerated(model, params, batch, q)
        evidence = np.logaddexp.reduce(joint)
        assert_allclose(float(total[q]), evidence, rtol=1e-10, atol=1e-10)
        weights = np.exp(joint - evidence)
        t = paths.shape[1]
        share = np.stack([((paths == j) * weights[:, None]).sum(0) for j in range(model.n_states)], -1)
        assert_allclose(posterior[q, :t], share, atol=1e-9)
        order = np.argsort(-joint)[:3]
        assert_allclose(float(decoded.log_prob[q]), joint[order[0]], rtol=1e-10)
        assert_array_equal(decoded.states[q, :t], paths[order[0]])
        assert_allclose(best.log_prob[:, q], joint[order], rtol=1e-10)
        assert_array_equal(best.states[:, q, :t], paths[order])


@pytest.mark.parametrize("start", ["free", "stationary"])
def test_geometric_durations_are_a_hidden_markov_model(start):
    left = "stationary" if start == "stationary" else "censored"
    model = make("geometric", left, emission=Poisson())
    params = random_params(model, (2,))
    batch = as_batch(np.random.default_rng(2).poisson(2.0, (3, 30, 1)), [30, 11, 1])
    leave = 1 / params["duration_mean"].unsqueeze(-1)
    transition = leave * params["transition"] + (1 - leave) * torch.eye(3, dtype=torch.float64)
    plain = {name: value for name, value in params.items() if name in ("initial", "rate")} | {"transition": transition}
    markov = HiddenMarkovModel(3, Poisson(), Poisson().observation(1), start)
    assert_close(model.log_prob(params, batch), markov.log_prob(plain, batch), rtol=1e-10, atol=1e-10)
    for ask in ("smooth", "filter_states"):
        assert_close(getattr(model, ask)(params, batch), getattr(markov, ask)(plain, batch), rtol=1e-10, atol=1e-10)
    here, there = (m.decode(p, batch) for m, p in ((model, params), (markov, plain)))
    assert torch.equal(here.states, there.states)
    assert_close(here.log_prob, there.log_prob, rtol=1e-10, atol=1e-10)
    assert_close(model.expected_durations(params), markov.expected_durations(plain), rtol=1e-10, atol=0.0)
    assert_close(model.stationary_distribution(params), markov.stationary_distribution(plain), rtol=1e-10, atol=1e-10)
    one, two = (m.leave_one_out(p, batch) for m, p in ((model, params), (markov, plain)))
    assert_close(one.probs, two.probs, rtol=1e-10, atol=1e-10)
    assert_close(one.log_prob, two.log_prob, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("left", LEFT)
def test_gradient_equals_that_of_the_step_loop(name, left):
    model = make(name, left)
    params, batch = random_params(model, (2,)), data(3)
    specs = model.parameters()
    gain = torch.from_numpy(np.random.default_rng(5).normal(size=(2, batch.n, batch.t)))
    gradients = []
    for steps in (model._log_prob_steps, lambda *a: SequenceModel._log_prob_steps(model, *a)):
        flat = flatten(specs, params).requires_grad_()
        values = unflatten(specs, flat)
        (steps(values, batch, model.initial_state(values, batch.n)).values * gain).sum().backward()
        gradients.append(flat.grad)
    assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "name, left, options",
    [
        ("free", "censored", {}),
        ("truncated", "stationary", {}),
        ("negative binomial", "start", {"transitions": Cyclic(), "emission": Categorical()}),
    ],
)
def test_conformance(name, left, options):
    check_model(make(name, left, **options))


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("left", LEFT)
def test_em_never_falls(name, left):
    model = make(name, left)
    truth = random_params(model, seed=3)
    truth["mean"] = torch.tensor([[0.0], [2.0], [4.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, _ = model.sample(truth, model.initial_state(truth, 3), 60, generator)
    batch = as_batch(x.numpy(), [60, 40, 1])
    batch.seen[0, 5:8] = False
    params = model.em_start(batch, 3, "kmeans", generator)
    weights = torch.tensor([1.0, 0.5, 2.0])
    before = None
    for _ in range(12):
        step = model.em_step(params, batch, weights)
        if before is not None:
            assert bool((step.log_prob >= before - 1e-9).all())
        before, params = step.log_prob, step.params
    for spec_name, spec in model.parameters().items():
        assert spec.constraint.violation(params[spec_name]) is None


@pytest.mark.parametrize(
    "emission, k",
    [
        (StudentT(), 2),
        (Normal("full"), 2),
        (GaussianMixture(2), 1),
        (Product([Normal(), Poisson()]), 2),
        (VonMises(), 1),
    ],
)
def test_every_emission_is_fitted_with_holes(emission, k):
    observation = emission.observation(k)
    model = HiddenSemiMarkovModel(2, emission, observation, PoissonDuration(6))
    rng = np.random.default_rng(4)
    x = np.repeat(rng.permutation(8), 5)[None, :, None] % 2 * 2.0 + rng.poisson(0.7, (1, 40, k))
    x = x / 4 if isinstance(emission, VonMises) else x
    batch = as_batch(np.where(rng.random(x.shape) < 0.1, np.nan, x))
    params = model.em_start(batch, 2, "kmeans", torch.Generator().manual_seed(0))
    values = []
    for _ in range(5):
        step = model.em_step(params, batch)
        values.append(step.log_prob)
        params = step.params
    assert bool((torch.stack(values).diff(dim=0) >= -1e-9).all())
    assert_close(step.occupancy.sum(-1), torch.full((2,), 40.0, dtype=torch.float64))


def test_free_durations_are_kaplan_meier_where_the_states_are_known():
    model = make("free", s=2, emission=Normal())
    runs = [(0, 2), (1, 4), (0, 1), (1, 2), (0, 3), (1, 4), (0, 2), (1, 1)]
    z = np.concatenate([[j] * d for j, d in runs])
    batch = as_batch(np.where(z == 0, -50.0, 50.0)[None, :, None])._replace(states=torch.from_numpy(z)[None])
    params = {name: value[None] for name, value in random_params(model).items()}
    for _ in range(2):
        params = model.em_step(params, batch).params
    # The last run of state 1 is cut at length 1, so that it only says that the duration is at least 1.
    assert_allclose(params["duration_probs"][0, 0], [1 / 4, 2 / 4, 1 / 4, 0.0], atol=1e-12)
    assert_allclose(params["duration_probs"][0, 1], [0.0, 1 / 3, 0.0, 2 / 3], atol=1e-12)


def test_fit_finds_the_durations():
    model = make("negative binomial", s=2)
    model.duration = NegativeBinomialDuration(60)
    truth = {
        "initial": [0.5, 0.5],
        "transition": [[0.0, 1.0], [1.0, 0.0]],
        "duration_mean": [6.0, 15.0],
        "duration_size": [20.0, 3.0],
        "mean": [[0.0], [4.0]],
        "scale": [[1.0], [1.0]],
    }
    truth = {name: torch.tensor(value, dtype=torch.float64) for name, value in truth.items()}
    generator = torch.Generator().manual_seed(1)
    x, _ = model.sample(truth, model.initial_state(truth, 1), 6000, generator)
    batch = as_batch(x.numpy())
    found = EM(n_init=1, tol=1e-4).fit(model, batch, generator)
    assert found.status == "converged"
    assert found.log_prob > float(model.log_prob(truth, batch).sum())
    order = found.params["mean"][0, :, 0].argsort()
    # About 290 segments of each: standard errors 0.16 and 0.58.
    assert_allclose(found.params["duration_mean"][0, order], [6.0, 15.0], atol=4 * 0.58)
    assert_allclose(found.params["duration_mean"][0, order[0]], 6.0, atol=4 * 0.16)
    assert found.params["duration_size"][0, order[1]] < 5 < found.params["duration_size"][0, order[0]]


def test_zeros_and_remote_values_stay_exact():
    model = make("free", s=3, emission=Normal(), transitions=np.array([[0, 1, 0], [0, 0, 1], [1, 0, 1]], bool))
    params = random_params(model)
    params["duration_probs"] = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]]).double()
    params["scale"] = torch.full((3, 1), 1e-3, dtype=torch.float64)
    batch = as_batch(np.random.default_rng(3).normal(size=(1, 7, 1)) * 3)
    paths, joint = enumerated(model, params, batch, 0)
    total = model.log_prob(params, batch)
    assert float(total) < -1e6
    assert_allclose(float(total), np.logaddexp.reduce(joint), rtol=1e-10)
    assert_array_equal(model.decode(params, batch).states[0], paths[joint.argmax()])


def test_all_missing_and_empty_sequences():
    model = make("poisson", "stationary")
    params = random_params(model)
    batch = as_batch(np.full((3, 6, 1), np.nan), [6, 1, 0])
    assert_array_equal(model.log_prob(params, batch), np.zeros(3))
    share = model.stationary_distribution(params)
    assert_allclose(model.smooth(params, batch)[0], share.expand(6, 3), atol=1e-9)
    assert not model.smooth(params, batch)[2].any()
    assert_array_equal(model.decode(params, batch).states[2], np.full(6, -1))


def test_renaming_states_renames_beliefs():
    model = make("free", s=3)
    params, batch = random_params(model, (2,)), data(3)
    turn = torch.tensor([[2, 0, 1], [1, 0, 2]])
    state = model.log_prob_steps(params, batch).final
    moved = model.permute_state(state, turn)
    for draw in range(2):
        assert torch.equal(moved.log_probs[draw], state.log_probs[draw][:, turn[draw]])


def test_bad_settings_raise():
    observation = Normal().observation(1)
    for bad in (0, 1, 2.5, True, "3"):
        with pytest.raises(ParameterError, match="n_states"):
            HiddenSemiMarkovModel(bad, Normal(), observation, FreeDuration(3))
    with pytest.raises(ParameterError, match="left"):
        make("free", "cut")
    with pytest.raises(ParameterError, match="state 2 nowhere but to itself"):
        make("free", transitions=np.triu(np.ones((3, 3), bool)))
    with pytest.raises(ParameterError, match="max_duration"):
        HiddenSemiMarkovModel(2, Normal(), observation, FreeDuration(0)).parameters()
    from probseq.models.covariate_transitions import CovariateTransitions

    with pytest.raises(IncompatibleError, match="covariate"):
        make("free", transitions=CovariateTransitions())


def test_structure_is_kept_and_counted():
    model = make("negative binomial", s=3, transitions=Transitions(mask=[[1, 1, 1], [1, 1, 0], [1, 1, 1]]))
    # initial 2, transitions 1 + 0 + 1, durations 6, emissions 6
    assert model.n_parameters == 2 + 2 + 6 + 6
    batch = data(3, 40, holes=False)
    step = model.em_step(model.em_start(batch, 2, "random", torch.Generator().manual_seed(0)), batch)
    assert not step.params["transition"].diagonal(dim1=-2, dim2=-1).any()
    assert not step.params["transition"][:, 1, 2].any()


def test_durations_longer_than_the_data_are_fitted():
    model = HiddenSemiMarkovModel(2, Normal(), Normal().observation(1), FreeDuration(30))
    found = EM(n_init=1, max_iter=50, tol=1e-2).fit(model, data(1, 8), torch.Generator().manual_seed(0))
    assert np.isfinite(found.log_prob)
