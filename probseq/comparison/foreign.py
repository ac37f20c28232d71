"""Forecasters from elsewhere in the table of a comparison: two methods are enough."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd

from probseq.comparison.evidence import LEVELS, Evidence, Measure, Numeric, score_numbers, uniforms
from probseq.data.sequences import Sequences
from probseq.errors import DataError, DataTypeError, ShapeError, UnsupportedError
from probseq.results.forecast import Forecast

__all__ = ["ForeignForecaster", "collect_foreign"]


@runtime_checkable
class ForeignForecaster(Protocol):
    """What a forecaster from elsewhere must do to stand in ``compare``.

    It need not derive from this class. ``compare`` asks for the next step after every beginning of the data, so a step
    costs one call of ``forecast``. A forecaster whose ``Forecast`` has no density (paths, quantiles) is compared by
    CRPS, pinball loss and coverage, one with a density by its log score, too.

    Examples
    --------
    >>> import numpy as np
    >>> import probseq as ps
    >>> class Drift:
    ...     def fit(self, y):
    ...         self.steps = np.diff(y)
    ...         return self
    ...
    ...     def forecast(self, horizon, history):
    ...         rng = np.random.default_rng(0)
    ...         steps = rng.choice(self.steps, size=(500, horizon))
    ...         return ps.Forecast.from_paths(history.iloc[-1] + steps.cumsum(1), like=history)
    ...
    >>> y = ps.datasets.lake_huron()
    >>> train, test = ps.split(y, horizon=30)
    >>> models = {"drift": Drift().fit(train.values), "arma": ps.ARMA((1, 0, 1)).fit(train)}
    >>> bool(ps.compare(models, test, history=train).table["crps"].notna().all())
    True
    """

    def fit(self, y: Any) -> Self:
        """Learn from data; called by the user, not by ``compare``."""
        ...

    def forecast(self, horizon: int, history: Any) -> Forecast:
        """The next ``horizon`` steps after ``history``.

        Parameters
        ----------
        horizon : int
        history : pandas Series, or DataFrame where there are several variables
            All values so far, with their stamps; NaN is missing.
        """
        ...


def collect_foreign(name: str, forecaster: ForeignForecaster, data: Sequences, past: Sequences | None) -> Evidence:
    """Score ``data`` after ``past`` step by step; the first value of a sequence without a past is only conditioned on.

    Raises
    ------
    UnsupportedError
        For tokens.
    DataTypeError, ShapeError
        If ``forecast`` gives something else than a ``Forecast`` of one step.
    DataError
        If it forecasts NaN.
    """
    if data.vocabulary is not None:
        raise UnsupportedError(
            got=f"the forecaster {name!r} for tokens", expected="numbers", remedy="Compare models of probseq on tokens."
        )
    joined = data if past is None else data.concat_history(past)
    before = joined.lengths - data.lengths
    n, t, k = data.values.shape
    log_prob, scored = np.full((n, t), np.nan), np.zeros((n, t, k), dtype=bool)
    crps, pinball, pit = (np.full((n, t, k), np.nan) for _ in range(3))
    inside = {level: np.zeros((n, t, k), dtype=bool) for level in LEVELS}
    measure, reason, u = Measure("none"), "", uniforms((n, t, k))
    for i in range(n):
        for s in range(int(data.lengths[i])):
            end = int(before[i]) + s
            seen = ~np.isnan(data.values[i, s])
            if end == 0 or not seen.any():
                continue
            forecast = _one_step(name, forecaster, joined, i, end)
            y = data.values[i : i + 1, s : s + 1]
            found = score_numbers(forecast, y, seen[None, None], u[i : i + 1, s : s + 1])
            if found is None:
                raise UnsupportedError(
                    got=f"a forecast of categories by {name!r}", expected="numbers", remedy="Compare numbers."
                )
            if (np.isnan(found.crps) & np.isnan(found.pinball))[0, 0, seen].any():
                raise DataError(
                    got=f"a forecast of NaN by {name!r} after {end} steps",
                    expected="a law of the next step",
                    remedy="Leave the forecaster out, or give it a longer history.",
                )
            scored[i, s] = seen
            crps[i, s], pinball[i, s], pit[i, s] = found.crps[0, 0], found.pinball[0, 0], found.pit[0, 0]
            for level in LEVELS:
                inside[level][i, s] = found.inside[level][0, 0]
            if reason:
                continue
            try:
                log_prob[i, s] = forecast._backend.log_prob(y)[0, 0]
                measure = _measure(forecast, data)
            except UnsupportedError:
                reason, measure = f"a forecast made of {forecast._backend.name} has no density", Measure("none")
                log_prob[:] = np.nan
    numeric = Numeric(None, crps, pinball, pit, inside, scored)
    return Evidence(name, data, measure, log_prob, scored, numeric, reason=reason)


def _one_step(name: str, forecaster: ForeignForecaster, joined: Sequences, i: int, end: int) -> Forecast:
    """The forecast of step ``end`` of sequence ``i`` from the steps before it."""
    values, stamps = joined.values[i, :end], joined.index[i][:end]
    history: pd.DataFrame | pd.Series
    if joined.n_variables > 1:
        history = pd.DataFrame(values.copy(), stamps, columns=list(joined.variables))
    else:
        history = pd.Series(values[:, 0].copy(), stamps, name=joined.name)
    try:
        forecast = forecaster.forecast(horizon=1, history=history)
    except Exception as error:
        error.add_note(f"In compare, from {name!r}.forecast(horizon=1, history=...) after {end} steps.")
        raise
    if not isinstance(forecast, Forecast):
        raise DataTypeError(
            got=f"{type(forecast).__name__} from {name!r}.forecast",
            expected="a ps.Forecast",
            remedy="Make one with ps.Forecast.from_paths or ps.Forecast.from_quantiles.",
        )
    if forecast._backend.shape != (1, 1, joined.n_variables):
        raise ShapeError(
            got=f"a forecast of shape {forecast._backend.shape} from {name!r}.forecast(horizon=1, ...)",
            expected=f"{(1, 1, joined.n_variables)}: sequence, time, variable",
            remedy="Return one step of one sequence.",
        )
    return forecast


def _measure(forecast: Forecast, data: Sequences) -> Measure:
    counted = forecast._backend.discrete_variables
    if counted.all():
        return Measure("counting")
    unit = str(data.attrs.get("units", ""))
    if not counted.any():
        return Measure("lebesgue", unit)
    return Measure(tuple("counting" if one else "lebesgue" for one in counted), unit)
