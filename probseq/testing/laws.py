"""Checks of one-step distributions: density, cdf, quantiles, moments and samples are one law."""

from __future__ import annotations

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from probseq.distributions.base import Distribution

__all__ = ["check_distribution"]

_LEVELS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
_PANELS, _NODES = 60, 12
_CUTS = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
_ERRORS = 5.0
"""Standard errors that a simulated figure may be off."""


def check_distribution(law: Distribution, *, n_samples: int = 4000, seed: int = 0, rtol: float = 1e-6) -> None:
    """Assert that ``log_prob``, ``cdf``, ``icdf``, moments and ``sample`` of a distribution are one law.

    Parameters
    ----------
    law : Distribution with any batch shape
    n_samples : int
        Draws a batch element; simulated figures may be off by five standard errors.
    seed : int
    rtol : float
        Of what is integrated numerically.
    """
    _quantiles(law, rtol)
    _normalised(law, rtol)
    _marginals(law, max(rtol, 1e-9))
    x = law.sample((n_samples,), generator=torch.Generator().manual_seed(seed))
    again = law.sample((n_samples,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(x, again), "sample: the same generator gives other values"
    assert x.shape == (n_samples, *law.batch_shape, law.n_variables), f"sample: shape {tuple(x.shape)}"
    assert bool(torch.isfinite(law.log_prob(x)).all()), "log_prob: not finite at a sampled value"
    _sampled_margins(law, x)
    _sampled_jointly(law, x)
    _moments(law, x)


def _levels(law: Distribution, q: float) -> Tensor:
    return torch.full((*law.batch_shape, law.n_variables), q, dtype=torch.float64)


def _quantiles(law: Distribution, rtol: float) -> None:
    previous: Tensor | None = None
    for q in _LEVELS:
        level = _levels(law, q)
        x = law.icdf(level)
        p = law.cdf(x)
        counted = law.discrete_variables
        assert bool((p >= q - 1e-9)[..., counted].all()), f"icdf({q}): cdf there is below the level"
        assert bool((law.cdf_left(x) < q + 1e-9)[..., counted].all()), f"icdf({q}): a smaller value would do"
        inner = p.double()[..., ~counted]
        assert_allclose(inner, level[..., ~counted], atol=10 * rtol, err_msg=f"cdf(icdf({q})) is not {q}")
        assert previous is None or bool((x >= previous).all()), "icdf: not increasing"
        previous = x


def _normalised(law: Distribution, rtol: float) -> None:
    for i in range(law.n_variables):
        one = law.marginal([i])
        if one.discrete:
            _masses(one)
            continue
        # Panels between quantiles put the nodes where the mass is, however narrow a component or steep an end.
        levels = 1.0 / (1.0 + np.exp(np.linspace(1.0, -1.0, _PANELS + 1) * np.log(0.995 / 0.005)))
        ends = torch.stack([one.icdf(_levels(one, float(q))) for q in levels]).double()
        # Between two narrow components lies a panel whose mass is all near its ends.
        cuts = torch.as_tensor(_CUTS, dtype=torch.float64).view(-1, *(1,) * (ends.ndim - 1))
        inner = ends[:-1, None] + cuts * (ends[1:, None] - ends[:-1, None])
        ends = torch.cat([inner.flatten(0, 1), ends[-1:]])
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        total = torch.zeros((*one.batch_shape, 1), dtype=torch.float64)
        half = 0.5 * (ends[1:] - ends[:-1])
        for node, weight in zip(nodes, weights, strict=True):
            x = 0.5 * (ends[1:] + ends[:-1]) + node * half
            total = total + weight * (half * one.log_prob(x).double().exp().unsqueeze(-1)).sum(0)
        assert_allclose(total, 0.99, rtol=10 * rtol, err_msg=f"variable {i}: the density does not integrate to its cdf")


def _masses(one: Distribution) -> None:
    top = int(one.icdf(_levels(one, 0.999)).max())
    below = one.cdf_left(torch.zeros((*one.batch_shape, 1), dtype=torch.float64))
    for value in range(top + 1):
        x = torch.full((*one.batch_shape, 1), float(value), dtype=torch.float64)
        up_to = one.cdf(x)
        mass = one.log_prob(x).exp().unsqueeze(-1)
        assert_allclose(
            (up_to - below).double(), mass.double(), atol=1e-6, err_msg=f"P(X = {value}) is no step of the cdf"
        )
        below = up_to


def _marginals(law: Distribution, rtol: float) -> None:
    x = law.icdf(_levels(law, 0.37))
    none = law.log_prob_seen(x, torch.zeros_like(x, dtype=torch.bool))
    assert bool((none == 0).all()), "log_prob_seen: not exactly 0 where nothing is seen"
    whole = law.log_prob_seen(x, torch.ones_like(x, dtype=torch.bool))
    assert_allclose(whole, law.log_prob(x), rtol=rtol, atol=rtol, err_msg="log_prob_seen of all is not log_prob")
    for i in range(law.n_variables):
        seen = torch.zeros_like(x, dtype=torch.bool)
        seen[..., i] = True
        alone = law.marginal([i]).log_prob(x[..., i : i + 1])
        assert_allclose(
            law.log_prob_seen(x, seen), alone, rtol=rtol, atol=rtol, err_msg=f"marginal of variable {i} differs"
        )


def _sampled_margins(law: Distribution, x: Tensor) -> None:
    n = x.shape[0]
    for q in (0.1, 0.5, 0.9):
        point = law.icdf(_levels(law, q))
        p = law.cdf(point).double().clamp(0.0, 1.0)
        share = (x <= point).double().mean(0)
        error = (p * (1 - p) / n).sqrt() + 1.0 / n
        worst = ((share - p).abs() / error).max()
        assert float(worst) < _ERRORS, f"samples: frequencies below the {q} quantile off by {worst:.1f} errors"


def _sampled_jointly(law: Distribution, x: Tensor) -> None:
    """E[r(x) / p(x)] = 1 for a density r of bounded support; for discrete laws, frequencies of single events.

    For mixed laws E[1{x_d = v} r(x_c) / p(x_c, v)] = 1, with v the most frequent value of the counted variables.
    """
    n = x.shape[0]
    log_p = law.log_prob(x).double()
    counted = law.discrete_variables
    if law.discrete:
        for row in range(min(5, n)):
            p = log_p[row].exp()
            share = (x == x[row]).all(-1).double().mean(0)
            worst = ((share - p).abs() / ((p * (1 - p) / n).sqrt() + 2.0 / n)).max()
            assert float(worst) < _ERRORS, f"samples: frequency of an event off by {worst:.1f} errors"
        return
    k = law.n_variables
    # On the scale of normal scores no margin of a measured variable has an edge or a pole.
    scores = torch.special.ndtri(law.cdf(x).double().clamp(1e-15, 1 - 1e-15))
    for i in torch.nonzero(~counted).flatten().tolist():
        density = law.marginal([i]).log_prob(x[..., i : i + 1]).double()
        log_p = log_p - density - 0.5 * (scores[..., i] ** 2 + np.log(2 * np.pi))
    points, log_ps = torch.where(counted, x.double(), scores).reshape(n, -1, k), log_p.reshape(n, -1)
    for b in range(points.shape[1]):
        events = points[:, b, counted]
        common = (events == events.mode(0).values).all(-1).numpy()
        off = _local_ratio(points[:, b, ~counted].numpy(), log_ps[:, b].numpy(), common)
        assert off < _ERRORS, f"samples: the joint density is off by {off:.1f} errors"


def _local_ratio(x: np.ndarray, log_p: np.ndarray, common: np.ndarray) -> float:
    """Standard errors between the mean of 1{common} r / p over samples (n, k) and 1.

    r is a product of triangles around the densest of the first half of the samples, in the axes of those close to it,
    so that the ratio is bounded; its mean is that of the second half.
    """
    half = len(x) // 2
    later, first, second = common[half:], x[:half][common[:half]], x[half:]
    low, high = np.quantile(first, [0.25, 0.75], axis=0)
    inner = ((first >= low) & (first <= high)).all(1)
    # Away from the edges of the support; any point will do where the coordinates leave no common middle.
    candidates = np.where(inner if inner.any() else True, log_p[:half][common[:half]], -np.inf)
    centre = first[candidates.argmax()]
    root = np.linalg.cholesky(np.cov(first.T).reshape(x.shape[1], -1))
    distance = np.linalg.norm(np.linalg.solve(root, (first - centre).T), axis=0)
    close = first[distance <= np.quantile(distance, 0.1)]
    axes = 2.0 * np.linalg.cholesky(np.cov(close.T).reshape(x.shape[1], -1))
    y = np.abs(np.linalg.solve(axes, (second - centre).T))
    with np.errstate(divide="ignore"):
        log_r = np.log(np.clip(1 - y, 0.0, None)).sum(0) - np.log(np.diag(axes)).sum()
    ratio = np.where(later, np.exp(log_r - log_p[half:]), 0.0)
    return float(abs(ratio.mean() - 1) / (ratio.std() / len(ratio) ** 0.5 + 1e-9))


def _directions(law: Distribution, x: Tensor) -> None:
    """Of angles: the mean resultant, whose direction is the mean and whose length is one minus the variance."""
    angles, along = law.circular_variables, law.resultant.double()
    drawn = torch.stack([x.cos(), x.sin()], -1).double().mean(0)
    off = torch.where(angles.unsqueeze(-1), drawn - along, 0.0).abs().max() * x.shape[0] ** 0.5
    assert float(off) < _ERRORS, f"samples: the mean resultant is off by {off:.1f} errors"
    length = along.norm(dim=-1)
    assert_allclose(torch.where(angles, law.variance, 0.0), torch.where(angles, 1 - length, 0.0), atol=1e-9)
    toward = length.unsqueeze(-1) * torch.stack([law.mean.cos(), law.mean.sin()], -1)
    assert_allclose(torch.where(angles.unsqueeze(-1), toward - along, 0.0), torch.zeros_like(along), atol=1e-9)


def _moments(law: Distribution, x: Tensor) -> None:
    n = x.shape[0]
    mean, variance = law.mean.double(), law.variance.double()
    usable = torch.isfinite(variance) & torch.isfinite(mean) & ~law.nominal_variables
    angles = law.circular_variables
    if bool(angles.any()):
        usable = usable & ~angles
        _directions(law, x)
    sample_mean = x.double().mean(0)
    worst = torch.where(usable, (sample_mean - mean).abs() / (variance.clamp_min(1e-300) / n).sqrt(), 0.0).max()
    assert float(worst) < 1.5 * _ERRORS, f"samples: the mean is off by {worst:.1f} errors"
