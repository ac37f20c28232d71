"""Mean-field inference and gradient training, against quadrature over two weights."""

import logging
import math
import os
import signal
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.distributions.params import ParamSpec, Real
from probseq.errors import ApproximationWarning, EmptyDataError, IncompatibleError, ParameterError
from probseq.inference.normal_weights import NormalWeights
from probseq.inference.optimize import MLE
from probseq.inference.options import TrainingOptions
from probseq.inference.training import train, train_point
from probseq.inference.variational import MeanField
from probseq.inference.weights import PointWeights
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.baseline import IIDModel
from probseq.models.recurrent import RecurrentModel

NODES, MASSES = np.polynomial.hermite_e.hermegauss(12)
MASSES = MASSES / MASSES.sum()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, which a process started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class TwoWeights(RecurrentModel):
    """A net with two free weights: one recurrent, one of the head; the rest stay where they are."""

    PRIOR = torch.tensor([0.7, 1.2], dtype=torch.float64)

    def __init__(self):
        emission = Normal()
        super().__init__(emission, emission.observation(1), "rnn", 1, dtype=torch.float64)
        size = self.weights.size
        self.fixed = 0.4 * torch.randn(size, generator=seeded(4), dtype=torch.float64)
        self.place = torch.zeros(2, size, dtype=torch.float64)
        self.place[0, self.layout.sizes[0]] = 1.0
        self.place[1, self.layout.size] = 1.0

    def parameters(self):
        prior = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), self.PRIOR)
        return {"weights": ParamSpec((2,), Real(), ("weight",), prior)}

    def _split(self, params):
        return super()._split({"weights": self.fixed + params["weights"] @ self.place})

    def _initial_guess(self, batch, generator):
        return {"weights": torch.tensor([0.1, 0.2], dtype=torch.float64)}


def series(n=1, t=25, seed=1, dtype=torch.float64):
    generator = seeded(seed)
    x = torch.zeros(n, t, 1, dtype=dtype)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, 1, generator=generator, dtype=dtype)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def small_net(hidden_size=4, **options):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), "gru", hidden_size, **options)


def grid(mean, scale):
    """Weights (144, 2) and their masses under a normal with independent coordinates."""
    z = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), -1).reshape(-1, 2)
    mass = (MASSES[:, None] * MASSES).reshape(-1)
    return torch.as_tensor(mean) + torch.as_tensor(scale) * torch.from_numpy(z), torch.from_numpy(mass)


def log_normal(w, mean, scale):
    return (-0.5 * ((w - mean) / scale) ** 2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)).sum(-1)


def bound(model, batch, mean, scale):
    """The evidence lower bound by quadrature."""
    mean, scale = torch.as_tensor(mean), torch.as_tensor(scale)
    w, mass = grid(mean, scale)
    fit = model.log_prob({"weights": w}, batch).sum(-1)
    divergence = log_normal(w, mean, scale) - log_normal(w, 0.0, model.PRIOR)
    return (mass * (fit - divergence)).sum()


