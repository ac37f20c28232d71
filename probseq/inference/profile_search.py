"""Descent of a profile likelihood, whose coordinates are few, by a quasi-Newton method that runs compiled."""

from __future__ import annotations

import math

import numpy as np

from probseq.inference.base import Progress
from probseq.inference.search import Search
from probseq.kernels.quasi_newton import CONVERGED, ITERATIONS, RUNNING, STALLED, STATUS, VALUE, Descent, advance, begin
from probseq.models.concentrated import Profile

__all__ = ["ProfileSearch"]

# Operations between two looks at the keyboard, a fraction of a second.
_PATIENCE = 2e8
_MOST = 64
# Evaluations of a rival start between two looks at where it goes, and how near to the best point it goes there.
_GLIMPSE, _SAME_HILL = 4, 0.3
# What a line search of scipy sees where the likelihood is not a number.
_BARRIER = 1e100


class ProfileSearch(Search):
    """The best point of a profile likelihood that any start has reached.

    Parameters
    ----------
    profile : Profile
    max_iter, tol, progress
        As in `Search`.
    """

    def __init__(self, profile: Profile, max_iter: int, tol: float, progress: Progress | None = None) -> None:
        super().__init__(profile.objective, profile.count, max_iter, tol, progress)
        self.profile = profile
        self.gradient = np.zeros(0)

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective(x)
        if not math.isfinite(value):
            return _BARRIER, np.zeros(x.size)
        if value < self.value:
            self.value, self.x, self.gradient = value, x.copy(), gradient
            self.trace.append(-self.scale * value)
        return value, gradient

    def descend(self, x: np.ndarray) -> None:
        """From one start; the status is that of the start that found the best point."""
        before = self.value
        descent = begin(np.arcsinh(x))
        if self.gradient.size and np.array_equal(x, self.x):
            advance(descent, self.value, self.gradient * np.cosh(descent.trial), self.max_iter, self.tol)
        try:
            self._run(descent)
        finally:
            self._keep(descent)
        status = int(descent.counts[STATUS])
        # A line search that finds nothing better has met the limit of the arithmetic where the slope is tiny.
        if status == STALLED and not float(np.abs(descent.gradient).max(initial=0.0)) < 1e-4:
            super().descend(np.sinh(descent.point))
            return
        self.optima.append(-self.scale * float(descent.line[VALUE]))
        if self.value < before or len(self.optima) == 1:
            self.n_iter = int(descent.counts[ITERATIONS])
            self.status = "converged" if status in (CONVERGED, STALLED) else "max_iter"

    def challenge(self, rivals: list[np.ndarray]) -> None:
        """Follow further starts for as long as they lead elsewhere than to the best point so far."""
        best = np.arcsinh(self.x)
        values = np.empty(_GLIMPSE)
        for x in rivals:
            descent = begin(np.arcsinh(x))
            while descent.counts[STATUS] == RUNNING and not self._joins(descent, best):
                self.profile.descend(descent, values, self.max_iter, self.tol)
            if float(descent.line[VALUE]) < self.value:
                self._keep(descent)
                self.trace.append(-self.scale * self.value)
                self.optima.append(-self.scale * self.value)
                best = np.arcsinh(self.x)

    def _joins(self, descent: Descent, best: np.ndarray) -> bool:
        """Whether a descent is on the slopes below the best point, with nothing left to find."""
        near = np.abs(np.asarray(descent.point) - best).max(initial=0.0) < _SAME_HILL
        return bool(near and float(descent.line[VALUE]) >= self.value)

    def _run(self, descent: Descent) -> None:
        size = 1 if self.progress is not None else int(min(max(_PATIENCE / self.profile.work, 1), _MOST))
        values, lowest, reported = np.empty(size), self.value, 0
        while descent.counts[STATUS] == RUNNING:
            for value in values[: self.profile.descend(descent, values, self.max_iter, self.tol)].tolist():
                if value < lowest:
                    lowest = value
                    self.trace.append(-self.scale * value)
            if self.progress is not None and descent.counts[ITERATIONS] > reported:
                reported = int(descent.counts[ITERATIONS])
                self.progress(len(self.trace), -self.scale * float(descent.line[VALUE]))

    def _keep(self, descent: Descent) -> None:
        value = float(descent.line[VALUE])
        if value < self.value:
            self.value, self.x = value, np.sinh(descent.point)
            self.gradient = descent.gradient / np.cosh(descent.point)
