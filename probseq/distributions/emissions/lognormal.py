"""The log-normal emission."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Exponential
from probseq.distributions.compose import push
from probseq.distributions.emissions.base import Observation, SufficientEmission
from probseq.distributions.emissions.gamma import check_positive
from probseq.distributions.emissions.normal import Normal
from probseq.distributions.estimation import floor_name, logarithms
from probseq.distributions.params import Params, ParamSpec

__all__ = ["LogNormal"]

Value = TypeVar("Value")
_NORMAL_NAMES = {"loc": "mean", "scale": "scale", "covariance": "covariance"}


class LogNormal(SufficientEmission):
    r"""log x ~ N(loc, Sigma): positive values whose logarithms are normal.

    Parameters
    ----------
    covariance : {"diag", "full", "spherical", "tied"}
        Of the logarithms, as in ``Normal``. Parameters: ``loc`` (k,), the mean of log x, and ``scale`` or
        ``covariance``. The mean of x_i is exp(loc_i + Sigma_ii / 2), its median exp(loc_i).

    Examples
    --------
    >>> import probseq as ps
    >>> x = [1.0, 2.0, 4.0]
    >>> model = ps.IID(ps.LogNormal()).fit(x)
    >>> round(float(model.forecast(1).median().squeeze()), 3)
    2.0
    """

    fill: ClassVar[float] = 1.0
    whole_line: ClassVar[bool] = False

    def __init__(self, covariance: str = "diag") -> None:
        self.covariance = covariance

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        return {
            name: replace(spec, unitless=True)
            for name, spec in _ours(self._normal.parameters(observation, components)).items()
        }

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return push(self._normal.distribution(_normals(params), components), Exponential())

    def from_outputs(self, outputs: Tensor, observation: Observation, constants: Params | None = None) -> Distribution:
        return push(self._normal.from_outputs(outputs, observation), Exponential())

    def check(self, values: np.ndarray, name: str = "the data") -> None:
        check_positive(values, name, "LogNormal")

    def points(self, observation: Observation, x: Tensor, seen: Tensor) -> Tensor:
        return self._normal.points(observation, logarithms(x, seen), seen)

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        return _ours(self._normal.pooled_params(observation, logarithms(x, seen), seen))

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        return _ours(self._normal.m_step(observation, logarithms(x, seen), seen, weights, _normals(params)))

    def statistics(self, x: Tensor, seen: Tensor) -> Tensor | None:
        return self._normal.statistics(logarithms(x, seen), seen)

    def from_statistics(self, x: Tensor, seen: Tensor, sums: Tensor, params: Params) -> dict[str, Tensor]:
        return _ours(self._normal.from_statistics(logarithms(x, seen), seen, sums, _normals(params)))

    def natural(self, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return self._normal.natural(logarithms(x, seen), seen, _normals(params))

    def log_base(self, x: Tensor, seen: Tensor) -> Tensor:
        return -logarithms(x, seen).sum(-1)

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return self._normal.states_at_floor(observation, logarithms(x, seen), seen, _normals(params))

    def floor_name(self, observation: Observation, x: Tensor, seen: Tensor) -> str:
        return floor_name(logarithms(x, seen), seen, "the data's logarithms")

    @property
    def _normal(self) -> Normal:
        return Normal(self.covariance)


def _normals(params: Params) -> dict[str, Tensor]:
    return {_NORMAL_NAMES[name]: value for name, value in params.items() if name in _NORMAL_NAMES}


def _ours(params: dict[str, Value]) -> dict[str, Value]:
    return {"loc" if name == "mean" else name: value for name, value in params.items()}
