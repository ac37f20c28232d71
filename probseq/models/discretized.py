"""Models of rounded values: the one-step laws of another model as probabilities of the cells of a lattice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.counts import lattice_points
from probseq.distributions.discretized import discretized
from probseq.distributions.params import Params
from probseq.models.base import Batch, Scan, SequenceModel
from probseq.models.wrappers import WrapperModel

__all__ = ["DiscretizedModel"]


class DiscretizedModel(WrapperModel):
    r"""P(x_t | x_<t) = F(x_t + w/2 | x_<t) - F(x_t - w/2 | x_<t), with F the inner model's one-step cdf.

    The inner model's state is updated by the lattice values themselves. Every factor is a probability that sums to one
    over the lattice, so that their product is a likelihood of the rounded values and simulation feeds these back. Sums
    over a missing value are not those of the inner model: the law is that given which values are missing. For the same
    reason a closed form of the inner model is kept for the next step only.

    Parameters
    ----------
    inner : SequenceModel
        Of numbers that have a density.
    width : float
        w, the step of the lattice, in the unit of the data.
    lowest : float or None
        The lowest lattice point, which takes all that lies below.
    """

    def __init__(self, inner: SequenceModel[Any], width: float = 1.0, lowest: float | None = None) -> None:
        super().__init__(inner)
        self.width, self.lowest = width, lowest
        self.starts_itself = inner.starts_itself
        if inner.estimate:
            # The laws of particles are rounded, not the bound that these give.
            self.estimate = inner.estimate.replace("FIVO", "particle filter")
        if self.missing == "exact":
            self.missing = "pattern"
        fill = torch.tensor(inner.observation.fills, dtype=torch.float64)
        index = torch.ceil(fill / width).clamp_min(-torch.inf if lowest is None else round(lowest / width))
        measure = "counting" if width == 1 else f"lattice of step {width!r}"
        points = tuple(lattice_points(index, width).tolist())
        self.observation = replace(inner.observation, measure=measure, fill=points, n_categories=None)

    def initial_state(self, params: Params, n: int) -> Any:
        return self.inner.initial_state(params, n)

    def predict_next(self, params: Params, state: Any, u: Tensor | None = None) -> Distribution:
        return discretized(self.inner.predict_next(params, state, u), self.width, self.lowest)

    def update(self, params: Params, state: Any, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Any:
        return self.inner.update(params, state, self.inner.observation.filled(x, seen), seen, u)

    def scores_next(self, state: Any) -> Tensor | None:
        return self.inner.scores_next(state)

    def _inner_batch(self, batch: Batch) -> Batch:
        return batch._replace(x=self.inner.observation.filled(batch.x, batch.seen))

    def inner_problem(self, batch: Batch, state: Any) -> tuple[Batch, Any, int]:
        return self._inner_batch(batch), state, 0

    def _scan(self, params: Params, batch: Batch, state: Any) -> Scan[Any]:
        return self.inner._scan(params, self._inner_batch(batch), state)

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: Any) -> Any:
        return self.inner._states_at(params, self._inner_batch(batch), steps, state)

    def _predictive(self, params: Params, batch: Batch, state: Any) -> tuple[Distribution, Tensor]:
        law, scored = self.inner._predictive(params, self._inner_batch(batch), state)
        return discretized(law, self.width, self.lowest), scored

    def _forecast_marginals(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        if horizon > 1:
            return None
        law = self.inner._forecast_marginals(params, state, u, horizon)
        return None if law is None else discretized(law, self.width, self.lowest)
