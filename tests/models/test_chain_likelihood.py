"""Analytic gradients of the chain likelihood against automatic differentiation of the plain recursion."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from probseq.models import chain_likelihood
from probseq.models.chain_likelihood import chain_log_prob_steps, varying_log_prob_steps


def random_chain(seed, n_draws=2, n=3, t=7, s=3):
    rng = np.random.default_rng(seed)
    initial = rng.dirichlet(np.ones(s), (n_draws, n))
    transition = rng.dirichlet(np.ones(s), (n_draws, n, t, s))
    transition[..., 0, 2] = 0.0
    transition /= transition.sum(-1, keepdims=True)
    log_emission = 2 * rng.normal(size=(n_draws, n, t, s))
    log_emission[:, 0, 2] = 0.0
    log_emission[:, 1, 3, 0] = -np.inf
    arrays = (torch.from_numpy(a) for a in (initial, transition, log_emission))
    return *(a.requires_grad_() for a in arrays), torch.tensor([t, t - 2, 1])


def naive(initial, transition, log_emission, lengths, begun):
    """log p(x_t | x_<t), one step after the other."""
    belief = torch.where(begun[:, None], (initial[..., None, :] @ transition[:, :, 0])[..., 0, :], initial)
    steps = []
    for t in range(log_emission.shape[2]):
        joint = belief * log_emission[:, :, t].exp()
        total = joint.sum(-1)
        steps.append(torch.where(t < lengths, total.log(), 0.0))
        if t + 1 < log_emission.shape[2]:
            belief = (joint[..., None, :] / total[..., None, None] @ transition[:, :, t + 1])[..., 0, :]
    return torch.stack(steps, -1)


def gradients(value, tensors, gain):
    return torch.autograd.grad((value * gain).sum(), tensors, allow_unused=True)


@pytest.mark.parametrize("flags", [None, [False, True, True]])
def test_varying_gradient_equals_autograd_with_holes_and_zeros(flags):
    *tensors, lengths = random_chain(1)
    begun = None if flags is None else torch.tensor(flags)
    gain = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    steps, last = varying_log_prob_steps(*tensors, lengths, begun)
    expected = naive(*tensors, lengths, torch.tensor([False] * 3) if begun is None else begun)
    assert_close(steps, expected, rtol=1e-10, atol=1e-12)
    assert not last.requires_grad
    assert_close(last.sum(-1), torch.ones(2, 3, dtype=torch.float64), rtol=1e-12, atol=0)
    possible = tensors[1] > 0
    one, other = gradients(steps, tensors, gain), gradients(expected, tensors, gain)
    assert_close(one[0], other[0], rtol=1e-10, atol=1e-10)
    assert_close(one[1] * possible, other[1] * possible, rtol=1e-10, atol=1e-10)
    assert_close(one[2], other[2], rtol=1e-10, atol=1e-10)


def test_varying_gradient_sums_over_what_is_shared():
    *tensors, lengths = random_chain(3)
    shared = [tensors[0][:, :1], tensors[1][:1, :1], tensors[2][:1]]
    shared = [a.detach().clone().requires_grad_() for a in shared]
    shapes = ((2, 3, 3), (2, 3, 7, 3, 3), (2, 3, 7, 3))
    full = [a.detach().expand(shape).contiguous().requires_grad_() for a, shape in zip(shared, shapes, strict=True)]
    gain = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    small = gradients(varying_log_prob_steps(*shared, lengths)[0], shared, gain)
    large = gradients(varying_log_prob_steps(*full, lengths)[0], full, gain)
    for one, other, target in zip(small, large, shared, strict=True):
        assert_close(one, other.sum_to_size(target.shape), rtol=1e-10, atol=1e-11)


def test_varying_gradient_flows_through_a_logit():
    """The gradient of parameters of a multinomial logit, against finite differences."""
    generator = torch.Generator().manual_seed(5)
    slopes = torch.randn(2, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    u = torch.randn(1, 1, 30, 1, 1, dtype=torch.float64, generator=generator)
    table = torch.randn(1, 1, 30, 2, dtype=torch.float64, generator=generator)
    initial = torch.tensor([[[0.3, 0.7]]], dtype=torch.float64)

    def value(slopes):
        return varying_log_prob_steps(initial, torch.softmax(slopes * u, -1), table, torch.tensor([30]))[0].sum()

    assert torch.autograd.gradcheck(value, (slopes,), eps=1e-6, atol=1e-7, rtol=1e-6)


def test_constant_matrices_have_the_gradient_of_the_constant_chain():
    initial, transition, log_emission, lengths = random_chain(6)
    matrix = transition[:, 0, 0].detach().clone().requires_grad_()
    gain = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    varied = matrix[:, None, None].expand(2, 3, 7, 3, 3)
    one = gradients(chain_log_prob_steps(initial, matrix, log_emission, lengths)[0], (initial, matrix), gain)
    other = gradients(varying_log_prob_steps(initial, varied, log_emission, lengths)[0], (initial, matrix), gain)
    for a, b in zip(one, other, strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("varied", [False, True])
def test_batched_torch_gives_the_same_values_and_gradients(monkeypatch, varied):
    """The path of other devices, on the processor."""
    initial, transition, log_emission, lengths = random_chain(8)
    matrix = transition if varied else transition[:, 0, 0].detach().clone().requires_grad_()
    tensors = (initial, matrix, log_emission)
    function = varying_log_prob_steps if varied else chain_log_prob_steps
    gain = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    steps, last = function(*tensors, lengths)
    expected = gradients(steps, tensors, gain)
    monkeypatch.setattr(chain_likelihood, "_compiled", lambda tensor: False)
    again, end = function(*tensors, lengths)
    assert_close(again, steps, rtol=1e-10, atol=1e-12)
    assert_close(end, last, rtol=1e-10, atol=1e-12)
    for one, other in zip(gradients(again, tensors, gain), expected, strict=True):
        assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_single_precision_keeps_its_type():
    tensors = tuple(a.detach().float().requires_grad_() for a in random_chain(10)[:3])
    lengths = torch.tensor([7, 5, 1])
    steps, _ = varying_log_prob_steps(*tensors, lengths)
    assert steps.dtype == torch.float32
    steps.sum().backward()
    assert all(a.grad.dtype == torch.float32 and bool(a.grad.isfinite().all()) for a in tensors)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gradients_on_cuda_equal_those_of_the_processor():
    *tensors, lengths = random_chain(11)
    there = [a.detach().cuda().requires_grad_() for a in tensors]
    for steps_of, matrices in ((varying_log_prob_steps, slice(None)), (chain_log_prob_steps, (slice(None), 0, 0))):
        results = []
        for group, length in ((tensors, lengths), (there, lengths.cuda())):
            steps, _ = steps_of(group[0], group[1][matrices], group[2], length)
            results.append([a.cpu() for a in torch.autograd.grad(steps.sum(), group)])
        for one, other in zip(*results, strict=True):
            assert_close(one, other, rtol=1e-10, atol=1e-11)
