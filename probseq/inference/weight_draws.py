"""Draws of the weights of a network, with what is known of the law that they are from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from probseq.inference.base import Draws

__all__ = ["NormalDraws", "WeightDraws"]


@dataclass(frozen=True)
class WeightDraws(Draws):
    """Draws from a law of the weights, and its mean.

    Parameters
    ----------
    point : dict
        The parameters at the mean of the law, one draw (1, ...).
    divergence : float
        From the prior, nats; for dropout masks up to a constant.
    kl_weight : float
        What the divergence was multiplied by in training; 1 is the evidence lower bound, anything else is tempered.
    """

    point: dict[str, Tensor] = field(default_factory=dict)
    divergence: float = 0.0
    kl_weight: float = 1.0


@dataclass(frozen=True)
class NormalDraws(WeightDraws):
    """Draws from a normal law with independent coordinates, with that law.

    Parameters
    ----------
    mean, scale : (m,)
        Of the law, by weight.
    prior_location, prior_scale : (m,)
        Of the prior.
    prior_scales : dict
        By kind of weight, the factor of the prior's standard deviations that was learnt; empty where none was.
    """

    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    scale: Tensor = field(default_factory=lambda: torch.zeros(0))
    prior_location: Tensor = field(default_factory=lambda: torch.zeros(0))
    prior_scale: Tensor = field(default_factory=lambda: torch.zeros(0))
    prior_scales: dict[str, float] = field(default_factory=dict)
