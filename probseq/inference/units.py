"""The units in which parameters are measured, from the data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import ParamSpec, PositiveDefinite, Real, Sparse
from probseq.models.base import Batch

__all__ = ["coordinate_units", "real_unit"]

_OF_THE_DATA = {"state", "component", "variable", "fourier_term"}


def coordinate_units(specs: Mapping[str, ParamSpec], batch: Batch, discrete: bool) -> np.ndarray:
    """Units (m,) of the flat unconstrained coordinates: one for logarithms, logits and whatever else has none.

    In these units a search, a difference or a random start is the same whatever the unit of the data. Off the diagonal
    of a Cholesky factor it is the unit of the variable of the row.
    """
    parts = [torch.ones(0, dtype=torch.float64)]
    for spec in specs.values():
        if not spec.trainable:
            continue
        ones = torch.ones(spec.constraint.size(spec.shape), dtype=torch.float64)
        if isinstance(spec.constraint, Real):
            parts.append(real_unit(spec, batch, discrete).expand(spec.shape).reshape(-1))
        elif isinstance(spec.constraint, Sparse):
            parts.append(real_unit(spec, batch, discrete).expand(spec.shape)[spec.constraint.support])
        elif isinstance(spec.constraint, PositiveDefinite) and not (discrete or spec.unitless):
            parts.append(_of_factors(spec, batch, ones))
        else:
            parts.append(ones)
    return torch.cat(parts).numpy()


def real_unit(spec: ParamSpec, batch: Batch, discrete: bool) -> Tensor:
    """The unit of a real parameter, which broadcasts to its shape.

    The standard deviation of the data for means and levels, that over the size of a covariate for its coefficient, the
    ratio of two variables for what takes one to the other, and one for what has no unit.
    """
    unit = torch.ones((), dtype=torch.float64)
    words = set(spec.dims)
    by_covariate = spec.dims[-1:] == ("covariate",)
    if spec.dims == ("variable", "state") and not (discrete or spec.unitless):
        # What a state, which has no unit, adds to each variable.
        each = _spread(batch)
        return (each if len(each) == spec.shape[0] else each.mean()).unsqueeze(-1)
    if not (discrete or spec.unitless) and words - {"covariate"} <= _OF_THE_DATA:
        each = _spread(batch)
        own = spec.dims[:-1] if by_covariate else spec.dims
        sizes = dict(zip(spec.dims, spec.shape, strict=False))
        unit = each if own[-1:] == ("variable",) and sizes["variable"] == len(each) else each.mean()
    elif spec.dims[-2:] == ("variable", "other_variable") and spec.shape[-2:] == (batch.x.shape[-1],) * 2:
        each = torch.ones(len(_spread(batch)), dtype=torch.float64) if discrete else _spread(batch)
        return each.unsqueeze(-1) / each
    if by_covariate and batch.u is not None and spec.shape[-1] == batch.u.shape[-1]:
        return unit.unsqueeze(-1) / _size(batch, batch.u)
    return unit.unsqueeze(-1) if by_covariate else unit


def _of_factors(spec: ParamSpec, batch: Batch, ones: Tensor) -> Tensor:
    k = spec.shape[-1]
    row, column = torch.tril_indices(k, k)
    each = _spread(batch)
    each = each if len(each) == k else each.mean().expand(k)
    packed = torch.where(row == column, torch.ones(len(row), dtype=torch.float64), each[row])
    return (ones.reshape(-1, len(row)) * packed).reshape(-1)


def _spread(batch: Batch) -> Tensor:
    """Standard deviation of each variable, (k,); one where it is zero."""
    mask = batch.seen.double()
    count = mask.sum((0, 1)).clamp_min(1.0)
    x = batch.x.double()
    mean = (mask * x).sum((0, 1)) / count
    return _or_one(((mask * (x - mean) ** 2).sum((0, 1)) / count).sqrt()).cpu()


def _size(batch: Batch, u: Tensor) -> Tensor:
    """Root mean square of each covariate, (m,); one where it is zero."""
    real = batch.real.unsqueeze(-1).double()
    return _or_one(((real * u.double() ** 2).sum((0, 1)) / real.sum((0, 1)).clamp_min(1.0)).sqrt()).cpu()


def _or_one(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, torch.ones_like(values))
