"""The normal emission and its M-steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Observation, SufficientEmission, masked
from probseq.distributions.estimation import (
    EMPTY,
    WeightedSums,
    above,
    flat_rows,
    pooled_moments,
    ratio,
    symmetric,
    variance_floor,
    weighted_outer,
    weighted_sums,
)
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor
from probseq.distributions.params import Params, ParamSpec, Positive, PositiveDefinite, Real
from probseq.errors import ParameterError

__all__ = ["MomentSums", "Normal", "correlated_sums", "normal_from_moments"]


_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class Normal(SufficientEmission):
    r"""x ~ N(mean, Sigma).

    Parameters
    ----------
    covariance : {"diag", "full", "spherical", "tied"}
        One variance a variable, a whole matrix, one variance for all variables, or one whole matrix shared by all
        states. Parameters: ``mean`` (k,), and ``scale`` (k,) or () for "diag" and "spherical" (standard deviations),
        ``covariance`` (k, k) for "full" and "tied".

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.array([[1.0, 2.0], [2.0, 4.5], [3.0, 5.5], [2.0, 4.0]])
    >>> model = ps.IID(ps.Normal(covariance="full")).fit(x)
    >>> model.params_["mean"].values.round(2)
    array([2., 4.])
    >>> model.params_["covariance"].values.round(2)
    array([[0.5 , 0.88],
           [0.88, 1.62]])
    """

    def __init__(self, covariance: str = "diag") -> None:
        self.covariance = covariance

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        k = observation.n_variables
        state = ("state",) * len(components)
        specs = {"mean": ParamSpec((*components, k), Real(), (*state, "variable"))}
        if self.covariance == "diag":
            specs["scale"] = ParamSpec((*components, k), Positive(), (*state, "variable"))
        elif self.covariance == "spherical":
            specs["scale"] = ParamSpec(components, Positive(), state)
        elif self.covariance in ("full", "tied"):
            lead, dims = (components, state) if self.covariance == "full" else ((), ())
            specs["covariance"] = ParamSpec((*lead, k, k), PositiveDefinite(), (*dims, "variable", "other_variable"))
        else:
            raise ParameterError(
                got=f"covariance={self.covariance!r}",
                expected='"diag", "full", "spherical" or "tied"',
                remedy="Choose one of them.",
            )
        return specs

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        mean = params["mean"]
        if "covariance" in params:
            factor = lower_factor(params["covariance"])
            if self.covariance == "tied":
                factor = factor.reshape(*factor.shape[:-2], *(1,) * len(components), *factor.shape[-2:])
            return FullNormal(loc=mean, scale_tril=factor)
        scale = params["scale"]
        if self.covariance == "spherical":
            scale = scale.unsqueeze(-1).expand_as(mean)
        return DiagonalNormal(loc=mean, scale=scale)

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        if self.covariance not in ("full", "tied"):
            return super().from_outputs(outputs, observation, constants)
        # The outputs are the factor: multiplying it out to factor it again fails in single precision.
        k = observation.n_variables
        return FullNormal(loc=outputs[..., :k], scale_tril=PositiveDefinite().factor(outputs[..., k:], (k, k)))

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x, seen)
        if self.covariance in ("full", "tied"):
            return {"mean": pooled.mean, "covariance": torch.diag_embed(pooled.variance)}
        variance = pooled.variance if self.covariance == "diag" else pooled.variance.mean(-1)
        return {"mean": pooled.mean, "scale": variance.sqrt()}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Closed form; correlated normals: its EM lower bound over the missing coordinates, which never lowers it."""
        if self.covariance in ("full", "tied"):
            return _correlated(self, x, seen, weights, params)
        sums = weighted_sums(x, seen, weights)
        return self._independent(x, seen, sums, params)

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor | None:
        """Powers and products of deviations from the middle of the data."""
        gap = x - pooled_moments(x, seen).mean
        if self.covariance not in ("full", "tied"):
            return masked(seen, gap, gap * gap)
        whole = seen.all(-1, keepdim=True)
        if not torch.equal(whole, seen.any(-1, keepdim=True)):
            return None
        gap = torch.where(whole, gap, torch.zeros_like(gap))
        row, column = torch.tril_indices(x.shape[-1], x.shape[-1])
        return torch.cat([whole.to(x.dtype), gap, gap[..., row] * gap[..., column]], -1)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        k, centre = x.shape[-1], pooled_moments(x, seen).mean
        if self.covariance not in ("full", "tied"):
            each = sums.chunk(3, -1)
            return self._independent(x, seen, WeightedSums(each[0], each[1], each[2], centre), params)
        total, first, products = sums.split([1, k, k * (k + 1) // 2], -1)
        second = symmetric(products, k)
        return _from_sums(self, x, seen, MomentSums(total.squeeze(-1), first, second), params)

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        mean, k = params["mean"] - pooled_moments(x, seen).mean, x.shape[-1]
        if self.covariance not in ("full", "tied"):
            scale = params["scale"] if self.covariance == "diag" else params["scale"].unsqueeze(-1)
            scale = scale.expand_as(mean)
            constant = -0.5 * (mean / scale) ** 2 - scale.log() - _HALF_LOG_2PI
            return torch.cat([constant, mean / scale**2, -0.5 / scale**2], -1)
        factor = lower_factor(params["covariance"])
        if self.covariance == "tied":
            factor = factor.unsqueeze(1).expand(*mean.shape, k)
        precision = torch.cholesky_inverse(factor)
        slope = (precision @ mean.unsqueeze(-1)).squeeze(-1)
        constant = -0.5 * (slope * mean).sum(-1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) - k * _HALF_LOG_2PI
        row, column = torch.tril_indices(k, k)
        products = torch.where(row == column, -0.5, -1.0) * precision[..., row, column]
        return torch.cat([constant.unsqueeze(-1), slope, products], -1)

    def _independent(self, x: Tensor, seen: Tensor, sums: WeightedSums, params: Params) -> dict[str, Tensor]:
        mean = ratio(sums.first, sums.total)
        square = (ratio(sums.second, sums.total) - mean**2).clamp_min(0.0)
        return normal_from_moments(self, sums.total, sums.centre + mean, square, variance_floor(x, seen), params)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        floor = variance_floor(x, seen)
        if self.covariance in ("full", "tied"):
            unit = floor.sqrt()
            smallest = torch.linalg.eigvalsh(params["covariance"] / (unit.unsqueeze(-1) * unit)).amin(-1)
            low = smallest <= 1.001
            return low if self.covariance == "full" else low.unsqueeze(-1)
        if self.covariance == "spherical":
            return params["scale"] ** 2 <= 1.001 * floor.mean()
        return (params["scale"] ** 2 <= 1.001 * floor).any(-1)


def normal_from_moments(
    emission: Normal, total: Tensor, mean: Tensor, square: Tensor, floor: Tensor, previous: Params
) -> dict[str, Tensor]:
    """Mean and scale of a diagonal or spherical normal from sums of weights (D, s, k) and per-state moments.

    ``mean`` is the weighted mean and ``square`` the weighted mean square deviation from it, both (D, s, k).
    """
    filled = total > EMPTY
    params = {"mean": torch.where(filled, mean, previous["mean"])}
    if emission.covariance == "diag":
        scale = torch.maximum(square, floor).sqrt()
        params["scale"] = torch.where(filled, scale, previous["scale"])
    else:
        weight = torch.where(filled, total, torch.zeros_like(total))
        n = weight.sum(-1)
        pooled = (weight * torch.where(filled, square, torch.zeros_like(square))).sum(-1) / n.clamp_min(EMPTY)
        scale = torch.maximum(pooled, floor.mean()).sqrt()
        params["scale"] = torch.where(n > EMPTY, scale, previous["scale"])
    return params


class MomentSums(NamedTuple):
    """Expected sums over the steps around a centre: of 1 (D, s), x (D, s, k) and x x^T (D, s, k, k)."""

    total: Tensor
    first: Tensor
    second: Tensor

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Mean from the centre (D, s, k) and sum of squared deviations from it (D, s, k, k)."""
        mean = ratio(self.first, self.total.unsqueeze(-1))
        spread = self.total[..., None, None] * mean.unsqueeze(-1) * mean.unsqueeze(-2)
        return mean, self.second - spread


def correlated_sums(gaps: Tensor, seen: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor) -> MomentSums:
    """Sums over rows (N, k) with weights (D, N, s); missing coordinates enter through their law given the seen ones.

    That law is N(mean, covariance), (D, s, ...), around the same centre as the rows.
    """
    total = torch.zeros(weights.shape[::2], dtype=gaps.dtype)
    first, second = torch.zeros_like(mean), torch.zeros_like(covariance)
    if bool(seen.all()):
        return MomentSums(weights.sum(1), weights.mT @ gaps, weighted_outer(gaps, weights))
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            continue
        rows = which == index
        o = pattern.nonzero().squeeze(-1)
        gap, w = gaps[rows][:, o], weights[:, rows]
        n, f, g = w.sum(1), w.mT @ gap, weighted_outer(gap, w)
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
    return MomentSums(total, first, second)


def _correlated(emission: Normal, x: Tensor, seen: Tensor, weights: Tensor, previous: Params) -> dict[str, Tensor]:
    """Full or tied covariance."""
    centre = pooled_moments(x, seen).mean
    rows, mask, weights = flat_rows(x, seen, weights)
    covariance = previous["covariance"]
    if emission.covariance == "tied":
        covariance = covariance.unsqueeze(1).expand(*weights.shape[::2], *covariance.shape[-2:])
    sums = correlated_sums(rows - centre, mask, weights, previous["mean"] - centre, covariance)
    return _from_sums(emission, x, seen, sums, previous)


def _from_sums(emission: Normal, x: Tensor, seen: Tensor, sums: MomentSums, previous: Params) -> dict[str, Tensor]:
    """Mean and covariance from sums around the middle of the data."""
    floor, centre = variance_floor(x, seen), pooled_moments(x, seen).mean
    covariance = previous["covariance"]
    new_mean, spread = sums.covariance()
    filled = sums.total > EMPTY
    params = {"mean": torch.where(filled.unsqueeze(-1), centre + new_mean, previous["mean"])}
    if emission.covariance == "tied":
        kept = torch.where(filled[..., None, None], spread, torch.zeros_like(spread)).sum(1)
        n = torch.where(filled, sums.total, torch.zeros_like(sums.total)).sum(1)[..., None, None]
        params["covariance"] = above(ratio(kept, n), floor)
    else:
        new = above(ratio(spread, sums.total[..., None, None]), floor)
        params["covariance"] = torch.where(filled[..., None, None], new, covariance)
    return params
