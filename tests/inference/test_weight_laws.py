"""Laws of a network's weights: learnt prior scales, local noise of the head, shared mini-batches, penalties."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.distributions.params import unflatten
from probseq.errors import ApproximationWarning, ParameterError
from probseq.inference.dropout import MCDropout
from probseq.inference.map import MAP
from probseq.inference.normal_weights import NormalWeights
from probseq.inference.optimize import MLE
from probseq.inference.options import TrainingOptions
from probseq.inference.training import train
from probseq.inference.variational import MeanField
from probseq.inference.weights import PenalizedWeights
from probseq.inference.windows import Windows, whole_sequences
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.wrappers import innermost

KINDS = [("input", 3), ("recurrent", 2), ("input", 4)]
DOUBLE = {"dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(n=1, t=25, seed=1, dtype=torch.float64):
    generator = seeded(seed)
    x = torch.zeros(n, t, 1, dtype=dtype)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, 1, generator=generator, dtype=dtype)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def tiny_net(cell="rnn", hidden_size=1, **options):
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), cell, hidden_size, dtype=torch.float64, **options)


def normal_law(**options):
    generator = seeded(3)
    mean, rho = torch.randn(9, generator=generator, **DOUBLE), torch.randn(9, generator=generator, **DOUBLE) - 1
    location, scale = torch.randn(9, generator=generator, **DOUBLE), torch.rand(9, generator=generator, **DOUBLE) + 0.5
    return NormalWeights(mean, rho, location, scale, **options), (mean, rho, location, scale)


def test_learnt_prior_scales_have_the_smallest_divergence():
    law, (mean, rho, location, scale) = normal_law(kinds=KINDS)
    of_recurrent = torch.tensor([False] * 3 + [True] * 2 + [False] * 4)

    def divergence(logs):
        factor = torch.where(of_recurrent, math.exp(logs[1]), math.exp(logs[0]))
        return NormalWeights(mean, rho, location, factor * scale).divergence()

    best = minimize(lambda z: float(divergence(z).detach()), [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8})
    assert float(law.divergence().detach()) == pytest.approx(best.fun, abs=1e-10)
    assert list(law.factors()) == ["input", "recurrent"]
    np.testing.assert_allclose(list(law.factors().values()), np.exp(best.x), rtol=1e-6)


def test_learnt_prior_scales_have_the_slope_of_scales_at_their_best():
    law, (mean, rho, location, scale) = normal_law(kinds=KINDS)
    factor = torch.cat([torch.full((size,), law.factors()[kind], **DOUBLE) for kind, size in KINDS])
    given = NormalWeights(mean, rho, location, factor * scale)
    for one in (law, given):
        one.divergence().backward()
    torch.testing.assert_close(law.mean.grad, given.mean.grad, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(law.rho.grad, given.rho.grad, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("prior_scale", ["learnt", {"head": 2.0}, 1.0])
def test_the_record_of_a_fit_shows_the_law(prior_scale):
    model, batch = tiny_net("gru", 3), series()
    options = TrainingOptions(max_epochs=3)
    draws = MeanField(4, prior_scale, training=options).fit(model, batch, seeded())
    torch.testing.assert_close(draws.params["weights"].mean(0), draws.mean)
    torch.testing.assert_close(draws.point["weights"], draws.mean.unsqueeze(0))
    assert draws.scale.shape == draws.mean.shape
    assert draws.kl_weight == 1.0
    wanted = {piece.kind for piece in model.pieces.values()} if prior_scale == "learnt" else set()
    assert set(draws.prior_scales) == wanted
    total = model.log_prob(draws.params, batch).sum(-1)
    assert draws.objective == pytest.approx(float(total.mean()) - draws.divergence)


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
def test_the_summary_of_a_fit_tells_pieces_and_tempering(kl_weight):
    inference = MeanField(4, "learnt", kl_weight=kl_weight, training=TrainingOptions(max_epochs=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApproximationWarning)
        model = ps.LSTM(3, 2, inference=inference, random_state=0).fit(series().x[0])
    table = model.summary()
    assert list(table.index) == list(innermost(model.model_.model).pieces)
    assert table["weights"].sum() == model.params_.sizes["weight"]
    assert table["kl"].sum() == pytest.approx(model.draws_.divergence, rel=1e-4)
    assert (table[["mean", "spread", "prior"]] > 0).all(axis=None)
    assert table.attrs["posterior"] == ("posterior" if kl_weight == 1 else "tempered: kl_weight=0.25")
    point = ps.RNN(3, inference=MLE(training=TrainingOptions(max_epochs=2))).fit(series().x[0]).summary()
    assert point.attrs["posterior"] == "point"
    assert (point["spread"] == 0).all()


def test_prior_scales_by_kind_change_those_kinds_only():
    model, batch = tiny_net("gru", 3), series()
    plain, wide = (MeanField(1, scale).law(model, batch, seeded()) for scale in (1.0, {"head": 3.0}))
    ratio = (wide.log_scale - plain.log_scale).exp()
    for piece in model.pieces.values():
        expected = torch.full((piece.stop - piece.start,), 3.0 if piece.kind == "head" else 1.0, **DOUBLE)
        torch.testing.assert_close(ratio[piece.start : piece.stop], expected)


@pytest.mark.parametrize("prior_scale", ["guess", {"hair": 1.0}, {"head": -1.0}, 0.0])
def test_wrong_prior_scales_are_named(prior_scale):
    with pytest.raises(ParameterError, match="prior_scale"):
        MeanField(1, prior_scale).fit(tiny_net(), series(), seeded())


def test_a_tempered_fit_keeps_its_weight():
    with pytest.warns(ApproximationWarning, match="tempered"):
        draws = MeanField(2, kl_weight=0.5, training=TrainingOptions(max_epochs=2)).fit(tiny_net(), series(), seeded())
    assert draws.kl_weight == 0.5


def test_the_best_weights_are_those_of_a_law_after_its_warm_up():
    """Held-out data from another world are fitted best at the start, which is no posterior yet."""
    model, batch = tiny_net("gru", 4), series(t=60)
    held = series(t=60, seed=2)._replace(x=5 * torch.randn(1, 60, 1, generator=seeded(3), dtype=torch.float64))
    for warmup in (0.0, 0.5):
        options = TrainingOptions(max_epochs=400, learning_rate=2e-2, patience=1.0)
        inference = MeanField(2, kl_warmup=warmup)
        law = inference.law(model, batch, seeded())
        trained = train(
            model,
            law,
            Windows(batch, batch.seen),
            seeded(),
            options,
            kl_weight=inference._kl_weight,
            validation=whole_sequences(held),
        )
        scores = np.asarray(trained.validation)
        kept = float(model.log_prob({"weights": law.centre().detach()}, held)) / 60
        first = max(0, math.ceil(warmup * len(scores)) - 1)
        assert kept == pytest.approx(scores[first:].max(), abs=1e-6)
        if warmup:
            assert scores[first:].max() < scores.max()


@pytest.mark.parametrize("inference", [MeanField, MAP, MCDropout])
def test_training_must_be_an_object_of_options(inference):
    with pytest.raises(ParameterError, match="TrainingOptions"):
        inference(training={"max_epochs": 3}).fit(tiny_net(), series(), seeded())


def head_only(local):
    """A law that is certain about all weights but the head's, with the local noise or without."""
    model = tiny_net(hidden_size=2)
    m = model.n_parameters
    of_head = torch.zeros(m, dtype=torch.bool)
    for piece in model.pieces.values():
        of_head[piece.start : piece.stop] = piece.kind in ("head", "head_bias")
    mean = 0.5 * torch.randn(m, generator=seeded(7), **DOUBLE)
    rho = torch.where(of_head, math.log(0.3), -60.0).double()
    ones = torch.ones(m, **DOUBLE)
    return model, NormalWeights(mean, rho, 0 * ones, ones, local=of_head if local else None)


