r"""Weighted sums, moments and floors that the M-steps of several emissions share.

Every M-step maximises sum_t w_t log p(x_t seen | params) (or an EM lower bound at the previous parameters, which never
lowers it), for all draws and states at once.

Shapes: x and seen (n, t, k); weights (D, n, t, s), zero on padding; parameters (D, s, ...), tied ones (D, ...).
A state without weight keeps its previous parameters. Variances stay above 1e-6 of the variance of the data, and above
the rounding of the values: since the constrained maximum is attained by clipping, EM with the floor stays monotone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.memory import Remembered
from probseq.distributions.params import Params

__all__ = [
    "EMPTY",
    "Moments",
    "WeightedSums",
    "above",
    "code_weights",
    "flat_rows",
    "floor_name",
    "logarithms",
    "never_lower",
    "pooled_moments",
    "ratio",
    "symmetric",
    "value_weights",
    "variance_floor",
    "weighted_chunks",
    "weighted_outer",
    "weighted_sums",
]

EMPTY = 1e-8
"""A sum of weights below which a state is taken to have none."""
_FLOOR = 1e-6
# The variance of the rounding of values of size one, with room for sums of many; and that of values that are all zero.
_ROUNDING = (16 * torch.finfo(torch.float64).eps) ** 2
_POINT = 1e-24
# Half a megabyte at a time stays in the cache.
_CHUNK = 1 << 16
_MOST_CODES = 4096


class WeightedSums(NamedTuple):
    """Weighted sums of seen coordinates, each (D, s, k): of 1, x - centre, (x - centre)^2; centre (k,)."""

    total: Tensor
    first: Tensor
    second: Tensor
    centre: Tensor


class Moments(NamedTuple):
    """Of the seen values of each variable, (k,)."""

    number: Tensor
    mean: Tensor
    variance: Tensor


def variance_floor(x: Tensor, seen: Tensor) -> Tensor:
    """Smallest variance that a fit may give to each variable, (k,): 1e-6 of the variance of the data.

    More only where that is lost in the rounding of the values, such as for constants.
    """
    _, centre, spread = _moments(x, seen)
    return torch.maximum(_FLOOR * spread, _of_rounding(centre, spread))


def floor_name(x: Tensor, seen: Tensor, values: str = "the data") -> str:
    """What ``variance_floor`` is, in words; ``values`` says what x are."""
    _, centre, spread = _moments(x, seen)
    share = _FLOOR * spread >= _of_rounding(centre, spread)
    words = [f"1e-6 of the variance of {values}"] if bool(share.any()) else []
    if not bool(share.all()):
        words.append(f"the rounding of {values}, which hardly vary at all")
    return " or ".join(words)


def _of_rounding(centre: Tensor, spread: Tensor) -> Tensor:
    rounding = _ROUNDING * (centre**2 + spread)
    return torch.where(rounding > 0, rounding, torch.full_like(rounding, _POINT))


def pooled_moments(x: Tensor, seen: Tensor) -> Moments:
    """Moments of all the data together, the variances above their floor."""
    count, centre, spread = _moments(x, seen)
    return Moments(count, centre, torch.maximum(spread, variance_floor(x, seen)))


@Remembered
def logarithms(x: Tensor, seen: Tensor) -> Tensor:
    """log x, zero where nothing is seen."""
    return torch.where(seen, x, torch.ones_like(x)).log()


@Remembered
def _moments(x: Tensor, seen: Tensor) -> Moments:
    # A few rows at a time: the whole would take several times the memory of the data.
    step = max(1, _CHUNK // x.shape[-1])
    pieces = list(zip(x.flatten(0, 1).split(step), seen.flatten(0, 1).split(step), strict=True))
    count = seen.sum((0, 1)).to(x.dtype)
    divisor = count.clamp_min(1.0)
    centre = torch.stack([torch.where(one, row, 0.0).sum(0) for row, one in pieces]).sum(0) / divisor
    square = torch.stack([torch.where(one, row - centre, 0.0).square().sum(0) for row, one in pieces]).sum(0)
    return Moments(count, centre, square / divisor)


def flat_rows(x: Tensor, seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of all sequences in one axis: (N, k), (N, k), (D, N, s)."""
    k, s = x.shape[-1], weights.shape[-1]
    return x.reshape(-1, k), seen.reshape(-1, k), weights.reshape(weights.shape[0], -1, s)


