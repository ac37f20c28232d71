"""Log densities of many components at many events, in the form that is cheapest for each family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import FullNormal
from probseq.distributions.product import IndependentParts

__all__ = ["component_log_prob"]

_ELEMENTS = 1 << 17


def component_log_prob(law: Distribution, x: Tensor, seen: Tensor) -> Tensor:
    """log p(x_t seen | component j), (*draw, n, t, s).

    Parameters
    ----------
    law : batch shape (*draw, s)
    x, seen : (n, t, k); unseen coordinates are integrated out exactly
    """
    if isinstance(law, IndependentParts):
        each = zip(law.parts, law.columns, strict=True)
        return torch.stack([component_log_prob(part, x[..., own], seen[..., own]) for part, own in each]).sum(0)
    n, t, k = x.shape
    rows, mask = x.reshape(n * t, k), seen.reshape(n * t, k)
    part: Callable[[Any, Tensor, Tensor], Tensor] = _generic
    if isinstance(law, FullNormal):
        part = _correlated
    elif isinstance(law, PoissonCounts):
        part = _poisson
    elif isinstance(law, Bits):
        part = _bits
    elif isinstance(law, Categories):
        part = _categories
    # About 1 MB at a time: larger temporaries leave the cache and cost twice the time.
    step = max(64, _ELEMENTS // max(1, law.batch_shape.numel() * k))
    pieces = ((i, part(law, rows[i : i + step], mask[i : i + step])) for i in range(0, n * t, step))
    if n * t <= step or (torch.is_grad_enabled() and _has_gradient(law)):
        table = torch.cat([piece for _, piece in pieces], -2) if n * t else part(law, rows, mask)
    else:
        table = torch.empty(*law.batch_shape[:-1], n * t, law.batch_shape[-1], dtype=x.dtype)
        for i, piece in pieces:
            table[..., i : i + step, :] = piece
    return table.reshape(*law.batch_shape[:-1], n, t, law.batch_shape[-1])


def _has_gradient(law: Distribution) -> bool:
    return any(getattr(law, name).requires_grad for name in law._event_dims)


def _generic(law: Distribution, x: Tensor, seen: Tensor) -> Tensor:
    return law[..., None, :].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))


def _poisson(law: PoissonCounts, x: Tensor, seen: Tensor) -> Tensor:
    mask = seen.to(x.dtype)
    counts = mask * x
    constant = (mask * torch.lgamma(counts + 1.0)).sum(-1, keepdim=True)
    if bool((law.rate > 0).all()):
        return counts @ law.rate.log().mT - mask @ law.rate.mT - constant
    return _generic(law, x, seen)


def _bits(law: Bits, x: Tensor, seen: Tensor) -> Tensor:
    mask = seen.to(x.dtype)
    return (mask * x) @ law.logit.mT - mask @ torch.nn.functional.softplus(law.logit).mT


def _categories(law: Categories, x: Tensor, seen: Tensor) -> Tensor:
    log_probs, codes = law.log_probs, x.long()
    each = [log_probs[..., j, :][..., codes[:, j]] for j in range(x.shape[-1])]
    shown = [torch.where(seen[:, j], one, torch.zeros_like(one)) for j, one in enumerate(each)]
    return torch.stack(shown).sum(0).mT


def _correlated(law: FullNormal, x: Tensor, seen: Tensor) -> Tensor:
    """Whitening by one matrix product for each pattern of seen coordinates."""
    if bool(seen.all()):
        return _whitened(law.loc, law.scale_tril, x)
    covariance = law.covariance
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    parts, order = [], []
    for index, pattern in enumerate(patterns):
        rows = (which == index).nonzero().squeeze(-1)
        order.append(rows)
        o = pattern.nonzero().squeeze(-1)
        if len(o) == 0:
            parts.append(torch.zeros(*law.batch_shape[:-1], len(rows), law.batch_shape[-1], dtype=law.loc.dtype))
        elif len(o) == law.n_variables:
            parts.append(_whitened(law.loc, law.scale_tril, x[rows]))
        else:
            factor = torch.linalg.cholesky(covariance[..., o, :][..., o])
            parts.append(_whitened(law.loc[..., o], factor, x[rows][:, o]))
    return torch.cat(parts, -2)[..., torch.argsort(torch.cat(order)), :]


def _whitened(loc: Tensor, factor: Tensor, x: Tensor) -> Tensor:
    k = x.shape[-1]
    # Around the middle of the data, so that a large common mean costs no digits.
    centre = x.mean(0) if len(x) else torch.zeros(k, dtype=x.dtype)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(k, dtype=factor.dtype).expand_as(factor), upper=False)
    shift = (inverse @ (loc - centre).unsqueeze(-1)).squeeze(-1)
    z = torch.einsum("...sij,tj->...tsi", inverse, x - centre) - shift.unsqueeze(-3)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (z * z).sum(-1) - log_det.unsqueeze(-2) - 0.5 * k * math.log(2 * math.pi)
