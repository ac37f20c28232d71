"""The most probable sequences of tokens, by beam search."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq.models.base import map_state
from probseq.models.marginal import Marginalized

__all__ = ["Beams", "beam_search"]


class Beams(NamedTuple):
    """Sequences, the most probable first.

    codes : (b, length) int64; behind an end token -1
    log_prob : (b,), log p of each with its end token, nats
    """

    codes: Tensor
    log_prob: Tensor


def beam_search(
    model: Marginalized, state: Any, length: int, beams: int, end: int | None = None, banned: Tensor | None = None
) -> Beams:
    """Sequences of ``length`` tokens, or fewer where they end, that have a high probability.

    Of all continuations of the sequences kept so far, the ``beams`` most probable are kept at each step; those that
    have ended stay as they are. The search is exact where ``beams`` is at least C^(length-1), and otherwise may miss
    the most probable sequence. Probabilities are the model's own, averaged over its draws, whose weights the tokens
    move.

    Parameters
    ----------
    state : the state of one sequence, n = 1
    end : code of the end token, or None
    banned : (m,) codes that are never chosen, or None
    """
    codes = torch.zeros(1, 0, dtype=torch.long)
    score = torch.zeros(1, dtype=torch.float64)
    done: list[tuple[float, Tensor]] = []
    for step in range(length):
        law = model.predict_next({}, state)
        log_prob = law.probs[..., 0, :].double().log()  # type: ignore[attr-defined]
        if banned is not None:
            log_prob[:, banned] = -torch.inf
        total = (score.unsqueeze(-1) + log_prob).flatten()
        best = total.topk(min(beams, len(total)))
        possible = best.values > -torch.inf
        score, chosen = best.values[possible], best.indices[possible]
        parent = torch.div(chosen, log_prob.shape[-1], rounding_mode="floor")
        token = chosen % log_prob.shape[-1]
        codes = torch.cat([codes[parent], token.unsqueeze(-1)], -1)
        # What ended before and what goes on compete for the places.
        ranked = sorted([*done, *zip(score.tolist(), codes)], key=lambda one: -one[0])[:beams]
        least = ranked[-1][0] if len(ranked) == beams else -torch.inf
        ends = token == end if end is not None else torch.zeros_like(token, dtype=torch.bool)
        done = [one for one in done if one[0] >= least]
        done += [(float(s), c) for s, c in zip(score[ends], codes[ends]) if float(s) >= least]
        alive = ~ends & (score >= least)
        codes, score = codes[alive], score[alive]
        if not len(codes):
            break
        if step < length - 1:
            rows, x = parent[alive], token[alive].to(model.dtype).unsqueeze(-1)
            state = map_state(lambda leaf, r=rows: leaf[r], state)
            state = model.update({}, state, x, torch.ones_like(x, dtype=torch.bool))
    found = sorted([*done, *zip(score.tolist(), codes)], key=lambda one: -one[0])[:beams]
    padded = torch.full((len(found), length), -1)
    for row, (_, sequence) in zip(padded, found, strict=True):
        row[: len(sequence)] = sequence
    return Beams(padded, torch.tensor([s for s, _ in found], dtype=torch.float64))
