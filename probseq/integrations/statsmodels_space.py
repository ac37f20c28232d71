"""State-space results of statsmodels: their matrices, regressors, trends, start and data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences, sequences
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.state_space import StateSpaceModel
from probseq.integrations.statsmodels_native import native_model
from probseq.models.fixed_state_space import KnownSystem

__all__ = ["adopt_state_space", "labelled", "status_of"]

_DEGREE = 6
_ROUNDING = 1e-9


class Regression(NamedTuple):
    """exog (n, m), their names, and what they add to the values, (k, m), and drive in the states, (r, m) or None."""

    exog: np.ndarray
    names: list[str]
    coefficients: np.ndarray
    drive: np.ndarray | None


def adopt_state_space(results: Any, native: bool) -> SequenceEstimator:
    """The fitted model of ``MLEResults``; ``native`` prefers our own families, and an exact diffuse start."""
    model = results.model
    regression = _regression(results)
    data, status = _training(model, regression), status_of(results)
    if native and regression.drive is None and not results.fixed_params:
        own = native_model(results, regression.coefficients.ravel(), data, status)
        if own is not None:
            return own
    names, values = list(model.param_names), np.asarray(results.params, dtype=np.float64)
    free = [name not in results.fixed_params for name in names]
    covariance = _covariance(results, np.array(free))
    if results.filter_results.filter_concentrated:
        names, values = [*names, "sigma2"], np.append(values, results.filter_results.scale)
        free, covariance = [*free, True], None
    system = _system(results, regression, native, tuple(names), sum(free))
    return StateSpaceModel(system)._take(values, covariance, status, data)


def status_of(results: Any) -> str:
    """How the search for the parameters ended, "exact" where there was none."""
    found = getattr(results, "mle_retvals", None)
    if found is None:
        return "exact"
    return "converged" if not hasattr(found, "get") or found.get("converged", True) else "max_iter"


def labelled(
    values: np.ndarray, given: Any, index: pd.Index | None, exog: np.ndarray, exog_names: list[str], named: bool
) -> Sequences:
    """Values (n, k) under the names and in the form of the data that were given, at ``index``, beside covariates."""
    block: Any = values
    if isinstance(given, pd.DataFrame):
        block = pd.DataFrame(values, index, given.columns)
    elif isinstance(given, pd.Series) or (index is not None and values.shape[1] == 1):
        block = pd.Series(values[:, 0], index, name=getattr(given, "name", None))
    elif index is not None:
        block = pd.DataFrame(values, index)
    elif np.ndim(given) == 1:
        block = values[:, 0]
    inputs: Any = None
    if exog.shape[1]:
        inputs = pd.DataFrame(exog, index, exog_names) if named else exog
    return sequences(block, covariates=inputs)


def _training(model: Any, regression: Regression) -> Sequences:
    """The data of a fit, named and stamped as they were given."""
    values, given = np.asarray(model.endog, dtype=np.float64), model.data.orig_endog
    index = None if model._index is None or model._index_generated else model._index
    if index is None and isinstance(given, pd.Series | pd.DataFrame):
        index = given.index
    named = isinstance(model.data.orig_exog, pd.Series | pd.DataFrame)
    return labelled(values.reshape(len(values), -1), given, index, regression.exog, regression.names, named)


def _covariance(results: Any, free: np.ndarray) -> np.ndarray | None:
    """Of the estimates, zero for parameters that were fixed; None where statsmodels has none."""
    if not hasattr(results, "cov_params_default"):
        return None
    found = np.array(results.cov_params(), dtype=np.float64)
    found[~free], found[:, ~free] = 0.0, 0.0
    return found if np.isfinite(found).all() else None


def _regression(results: Any) -> Regression:
    """How regressors enter the four models that have them."""
    model, params, kind = results.model, np.asarray(results.params), type(results.model).__name__
    kinds = {cls.__name__ for cls in type(model).__mro__}
    k, r = model.k_endog, model.k_states
    m = int(getattr(model, "k_exog", 0) or 0) if kinds & {"SARIMAX", "VARMAX", "UnobservedComponents"} else 0
    if not m:
        if model.exog is not None and "SARIMAX" not in kinds:
            raise UnsupportedError(
                got=f"regressors in {kind}",
                expected="regressors in ARIMA, SARIMAX, VARMAX or UnobservedComponents",
                remedy="Adopt one of these.",
            )
        return Regression(np.zeros((model.nobs, 0)), [], np.zeros((k, 0)), None)
    if not model.mle_regression:
        raise UnsupportedError(
            got="mle_regression=False: coefficients of regressors as hidden states",
            expected="coefficients as parameters",
            remedy="Fit with mle_regression=True.",
        )
    exog, names = np.asarray(model.exog, dtype=np.float64)[:, -m:], [str(name) for name in model.exog_names[-m:]]
    if "VARMAX" in kinds:
        drive = np.zeros((r, m))
        drive[:k] = params[model._params_regression].reshape(k, m)
        return Regression(exog, names, np.zeros((k, m)), drive)
    if "SARIMAX" in kinds:  # in ARIMA its regressors are the trend, then those that were given
        last = model._k_trend + model._k_exog
        return Regression(exog, names, params[last - m : last].reshape(1, m), None)
    at = [model.param_names.index(f"beta.{name}") for name in model.exog_names[-m:]]
    return Regression(exog, names, params[at].reshape(1, m), None)


def _system(
    results: Any, regression: Regression, exact_diffuse: bool, names: tuple[str, ...], n_free: int
) -> KnownSystem:
    found = results.filter_results
    fixed = {}
    for name in ("design", "obs_cov", "transition", "selection", "state_cov"):
        matrix = np.asarray(getattr(found, name))
        if matrix.shape[-1] > 1 and not (matrix == matrix[..., :1]).all():
            raise UnsupportedError(
                got=f"a {name} matrix that changes in time",
                expected="matrices that stay the same",
                remedy="Fit without time-varying coefficients.",
            )
        fixed[name] = np.array(matrix[..., 0], dtype=np.float64)
    r, n = found.k_states, found.nobs
    offset = _over_time(found.obs_intercept, n) - regression.coefficients @ regression.exog.T
    drift = _over_time(found.state_intercept, n)
    if regression.drive is not None:  # the last column waits for regressors of the future
        drift = drift[:, : n - 1] - regression.drive @ regression.exog[1:].T
    d, c = _in_time(offset, "obs_intercept"), _in_time(drift, "state_intercept")
    mean, cov, diffuse = _start(found, exact_diffuse)
    spread = fixed["selection"] @ fixed["state_cov"] @ fixed["selection"].T
    system = KnownSystem(
        name=type(results.model).__name__,
        design=fixed["design"],
        offset=d[:, 0].copy(),
        noise=fixed["obs_cov"],
        transition=fixed["transition"],
        drift=c[:, 0].copy(),
        spread=0.5 * (spread + spread.T),
        mean=mean,
        cov=0.5 * (cov + cov.T),
        diffuse=diffuse,
        coefficients=np.ascontiguousarray(regression.coefficients),
        drive=regression.drive,
        burn=0 if exact_diffuse else int(results.loglikelihood_burn),
        parameters=names,
        n_free=n_free,
        states=tuple(str(name) for name in results.model.state_names)[:r],
    )
    return system if d.shape[1] == c.shape[1] == 1 else _with_clock(system, d, c)


def _over_time(intercept: np.ndarray, n: int) -> np.ndarray:
    """(., n), also where one column stands for all steps."""
    array = np.asarray(intercept, dtype=np.float64)
    return np.broadcast_to(array, (array.shape[0], n)) if array.shape[1] == 1 else array


def _in_time(values: np.ndarray, name: str) -> np.ndarray:
    """Coefficients (., q) of the polynomials binomial(t, j), j < q, that values (., n) are, t = 0, 1, ...

    Raises
    ------
    UnsupportedError
        For values that are no polynomial of a small degree.
    """
    n = values.shape[1]
    if (values == values[:, :1]).all():
        return values[:, :1]
    basis = np.ones((n, 1))
    scale = np.abs(values).max()
    while basis.shape[1] <= min(_DEGREE, n - 2):
        degree = basis.shape[1]
        basis = np.column_stack([basis, basis[:, -1] * (np.arange(n) - degree + 1) / degree])
        size = np.abs(basis).max(0)
        found = np.linalg.lstsq(basis / size, values.T, rcond=None)[0]
        if np.abs(values.T - basis / size @ found).max() <= _ROUNDING * scale:
            coefficients: np.ndarray = (found / size[:, None]).T
            return coefficients
    raise UnsupportedError(
        got=f"a {name} that changes in time and is no polynomial trend",
        expected="trends and regressors of ARIMA, SARIMAX, VARMAX or UnobservedComponents",
        remedy="Fit without them, or adopt one of these models.",
    )


def _start(found: Any, exact_diffuse: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance and infinite part of the first state."""
    mean = np.array(found.initial_state, dtype=np.float64)
    cov = np.array(found.initial_state_cov, dtype=np.float64)
    held = found.initial_diffuse_state_cov
    diffuse = np.zeros_like(cov) if held is None else np.array(held, dtype=np.float64)
    if exact_diffuse:
        for i in _approximate(found.initialization, np.arange(len(mean))):
            cov[i], cov[:, i] = 0.0, 0.0
            diffuse[i, i] = 1.0
    return mean, cov, diffuse


