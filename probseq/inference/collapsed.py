"""Draws of ARMA-like models: location and scale integrated out, importance sampling of the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from probseq._types import Rule, whole_number
from probseq.errors import EmptyDataError
from probseq.inference.base import Draws, Inference, Progress
from probseq.models.base import Batch, SequenceModel
from probseq.models.integrated import Integrated, IntegratedLikelihood, IntegratedProfile

__all__ = ["Collapsed"]

# Degrees of freedom of the proposals, and how much wider they are than the normal law at the mode.
_DF, _WIDER = 4.0, 1.2
_STEP = 1e-3
# Effective draws below which the draws are said to be few.
_FEW = 0.1


class Collapsed(Inference):
    r"""theta ~ p(phi, theta \| x), then sigma and the location from their exact laws given these.

    Mean, trend, waves, coefficients and scale have the prior p(beta, sigma) = 1 / sigma and are integrated out in
    closed form, as in restricted maximum likelihood, which takes most of the downward bias of short series off the
    autoregression. Partial autocorrelations have independent arcsine laws, p(rho) proportional to 1 / sqrt(1 - rho^2).
    The posterior of these few is drawn from by importance sampling with two rounds of Student t proposals around its
    mode, and resampled to draws of equal weight: exact up to the Monte Carlo error of a finite number of proposals.

    Parameters
    ----------
    n_draws : int
        Draws; the fitted model averages over them.
    n_proposals : int
        Points at which the posterior is computed.

    References
    ----------
    Barndorff-Nielsen and Schou (1973), On the parametrization of autoregressive models by partial autocorrelations;
    Harville (1974), Bayesian inference for variance components using only error contrasts; Tunnicliffe Wilson (1989),
    On the use of marginal likelihood in time series model estimation; Owen and Zhou (2000), Safe and effective
    importance sampling, for the weights of two rounds.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> plain = ps.ARMA((1, 0)).fit(level[:20])
    >>> honest = ps.ARMA((1, 0), inference=ps.Collapsed(), random_state=0).fit(level[:20])
    >>> widths = [float(m.forecast(5).interval(0.9).diff("bound")[-1].squeeze()) for m in (plain, honest)]
    >>> widths[0] < widths[1]
    True
    """

    fits = "ARMA models"
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "n_proposals": partial(whole_number, lowest=50),
    }

    def __init__(self, n_draws: int = 200, n_proposals: int = 1000) -> None:
        self.n_draws, self.n_proposals = n_draws, n_proposals

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, IntegratedLikelihood)

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
        """Find the mode, propose around it twice, and resample.

        ``objective`` is the log of the integrated posterior at its mode, up to a constant; ``log_prob`` is
        log (1/D) sum_d p(x | theta_d).

        Raises
        ------
        ParameterError
            For settings out of range.
        EmptyDataError
            If there are no more values than parameters of the location.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, IntegratedLikelihood):
            raise TypeError("can_fit accepted a model without the capability")
        profile = model.integrated(batch, weights)
        target = _Target(profile)
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        points, found, log_weights, mode = _propose(target, int(self.n_proposals), rng)
        shares = np.exp(log_weights - log_weights.max())
        shares /= shares.sum()
        effective = 1.0 / float((shares**2).sum())
        # One uniform number for all: systematic resampling.
        levels = (np.arange(self.n_draws) + rng.random()) / self.n_draws
        chosen = np.searchsorted(np.cumsum(shares), levels).clip(max=len(shares) - 1)
        each = [_complete(profile, np.sinh(points[i]), found[i], rng) for i in chosen]
        params = {name: torch.stack([one[name] for one in each]) for name in each[0]}
        with torch.no_grad():
            likelihood = model.log_prob(params, batch)
            likelihood = likelihood.sum(-1) if weights is None else likelihood @ weights.to(likelihood.dtype)
        few = effective < _FEW * self.n_proposals and profile.size > 0
        messages = (
            f"The {self.n_proposals} proposals are worth {effective:.0f} independent draws: raise n_proposals."
            if few
            else "",
        )
        return Draws(
            params=params,
            log_prob=float(torch.logsumexp(likelihood, 0) - math.log(len(likelihood))),
            objective=mode,
            status="converged",
            n_iter=len(points),
            trace=np.array([mode]),
            optima=np.array([mode]),
            messages=tuple(message for message in messages if message),
        )


