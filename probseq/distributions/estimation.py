r"""Weighted maximum likelihood of emissions: the M-steps of EM, with missing values per coordinate.

Every function maximises sum_t w_t log p(x_t seen | params) (or, for correlated normals and Student t, its EM lower
bound at the previous parameters, which never lowers it), for all draws and states at once.

Shapes: x and seen (n, t, k); weights (D, n, t, s), zero on padding; parameters (D, s, ...), tied ones (D, ...).
A state without weight keeps its previous parameters. Variances stay above 1e-6 of the variance of the data: since the
constrained maximum is attained by clipping, EM with the floor stays monotone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.emissions import Bernoulli, Categorical, Emission, Normal, Observation, Poisson, StudentT
from probseq.distributions.params import Params
from probseq.errors import UnsupportedError

__all__ = ["initial_params", "m_step", "normal_from_moments", "states_at_floor", "variance_floor"]

_FLOOR = 1e-6
_EMPTY = 1e-8
_SMALL_RATE = 1e-10
_MAX_DF = 1e3
_CHUNK = 1 << 20


class _Sums(NamedTuple):
    """Weighted sums of seen coordinates, each (D, s, k): of 1, x - centre, (x - centre)^2; centre (k,)."""

    total: Tensor
    first: Tensor
    second: Tensor
    centre: Tensor


def variance_floor(x: Tensor, seen: Tensor) -> Tensor:
    """Smallest variance that a fit may give to each variable, (k,): 1e-6 of the variance of the data."""
    mask = seen.to(x.dtype)
    count = mask.sum((0, 1)).clamp_min(1.0)
    centre = (mask * x).sum((0, 1)) / count
    spread = (mask * (x - centre) ** 2).sum((0, 1)) / count
    return torch.maximum(_FLOOR * spread, 1e-12 * (1e-12 + centre**2 + spread))


@singledispatch
def m_step(
    emission: Emission, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    """Parameters with a weighted likelihood no lower than that of ``previous``."""
    raise UnsupportedError(
        got=f"{type(emission).__name__} under EM",
        expected="an emission that defines m_step",
        remedy="Define m_step, or fit with an optimiser (MLE).",
    )


@singledispatch
def initial_params(
    emission: Emission,
    observation: Observation,
    x: Tensor,
    seen: Tensor,
    responsibilities: Tensor,
    components: tuple[int, ...],
) -> dict[str, Tensor]:
    """Parameters that follow from soft assignments of the steps to the states."""
    pooled = torch.ones_like(responsibilities) * (responsibilities.sum(-1, keepdim=True) > 0)
    return m_step(emission, observation, x, seen, responsibilities, _pooled(emission, observation, x, seen, pooled))


@singledispatch
def states_at_floor(emission: Emission, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
    """Which states have collapsed onto a point, (D, s) bool, or (D, 1) for tied parameters."""
    value = next(iter(params.values()))
    return torch.zeros(value.shape[:2], dtype=torch.bool)


def normal_from_moments(
    emission: Normal, total: Tensor, mean: Tensor, square: Tensor, floor: Tensor, previous: Params
) -> dict[str, Tensor]:
    """Mean and scale of a diagonal or spherical normal from sums of weights (D, s, k) and per-state moments.

    ``mean`` is the weighted mean and ``square`` the weighted mean square deviation from it, both (D, s, k).
    """
    filled = total > _EMPTY
    params = {"mean": torch.where(filled, mean, previous["mean"])}
    if emission.covariance == "diag":
        scale = torch.maximum(square, floor).sqrt()
        params["scale"] = torch.where(filled, scale, previous["scale"])
    else:
        weight = torch.where(filled, total, torch.zeros_like(total))
        n = weight.sum(-1)
        pooled = (weight * torch.where(filled, square, torch.zeros_like(square))).sum(-1) / n.clamp_min(_EMPTY)
        scale = torch.maximum(pooled, floor.mean()).sqrt()
        params["scale"] = torch.where(n > _EMPTY, scale, previous["scale"])
    return params


def _flat(x: Tensor, seen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    k, s = x.shape[-1], weights.shape[-1]
    return x.reshape(-1, k), seen.reshape(-1, k), weights.reshape(weights.shape[0], -1, s)


def _sums(x: Tensor, seen: Tensor, weights: Tensor) -> _Sums:
    x, seen, weights = _flat(x, seen, weights)
    mask = seen.to(x.dtype)
    centre = (mask * x).sum(0) / mask.sum(0).clamp_min(1.0)
    gap = mask * (x - centre)
    turned = weights.mT
    return _Sums(turned @ mask, turned @ gap, turned @ (gap * gap), centre)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    return top / bottom.clamp_min(_EMPTY)


@m_step.register
def _normal(
    emission: Normal, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    if emission.covariance in ("diag", "spherical"):
        sums = _sums(x, seen, weights)
        mean = _ratio(sums.first, sums.total)
        square = (_ratio(sums.second, sums.total) - mean**2).clamp_min(0.0)
        floor = variance_floor(x, seen)
        return normal_from_moments(emission, sums.total, sums.centre + mean, square, floor, previous)
    return _correlated(emission, x, seen, weights, previous)


def _correlated(emission: Normal, x: Tensor, seen: Tensor, weights: Tensor, previous: Params) -> dict[str, Tensor]:
    """Full or tied covariance; missing coordinates enter through their law given the seen ones."""
    floor = variance_floor(x, seen)
    x, seen, weights = _flat(x, seen, weights)
    mask = seen.to(x.dtype)
    centre = (mask * x).sum(0) / mask.sum(0).clamp_min(1.0)
    covariance = previous["covariance"]
    if emission.covariance == "tied":
        covariance = covariance.unsqueeze(1).expand(*weights.shape[::2], *covariance.shape[-2:])
    mean = previous["mean"] - centre
    total = torch.zeros(weights.shape[::2], dtype=x.dtype)
    first = torch.zeros_like(mean)
    second = torch.zeros_like(covariance)
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            continue
        rows = which == index
        o = pattern.nonzero().squeeze(-1)
        gap, w = (x[rows] - centre)[:, o], weights[:, rows]
        n, f, g = w.sum(1), w.mT @ gap, _second(gap, w)
        # E[x | x_o] = offset + gain x_o, with what is left over as conditional covariance.
        s_oo = covariance[..., o, :][..., o]
        gain = torch.linalg.solve(s_oo, covariance[..., o, :]).mT
        left = covariance - gain @ covariance[..., o, :]
        offset = mean - (gain @ mean[..., o].unsqueeze(-1)).squeeze(-1)
        moved = (gain @ f.unsqueeze(-1)).squeeze(-1)
        cross = offset.unsqueeze(-1) * moved.unsqueeze(-2)
        weight = n[..., None, None]
        total = total + n
        first = first + offset * n.unsqueeze(-1) + moved
        second = second + gain @ g @ gain.mT + cross + cross.mT
        second = second + weight * (offset.unsqueeze(-1) * offset.unsqueeze(-2) + left)
    new_mean = _ratio(first, total.unsqueeze(-1))
    spread = second - total[..., None, None] * new_mean.unsqueeze(-1) * new_mean.unsqueeze(-2)
    filled = total > _EMPTY
    params = {"mean": torch.where(filled.unsqueeze(-1), centre + new_mean, previous["mean"])}
    if emission.covariance == "tied":
        kept = torch.where(filled[..., None, None], spread, torch.zeros_like(spread)).sum(1)
        n = torch.where(filled, total, torch.zeros_like(total)).sum(1)[..., None, None]
        params["covariance"] = _above(_ratio(kept, n), floor)
    else:
        new = _above(_ratio(spread, total[..., None, None]), floor)
        params["covariance"] = torch.where(filled[..., None, None], new, previous["covariance"])
    return params


def _second(gap: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t gap_t gap_t^T, (D, s, o, o)."""
    o = gap.shape[-1]
    out = torch.zeros(*weights.shape[::2], o * o, dtype=gap.dtype)
    step = max(1, _CHUNK // (o * o))
    for start in range(0, gap.shape[0], step):
        part = gap[start : start + step]
        outer = (part.unsqueeze(-1) * part.unsqueeze(-2)).flatten(1)
        out += weights[:, start : start + step].mT @ outer
    return out.reshape(*out.shape[:2], o, o)


def _above(covariance: Tensor, floor: Tensor) -> Tensor:
    """The constrained maximum over covariances above diag(floor): clipped eigenvalues in units of the floor."""
    unit = floor.sqrt()
    scaled = covariance / (unit.unsqueeze(-1) * unit)
    values, vectors = torch.linalg.eigh(0.5 * (scaled + scaled.mT))
    clipped = (vectors * values.clamp_min(1.0).unsqueeze(-2)) @ vectors.mT * (unit.unsqueeze(-1) * unit)
    return 0.5 * (clipped + clipped.mT)


@m_step.register
def _student(
    emission: StudentT, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    """ECME: x given its latent precision u is normal, E[u] = (df + 1) / (df + z^2); then df on the likelihood itself.

    Liu and Rubin (1995), ML estimation of the t distribution using EM and its extensions, equation 2 and section 3.
    """
    floor = variance_floor(x, seen)
    x, seen, weights = _flat(x, seen, weights)
    mask = seen.to(x.dtype)
    centre = (mask * x).sum(0) / mask.sum(0).clamp_min(1.0)
    loc, scale = previous["loc"], previous["scale"]
    df = previous["df"] if emission.df is None else torch.full_like(loc, float(emission.df))
    n, wu, first, second = (torch.zeros_like(loc) for _ in range(4))
    for part, w in _chunks(x, mask, weights, loc):
        z2 = ((part - loc.unsqueeze(1)) / scale.unsqueeze(1)) ** 2
        u = w * (df.unsqueeze(1) + 1.0) / (df.unsqueeze(1) + z2)
        gap = part - centre
        n += w.sum(1)
        wu += u.sum(1)
        first += (u * gap).sum(1)
        second += (u * gap**2).sum(1)
    filled = n > _EMPTY
    shift = _ratio(first, wu)
    square = _ratio((second - shift * first).clamp_min(0.0), n)
    params = {
        "loc": torch.where(filled, centre + shift, loc),
        "scale": torch.where(filled, torch.maximum(square, floor).sqrt(), scale),
    }
    if emission.df is None:
        better = _better_df(df, x, mask, weights, params["loc"], params["scale"])
        params["df"] = torch.where(filled, better, df)
    return params


def _chunks(x: Tensor, mask: Tensor, weights: Tensor, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (N', 1, k) and their weights (D, N', s, k), a few at a time."""
    step = max(1, _CHUNK // like.numel())
    for start in range(0, x.shape[0], step):
        rows = slice(start, start + step)
        yield x[rows].unsqueeze(1), weights[:, rows].unsqueeze(-1) * mask[rows].unsqueeze(1)


def _better_df(df: Tensor, x: Tensor, mask: Tensor, weights: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """A Newton step in log df on sum_t w_t log t(x_t; df, loc, scale), kept only where it raises that sum."""
    value, slope, bend = _df_profile(df, x, mask, weights, loc, scale)
    newton = torch.where(bend < 0, -slope / bend.clamp_max(-1e-300), slope.sign()).clamp(-1.5, 1.5)
    best = df
    for width in (1.0, 0.2):
        trial = (df * torch.exp(width * newton)).clamp(1.0 + 1e-6, _MAX_DF)
        new = _df_profile(trial, x, mask, weights, loc, scale)[0]
        best, value = torch.where(new > value, trial, best), torch.maximum(new, value)
    return best


def _df_profile(
    df: Tensor, x: Tensor, mask: Tensor, weights: Tensor, loc: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_t w_t log t(x_t) without its terms free of df, and its two derivatives in log df, each (D, s, k)."""
    n, logs, share, product = (torch.zeros_like(loc) for _ in range(4))
    for part, w in _chunks(x, mask, weights, loc):
        z2 = ((part - loc.unsqueeze(1)) / scale.unsqueeze(1)) ** 2
        q = z2 / (df.unsqueeze(1) + z2)
        n += w.sum(1)
        logs += (w * torch.log1p(z2 / df.unsqueeze(1))).sum(1)
        share += (w * q).sum(1)
        product += (w * q * (1 - q)).sum(1)
    half = 0.5 * (df + 1.0)
    value = n * (torch.lgamma(half) - torch.lgamma(0.5 * df) - 0.5 * df.log()) - half * logs
    first = 0.5 * (n * (torch.digamma(half) - torch.digamma(0.5 * df) - 1 / df) - logs + (1 + 1 / df) * share)
    curve = 0.5 * (torch.polygamma(1, half) - torch.polygamma(1, 0.5 * df)) + 1 / df**2
    second = 0.5 * (n * curve + share / df - share / df**2 - (1 + 1 / df) * product / df)
    return value, df * first, df**2 * second + df * first


@m_step.register
def _poisson(
    emission: Poisson, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    x, seen, weights = _flat(x, seen, weights)
    mask = seen.to(x.dtype)
    total = weights.mT @ mask
    rate = _ratio(weights.mT @ (mask * x), total).clamp_min(_SMALL_RATE)
    return {"rate": torch.where(total > _EMPTY, rate, previous["rate"])}


@m_step.register
def _categorical(
    emission: Categorical, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    x, seen, weights = _flat(x, seen, weights)
    draws, s, size = weights.shape[0], weights.shape[-1], observation.n_categories or 1
    columns = []
    for variable in range(x.shape[-1]):
        rows = seen[:, variable]
        counts = torch.zeros(draws, size, s, dtype=weights.dtype)
        counts.index_add_(1, x[rows, variable].long(), weights[:, rows])
        columns.append(counts.mT)
    counts = torch.stack(columns, 2)
    total = counts.sum(-1, keepdim=True)
    return {"probs": torch.where(total > _EMPTY, _ratio(counts, total), previous["probs"])}


@m_step.register
def _bernoulli(
    emission: Bernoulli, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, previous: Params
) -> dict[str, Tensor]:
    x, seen, weights = _flat(x, seen, weights)
    mask = seen.to(x.dtype)
    total = weights.mT @ mask
    share = _ratio(weights.mT @ (mask * x), total).clamp(_SMALL_RATE, 1.0 - _SMALL_RATE)
    return {"logit": torch.where(total > _EMPTY, torch.logit(share), previous["logit"])}


def _pooled(emission: Emission, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor) -> Params:
    """Parameters of all the data together, for every state: what a state without weight starts from."""
    shape = (*weights.shape[::3], x.shape[-1])
    sums = _sums(x, seen, weights)
    mean = _ratio(sums.first, sums.total)
    variance = torch.maximum(_ratio(sums.second, sums.total) - mean**2, variance_floor(x, seen))
    centre = sums.centre + mean
    if isinstance(emission, Normal):
        if emission.covariance in ("full", "tied"):
            covariance = torch.diag_embed(variance)
            return {"mean": centre, "covariance": covariance[:, 0] if emission.covariance == "tied" else covariance}
        return {"mean": centre, "scale": (variance if emission.covariance == "diag" else variance.mean(-1)).sqrt()}
    if isinstance(emission, StudentT):
        start = {"loc": centre, "scale": variance.sqrt(), "df": torch.full(shape, 10.0, dtype=x.dtype)}
        return start if emission.df is None else {name: start[name] for name in ("loc", "scale")}
    if isinstance(emission, Poisson):
        return {"rate": centre.clamp_min(_SMALL_RATE)}
    if isinstance(emission, Categorical):
        size = observation.n_categories or 1
        return {"probs": torch.full((*shape, size), 1.0 / size, dtype=x.dtype)}
    return {"logit": torch.logit(centre.clamp(_SMALL_RATE, 1.0 - _SMALL_RATE))}


@initial_params.register
def _student_start(
    emission: StudentT,
    observation: Observation,
    x: Tensor,
    seen: Tensor,
    responsibilities: Tensor,
    components: tuple[int, ...],
) -> dict[str, Tensor]:
    normal = initial_params(Normal(), observation, x, seen, responsibilities, components)
    start = {"loc": normal["mean"], "scale": normal["scale"]}
    if emission.df is None:
        start["df"] = torch.full_like(start["loc"], 10.0)
    return start


@states_at_floor.register
def _normal_floor(emission: Normal, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
    floor = variance_floor(x, seen)
    if emission.covariance in ("full", "tied"):
        unit = floor.sqrt()
        smallest = torch.linalg.eigvalsh(params["covariance"] / (unit.unsqueeze(-1) * unit)).amin(-1)
        low = smallest <= 1.001
        return low if emission.covariance == "full" else low.unsqueeze(-1)
    if emission.covariance == "spherical":
        return params["scale"] ** 2 <= 1.001 * floor.mean()
    return (params["scale"] ** 2 <= 1.001 * floor).any(-1)


@states_at_floor.register
def _student_floor(emission: StudentT, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
    return (params["scale"] ** 2 <= 1.001 * variance_floor(x, seen)).any(-1)
