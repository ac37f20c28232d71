"""Langevin chains against normal posteriors that are known exactly."""

import math

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.distributions.params import ParamSpec, Real
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError
from probseq.inference.langevin import SGHMC, SGLD, LangevinWeights
from probseq.inference.langevin_optimizer import Langevin
from probseq.inference.options import TrainingOptions
from probseq.inference.training import train
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.baseline import IIDModel
from probseq.models.recurrent import RecurrentModel

DOUBLE = {"dtype": torch.float64}
# The norm of a gradient for many copies of the weights is large.
FREE = {"gradient_clip": None, "device": "cpu"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Line(RecurrentModel):
    """x_t ~ N(w_r0 + w_r1 u_t, 1), r = 1, ..., R: so many weights for the same values, independent a posteriori."""

    copies = 1000

    def __init__(self):
        emission = Normal()
        super().__init__(emission, emission.observation(1), "rnn", 1, n_covariates=1, dtype=torch.float64)

    def parameters(self):
        prior = torch.distributions.Normal(torch.zeros((), **DOUBLE), 2.0 * torch.ones((), **DOUBLE))
        return {"weights": ParamSpec((2 * self.copies,), Real(), ("weight",), prior)}

    def _initial_guess(self, batch, generator):
        return {"weights": 3.0 * torch.randn(2 * self.copies, generator=generator, **DOUBLE)}

    def _training_log_prob(self, params, batch, scored, state, generator, done=1.0):
        level, slope = params["weights"].unflatten(-1, (self.copies, 2)).unbind(-1)
        gap = batch.x - level - slope * batch.u
        return (-0.5 * (gap.square() + math.log(2 * math.pi)) * scored).sum((-2, -1)), state

    def log_prob(self, params, batch, state=None):
        return torch.stack(
            [self._training_log_prob({"weights": one}, batch, batch.seen, None, None)[0] for one in params["weights"]]
        )


def observed(n=24):
    u = torch.randn(n, 1, 1, generator=seeded(2), **DOUBLE)
    x = 0.5 + 1.5 * u + torch.randn(n, 1, 1, generator=seeded(3), **DOUBLE)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.ones(n, dtype=torch.int64), u)


def posterior(batch):
    """Mean and covariance of (level, slope)."""
    design = np.column_stack([np.ones(batch.n), batch.u.flatten().numpy()])
    precision = design.T @ design + np.eye(2) / 4.0
    return np.linalg.solve(precision, design.T @ batch.x.flatten().numpy()), np.linalg.inv(precision)


def variance_of_steps(covariance, n, rate, friction):
    """Of the chain with exact gradients, whose steps are not infinitely small."""
    values, vectors = np.linalg.eigh(np.linalg.inv(covariance))
    inflated = 1 / (values * (1 - rate * values / n / (2 * (2 - friction))))
    return vectors @ np.diag(inflated) @ vectors.T


@pytest.mark.parametrize(
    ("inference", "friction"),
    [(SGLD(1, 0.9, 0.05, False), 1.0), (SGHMC(1, 0.9, 0.01, 0.2, False), 0.2)],
    ids=["SGLD", "SGHMC"],
)
def test_a_chain_has_the_exact_posterior(inference, friction):
    batch, model = observed(), Line()
    inference.training = TrainingOptions(max_epochs=300, learning_rate=0.3, **FREE)
    draws = inference.fit(model, batch, seeded())
    found = draws.params["weights"][0].reshape(-1, 2).numpy()
    mean, covariance = posterior(batch)
    expected = variance_of_steps(covariance, batch.n, inference.learning_rate, friction)
    scale = np.sqrt(np.diag(expected))
    assert np.abs((found.mean(0) - mean) / scale).max() < 4.5 / math.sqrt(model.copies)
    gap = (np.cov(found.T) - expected) / np.outer(scale, scale)
    assert np.abs(gap).max() < 4.5 * math.sqrt(2 / model.copies)
    # The steps are short: what they add is no more than a few per cent, which the temperature tells.
    inflation = np.trace(np.linalg.solve(covariance, expected)) / 2
    assert 1.0 < inflation < 1.05
    assert draws.temperature == pytest.approx(inflation, abs=0.02)


