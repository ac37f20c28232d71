"""Forecasts of which some values are known: a backend that is certain there, and laws of the rest."""

from __future__ import annotations

import numpy as np
import torch

from probseq.distributions.compose import Mixture
from probseq.results.backends import LawBackend
from probseq.results.trajectory import TrajectoryLaw

__all__ = ["PartlyKnown", "backend_of"]


def backend_of(joint: TrajectoryLaw) -> LawBackend:
    """The laws of the single steps of a joint law."""
    law = joint.steps()
    if joint.by_draw and isinstance(law, Mixture):
        backend = LawBackend(law, law.components, law.weights)
    else:
        backend = LawBackend(law)
    return PartlyKnown(backend, joint.known) if joint.certain.any() else backend


class PartlyKnown(LawBackend):
    """Laws of the values that are open; those known have all their probability at one point.

    A known value is its own mean and quantile, its variance is zero, its CRPS the distance. It is conditioned on, not
    scored: ``log_prob`` takes the open values only.

    Parameters
    ----------
    laws : LawBackend, whose answers where values are known have no meaning
    known : (n, t, k), NaN where open
    """

    def __init__(self, laws: LawBackend, known: np.ndarray) -> None:
        super().__init__(laws.law, laws.draws, laws.weights)
        self.name, self.known, self.certain = laws.name, known, ~np.isnan(known)

    def mean(self) -> np.ndarray:
        return np.where(self.certain, self.known, super().mean())

    def variance(self) -> np.ndarray:
        return np.where(self.certain, 0.0, super().variance())

    def variance_within(self) -> np.ndarray:
        return np.where(self.certain, 0.0, super().variance_within())

    def quantile(self, q: np.ndarray) -> np.ndarray:
        return np.where(self.certain[..., None], self.known[..., None], super().quantile(q))

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        return np.where(self.certain, self.known, super()._inverse(u))

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        step = np.where(np.isnan(x), np.nan, (x > self.known) if left else (x >= self.known))
        return np.where(self.certain, step, super().cdf(x, left))

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        return super().log_prob(np.where(self.certain, np.nan, y))

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return np.where(self.certain, self.known, super().sample(n_paths, generator))

    def crps(self, y: np.ndarray) -> np.ndarray:
        return np.where(self.certain, np.abs(y - self.known), super().crps(y))

    def marginal(self, variables: list[int]) -> LawBackend:
        return PartlyKnown(super().marginal(variables), self.known[..., variables])
