"""Weighted particles: how many they are worth, and which of them go on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["effective_size", "normalised", "resample"]


def normalised(log_weights: Tensor) -> Tensor:
    """log W_p with sum_p W_p = 1 over the last dimension; equal where every weight is zero.

    Parameters
    ----------
    log_weights : (..., particle), nats; -inf is a weight of zero
    """
    total = torch.logsumexp(log_weights, -1, keepdim=True)
    even = torch.full_like(log_weights, -math.log(log_weights.shape[-1]))
    return torch.where(total > -torch.inf, log_weights - total, even)


def effective_size(log_weights: Tensor) -> Tensor:
    """1 / sum_p W_p^2, from 1 to the number of particles, (...).

    Parameters
    ----------
    log_weights : (..., particle), nats, up to a constant; -inf is a weight of zero

    References
    ----------
    Kong, Liu and Wong (1994), Journal of the American Statistical Association 89, 278-288.
    """
    weights = normalised(log_weights.double())
    return torch.exp(-torch.logsumexp(2.0 * weights, -1))


def resample(log_weights: Tensor, generator: torch.Generator | None = None, begin: Tensor | None = None) -> Tensor:
    r"""Systematic resampling: numbers a_1 <= ... <= a_P of the particles that go on, all of weight 1 / P afterwards.

    With U uniform on [0, 1), a_i is the particle whose interval of the cumulated weights holds (i - 1 + U) / P:
    particle p is taken either floor(P W_p) or ceil(P W_p) times, P W_p on average; never where its weight is zero.

    Parameters
    ----------
    log_weights : (..., particle), nats, up to a constant; -inf is a weight of zero
    generator : where U is drawn from, one for each leading index
    begin : (...) float64 or None
        The numbers U themselves, where they are known.

    Returns
    -------
    (..., particle) int64

    References
    ----------
    Kitagawa (1996), Journal of Computational and Graphical Statistics 5, 1-25; Douc, Cappe and Moulines (2005),
    section 3.3.
    """
    weights = normalised(log_weights.detach().double()).exp()
    n = weights.shape[-1]
    if begin is None:
        home = weights.device if generator is None else generator.device
        begin = torch.rand(*weights.shape[:-1], generator=generator, dtype=torch.float64, device=home)
    places = (torch.arange(n, device=weights.device) + begin.to(weights.device).unsqueeze(-1)) / n
    # Rounding may leave the last place beyond the sum: it belongs to the last particle that has any weight.
    last = n - 1 - (weights.flip(-1) > 0).long().argmax(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(weights.cumsum(-1), places, right=True), last)