def exact_expectation(model, law, batch):
    """E_q log p(x | w) for a law that is certain about all but the head: quadrature over the two outputs of a step."""
    params = {"weights": law.mean.detach()}
    inputs = model._sequence_inputs(model._split(params), batch, model.initial_state(params, batch.n))
    memory = model._scan(params, batch, model.initial_state(params, batch.n)).states.hidden[..., -1, :]
    memory = torch.cat([memory[:, 1:], model.filter(params, batch).hidden[..., -1, :].unsqueeze(1)], 1)
    weights, scales = model._split(params), model._split({"weights": law.rho.detach().exp()})

    def moment(read, hidden, values, power):
        both = torch.matmul(read**power, values["head.direct"].mT ** power)
        return both + torch.matmul(hidden**power, values["head.hidden"].mT ** power) + values["head.bias"] ** power

    mean, spread = moment(inputs, memory, weights, 1), moment(inputs, memory, scales, 2).sqrt()
    nodes, masses = np.polynomial.hermite_e.hermegauss(20)
    masses = masses / masses.sum()
    total = 0.0
    for a, mass_a in zip(nodes, masses):
        for b, mass_b in zip(nodes, masses):
            outputs = mean + spread * torch.tensor([a, b], **DOUBLE)
            log_prob = model.head.from_outputs(outputs, model.observation).log_prob_seen(batch.x, batch.seen)
            total = total + mass_a * mass_b * float(log_prob.sum())
    return total


