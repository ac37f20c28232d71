"""The beta emission."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.beta import DiagonalBeta
from probseq.distributions.emissions.base import Observation, SufficientEmission, masked, standardized
from probseq.distributions.estimation import EMPTY, never_lower, pooled_moments, ratio, variance_floor
from probseq.distributions.params import Interval, Params, ParamSpec, Positive
from probseq.errors import SupportError

__all__ = ["Beta"]

_ROUNDS = 30
_LEAST = 1e-4
# Beyond it the gamma function has too few digits left.
_MOST = 1e11


class Beta(SufficientEmission):
    r"""x_i ~ Beta(mean_i c_i, (1 - mean_i) c_i), independent over the variables: shares strictly between 0 and 1.

    c is the ``concentration``: the variance is mean (1 - mean) / (c + 1). It stays so low that this exceeds about
    1e-6 of the variance of the data at a mean of 1/2.

    Examples
    --------
    >>> import probseq as ps
    >>> shares = [0.2, 0.35, 0.5, 0.3]
    >>> low, high = ps.IID(ps.Beta()).fit(shares).forecast(1).interval(0.9).values.ravel()
    >>> bool(0 < low < high < 1)
    True
    """

    fill: ClassVar[float] = 0.5
    whole_line: ClassVar[bool] = False

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        shape = (*components, observation.n_variables)
        return {"mean": ParamSpec(shape, Interval(0.0, 1.0), dims), "concentration": ParamSpec(shape, Positive(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        mean, c = params["mean"], params["concentration"]
        return DiagonalBeta(a=mean * c, b=(1.0 - mean) * c)

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        bad = bad[~((bad > 0) & (bad < 1))]
        if bad.size:
            raise SupportError(
                got=f"{bad.flat[0]:g} in {name}",
                expected="numbers strictly between 0 and 1, for Beta",
                remedy="Divide percentages by 100; move zeros and ones inside, such as to (x (n - 1) + 0.5) / n.",
            )

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        return standardized(_logit(x, seen), seen)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x, seen)
        mean = pooled.mean.clamp(_LEAST, 1 - _LEAST)
        return {"mean": mean, "concentration": (mean * (1 - mean) / pooled.variance - 1.0).clamp(0.1, 1e4)}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        inside = torch.where(seen, x, torch.full_like(x, 0.5))
        return masked(seen, inside.log(), torch.log1p(-inside))

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        a, b = _shapes(params)
        return torch.cat([torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b), a, b], -1)

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        _, logs, others = self.statistics(x, seen).chunk(3, -1)
        return -(logs + others).sum(-1)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        """digamma(a) - digamma(a + b) = mean(log x) and the same for b and 1 - x, by damped Newton's steps."""
        total, logs, others = sums.chunk(3, -1)
        filled = total > EMPTY
        g, h = (torch.where(filled, ratio(each, total), -1.0) for each in (logs, others))
        highest = self._highest(x, seen)
        a, b = _shapes(params)
        for _ in range(_ROUNDS):
            whole = torch.digamma(a + b)
            first, second = g - torch.digamma(a) + whole, h - torch.digamma(b) + whole
            p, q, c = torch.polygamma(1, a), torch.polygamma(1, b), torch.polygamma(1, a + b)
            determinant = (p * q - c * (p + q)).clamp_min(1e-300)
            step_a = ((q - c) * first + c * second) / determinant
            step_b = (c * first + (p - c) * second) / determinant
            new_a, new_b = (
                torch.minimum(torch.maximum(old + s, old / 4), old * 4) for old, s in ((a, step_a), (b, step_b))
            )
            settled = ((new_a - a).abs() <= 1e-12 * a) & ((new_b - b).abs() <= 1e-12 * b)
            a, b = new_a.clamp(_LEAST, _MOST), new_b.clamp(_LEAST, _MOST)
            if bool(settled.all()):
                break
        a, b = _below(a, b, g, h, highest)

        def likelihood(p: Params) -> Tensor:
            one, two = _shapes(p)
            beta = torch.lgamma(one) + torch.lgamma(two) - torch.lgamma(one + two)
            return one * logs + two * others - total * beta

        return never_lower(likelihood, {"mean": a / (a + b), "concentration": a + b}, params, filled)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return (params["concentration"] >= 0.999 * self._highest(x, seen)).any(-1)

    def _highest(self, x: Tensor, seen: Tensor) -> Tensor:
        return (0.25 / variance_floor(x, seen)).clamp_max(_MOST)


def _shapes(params: Params) -> tuple[Tensor, Tensor]:
    mean, c = params["mean"], params["concentration"]
    return mean * c, (1.0 - mean) * c


def _below(a: Tensor, b: Tensor, g: Tensor, h: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """Where a + b exceeds its bound: the best mean at the bound, by Newton's steps on the concave likelihood."""
    over = a + b > highest
    mean = a / (a + b)
    for _ in range(_ROUNDS):
        one, two = mean * highest, (1.0 - mean) * highest
        slope = g - torch.digamma(one) - h + torch.digamma(two)
        bend = highest * (torch.polygamma(1, one) + torch.polygamma(1, two))
        mean = torch.where(over, torch.minimum(torch.maximum(mean + slope / bend, mean / 2), (1 + mean) / 2), mean)
    return torch.where(over, mean * highest, a), torch.where(over, (1.0 - mean) * highest, b)


def _logit(x: Tensor, seen: Tensor) -> Tensor:
    return torch.logit(torch.where(seen, x, torch.full_like(x, 0.5)))
