"""Which of many models may be the best: a set that holds the truth with a known probability."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.errors import EmptyDataError, ShapeError

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

    One sequence is resampled in moving blocks along time, several as wholes. Approximate: first order in the number of
    values, or of sequences.

    Source: Hansen, Lunde and Nason (2011), Econometrica 79, section 3.1.2 (the statistic T_max); blocks of Kuensch
    (1989), Annals of Statistics 17.

    Parameters
    ----------
    scores
        scores of which more is better, such as nats, shape (sequence, time, model); a step with NaN in any model is
        left out.
    block
        steps a block; not given: ceil(n^(1/3)) of n steps.
    n_bootstrap
        draws of the bootstrap.
    random_state
        seed of the bootstrap.

    Returns
    -------
    p-values, shape (model,).

    Raises
    ------
    EmptyDataError
        No step is scored by all models.
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
    table = table[..., possible]
    generator = numpy_generator(random_state)
    if len(table) == 1:
        mean, draws = _moving_blocks(table[0][seen[0]], block, n_bootstrap, generator)
    else:
        sums = np.where(seen[..., None], table, 0.0).sum(1)
        mean, draws = _whole_sequences(sums, seen.sum(1), n_bootstrap, generator)
    p[possible] = _eliminate(mean, draws)
    return p


def _moving_blocks(
    table: NDArray[np.float64], block: int | None, n_bootstrap: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean scores (m,) of the steps (t, m), and the errors (b, m) of such a mean."""
    n = len(table)
    size = math.ceil(n ** (1 / 3)) if block is None else whole_number("block", block, 1, "Try block=10.")
    size = min(int(size), n)
    mean = table.mean(0)
    total = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table - mean, 0)])
    blocks = (total[size:] - total[:-size]) / size
    each = math.ceil(n / size)
    draws = [
        blocks[generator.integers(0, len(blocks), (min(_CHUNK, n_bootstrap - done), each))].mean(1)
        for done in range(0, n_bootstrap, _CHUNK)
    ]
    # Steps near the ends are in fewer blocks, so that the mean over blocks is not the mean over steps.
    return mean, np.concatenate(draws) - blocks.mean(0)


def _whole_sequences(
    sums: NDArray[np.float64], counts: NDArray[np.int64], n_bootstrap: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean scores (m,) from the sums (n, m) of each sequence, and the errors (b, m) of such a mean."""
    sums, counts = sums[counts > 0], counts[counts > 0]
    n = len(counts)
    mean = sums.sum(0) / counts.sum()
    times = generator.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(float)
    return mean, (times @ sums) / (times @ counts)[:, None] - mean


def _eliminate(mean: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values (m,) from the mean scores (m,) and the errors of the bootstrap (b, m)."""
    left, largest = list(range(len(mean))), 0.0
    p = np.ones(len(mean))
    while len(left) > 1:
        gap = mean[left].mean() - mean[left]
        error = draws[:, left].mean(1, keepdims=True) - draws[:, left]
        se = np.sqrt((error**2).mean(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(se > 0, gap / se, np.where(np.abs(gap) > 0, np.sign(gap) * np.inf, 0.0))
            top = np.where(se > 0, error / se, 0.0).max(1)
        largest = max(largest, float((top >= t.max()).mean()))
        worst = left.pop(int(np.argmax(t)))
        p[worst] = largest
    return p