def test_local_noise_of_the_head_has_the_expectation_of_draws_and_less_variance():
    batch = series(n=2, t=12)
    model, local = head_only(True)
    _, whole = head_only(False)
    expected = exact_expectation(model, whole, batch)
    values = {}
    for name, law in (("local", local), ("whole", whole)):
        noise, found = seeded(1), []
        for _ in range(800):
            (vector,) = law.draw(noise)
            params = law.params(model.parameters(), vector)
            with torch.no_grad():
                found.append(float(model._training_log_prob(params, batch, batch.seen, None, noise)[0].sum()))
        values[name] = np.asarray(found)
        assert values[name].mean() == pytest.approx(expected, abs=4.5 * values[name].std() / math.sqrt(800))
    assert values["local"].var() < 0.5 * values["whole"].var()


def test_local_noise_is_of_training_only():
    model, law = head_only(True)
    (vector,) = law.draw(seeded())
    torch.testing.assert_close(vector, law.mean.detach(), atol=1e-12, rtol=0)
    sampled = law.sample(4, seeded())
    assert float((sampled - law.mean).abs().detach().max()) > 0.1
    params = {"weights": law.mean.detach()}
    again = law.params(model.parameters(), law.mean.detach())
    assert set(again) == {"weights", "local_scale"}
    torch.testing.assert_close(model.log_prob(again, series()), model.log_prob(params, series()))


class CountingNet(RecurrentModel):
    """Keeps the weights and sequences of every pass in training."""

    def _training_log_prob(self, params, batch, scored, state, generator, done=1.0):
        self.used.append((params["weights"].detach().clone(), batch.x[:, 1, 0].tolist()))
        return super()._training_log_prob(params, batch, scored, state, generator)


