import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probseq as ps
from probseq.errors import DataError, HistoryError, ParameterError, ShapeError
from probseq.report import entry
from probseq.report.catalogue import parameter_tables
from probseq.report.findings import findings, state_table
from probseq.report.repeat import code
from probseq.report.results import calibration


@pytest.fixture
def told(monkeypatch):
    """The study that would have been written, without its pictures."""
    found = []
    monkeypatch.setattr(entry, "write_page", lambda study, path: found.append(study) or path)
    return found


Y = pd.Series(
    np.random.default_rng(0).normal(size=60).cumsum() + 50,
    pd.date_range("2020-01-01", periods=60, freq="MS"),
    name="kg",
)


def test_page_of_fitted_models_is_that_of_their_comparison(tmp_path):
    train, test = ps.split(Y, horizon=12)
    models = {"own": ps.ARMA((1, 0)).fit(train), "mine": ps.IID().fit(train)}
    page = ps.write_report(test, tmp_path / "r.html", models, history=train, title="Weights").read_text()
    table = ps.compare(models, test, history=train).table
    assert "<h1>Weights</h1>" in page
    for name in models:
        assert f"{table['nats'][name]:.3f}" in page
    assert "ps.ARMA(order=(1, 0))" in page and "random_state of each model" in page
    assert "It raised no warning" not in page


def test_models_of_ones_own_are_fitted_as_clones(told, tmp_path):
    own = ps.ARMA((1, 0))
    ps.write_report(Y, tmp_path / "r.html", {"a": own, "b": ps.RandomWalk()}, horizon=10)
    assert not hasattr(own, "params_")
    assert told[0].train.size == 50 and list(told[0].models) == ["a", "b"]
    assert told[0].source.title == "Kg" and not told[0].chosen


def test_names_choose_models_as_on_the_command_line(told, tmp_path):
    ps.write_report(Y, tmp_path / "r.html", ["rw", "iid"], random_state=3)
    ps.write_report(Y.to_numpy(), tmp_path / "r.html", ["rw", "iid"], horizon=10)
    assert told[0].seed == 3 and told[0].horizon == 10 and told[0].chosen
    assert told[1].source.title == "A series"
    pd.testing.assert_series_equal(told[0].comparison.table["nats"], told[1].comparison.table["nats"])


@pytest.mark.parametrize("kind", ["array", "list", "frame", "period", "zone", "column"])
def test_series_come_in_any_form(told, tmp_path, kind):
    forms = {
        "array": Y.to_numpy(),
        "list": Y.tolist(),
        "frame": Y.to_frame(),
        "period": Y.to_period("M"),
        "zone": Y.tz_localize("Europe/Berlin"),
        "column": Y.to_numpy()[:, None],
    }
    train, test = ps.split(forms[kind], horizon=12)
    ps.write_report(test, tmp_path / "r.html", {"rw": ps.RandomWalk().fit(train)}, history=train)
    study = told[0]
    assert study.source.series.sizes == {"time": 60} and study.horizon == 12
    np.testing.assert_allclose(study.source.series.values, Y.to_numpy())
    expected = ps.compare({"rw": ps.RandomWalk().fit(Y[:48])}, Y[48:], history=Y[:48]).table["nats"]["rw"]
    assert study.comparison.table["nats"]["rw"] == pytest.approx(expected, rel=1e-12)


def test_files_are_read_as_on_the_command_line(told, tmp_path):
    Y.rename_axis("date").reset_index().assign(other=1.0).to_csv(tmp_path / "x.csv", index=False)
    ps.write_report(tmp_path / "x.csv", tmp_path / "r.html", ["rw", "iid"], column="kg", title="Weights")
    assert told[0].source.origin == "file x.csv" and told[0].source.title == "Weights"


def test_missing_or_impossible_ends_of_held_out_values_stay_in_place(told, tmp_path):
    train, test = ps.split(Y, horizon=12)
    test.iloc[3], test.iloc[-4:] = 0.0, np.nan
    models = {"hmm": ps.HMM(2).fit(train), 'the "walk"': ps.RandomWalk().fit(train)}
    ps.write_report(test, tmp_path / "r.html", models, history=train)
    study = told[0]
    assert study.source.series.size == study.train.size + study.test.size == 60
    assert "%" not in state_table(study)["median step"].iloc[0]  # a zero has no logarithm
    compile(code(study), "report", "exec")


def test_intervals_of_counts_are_not_called_too_cautious(told, tmp_path):
    y = np.random.default_rng(0).poisson(1.0, size=300)
    ps.write_report(y, tmp_path / "r.html", {"right": ps.IID(emission=ps.Poisson())}, horizon=150)
    assert told[0].comparison.table["cover90"]["right"] > 0.97
    assert not any("too cautious" in text for text in findings(told[0]))
    assert "hold more than they promise" in calibration(told[0])


def test_spread_of_draws_belongs_to_its_parameter():
    draws = xr.DataArray(np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 9.0], dims=("draw", "lag"), name="ar")
    model = SimpleNamespace(params_=draws.to_dataset())
    found = parameter_tables(SimpleNamespace(models={"m": model}), "m")["parameter"]["standard error"]
    expected = [f"{each:.2g}" for each in draws.values.std(0, ddof=1)]
    assert found.tolist() == expected


def test_training_data_are_the_history_on_request(told, tmp_path):
    train, test = ps.split(Y, horizon=12)
    ps.write_report(test, tmp_path / "r.html", {"rw": ps.RandomWalk().fit(train)}, history=ps.TRAINING)
    assert told[0].train.size == 48
    bare = ps.RandomWalk().with_parameters(scale=[1.0])
    with pytest.raises(HistoryError, match="history=train"):
        ps.write_report(test, tmp_path / "r.html", {"rw": bare}, history=ps.TRAINING)


TWO = np.random.default_rng(1).normal(size=(40, 2))


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (TWO, {}, DataError, "1 sequences of 2 variables"),
        ([Y.to_numpy(), Y.to_numpy()], {}, DataError, "2 sequences of 1 variables"),
        (["a", "b", "a"] * 20, {}, DataError, "text or categories"),
        (np.ones(40), {}, ShapeError, "constant"),
        (Y, {"models": "arma"}, ParameterError, "a list of names"),
        (Y, {"models": ps.ARMA((1, 0))}, ParameterError, "a dict of name"),
        (Y, {"models": ["rw"], "random_state": np.random.default_rng(0)}, ParameterError, "random_state"),
        (Y, {"models": ["arima"]}, ParameterError, "'arima'"),
        (Y, {"models": {}}, ParameterError, "no model"),
        (Y, {"models": {"a": 3}}, ParameterError, "int under the name 'a'"),
        (Y, {"history": Y}, ParameterError, "fitted estimator"),
        ("nothing.csv", {}, ParameterError, "that exists"),
    ],
)
def test_what_has_no_report_is_named(tmp_path, data, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ps.write_report(data, tmp_path / "r.html", **options)


def test_parts_that_do_not_meet_are_named(tmp_path):
    train, test = ps.split(Y, horizon=12)
    models = {"rw": ps.RandomWalk().fit(train)}
    with pytest.raises(DataError, match="right after history"):
        ps.write_report(test[3:], tmp_path / "r.html", models, history=train)
    with pytest.raises(DataError, match="right after history"):
        ps.write_report(train, tmp_path / "r.html", models, history=test)
    with pytest.raises(ParameterError, match="history= with horizon="):
        ps.write_report(test, tmp_path / "r.html", models, history=train, horizon=3)
    with pytest.raises(ParameterError, match="folder that exists"):
        ps.write_report(Y, tmp_path / "none" / "r.html")
