"""Conjugate laws of rates of counts and of probabilities of bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from probseq.distributions.conjugate.base import ConjugateLaw, Settings, gamma_divergence, hyper, log_gamma_draws
from probseq.distributions.conjugate.dirichlet import dirichlet_divergence
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.estimation import flat_rows, pooled_moments

__all__ = ["BetaBits", "GammaRates"]

_SMALL = 1e-300
_SURE = 690.0


@dataclass(frozen=True)
class GammaRates(ConjugateLaw):
    """rate_ji ~ Gamma(shape_ji, rate_ji), for each state j and variable i.

    The default is exponential with the mean of the data: shape 1, rate 1 / mean.

    Parameters
    ----------
    shape, rate : (D, s, k)
    """

    names = ("shape", "rate")

    shape: Tensor
    rate: Tensor

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        size = (n_states, observation.n_variables)
        mean = pooled_moments(x, seen).mean
        usual = 1.0 / torch.where(mean > 0, mean, torch.ones_like(mean))
        return cls(hyper(settings, "shape", 1.0, size), hyper(settings, "rate", usual, size))

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        rows, mask, shares = flat_rows(x, seen.to(x.dtype), weights)
        turned = shares.mT
        return replace(self, shape=self.shape + turned @ (mask * rows), rate=self.rate + turned @ mask)

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        mask = seen.to(x.dtype)
        counts = (mask * x).flatten(0, 1)
        log_rate = torch.digamma(self.shape) - self.rate.log()
        constant = (mask * torch.lgamma(mask * x + 1.0)).sum(-1, keepdim=True)
        each = counts @ log_rate.mT - mask.flatten(0, 1) @ (self.shape / self.rate).mT
        return each.unflatten(1, x.shape[:2]) - constant

    def divergence(self, prior: Self) -> Tensor:
        return gamma_divergence(self.shape, self.rate, prior.shape, prior.rate).sum((-2, -1))

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"rate": (log_gamma_draws(self.shape, generator).exp() / self.rate).clamp_min(_SMALL)}

    def point(self) -> dict[str, Tensor]:
        return {"rate": self.shape / self.rate}


@dataclass(frozen=True)
class BetaBits(ConjugateLaw):
    """p_ji ~ Beta(ones_ji, zeros_ji), p = sigmoid(logit), for each state j and variable i.

    The default is Jeffreys' prior, 1/2 and 1/2.

    Parameters
    ----------
    ones, zeros : (D, s, k)
    """

    names = ("ones", "zeros")

    ones: Tensor
    zeros: Tensor

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        size = (n_states, observation.n_variables)
        return cls(hyper(settings, "ones", 0.5, size), hyper(settings, "zeros", 0.5, size))

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        rows, mask, shares = flat_rows(x, seen.to(x.dtype), weights)
        turned = shares.mT
        return replace(self, ones=self.ones + turned @ (mask * rows), zeros=self.zeros + turned @ (mask * (1.0 - rows)))

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        mask = seen.to(x.dtype).flatten(0, 1)
        ones = mask * x.flatten(0, 1)
        total = torch.digamma(self.ones + self.zeros)
        each = ones @ (torch.digamma(self.ones) - total).mT + (mask - ones) @ (torch.digamma(self.zeros) - total).mT
        return each.unflatten(1, x.shape[:2])

    def divergence(self, prior: Self) -> Tensor:
        mine, other = (torch.stack([law.ones, law.zeros], -1) for law in (self, prior))
        return dirichlet_divergence(mine, other, torch.ones_like(mine, dtype=torch.bool)).sum((-2, -1))

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        # log p / (1 - p) is the difference of two log-gammas; beyond +-690 a probability is 0 or 1 in double precision.
        gap = log_gamma_draws(self.ones, generator) - log_gamma_draws(self.zeros, generator)
        return {"logit": gap.clamp(-_SURE, _SURE)}

    def point(self) -> dict[str, Tensor]:
        return {"logit": self.ones.log() - self.zeros.log()}
