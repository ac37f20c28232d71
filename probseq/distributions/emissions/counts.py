"""Emissions of counts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.counts import NegativeBinomialCounts, PoissonCounts, ZeroInflatedCounts, log_rising
from probseq.distributions.emissions.base import Emission, Observation, SufficientEmission, masked
from probseq.distributions.estimation import EMPTY, flat_rows, never_lower, pooled_moments, ratio, value_weights
from probseq.distributions.params import Interval, Params, ParamSpec, Positive
from probseq.errors import SupportError

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedPoisson"]

_SMALL = 1e-10
_LEAST_DISPERSION, _MOST_DISPERSION = 1e-8, 1e8
_ROUNDS = 12


class Poisson(SufficientEmission):
    r"""x_i ~ Poisson(rate_i), independent over the variables: counts per step.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HMM(2, ps.Poisson(), random_state=0).fit(quakes)
    >>> model.params_["rate"].values.ravel().round(1)
    array([26. , 15.4])
    """

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        return {"rate": ParamSpec((*components, observation.n_variables), Positive(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return PoissonCounts(rate=params["rate"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_counts(values, name, "Poisson")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        return {"rate": pooled_moments(x, seen).mean.clamp_min(_SMALL)}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        return masked(seen, x)

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return torch.cat([-params["rate"], params["rate"].log()], -1)

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        return _log_factorials(x, seen)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        total, first = sums.chunk(2, -1)
        rate = ratio(first, total).clamp_min(_SMALL)
        return {"rate": torch.where(total > EMPTY, rate, params["rate"])}


class NegativeBinomial(Emission):
    r"""Counts whose variance exceeds their mean: x_i ~ NB with variance mean_i + dispersion_i mean_i^2, independent.

    Poisson counts are the limit of dispersion 0; fits keep it above 1e-8. Parameters: ``mean`` (k,) and ``dispersion``
    (k,), the reciprocal of what R calls ``size``.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.IID(ps.NegativeBinomial()).fit(quakes)
    >>> round(float(model.forecast(1).var().squeeze()), 1)
    50.1
    """

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        shape = (*components, observation.n_variables)
        return {name: ParamSpec(shape, Positive(), dims) for name in ("mean", "dispersion")}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return NegativeBinomialCounts(location=params["mean"], dispersion=params["dispersion"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_counts(values, name, "NegativeBinomial")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x, seen)
        mean = pooled.mean.clamp_min(_SMALL)
        return {"mean": mean, "dispersion": ((pooled.variance - mean) / mean**2).clamp(0.01, 100.0)}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """The mean in closed form, the dispersion by Newton steps in its logarithm, over the distinct counts."""
        rows, seen, weights = flat_rows(x, seen, weights)
        columns = [
            _overdispersed(
                *value_weights(rows[:, i], seen[:, i], weights), params["mean"][..., i], params["dispersion"][..., i]
            )
            for i in range(rows.shape[-1])
        ]
        return {name: torch.stack([column[name] for column in columns], -1) for name in ("mean", "dispersion")}


def _overdispersed(values: Tensor, mass: Tensor, mean: Tensor, dispersion: Tensor) -> dict[str, Tensor]:
    """Mean and dispersion (D, s) from the weights (D, s, V) of the counts (V,)."""
    total, first = mass.sum(-1), mass @ values
    filled = total > EMPTY
    old = {"mean": mean, "dispersion": dispersion}

    def likelihood(params: Params) -> Tensor:
        m, a = params["mean"], params["dispersion"]
        rising = (mass * log_rising(values, (1.0 / a).unsqueeze(-1))).sum(-1)
        return rising + torch.xlogy(first, m) - (first + total / a) * torch.log1p(m * a)

    m = torch.where(filled, ratio(first, total).clamp_min(_SMALL), mean)
    r = 1.0 / dispersion
    for _ in range(_ROUNDS):
        column = r.unsqueeze(-1)
        slope = (mass * (torch.digamma(values + column) - torch.digamma(column))).sum(-1)
        slope = slope - total * torch.log1p(m / r)
        bend = (mass * (torch.polygamma(1, values + column) - torch.polygamma(1, column))).sum(-1)
        bend = r * r * (bend + total * m / (r * (r + m))) + r * slope
        step = torch.where(bend < 0, -r * slope / bend.clamp_max(-1e-300), 2.0 * slope.sign()).clamp(-2.0, 2.0)
        previous, r = r, (r * step.exp()).clamp(1.0 / _MOST_DISPERSION, 1.0 / _LEAST_DISPERSION)
        if bool(((r - previous).abs() <= 1e-10 * r).all()):
            break
    found = never_lower(likelihood, {"mean": m, "dispersion": 1.0 / r}, {"mean": m, "dispersion": dispersion}, filled)
    return {name: torch.where(filled, value, old[name]) for name, value in found.items()}


class ZeroInflatedPoisson(SufficientEmission):
    r"""P(x_i = 0) = zero_prob_i + (1 - zero_prob_i) e^{-rate_i}, P(x_i) = (1 - zero_prob_i) Poisson(x_i; rate_i) above.

    Counts with more zeros than a Poisson law has: days on which nothing could be counted. Parameters: ``rate`` (k,) of
    the other days and ``zero_prob`` (k,).

    Examples
    --------
    >>> import probseq as ps
    >>> counts = [0, 0, 0, 0, 0, 4, 3, 5, 0, 4]
    >>> model = ps.IID(ps.ZeroInflatedPoisson()).fit(counts)
    >>> round(float(model.forecast(1).cdf([0]).squeeze()), 2)
    0.6
    """

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        shape = (*components, observation.n_variables)
        return {"rate": ParamSpec(shape, Positive(), dims), "zero_prob": ParamSpec(shape, Interval(0.0, 1.0), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return ZeroInflatedCounts(rate=params["rate"], zero_prob=params["zero_prob"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_counts(values, name, "ZeroInflatedPoisson")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        mean = pooled_moments(x, seen).mean.clamp_min(_SMALL)
        return {"rate": mean, "zero_prob": torch.full_like(mean, 0.1)}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        return masked(seen, x, (x == 0).to(x.dtype))

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        rate, zero_prob = params["rate"], params["zero_prob"]
        some = torch.log1p(-zero_prob) - rate
        none = torch.log(zero_prob + (1.0 - zero_prob) * torch.exp(-rate))
        return torch.cat([some, rate.log(), none - some], -1)

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        return _log_factorials(x, seen)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        """Exact: counts above zero are zero-truncated Poisson, rate / (1 - e^{-rate}) is their mean."""
        total, first, zeros = sums.chunk(3, -1)
        some = (total - zeros).clamp_min(0.0)
        above = torch.where(some > EMPTY, ratio(first, some), 1.0).clamp_min(1.0)
        rate = 2.0 * (above - 1.0).clamp_min(_SMALL)
        for _ in range(4 * _ROUNDS):
            # Convex and increasing in the rate, from above: Newton's steps fall without overshooting.
            share = -torch.expm1(-rate)
            slope = (share - rate * (1.0 - share)) / share**2
            step = (rate / share - above) / slope.clamp_min(0.1)
            rate = (rate - step).clamp_min(_SMALL)
            if bool((step.abs() <= 1e-14 * rate).all()):
                break
        zero_prob = 1.0 - ratio(some, total) / -torch.expm1(-rate)
        none = zero_prob <= _SMALL
        new = {
            "rate": torch.where(none, ratio(first, total), rate).clamp_min(_SMALL),
            "zero_prob": torch.where(none, torch.zeros_like(zero_prob), zero_prob).clamp(_SMALL, 1.0 - _SMALL),
        }

        def likelihood(p: Params) -> Tensor:
            at_zero = torch.log(p["zero_prob"] + (1 - p["zero_prob"]) * torch.exp(-p["rate"]))
            rest = some * (torch.log1p(-p["zero_prob"]) - p["rate"]) + torch.xlogy(first, p["rate"])
            return zeros * at_zero + rest

        return never_lower(likelihood, new, params, total > EMPTY)


def _log_factorials(x: Tensor, seen: Tensor) -> Tensor:
    """-log x! summed over the seen variables, (n, t)."""
    return -torch.lgamma(torch.where(seen, x, torch.zeros_like(x)) + 1.0).sum(-1)


def check_counts(values: np.ndarray, name: str, family: str) -> None:
    """Raise ``SupportError`` for anything but whole numbers from 0 upwards (NaN = missing)."""
    bad = values[~np.isnan(values)]
    bad = bad[(bad < 0) | (bad != np.floor(bad))]
    if bad.size:
        raise SupportError(
            got=f"{bad.flat[0]:g} in {name}",
            expected=f"counts: whole numbers from 0 upwards, for {family}",
            remedy="Use Normal or StudentT for measurements, or correct the data.",
        )
