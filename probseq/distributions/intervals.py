"""Log probabilities of intervals, exact in both tails and however narrow the interval is."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.pushforward import Pushforward
from probseq.errors import IncompatibleError

__all__ = ["log_interval"]

_FINE, _COARSE = 24, 16
# Where two quadratures agree to this the integrand is smooth over the interval.
_AGREE = 1e-11
# Differences of probabilities next to one keep few digits below it.
_SMALL = 1e-9
# Widths of a normal interval, times its distance from the mean, over which the quadrature is exact to rounding.
_NARROW = 4.0


def log_interval(law: Distribution, low: Tensor, high: Tensor) -> Tensor:
    r"""log P(low_i < X_i <= high_i) for each variable by itself, (*B, k).

    Normal and Laplace laws in closed form by the tail that is smaller; a smooth density over a narrow interval by
    Gauss-Legendre quadrature of the density, which keeps its digits in either tail; others by differences of the cdf.
    Gradients are exact where these are in closed form or by quadrature, and for location and scale elsewhere; what is
    left is the gradient of the quadrature.

    Parameters
    ----------
    law : of independent variables or one variable, double precision
    low, high : broadcast against (*B, k), low < high; -inf and inf are open ends

    Raises
    ------
    IncompatibleError
        For a law that is no product of laws of single variables.
    """
    low, high = torch.broadcast_tensors(low, high)
    if isinstance(law, Pushforward):
        return _through(law, low, high)
    below, above = torch.isinf(low), torch.isinf(high)
    # Any finite ends stand where an end is open, so that no gradient meets infinity.
    a = torch.where(below, torch.where(above, 0.0, high) - 1.0, low)
    b = torch.where(above, a + 1.0, high)
    if isinstance(law, DiagonalNormal | FullNormal | FactorNormal):
        closed = _normal((a - law.mean) / law.stddev, (b - law.mean) / law.stddev)
        tails = [torch.special.log_ndtr(sign * (x - law.mean) / law.stddev) for x, sign in ((b, 1.0), (a, -1.0))]
    elif isinstance(law, DiagonalLaplace):
        closed = _laplace((a - law.loc) / law.scale, (b - law.loc) / law.scale)
        tails = [_laplace_tail(sign * (x - law.loc) / law.scale) for x, sign in ((b, 1.0), (a, -1.0))]
    elif isinstance(law, ProductDistribution):
        closed = _general(law, a, b)
        p = law.cdf(b), law.cdf(2.0 * law.loc - a) if isinstance(law, DiagonalStudentT) else 1.0 - law.cdf(a)
        tails = [each.log() for each in p]
    else:
        raise IncompatibleError(
            got=f"probabilities of intervals of a {type(law).__name__} of {law.n_variables} variables",
            expected="independent variables, or one",
            remedy='Use covariance="diag", or model one variable.',
        )
    found = torch.where(below, tails[0], torch.where(above, tails[1], closed))
    return torch.where(below & above, torch.zeros_like(found), found)


def _through(law: Pushforward, low: Tensor, high: Tensor) -> Tensor:
    """Intervals of x = g(z) as those of z, given that z is in the range of the inverse."""
    g = law.bijection
    harmless = g.forward(torch.zeros_like(low))

    def back(x: Tensor) -> Tensor:
        inside = (x > g.x_low) & (x < g.x_high)
        z = g.inverse(torch.where(inside, x, harmless))
        z = torch.where(x <= g.x_low, torch.full_like(z, g.z_low), z)
        return torch.where(x >= g.x_high, torch.full_like(z, g.z_high), z)

    start, end = back(low), back(high)
    outside = ~(start < end)
    # An interval outside the support stands in as the whole line and is struck out afterwards.
    start, end = (
        torch.where(outside, torch.full_like(z, side), z) for z, side in ((start, -math.inf), (end, math.inf))
    )
    found = log_interval(law.base, start, end)
    if not g.onto_reals:
        found = found - torch.log(law.range_probability()[1])
    return torch.where(outside, torch.full_like(found, -torch.inf), found)


def _log_share(gap: Tensor) -> Tensor:
    """log(1 - exp(-gap)) for gap > 0."""
    return torch.log(-torch.expm1(-gap))


def _normal(a: Tensor, b: Tensor) -> Tensor:
    """log(Phi(b) - Phi(a)), finite ends."""
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    narrow = (b - a) * torch.maximum(a.abs(), b.abs()).clamp_min(1.0) < _NARROW
    wide_a, wide_b = torch.where(narrow, -5.0, a), torch.where(narrow, 0.0, b)
    top = torch.special.log_ndtr(wide_b)
    wide = top + _log_share(top - torch.special.log_ndtr(wide_a))
    near_a, near_b = torch.where(narrow, a, -0.5), torch.where(narrow, b, 0.5)
    return torch.where(narrow, _quadrature(_log_normal, near_a, near_b, _COARSE), wide)


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)


def _laplace(a: Tensor, b: Tensor) -> Tensor:
    """log(F(b) - F(a)) of the standard Laplace law, finite ends."""
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    across = b > 0
    one_side = b.clamp_max(0.0) - math.log(2.0) + _log_share(torch.where(across, 1.0, b - a))
    both = torch.log(-0.5 * (torch.expm1(torch.where(across, a, -1.0)) + torch.expm1(torch.where(across, -b, -1.0))))
    return torch.where(across, both, one_side)


def _laplace_tail(z: Tensor) -> Tensor:
    """log F(z) of the standard Laplace law."""
    return torch.where(z < 0, z - math.log(2.0), torch.log1p(-0.5 * torch.exp(-z.abs())))


def _general(law: ProductDistribution, a: Tensor, b: Tensor) -> Tensor:
    if isinstance(law, DiagonalStudentT):
        # Its cdf has all digits in the lower tail.
        flip = a + b > 2.0 * law.loc
        a, b = torch.where(flip, 2.0 * law.loc - b, a), torch.where(flip, 2.0 * law.loc - a, b)
    fine, coarse = (_quadrature(law.coordinate_log_prob, a, b, n) for n in (_FINE, _COARSE))
    start = law.cdf(a)
    difference = (law.cdf(b) - start).clamp_min(0.0)
    lost = (start > 0.5) & (difference <= _SMALL) & torch.isfinite(fine)
    smooth = ((fine - coarse).abs() <= _AGREE) | lost
    direct = difference.clamp_min(torch.finfo(difference.dtype).tiny).log()
    if not direct.requires_grad and fine.requires_grad:
        direct = direct + _slope(law, a, b, difference, fine)
    direct = torch.where(difference > 0, direct, torch.full_like(direct, -torch.inf))
    return torch.where(smooth, fine, direct)


def _slope(law: ProductDistribution, a: Tensor, b: Tensor, probability: Tensor, quadrature: Tensor) -> Tensor:
    """Zero, with the gradient of log(F(b) - F(a))."""
    loc, scale = getattr(law, "loc", None), getattr(law, "scale", None)
    if loc is None or scale is None:
        return torch.nan_to_num(quadrature - quadrature.detach(), 0.0, 0.0, 0.0)
    # P depends on both by the standardised ends alone: dP = f(b) scale dz_b - f(a) scale dz_a.
    total = torch.zeros_like(probability)
    for x, sign in ((b, 1.0), (a, -1.0)):
        z = (x - loc) / scale
        weight = (law.coordinate_log_prob(x).exp() * scale / probability.clamp_min(torch.finfo(z.dtype).tiny)).detach()
        total = total + sign * weight * (z - z.detach())
    return total


@cache
def _rule(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(n)


def _quadrature(log_density, a: Tensor, b: Tensor, n_nodes: int) -> Tensor:  # type: ignore[no-untyped-def]
    """log of the integral of a density from a to b."""
    nodes, weights = (torch.as_tensor(each, dtype=a.dtype).reshape(-1, *(1,) * a.ndim) for each in _rule(n_nodes))
    half = 0.5 * (b - a)
    each = log_density(0.5 * (a + b) + half * nodes) + weights.log()
    top = each.detach().amax(0)
    top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    total = (each - top).exp().sum(0)
    possible = total > 0
    found = torch.where(possible, total, torch.ones_like(total)).log() + top + half.log()
    return torch.where(possible, found, torch.full_like(found, -torch.inf))
