"""What one model says of the held-out values: the raw material of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from probseq.data.sequences import Sequences
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.results.forecast import Forecast

__all__ = ["Evidence", "Measure", "collect"]

LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Measure:
    """With respect to what a log score is a density; scores under different measures are not comparable.

    Parameters
    ----------
    base : str or tuple of str
        "lebesgue" or "counting", for all variables or for each; "none" where no likelihood was maximised.
    unit : str
        Unit of the data, for densities.
    vocabulary : tuple
        Tokens, for token data; the end of a sequence is one of them if it is scored.
    """

    base: str | tuple[str, ...]
    unit: str = ""
    vocabulary: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if isinstance(self.base, tuple):
            counted = [i for i, base in enumerate(self.base) if base == "counting"]
            return f"{replace(self, base='lebesgue')} and probability of whole numbers (variables {counted})"
        if self.base == "none":
            return "no likelihood"
        if self.base == "lebesgue":
            return f"density per {self.unit}" if self.unit else "density"
        return f"probability over {len(self.vocabulary)} tokens" if self.vocabulary else "probability of whole numbers"


@dataclass(frozen=True)
class Evidence:
    """Scores of one model along the held-out data; arrays are (n, t) or (n, t, k).

    Parameters
    ----------
    name : str
    measure : Measure
    log_prob : (n, t)
        Nats of each step; NaN where nothing is scored, and everywhere for a law that is no likelihood.
    scored : (n, t, k) bool
    frozen : (n, t) or None
        Nats with the weights of the draws held, for models with several draws.
    effective_draws : float or None
        1 / sum w^2 of the draws' weights after the data.
    forecast : Forecast or None
        The one-step predictives; None for categories, of which thousands at every step would be kept for nothing.
    crps, pit : (n, t, k) or None
        None for categories; NaN for those beside numbers.
    inside : dict of level -> (n, t, k) bool, or None
    """

    name: str
    estimator: SequenceEstimator
    data: Sequences
    measure: Measure
    log_prob: np.ndarray
    scored: np.ndarray
    frozen: np.ndarray | None
    effective_draws: float | None
    forecast: Forecast | None
    crps: np.ndarray | None
    pit: np.ndarray | None
    inside: dict[float, np.ndarray] | None


def collect(name: str, estimator: SequenceEstimator, data: Sequences, history: Any) -> Evidence:
    """Score ``data``, read by this estimator, after ``history``."""
    state = estimator._begin(data, history)
    steps = estimator._steps(data, state)
    scored = steps.scored.numpy()
    log_prob = np.where(scored.any(-1), steps.values.numpy().astype(float), np.nan)
    frozen, effective = None, None
    if not estimator.has_likelihood:
        log_prob = np.full_like(log_prob, np.nan)
    elif estimator.model_.n_draws > 1:
        start = None if state is None else estimator.model_.reset_weights(state)
        held = estimator._steps(data, start, "frozen")
        frozen = np.where(scored.any(-1), held.values.numpy().astype(float), np.nan)
        weights = torch.softmax(steps.final.log_weights, -1)
        effective = float((1.0 / (weights**2).sum(-1)).mean())
    crps = pit = inside = forecast = None
    if estimator.emission_ is None or not estimator.emission_.nominal:
        forecast = estimator._predictive(data, state)
        crps, pit, inside = _numeric(forecast, data, scored)
    words = () if data.vocabulary is None else tuple(data.vocabulary.tokens)
    observation = estimator.model_.observation
    unit = "" if observation.discrete else str(data.attrs.get("units", ""))
    measure = Measure(observation.measure, unit, words) if estimator.has_likelihood else Measure("none")
    return Evidence(name, estimator, data, measure, log_prob, scored, frozen, effective, forecast, crps, pit, inside)


def _numeric(
    forecast: Forecast, data: Sequences, scored: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, dict[float, np.ndarray] | None]:
    """CRPS, PIT and what the central intervals cover; None for categories."""
    backend = forecast._backend
    if backend.nominal:
        return None, None, None
    y = np.where(scored & ~backend.nominal_variables, data.values, np.nan)
    try:
        crps = backend.crps(y)
    except UnsupportedError:
        crps = np.full(y.shape, np.nan)
    upper = backend.cdf(y)
    counted = backend.discrete_variables
    lower = np.where(counted, backend.cdf(y, left=True), upper) if counted.any() else upper
    u = torch.rand(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    pit = np.clip(lower + u * (upper - lower), 0.0, 1.0)
    inside = {}
    for level in LEVELS:
        ends = backend.quantile(np.array([(1 - level) / 2, (1 + level) / 2]))
        inside[level] = (y >= ends[..., 0]) & (y <= ends[..., 1])
    return crps, pit, inside
