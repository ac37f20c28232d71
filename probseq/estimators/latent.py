"""The model with hidden states that stands behind an estimator's transforms and parameter draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probseq.data.sequences import Sequences
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.predicting import Predicting
from probseq.inference.base import Draws
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import DiscreteLatent
from probseq.models.wrappers import innermost, unwrap

__all__ = ["HiddenStates"]


class HiddenStates(Predicting):
    """An estimator whose innermost model is a ``DiscreteLatent``."""

    path_log_prob_: float
    """log p(z_hat | x) of the most probable paths of the training data, nats; NaN for several parameter draws."""

    @property
    def icl(self) -> float:
        """Integrated completed likelihood of the training data, -2 log p(x, z_hat) + k log n; lower is better.

        It is ``bic`` plus -2 log p(z_hat | x), with z_hat the most probable path: states that overlap, so that their
        path is uncertain, cost more. n = steps with a scored value. NaN for several parameter draws.

        References
        ----------
        Biernacki, Celeux and Govaert (2000), Assessing a mixture model for clustering with the integrated completed
        likelihood, IEEE Trans. PAMI 22, with the opposite sign.
        """
        self._check_fitted()
        return float(self.bic - 2 * self.path_log_prob_)  # type: ignore[attr-defined]

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: Tensor | None = None,
    ) -> None:
        super()._adopt(model, transforms, draws, info, data, weights)  # type: ignore[misc]
        self.path_log_prob_ = math.nan
        if data is not None and self.model_.n_draws == 1:
            chain, batch, state, _ = self._problem(data, None)
            with torch.no_grad():
                both = chain.decode(self.model_.params, batch, state).log_prob[0]
                alone = self._evidence(chain, batch, state)[0]
            each = torch.ones(batch.n, dtype=torch.float64) if weights is None else weights
            self.path_log_prob_ = float((both - alone) @ each)

    def _latent(self) -> DiscreteLatent:
        """The model of the states."""
        return _with_states(innermost(self.model_.model))

    def _problem(self, data: Sequences, history: Any) -> tuple[DiscreteLatent, Batch, Any, int]:
        """That model with its own batch, and the number of leading steps that it does not see.

        The state before its first step is None for new sequences of a model that nothing is wrapped around.
        """
        batch, wrapped = self._batch(data), self.model_.model
        begun = self._begin(data, history)
        if begun is None and innermost(wrapped) is wrapped:
            return _with_states(wrapped), batch, None, 0
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        model, batch, state, first = unwrap(wrapped, batch, self.model_._unpack(start))
        return _with_states(model), batch, state, first

    def _evidence(self, model: DiscreteLatent, batch: Batch, state: Any) -> Tensor:
        """log p(x), (draw, n), on the scale of that model."""
        if not isinstance(model, SequenceModel):
            raise TypeError(f"{type(model).__name__} is no sequence model")
        return model.log_prob(self.model_.params, batch, state)

    def _draw_weights(self, data: Sequences, history: Any, others: Tensor | None = None) -> Tensor:
        """log p(draw | data), (n, draw); with log p(all steps but t), ``others`` (draw, n, t), of those: (n, t, draw).

        The draws were found from the training data: they do not weigh the draws a second time.
        """
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, data.n_sequences) if begun is None else begun
        known = history is None and self._is_training(data)
        if others is None:
            if known or self.model_.n_draws == 1:
                return start.log_weights
            return self.model_.filter({}, self._batch(data), start).log_weights
        before = start.log_weights.unsqueeze(1)
        if known:
            return before.expand(others.movedim(0, -1).shape)
        return torch.log_softmax(before + others.movedim(0, -1), -1)

    def _lead(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """Without ``draw`` where there is one draw only."""
        return dims if self.model_.n_draws > 1 else tuple(dim for dim in dims if dim != "draw")


def _with_states(model: Any) -> DiscreteLatent:
    if not isinstance(model, DiscreteLatent):
        raise TypeError(f"{type(model).__name__} has no discrete states")
    return model
