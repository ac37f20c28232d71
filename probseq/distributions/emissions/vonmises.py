"""The von Mises emission of angles."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.circular import DiagonalVonMises
from probseq.distributions.emissions.base import Observation, SufficientEmission, masked
from probseq.distributions.estimation import EMPTY, never_lower, ratio
from probseq.distributions.params import Params, ParamSpec, Positive, Real
from probseq.errors import SupportError

__all__ = ["VonMises"]

_ROUNDS = 12
_LEAST, _FLOOR = 1e-8, 1e-6


class VonMises(SufficientEmission):
    r"""p(x_i) = exp(c_i cos(x_i - loc_i)) / (2 pi I_0(c_i)), independent over the variables: angles, in radians.

    Data are angles in [-pi, pi]. Parameters: ``loc`` (k,), a direction (any real number, taken modulo 2 pi), and
    ``concentration`` c (k,), about the reciprocal of the variance where it is large. ``mean`` of a forecast is the mean
    direction, ``variance`` the circular variance 1 - \|E e^{ix}\|; the cdf, quantiles and intervals start at -pi.

    Examples
    --------
    >>> import probseq as ps
    >>> angles = [3.1, -3.1, 3.0, -3.0]
    >>> model = ps.IID(ps.VonMises()).fit(angles)
    >>> round(abs(float(model.params_["loc"].squeeze())), 2)
    3.14
    """

    whole_line: ClassVar[bool] = False

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        shape = (*components, observation.n_variables)
        return {
            "loc": ParamSpec(shape, Real(), dims, unitless=True),
            "concentration": ParamSpec(shape, Positive(), dims),
        }

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return DiagonalVonMises(loc=params["loc"], concentration=params["concentration"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        bad = values[~np.isnan(values)]
        bad = bad[~(np.abs(bad) <= math.pi)]
        if bad.size:
            raise SupportError(
                got=f"{bad.flat[0]:g} in {name}",
                expected="angles in radians from -pi to pi, for VonMises",
                remedy="Wrap them: (x + np.pi) % (2 * np.pi) - np.pi; np.deg2rad turns degrees into radians.",
            )

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        mask = seen.to(x.dtype)
        return torch.cat([mask * x.cos(), mask * x.sin()], -1)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        sums = self.statistics(x, seen).sum((0, 1)).reshape(1, 1, -1)
        like = torch.ones(1, 1, x.shape[-1], dtype=x.dtype)
        found = self.from_statistics(x, seen, sums, {"loc": 0.0 * like, "concentration": like})
        return {name: value[0, 0] for name, value in found.items()}

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor:
        return masked(seen, x.cos(), x.sin())

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        c, loc = params["concentration"], params["loc"]
        constant = -c - torch.special.i0e(c).log() - math.log(2.0 * math.pi)
        return torch.cat([constant, c * loc.cos(), c * loc.sin()], -1)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        """I_1(c) / I_0(c) = mean resultant length, by Newton's steps (Best and Fisher 1981 for the start)."""
        total, along, across = sums.chunk(3, -1)
        filled = total > EMPTY
        loc = torch.atan2(across, along)
        length = ratio(torch.hypot(along, across), total).clamp(0.0, 1.0 - 1e-15)
        c = length * (2.0 - length**2) / (1.0 - length**2)
        highest = self._highest(x, seen)
        for _ in range(_ROUNDS):
            c = torch.minimum(c.clamp_min(_LEAST), highest)
            share = torch.special.i1e(c) / torch.special.i0e(c)
            bend = (1.0 - share**2 - share / c).clamp_min(1e-300)
            step = (share - length) / bend
            c = torch.minimum(torch.maximum(c - step, c / 4), c * 4)
            if bool((step.abs() <= 1e-12 * c).all()):
                break
        new = {"loc": loc, "concentration": torch.minimum(c.clamp_min(_LEAST), highest)}

        def likelihood(p: Params) -> Tensor:
            c = p["concentration"]
            # c (sum cos(x - loc) - n) keeps its digits where c is large.
            gap = along * p["loc"].cos() + across * p["loc"].sin() - total
            return c * gap - total * torch.special.i0e(c).log()

        return never_lower(likelihood, new, params, filled)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return (params["concentration"] >= 0.999 * self._highest(x, seen)).any(-1)

    def _highest(self, x: Tensor, seen: Tensor) -> Tensor:
        """The concentration whose variance is 1e-6 of that of the data, (k,)."""
        total, along, across = self.statistics(x, seen).sum((0, 1)).chunk(3, -1)
        variance = 2.0 * (1.0 - torch.hypot(along, across) / total.clamp_min(1.0))
        return 1.0 / (_FLOOR * variance.clamp_min(1e-6))
