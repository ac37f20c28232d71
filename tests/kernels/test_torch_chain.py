"""The batched torch recursions against the compiled ones, in both of their modes."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from probseq.kernels import chain, torch_chain, varying

TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}
BEGUN = np.array([False, True, True, False])


def random_chain(seed, n_draws=2, t=40, s=3, zeros=False, remote=0.0, steps=False):
    """Four ragged sequences, the last one empty; zeros and likelihoods far beyond what a double can hold."""
    rng = np.random.default_rng(seed)
    n = 4
    initial = rng.dirichlet(np.ones(s), (n_draws, n))
    transition = rng.dirichlet(np.ones(s), (n_draws, n, t, s) if steps else (n_draws, s))
    log_emission = 3 * rng.normal(size=(n_draws, n, t, s))
    log_emission[:, 0, 2] = 0.0
    if zeros:
        transition[..., 0, 2] = 0.0
        transition[..., 2, 1] = 0.0
        transition /= transition.sum(-1, keepdims=True)
        initial[:, :, 1] = 0.0
        initial /= initial.sum(-1, keepdims=True)
        log_emission[:, 1, 3, 0] = -np.inf
        log_emission[:, 0, 5] = -np.inf
    log_emission[:, :3, ::2, 2] += remote
    log_emission[:, :2, 1::2, 0] -= remote
    return initial, transition, log_emission, np.array([t, t - 7, 1, 0])


def tensors(*arrays):
    return tuple(None if a is None else torch.from_numpy(np.array(a)) for a in arrays)


def compiled(initial, transition, log_emission, lengths, begun):
    """The kernel module, its arguments and the flags."""
    if transition.ndim == 5:
        return varying, (initial, transition, log_emission, lengths), {"begun": begun}
    return chain, (initial, transition, chain.table_emission(log_emission), lengths), {}


CASES = pytest.mark.parametrize(
    ("steps", "begun"), [(False, None), (True, None), (True, BEGUN)], ids=["constant", "varying", "begun"]
)
REMOTE = pytest.mark.parametrize("remote", [0.0, 1500.0, 11_600.0])


@CASES
@REMOTE
@pytest.mark.parametrize("zeros", [False, True])
def test_filter_equals_the_compiled_one(zeros, remote, steps, begun):
    problem = random_chain(1, zeros=zeros, remote=remote, steps=steps)
    module, arguments, flags = compiled(*problem, begun)
    expected = module.filter_states(*arguments, **flags)
    (flag,) = tensors(begun)
    found = torch_chain.filter_states(*tensors(*problem), begun=flag)
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, **TOLERANCE)
    assert_array_equal(found.predicted[:, 0].numpy() == 0.0, expected.predicted[:, 0] == 0.0)
    short = torch_chain.filter_states(*tensors(*problem), begun=flag, keep=False)
    assert short.filtered.shape[2] == 0
    assert_allclose(short.log_prob_steps, found.log_prob_steps, rtol=0, atol=0)
    assert_allclose(short.last, found.last, rtol=0, atol=0)


@CASES
@REMOTE
@pytest.mark.parametrize("weighted", [False, True])
def test_expectations_equal_the_compiled_ones(weighted, remote, steps, begun):
    problem = random_chain(2, zeros=True, remote=remote, steps=steps)
    gain = np.random.default_rng(3).normal(size=(1, 4, 40)) if weighted else None
    module, arguments, flags = compiled(*problem, begun)
    expected = module.expectations(*arguments, **flags, gain=gain)
    flag, weight = tensors(begun, gain)
    found = torch_chain.expectations(*tensors(*problem), begun=flag, gain=weight)
    moves = expected.pairs if steps else expected.counts
    assert_allclose(found.posterior, expected.posterior, **TOLERANCE)
    assert_allclose(found.start, expected.start, **TOLERANCE)
    assert_allclose(found.moves, moves, **TOLERANCE)
    assert_allclose(found.log_prob, expected.log_prob, **TOLERANCE)
    assert np.all(found.moves.numpy()[problem[1] == 0.0] == 0.0)


@CASES
@REMOTE
def test_best_paths_equal_the_compiled_ones(remote, steps, begun):
    problem = random_chain(4, zeros=True, remote=remote, steps=steps)
    module, arguments, flags = compiled(*problem, begun)
    expected = module.decode(*arguments, **flags)
    found = torch_chain.decode(*tensors(*problem), begun=tensors(begun)[0])
    assert_array_equal(found.states, expected.states)
    assert_allclose(found.log_prob, expected.log_prob, **TOLERANCE)


@CASES
@REMOTE
def test_sampled_paths_equal_the_compiled_ones(remote, steps, begun):
    problem = random_chain(5, zeros=True, remote=remote, steps=steps)
    uniform = np.random.default_rng(6).random((2, 50, 4, 40))
    module, arguments, flags = compiled(*problem, begun)
    expected = module.sample_paths(*arguments, uniform, **flags)
    found = torch_chain.sample_paths(*tensors(*problem, uniform), begun=tensors(begun)[0])
    assert_array_equal(found, expected)


def test_long_sequences_cross_blocks():
    problem = random_chain(7, t=2500, n_draws=1, s=4)
    module, arguments, _ = compiled(*problem, None)
    expected = module.filter_states(*arguments)
    found = torch_chain.filter_states(*tensors(*problem), keep=False)
    assert_allclose(found.log_prob_steps, expected.log_prob_steps, **TOLERANCE)
    assert_allclose(found.last, expected.last, **TOLERANCE)


def test_lost_states_are_kept_exactly():
    """Only state 1 leads to state 2; its mass falls to 1e-1300 before the last steps demand it."""
    t, s = 40, 3
    initial = np.array([[[1.0, 0.0, 0.0]]])
    transition = np.array([[[0.9, 0.1, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    log_emission = np.zeros((1, 1, t, s))
    log_emission[0, 0, :30, 1] = -100.0
    log_emission[0, 0, :30, 2] = -4000.0
    log_emission[0, 0, 30:, 0] = -np.inf
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        floats = (a.to(dtype) for a in tensors(initial, transition, log_emission))
        found = torch_chain.expectations(*floats, torch.tensor([t]))
        assert_allclose(found.log_prob, [[np.log(0.9**29 * 0.1)]], rtol=rtol)
        assert found.moves[0, 0, 2] == 0.0


def test_shared_matrices_and_emissions_broadcast():
    initial, transition, log_emission, lengths = random_chain(8, steps=True, zeros=True)
    small = (initial[:, :1], transition[:1, :1], log_emission[:1], lengths)
    shapes = (initial.shape, transition.shape, log_emission.shape, lengths.shape)
    full = tuple(np.broadcast_to(a, shape) for a, shape in zip(small, shapes, strict=True))
    for one, other in zip(
        torch_chain.expectations(*tensors(*small)), torch_chain.expectations(*tensors(*full)), strict=True
    ):
        assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("remote", [0.0, 500.0])
def test_single_precision(steps, remote):
    problem = random_chain(9, zeros=True, remote=remote, steps=steps)
    double = tensors(*problem)
    single = tuple(a.float() if a.is_floating_point() else a for a in double)
    for function in (torch_chain.filter_states, torch_chain.expectations):
        for one, other in zip(function(*single), function(*double), strict=True):
            assert one.dtype == torch.float32
            assert_allclose(one, other, rtol=2e-4, atol=2e-4)


def test_no_steps():
    initial, transition, log_emission, _ = random_chain(10)
    problem = (*tensors(initial, transition, log_emission[:, :, :0]), torch.zeros(4, dtype=torch.int64))
    assert torch_chain.expectations(*problem).posterior.shape == (2, 4, 0, 3)
    assert torch_chain.decode(*problem).states.shape == (2, 4, 0)
    assert torch_chain.sample_paths(*problem, torch.rand(2, 5, 4, 0)).shape == (2, 5, 4, 0)
    assert_array_equal(torch_chain.filter_states(*problem).last, initial)


def test_shapes_that_do_not_fit_raise():
    initial, transition, log_emission, lengths = tensors(*random_chain(11))
    with pytest.raises(ValueError, match="expected transition"):
        torch_chain.filter_states(initial, transition[:, :2], log_emission, lengths)
    with pytest.raises(ValueError, match="float64 or float32"):
        torch_chain.filter_states(initial.half(), transition, log_emission, lengths)
    with pytest.raises(ValueError, match="constant matrix"):
        torch_chain.decode(initial, transition, log_emission, lengths, begun=torch.ones(4, dtype=torch.bool))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@CASES
@pytest.mark.parametrize("remote", [0.0, 1500.0])
def test_cuda_equals_the_processor(remote, steps, begun):
    problem = tensors(*random_chain(12, zeros=True, remote=remote, steps=steps))
    (flag,) = tensors(begun)
    device = tuple(a.cuda() for a in problem)
    there = None if flag is None else flag.cuda()
    for function in (torch_chain.filter_states, torch_chain.expectations, torch_chain.decode):
        for one, other in zip(function(*device, begun=there), function(*problem, begun=flag), strict=True):
            assert_allclose(one.cpu(), other, **TOLERANCE)
