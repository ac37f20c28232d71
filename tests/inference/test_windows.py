"""Windows: a pass scores every value once, and whole sequences stay whole."""

import pytest
import torch

from probseq.distributions.emissions import Normal
from probseq.inference.windows import MiniBatches, Windows, bucketed, hold_back, whole_sequences
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel


def batch_of(lengths, k=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), k, generator=generator, dtype=torch.float64)
    lengths = torch.tensor(lengths)
    seen = torch.rand(x.shape, generator=generator) > 0.1
    seen &= (torch.arange(x.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(-1)
    u = torch.arange(x.shape[1], dtype=torch.float64).expand(len(lengths), -1).unsqueeze(-1)
    return Batch(torch.where(seen, x, 0.0), seen, lengths, u)


@pytest.mark.parametrize(("window", "context"), [(7, 0), (7, 3), (10, 20), (100, None), (None, None)])
def test_a_pass_scores_every_value_once(window, context):
    batch = batch_of((30, 5, 11, 0, 70))
    windows = Windows(batch, batch.seen, None, window, context)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        counts, share = torch.zeros_like(batch.x), 0.0
        for mini in windows.passing(4, generator):
            share += float(mini.share)
            for row, (sequence, first, stop) in enumerate(mini.rows.tolist()):
                length = stop - max(0, first - windows.context)
                steps = mini.batch.u[row, :length, 0].long()
                assert int(steps[0]) == max(0, first - windows.context)
                assert int(steps[-1]) == stop - 1
                assert torch.equal(mini.batch.x[row, :length], batch.x[sequence, steps])
                assert torch.equal(mini.batch.seen[row, :length], batch.seen[sequence, steps])
                assert not bool(mini.scored[row, length:].any() | mini.batch.seen[row, length:].any())
                counts[sequence, steps] += mini.scored[row, :length]
        assert share == pytest.approx(1.0)
        assert isinstance(windows, MiniBatches)
        assert torch.equal(counts, batch.seen.double())


def test_windows_of_about_equal_length_come_together():
    lengths = torch.arange(1, 201)
    groups = bucketed(lengths, 20, torch.Generator().manual_seed(0))
    again = bucketed(lengths, 20, torch.Generator().manual_seed(1))
    assert sorted(torch.cat(groups).tolist()) == list(range(200))
    assert [len(group) for group in groups] == [20] * 10
    filled = sum(float(lengths[group].max()) * len(group) for group in groups)
    assert filled < 1.25 * float(lengths.sum())  # at random it would be 1.9
    first = [float(lengths[group].float().mean()) for group in groups]
    assert first != sorted(first)
    assert {tuple(sorted(group.tolist())) for group in groups} != {tuple(sorted(group.tolist())) for group in again}


def test_masked_windows_equal_packed_sequences():
    emission = Normal()
    model = RecurrentModel(
        emission, emission.observation(2), "lstm", 3, n_layers=2, n_covariates=1, dtype=torch.float64
    )
    batch = batch_of((8, 5, 3, 8, 2, 1), k=2)
    weights = 0.3 * torch.randn(model.n_parameters, dtype=torch.float64, generator=torch.Generator())
    packed_weights, masked_weights = weights.clone().requires_grad_(), weights.clone().requires_grad_()
    packed = model.log_prob({"weights": packed_weights}, batch)
    (mini,) = Windows(batch, batch.seen).passing(6, torch.Generator().manual_seed(1))
    assert mini.batch.lengths.tolist() == [8] * 6
    masked, _ = model._training_log_prob({"weights": masked_weights}, mini.batch, mini.scored, None, torch.Generator())
    torch.testing.assert_close(masked, packed[mini.rows[:, 0]], rtol=1e-12, atol=1e-12)
    packed.sum().backward()
    masked.sum().backward()
    torch.testing.assert_close(masked_weights.grad, packed_weights.grad, rtol=1e-11, atol=1e-11)


def test_mini_batches_add_up_to_the_likelihood():
    emission = Normal()
    model = RecurrentModel(emission, emission.observation(2), hidden_size=3, n_covariates=1, dtype=torch.float64)
    batch = batch_of((8, 5, 3, 8, 2), k=2)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    params = {"weights": 0.3 * torch.randn(model.n_parameters, dtype=torch.float64, generator=torch.Generator())}
    total = 0.0
    for mini in Windows(batch, batch.seen, weights).passing(2, torch.Generator().manual_seed(1)):
        for piece in mini.split(2):
            law, _ = model.predictive(params, piece.batch)
            total += float((law.log_prob_seen(piece.batch.x, piece.scored).sum(-1) * piece.weight).sum())
    assert total == pytest.approx(float((model.log_prob(params, batch) * weights).sum()), abs=1e-10)


def test_few_sequences_hold_back_their_ends():
    batch = batch_of((40, 20))
    rest, weights, held = hold_back(batch, None, 0.25, torch.Generator().manual_seed(0))
    assert rest.lengths.tolist() == [30, 15]
    assert weights is None
    assert torch.equal(rest.seen | held.scored, batch.seen)
    assert not bool((rest.seen & held.scored).any())
    assert torch.equal(held.batch.x, batch.x)


def test_many_sequences_hold_back_whole_ones():
    batch = batch_of(tuple(range(5, 25)))
    weights = torch.arange(20.0)
    rest, left, held = hold_back(batch, weights, 0.25, torch.Generator().manual_seed(0))
    assert held.batch.n == 5
    assert sorted([*rest.lengths.tolist(), *held.batch.lengths.tolist()]) == list(range(5, 25))
    assert torch.equal(left, rest.lengths - 5.0)
    assert torch.equal(held.weight, (held.batch.lengths - 5).to(held.weight.dtype))


def test_too_little_to_hold_back_trains_on_everything():
    batch = batch_of((4,))
    rest, _, held = hold_back(batch, None, 0.15, torch.Generator())
    assert held is None
    assert torch.equal(rest.seen, batch.seen)
    assert torch.equal(whole_sequences(batch).scored, batch.seen)
