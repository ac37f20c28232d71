"""Normal and Student t distributions of one event."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from scipy import special, stats
from torch import Tensor

from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.exponential import linear_table
from probseq.distributions.special import log_half_step
from probseq.kernels.normals import fill_normals

__all__ = ["DiagonalNormal", "DiagonalStudentT", "FullNormal", "lower_factor", "standard_normals"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_MANY = 4096


def lower_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor (*B, k, k); a matrix that is singular up to rounding is moved inside by as little as it takes."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    for jitter in (1e-14, 1e-11, 1e-8, 1e-5):
        if not bool(info.any()):
            break
        extra = torch.where((info != 0).unsqueeze(-1), jitter * covariance.diagonal(dim1=-2, dim2=-1), 0.0)
        factor, info = torch.linalg.cholesky_ex(covariance + torch.diag_embed(extra))
    return factor if not bool(info.any()) else torch.linalg.cholesky(covariance)


def _normal_cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)


class DiagonalNormal(ProductDistribution):
    r"""p(x) = prod_i N(x_i; loc_i, scale_i^2).

    Parameters
    ----------
    loc : (*B, k)
    scale : (*B, k), positive standard deviations in the unit of the data
    """

    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "scale": 1}
    loc: Tensor
    scale: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - self.scale.log() - _HALF_LOG_2PI

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        mask = seen.to(value.dtype)
        middle = (mask * value).sum(0) / mask.sum(0).clamp_min(1.0)
        gap, loc, weight = value - middle, self.loc - middle, self.scale**-2
        constant = -0.5 * weight * loc * loc - self.scale.log() - _HALF_LOG_2PI
        found = linear_table([gap, gap * gap], [weight * loc, -0.5 * weight], constant, None, seen)
        return super().component_table(value, seen) if found is None else found

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    def cdf(self, value: Tensor) -> Tensor:
        return _normal_cdf((value - self.loc) / self.scale)

    def icdf(self, q: Tensor) -> Tensor:
        return self.loc + self.scale * torch.special.ndtri(q)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        return (self.scale.log() + _HALF_LOG_2PI + 0.5).sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc + self.scale * noise).detach()


class FullNormal(Distribution):
    r"""p(x) = N(x; loc, L L^T).

    Parameters
    ----------
    loc : (*B, k)
    scale_tril : (*B, k, k), lower Cholesky factor of the covariance
    """

    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "scale_tril": 2}
    loc: Tensor
    scale_tril: Tensor

    @property
    def covariance(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.scale_tril**2).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        residual = (value - self.loc).unsqueeze(-1)
        z = torch.linalg.solve_triangular(self.scale_tril, residual, upper=False).squeeze(-1)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (z * z).sum(-1) - log_det - self.n_variables * _HALF_LOG_2PI

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        if bool(seen.all()):
            return self.log_prob(value)
        # Unseen coordinates become independent standard normals observed at their mean: they add a constant only.
        m = seen.to(self.loc.dtype)
        cov = self.covariance * (m.unsqueeze(-1) * m.unsqueeze(-2)) + torch.diag_embed(1.0 - m)
        residual = torch.where(seen, value - self.loc, torch.zeros_like(self.loc))
        filled = FullNormal(loc=torch.zeros_like(residual), scale_tril=torch.linalg.cholesky(cov))
        return filled.log_prob(residual) + (1.0 - m).sum(-1) * _HALF_LOG_2PI

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """One matrix product for each pattern of seen coordinates."""
        if bool(seen.all()):
            return _correlated_table(self.loc, self.scale_tril, value)
        covariance = self.covariance
        patterns, which = torch.unique(seen, dim=0, return_inverse=True)
        parts, order = [], []
        for index, pattern in enumerate(patterns):
            rows = (which == index).nonzero().squeeze(-1)
            order.append(rows)
            o = pattern.nonzero().squeeze(-1)
            if len(o) == 0:
                parts.append(torch.zeros(*self.batch_shape[:-1], len(rows), self.batch_shape[-1], dtype=self.loc.dtype))
            elif len(o) == self.n_variables:
                parts.append(_correlated_table(self.loc, self.scale_tril, value[rows]))
            else:
                factor = torch.linalg.cholesky(covariance[..., o, :][..., o])
                parts.append(_correlated_table(self.loc[..., o], factor, value[rows][:, o]))
        return torch.cat(parts, -2)[..., torch.argsort(torch.cat(order)), :]

    def marginal(self, index: list[int]) -> Distribution:
        if len(index) == 1:
            i = index[0]
            return DiagonalNormal(loc=self.loc[..., i : i + 1], scale=self.variance[..., i : i + 1].sqrt())
        cov = self.covariance[..., index, :][..., :, index]
        return FullNormal(loc=self.loc[..., index], scale_tril=torch.linalg.cholesky(cov))

    def cdf(self, value: Tensor) -> Tensor:
        return _normal_cdf((value - self.loc) / self.stddev)

    def icdf(self, q: Tensor) -> Tensor:
        return self.loc + self.stddev * torch.special.ndtri(q)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det + self.n_variables * (_HALF_LOG_2PI + 0.5)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = standard_normals(shape, self.loc, generator)
        # All draws from one factor in one product: a product a draw would read the factor as often.
        rows = noise.reshape(-1, *self.batch_shape, self.n_variables).movedim(0, -2) @ self.scale_tril.mT
        return (self.loc + rows.movedim(-2, 0).reshape(shape)).detach()


def standard_normals(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Independent N(0, 1), of the type and on the device of ``like``."""
    if math.prod(shape) < _MANY or like.dtype != torch.float64 or like.device.type != "cpu":
        return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    # torch draws one double-precision normal in the time of ten of these; the generator determines the stream.
    noise = torch.empty(shape, dtype=torch.float64)
    fill_normals(noise.view(-1).numpy(), torch.randint(1, 2**62, (4,), generator=generator).numpy())
    return noise


