"""Recurrent models: whole sequences against single steps, missing inputs, the law they sample from."""

import itertools

import pytest
import torch

from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, StudentT
from probseq.distributions.params import read_outputs
from probseq.errors import CovariateError, ParameterError
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

VECTORS = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.1, 0.2], [-1.0, 0.3, 2.0], [0.0, 1.0, -2.0]])
SOME_VECTORS = torch.where(torch.tensor([[True], [False], [True], [True]]), VECTORS, torch.nan)
HEADS = {
    "normal": (Normal(), 2, None),
    "full": (Normal("full"), 2, None),
    "t": (StudentT(), 1, None),
    "poisson": (Poisson(), 1, None),
    "bernoulli": (Bernoulli(), 3, None),
    "categorical": (Categorical(), 2, 4),
    "one": (Categorical(), 1, 4),
}

NETWORKS = {
    "layers": ("normal", {"n_layers": 2, "residual": True, "layer_norm": True, "lags": (1, 3)}),
    "attention": ("normal", {"cell": "gru", "hidden_size": 6, "attention": 3, "attention_heads": 2}),
    "wide attention": ("poisson", {"cell": "lstm", "attention": 9, "n_layers": 2}),
    "relu": ("normal", {"cell": "relu", "layer_norm": True}),
    "tied": ("categorical", {"tie_embeddings": True, "embedding_size": 3}),
    "tied, one variable": ("one", {"cell": "gru", "tie_embeddings": True, "embedding_size": 5}),
    "tied to attention": ("one", {"tie_embeddings": True, "embedding_size": 5, "attention": 2}),
    "known": ("categorical", {"embedding": VECTORS}),
    "frozen": ("categorical", {"embedding": VECTORS, "freeze_embedding": True}),
    "frozen in part": ("categorical", {"embedding": SOME_VECTORS, "freeze_embedding": True, "tie_embeddings": True}),
}


def model_of(head, cell="lstm", dtype=torch.float64, hidden_size=5, **options):
    emission, k, n_categories = HEADS[head]
    return RecurrentModel(emission, emission.observation(k, n_categories), cell, hidden_size, dtype=dtype, **options)


def params_of(model, *draw, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"weights": 0.3 * torch.randn(*draw, model.n_parameters, generator=generator, dtype=model.dtype)}


def batch_of(model, lengths=(7, 3, 0, 5), missing=0.2, seed=3):
    generator = torch.Generator().manual_seed(seed)
    n, t, k = len(lengths), max(lengths), model.observation.n_variables
    shape = (n, t, k)
    if model.observation.discrete:
        x = torch.randint(0, 2, shape, generator=generator).to(model.dtype)
    else:
        x = torch.randn(shape, generator=generator, dtype=model.dtype)
    lengths = torch.tensor(lengths)
    seen = torch.rand(shape, generator=generator) >= missing
    seen &= (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1)
    m = model.n_covariates
    u = torch.randn(n, t, m, generator=generator, dtype=model.dtype) if m else None
    return Batch(torch.where(seen, x, model.observation.fill), seen, lengths, u)


