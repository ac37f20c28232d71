"""Where networks start: what each scheme promises of every gate's block."""

import math

import pytest
import torch

from probseq.distributions.emissions import Gamma, LogNormal, Normal, StudentT
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel

GATES = {"lstm": 4, "gru": 3, "rnn": 1, "relu": 1}


def start_of(cell, scheme, hidden_size=30, **options):
    emission = Normal()
    model = RecurrentModel(emission, emission.observation(4), cell, hidden_size, 2, initialization=scheme, **options)
    x = torch.zeros(1, 5, 4)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([5]))
    params = model._initial_guess(batch, torch.Generator().manual_seed(0))
    again = model._initial_guess(batch, torch.Generator().manual_seed(0))
    assert torch.equal(params["weights"], again["weights"])
    return {name: model.piece(params, name) for name in model.pieces}


def blocks_of(start, cell):
    matrices = [start[f"layers.{layer}.{name}"] for layer in (0, 1) for name in ("input", "recurrent")]
    return [block for matrix in matrices for block in matrix.chunk(GATES[cell])]


@pytest.mark.parametrize("cell", list(GATES))
def test_orthogonal_blocks_keep_lengths(cell):
    for block in blocks_of(start_of(cell, "orthogonal"), cell):
        rows, columns = block.shape
        product = block.T @ block if rows >= columns else block @ block.T
        torch.testing.assert_close(product, torch.eye(min(rows, columns)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", list(GATES))
def test_scales_of_the_schemes(cell):
    for block in blocks_of(start_of(cell, "xavier"), cell):
        bound = math.sqrt(6 / sum(block.shape))
        assert 0.9 * bound < float(block.abs().max()) <= bound
    for block in blocks_of(start_of(cell, "he"), cell):
        sd = math.sqrt(2 / block.shape[1])
        assert float(block.std()) == pytest.approx(sd, rel=5 / math.sqrt(2 * block.numel()))
    bound = 30**-0.5
    for block in blocks_of(start_of(cell, "uniform"), cell):
        assert 0.9 * bound < float(block.abs().max()) <= bound


@pytest.mark.parametrize("scheme", ["uniform", "xavier", "he", "orthogonal"])
def test_biases_gains_and_lags(scheme):
    start = start_of("lstm", scheme, layer_norm=True, attention=3, attention_heads=2)
    for layer in (0, 1):
        gates = start[f"layers.{layer}.bias_input"].unflatten(0, (4, -1))
        assert bool((gates[1] == 1).all())
        rest = torch.cat([gates[[0, 2, 3]].flatten(), start[f"layers.{layer}.bias_recurrent"]])
        assert bool((rest != 0).all()) if scheme == "uniform" else bool((rest == 0).all())
        assert bool((start[f"layers.{layer}.norm_gain"] == 1).all())
        assert bool((start[f"layers.{layer}.norm_shift"] == 0).all())
    assert bool((start["attention.lag"] == 0).all())
    assert bool((start["attention.query"] != 0).all())
    assert float(start["head.hidden"].abs().max()) <= 0.1 * 30**-0.5
    assert bool((start["head.direct"] == 0).all())


@pytest.mark.parametrize(
    ("emission", "value"), [(Normal(), 0.0), (Normal(), -3.0), (StudentT(), 3.0), (LogNormal(), 7.0), (Gamma(), 1e-3)]
)
def test_constant_values_start_at_a_law_that_gradients_can_widen(emission, value):
    model = RecurrentModel(emission, emission.observation(1, None), hidden_size=3, dtype=torch.float64)
    x = torch.full((1, 20, 1), value, dtype=torch.float64)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([20]))
    weights = model._initial_guess(batch, torch.Generator().manual_seed(0))["weights"].requires_grad_()
    total = model.log_prob({"weights": weights}, batch).sum()
    total.backward()
    assert float(total.detach()) > -200
    bias = model.piece({"weights": weights.grad}, "head.bias")
    assert bool((bias.abs() > 1e-3).any())
