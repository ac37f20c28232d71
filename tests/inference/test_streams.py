"""Streams: windows that follow each other with the state carried are the unbroken sequence."""

from itertools import pairwise

import pytest
import torch

from probseq.distributions.emissions import Normal
from probseq.inference.normal_weights import NormalWeights
from probseq.inference.options import TrainingOptions
from probseq.inference.streams import Streams, mini_batches
from probseq.inference.training import train
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(lengths, seed=0, missing=0.1):
    x = torch.randn(len(lengths), max(lengths), 1, generator=seeded(seed), dtype=torch.float64).cumsum(1)
    lengths = torch.tensor(lengths)
    seen = torch.rand(x.shape, generator=seeded(seed)) > missing
    seen &= (torch.arange(x.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return Batch(torch.where(seen, x, 0.0), seen, lengths)


def net(cell="lstm"):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, 3, n_layers=2, lags=(1, 4), dtype=torch.float64)


class Recorded(RecurrentModel):
    """Keeps the weights and the state of every training pass, and what came out."""

    calls: list

    def _training_log_prob(self, params, batch, scored, state, generator, done=1.0):
        values, final = super()._training_log_prob(params, batch, scored, state, generator)
        self.calls.append((params["weights"].detach().clone(), state, values.detach(), final))
        return values, final


def recorded():
    emission = Normal()
    model = Recorded(emission, emission.observation(1), "gru", 3, dtype=torch.float64)
    model.calls = []
    return model


def law_of(model, scale=0.0):
    m = model.n_parameters
    mean = 0.3 * torch.randn(m, dtype=torch.float64, generator=seeded(3))
    rho = torch.full((m,), -30.0 if not scale else scale, dtype=torch.float64)
    return NormalWeights(mean, rho, torch.zeros_like(mean), torch.ones_like(mean))


@pytest.mark.parametrize(("window", "context", "size", "carry"), [(7, 0, 2, None), (7, 3, 8, None), (5, 2, 3, 2)])
def test_a_pass_scores_every_value_once(window, context, size, carry):
    batch = batch_of((30, 5, 11, 0, 70))
    streams = Streams(batch, batch.seen, None, window, context, carry)
    for seed in range(3):
        counts, share, before = torch.zeros_like(batch.x), 0.0, {}
        for mini in streams.passing(size, seeded(seed)):
            share += float(mini.share)
            assert mini.batch.n <= size
            ends = {}
            for lane, (sequence, first, stop) in zip(mini.carried.lane.tolist(), mini.rows.tolist()):
                if not mini.carried.first:
                    assert before[lane] == (sequence, first)
                ends[lane] = (sequence, stop)
                counts[sequence, first:stop] += 1
            before = ends
            assert int(mini.scored.sum()) == sum(int(batch.seen[s, a:b].sum()) for s, a, b in mini.rows.tolist())
        assert share == pytest.approx(1.0)
        assert torch.equal(counts[..., 0] > 0, batch.real)
        assert float(counts.max()) == 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_windows_with_a_carried_state_are_the_unbroken_sequences(size):
    model, batch = recorded(), batch_of((40, 23, 9, 31))
    law = law_of(model)
    expected = model.log_prob({"weights": law.mean.detach()}, batch)
    streams = Streams(batch, batch.seen, None, window=6, context=2)
    model.calls.clear()
    done = train(model, law, streams, seeded(), TrainingOptions(max_epochs=1, batch_size=size, learning_rate=1e-12))
    plan = list(streams.passing(size, _after_the_seed()))
    values = torch.zeros(4, dtype=torch.float64)
    for mini, (_, _, each, _) in zip(plan, model.calls, strict=True):
        values.index_add_(0, mini.rows[:, 0], each)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-9)
    assert done.trace[0] * streams.n_values == pytest.approx(
        float(expected.sum() - law.divergence().detach()), abs=1e-6
    )


def _after_the_seed():
    generator = seeded()
    torch.randint(2**62, (), generator=generator)
    return generator


def test_gradients_end_at_the_start_of_a_window():
    model, batch = recorded(), batch_of((40, 23))
    train(model, law_of(model), Streams(batch, batch.seen, None, 6, 0), seeded(), TrainingOptions(max_epochs=1))
    assert any(state is not None for _, state, _, _ in model.calls)
    assert not any(leaf.requires_grad for _, state, _, _ in model.calls if state is not None for leaf in state)


def test_the_noise_of_the_weights_is_held_as_long_as_states_are_carried():
    model, batch = recorded(), batch_of((40, 37, 35, 33))
    law = law_of(model, scale=-1.0)
    train(
        model,
        law,
        Streams(batch, batch.seen, None, 6, 0),
        seeded(),
        TrainingOptions(max_epochs=3, batch_size=2, learning_rate=1e-12),
    )
    groups = []
    for weights, state, _, _ in model.calls:
        if state is None:
            groups.append([])
        groups[-1].append(weights)
    assert len(groups) == 6
    assert min(len(group) for group in groups) > 3
    assert all(torch.allclose(group[0], one, atol=1e-8) for group in groups for one in group)
    mean = law.mean.detach()
    mirrored = [torch.allclose(a[0] - mean, mean - b[0], atol=1e-8) for a, b in pairwise(groups)]
    assert mirrored == [True, False, True, False, True]


def test_one_long_series_becomes_as_many_streams_as_a_mini_batch_has_windows():
    batch = batch_of((1000,), missing=0.0)
    streams = Streams(batch, batch.seen, None, window=10, context=5)
    plan = list(streams.passing(8, seeded()))
    assert max(mini.batch.n for mini in plan) == 8
    assert sum(int(mini.scored.sum()) for mini in plan) == 1000
    starts = sum(int(mini.batch.n) for mini in plan if mini.carried.first)
    assert starts <= 9
    assert abs(len(plan) - streams.n_batches(8)) <= 3
    carried = Streams(batch, batch.seen, None, window=10, context=5, carry=4)
    longest = max(int(mini.rows[:, 2].max() - mini.rows[:, 1].min()) for mini in carried.passing(1, seeded()))
    assert longest <= 15


def test_learning_with_a_carried_state_reaches_what_whole_sequences_reach():
    model, batch = net("gru"), batch_of((80,) * 6, missing=0.0)
    found = []
    for options in ({}, {"carry_state": True, "window": 20}):
        law = law_of(model)
        settings = TrainingOptions(max_epochs=25, learning_rate=3e-2, batch_size=6, **options)
        train(model, law, mini_batches(batch, batch.seen, None, settings), seeded(), settings)
        found.append(float(model.log_prob({"weights": law.mean.detach()}, batch).sum()) / 480)
    assert isinstance(mini_batches(batch, batch.seen, None, TrainingOptions()), Windows)
    assert found[1] > found[0] - 0.1
