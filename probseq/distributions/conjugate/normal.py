"""Conjugate law of means and variances of independent normal coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from probseq.distributions.conjugate.base import ConjugateLaw, Settings, gamma_divergence, hyper
from probseq.distributions.emissions import Emission, Normal, Observation
from probseq.distributions.estimation import EMPTY, pooled_moments, weighted_sums
from probseq.distributions.gaussian import DiagonalNormal
from probseq.distributions.tables import component_log_prob

__all__ = ["NormalGamma", "STRENGTH"]

STRENGTH = 0.01
"""Observations that the prior of a mean is worth: Fraley and Raftery (2007), Bayesian regularization for normal
mixture estimation and model-based clustering, section 3.2."""


@dataclass(frozen=True)
class NormalGamma(ConjugateLaw):
    r"""precision_ji ~ Gamma(shape_ji, rate_ji), mean_ji | precision ~ N(mean_ji, 1 / (strength_ji precision_ji)).

    For each state j and variable i; "spherical" covariances have one precision a state. Default: the mean of the data,
    strength 0.01, shape (k + 2) / 2, and a rate with which the prior's typical variance is that of the data over
    s^(2 / k), as Fraley and Raftery (2007), section 3.2, propose for s groups of k variables.

    Parameters
    ----------
    mean, strength : (D, s, k)
    shape, rate : (D, s, k), or (D, s, 1) for one precision a state
    """

    names = ("mean", "strength", "shape", "rate")

    mean: Tensor
    strength: Tensor
    shape: Tensor
    rate: Tensor
    spherical: bool = False

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        if not isinstance(emission, Normal):
            raise TypeError("a law of normal emissions")
        k = observation.n_variables
        pooled = pooled_moments(x, seen)
        spherical = emission.covariance == "spherical"
        variance = pooled.variance.mean(-1, keepdim=True) if spherical else pooled.variance
        whole, own = (n_states, k), (n_states, 1 if spherical else k)
        shape = hyper(settings, "shape", 0.5 * (k + 2), own)
        return cls(
            mean=hyper(settings, "mean", pooled.mean, whole, -torch.inf),
            strength=hyper(settings, "strength", STRENGTH, whole),
            shape=shape,
            rate=hyper(settings, "rate", 0.5 * variance / n_states ** (2 / k), own),
            spherical=spherical,
        )

    @property
    def _precision(self) -> Tensor:
        """E[precision], (D, s, k or 1)."""
        return self.shape / self.rate

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        sums = weighted_sums(x, seen, weights)
        n = sums.total
        average = sums.first / n.clamp_min(EMPTY**2)
        within = (sums.second - n * average**2).clamp_min(0.0)
        strength = self.strength + n
        gap = sums.centre + average - self.mean
        moved = 0.5 * (within + self.strength * n / strength * gap**2)
        half = 0.5 * n
        if self.spherical:
            half, moved = half.sum(-1, keepdim=True), moved.sum(-1, keepdim=True)
        return replace(
            self,
            mean=self.mean + n / strength * gap,
            strength=strength,
            shape=self.shape + half,
            rate=self.rate + moved,
        )

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        precision = self._precision
        law = DiagonalNormal(loc=self.mean, scale=precision.rsqrt().expand_as(self.mean))
        offset = 0.5 * (torch.digamma(self.shape) - self.shape.log()) - 0.5 / self.strength
        return component_log_prob(law, x, seen) + (seen.to(x.dtype).flatten(0, 1) @ offset.mT).unflatten(1, x.shape[:2])

    def divergence(self, prior: Self) -> Tensor:
        relative = prior.strength / self.strength
        means = 0.5 * (relative - 1.0 - relative.log())
        means = means + 0.5 * prior.strength * self._precision * (self.mean - prior.mean) ** 2
        gammas = gamma_divergence(self.shape, self.rate, prior.shape, prior.rate)
        return means.sum((-2, -1)) + gammas.sum((-2, -1))

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        precision = torch._standard_gamma(self.shape, generator=generator).clamp_min(1e-300) / self.rate
        scale = precision.rsqrt()
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        mean = self.mean + noise * scale / self.strength.sqrt()
        return {"mean": mean, "scale": scale.squeeze(-1) if self.spherical else scale}

    def point(self) -> dict[str, Tensor]:
        """The mean, and the standard deviation whose precision is the mean precision."""
        scale = self._precision.rsqrt()
        return {"mean": self.mean, "scale": scale.squeeze(-1) if self.spherical else scale}
