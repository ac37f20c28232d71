"""SWAG: its moments are those of the snapshots, its draws those of the formula."""

import math

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError
from probseq.inference.options import TrainingOptions
from probseq.inference.swag import SWAG, AveragedWeights
from probseq.inference.training import train
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.baseline import IIDModel
from probseq.models.recurrent import RecurrentModel

QUICK = TrainingOptions(max_epochs=10, window=10, batch_size=2, device="cpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(n=1, t=40, seed=1):
    generator = seeded(seed)
    x = torch.zeros(n, t, 1, dtype=torch.float64)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def small_net(cell="rnn", hidden_size=2):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, hidden_size, dtype=torch.float64)


def averaged(m=4, rank=3, begin=0.5, n_snapshots=100, learning_rate=1e-2):
    return AveragedWeights(torch.zeros(m, dtype=torch.float64), {}, {}, rank, begin, n_snapshots, learning_rate)


def known(n=7, m=4):
    return 5.0 + torch.randn(n, m, generator=seeded(3), dtype=torch.float64) * torch.tensor([0.1, 1.0, 2.0, 0.5])


def test_moments_are_those_of_the_snapshots():
    vectors, law = known(), averaged()
    for vector in vectors:
        law.collect(vector)
    mean, variance, deviations = law.moments()
    torch.testing.assert_close(mean, vectors.mean(0), atol=1e-13, rtol=0)
    torch.testing.assert_close(variance, vectors.var(0, correction=0), atol=1e-13, rtol=0)
    # Algorithm 1 of Maddox et al. (2019): deviations from the mean of the snapshots up to then.
    expected = torch.stack([vectors[i] - vectors[: i + 1].mean(0) for i in (4, 5, 6)])
    order = deviations[:, 0].argsort()
    torch.testing.assert_close(deviations[order], expected[expected[:, 0].argsort()], atol=1e-13, rtol=0)


def test_draws_have_the_covariance_of_the_formula():
    vectors, law, n = known(), averaged(), 200_000
    for vector in vectors:
        law.collect(vector)
    mean, variance, deviations = (part.numpy() for part in law.moments())
    draws = law.sample(n, seeded()).numpy()
    expected = 0.5 * (np.diag(variance) + deviations.T @ deviations / (3 - 1))
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / scale, 4.5 / math.sqrt(n))
    gap = (np.cov(draws.T) - expected) / np.outer(scale, scale)
    assert np.abs(gap).max() < 4.5 * math.sqrt(2 / n)


def test_small_spreads_far_from_zero_survive_single_precision():
    vectors = 1000.0 + 0.01 * known(n=50)
    law = AveragedWeights(torch.zeros(4), {}, {}, 3, 0.5, 100, 1e-2)
    for vector in vectors.float():
        law.collect(vector)
    torch.testing.assert_close(
        law.moments()[1].double(), vectors.float().double().var(0, correction=0), rtol=0.02, atol=0
    )


class Watched(AveragedWeights):
    """Keeps what it collects, and the weights and learning rates of all steps."""

    def collect(self, vector):
        self.collected.append(vector.clone())
        super().collect(vector)

    def after_step(self, done, generator):
        self.passed.append(self.flat.detach().clone())
        super().after_step(done, generator)

    def rate(self, done, scheduled):
        self.rates.append(super().rate(done, scheduled))
        return self.rates[-1]


@pytest.mark.parametrize(("n_snapshots", "every"), [(5, 4), (20, 1), (1000, 1)])
def test_snapshots_are_spread_over_the_last_part_of_a_training(n_snapshots, every):
    model, batch = small_net(), series(n=8, t=6)
    law = Watched(model._initial_guess(batch, seeded())["weights"], model.parameters(), {}, 3, 0.5, n_snapshots, 4e-3)
    law.collected, law.passed, law.rates = [], [], []
    options = TrainingOptions(max_epochs=10, batch_size=2, learning_rate=1e-2, device="cpu")
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    assert len(law.passed) == 40
    expected = torch.stack(law.passed[20 + every - 1 :: every])
    torch.testing.assert_close(torch.stack(law.collected), expected, atol=0, rtol=0)
    torch.testing.assert_close(law.moments()[0], expected.mean(0))
    falling = [max(4e-3, 1e-2 * 0.5 * (1 + math.cos(math.pi * i / 40))) for i in range(20)]
    assert law.rates[:20] == pytest.approx(falling)
    assert law.rates[20:] == [4e-3] * 20


