"""Checks of estimators that are made of fitted ones: scikit-learn's manners, files, what they say of bad data."""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

import probseq as ps
from probseq._types import equal_values
from probseq.errors import DataError, NotFittedError, ParameterError
from probseq.estimators.members import Composed

__all__ = ["COMPOSED_ROWS", "ComposedRow", "check_composed", "composed_checks"]

Question = Callable[[Any, Any], Any]
_LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class ComposedRow:
    """One estimator that is made of others, with data for it.

    Parameters
    ----------
    name : str
    make : callable
        Returns a new estimator, fitted in a moment.
    data : callable
        Returns what ``fit`` takes, as a dict.
    ask : mapping of names to functions of the fitted estimator and X
        Questions whose answers are the same after a file; each needs a fit.
    """

    name: str
    make: Callable[[], Composed]
    data: Callable[[], dict[str, Any]]
    ask: Mapping[str, Question] = field(default_factory=dict)

    @cached_property
    def fitted(self) -> Composed:
        """The estimator fitted to ``data()``; not to be changed."""
        return _fit(self.make(), self.data())

    def answers(self, estimator: Composed) -> dict[str, Any]:
        """What it says to every question."""
        x = self.data()["X"]
        return {name: question(estimator, x) for name, question in self.ask.items()}


def _fit(estimator: Any, data: dict[str, Any]) -> Any:
    return estimator.fit(**data)


def check_construction(row: ComposedRow) -> None:
    """Arguments are only stored; get_params, set_params (nested too) and clone work."""
    from sklearn.base import clone

    estimator = row.make()
    type(estimator)()
    shallow = estimator.get_params(deep=False)
    assert all(vars(estimator)[name] is value for name, value in shallow.items()), "an argument is not only stored"
    for copied in (clone(estimator), clone(row.fitted), copy.deepcopy(estimator)):
        assert repr(copied.get_params()) == repr(estimator.get_params()), "a copy has other parameters"
        assert not copied.__sklearn_is_fitted__(), "clone copies the fit"
    part, name = shallow[estimator.inner], estimator.inner
    if hasattr(part, "get_params"):
        for argument, value in part.get_params(deep=False).items():
            marked = getattr(clone(estimator).set_params(**{f"{name}__{argument}": "marked"}), name)
            assert marked.get_params(deep=False)[argument] == "marked", f"set_params({name}__{argument}=...) is lost"
            assert equal_values(part.get_params(deep=False)[argument], value), "set_params reaches the original"
    default = type(estimator)().set_params(**{f"{name}__random_state": 7})
    assert getattr(default, name).random_state == 7, f"set_params({name}__...) does not know what None stands for"
    try:
        type(estimator)(**{name: "HMM"}).set_params(**{f"{name}__random_state": 7})
    except ParameterError:
        return
    raise AssertionError(f"set_params({name}__...) with {name}='HMM' raises no ParameterError")


def check_unfitted(row: ComposedRow) -> None:
    """Every question needs a fit, and so does saving; it is said in scikit-learn's class too."""
    from sklearn.exceptions import NotFittedError as SklearnNotFittedError

    estimator, x = row.make(), row.data()["X"]
    for name, question in {**row.ask, "save": lambda one, _: one.save("unused")}.items():
        try:
            question(estimator, x)
        except NotFittedError as error:
            assert isinstance(error, SklearnNotFittedError), f"{name}: not scikit-learn's NotFittedError"
            continue
        raise AssertionError(f"{name} of an unfitted estimator raises nothing")


def check_fit(row: ComposedRow) -> None:
    """``fit`` returns self, leaves its data, its argument and the global generators alone, and repeats."""
    data, before = row.data(), row.data()
    torch_state = torch.get_rng_state()
    numpy_state: Any = np.random.get_state()
    estimator = row.make()
    assert _fit(estimator, data) is estimator, "fit does not return self"
    answers = row.answers(estimator)
    assert _same(data, before), "fit changes its data"
    assert torch.equal(torch.get_rng_state(), torch_state), "the global generator of torch was touched"
    after: Any = np.random.get_state()
    assert equal_values(after[1], numpy_state[1]), "the global generator of numpy was touched"
    inner = getattr(estimator, estimator.inner)
    for one in inner.values() if isinstance(inner, Mapping) else [inner]:
        assert not hasattr(one, "model_"), "the estimator that was passed is fitted, not a copy of it"
    _assert_same(answers, row.answers(row.fitted), "a second fit")


