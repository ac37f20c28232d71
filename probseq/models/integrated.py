"""Capability: likelihoods whose location and scale can be integrated out, given the other parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from torch import Tensor

from probseq.models.base import Batch
from probseq.models.concentrated import Profile

__all__ = ["Integrated", "IntegratedLikelihood", "IntegratedProfile"]


class Integrated(NamedTuple):
    r"""What is left at free parameters x once location beta (k,) and scale sigma are integrated out.

    log_prob : log of the integral of p(data \| x, beta, sigma) / sigma over both, up to a constant.
    location : (k,), the mean of beta given x. gram : (k, k), its precision times sigma^2. rest : the sum of squares
    that is left. df : degrees of freedom of it; sigma^2 is rest over a chi-squared number with so many.
    """

    log_prob: float
    location: np.ndarray
    gram: np.ndarray
    rest: float
    df: float


class IntegratedProfile(Profile):
    """A profile that knows the integral over the other parameters, beside their maximum."""

    @abstractmethod
    def integrated(self, x: np.ndarray) -> Integrated:
        """At free parameters x (size,)."""

    @abstractmethod
    def parameters_at(self, x: np.ndarray, other: np.ndarray) -> dict[str, Tensor]:
        """All parameters of the model at x with location and scale ``other`` (k + 1,), without draw dimensions."""


class IntegratedLikelihood(ABC):
    """Capability of a model with an `IntegratedProfile`."""

    @abstractmethod
    def integrated(self, batch: Batch, weights: Tensor | None = None) -> IntegratedProfile:
        """The integrated likelihood of a batch; ``weights`` (n,) weigh the sequences."""
