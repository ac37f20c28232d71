"""Descent from several starts by quasi-Newton steps, keeping the best point that any of them has reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from probseq._types import Rule, number_in, whole_number
from probseq.distributions.params import ParamSpec, Simplex, take_draw
from probseq.inference.base import Progress
from probseq.inference.em import EM
from probseq.inference.posterior import LogPosterior
from probseq.models.base import Batch, SequenceModel
from probseq.models.baseline import ClosedForm
from probseq.models.latent import DiscreteLatent, ExpectationMaximization

__all__ = ["SEARCH_RULES", "Search", "climb", "latent_problems", "starting_point", "wants_covariance"]

# Of the arguments of an inference that is a search.
SEARCH_RULES: Mapping[str, Rule] = {
    "n_init": partial(whole_number, lowest=0),
    "max_iter": partial(whole_number, lowest=1),
    "tol": partial(number_in, interval="[0, 1)", remedy="Try tol=1e-12."),
}

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]

# What the line search sees where the likelihood is not a number.
_BARRIER = 1e100
_INWARDS = 1e-3
# Slopes that are none, in nats per value, and how often a search starts anew where it stops with steeper ones.
_FLAT, _RUNS = 1e-7, 3
_EM_STEPS, _EM_TOL = 40, 1e-2
# Up to so many coordinates the observed information costs no more than the fit.
_FEW = 100


@dataclass
class Search:
    """The best point that any start has reached, also when a fit is interrupted."""

    objective: Objective
    scale: float
    max_iter: int
    tol: float
    progress: Progress | None
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    value: float = math.inf
    trace: list[float] = field(default_factory=list)
    optima: list[float] = field(default_factory=list)
    n_iter: int = 0
    status: str = "max_iter"
    origin: float = math.nan

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective(x)
        if not math.isfinite(value):
            return _BARRIER, np.zeros(x.size)
        if value < self.value:
            self.value, self.x = value, x.copy()
            self.trace.append(-self.scale * value)
        return value, gradient

    def _from_origin(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        # Another unit of the data adds a constant to the objective, which must not change when a step is small.
        value, gradient = self.evaluate(x)
        if math.isnan(self.origin) and value < _BARRIER:
            self.origin = value
        return (value if math.isnan(self.origin) else value - self.origin), gradient

    def descend_all(self, starts: list[np.ndarray]) -> None:
        """Follow every start; an interrupt keeps the best point so far."""
        try:
            for start in starts:
                self.descend(start)
        except KeyboardInterrupt:
            if not math.isfinite(self.value):
                raise
            self.status = "interrupted"

    def descend(self, x: np.ndarray) -> None:
        """L-BFGS-B from one start; the status is that of the start that found the best point."""
        before, done = self.value, 0
        for _ in range(_RUNS):
            result = minimize(
                self._from_origin,
                x,
                jac=True,
                method="L-BFGS-B",
                callback=self._report if self.progress is not None else None,
                options={"maxiter": self.max_iter - done, "ftol": self.tol, "gtol": _FLAT, "maxcor": 20, "maxls": 40},
            )
            x, done = result.x, done + int(result.nit)
            steepest = float(np.abs(result.jac).max(initial=0.0))
            # One short step is no convergence: without what it remembers, the next run sees whether there are longer.
            if steepest < _FLAT or result.nit == 0 or done >= self.max_iter:
                break
        origin = 0.0 if math.isnan(self.origin) else self.origin
        self.optima.append(-self.scale * (float(result.fun) + origin))
        if self.value < before or len(self.optima) == 1:
            self.n_iter = done
            # A line search that finds nothing better has met the limit of the arithmetic where the slope is tiny.
            flat = steepest < 1e-4
            self.status = "converged" if result.success or (result.status == 2 and flat) else "max_iter"

    def _report(self, intermediate_result: Any) -> None:
        if self.progress is not None:
            origin = 0.0 if math.isnan(self.origin) else self.origin
            self.progress(len(self.trace), -self.scale * (float(intermediate_result.fun) + origin))


def climb(
    target: LogPosterior,
    generator: torch.Generator,
    n_init: int,
    max_iter: int,
    tol: float,
    progress: Progress | None,
) -> Search:
    """Follow the model's guess and ``n_init`` random starts up a log posterior.

    The search moves in the units of the coordinates around the guess, so that another unit of the data, or another
    zero, makes the same steps.
    """
    first = starting_point(target, generator)
    target.constants = {name: value for name, value in first.items() if not target.specs[name].trainable}
    start = target.flat(first).numpy()
    noise = torch.randn(n_init, start.size, generator=generator, dtype=torch.float64).numpy()
    unit = target.units

    def objective(step: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = target.objective(start + unit * step)
        return value, unit * gradient

    search = Search(objective, target.count, max_iter, tol, progress)
    still = np.zeros(start.size)
    search.evaluate(still)
    search.descend_all([still, *noise])
    search.x = start + unit * search.x
    return search


def starting_point(target: LogPosterior, generator: torch.Generator) -> dict[str, Tensor]:
    """Values that a search can start from, away from the boundaries of probabilities, without draw dimensions.

    For models with latent states, whose likelihood has many maxima, the best of a few short runs of EM.
    """
    model = target.model
    if isinstance(model, ExpectationMaximization):
        short = EM(max_iter=_EM_STEPS, tol=_EM_TOL)
        draws = short.fit(model, target.batch, generator, weights=target.weights)
        found = take_draw(draws.params, 0)
    elif isinstance(model, ClosedForm):
        found = model.maximum_likelihood(target.batch, target.weights)
    else:
        found = model._initial_guess(target.batch, generator)
    return {name: _inside(target.specs[name], value.detach()) for name, value in found.items()}


def _inside(spec: ParamSpec, value: Tensor) -> Tensor:
    """Probabilities pulled a little inwards, so that a slope is left at those that are zero."""
    if not isinstance(spec.constraint, Simplex):
        return value
    free = spec.constraint.free(spec.shape)
    kept = torch.where(free, value, torch.zeros_like(value))
    even = free * kept.sum(-1, keepdim=True) / free.sum(-1, keepdim=True).clamp_min(1)
    return torch.where(free, (1 - _INWARDS) * value + _INWARDS * even, value)


def latent_problems(
    model: SequenceModel[Any], params: dict[str, Tensor], batch: Batch, weights: Tensor | None
) -> tuple[str, ...]:
    """What has degenerated at parameters (1, ...), in words that name the state; nothing for models without states."""
    if not isinstance(model, ExpectationMaximization):
        return ()
    with torch.no_grad():
        if not isinstance(model, DiscreteLatent):
            return model.em_problems(params, batch, torch.zeros(1, 0, dtype=torch.float64))[0]
        posterior = model.smooth(params, batch)
        if weights is not None:
            posterior = posterior * weights.reshape(-1, 1, 1)
        return model.em_problems(params, batch, posterior.sum((1, 2)))[0]


def wants_covariance(option: bool | None, size: int) -> bool:
    """Whether an option ``covariance=`` asks for the observed information of ``size`` coordinates."""
    return size <= _FEW if option is None else bool(option)