def check_storage(row: ComposedRow) -> None:
    """Pickle, deepcopy, save and load, also twice, answer as before, and the file holds no pickle."""
    expected = row.answers(row.fitted)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("once", "twice")]
        row.fitted.save(paths[0])
        once = ps.load(paths[0])
        once.save(paths[1])
        twice = ps.load(paths[1])
        assert b"pickle" not in paths[0].read_bytes()
    others = {"load": once, "a second load": twice, "deepcopy": copy.deepcopy(row.fitted)}
    others["pickle"] = pickle.loads(pickle.dumps(row.fitted))
    for how, other in others.items():
        assert type(other) is type(row.fitted) and repr(other) == repr(row.fitted), f"{other!r} after {how}"
        _assert_same(row.answers(other), expected, how)
        shown, own = ({n for n in vars(one) if n.endswith("_")} for one in (other, row.fitted))
        assert shown == own, f"attributes {sorted(shown ^ own)} after {how}"


def check_failed_fit(row: ComposedRow) -> None:
    """A fit that raises leaves nothing fitted, also of an earlier fit half, and says what was expected."""
    labels = {name: value for name, value in row.data().items() if name == "y"}
    for bad in (np.array([]), np.full(40, np.nan), np.array([np.inf] * 40), None, [], [["a"], 1.0]):
        estimator = row.make()
        try:
            _fit(estimator, {"X": bad, **labels})
        except (DataError, ParameterError) as error:
            assert error.got and error.expected, "a message without got and expected"
            assert not estimator.__sklearn_is_fitted__(), "half fitted"
            continue
        raise AssertionError(f"fit({bad!r}) raises no DataError")
    estimator = row.make()
    wrong = estimator.set_params(**{estimator.inner: "HMM"})
    try:
        _fit(wrong, row.data())
    except ParameterError as error:
        assert estimator.inner in str(error), f"a message that does not name {estimator.inner}="
        return
    raise AssertionError(f"{estimator.inner}='HMM' raises no ParameterError")


CHECKS: dict[str, Callable[[ComposedRow], None]] = {
    check.__name__: check for check in (check_construction, check_unfitted, check_fit, check_storage, check_failed_fit)
}


def composed_checks(skip: Collection[str] = ()) -> list[tuple[str, Callable[[ComposedRow], None]]]:
    """The checks by name, for ``pytest.mark.parametrize``."""
    return [(name, check) for name, check in CHECKS.items() if name not in skip]


def check_composed(row: ComposedRow) -> None:
    """Run every check of an estimator that is made of others.

    Raises
    ------
    AssertionError
        Naming what differs.
    """
    for _, check in composed_checks():
        check(row)


def _assert_same(got: dict[str, Any], expected: dict[str, Any], how: str) -> None:
    for name, value in expected.items():
        assert _same(got[name], value), f"{name} is {got[name]!r} after {how}, it was {value!r}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, xr.DataArray | xr.Dataset):
        return bool(one.identical(other))
    return one.equals(other) if isinstance(one, pd.Series | pd.DataFrame) else equal_values(one, other)


# the rows -------------------------------------------------------------------------------------------------------------


def _series(n: int = 90) -> pd.Series:
    rng = np.random.default_rng(0)
    x = np.convolve(rng.standard_t(3, n + 5), 0.7 ** np.arange(6), "valid")
    return pd.Series(x, pd.date_range("2020-01-31", periods=n, freq="ME"), name="sales")


def _many() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(1)
    return {f"s{i}": pd.DataFrame(rng.normal(size=(9 + i, 2)), columns=["a", "b"]) for i in range(6)}


def _driven() -> dict[str, Any]:
    u = np.random.default_rng(2).normal(size=(90, 1))
    return {"X": _series().to_numpy() + 2 * u[:, 0], "covariates": u}


def _classes() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {"X": [rng.normal(i % 2, 1, size=8 + i) for i in range(8)], "y": ["low", "high"] * 4}


def _draws() -> ps.ARMA:
    return ps.ARMA((1, 0), inference=ps.Collapsed(n_draws=3), random_state=0)


def _mixture() -> ps.Average:
    return ps.Average({"ar": ps.ARMA((1, 0)), "iid": ps.IID()}, "online", 1.0)


