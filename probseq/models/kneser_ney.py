"""Markov chains of any order over thousands of tokens, smoothed by the contexts' own ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Categories
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Interval, Params, ParamSpec
from probseq.errors import ParameterError
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.baseline import ClosedForm
from probseq.models.ngrams import NGramCounter, NGramTable, NGramTables, windows

__all__ = ["KneserNeyModel", "Recent", "count_ngrams"]

_DISCOUNTS = ("discount_1", "discount_2", "discount_3")
# Where there are too few n-grams to estimate any from.
_USUAL = (0.5, 1.0, 1.5)


class Recent(NamedTuple):
    """codes : (*draw, n, order) int64, the last tokens; C is the start, C + 1 what is not known or was before it."""

    codes: Tensor


class _Level(NamedTuple):
    """One `NGramTable` as tensors, with what smoothing needs of each context.

    total : (c,), the sum of its counts
    kinds : (c, 3), how many of its entries have the count 1, 2, and more
    kind : (e,), 0, 1 or 2: which discount an entry has
    entry : (e,), the number of an entry's context times C, plus its token
    """

    keys: Tensor
    first: Tensor
    token: Tensor
    times: Tensor
    total: Tensor
    kinds: Tensor
    kind: Tensor
    entry: Tensor


class KneserNeyModel(SequenceModel[Recent], ClosedForm):
    r"""p(w | h) = (c(h w) - D(c(h w)))^+ / c(h) + gamma(h) p(w | h'), h' = h without its oldest token.

    Interpolated modified Kneser-Ney smoothing: D is discount_1, discount_2 or discount_3 for counts of 1, 2, and 3 or
    more, gamma(h) what they take away, and the shortest context goes on to the uniform law of all C tokens. Below the
    longest context the counts are numbers of different predecessors, see ``NGramTables``. A context that was never seen
    hands over to the next shorter one. Every token, those never seen included, has a positive probability, and they sum
    to one.

    A sequence begins after a start symbol, so every token is scored. After a missing token the context begins anew: the
    law is exact given the pattern of missingness, and the missing token is not summed out.

    Parameters
    ----------
    observation : Observation with C categories and one variable
    order : int
        Tokens of the longest context; 2 makes a trigram model.
    tables : NGramTables or None
        What was counted; None is a model before any data, the uniform law.

    Notes
    -----
    The parameters are the discounts, one of each kind for each context length 0 .. order, between 0 and the count that
    they are taken from. ``maximum_likelihood`` gives the estimates of Ney, Essen and Kneser (1994), which maximise the
    leaving-one-out likelihood approximately: Y = n_1 / (n_1 + 2 n_2), D_j = j - (j + 1) Y n_{j+1} / n_j, n_j the number
    of n-grams with count j; D_j = Y, as in unmodified Kneser-Ney smoothing, where n-grams are so few that one of these
    is not between 0 and j, and 0.5, 1 and 1.5 where n_1 or n_2 is zero. ``n_parameters`` counts the n-grams.

    References
    ----------
    Chen and Goodman (1999), An empirical study of smoothing techniques for language modeling, Computer Speech and
    Language 13, section 3 and equation 26.
    """

    missing = "pattern"

    def __init__(self, observation: Observation, order: int = 2, tables: NGramTables | None = None) -> None:
        if not isinstance(observation.n_categories, int) or observation.n_variables != 1:
            raise ParameterError(
                got=f"{observation.n_variables} variables",
                expected="one variable of categories",
                remedy="Pass one text, or codes in one column.",
            )
        self.observation, self.n_tokens = observation, observation.n_categories
        self.order = whole_number("order", order, 1)
        self.tables = NGramTables.empty(self.n_tokens, self.order) if tables is None else tables
        self._levels = [_level(table, self.n_tokens, self.dtype) for table in self.tables.levels]

    def parameters(self) -> dict[str, ParamSpec]:
        return {
            name: ParamSpec((self.order + 1,), Interval(0.0, float(j)), ("context_length",))
            for j, name in enumerate(_DISCOUNTS, start=1)
        }

    @property
    def n_parameters(self) -> int:
        """Different n-grams of all lengths: each has a number of its own."""
        return self.tables.n_entries

    def maximum_likelihood(self, batch: Batch, weights: Tensor | None = None) -> dict[str, Tensor]:
        """The discounts that the counts ask for; ``batch`` was counted when the model was made."""
        values = torch.tensor([_discounts(level.times.numpy()) for level in self._levels], dtype=self.dtype)
        return dict(zip(_DISCOUNTS, values.unbind(-1)))

    # one step ---------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> Recent:
        codes = torch.full((*self._draw(params), n, self.order), self.n_tokens + 1)
        codes[..., -1] = self.n_tokens
        return Recent(codes)

    def predict_next(self, params: Params, state: Recent, u: Tensor | None = None) -> Distribution:
        shape = state.codes.shape[:-1]
        discounts = self._discounts(params)
        draws = discounts.expand(*shape[:-1], *discounts.shape[-2:]).reshape(-1, *discounts.shape[-2:])
        codes = state.codes.reshape(len(draws), -1, self.order)
        probs = torch.stack([self._law(draw, own) for draw, own in zip(draws, codes)])
        return Categories(logits=probs.log().reshape(*shape, 1, self.n_tokens))

    def update(self, params: Params, state: Recent, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Recent:
        code = torch.where(seen, x.long(), self.n_tokens + 1)
        newest = code.expand(*state.codes.shape[:-1], 1)
        return Recent(torch.cat([state.codes[..., 1:], newest], -1))

    def _discounts(self, params: Params) -> Tensor:
        """(*draw, order + 1, 3)."""
        return torch.stack([params[name] for name in _DISCOUNTS], -1)

    def _law(self, discounts: Tensor, codes: Tensor) -> Tensor:
        """p(. | context) of contexts (n, order), (n, C), for one draw of the discounts (order + 1, 3)."""
        probs = discounts.new_full((len(codes), self.n_tokens), 1.0 / self.n_tokens)
        for length, level in enumerate(self._levels):
            rows, known = self._find(level, codes, length)
            if not bool(known.any()):
                continue
            chosen = rows[known]
            start, size = level.first[chosen], level.first[chosen + 1] - level.first[chosen]
            row = torch.arange(len(chosen)).repeat_interleave(size)
            entry = torch.arange(len(row)) - (size.cumsum(0) - size)[row] + start[row]
            total = level.total[chosen]
            kept = (level.times[entry] - discounts[length, level.kind[entry]]) / total[row]
            lower = (level.kinds[chosen] @ discounts[length] / total).unsqueeze(-1) * probs[known]
            upper = lower.index_put((row, level.token[entry]), kept, accumulate=True)
            probs = probs.index_put((known.nonzero().squeeze(-1),), upper)
        return probs

    def _find(self, level: _Level, codes: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The row of the last ``length`` tokens of contexts (..., order) in a level, and whether there is one."""
        context = codes[..., self.order - length :]
        key = torch.zeros(codes.shape[:-1], dtype=torch.long)
        for i in range(length):
            key = key * (self.n_tokens + 2) + context[..., i]
        row = torch.searchsorted(level.keys, key).clamp_max(max(0, len(level.keys) - 1))
        known = level.keys[row] == key if len(level.keys) else torch.zeros_like(key, dtype=torch.bool)
        return row, known

    # whole sequences --------------------------------------------------------------------------------------------------

    def _log_prob_steps(self, params: Params, batch: Batch, state: Recent) -> Steps[Recent]:
        scan = self._scan(params, batch, state)
        code = batch.x[..., 0].long().clamp(0, self.n_tokens - 1)
        codes = scan.states.codes
        discounts = self._discounts(params).unsqueeze(-3).unsqueeze(-3)  # (*draw, 1, 1, order + 1, 3)
        probs = discounts.new_full(codes.shape[:-1], 1.0 / self.n_tokens)
        code = code.expand(codes.shape[:-1])
        for length, level in enumerate(self._levels):
            rows, known = self._find(level, codes, length)
            if not bool(known.any()):
                continue
            own = discounts[..., length, :].expand(*codes.shape[:-1], 3)
            left = (level.kinds[rows] * own).sum(-1)
            entry, there = self._entry(level, rows, code)
            taken = own.gather(-1, level.kind[entry].unsqueeze(-1)).squeeze(-1)
            kept = torch.where(there, level.times[entry] - taken, 0.0)
            probs = torch.where(known, (kept + left * probs) / level.total[rows], probs)
        seen = batch.seen[..., 0]
        values = torch.where(seen, torch.where(seen, probs, 1.0).log(), 0.0)
        return Steps(values, batch.seen, None, scan.final)

    def _entry(self, level: _Level, rows: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Where a token stands among those that followed a context, and whether it is there."""
        wanted = rows * self.n_tokens + code
        entry = torch.searchsorted(level.entry, wanted).clamp_max(len(level.entry) - 1)
        return entry, level.entry[entry] == wanted

    def _scan(self, params: Params, batch: Batch, state: Recent) -> Scan[Recent]:
        order, lead = self.order, state.codes.shape[:-2]
        codes = torch.where(batch.seen[..., 0], batch.x[..., 0].long(), -1).numpy()
        before = state.codes.reshape(-1, batch.n, order).numpy()
        along = np.stack([windows(codes, self.n_tokens, order, own)[..., :-1] for own in before])
        whole = np.concatenate([before, np.broadcast_to(codes, (len(before), *codes.shape))], 2)
        last = batch.lengths.numpy()[:, None] + np.arange(order)
        final = np.take_along_axis(whole, np.broadcast_to(last, (len(before), *last.shape)), 2)
        final = np.where(final < 0, self.n_tokens + 1, final)
        states = torch.from_numpy(along.copy()).reshape(*lead, batch.n, batch.t, order)
        return Scan(Recent(states), Recent(torch.from_numpy(final).reshape(*lead, batch.n, order)))


def count_ngrams(batch: Batch, n_tokens: int, order: int, weights: Tensor | None = None) -> NGramTables:
    """Count the n-grams of a batch of codes.

    Raises
    ------
    ParameterError
        For weights of sequences that are not whole numbers.
    """
    times = None if weights is None else weights.numpy()
    if times is not None and not np.array_equal(times, np.round(times)):
        raise ParameterError(
            got=f"a weight of {times[times != np.round(times)][0]:g}",
            expected='whole numbers, how often a sequence counts, with smoothing="kneser_ney"',
            remedy="Use an additive smoothing such as 0.5.",
        )
    counter = NGramCounter(n_tokens, order)
    codes = torch.where(batch.seen[..., 0], batch.x[..., 0].long(), -1).numpy()
    counter.add(codes, None if times is None else times.astype(np.int64))
    return counter.tables()


def _level(table: NGramTable, n_tokens: int, dtype: torch.dtype) -> _Level:
    kind = np.minimum(table.times, 3) - 1
    context = np.repeat(np.arange(len(table.keys)), np.diff(table.first))
    kinds = np.zeros((len(table.keys), 3))
    np.add.at(kinds, (context, kind), 1.0)
    total = np.bincount(context, table.times, len(table.keys))
    keys, first, token, times = (torch.from_numpy(np.ascontiguousarray(part)) for part in table)
    return _Level(
        keys,
        first,
        token,
        times,
        total=torch.from_numpy(total).to(dtype),
        kinds=torch.from_numpy(kinds).to(dtype),
        kind=torch.from_numpy(kind),
        entry=torch.from_numpy(context * n_tokens + table.token),
    )


def _discounts(counts: np.ndarray) -> tuple[float, ...]:
    n = [float((counts == j).sum()) for j in range(1, 5)]
    if not all(n[:2]):
        return _USUAL
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(j - (j + 1) * y * n[j] / n[j - 1] if n[j] and n[j - 1] else 0.0 for j in (1, 2, 3))
    return found if all(0.0 < d < j for j, d in enumerate(found, start=1)) else (y, y, y)
