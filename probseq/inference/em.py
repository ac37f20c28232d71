"""Expectation maximisation from many starts, run as one batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, number_in, one_of, or_none, truth_value, whole_number
from probseq.distributions.params import take_draw
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.information import observed_information
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import EMStep, ExpectationMaximization

__all__ = ["EM"]

_LOG = logging.getLogger(__name__)
# Work of one EM iteration (starts x steps x states) that a default fit may spend.
_WORK = 400_000
_MOST_STARTS, _FEWEST_STARTS = 120, 6
# All starts are followed until they stand still to this many nats, then the best few to the asked tolerance.
_COARSE, _FINALISTS = 1e-4, 3
_ROUNDING = 1e-9
_SMALL_WORK = 1_000_000


class EM(Inference):
    r"""theta <- argmax E[log p(x, z | theta) | x, theta_old], which never lowers log p(x | theta).

    Parameters
    ----------
    n_init : int or None
        Starts, run as one batch; the best that has not degenerated survives. None chooses by the size of the data:
        from 120 for a hundred values to 6 for long series.
    init : {"kmeans", "random"}
        Whether the first start follows clusters of the values; all others are random.
    max_iter : int
    tol : float
        A start has converged when the gain that is still to come, extrapolated from the last two steps (Aitken), is
        below ``tol`` nats. Only the three best starts are followed that far, the others to 1e-4.
    covariance : bool
        Whether the inverse observed information is computed at the end, for ``standard_errors_``; it takes two to four
        gradients of the likelihood for each coordinate.

    References
    ----------
    Dempster, Laird and Rubin (1977); McLachlan and Krishnan (2008), section 4.9, for the stopping rule.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HMM(2, ps.Poisson(), inference=ps.EM(n_init=3), random_state=0).fit(quakes)
    >>> model.converged_, round(model.log_likelihood_, 2)
    (True, -341.88)
    """

    fits = "models with latent states"
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_init": or_none(partial(whole_number, lowest=1)),
        "init": partial(one_of, choices=("kmeans", "random")),
        "max_iter": partial(whole_number, lowest=1),
        "tol": partial(number_in, interval="[0, inf)", remedy="In nats: try tol=1e-8."),
        "covariance": truth_value,
    }

    def __init__(
        self,
        n_init: int | None = None,
        init: str = "kmeans",
        max_iter: int = 2000,
        tol: float = 1e-8,
        covariance: bool = False,
    ) -> None:
        self.n_init, self.init, self.max_iter, self.tol = n_init, init, max_iter, tol
        self.covariance = covariance

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, ExpectationMaximization)

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
        """Run EM from every start and keep the best.

        ``status`` is "converged", "max_iter", "decreased" (the likelihood fell, which only rounding or an M-step that
        is no M-step can do), "degenerate" (every start ended with an empty or collapsed state) or "interrupted".

        Raises
        ------
        ParameterError
            for settings out of range.
        IncompatibleError
            for a model without latent states.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, ExpectationMaximization):
            raise TypeError("can_fit accepted a model without the capability")
        n_starts = self.n_init if self.n_init is not None else _number_of_starts(model, batch)
        run = _Run(model.em_start(batch, n_starts, self.init, generator), n_starts)
        interrupted = False
        try:
            with _few_torch_threads(n_starts * batch.x.numel()):
                for tol in (max(self.tol, _COARSE), self.tol):
                    while len(active := run.active(self.max_iter)):
                        run.advance(active, model.em_step(take_draw(run.following, active), batch, weights), tol)
                        if progress is not None:
                            progress(len(run.trace), run.trace[-1])
                    if tol > self.tol:
                        run.resume(model, batch)
        except KeyboardInterrupt:
            if not run.trace:
                raise
            interrupted = True
        found = run.result(model, batch, interrupted)
        if not self.covariance or interrupted:
            return found
        bend = observed_information(model, found.params, batch, weights)
        # What degenerated is the reason for what is not determined, and says it better.
        said = bend.messages if found.status != "degenerate" else ()
        return replace(found, covariance=bend.covariance, messages=(*said, *found.messages))


