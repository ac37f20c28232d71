"""Which of many models may be the best: a set that holds the truth with a known probability."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.errors import EmptyDataError, ShapeError
from probseq.evaluation.uncertainty import default_lag, hac_degrees, hac_factor

__all__ = ["model_confidence_set"]

_CHUNK = 50


def model_confidence_set(
    scores: ArrayLike, *, block: int | None = None, n_bootstrap: int = 1000, random_state: RandomState = 0
) -> NDArray[np.float64]:
    """p-values of the model confidence set: the models with p >= a hold the best with probability 1 - a.

    While more than one model is left, equal predictive ability is tested by T = max_i t_i with
    t_i = (mean of all models left - mean of i) / se_i; the law of T comes from a bootstrap of the paired scores. The
    model of the largest t_i leaves, with the largest p-value of the tests so far; the last one has p = 1. A model that
    gave probability zero leaves first, with p = 0.

    One sequence is resampled in blocks along a circle of time, several as wholes. A bootstrap errs too little, and its
    se_i are uncertain themselves: so its errors are widened by ``hac_factor``, and drawn as Student t of
    ``hac_degrees`` degrees of freedom, as in ``hac_mean`` (sequences as blocks of one). For two models p is then nearly
    that of ``paired_difference``. Approximate: first order in the number of values, or of sequences.

    Source: Hansen, Lunde and Nason (2011), Econometrica 79, section 3.1.2 (the statistic T_max); circular
    blocks of Politis and Romano (1992).

    Parameters
    ----------
    scores
        scores of which more is better, such as nats, shape (sequence, time, model); a step with NaN in any model is
        left out.
    block
        steps a block, at most half of them; not given: ceil(1.3 sqrt(n)) of n steps.
    n_bootstrap
        draws of the bootstrap.
    random_state
        seed of the bootstrap.

    Returns
    -------
    p-values, shape (model,).

    Raises
    ------
    ShapeError
        The scores have no such shape.
    EmptyDataError
        No step is scored by all models.
    ParameterError
        ``block`` or ``n_bootstrap`` is no whole number from 1.
    """
    table = np.asarray(scores, float)
    if table.ndim != 3 or table.shape[-1] == 0:
        raise ShapeError(got=f"scores of shape {table.shape}", expected="shape (sequence, time, model)")
    whole_number("n_bootstrap", n_bootstrap, 1, "Try n_bootstrap=1000.")
    seen = ~np.isnan(table).any(-1)
    if not seen.any():
        raise EmptyDataError(got="no step that every model scores", expected="at least one common step")
    possible = np.isfinite(table[seen]).all(0)
    p = np.zeros(table.shape[-1])
    if not possible.any():
        return p
    table, generator = table[..., possible], numpy_generator(random_state)
    filled = np.flatnonzero(seen.any(1))
    if len(filled) == 1:
        mean, draws = _circular_blocks(table[filled[0]][seen[filled[0]]], block, n_bootstrap, generator)
    else:
        sums = np.where(seen[..., None], table, 0.0).sum(1)
        mean, draws = _whole_sequences(sums[filled], seen[filled].sum(1), n_bootstrap, generator)
    p[possible] = _eliminate(mean, draws, generator)
    return p


class _Errors(NamedTuple):
    """Errors of mean scores, as the bootstrap finds them.

    draws : (b, m). degrees : of freedom of their standard deviations, none where there is one value or sequence.
    """

    draws: NDArray[np.float64]
    degrees: float


def _circular_blocks(
    table: NDArray[np.float64], block: int | None, n_bootstrap: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], _Errors]:
    """Mean scores (m,) of the steps (t, m), and the errors of such a mean."""
    n = len(table)
    size = default_lag(n) + 1 if block is None else whole_number("block", block, 1, "Try block=10.")
    size = max(1, min(size, n // 2))
    mean = table.mean(0)
    # The end is followed by the beginning, so that every step is in as many blocks.
    around = np.concatenate([table, table[: size - 1]]) - mean
    total = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(around, 0)])
    blocks = (total[size:] - total[:-size]) / size
    each = math.ceil(n / size)
    draws = [
        blocks[generator.integers(0, n, (min(_CHUNK, n_bootstrap - done), each))].mean(1)
        for done in range(0, n_bootstrap, _CHUNK)
    ]
    return mean, _widened(np.concatenate(draws), n, size - 1)


def _whole_sequences(
    sums: NDArray[np.float64], counts: NDArray[np.int64], n_bootstrap: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], _Errors]:
    """Mean scores (m,) from the sums (n, m) of each sequence, and the errors of such a mean."""
    n = len(counts)
    mean = sums.sum(0) / counts.sum()
    times = generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(float)
    return mean, _widened((times @ sums) / (times @ counts)[:, None] - mean, n, 0)


def _widened(draws: NDArray[np.float64], n: int, lag: int) -> _Errors:
    return _Errors(draws * math.sqrt(hac_factor(n, lag)) if n > 1 else draws, hac_degrees(n, lag))


def _eliminate(mean: NDArray[np.float64], errors: _Errors, generator: np.random.Generator) -> NDArray[np.float64]:
    """p-values (m,) from the mean scores (m,)."""
    p, degrees = np.ones(len(mean)), errors.degrees
    if degrees <= 0:
        return p
    left, largest = list(range(len(mean))), 0.0
    heavy = np.sqrt(degrees / generator.chisquare(degrees, (len(errors.draws), 1)))
    while len(left) > 1:
        gap = mean[left].mean() - mean[left]
        error = errors.draws[:, left].mean(1, keepdims=True) - errors.draws[:, left]
        se = np.sqrt((error**2).mean(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(se > 0, gap / se, np.where(np.abs(gap) > 0, np.sign(gap) * np.inf, 0.0))
            top = np.where(se > 0, heavy * error / se, 0.0).max(1)
        largest = max(largest, float((top >= t.max()).mean()))
        worst = left.pop(int(np.argmax(t)))
        p[worst] = largest
    return p
