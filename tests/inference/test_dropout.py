"""Monte Carlo dropout against the sum over all masks."""

import itertools
import math

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Categorical, Normal
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError
from probseq.inference.dropout import MaskedWeights, MCDropout
from probseq.inference.options import TrainingOptions
from probseq.inference.training import train
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.baseline import IIDModel
from probseq.models.recurrent import RecurrentModel

RATES = {"rate": 0.3, "recurrent_rate": 0.2, "input_rate": 0.1}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(n=1, t=20, seed=1):
    generator = seeded(seed)
    x = torch.zeros(n, t, 1, dtype=torch.float64)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def small_net(cell="rnn", hidden_size=1, **options):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, hidden_size, dtype=torch.float64, **options)


def all_masks(model):
    """Every combination of unmasked columns, as masks (2^columns, m) divided by 1 - rate, and their probabilities."""
    columns = []
    for name, piece in model.pieces.items():
        if piece.kind in ("input", "recurrent", "head"):
            rate = {"layers.0.input": 0.1, "head.direct": 0.1}.get(name, 0.2 if piece.kind == "recurrent" else 0.3)
            entries = torch.arange(piece.start, piece.stop).reshape(piece.shape)
            columns += [(entries[:, j], rate) for j in range(piece.shape[1])]
    masks, probs = [], []
    for kept in itertools.product([0.0, 1.0], repeat=len(columns)):
        mask, prob = torch.ones(model.n_parameters, dtype=torch.float64), 1.0
        for (entries, rate), one in zip(columns, kept):
            mask[entries] = one / (1 - rate)
            prob *= 1 - rate if one else rate
        masks.append(mask)
        probs.append(prob)
    return torch.stack(masks), torch.tensor(probs, dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted():
    model, batch, laws = small_net(), series(), []

    class Watched(MCDropout):
        def law(self, *args):
            laws.append(super().law(*args))
            return laws[0]

    options = TrainingOptions(max_epochs=60, learning_rate=2e-2, validation_fraction=0.0)
    draws = Watched(**RATES, n_draws=4000, training=options).fit(model, batch, seeded())
    return model, batch, draws, laws[0]


def test_draws_are_masks_with_their_probabilities(fitted):
    model, _, draws, law = fitted
    masks, probs = all_masks(model)
    assert float(probs.sum()) == pytest.approx(1.0)
    weights = law.flat.detach() * masks
    each = draws.params["weights"]
    found = (each.unsqueeze(1) - weights).abs().amax(-1).argmin(1)
    torch.testing.assert_close(each, weights[found])
    counts = np.bincount(found.numpy(), minlength=len(masks)) / len(each)
    assert np.abs(counts - probs.numpy()).max() < 4.5 * math.sqrt(0.25 / len(each))
    torch.testing.assert_close(each.mean(0), law.flat.detach(), atol=0.05, rtol=0.1)


def test_averaged_likelihood_and_bound_are_sums_over_all_masks(fitted):
    model, batch, draws, law = fitted
    masks, probs = all_masks(model)
    log_prob = model.log_prob({"weights": law.flat.detach() * masks}, batch).sum(-1)
    each = model.log_prob(draws.params, batch).sum(-1)
    exact = float(torch.logsumexp(log_prob + probs.log(), 0))
    error = float(each.exp().std() / each.exp().mean()) / math.sqrt(len(each))
    assert draws.log_prob == pytest.approx(exact, abs=5 * error)
    bound = float((probs * log_prob).sum()) - float(law.divergence().detach())
    assert draws.objective == pytest.approx(bound, abs=5 * float(each.std()) / math.sqrt(len(each)))


def test_divergence_is_that_of_narrow_normals_up_to_a_constant():
    """KL of (1 - p) N(m, s^2) + p N(0, s^2) from N(0, 0.8^2), by quadrature; s is small."""
    rate, spread = 0.3, 1e-2
    grid = np.linspace(-0.2, 4.0, 2_000_001)

    def density(at, scale):
        return np.exp(-0.5 * ((grid - at) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))

    def exact(flat):
        q = (1 - rate) * density(flat / (1 - rate), spread) + rate * density(0.0, spread)
        inside = q > 1e-300
        ratio = np.log(q[inside]) + 0.5 * (grid[inside] / 0.8) ** 2 + math.log(0.8 * math.sqrt(2 * math.pi))
        return float((q[inside] * ratio).sum() * (grid[1] - grid[0]))

    def ours(flat):
        one = torch.tensor([1], dtype=torch.int64)
        rates, start = torch.tensor([0.0, rate]), torch.tensor([flat], dtype=torch.float64)
        law = MaskedWeights(start, one, rates, torch.zeros(1), torch.full((1,), 0.8, dtype=torch.float64))
        return float(law.divergence().detach())

    assert exact(1.9) - exact(0.9) == pytest.approx(ours(1.9) - ours(0.9), rel=1e-4)


def test_one_mask_serves_all_steps_and_sequences_of_a_draw():
    """A column is zero in all gates and rows together, for every vector that training uses."""
    emission = Normal()

    class CountingNet(RecurrentModel):
        def _training_log_prob(self, params, batch, scored, state, generator, done=1.0):
            used.append((params["weights"].detach().clone(), batch.n))
            return super()._training_log_prob(params, batch, scored, state, generator)

    used = []
    model = CountingNet(emission, emission.observation(1), "lstm", 3, n_layers=2, dtype=torch.float64)
    batch = series(n=6)
    law = MCDropout(0.4, draws_per_batch=3).law(model, batch, seeded())
    with torch.no_grad():
        law.flat.fill_(1.0)
    options = TrainingOptions(max_epochs=4, batch_size=6, learning_rate=1e-12)
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    assert len(used) == 4 * 3
    assert {n for _, n in used} == {2}
    patterns = set()
    for vector, _ in used:
        for name, piece in model.pieces.items():
            values = vector[piece.start : piece.stop].reshape(piece.shape)
            if name in ("layers.0.input", "head.direct") or piece.kind not in ("input", "recurrent", "head"):
                assert bool((values - 1).abs().max() < 1e-6)
            else:
                assert bool((values - values[0]).abs().max() < 1e-6)
                kept = values[0] > 0.5
                torch.testing.assert_close(values[0], kept.double() / 0.6, atol=1e-6, rtol=0)
                patterns.add((name, tuple(kept.tolist())))
    names = {name for name, _ in patterns}
    assert names == {"layers.0.recurrent", "layers.1.input", "layers.1.recurrent", "head.hidden"}
    assert len(patterns) > 3 * len(names)


def test_inputs_are_masked_where_they_are_embeddings():
    emission = Categorical()
    model = RecurrentModel(emission, emission.observation(1, 4), "gru", 3, embedding_size=2)
    batch = Batch(torch.tensor([[[0.0], [3.0], [1.0]]]), torch.ones(1, 3, 1, dtype=torch.bool), torch.tensor([3]))
    law = MCDropout(0.25).law(model, batch, seeded())
    for name, piece in model.pieces.items():
        kept = law.kept[law.column[piece.start : piece.stop]]
        expected = 0.75 if piece.kind in ("input", "recurrent", "head") else 1.0
        assert bool((kept == expected).all()), name


def test_more_masks_tell_more_epistemic_spread():
    model, batch = small_net("gru", 4), series(t=40)
    options = TrainingOptions(max_epochs=30)
    spreads = []
    for rate in (0.02, 0.4):
        draws = MCDropout(rate, n_draws=50, training=options).fit(model, batch, seeded())
        spreads.append(float(model.log_prob(draws.params, batch).sum(-1).std()))
    assert spreads[1] > 2 * spreads[0]


def test_validation_data_stop_it():
    model, batch, held = small_net("gru", 4), series(t=20), series(t=30, seed=5)
    options = TrainingOptions(max_epochs=2000, learning_rate=5e-2, patience=0.02)
    inference = MCDropout(0.1, input_rate=0.1, n_draws=2, training=options)
    draws = inference.fit(model, batch, seeded(), validation=held)
    assert draws.status == "converged"
    assert draws.n_iter < 2000


def test_a_network_that_no_mask_touches_is_named():
    """Linear series: the divergence prunes the memory, and the way from the inputs to the head is never masked."""
    model, batch = small_net("gru", 2), series(t=40)
    options = TrainingOptions(max_epochs=250, learning_rate=5e-2, validation_fraction=0.0)
    with pytest.warns(ApproximationWarning, match="uses nothing that masks touch"):
        draws = MCDropout(0.5, n_draws=3, training=options).fit(model, batch, seeded())
    each = model.log_prob(draws.params, batch)
    torch.testing.assert_close(each, each[:1].expand_as(each), rtol=0, atol=0.01)


def test_no_weight_decay_is_said_to_be_tempered():
    options = TrainingOptions(max_epochs=2)
    with pytest.warns(ApproximationWarning, match="tempered"):
        MCDropout(n_draws=2, kl_weight=0.0, training=options).fit(small_net(), series(), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, "rate=1.0"),
        ({"rate": None}, "rate=None"),
        ({"recurrent_rate": -0.1}, "recurrent_rate"),
        ({"input_rate": "a"}, "input_rate"),
        ({"rate": 0.0}, "rates of 0"),
        ({"n_draws": 0}, "n_draws=0"),
        ({"draws_per_batch": 1.5}, "draws_per_batch"),
        ({"kl_weight": -1.0}, "kl_weight"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        MCDropout(**options).fit(small_net(), series(), seeded())


def test_only_recurrent_nets_are_fitted():
    emission = Normal()
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        MCDropout().fit(IIDModel(emission, emission.observation(1)), series(), seeded())
