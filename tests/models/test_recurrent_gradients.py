"""Gradients through time against finite differences, the chain rule by hand, and powers of a matrix."""

import pytest
import torch

from probseq.distributions.emissions import Categorical, Normal
from probseq.models import recurrent_gradients
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_gradients import gradient_norms, growth_rate, spread_steps

LAG, T = 4, 7


def model_of(cell="lstm", hidden_size=4, head=None, **options):
    head = Normal() if head is None else head
    observation = head.observation(1, 3 if isinstance(head, Categorical) else None)
    return RecurrentModel(head, observation, cell, hidden_size, dtype=torch.float64, **options)


def params_of(model, *draw, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"weights": 0.5 * torch.randn(*draw, model.n_parameters, generator=generator, dtype=model.dtype)}


def batch_of(model, lengths=(T, 5), seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths), 1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if model.observation.n_categories:
        x = torch.randint(0, 3, shape, generator=generator).double()
    lengths = torch.tensor(lengths)
    real = torch.arange(shape[1]) < lengths.unsqueeze(-1)
    return Batch(torch.where(real.unsqueeze(-1), x, 0.0), real.unsqueeze(-1), lengths)


def norms_of(model, params, batch, rows, steps, lag=LAG, **options):
    state = model.initial_state(params, batch.n)
    return gradient_norms(model, params, batch, state, torch.tensor(rows), torch.tensor(steps), lag, **options)


def streamed(model, params, x, t, s, layer, unit, by, leaf):
    """log p(x_t | x_<t) where the memory that step s leaves behind is moved; with it, what attention will see."""
    state = model.initial_state(params, 1)
    for i in range(t):
        state = model.update(params, state, x[:, i], torch.ones_like(x[:, i], dtype=torch.bool))
        if i == s:
            moved = getattr(state, leaf).clone()
            moved[..., layer, unit] += by
            state = state._replace(**{leaf: moved})
            if leaf == "hidden" and model.attention is not None:
                past = state.past.clone()
                past[..., -1, unit] += by
                state = state._replace(past=past)
    return model.predict_next(params, state).log_prob(x[:, t])


