"""The constraint of parameters that describe a changing variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probseq.distributions.params import Constraint

__all__ = ["Persistence"]

# The sum stays this far below 1, so that what it leaves keeps its digits; shares stay inside (0, 1) where the logistic
# function rounds to one.
_MOST, _MARGIN = 1.0 - 1e-8, 1e-12


class Persistence(Constraint):
    r"""(alpha, beta) with alpha > 0, beta > 0 and alpha + beta < 1.

    P = alpha + beta = c logistic(z_0) with c just below 1 and alpha = P logistic(z_1), so that the sum, which the data
    know best, is a coordinate of its own. \|d(alpha, beta) / dz\| = P^2 (1 - P / c) S (1 - S), S = alpha / P.
    """

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        total = _MOST * torch.sigmoid(flat[..., :1])
        share = _MARGIN + (1.0 - 2.0 * _MARGIN) * torch.sigmoid(flat[..., 1:])
        return torch.cat([total * share, total * (1.0 - share)], -1)

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        total = value.sum(-1, keepdim=True)
        share = (value[..., :1] / total - _MARGIN) / (1.0 - 2.0 * _MARGIN)
        return torch.logit(torch.cat([total / _MOST, share], -1), eps=_MARGIN)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        inside = torch.nn.functional.logsigmoid(flat) + torch.nn.functional.logsigmoid(-flat)
        return inside.sum(-1) + torch.nn.functional.logsigmoid(flat[..., 0]) + 2.0 * math.log(_MOST)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        if bool((value <= 0).any()):
            return "not above 0"
        return None if bool((value.sum(-1) < 1).all()) else "with a sum that is not below 1 (no finite variance)"
