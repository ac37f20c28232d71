"""The profile likelihood of a structural model: the common scale and the regression coefficients concentrated out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import flatten, unflatten
from probseq.errors import DataError, EmptyDataError
from probseq.kernels.linear_gaussian import System, filter_series, make_system
from probseq.kernels.linear_gaussian_adjoint import filter_adjoint
from probseq.models.base import Batch
from probseq.models.concentrated import Profile
from probseq.models.linear_gaussian_likelihood import patterns_of

if TYPE_CHECKING:
    from probseq.models.structural import StructuralModel

__all__ = ["StructuralProfile"]

# Scales below this share of the whole are given as this share: a variance of zero has no place in an open interval.
_LEAST = 1e-10
_ROUNDING = float(np.finfo(float).eps)


class StructuralProfile(Profile):
    """Coordinates x: the scales up to a common factor (their signs do not matter), then the logit of the damping.

    Variances are x_i^2 / sum_j x_j^2 times the common variance, so that each may be zero, and none must be positive.

    Parameters
    ----------
    model : StructuralModel
    batch : Batch
    weights : (n,) or None

    Raises
    ------
    EmptyDataError
        If nothing is left to score after conditioning and regression.
    DataError
        If the data do not vary.
    """

    def __init__(self, model: StructuralModel, batch: Batch, weights: Tensor | None = None) -> None:
        self.model, self.batch = model, batch
        self.weights = np.ones(batch.n) if weights is None else weights.detach().numpy().astype(float)
        self.given_weights = weights
        self.n_scales = len(model.scales)
        self.size = self.n_scales + int(model.damped)
        y, seen = batch.x.detach().numpy().astype(float), batch.seen.numpy()
        # The level is diffuse: numbers far from zero would only cost digits.
        self.centre = float(y[seen].mean()) if seen.any() else 0.0
        y = np.where(seen, y - self.centre, 0.0)
        u = np.zeros((*y.shape[:2], 0)) if batch.u is None else batch.u.detach().numpy().astype(float)
        lengths = batch.lengths.numpy()
        groups: dict[bytes, list[int]] = {}
        for i, key in enumerate(patterns_of(seen, lengths)):
            groups.setdefault(key, []).append(i)
        # Columns (1 + m, c, t) of every group of sequences that share their gaps: responses, then regressors.
        self.groups = []
        for rows in groups.values():
            t = int(lengths[rows[0]])
            columns = np.concatenate([y[rows, :t], u[rows, :t]], -1).transpose(2, 0, 1)
            self.groups.append((np.ascontiguousarray(columns), seen[rows[0], :t], self.weights[rows]))
        self._check(seen, y)

    def _check(self, seen: np.ndarray, y: np.ndarray) -> None:
        system = self._system(self._even())
        scored = sum(float(group[2].sum()) * int(self._whitened(group, system)[2].sum()) for group in self.groups)
        self.count = scored
        regressors = self.model.n_covariates
        if scored <= regressors + 1:
            raise EmptyDataError(
                got=f"{scored:g} values left to score",
                expected=f"more than {regressors + 1}, after the first {self.model.row.size} of a sequence that are "
                "only conditioned on",
                remedy="Pass a longer series, or leave the season or the slope out.",
            )
        if float(np.ptp(y[seen])) <= 1e-13 * abs(self.centre):
            raise DataError(
                got="a series that does not vary",
                expected="values with some variance",
                remedy="A constant needs no model; check the column.",
            )

    # likelihood -------------------------------------------------------------------------------------------------------

    def _even(self) -> np.ndarray:
        return np.append(np.ones(self.n_scales), np.full(self.size - self.n_scales, 2.0))

    def _shares(self, x: np.ndarray) -> np.ndarray:
        squares = x[: self.n_scales] ** 2
        return squares / max(float(squares.sum()), 1e-300)

    def _damping(self, x: np.ndarray) -> float:
        return 1.0 / (1.0 + math.exp(-float(np.clip(x[-1], -30.0, 30.0))))

    def _system(self, x: np.ndarray) -> System:
        model, shares = self.model, self._shares(x)
        r = model.row.size
        turn, spread = model.turn.copy(), np.zeros((r, r))
        if model.damped:
            turn[1, 1] = self._damping(x)
        for share, component in zip(shares[1:], model.components.values(), strict=True):
            at = range(r)[component.states]
            spread[at, at] = share
        return make_system(model.row[None], np.zeros(1), shares[:1, None], turn, np.zeros(r), spread)

    def _whitened(
        self, group: tuple[np.ndarray, np.ndarray, np.ndarray], system: System
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Innovations of every column (1 + m, c, t), their variances (t,), and what is scored (t,)."""
        columns, seen, _ = group
        m, c, t = columns.shape
        r = self.model.row.size
        start = np.zeros((m * c, r)), np.zeros((r, r)), np.eye(r)
        _, proper, means, covs, _ = filter_series(system, columns.reshape(m * c, t, 1), seen, *start, True)
        row = self.model.row
        e = columns - (means @ row).T.reshape(m, c, t)
        return e, (covs @ row) @ row + system.h[0, 0], proper[:-1, 0] & seen[:, 0]

    def _concentrate(self, system: System) -> tuple[np.ndarray, float, float]:
        """Coefficients, common variance, and sum of log F."""
        if self.model.n_covariates == 0:
            return self._spread(system)
        products, logs = self._products(system)
        if math.isnan(logs):
            return np.zeros(self.model.n_covariates), math.nan, math.nan
        beta, left = _regressed(products)
        # What is left of a sum cannot be told below its rounding.
        return beta, max(left, _ROUNDING * float(products[0, 0])) / self.count, logs

    def _products(self, system: System) -> tuple[np.ndarray, float]:
        """Products (1 + m, 1 + m) of the whitened response and regressors, and sum of log F; NaN where F is not > 0."""
        m = self.model.n_covariates
        products, logs = np.zeros((m + 1, m + 1)), 0.0
        for group in self.groups:
            e, f, scored = self._whitened(group, system)
            if not (f[scored] > 0.0).all():
                return products, math.nan
            part = (e[:, :, scored] / np.sqrt(f[scored])) * np.sqrt(group[2])[:, None]
            flat = part.reshape(m + 1, -1)
            products += flat @ flat.T
            logs += float(group[2].sum()) * float(np.log(f[scored]).sum())
        return products, logs

    def _spread(self, system: System) -> tuple[np.ndarray, float, float]:
        """As `_concentrate` without regressors: a series of zeros, whose innovations are zero, gives sum of log F."""
        squares, logs = 0.0, 0.0
        r = self.model.row.size
        for columns, seen, weights in self.groups:
            c, t = columns.shape[1:]
            both = np.concatenate([columns[0], np.zeros((1, t))])[..., None]
            start = np.zeros((c + 1, r)), np.zeros((r, r)), np.eye(r)
            values, proper, *_ = filter_series(system, both, seen, *start, False)
            each = values.sum(1)
            scored = int((proper[:-1] & seen).sum())
            if not np.isfinite(each).all():
                return np.zeros(0), math.nan, math.nan
            squares += float(weights @ (2.0 * (each[-1] - each[:-1])))
            logs -= float(weights.sum()) * (2.0 * each[-1] + scored * math.log(2.0 * math.pi))
        return np.zeros(0), max(squares, 0.0) / self.count, logs

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        system = self._system(x)
        beta, variance, logs = self._concentrate(system)
        if not variance > 0.0:
            return math.inf, np.zeros(self.size)
        value = 0.5 * (math.log(2.0 * math.pi * variance) + 1.0 + logs / self.count)
        noise, spread, turned = 0.0, np.zeros(self.model.row.size), 0.0
        r = self.model.row.size
        for columns, seen, weights in self.groups:
            residual = (columns[0] - np.tensordot(beta, columns[1:], 1)) / math.sqrt(variance)
            c, t = residual.shape
            start = np.zeros((c, r)), np.zeros((r, r)), np.eye(r)
            ones = np.ascontiguousarray(np.broadcast_to(weights[:, None], (c, t)))
            grads = filter_adjoint(system, residual[..., None], seen, *start, ones)
            noise += grads.h[0, 0]
            spread += np.diag(grads.q)
            turned += grads.t[1, 1] if self.model.damped else 0.0
        of_share = np.array([noise, *(spread[c.states].sum() for c in self.model.components.values())])
        shares = self._shares(x)
        total = max(float((x[: self.n_scales] ** 2).sum()), 1e-300)
        slope = 2.0 * x[: self.n_scales] * (of_share - of_share @ shares) / total
        if self.model.damped:
            slope = np.append(slope, turned * self._damping(x) * (1.0 - self._damping(x)))
        return value, -slope / self.count

    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        beta, variance, _ = self._concentrate(self._system(x))
        scales = math.sqrt(max(variance, 1e-300)) * np.maximum(np.sqrt(self._shares(x)), _LEAST)
        scales = np.maximum(scales, 1e-150)
        params = dict(zip(self.model.scales, torch.from_numpy(scales).unbind(), strict=True))
        if self.model.damped:
            params["damping"] = torch.tensor(self._damping(x), dtype=torch.float64)
        if self.model.n_covariates:
            params["coefficients"] = torch.from_numpy(beta)
        return params

    # starts -----------------------------------------------------------------------------------------------------------

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        sizes = {"scale": (1.0, 0.3, 1.0), "level_scale": (0.5, 1.0, 0.05), "slope_scale": (0.05, 0.1, 0.05)}
        found = []
        for i in range(3):
            x = [sizes.get(name, (0.1, 0.1, 0.1))[i] for name in self.model.scales]
            found.append(np.append(x, np.full(self.size - self.n_scales, 2.0)))
        for _ in range(n_random):
            found.append(torch.randn(self.size, generator=generator, dtype=torch.float64).exp().numpy())
        return found

    # after the fit ----------------------------------------------------------------------------------------------------

    def covariance(self, x: np.ndarray) -> np.ndarray:
        model, params = self.model, self.parameters(x)
        specs = model.parameters()
        centre = flatten(specs, params).detach()
        steps = 1e-4 * torch.maximum(torch.ones_like(centre), centre.abs())

        def gradient(flat: Tensor) -> np.ndarray:
            leaf = flat.clone().requires_grad_(True)
            with torch.enable_grad():
                each = model.log_prob(unflatten(specs, leaf), self.batch)
                total = each.sum() if self.given_weights is None else (each * self.given_weights).sum()
                (slope,) = torch.autograd.grad(total, leaf)
            found: np.ndarray = slope.numpy()
            return found

        rows = []
        for i, step in enumerate(steps):
            move = torch.zeros_like(centre)
            move[i] = step
            rows.append((gradient(centre - move) - gradient(centre + move)) / (2.0 * float(step)))
        curvature = np.stack(rows)
        found: np.ndarray = np.linalg.pinv(0.5 * (curvature + curvature.T), hermitian=True)
        return found

    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        if self.model.n_covariates == 0:
            return ()
        products, _ = self._products(self._system(x))
        if _regressed(products)[1] > 10.0 * _ROUNDING * float(products[0, 0]):
            return ()
        return ("The covariates explain the series but for rounding: its scales are those of rounding.",)


def _regressed(products: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients (m,) of the regressors, and the sum of squares that they leave of the response."""
    beta = np.linalg.lstsq(products[1:, 1:], products[1:, 0], rcond=None)[0]
    return beta, float(products[0, 0] - products[0, 1:] @ beta)
