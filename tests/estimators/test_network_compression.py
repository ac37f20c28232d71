"""Networks whose matrices have a low rank: against numpy's decomposition, and what they cost."""

import numpy as np
import pytest

import probseq as ps
from probseq.errors import HistoryError, ParameterError, UnsupportedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

RNG = np.random.default_rng(0)
SERIES = np.cumsum(RNG.normal(size=40)) / 3
SIZE = 6
ONCE = ps.TrainingOptions(max_epochs=2)
NAMES = ("layers.0.input", "layers.0.recurrent", "layers.1.input", "layers.1.recurrent")


def spread(model):
    """The same model with larger weights, so that its matrices matter."""
    values = RNG.normal(0, 0.4, model.draws_.params["weights"].shape)
    model.draws_.params["weights"].add_(model.draws_.params["weights"].new_tensor(values))
    model._adopt(model._build(model.info_), model.transforms_, model.draws_, model.info_, model._fitted_to)
    return model


@pytest.fixture(scope="module")
def net():
    model = ps.LSTM(SIZE, 2, inference=ps.MeanField(n_draws=3, training=ONCE), random_state=0)
    return spread(model.fit(SERIES[:30]))


@pytest.fixture(scope="module")
def single():
    return spread(ps.GRU(SIZE, inference=ps.MLE(training=ONCE), random_state=0).fit([SERIES[:20], SERIES[20:]]))


def matrices(model, name):
    network = model.model_.model.inner
    return network.piece(model.model_.params, name).numpy().astype(float)


def near(matrix, rank):
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]


def test_matrices_are_the_nearest_of_that_rank(net):
    small = net.compress(3)
    lost = whole = 0.0
    for name in NAMES:
        before, after = matrices(net, name), matrices(small, name)
        np.testing.assert_allclose(after, near(before, 3), atol=1e-6)
        assert (np.linalg.matrix_rank(after, tol=1e-5) == min(3, before.shape[-1])).all()
        lost, whole = lost + ((before - after) ** 2).sum(), whole + (before**2).sum()
    found = small.compression_
    assert found.error == pytest.approx(np.sqrt(lost / whole), rel=1e-5)
    # Three of the matrices are 24 by 6, which is 144 numbers or 3 * 30 = 90; the inputs of the first layer have rank 2.
    size = net.model_.params["weights"].shape[-1]
    assert (found.rank, found.n_numbers_before, found.n_numbers) == (3, size, size - 3 * 54)
    assert small.n_parameters_ == net.n_parameters_ - 3 * (24 - 3) * (6 - 3)
    assert np.isnan([found.score, found.score_before, found.loss]).all()
    others = [name for name in net.model_.model.inner.pieces if name not in NAMES]
    for name in ("layers.0.input", *others):
        np.testing.assert_array_equal(matrices(net, name), matrices(small, name))
    assert not hasattr(net, "compression_")


def test_inputs_may_stay_as_they_are(net):
    small = net.compress(2, inputs=False)
    np.testing.assert_array_equal(matrices(net, "layers.1.input"), matrices(small, "layers.1.input"))
    assert (np.linalg.matrix_rank(matrices(small, "layers.1.recurrent"), tol=1e-5) == 2).all()


def test_the_copy_is_a_fitted_model_of_its_own(net, tmp_path):
    small = net.compress(2, SERIES[30:], history=SERIES[:30])
    found = small.compression_
    assert found.score_before == pytest.approx(net.score(SERIES[30:], history=SERIES[:30]), rel=1e-6)
    assert found.score == pytest.approx(small.score(SERIES[30:], history=SERIES[:30]), rel=1e-6)
    assert found.score == pytest.approx(small.score(SERIES[30:], history=ps.TRAINING), rel=1e-6)
    assert found.loss == found.score_before - found.score != 0
    assert small.log_likelihood_ == pytest.approx(float(small.log_prob(SERIES[:30])), rel=1e-6)
    # The network reads standardised values.
    jacobian = 30 * np.log(np.std(SERIES[:30]))
    assert small.draws_.log_prob == pytest.approx(small.log_likelihood_ + jacobian, rel=1e-5)
    by_hand = small.filter(SERIES[:30]).tree.inner
    np.testing.assert_allclose(small.training_state_.inner.hidden, by_hand.hidden, rtol=1e-5, atol=1e-6)
    assert "kl" not in small.summary()
    small.save(tmp_path / "small")
    again = ps.load(tmp_path / "small")
    assert again.compression_ == found
    assert again.n_parameters_ == small.n_parameters_
    assert float(again.log_prob(SERIES)) == float(small.log_prob(SERIES))
    assert not hasattr(small.fit(SERIES[:30]), "compression_")