def assert_states_equal(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize(("cell", "n_layers", "lags"), [("lstm", 2, (1,)), ("gru", 1, (1, 3)), ("rnn", 1, (2, 9))])
@pytest.mark.parametrize("draw", [(), (3,)])
def test_fast_forms_equal_the_step_loop(head, cell, n_layers, lags, draw):
    check_fast_forms(model_of(head, cell, n_layers=n_layers, lags=lags, n_covariates=2), draw)


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("draw", [(), (3,)])
def test_fast_forms_of_every_network_equal_the_step_loop(name, draw):
    head, options = NETWORKS[name]
    check_fast_forms(model_of(head, **{"n_covariates": 1, **options}), draw)


def check_fast_forms(model, draw):
    params, batch = params_of(model, *draw), batch_of(model)
    start = model.initial_state(params, batch.n)
    for t in range(2):
        start = model.update(params, start, batch.x[:, t], batch.seen[:, t], batch.u[:, t])
    slow, fast = SequenceModel._scan(model, params, batch, start), model._scan(params, batch, start)
    assert_states_equal(fast.final, slow.final)
    assert_states_equal(fast.states, slow.states)
    steps = model.log_prob_steps(params, batch, start)
    reference = SequenceModel._log_prob_steps(model, params, batch, start)
    torch.testing.assert_close(steps.values, reference.values, rtol=1e-9, atol=1e-10)
    assert torch.equal(steps.scored, batch.seen)
    assert_states_equal(steps.final, slow.final)
    law, _ = model.predictive(params, batch, start)
    slow_law, _ = SequenceModel._predictive(model, params, batch, start)
    other = law.log_prob_seen(batch.x, batch.seen)
    torch.testing.assert_close(other, slow_law.log_prob_seen(batch.x, batch.seen), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm"},
        {"cell": "gru"},
        {"cell": "rnn"},
        {"cell": "gru", "attention": 5, "attention_heads": 4},
        {"n_layers": 3, "residual": True, "layer_norm": True},
    ],
)
def test_streaming_equals_the_batch_in_single_precision(options):
    model = model_of("normal", dtype=torch.float32, hidden_size=16, **options)
    params, batch = params_of(model), batch_of(model, (40, 40), missing=0.1)
    whole = model.log_prob_steps(params, batch)
    state = model.initial_state(params, 2)
    for t in range(40):
        value = model.predict_next(params, state).log_prob_seen(batch.x[:, t], batch.seen[:, t])
        torch.testing.assert_close(value, whole.values[:, t], rtol=1e-5, atol=1e-5)
        state = model.update(params, state, batch.x[:, t], batch.seen[:, t])
    torch.testing.assert_close(state.hidden, whole.final.hidden, rtol=1e-5, atol=1e-5)


def test_every_step_from_the_first_is_scored():
    model = model_of("normal")
    steps = model.log_prob_steps(params_of(model), batch_of(model, (5, 4), missing=0.0))
    assert steps.scored[:, 0].all()
    assert bool((steps.values[:, 0] != 0).all())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_padding_is_never_read_by_any_network(name):
    head, options = NETWORKS[name]
    model = model_of(head, **options)
    batch, params = batch_of(model), params_of(model)
    longer = [torch.nn.functional.pad(leaf, (0, 0, 0, 2), value=1) for leaf in (batch.x, batch.seen.float())]
    seen = (longer[1] > 0) & (torch.arange(longer[0].shape[1]) < batch.lengths.unsqueeze(-1)).unsqueeze(-1)
    padded = batch._replace(x=longer[0], seen=seen)
    torch.testing.assert_close(model.log_prob(params, padded), model.log_prob(params, batch))
    assert_states_equal(model.filter(params, padded), model.filter(params, batch))


@pytest.mark.parametrize("head", list(HEADS))
def test_padding_and_unseen_values_are_never_read(head):
    model = model_of(head, lags=(1, 2))
    batch = batch_of(model)
    results = []
    for poison in (model.observation.fill, 1.0, 3.0):
        params = params_of(model)
        params["weights"].requires_grad_()
        steps = model.log_prob_steps(params, batch._replace(x=torch.where(batch.seen, batch.x, poison)))
        steps.values.sum().backward()
        assert bool(torch.isfinite(params["weights"].grad).all())
        results.append((steps.values.detach(), params["weights"].grad, steps.final))
    for values, gradient, final in results[1:]:
        assert torch.equal(values, results[0][0])
        assert torch.equal(gradient, results[0][1])
        assert_states_equal(final, results[0][2])


def test_splitting_in_time_adds_up():
    model = model_of("normal", lags=(1, 4), n_covariates=1)
    params, batch = params_of(model, 2), batch_of(model, (9, 5, 2))
    first = model.log_prob_steps(params, batch.slice_time(0, 4))
    second = model.log_prob_steps(params, batch.slice_time(4, 9), first.final)
    both = torch.cat([first.values, second.values], -1)
    torch.testing.assert_close(both, model.log_prob_steps(params, batch).values)


def test_draws_equal_each_draw_alone():
    model = model_of("categorical", lags=(1, 2))
    params, batch = params_of(model, 4), batch_of(model)
    together = model.log_prob(params, batch)
    for d in range(4):
        torch.testing.assert_close(together[d], model.log_prob({"weights": params["weights"][d]}, batch))