def test_a_mini_batch_is_shared_out_among_the_draws():
    emission = Normal()
    model = CountingNet(emission, emission.observation(1), "gru", 3)
    model.used = []
    batch = series(n=8, t=12, dtype=torch.float32)
    options = TrainingOptions(max_epochs=1, batch_size=8, learning_rate=1e-12)
    law = MeanField(1, draws_per_batch=4).law(model, batch, seeded())
    train(model, law, Windows(batch, batch.seen), seeded(), options)
    assert len(model.used) == 4
    assert sorted(sum((names for _, names in model.used), [])) == sorted(batch.x[:, 1, 0].tolist())
    assert {len(names) for _, names in model.used} == {2}
    vectors = [vector - law.mean.detach() for vector, _ in model.used]
    torch.testing.assert_close(vectors[0], -vectors[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors[2], -vectors[3], atol=1e-5, rtol=0)
    assert not torch.allclose(vectors[0].abs(), vectors[2].abs())


def test_the_mirror_that_comes_next_can_be_kept():
    law, _ = normal_law()
    first = law.draw(seeded(1))[0]
    kept = law.noise_state()
    expected = law.draw(seeded(2))[0]
    other, _ = normal_law()
    other.restore_noise(kept)
    torch.testing.assert_close(other.draw(seeded(5))[0], expected)
    torch.testing.assert_close(first + expected, 2 * law.mean)


PRIORS = {
    "own": None,
    "L2": {"weights": torch.distributions.Normal(0.0, 0.3)},
    "L1": {"weights": torch.distributions.Laplace(0.0, 0.2)},
}


def log_posterior(model, batch, priors):
    prior = model.parameters()["weights"].prior if priors is None else priors["weights"]

    def value(flat):
        return model.log_prob({"weights": flat}, batch).sum() + prior.log_prob(flat).sum()

    return value


@pytest.mark.parametrize("name", PRIORS)
def test_map_of_a_network_finds_the_maximum(name):
    model, batch = tiny_net(), series(t=60)
    options = TrainingOptions(max_epochs=600, learning_rate=3e-2, validation_fraction=0.0)
    draws = MAP(PRIORS[name], training=options).fit(model, batch, seeded())
    value = log_posterior(model, batch, PRIORS[name])
    assert draws.objective == pytest.approx(float(value(draws.params["weights"][0])), abs=1e-4)
    assert draws.log_prob == pytest.approx(float(model.log_prob(draws.params, batch)), abs=1e-6)

    def climbed(z):
        flat = torch.from_numpy(z).requires_grad_()
        loss = -value(flat)
        loss.backward()
        return float(loss.detach()), flat.grad.numpy()

    best = minimize(climbed, draws.params["weights"][0].numpy(), jac=True, method="L-BFGS-B")
    assert draws.objective > -best.fun - 0.01
    start = model._initial_guess(batch, seeded())["weights"]
    assert draws.objective > float(value(start)) + 5


def test_the_penalty_is_counted_once_a_pass():
    model, batch = tiny_net(), series(n=6, t=10)
    start = 0.1 * torch.randn(model.n_parameters, generator=seeded(), **DOUBLE)
    law = PenalizedWeights(start, model.parameters(), PRIORS["L1"])
    options = TrainingOptions(max_epochs=25, batch_size=2, learning_rate=1e-12)
    trace = train(model, law, Windows(batch, batch.seen), seeded(), options).trace
    expected = float(log_posterior(model, batch, PRIORS["L1"])(start)) / 60
    assert trace[0] == pytest.approx(expected, abs=1e-6)


def test_map_of_a_network_returns_to_the_best_validation_score():
    model, batch, held = tiny_net("gru", 16), series(t=20), series(t=60, seed=9)
    wide = {"weights": torch.distributions.Normal(0.0, 100.0)}
    options = TrainingOptions(max_epochs=1500, learning_rate=3e-2, patience=0.05)
    draws = MAP(wide, training=options).fit(model, batch, seeded(), validation=held)
    assert draws.status == "converged"
    assert draws.n_iter < 1500
    law = PenalizedWeights(model._initial_guess(batch, seeded())["weights"], model.parameters(), wide)
    longer = TrainingOptions(max_epochs=draws.n_iter, learning_rate=3e-2)
    train(model, law, Windows(batch, batch.seen), seeded(), longer)
    final = unflatten(model.parameters(), law.centre().detach())
    assert float(model.log_prob(draws.params, held)) > float(model.log_prob(final, held))


def test_a_prior_of_a_network_is_checked():
    with pytest.raises(ParameterError, match="weights"):
        MAP({"weight": torch.distributions.Laplace(0.0, 1.0)}).fit(tiny_net(), series(), seeded())
