"""What users see of gradients through time and of the spectra of recurrent matrices."""

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.errors import NotFittedError, ParameterError, ShapeError
from probseq.models.recurrent_matrices import eigenvalues

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

SERIES = np.cumsum(np.random.default_rng(0).normal(size=30)) / 3
SIZE = 4


@pytest.fixture(scope="module")
def bayes():
    quick = ps.MeanField(n_draws=3, training=ps.TrainingOptions(max_epochs=2))
    return ps.LSTM(SIZE, 2, transform=ps.Difference(), inference=quick, random_state=0).fit(SERIES)


def rotating(rate):
    """A network of rectified units that are always positive, whose matrix turns the units and multiplies by a rate."""
    model = ps.RNN(SIZE, nonlinearity="relu", standardize=False)
    empty = np.zeros(SIZE * 2 + SIZE**2 + 2 * SIZE + 2 * (SIZE + 2 + 1))
    network = model.with_parameters(weights=empty).model_.model
    weights = {"weights": torch.as_tensor(empty)}
    network.piece(weights, "layers.0.bias_input")[:] = 1.0
    network.piece(weights, "layers.0.recurrent")[:] = rate * torch.eye(SIZE).roll(1, 0)
    network.piece(weights, "head.hidden")[:] = torch.arange(2 * SIZE).view(2, SIZE) / 1000
    return model.with_parameters(weights=empty)


@pytest.mark.parametrize(
    ("rate", "word", "half_life"), [(0.5, "vanishing", 1.0), (0.97, "healthy", 22.7566), (1.1, "exploding", np.inf)]
)
def test_the_diagnosis_is_that_of_the_rate(rate, word, half_life):
    found = rotating(rate).gradient_norms(SERIES, 8)
    assert found["norm"].dims == ("lag",)
    assert found["norm_quantile"].dims == ("lag", "quantile")
    np.testing.assert_allclose(found["norm"] / found["norm"][0], rate ** np.arange(9), rtol=1e-6)
    assert float(found["growth_rate"]) == pytest.approx(rate, rel=1e-6)
    assert float(found["half_life"]) == pytest.approx(half_life, rel=1e-4)
    assert found["diagnosis"].item() == word
    assert rotating(rate).gradient_norms(SERIES, 8, bounds=(0.4, 1.2))["diagnosis"].item() == "healthy"


def test_a_network_that_forgets_at_once_passes_nothing():
    found = rotating(0.0).gradient_norms(SERIES, 4)
    assert float(found["norm"][0]) > 0
    assert bool((found["norm"][1:] == 0).all())
    assert (float(found["growth_rate"]), float(found["half_life"])) == (0.0, 0.0)
    assert found["diagnosis"].item() == "vanishing"
    assert "nothing passes" in rotating(0.0).plot_gradient_norms(SERIES, 4).get_legend().get_texts()[0].get_text()


def test_norms_have_labels_and_average_over_steps(bayes):
    found = bayes.gradient_norms([SERIES, SERIES[:9]], 5, n_steps=100)
    assert found["norm"].dims == ("draw", "layer", "lag")
    assert found["norm_quantile"].dims == ("draw", "layer", "lag", "quantile")
    assert found["growth_rate"].dims == found["half_life"].dims == ("draw", "layer")
    assert found["diagnosis"].dims == ("layer",)
    # A difference takes one step: 29 - 5 and 8 - 5 steps have five behind them.
    assert found.attrs == {"of": "memory", "vanishing_below": 0.9, "exploding_above": 1.05, "n_steps": 24 + 3}
    alone = [bayes.gradient_norms(one, 5)["norm"] for one in (SERIES, SERIES[:9])]
    np.testing.assert_allclose(found["norm"], (24 * alone[0] + 3 * alone[1]) / 27, rtol=1e-6)
    after = bayes.gradient_norms(SERIES[12:], 5, history=SERIES[:12])
    assert after.attrs["n_steps"] == 18 - 5
    of_h = bayes.gradient_norms(SERIES, 5, of="hidden")["norm"]
    np.testing.assert_allclose(of_h[..., 0], alone[0][..., 0], rtol=1e-6)
    assert bool((of_h[..., 1:] < alone[0][..., 1:]).all())
    assert bayes.gradient_norms(SERIES, n_steps=7).attrs["n_steps"] == 7
    assert bayes.gradient_norms(SERIES).sizes["lag"] == 29 // 2 + 1


def test_gradients_that_cannot_be_asked_for(bayes):
    with pytest.raises(ShapeError, match="at most 29 steps behind the transforms, with max_lag=29"):
        bayes.gradient_norms(SERIES, 29)
    with pytest.raises(ShapeError, match=r"or max_lag=5\."):
        bayes.gradient_norms(SERIES[:7], 6)
    with pytest.raises(ShapeError, match="values behind the first 2 steps"):
        bayes.gradient_norms(SERIES[:2])
    wrong = [{"max_lag": 1}, {"max_lag": True}, {"n_steps": 0}, {"of": "cell"}, {"bounds": (1.1, 1.2)}, {"bounds": 0.9}]
    for options in wrong:
        with pytest.raises(ParameterError, match=next(iter(options))):
            bayes.gradient_norms(SERIES, **options)
    with pytest.raises(NotFittedError):
        ps.LSTM().gradient_norms(SERIES)


