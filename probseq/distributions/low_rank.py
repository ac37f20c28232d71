"""Normal distributions whose correlations come from a few common factors."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor

__all__ = ["FactorNormal"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class FactorNormal(Distribution):
    r"""p(x) = N(x; loc, D + F F'), D = diag(scale^2): x = loc + D^{1/2} e + F z with independent standard normals e, z.

    With G = D^{-1/2} F, M = I + G'G, v = D^{-1/2} (x - loc) and w = M^{-1} G'v, the mean of z given x,

        -2 log p(x) = |v - G w|^2 + |w|^2 + log |M| + log |D| + k log 2 pi,

    by Woodbury's identity and the matrix determinant lemma, O(k r^2) for r factors. The sums of squares lose no digits
    where the factors are large beside D.

    Parameters
    ----------
    loc : (*B, k)
    scale : (*B, k), positive, the standard deviation of what no factor explains, in the unit of the data
    factors : F, (*B, k, r)
    """

    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "scale": 1, "factors": 2}
    loc: Tensor
    scale: Tensor
    factors: Tensor

    @property
    def covariance(self) -> Tensor:
        return self.factors @ self.factors.mT + torch.diag_embed(self.scale**2)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale**2 + (self.factors**2).sum(-1)

    def full(self) -> FullNormal:
        """The same law with its covariance written out."""
        return FullNormal(loc=self.loc, scale_tril=lower_factor(self.covariance))

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        if bool(seen.all()):
            return self.log_prob(value)
        # A coordinate without loadings and without deviation says nothing: the others are left as they are.
        mask = seen.to(self.dtype)
        gap = torch.where(seen, (value - self.loc) / self.scale, torch.zeros_like(self.loc))
        loadings = self.factors * (mask / self.scale).unsqueeze(-1)
        size = (mask * (self.scale.log() + _HALF_LOG_2PI)).sum(-1)
        return _explained(gap, loadings) - size

    def log_prob(self, value: Tensor) -> Tensor:
        size = (self.scale.log() + _HALF_LOG_2PI).sum(-1)
        return _explained((value - self.loc) / self.scale, self.factors / self.scale.unsqueeze(-1)) - size

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """One product of matrices for each pattern of seen coordinates."""
        if bool(seen.all()):
            return self._table(value)
        patterns, which = torch.unique(seen, dim=0, return_inverse=True)
        parts, order = [], []
        for index, pattern in enumerate(patterns):
            rows = (which == index).nonzero().squeeze(-1)
            order.append(rows)
            own = pattern.nonzero().squeeze(-1).tolist()
            if own:
                law = FactorNormal(
                    loc=self.loc[..., own], scale=self.scale[..., own], factors=self.factors[..., own, :]
                )
                parts.append(law._table(value[rows][:, own]))
            else:
                parts.append(torch.zeros(*self.batch_shape[:-1], len(rows), self.batch_shape[-1], dtype=self.dtype))
        return torch.cat(parts, -2)[..., torch.argsort(torch.cat(order)), :]

    def _table(self, value: Tensor) -> Tensor:
        """log p(value_r | component j) for rows (r, k) that are seen whole, (*draw, r, s)."""
        loadings = self.factors / self.scale.unsqueeze(-1)
        root = torch.linalg.cholesky(_information(loadings))
        gap = ((value - self.loc.unsqueeze(-2)) / self.scale.unsqueeze(-2)).to(self.dtype)
        hidden = torch.cholesky_solve((gap @ loadings).mT, root).mT
        rest = gap - hidden @ loadings.mT
        size = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + (self.scale.log() + _HALF_LOG_2PI).sum(-1)
        return (-0.5 * ((rest**2).sum(-1) + (hidden**2).sum(-1)) - size.unsqueeze(-1)).mT

    def given(self, value: Tensor, seen: Tensor) -> FactorNormal:
        """p(x_unseen | x_seen), for ``value`` and ``seen`` (*B, k); what it says of seen coordinates has no meaning."""
        gap = torch.where(seen, (value - self.loc) / self.scale, torch.zeros_like(self.loc))
        loadings = self.factors * (seen.to(self.dtype) / self.scale).unsqueeze(-1)
        root = torch.linalg.cholesky(_information(loadings))
        hidden = torch.cholesky_solve(loadings.mT @ gap.unsqueeze(-1).to(self.dtype), root)
        # The factors given what was seen are N(w, M^{-1}), and M^{-1} = L^{-T} L^{-1}.
        factors = torch.linalg.solve_triangular(root, self.factors.mT, upper=False).mT
        return FactorNormal(loc=self.loc + (self.factors @ hidden).squeeze(-1), scale=self.scale, factors=factors)

    def marginal(self, index: list[int]) -> Distribution:
        if len(index) == 1:
            return DiagonalNormal(loc=self.loc[..., index], scale=self.stddev[..., index])
        return FactorNormal(loc=self.loc[..., index], scale=self.scale[..., index], factors=self.factors[..., index, :])

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr((value - self.loc) / self.stddev)

    def icdf(self, q: Tensor) -> Tensor:
        return self.loc + self.stddev * torch.special.ndtri(q)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        root = torch.linalg.cholesky(_information(self.factors / self.scale.unsqueeze(-1)))
        within = (self.scale.log() + _HALF_LOG_2PI + 0.5).sum(-1)
        return within + root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape)
        options = {"generator": generator, "dtype": self.dtype, "device": self.loc.device}
        own = torch.randn((*shape, self.n_variables), **options)
        common = torch.randn((*shape, self.factors.shape[-1]), **options)
        return (self.loc + self.scale * own + (self.factors @ common.unsqueeze(-1)).squeeze(-1)).detach()


def _information(loadings: Tensor) -> Tensor:
    """I + G'G of G (*B, k, r)."""
    return loadings.mT @ loadings + torch.eye(loadings.shape[-1], dtype=loadings.dtype, device=loadings.device)


def _explained(gap: Tensor, loadings: Tensor) -> Tensor:
    """-(|v - G w|^2 + |w|^2 + log |M|) / 2 of v (*B, k) and G (*B, k, r)."""
    loadings = loadings.to(gap.dtype)
    root = torch.linalg.cholesky(_information(loadings))
    hidden = torch.cholesky_solve(loadings.mT @ gap.unsqueeze(-1), root)
    rest = gap - (loadings @ hidden).squeeze(-1)
    square = (rest**2).sum(-1) + (hidden**2).sum((-2, -1))
    return -0.5 * square - root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
