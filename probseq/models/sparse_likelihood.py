"""The profile likelihood of an ARMA model of which only some lags have a coefficient."""

from __future__ import annotations

import math

import numpy as np
import torch

from probseq.kernels.hannan_rissanen import long_residuals
from probseq.kernels.profile import concentrate
from probseq.kernels.sparse_profile import (
    factors_from_free,
    free_from_factors,
    sparse_objective,
    sparse_objective_with_gaps,
    whole_polynomials,
)
from probseq.models.arma_likelihood import ARMAProfile
from probseq.models.concentrated import Profile

__all__ = ["SparseProfile"]

# Starting values keep their partial autocorrelations this far from one.
_LARGEST = 0.98


class SparseProfile(ARMAProfile):
    """As `ARMAProfile`, over the free parameters of `SparseStationary`, so that every iterate is stationary."""

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        model = self.model
        common = (x, self.orders, self._lags, model.period, model.lags.ar, model.lags.ma)
        if self.gapped:
            data = (model.lags.differences, self.columns, self.seen, self.weights, self.n_columns)
            return sparse_objective_with_gaps(*common, *data)
        return sparse_objective(*common, self.columns, self.lengths, self.weights, self.n_columns)

    descend = Profile.descend

    @property
    def _lags(self) -> np.ndarray:
        return np.concatenate(self.model.own_lags)

    def _factors(self, x: np.ndarray) -> list[np.ndarray]:
        return np.split(factors_from_free(x, self.orders, self._lags), np.cumsum(self.orders)[:-1])

    def _coefficients(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        found = factors_from_free(x, self.orders, self._lags)
        return whole_polynomials(found, self.orders, self._lags, model.period, model.lags.ar, model.lags.ma)

    def _location_and_scale(self, x: np.ndarray) -> np.ndarray:
        beta, sigma2, *_ = concentrate(*self._whitened(x), self.weights, self.n_columns)
        return np.append(beta, math.sqrt(sigma2))

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        """A regression on lags of the series and of the residuals of a long autoregression; white noise; random."""
        w = self._unexplained()
        steps = self._lags * np.repeat([1, 1, self.model.period, self.model.period], self.orders)
        of_e = np.repeat([False, True, False, True], self.orders)
        n = w.shape[1]
        wanted = int(10 * math.log10(max(n, 2))) + int(steps[of_e].max(initial=0)) if of_e.any() else 0
        order = min(wanted, n // 3)
        e = long_residuals(w, self.scored, order)
        first = min(int(steps.max()) + order, n // 2)
        rows = np.zeros((len(w), n, self.size))
        for j, (step, shock) in enumerate(zip(steps, of_e, strict=True)):
            rows[:, step:, j] = (e if shock else w)[:, : max(n - step, 0)]
        used = self.scored[:, first:]
        guess = np.linalg.lstsq(rows[:, first:][used], w[:, first:][used], rcond=1e-10)[0]
        found = [free_from_factors(guess, self.orders, self._lags, _LARGEST), np.zeros(self.size)]
        for _ in range(n_random):
            draw = 1.8 * torch.rand(self.size, generator=generator, dtype=torch.float64).numpy() - 0.9
            found.append(free_from_factors(draw, self.orders, self._lags, _LARGEST))
        return found
