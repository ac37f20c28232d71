"""The continuous ranked probability score and its form for vectors, exact where a closed form exists.

CRPS(F, y) = int (F(x) - 1{y <= x})^2 dx = E|X - y| - E|X - X'| / 2, in the unit of y; smaller is better. Every function
takes arrays that broadcast against each other and returns one score a value; NaN in, NaN out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probseq.errors import ParameterError, ShapeError

__all__ = [
    "crps_discrete",
    "crps_normal",
    "crps_normal_mixture",
    "crps_poisson",
    "crps_quantile",
    "crps_samples",
    "crps_student_t",
    "crps_weighted",
    "energy_score",
]

_BLOCK = 1 << 20
"""Numbers held at once by the scores that look at pairs."""


def _absolute_moment(mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """E|X| of X ~ N(mean, std^2); |mean| where std is zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = mean / std
        moment = std * (math.sqrt(2 / math.pi) * np.exp(-0.5 * z * z)) + mean * special.erf(z / math.sqrt(2))
    return np.where(std == 0, np.abs(mean), moment)


def crps_normal(y: ArrayLike, mean: ArrayLike, std: ArrayLike) -> NDArray[np.float64]:
    """std (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) with z = (y - mean) / std. Exact.

    Source: Gneiting and Raftery (2007), JASA 102, equation 21 (with the opposite sign).
    """
    error = np.asarray(y, float) - np.asarray(mean, float)
    scale = np.asarray(std, float)
    return _absolute_moment(error, scale) - scale / math.sqrt(math.pi)


