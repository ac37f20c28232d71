"""Checks of estimators: scikit-learn's manners, storage, streams, forecasts."""

from __future__ import annotations

import copy
import pickle
import tempfile
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq._types import Configuration, equal_values
from probseq.errors import DataError, DataWarning, HistoryError, HorizonError, NotFittedError, ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.state import leaves_of
from probseq.testing.forms import check_coordinates, check_input_forms, check_ragged
from probseq.testing.registry import Row

__all__ = ["check_estimator", "check_same_fit", "estimator_checks"]

Check = Callable[[Row], None]


def check_construction(row: Row) -> None:
    """Arguments are only stored; get_params, set_params (nested too), clone and deepcopy work."""
    from sklearn.base import clone

    estimator = row.make()
    type(estimator)()
    shallow = estimator.get_params(deep=False)
    assert all(vars(estimator)[name] is value for name, value in shallow.items()), "an argument is not only stored"
    for copied in (clone(estimator), copy.deepcopy(estimator), clone(row.fitted)):
        assert repr(copied.get_params()) == repr(estimator.get_params()), "a copy has other parameters"
        assert not hasattr(copied, "model_"), "clone copies the fit"
    for name, part in shallow.items():
        if isinstance(part, Configuration):
            for inner, value in part.get_params().items():
                nested = f"{name}__{inner}"
                assert nested in estimator.get_params(), f"get_params lacks {nested}"
                other = clone(estimator).set_params(**{nested: value})
                assert vars(other)[name] == part, f"set_params({nested}=...) changes something else"
                marked = clone(estimator).set_params(**{nested: "marked"})
                assert _inner(vars(marked)[name], inner) == "marked", f"set_params({nested}=...) has no effect"
                assert _inner(part, inner) == value, "set_params on a clone reaches the original"


def _inner(part: Any, path: str) -> Any:
    """The argument that a nested name such as ``training__max_epochs`` means."""
    for word in path.split("__"):
        part = getattr(part, word)
    return part


def check_unfitted(row: Row) -> None:
    """Every method that needs a fit says so, in scikit-learn's class too."""
    from sklearn.exceptions import NotFittedError as SklearnNotFittedError

    estimator, x = row.make(), row.values(5)
    uses: dict[str, Callable[[], Any]] = {
        "score": lambda: estimator.score(x),
        "log_prob": lambda: estimator.log_prob(x),
        "log_prob_steps": lambda: estimator.log_prob_steps(x),
        "predict": lambda: estimator.predict(x),
        "predictive": lambda: estimator.predictive(x),
        "forecast": lambda: estimator.forecast(2),
        "sample": lambda: estimator.sample(3),
        "initial_state": lambda: estimator.initial_state(),
        "filter": lambda: estimator.filter(x),
        "save": lambda: estimator.save("unused"),
        "params_": lambda: estimator.params_,
        "aic": lambda: estimator.aic,
    }
    for name, use in uses.items():
        try:
            use()
        except NotFittedError as error:
            assert isinstance(error, SklearnNotFittedError), f"{name}: not scikit-learn's NotFittedError"
            continue
        raise AssertionError(f"{name} of an unfitted estimator raises nothing")


def check_fit(row: Row) -> None:
    """``fit`` returns self, leaves its data and the global generators alone, and repeats with ``random_state``."""
    x, u = row.values(), row.inputs()
    before, torch_state = x.copy(), torch.get_rng_state()
    numpy_state: Any = np.random.get_state()
    estimator = row.make()
    assert estimator.fit(x, covariates=u) is estimator, "fit does not return self"
    estimator.forecast(2, covariates=row.inputs(2))
    assert_array_equal(x, before, "fit changes its data")
    after: Any = np.random.get_state()
    assert_array_equal(after[1], numpy_state[1], "the global generator of numpy was touched")
    assert torch.equal(torch.get_rng_state(), torch_state), "the global generator of torch was touched"
    assert isinstance(estimator.params_, xr.Dataset), "params_ is no Dataset"
    assert estimator.n_parameters_ >= 1 and estimator.n_features_in_ == row.n_variables
    assert isinstance(estimator.converged_, bool) and estimator.fit_seconds_ > 0
    assert np.isfinite([estimator.aic, estimator.bic, estimator.log_likelihood_]).all()
    _equal(estimator.log_prob(x, covariates=u), row.fitted.log_prob(x, covariates=u), "a second fit differs")


