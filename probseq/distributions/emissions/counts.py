"""Emissions of counts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.estimation import EMPTY, flat_rows, pooled_moments, ratio
from probseq.distributions.params import Params, ParamSpec, Positive
from probseq.errors import SupportError

__all__ = ["Poisson"]

_SMALL_RATE = 1e-10


class Poisson(Emission):
    r"""x_i ~ Poisson(rate_i), independent over the variables: counts per step."""

    measure: ClassVar[str] = "counting"

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        dims = ("state",) * len(components) + ("variable",)
        return {"rate": ParamSpec((*components, observation.n_variables), Positive(), dims)}

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return PoissonCounts(rate=params["rate"])

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_counts(values, name, "Poisson")

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        return {"rate": pooled_moments(x, seen).mean.clamp_min(_SMALL_RATE)}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        rows, seen, weights = flat_rows(x, seen, weights)
        mask = seen.to(x.dtype)
        total = weights.mT @ mask
        rate = ratio(weights.mT @ (mask * rows), total).clamp_min(_SMALL_RATE)
        return {"rate": torch.where(total > EMPTY, rate, params["rate"])}


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