def weighted_sums(x: Tensor, seen: Tensor, weights: Tensor) -> WeightedSums:
    """Sums up to the second order around the middle of the data, so that a large common mean costs no digits."""
    x, seen, weights = flat_rows(x, seen, weights)
    mask = seen.to(x.dtype)
    centre = (mask * x).sum(0) / mask.sum(0).clamp_min(1.0)
    gap = mask * (x - centre)
    sums = [(each.T @ weights).mT for each in (mask, gap, gap * gap)]
    return WeightedSums(sums[0], sums[1], sums[2], centre)


def weighted_outer(gap: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t gap_t gap_t^T, (D, s, o, o), for gap (N, o) and weights (D, N, s)."""
    o = gap.shape[-1]
    row, column = torch.tril_indices(o, o)
    packed = torch.zeros(*weights.shape[::2], len(row), dtype=gap.dtype)
    step = max(1, _CHUNK // len(row))
    for start in range(0, gap.shape[0], step):
        part = gap[start : start + step].T.contiguous()
        products = part.index_select(0, row) * part.index_select(0, column)
        packed += (products @ weights[:, start : start + step]).mT
    return symmetric(packed, o)


def symmetric(packed: Tensor, size: int) -> Tensor:
    """Symmetric matrices (*B, k, k) from their lower triangles, row by row, (*B, k (k + 1) / 2)."""
    row, column = torch.tril_indices(size, size)
    out = packed.new_empty(*packed.shape[:-1], size, size)
    out[..., row, column] = packed
    out[..., column, row] = packed
    return out


def weighted_chunks(x: Tensor, mask: Tensor, weights: Tensor, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N', 1, k) and their weights (D, N', s, k), a few at a time."""
    step = max(1, _CHUNK // like.numel())
    for start in range(0, x.shape[0], step):
        rows = slice(start, start + step)
        yield x[rows].unsqueeze(1), weights[:, rows].unsqueeze(-1) * mask[rows].unsqueeze(1)


def value_weights(x: Tensor, seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The values (V,) that one variable (N,) takes where it is seen, and the weight of each, (D, s, V)."""
    if not bool(seen.all()):
        x, weights = x[seen], weights[:, seen]
    code = x.long()
    small = bool(len(x)) and 0 <= int(code.min()) and int(code.max()) < min(_MOST_CODES, 2 * len(x))
    if small and torch.equal(code.to(x.dtype), x):
        values = torch.arange(int(code.max()) + 1, dtype=x.dtype)
    else:
        values, code = torch.unique(x, return_inverse=True)
    return values, code_weights(code, len(values), weights)


def code_weights(code: Tensor, size: int, weights: Tensor) -> Tensor:
    """The weight of each code 0 .. size - 1, (D, s, size), for codes (N,) and weights (D, N, s)."""
    summed = torch.zeros(weights.shape[0], size, weights.shape[-1], dtype=weights.dtype)
    for total, part in zip(summed, weights, strict=True):
        total.index_add_(0, code, part)
    return summed.mT


def never_lower(
    value: Callable[[Params], Tensor], new: dict[str, Tensor], old: Params, filled: Tensor
) -> dict[str, Tensor]:
    """``new`` where there is weight (``filled``) and ``value`` is not lower than at ``old``, else ``old``."""
    better = filled & (value(new) >= value(old))
    return {name: torch.where(better, tensor, old[name]) for name, tensor in new.items()}


def ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, finite where a sum of weights is nearly zero."""
    return top / bottom.clamp_min(EMPTY)


def above(covariance: Tensor, floor: Tensor) -> Tensor:
    """The constrained maximum over covariances above diag(floor): clipped eigenvalues in units of the floor."""
    unit = floor.sqrt()
    scaled = covariance / (unit.unsqueeze(-1) * unit)
    values, vectors = torch.linalg.eigh(0.5 * (scaled + scaled.mT))
    clipped = (vectors * values.clamp_min(1.0).unsqueeze(-2)) @ vectors.mT * (unit.unsqueeze(-1) * unit)
    return 0.5 * (clipped + clipped.mT)
