"""Forecasts of forecasters from elsewhere, made one by one from every origin."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone

from probseq.comparison.foreign import ForeignForecaster
from probseq.comparison.held_forecasts import HeldForecasts, Question, note_numbers
from probseq.comparison.origins import Origins
from probseq.data.sequences import Sequences
from probseq.errors import DataError, DataTypeError, ShapeError, UnsupportedError
from probseq.results.forecast import Forecast

__all__ = ["forecast_one_by_one"]


def forecast_one_by_one(
    forecaster: ForeignForecaster, data: Sequences, origins: Origins, group: np.ndarray, asked: Question
) -> HeldForecasts:
    """Fit a copy to what the first origin of a group knows of each sequence, and ask it at every origin.

    Raises
    ------
    UnsupportedError
        For tokens.
    DataTypeError, ShapeError
        If ``forecast`` gives something else than a ``Forecast`` of the horizon.
    """
    if data.vocabulary is not None:
        raise UnsupportedError(
            got=f"{type(forecaster).__name__} for tokens", expected="numbers", remedy="Use models of probseq on tokens."
        )
    h, k = asked.horizon, data.n_variables
    answers, method = HeldForecasts.blank(len(group), data.n_sequences, k, asked), ""
    cuts, valid = origins.cuts[group], origins.valid[group]
    truth = origins.truth(data, h)[group]
    for i in range(data.n_sequences):
        if not valid[:, i].any():
            continue
        own = clone(forecaster) if isinstance(forecaster, BaseEstimator) else deepcopy(forecaster)
        first = int(cuts[np.argmax(valid[:, i]), i])
        own.fit(_history(data, i, 0 if asked.window is None else max(0, first - asked.window), first))
        for j in np.flatnonzero(valid[:, i]):
            found = _asked(own, data, i, int(cuts[j, i]), h)
            y = truth[j, :, i][None]
            method, at = found.method, (np.array([j]), np.array([i]))
            try:
                answers.log_score[j, :, i] = found._backend.log_prob(y)[0]
            except UnsupportedError:
                pass  # paths and quantiles have no density
            answers.joint_log_score[j, i] = _joint(found, y)
            there = (cuts[j, i] + np.arange(h) < data.lengths[i])[None]
            note_numbers(found._backend, y, there, asked, answers, *at)
    return HeldForecasts.from_arrays({**answers.arrays(), "method": np.asarray(method)})


def _joint(found: Forecast, y: np.ndarray) -> float:
    """Nats of all steps together, NaN where the forecast does not know them or nothing came."""
    if found._joint is None or np.isnan(y).all():
        return np.nan
    try:
        return float(found._joint.log_prob(y)[0])
    except (UnsupportedError, DataError):
        return np.nan


def _history(data: Sequences, i: int, start: int, stop: int) -> pd.Series | pd.DataFrame:
    """Steps ``start:stop`` of sequence ``i`` with their stamps."""
    values, stamps = data.values[i, start:stop].copy(), data.index[i][start:stop]
    if data.n_variables > 1:
        return pd.DataFrame(values, stamps, columns=list(data.variables))
    return pd.Series(values[:, 0], stamps, name=data.name)


def _asked(own: ForeignForecaster, data: Sequences, i: int, stop: int, horizon: int) -> Forecast:
    found = own.forecast(horizon=horizon, history=_history(data, i, 0, stop))
    if not isinstance(found, Forecast):
        raise DataTypeError(
            got=f"{type(found).__name__} from {type(own).__name__}.forecast",
            expected="a ps.Forecast",
            remedy="Make one with ps.Forecast.from_paths or ps.Forecast.from_quantiles.",
        )
    if found._backend.shape != (1, horizon, data.n_variables):
        raise ShapeError(
            got=f"a forecast of shape {found._backend.shape} from {type(own).__name__} for horizon={horizon}",
            expected=f"{(1, horizon, data.n_variables)}: sequence, time, variable",
            remedy="Return the whole horizon of one sequence.",
        )
    return found
