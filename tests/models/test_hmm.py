"""Hidden Markov models against enumeration of all paths, the step loop, and published fits."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, StudentT
from probseq.distributions.params import flatten, unflatten
from probseq.errors import ParameterError
from probseq.models.base import Batch, SequenceModel
from probseq.models.hmm import Belief, HiddenMarkovModel

EMISSIONS = {
    "diag": Normal(),
    "full": Normal("full"),
    "spherical": Normal("spherical"),
    "tied": Normal("tied"),
    "student": StudentT(),
    "student fixed": StudentT(df=4.0),
    "poisson": Poisson(),
    "categorical": Categorical(n_categories=3),
    "bernoulli": Bernoulli(),
}


def random_batch(emission, n=3, t=6, k=2, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    if isinstance(emission, Poisson):
        x = rng.poisson(4.0, (n, t, k)).astype(float)
    elif isinstance(emission, Categorical | Bernoulli):
        x = rng.integers(0, 2 + isinstance(emission, Categorical), (n, t, k)).astype(float)
    else:
        x = 10 + rng.normal(size=(n, t, k)) * rng.choice([1.0, 4.0], (n, t, 1))
    lengths = np.maximum(t - np.arange(n), 1)
    seen = (rng.random((n, t, k)) >= missing) & (np.arange(t) < lengths[:, None])[..., None]
    x = np.where(seen, x, emission.observation(k).fill)
    return Batch(*(torch.from_numpy(a) for a in (x, seen, lengths)))


def random_model(name, n_draws=None, s=3, k=2, seed=1, **options):
    emission = EMISSIONS[name]
    model = HiddenMarkovModel(s, emission, emission.observation(k), **options)
    generator = torch.Generator().manual_seed(seed)
    batch = random_batch(emission, n=2, t=60, k=k, seed=seed)
    params = model.em_start(batch, n_draws or 1, "random", generator)
    # Away from the nearly deterministic starts, so that every path counts.
    params["transition"] = 0.5 * params["transition"] + 0.5 / s
    if model.transitions.mask is not None:
        params["transition"] = params["transition"] * model.transitions.support(s)
        params["transition"] /= params["transition"].sum(-1, keepdim=True)
    return model, params if n_draws else {key: value[0] for key, value in params.items()}


def enumerated(model, params, batch, q):
    """log p(x, z) of every path z of sequence q, and the paths."""
    t, s = int(batch.lengths[q]), model.n_states
    law = model.emission.distribution(params, (s,))
    each = law[None].log_prob_seen(batch.x[q, :t, None], batch.seen[q, :t, None]).numpy()
    paths = np.array(list(itertools.product(range(s), repeat=t)))
    start = model.initial_state(params, 1).probs[0].numpy()
    with np.errstate(divide="ignore"):
        joint = np.log(start)[paths[:, 0]] + each[np.arange(t), paths].sum(1)
        for step in range(1, t):
            joint = joint + np.log(params["transition"].numpy())[paths[:, step - 1], paths[:, step]]
    return joint, paths


@pytest.mark.parametrize("name", EMISSIONS)
def test_equals_enumeration_with_holes(name):
    model, params = random_model(name)
    batch = random_batch(model.emission)
    total = model.log_prob(params, batch)
    posterior, decoded = model.smooth(params, batch), model.decode(params, batch)
    for q in range(batch.n):
        joint, paths = enumerated(model, params, batch, q)
        evidence = np.logaddexp.reduce(joint)
        assert_allclose(float(total[q]), evidence, rtol=1e-10)
        weights = np.exp(joint - evidence)
        for t in range(int(batch.lengths[q])):
            share = [weights[paths[:, t] == j].sum() for j in range(model.n_states)]
            assert_allclose(posterior[q, t], share, atol=1e-10)
        assert_allclose(float(decoded.log_prob[q]), joint.max(), rtol=1e-10)
        assert_array_equal(decoded.states[q, : paths.shape[1]], paths[joint.argmax()])


def test_parameters_that_are_written_to_are_read_again():
    model, params = random_model("diag")
    batch = random_batch(model.emission)
    first = model.log_prob(params, batch)
    assert_close(model.log_prob(params, batch), first, rtol=0, atol=0)
    params["mean"].mul_(1.1)
    params["scale"].mul_(0.9)
    written = model.log_prob(params, batch)
    copies = {name: value.clone() for name, value in params.items()}
    assert_close(written, model.log_prob(copies, batch), rtol=0, atol=0)
    assert (written - first).abs().min() > 1e-3


def test_best_paths_equal_the_sorted_enumeration():
    model, params = random_model("diag")
    batch = random_batch(model.emission)
    best = model.decode(params, batch, k=5)
    assert best.states.shape == (5, batch.n, batch.t) and best.log_prob.shape == (5, batch.n)
    for q in range(batch.n):
        joint, paths = enumerated(model, params, batch, q)
        order = np.argsort(-joint)[:5]
        assert_allclose(best.log_prob[:, q], joint[order], rtol=1e-10)
        assert_array_equal(best.states[:, q, : paths.shape[1]], paths[order])
    drawn = {name: value.expand(2, *value.shape) for name, value in params.items()}
    assert_array_equal(model.decode(drawn, batch, k=5).states[1], best.states)


@pytest.mark.parametrize("name", EMISSIONS)
@pytest.mark.parametrize("options", [{}, {"start": "stationary"}])
def test_fast_forms_equal_the_step_loop(name, options):
    model, params = random_model(name, n_draws=2, **options)
    batch = random_batch(model.emission, t=9)
    state = model.initial_state(params, batch.n)
    slow, fast = SequenceModel._scan(model, params, batch, state), model._scan(params, batch, state)
    real = batch.real
    assert_close(fast.states.probs[:, real], slow.states.probs[:, real], rtol=1e-10, atol=1e-12)
    assert_close(fast.final.probs, slow.final.probs, rtol=1e-10, atol=1e-12)
    loop, steps = SequenceModel._log_prob_steps(model, params, batch, state), model.log_prob_steps(params, batch)
    assert_close(steps.values, loop.values, rtol=1e-10, atol=1e-11)
    assert_close(steps.final.probs, loop.final.probs, rtol=1e-10, atol=1e-12)
    for draw in range(2):
        one = {key: value[draw] for key, value in params.items()}
        assert_close(model.log_prob(one, batch), steps.values[draw].sum(-1), rtol=1e-12, atol=1e-12)
    first = model.log_prob_steps(params, batch.slice_time(0, 4))
    second = model.log_prob_steps(params, batch.slice_time(4, 9), first.final)
    assert_close(torch.cat([first.values, second.values], -1), steps.values, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["diag", "full", "student", "poisson", "categorical"])
@pytest.mark.parametrize("start", ["free", "stationary"])
def test_gradient_equals_that_of_the_step_loop(name, start):
    model, params = random_model(name, n_draws=2, start=start)
    batch = random_batch(model.emission)
    specs = model.parameters()
    gain = torch.from_numpy(np.random.default_rng(5).normal(size=(2, batch.n, batch.t)))
    gradients = []
    for steps in (model._log_prob_steps, lambda *a: SequenceModel._log_prob_steps(model, *a)):
        flat = flatten(specs, params).requires_grad_()
        values = unflatten(specs, flat)
        (steps(values, batch, model.initial_state(values, batch.n)).values * gain).sum().backward()
        gradients.append(flat.grad)
    assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


def test_structural_zeros_are_exact_and_not_counted():
    mask = np.triu(np.ones((3, 3), dtype=bool))
    model, params = random_model("diag", transitions=mask)
    assert model.n_parameters == 2 + 3 + 6 + 6
    batch = random_batch(model.emission, n=4, t=30)
    step = model.em_step({key: value[None] for key, value in params.items()}, batch)
    assert torch.all(step.params["transition"][0][~torch.from_numpy(mask)] == 0.0)
    assert_close(step.params["transition"].sum(-1), torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(ParameterError, match="at least one True"):
        HiddenMarkovModel(2, Normal(), Normal().observation(1), transitions=[[True, True], [False, False]])


def test_bad_settings_raise():
    observation = Normal().observation(1)
    for bad in (0, 2.5, True, "3"):
        with pytest.raises(ParameterError, match="n_states"):
            HiddenMarkovModel(bad, Normal(), observation)
    with pytest.raises(ParameterError, match="start"):
        HiddenMarkovModel(2, Normal(), observation, start="uniform")


def test_stationary_distribution_is_left_unchanged_by_a_step():
    model, params = random_model("poisson", n_draws=3)
    pi = model.stationary_distribution(params)
    assert_close((pi.unsqueeze(-2) @ params["transition"]).squeeze(-2), pi, rtol=1e-12, atol=1e-14)
    closed = {"transition": torch.eye(2, dtype=torch.float64)}
    assert_close(model.stationary_distribution(closed), torch.full((2,), 0.5, dtype=torch.float64))


def test_forecast_marginals_are_powers_of_the_transition():
    model, params = random_model("diag", n_draws=2)
    state = model.filter(params, random_batch(model.emission))
    law = model.forecast_marginals(params, state, 12)
    assert law.batch_shape == (2, 3, 12)
    power = torch.linalg.matrix_power(params["transition"], 11)
    assert_close(law.mean[..., 11, :], state.probs @ power @ params["mean"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["poisson", "categorical", "diag"])
def test_simulation_follows_log_prob(name):
    model, params = random_model(name, n_draws=2, k=1, s=2)
    generator = torch.Generator().manual_seed(3)
    start = model.initial_state(params, 20_000)
    x, states, final = model.simulate(params, start, 3, generator)
    assert x.shape == (2, 20_000, 3, 1) and states.shape == (2, 20_000, 3)
    law = model.predict_next(params, start)
    assert_close(x[:, :, 0].mean(1), law.mean[:, 0], rtol=0, atol=6 * float(law.stddev.max()) / 20_000**0.5)
    share = (states[:, :, 2] == 1).double().mean(1)
    expected = (start.probs[:, :1] @ torch.linalg.matrix_power(params["transition"], 2))[:, 0, 1]
    assert_close(share, expected, rtol=0, atol=0.02)
    for draw in range(2):
        one = {key: value[draw] for key, value in params.items()}
        batch = Batch(x[draw], torch.ones_like(x[draw], dtype=torch.bool), torch.full((20_000,), 3))
        assert_close(model.filter(one, batch).probs, final.probs[draw], rtol=1e-9, atol=1e-12)
        # E[1 / p(x)] over x ~ p is the size of the support for masses; for densities compare E[log p] in two ways.
        entropy = -model.log_prob(one, batch).mean()
        other, _ = SequenceModel._sample(model, one, Belief(start.probs[draw]), 3, generator, None, None)
        again = -model.log_prob(one, Batch(other, batch.seen, batch.lengths)).mean()
        assert_close(entropy, again, rtol=0, atol=0.05)


def test_sampled_states_agree_with_the_smoother():
    model, params = random_model("student")
    batch = random_batch(model.emission, t=5)
    states = model.sample_states(params, batch, 20_000, torch.Generator().manual_seed(0))
    posterior = model.smooth(params, batch)
    for j in range(3):
        assert_close((states == j).double().mean(0), posterior[..., j], rtol=0, atol=0.02)


def test_unreachable_likelihoods_do_not_underflow():
    model = HiddenMarkovModel(2, Normal(), Normal().observation(1))
    params = {
        "initial": torch.tensor([1.0, 0.0], dtype=torch.float64),
        "transition": torch.tensor([[0.9, 0.1], [0.0, 1.0]], dtype=torch.float64),
        "mean": torch.tensor([[0.0], [1000.0]], dtype=torch.float64),
        "scale": torch.tensor([[1.0], [1.0]], dtype=torch.float64),
    }
    x = torch.tensor([1000.0, 0.0, 1000.0], dtype=torch.float64).reshape(1, 3, 1)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([3]))
    joint, _ = enumerated(model, params, batch, 0)
    assert_allclose(float(model.log_prob(params, batch)), np.logaddexp.reduce(joint), rtol=1e-12)
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    model.log_prob(leaves, batch).sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())
