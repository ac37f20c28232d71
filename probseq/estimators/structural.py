"""Structural time series for users: local levels and trends, with seasons and regression."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
import xarray as xr

from probseq._random import RandomState
from probseq._types import Rule, one_of, or_none, truth_value, whole_number
from probseq.distributions.emissions import Observation
from probseq.errors import ParameterError
from probseq.estimators.gaussian_states import GaussianStates
from probseq.estimators.pipeline import DataInfo
from probseq.inference.advi import ADVI
from probseq.inference.base import Inference
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.structural import StructuralModel

__all__ = ["LocalLevel", "LocalTrend"]


class _Structural(GaussianStates):
    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, MAP, Laplace, ADVI, NUTS)
    rules: ClassVar[Mapping[str, Rule]] = {
        "period": or_none(partial(whole_number, lowest=2, remedy="Use period=12 for months.")),
        "seasonal": partial(one_of, choices=("dummy", "trigonometric")),
    }
    period: int | None
    seasonal: str

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.seasonal != "dummy" and self.period is None:
            raise ParameterError(
                got=f'seasonal="{self.seasonal}" without a period',
                expected="the number of steps of a season",
                remedy="Write period=12 for months, or leave seasonal out.",
            )

    def _default_inference(self) -> Inference:
        return MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return StructuralModel

    def smooth(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.Dataset:
        """Level, slope and season given all the data, on the scale of the transformed data; exact, also over gaps.

        Parameters
        ----------
        X : data in any form, NaN = missing

        Returns
        -------
        Dataset, dims ``sequence, time``. ``level``, ``slope``, ``seasonal`` are expectations, ``regression`` is what
        covariates add and ``signal`` the sum of all but noise and slope; each with its standard deviation, as
        ``level_std``. ``irregular_z``, ``level_z``, ``slope_z`` and ``seasonal_z`` are the disturbances over their
        standard deviations, N(0, 1) under the model (Harvey and Koopman 1992, Journal of Business and Economic
        Statistics 10, 377-389): a large ``irregular_z`` marks an outlier, a large ``level_z`` a shift of the level
        between this step and the next. Several parameter draws are averaged.
        """
        data = self._borrow(X, lengths, covariates)
        found, smoothed, weights, first = self._smoothed(data, history)
        model = cast(StructuralModel, found)
        w = weights[..., None]
        parts: dict[str, torch.Tensor] = {}

        def add(name: str, mean: torch.Tensor, variance: torch.Tensor) -> None:
            parts[name] = (w * mean).sum(0)
            spread = (w * (variance.clamp_min(0.0) + (mean - parts[name]) ** 2)).sum(0)
            parts[f"{name}_std"] = spread.sqrt()

        for name, component in model.components.items():
            row = torch.from_numpy(component.weights)
            add(name, smoothed.mean @ row, (smoothed.cov @ row) @ row)
        signal = smoothed.signal[..., 0]
        if model.n_covariates:
            own = smoothed.mean @ torch.from_numpy(model.row)
            add("regression", signal - own, torch.zeros_like(signal))
        add("signal", signal, smoothed.signal_cov[..., 0, 0])
        scores = {"irregular": smoothed.noise_z[..., 0]}
        for name, component in model.components.items():
            each = smoothed.shock_z[..., component.states]
            # Harmonics are shaken one by one: the largest tells where.
            scores[name] = each.gather(-1, each.abs().argmax(-1, keepdim=True)).squeeze(-1)
        parts |= {f"{name}_z": (w * value).sum(0) for name, value in scores.items()}
        behind = ~data.mask()
        labelled = {}
        for name, value in parts.items():
            array = np.pad(value.numpy(), ((0, 0), (first, 0)), constant_values=np.nan)
            labelled[name] = data.label(np.where(behind, np.nan, array), ("sequence", "time"), name=name)
        return xr.Dataset(labelled)


class LocalLevel(_Structural):
    """A level that walks, seen with noise; a season and regression on covariates beside. Exact, also over gaps.

    x_t = level_t + season_t + beta' u_t + eps_t, level_(t+1) = level_t + xi_t. `params_` are the standard deviations
    ``scale`` (noise), ``level_scale`` and ``seasonal_scale``, and ``coefficients``. As many first values as the level
    and the season need are conditioned on, not scored.

    Parameters
    ----------
    period : int or None
        Steps in a season; None is no season.
    seasonal : "dummy" or "trigonometric"
        How the season changes: its sum over a period is noise, or each harmonic is shaken.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``.
    random_state : int or None

    References
    ----------
    Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter; Durbin and Koopman (2012), Time
    Series Analysis by State Space Methods.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.cumsum(np.random.default_rng(0).normal(size=200)) + np.random.default_rng(1).normal(size=200)
    >>> model = ps.LocalLevel().fit(x)
    >>> model.smooth(x)["level"].dims
    ('time',)
    """

    def __init__(
        self,
        period: int | None = None,
        seasonal: str = "dummy",
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.period = period
        self.seasonal = seasonal
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        return StructuralModel(
            Observation(info.n_variables), False, False, self.period, self.seasonal, info.n_covariates
        )


class LocalTrend(_Structural):
    """A level with a slope, both of which walk, seen with noise; a season and regression beside. Exact, also over gaps.

    x_t = level_t + season_t + beta' u_t + eps_t, level_(t+1) = level_t + slope_t + xi_t, slope_(t+1) = slope_t + zeta_t
    (damping times slope_t where damped). `params_` as in `LocalLevel`, with ``slope_scale`` and ``damping``.

    Parameters
    ----------
    damped : bool
        Whether the slope dies away, by a factor ``damping`` in (0, 1) a step.
    period : int or None
        Steps in a season; None is no season.
    seasonal : "dummy" or "trigonometric"
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``.
    random_state : int or None

    References
    ----------
    Harvey (1989), Forecasting, Structural Time Series Models and the Kalman Filter, section 2.3.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.air_passengers()
    >>> model = ps.LocalTrend(period=12, transform=ps.Log()).fit(y)
    >>> model.forecast(12).mean().sizes["time"]
    12
    """

    rules: ClassVar[Mapping[str, Rule]] = {**_Structural.rules, "damped": truth_value}

    def __init__(
        self,
        damped: bool = False,
        period: int | None = None,
        seasonal: str = "dummy",
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.damped = damped
        self.period = period
        self.seasonal = seasonal
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        return StructuralModel(
            Observation(info.n_variables), True, bool(self.damped), self.period, self.seasonal, info.n_covariates
        )
