"""Variational expectation maximisation: closed-form steps up a lower bound of the likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, number_in, whole_number
from probseq.inference.base import Draws, Inference, Progress
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import VariationalExpectation, VariationalStart

__all__ = ["VariationalEM"]

# All starts take so many steps, then the best few go on.
_SHORT, _FINALISTS = 30, 2
_ROUNDING = 1e-8


class VariationalEM(Inference):
    r"""theta <- argmax E_q[log p(x, z | theta)], q <- argmax E_q[log p(x, z)] + entropy(q), one factor after the other.

    The bound E_q[log p(x, z | theta)] + entropy(q) <= log p(x | theta) rises with every step; how far below the
    likelihood it stays depends on what q leaves out. ``objective`` and ``trace`` of the draws are the bound,
    ``log_prob`` is the model's own estimate of log p(x).

    Parameters
    ----------
    n_init : int
        Starts; all take 30 steps, then the best two are followed to the end.
    max_iter : int
    tol : float
        A run has converged when a step raises the bound by less than ``tol`` nats.

    References
    ----------
    Neal and Hinton (1998), A view of the EM algorithm that justifies incremental, sparse, and other variants.
    Ghahramani and Hinton (2000), Variational learning for switching state-space models, Neural Computation 12, 831-864.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.repeat([0.0, 5.0, 0.0], 15) + np.random.default_rng(0).normal(0, 0.3, 45)
    >>> model = ps.SwitchingLDS(2, 1, inference=ps.VariationalEM(n_init=1, tol=1.0), random_state=0)
    >>> model.fit(x).converged_
    True
    """

    fits = "switching linear dynamical systems"
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_init": partial(whole_number, lowest=1),
        "max_iter": partial(whole_number, lowest=1),
        "tol": partial(number_in, interval="[0, inf)", remedy="In nats: try tol=1e-3."),
    }

    def __init__(self, n_init: int = 8, max_iter: int = 500, tol: float = 1e-3) -> None:
        self.n_init, self.max_iter, self.tol = n_init, max_iter, tol

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, VariationalExpectation)

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
        """Climb from every start and keep the one with the highest bound.

        ``status`` is "converged", "max_iter", "degenerate" (every start lost a regime or its noise) or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range.
        IncompatibleError
            For a model without this capability.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, VariationalExpectation):
            raise TypeError("can_fit accepted a model without the capability")
        runs: list[_Run] = []
        interrupted = False
        try:
            for start in model.variational_starts(batch, self.n_init, generator):
                runs.append(_Run(start))
                runs[-1].go_on(model, batch, weights, min(_SHORT, self.max_iter), self.tol, progress)
            for run in sorted(runs, key=lambda run: run.merit(model, batch), reverse=True)[:_FINALISTS]:
                run.go_on(model, batch, weights, self.max_iter, self.tol, progress)
        except KeyboardInterrupt:
            if not any(run.trace for run in runs):
                raise
            interrupted = True
        best = max((run for run in runs if run.trace), key=lambda run: run.merit(model, batch))
        problems = model.variational_problems(best.reached, batch)
        status = "interrupted" if interrupted else "degenerate" if problems else best.status
        messages = list(problems)
        if status == "max_iter":
            messages.append(f"Variational EM stopped after {len(best.trace)} iterations, before it converged.")
        params = {name: value.unsqueeze(0) for name, value in best.reached.params.items()}
        with torch.no_grad():
            each = model.log_prob(params, batch)[0].double()
        log_prob = float(each.sum() if weights is None else each @ weights.double())
        return Draws(
            params=params,
            log_prob=log_prob,
            objective=best.trace[-1],
            status=status,
            n_iter=len(best.trace),
            trace=np.array(best.trace),
            optima=np.sort([run.trace[-1] for run in runs if run.trace])[::-1].copy(),
            messages=tuple(messages),
        )


class _Run:
    """One start: where it stands, what it has reached, and the bound there."""

    def __init__(self, start: VariationalStart) -> None:
        self.next = self.reached = start
        self.trace: list[float] = []
        self.status = "max_iter"

    def go_on(
        self,
        model: VariationalExpectation,
        batch: Batch,
        weights: Tensor | None,
        max_iter: int,
        tol: float,
        progress: Progress | None,
    ) -> None:
        while self.status == "max_iter" and len(self.trace) < max_iter:
            bound, after = model.variational_step(self.next, batch, weights)
            last = self.trace[-1] if self.trace else -math.inf
            if not math.isfinite(bound) or bound < last - _ROUNDING * (1.0 + abs(last)):
                # Only rounding can lower the bound: what was reached before stays.
                self.status = "converged" if self.trace else "decreased"
                if not self.trace:
                    self.trace.append(-math.inf)
                return
            self.reached, self.next = VariationalStart(self.next.params, after.belief), after
            self.trace.append(bound)
            if progress is not None:
                progress(len(self.trace), bound)
            if bound - last < tol:
                self.status = "converged"

    def merit(self, model: VariationalExpectation, batch: Batch) -> float:
        """The bound, with what has degenerated behind all others."""
        value = self.trace[-1] if self.trace else -math.inf
        return value - 1e300 * bool(model.variational_problems(self.reached, batch))
