"""The likelihood of a vector ARMA model as a search sees it: whitened, and from moments where there are no gaps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.gaussian import lower_factor
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.errors import EmptyDataError
from probseq.models.base import Batch
from probseq.models.concentrated import Profile
from probseq.models.varma_problems import undetermined, varma_problems
from probseq.models.varma_starts import LinearStart, least_squares, mended, regression_residuals, two_stages

if TYPE_CHECKING:
    from probseq.models.varma import VARMAModel

__all__ = ["VARMAProfile"]

# Points whose gradients are computed at once.
_TOGETHER = 64
_STEP = 1e-4


class VARMAProfile(Profile):
    """-log p(x) over the free parameters of the model in the coordinates W^(-1) (x_t - centre).

    W W' is the covariance of the innovations of a first regression, so that any units and any linear mixture of the
    variables give the same search. Nothing is concentrated out. A vector autoregression of series without gaps reads
    the triangular factor of its moments, whatever their length.

    Parameters
    ----------
    model : VARMAModel
    batch : Batch
    weights : (n,) or None

    Raises
    ------
    EmptyDataError
        For fewer steps than coefficients.
    DataError
        If a combination of the variables does not vary.
    """

    def __init__(self, model: VARMAModel, batch: Batch, weights: Tensor | None = None) -> None:
        self.model, self.batch = model, batch
        self.weights = torch.ones(batch.n, dtype=torch.float64) if weights is None else weights.detach().double()
        self.specs = model.parameters()
        self.size = unconstrained_size(self.specs)
        self.count = float((batch.seen.sum((1, 2)) * self.weights).sum())
        k, m = model.observation.n_variables, model.n_covariates
        x, seen, lengths = (part.detach().numpy() for part in (batch.x.double(), batch.seen, batch.lengths))
        u = np.zeros((*x.shape[:2], m)) if batch.u is None or not m else batch.u.detach().numpy().astype(float)
        needed = self.size - k * (k + 1) // 2 + k
        if int(seen.sum()) < needed or not seen.any((0, 1)).all():
            raise EmptyDataError(
                got=f"{int(seen.sum())} values",
                expected=f"some of every variable, and at least {needed} for this model",
                remedy="Pass a longer series, or lower the orders.",
            )
        self.y, mean, beta = regression_residuals(mended(x, seen, lengths), u, lengths, model.constant)
        self.lengths = lengths
        start = least_squares(self.y, lengths, model.order[0])
        self.w = np.linalg.cholesky(start.covariance)
        scale = np.sqrt(np.mean(u[np.arange(u.shape[1]) < lengths[:, None]] ** 2, axis=0)) if m else np.ones(0)
        self._whitener = torch.from_numpy(self.w)
        self._colour = torch.linalg.inv(self._whitener)
        self._centre = torch.from_numpy(mean)
        self._beta = torch.from_numpy(beta)
        self._scale = torch.from_numpy(np.where(scale > 0, scale, 1.0))
        self.whole = model.is_whole(batch)
        if self.whole:
            self._take_moments(x, u)

    # coordinates ------------------------------------------------------------------------------------------------------

    def _params(self, x: Tensor) -> dict[str, Tensor]:
        """The model's parameters at x (*draw, m)."""
        inner = unflatten(self.specs, x)
        w, back = self._whitener, self._colour
        found = {}
        for name, value in inner.items():
            if name in ("ar", "ma"):
                found[name] = w @ value @ back
            elif name == "mean":
                found[name] = self._centre + value @ w.mT
            elif name == "coefficients":
                found[name] = self._beta + (value @ w.mT) / self._scale.unsqueeze(-1)
            else:
                found[name] = w @ value @ w.mT
        return found

    def _free(self, start: LinearStart) -> np.ndarray:
        """Where a linear start lies, with the location of the first regression."""
        inner = {"covariance": self._colour @ torch.from_numpy(start.covariance) @ self._colour.mT}
        for name, value in (("ar", start.ar), ("ma", start.ma)):
            if name in self.specs:
                inner[name] = self._colour @ torch.from_numpy(value) @ self._whitener
        for name in ("mean", "coefficients"):
            if name in self.specs:
                inner[name] = torch.zeros(self.specs[name].shape, dtype=torch.float64)
        return flatten(self.specs, inner).numpy()

    def parameters(self, x: np.ndarray) -> dict[str, Tensor]:
        found = self._params(torch.from_numpy(x))
        found["covariance"] = 0.5 * (found["covariance"] + found["covariance"].mT)
        return found

    # likelihood -------------------------------------------------------------------------------------------------------

    def _take_moments(self, x: np.ndarray, u: np.ndarray) -> None:
        """Sums over steps of products of (y_t, ..., y_(t-p), 1, u_t, ..., u_(t-p)), as a triangular factor."""
        p = self.model.order[0]
        y = (x - self._centre.numpy() - u @ self._beta.numpy()) @ self._colour.numpy().T
        v = u / self._scale.numpy()
        rows, first = [np.zeros((1, (p + 1) * (y.shape[-1] + v.shape[-1]) + 1))], []
        for i, length in enumerate(self.lengths.tolist()):
            root = math.sqrt(float(self.weights[i]))
            lags = [y[i, p - lag : length - lag] for lag in range(p + 1)]
            lags.append(np.ones((length - p, 1)))
            lags += [v[i, p - lag : length - lag] for lag in range(p + 1)]
            rows.append(root * np.concatenate(lags, -1))
            first.append(y[i, :p].ravel())
        self._moments = torch.from_numpy(np.linalg.qr(np.concatenate(rows), mode="r"))
        self._steps = float(((torch.from_numpy(self.lengths) - p) * self.weights).sum())
        self._first = torch.from_numpy(np.stack(first)) if p else torch.zeros(len(x), 0, dtype=torch.float64)
        self._first_inputs = torch.from_numpy(np.ascontiguousarray(v[:, :p]))
        self._jacobian = self.count / y.shape[-1] * math.log(abs(float(np.prod(np.diag(self.w)))))

    def _from_moments(self, x: Tensor) -> Tensor:
        """Log-likelihood (*draw,) of complete series under an autoregression, at x (*draw, m)."""
        inner = unflatten(self.specs, x)
        draw, k, p = x.shape[:-1], self.model.observation.n_variables, self.model.order[0]
        covariance = inner["covariance"]
        ar = self.model.matrices(inner)[0]
        # One row of matrices: of y_t, ..., y_(t-p), the mean and u_t, ..., u_(t-p) in e_t.
        one = torch.eye(k, dtype=x.dtype).expand(*draw, 1, k, k)
        phi = torch.cat([one, -ar], -3)
        mean = inner.get("mean", x.new_zeros(*draw, k))
        parts = [*phi.unbind(-3), -(phi.sum(-3) @ mean.unsqueeze(-1))]
        beta = inner.get("coefficients")
        if beta is not None:
            parts += [-(matrix @ beta.mT) for matrix in phi.unbind(-3)]
        factor = lower_factor(covariance)
        e = torch.linalg.solve_triangular(factor, torch.cat(parts, -1) @ self._moments.mT, upper=False)
        size = torch.log(factor.diagonal(dim1=-2, dim2=-1)).sum(-1)
        total = -0.5 * e.square().sum((-2, -1)) - self._steps * size
        if p:
            space = self.model.system({**inner, "mean": mean})
            at = torch.arange(p * k).reshape(p, k).flip(0).flatten()
            start = lower_factor(space.cov[..., at, :][..., at])
            y = self._first - mean.unsqueeze(-2).repeat_interleave(p, -2).reshape(*draw, 1, p * k)
            if beta is not None:
                y = y - (self._first_inputs @ beta.unsqueeze(-3)).flatten(-2)
            z = torch.linalg.solve_triangular(start, y.mT, upper=False)
            size = torch.log(start.diagonal(dim1=-2, dim2=-1)).sum(-1)
            total = total - 0.5 * (z.square().sum(-2) @ self.weights) - float(self.weights.sum()) * size
        return total - self._jacobian - 0.5 * math.log(2.0 * math.pi) * self.count

    def _log_likelihood(self, x: Tensor) -> Tensor:
        if self.whole:
            return self._from_moments(x)
        return self.model.log_prob_steps(self._params(x), self.batch).values.sum(-1) @ self.weights

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        values, gradients = self._evaluate(x[None])
        return float(values[0]), gradients[0]

    def _evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = torch.from_numpy(np.ascontiguousarray(points)).requires_grad_(True)
        before = torch.get_num_threads()
        # Matrices this small are faster on one thread.
        torch.set_num_threads(1)
        try:
            with torch.enable_grad():
                value = -self._log_likelihood(flat) / self.count
                (gradient,) = torch.autograd.grad(value.sum(), flat)
        except (torch.linalg.LinAlgError, ValueError):  # type: ignore[attr-defined]
            # A matrix without a factor: too far out.
            return np.full(len(points), np.inf), np.zeros(points.shape)
        finally:
            torch.set_num_threads(before)
        return value.detach().numpy(), gradient.numpy()

    # starts -----------------------------------------------------------------------------------------------------------

    def starts(self, n_random: int, generator: torch.Generator) -> list[np.ndarray]:
        (p, q), k = self.model.order, self.model.observation.n_variables
        plain = least_squares(self.y, self.lengths, p)
        guesses = [plain._replace(ma=np.zeros((q, k, k)))]
        if q:
            try:
                guesses.insert(0, two_stages(self.y, self.lengths, p, q))
            except EmptyDataError:
                # A short series has no room for the long autoregression; the plain one is left.
                pass
            rest = least_squares(self.y, self.lengths, 0)
            guesses.append(LinearStart(np.zeros((p, k, k)), np.zeros((q, k, k)), rest.covariance))
        found = [self._free(guess) for guess in guesses]
        for _ in range(n_random):
            found.append(found[0] + 0.5 * torch.randn(self.size, generator=generator, dtype=torch.float64).numpy())
        return found

    # after the fit ----------------------------------------------------------------------------------------------------

    def _information(self, x: np.ndarray) -> np.ndarray:
        """Minus the Hessian over x, by central differences of the analytic gradient."""
        step = _STEP * (1.0 + np.abs(x))
        points = np.concatenate([x + np.diag(step), x - np.diag(step)])
        parts = [self._evaluate(points[i : i + _TOGETHER])[1] for i in range(0, len(points), _TOGETHER)]
        slopes = np.concatenate(parts)
        matrix = self.count * (slopes[: x.size] - slopes[x.size :]) / (2.0 * step[:, None])
        return 0.5 * (matrix + matrix.T)

    def covariance(self, x: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(self._information(x))
        good = values > undetermined(values)
        jacobian = self._jacobian_of_flat(x)
        moved = jacobian @ vectors
        whole = (moved[:, good] / values[good]) @ moved[:, good].T
        share = np.square(moved[:, ~good]).sum(-1) / np.square(moved).sum(-1)
        whole[share > 0.05] = np.nan
        whole[:, share > 0.05] = np.nan
        return whole

    def _jacobian_of_flat(self, x: np.ndarray) -> np.ndarray:
        """How the model's own flat coordinates move with x, (m, m)."""
        many = torch.from_numpy(np.tile(x, (x.size, 1))).requires_grad_(True)
        flat = flatten(self.specs, self._params(many))
        (rows,) = torch.autograd.grad(flat.diagonal().sum(), many)
        return rows.numpy()

    def problems(self, x: np.ndarray) -> tuple[str, ...]:
        inner = unflatten(self.specs, torch.from_numpy(x))
        ar, ma = (part.numpy() for part in self.model.matrices(inner))
        determined = np.linalg.eigvalsh(self._information(x)) if ar.size and ma.size else None
        return varma_problems(ar, ma, determined)
