"""Vectors of bits that depend on those before: enumeration, the naive form and its gradient, draws, missing bits."""

import itertools

import pytest
import torch

from probseq.distributions.autoregressive_bits import AutoregressiveBits
from probseq.distributions.bit_levels import nade_log_prob
from probseq.distributions.emissions import AutoregressiveBernoulli
from probseq.errors import ParameterError, SupportError, UnsupportedError
from probseq.testing import check_distribution

K, H = 6, 4


def parts(r, k=K, h=H, m=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((r, k), (r, h), (m, h, k), (m, k, h))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def every_vector(k=K):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=k)), dtype=torch.float64)


def naive(x, bias, hidden, encoder, decoder):
    """The definition, bit by bit."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        vector = torch.sigmoid(hidden + x[:, :i] @ encoder[:, :i].T)
        logit = bias[:, i] + vector @ decoder[i]
        total = total + x[:, i] * logit - torch.nn.functional.softplus(logit)
    return total


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_log_prob_and_gradient_are_those_of_the_definition(density):
    r, k = 40, 30
    bias, hidden, encoder, decoder = (t.requires_grad_() for t in parts(r, k, 7))
    inputs = (bias, hidden, encoder, decoder)
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(r, k, generator=generator) < density).double()
    weight = torch.randn(r, generator=generator, dtype=torch.float64)
    ours = nade_log_prob(x, bias, hidden, encoder[0], decoder[0])
    expected = naive(x, bias, hidden, encoder[0], decoder[0])
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad((weight * ours).sum(), inputs)
    for one, other in zip(found, torch.autograd.grad((weight * expected).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_no_rows_have_no_log_prob():
    bias, hidden, encoder, decoder = parts(0)
    assert nade_log_prob(bias, bias, hidden, encoder[0], decoder[0]).shape == (0,)


def test_all_vectors_together_have_probability_one():
    law = AutoregressiveBits(*parts(3))
    total = law.log_prob(every_vector().unsqueeze(1)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert float(law.log_prob(torch.full((3, K), 0.5, dtype=torch.float64)).max()) == -torch.inf


def test_it_is_one_law():
    which = torch.tensor([0, 1, 1])
    check_distribution(AutoregressiveBits(*parts(3, m=2), which), n_samples=3000)


def test_margins_are_sums_over_all_vectors():
    law = AutoregressiveBits(*parts(4, m=2), torch.tensor([1, 0, 0, 1]))
    p = law.log_prob(every_vector().unsqueeze(1)).exp()
    torch.testing.assert_close(law.mean, torch.einsum("vr,vk->rk", p, every_vector()), rtol=1e-10, atol=1e-10)
    assert law.margins is None


def test_margins_of_many_variables_are_averages_that_say_so():
    bias, hidden, encoder, decoder = parts(2, 9)
    law = AutoregressiveBits(bias, hidden, encoder, decoder)
    assert law.margins == "margins from 128 draws"
    p = law.log_prob(every_vector(9).unsqueeze(1)).exp()
    exact = torch.einsum("vr,vk->rk", p, every_vector(9))
    assert float((law.mean - exact).abs().max()) < 5 * 0.5 / 128**0.5
    assert torch.equal(law.mean, AutoregressiveBits(bias, hidden, encoder, decoder).mean)


@pytest.mark.parametrize("seen", [[1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]])
def test_missing_bits_are_summed_out(seen):
    law, mask = AutoregressiveBits(*parts(3)), torch.tensor(seen, dtype=torch.bool)
    x = every_vector()[37].expand(3, K)
    agrees = (every_vector() == x[0])[:, mask].all(-1)
    expected = torch.logsumexp(law.log_prob(every_vector()[agrees].unsqueeze(1)), 0)
    torch.testing.assert_close(law.log_prob_seen(x, mask.expand(3, K)), expected, rtol=1e-10, atol=1e-10)
    assert bool((law.log_prob_seen(x, torch.zeros(3, K, dtype=torch.bool)) == 0).all())


def test_gradients_pass_through_missing_bits():
    inputs = [t.requires_grad_() for t in parts(4)]
    law = AutoregressiveBits(*inputs)
    seen = torch.tensor([[1] * 6, [0] * 6, [0, 1, 0, 1, 0, 1], [1] * 6], dtype=torch.bool)
    law.log_prob_seen(every_vector()[[3, 5, 9, 60]], seen).sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in inputs)
    assert bool((inputs[0].grad[1] == 0).all())


def test_too_many_missing_bits_are_refused():
    law = AutoregressiveBits(*parts(1, 14))
    seen = torch.zeros(1, 14, dtype=torch.bool)
    seen[0, -1] = True
    with pytest.raises(UnsupportedError, match="13 missing bits"):
        law.log_prob_seen(torch.zeros(1, 14, dtype=torch.float64), seen)
    assert law.log_prob_seen(torch.zeros(1, 14, dtype=torch.float64), ~seen).shape == (1,)
    with pytest.raises(UnsupportedError, match="joint law of the variables"):
        law.marginal([0, 2])


def test_draws_of_several_groups_are_those_of_each_alone():
    bias, hidden, encoder, decoder = parts(5, m=3)
    which = torch.tensor([2, 0, 2, 2, 0])
    law = AutoregressiveBits(bias, hidden, encoder, decoder, which)
    generator = torch.Generator().manual_seed(4)
    together, p = law._drawn(50, generator)
    for row in range(5):
        m = int(which[row])
        x, each = together[:, row], bias[row : row + 1].expand(50, K)
        factors = torch.where(x == 1, p[:, row], 1 - p[:, row]).log().sum(-1)
        alone = naive(x, each, hidden[row : row + 1].expand(50, H), encoder[m], decoder[m])
        torch.testing.assert_close(factors, alone, rtol=1e-10, atol=1e-10)


def test_moving_the_batch_copies_no_matrices():
    emission = AutoregressiveBernoulli(hidden_size=H)
    specs = emission.parameters(emission.observation(K))
    generator = torch.Generator().manual_seed(0)
    params = {name: torch.randn(2, *spec.shape, generator=generator) for name, spec in specs.items()}
    for name in ("bias", "hidden_bias"):
        params[name] = params[name].unsqueeze(1).expand(2, 7, -1)
        params[name] = params[name] + torch.arange(7.0).unsqueeze(-1)
    for name in emission.constants:
        params[name] = params[name].unsqueeze(1)
    law = emission.distribution(params)
    moved = law.movedim(0, 1).reshape(14)[3:9]
    assert moved.encoder.data_ptr() == params["encoder"].data_ptr()
    x = torch.ones(K)
    torch.testing.assert_close(moved.log_prob(x), law.log_prob(x).T.reshape(14)[3:9])


def test_states_share_the_matrices():
    emission = AutoregressiveBernoulli(hidden_size=3)
    specs = emission.parameters(emission.observation(4), (5,))
    assert {name: spec.shape for name, spec in specs.items()} == {
        "bias": (5, 4),
        "hidden_bias": (5, 3),
        "encoder": (3, 4),
        "decoder": (4, 3),
    }


def test_bad_arguments_and_data_are_named():
    with pytest.raises(ParameterError, match="hidden_size"):
        AutoregressiveBernoulli(hidden_size=0).check_arguments()
    with pytest.raises(SupportError, match="0.5"):
        AutoregressiveBernoulli().check(every_vector().numpy() / 2)
