"""Columns with names are matched by them, wherever a fitted model reads data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probseq as ps
from probseq.errors import CovariateError, ShapeError

RNG = np.random.default_rng(0)
U = pd.DataFrame(RNG.normal(size=(40, 2)), columns=["p", "q"])
Y = 2 * U["p"] - U["q"] + 0.1 * RNG.normal(size=40)
TURNED = U[["q", "p"]]
ONCE = ps.EM(n_init=1, max_iter=5, tol=1e3)
FAMILIES = {
    "regression": ps.HMM(2, ps.NormalRegression(), inference=ONCE, random_state=0),
    "driven": ps.HMM(2, transitions=ps.CovariateTransitions(), inference=ONCE, random_state=0),
    "arma": ps.ARMA(order=(1, 0)),
    "lstm": ps.LSTM(2, inference=ps.MLE(training=ps.TrainingOptions(max_epochs=1)), random_state=0),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return FAMILIES[request.param].fit(Y, covariates=U)


def test_covariates_in_another_order_are_the_same(model):
    assert float(model.log_prob(Y, covariates=TURNED)) == float(model.log_prob(Y, covariates=U))
    assert model.score(Y, covariates=TURNED) == model.score(Y, covariates=U)
    np.testing.assert_array_equal(model.predict(Y, covariates=TURNED), model.predict(Y, covariates=U))
    past, turned = ps.sequences(Y, covariates=U), ps.sequences(Y, covariates=TURNED)
    ahead = {"covariates": U[:2], "history": past}
    changed = {"covariates": TURNED[:2], "history": turned}
    if isinstance(model, ps.LSTM):
        ahead["random_state"] = changed["random_state"] = 0
    np.testing.assert_array_equal(model.forecast(2, **changed).mean(), model.forecast(2, **ahead).mean())
    both = [float(model.log_prob(Y, covariates=U, history=one)) for one in (past, turned)]
    assert both[0] == both[1]
    if isinstance(model, ps.HMM):
        np.testing.assert_array_equal(model.decode(Y, covariates=TURNED), model.decode(Y, covariates=U))
    state = model.filter(Y, covariates=U)
    np.testing.assert_array_equal(
        model.forecast(2, state=state, covariates=TURNED[:2], random_state=0).mean(),
        model.forecast(2, state=state, covariates=U[:2], random_state=0).mean(),
    )


def test_covariates_of_other_names_are_refused(model):
    other = U.rename(columns={"p": "x"})
    for ask in (model.log_prob, model.score, model.predict, model.filter):
        with pytest.raises(CovariateError, match=r"Missing: \['p'\]. Not known to the model: \['x'\]"):
            ask(Y, covariates=other)
    with pytest.raises(CovariateError, match="Missing"):
        model.forecast(2, state=model.filter(Y, covariates=U), covariates=other[:2])
    assert float(model.log_prob(Y, covariates=U.to_numpy())) == float(model.log_prob(Y, covariates=U))


def test_static_inputs_and_validation_data_go_by_name():
    panel = {name: Y.to_numpy()[rows] for name, rows in (("a", slice(20)), ("b", slice(20, 40)))}
    static = pd.DataFrame({"size": [1.0, 2.0], "age": [5.0, 3.0]}, ["a", "b"])
    turned = static[["age", "size"]]
    model = FAMILIES["lstm"].__sklearn_clone__().fit(panel, static=static)
    whole, other = (ps.sequences(panel, static=one) for one in (static, turned))
    np.testing.assert_array_equal(model.log_prob(other), model.log_prob(whole))
    with pytest.raises(CovariateError, match="Missing"):
        model.log_prob(ps.sequences(panel, static=static.rename(columns={"age": "x"})))
    found = [
        ps.LSTM(2, inference=ps.MLE(training=ps.TrainingOptions(max_epochs=2)), random_state=0)
        .fit(Y, covariates=U, validation=ps.sequences(Y, covariates=held_out))
        .log_likelihood_
        for held_out in (U, TURNED)
    ]
    assert found[0] == found[1]
    with pytest.raises(CovariateError, match="Missing"):
        ps.LSTM(2).fit(Y, covariates=U, validation=ps.sequences(Y, covariates=U.rename(columns={"p": "x"})))


def test_variables_whose_names_are_numbers(tmp_path):
    table = pd.DataFrame(RNG.normal(size=(30, 2)) + [0, 10], columns=[5, 7])
    model = ps.HMM(1, inference=ONCE).fit(table)
    model.save(tmp_path / "m.ps")
    for one in (model, ps.load(tmp_path / "m.ps")):
        assert float(one.log_prob(table)) == float(model.log_prob(table.to_numpy()))
        with pytest.raises(ShapeError, match=r"\[5, 7\] in this order"):
            one.log_prob(table[[7, 5]])
        with pytest.raises(ShapeError, match="feature names"):
            one.log_prob(table.rename(columns={5: 6}))
    counted = pd.DataFrame(table.to_numpy())
    plain = ps.HMM(1, inference=ONCE).fit(counted)
    assert float(plain.log_prob(counted[[0, 1]])) == float(plain.log_prob(counted))
    with pytest.raises(ShapeError, match=r"\[0, 1\] in this order"):
        plain.log_prob(counted[[1, 0]])


ROW = {"a": 8.0, "b": -2.0}
ROWS = {
    "series": pd.Series(ROW),
    "turned series": pd.Series({"b": -2.0, "a": 8.0}),
    "table": pd.DataFrame([ROW])[["b", "a"]],
    "dict": {"b": -2.0, "a": 8.0},
    "array": xr.DataArray([-2.0, 8.0], dims="variable", coords={"variable": ["b", "a"]}),
    "reversed": np.array([-2.0, 8.0])[::-1],
    "list": [8.0, -2.0],
    "counted": pd.Series([8.0, -2.0]),
}


@pytest.fixture(scope="module")
def two():
    values = np.r_[RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2)) + [8, 0]]
    values = np.concatenate([values, values])
    # A start that leaves the state open, so that the first values decide on it.
    model = ps.HMM(2, start="stationary", inference=ps.EM(n_init=1), random_state=0)
    return model.fit(pd.DataFrame(values, columns=["a", "b"]))


@pytest.mark.parametrize("form", ROWS)
def test_a_step_with_names_goes_by_them(two, form):
    expected = two.predictive_at(two.filter(pd.DataFrame([ROW]))).mean()
    found = two.predictive_at(two.update(two.initial_state(), ROWS[form])).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(expected.sel(variable="a").item() - 8) < 1


@pytest.mark.parametrize("form", sorted(set(ROWS) - {"dict", "array"}))
def test_a_predictive_scores_a_step_in_the_forms_that_update_takes(two, form):
    law = two.predictive_at(two.initial_state())
    np.testing.assert_allclose(law.log_prob(ROWS[form]), law.log_prob([[8.0, -2.0]]), rtol=1e-12)
    several = two.predictive_at(two.initial_state(3))
    for rows in ([[8.0, -2.0]] * 3, np.array([[8.0, -2.0]] * 3)):
        np.testing.assert_allclose(several.log_prob(rows).values.ravel(), [law.log_prob([8.0, -2.0]).item()] * 3)
    with pytest.raises(ShapeError):
        law.log_prob(pd.Series({"a": 8.0, "c": -2.0}))


def test_a_step_of_other_names_is_refused(two):
    start = two.initial_state()
    for row in (pd.Series({"a": 1.0, "c": 2.0}), {"a": 1.0, "c": 2.0}, pd.DataFrame({"a": [1.0], "c": [2.0]})):
        with pytest.raises(ShapeError, match="'c'"):
            two.update(start, row)
    for row in ([1.0, 2.0, 3.0], {"a": 1.0}):
        with pytest.raises(ShapeError, match="2 value"):
            two.update(start, row)
    several = two.update(two.initial_state(2), pd.DataFrame([ROW, ROW])[["b", "a"]])
    np.testing.assert_array_equal(
        two.predictive_at(several).mean()[1], two.predictive_at(two.update(start, [8.0, -2.0])).mean()
    )


def test_covariates_of_a_step_go_by_their_names(model):
    now, ahead = U.iloc[0], U.iloc[1]
    plain = model.update(model.initial_state(), Y[0], covariates=now.to_numpy())
    turned = model.update(model.initial_state(), Y[0], covariates=now[["q", "p"]])
    expected = model.predictive_at(plain, covariates=ahead.to_numpy()).mean().values
    forms = (ahead, ahead[["q", "p"]], dict(ahead[["q", "p"]]), TURNED[1:2], ahead[["q", "p"]].to_numpy()[::-1])
    for form in forms:
        np.testing.assert_array_equal(model.predictive_at(turned, covariates=form).mean().values, expected)
    for form in (ahead.rename({"p": "x"}), {"p": 1.0}, {"p": 1.0, "x": 0.0}):
        with pytest.raises(CovariateError, match="Missing"):
            model.predictive_at(turned, covariates=form)


def test_a_cell_of_a_series_has_no_name():
    series = pd.Series(RNG.normal(size=20), pd.date_range("2024-01-01", periods=20), name="y")
    model = ps.ARMA(order=(1, 0)).fit(series)
    start = model.initial_state()
    expected = model.predictive_at(model.update(start, series.iloc[3])).mean().values
    for form in (series.iloc[3:4], {"y": series.iloc[3]}, series.to_frame().iloc[3]):
        np.testing.assert_array_equal(model.predictive_at(model.update(start, form)).mean().values, expected)
