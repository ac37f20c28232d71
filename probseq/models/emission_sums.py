"""The M-step of emissions from sums over the steps, which the kernels make without a table of posteriors.

Counted events of which there are few different ones are known by a code: their densities are made once a code, and the
posteriors of the steps with the same code are summed. Exponential families need the sums of their statistics, in which
their log densities are linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Emission, Observation, SufficientEmission
from probseq.distributions.memory import Remembered
from probseq.distributions.params import Params
from probseq.distributions.tables import component_log_prob
from probseq.kernels import chain

__all__ = ["SummedEmission", "coded", "summed"]

_MOST_PRODUCTS = 1 << 20
_MOST_CODES = 1 << 16
_FEW = 16
# The terms of a log density may be so large that their sum loses about 1e-11.
_LARGEST = 1e5


class SummedEmission(NamedTuple):
    """Log emissions for the kernels, and what follows from their sums.

    emission : log p(x_t | z_t), up to ``base``.
    base : (n,), what is to be added to log p(x_1:T), or None.
    m_step : sums (D, 1, f or code, s) -> parameters.
    """

    emission: chain.LogEmission
    base: Tensor | None
    m_step: Callable[[Tensor], dict[str, Tensor]]


class _Codes(NamedTuple):
    """Codes (n, t), and the event of each, (1, code, k)."""

    codes: Tensor
    x: Tensor
    seen: Tensor


class _Statistics(NamedTuple):
    """Statistics (n, t, f') without repeated columns, where each of the f columns is, and their largest sizes (f,).

    base : (n,), sums over the steps of the log base.
    """

    columns: Tensor
    place: Tensor
    largest: Tensor
    base: Tensor


def coded(
    emission: Emission, observation: Observation, law: Distribution, params: Params, x: Tensor, seen: Tensor
) -> SummedEmission | None:
    """Emissions by code; None where events are no counts, or too many of them are different."""
    found = _codes(x, seen) if observation.discrete else None
    if found is None:
        return None
    table = component_log_prob(law, found.x, found.seen).squeeze(-3)

    def m_step(sums: Tensor) -> dict[str, Tensor]:
        return emission.m_step(observation, found.x, found.seen, sums, params)

    return SummedEmission(chain.coded_emission(table.numpy(), found.codes.numpy()), None, m_step)


def summed(
    emission: Emission, table: Callable[[], Tensor], params: Params, x: Tensor, seen: Tensor, linear: bool = True
) -> SummedEmission | None:
    """Emissions of an exponential family; None where statistics are unknown, or take more memory than they spare.

    Parameters
    ----------
    table
        Makes the log densities (D, n, t, s), where the linear form would lose digits or ``linear`` is false.
    """
    if not isinstance(emission, SufficientEmission) or x.shape[0] * x.shape[1] == 0:
        return None
    size = next(iter(params.values())).shape[:2].numel()
    # As much as a table of log densities and one of posteriors take, or the data and what is missing; half may be
    # repeated.
    most = max(_FEW, 2 * size, 2 * x.shape[-1])
    found = _statistics(x, seen, emission) if 0 < _width(x, seen, emission) <= 2 * most else None
    if found is None or found.columns.shape[-1] > most:
        return None

    def m_step(sums: Tensor) -> dict[str, Tensor]:
        return emission.from_statistics(x, seen, sums[:, 0, found.place].mT, params)

    natural = emission.natural(x, seen, params) if linear else None
    if natural is not None and float((natural.abs().amax((0, 1)) * found.largest).sum()) < _LARGEST:
        merged = natural.new_zeros(*natural.shape[:2], found.columns.shape[-1]).index_add_(-1, found.place, natural)
        return SummedEmission(chain.linear_emission(found.columns.numpy(), merged.numpy()), found.base, m_step)
    return SummedEmission(chain.table_emission(table().numpy(), found.columns.numpy()), None, m_step)


@Remembered
def _codes(x: Tensor, seen: Tensor) -> _Codes | None:
    n, t, k = x.shape
    if n * t * k == 0:
        return None
    rows, mask = x.reshape(-1, k), seen.reshape(-1, k)
    shown = torch.where(mask, rows, torch.zeros_like(rows))
    highest = shown.amax(0)
    if float(shown.amin()) < 0 or float(highest.amax()) >= _MOST_PRODUCTS:
        return None
    # One more than the largest stands for what is missing.
    each = torch.where(mask, rows, highest + 1.0).long()
    sizes = (highest.long() + 2).tolist()
    code, product = torch.zeros(n * t, dtype=torch.int64), 1
    for i, size in enumerate(sizes):
        code, product = code * size + each[:, i], product * size
        if product > _MOST_PRODUCTS:
            return None
    if not torch.equal(each.to(x.dtype)[mask], rows[mask]):
        return None
    used = torch.bincount(code, minlength=product) > 0
    number = int(used.sum())
    if number > min(_MOST_CODES, n * t // 4 + 8):
        return None
    first = torch.empty(product, dtype=torch.int64).index_copy_(0, code, torch.arange(n * t))[used]
    codes = (torch.cumsum(used, 0) - 1)[code]
    return _Codes(codes.reshape(n, t), rows[first].unsqueeze(0), mask[first].unsqueeze(0))


@Remembered
def _statistics(x: Tensor, seen: Tensor, emission: SufficientEmission) -> _Statistics | None:
    found = emission.statistics(x, seen)
    if found is None or not bool(torch.isfinite(found).all()):
        return None
    kept: list[int] = []
    place = []
    for i in range(found.shape[-1]):
        same = next((j for j, old in enumerate(kept) if torch.equal(found[..., old], found[..., i])), len(kept))
        kept += [i] if same == len(kept) else []
        place.append(same)
    columns = found[..., kept].contiguous()
    base = emission.log_base(x, seen).sum(-1)
    return _Statistics(columns, torch.tensor(place), found.abs().amax((0, 1)), base)


@Remembered
def _width(x: Tensor, seen: Tensor, emission: SufficientEmission) -> int:
    """The number of statistics, 0 where there are none."""
    found = emission.statistics(x[:1, :1], seen[:1, :1])
    return 0 if found is None else found.shape[-1]