def test_divergence_has_the_slopes_of_finite_differences():
    generator = torch.Generator().manual_seed(4)
    mean, rho, where, width = (torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(4))
    law = NormalWeights(mean, rho, where, width.exp())
    (0.5 * law.divergence()).backward()
    for name, start in (("mean", mean), ("rho", rho)):
        for i in range(5):
            step, ends = torch.zeros_like(start), []
            step[i] = 1e-5
            for moved in (start + step, start - step):
                own = {"mean": mean, "rho": rho, name: moved}
                ends.append(float(NormalWeights(own["mean"], own["rho"], where, width.exp()).divergence().detach()))
            slope = getattr(law, name).grad[i]
            assert float(slope) == pytest.approx(0.5 * (ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-8)


def test_divergence_equals_quadrature():
    mean, scale = torch.tensor([0.3, -0.5], dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64)
    where, width = torch.tensor([0.1, 0.0], dtype=torch.float64), TwoWeights.PRIOR
    law = NormalWeights(mean, scale.log(), where, width)
    w, mass = grid(mean.numpy(), scale.numpy())
    expected = (mass * (log_normal(w, mean, scale) - log_normal(w, where, width))).sum()
    assert float(law.divergence().detach()) == pytest.approx(float(expected), abs=1e-12)
    q, p = torch.distributions.Normal(mean, scale), torch.distributions.Normal(where, width)
    assert float(law.divergence().detach()) == pytest.approx(
        float(torch.distributions.kl_divergence(q, p).sum()), abs=1e-12
    )


@pytest.fixture(scope="module")
def fitted():
    model, batch, laws = TwoWeights(), series(), []

    class Watched(MeanField):
        def law(self, *args):
            laws.append(super().law(*args))
            return laws[0]

    draws = Watched(n_draws=4000, training=TrainingOptions(max_epochs=1500)).fit(model, batch, seeded())
    return model, batch, draws, laws[0].mean.detach().numpy(), laws[0].rho.detach().exp().numpy()


def test_bound_of_the_result_equals_quadrature(fitted):
    model, batch, draws, mean, scale = fitted
    each = model.log_prob(draws.params, batch).sum(-1)
    error = float(each.std()) / math.sqrt(len(each))
    assert draws.objective == pytest.approx(float(bound(model, batch, mean, scale)), abs=5 * error)


def test_posterior_averaged_likelihood_equals_quadrature(fitted):
    model, batch, draws, mean, scale = fitted
    w, mass = grid(mean, scale)
    likelihood = model.log_prob({"weights": w}, batch).sum(-1).exp()
    each = model.log_prob(draws.params, batch).sum(-1).exp()
    error = float(each.std() / each.mean()) / math.sqrt(len(each))
    assert draws.log_prob == pytest.approx(math.log(float((mass * likelihood).sum())), abs=5 * error)


def test_training_finds_the_best_bound(fitted):
    model, batch, draws, mean, scale = fitted

    def loss(z):
        z = torch.from_numpy(z.copy()).requires_grad_()
        value = -bound(model, batch, z[:2], z[2:].exp())
        value.backward()
        return value.item(), z.grad.numpy()

    best = minimize(loss, [0.1, 0.2, -2.0, -2.0], jac=True, method="L-BFGS-B", options={"ftol": 1e-9})
    # Near the top the bound falls by z^2 / 2 for a mean z standard deviations off and by r^2 for a standard deviation
    # off by exp(r). Noisy gradients end less than 0.01 below the top; the divergence counted twice or half misses by
    # more than 0.1.
    assert -1e-6 <= -best.fun - float(bound(model, batch, mean, scale)) < 0.03
    assert (np.abs(mean - best.x[:2]) < 0.25 * np.exp(best.x[2:])).all()
    np.testing.assert_allclose(scale, np.exp(best.x[2:]), rtol=0.2)
    assert draws.status == "converged"


class Counted(NormalWeights):
    """Keeps every vector that it drew."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.drawn = []

    def draw(self, generator):
        vectors = super().draw(generator)
        self.drawn += [v.detach().clone() for v in vectors]
        return vectors


class CountingNet(RecurrentModel):
    used: list[torch.Tensor]

    def _pass(self, params, batch, state, **options):
        self.used.append(params["weights"].detach().clone())
        return super()._pass(params, batch, state, **options)


@pytest.mark.parametrize("antithetic", [True, False])
def test_one_draw_of_the_weights_serves_a_mini_batch(antithetic):
    emission = Normal()
    model = CountingNet(emission, emission.observation(1), "gru", 3)
    model.used = []
    m = model.n_parameters
    law = Counted(torch.zeros(m), torch.zeros(m), torch.zeros(m), torch.ones(m), antithetic=antithetic)
    batch = series(n=8, t=12, dtype=torch.float32)
    options = TrainingOptions(max_epochs=3, batch_size=4, learning_rate=1e-12)
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    assert len(law.drawn) == 3 * 2
    assert all(torch.equal(a, b) for a, b in zip(model.used, law.drawn, strict=True))
    mirrored = [torch.allclose(a, -b, atol=1e-5) for a, b in zip(law.drawn[::2], law.drawn[1::2])]
    assert all(mirrored) if antithetic else not any(mirrored)
    assert not torch.allclose(law.drawn[0].abs(), law.drawn[2].abs())


def test_divergence_is_counted_once_a_pass():
    """Losses of the mini-batches of a pass, weighed by their shares, are the whole bound per value."""
    model, batch = small_net(dtype=torch.float64), series(n=6, t=10)
    m = model.n_parameters
    start = 0.1 * torch.randn(m, generator=seeded(), dtype=torch.float64)
    ones = torch.ones(m, dtype=torch.float64)
    law = NormalWeights(start, -20 * ones, 0 * ones, ones)
    losses = train(
        model,
        law,
        Windows(batch, batch.seen),
        seeded(),
        TrainingOptions(max_epochs=25, batch_size=2, learning_rate=1e-12),
    ).trace
    expected = model.log_prob({"weights": start}, batch).sum() - law.divergence().detach()
    assert losses[0] == pytest.approx(float(expected) / 60, abs=1e-6)


def test_a_seed_repeats_and_global_generators_stay(tmp_path, monkeypatch, capfd, interruptible):
    monkeypatch.chdir(tmp_path)
    model, batch = small_net(), series(dtype=torch.float32)
    inference = MeanField(n_draws=3, training=TrainingOptions(max_epochs=4))
    before, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    results = [inference.fit(model, batch, seeded(s)).params["weights"] for s in (5, 5, 6)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == legacy).all()
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
    assert [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")] == levels
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_draws_are_mirrored_around_the_mean():
    m = 5
    law = NormalWeights(torch.arange(5.0), torch.zeros(m), torch.zeros(m), torch.ones(m))
    drawn = law.sample(30, seeded())
    torch.testing.assert_close(drawn.mean(0), torch.arange(5.0), atol=1e-5, rtol=0)
    assert law.sample(7, seeded()).shape == (7, m)


def test_a_tempered_posterior_says_so():
    with pytest.warns(ApproximationWarning, match="tempered"):
        MeanField(n_draws=2, kl_weight=0.1, training=TrainingOptions(max_epochs=2)).fit(
            small_net(), series(dtype=torch.float32), seeded()
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MeanField(n_draws=2, training=TrainingOptions(max_epochs=2)).fit(
            small_net(), series(dtype=torch.float32), seeded()
        )


def test_an_objective_that_is_not_finite_names_the_batch():
    batch = series(n=3, dtype=torch.float32)
    batch.x[1, 4] = 1e30
    law = PointWeights(torch.zeros(small_net().n_parameters))
    with pytest.raises(ParameterError, match=r"epoch 0, batch \d: sequences 1 \(steps 0 to 24\)"):
        train(small_net(), law, Windows(batch, batch.seen), seeded(), TrainingOptions(max_epochs=2, batch_size=1))


@pytest.mark.parametrize("how", ["progress", "signal"])
def test_an_interrupt_keeps_what_was_found(how, interruptible):
    def interrupt(epoch, value):
        if epoch >= 50:
            if how == "progress":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    draws = MeanField(n_draws=3, training=TrainingOptions(max_epochs=500)).fit(
        small_net(), series(dtype=torch.float32), seeded(), progress=interrupt
    )
    assert draws.status == "interrupted"
    assert draws.n_iter < 200
    assert draws.params["weights"].shape == (3, small_net().n_parameters)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_progress_tells_nats_per_value():
    told = []
    batch = series(dtype=torch.float32)
    draws = MeanField(n_draws=2, training=TrainingOptions(max_epochs=100)).fit(
        small_net(), batch, seeded(), progress=lambda epoch, value: told.append((epoch, value))
    )
    assert [epoch for epoch, _ in told] == [25, 50, 75, 100]
    np.testing.assert_allclose([value * 25 for _, value in told], draws.trace)


def test_a_weight_of_two_is_a_sequence_twice():
    model, batch = small_net(), series(n=2, dtype=torch.float32)
    weighted = MeanField(n_draws=4, training=TrainingOptions(max_epochs=3)).fit(
        model, batch, seeded(), weights=torch.tensor([2.0, 0.0])
    )
    twice = Batch(*(None if leaf is None else leaf[[0, 0]] for leaf in batch))
    total = model.log_prob(weighted.params, twice).double().sum(-1)
    assert weighted.log_prob == pytest.approx(float(torch.logsumexp(total, 0)) - math.log(4), rel=1e-5)


def test_point_training_learns_and_keeps_the_best_weights():
    model, batch = small_net(), series(t=200, dtype=torch.float32)
    draws = train_point(model, batch, seeded(), TrainingOptions(max_epochs=150, learning_rate=2e-2))
    assert draws.params["weights"].shape == (1, model.n_parameters)
    marginal = -0.5 * math.log(2 * math.pi * math.e * float(batch.x.var())) * 200
    assert draws.log_prob > marginal + 20
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch)), rel=1e-6)


def test_maximum_likelihood_of_a_net_is_point_training():
    model, batch = small_net(), series(t=40, dtype=torch.float32)
    options = TrainingOptions(max_epochs=20)
    draws = MLE(training=options).fit(model, batch, seeded())
    assert torch.equal(draws.params["weights"], train_point(model, batch, seeded(), options).params["weights"])


def test_early_stopping_returns_to_the_best_validation_score():
    model, batch, held = small_net(hidden_size=16), series(t=20, dtype=torch.float32), series(t=60, seed=9)
    held = held._replace(x=held.x.float())
    options = TrainingOptions(max_epochs=3000, learning_rate=3e-2, patience=0.05)
    draws = train_point(model, batch, seeded(), options, validation=held)
    law = PointWeights(model._initial_guess(batch, seeded())["weights"])
    assert draws.status == "converged"
    assert draws.n_iter < 3000
    last = train(model, law, Windows(batch, batch.seen), seeded(), TrainingOptions(max_epochs=draws.n_iter))
    assert last.status == "max_iter"
    kept, final = draws.params, {"weights": law.centre().detach()}
    assert float(model.log_prob(kept, held)) > float(model.log_prob(final, held))


def test_validation_data_stop_the_mean_field_too():
    model, batch = small_net(hidden_size=8), series(t=20, dtype=torch.float32)
    draws = MeanField(n_draws=2, training=TrainingOptions(max_epochs=200)).fit(model, batch, seeded(), validation=batch)
    assert draws.n_iter <= 200


def test_only_recurrent_nets_are_fitted():
    assert MeanField().can_fit(RecurrentModel)
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        MeanField().require(IIDModel)
    emission = Normal()
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        MeanField().fit(IIDModel(emission, emission.observation(1)), series(), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 0}, "n_draws=0"),
        ({"prior_scale": -1.0}, "prior_scale"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        MeanField(**options).fit(small_net(), series(dtype=torch.float32), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs=0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 2.5}, "batch_size"),
    ],
)
def test_bad_training_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        MeanField(training=TrainingOptions(**options)).fit(small_net(), series(dtype=torch.float32), seeded())


def test_training_options_are_reached_by_nested_names():
    inference = MeanField().set_params(training__max_epochs=7)
    assert inference.training == TrainingOptions(max_epochs=7)
    model = ps.LSTM().set_params(inference__training__batch_size=5)
    assert model.inference == MeanField(training=TrainingOptions(batch_size=5))
    with pytest.raises(ParameterError, match="n_draws__x"):
        MeanField().set_params(n_draws__x=3)
    with pytest.raises(ParameterError, match="max_epoch"):
        MeanField().set_params(training__max_epoch=3)


def test_nothing_seen_is_an_error():
    batch = series(dtype=torch.float32)
    batch = batch._replace(seen=torch.zeros_like(batch.seen))
    with pytest.raises(EmptyDataError):
        MeanField(training=TrainingOptions(max_epochs=2)).fit(small_net(), batch, seeded())