class _Target:
    """The log posterior density of z = asinh(x) = atanh of the partial autocorrelations."""

    def __init__(self, profile: IntegratedProfile) -> None:
        self.profile, self.size = profile, profile.size

    def __call__(self, z: np.ndarray) -> tuple[float, Integrated]:
        at = self.profile.integrated(np.sinh(z))
        if not at.df > 0:
            raise EmptyDataError(
                got="as many parameters of the location as values",
                expected="more values",
                remedy="Pass a longer series, or fewer terms and covariates.",
            )
        # The arcsine law of rho = tanh(z) is a hyperbolic secant of z.
        value = at.log_prob - float(np.logaddexp(z, -z).sum())
        return (value if math.isfinite(value) else -math.inf), at


class _Round(NamedTuple):
    """Proposals from Student t: centre + root t."""

    n: int
    centre: np.ndarray
    root: np.ndarray

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        size = len(self.centre)
        normal, scale = rng.normal(size=(self.n, size)), np.sqrt(rng.chisquare(_DF, self.n) / _DF)
        return self.centre + (normal / scale[:, None]) @ self.root.T

    def log_density(self, z: np.ndarray) -> np.ndarray:
        size = len(self.centre)
        t = np.linalg.solve(self.root, (z - self.centre).T)
        log_det = float(np.linalg.slogdet(self.root)[1])
        return -0.5 * (_DF + size) * np.log1p((t**2).sum(0) / _DF) - log_det


def _propose(
    target: _Target, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[Integrated], np.ndarray, float]:
    """Points z (n, size), what the integral is there, log importance weights, and the value at the mode."""
    if target.size == 0:
        value, at = target(np.zeros(0))
        return np.zeros((1, 0)), [at], np.zeros(1), value
    centre, value = _mode(target)
    first = _Round(n // 2, centre, _WIDER * _root(_bend(target, centre)))
    z = first.draw(rng)
    values, found = _evaluate(target, z)
    shares = np.exp(values - first.log_density(z) - np.nanmax(values - first.log_density(z)))
    shares /= shares.sum()
    moved = shares @ z
    # The mode's own spread keeps a few heavy points from deciding alone.
    spread = (shares[:, None] * (z - moved)).T @ (z - moved) + 0.1 * first.root @ first.root.T
    second = _Round(n - n // 2, moved, _WIDER * np.linalg.cholesky(spread))
    more = second.draw(rng)
    more_values, more_found = _evaluate(target, more)
    every, all_values = np.concatenate([z, more]), np.concatenate([values, more_values])
    share = np.log([first.n / n, second.n / n])
    mixed = np.logaddexp(share[0] + first.log_density(every), share[1] + second.log_density(every))
    return every, [*found, *more_found], all_values - mixed, value


def _evaluate(target: _Target, z: np.ndarray) -> tuple[np.ndarray, list[Integrated]]:
    pairs = [target(np.clip(one, -18.0, 18.0)) for one in z]
    return np.array([value for value, _ in pairs]), [at for _, at in pairs]


def _mode(target: _Target) -> tuple[np.ndarray, float]:
    starts = target.profile.starts(0, torch.Generator())
    found = [
        minimize(lambda z: -max(target(z)[0], -1e300), np.arcsinh(start), method="BFGS", options={"gtol": 1e-4})
        for start in starts
    ]
    best = min(found, key=lambda one: one.fun)
    return np.asarray(best.x), -float(best.fun)


def _bend(target: _Target, centre: np.ndarray) -> np.ndarray:
    """Minus the second derivatives at the mode."""
    size = len(centre)
    bend = np.empty((size, size))
    unit = _STEP * np.eye(size)
    for i in range(size):
        for j in range(i + 1):
            corners = [
                (a * b) * target(centre + a * unit[i] + b * unit[j])[0] for a in (1.0, -1.0) for b in (1.0, -1.0)
            ]
            bend[i, j] = bend[j, i] = -sum(corners) / (4 * _STEP**2)
    return bend


def _root(bend: np.ndarray) -> np.ndarray:
    """A root of the inverse; directions that hardly bend are taken as wide as the prior."""
    values, vectors = np.linalg.eigh(bend)
    return vectors / np.sqrt(np.clip(values, 0.4, None))


def _complete(profile: IntegratedProfile, x: np.ndarray, at: Integrated, rng: np.random.Generator) -> dict[str, Tensor]:
    """Parameters at x with location and scale drawn from their law given x."""
    sigma = math.sqrt(at.rest / rng.chisquare(at.df))
    location = at.location
    if len(location):
        values, vectors = np.linalg.eigh(at.gram)
        noise = rng.normal(size=len(location))
        location = location + sigma * (vectors / np.sqrt(np.clip(values, 1e-300, None))) @ noise
    return profile.parameters_at(x, np.append(location, sigma))