_FORECASTS: dict[str, Question] = {
    "predictive": lambda m, x: m.predictive(x).quantile(_LEVELS),
    "predictive behind the training data": lambda m, x: m.predictive(_next(x), history=ps.TRAINING).mean(),
    "predict": lambda m, _: m.predict(horizon=2),
    "forecast": lambda m, _: m.forecast(2).quantile(_LEVELS),
    "forecast of another past": lambda m, x: m.forecast(1, history=x).quantile(_LEVELS),
    "paths": lambda m, _: m.forecast(2).sample(5, random_state=0),
}
_BENT: dict[str, Question] = {
    **_FORECASTS,
    "log_prob": lambda m, x: m.log_prob(x),
    "log_prob_steps": lambda m, x: m.log_prob_steps(x, history=None),
    "score": lambda m, x: m.score(x),
}
_DRIVEN: dict[str, Question] = {
    "forecast": lambda m, _: m.forecast(2, covariates=np.ones((2, 1))).quantile(_LEVELS),
    "predictive": lambda m, x: m.predictive(x, covariates=np.ones((90, 1))).quantile(_LEVELS),
}
_ALARMS: dict[str, Question] = {
    "anomalies": lambda m, x: m.anomalies(x),
    "predict": lambda m, x: m.predict(x),
    "score_samples": lambda m, x: m.score_samples(_next(x), history=ps.TRAINING),
    "decision_function": lambda m, x: m.decision_function(x),
}
_CLASSES: dict[str, Question] = {
    "predict": lambda m, x: m.predict(x),
    "predict_proba": lambda m, x: m.predict_proba(x),
    "class_log_prob": lambda m, x: m.class_log_prob(x),
}
_PANEL: dict[str, Question] = {
    "log_prob": lambda m, x: m.log_prob(x),
    "forecast": lambda m, _: m.forecast(2).quantile(_LEVELS),
    "summary": lambda m, _: m.summary().drop(columns="seconds"),
    "params_": lambda m, _: m.params_,
}


def _next(x: Any) -> Any:
    """Data that may follow X."""
    if isinstance(x, pd.Series):
        return pd.Series([0.3, -1.0], pd.date_range(x.index[-1], periods=3, freq="ME")[1:], name=x.name)
    return {name: pd.DataFrame([[0.5, -1.0]], [len(one)], columns=one.columns) for name, one in x.items()}


COMPOSED_ROWS: tuple[ComposedRow, ...] = (
    ComposedRow("Conformal", lambda: ps.Conformal(ps.ARMA((1, 0))), lambda: {"X": _series()}, _FORECASTS),
    ComposedRow("Conformal adaptive", lambda: ps.Conformal(_draws(), "adaptive"), lambda: {"X": _series()}, _FORECASTS),
    ComposedRow("Conformal of many", lambda: ps.Conformal(ps.IID()), lambda: {"X": _many()}, _FORECASTS),
    ComposedRow("Conformal of an average", lambda: ps.Conformal(_mixture()), lambda: {"X": _series()}, _FORECASTS),
    ComposedRow("Conformal with covariates", lambda: ps.Conformal(ps.ARMA((1, 0))), _driven, _DRIVEN),
    ComposedRow("Recalibrated", lambda: ps.Recalibrated(ps.ARMA((1, 0))), lambda: {"X": _series()}, _BENT),
    ComposedRow("Recalibrated of many", lambda: ps.Recalibrated(ps.IID()), lambda: {"X": _many()}, _BENT),
    ComposedRow("AnomalyDetector", lambda: ps.AnomalyDetector(_draws(), 0.1), lambda: {"X": _series()}, _ALARMS),
    ComposedRow("AnomalyDetector of many", lambda: ps.AnomalyDetector(ps.IID(), 0.1), lambda: {"X": _many()}, _ALARMS),
    ComposedRow("SequenceClassifier", lambda: ps.SequenceClassifier(ps.ARMA((1, 0))), _classes, _CLASSES),
    ComposedRow(
        "SequenceClassifier of models",
        lambda: ps.SequenceClassifier({"low": ps.IID(), "high": ps.RandomWalk()}, {"low": 0.2, "high": 0.8}),
        _classes,
        _CLASSES,
    ),
    ComposedRow(
        "SequenceClassifier of texts",
        lambda: ps.SequenceClassifier(ps.MarkovChain(), "uniform"),
        lambda: {"X": ["abababab", "babababa", "aacc", "ccaa"], "y": [2, 2, 3, 3]},
        _CLASSES,
    ),
    ComposedRow(
        "PerSequence",
        lambda: ps.PerSequence(ps.IID(), n_jobs=1),
        lambda: {"X": _many()},
        _PANEL,
    ),
)
