"""What one model says of the held-out values: the raw material of a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from probseq.data.sequences import Sequences
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.scoring import is_estimate
from probseq.evaluation.scores import pinball_loss
from probseq.models.base import map_state
from probseq.results.forecast import Forecast

__all__ = ["LEVELS", "QUANTILES", "Evidence", "Measure", "Numeric", "collect", "score_numbers", "uniforms"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ENDS = {0.5: (0.25, 0.75), 0.9: (0.05, 0.95)}
"""Lower and upper ends, among the quantiles, of central intervals by their probability."""
LEVELS = tuple(ENDS)
# Values of all parameter draws whose laws, of many particles each, are held at once.
_ESTIMATED_AT_ONCE = 2**18


@dataclass(frozen=True)
class Measure:
    """With respect to what a log score is a density; scores under different measures are not comparable.

    Parameters
    ----------
    base : str or tuple of str
        "lebesgue" or "counting", for all variables or for each; "none" where no likelihood was maximised.
    unit : str
        Unit of the data, for densities.
    vocabulary : frozenset
        Tokens, for token data; the end of a sequence is one of them if it is scored.
    end : bool
        Whether it is.
    """

    base: str | tuple[str, ...]
    unit: str = ""
    vocabulary: frozenset[Any] = frozenset()
    end: bool = False

    def __str__(self) -> str:
        if isinstance(self.base, tuple):
            counted = [i for i, base in enumerate(self.base) if base != "lebesgue"]
            return f"{replace(self, base='lebesgue')} and probability of whole numbers (variables {counted})"
        if self.base == "none":
            return "no likelihood"
        if self.base == "lebesgue":
            return f"density per {self.unit}" if self.unit else "density"
        if self.base != "counting":
            return f"probability on a {self.base}"
        if not self.vocabulary:
            return "probability of whole numbers"
        return f"probability over {len(self.vocabulary)} tokens{', the end of a text one of them' * self.end}"


@dataclass(frozen=True)
class Evidence:
    """Scores of one model along the held-out data; arrays are (n, t) or (n, t, k).

    Parameters
    ----------
    name : str
    data : Sequences
    measure : Measure
    log_prob : (n, t)
        Nats of each step; NaN where nothing is scored, and everywhere for a law that is no likelihood.
    scored : (n, t, k) bool
    numeric : Numeric or None
        None for categories, of which thousands at every step would be kept for nothing.
    frozen : (n, t) or None
        Nats with the weights of the draws held, for models with several draws.
    effective_draws : float or None
        1 / sum w^2 of the draws' weights after the data.
    tokens : bool
        Whether the values are categories, so that their surprise is a perplexity.
    n_parameters, seconds : float
        Free parameters and the time of the fit; NaN where nobody knows.
    reason : str
        Why there is no log score, where there is none.
    notes : tuple of str
        What a reader of the scores should know.
    bound : str
        The estimate that stands for the log score where this is not exact, such as "FIVO (100 particles)".
    error : (n, t) or None
        Its Monte Carlo standard error at each step, nats, where it is the logarithm of an unbiased estimate: a lower
        bound on average.
    """

    name: str
    data: Sequences
    measure: Measure
    log_prob: np.ndarray
    scored: np.ndarray
    numeric: Numeric | None
    frozen: np.ndarray | None = None
    effective_draws: float | None = None
    tokens: bool = False
    n_parameters: float = math.nan
    seconds: float = math.nan
    reason: str = ""
    notes: tuple[str, ...] = ()
    bound: str = ""
    error: np.ndarray | None = None


@dataclass(frozen=True)
class Numeric:
    """Scores of numbers, (n, t, k) each; NaN where a coordinate is not scored or a category.

    Parameters
    ----------
    forecast : Forecast or None
        The one-step predictives, where they are one object.
    crps, pinball, pit : (n, t, k)
        ``pinball`` is the mean over the levels ``QUANTILES``.
    inside : dict of level -> (n, t, k) bool
    counted : (n, t, k) bool
        Coordinates that are scored and numbers.
    """

    forecast: Forecast | None
    crps: np.ndarray
    pinball: np.ndarray
    pit: np.ndarray
    inside: dict[float, np.ndarray]
    counted: np.ndarray


def collect(name: str, estimator: SequenceEstimator, data: Sequences, history: Any) -> Evidence:
    """Score ``data``, read by this estimator, after ``history``."""
    state = estimator._begin(data, history)
    steps = estimator._steps(data, state)
    scored = steps.scored.numpy()
    log_prob = np.where(scored.any(-1), steps.values.numpy().astype(float), np.nan)
    frozen, effective, reason = None, None, ""
    if not estimator.has_likelihood:
        log_prob = np.full_like(log_prob, np.nan)
        reason = f"{estimator.emission_!r} is no likelihood"
    elif estimator.model_.n_draws > 1:
        start = None if state is None else estimator.model_.reset_weights(state)
        held = estimator._steps(data, start, "frozen")
        frozen = np.where(scored.any(-1), held.values.numpy().astype(float), np.nan)
        weights = torch.softmax(steps.final.log_weights, -1)
        effective = float((1.0 / (weights**2).sum(-1)).mean())
    tokens = estimator.emission_ is not None and estimator.emission_.nominal
    numeric = None
    if not tokens:
        numeric = _score_in_parts(estimator, data, state, scored)
    vocabulary = data.vocabulary
    words = frozenset() if vocabulary is None else frozenset(vocabulary.tokens)
    ends = vocabulary is not None and vocabulary.end is not None
    observation = estimator.model_.observation
    unit = "" if observation.discrete else str(data.attrs.get("units", ""))
    measure = Measure(observation.measure, unit, words, ends) if estimator.has_likelihood else Measure("none")
    estimated = is_estimate(estimator.model_, data, steps)
    error = steps.error.double().numpy() if estimated and steps.error is not None else None
    return Evidence(
        name,
        data,
        measure,
        log_prob,
        scored,
        numeric,
        frozen,
        effective,
        tokens,
        estimator.n_parameters_,
        estimator.fit_seconds_,
        reason,
        tuple(_remarks(estimator, data)),
        (estimator.model_.estimate or "particles") if estimated else "",
        error,
    )


def _score_in_parts(estimator: SequenceEstimator, data: Sequences, state: Any, scored: np.ndarray) -> Numeric | None:
    """`score_numbers` of one-step predictives; some sequences at a time where many particles make up each law."""
    n, t, k = data.values.shape
    size = n if estimator.model_.exact else max(1, _ESTIMATED_AT_ONCE // max(1, t * k * estimator.model_.n_draws))
    if size >= n:
        return score_numbers(estimator._predictive(data, state), data.values, scored)
    u, parts = uniforms(data.values.shape), []
    for first in range(0, n, size):
        rows = np.arange(first, min(first + size, n))
        some = data.select(rows)
        begun = None if state is None else map_state(lambda leaf, rows=rows: leaf[torch.as_tensor(rows)], state)
        own = (rows, slice(0, some.max_length))
        found = score_numbers(estimator._predictive(some, begun), some.values, scored[own], u[own])
        if found is None:
            return None
        parts.append(found)
    return _joined(parts, t)


def _joined(parts: list[Numeric], t: int) -> Numeric:
    """Scores of all sequences, of t steps with padding."""

    def join(arrays: list[np.ndarray]) -> np.ndarray:
        blank: Any = False if arrays[0].dtype == bool else np.nan
        whole = [np.pad(a, ((0, 0), (0, t - a.shape[1]), (0, 0)), constant_values=blank) for a in arrays]
        return np.concatenate(whole)

    crps, pinball, pit, counted = (
        join([getattr(part, name) for part in parts]) for name in ("crps", "pinball", "pit", "counted")
    )
    inside = {level: join([part.inside[level] for part in parts]) for level in parts[0].inside}
    return Numeric(None, crps, pinball, pit, inside, counted)


def _remarks(estimator: SequenceEstimator, data: Sequences) -> list[str]:
    """What is special about the log scores of this model."""
    model, found = estimator.model_, []
    gaps = bool((~data.seen() & data.mask()[..., None]).any())
    if gaps and model.missing == "pattern":
        found.append("given the pattern of missing values")
    if model.likelihood != "exact":
        found.append(f"{model.likelihood} likelihood")
    return found


def uniforms(shape: tuple[int, ...]) -> np.ndarray:
    """The numbers that make PIT values of counts uniform: the same for every model."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()