class _Run:
    """The state of all starts: where each stands, the likelihood there, and how it ended."""

    def __init__(self, params: dict[str, Tensor], n_starts: int) -> None:
        self.params = {name: value.clone() for name, value in params.items()}
        self.following = {name: value.clone() for name, value in params.items()}
        self.log_prob = torch.full((n_starts,), -math.inf, dtype=torch.float64)
        self.gain = torch.full((n_starts,), math.inf, dtype=torch.float64)
        self.n_iter = torch.zeros(n_starts, dtype=torch.long)
        self.occupancy: Tensor | None = None
        self.status = ["running"] * n_starts
        self.history: list[list[float]] = [[] for _ in range(n_starts)]
        self.trace: list[float] = []

    def active(self, max_iter: int) -> Tensor:
        """The starts that go on."""
        going = [i for i, word in enumerate(self.status) if word == "running" and self.n_iter[i] < max_iter]
        return torch.tensor(going, dtype=torch.long)

    def resume(self, model: Any, batch: Batch) -> None:
        """Let the best sound starts run on to the final tolerance."""
        for start in torch.argsort(self._merit(model, batch), descending=True)[:_FINALISTS].tolist():
            if self.status[start] == "converged":
                self.status[start] = "running"

    def _merit(self, model: Any, batch: Batch) -> Tensor:
        """Log-likelihood, with degenerate starts behind all others."""
        problems = model.em_problems(self.params, batch, self.occupancy)
        value = torch.nan_to_num(self.log_prob, nan=-math.inf)
        return value - 1e300 * torch.tensor([float(bool(found)) for found in problems], dtype=value.dtype)

    def advance(self, active: Tensor, step: EMStep, tol: float) -> None:
        """Take in the likelihood at ``following`` and, where it did not fall, move there."""
        if self.occupancy is None:
            self.occupancy = torch.zeros(len(self.status), step.occupancy.shape[-1], dtype=torch.float64)
        new, old = step.log_prob, self.log_prob[active]
        gain = torch.where(torch.isinf(old), torch.full_like(new, math.inf), new - old)
        fell = ~(new >= old - _ROUNDING * (1.0 + old.abs())) & ~torch.isinf(old)
        fell |= torch.isnan(new)
        rate = (gain / self.gain[active]).clamp(0.0, 1.0 - 1e-6)
        ahead = gain * rate / (1.0 - rate)
        done = torch.isfinite(gain) & torch.isfinite(self.gain[active]) & (torch.maximum(ahead, gain) < tol)
        done |= torch.isfinite(gain) & (gain <= 1e-13 * new.abs())
        kept = ~fell
        moved = active[kept]
        for name, value in self.params.items():
            value[moved] = self.following[name][moved]
            self.following[name][moved] = step.params[name][kept]
        self.log_prob[moved], self.gain[moved] = new[kept], gain[kept]
        self.occupancy[moved] = step.occupancy[kept]
        self.n_iter[active] += 1
        for row, start in enumerate(active.tolist()):
            self.history[start].append(float(self.log_prob[start]))
            if fell[row]:
                self.status[start] = "decreased"
            elif done[row]:
                self.status[start] = "converged"
        self.trace.append(float(self.log_prob.max()))

    def result(self, model: Any, batch: Batch, interrupted: bool) -> Draws:
        problems = model.em_problems(self.params, batch, self.occupancy)
        log_prob = torch.nan_to_num(self.log_prob, nan=-math.inf)
        degenerate = sum(bool(found) for found in problems)
        best = int(self._merit(model, batch).argmax())
        status = self.status[best]
        if interrupted:
            status = "interrupted"
        elif problems[best]:
            status = "degenerate"
        elif status == "running":
            status = "max_iter"
        messages = list(problems[best])
        if status in ("max_iter", "decreased"):
            messages.append(
                f"EM stopped with status {status!r} after {int(self.n_iter[best])} iterations; "
                f"the last one gained {float(self.gain[best]):.2g} nats"
            )
        _LOG.info(
            "EM: best of %d starts %.4f (%s), %d degenerated", len(problems), float(log_prob[best]), status, degenerate
        )
        return Draws(
            params=take_draw(self.params, slice(best, best + 1)),
            log_prob=float(log_prob[best]),
            objective=float(log_prob[best]),
            status=status,
            n_iter=int(self.n_iter[best]),
            trace=np.array(self.history[best]),
            optima=np.sort(log_prob.numpy())[::-1].copy(),
            messages=tuple(messages),
        )


@contextmanager
def _few_torch_threads(work: int) -> Iterator[None]:
    """One torch thread while operations are small: waking others costs more than they do."""
    before = torch.get_num_threads()
    if work < _SMALL_WORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _number_of_starts(model: Any, batch: Batch) -> int:
    work = max(1, int(batch.lengths.sum())) * max(1, getattr(model, "n_cells", getattr(model, "n_states", 1)))
    return int(min(_MOST_STARTS, max(_FEWEST_STARTS, _WORK // work)))
