"""Which cluster of the values becomes which state, where the structure of the chain tells the states apart."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.models.base import Batch
from probseq.models.relabel import permute_states

if TYPE_CHECKING:
    from probseq.models.hmm import HiddenMarkovModel

__all__ = ["arranged"]

_STEPS = 2000


def arranged(model: HiddenMarkovModel, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Starts (D, ...) whose emissions have changed places until no exchange of two raises the likelihood.

    Clusters come in any order, but a left-right chain needs them in that of time, and EM does not leave a wrong order.
    Nothing moves where the states are alike, known at some steps, or share parameters. The first 2000 steps decide.
    """
    specs = model.emission.parameters(model.observation, (model.n_states,))
    tied = any("state" not in spec.dims for spec in specs.values())
    if not model.has_structure or model.n_states == 1 or batch.states is not None or tied:
        return params
    part = _beginning(batch)
    n_starts = next(iter(params.values())).shape[0]
    chosen = [_climb(model, {name: value[d] for name, value in params.items()}, specs, part) for d in range(n_starts)]
    return {name: torch.stack([one[name] for one in chosen]) for name in params}


def _climb(model: HiddenMarkovModel, params: Params, specs: dict, batch: Batch) -> dict[str, Tensor]:
    s = model.n_states
    swaps = torch.arange(s).repeat(s * (s - 1) // 2 + 1, 1)
    for row, (i, j) in enumerate(combinations(range(s), 2), start=1):
        swaps[row, i], swaps[row, j] = j, i
    current = dict(params)
    # Every exchange is a gain, so that this ends; the bound is for likelihoods that are not numbers.
    for _ in range(s * s):
        trial = {name: value.expand(len(swaps), *value.shape) for name, value in current.items()}
        trial |= permute_states(specs, {name: trial[name] for name in specs}, swaps)
        with torch.no_grad():
            value = torch.nan_to_num(model.log_prob(trial, batch).sum(-1), nan=-torch.inf)
        best = int(value.argmax())
        if not value[best] > value[0] + 1e-9 * value[0].abs():
            break
        current = {name: each[best] for name, each in trial.items()}
    return current


def _beginning(batch: Batch) -> Batch:
    """The first sequences, or the beginning of the first."""
    n = max(1, int((batch.lengths.cumsum(0) <= _STEPS).sum()))
    few = Batch(*(None if leaf is None else leaf[:n] for leaf in batch))  # type: ignore[arg-type]
    return few.slice_time(0, _STEPS) if batch.t > _STEPS else few