def test_a_model_without_its_training_data(single, tmp_path):
    single.save(tmp_path / "whole")
    loaded = ps.load(tmp_path / "whole")
    small, expected = loaded.compress(2, SERIES), single.compress(2, SERIES)
    assert small.compression_.loss == pytest.approx(expected.compression_.loss, rel=1e-4)
    assert np.isnan(small.log_likelihood_)
    with pytest.raises(HistoryError):
        small.forecast(2)
    with pytest.raises(HistoryError):
        loaded.compress(2, [SERIES[:5]] * 2, history=ps.TRAINING)
    after = {"history": SERIES[:30], "n_paths": 10, "random_state": 0}
    np.testing.assert_allclose(small.forecast(2, **after).mean(), expected.forecast(2, **after).mean(), rtol=1e-4)


def test_the_curve_is_what_compress_reports(net):
    table = net.compression_curve(SERIES)
    assert table.index.tolist() == [1, 2, 4, 6]
    assert table.index.name == "rank"
    assert table.attrs["score"] == pytest.approx(net.score(SERIES), rel=1e-6)
    for rank, row in table.iterrows():
        found = net.compress(rank, SERIES).compression_
        assert row["numbers"] == found.n_numbers
        assert row["share"] == found.n_numbers / found.n_numbers_before
        np.testing.assert_allclose(row[["error", "score", "loss"]], [found.error, found.score, found.loss], atol=1e-12)
    assert table.loc[6].tolist() == [table.attrs["numbers"], 1.0, 0.0, table.attrs["score"], 0.0]
    assert (np.diff(table["error"]) < 0).all()
    assert net.compression_curve(SERIES, [5, 2, 2]).index.tolist() == [2, 5]


def test_the_rank_of_a_tolerance(net):
    curve = net.compression_curve(SERIES, range(1, 7))["loss"]
    for tolerance in (0.0, float(curve[4]) if curve[4] > 0 else 0.01, 1e6):
        found = net.compress(X=SERIES, tolerance=tolerance).compression_
        assert found.loss <= tolerance
        assert found.rank == 1 or curve[found.rank - 1] > tolerance
    assert found.rank == 1


def test_the_full_rank_changes_nothing(single):
    same = single.compress(SIZE, SERIES)
    np.testing.assert_array_equal(same.params_["weights"], single.params_["weights"])
    found = same.compression_
    assert (found.loss, found.error, found.n_numbers) == (0.0, 0.0, found.n_numbers_before)
    assert same.n_parameters_ == single.n_parameters_


def test_ensembles_stay_ensembles():
    model = ps.RNN(4, inference=ps.Ensemble(2, ps.MLE(training=ONCE)), random_state=0).fit(SERIES)
    small = model.compress(1)
    assert small.summary().attrs["posterior"] == "ensemble"
    assert small.model_.n_draws == 2


def test_what_cannot_be_compressed(net):
    for options in ({}, {"rank": 2, "tolerance": 0.1, "X": SERIES}, {"tolerance": 0.1}):
        with pytest.raises(ParameterError, match="either a rank, or a tolerance"):
            net.compress(**options)
    for rank in (0, 7, 2.0, True):
        with pytest.raises(ParameterError, match="from 1 to 6"):
            net.compress(rank)
        with pytest.raises(ParameterError, match="from 1 to 6"):
            net.compression_curve(SERIES, [rank])
    for tolerance in (-0.1, np.nan, "a"):
        with pytest.raises(ParameterError, match="from 0. In nats per value"):
            net.compress(X=SERIES, tolerance=tolerance)
    with pytest.raises(ParameterError, match="inputs=2"):
        net.compress(2, inputs=2)
    quantiles = ps.RNN(3, head=ps.Quantiles(), inference=ps.MLE(training=ONCE), random_state=0).fit(SERIES)
    assert quantiles.compress(1).compression_.rank == 1
    with pytest.raises(UnsupportedError, match="no likelihood"):
        quantiles.compress(1, SERIES)


def test_the_picture_shows_the_curve(net):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert net.plot_compression(SERIES, [1, 3, 6], ax=ax) is ax
    table = net.compression_curve(SERIES, [1, 3, 6])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), table["loss"])
    assert [text.get_text() for text in ax.texts] == [f"{share:.0%}" for share in table["share"]]
    plt.close("all")
