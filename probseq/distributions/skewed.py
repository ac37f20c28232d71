"""Skewed Student t distributions of one event."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from probseq.distributions.base import ProductDistribution

__all__ = ["DiagonalSkewedStudentT", "skewed_moments"]


def skewed_moments(df: Tensor, skewness: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of x with density 2 / (xi + 1 / xi) t(x xi^(-sign x); df), unit scale.

    M (xi - 1 / xi) and df / (df - 2) (xi^2 + xi^-2 - 1) - mean^2, M = E\|t\|; NaN mean where ``df <= 1``, infinite
    variance where ``df <= 2``. Fernandez and Steel (1998), equation 5.
    """
    logs = torch.lgamma(0.5 * (df + 1.0)) - torch.lgamma(0.5 * df)
    heavy, endless = df <= 1.0, df <= 2.0
    absolute = 2.0 * torch.sqrt(df / math.pi) / torch.where(heavy, torch.ones_like(df), df - 1.0) * torch.exp(logs)
    mean = torch.where(heavy, torch.full_like(df, math.nan), absolute * (skewness - 1.0 / skewness))
    second = df / torch.where(endless, torch.ones_like(df), df - 2.0)
    second = second * (skewness**2 + skewness**-2 - 1.0)
    variance = torch.where(endless, torch.full_like(df, math.inf), second - mean**2)
    return mean, torch.where(heavy, torch.full_like(df, math.nan), variance)


class DiagonalSkewedStudentT(ProductDistribution):
    r"""p(x) = prod_i 2 / (xi_i + 1 / xi_i) t(z_i xi_i^(-sign z_i); df_i) / scale_i, z_i = (x_i - loc_i) / scale_i.

    A Student t whose upper half is stretched by xi and whose lower half is shrunk by it.

    Parameters
    ----------
    df : (*B, k), positive degrees of freedom
    skewness : (*B, k), xi > 0; 1 is the Student t, above 1 the upper tail is the longer one, and
        P(x > loc) / P(x < loc) = xi^2
    loc : (*B, k), the mode
    scale : (*B, k), positive

    References
    ----------
    Fernandez and Steel (1998), On Bayesian modeling of fat tails and skewness, Journal of the American Statistical
    Association 93, equation 1.
    """

    _event_dims: ClassVar[dict[str, int]] = {"df": 1, "skewness": 1, "loc": 1, "scale": 1}
    df: Tensor
    skewness: Tensor
    loc: Tensor
    scale: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        y = torch.where(z >= 0, z / self.skewness, z * self.skewness)
        half = 0.5 * (self.df + 1)
        constant = torch.lgamma(half) - torch.lgamma(0.5 * self.df) - 0.5 * torch.log(self.df * math.pi)
        constant = constant - self.scale.log() + math.log(2.0) - torch.log(self.skewness + 1.0 / self.skewness)
        return constant - half * torch.log1p(y * y / self.df)

    def has_moment(self, order: float) -> Tensor:
        return (self.df > order) | torch.full_like(self.df, order == 0, dtype=torch.bool)

    @property
    def mean(self) -> Tensor:
        """NaN where ``df <= 1`` (the mean does not exist)."""
        return self.loc + self.scale * skewed_moments(self.df, self.skewness)[0]

    @property
    def variance(self) -> Tensor:
        """inf where ``df <= 2``, NaN where ``df <= 1``."""
        return self.scale**2 * skewed_moments(self.df, self.skewness)[1]

    def cdf(self, value: Tensor) -> Tensor:
        z = ((value - self.loc) / self.scale).detach().cpu().double().numpy()
        df, xi = (part.detach().cpu().double().numpy() for part in (self.df, self.skewness))
        below = 2.0 / (1.0 + xi**2) * special.stdtr(df, np.minimum(z, 0.0) * xi)
        above = 1.0 - 2.0 * xi**2 / (1.0 + xi**2) * special.stdtr(df, -np.maximum(z, 0.0) / xi)
        return torch.as_tensor(np.where(z < 0, below, above), dtype=self.loc.dtype, device=self.loc.device)

    def icdf(self, q: Tensor) -> Tensor:
        p = q.detach().cpu().double().numpy()
        df, xi = (part.detach().cpu().double().numpy() for part in (self.df, self.skewness))
        lower = p < 1.0 / (1.0 + xi**2)
        level = np.where(lower, 0.5 * (1.0 + xi**2) * p, 0.5 * (1.0 + xi**-2) * (1.0 - p))
        z = stats.t.ppf(np.minimum(level, 0.5), df) * np.where(lower, 1.0 / xi, -xi)
        return self.loc + self.scale * torch.as_tensor(z, dtype=self.loc.dtype, device=self.loc.device)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device).abs()
        side = torch.rand(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        chi2 = 2 * torch._standard_gamma((0.5 * self.df).detach().expand(shape).contiguous(), generator=generator)
        size = noise * (self.df / chi2).sqrt()
        xi = self.skewness
        z = torch.where(side * (1.0 + xi**2) < 1.0, -size / xi, size * xi)
        return (self.loc + self.scale * z).detach()
