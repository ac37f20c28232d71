"""Learning on: fitted chains that take in new data without forgetting the old."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from probseq._types import Record
from probseq.data.sequences import Sequences
from probseq.data.timeindex import extend, is_default, is_extendable
from probseq.errors import UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING, check_y
from probseq.estimators.history import before_the_end, fingerprint
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.inference.base import Draws
from probseq.inference.online import OnlineEM, online_chain
from probseq.inference.running import RunningAverages, start_averages, take_step
from probseq.models.base import Batch, SequenceModel
from probseq.models.marginal import Marginalized
from probseq.models.wrappers import innermost, unwrap

__all__ = ["OnlineLearning", "OnlineMemory"]


@dataclass(frozen=True)
class OnlineMemory(Record):
    """What was learnt so far.

    averages : of the statistics.
    last : (1, n, s), p(z_T | x_1:T) at the end of each sequence.
    ahead : (1, n, s), the belief about the step after it that the fitted model keeps.
    draws : of the fit that these belong to.
    """

    averages: RunningAverages
    last: Tensor
    ahead: Tensor
    draws: Draws


class OnlineLearning(SequenceEstimator):
    """``partial_fit`` for hidden Markov models."""

    online_: OnlineMemory
    path_log_prob_: float

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: Tensor | None = None,
    ) -> None:
        super()._adopt(model, transforms, draws, info, data, weights)
        self.__dict__.pop("online_", None)  # what was learnt on from another fit

    def partial_fit(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, history: Any = TRAINING
    ) -> Self:
        """Learn from further data, by one step of online EM for each window of them.

        The first call of an unfitted model is ``fit(X)``. Every later one starts from the parameters, whose weight is
        the number of steps that they were learnt from; ``inference=OnlineEM(kappa=, window=)`` sets how soon old steps
        are forgotten, and other inferences learn on with its defaults. ``log_likelihood_``, ``n_scored_`` and what
        ``icl`` adds for the states grow by those of X, given what came before, under the new parameters.

        Parameters
        ----------
        X : data in any form
            The next stretch of the training data: their stamps must follow, a gap is missing steps; data without
            stamps follow directly. With one value a call, which may be missing, a series is learnt as it comes.
        y : ignored
        lengths, covariates : as in ``fit``
        history : ps.TRAINING, data or None
            What came before X; None begins new sequences. Forecasts go on from the end of X.

        Returns
        -------
        self

        Raises
        ------
        IncompatibleError
            For chains or emissions that depend on covariates or earlier values.
        UnsupportedError
            For a model of several parameter draws.
        HistoryError
            If X overlaps with what came before.
        """
        if not hasattr(self, "model_"):
            return self.fit(X, y, lengths=lengths, covariates=covariates)
        data = self._read(X, lengths, covariates)
        check_y(y, data)
        if history is TRAINING and self.training_ is not None:
            data = _stamped(self.training_, data)
        chain = online_chain(innermost(self.model_.model))
        if self.model_.n_draws > 1:
            raise UnsupportedError(
                got=f"partial_fit of a model of {self.model_.n_draws} parameter draws",
                expected="a point estimate",
                remedy="Fit it with inference=EM(), OnlineEM() or MLE().",
            )
        options = self.inference if isinstance(self.inference, OnlineEM) else OnlineEM()
        options.check()
        batch = self._batch(data)
        known = self.training_state_ is not None or history is not TRAINING
        begun = self._begin(data, history) if known else None
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        _, inner, state, _ = unwrap(self.model_.model, batch, self.model_._unpack(start))
        ahead = None if begun is None else state.probs
        averages, last = self._memory(chain, float(inner.lengths.sum()), ahead)
        for part in options._windows(inner):
            done = take_step(chain, averages, part, float(options.kappa), last=last, ahead=ahead)
            averages, last, ahead = done.averages, done.last, None
        draws = Draws(
            averages.params, float("nan"), float("nan"), "streaming", n_iter=self.n_iter_ + 1, log_weights=None
        )
        fitted = Marginalized(self.transforms_.wrap(chain), draws.params)
        past = before_the_end(data)
        begins = fitted.initial_state({}, batch.n) if begun is None else begun
        _, inner, state, _ = unwrap(fitted.model, batch, fitted._unpack(begins))
        with torch.no_grad():
            steps = fitted.log_prob_steps({}, batch, begun)
            best = chain.decode(draws.params, inner, state).log_prob
            paths = best - chain.log_prob(draws.params, inner, state)
            final = steps.final if past is data else fitted.filter({}, self._batch(past), begun)
        self.draws_, self.model_, self.training_, self.training_state_ = draws, fitted, past, final
        self.training_fingerprint_ = fingerprint(data)
        self.n_iter_, self.status_, self.converged_ = draws.n_iter, draws.status, False
        self.log_likelihood_ = float(steps.values.double().sum()) + (self.log_likelihood_ if self.n_scored_ else 0.0)
        self.path_log_prob_ = float(paths.sum()) + (self.path_log_prob_ if self.n_scored_ else 0.0)
        self.n_scored_ += int(steps.scored.sum())
        self.n_scored_steps_ += float(steps.scored.any(-1).sum())
        if last is not None:
            self.online_ = OnlineMemory(averages, last, self._belief(final, batch), draws)
        return self

    def _belief(self, state: Any, batch: Batch) -> Tensor:
        """p(z_t | x_<t) of the chain behind the transforms, (1, n, s)."""
        belief: Tensor = unwrap(self.model_.model, batch.slice_time(0, 0), self.model_._unpack(state))[2].probs
        return belief

    def _memory(self, chain: Any, n_new: float, ahead: Tensor | None) -> tuple[RunningAverages, Tensor | None]:
        """What was learnt so far, from the parameters alone where nothing else was kept, and the step before X."""
        kept = getattr(self, "online_", None)
        if kept is not None and kept.draws is self.draws_:
            follows = ahead is not None and torch.equal(ahead, kept.ahead)
            return kept.averages, kept.last if follows else None
        n_steps = max(self.n_scored_steps_, self.n_scored_ / self.n_features_in_, n_new)
        n_sequences = 1 if self.training_ is None else self.training_.n_sequences
        return start_averages(chain, self.model_.params, n_steps, n_steps / n_sequences), None


def _stamped(past: Sequences, data: Sequences) -> Sequences:
    """Data that only count their steps, with the stamps that follow those of the past, or counting on from its end."""
    one = past.n_sequences == data.n_sequences == 1
    at = {name: row for row, name in enumerate(past.names)}
    rows = [0] if one else [at.get(name) for name in data.names]
    index, cut = list(data.index), [(0, step) for step in data.freq]
    for i, row in enumerate(rows):
        if row is None or not is_default(data.index[i]):
            continue
        if is_extendable(past.index[row], past.freq[row]):
            index[i] = extend(past.index[row], len(index[i]), past.freq[row])
            cut[i] = (0, past.freq[row])
        else:
            cut[i] = (past.n_steps[row], None)
    return replace(data, index=tuple(index), cut=tuple(cut) if any(n for n, _ in cut) else ())
