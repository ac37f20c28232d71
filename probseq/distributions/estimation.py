r"""Weighted sums, moments and floors that the M-steps of several emissions share.

Every M-step maximises sum_t w_t log p(x_t seen | params) (or an EM lower bound at the previous parameters, which never
lowers it), for all draws and states at once.

Shapes: x and seen (n, t, k); weights (D, n, t, s), zero on padding; parameters (D, s, ...), tied ones (D, ...).
A state without weight keeps its previous parameters. Variances stay above 1e-6 of the variance of the data: since the
constrained maximum is attained by clipping, EM with the floor stays monotone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params

__all__ = [
    "EMPTY",
    "Moments",
    "WeightedSums",
    "above",
    "flat_rows",
    "never_lower",
    "pooled_moments",
    "ratio",
    "value_weights",
    "variance_floor",
    "weighted_chunks",
    "weighted_outer",
    "weighted_sums",
]

EMPTY = 1e-8
"""A sum of weights below which a state is taken to have none."""
_FLOOR = 1e-6
_CHUNK = 1 << 20


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


class _Floor(NamedTuple):
    x: weakref.ref[Tensor]
    seen: weakref.ref[Tensor]
    versions: tuple[int, int]
    value: Tensor


_last_floor: _Floor | None = None


def variance_floor(x: Tensor, seen: Tensor) -> Tensor:
    """Smallest variance that a fit may give to each variable, (k,): 1e-6 of the variance of the data."""
    global _last_floor
    # Every M-step asks again about the same data.
    known = _last_floor
    if known is not None and known.x() is x and known.seen() is seen and known.versions == (x._version, seen._version):
        return known.value
    _, centre, spread = _moments(x, seen)
    value = torch.maximum(_FLOOR * spread, 1e-12 * (1e-12 + centre**2 + spread))
    _last_floor = _Floor(weakref.ref(x), weakref.ref(seen), (x._version, seen._version), value)
    return value


def pooled_moments(x: Tensor, seen: Tensor) -> Moments:
    """Moments of all the data together, the variances above their floor."""
    count, centre, spread = _moments(x, seen)
    return Moments(count, centre, torch.maximum(spread, variance_floor(x, seen)))


def _moments(x: Tensor, seen: Tensor) -> Moments:
    mask = seen.to(x.dtype)
    count = mask.sum((0, 1))
    centre = (mask * x).sum((0, 1)) / count.clamp_min(1.0)
    return Moments(count, centre, (mask * (x - centre) ** 2).sum((0, 1)) / count.clamp_min(1.0))


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
    turned = weights.mT
    return WeightedSums(turned @ mask, turned @ gap, turned @ (gap * gap), centre)


def weighted_outer(gap: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t gap_t gap_t^T, (D, s, o, o), for gap (N, o) and weights (D, N, s)."""
    o = gap.shape[-1]
    out = torch.zeros(*weights.shape[::2], o * o, dtype=gap.dtype)
    step = max(1, _CHUNK // (o * o))
    for start in range(0, gap.shape[0], step):
        part = gap[start : start + step]
        outer = (part.unsqueeze(-1) * part.unsqueeze(-2)).flatten(1)
        out += weights[:, start : start + step].mT @ outer
    return out.reshape(*out.shape[:2], o, o)


def weighted_chunks(x: Tensor, mask: Tensor, weights: Tensor, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N', 1, k) and their weights (D, N', s, k), a few at a time."""
    step = max(1, _CHUNK // like.numel())
    for start in range(0, x.shape[0], step):
        rows = slice(start, start + step)
        yield x[rows].unsqueeze(1), weights[:, rows].unsqueeze(-1) * mask[rows].unsqueeze(1)


def value_weights(x: Tensor, seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The values (V,) that one variable (N,) takes where it is seen, and the weight of each, (D, s, V)."""
    values, code = torch.unique(x[seen], return_inverse=True)
    summed = torch.zeros(weights.shape[0], len(values), weights.shape[-1], dtype=weights.dtype)
    shown = weights if bool(seen.all()) else weights[:, seen]
    return values, summed.index_add_(1, code, shown).mT


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
