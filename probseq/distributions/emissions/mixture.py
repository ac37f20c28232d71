"""The Gaussian mixture emission."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.compose import Mixture
from probseq.distributions.emissions.base import Emission, Observation, spread, standardized
from probseq.distributions.emissions.normal import MomentSums, Normal, correlated_sums, normal_from_moments
from probseq.distributions.estimation import EMPTY, above, flat_rows, pooled_moments, ratio, variance_floor
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor
from probseq.distributions.params import (
    Params,
    ParamSpec,
    Positive,
    PositiveDefinite,
    Real,
    Simplex,
    read_outputs,
    unconstrained_size,
)
from probseq.errors import ParameterError

__all__ = ["GaussianMixture"]

_CHUNK = 1 << 16
_ROUNDS, _MOST_ROWS = 8, 2_000
_SHARP = 0.9
_SMALL = 1e-10

Taken = Iterator[tuple[slice, Tensor]]
"""Parts of the rows and their weights (D, N', M s)."""


class GaussianMixture(Emission):
    r"""p(x) = sum_m weights_m N(x; mean_m, Sigma_m) in every state.

    Parameters
    ----------
    n_components : int
        M, the same in all states.
    covariance : {"diag", "full", "spherical", "tied"}
        As in ``Normal``; "tied" shares one matrix between the components of a state. Parameters: ``weights`` (M,),
        ``mean`` (M, k), and ``scale`` (M, k) or (M,), or ``covariance`` (M, k, k), or (k, k) for "tied".

    Examples
    --------
    >>> import probseq as ps
    >>> ps.GaussianMixture(3, covariance="full")
    GaussianMixture(n_components=3, covariance='full')
    """

    def __init__(self, n_components: int = 2, covariance: str = "diag") -> None:
        self.n_components, self.covariance = n_components, covariance

    def check_arguments(self) -> None:
        self._size()

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        m, k = self._size(), observation.n_variables
        state = ("state",) * len(components)
        part, words = (*components, m), (*state, "component")
        specs = {
            "weights": ParamSpec(part, Simplex(), words),
            "mean": ParamSpec((*part, k), Real(), (*words, "variable")),
        }
        if self.covariance == "diag":
            specs["scale"] = ParamSpec((*part, k), Positive(), (*words, "variable"))
        elif self.covariance == "spherical":
            specs["scale"] = ParamSpec(part, Positive(), words)
        elif self.covariance in ("full", "tied"):
            lead, dims = (part, words) if self.covariance == "full" else (components, state)
            specs["covariance"] = ParamSpec((*lead, k, k), PositiveDefinite(), (*dims, "variable", "other_variable"))
        else:
            raise ParameterError(
                got=f"covariance={self.covariance!r}",
                expected='"diag", "full", "spherical" or "tied"',
                remedy="Choose one of them.",
            )
        return specs

    def _size(self) -> int:
        return whole_number("n_components", self.n_components, 1, "Try 2.")

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        factor = lower_factor(params["covariance"]) if "covariance" in params else None
        return self._law(params["weights"].log(), params["mean"], params.get("scale"), factor)

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        specs = self.parameters(observation)
        n = specs["weights"].shape[0]
        log_weights = torch.log_softmax(outputs[..., :n], -1)
        if "scale" in specs:
            params = read_outputs(specs, outputs)
            return self._law(log_weights, params["mean"], params["scale"], None)
        # The outputs are the factors: multiplying them out to factor them again fails in single precision.
        known = {name: specs[name] for name in ("weights", "mean")}
        end = unconstrained_size(known)
        factor = PositiveDefinite().factor(outputs[..., end:], specs["covariance"].shape)
        return self._law(log_weights, read_outputs(known, outputs[..., :end])["mean"], None, factor)

    def initial_outputs(self, observation: Observation) -> Tensor:
        """Components at the quantiles of a standard normal: alike they would stay so."""
        outputs, m = super().initial_outputs(observation), self._size()
        place = _normal_quantiles(m).unsqueeze(-1).expand(m, observation.n_variables)
        outputs[m : m + place.numel()] = place.flatten()
        return outputs

    def _law(self, log_weights: Tensor, mean: Tensor, scale: Tensor | None, factor: Tensor | None) -> Distribution:
        if factor is not None:
            factor = factor.unsqueeze(-3) if self.covariance == "tied" else factor
            return Mixture(log_weights, FullNormal(loc=mean, scale_tril=factor))
        if scale is None:
            raise TypeError("a mixture needs a scale or a factor")
        scale = scale.unsqueeze(-1).expand_as(mean) if self.covariance == "spherical" else scale
        return Mixture(log_weights, DiagonalNormal(loc=mean, scale=scale))

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        m = self._size()
        pooled = pooled_moments(x, seen)
        place = _normal_quantiles(m).to(x.dtype).unsqueeze(-1)
        params = {
            "weights": torch.full((m,), 1.0 / m, dtype=x.dtype),
            "mean": pooled.mean + place * pooled.variance.sqrt(),
        }
        if self.covariance in ("full", "tied"):
            lead = (m,) if self.covariance == "full" else ()
            whole = torch.diag_embed(pooled.variance)
            params["covariance"] = whole.expand(*lead, *whole.shape).clone()
        else:
            scale = pooled.variance if self.covariance == "diag" else pooled.variance.mean()
            params["scale"] = scale.sqrt().expand(m, *scale.shape).clone()
        return params

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """The M-step from the clusters of a few rounds of k-means within each state."""
        specs = self.parameters(observation, components)
        start = spread(self.pooled_params(observation, x, seen), specs, responsibilities.shape[0])
        rows, mask, weights = flat_rows(x, seen, responsibilities)
        points = standardized(rows, mask)
        centres = _centres(points, weights, self._size())

        def shares(part: slice) -> Tensor:
            nearest = _nearest(points[part], centres)
            other = (1.0 - _SHARP) / self._size()
            return _SHARP * torch.nn.functional.one_hot(nearest, self._size()).mT.to(x.dtype) + other

        return self._update(x, seen, responsibilities, start, shares)

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """One step of EM over the components, which never lowers the likelihood."""
        rows, mask, _ = flat_rows(x, seen, weights)
        law = self.distribution(params, (weights.shape[-1],))
        if not isinstance(law, Mixture):
            raise TypeError("the law of a mixture emission is a mixture")

        def shares(part: slice) -> Tensor:
            return torch.softmax(law.part_table(rows[part], mask[part]), -2)

        return self._update(x, seen, weights, params, shares)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        if self.covariance == "tied":
            return Normal("full").states_at_floor(observation, x, seen, params)
        # As many normals as there are components of all states together.
        low = Normal(self.covariance).states_at_floor(observation, x, seen, self._flat(params))
        return low.unflatten(1, (self._size(), -1)).any(1)

    def _update(
        self, x: Tensor, seen: Tensor, weights: Tensor, previous: Params, shares: Callable[[slice], Tensor]
    ) -> dict[str, Tensor]:
        """Parameters from shares (D, N', M, s) of the rows of a slice that belong to the components."""
        rows, mask, flat = flat_rows(x, seen, weights)
        floor, centre = variance_floor(x, seen), pooled_moments(x, seen).mean
        # A step of which nothing is seen says nothing about the components.
        flat = flat * mask.any(-1).to(flat.dtype).unsqueeze(-1)
        size = previous["weights"].shape
        taken = (
            (part, (flat[:, part].unsqueeze(-2) * shares(part)).flatten(2))
            for part in _slices(len(rows), size.numel() * rows.shape[-1])
        )
        inner = self._flat(previous)
        if self.covariance in ("full", "tied"):
            occupancy, new = self._correlated(rows - centre, mask, taken, centre, floor, previous, inner)
        else:
            occupancy, new = self._diagonal(rows - centre, mask, taken, centre, floor, inner)
        counts = occupancy.unflatten(1, (self._size(), -1)).mT
        total = counts.sum(-1, keepdim=True)
        share = ratio(counts, total).clamp_min(_SMALL)
        return {
            "weights": torch.where(total > EMPTY, share / share.sum(-1, keepdim=True), previous["weights"]),
            **new,
        }

    def _diagonal(
        self, gaps: Tensor, mask: Tensor, taken: Taken, centre: Tensor, floor: Tensor, inner: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        counted = mask.to(gaps.dtype)
        gaps = gaps * counted
        features = torch.cat([torch.ones_like(gaps[:, :1]), counted, gaps, gaps * gaps], -1)
        sums = torch.zeros(*inner["mean"].shape[:2], features.shape[-1], dtype=gaps.dtype)
        for part, w in taken:
            sums += (features[part].T @ w).mT
        total, first, second = sums[..., 1:].chunk(3, -1)
        shift = ratio(first, total)
        square = (ratio(second, total) - shift**2).clamp_min(0.0)
        new = normal_from_moments(Normal(self.covariance), total, centre + shift, square, floor, inner)
        return sums[..., 0], self._apart(new)

    def _correlated(
        self,
        gaps: Tensor,
        mask: Tensor,
        taken: Taken,
        centre: Tensor,
        floor: Tensor,
        previous: Params,
        inner: dict[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        m, tied = self._size(), self.covariance == "tied"
        covariance = previous["covariance"].repeat(1, m, 1, 1) if tied else inner["covariance"]
        mean = inner["mean"] - centre
        sums = MomentSums(torch.zeros_like(mean[..., 0]), torch.zeros_like(mean), torch.zeros_like(covariance))
        for part, w in taken:
            more = correlated_sums(gaps[part], mask[part], w, mean, covariance)
            sums = MomentSums(*(a + b for a, b in zip(sums, more, strict=True)))
        new_mean, spread_ = sums.covariance()
        filled = sums.total > EMPTY
        column = filled[..., None, None]
        new = {"mean": torch.where(filled.unsqueeze(-1), centre + new_mean, inner["mean"])}
        if not tied:
            found = above(ratio(spread_, sums.total[..., None, None]), floor)
            new["covariance"] = torch.where(column, found, covariance)
            return sums.total, self._apart(new)
        kept = torch.where(column, spread_, torch.zeros_like(spread_)).unflatten(1, (m, -1)).sum(1)
        n = torch.where(filled, sums.total, torch.zeros_like(sums.total)).unflatten(1, (m, -1)).sum(1)[..., None, None]
        shared = torch.where(n > EMPTY, above(ratio(kept, n), floor), previous["covariance"])
        return sums.total, {**self._apart(new), "covariance": shared}

    def _flat(self, params: Params) -> dict[str, Tensor]:
        """The parameters of the components, those of all states in one axis, (D, M s, ...)."""
        names = ("mean",) if self.covariance == "tied" else ("mean", "scale", "covariance")
        return {name: params[name].transpose(1, 2).flatten(1, 2) for name in names if name in params}

    def _apart(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of ``_flat``."""
        return {name: value.unflatten(1, (self._size(), -1)).transpose(1, 2) for name, value in params.items()}


def _slices(n_rows: int, width: int) -> list[slice]:
    step = max(64, _CHUNK // max(1, width))
    return [slice(i, i + step) for i in range(0, n_rows, step)]


def _normal_quantiles(m: int) -> Tensor:
    return torch.special.ndtri((torch.arange(m, dtype=torch.float64) + 0.5) / m)


def _centres(points: Tensor, weights: Tensor, m: int) -> Tensor:
    """Cluster centres (D, s, M, k) of the rows that weigh most in each state, from points along their longest axis."""
    thinned = slice(None, None, max(1, len(points) // _MOST_ROWS))
    points, weights = points[thinned], weights[:, thinned]
    own = (weights >= weights.amax(-1, keepdim=True)).to(points.dtype) * (weights > 0)
    n = own.sum(1).clamp_min(1.0).unsqueeze(-1)
    mean = own.mT @ points / n
    second = torch.einsum("dns,ni,nj->dsij", own, points, points) / n.unsqueeze(-1)
    values, vectors = torch.linalg.eigh(second - mean.unsqueeze(-1) * mean.unsqueeze(-2))
    axis = vectors[..., -1] * values[..., -1:].clamp_min(0.0).sqrt()
    centres = mean.unsqueeze(-2) + _normal_quantiles(m).to(points.dtype).unsqueeze(-1) * axis.unsqueeze(-2)
    for _ in range(_ROUNDS):
        member = torch.nn.functional.one_hot(_nearest(points, centres), m).to(points.dtype) * own.unsqueeze(-1)
        count = member.sum(1)
        found = torch.einsum("dnsm,nk->dsmk", member, points) / count.clamp_min(1.0).unsqueeze(-1)
        centres = torch.where(count.unsqueeze(-1) > 0, found, centres)
    return centres


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Which centre (D, s, M, k) of each state is nearest, (D, N, s)."""
    inner = torch.einsum("nk,dsmk->dnsm", points, centres)
    return (0.5 * (centres**2).sum(-1).unsqueeze(1) - inner).argmin(-1)