def test_a_fit_shows_its_law():
    model, batch = small_net("gru"), series(n=4)
    draws = SWAG(n_draws=500, rank=4, n_snapshots=15, training=QUICK).fit(model, batch, seeded())
    assert (draws.n_snapshots, draws.deviations.shape) == (15, (4, model.n_parameters))
    torch.testing.assert_close(draws.point["weights"][0], draws.mean)
    spread = (0.5 * (draws.variance + draws.deviations.square().sum(0) / 3)).sqrt()
    torch.testing.assert_close(draws.params["weights"].std(0), spread, rtol=0.2, atol=0)
    prior = model.parameters()["weights"].prior
    objective = float(model.log_prob(draws.point, batch).sum() + prior.log_prob(draws.mean).sum())
    assert draws.objective == pytest.approx(objective)
    total = model.log_prob(draws.params, batch).sum(-1)
    assert draws.log_prob == pytest.approx(float(torch.logsumexp(total, 0)) - math.log(500))


def test_noise_of_mini_batches_makes_the_spread():
    """On a quadratic likelihood, w' = w - rate * (w - mean of the mini-batch), which is simulated for comparison."""

    class Level(RecurrentModel):
        def _training_log_prob(self, params, batch, scored, state, generator, done=1.0):
            gap = batch.x[..., 0] - params["weights"][0]
            return -0.5 * (gap.square() * scored[..., 0]).sum(-1), state

    emission, n, rate = Normal(), 32, 0.1
    model = Level(emission, emission.observation(1), "rnn", 1, dtype=torch.float64)
    x = torch.randn(n, 1, 1, generator=seeded(8), dtype=torch.float64)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.ones(n, dtype=torch.int64))
    law = AveragedWeights(x.mean().expand(model.n_parameters), model.parameters(), {}, 2, 0.05, 10_000, rate)
    options = TrainingOptions(
        max_epochs=50, batch_size=4, learning_rate=rate, optimizer="sgd", gradient_clip=None, device="cpu"
    )
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    variance = law.moments()[1]
    rng, values, found = np.random.default_rng(0), x.flatten().numpy(), []
    w = np.full(500, values.mean())
    for _ in range(50):  # passes
        order = rng.permuted(np.tile(values, (500, 1)), axis=1).reshape(500, 8, 4).mean(-1)
        for step in range(8):
            w = w - rate * (w - order[:, step])
            found.append(w)
    expected = np.var(found[20:], axis=0)
    assert abs(float(variance[0]) - expected.mean()) < 4.5 * expected.std()


def test_one_mini_batch_a_pass_is_said_to_have_no_noise():
    with pytest.warns(ApproximationWarning, match="mini-batch"):
        SWAG(n_draws=2, training=TrainingOptions(max_epochs=6)).fit(small_net(), series(), seeded())


def test_an_interrupted_training_gives_what_it_has():
    class Interrupt:
        def on_epoch_end(self, record):
            raise KeyboardInterrupt

    options = QUICK.completed(learning_rate=1e-2, validation_fraction=0.0)
    options.callbacks, options.max_epochs = [Interrupt()], 1000
    draws = SWAG(n_draws=5, training=options).fit(small_net(), series(), seeded())
    assert draws.status == "interrupted"
    assert draws.params["weights"].shape[0] == 1
    torch.testing.assert_close(draws.point["weights"], draws.params["weights"])


def test_held_back_data_are_scored_but_stop_nothing():
    seen = []

    class Watch:
        def on_epoch_end(self, record):
            seen.append(record.validation)

    options = TrainingOptions(max_epochs=60, window=10, batch_size=2, patience=0.0, callbacks=[Watch()], device="cpu")
    draws = SWAG(n_draws=2, training=options).fit(small_net(), series(), seeded(), validation=series(seed=4))
    assert draws.n_iter == 60
    assert draws.n_snapshots > 50
    assert all(math.isfinite(value) for value in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 0}, "n_draws=0"),
        ({"rank": 1}, "rank=1"),
        ({"start": 1.0}, "start=1.0"),
        ({"start": "late"}, "start='late'"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"n_snapshots": 1}, "n_snapshots"),
        ({"priors": {"weight": None}}, "weight"),
        ({"start": 0.99}, "two snapshots"),
        ({"training": 3}, "TrainingOptions"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        SWAG(**{"training": QUICK, **options}).fit(small_net(), series(), seeded())


def test_only_recurrent_nets_are_fitted():
    emission = Normal()
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        SWAG().fit(IIDModel(emission, emission.observation(1)), series(), seeded())
    with pytest.raises(IncompatibleError, match="SWAG"):
        ps.HMM(inference=SWAG())
