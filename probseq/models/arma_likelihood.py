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
from probseq.kernels.profile import concentrate, descend_profile, objective, profile_at, unpack
from probseq.kernels.quasi_newton import Descent
from probseq.models.arma_orders import FACTORS
from probseq.models.arma_roots import Factor, root_problems
from probseq.models.base import Batch
from probseq.models.integrated import Integrated, IntegratedProfile

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["ARMAProfile"]

# First partial autocorrelations in further starts, and operations of one likelihood up to which they are tried.
_RIVALS, _RIVALS_WORK = (0.97, -0.8), 1e7

# A column of unit length of which the columns before leave less than this is theirs but for rounding.
_COLLINEAR = 1e-9
_NAMES = ("autoregressive", "moving-average", "seasonal autoregressive", "seasonal moving-average")


class ARMAProfile(IntegratedProfile):
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
        self.orders = model.counts
        self.size = int(self.orders.sum())
        self.weights = np.ones(batch.n) if weights is None else weights.detach().numpy().astype(float)
        y = batch.x[..., 0].detach().numpy().astype(float)
        seen, lengths = batch.seen[..., 0].numpy(), batch.lengths.numpy()
        c, terms = model.lags.differences, model.terms
        self.gapped = bool((seen.sum(-1) != lengths).any())
        self.n_terms = int(terms.constant) + int(terms.trend) + len(terms.waves)
        self.n_columns = 1 + self.n_terms + (0 if batch.u is None else batch.u.shape[-1])
        # The response is centred, so that numbers far from zero do not cost digits; diffuse levels do not notice.
        values = y[seen]
        self.centre = float(values.mean()) if values.size and (model.constant or c.size) else 0.0
        self.largest = float(np.abs(values).max(initial=0.0))
        y = np.where(seen, y - self.centre, 0.0)
        self.lengths = np.maximum(lengths - c.size, 0)
        inside = np.arange(y.shape[1] - c.size) < self.lengths[:, None]
        shape = (len(y), self.n_columns, inside.shape[1])
        if self.gapped or self.n_columns > 1 + int(model.constant):
            stacked = self._stacked(y, batch)
            rows = difference(stacked, c).reshape(shape)
        else:
            rows = np.zeros(shape)
            rows[:, 0] = difference(y, c)
        self.regressors = rows[:, 1:]
        if self.gapped:
            self.columns, self.seen = stacked, seen
            self.differences = self._mended(y, seen)
            self.scored = inside & seen[:, c.size :]
        else:
            rows = rows * inside[:, None]
            if model.constant:
                rows[:, 1] = inside
            if terms.trend:
                # Without the rounding of a difference of high powers.
                rows[:, 1 + int(model.constant)] = inside * np.arange(c.size + 1, y.shape[1] + 1)
            self.columns = rows.reshape(shape[0] * shape[1], shape[2])
            self.scored = self.seen = inside
            self.differences = self.columns[:: self.n_columns]
        self._check_data()

    def _stacked(self, y: np.ndarray, batch: Batch) -> np.ndarray:
        """Undifferenced responses and regressors of each sequence, (n * n_columns, t)."""
        model, terms = self.model, self.model.terms
        columns = [y[:, None]]
        steps = torch.arange(1, y.shape[1] + 1)
        if model.constant:
            columns.append(np.broadcast_to(polynomial_trend(model.lags.differences, y.shape[1]), y.shape)[:, None])
        if terms.trend:
            columns.append(np.broadcast_to(terms.line(steps).numpy(), y.shape)[:, None])
        columns += [np.broadcast_to(wave, y.shape)[:, None] for wave in terms.fourier(steps).numpy().T]
        if batch.u is not None:
            columns.append(np.moveaxis(batch.u.detach().numpy().astype(float), -1, 1))
        return np.ascontiguousarray(np.concatenate(columns, 1).reshape(-1, y.shape[1]))

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
        scored = self._white_noise()[2] if self.gapped else self.scored
        self.count = float((scored.sum(-1) * self.weights).sum())
        if scored.sum() <= regressors + 1 or self.scored.sum() <= regressors + 1:
            raise EmptyDataError(
                got=f"{int(scored.sum())} values left to score",
                expected=f"more than {regressors + 1}, after the first {n} of a sequence that are only conditioned on",
                remedy="Pass a longer series, or lower the orders of differencing.",
            )
        self._check_terms()
        left = float(np.mean(self._unexplained()[self.scored] ** 2))
        self.settled_by_covariates = math.sqrt(left) <= 1e-13 * self.largest
        if not self.settled_by_covariates:
            return
        by_terms = float(np.mean(self._unexplained(covariates=False)[self.scored] ** 2))
        if left == 0.0 or math.sqrt(by_terms) <= 1e-13 * self.largest:
            raise DataError(
                got="a series that does not vary" + (f" after {n} differences" if n else ""),
                expected="values with some variance" + (" around the terms" if self.model.terms.moving else ""),
                remedy="A constant needs no model; check the column, or difference less.",
            )

    def _check_terms(self) -> None:
        """Raise for lines and waves that these few steps cannot tell apart."""
        terms = self.model.terms
        if not terms.moving:
            return
        names = [name for name, has in (("the constant", terms.constant), ("the trend", terms.trend)) if has]
        rows = self.regressors[:, : self.n_terms].transpose(0, 2, 1)[self.scored]
        sizes = np.sqrt((rows**2).sum(0))
        triangle = np.abs(np.linalg.qr(rows / np.where(sizes > 0, sizes, 1.0)).R.diagonal())
        for name, size, left in zip([*names, *terms.names], sizes, triangle, strict=True):
            if size == 0 or left < _COLLINEAR:
                raise DataError(
                    got=f"{name}, which the terms before it explain in the {len(rows)} values of this series",
                    expected="a series long enough to tell its terms apart",
                    remedy="Pass a longer series, or leave terms out.",
                )

    def _unexplained(self, covariates: bool = True) -> np.ndarray:
        """(Differenced) responses less their least-squares fit by the regressors, zero where not scored."""
        w = np.where(self.scored, self.differences, 0.0)
        n_regressors = self.n_columns - 1 if covariates else self.n_terms
        if n_regressors == 0:
            return w
        if n_regressors == 1 and self.model.constant:
            return np.where(self.scored, w - w.sum() / self.scored.sum(), 0.0)
        rows = self.regressors[:, :n_regressors].transpose(0, 2, 1)
        inside = rows[self.scored]
        # Columns of one size: what is small is then small because others explain it.
        sizes = np.sqrt((inside**2).sum(0)).clip(1e-300)
        beta = np.linalg.lstsq(inside / sizes, w[self.scored], rcond=1e-12)[0] / sizes
        return np.where(self.scored, w - rows @ beta, 0.0)

    # likelihood -------------------------------------------------------------------------------------------------------

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        model = self.model
        common = (x, self.orders, model.period, model.lags.ar, model.lags.ma)
        if self.gapped:
            data = (model.lags.differences, self.columns, self.seen, self.weights, self.n_columns)
            return objective_with_gaps(*common, *data)
        return objective(*common, self.columns, self.lengths, self.weights, self.n_columns)

    def descend(self, descent: Descent, values: np.ndarray, max_iter: int, tol: float) -> int:
        if self.gapped:
            return super().descend(descent, values, max_iter, tol)
        model = self.model
        common = (self.orders, model.period, model.lags.ar, model.lags.ma)
        data = (self.columns, self.lengths, self.weights, self.n_columns)
        return descend_profile(descent, values, max_iter, tol, *common, *data)

    @property
    def work(self) -> float:
        size = self.model.state_size**2 if self.gapped else self.model.state_size + 10
        return 10.0 * size * self.columns.size

    def _factors(self, x: np.ndarray) -> list[np.ndarray]:
        """Coefficients of phi, theta, Phi and Theta at their lags."""
        return list(unpack(x, *self.orders))

    def _coefficients(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi, theta, seasonal_phi, seasonal_theta = self._factors(x)
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

    def _white_noise(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_whitened` without any coefficient, for sequences with gaps."""
        lags, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        system, cov, diffuse, *_ = state_space(lags, none, lags, none, self.model.lags.differences)
        return innovations_with_gaps(system, cov, diffuse, self.columns, self.seen, self.n_columns)

    def _location_and_scale(self, x: np.ndarray) -> np.ndarray:
        if self.gapped:
            beta, sigma2, *_ = concentrate(*self._whitened(x), self.weights, self.n_columns)
        else:
            model = self.model
            common = (x, self.orders, model.period, model.lags.ar, model.lags.ma)
            beta, sigma2, _ = profile_at(*common, self.columns, self.lengths, self.weights, self.n_columns)
        return np.append(beta, math.sqrt(sigma2))

    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        return self.parameters_at(x, self._location_and_scale(x))

    def parameters_at(self, x: np.ndarray, other: np.ndarray) -> dict[str, Tensor]:
        values = dict(zip(FACTORS, self._factors(x), strict=True))
        params = {name: torch.from_numpy(value) for name, value in values.items() if value.size}
        if self.model.constant:
            # Differences do not see the centre.
            shift = 0.0 if self.model.n_differences else self.centre
            params["mean"] = torch.tensor(other[0] + shift, dtype=torch.float64)
        at = int(self.model.constant)
        if self.model.terms.trend:
            params["trend"] = torch.tensor(other[at], dtype=torch.float64)
        if self.model.terms.waves:
            params["fourier"] = torch.from_numpy(other[at + int(self.model.terms.trend) : self.n_terms].copy())
        if self.model.n_covariates:
            params["coefficients"] = torch.from_numpy(other[self.n_terms : -1].copy())
        params["scale"] = torch.tensor(max(other[-1], 1e-150), dtype=torch.float64)
        return params

    def integrated(self, x: np.ndarray) -> Integrated:
        e, f, scored = self._whitened(x)
        if not np.isfinite(e).all():
            return Integrated(-math.inf, np.zeros(self.n_columns - 1), np.eye(self.n_columns - 1), 1.0, 1.0)
        weights = self.weights[:, None] * scored
        rows = e.reshape(len(f), self.n_columns, -1)
        both = np.einsum("sit,sjt,st->ij", rows, rows, weights / f)
        moment, gram = both[1:, 0], both[1:, 1:]
        location = np.linalg.lstsq(gram, moment, rcond=1e-14)[0]
        left = rows[:, 0] - np.einsum("sit,i->st", rows[:, 1:], location)
        rest = float((weights * left**2 / f).sum())
        df = float(weights.sum()) - len(location)
        log_det = float(np.linalg.slogdet(gram)[1]) if len(location) else 0.0
        log_prob = -0.5 * float((weights * np.log(f)).sum()) - 0.5 * log_det - 0.5 * df * math.log(max(rest, 1e-300))
        return Integrated(log_prob, location, gram, rest, df)

    # starts -----------------------------------------------------------------------------------------------------------

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        if self.size == 0:
            return [np.zeros(0)]
        w = self._unexplained()
        n = w.shape[1]
        _, q, _, seasonal_q = self.orders.tolist()
        period = self.model.period
        wanted = int(10 * math.log10(max(n, 2))) + period * seasonal_q if q + seasonal_q else 0
        guess = hannan_rissanen(w, self.scored, self.orders, period, min(wanted, n // 3))
        found = [free_from_coefficients(guess, self.orders, 0.98), np.zeros(self.size)]
        for _ in range(n_random):
            partial = 1.8 * torch.rand(self.size, generator=generator, dtype=torch.float64).numpy() - 0.9
            found.append(partial / np.sqrt(1.0 - partial**2))
        return found

    def rivals(self) -> list[np.ndarray]:
        """A nearly integrated and an alternating series, where autoregression and moving average compete."""
        p, q = self.orders[:2]
        if not (p and q) or self.work > _RIVALS_WORK:
            return []
        found = np.zeros((len(_RIVALS), self.size))
        found[:, 0] = _RIVALS
        return list(found / np.sqrt(1.0 - found**2))

    # after the fit ----------------------------------------------------------------------------------------------------

    def covariance(self, x: np.ndarray) -> np.ndarray:
        k, step = self.n_columns - 1, 1e-4
        curvature, slopes = np.empty((self.size, self.size)), np.empty((k + 1, self.size))
        for i in range(self.size):
            up, down = x.copy(), x.copy()
            up[i] += step * (1.0 + abs(x[i]))
            down[i] -= step * (1.0 + abs(x[i]))
            width = up[i] - down[i]
            curvature[i] = (self.objective(up)[1] - self.objective(down)[1]) * self.count / width
            slopes[:, i] = (self._location_and_scale(up) - self._location_and_scale(down)) / width
        sigma2 = float(self._location_and_scale(x)[-1] ** 2)
        information = np.zeros((k + 1, k + 1))
        information[k, k] = 2.0 * self.count / sigma2
        information[:k, :k] = self._gram(x) / sigma2
        of_x = _pseudo_inverse(0.5 * (curvature + curvature.T))
        cross = of_x @ slopes.T
        rest = _pseudo_inverse(information) + slopes @ cross
        whole = np.block([[of_x, cross], [cross.T, rest]])
        # The model's flat parameter of the scale is its logarithm.
        jacobian = np.ones(len(whole))
        jacobian[-1] = 1.0 / math.sqrt(sigma2)
        return whole * jacobian * jacobian[:, None]

    def _gram(self, x: np.ndarray) -> np.ndarray:
        """X' Omega^-1 X of the regressors, (k, k), for innovations of variance 1."""
        e, f, scored = self._whitened(x)
        regressors = e.reshape(len(f), self.n_columns, -1)[:, 1:]
        return np.einsum("sit,sjt,st->ij", regressors, regressors, self.weights[:, None] * scored / f)

    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        model = self.model
        seasons = (1, 1, model.period, model.period)
        parts = zip(_NAMES, model.own_lags, self._factors(x), seasons, strict=True)
        found = root_problems([Factor(*part) for part in parts])
        if not self.settled_by_covariates:
            return found
        return (*found, "The covariates explain the series but for rounding: its scale is that of rounding.")


def _pseudo_inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix; for a few numbers several times faster than numpy's."""
    values, vectors = np.linalg.eigh(matrix)
    sizes = np.abs(values)
    kept = sizes > 1e-15 * sizes.max(initial=0.0)
    return (vectors * np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)) @ vectors.T
