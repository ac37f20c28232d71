"""Conjugate law of means and whole covariance matrices of normal vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from probseq.distributions.conjugate.base import ConjugateLaw, Settings, hyper
from probseq.distributions.conjugate.normal import STRENGTH
from probseq.distributions.emissions import Emission, Normal, Observation
from probseq.distributions.estimation import EMPTY, flat_rows, pooled_moments, weighted_outer
from probseq.distributions.gaussian import FullNormal
from probseq.distributions.params import PositiveDefinite
from probseq.distributions.tables import component_log_prob
from probseq.errors import ParameterError

__all__ = ["NormalWishart"]


@dataclass(frozen=True)
class NormalWishart(ConjugateLaw):
    r"""Sigma_j ~ inverse Wishart(dof_j, scatter_j), mean_j | Sigma_j ~ N(mean_j, Sigma_j / strength_j).

    "tied" covariances have one Sigma for all states. Default: the mean of the data, strength 0.01, k + 2 degrees of
    freedom, and a diagonal scatter of the variances of the data over s^(2 / k), as Fraley and Raftery (2007), section
    3.2, propose for s groups of k variables.

    A step of which some coordinates are missing is completed by their law given the seen ones, exactly so in a sampler;
    in a variational fit the missing coordinates are one more factor of the approximation.

    Parameters
    ----------
    mean : (D, s, k)
    strength : (D, s)
    dof : (D, s), or (D, 1) where tied
    scatter : (D, s, k, k), or (D, 1, k, k) where tied
    """

    names = ("mean", "strength", "dof", "scatter")
    completes = True

    mean: Tensor
    strength: Tensor
    dof: Tensor
    scatter: Tensor
    tied: bool = False

    @classmethod
    def weak(
        cls, emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
    ) -> Self:
        if not isinstance(emission, Normal):
            raise TypeError("a law of normal emissions")
        k = observation.n_variables
        pooled = pooled_moments(x, seen)
        tied = emission.covariance == "tied"
        own = (1,) if tied else (n_states,)
        usual = torch.diag_embed(pooled.variance / n_states ** (2 / k))
        scatter = hyper(settings, "scatter", usual, (*own, k, k), -torch.inf)
        wrong = PositiveDefinite().violation(scatter)
        if wrong:
            raise ParameterError(
                got=f"scatter in the prior, {wrong}", expected="symmetric positive definite", remedy="Try the default."
            )
        return cls(
            mean=hyper(settings, "mean", pooled.mean, (n_states, k), -torch.inf),
            strength=hyper(settings, "strength", STRENGTH, (n_states,)),
            dof=hyper(settings, "dof", float(k + 2), own, float(k - 1)),
            scatter=scatter,
            tied=tied,
        )

    def _shared(self) -> tuple[str, ...]:
        return ("dof", "scatter") if self.tied else ()

    @property
    def _covariance(self) -> Tensor:
        """The inverse of the mean precision, (D, s, k, k)."""
        each = self.scatter / self.dof[..., None, None]
        return each.expand(*self.mean.shape, self.mean.shape[-1])

    def updated(self, x: Tensor, seen: Tensor, weights: Tensor, current: Self | None = None) -> Self:
        law = self if current is None else current
        rows, mask, shares = flat_rows(x, seen, weights)
        shown = mask.to(rows.dtype)
        centre = (shown * rows).sum(0) / shown.sum(0).clamp_min(1.0)
        n, first, second = _completed_sums(rows - centre, mask, shares, law.mean - centre, law._covariance)
        average = first / n.clamp_min(EMPTY**2).unsqueeze(-1)
        within = second - n[..., None, None] * average.unsqueeze(-1) * average.unsqueeze(-2)
        strength = self.strength + n
        gap = centre + average - self.mean
        pull = (self.strength * n / strength)[..., None, None] * gap.unsqueeze(-1) * gap.unsqueeze(-2)
        moved, count = within + pull, n
        if self.tied:
            moved, count = moved.sum(1, keepdim=True), n.sum(1, keepdim=True)
        scatter = self.scatter + moved
        return replace(
            self,
            mean=self.mean + (n / strength).unsqueeze(-1) * gap,
            strength=strength,
            dof=self.dof + count,
            scatter=0.5 * (scatter + scatter.mT),
        )

    def expected_log_prob(self, x: Tensor, seen: Tensor) -> Tensor:
        k = x.shape[-1]
        factor = torch.linalg.cholesky(self._covariance)
        table = component_log_prob(FullNormal(loc=self.mean, scale_tril=factor), x, seen)
        log_det = self._expected_log_det() - k * self.dof.log() + _log_det(self.scatter)
        offset = 0.5 * log_det - 0.5 * k / self.strength
        # Nothing seen, nothing said: such a step is not completed.
        return table + seen.any(-1).to(x.dtype)[..., None] * offset[:, None, None, :]

    def divergence(self, prior: Self) -> Tensor:
        k = self.mean.shape[-1]
        relative = prior.strength / self.strength
        gap = self.mean - prior.mean
        distance = (gap * torch.linalg.solve(self._covariance, gap.unsqueeze(-1)).squeeze(-1)).sum(-1)
        means = 0.5 * (k * (relative - 1.0 - relative.log()) + prior.strength * distance)
        overlap = torch.linalg.solve(self.scatter, prior.scatter.expand_as(self.scatter))
        wishart = (
            0.5 * (self.dof - prior.dof) * self._expected_log_det()
            - 0.5 * k * self.dof
            + 0.5 * self.dof * overlap.diagonal(dim1=-2, dim2=-1).sum(-1)
            + _log_normaliser(prior.dof, prior.scatter)
            - _log_normaliser(self.dof, self.scatter)
        )
        return means.sum(-1) + wishart.sum(-1)

    def sample(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Bartlett's decomposition of the Wishart law of the precision."""
        k = self.mean.shape[-1]
        outer = torch.linalg.cholesky(self.scatter)
        steps = torch.arange(k, dtype=self.dof.dtype)
        chi2 = 2.0 * torch._standard_gamma(0.5 * (self.dof.unsqueeze(-1) - steps), generator=generator)
        lower = torch.tril(torch.randn(outer.shape, generator=generator, dtype=outer.dtype), -1)
        bartlett = lower + torch.diag_embed(chi2.clamp_min(1e-300).sqrt())
        # Lambda = C^-T B B^T C^-1 for scatter = C C^T, hence Sigma = (C B^-T) (C B^-T)^T.
        root = torch.linalg.solve_triangular(bartlett, outer.mT, upper=False).mT
        covariance = root @ root.mT
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        shift = (root @ noise.unsqueeze(-1)).squeeze(-1) / self.strength.sqrt().unsqueeze(-1)
        covariance = 0.5 * (covariance + covariance.mT)
        return {"mean": self.mean + shift, "covariance": covariance.squeeze(1) if self.tied else covariance}

    def point(self) -> dict[str, Tensor]:
        """The mean, and the covariance whose inverse is the mean precision."""
        covariance = self.scatter / self.dof[..., None, None]
        return {"mean": self.mean, "covariance": covariance.squeeze(1) if self.tied else covariance}

    def fill_missing(
        self, params: Mapping[str, Tensor], x: Tensor, seen: Tensor, states: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        draws, k = states.shape[0], x.shape[-1]
        full = x.expand(draws, *x.shape).clone().flatten(1, 2)
        mean, covariance = params["mean"], params["covariance"]
        if self.tied:
            covariance = covariance.unsqueeze(1).expand(*mean.shape, k)
        flat, which_state = seen.reshape(-1, k), states.reshape(draws, -1)
        patterns, which = torch.unique(flat, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if bool(pattern.all()) or not bool(pattern.any()):
                continue
            rows = (which == index).nonzero().squeeze(-1)
            o, m = pattern.nonzero().squeeze(-1), (~pattern).nonzero().squeeze(-1)
            s_oo, s_mo = covariance[..., o, :][..., o], covariance[..., m, :][..., o]
            gain = torch.linalg.solve(s_oo, s_mo.mT).mT
            left = covariance[..., m, :][..., m] - gain @ s_mo.mT
            root = torch.linalg.cholesky(0.5 * (left + left.mT))
            for draw in range(draws):
                z = which_state[draw, rows]
                gap = full[draw, rows][:, o] - mean[draw, z][:, o]
                noise = torch.randn(len(rows), len(m), generator=generator, dtype=x.dtype)
                value = mean[draw, z][:, m] + (gain[draw, z] @ gap.unsqueeze(-1)).squeeze(-1)
                value = value + (root[draw, z] @ noise.unsqueeze(-1)).squeeze(-1)
                full[draw, rows.unsqueeze(-1), m] = value
        return full.unflatten(1, x.shape[:2]), seen.any(-1, keepdim=True).expand_as(seen)

    def _expected_log_det(self) -> Tensor:
        """E[log |precision|], (D, s or 1)."""
        k = self.mean.shape[-1]
        steps = torch.arange(k, dtype=self.dof.dtype)
        half = 0.5 * (self.dof.unsqueeze(-1) - steps)
        return torch.digamma(half).sum(-1) + k * math.log(2.0) - _log_det(self.scatter)


def _completed_sums(
    x: Tensor, seen: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums of 1, x and x x^T with missing coordinates replaced by their moments given the seen ones.

    x and seen (N, k), weights (D, N, s); mean (D', s, k) and covariance (D', s, k, k) with D' = D or 1.
    """
    draws, s, k = weights.shape[0], weights.shape[-1], x.shape[-1]
    total = torch.zeros(draws, s, dtype=x.dtype)
    first = torch.zeros(draws, s, k, dtype=x.dtype)
    second = torch.zeros(draws, s, k, k, dtype=x.dtype)
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            continue
        rows = which == index
        o = pattern.nonzero().squeeze(-1)
        gap, w = x[rows][:, o], weights[:, rows]
        n, f, g = w.sum(1), w.mT @ gap, weighted_outer(gap, w)
        total = total + n
        if len(o) == k:
            first, second = first + f, second + g
            continue
        # E[x | x_o] = offset + gain x_o, with what is left over as conditional covariance.
        gain = torch.linalg.solve(covariance[..., o, :][..., o], covariance[..., o, :]).mT
        left = covariance - gain @ covariance[..., o, :]
        offset = mean - (gain @ mean[..., o].unsqueeze(-1)).squeeze(-1)
        moved = (gain @ f.unsqueeze(-1)).squeeze(-1)
        cross = offset.unsqueeze(-1) * moved.unsqueeze(-2)
        first = first + offset * n.unsqueeze(-1) + moved
        second = second + gain @ g @ gain.mT + cross + cross.mT
        second = second + n[..., None, None] * (offset.unsqueeze(-1) * offset.unsqueeze(-2) + left)
    return total, first, second


def _log_det(matrix: Tensor) -> Tensor:
    return 2.0 * torch.linalg.cholesky(matrix).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _log_normaliser(dof: Tensor, scatter: Tensor) -> Tensor:
    """Log of the integral of |L|^((dof - k - 1) / 2) exp(-tr(scatter L) / 2) over precisions L."""
    k = scatter.shape[-1]
    return 0.5 * dof * (k * math.log(2.0) - _log_det(scatter)) + torch.mvlgamma(0.5 * dof, k)
