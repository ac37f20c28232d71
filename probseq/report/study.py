"""The main job: fit several models to one series, score them on what was held out, forecast it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from probseq._random import RandomState
from probseq.comparison.compare import Comparison, compare
from probseq.data.splits import split
from probseq.errors import ProbseqWarning
from probseq.estimators.base import TRAINING, SequenceEstimator
from probseq.estimators.hmm import HMM
from probseq.inference.base import Progress
from probseq.report.defaults import Profile, choose_horizon, choose_models, describe
from probseq.report.source import Source
from probseq.results.forecast import Forecast

__all__ = ["Study", "forecast_series", "run_study"]

Watch = Callable[[str, SequenceEstimator], Progress]
"""Called before a model is fitted; returns what its fit calls as it goes on."""


@dataclass(frozen=True)
class Study:
    """Everything that the report shows.

    Parameters
    ----------
    source : Source
    profile : Profile
        What the choice of models rests on.
    train, test : DataArray (time,)
    models : dict of name -> fitted estimator
    comparison : Comparison
        One step ahead over the held-out values.
    forecasts : dict of name -> Forecast
        All held-out steps at once, from the end of the training data.
    states, smoothed : DataArray or None
        Of the first hidden Markov model: the most probable path over the whole series, and p(state_t | all data).
    warnings : dict of name -> tuple of str
        What the fits warned of.
    seed : int
    """

    source: Source
    profile: Profile
    train: xr.DataArray
    test: xr.DataArray
    models: dict[str, SequenceEstimator]
    comparison: Comparison
    forecasts: dict[str, Forecast]
    states: xr.DataArray | None
    smoothed: xr.DataArray | None
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seed: int = 0

    @property
    def horizon(self) -> int:
        return int(self.test.sizes["time"])

    def crps(self, name: str) -> float:
        """Mean CRPS of the forecast made once, at the end of the training data, over all held-out steps."""
        return float(np.nanmean(self.forecasts[name].crps(self.test).values))

    def code(self, name: str) -> str:
        """The Python expression that constructs a model."""
        text = " ".join(repr(self.models[name]).split())
        return re.sub(r"\b([A-Z]\w*\()", r"ps.\1", text)


def run_study(
    source: Source,
    *,
    horizon: int | None = None,
    models: Sequence[str] | None = None,
    period: int | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Study:
    """Run the main job on a series.

    Parameters
    ----------
    source : Source
    horizon : int or None
        Steps to hold out; None chooses (``choose_horizon``).
    models : names, or None
        Which of ``defaults.MODELS``; None chooses by the data.
    period : int or None
        Steps in a season, 1 for none; None finds out.
    seed : int
    watch : callable or None
        For progress bars.
    """
    series = source.series
    train, test = split(series, horizon=choose_horizon(series.size, source.freq) if horizon is None else horizon)
    profile = describe(train.values, source.freq, period)
    chosen = choose_models(profile, models, seed)
    said: dict[str, tuple[str, ...]] = {}
    for name, model in chosen.items():
        said[name] = fit(model, train, None if watch is None else watch(name, model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        comparison = compare(chosen, test, history=train)
        steps = int(test.sizes["time"])
        forecasts = {name: model.forecast(steps, history=TRAINING) for name, model in chosen.items()}
        chain = next((model for model in chosen.values() if isinstance(model, HMM)), None)
        states = None if chain is None else chain.decode(series)
        smoothed = None if chain is None else chain.smooth(series)
    said = {name: found for name, found in said.items() if found}
    return Study(source, profile, train, test, chosen, comparison, forecasts, states, smoothed, said, seed)


def fit(model: SequenceEstimator, data: xr.DataArray, progress: Progress | None = None) -> tuple[str, ...]:
    """Fit a model in place; what it warned of, for people."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data, progress=progress)
    return tuple(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, ProbseqWarning)))


def forecast_series(
    source: Source,
    name: str,
    horizon: int,
    *,
    period: int | None = None,
    seed: RandomState = 0,
    watch: Watch | None = None,
) -> tuple[SequenceEstimator, Forecast, tuple[str, ...]]:
    """Fit one model to a whole series and forecast what follows; also what the fit and the forecast warned of."""
    profile = describe(source.series.values, source.freq, period)
    model = choose_models(profile, [name], seed if isinstance(seed, int) else 0)[name]
    said = fit(model, source.series, None if watch is None else watch(name, model))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = model.forecast(horizon)
    more = (str(w.message) for w in caught if issubclass(w.category, ProbseqWarning))
    return model, found, (*said, *more)
