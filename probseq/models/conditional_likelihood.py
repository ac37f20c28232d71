"""The conditional likelihood of an ARMA model over free parameters in the unit of its data."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from probseq.errors import EmptyDataError
from probseq.kernels.conditional_profile import (
    LAPLACE,
    LOWEST_DF,
    MOST_PERSISTENT,
    SKEWED,
    STUDENT,
    conditional_objective,
    conditional_run,
    volatility_from_free,
)
from probseq.kernels.sparse_profile import factors_from_free
from probseq.models.base import Batch
from probseq.models.concentrated import Profile

if TYPE_CHECKING:
    from probseq.models.conditional_arma import ConditionalARMAModel

__all__ = ["ConditionalProfile"]

# alpha + beta and alpha / (alpha + beta) that a search may start from, and degrees of freedom.
_VOLATILITIES = ((0.98, 0.05), (0.95, 0.1), (0.9, 0.2), (0.7, 0.4), (0.3, 0.7))
_DEGREES = (4.0, 12.0)
# The absolute value of Laplace's law is rounded off within so many standard deviations of zero, so that the fit has a
# slope everywhere; it costs about 1e-9 nats a value. Earlier, rounder rounds lead to the maximum.
_SMOOTH = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4)
_SMOOTHEST = 1e-5
_NEARLY_ONE, _NEARLY_CONSTANT, _NEARLY_NO_VARIANCE, _FLOOR = 0.9999, 1e-4, 0.02, 1e-7
# A coordinate without unit about which the data have less information than this, in nats, is not determined.
_UNKNOWN = 1e-3


class ConditionalProfile(Profile):
    """Minus the conditional log-likelihood, in units of the standard deviation of the Gaussian fit.

    Nothing is concentrated out: the free parameters are those of the polynomials, the regression coefficients, log
    standard deviation, logits of alpha + beta and alpha / (alpha + beta), log (df - 2.05) and log skewness.

    Parameters
    ----------
    model : ConditionalARMAModel
    batch : Batch, without missing values
    weights : (n,) or None

    Raises
    ------
    EmptyDataError
        If fewer values are scored than there are parameters.
    DataError
        As for the Gaussian model.
    """

    def __init__(self, model: ConditionalARMAModel, batch: Batch, weights: Tensor | None = None) -> None:
        self.model, self.gaussian = model, model.linear.concentrated(batch, weights)
        gaussian = self.gaussian
        self.weights, self.lengths, self.n_columns = gaussian.weights, gaussian.lengths, gaussian.n_columns
        self.counts, self.lags = gaussian.orders, np.concatenate(model.own_lags)
        self.moves, self.law = model.volatility is not None, model.innovations
        self.n_factors, self.n_beta = self.lags.size, self.n_columns - 1
        self.n_spread = 3 if self.moves else 1
        self.size = self.n_factors + self.n_beta + self.n_spread + len(self.law.shapes)
        scored = np.maximum(self.lengths - model.n_lags, 0)
        self.count = float((scored * self.weights).sum())
        if scored.sum() <= self.size:
            raise EmptyDataError(
                got=f"{int(scored.sum())} values left to score",
                expected=f"more than {self.size}, the number of parameters, after the first {model.n_conditioned} of a "
                "sequence that are only conditioned on",
                remedy="Pass a longer series, or lower the orders.",
            )
        self._free = self._gaussian_fit()
        found = gaussian._location_and_scale(self._free)
        self.unit = float(found[-1])
        columns = gaussian.columns.copy()
        sizes = np.sqrt(np.mean(columns.reshape(len(self.lengths), self.n_columns, -1) ** 2, (0, 2)))
        self.units = np.where(sizes > 0, sizes, 1.0)
        self.units[0] = self.unit
        columns /= np.tile(self.units, len(self.lengths))[:, None]
        self.columns = np.ascontiguousarray(columns)
        self._beta = found[:-1] * self.units[1:] / self.unit

    def _gaussian_fit(self) -> np.ndarray:
        """Free parameters of the polynomials at the maximum of the exact Gaussian likelihood."""
        profile = self.gaussian
        if profile.size == 0:
            return np.zeros(0)
        starts = profile.starts(0, torch.Generator().manual_seed(0))
        best = min(starts, key=lambda x: profile.objective(x)[0])
        found = minimize(profile.objective, best, jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
        return found.x if math.isfinite(found.fun) else best

    # likelihood -------------------------------------------------------------------------------------------------------

    @cached_property
    def _data(self) -> tuple:  # type: ignore[type-arg]
        lags = self.model.lags
        return (
            self.counts,
            self.lags,
            self.model.period,
            lags.ar,
            lags.ma,
            self.columns,
            self.lengths,
            self.weights,
            self.n_columns,
            self.moves,
            self.law.code,
        )

    def _evaluate(self, x: np.ndarray, smooth: float) -> tuple[float, np.ndarray]:
        value, gradient = conditional_objective(x, *self._data, smooth)
        return value + math.log(self.unit), gradient

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        return self._evaluate(x, _SMOOTHEST if self.law.code == LAPLACE else 0.0)

    @property
    def work(self) -> float:
        lags = self.model.lags.ar.size + self.model.lags.ma.size + self.n_columns
        return float(self.columns.size * (50 + 10 * lags))

    def _values(self, x: np.ndarray) -> np.ndarray:
        """log p(x_t | x_<t) of all scored values one after the other, in units of the Gaussian fit."""
        lags, period = self.model.lags, self.model.period
        *_, e, h = conditional_run(
            x, self.counts, self.lags, period, lags.ar, lags.ma, self.columns, self.lengths, self.n_columns, self.moves
        )
        n = self.columns.shape[1]
        e, h = e[:, e.shape[1] - n :], h[:, :n]
        shapes = {name: torch.tensor(value) for name, value in self._shapes(x).items()}
        loc = torch.zeros(e.shape, dtype=torch.float64)
        values = self.law.law(shapes, loc, torch.from_numpy(np.sqrt(h)), 0).log_prob(torch.from_numpy(e).unsqueeze(-1))
        step = np.arange(n)
        return values.numpy()[(step >= self.model.n_lags) & (step < self.lengths[:, None])]

    def _shapes(self, x: np.ndarray) -> dict[str, float]:
        own = x[self.size - len(self.law.shapes) :]
        lowest = {"df": LOWEST_DF, "skewness": 0.0}
        return {name: lowest[name] + math.exp(v) for name, v in zip(self.law.shapes, own, strict=True)}

    def _spread(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        at = self.n_factors + self.n_beta
        variance, garch = volatility_from_free(x[at : at + self.n_spread], self.moves)
        return variance, garch

    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        model, k = self.model, self.n_factors
        factors = np.split(factors_from_free(x[:k], self.counts, self.lags), np.cumsum(self.counts)[:-1])
        names = ("ar", "ma", "seasonal_ar", "seasonal_ma")
        found: dict[str, Tensor] = {n: torch.from_numpy(v) for n, v in zip(names, factors, strict=True) if v.size}
        beta = x[k : k + self.n_beta] * self.unit / self.units[1:]
        at = int(model.constant)
        if model.constant:
            # Differences do not see the centre of the data.
            shift = 0.0 if model.n_differences else self.gaussian.centre
            found["mean"] = torch.tensor(beta[0] + shift, dtype=torch.float64)
        if model.terms.trend:
            found["trend"] = torch.tensor(beta[at], dtype=torch.float64)
        at += int(model.terms.trend)
        if model.terms.waves:
            found["fourier"] = torch.from_numpy(beta[at : at + len(model.terms.waves)].copy())
        at += len(model.terms.waves)
        if model.n_covariates:
            found["coefficients"] = torch.from_numpy(beta[at:].copy())
        variance, garch = self._spread(x)
        if self.moves:
            found["omega"] = torch.tensor(max(garch[0] * self.unit**2, 1e-290), dtype=torch.float64)
            # Strictly inside also where a search has gone to the boundary.
            found["garch"] = torch.from_numpy(np.clip(garch[1:], 1e-16, MOST_PERSISTENT))
        else:
            found["scale"] = torch.tensor(max(math.sqrt(variance) * self.unit, 1e-150), dtype=torch.float64)
        found |= {name: torch.tensor(value, dtype=torch.float64) for name, value in self._shapes(x).items()}
        return found

    # starts -----------------------------------------------------------------------------------------------------------

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        """The Gaussian fit with several volatilities and degrees of freedom, then points around the best of them."""
        spreads: list[list[float]] = [[0.0]]
        if self.moves:
            logit = [(math.log(p / (1 - p)), math.log(s / (1 - s))) for p, s in _VOLATILITIES]
            spreads = [[0.0, *pair] for pair in logit]
        shapes: list[list[float]] = [[]]
        if "df" in self.law.shapes:
            shapes = [[math.log(df - LOWEST_DF)] for df in _DEGREES]
        if "skewness" in self.law.shapes:
            shapes = [[*one, skew] for one in shapes for skew in (-0.1, 0.0, 0.1)]
        common = np.concatenate([self._free, self._beta])
        found = [np.concatenate([common, spread, shape]) for spread in spreads for shape in shapes]
        if self.law.code != LAPLACE and not n_random:
            return found
        best = min(found, key=lambda x: self.objective(x)[0])
        noise = torch.randn(n_random, self.size, generator=generator, dtype=torch.float64).numpy()
        around = [best + 0.5 * step for step in noise]
        return [self._rounded(x) for x in (best, *around)] if self.law.code == LAPLACE else found + around

    def _rounded(self, x: np.ndarray) -> np.ndarray:
        """The maximum of smoother and smoother roundings of Laplace's law."""
        for smooth in (*_SMOOTH, _SMOOTHEST):
            options = {"maxiter": 1000, "gtol": 1e-8, "ftol": 1e-13, "maxcor": 20, "maxls": 40}
            result = minimize(self._evaluate, x, (smooth,), "L-BFGS-B", True, options=options)
            x = result.x if math.isfinite(result.fun) else x
        return x

    # after the fit ----------------------------------------------------------------------------------------------------

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Inverse of the observed information; for Laplace's law, which has no curvature, of the scores' products.

        NaN for what depends on a coordinate of which the data know nothing, such as beta where alpha is zero.
        """
        matrix = self._outer_product(x) if self.law.code == LAPLACE else self._curvature(x)
        free = np.flatnonzero(np.diag(matrix) > _UNKNOWN)
        inverse = np.zeros_like(matrix)
        inverse[np.ix_(free, free)] = np.linalg.pinv(matrix[np.ix_(free, free)], hermitian=True)
        jacobian = self._jacobian(x)
        found = jacobian @ inverse @ jacobian.T
        lost = (np.delete(jacobian, free, 1) != 0.0).any(1)
        found[lost], found[:, lost] = np.nan, np.nan
        return found

    def _curvature(self, x: np.ndarray) -> np.ndarray:
        matrix = np.empty((self.size, self.size))
        for i in range(self.size):
            move = 1e-4 * np.eye(self.size)[i] * (1.0 + abs(x[i]))
            up, down = x + move, x - move
            matrix[i] = (self.objective(up)[1] - self.objective(down)[1]) * self.count / (up[i] - down[i])
        return 0.5 * (matrix + matrix.T)

    def _outer_product(self, x: np.ndarray) -> np.ndarray:
        columns = []
        for i in range(self.size):
            move = 1e-5 * np.eye(self.size)[i] * (1.0 + abs(x[i]))
            columns.append((self._values(x + move) - self._values(x - move)) / (2 * move[i]))
        scores = np.stack(columns, -1)
        each = np.repeat(self.weights, np.maximum(self.lengths - self.model.n_lags, 0))
        return (scores * each[:, None]).T @ scores

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        """Slopes of the model's flat unconstrained parameters by those of this profile, logarithms where positive."""
        slopes = np.eye(self.size)
        k = self.n_factors
        beta = range(k, k + self.n_beta)
        for j in beta:
            slopes[j, j] = self.unit / self.units[1 + j - k]
        at = k + self.n_beta
        variance, garch = self._spread(x)
        if self.moves:
            total = garch[1] + garch[2]
            slopes[at, at], slopes[at, at + 1] = 2.0, -total / (1.0 + math.exp(x[at + 1])) / (1.0 - total)
        return slopes

    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        k = self.n_factors
        found = list(self.gaussian.problems(x[:k]))
        variance, garch = self._spread(x)
        if math.sqrt(variance) < _FLOOR:
            found.append("The scale of the innovations collapsed: the model reproduces (nearly) every value.")
        if self.moves and garch[1] + garch[2] > _NEARLY_ONE:
            found.append(
                f"alpha + beta of the GARCH is {garch[1] + garch[2]:.6g}, nearly 1: shocks to the variance do not die "
                "out, and the unconditional variance is hardly determined. The variance may have moved to another "
                "level within the data."
            )
        if self.moves and garch[1] < _NEARLY_CONSTANT:
            found.append(
                "alpha of the GARCH is nearly 0: the variance does not move, and nothing tells omega from beta. Leave "
                "volatility out."
            )
        if self.law.code in (STUDENT, SKEWED) and self._shapes(x)["df"] < LOWEST_DF + _NEARLY_NO_VARIANCE:
            found.append(
                f"The degrees of freedom are at their lower bound {LOWEST_DF}: the innovations may have no variance."
            )
        return tuple(found)
