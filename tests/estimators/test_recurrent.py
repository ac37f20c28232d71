"""Recurrent networks for users: their options, what is shown of their inside, files."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError, ShapeError, UnsupportedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

RNG = np.random.default_rng(0)
SERIES = np.cumsum(RNG.normal(size=40)) + 5.0
TEXT = ["abca", "bcaab", "ccab", "abcabc"]
VECTORS = {"a": np.array([1.0, 0.0, 0.5]), "b": np.array([0.0, 1.0, -0.5]), "zz": np.zeros(3)}


def quick(max_epochs=2):
    return ps.MLE(training=ps.TrainingOptions(max_epochs=max_epochs))


def bayes(n_draws=3):
    return ps.MeanField(n_draws=n_draws, training=ps.TrainingOptions(max_epochs=2))


@pytest.fixture(scope="module")
def net():
    model = ps.LSTM(4, 2, residual=True, layer_norm=True, attention=4, attention_heads=2, inference=bayes())
    return model.set_params(random_state=0).fit(SERIES)


def test_hidden_states_have_labels_and_read_the_past_only(net):
    stamps = pd.date_range("2020-01-01", periods=12, freq="D")
    series = pd.Series(SERIES[:12], index=stamps)
    found = net.encode(series)
    assert found.dims == ("draw", "time", "unit")
    assert found.shape == (3, 12, 4)
    assert (found["time"].to_index() == stamps).all()
    changed = series.copy()
    changed.iloc[6] += 3.0
    other = net.encode(changed)
    np.testing.assert_array_equal(other[:, :7], found[:, :7])
    assert bool((other[:, 7:] != found[:, 7:]).any("unit").all())
    first = net.encode(series, layer=0)
    np.testing.assert_array_equal(first, net.encode(series, layer=-2))
    assert bool((first != found).all())


def test_hidden_states_are_those_that_streaming_carries(net):
    state = net.initial_state()
    found = net.encode(SERIES[:6])
    for t in range(6):
        state = net.update(state, SERIES[t])
        hidden = state.tree.inner.hidden[0, :, -1]
        np.testing.assert_allclose(found.isel(time=t), hidden, rtol=1e-5, atol=1e-6)
    after = net.encode(SERIES[6:9], history=SERIES[:6])
    np.testing.assert_allclose(after, net.encode(SERIES[:9])[:, 6:], rtol=1e-5, atol=1e-6)


def test_many_sequences_and_what_a_difference_leaves_out():
    model = ps.GRU(3, transform=ps.Difference(), inference=quick(), random_state=0)
    model.fit([SERIES[:20], SERIES[20:32]])
    found = model.encode([SERIES[:9], SERIES[9:14]])
    assert found.dims == ("sequence", "time", "unit")
    assert bool(found[:, 0].isnull().all())
    assert bool(found[0, 1:].notnull().all())
    assert bool(found[1, 1:5].notnull().all() and found[1, 5:].isnull().all())
    np.testing.assert_allclose(found[1, :5], model.encode(SERIES[9:14]), rtol=1e-5, atol=1e-6)


def test_attention_weights_are_shares_of_the_past(net):
    found = net.attention_weights(SERIES[:10])
    assert found.dims == ("draw", "time", "head", "lag")
    np.testing.assert_allclose(found.sum("lag"), 1.0, rtol=1e-6)
    for t in range(4):
        assert bool((found.isel(time=t, lag=slice(t + 1, None)) == 0).all())
    one = ps.GRU(4, attention=3, inference=quick(), random_state=0).fit([SERIES[:20], SERIES[20:30]])
    assert one.attention_weights([SERIES[:5], SERIES[:3]]).dims == ("sequence", "time", "lag")
    ax = one.plot_attention([SERIES[:5], SERIES[:3]], sequence=1)
    shown = ax.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(shown.T, one.attention_weights(SERIES[:3]), rtol=1e-5)
    assert ax.get_ylabel() == "lag"
    with pytest.raises(ParameterError, match="sequence=2"):
        one.plot_attention([SERIES[:5], SERIES[:3]], sequence=2)
    with pytest.raises(ParameterError, match="head=1"):
        one.plot_attention(SERIES[:5], head=1)
    matplotlib.pyplot.close("all")


def test_what_a_network_does_not_have_is_said(net):
    plain = ps.RNN(3, inference=quick(), random_state=0).fit(SERIES)
    for ask in (plain.attention_weights, plain.plot_attention):
        with pytest.raises(UnsupportedError, match="attention="):
            ask(SERIES[:5])
    for layer in (2, -3, 0.5, True):
        with pytest.raises(ParameterError, match="layer="):
            net.encode(SERIES[:5], layer=layer)


def test_streaming_equals_scoring(net):
    steps = net.log_prob_steps(SERIES[:15])
    state = net.initial_state()
    for t in range(15):
        value = net.predictive_at(state).log_prob(SERIES[t]).item()
        assert value == pytest.approx(float(steps[t]), rel=1e-4, abs=1e-5)
        state = net.update(state, SERIES[t])


@pytest.mark.parametrize(
    "options",
    [
        {"attention": 3, "layer_norm": True},
        {"head": ps.Categorical(), "embedding": VECTORS, "freeze_embedding": True, "tie_embeddings": True},
        {"head": ps.Categorical(), "embedding": VECTORS},
        {"head": ps.Categorical(), "embedding": RNG.normal(size=(4, 2)), "freeze_embedding": True},
    ],
)
def test_files_bring_everything_back(tmp_path, options):
    data = TEXT if "head" in options else [SERIES[:20], SERIES[20:]]
    model = ps.LSTM(3, inference=bayes(2), random_state=0, **options).fit(data)
    model.save(tmp_path / "net")
    again = ps.load(tmp_path / "net")
    np.testing.assert_array_equal(again.log_prob(data), model.log_prob(data))
    np.testing.assert_array_equal(again.encode(data), model.encode(data))
    assert again.n_parameters_ == model.n_parameters_
    given = again.get_params()["embedding"]
    if isinstance(given, dict):
        assert list(given) == list(VECTORS)
        assert all(np.array_equal(given[token], VECTORS[token]) for token in VECTORS)
    refitted = clone(again).fit(data)
    np.testing.assert_array_equal(refitted.log_prob(data), model.log_prob(data))


def test_many_vectors_are_one_array_in_a_file(tmp_path):
    from safetensors import safe_open

    many = {f"word{i}": RNG.normal(size=3) for i in range(500)} | VECTORS
    model = ps.GRU(3, head=ps.Categorical(), embedding=many, inference=quick(), random_state=0).fit(TEXT)
    model.save(tmp_path / "net")
    with safe_open(str(tmp_path / "net"), framework="pt") as content:
        assert len(content.keys()) < 20
    assert np.array_equal(ps.load(tmp_path / "net").embedding["word7"], many["word7"])


def test_tokens_find_their_vectors():
    model = ps.RNN(3, head=ps.Categorical(), embedding=VECTORS, freeze_embedding=True, inference=quick(30))
    model.set_params(random_state=0).fit(TEXT)
    tokens = model.vocabulary_.tokens
    frozen = model.model_.model.embedding.frozen
    np.testing.assert_allclose(frozen, [VECTORS[token] for token in tokens if token in VECTORS])
    free = ps.RNN(3, head=ps.Categorical(), embedding_size=3, inference=quick(), random_state=0).fit(TEXT)
    assert free.n_parameters_ - model.n_parameters_ == 2 * 3


def test_tying_saves_weights():
    sizes = {}
    for tied in (False, True):
        model = ps.LSTM(3, head=ps.Categorical(), embedding_size=3, tie_embeddings=tied, inference=quick())
        sizes[tied] = model.set_params(random_state=0).fit(TEXT).n_parameters_
        n_tokens = len(model.vocabulary_.tokens)
    # A (tokens, 3) and B (tokens, 3) against B (3, 3).
    assert sizes[False] - sizes[True] == 6 * n_tokens - 9


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"locked_dropout": 0.3}, {"weight_dropout": 0.3}])
def test_dropout_changes_training_and_nothing_after_it(options):
    before = torch.get_rng_state()
    plain = ps.GRU(4, inference=quick(5), random_state=0).fit(SERIES)
    noisy = ps.GRU(4, inference=quick(5), random_state=0, **options).fit(SERIES)
    again = ps.GRU(4, inference=quick(5), random_state=0, **options).fit(SERIES)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(noisy.log_prob(SERIES)) == float(again.log_prob(SERIES))
    assert float(noisy.log_prob(SERIES)) != float(plain.log_prob(SERIES))


def test_a_rectified_net_has_its_own_cell():
    model = ps.RNN(3, nonlinearity="relu", inference=quick(), random_state=0).fit(SERIES)
    assert model.model_.model.inner.layout.cell == "relu"
    assert float(model.encode(SERIES).min()) >= 0
    assert "nonlinearity" in model.get_params()
    assert clone(model).nonlinearity == "relu"
    assert "nonlinearity" not in ps.LSTM().get_params()
    with pytest.raises(TypeError, match="nonlinearity"):
        ps.LSTM(nonlinearity="relu")


@pytest.mark.parametrize(
    ("options", "data", "error", "message"),
    [
        ({"dropout": 1.0}, SERIES, ParameterError, "dropout=1.0"),
        ({"locked_dropout": "half"}, SERIES, ParameterError, "locked_dropout='half'"),
        ({"residual": "yes"}, SERIES, ParameterError, "residual='yes'"),
        ({"attention": 0}, SERIES, ParameterError, "attention=0"),
        ({"attention": 4, "attention_heads": 3}, SERIES, ParameterError, "attention_heads=3"),
        ({"initialization": "zeros"}, SERIES, ParameterError, "initialization='zeros'"),
        ({"tie_embeddings": True}, SERIES, IncompatibleError, "tie_embeddings=True"),
        ({"embedding": VECTORS}, SERIES, IncompatibleError, "Categorical"),
        ({"freeze_embedding": True}, SERIES, ParameterError, "freeze_embedding=True"),
        ({"head": ps.Categorical(), "embedding": np.zeros((2, 3))}, TEXT, ShapeError, r"shape \(2, 3\)"),
        ({"head": ps.Categorical(), "embedding": {"x": [1.0]}}, TEXT, ParameterError, "none of the"),
        ({"head": ps.Categorical(), "embedding": VECTORS, "embedding_size": 5}, TEXT, ShapeError, "embedding_size=5"),
    ],
)
def test_bad_options_are_named(options, data, error, message):
    with pytest.raises(error, match=message):
        ps.LSTM(4, inference=quick(), **options).fit(data)
    with pytest.raises(ParameterError, match="nonlinearity='sin'"):
        ps.RNN(nonlinearity="sin", inference=quick()).fit(SERIES)


@pytest.mark.parametrize("lags", [1, None, (), "a", (0,)])
def test_lags_that_are_none_are_named(lags):
    with pytest.raises(ParameterError, match="lags="):
        ps.LSTM(3, lags=lags, inference=quick(), random_state=0).fit(SERIES)


def test_a_training_that_loses_its_weights_is_no_fit():
    wild = ps.TrainingOptions(max_epochs=2, learning_rate=1e6)
    series = np.cumsum(np.random.default_rng(0).normal(size=60)) + 50
    with pytest.raises(ParameterError, match="learning_rate"):
        ps.LSTM(4, inference=ps.MLE(training=wild), random_state=0).fit(series)


@pytest.mark.parametrize("name", ["prior_scale", "initial_scale", "kl_weight", "kl_warmup"])
@pytest.mark.parametrize("value", [None, "a", float("inf"), float("nan")])
def test_settings_of_the_mean_field_that_are_no_numbers_are_named(name, value):
    with pytest.raises(ParameterError, match=name):
        ps.LSTM(3, inference=ps.MeanField(**{name: value}), random_state=0).fit(SERIES)
