"""The main job: fit several models to one series, score them on what was held out, forecast it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from scipy import special
from sklearn.base import clone

from probseq._random import RandomState
from probseq.comparison.compare import Comparison, compare
from probseq.data.sequences import sequences
from probseq.data.splits import split
from probseq.errors import ProbseqWarning
from probseq.estimators.base import TRAINING, SequenceEstimator
from probseq.estimators.hmm import HMM
from probseq.inference.base import Progress
from probseq.report.defaults import Profile, choose_horizon, choose_models, describe
from probseq.report.families import family_of
from probseq.report.source import Source
from probseq.results.forecast import Forecast

__all__ = ["Study", "forecast_series", "run_study", "study_fitted"]

Watch = Callable[[str, SequenceEstimator], Progress]
"""Called before a model is fitted; returns what its fit calls as it goes on."""

_FARTHEST = 8.2
"""float64 has no probability closer to one than that of a normal value below this."""


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
    chosen : bool
        Whether the models were chosen by the data (``defaults``).
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
    chosen: bool = True

    @property
    def horizon(self) -> int:
        return int(self.test.sizes["time"])

    @property
    def ranked(self) -> list[str]:
        """Names of the models, best first."""
        return [str(name) for name in self.comparison.table.index]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the values of the whole series and its name; equal data in another form have the same."""
        return sequences(self.source.series).fingerprint()

    def what(self, name: str) -> str:
        """What kind of model has this name, in words."""
        return family_of(self.models[name]).words

    def counts(self, name: str) -> bool:
        """Whether a model gives probabilities of whole numbers, so that few intervals hold just what they promise."""
        return self.comparison._of(name).measure.base not in ("lebesgue", "none")

    def crps(self, name: str) -> float:
        """Mean CRPS of the forecast made once, at the end of the training data, over all held-out steps."""
        return float(np.nanmean(self.forecasts[name].crps(self.test).values))

    def residuals(self, name: str) -> np.ndarray:
        """z_t = Phi^-1(PIT_t) of the one-step predictions, (time,): independent standard normal if the model is right.

        NaN where nothing is scored; values that the model held for impossible are kept finite.
        """
        own = self.comparison._of(name).numeric
        if own is None:
            return np.zeros(0)
        with np.errstate(divide="ignore"):
            z = special.ndtri(np.where(own.counted[0, :, 0], own.pit[0, :, 0], np.nan))
        return np.asarray(np.clip(z, -_FARTHEST, _FARTHEST), float)

    def code(self, name: str) -> str:
        """The Python expression that constructs a model."""
        text = " ".join(repr(self.models[name]).split())
        return re.sub(r"\b([A-Z]\w*\()", r"ps.\1", text)


def run_study(
    source: Source,
    *,
    horizon: int | None = None,
    models: Sequence[str] | Mapping[str, SequenceEstimator] | None = None,
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
    models : names, dict of name -> estimator, or None
        Which of ``defaults.MODELS``, or estimators of which clones are fitted; None chooses by the data.
    period : int or None
        Steps in a season, 1 for none; None finds out.
    seed : int
    watch : callable or None
        For progress bars.
    """
    series = source.series
    train, test = split(series, horizon=choose_horizon(series.size, source.freq) if horizon is None else horizon)
    profile = describe(train.values, source.freq, period)
    own = isinstance(models, Mapping)
    chosen = (
        {str(name): clone(model) for name, model in models.items()}
        if isinstance(models, Mapping)
        else choose_models(profile, models, seed)
    )
    said: dict[str, tuple[str, ...]] = {}
    for name, model in chosen.items():
        said[name] = fit(model, train, None if watch is None else watch(name, model))
    said = {name: found for name, found in said.items() if found}
    return _study(source, profile, train, test, chosen, history=TRAINING, warnings=said, seed=seed, chosen=not own)


def study_fitted(
    source: Source, train: xr.DataArray, test: xr.DataArray, models: Mapping[str, SequenceEstimator]
) -> Study:
    """Study models that have been fitted before, on a series that is ``train`` followed by ``test``."""
    profile = describe(train.values, source.freq)
    named = {str(name): model for name, model in models.items()}
    return _study(source, profile, train, test, named, history=train, warnings={}, seed=0, chosen=False)


def _study(
    source: Source,
    profile: Profile,
    train: xr.DataArray,
    test: xr.DataArray,
    models: dict[str, SequenceEstimator],
    *,
    history: Any,
    **rest: Any,
) -> Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        comparison = compare(models, test, history=train)
        steps = int(test.sizes["time"])
        forecasts = {name: model.forecast(steps, history=history) for name, model in models.items()}
        chain = next((model for model in models.values() if isinstance(model, HMM)), None)
        states = None if chain is None else chain.decode(source.series)
        smoothed = None if chain is None else chain.smooth(source.series)
    return Study(source, profile, train, test, models, comparison, forecasts, states, smoothed, **rest)


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