def check_scores(row: Row) -> None:
    """log_prob is the sum of log_prob_steps, score their mean over the scored values, predict has a row a row."""
    x, u, fitted = row.values(), row.inputs(), row.fitted
    steps = fitted.log_prob_steps(x, covariates=u)
    total = fitted.log_prob(x, covariates=u)
    assert total.ndim == 0 and steps.shape == (len(x),), f"shapes {total.shape} and {steps.shape}"
    assert int(np.isnan(steps).sum()) == row.start, f"{int(np.isnan(steps).sum())} steps are not scored"
    _equal(total, steps.sum(), "log_prob is not the sum of log_prob_steps")
    scored = (len(x) - row.start) * row.n_variables
    assert_allclose(fitted.score(x, covariates=u), float(total) / scored, rtol=1e-6, err_msg="score is not the mean")
    frozen = fitted.log_prob_steps(x, covariates=u, weights="frozen")
    if fitted.model_.n_draws == 1:
        _equal(frozen, steps, "frozen weights of one draw differ")
    predicted = fitted.predict(x, covariates=u)
    assert predicted.sizes["time"] == len(x), f"predict gives {dict(predicted.sizes)}"
    law = fitted.predictive(x, covariates=u)
    if fitted.model_.n_draws == 1:
        _equal(law.log_prob(x), steps, "predictive(X).log_prob(X) is not log_prob_steps")
    held = fitted.predictive(x, covariates=u, weights="frozen").log_prob(x)
    _equal(held, frozen, "predictive(X) with frozen weights is not log_prob_steps", _rtol(row))


def check_history(row: Row) -> None:
    """log p(whole) = log p(first part) + log p(rest | history), also behind the training data; an overlap raises."""
    x, u, fitted = row.values(seed=1), row.inputs(seed=1), row.fitted
    cut = 25
    part = [None, None] if u is None else [u[:cut], u[cut:]]
    first = fitted.log_prob(x[:cut], covariates=part[0])
    past = x[:cut] if u is None else ps.sequences(x[:cut], covariates=part[0])
    rest = fitted.log_prob(x[cut:], history=past, covariates=part[1])
    _equal(first + rest, fitted.log_prob(x, covariates=u), "log_prob does not add up over history")
    trained = np.concatenate([row.values(), x[:cut]])
    after = trained if u is None else ps.sequences(trained, covariates=np.concatenate([row.inputs(), u[:cut]]))
    first = fitted.log_prob(x[:cut], history=ps.TRAINING, covariates=part[0])
    rest = fitted.log_prob(x[cut:], history=after, covariates=part[1])
    whole = fitted.log_prob(x, history=ps.TRAINING, covariates=u)
    _equal(first + rest, whole, "a history that begins with the training data is not what follows them", _rtol(row))
    with_stamps = ps.sequences(_series(row, x))
    if u is None:
        try:
            fitted.log_prob(with_stamps, history=with_stamps)
        except HistoryError:
            return
        raise AssertionError("a history that overlaps the data raises no HistoryError")


def check_streaming(row: Row) -> None:
    """One step at a time equals the whole; states travel as bytes."""
    x, u, fitted = row.values(12, seed=2), row.inputs(12, seed=2), row.fitted
    state = fitted.initial_state()
    values = []
    for t in range(len(x)):
        u_t = None if u is None else u[t]
        law = fitted.predictive_at(state, covariates=u_t)
        values.append(float(law.log_prob(x[t : t + 1]).values.squeeze()))
        state = fitted.update(state, x[t], covariates=u_t)
    expected = fitted.log_prob_steps(x, covariates=u).values
    assert_allclose(values, expected, rtol=_rtol(row), atol=_rtol(row), err_msg="streaming is not log_prob_steps")
    again = fitted.state_from_bytes(state.to_bytes())
    for other in (again, fitted.filter(x, covariates=u)):
        _same_forecast(row, fitted.forecast(state=state, **_future(row)), fitted.forecast(state=other, **_future(row)))
    past = x if u is None else ps.sequences(x, covariates=u)
    if row.start < len(x):
        by_history = fitted.forecast(history=past, **_future(row))
        _same_forecast(row, fitted.forecast(state=state, **_future(row)), by_history)


