"""Capability: likelihoods whose location and scale are best in closed form, given the other parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.quasi_newton import RUNNING, STATUS, VALUE, Descent, advance
from probseq.models.base import Batch

__all__ = ["ConcentratedLikelihood", "Profile"]


class Profile(ABC):
    """l_p(x) = max over the other parameters of log p(data | x, others), for free parameters x.

    ``count`` is the (weighted) number of scored values, ``size`` that of the free parameters.
    """

    count: float
    size: int

    @abstractmethod
    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """-l_p(x) / count, in nats per scored value, and its gradient (size,)."""

    def descend(self, descent: Descent, values: np.ndarray, max_iter: int, tol: float) -> int:
        """Go on minimising the objective in z = arsinh(x) for at most ``values.size`` evaluations.

        Models with a compiled objective override this loop by an equal one that is compiled.

        Parameters
        ----------
        descent : Descent
            In z; changed in place.
        values : (m,) float64
            Receives the lowest value after each evaluation.
        max_iter, tol
            As for `probseq.kernels.quasi_newton.advance`.

        Returns
        -------
        int, the number of evaluations.
        """
        for i in range(values.size):
            if descent.counts[STATUS] != RUNNING:
                return i
            value, gradient = self.objective(np.sinh(descent.trial))
            advance(descent, value, gradient * np.cosh(descent.trial), max_iter, tol)
            values[i] = descent.line[VALUE]
        return values.size

    @property
    def work(self) -> float:
        """Rough number of elementary operations of one evaluation of the objective."""
        return math.inf

    @abstractmethod
    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        """Starting points, cheap and reasoned ones first, then ``n_random`` random ones."""

    def rivals(self) -> list[np.ndarray]:
        """Further points from which a higher maximum may be reached; none where one maximum is to be expected."""
        return []

    @abstractmethod
    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        """All parameters of the model at x, without draw dimensions."""

    @abstractmethod
    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Inverse observed information of the model's flat unconstrained parameters at the optimum x."""

    @abstractmethod
    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        """What a user should know about the optimum, in words that name the root or parameter."""


class ConcentratedLikelihood(ABC):
    """Capability of a model with a `Profile`."""

    @abstractmethod
    def concentrated(self, batch: Batch, weights: Tensor | None = None) -> Profile:
        """The profile likelihood of a batch; ``weights`` (n,) weigh the sequences."""
