"""ARMA models for users."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import xarray as xr

from probseq._random import RandomState
from probseq.distributions.emissions import Observation
from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo
from probseq.inference.base import Inference
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.base import SequenceModel
from probseq.models.wrappers import innermost

__all__ = ["ARIMA", "ARMA"]


class ARMA(SequenceEstimator):
    """Seasonal ARIMA model with regression, exact maximum likelihood; gaps and differences inside the state space.

    Parameters
    ----------
    order : (p, q) or (p, d, q)
    seasonal_order : (P, D, Q, period), or (P, D, Q) with ``period``
    period : int or None
        Steps in a season.
    constant : bool or None
        Whether the (differenced) series has a mean; None means yes without differences and no with them.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``.
    random_state : int or None

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.air_passengers()
    >>> model = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log()).fit(y)
    >>> model.params_["ma"].values.round(3)
    array([-0.402])
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, MAP, Laplace, NUTS)

    def __init__(
        self,
        order: tuple[int, ...] = (1, 0, 1),
        seasonal_order: tuple[int, ...] = (0, 0, 0),
        period: int | None = None,
        constant: bool | None = None,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.order = order
        self.seasonal_order = seasonal_order
        self.period = period
        self.constant = constant
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return ARMAModel

    def _orders(self) -> tuple[tuple[int, int, int], tuple[int, int, int, int]]:
        order = _whole(self.order, "order", (2, 3), "(p, q) or (p, d, q)")
        p, d, q = (order[0], 0, order[1]) if len(order) == 2 else order
        seasonal = _whole(self.seasonal_order, "seasonal_order", (3, 4), "(P, D, Q) or (P, D, Q, period)")
        period = self.period
        if len(seasonal) == 4:
            if period is not None and period != seasonal[3]:
                raise ParameterError(
                    got=f"period={period} and seasonal_order={self.seasonal_order}",
                    expected="one length of the season",
                    remedy="Leave period= out.",
                )
            period = seasonal[3]
        if any(seasonal[:3]) and (period is None or period < 2):
            raise ParameterError(
                got=f"seasonal_order={self.seasonal_order} with period={period}",
                expected="a period of at least 2 steps",
                remedy="Write seasonal_order=(0, 1, 1, 12) or period=12.",
            )
        used = int(period) if any(seasonal[:3]) and period is not None else 1
        return (p, d, q), (seasonal[0], seasonal[1], seasonal[2], used)

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        order, seasonal = self._orders()
        constant = (order[1] + seasonal[1] == 0) if self.constant is None else bool(self.constant)
        return ARMAModel(Observation(info.n_variables), order, seasonal, constant, info.n_covariates)

    def _arma(self) -> ARMAModel:
        return cast(ARMAModel, innermost(self.model_.model))

    def roots(self) -> xr.Dataset:
        """Roots of the whole autoregressive and moving-average polynomials; stationary and invertible outside 1."""
        self._check_fitted()
        model = self._arma()
        ar, ma = (c[0].numpy() for c in model.polynomials(self.model_.params))
        found = {}
        for name, lags, coefficients, sign in (("ar", model.lags.ar, ar, -1.0), ("ma", model.lags.ma, ma, 1.0)):
            poly = np.zeros(int(lags[-1]) + 1 if lags.size else 1)
            poly[0] = 1.0
            if lags.size:
                poly[lags] = sign * coefficients
            found[name] = (f"{name}_root", np.roots(poly[::-1]))
        return xr.Dataset(found)

    def summary(self) -> pd.DataFrame:
        """Estimates with standard errors, z values and 95 % intervals; what the fit reached is in ``attrs``."""
        self._check_fitted()
        estimates = self.params_
        rows = {}
        for name, value in estimates.items():
            flat = np.atleast_1d(value.values)
            for i, v in enumerate(flat.ravel()):
                rows[f"{name}[{i + 1}]" if value.ndim else str(name)] = {"estimate": float(v)}
        table = pd.DataFrame.from_dict(rows, orient="index")
        if self.draws_.covariance is not None:
            errors = self.standard_errors_
            table["std_error"] = np.concatenate([np.atleast_1d(errors[name].values).ravel() for name in estimates])
            table["z"] = table["estimate"] / table["std_error"]
            table["lower"] = table["estimate"] - 1.959964 * table["std_error"]
            table["upper"] = table["estimate"] + 1.959964 * table["std_error"]
        table.attrs = {
            "log_likelihood": self.log_likelihood_,
            "aic": self.aic,
            "bic": self.bic,
            "n_scored": self.n_scored_,
            "status": self.status_,
        }
        return table


ARIMA = ARMA


def _whole(value: Any, name: str, sizes: tuple[int, ...], expected: str) -> tuple[int, ...]:
    good = isinstance(value, tuple | list | np.ndarray) and len(value) in sizes
    good = good and all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= 0 for v in value)
    if not good:
        raise ParameterError(
            got=f"{name}={value!r}", expected=f"whole numbers from 0, {expected}", remedy=f"Check {name}."
        )
    return tuple(int(v) for v in value)