def check_forecast(row: Row) -> None:
    """Forecasts continue the training data, are joint over the horizon, and repeat."""
    fitted, horizon = row.fitted, 3
    forecast = fitted.forecast(**_future(row))
    assert forecast.n_steps == horizon
    paths = forecast.sample(50, random_state=1)
    assert paths.sizes["path"] == 50 and paths.sizes["time"] == horizon
    _equal(paths, forecast.sample(50, random_state=1), "sample: one random_state, two results")
    y = row.values(horizon, seed=5)
    joint = forecast.log_prob(y, joint=True)
    u = row.inputs(horizon)
    conditional = fitted.log_prob(y, history=ps.TRAINING, covariates=u)
    _equal(joint, conditional, "log_prob(joint=True) is not log_prob(y, history=TRAINING)", _rtol(row))
    point = fitted.predict(horizon=horizon, covariates=u)
    assert point.sizes["time"] == horizon
    for wrong in (0, -1, 2.5, True, None):
        try:
            fitted.forecast(wrong)  # type: ignore[arg-type]
        except HorizonError:
            continue
        raise AssertionError(f"forecast({wrong!r}) raises no HorizonError")


def check_sample(row: Row) -> None:
    """Generation has the shape that was asked for, and repeats."""
    fitted, more = row.fitted, {"history": ps.TRAINING} if row.start else {}
    u = row.inputs(6)
    one = fitted.sample(6, covariates=u, random_state=3, **more)
    assert one.sizes["time"] == 6 and "sequence" not in one.dims
    _equal(one, fitted.sample(6, covariates=u, random_state=3, **more), "sample: one random_state, two results")
    if u is None:
        assert fitted.sample(6, n_sequences=2, random_state=3, **more).sizes["sequence"] == 2
    if row.start and not fitted.model_.starts_itself:
        try:
            fitted.sample(6)
        except HistoryError:
            return
        raise AssertionError("generation without the first values raises no HistoryError")


