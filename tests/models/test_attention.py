"""Attention of a network over its last states, against the sum written out."""

import math
from functools import partial

import pytest
import torch

from probseq.distributions.emissions import Normal
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.recurrent_attention import Attention
from probseq.models.recurrent_inside import attention_weights, hidden_states


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(weights, outputs, past, held, window, heads):
    """The context and weights of one draw, step by step, lag by lag."""
    n, t, h = outputs.shape
    d = h // heads
    context, shares = torch.zeros(n, t, heads, h).double(), torch.zeros(n, t, heads, window).double()
    for i in range(n):
        line = [(y if ok else None) for y, ok in zip(past[i], held[i])] + list(outputs[i])
        for s in range(t):
            now = window - 1 + s
            for head in range(heads):
                q = (weights["attention.query"] @ line[now])[head * d : (head + 1) * d]
                lags = [j for j in range(window) if line[now - j] is not None]
                keys = [(weights["attention.key"] @ line[now - j])[head * d : (head + 1) * d] for j in lags]
                scores = [
                    float(q @ k) / math.sqrt(d) + float(weights["attention.lag"][head, j]) for j, k in zip(lags, keys)
                ]
                total = sum(math.exp(score) for score in scores)
                for j, score in zip(lags, scores):
                    shares[i, s, head, j] = math.exp(score) / total
                    context[i, s, head] += shares[i, s, head, j] * line[now - j]
    return context.flatten(-2), shares


def each_draw(draw):
    """Functions that choose one draw of a tensor each."""
    return [partial(torch.select, dim=0, index=d) for d in range(draw[0])] if draw else [lambda leaf: leaf]


@pytest.mark.parametrize(("window", "heads", "steps"), [(2, 1, 6), (4, 2, 6), (9, 1, 6), (3, 1, 70), (35, 2, 40)])
@pytest.mark.parametrize("draw", [(), (2,)])
def test_attention_equals_the_sum_written_out(window, heads, steps, draw):
    attention = Attention(window, heads, 4)
    weights = {name: random(*draw, *part.shape, seed=i) for i, (name, part) in enumerate(attention.parts.items())}
    outputs, past = random(*draw, 3, steps, 4, seed=5), random(*draw, 3, window - 1, 4, seed=6)
    held = torch.zeros(*draw, 3, window - 1, dtype=torch.bool)
    held[..., 1, -1:] = held[..., 2, :] = True
    found = attention.context(weights, outputs, past, held)
    shown = attention.shares(weights, outputs, past, held)
    for own in each_draw(draw):
        one = {name: own(value) for name, value in weights.items()}
        context, shares = written_out(one, own(outputs), own(past), own(held), window, heads)
        torch.testing.assert_close(own(found), context)
        torch.testing.assert_close(own(shown), shares)


def net_and_batch(**options):
    emission = Normal()
    model = RecurrentModel(emission, emission.observation(1), "lstm", 4, 2, dtype=torch.float64, **options)
    x = random(3, 7, 1, seed=8)
    lengths = torch.tensor([7, 4, 0])
    seen = (torch.arange(7) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return model, {"weights": 0.3 * random(2, model.n_parameters, seed=9)}, Batch(x * seen, seen, lengths)


def test_the_law_uses_the_weights_that_are_shown():
    model, params, batch = net_and_batch(attention=3, layer_norm=True)
    start = model.initial_state(params, 3)
    shares = attention_weights(model, params, batch, start)
    assert shares.shape == (2, 3, 7, 1, 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 3, 7, 1, dtype=torch.float64))
    assert bool((shares[:, :, 0, :, 1:] == 0).all())
    assert bool((shares[:, :, 1, :, 2] == 0).all())
    assert bool((shares[:, :, 2:] > 0).all())
    law, _ = model.predictive(params, batch)
    w = {name: model.piece(params, name) for name in model.pieces}
    h = hidden_states(model, params, batch, start)[..., -1, :]
    y = torch.nn.functional.layer_norm(h, (4,)) * w["layers.1.norm_gain"][:, None, None]
    y = y + w["layers.1.norm_shift"][:, None, None]
    back = torch.nn.functional.pad(y, (0, 0, 2, 0))
    context = sum(shares[..., 0, j, None] * back[:, :, 2 - j : 9 - j] for j in range(3))
    inputs = model._sequence_inputs(model._split(params), batch, start)
    outputs = torch.cat([y, context], -1) @ w["head.hidden"].mT[:, None]
    outputs = outputs + inputs @ w["head.direct"].mT[:, None] + w["head.bias"][:, None, None]
    torch.testing.assert_close(law.mean[:, batch.real], outputs[:, batch.real, :1])


def test_a_state_goes_on_where_the_sequence_was():
    model, params, batch = net_and_batch(attention=5)
    both = model.predictive(params, batch)[0].mean
    half = model.filter(params, batch.slice_time(0, 3))
    second = model.predictive(params, batch.slice_time(3, 7), half)[0].mean
    torch.testing.assert_close(second[:, :2], both[:, :2, 3:])


def test_hidden_states_are_those_of_the_steps():
    model, params, batch = net_and_batch(residual=True)
    start = model.initial_state(params, 3)
    found = hidden_states(model, params, batch, start)
    state = start
    for t in range(4):
        state = model.update(params, state, batch.x[:, t], batch.seen[:, t])
        torch.testing.assert_close(found[:, :2, t], state.hidden[:, :2])
    empty = batch.slice_time(0, 0)
    assert hidden_states(model, params, empty, start).shape == (2, 3, 0, 2, 4)
