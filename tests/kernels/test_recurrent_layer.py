"""Our own recurrent layer against torch's modules: values, memory and all derivatives."""

import numpy as np
import pytest
import torch

from probseq.kernels import recurrent_layer, tiles
from probseq.kernels.compiler import kernel
from probseq.kernels.recurrent_layer import run_layer

CELLS = ["rnn", "relu", "gru", "lstm"]
# Units that fill vectors and that do not, one sequence and several blocks of them.
SIZES = [(1, 3, 1, 1), (3, 5, 2, 4), (33, 7, 3, 17), (65, 4, 20, 40), (32, 9, 2, 64)]


def module(cell, n_inputs, size, dtype=torch.float64):
    kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}.get(cell, torch.nn.RNN)
    more = {"nonlinearity": "relu"} if cell == "relu" else {}
    torch.manual_seed(3)
    return kind(n_inputs, size, batch_first=True, dtype=dtype, **more)


def flat_weights(net):
    return torch.cat([weight.detach().flatten() for weight in net._flat_weights])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def leaves(cell, n, t, i, h, dtype=torch.float64):
    x, hidden = random(n, t, i, seed=1, dtype=dtype), random(n, h, seed=2, dtype=dtype)
    held = random(n, h if cell == "lstm" else 0, seed=3, dtype=dtype)
    return [leaf.requires_grad_() for leaf in (x, hidden, held)]


def by_torch(cell, net, x, hidden, held, lengths):
    """Outputs, and the memory after each sequence's end, of each sequence alone."""
    outputs, last_h, last_c = [], [], []
    for row, length in enumerate(lengths.tolist()):
        start = (hidden[None, row : row + 1], held[None, row : row + 1])
        if not length:
            outputs.append(x.new_zeros(0, hidden.shape[1]))
            last_h.append(hidden[row])
            last_c.append(held[row])
            continue
        out, last = net(x[row : row + 1, :length], start if cell == "lstm" else start[0])
        outputs.append(out[0])
        last_h.append(last[0][0, 0] if cell == "lstm" else last[0, 0])
        last_c.append(last[1][0, 0] if cell == "lstm" else held[row])
    return outputs, torch.stack(last_h), torch.stack(last_c)


