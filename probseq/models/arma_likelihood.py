"""The profile likelihood of an ARMA model: mean, covariate coefficients and scale concentrated out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.errors import DataError, EmptyDataError
from probseq.kernels.arima import (
    difference,
    innovations_with_gaps,
    objective_with_gaps,
    polynomial_trend,
    state_space,
)
from probseq.kernels.arma import innovations
from probseq.kernels.hannan_rissanen import free_from_coefficients, hannan_rissanen
from probseq.kernels.polynomials import multiply
from probseq.kernels.profile import concentrate, objective, profile_at, unpack
from probseq.models.base import Batch
from probseq.models.concentrated import Profile

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["ARMAProfile"]

_BLOCKS = ("ar", "ma", "seasonal_ar", "seasonal_ma")
# A root nearer to the unit circle than this, or a pair nearer to each other than this, is worth a word.
_NEAR_UNIT, _NEAR_PAIR = 1e-3, 0.02


class ARMAProfile(Profile):
    """Columns of responses and regressors, whitened together by one filter; without gaps on the differenced data.

    Parameters
    ----------
    model : ARMAModel
    batch : Batch
    weights : (n,) or None

    Raises
    ------
    EmptyDataError
        If nothing is left to score after conditioning and regression.
    DataError
        If the (differenced) data do not vary.
    """

    def __init__(self, model: ARMAModel, batch: Batch, weights: Tensor | None = None) -> None:
        self.model = model
        (p, _, q), (seasonal_p, _, seasonal_q, _) = model.order, model.seasonal_order
        self.orders = np.array([p, q, seasonal_p, seasonal_q])
        self.size = int(self.orders.sum())
        self.weights = np.ones(batch.n) if weights is None else weights.detach().numpy().astype(float)
        y = batch.x[..., 0].detach().numpy().astype(float)
        seen = batch.seen[..., 0].numpy()
        u = np.zeros((*y.shape, 0)) if batch.u is None else batch.u.detach().numpy().astype(float)
        c = model.lags.differences
        self.gapped = bool((seen.sum(-1) != batch.lengths.numpy()).any())
        self.n_columns = 1 + int(model.constant) + u.shape[-1]
        # The response is centred, so that numbers far from zero do not cost digits; diffuse levels do not notice.
        self.centre = float(y[seen].mean()) if seen.any() and (model.constant or c.size) else 0.0
        self.largest = float(np.abs(y[seen]).max(initial=0.0))
        y = np.where(seen, y - self.centre, 0.0)
        columns = [y[:, None]]
        if model.constant:
            columns.append(np.broadcast_to(polynomial_trend(c, y.shape[1]), y.shape)[:, None])
        columns.append(np.moveaxis(u, -1, 1))
        stacked = np.ascontiguousarray(np.concatenate(columns, 1).reshape(-1, y.shape[1]))
        self.differences = difference(stacked, c)
        self.lengths = np.maximum(batch.lengths.numpy() - c.size, 0)
        inside = np.arange(self.differences.shape[1]) < self.lengths[:, None]
        if self.gapped:
            self.columns, self.seen = stacked, seen
            self.differences = self._mended(y, seen)
            self.scored = inside & seen[:, c.size :]
        else:
            self.columns = self.differences * np.repeat(inside, self.n_columns, 0)
            self.scored = self.seen = inside
            if model.constant:
                self.columns[1 :: self.n_columns] = inside
            self.differences = self.columns[:: self.n_columns]
        self._check_data()

    def _mended(self, y: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Differences of linearly interpolated responses: good enough to start from."""
        whole = y.copy()
        steps = np.arange(y.shape[1])
        for s in range(len(y)):
            if seen[s].any():
                whole[s] = np.interp(steps, steps[seen[s]], y[s, seen[s]])
        return difference(whole, self.model.lags.differences)

    def _check_data(self) -> None:
        regressors = self.n_columns - 1
        n = self.model.n_differences
        # With gaps only the filter knows when the diffuse start is resolved; it does not depend on the parameters.
        scored = self._whitened(np.zeros(self.size))[2] if self.gapped else self.scored
        self.count = float((scored.sum(-1) * self.weights).sum())
        if scored.sum() <= regressors + 1 or self.scored.sum() <= regressors + 1:
            raise EmptyDataError(
                got=f"{int(scored.sum())} values left to score",
                expected=f"more than {regressors + 1}, after the first {n} of a sequence that are only conditioned on",
                remedy="Pass a longer series, or lower the orders of differencing.",
            )
        values = self.differences[self.scored]
        if self.model.constant:
            values = values - values.mean()
        if math.sqrt(float(np.mean(values**2))) <= 1e-13 * self.largest:
            raise DataError(
                got="a series that does not vary" + (f" after {n} differences" if n else ""),
                expected="values with some variance",
                remedy="A constant needs no model; check the column, or difference less.",
            )

    # likelihood -------------------------------------------------------------------------------------------------------

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        model = self.model
        common = (x, self.orders, model.period, model.lags.ar, model.lags.ma)
        if self.gapped:
            data = (model.lags.differences, self.columns, self.seen, self.weights, self.n_columns)
            return objective_with_gaps(*common, *data)
        return objective(*common, self.columns, self.lengths, self.weights, self.n_columns)

    def _coefficients(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi, theta, seasonal_phi, seasonal_theta = unpack(x, *self.orders)
        lags, period = self.model.lags, self.model.period
        return multiply(phi, seasonal_phi, period, -1.0, lags.ar), multiply(theta, seasonal_theta, period, 1.0, lags.ma)

    def _whitened(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Innovations of every column, their variances, and what is scored."""
        ar, ma = self._coefficients(x)
        lags = self.model.lags
        if self.gapped:
            system, cov, diffuse, *_ = state_space(lags.ar, ar, lags.ma, ma, lags.differences)
            return innovations_with_gaps(system, cov, diffuse, self.columns, self.seen, self.n_columns)
        e, f, _ = innovations(lags.ar, ar, lags.ma, ma, self.columns, False)
        return e, np.ascontiguousarray(np.broadcast_to(f, self.scored.shape)), self.scored

    def _location_and_scale(self, x: np.ndarray) -> np.ndarray:
        if self.gapped:
            beta, sigma2, *_ = concentrate(*self._whitened(x), self.weights, self.n_columns)
        else:
            model = self.model
            common = (x, self.orders, model.period, model.lags.ar, model.lags.ma)
            beta, sigma2, _ = profile_at(*common, self.columns, self.lengths, self.weights, self.n_columns)
        return np.append(beta, math.sqrt(sigma2))

    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        values = dict(zip(_BLOCKS, unpack(x, *self.orders), strict=True))
        params = {name: torch.from_numpy(value) for name, value in values.items() if value.size}
        other = self._location_and_scale(x)
        if self.model.constant:
            # Differences do not see the centre.
            shift = 0.0 if self.model.n_differences else self.centre
            params["mean"] = torch.tensor(other[0] + shift, dtype=torch.float64)
        if self.model.n_covariates:
            params["coefficients"] = torch.from_numpy(other[int(self.model.constant) : -1].copy())
        params["scale"] = torch.tensor(max(other[-1], 1e-150), dtype=torch.float64)
        return params

    # starts -----------------------------------------------------------------------------------------------------------

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        if self.size == 0:
            return [np.zeros(0)]
        w = np.where(self.scored, self.differences, 0.0)
        if self.model.constant:
            w = np.where(self.scored, w - w.sum() / self.scored.sum(), 0.0)
        n = w.shape[1]
        (_, _, q), (_, _, seasonal_q, period) = self.model.order, self.model.seasonal_order
        wanted = int(10 * math.log10(max(n, 2))) + period * seasonal_q if q + seasonal_q else 0
        guess = hannan_rissanen(w, self.scored, self.orders, period, min(wanted, n // 3))
        found = [free_from_coefficients(guess, self.orders, 0.98), np.zeros(self.size)]
        for _ in range(n_random):
            partial = 1.8 * torch.rand(self.size, generator=generator, dtype=torch.float64).numpy() - 0.9
            found.append(partial / np.sqrt(1.0 - partial**2))
        return found

    # after the fit ----------------------------------------------------------------------------------------------------

    def covariance(self, x: np.ndarray) -> np.ndarray:
        k, step = self.n_columns - 1, 1e-4
        curvature, slopes = np.empty((self.size, self.size)), np.empty((k + 1, self.size))
        for i in range(self.size):
            move = step * np.eye(self.size)[i] * (1.0 + abs(x[i]))
            up, down = x + move, x - move
            width = up[i] - down[i]
            curvature[i] = (self.objective(up)[1] - self.objective(down)[1]) * self.count / width
            slopes[:, i] = (self._location_and_scale(up) - self._location_and_scale(down)) / width
        e, f, scored = self._whitened(x)
        beta, sigma2, *_ = concentrate(e, f, scored, self.weights, self.n_columns)
        information = np.zeros((k + 1, k + 1))
        information[k, k] = 2.0 * self.count / sigma2
        regressors = e.reshape(len(f), self.n_columns, -1)[:, 1:]
        information[:k, :k] = np.einsum("sit,sjt,st->ij", regressors, regressors, self.weights[:, None] * scored / f)
        information[:k, :k] /= sigma2
        of_x = np.linalg.pinv(0.5 * (curvature + curvature.T), hermitian=True)
        cross = of_x @ slopes.T
        rest = np.linalg.pinv(information, hermitian=True) + slopes @ cross
        whole = np.block([[of_x, cross], [cross.T, rest]])
        # The model's flat parameter of the scale is its inverse softplus.
        scale = math.sqrt(sigma2)
        jacobian = np.ones(len(whole))
        jacobian[-1] = 1.0 / -math.expm1(-scale) if scale < 700 else 1.0
        return whole * jacobian * jacobian[:, None]

    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        phi, theta, seasonal_phi, seasonal_theta = unpack(x, *self.orders)
        messages = []
        found = {}
        for name, row, sign in (
            ("autoregressive", phi, -1.0),
            ("moving-average", theta, 1.0),
            ("seasonal autoregressive", seasonal_phi, -1.0),
            ("seasonal moving-average", seasonal_theta, 1.0),
        ):
            roots = -sign / row if row.size == 1 and row[0] != 0.0 else np.roots(np.append(sign * row[::-1], 1.0))
            found[name] = roots
            for root in roots[roots.imag >= 0]:
                if abs(root) < 1.0 + _NEAR_UNIT:
                    hint = "difference more" if "auto" in name else "difference less"
                    messages.append(
                        f"The {name} root {_show(root)} is within {_NEAR_UNIT:g} of the unit circle: {hint}."
                    )
        for prefix in ("", "seasonal "):
            for root in found[prefix + "autoregressive"]:
                others = found[prefix + "moving-average"]
                if root.imag >= 0 and others.size:
                    nearest = others[np.abs(others - root).argmin()]
                    if abs(nearest - root) < _NEAR_PAIR * abs(root):
                        messages.append(
                            f"The {prefix}autoregressive root {_show(root)} and the {prefix}moving-average root "
                            f"{_show(nearest)} nearly cancel: lower both orders by one."
                        )
        return tuple(messages)


def _show(root: complex) -> str:
    if abs(root.imag) < 1e-9:
        return f"{root.real:.4f}"
    return f"{root.real:.4f} +- {abs(root.imag):.4f}i (modulus {abs(root):.4f})"