@pytest.mark.parametrize("head", list(HEADS))
def test_a_missing_input_is_not_its_placeholder(head):
    model = model_of(head)
    params = params_of(model)
    fill = torch.full((1, model.observation.n_variables), model.observation.fill, dtype=model.dtype)
    start, seen = model.initial_state(params, 1), torch.ones_like(fill, dtype=torch.bool)
    laws = [model.predict_next(params, model.update(params, start, fill, mask)) for mask in (seen, ~seen)]
    value = fill + 1
    assert abs(float(laws[0].log_prob(value) - laws[1].log_prob(value))) > 1e-4


def test_the_covariate_of_a_step_drives_its_own_law():
    model = model_of("normal", n_covariates=1)
    params, state = params_of(model), model.initial_state(params_of(model), 1)
    low, high = (model.predict_next(params, state, torch.tensor([[u]])).mean for u in (0.0, 1.0))
    assert bool((low != high).all())
    with pytest.raises(CovariateError, match="1 covariates"):
        model.predict_next(params, state)


def test_gradient_equals_finite_differences():
    model = model_of("normal", hidden_size=2)
    batch = batch_of(model, (4, 2))
    weights = params_of(model)["weights"].requires_grad_()
    assert torch.autograd.gradcheck(lambda w: model.log_prob({"weights": w}, batch), weights)


def test_probabilities_of_all_sequences_sum_to_one_and_samples_follow_them():
    emission = Bernoulli()
    model = RecurrentModel(emission, emission.observation(1), "gru", 4, dtype=torch.float64)
    params = {"weights": 2.0 * params_of(model)["weights"]}
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).unsqueeze(-1)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((16,), 4))
    probability = model.log_prob(params, batch).exp()
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-12)
    n = 20_000
    drawn, _ = model.sample(params, model.initial_state(params, n), 4, torch.Generator().manual_seed(0))
    code = (drawn.squeeze(-1) @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    counts = torch.bincount(code, minlength=16)
    deviation = (counts - n * probability) / (n * probability * (1 - probability)).sqrt()
    assert float(deviation.abs().max()) < 4.0


@pytest.mark.parametrize("head", ["normal", "full", "poisson", "bernoulli", "categorical", "one"])
@pytest.mark.parametrize("initialization", ["uniform", "xavier", "he", "orthogonal"])
def test_training_starts_at_the_marginal_law(head, initialization):
    tied = head == "one"
    model = model_of(head, tie_embeddings=tied, attention=4 if tied else None, initialization=initialization)
    batch = batch_of(model, (400,), missing=0.1)
    guess = model._initial_guess(batch, torch.Generator().manual_seed(0))
    law, scored = model.predictive(guess, batch)
    if head in ("normal", "full"):
        x = batch.x[0][batch.seen[0].all(-1)]
        torch.testing.assert_close(law.mean[0].mean(0), x.mean(0), atol=0.1, rtol=0)
        torch.testing.assert_close(law.stddev[0].mean(0), x.std(0), atol=0.1, rtol=0)
    else:
        expected = torch.stack([batch.x[0, :, i][batch.seen[0, :, i]].mean() for i in range(batch.x.shape[-1])])
        torch.testing.assert_close(law.mean[0].mean(0), expected, atol=0.05, rtol=0)


def test_a_full_covariance_survives_single_precision():
    emission = Normal("full")
    observation = emission.observation(3)
    outputs = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    double = emission.distribution(read_outputs(emission.parameters(observation), outputs.double()))
    torch.testing.assert_close(emission.from_outputs(outputs.double(), observation).scale_tril, double.scale_tril)
    outputs[:, 3:] *= 30.0
    law = emission.from_outputs(outputs, observation)
    assert bool(torch.isfinite(law.log_prob(law.mean)).all())


def test_an_empty_batch_keeps_the_state():
    model = model_of("normal")
    params = params_of(model, 2)
    batch = Batch(torch.zeros(3, 0, 2), torch.zeros(3, 0, 2, dtype=torch.bool), torch.zeros(3, dtype=torch.long))
    steps = model.log_prob_steps(params, batch)
    assert steps.values.shape == (2, 3, 0)
    assert_states_equal(steps.final, model.initial_state(params, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "elman"}, "'elman'"),
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"n_layers": 1.5}, "n_layers=1.5"),
        ({"lags": ()}, "lags="),
        ({"lags": (1, 1)}, "lags="),
        ({"initialization": "lucky"}, "'lucky'"),
        ({"attention": 1}, "attention=1"),
        ({"attention": 3.0}, "attention=3.0"),
        ({"attention": 3, "attention_heads": 5}, "attention_heads=5 with hidden_size=32"),
        ({"freeze_embedding": True}, "without an embedding"),
    ],
)
def test_bad_arguments_are_named(options, message):
    emission = Normal()
    with pytest.raises(ParameterError, match=message):
        RecurrentModel(emission, emission.observation(1), **options)


