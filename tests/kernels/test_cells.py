"""Recurrent cells against torch's own modules and against one step at a time."""

import pytest
import torch

from probseq.kernels.cells import CELLS, CellLayout, Memory, scan, step, whole

MODULES = {
    "rnn": lambda i, h, n: torch.nn.RNN(i, h, n, batch_first=True, dtype=torch.float64),
    "relu": lambda i, h, n: torch.nn.RNN(i, h, n, nonlinearity="relu", batch_first=True, dtype=torch.float64),
    "gru": lambda i, h, n: torch.nn.GRU(i, h, n, batch_first=True, dtype=torch.float64),
    "lstm": lambda i, h, n: torch.nn.LSTM(i, h, n, batch_first=True, dtype=torch.float64),
}
JOINED = [{"residual": True}, {"layer_norm": True}, {"residual": True, "layer_norm": True}]
CASES = [(cell, n_layers) for cell in CELLS for n_layers in (1, 2)]


def random(*shape, seed=0):
    return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_memory(layout, *lead, seed=5):
    return Memory(
        random(*lead, layout.n_layers, layout.hidden_size, seed=seed),
        random(*lead, layout.n_cells, layout.hidden_size, seed=seed + 1),
    )


def stepped(layout, flat, inputs, memory):
    along = [memory]
    for t in range(inputs.shape[-2]):
        along.append(step(layout, flat, inputs[..., t, :], along[-1]).final)
    return along


@pytest.mark.parametrize(("cell", "n_layers"), CASES)
def test_weights_lie_as_in_torch(cell, n_layers):
    module = MODULES[cell](3, 4, n_layers)
    layout = CellLayout(cell, 3, 4, n_layers)
    flat = torch.cat([weight.detach().flatten() for weight in module._flat_weights])
    assert flat.numel() == layout.size
    inputs = random(2, 6, 3)
    outputs, _ = module(inputs)
    ours = whole(layout, flat, inputs, layout.empty_memory(flat, 2))
    torch.testing.assert_close(ours.outputs, outputs, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("cell", "n_layers"), CASES)
def test_whole_sequences_equal_single_steps(cell, n_layers):
    layout = CellLayout(cell, 3, 4, n_layers)
    flat, inputs = random(layout.size), random(5, 7, 3, seed=1)
    start = random_memory(layout, 5)
    lengths = torch.tensor([7, 2, 0, 5, 7])
    along = stepped(layout, flat, inputs, start)
    full = whole(layout, flat, inputs, start)
    torch.testing.assert_close(full.outputs, torch.stack([m.hidden[:, -1] for m in along[1:]], 1))
    torch.testing.assert_close(full.final, along[-1])
    ragged = whole(layout, flat, inputs, start, lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(ragged.final.hidden[row], along[length].hidden[row])
        torch.testing.assert_close(ragged.final.cell[row], along[length].cell[row])
        torch.testing.assert_close(ragged.outputs[row, :length], full.outputs[row, :length])


@pytest.mark.parametrize(("cell", "n_layers"), CASES)
def test_scan_keeps_the_memory_of_every_step_and_draw(cell, n_layers):
    layout = CellLayout(cell, 3, 4, n_layers)
    flat, inputs = random(3, layout.size), random(5, 6, 3, seed=1)
    start = random_memory(layout, 3, 5)
    along = scan(layout, flat, inputs, start).final
    for d in range(3):
        alone = stepped(layout, flat[d], inputs, Memory(start.hidden[d], start.cell[d]))
        for t, memory in enumerate(alone):
            torch.testing.assert_close(along.hidden[d, :, t], memory.hidden)
            torch.testing.assert_close(along.cell[d, :, t], memory.cell)


@pytest.mark.parametrize("cell", list(CELLS))
def test_draws_step_side_by_side(cell):
    layout = CellLayout(cell, 2, 3, 2)
    flat, inputs = random(4, layout.size), random(4, 5, 2, seed=1)
    start = random_memory(layout, 4, 5)
    together = step(layout, flat, inputs, start).final
    for d in range(4):
        alone = step(layout, flat[d], inputs[d], Memory(start.hidden[d], start.cell[d])).final
        torch.testing.assert_close(together.hidden[d], alone.hidden)
        torch.testing.assert_close(together.cell[d], alone.cell)


@pytest.mark.parametrize("cell", list(CELLS))
def test_padding_changes_nothing_not_even_gradients(cell):
    layout = CellLayout(cell, 2, 3, 1)
    inputs, lengths = random(3, 6, 2, seed=1), torch.tensor([6, 3, 1])
    beyond = (torch.arange(6) >= lengths.unsqueeze(-1)).unsqueeze(-1)
    results = []
    for poison in (0.0, 1e6, torch.nan):
        flat = random(layout.size).requires_grad_()
        done = whole(layout, flat, torch.where(beyond, poison, inputs), layout.empty_memory(flat, 3), lengths)
        (done.final.hidden.sum() + torch.where(beyond, 0.0, done.outputs).sum()).backward()
        results.append((done.final.hidden.detach(), flat.grad))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        assert torch.equal(other[1], results[0][1])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_gradient_equals_finite_differences(cell):
    layout = CellLayout(cell, 2, 2, 1)
    inputs, start = random(2, 3, 2, seed=1), random_memory(layout, 2)
    flat = random(layout.size).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: whole(layout, w, inputs, start, torch.tensor([3, 2])).outputs, flat)
    assert torch.autograd.gradcheck(lambda w: scan(layout, w, inputs, start).final.hidden, flat)