CASES = {
    "lstm": {"cell": "lstm"},
    "two lstm": {"cell": "lstm", "n_layers": 2, "hidden_size": 3, "residual": True, "layer_norm": True},
    "gru": {"cell": "gru", "lags": (1, 3)},
    "rnn": {"cell": "rnn"},
    "attention": {"cell": "lstm", "attention": 3, "attention_heads": 2},
    "wide attention": {"cell": "gru", "attention": 6},
    "tokens": {"cell": "gru", "head": Categorical(), "tie_embeddings": True, "embedding_size": 4},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("memory", [True, False])
def test_norms_of_the_last_layer_are_those_of_finite_differences(name, memory):
    model = model_of(**CASES[name])
    params, batch = params_of(model), batch_of(model)
    t, layer, step = 6, model.layout.n_layers - 1, 1e-5
    draws = {"weights": params["weights"].unsqueeze(0)}
    found = norms_of(model, draws, batch, [0, 1], [t, 4], memory=memory)
    assert found.shape == (1, 2, model.layout.n_layers, LAG + 1)
    leaves = ("hidden", "cell") if memory and model.layout.n_cells else ("hidden",)
    for lag in (1, 2, LAG):
        square = torch.zeros((), dtype=torch.float64)
        for unit in range(model.layout.hidden_size):
            for leaf in leaves:
                up, down = (
                    streamed(model, params, batch.x[:1], t, t - lag, layer, unit, by, leaf) for by in (step, -step)
                )
                square += ((up - down) / (2 * step)).square().squeeze()
        torch.testing.assert_close(found[0, 0, layer, lag], square.sqrt(), rtol=1e-6, atol=1e-11)


def test_norms_of_every_layer_are_those_of_the_chain_rule():
    model = model_of("rnn", 3, n_layers=2)
    params, batch = params_of(model), batch_of(model, (T,))
    w = {name: model.piece(params, name) for name in model.pieces}
    x = batch.x[0, :, 0]
    read = torch.cat([torch.zeros(1, dtype=torch.float64), x[:-1]])
    inputs = torch.stack([read, (torch.arange(T) > 0).double()], -1)
    h = [torch.zeros(3, dtype=torch.float64)] * 2
    slopes = []
    for t in range(T):
        below, here = inputs[t], []
        for i in range(2):
            gate = w[f"layers.{i}.input"] @ below + w[f"layers.{i}.recurrent"] @ h[i]
            h[i] = below = torch.tanh(gate + w[f"layers.{i}.bias_input"] + w[f"layers.{i}.bias_recurrent"])
            here.append((1 - below.square()).diag())
        slopes.append(here)
    outputs = w["head.hidden"] @ h[1] + w["head.direct"] @ inputs[-1] + w["head.bias"]
    outputs.requires_grad_()
    law = model.head.from_outputs(outputs.unsqueeze(0), model.observation)
    (score,) = torch.autograd.grad(law.log_prob(x[-1].reshape(1, 1)).sum(), outputs)
    upper = w["head.hidden"].T @ score
    lower = w["layers.1.input"].T @ slopes[-1][1] @ upper
    expected = [[lower.norm()], [upper.norm()]]
    for t in range(T - 1, T - 1 - LAG, -1):
        upper = w["layers.1.recurrent"].T @ slopes[t][1] @ upper
        lower = w["layers.0.recurrent"].T @ slopes[t][0] @ lower
        lower = lower + w["layers.1.input"].T @ slopes[t - 1][1] @ upper
        expected[0].append(lower.norm())
        expected[1].append(upper.norm())
    found = norms_of(model, {"weights": params["weights"].unsqueeze(0)}, batch, [0], [T - 1])
    torch.testing.assert_close(found[0, 0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("rate", [0.7, 1.0, 1.2])
def test_a_linear_network_has_powers_of_its_matrix(rate):
    model = model_of("relu", 3)
    params = params_of(model, 1)
    # All that is rectified is positive, and the matrix is a multiple of a rotation of the units.
    model.piece(params, "layers.0.input").abs_()
    model.piece(params, "layers.0.input")[..., 0] = 0.0
    for name in ("bias_input", "bias_recurrent"):
        model.piece(params, f"layers.0.{name}").abs_()
    model.piece(params, "layers.0.recurrent")[:] = rate * torch.eye(3, dtype=torch.float64).roll(1, 0)
    found = norms_of(model, params, batch_of(model), [0, 0, 1], [5, 6, 4])
    powers = rate ** torch.arange(LAG + 1, dtype=torch.float64)
    torch.testing.assert_close(found, found[..., :1] * powers, rtol=1e-12, atol=0)
    torch.testing.assert_close(growth_rate(found), torch.full((1, 3, 1), rate, dtype=torch.float64))


@pytest.mark.parametrize("at_once", [1, 300, 700, 2_000_000])
def test_draws_and_steps_together_are_those_alone(at_once, monkeypatch):
    monkeypatch.setattr(recurrent_gradients, "_LARGEST", at_once)
    model = model_of("gru", n_layers=2, attention=2)
    params, batch = params_of(model, 2), batch_of(model)
    every = norms_of(model, params, batch, [0, 0, 1], [4, 6, 4])
    for d in range(2):
        for i, (row, step) in enumerate([(0, 4), (0, 6), (1, 4)]):
            one = norms_of(model, {"weights": params["weights"][d : d + 1]}, batch, [row], [step])
            torch.testing.assert_close(every[d, i], one[0, 0], rtol=1e-10, atol=1e-14)


def test_rates_leave_out_what_is_zero():
    norms = torch.tensor([[9.0, 4.0, 2.0, 1.0], [1.0, 4.0, 0.0, 1.0], [1.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(growth_rate(norms), torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(growth_rate(norms.double() * 1e-250)[:2], torch.full((2,), 0.5, dtype=torch.float64))


def test_steps_are_spread_over_those_seen_with_so_many_behind():
    model = model_of()
    batch = batch_of(model, (T, 5, 2))
    batch.seen[0, 5] = False
    rows, steps = spread_steps(batch, 3, 10)
    assert list(zip(rows.tolist(), steps.tolist())) == [(0, 3), (0, 4), (0, 6), (1, 3), (1, 4)]
    rows, steps = spread_steps(batch, 3, 3)
    assert list(zip(rows.tolist(), steps.tolist())) == [(0, 3), (0, 6), (1, 4)]
    assert not len(spread_steps(batch, 7, 3)[0])
