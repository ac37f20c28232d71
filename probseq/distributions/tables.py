"""Log densities of many components at many events, a part that fits the cache at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.base import Distribution

__all__ = ["component_log_prob"]

_ELEMENTS = 1 << 17


def component_log_prob(law: Distribution, x: Tensor, seen: Tensor) -> Tensor:
    """log p(x_t seen | component j), (*draw, n, t, s).

    Parameters
    ----------
    law : batch shape (*draw, s)
    x, seen : (n, t, k); unseen coordinates are integrated out exactly
    """
    n, t, k = x.shape
    rows, mask = x.reshape(n * t, k), seen.reshape(n * t, k)
    # About 1 MB at a time: larger temporaries leave the cache and cost twice the time.
    step = max(64, _ELEMENTS // max(1, law.batch_shape.numel() * k))
    pieces = ((i, law.component_table(rows[i : i + step], mask[i : i + step])) for i in range(0, n * t, step))
    if n * t <= step or (torch.is_grad_enabled() and _has_gradient(law)):
        table = torch.cat([piece for _, piece in pieces], -2) if n * t else law.component_table(rows, mask)
    else:
        table = torch.empty(*law.batch_shape[:-1], n * t, law.batch_shape[-1], dtype=x.dtype, device=x.device)
        for i, piece in pieces:
            table[..., i : i + step, :] = piece
    return table.reshape(*law.batch_shape[:-1], n, t, law.batch_shape[-1])


def _has_gradient(law: Distribution) -> bool:
    found: list[bool] = []

    def ask(tensor: Tensor, _: int) -> Tensor:
        found.append(tensor.requires_grad)
        return tensor

    law.map_batch(ask)
    return any(found)
