"""Forecasters of sktime in the table of a comparison."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from probseq.data.sequences import sequences
from probseq.data.timeindex import infer_step
from probseq.distributions.gaussian import DiagonalNormal
from probseq.errors import DataError, HistoryError, NotFittedError
from probseq.results.backends import LawBackend
from probseq.results.construct import labels_for
from probseq.results.forecast import Forecast

__all__ = ["ForeignSktime"]

_LEVELS = [0.001, 0.005, 0.01, *np.round(np.arange(0.025, 0.98, 0.025), 3).tolist(), 0.99, 0.995, 0.999]
# How sktime says that an update has left a forecaster as it was.
_NOT_TAKEN = "NotImplementedWarning"

Table = pd.DataFrame | pd.Series


class ForeignSktime:
    """A forecaster of sktime with the two methods that ``compare`` and ``backtest`` ask for; see ``from_sktime``."""

    def __init__(self, forecaster: Any, refit: bool = True, normal: bool = False) -> None:
        self.forecaster, self.refit, self.normal = forecaster, refit, normal
        self._fitted: Any = forecaster if forecaster.is_fitted else None
        self._running: Any = None
        self._seen: Table | None = None

    def __repr__(self) -> str:
        return f"ForeignSktime({self.forecaster!r})"

    def fit(self, y: Any) -> Self:
        """Fit a copy of the forecaster to one sequence in any form."""
        data = sequences(y)
        if data.n_sequences > 1 or data.vocabulary is not None:
            raise DataError(
                got="text" if data.vocabulary is not None else f"{data.n_sequences} sequences",
                expected="one sequence of numbers",
                remedy="Fit one forecaster a sequence.",
            )
        values, stamps = data.values[0, : data.lengths[0]], data.index[0]
        table: Table = pd.DataFrame(values.copy(), stamps, columns=list(data.variables))
        if data.n_variables == 1:
            table = pd.Series(values[:, 0].copy(), stamps, name=data.name)
        self._fitted, self._seen = self._fitted_to(_by_period(table)), None
        return self

    def forecast(self, horizon: int, history: pd.DataFrame | pd.Series) -> Forecast:
        """The next ``horizon`` steps after ``history``: a normal law, or quantiles.

        Raises
        ------
        NotFittedError
            Before ``fit``, where the forecaster is not to be fitted anew.
        DataError
            For missing values that the forecaster does not take.
        HistoryError
            For a history without the end of the data that the forecaster was fitted to, or one that it cannot take in.
        """
        dated = not self.refit and self._fitted is not None and isinstance(self._fitted.cutoff, pd.DatetimeIndex)
        past = _with_step(history) if dated else _by_period(history)
        if past.isna().to_numpy().any() and not self.forecaster.get_tag("capability:missing_values"):
            raise DataError(
                got=f"missing values for {type(self.forecaster).__name__}",
                expected="none: its tag capability:missing_values says so",
                remedy="Put an Imputer of sktime before it.",
            )
        at, steps = self._fitted_to(past) if self.refit else self._moved_to(past), np.arange(1, horizon + 1)
        with _without_news():
            if self.normal:
                return _normal(at.predict(fh=steps), at.predict_var(fh=steps), history)
            found = at.predict_quantiles(fh=steps, alpha=_LEVELS)
        values = found.to_numpy(dtype=float).reshape(horizon, -1, len(_LEVELS))
        return Forecast.from_quantiles(_LEVELS, values, like=history)

    def _fitted_to(self, past: Table) -> Any:
        with _without_news():
            return self.forecaster.clone().fit(past)

    def _moved_to(self, past: Table) -> Any:
        """The forecaster after ``past``, its parameters as they are; it goes on from the last question if it can."""
        if self._fitted is None:
            raise NotFittedError(
                got=f"an unfitted {type(self.forecaster).__name__}",
                expected="a fitted one",
                remedy="Call fit(train), or take refit=True.",
            )
        if self._seen is None or not _begins_with(past, self._seen):
            self._running = deepcopy(self._fitted)
        end = self._running.cutoff[0]
        if end not in past.index:
            raise HistoryError(
                got=f"a history without {end}, where the data end that the forecaster was fitted to",
                expected="these data and what follows them",
                remedy="Pass history=train, or take refit=True.",
            )
        new = past[past.index > end]
        if len(new):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                warnings.simplefilter("ignore", FutureWarning)
                self._running.update(new, update_params=False)
            _pass_on(caught, type(self._running).__name__)
        self._seen = past
        return self._running


def _begins_with(past: Table, first: Table) -> bool:
    return pd.DataFrame(past).iloc[: len(first)].equals(pd.DataFrame(first))


def _with_step(past: Table) -> Table:
    """The past with the frequency of its dates, which sktime asks for."""
    if isinstance(past.index, pd.DatetimeIndex) and past.index.freq is None:
        freq = infer_step(past.index)
        if isinstance(freq, str):
            return past.set_axis(pd.DatetimeIndex(past.index, freq=freq))
    return past


def _by_period(past: Table) -> Table:
    """The past by periods where its dates have some: seasons of dates such as firsts of months fail in sktime."""
    past = _with_step(past)
    if isinstance(past.index, pd.DatetimeIndex) and past.index.freq is not None and past.index.tz is None:
        try:
            return past.set_axis(past.index.to_period())
        except (ValueError, AttributeError):  # a step that is no period, such as one of business hours
            return past
    return past


def _normal(mean: Table, variance: Table, history: Table) -> Forecast:
    """Normal laws (1, t, k) with the means and variances that were forecast."""
    loc, square = (np.array(one, dtype=float).reshape(1, len(one), -1) for one in (mean, variance))
    labels, index = labels_for(loc, history)
    law = DiagonalNormal(loc=torch.from_numpy(loc), scale=torch.from_numpy(np.sqrt(square)))
    return Forecast(LawBackend(law), labels, index, history=labels, future=True)


@contextmanager
def _without_news() -> Iterator[None]:
    """Without what sktime announces of its next versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _pass_on(caught: list[warnings.WarningMessage], name: str) -> None:
    """Warnings of an update; one that says that nothing happened is an error."""
    for one in caught:
        if _NOT_TAKEN in str(one.message):
            raise HistoryError(
                got=f"a {name}, whose update(update_params=False) takes in no new values",
                expected="a forecaster that goes on after what it was fitted to",
                remedy="Take refit=True.",
            )
        warnings.warn(one.message, one.category, stacklevel=4)
