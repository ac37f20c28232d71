"""Maximum likelihood by quasi-Newton steps with analytic gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.errors import ParameterError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.options import TrainingOptions
from probseq.models.base import Batch, SequenceModel
from probseq.models.baseline import ClosedForm
from probseq.models.concentrated import ConcentratedLikelihood, Profile
from probseq.models.recurrent import RecurrentModel

__all__ = ["MLE"]

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]

# What the line search sees where the likelihood is not a number.
_BARRIER = 1e100


@dataclass
class _Search:
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

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.objective(x)
        if not math.isfinite(value):
            return _BARRIER, np.zeros(x.size)
        if value < self.value:
            self.value, self.x = value, x.copy()
            self.trace.append(-self.scale * value)
        return value, gradient

    def descend(self, x: np.ndarray) -> None:
        """L-BFGS-B from one start; the status is that of the start that found the best point."""
        before = self.value
        result = minimize(
            self.evaluate,
            x,
            jac=True,
            method="L-BFGS-B",
            callback=self._report if self.progress is not None else None,
            options={"maxiter": self.max_iter, "ftol": self.tol, "gtol": 1e-7, "maxcor": 20, "maxls": 40},
        )
        self.optima.append(-self.scale * float(result.fun))
        if self.value < before or len(self.optima) == 1:
            self.n_iter = int(result.nit)
            # A line search that finds nothing better has met the limit of the arithmetic where the slope is tiny.
            flat = float(np.abs(result.jac).max(initial=0.0)) < 1e-4
            self.status = "converged" if result.success or (result.status == 2 and flat) else "max_iter"

    def _report(self, intermediate_result: Any) -> None:
        if self.progress is not None:
            self.progress(len(self.trace), -self.scale * float(intermediate_result.fun))


class MLE(Inference):
    r"""theta = argmax log p(x_1:T | theta), over unconstrained coordinates, by L-BFGS-B.

    A model with a closed form is fitted by it. Where a model concentrates its location and scale out (ARMA), only the
    other parameters are searched. A recurrent net is trained in mini-batches with Adam and early stopping instead, by
    ``training``. All others use automatic differentiation of ``log_prob_steps``.

    Parameters
    ----------
    n_init : int
        Random starts besides the reasoned ones (Hannan-Rissanen and white noise for ARMA, the model's guess otherwise).
        The reasoned start with the highest likelihood and all random ones are followed.
    max_iter : int
        Iterations a start.
    tol : float
        A start has converged when an iteration lowers the objective (nats per scored value) by less than ``tol``
        relative to it, or when no slope exceeds 1e-7.
    covariance : bool
        Whether the inverse observed information is computed, for standard errors, where the model has a fast form.
    training : TrainingOptions or None
        For recurrent nets, to which the options above do not apply.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization.
    """

    fits = "any model with a differentiable likelihood"

    def __init__(
        self,
        n_init: int = 0,
        max_iter: int = 1000,
        tol: float = 1e-12,
        covariance: bool = True,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_init, self.max_iter, self.tol, self.covariance = n_init, max_iter, tol, covariance
        self.training = training

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return True

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
        """Climb from every start and keep the best.

        ``status`` is "exact" (a closed form), "converged", "max_iter" or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range.
        """
        self._check()
        if isinstance(model, RecurrentModel):
            from probseq.inference.training import train_point

            return train_point(
                model, batch, generator, self.training, validation=validation, weights=weights, progress=progress
            )
        if isinstance(model, ClosedForm):
            return _closed(model, model.maximum_likelihood(batch, weights), batch, weights)
        if isinstance(model, ConcentratedLikelihood):
            return self._fit_profile(model.concentrated(batch, weights), generator, progress)
        return self._fit_flat(model, batch, generator, weights, progress)

    def _fit_profile(self, profile: Profile, generator: torch.Generator, progress: Progress | None) -> Draws:
        search = _Search(profile.objective, profile.count, self.max_iter, self.tol, progress)
        starts = profile.starts(self.n_init, generator)
        reasoned = starts[: len(starts) - self.n_init] if profile.size else starts
        values = [search.evaluate(x)[0] for x in reasoned]
        chosen = [reasoned[int(np.argmin(values))], *starts[len(reasoned) :]]
        if profile.size == 0:
            search.status, search.optima = "exact", list(search.trace)
        else:
            self._descend(search, chosen)
        params = profile.parameters(search.x)
        return self._draws(
            search,
            params,
            messages=profile.problems(search.x),
            covariance=profile.covariance(search.x) if self.covariance and search.status != "interrupted" else None,
        )

    def _fit_flat(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        weights: Tensor | None,
        progress: Progress | None,
    ) -> Draws:
        specs = model.parameters()
        guess = model._initial_guess(batch, generator)
        constants = {name: value for name, value in guess.items() if not specs[name].trainable}
        first = flatten(specs, guess).detach()
        count = float(max(1, int(batch.seen.sum())))

        def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
            flat = torch.as_tensor(x, dtype=first.dtype).requires_grad_(True)
            steps = model.log_prob_steps({**constants, **unflatten(specs, flat)}, batch)
            total = steps.values.sum(-1) if weights is None else steps.values.sum(-1) * weights
            loss = -total.sum() / count
            (gradient,) = torch.autograd.grad(loss, flat)
            return float(loss.detach()), gradient.numpy().astype(np.float64)

        size = unconstrained_size(specs)
        noise = torch.randn(self.n_init, size, generator=generator, dtype=torch.float64).numpy()
        start = first.numpy().astype(np.float64)
        search = _Search(objective, count, self.max_iter, self.tol, progress)
        search.evaluate(start)
        self._descend(search, [start, *(start + step for step in noise)])
        flat = torch.as_tensor(search.x, dtype=first.dtype)
        params = {**constants, **unflatten(specs, flat)}
        return self._draws(search, {name: params[name] for name in specs})

    @staticmethod
    def _descend(search: _Search, starts: list[np.ndarray]) -> None:
        try:
            for start in starts:
                search.descend(start)
        except KeyboardInterrupt:
            if not math.isfinite(search.value):
                raise
            search.status = "interrupted"

    @staticmethod
    def _draws(
        search: _Search,
        params: dict[str, Tensor],
        messages: tuple[str, ...] = (),
        covariance: np.ndarray | None = None,
    ) -> Draws:
        log_prob = -search.scale * search.value
        if search.status == "max_iter":
            messages = (*messages, f"The optimiser stopped after {search.n_iter} iterations before it converged.")
        return Draws(
            params={name: value.detach().unsqueeze(0) for name, value in params.items()},
            log_prob=log_prob,
            objective=log_prob,
            status=search.status,
            n_iter=search.n_iter,
            trace=np.array(search.trace),
            optima=np.sort(np.array(search.optima))[::-1].copy(),
            messages=messages,
            covariance=covariance,
        )

    def _check(self) -> None:
        for name, low in (("n_init", 0), ("max_iter", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
                raise ParameterError(
                    got=f"{name}={value!r}", expected=f"an integer of at least {low}", remedy=f"Try {name}={low or 5}."
                )
        if isinstance(self.tol, bool) or not isinstance(self.tol, int | float) or not 0 <= self.tol < 1:
            raise ParameterError(got=f"tol={self.tol!r}", expected="a number in [0, 1)", remedy="Try tol=1e-12.")


def _closed(model: SequenceModel[Any], params: dict[str, Tensor], batch: Batch, weights: Tensor | None) -> Draws:
    draws = {name: value.detach().unsqueeze(0) for name, value in params.items()}
    with torch.no_grad():
        each = model.log_prob(draws, batch)[0]
    value = float(each.sum() if weights is None else (each * weights).sum())
    return Draws(draws, value, value, "exact", trace=np.array([value]), optima=np.array([value]))