def crps_student_t(y: ArrayLike, df: ArrayLike, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> NDArray[np.float64]:
    """CRPS of loc + scale T with T Student t of ``df`` degrees of freedom. Exact; inf where df <= 1.

    scale (z (2 F(z) - 1) + 2 f(z) (df + z^2) / (df - 1) - 2 sqrt(df) / (df - 1) B(1/2, df - 1/2) / B(1/2, df/2)^2)
    with z = (y - loc) / scale and F, f of T. At df <= 1 the mean does not exist and neither does the score.

    Source: Jordan, Krueger and Lerch (2019), Journal of Statistical Software 90(12), appendix A.
    """
    y, nu, loc, scale = np.broadcast_arrays(*(np.asarray(a, float) for a in (y, df, loc, scale)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = (y - loc) / scale
        log_beta = special.betaln(0.5, nu / 2)
        spread = np.exp(special.betaln(0.5, nu - 0.5) - 2 * log_beta)
        centred = z * (2 * special.stdtr(nu, z) - 1)
        z = np.clip(z, -1e150, 1e150)  # its square is finite
        density = np.exp(-(nu + 1) / 2 * np.log1p(z * z / nu) - log_beta) / np.sqrt(nu)
        score = centred + 2 * (density * (nu + z * z) - np.sqrt(nu) * spread) / (nu - 1)
    missing = np.isnan(y) | np.isnan(nu) | np.isnan(loc) | np.isnan(scale)
    score = np.where(nu > 1, scale * score, np.where(missing, np.nan, np.inf))
    # Beyond this many degrees of freedom the t is a normal to rounding, and df / (df - 1) cancels.
    return np.where(nu > 1e14, crps_normal(y, loc, scale), score)


def crps_poisson(y: ArrayLike, rate: ArrayLike) -> NDArray[np.float64]:
    """(y - r) (2 F(y) - 1) + 2 r f(floor y) - r exp(-2 r) (I0(2 r) + I1(2 r)), r the rate. Exact.

    Source: Wei and Held (2014), Test 23, equation 11.
    """
    y, rate = np.broadcast_arrays(np.asarray(y, float), np.asarray(rate, float))
    count = np.floor(y)
    cdf = np.where(count < 0, 0.0, special.pdtr(np.maximum(count, 0), rate))
    log_mass = special.xlogy(count, rate) - rate - special.gammaln(np.maximum(count, 0) + 1)
    mass = np.where(count < 0, 0.0, np.exp(np.where(count < 0, 0.0, log_mass)))
    # Of large rates scipy's Bessel functions are NaN; the first terms of their series are exact there.
    bessel = special.ive(0, np.minimum(2 * rate, 1e8)) + special.ive(1, np.minimum(2 * rate, 1e8))
    spread = rate * np.where(2 * rate > 1e8, (2 - 1 / (8 * rate)) / np.sqrt(4 * np.pi * np.maximum(rate, 1)), bessel)
    score = (y - rate) * (2 * cdf - 1) + 2 * rate * mass - spread
    return np.where(np.isnan(y), np.nan, score)


def crps_normal_mixture(y: ArrayLike, weights: ArrayLike, means: ArrayLike, stds: ArrayLike) -> NDArray[np.float64]:
    """CRPS of a mixture of normals. Exact, over all pairs of components.

    sum_i w_i A(y - mu_i, s_i) - 1/2 sum_ij w_i w_j A(mu_i - mu_j, sqrt(s_i^2 + s_j^2)), A(m, s) = E|N(m, s^2)|.

    Source: Grimit, Gneiting, Berrocal and Johnson (2006), QJRMS 132, equation 5.

    Parameters
    ----------
    y
        shape (*value).
    weights, means, stds
        shape (*value, component), or what broadcasts to it. Weights of a value sum to one; a component of weight zero
        may hold anything.
    """
    y = np.asarray(y, float)
    parts = np.broadcast_arrays(
        np.asarray(weights, float), np.asarray(means, float), np.asarray(stds, float), y[..., None]
    )
    shape, m = parts[0].shape[:-1], parts[0].shape[-1]
    w, mu, s, target = (np.reshape(p, (-1, m)) for p in parts)
    mu, s = np.where(w == 0, 0.0, mu), np.where(w == 0, 0.0, s)
    score = (w * _absolute_moment(target - mu, s)).sum(-1)
    rows = max(1, _BLOCK // (m * m)) if m else 1
    for start in range(0, len(score), rows):
        part = slice(start, start + rows)
        score[part] -= _pair_spread(w[part], mu[part], s[part])
    return score.reshape(shape)


def _pair_spread(w: NDArray[np.float64], mu: NDArray[np.float64], s: NDArray[np.float64]) -> NDArray[np.float64]:
    """E|X - X'| / 2 of each row, the pairs taken once and in blocks."""
    rows, m = w.shape
    total = (w * w * s).sum(-1) / math.sqrt(math.pi)
    step = max(1, _BLOCK // max(1, rows * m))
    for start in range(0, m, step):
        i, later = np.arange(start, min(start + step, m)), slice(start, None)
        width = np.hypot(s[:, i, None], s[:, None, later])
        pair = w[:, i, None] * w[:, None, later] * _absolute_moment(mu[:, i, None] - mu[:, None, later], width)
        ahead = np.arange(start, m)[None, :] > i[:, None]
        total += np.where(ahead, pair, 0.0).sum((-2, -1))
    return total


def crps_discrete(
    y: ArrayLike,
    cdf: Callable[[NDArray[np.float64]], ArrayLike],
    *,
    lower: ArrayLike = 0,
    tolerance: float = 1e-13,
    max_terms: int = 10_000_000,
) -> NDArray[np.float64]:
    """sum_k (F(k) - 1{y <= k})^2 over the integers k, exact up to ``tolerance`` for any law on the integers.

    Between integers y adds (y - floor y) (2 F(y) - 1), as the integral over the numbers does.

    Parameters
    ----------
    y
        shape (*value).
    cdf
        F(k) for an array k of shape (term, *value), or what broadcasts to it.
    lower
        smallest k of positive probability, or one below which the probability is negligible; a scalar or (*value).
    tolerance
        the sum ends where 1 - F(k) < tolerance.
    max_terms
        most terms a value; a heavier tail raises.

    Raises
    ------
    ParameterError
        The tail does not fall below the tolerance within ``max_terms`` terms.
    """
    y = np.asarray(y, float)
    base = np.broadcast_to(np.asarray(lower, float), y.shape)
    missing = np.isnan(y) | np.isnan(base)
    base = np.where(missing, 0.0, base)
    target = np.where(missing, 0.0, np.floor(y))
    at = np.broadcast_to(np.asarray(cdf(target[None]), float), (1, *y.shape))[0]
    score = np.maximum(base - target, 0.0) + (y - target) * (2.0 * np.where(target < base, 0.0, at) - 1.0)
    done, term, block = 0, base, 64
    while True:
        k = term + np.arange(block, dtype=float).reshape(-1, *([1] * y.ndim))
        f = np.broadcast_to(np.asarray(cdf(k), float), k.shape)
        score = score + ((f - (target <= k)) ** 2).sum(0)
        term, done = term + block, done + block
        ended = missing | (1 - f[-1] < tolerance) | np.isnan(f[-1])
        if np.all(ended):
            # Beyond the tail every integer below y adds one.
            return np.where(missing, np.nan, score + np.maximum(target - term, 0.0))
        if done >= max_terms:
            raise ParameterError(
                got=f"a law with more than {tolerance:g} probability beyond {max_terms} integers",
                expected="a tail that falls faster",
                remedy="Score samples with crps_samples, or pass a larger tolerance.",
            )
        block = min(2 * block, max(64, _BLOCK // max(1, y.size)))


def crps_samples(y: ArrayLike, samples: ArrayLike, *, fair: bool = True) -> NDArray[np.float64]:
    """mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1)), sorted: O(m log m). Unbiased for the CRPS of the law.

    ``fair=False`` divides by 2 m^2 instead: the CRPS of the empirical law itself, which favours narrow samples.

    Source: Ferro (2014), QJRMS 140, equation 4.

    Parameters
    ----------
    y
        shape (*value).
    samples
        shape (path, *value).

    Raises
    ------
    ShapeError
        The samples are of another shape, or fewer than two.
    """
    y, samples = cloud_around(y, samples)
    m = len(samples)
    _need_two(m, fair)
    x = np.sort(samples - y, axis=0)
    rank = (2 * np.arange(1, m + 1) - m - 1).reshape(-1, *([1] * y.ndim))
    return np.asarray(np.abs(x).mean(0) - (rank * x).sum(0) / (m * (m - 1) if fair else m * m))


def crps_weighted(y: ArrayLike, samples: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """sum_i w_i |x_i - y| - sum_ij w_i w_j |x_i - x_j| / (2 (1 - sum_i w_i^2)): `crps_samples` of weighted samples.

    With equal weights the fair score, and nearly so where the weights vary little between neighbours.

    Parameters
    ----------
    y
        shape (*value).
    samples
        shape (path, *value), increasing along the first axis; at least two.
    weights
        what broadcasts to it; they add up to one.
    """
    y, x = cloud_around(y, samples)
    _need_two(len(x), True)
    w = np.asarray(weights, float)
    below = np.cumsum(w, 0) - 0.5 * w
    spread = (w * (2.0 * below - 1.0) * (x - y)).sum(0)
    return np.asarray((w * np.abs(x - y)).sum(0) - spread / (1.0 - (w * w).sum(0)))


def energy_score(y: ArrayLike, samples: ArrayLike, *, fair: bool = True) -> NDArray[np.float64]:
    """mean_i ||x_i - y|| - sum_ij ||x_i - x_j|| / (2 m (m - 1)): the CRPS of a vector. Unbiased for the law sampled.

    ``fair=False`` divides by 2 m^2. Costs O(m^2) a value, in blocks. With one variable it equals ``crps_samples``.
    To score a whole trajectory as one vector, put its steps on the last axis.

    Source: Gneiting and Raftery (2007), JASA 102, equation 22.

    Parameters
    ----------
    y
        shape (*value, variable).
    samples
        shape (path, *value, variable).

    Raises
    ------
    ShapeError
        The samples are of another shape, or fewer than two.
    """
    from scipy.spatial import distance

    y, samples = cloud_around(y, samples)
    m = len(samples)
    _need_two(m, fair)
    # The distance does not see a shift, and around y the numbers are small.
    x = np.moveaxis(samples - y, 0, -2)
    flat = x.reshape(int(np.prod(y.shape[:-1])), m, x.shape[-1])
    spread = np.zeros(len(flat))
    step = max(2, _BLOCK // max(1, m))
    for row, cloud in enumerate(flat):
        for start in range(0, m, step):
            block, rest = cloud[start : start + step], cloud[start + step :]
            within = distance.pdist(block).sum() if len(block) > 1 else 0.0
            spread[row] += within + (distance.cdist(block, rest).sum() if len(rest) else 0.0)
    pairs = spread.reshape(y.shape[:-1])
    return np.asarray(np.sqrt((x * x).sum(-1)).mean(-1) - pairs / (m * (m - 1) if fair else m * m))


def cloud_around(y: ArrayLike, samples: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and samples of them as arrays.

    Raises
    ------
    ShapeError
        The samples do not have the shape of ``y`` behind their first axis.
    """
    y, x = np.asarray(y, float), np.asarray(samples, float)
    if x.shape[1:] != y.shape or not x.ndim:
        raise ShapeError(
            got=f"samples of shape {x.shape} of values of shape {y.shape}",
            expected=f"shape (path, {', '.join(map(str, y.shape))})",
            remedy="Put the samples on the first axis.",
        )
    return y, x


def _need_two(m: int, fair: bool) -> None:
    if m < (2 if fair else 1):
        raise ShapeError(
            got=f"{m} samples", expected="at least 2 samples along the first axis", remedy="Draw more paths."
        )


def crps_quantile(
    y: ArrayLike,
    quantile: Callable[[NDArray[np.float64]], ArrayLike],
    *,
    level: ArrayLike | None = None,
    kinks: ArrayLike | None = None,
    n_nodes: int = 65,
) -> NDArray[np.float64]:
    """2 int_0^1 pinball_p(y, Q(p)) dp by quadrature, for any continuous law with a quantile function.

    The integral is split at p = F(y), where the integrand has its kink, and at those of Q; each part is taken by the
    double exponential rule, whose nodes crowd towards both ends, where Q may grow without bound. For smooth quantile
    functions the error is about 1e-11 of the scale. A law on the integers has steps in Q: use ``crps_discrete``.

    Source: Gneiting and Ranjan (2011), JBES 29, equation 9; Takahasi and Mori (1974), Publ. RIMS 9.

    Parameters
    ----------
    y
        shape (*value).
    quantile
        Q(p) for levels of shape (node, *value); returns the same shape.
    level
        F(y), shape (*value). Found by bisection of Q when it is not given (60 further calls with one level a value).
    kinks
        levels at which Q has no derivative, shape (kink, *value) or what broadcasts to it.
    n_nodes
        nodes of each part.
    """
    y = np.asarray(y, float)
    split = _find_level(y, quantile) if level is None else np.broadcast_to(np.asarray(level, float), y.shape)
    split = np.clip(split, 0.0, 1.0)
    t = np.linspace(-3.6, 3.6, n_nodes)
    arc = math.pi / 2 * np.sinh(t)
    near, far = special.expit(2 * arc), special.expit(-2 * arc)
    # Weights of the rule on (0, 1): (d near / dt) dt. `near` runs from 0 to 1 and far = 1 - near without cancellation.
    weight = math.pi * np.cosh(t) * near * far * (t[1] - t[0])
    near, far, weight = (a.reshape(-1, *([1] * y.ndim)) for a in (near, far, weight))
    inner = np.empty((0, *y.shape)) if kinks is None else np.asarray(kinks, float)
    inner = np.broadcast_to(inner, (len(inner), *y.shape))
    ends = np.sort(np.concatenate([np.zeros((1, *y.shape)), inner, split[None], np.ones((1, *y.shape))]), 0)
    total = np.zeros(y.shape)
    for low, high in zip(ends[:-1], ends[1:], strict=True):
        length = high - low
        if not np.any(length > 0):
            continue
        # Below F(y) the mass is p, counted from 0, above it 1 - p, counted from 1: both without cancellation.
        from_zero, to_one = low + length * near, (1 - high) + length * far
        below = high <= split
        p, mass = np.where(below, from_zero, 1 - to_one), np.where(below, from_zero, to_one)
        total += _part(y, quantile, p, mass, length * weight)
    return 2 * total


def _part(
    y: NDArray[np.float64],
    quantile: Callable[[NDArray[np.float64]], ArrayLike],
    p: NDArray[np.float64],
    mass: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """int mass(p) |Q(p) - y| dp; levels that round to 0 or 1 carry no weight."""
    inside = (p > 0) & (p < 1)
    q = np.asarray(quantile(np.where(inside, p, 0.5)), float)
    return np.where(inside & (weight > 0), weight * mass * np.abs(q - y), 0.0).sum(0) + np.where(
        np.isnan(y), np.nan, 0.0
    )


def _find_level(y: NDArray[np.float64], quantile: Callable[[NDArray[np.float64]], ArrayLike]) -> NDArray[np.float64]:
    low, high = np.zeros_like(y), np.ones_like(y)
    for _ in range(60):
        middle = (low + high) / 2
        inside = (middle > 0) & (middle < 1)
        below = np.asarray(quantile(np.where(inside, middle, 0.5)[None]), float)[0] <= y
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
