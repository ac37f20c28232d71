"""What one family shows by example: text, streams, selection by name, files, refits, labels."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV, KFold

import probseq as ps
from probseq.errors import (
    ConvergenceWarning,
    DataError,
    DataTypeError,
    DataWarning,
    DegenerateWarning,
    FileFormatError,
    HistoryError,
    NotFittedError,
    ParameterError,
    UnsupportedError,
)

TEXT = "she sells sea shells by the sea shore"


def test_text_in_text_out(tmp_path):
    model = ps.MarkovChain(order=2).fit(TEXT)
    generated = model.sample(12, random_state=0)
    assert isinstance(generated, str) and set(generated) <= set(TEXT) | {""} | set(model.vocabulary_.tokens)
    assert isinstance(model.sample(5, n_sequences=3, random_state=0), list)
    assert model.sample(8, history="she ", temperature=0.01, random_state=1).startswith("sea")
    model.save(tmp_path / "text")
    again = ps.load(tmp_path / "text")
    assert again.sample(12, random_state=0) == generated
    assert float(again.log_prob("sea")) == float(model.log_prob("sea"))
    state = model.initial_state()
    for letter in "she":
        state = model.update(state, letter)
    assert model.predictive_at(state).probs().sel(category=" ").item() > 0.25


def test_predict_gives_tokens():
    model = ps.MarkovChain(order=1, smoothing=0.0).fit("ababababa")
    assert list(model.predict("abab").values[:4]) == ["a", "b", "a", "b"]


def test_equal_configurations_are_equal_however_they_were_made():
    assert ps.EM(tol=float("1e-8")) == ps.EM() == copy.deepcopy(ps.EM()) == pickle.loads(pickle.dumps(ps.EM()))
    assert repr(ps.EM(tol=float("1e-8"))) == "EM()"
    assert ps.Normal("full") != ps.Normal() and hash(ps.Normal()) == hash(ps.Normal("diag"))


def test_tokens_for_a_law_of_numbers_raise():
    for model in (ps.HMM(), ps.IID(), ps.ARMA(), ps.IID(ps.Poisson())):
        with pytest.raises(DataTypeError, match="Categorical"):
            model.fit(TEXT)


def test_the_hyper_parameter_transform_is_no_method():
    model = ps.IID(transform=ps.Log())
    assert not hasattr(model, "transform")
    assert model.get_params()["transform"] == ps.Log()
    assert model.set_params(transform=None).get_params()["transform"] is None
    assert (
        model.set_params(transform=ps.Log()).set_params(transform__shift=-1.0).get_params()["transform"].shift == -1.0
    )


def test_a_fit_that_stops_early_says_so_in_its_own_class():
    x = np.random.default_rng(0).normal(size=60)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = ps.HMM(3, inference=ps.EM(n_init=1, max_iter=2), random_state=0).fit(x)
    assert not model.converged_ and model.status_ == "max_iter"
    with pytest.warns(DegenerateWarning, match="variance"):
        ps.HMM(2, inference=ps.EM(n_init=1), random_state=0).fit(np.array([1.0, 1, 1, 1, 1, 1, 5, 5, 5, 5, 5, 5]))


def test_streams_keep_the_names_of_the_fit():
    frame = pd.DataFrame({"a": np.arange(9.0)})
    model = ps.IID().fit(frame)
    forecast = model.forecast(2, state=model.filter(frame))
    assert list(forecast.mean()["variable"].values) == ["a"]
    assert ps.IID().fit(np.arange(9.0)).initial_state().n == 1


def test_several_states_at_once():
    model = ps.RandomWalk().fit(np.cumsum(np.random.default_rng(1).normal(size=30)))
    state = model.update(model.initial_state(2), [1.0, np.nan])
    state = model.update(state, [2.0, 5.0])
    assert_allclose(model.predictive_at(state).mean().squeeze(), [2.0, 5.0])


def test_gap_between_history_and_data_is_missing_steps():
    index = pd.date_range("2024-01-01", periods=40, freq="D")
    y = pd.Series(np.cumsum(np.random.default_rng(2).normal(size=40)), index=index)
    model = ps.ARMA((1, 0)).fit(y[:30])
    whole = y.copy()
    whole[30:33] = np.nan
    steps = model.log_prob_steps(whole)
    assert_allclose(model.log_prob_steps(y[33:], history=ps.TRAINING), steps[33:], rtol=1e-9)
    assert_allclose(model.log_prob_steps(y[33:], history=y[:30]), steps[33:], rtol=1e-9)
    with pytest.raises(HistoryError):
        model.log_prob(y[28:], history=ps.TRAINING)


def test_a_refit_on_other_columns_forgets_the_first():
    model = ps.IID().fit(pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9.0)}))
    model.fit(np.arange(9.0))
    assert model.n_features_in_ == 1 and not hasattr(model, "feature_names_in_")


def test_y_as_long_as_the_sequences_is_ignored_with_a_warning():
    with pytest.warns(DataWarning, match="ignored"):
        ps.IID().fit([np.arange(5.0), np.arange(7.0)], y=np.zeros(2))
    with pytest.raises(DataError, match="lengths="):
        ps.IID().fit(np.arange(9.0), [4, 5])


def test_likelihood_does_not_depend_on_the_container():
    values = np.random.default_rng(3).normal(size=(2, 15, 1))
    index = pd.MultiIndex.from_product([["n", "s"], range(15)], names=["region", "time"])
    model = ps.IID().fit(values)
    forms = [
        values,
        list(values),
        xr.DataArray(values, dims=("sequence", "time", "variable")),
        pd.Series(values.ravel(), index=index),
        {"n": values[0], "s": values[1]},
    ]
    expected = model.log_prob(values)
    for form in forms:
        assert_array_equal(model.log_prob(form).values, expected.values)


def test_known_parameters():
    model = ps.HMM(2, ps.Poisson()).with_parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], rate=[1.0, 9.0]
    )
    x, states = model.sample(200, states=True, random_state=0)
    assert x[states == 1].mean() > 6 > x[states == 0].mean()
    assert float(model.log_prob(x)) < 0 and model.fit_seconds_ == 0.0


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(b"not a model")
    with pytest.raises(FileFormatError, match="Expected a model"):
        ps.load(path)
    with pytest.raises(FileNotFoundError):
        ps.load(tmp_path / "nothing")
    good = tmp_path / "good"
    ps.IID().fit(np.arange(9.0)).save(good)
    data = good.read_bytes()
    for old, new in (
        (b"IID", b"XYZ"),
        (b'"version":"3"', b'"version":"9"'),
        (b'"format":"probseq"', b'"format":"prooseq"'),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises(FileFormatError):
            ps.load(path)
    path.write_bytes(data[:-4])
    with pytest.raises(FileFormatError):
        ps.load(path)


def test_a_loaded_model_continues_its_training_data(tmp_path):
    y = pd.Series(np.arange(20.0) + np.sin(np.arange(20)), index=pd.date_range("2024-01-31", periods=20, freq="ME"))
    model = ps.ARMA((1, 1, 0)).fit(y)
    model.save(tmp_path / "arma")
    loaded = ps.load(tmp_path / "arma")
    xr.testing.assert_identical(loaded.forecast(3).mean(), model.forecast(3).mean())
    assert b"19.1498" not in (tmp_path / "arma").read_bytes()


def test_a_model_can_be_looked_through():
    fitted = ps.HMM(2, ps.Poisson(), inference=ps.EM(n_init=1), random_state=0).fit([3.0, 9, 2, 8, 4, 1, 10])
    assert "log_prob" in dir(fitted) and not hasattr(fitted, "standard_errors_")
    assert getattr(fitted, "standard_errors_", None) is None
    with pytest.raises(UnsupportedError, match="covariance=True"):
        _ = fitted.standard_errors_
    assert hasattr(ps.ARMA(order=(1, 0)).fit(np.random.default_rng(0).normal(size=60)), "standard_errors_")


@pytest.mark.parametrize("emission", [ps.Multinomial(n_trials=-1), ps.Categorical(0)], ids=repr)
def test_wrong_arguments_are_not_blamed_on_the_data(emission):
    with pytest.raises(ParameterError, match="Expected a whole number from 1"):
        ps.HMM(2, emission).fit(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 0.0]]))


def test_arguments_of_a_component_that_stands_for_its_default():
    model = ps.HMM().set_params(emission__covariance="full", inference__n_init=3, transitions__mask=np.eye(2))
    assert model.emission == ps.Normal("full") and model.inference == ps.EM(n_init=3)
    assert_array_equal(model.transitions.mask, np.eye(2))
    assert ps.HMM().get_params()["emission"] is None
    assert ps.HMM().set_params(emission=ps.StudentT(), emission__df=4.0).emission == ps.StudentT(4.0)
    assert ps.LSTM().set_params(head__covariance="full").head == ps.Normal("full")
    assert ps.HSMM().set_params(duration__max_duration=9).duration == ps.NegativeBinomialDuration(9)
    search = GridSearchCV(ps.HMM(2, random_state=0), {"emission__covariance": ["diag", "full"]}, cv=KFold(2))
    rows = np.random.default_rng(0).normal(size=(60, 2)) + 4 * (np.arange(60) // 15 % 2)[:, None]
    assert search.fit(rows).best_params_["emission__covariance"] in ("diag", "full")


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (ps.HMM(), {"transform__lag": 2}, "Pass transform= together with it, such as ps.Log"),
        (ps.HMM(emission="normal"), {"emission__covariance": "full"}, r"such as ps.Normal\(\)"),
        (ps.HMM(emission=ps.Normal), {"emission__covariance": "full"}, r"such as ps.Normal\(\)"),
        (ps.HMM(), {"emission__n_trials": 2}, "'n_trials' for Normal"),
        (ps.ARMA(), {"order__p": 2}, "Pass order="),
    ],
)
def test_arguments_of_no_component(model, given, message):
    with pytest.raises(ParameterError, match=message):
        model.set_params(**given)


def test_parameters_that_are_no_numbers():
    known = {"initial": [0.5, 0.5], "transition": np.full((2, 2), 0.5), "mean": [[0.0], [1.0]], "scale": [[1.0], [1.0]]}
    assert ps.HMM(2).with_parameters(**known).n_features_in_ == 1
    for wrong in ("a", [[1.0], [1.0, 2.0]], None, [[object()], [1.0]]):
        with pytest.raises(ParameterError, match="mean=|mean of shape"):
            ps.HMM(2).with_parameters(**{**known, "mean": wrong})
    with pytest.raises(ParameterError, match="n_covariates=-1"):
        ps.HMM(2).with_parameters(**known, n_covariates=-1)


def test_an_unfitted_model_says_so_under_a_public_name():
    with pytest.raises(NotFittedError, match=r"^Got an unfitted ARMA\. Expected a fitted model\.") as caught:
        ps.ARMA().forecast(3)
    assert not type(caught.value).__name__.startswith("_")
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
