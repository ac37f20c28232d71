"""The von Mises distribution of angles."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor

from probseq.distributions.exponential import ExponentialFamily
from probseq.distributions.special import by_numpy

__all__ = ["DiagonalVonMises", "concentration_of", "wrap"]

_SHARP = 50.0
_TERMS = 10
_ROUNDS = 60
_NEWTON_STEPS = 12


def wrap(angle: Tensor) -> Tensor:
    """The same direction in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def concentration_of(length: Tensor) -> Tensor:
    """The c with I_1(c) / I_0(c) = length, the mean resultant length in [0, 1), by Newton's steps.

    Best and Fisher (1981), The bias of the maximum likelihood estimators of the von Mises-Fisher concentration
    parameters, for the start.
    """
    length = length.clamp(0.0, 1.0 - 1e-15)
    c = length * (2.0 - length**2) / (1.0 - length**2)
    for _ in range(_NEWTON_STEPS):
        c = c.clamp_min(1e-8)
        share = torch.special.i1e(c) / torch.special.i0e(c)
        step = (share - length) / (1.0 - share**2 - share / c).clamp_min(1e-300)
        c = torch.minimum(torch.maximum(c - step, c / 4), c * 4)
        if bool((step.abs() <= 1e-12 * c).all()):
            break
    return c.clamp_min(1e-8)


