"""Variational inference: the normal law of the unconstrained coordinates that is nearest to the posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import norm, qmc
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, whole_number
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.laplace import NormalApproximation, log_posterior, normal_approximation
from probseq.inference.posterior import LogPosterior
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel

__all__ = ["ADVI"]

_MODE_ITERATIONS, _MODE_TOL = 1000, 1e-12
# What the bound is where a point of it has no likelihood.
_BARRIER = 1e12


class ADVI(Inference):
    r"""argmax over q of E_q[log p(x, theta(z)) + log \|d theta / d z\|] + H(q), q = N(m, L L').

    Unlike ``Laplace``, which fits the curvature at the mode, q follows the bulk of the posterior, and its bound is
    below the log evidence. The expectation is an average over fixed quasi-random points, so that the bound is a smooth
    function that L-BFGS climbs to the end, by the analytic gradient of the likelihood; it starts at Laplace's law.
    Approximate: the posterior is taken for normal in the unconstrained coordinates.

    Parameters
    ----------
    priors : dict or None
        Distributions by the name of a parameter, as in ``MAP``; weak ones where none is given, as in ``Laplace``.
    n_draws : int
        Draws; the fitted model averages over them.
    n_points : int
        Points of the average, in pairs z and -z; at least eight for each coordinate are taken.
    n_init : int
        Random starts of the search for the mode, besides the model's guess.
    max_iter : int

    References
    ----------
    Kucukelbir et al. (2017), Automatic differentiation variational inference, JMLR 18; Giordano, Ingram and Broderick
    (2024), Black box variational inference with a deterministic objective, JMLR 25, for fixed points.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> model = ps.ARMA((1, 0), inference=ps.ADVI(n_draws=50), random_state=0).fit(level)
    >>> model.params_["ar"].sizes["draw"]
    50
    """

    fits = "any model but recurrent networks"
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "n_points": partial(whole_number, lowest=2),
        "n_init": partial(whole_number, lowest=0),
        "max_iter": partial(whole_number, lowest=1),
    }

    def __init__(
        self,
        priors: Mapping[str, Distribution] | None = None,
        n_draws: int = 200,
        n_points: int = 64,
        n_init: int = 0,
        max_iter: int = 500,
    ) -> None:
        self.priors, self.n_draws, self.n_points = priors, n_draws, n_points
        self.n_init, self.max_iter = n_init, max_iter

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return not issubclass(model_class, RecurrentModel | LatentNetwork)

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Draws:
        """Find the mode, then climb the bound, and draw.

        ``objective`` and ``trace`` are the bound on the log evidence, up to the constants of flat priors. ``log_prob``
        is log (1/D) sum_d p(x | theta_d); ``covariance`` that of the flat coordinates.

        Raises
        ------
        ParameterError
            For settings out of range and priors that do not fit.
        IncompatibleError
            For a recurrent network.
        """
        self.check()
        self.require(type(model))
        target = log_posterior(model, batch, weights, self.priors)
        near = normal_approximation(target, generator, self.n_init, _MODE_ITERATIONS, _MODE_TOL, None)
        size = near.centre.size
        bound = _Bound(target, near, _points(max(self.n_points, 8 * size), size, generator), progress)
        start = np.concatenate([np.zeros(size), np.eye(size)[bound.lower]])
        # Where a diagonal entry comes near zero the entropy falls without bound: the search never gets there.
        limits = [(None, None)] * size + [(1e-6, None) if i == j else (None, None) for i, j in zip(*bound.lower)]
        result = minimize(
            bound, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": self.max_iter, "maxcor": 20}
        )
        mean, root = bound.split(result.x)
        noise = torch.randn(int(self.n_draws), size, generator=generator, dtype=torch.float64).numpy()
        flat = torch.from_numpy(near.coordinates.flat(near.centre + (mean + noise @ root.T) @ near.root.T))
        with torch.no_grad():
            params = {name: value.clone() for name, value in target.params(flat).items()}
            each = target.log_likelihood(params)
        done = bool(result.success) or size == 0
        stopped = () if done else (f"The bound was still rising after {int(result.nit)} iterations: raise max_iter.",)
        whole = near.root @ root
        return Draws(
            params=params,
            log_prob=float(torch.logsumexp(each, 0) - math.log(len(each))),
            objective=-float(result.fun),
            status="converged" if done else "max_iter",
            n_iter=int(result.nit),
            trace=np.maximum.accumulate(np.array(bound.trace)),
            optima=np.array([-float(result.fun)]),
            messages=(*near.messages, *stopped),
            covariance=near.coordinates.spread(whole @ whole.T),
        )


class _Bound:
    """Minus the bound and its gradient at (m, L), in coordinates in which Laplace's law is standard normal."""

    def __init__(
        self, target: LogPosterior, near: NormalApproximation, points: np.ndarray, progress: Progress | None
    ) -> None:
        self.target, self.near, self.points, self.progress = target, near, points, progress
        self.size = near.centre.size
        self.lower = np.tril_indices(self.size)
        self.constant = 0.5 * self.size * (1 + math.log(2 * math.pi)) + near.log_det
        self.trace: list[float] = []

    def split(self, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        root = np.zeros((self.size, self.size))
        root[self.lower] = packed[self.size :]
        return packed[: self.size], root

    def __call__(self, packed: np.ndarray) -> tuple[float, np.ndarray]:
        mean, root = self.split(packed)
        z = self.near.centre + (mean + self.points @ root.T) @ self.near.root.T
        values, slopes = self.target.evaluate(self.near.coordinates.flat(z))
        if not np.isfinite(values).all():
            return _BARRIER, np.zeros_like(packed)
        inner = slopes[:, self.near.coordinates.index] @ self.near.root
        n = len(self.points)
        diagonal = np.diagonal(root)
        bound = float(values.mean()) + float(np.log(diagonal).sum()) + self.constant
        of_root = inner.T @ self.points / n + np.diag(1.0 / diagonal)
        self.trace.append(bound)
        if self.progress is not None:
            self.progress(len(self.trace), bound)
        return -bound, -np.concatenate([inner.mean(0), of_root[self.lower]])


def _points(n: int, size: int, generator: torch.Generator) -> np.ndarray:
    """Quasi-random standard normal points in pairs, (n, size), with covariance one."""
    half = 1 << max(0, (n + 1) // 2 - 1).bit_length()
    if size == 0:
        return np.zeros((2 * half, 0))
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    found = norm.ppf(qmc.Sobol(size, seed=seed).random(half).clip(1e-12, 1 - 1e-12))
    both = np.concatenate([found, -found])
    return both @ np.linalg.inv(np.linalg.cholesky(both.T @ both / len(both))).T
