"""Which models the main job fits to a series, and how it cuts the series: a few plain rules.

1. *Scale.* Values that are all positive are modelled on the log scale, where growth is a straight line and swings keep
   their size. Data with zeros or negative values stay as they are.
2. *Counts.* Whole numbers from 0 to 100 are counts: the hidden Markov model, the network and the independent baseline
   give Poisson probabilities. ARMA and the walks still give densities, whose log scores are not comparable; they are
   judged by CRPS.
3. *Wandering.* A series wanders when its steps have less than a quarter of its variance (an autocorrelation above
   7/8 at lag one). It has no fixed level for states to sit at, so the hidden Markov model sees its differences and
   ARMA differences it once. With values missing inside only ARMA differences, as only it can do so exactly.
4. *Season.* The calendar suggests a period (12 for months, 4 for quarters, 7 for days, 52 for weeks, 24 for hours). It
   is used if two whole seasons can be fitted and the steps of the series repeat: their autocorrelation one period apart
   is at least 0.3. A period that the user gives is always used.
5. *Held out.* Two years of monthly data, else a sixth of the series, at most 100 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probseq.distributions.emissions import Poisson
from probseq.errors import ParameterError, ShapeError
from probseq.estimators.arma import ARMA
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.baseline import IID, RandomWalk, SeasonalNaive
from probseq.estimators.hmm import HMM
from probseq.estimators.recurrent import LSTM
from probseq.inference.variational import MeanField
from probseq.models.transforms import Difference, Log

__all__ = ["MODELS", "Profile", "choose_horizon", "choose_models", "describe"]

MODELS = {
    "hmm": "hidden Markov model",
    "arma": "ARMA model",
    "lstm": "Bayesian LSTM",
    "rw": "random walk",
    "snaive": "seasonal naive",
    "iid": "independent values",
}
"""Short names of the models that the main job knows."""

_PERIODS = {"M": 12, "Q": 4, "D": 7, "B": 5, "W": 52, "H": 24}
_LARGEST_COUNT, _WANDERING, _SEASONAL, _FEWEST = 100, 0.25, 0.3, 8


@dataclass(frozen=True)
class Profile:
    """What the choice of models rests on.

    Parameters
    ----------
    n_steps : int
    positive, counts, wanders, gaps : bool
        All values above zero; small whole numbers; no fixed level; values missing inside.
    period : int or None
        Steps in a season.
    """

    n_steps: int
    positive: bool
    counts: bool
    wanders: bool
    gaps: bool
    period: int | None


def describe(values: np.ndarray, freq: Any = None, period: int | None = None) -> Profile:
    """Look at a series (time,) of numbers, NaN = missing.

    Parameters
    ----------
    values : array (time,)
    freq : pandas frequency, number or None
        Step of its time index.
    period : int or None
        The user's own word: 1 or 0 for no season, None to find out.

    Raises
    ------
    ShapeError
        If there are too few values to fit anything.
    """
    seen = values[~np.isnan(values)]
    if len(seen) < _FEWEST:
        raise ShapeError(
            got=f"{len(seen)} values to fit",
            expected=f"at least {_FEWEST}",
            remedy="Use a longer series, or a smaller --horizon.",
        )
    if len(np.unique(seen)) == 1:
        raise ShapeError(
            got=f"a constant series, {seen[0]:g} at every step to fit",
            expected="values that vary before the held-out ones",
            remedy="Check the column, or hold fewer steps out.",
        )
    counts = bool((seen >= 0).all() and (seen == np.round(seen)).all() and seen.max() <= _LARGEST_COUNT)
    positive = bool((seen > 0).all()) and not counts
    scaled = np.log(values) if positive else values
    if period is not None:
        if period < 0 or 2 * period > len(values):
            raise ParameterError(
                got=f"--period {period} for {len(values)} steps to fit", expected="a period of which two fit in"
            )
        season = period if period > 1 else None
    else:
        suggested = _calendar_period(freq)
        season = suggested if suggested and _repeats(scaled, suggested) else None
    wanders = float(np.nanvar(np.diff(scaled))) < _WANDERING * float(np.nanvar(scaled))
    return Profile(len(values), positive, counts, wanders, bool(np.isnan(values).any()), season)


def choose_horizon(n_steps: int, freq: Any = None) -> int:
    """How many steps to hold out when the user does not say."""
    if _calendar_period(freq) == 12 and n_steps >= 72:
        return 24
    return max(1, min(n_steps // 6, 100))


def choose_models(
    profile: Profile, names: Sequence[str] | None = None, random_state: int = 0
) -> dict[str, SequenceEstimator]:
    """The estimators by short name, not fitted; see the rules of this module.

    Raises
    ------
    ParameterError
        For a name that is not known, or a seasonal model without a period.
    """
    wanted = list(names) if names else [n for n in MODELS if n != "iid" and (n != "snaive" or profile.period)]
    if not names and profile.counts:
        wanted.append("iid")
    unknown = [name for name in wanted if name not in MODELS]
    if unknown:
        raise ParameterError(
            got=f"the model {unknown[0]!r}",
            expected=f"one or several of {','.join(MODELS)}",
            remedy="Separate them by commas, without spaces.",
        )
    return {name: _model(name, profile, random_state) for name in dict.fromkeys(wanted)}


def _model(name: str, profile: Profile, seed: int) -> SequenceEstimator:
    log = [Log()] if profile.positive else []
    scale: Any = log[0] if log else None
    period = profile.period
    if name == "hmm":
        if profile.counts:
            return HMM(_n_states(profile, 3), Poisson(), random_state=seed)
        steps = [Difference()] if profile.wanders and not profile.gaps else []
        return HMM(_n_states(profile, 4), transform=[*log, *steps] or None, random_state=seed)
    if name == "arma":
        d = int(profile.wanders)
        if period:
            return ARMA((1 - d, d, 1), (0, 1, 1, period), transform=scale, random_state=seed)
        return ARMA((1, d, 1), transform=scale, random_state=seed)
    if name == "lstm":
        lags = (1, period) if period else (1,)
        if profile.counts:
            return LSTM(32, head=Poisson(), lags=lags, inference=MeanField(), random_state=seed)
        return LSTM(32, lags=lags, inference=MeanField(), transform=scale, random_state=seed)
    if name == "rw":
        return RandomWalk(drift=True, transform=scale, random_state=seed)
    if name == "iid":
        return IID(Poisson() if profile.counts else None, transform=scale, random_state=seed)
    if not period:
        raise ParameterError(
            got="the model 'snaive' for a series without a season", expected="a period", remedy="Give --period 12."
        )
    return SeasonalNaive(period, drift=True, transform=scale, random_state=seed)


def _n_states(profile: Profile, usual: int) -> int:
    """Fewer states for short series: about 25 steps for each."""
    return max(2, min(usual, profile.n_steps // 25))


def _calendar_period(freq: Any) -> int | None:
    if not isinstance(freq, str):
        return None
    word = freq.lstrip("0123456789").upper().split("-")[0]
    if word != freq.upper().split("-")[0]:
        return None
    return _PERIODS.get(word if word in _PERIODS else word[:1] if word in ("MS", "ME", "BMS", "QS", "QE") else "")


def _repeats(values: np.ndarray, period: int) -> bool:
    """Whether the steps of a series resemble those one period before."""
    steps = np.diff(values)
    if len(values) < 2 * period + 2:
        return False
    now, before = steps[period:], steps[:-period]
    both = ~(np.isnan(now) | np.isnan(before))
    if both.sum() < 3 or min(np.std(now[both]), np.std(before[both])) == 0:
        return False
    return float(np.corrcoef(now[both], before[both])[0, 1]) >= _SEASONAL