def test_the_picture_of_gradients_shows_their_mean(bayes):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert bayes.plot_gradient_norms(SERIES, 6, ax=ax) is ax
    expected = bayes.gradient_norms(SERIES, 6)["norm"].mean("draw")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected[0])
    np.testing.assert_allclose(ax.lines[2].get_ydata(), expected[1])
    assert ax.get_yscale() == "log"
    assert ax.get_legend().get_texts()[1].get_text().startswith("layer 1: ")
    plt.close("all")


def test_spectra_are_those_of_the_matrices_of_each_gate(bayes):
    found = bayes.recurrent_spectrum(layer=-1)
    assert found["singular_value"].dims == found["eigenvalue"].dims == ("draw", "gate", "rank")
    assert found["gate"].values.tolist() == ["input", "forget", "new", "output"]
    assert found.attrs == {"layer": 1}
    network = bayes.model_.model.inner.inner
    matrices = network.piece(bayes.model_.params, "layers.1.recurrent").numpy().astype(float).reshape(3, 4, SIZE, SIZE)
    np.testing.assert_allclose(found["singular_value"], np.linalg.svd(matrices, compute_uv=False), atol=1e-12)
    for d in range(3):
        for g in range(4):
            own = found["eigenvalue"][d, g].values
            expected = np.linalg.eigvals(matrices[d, g])
            np.testing.assert_allclose(np.sort_complex(own), np.sort_complex(expected), atol=1e-10)
            assert (np.diff(np.abs(own)) <= 1e-10).all()
    np.testing.assert_array_equal(found["spectral_norm"], found["singular_value"][..., 0])
    np.testing.assert_array_equal(found["spectral_radius"], abs(found["eigenvalue"][..., 0]))
    one = bayes.recurrent_spectrum(1, "forget")
    assert one["eigenvalue"].dims == ("draw", "rank")
    np.testing.assert_array_equal(one["eigenvalue"], found["eigenvalue"].sel(gate="forget"))


def test_the_spectrum_of_a_rotation():
    found = rotating(0.5).recurrent_spectrum()
    assert found["eigenvalue"].dims == ("rank",)
    assert found["spectral_radius"].dims == ()
    np.testing.assert_allclose(found["singular_value"], 0.5, atol=1e-7)
    # Equal moduli: by angle, of a pair the one above the real axis first.
    np.testing.assert_allclose(found["eigenvalue"], [0.5, 0.5j, -0.5j, -0.5], atol=1e-7)


def test_members_of_a_pair_stay_beside_each_other():
    matrix = torch.diag(torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    matrix[1:3, 1:3] = torch.tensor([[1.0, -2.0], [2.0, 1.0]])
    found = eigenvalues(matrix).numpy()
    np.testing.assert_allclose(found, [3, 1 + 2j, 1 - 2j, 0], atol=1e-12)


def test_layers_and_gates_that_there_are_not(bayes):
    with pytest.raises(ParameterError, match="layer=2"):
        bayes.recurrent_spectrum(2)
    with pytest.raises(ParameterError, match="gate='reset'.*forget"):
        bayes.recurrent_spectrum(0, "reset")
    with pytest.raises(ParameterError, match="gate='forget'.*new"):
        rotating(1.0).recurrent_spectrum(gate="forget")


def test_the_picture_of_a_spectrum(bayes):
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2)
    left, right = bayes.plot_recurrent_spectrum(0, "new", ax=axes)
    assert (left, right) == tuple(axes)
    found = bayes.recurrent_spectrum(0, "new")
    np.testing.assert_array_equal(left.lines[1].get_xdata(), found["eigenvalue"].values.ravel().real)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), found["singular_value"].median("draw"))
    assert left.get_title(loc="left") == "layer 0"
    assert len(bayes.plot_recurrent_spectrum()[1].get_legend().get_texts()) == 4
    with pytest.raises(ParameterError, match="1 axes"):
        bayes.plot_recurrent_spectrum(ax=left)
    plt.close("all")


def test_weights_by_name_make_the_network():
    quick = ps.MLE(training=ps.TrainingOptions(max_epochs=2))
    model = ps.RNN(SIZE, inference=quick, random_state=0).fit(SERIES)
    w, centre, spread = model.named_weights(), SERIES.mean(), SERIES.std()
    memory, read, states, scores = np.zeros(SIZE), np.zeros(2), [], []
    for x in SERIES:
        gates = w["layers.0.input"] @ read + w["layers.0.bias_input"]
        memory = np.tanh(gates + w["layers.0.recurrent"] @ memory + w["layers.0.bias_recurrent"])
        location, raw = w["head.hidden"] @ memory + w["head.direct"] @ read + w["head.bias"]
        scale = np.log1p(np.exp(raw))
        read = np.array([(x - centre) / spread, 1.0])
        states.append(memory)
        scores.append(-0.5 * ((read[0] - location) / scale) ** 2 - np.log(spread * scale * np.sqrt(2 * np.pi)))
    np.testing.assert_allclose(model.encode(SERIES), states, atol=1e-6)
    np.testing.assert_allclose(model.log_prob_steps(SERIES), scores, atol=1e-5)
    w["head.bias"][:] = np.nan
    assert np.isfinite(model.named_weights()["head.bias"]).all()


def test_weights_by_name_have_their_draws(bayes):
    found = bayes.named_weights()
    assert found["layers.1.recurrent"].shape == (3, 4 * SIZE, SIZE)
    flat = np.concatenate([piece.reshape(3, -1) for piece in found.values()], -1)
    np.testing.assert_array_equal(flat, bayes.params_["weights"])
