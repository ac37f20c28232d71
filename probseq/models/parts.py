"""Likelihoods of some sequences after the others, where the laws of all steps at once would take too much memory."""

from __future__ import annotations

import math
from typing import TypeVar

import torch

from probseq.distributions.params import Params
from probseq.models.base import Batch, SequenceModel, Steps, map_state

__all__ = ["log_prob_in_parts", "n_parts"]

S = TypeVar("S")

# Numbers that the laws of a part may hold: 200 MB of them. A vocabulary of 3000 tokens has as many at 17000 steps.
_LARGEST_LAW = 50_000_000


def n_parts(model: SequenceModel[S], params: Params, batch: Batch, size: int) -> int:
    """Into how many parts a batch is to be cut, where the law of one step of one draw holds ``size`` numbers.

    One where gradients are wanted, for which everything has to be kept, and for a single sequence.
    """
    if torch.is_grad_enabled() or batch.n < 2:
        return 1
    return min(batch.n, -(-math.prod(model._draw(params)) * batch.n * batch.t * size // _LARGEST_LAW))


def log_prob_in_parts(model: SequenceModel[S], params: Params, batch: Batch, state: S, parts: int) -> Steps[S]:
    """``model.log_prob_steps`` by about equal numbers of sequences."""
    draw = len(model._draw(params))
    edges = [batch.n * i // parts for i in range(parts + 1)]
    done = []
    for first, stop in zip(edges, edges[1:]):
        rows = Batch(*(None if leaf is None else leaf[first:stop] for leaf in batch))  # type: ignore[arg-type]
        own = map_state(lambda leaf, a=first, b=stop: leaf.narrow(draw, a, b - a), state)
        done.append(model.log_prob_steps(params, rows, own))
    values = torch.cat([one.values for one in done], draw)
    final = map_state(lambda *leaves: torch.cat(leaves, draw), *(one.final for one in done))
    return Steps(values, torch.cat([one.scored for one in done]), None, final)