def weighted(outputs, lengths, last_h, last_c):
    """A number that depends on all results within the sequences."""
    inside = (torch.arange(outputs.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    total = (torch.where(inside, outputs, 0.0) * random(*outputs.shape, seed=5, dtype=outputs.dtype)).sum()
    return total + (last_h * random(*last_h.shape, seed=6, dtype=outputs.dtype)).sum() + last_c.square().sum()


def padded(outputs, t):
    return torch.stack([torch.nn.functional.pad(one, (0, 0, 0, t - len(one))) for one in outputs])


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_values_and_derivatives_are_those_of_torch(cell, size, ragged):
    n, t, i, h = size
    net, given = module(cell, i, h), leaves(cell, n, t, i, h)
    lengths = torch.arange(n) % (t + 1) if ragged else torch.full((n,), t)
    outputs, last_h, last_c = by_torch(cell, net, *given, lengths)
    wanted = given[: 3 if cell == "lstm" else 2]
    loss = weighted(padded(outputs, t), lengths, last_h, last_c)
    expected = torch.autograd.grad(loss, [*net._flat_weights, *wanted], allow_unused=True, materialize_grads=True)
    flat = flat_weights(net).requires_grad_()
    ours = run_layer(cell, flat, *given, lengths)
    found = torch.autograd.grad(weighted(ours[0], lengths, *ours[1:]), [flat, *wanted])
    for row, length in enumerate(lengths):
        torch.testing.assert_close(ours[0][row, :length], outputs[row], rtol=0, atol=1e-13)
    torch.testing.assert_close(ours[1], last_h, rtol=0, atol=1e-13)
    torch.testing.assert_close(ours[2], last_c, rtol=0, atol=1e-13)
    by_weights = torch.cat([slope.flatten() for slope in expected[:4]])
    for mine, theirs in zip(found, [by_weights, *expected[4:]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12 * n)


@pytest.mark.parametrize("cell", CELLS)
def test_single_precision_is_as_exact_as_it_can_be(cell):
    given = leaves(cell, 6, 20, 3, 20, torch.float32)
    net, lengths = module(cell, 3, 20, torch.float32), torch.full((6,), 20)
    flat = flat_weights(net).requires_grad_()
    outputs = run_layer(cell, flat, *given, lengths)[0]
    (slope,) = torch.autograd.grad(outputs.square().sum(), flat)
    exact = flat.detach().double().requires_grad_()
    wide = run_layer(cell, exact, *(leaf.double() for leaf in given), lengths)[0]
    (exact_slope,) = torch.autograd.grad(wide.square().sum(), exact)
    assert outputs.dtype == slope.dtype == torch.float32
    torch.testing.assert_close(outputs.double(), wide, rtol=0, atol=3e-6)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_what_needs_no_gradient_is_not_kept(cell):
    given = [leaf.detach() for leaf in leaves(cell, 5, 6, 2, 7)]
    flat, lengths = flat_weights(module(cell, 2, 7)), torch.tensor([6, 0, 3, 6, 1])
    plain = run_layer(cell, flat, *given, lengths)
    assert not any(leaf.requires_grad for leaf in plain)
    kept = run_layer(cell, flat.requires_grad_(), *given, lengths)
    for one, other in zip(plain, kept):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_and_threads_change_nothing(cell, monkeypatch):
    given = leaves(cell, 80, 4, 2, 5)
    flat, lengths = flat_weights(module(cell, 2, 5)).requires_grad_(), torch.arange(80) % 5
    results = []
    for threads, most in (("1", 16), ("3", 16), ("1", 1)):
        monkeypatch.setenv("PROBSEQ_NUM_THREADS", threads)
        monkeypatch.setattr(recurrent_layer, "_MOST_BLOCKS", most)
        outputs = run_layer(cell, flat, *given, lengths)[0]
        results.append((outputs, *torch.autograd.grad(outputs.square().sum(), [flat, given[0]])))
    for one, other in zip(results[0], results[1]):
        assert torch.equal(one, other)
    for one, other in zip(results[0], results[2]):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_derivatives_have_derivatives(cell):
    given = leaves(cell, 2, 3, 2, 3)[: 3 if cell == "lstm" else 2]
    flat, lengths = (0.5 * flat_weights(module(cell, 2, 3))).requires_grad_(), torch.tensor([3, 2])

    def outputs(flat, x, hidden, held=None):
        held = hidden.new_zeros(2, 0) if held is None else held
        ran = run_layer(cell, flat, x, hidden, held, lengths)
        return ran[:3] if cell == "lstm" else ran[:2]

    assert torch.autograd.gradcheck(outputs, (flat, *given))
    assert torch.autograd.gradgradcheck(outputs, (flat, *given))


def test_no_sequence_has_no_slope():
    flat = flat_weights(module("lstm", 2, 3)).requires_grad_()
    empty = torch.zeros(0, 3, dtype=torch.float64)
    inputs = torch.zeros(0, 4, 2, dtype=torch.float64)
    outputs, hidden, _ = run_layer("lstm", flat, inputs, empty, empty, torch.zeros(0).long())
    assert outputs.shape == (0, 4, 3) and hidden.shape == (0, 3)
    outputs.sum().backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))


@kernel
def _gates(values, lanes, sigmoid):
    for k in range(0, values.size, lanes):
        value = tiles.load(values, k)
        tiles.store(values, k, tiles.sigmoid(value) if sigmoid else tiles.tanh(value))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_are_exact_to_a_few_last_places(dtype):
    places, rng = np.finfo(dtype).eps, np.random.default_rng(0)
    far = [0.0, 1e4, -1e4, np.inf, -np.inf, np.nan, np.nan, np.nan]
    x = np.concatenate([rng.uniform(-30, 30, 992), 10.0 ** rng.uniform(-8, 0, 992), far * 4]).astype(dtype)
    for sigmoid in (True, False):
        found = x.copy()
        _gates(found, tiles.lanes_of(x.itemsize), sigmoid)
        exact = 1 / (1 + np.exp(-x.astype(np.longdouble))) if sigmoid else np.tanh(x.astype(np.longdouble))
        number = ~np.isnan(x)
        assert (np.abs(found - exact)[number] <= 4 * places * np.abs(exact[number]) + 1e-17).all()
        assert np.isnan(found[~number]).all()
