"""The gamma emission."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Observation, SufficientEmission, masked, standardized
from probseq.distributions.estimation import (
    EMPTY,
    floor_name,
    logarithms,
    never_lower,
    pooled_moments,
    ratio,
    variance_floor,
)
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.params import Params, ParamSpec, Positive
from probseq.errors import SupportError

__all__ = ["Gamma", "check_positive"]

_ROUNDS = 20
_LEAST_SHAPE = 1e-4
# Beyond it the gamma function has too few digits left.
_MOST_SHAPE = 1e11


class Gamma(SufficientEmission):
    r"""x_i ~ Gamma with mean_i and shape_i, independent over the variables: positive values, variance mean^2 / shape.

    The rate is shape / mean. The shape stays below the reciprocal of 1e-6 of the variance of the data's logarithms.

    Examples
    --------
    >>> import probseq as ps
    >>> x = [0.5, 1.2, 0.1, 2.2, 0.8]
    >>> model = ps.IID(ps.Gamma()).fit(x)
    >>> round(float(model.forecast(1).mean().squeeze()), 3)
    0.96
    """

    fill: ClassVar[float] = 1.0
    whole_line: ClassVar[bool] = False

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        shape = (*components, observation.n_variables)
        return {name: ParamSpec(shape, Positive(), dims) for name in ("mean", "shape")}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return DiagonalGamma(shape=params["shape"], rate=params["shape"] / params["mean"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_positive(values, name, "Gamma")

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        return standardized(logarithms(x, seen), seen)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x, seen)
        mean = pooled.mean.clamp_min(torch.finfo(x.dtype).tiny)
        return {"mean": mean, "shape": (mean**2 / pooled.variance).clamp(0.1, 1e6)}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        y = logarithms(x, seen) - self._centre(x, seen)
        return masked(seen, y, torch.exp(y))

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        a, m = params["shape"], params["mean"] / self._centre(x, seen).exp()
        return torch.cat([a * (a / m).log() - torch.lgamma(a), a, -a / m], -1)

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        return -logarithms(x, seen).sum(-1)

    def _centre(self, x: Tensor, seen: Tensor) -> Tensor:
        """Mean logarithm: in units of its exponential no digits are lost."""
        return pooled_moments(logarithms(x, seen), seen).mean

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        """log a - digamma(a) = log mean(x) - mean(log x), by Newton's steps in 1 / a (Minka 2002, equation 10)."""
        unit = self._centre(x, seen).exp()
        total, logs, first = sums.chunk(3, -1)
        mean = torch.where(total > EMPTY, ratio(first, total), 1.0).clamp_min(1e-300)
        gap = (mean.log() - ratio(logs, total)).clamp_min(1e-300)
        highest = self._highest(x, seen)
        shape = (3 - gap + torch.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
        for _ in range(_ROUNDS):
            slope = shape.log() - torch.digamma(shape) - gap
            bend = shape * shape * (1.0 / shape - torch.polygamma(1, shape))
            new = 1.0 / (1.0 / shape + slope / bend)
            new = torch.where(torch.isfinite(new) & (new > 0), new, shape)
            settled = bool(((new - shape).abs() <= 1e-12 * shape).all())
            shape = torch.minimum(new, 10.0 * highest)
            if settled:
                break
        shape = torch.minimum(shape.clamp_min(_LEAST_SHAPE), highest)

        def likelihood(p: Params) -> Tensor:
            a, m = p["shape"], p["mean"] / unit
            return total * (a * (a / m).log() - torch.lgamma(a)) + a * logs - a / m * first

        return never_lower(likelihood, {"mean": mean * unit, "shape": shape}, params, total > EMPTY)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return (params["shape"] >= 0.999 * self._highest(x, seen)).any(-1)

    def floor_name(self, observation: Observation, x: Tensor, seen: Tensor) -> str:
        return floor_name(logarithms(x, seen), seen, "the data's logarithms")

    @staticmethod
    def _highest(x: Tensor, seen: Tensor) -> Tensor:
        return (1.0 / variance_floor(logarithms(x, seen), seen)).clamp_max(_MOST_SHAPE)


def check_positive(values: np.ndarray, name: str, family: str) -> None:
    """Raise ``SupportError`` for anything but finite numbers above 0 (NaN = missing)."""
    bad = values[~np.isnan(values)]
    bad = bad[~((bad > 0) & np.isfinite(bad))]
    if bad.size:
        raise SupportError(
            got=f"{bad.flat[0]:g} in {name}",
            expected=f"numbers above 0, for {family}",
            remedy="Mark zeros as missing (NaN), shift the data, or use Normal or StudentT.",
        )
