"""Markov-switching results of statsmodels: their regimes, coefficients and data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probseq.data.sequences import Sequences
from probseq.errors import UnsupportedError
from probseq.estimators.regimes import RegimeModel
from probseq.integrations.statsmodels_space import labelled, status_of
from probseq.models.fixed_regimes import KnownRegimes

__all__ = ["adopt_regimes"]


def adopt_regimes(results: Any) -> RegimeModel:
    """The fitted model of ``MarkovSwitchingResults``."""
    model, params = results.model, np.asarray(results.params, dtype=np.float64)
    n, order = int(model.k_regimes), int(model.order)
    if model.tvtp:
        raise _unsupported("exog_tvtp: transitions that covariates drive", "transitions that stay the same")
    if model.trend not in ("n", "c"):
        raise _unsupported(f"trend={model.trend!r} that switches", 'trend="c" or "n"')
    n_inputs = 0 if model.exog is None else model.exog.shape[1] - model.k_trend
    if n_inputs and order:
        raise _unsupported("regressors of an autoregression, whose earlier values enter too", "no regressors")
    every = np.array([params[model.parameters[i, "exog"]] for i in range(n)]) if model._k_exog else np.zeros((n, 0))
    known = KnownRegimes(
        name=type(model).__name__,
        n_regimes=n,
        order=order,
        initial=_initial(results),
        transition=_shares(results.regime_transition[:, :, 0].T),
        mean=every[:, 0].copy() if model.k_trend else np.zeros(n),
        autoregression=np.array([params[model.parameters[i, "autoregressive"]] for i in range(n)])
        if order
        else np.zeros((n, 0)),
        coefficients=every[:, model.k_trend :].copy(),
        variance=np.broadcast_to(np.ravel(params[model.parameters["variance"]]), (n,)).copy(),
        # Where variances switch statsmodels lines them up with the last regime but one that a step depends on.
        lag=max(order - 1, 0),
        parameters=tuple(str(name) for name in model.param_names),
    )
    return RegimeModel(known)._take(params, status_of(results), _training(model, order, n_inputs))


def _unsupported(got: str, expected: str) -> UnsupportedError:
    return UnsupportedError(got=got, expected=expected, remedy="Fit without it, or use ps.HMM.")


def _initial(results: Any) -> np.ndarray:
    """p(S_1): statsmodels' probabilities are those of one step before the first value."""
    before = np.asarray(results.initial_probabilities, dtype=np.float64)
    initial: np.ndarray = _shares(before) @ _shares(results.regime_transition[:, :, 0].T)
    return initial


def _shares(probs: np.ndarray) -> np.ndarray:
    array = np.clip(np.asarray(probs, dtype=np.float64), 0.0, None)
    total: np.ndarray = array / array.sum(-1, keepdims=True)
    return total


def _training(model: Any, order: int, n_inputs: int) -> Sequences:
    """All values of the fit, also the first ones, which statsmodels cuts off."""
    values = np.asarray(model.orig_endog if order else model.endog, dtype=np.float64).reshape(-1, 1)
    given, index = model.data.orig_endog, model._index
    if isinstance(given, pd.Series | pd.DataFrame) and len(given) == len(values):
        index = given.index if index is None or model._index_generated or order else index
    elif index is None or model._index_generated:
        index = None
    elif order:
        fill = pd.period_range if isinstance(index, pd.PeriodIndex) else pd.date_range
        index = fill(end=index[-1], periods=len(values), freq=index.freq)
    names = [] if not n_inputs else [str(name) for name in model.exog_names[-n_inputs:]]
    exog = np.zeros((len(values), 0)) if not n_inputs else np.asarray(model.exog, dtype=np.float64)[:, -n_inputs:]
    return labelled(values, given, index, exog, names, isinstance(model.data.orig_exog, pd.Series | pd.DataFrame))