@pytest.mark.parametrize("friction", [1.0, 0.3])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_stationary_variance_and_temperature_are_those_of_the_formula(friction, preconditioned):
    """Coordinates with curvatures 0.5 and 4, many copies of each, steps that are long."""
    n, rate, copies = 50.0, 0.2, 10_000
    curvature = torch.tensor([0.5, 4.0], **DOUBLE).repeat(copies, 1)
    weights = torch.nn.Parameter(torch.zeros(copies, 2, **DOUBLE))
    moves = Langevin([weights], friction, n, preconditioned)
    gain = torch.ones(2, **DOUBLE)
    if preconditioned:
        weights.grad = torch.tensor([2.0, 4.0], **DOUBLE).repeat(copies, 1)
        moves.step()
        gain = torch.tensor([0.5, 0.25], **DOUBLE)
        with torch.no_grad():
            weights.zero_()
    moves.param_groups[0].update(lr=rate, adapting=False)
    noise, heats = seeded(5), []
    for _ in range(300):
        weights.grad = curvature * weights.detach()
        moves.step()
        heats.append(moves.diffuse(noise))
    inflation = 1 / (1 - rate * gain * curvature[0] / (2 * (2 - friction)))
    found = weights.detach().var(0) * n * curvature[0]
    torch.testing.assert_close(found, inflation, rtol=4.5 * math.sqrt(2 / copies), atol=0)
    heat = torch.stack(heats[-100:]).mean()
    torch.testing.assert_close(heat, inflation.mean(), rtol=0.01, atol=0)


def test_noise_of_mini_batches_is_seen_and_warned_of():
    batch, model = observed(), Line()
    options = TrainingOptions(max_epochs=40, batch_size=2, learning_rate=0.1, **FREE)
    with pytest.warns(ApproximationWarning, match="temperature"):
        draws = SGLD(20, learning_rate=0.1, preconditioned=False, training=options).fit(model, batch, seeded())
    assert draws.temperature > 1.25
    whole = TrainingOptions(max_epochs=120, learning_rate=0.3, **FREE)
    draws = SGLD(20, learning_rate=0.05, preconditioned=False, training=whole).fit(model, batch, seeded())
    assert draws.temperature == pytest.approx(1.0, abs=0.1)


def net(cell="gru", hidden_size=3):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, hidden_size, dtype=torch.float64)


def series(n=4, t=30, seed=1):
    generator = seeded(seed)
    x = torch.zeros(n, t, 1, **DOUBLE)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, 1, generator=generator, **DOUBLE)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


class Watched(LangevinWeights):
    """Keeps the weights and learning rates of all steps, and what the gains depend on."""

    def after_step(self, done, generator):
        super().after_step(done, generator)
        self.passed.append(self.flat.detach().clone())
        self.squares.append(self._moves.state[self.flat]["square"].clone())

    def rate(self, done, scheduled):
        self.followed.append(super().rate(done, scheduled))
        return self.followed[-1]


def chain(model, batch, n_draws=5, **options):
    start = model._initial_guess(batch, seeded())["weights"]
    law = Watched(start, model.parameters(), {}, n_draws, 0.5, (1e-2, 1e-3), **options)
    law.passed, law.followed, law.squares = [], [], []
    return law


def test_draws_are_spread_over_the_steps_after_the_burn_in():
    model, batch = net(), series()
    law = chain(model, batch)
    options = TrainingOptions(max_epochs=20, batch_size=2, device="cpu")
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    torch.testing.assert_close(law.found(), torch.stack(law.passed[23::4]), atol=0, rtol=0)
    assert law.followed[0] == pytest.approx(1e-2)
    assert law.followed[10] == pytest.approx(0.5 * (1e-2 + 1e-3))
    assert law.followed[20:] == [1e-3] * 20
    assert not torch.equal(law.squares[18], law.squares[19])
    assert all(torch.equal(law.squares[19], later) for later in law.squares[20:])


