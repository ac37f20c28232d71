"""The profile likelihood of an ARMA model with a long state and few missing values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.arima import difference
from probseq.kernels.missing_profile import independent_holes, missing_profile_at, objective_with_missing
from probseq.kernels.profile import concentrate
from probseq.models.base import Batch
from probseq.models.sparse_likelihood import SparseProfile

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["MissingProfile", "few_missing"]

# A Kalman filter moves k^2 numbers a step, about as much work as so many regressors for each coordinate of its state.
_PER_STATE, _SMALLEST_STATE = 3, 8
_MOST, _MOST_NUMBERS = 1000, 20_000_000


def few_missing(model: ARMAModel, batch: Batch) -> bool:
    """Whether a regressor for each missing value costs less than a Kalman filter."""
    missing = batch.lengths.numpy() - np.count_nonzero(batch.seen[..., 0].numpy(), axis=-1)
    total, most = int(missing.sum()), int(missing.max())
    small = total <= _MOST and total * batch.t <= _MOST_NUMBERS
    return 0 < most <= _PER_STATE * model.state_size and model.state_size >= _SMALLEST_STATE and small


class MissingProfile(SparseProfile):
    """As `ARMAProfile`, with a regressor for every missing value, whose unknown value is integrated out; exact."""

    def __init__(self, model: ARMAModel, batch: Batch, weights: Tensor | None = None) -> None:
        super().__init__(model, batch, weights)
        c, seen = model.lags.differences, batch.seen[..., 0].numpy()
        steps = np.arange(seen.shape[1])
        sequence, step = np.nonzero(~seen & (steps < batch.lengths.numpy()[:, None]))
        inside = steps[c.size :] - c.size < self.lengths[:, None]
        holes = difference((step[:, None] == steps).astype(float), c) * inside[sequence]
        kept = independent_holes(holes, sequence, len(seen))
        self.holes, self.owner = holes[kept], sequence[kept]
        filled = self.regressors.copy()
        if model.constant:
            filled[:, 0] = 1.0
        if model.terms.trend:
            filled[:, int(model.constant)] = steps[c.size :] + 1.0
        rows = np.concatenate([self.differences[:, None], filled], 1) * inside[:, None]
        self.filled = np.ascontiguousarray(rows.reshape(-1, inside.shape[1]))
        # Both see the same density of what was seen, but for what differences of unknown values add, which the
        # parameters do not change; white noise tells how much that is.
        none = np.zeros(0)
        at_rest = missing_profile_at(none.astype(int), none, none.astype(int), none, *self._data)[0]
        filtered = concentrate(*self._white_noise(), self.weights, self.n_columns)
        self.constant = float(filtered[2] - at_rest[2])
        self.same = bool(at_rest[7]) and abs(at_rest[3] - filtered[3]) < 1e-9 * filtered[3]

    @property
    def _data(self) -> tuple[object, ...]:
        return (self.filled, self.holes, self.owner, self.lengths, self.weights, self.n_columns)

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        if not self.same:
            return super().objective(x)
        model = self.model
        common = (x, self.orders, self._lags, model.period, model.lags.ar, model.lags.ma)
        return objective_with_missing(*common, *self._data, self.constant)

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        return super().starts(n_random, generator) if self.size else [np.zeros(0)]

    def _location_and_scale(self, x: np.ndarray) -> np.ndarray:
        if not self.same:
            return super()._location_and_scale(x)
        beta, sigma2, *_ = self._concentrated(x)
        return np.append(beta, math.sqrt(sigma2))

    def _gram(self, x: np.ndarray) -> np.ndarray:
        return self._concentrated(x)[6] if self.same else super()._gram(x)

    def _concentrated(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        ar, ma = self._coefficients(x)
        return missing_profile_at(self.model.lags.ar, ar, self.model.lags.ma, ma, *self._data)[0]