def _approximate(initialization: Any, states: np.ndarray) -> list[int]:
    """The states whose start is approximately diffuse."""
    if initialization is None:
        return []
    if initialization.initialization_type is not None:
        return list(states) if initialization.initialization_type == "approximate_diffuse" else []
    return [i for where, block in initialization.blocks.items() for i in _approximate(block, states[(where,)])]


def _with_clock(system: KnownSystem, offset: np.ndarray, drift: np.ndarray) -> KnownSystem:
    """The system with further states binomial(t, j), which carry intercepts that are polynomials of the step t."""
    q, r = max(offset.shape[1], drift.shape[1]), len(system.mean)
    k = system.design.shape[0]

    def bordered(matrix: np.ndarray) -> np.ndarray:
        return np.pad(matrix, (0, q))

    transition = bordered(system.transition)
    transition[:r, r : r + drift.shape[1]] = drift
    transition[r:, r:] = np.eye(q) + np.eye(q, k=-1)
    design = np.pad(system.design, ((0, 0), (0, q)))
    design[:, r : r + offset.shape[1]] = offset
    return KnownSystem(
        **{
            **vars(system),
            "design": design,
            "offset": np.zeros(k),
            "transition": transition,
            "drift": np.zeros(r + q),
            "spread": bordered(system.spread),
            "mean": np.concatenate([system.mean, np.eye(q)[0]]),
            "cov": bordered(system.cov),
            "diffuse": bordered(system.diffuse),
            "drive": None if system.drive is None else np.pad(system.drive, ((0, q), (0, 0))),
        }
    )
