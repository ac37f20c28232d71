"""Stochastic and online expectation maximisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, number_in, one_of, or_none, whole_number
from probseq.distributions.params import take_draw
from probseq.errors import IncompatibleError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.running import RunningAverages, start_averages, take_step
from probseq.models.base import Batch, SequenceModel
from probseq.models.driven import DrivenHiddenMarkovModel
from probseq.models.hmm import HiddenMarkovModel

__all__ = ["OnlineEM", "online_chain"]

_STEPS_IN_A_BATCH = 1000


class OnlineEM(Inference):
    r"""theta_k = argmax of the complete-data likelihood at S_k = (1 - gamma_k) S_(k-1) + gamma_k s_k, one pass or more.

    s_k are the expected statistics of a mini-batch of sequences, or of the next window of a long one, which starts in
    the state where the window before it ended; gamma_k = (1 + n / m)^-kappa when n steps have been read and m are new.
    For data too long or too many for EM, since parameters move after every mini-batch; approximate, as the steps never
    vanish entirely and smoothing ends with the window.

    Parameters
    ----------
    batch_size : int or None
        Sequences in a mini-batch; None takes as many as make about 1000 steps.
    window : int
        Steps of a sequence that are read at once.
    kappa : float
        In (1/2, 1]. 1 weighs all steps alike, less forgets the first ones sooner.
    max_epochs : int
        Passes over the data; 1 is online learning.
    tol : float
        Converged when a pass raises the mean log-likelihood by less than ``tol`` nats a step.
    n_init : int
        Starts, run as one batch; the best survives.
    init : {"kmeans", "random"}
        As in ``EM``.

    References
    ----------
    Cappe and Moulines (2009), On-line expectation-maximization algorithm for latent data models; Cappe (2011), Online
    EM algorithm for hidden Markov models; Neal and Hinton (1998) for the mini-batches.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HMM(2, ps.Poisson(), inference=ps.OnlineEM(window=50, tol=0.1), random_state=0).fit(quakes)
    >>> round(model.score(quakes), 1)
    -3.2
    """

    fits = "hidden Markov models without covariates"
    rules: ClassVar[Mapping[str, Rule]] = {
        "batch_size": or_none(partial(whole_number, lowest=1)),
        "window": partial(whole_number, lowest=2),
        # Steps whose sum is infinite, and that of their squares not.
        "kappa": partial(number_in, interval="(0.5, 1]", remedy="Try kappa=0.85."),
        "max_epochs": partial(whole_number, lowest=1),
        "tol": partial(number_in, interval="[0, inf)", remedy="In nats a step: try tol=1e-4."),
        "n_init": partial(whole_number, lowest=1),
        "init": partial(one_of, choices=("kmeans", "random")),
    }

    def __init__(
        self,
        batch_size: int | None = None,
        window: int = 1000,
        kappa: float = 0.85,
        max_epochs: int = 50,
        tol: float = 1e-4,
        n_init: int = 4,
        init: str = "kmeans",
    ) -> None:
        self.batch_size, self.window, self.kappa = batch_size, window, kappa
        self.max_epochs, self.tol, self.n_init, self.init = max_epochs, tol, n_init, init

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, HiddenMarkovModel) and not issubclass(model_class, DrivenHiddenMarkovModel)

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
        """Pass over the data until nothing is gained, from every start, and keep the best.

        ``trace`` is the log-likelihood of each pass, every mini-batch under the parameters that it met; ``objective``
        and ``log_prob`` are that of the result. ``status`` is "converged", "max_iter", "degenerate" or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range.
        IncompatibleError
            For other models than hidden Markov models without covariates.
        """
        self.check()
        self.require(type(model))
        chain = online_chain(model)
        weight = torch.ones(batch.n, dtype=torch.float64) if weights is None else weights.double()
        # A mini-batch of no weight would be a division by zero.
        kept = (weight > 0).nonzero().squeeze(-1)
        batch, weight = _rows(batch, kept), weight[kept]
        total = float((batch.lengths * weight).sum())
        params = chain.em_start(batch, int(self.n_init), self.init, generator)
        # The start counts as one mini-batch, so that the first one alone does not decide.
        averages = start_averages(chain, params, min(self._size(batch) * self.window, total), total / max(1, batch.n))
        trace: list[np.ndarray] = []
        status = "max_iter"
        try:
            for epoch in range(int(self.max_epochs)):
                each, averages = self._pass(chain, batch, weight, averages, generator)
                trace.append(each.numpy())
                if progress is not None:
                    progress(epoch + 1, float(each.max()))
                if epoch and (trace[-1] - trace[-2]).max() < self.tol * total:
                    status = "converged"
                    break
        except KeyboardInterrupt:
            if not trace:
                raise
            status = "interrupted"
        return self._result(chain, batch, weight, averages, np.array(trace), status)

    def _pass(
        self,
        model: HiddenMarkovModel,
        batch: Batch,
        weight: Tensor,
        averages: RunningAverages,
        generator: torch.Generator,
    ) -> tuple[Tensor, RunningAverages]:
        total = torch.zeros(len(averages.totals), dtype=torch.float64)
        for rows in torch.randperm(batch.n, generator=generator).split(self._size(batch)):
            last = None
            for part in self._windows(_rows(batch, rows)):
                done = take_step(model, averages, part, float(self.kappa), weights=weight[rows], last=last)
                averages, last, total = done.averages, done.last, total + done.log_prob
        return total, averages

    def _windows(self, batch: Batch) -> Iterator[Batch]:
        longest = int(batch.lengths.max()) if batch.n else 0
        for start in range(0, longest, int(self.window)):
            yield batch.slice_time(start, min(longest, start + int(self.window)))

    def _size(self, batch: Batch) -> int:
        if self.batch_size is not None:
            return int(self.batch_size)
        usual = float(batch.lengths.clamp_max(int(self.window)).double().mean()) if batch.n else 1.0
        return max(1, round(_STEPS_IN_A_BATCH / max(1.0, usual)))

    def _result(
        self,
        model: HiddenMarkovModel,
        batch: Batch,
        weight: Tensor,
        averages: RunningAverages,
        trace: np.ndarray,
        status: str,
    ) -> Draws:
        with torch.no_grad():
            log_prob = torch.nan_to_num(model.log_prob(averages.params, batch) @ weight, nan=-torch.inf)
        problems = model.em_problems(averages.params, batch, averages.totals * float(batch.lengths.sum()))
        sound = torch.tensor([0.0 if not found else -1e300 for found in problems], dtype=log_prob.dtype)
        best = int((log_prob + sound).argmax())
        messages = problems[best]
        if messages and status != "interrupted":
            status = "degenerate"
        if status == "max_iter" and self.max_epochs > 1:
            messages = (*messages, f"OnlineEM stopped after {len(trace)} passes over the data before it converged")
        value = float(log_prob[best])
        return Draws(
            params=take_draw(averages.params, slice(best, best + 1)),
            log_prob=value,
            objective=value,
            status=status,
            n_iter=len(trace),
            trace=trace[:, best],
            optima=np.sort(log_prob.numpy())[::-1].copy(),
            messages=tuple(messages),
        )


def _rows(batch: Batch, rows: Tensor) -> Batch:
    u = None if batch.u is None else batch.u[rows]
    states = None if batch.states is None else batch.states[rows]
    return Batch(batch.x[rows], batch.seen[rows], batch.lengths[rows], u, states)


def online_chain(model: SequenceModel[Any]) -> HiddenMarkovModel:
    """A model whose statistics can be averaged.

    Raises
    ------
    IncompatibleError
        For other models than hidden Markov models without covariates.
    """
    if isinstance(model, HiddenMarkovModel) and not isinstance(model, DrivenHiddenMarkovModel):
        return model
    raise IncompatibleError(
        got=f"online EM of {type(model).__name__}",
        expected="a hidden Markov model without covariates or earlier values",
        remedy="Use EM.",
    )