def test_views_share_the_memory_of_the_flat_vector():
    layout = CellLayout("lstm", 2, 3, 2)
    flat = torch.zeros(layout.size)
    for view in layout.views(flat):
        view.fill_(1.0)
    assert bool((flat == 1).all())


def layer_by_layer(layout, flat, inputs, masks=()):
    """The network of torch's own modules, one a layer, with the sums and norms between them."""
    below, stream = inputs, None
    for index, layer in enumerate(layout.layers(flat)):
        module = MODULES[layout.cell](below.shape[-1], layout.hidden_size, 1)
        for own, given in zip(module._flat_weights, layer[:4], strict=True):
            own.data.copy_(given)
        hidden, _ = module(below * masks[index - 1] if masks and index else below)
        stream = hidden if stream is None or not layout.residual else hidden + stream
        below = stream
        if layout.layer_norm:
            norm = torch.nn.LayerNorm(layout.hidden_size, dtype=torch.float64)
            norm.weight.data.copy_(layer.gain)
            norm.bias.data.copy_(layer.shift)
            below = norm(stream)
    return below


@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("cell", list(CELLS))
def test_joined_layers_equal_torch_modules_one_by_one(cell, joined):
    layout = CellLayout(cell, 3, 4, 3, **joined)
    flat, inputs = random(layout.size), random(2, 6, 3, seed=1)
    ours = whole(layout, flat, inputs, layout.empty_memory(flat, 2))
    torch.testing.assert_close(ours.outputs, layer_by_layer(layout, flat, inputs), rtol=0, atol=1e-13)


@pytest.mark.parametrize("joined", [{}, *JOINED])
def test_masks_multiply_what_the_layers_above_read(joined):
    layout = CellLayout("gru", 3, 4, 3, **joined)
    flat, inputs = random(layout.size), random(2, 6, 3, seed=1)
    masks = (random(2, 6, 4, seed=2), random(2, 1, 4, seed=3))
    ours = whole(layout, flat, inputs, layout.empty_memory(flat, 2), None, masks)
    torch.testing.assert_close(ours.outputs, layer_by_layer(layout, flat, inputs, masks), rtol=0, atol=1e-13)
    ragged = whole(layout, flat, inputs, layout.empty_memory(flat, 2), torch.tensor([6, 2]), masks)
    torch.testing.assert_close(ragged.outputs[0], ours.outputs[0])
    torch.testing.assert_close(ragged.outputs[1, :2], ours.outputs[1, :2])
    ones = (torch.ones(2, 1, 4, dtype=torch.float64),) * 2
    plain = whole(layout, flat, inputs, layout.empty_memory(flat, 2))
    torch.testing.assert_close(whole(layout, flat, inputs, layout.empty_memory(flat, 2), None, ones), plain)


@pytest.mark.parametrize("joined", JOINED)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_joined_layers_step_as_they_run(cell, joined):
    layout = CellLayout(cell, 3, 4, 2, **joined)
    flat, inputs = random(2, layout.size), random(2, 5, 7, 3, seed=1)
    start = random_memory(layout, 2, 5)
    lengths = torch.tensor([7, 2, 0, 5, 7])
    along = scan(layout, flat, inputs, start)
    memory = start
    for t in range(7):
        passed = step(layout, flat, inputs[:, :, t], memory)
        memory = passed.final
        torch.testing.assert_close(along.outputs[:, :, t], passed.outputs)
        torch.testing.assert_close(along.final.hidden[:, :, t + 1], memory.hidden)
    for d in range(2):
        alone = whole(layout, flat[d], inputs[d], Memory(start.hidden[d], start.cell[d]), lengths)
        for row, length in enumerate(lengths):
            torch.testing.assert_close(alone.outputs[row, :length], along.outputs[d, row, :length])
            torch.testing.assert_close(alone.final.hidden[row], along.final.hidden[d, row, length])
            torch.testing.assert_close(alone.final.cell[row], along.final.cell[d, row, length])