def _correlated_table(loc: Tensor, factor: Tensor, x: Tensor) -> Tensor:
    """log N(x_r; loc_j, L_j L_j^T), (*draw, r, s), for rows (r, k) that are seen whole."""
    k = x.shape[-1]
    # Around the middle of the data, so that a large common mean costs no digits.
    centre = x.mean(0) if len(x) else torch.zeros(k, dtype=x.dtype)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(k, dtype=factor.dtype).expand_as(factor), upper=False)
    shift = (inverse @ (loc - centre).unsqueeze(-1)).squeeze(-1)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    # The rows run along the last axis: long products, and sums over the few coordinates in between.
    z = (inverse.flatten(-3, -2) @ (x - centre).mT).unflatten(-2, shift.shape[-2:]) - shift.unsqueeze(-1)
    constant = log_det + k * _HALF_LOG_2PI
    return (-0.5 * (z * z).sum(-2) - constant.unsqueeze(-1)).mT


class DiagonalStudentT(ProductDistribution):
    r"""p(x) = prod_i t(x_i; df_i, loc_i, scale_i), the location-scale Student t.

    Parameters
    ----------
    df : (*B, k), positive degrees of freedom
    loc : (*B, k)
    scale : (*B, k), positive; the standard deviation is ``scale * sqrt(df / (df - 2))`` for ``df > 2``
    """

    _event_dims: ClassVar[dict[str, int]] = {"df": 1, "loc": 1, "scale": 1}
    df: Tensor
    loc: Tensor
    scale: Tensor

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        half = 0.5 * (self.df + 1)
        constant = log_half_step(0.5 * self.df) - _HALF_LOG_2PI
        return constant - self.scale.log() - half * torch.log1p(z * z / self.df)

    @property
    def mean(self) -> Tensor:
        """loc; NaN where ``df <= 1`` (the mean does not exist)."""
        return torch.where(self.df > 1, self.loc, torch.full_like(self.loc, math.nan))

    def has_moment(self, order: float) -> Tensor:
        return (self.df > order) | torch.full_like(self.df, order == 0, dtype=torch.bool)

    @property
    def variance(self) -> Tensor:
        """scale^2 df / (df - 2); inf where ``df <= 2``, NaN where ``df <= 1``."""
        finite = self.scale**2 * self.df / (self.df - 2).clamp_min(1e-300)
        heavy = torch.where(self.df > 1, torch.full_like(finite, math.inf), torch.full_like(finite, math.nan))
        return torch.where(self.df > 2, finite, heavy)

    def cdf(self, value: Tensor) -> Tensor:
        z = ((value - self.loc) / self.scale).detach().cpu().double().numpy()
        p = special.stdtr(self.df.detach().cpu().double().numpy(), z)
        return torch.as_tensor(p, dtype=self.loc.dtype, device=self.loc.device)

    def icdf(self, q: Tensor) -> Tensor:
        z = stats.t.ppf(q.detach().cpu().double().numpy(), self.df.detach().cpu().double().numpy())
        return self.loc + self.scale * torch.as_tensor(z, dtype=self.loc.dtype, device=self.loc.device)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        chi2 = 2 * torch._standard_gamma((0.5 * self.df).detach().expand(shape).contiguous(), generator=generator)
        return (self.loc + self.scale * noise * (self.df / chi2).sqrt()).detach()