def test_large_gradients_are_cut_in_the_burn_in_only():
    weights = torch.nn.Parameter(torch.zeros(2, **DOUBLE))
    moves = Langevin([weights], 1.0, 10.0, clip=1.0)
    moves.param_groups[0]["lr"] = 1.0
    weights.grad = torch.tensor([3.0, 4.0], **DOUBLE)
    moves.step()
    torch.testing.assert_close(weights.detach(), torch.tensor([-0.6, -0.8], **DOUBLE))
    moves.param_groups[0]["adapting"] = False
    moves.step()
    torch.testing.assert_close(weights.detach(), torch.tensor([-3.6, -4.8], **DOUBLE))


class KilledError(Exception):
    """Stands for the end of a process."""


class Kill:
    """Ends the training at the end of a round."""

    def __init__(self, at):
        self.at, self.n = at, 0

    def on_epoch_end(self, record):
        self.n += 1
        if self.n == self.at:
            raise KilledError


@pytest.mark.parametrize("friction", [1.0, 0.2])
def test_a_chain_that_was_killed_goes_on_as_if_it_had_not_been(friction, tmp_path, monkeypatch):
    monkeypatch.setattr("probseq.inference.rounds._FEWEST_STEPS", 2)
    model, batch = net(), series()

    def run(**options):
        inference = SGHMC(4, friction=friction, training=TrainingOptions(max_epochs=14, batch_size=2, **options))
        return inference.fit(model, batch, seeded())

    kept = {"checkpoint": tmp_path, "checkpoint_seconds": 0.0, "resume": True}
    for at in (4, 6):  # in the burn-in, and behind it
        with pytest.raises(KilledError):
            run(**kept, callbacks=[Kill(at)])
    again, whole = run(**kept), run()
    assert torch.equal(again.params["weights"], whole.params["weights"])
    assert again.temperature == whole.temperature


def test_a_fit_shows_its_chain():
    model, batch = net(), series()
    inference = SGLD(8, learning_rate=1e-4, training=TrainingOptions(max_epochs=60, device="cpu"))
    draws = inference.fit(model, batch, seeded())
    flat = draws.params["weights"]
    assert flat.shape == (8, model.n_parameters)
    torch.testing.assert_close(draws.point["weights"][0], flat.mean(0))
    each = model.log_prob(draws.params, batch).sum(-1)
    prior = model.parameters()["weights"].prior
    assert draws.objective == pytest.approx(float((each + prior.log_prob(flat).sum(-1)).mean()))
    assert draws.log_prob == pytest.approx(float(torch.logsumexp(each, 0)) - math.log(8))
    assert draws.ess > 0
    assert draws.temperature == pytest.approx(1.0, abs=0.2)


def test_an_interrupted_chain_gives_what_it_has():
    class Interrupt:
        def on_epoch_end(self, record):
            raise KeyboardInterrupt

    options = TrainingOptions(max_epochs=1000, callbacks=[Interrupt()], device="cpu")
    draws = SGLD(5, training=options).fit(net(), series(), seeded())
    assert draws.status == "interrupted"
    assert draws.params["weights"].shape[0] == 1


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        (SGLD(n_draws=0), "n_draws=0"),
        (SGLD(burn_in=0.0), "burn_in=0.0"),
        (SGLD(burn_in="long"), "burn_in='long'"),
        (SGLD(learning_rate=-1.0), "learning_rate"),
        (SGLD(priors={"weight": None}), "weight"),
        (SGLD(training=TrainingOptions(max_epochs=20)), "10 steps after the burn-in for 30 draws"),
        (SGHMC(friction=0.0), "friction=0.0"),
        (SGHMC(friction=True), "friction=True"),
        (SGHMC(burn_in=2), "burn_in=2"),
    ],
    ids=repr,
)
def test_bad_options_are_named(inference, message):
    with pytest.raises(ParameterError, match=message):
        inference.fit(net(), series(), seeded())


def test_only_recurrent_nets_are_fitted():
    emission = Normal()
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        SGLD().fit(IIDModel(emission, emission.observation(1)), series(), seeded())
    with pytest.raises(IncompatibleError, match="SGHMC"):
        ps.ARMA(inference=SGHMC())
