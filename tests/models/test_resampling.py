"""Resampling of weighted particles: what it must return whatever the weights."""

import math

import pytest
import torch

from probseq.models.resampling import effective_size, normalised, resample


@pytest.fixture
def log_weights() -> torch.Tensor:
    return torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_effective_size_counts_equal_weights_and_one_for_a_single_one():
    assert effective_size(torch.zeros(5)).item() == pytest.approx(5.0)
    assert effective_size(torch.tensor([0.0, -math.inf, -math.inf])).item() == pytest.approx(1.0)
    half = torch.tensor([1.0, 1.0, -math.inf, -math.inf]) - 800.0
    assert effective_size(half).item() == pytest.approx(2.0)


def test_effective_size_follows_its_equation(log_weights):
    weights = torch.softmax(log_weights, -1)
    torch.testing.assert_close(effective_size(log_weights), 1.0 / weights.square().sum(-1), atol=1e-12, rtol=1e-12)


def test_weights_of_zero_everywhere_become_equal():
    nothing = torch.full((2, 4), -math.inf)
    torch.testing.assert_close(normalised(nothing).exp(), torch.full((2, 4), 0.25))
    assert resample(nothing, torch.Generator().manual_seed(0)).tolist() == [[0, 1, 2, 3]] * 2


def test_each_particle_goes_on_as_often_as_its_weight_says_rounded(log_weights):
    chosen = resample(log_weights, torch.Generator().manual_seed(1))
    counts = torch.nn.functional.one_hot(chosen, 7).sum(-2)
    expected = 7 * torch.softmax(log_weights, -1)
    assert chosen.shape == log_weights.shape
    assert bool(((counts >= expected.floor()) & (counts <= expected.ceil())).all())


def test_counts_are_unbiased():
    log_weights = torch.log(torch.tensor([0.07, 0.5, 0.03, 0.4], dtype=torch.float64))
    chosen = resample(log_weights.expand(20_000, 4), torch.Generator().manual_seed(2))
    share = torch.nn.functional.one_hot(chosen, 4).double().mean((0, 1))
    torch.testing.assert_close(share, log_weights.exp(), atol=4 * 0.5 / math.sqrt(20_000), rtol=0)


def test_particles_without_weight_are_never_taken():
    log_weights = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    chosen = resample(log_weights.expand(500, 5), torch.Generator().manual_seed(3))
    assert set(chosen.flatten().tolist()) == {1, 3}


def test_the_same_generator_gives_the_same_particles(log_weights):
    first, second = (resample(log_weights, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