class DiagonalVonMises(ExponentialFamily):
    r"""p(x) = prod_i exp(c_i cos(x_i - loc_i)) / (2 pi I_0(c_i)) for angles in [-pi, pi], in radians.

    Angles are cut open at -pi: ``cdf`` starts there, and quantiles and intervals are those of the cut circle. The
    ``mean`` is the mean direction and the ``variance`` the circular variance 1 - \|E e^{ix}\|, from 0 to 1.

    Parameters
    ----------
    loc : (*B, k), any real number, taken modulo 2 pi
    concentration : (*B, k), not negative; 0 is the uniform law

    References
    ----------
    Mardia and Jupp (2000), Directional Statistics, section 3.5.4; Best and Fisher (1979) for the draws.
    """

    _event_dims: ClassVar[dict[str, int]] = {"loc": 1, "concentration": 1}
    circular: ClassVar[bool] = True
    loc: Tensor
    concentration: Tensor

    def natural(self) -> list[Tensor]:
        return [self.concentration * torch.cos(self.loc), self.concentration * torch.sin(self.loc)]

    def statistics(self, value: Tensor) -> list[Tensor]:
        return [torch.cos(value), torch.sin(value)]

    def log_normaliser(self) -> Tensor:
        return math.log(2 * math.pi) + torch.log(torch.special.i0e(self.concentration)) + self.concentration

    def log_base(self, value: Tensor) -> None:
        return None

    def inside(self, value: Tensor) -> Tensor:
        return (value >= -math.pi) & (value <= math.pi)

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = self.inside(value)
        safe = torch.where(possible, value, torch.zeros_like(value))
        # cos - 1 = -2 sin^2(half) keeps its digits where the concentration is large.
        bend = -2 * self.concentration * torch.sin(0.5 * (safe - self.loc)) ** 2
        log_prob = bend - math.log(2 * math.pi) - torch.log(torch.special.i0e(self.concentration))
        return torch.where(possible, log_prob, torch.full_like(log_prob, -torch.inf))

    @property
    def resultant(self) -> Tensor:
        """E[cos x] and E[sin x], (*B, k, 2)."""
        length = torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)
        return torch.stack([length * torch.cos(self.loc), length * torch.sin(self.loc)], -1)

    @property
    def mean(self) -> Tensor:
        """The mean direction, in [-pi, pi)."""
        return wrap(self.loc)

    @property
    def variance(self) -> Tensor:
        """The circular variance 1 - I_1(c) / I_0(c)."""
        return 1.0 - torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)

    def cdf(self, value: Tensor) -> Tensor:
        """P(-pi <= X_i <= value_i)."""
        return by_numpy(_cdf, self.loc, self.concentration, value)

    def icdf(self, q: Tensor) -> Tensor:
        return by_numpy(_icdf, self.loc, self.concentration, q)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, (*B,)."""
        length = torch.special.i1e(self.concentration) / torch.special.i0e(self.concentration)
        return (self.log_normaliser() - self.concentration * length).sum(-1)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        c = self.concentration.detach().double().expand(shape).clamp_min(1e-6)
        root = torch.sqrt(1 + 4 * c * c)
        # rho = (1 + root - sqrt(2 + 2 root)) / (2 c), without its cancellation for small c.
        rho = 2 * c / (1 + root + torch.sqrt(2 * (1 + root)))
        r = (1 + rho * rho) / (2 * rho)
        found = torch.zeros(shape, dtype=torch.float64, device=c.device)
        open_ = torch.ones(shape, dtype=torch.bool, device=c.device)
        while bool(open_.any()):
            u = torch.rand(3, *shape, generator=generator, dtype=torch.float64, device=c.device)
            z = torch.cos(math.pi * u[0])
            f = (1 + r * z) / (r + z)
            gap = c * (r - f)
            accepted = open_ & ((gap * (2 - gap) - u[1] > 0) | (torch.log(gap / u[1]) + 1 - gap >= 0))
            angle = torch.sign(u[2] - 0.5) * torch.acos(f.clamp(-1.0, 1.0))
            found = torch.where(accepted, angle, found)
            open_ = open_ & ~accepted
        return wrap(found + self.loc.detach().double()).to(self.loc.dtype)


def _cdf(loc: np.ndarray, concentration: np.ndarray, value: np.ndarray) -> np.ndarray:
    loc, concentration, value = np.broadcast_arrays(loc, concentration, value)
    inside = np.clip(value, -np.pi, np.pi)
    upper, lower = _turned(np.stack([inside - loc, -np.pi - loc]), np.stack([concentration] * 2))
    p = upper - lower
    return np.where(np.isnan(value), np.nan, np.clip(p, 0.0, 1.0))


def _turned(angle: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """P(-pi < X <= angle) of the law around 0, plus one for each turn of the angle."""
    turns = np.floor((angle + np.pi) / (2 * np.pi))
    rest = angle - 2 * np.pi * turns
    sharp = concentration >= _SHARP
    p = np.empty_like(rest)
    for some, function in ((sharp, _near_normal), (~sharp, _by_series)):
        if some.any():
            p[some] = function(rest[some], concentration[some])
    return turns + p


def _by_series(angle: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    r"""1/2 + x / 2 pi + (1 / pi) sum_j I_j / I_0 sin(j x) / j, ratios of Bessel functions by backward recursion.

    Hill (1977), Algorithm 518: incomplete Bessel function I_0: the von Mises distribution.
    """
    sine, cosine = np.sin(angle), np.cos(angle)
    n = 30 + int(0.5 * concentration.max())
    s, c = np.sin(n * angle), np.cos(n * angle)
    ratio, total = np.zeros_like(angle), np.zeros_like(angle)
    for j in range(n - 1, 0, -1):
        s, c = s * cosine - c * sine, c * cosine + s * sine
        ratio = concentration / (2 * j + concentration * ratio)
        total = ratio * (s / j + total)
    return 0.5 + angle / (2 * np.pi) + total / np.pi


def _near_normal(angle: np.ndarray, concentration: np.ndarray) -> np.ndarray:
    """v = 2 sqrt(c) sin(x / 2) has density e^{-v^2 / 2} / sqrt(1 - v^2 / 4c): a series of truncated normal moments."""
    v = 2 * np.sqrt(concentration) * np.sin(0.5 * angle)
    edge = 2 * np.sqrt(concentration)
    total, whole = np.zeros_like(v), np.zeros_like(v)
    moment, full, factor = special.ndtr(v) - special.ndtr(-edge), 1 - 2 * special.ndtr(-edge), np.ones_like(v)
    density, cut = np.exp(-0.5 * v * v) / np.sqrt(2 * np.pi), np.exp(-0.5 * edge**2) / np.sqrt(2 * np.pi)
    for j in range(_TERMS):
        total, whole = total + factor * moment, whole + factor * full
        power = 2 * j + 1
        moment = power * moment - (v**power * density + edge**power * cut)
        full = power * full - 2 * edge**power * cut
        factor = factor * (2 * j + 1) / (2 * j + 2) / (4 * concentration)
    return total / whole


def _icdf(loc: np.ndarray, concentration: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Newton steps kept inside a shrinking bracket."""
    loc, concentration, q = (np.array(a) for a in np.broadcast_arrays(loc, concentration, q))
    low, high = np.full(q.shape, -np.pi), np.full(q.shape, np.pi)
    x = 0.5 * (low + high)
    log_scale = np.log(2 * np.pi * special.i0e(concentration))
    for _ in range(_ROUNDS):
        gap = _cdf(loc, concentration, x) - q
        low, high = np.where(gap < 0, x, low), np.where(gap < 0, high, x)
        density = np.exp(-2 * concentration * np.sin(0.5 * (x - loc)) ** 2 - log_scale)
        step = x - gap / np.maximum(density, 1e-300)
        middle = 0.5 * (low + high)
        new = np.where((step > low) & (step < high), step, middle)
        if np.all((np.abs(new - x) <= 1e-14) | (np.abs(gap) <= 4e-16)):
            break
        x = new
    x = np.where(q <= 0, -np.pi, np.where(q >= 1, np.pi, x))
    return np.where((q >= 0) & (q <= 1), x, np.nan)
