"""Forecasters from elsewhere beside models of ours."""

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.errors import DataError, DataTypeError, HistoryError, ParameterError, ShapeError, UnsupportedError

STAMPS = pd.date_range("2001-01-01", periods=70, freq="D")
Y = pd.Series(np.random.default_rng(0).standard_normal(70).cumsum(), STAMPS, name="y")
TRAIN, TEST = Y.iloc[:50], Y.iloc[50:]


class Outsider:
    """A model of ours behind the two methods."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def fit(self, y):
        self.model.fit(y)
        return self

    def forecast(self, horizon, history):
        self.asked.append(history)
        return self.model.forecast(horizon, history=history)


class Paths(Outsider):
    def forecast(self, horizon, history):
        steps = np.diff(TRAIN)[:, None]
        return ps.Forecast.from_paths(history.iloc[-1] + steps, like=history)


def test_a_model_scores_the_same_from_outside():
    own = ps.ARMA((1, 0, 0)).fit(TRAIN)
    other = Outsider(ps.ARMA((1, 0, 0))).fit(TRAIN)
    table = ps.compare({"own": own, "other": other}, TEST, history=TRAIN).table
    columns = ["nats", "crps", "pinball", "cover50", "cover90", "pit_p"]
    np.testing.assert_allclose(
        table.loc["own", columns].astype(float), table.loc["other", columns].astype(float), rtol=1e-8
    )
    assert table["note"].str.contains("density").sum() == 0
    assert [len(history) for history in other.asked] == list(range(50, 70))
    pd.testing.assert_series_equal(other.asked[-1], Y.iloc[:-1], check_freq=False)


def test_without_a_past_the_first_value_is_given():
    own = ps.IID().fit(TRAIN)
    other = Outsider(ps.IID()).fit(TRAIN)
    found = ps.compare([own, other], TEST)
    assert found.n_values == 19 and found.table.index.tolist() == ["IID", "Outsider"]
    assert ps.compare([own, other], TEST, history=ps.TRAINING).n_values == 20


def test_paths_are_compared_by_crps_and_coverage():
    found = ps.compare({"walk": ps.RandomWalk().fit(TRAIN), "paths": Paths(None)}, TEST, history=TRAIN)
    row = found.table.loc["paths"]
    assert np.isnan(row["nats"]) and "no density" in row["note"]
    z = np.diff(np.r_[TRAIN.iloc[-1], TEST])
    cloud = np.diff(TRAIN)
    expected = ps.Forecast.from_paths(np.repeat(cloud[:, None], 20, 1)).crps(z).values.mean()
    assert row["crps"] == pytest.approx(expected, rel=1e-9)
    assert 0 <= row["crps_p"] <= 1 and found.best == "walk"
    alone = ps.compare([Paths(None), Paths(None)], TEST, history=TRAIN)
    assert alone.measure.base == "none" and "lower CRPS" in alone.caption
    assert alone.confidence_set() == ["Paths 1", "Paths 2"]


def test_several_variables_and_sequences():
    rng = np.random.default_rng(1)
    panel = {i: pd.DataFrame(rng.normal(size=(12 + i, 2)), columns=["a", "b"]) for i in range(3)}
    long = pd.concat(panel, names=["series", "time"])
    own = ps.IID().fit(long)
    other = Outsider(ps.IID()).fit(long)
    other.model = own
    table = ps.compare({"own": own, "other": other}, long).table
    np.testing.assert_allclose(table.loc["own", "nats"], table.loc["other", "nats"], rtol=1e-9)
    assert list(other.asked[0].columns) == ["a", "b"] and len(other.asked) == 11 + 12 + 13


def test_randomised_pit_of_counts_is_that_of_a_model_of_ours():
    counts = pd.Series(np.random.default_rng(2).poisson(2.0, 80).astype(float))
    own = ps.PoissonProcess().fit(counts)
    other = Outsider(ps.PoissonProcess()).fit(counts)
    found = ps.compare({"own": own, "other": other}, counts)
    np.testing.assert_allclose(found.pit("other"), found.pit("own"), rtol=1e-9)
    assert found.table["pit_p"].min() > 0.05


class Wrong(Outsider):
    def forecast(self, horizon, history):
        return self.model if not callable(self.model) else self.model(history)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda: ps.compare({"a": Wrong(3.0)}, TEST, history=TRAIN), DataTypeError),
        (
            lambda: ps.compare({"a": Wrong(lambda h: ps.Forecast.from_paths(np.zeros((4, 2))))}, TEST, history=TRAIN),
            ShapeError,
        ),
        (
            lambda: ps.compare({"a": Wrong(lambda h: ps.Forecast.from_paths(np.full((4, 1), np.nan), like=h))}, TEST),
            DataError,
        ),
        (lambda: ps.compare({"a": Paths(None)}, TEST, history=ps.TRAINING), HistoryError),
        (lambda: ps.compare({"a": Paths(None)}, "to be or not to be"), UnsupportedError),
        (lambda: ps.compare({"a": Outsider}, TEST), ParameterError),
        (lambda: ps.compare({"a": ps.PerSequence(ps.IID())}, TEST), ParameterError),
    ],
)
def test_bad_questions(ask, error):
    with pytest.raises(error):
        ask()


def test_what_goes_wrong_elsewhere_says_where():
    def fail(history):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        ps.compare({"theirs": Wrong(fail)}, TEST, history=TRAIN)
    assert "'theirs'.forecast(horizon=1, history=...) after 50 steps" in raised.value.__notes__[0]
