"""The multinomial emission."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation, standardized
from probseq.distributions.emissions.counts import check_counts
from probseq.distributions.estimation import EMPTY, flat_rows, ratio
from probseq.distributions.multinomial import MultinomialCounts
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.errors import SupportError

__all__ = ["Multinomial"]


class Multinomial(Emission):
    r"""P(x) = n! / (x_1! ... x_k!) prod_i probs_i^{x_i}: the counts of k categories among n trials a step.

    Parameters
    ----------
    n_trials : int or None
        n, where it is the same at all steps. A partly missing event is then integrated out exactly. None takes the
        row sum of each event as its known total: the likelihood is given the totals, events are seen whole or not at
        all, and forecasts, which do not know the coming totals, raise.

    Examples
    --------
    >>> import probseq as ps
    >>> ps.Multinomial(n_trials=10)
    Multinomial(n_trials=10)
    """

    measure: ClassVar[str] = "counting"

    def __init__(self, n_trials: int | None = None) -> None:
        self.n_trials = n_trials

    def check_arguments(self) -> None:
        if self.n_trials is not None:
            whole_number("n_trials", self.n_trials, 1, "None takes the sum of each row.")

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        self.check_arguments()
        dims = ("state",) * len(components) + ("variable",)
        return {"probs": ParamSpec((*components, observation.n_variables), Simplex(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        probs = params["probs"]
        return MultinomialCounts(probs, torch.zeros_like(probs[..., :1]), self.n_trials)

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_counts(values, name, "Multinomial")
        rows = values.reshape(-1, values.shape[-1])
        missing = np.isnan(rows)
        if self.n_trials is None:
            if (missing.any(1) & ~missing.all(1)).any():
                raise SupportError(
                    got=f"partly missing rows in {name}, whose total is unknown",
                    expected="rows seen whole, or missing as a whole, for Multinomial()",
                    remedy="Pass n_trials= where all steps have the same total, or mark the whole row as missing.",
                )
            return
        sums = np.where(missing, 0.0, rows).sum(1)
        wrong = (sums > self.n_trials) | ((sums != self.n_trials) & ~missing.any(1))
        if wrong.any():
            raise SupportError(
                got=f"a row that sums to {sums[wrong][0]:g} in {name}",
                expected=f"rows that sum to n_trials={self.n_trials}",
                remedy="Use Multinomial() for totals that differ from step to step.",
            )

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        total = torch.where(seen, x, torch.zeros_like(x)).sum(-1, keepdim=True)
        return standardized(x / total.clamp_min(1.0), seen)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        counts = torch.where(seen, x, torch.zeros_like(x)).sum((0, 1)) + 1e-3
        return {"probs": counts / counts.sum()}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Shares of the counts; trials in unseen categories go to these by their previous probabilities."""
        rows, seen, weights = flat_rows(x, seen, weights)
        whole = seen.all(-1)
        counts = weights.mT @ torch.where(whole.unsqueeze(-1), rows, torch.zeros_like(rows))
        partly = seen.any(-1) & ~whole
        if self.n_trials is not None and bool(partly.any()):
            patterns, which = torch.unique(seen[partly], dim=0, return_inverse=True)
            for index, pattern in enumerate(patterns):
                shown = torch.where(pattern, rows[partly][which == index], 0.0)
                w = weights[:, partly][:, which == index]
                left = w.mT @ (self.n_trials - shown.sum(-1))
                share = torch.where(pattern, torch.zeros_like(params["probs"]), params["probs"])
                share = share / share.sum(-1, keepdim=True).clamp_min(1e-300)
                counts = counts + w.mT @ shown + left.unsqueeze(-1) * share
        total = counts.sum(-1, keepdim=True)
        probs = torch.where(total > EMPTY, ratio(counts, total), params["probs"])
        return {"probs": probs / probs.sum(-1, keepdim=True)}