def check_storage(row: Row) -> None:
    """Pickle, deepcopy, save and load give the same likelihoods and forecasts, and all that the fit has found."""
    x, u, fitted = row.values(seed=3), row.inputs(seed=3), row.fitted
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.probseq"
        fitted.save(path)
        assert b"pickle" not in path.read_bytes()
        loaded = ps.load(path)
    for other in (loaded, pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert repr(other) == repr(fitted), f"{other!r} instead of {fitted!r}"
        _equal(other.log_prob(x, covariates=u), fitted.log_prob(x, covariates=u), "log_prob differs", 0.0)
        _same_forecast(row, other.forecast(**_future(row)), fitted.forecast(**_future(row)))
        xr.testing.assert_identical(other.params_, fitted.params_)
        assert (other.aic, other.n_parameters_) == (fitted.aic, fitted.n_parameters_)
        check_same_fit(other, fitted)


def check_same_fit(estimator: SequenceEstimator, other: SequenceEstimator) -> None:
    """Assert that two estimators show the same after their fits, exactly; of the training data their last stamps."""
    shown, expected = ({n: v for n, v in vars(e).items() if n.endswith("_")} for e in (estimator, other))
    assert shown.keys() == expected.keys(), f"attributes {sorted(shown.keys() ^ expected.keys())} of one fit only"
    for name in shown.keys() - {"model_", "training_", "training_state_"}:
        assert equal_values(shown[name], expected[name]), f"{name}: {shown[name]!r} instead of {expected[name]!r}"
    assert equal_values(estimator.model_.params, other.model_.params), "other parameters"
    assert torch.equal(estimator.model_.log_weights, other.model_.log_weights), "other weights of the draws"
    past, same = estimator.training_, other.training_
    assert (past is None) == (same is None), "one fit has training data"
    if past is not None and same is not None:
        assert (past.names, past.variables, past.freq) == (same.names, same.variables, same.freq), "other labels"
        assert all(a[-1:].equals(b[-1:]) for a, b in zip(past.index, same.index, strict=True)), "other stamps"
        states = [leaves_of(e.training_state_) for e in (estimator, other)]
        assert equal_values(*states), "another state at the end of the training data"


def check_y(row: Row) -> None:
    """``y`` is ignored with a warning only where it is 1-D and as long as X; otherwise it raises."""
    x, u = row.values(), row.inputs()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row.make().fit(x, np.zeros(len(x)), covariates=u)
    assert any(issubclass(w.category, DataWarning) for w in caught), "y is ignored without a warning"
    for name, wrong in (("lengths", [20, 20]), ("exog", np.zeros((len(x), 2))), ("frame", np.zeros((len(x), 1)))):
        estimator = row.make()
        try:
            estimator.fit(x, wrong, covariates=u)
        except DataError as error:
            assert "lengths=" in str(error) and "covariates=" in str(error), "the message does not name the remedy"
            assert not hasattr(estimator, "model_"), "half fitted"
            continue
        raise AssertionError(f"fit(X, {name}) vanishes silently")


def check_split_lengths(row: Row) -> None:
    """``lengths`` that do not add up to the rows raise, as happens when rows are split."""
    x = row.values()
    for lengths in ([len(x), 5], [len(x) - 1], [0, len(x)]):
        estimator = row.make()
        try:
            estimator.fit(x, lengths=lengths, covariates=row.inputs())
        except DataError:
            assert not hasattr(estimator, "model_"), "half fitted"
            continue
        raise AssertionError(f"lengths={lengths} for {len(x)} rows raise no DataError")


def check_failed_fit(row: Row) -> None:
    """A fit that raises leaves no fitted attribute, and says what came, what was expected and what to do."""
    for bad in (np.array([]), np.full(40, np.nan), np.array([np.inf] * 40), None, [], [["a"], 1.0]):
        estimator = row.make()
        try:
            estimator.fit(bad)
        except (DataError, ParameterError) as error:
            assert error.got and error.expected, "a message without got and expected"
            assert not hasattr(estimator, "model_"), "half fitted"
            continue
        raise AssertionError(f"fit({bad!r}) raises no DataError")


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        check_construction,
        check_unfitted,
        check_fit,
        check_scores,
        check_input_forms,
        check_ragged,
        check_coordinates,
        check_history,
        check_streaming,
        check_forecast,
        check_sample,
        check_storage,
        check_y,
        check_split_lengths,
        check_failed_fit,
    )
}


def estimator_checks(skip: Collection[str] = ()) -> list[tuple[str, Check]]:
    """The checks by name, for ``pytest.mark.parametrize``."""
    return [(name, check) for name, check in CHECKS.items() if name not in skip]


def check_estimator(row: Row, *, skip: Collection[str] = ()) -> None:
    """Run every check of an estimator.

    Parameters
    ----------
    row : Row
        The estimator and what data it takes.
    skip : names of checks that do not apply

    Raises
    ------
    AssertionError
        Naming what differs.
    """
    for _, check in estimator_checks((*skip, *row.skip)):
        check(row)


def _future(row: Row) -> dict[str, Any]:
    return {"horizon": 3, "covariates": row.inputs(3), "random_state": 0, "n_paths": 200}


def _same_forecast(row: Row, got: Any, expected: Any) -> None:
    one, two = ((f.probs() if f._backend.nominal else f.quantile([0.1, 0.5, 0.9])).values for f in (got, expected))
    assert_allclose(one, two, rtol=_rtol(row), atol=_rtol(row), err_msg="forecasts differ")


def _rtol(row: Row) -> float:
    return 1e-9 if row.fitted.model_.dtype == torch.float64 else 2e-4


def _equal(got: Any, expected: Any, message: str, rtol: float = 1e-6) -> None:
    assert_allclose(np.asarray(got), np.asarray(expected), rtol=rtol, atol=rtol, err_msg=message)


def _series(row: Row, x: np.ndarray) -> Any:
    import pandas as pd

    index = pd.date_range("2020-01-31", periods=len(x), freq="ME")
    return pd.DataFrame(x, index=index) if row.n_variables > 1 else pd.Series(x[:, 0], index=index)