def test_pieces_tile_the_weights_and_are_views_of_them():
    model = model_of("one", n_layers=2, layer_norm=True, attention=3, n_covariates=1)
    places = [(piece.start, piece.stop) for piece in model.pieces.values()]
    assert [start for start, _ in places] == [0] + [stop for _, stop in places[:-1]]
    assert places[-1][1] == model.n_parameters
    params = params_of(model, 2)
    together = [model.piece(params, name).flatten(1) for name in model.pieces]
    assert torch.equal(torch.cat(together, -1), params["weights"])
    params["weights"].zero_()
    model.piece(params, "layers.1.recurrent").fill_(1.0)
    own = model.pieces["layers.1.recurrent"]
    assert own.kind == "recurrent"
    assert own.shape == (20, 5)
    assert float(params["weights"].sum()) == 2 * 100
    assert bool((params["weights"][:, own.start : own.stop] == 1).all())
    kinds = {name: piece.kind for name, piece in model.pieces.items()}
    assert kinds["embedding"] == "embedding"
    assert kinds["layers.0.input"] == "input"
    assert kinds["layers.0.bias_recurrent"] == kinds["layers.1.bias_input"] == "bias"
    assert kinds["layers.0.norm_gain"] == "norm"
    assert kinds["attention.lag"] == "attention"
    assert kinds["head.hidden"] == kinds["head.direct"] == "head"
    assert kinds["head.bias"] == "head_bias"


def test_the_law_is_the_equation_of_its_pieces():
    model = model_of("normal", "rnn", hidden_size=3)
    params = params_of(model)
    w = {name: model.piece(params, name) for name in model.pieces}
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    seen = torch.tensor([[True, False]])
    state = model.update(params, model.initial_state(params, 1), x, seen)
    bias = w["layers.0.bias_input"] + w["layers.0.bias_recurrent"]
    first = torch.tanh(w["layers.0.input"] @ torch.zeros(4, dtype=torch.float64) + bias)
    z = torch.tensor([0.3, 0.0, 1.0, 0.0], dtype=torch.float64)
    second = torch.tanh(w["layers.0.input"] @ z + w["layers.0.recurrent"] @ first + bias)
    outputs = w["head.hidden"] @ second + w["head.direct"] @ z + w["head.bias"]
    expected = read_outputs(model.head.parameters(model.observation), outputs)
    torch.testing.assert_close(model.predict_next(params, state).mean[0], expected["mean"])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "relu"])
@pytest.mark.parametrize("draw", [(), (2,), (2, 3)])
def test_steps_without_gradients_equal_those_with(cell, draw):
    model = model_of("normal", cell, n_layers=2)
    params, batch = params_of(model, *draw), batch_of(model, (4, 4), 0.0)
    state = model.initial_state(params, 2)
    with torch.no_grad():
        after = state
        for t in range(4):
            after = model.update(params, after, batch.x[:, t], batch.seen[:, t])
    for t in range(4):
        state = model.update(params, state, batch.x[:, t], batch.seen[:, t])
    for quick, slow in zip(after, state, strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"attention": 3}, {"lags": (1, 3)}])
def test_simulation_is_the_loop_of_predict_and_update(options):
    """The same noise through ``predict_next`` and ``update``, one after the other."""
    model = model_of("normal", **options)
    params = params_of(model, 3)
    start = model.initial_state(params, 2)
    x, final = model.sample(params, start, 5, torch.Generator().manual_seed(7))
    slow, end = SequenceModel._sample(model, params, start, 5, torch.Generator().manual_seed(7), None, None)
    torch.testing.assert_close(x, slow, rtol=1e-12, atol=1e-12)
    for one, other in zip(final, end, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