def score_numbers(
    forecast: Forecast, values: np.ndarray, scored: np.ndarray, u: np.ndarray | None = None
) -> Numeric | None:
    """CRPS, pinball loss, PIT and what the central intervals cover at values (n, t, k); None for categories.

    ``u`` (n, t, k) are the ``uniforms`` of these values, where they are part of more.
    """
    backend = forecast._backend
    if backend.nominal:
        return None
    counted = scored & ~backend.nominal_variables
    y = np.where(counted, values, np.nan)
    try:
        crps = backend.crps(y)
    except UnsupportedError:
        crps = np.full(y.shape, np.nan)
    upper = backend.cdf(y)
    discrete = backend.discrete_variables
    lower = np.where(discrete, backend.cdf(y, left=True), upper) if discrete.any() else upper
    u = uniforms(y.shape) if u is None else u
    pit = np.clip(lower + u * (upper - lower), 0.0, 1.0)
    quantiles = backend.quantile(np.array(QUANTILES))
    pinball = pinball_loss(y[..., None], quantiles, np.array(QUANTILES)).mean(-1)
    inside = {}
    for level in LEVELS:
        low, high = (quantiles[..., QUANTILES.index(end)] for end in ENDS[level])
        inside[level] = (y >= low) & (y <= high)
    return Numeric(forecast, crps, pinball, pit, inside, counted)
