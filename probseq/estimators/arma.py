"""ARMA models for users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import xarray as xr

from probseq._random import RandomState
from probseq._types import Rule, one_of, or_none, whole_number
from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError, ParameterError
from probseq.estimators.arma_diagnostics import ARMADiagnostics
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo
from probseq.inference.advi import ADVI
from probseq.inference.base import Inference
from probseq.inference.collapsed import Collapsed
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.arma_orders import LagSet, Order, SeasonalOrder
from probseq.models.arma_roots import Factor, factor_roots
from probseq.models.base import SequenceModel
from probseq.models.conditional_arma import ConditionalARMAModel
from probseq.models.volatility import GARCH
from probseq.models.wrappers import innermost

__all__ = ["ARIMA", "ARMA"]


class ARMA(ARMADiagnostics, SequenceEstimator):
    r"""phi(B) Phi(B^s) (Delta(B) (x_t - u_t' beta - w_t' gamma) - mean - trend t) = theta(B) Theta(B^s) e_t.

    Seasonal ARIMA model with regression on covariates u_t and on waves w_t, e_t ~ N(0, scale^2), Delta(B) = (1 - B)^d
    (1 - B^s)^D; exact maximum likelihood, with gaps and differences inside the state space. With other innovations, or
    with a volatility, the likelihood is conditional on the first values, and gaps raise.

    Parameters
    ----------
    order : (p, q) or (p, d, q)
        p and q are numbers of lags, or lists of the only lags that have a coefficient: ``([1, 4, 12], 0, [1, 4])``.
        Estimates are stationary and invertible in either case; the other coefficients are zero and not counted.
    seasonal_order : (P, D, Q, period), or (P, D, Q) with ``period``
        P and Q likewise, in seasons.
    period : int or None
        Steps in a season.
    trend : "n", "c", "t", "ct" or None
        A mean of the differenced series ("c"), a slope ("t"), both, or neither ("n"). With one difference in all the
        mean is a drift, a straight line in the levels, as in fable and statsmodels' SARIMAX, and the slope makes a
        parabola; with two a parabola and a cubic. None is "c" without differences and "n" with them. The trend is
        ``mean + trend t`` itself, not an intercept of the autoregression, and t = 1 at a sequence's first step.
    fourier : dict or None
        Known periods, whole numbers or not, and how many harmonics of each: ``{365.25: 3, 7: 2}`` adds three sines and
        three cosines of the year and two of each of the week to the levels, before any difference.
    innovations : {"normal", "studentt", "laplace", "skewt"}
        The law of e_t, with mean 0 and standard deviation ``scale`` in every case. ``df``, above 2.05, are the degrees
        of freedom of a Student t; "skewt" stretches its upper half by ``skewness`` and shrinks the lower one by it
        (Fernandez and Steel 1998).
    volatility : GARCH or None
        ``ps.GARCH(1, 1)`` lets the variance of e_t move, in place of ``scale``.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``.
    random_state : int or None

    Notes
    -----
    With Laplace, Student t or skewed innovations, or with a volatility, the first d + s D values and the next p (the
    highest lag of phi(B) Phi(B^s)) are conditioned on and not scored, innovations before are zero and the first
    variance is the unconditional one; ``model_.likelihood`` and ``summary().attrs`` then say "conditional". Compare
    such models on values that all score, as ``compare`` does. Forecasts of several steps are simulated paths around
    the exact mean. The Laplace density has no curvature: its standard errors come from the products of the scores.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.air_passengers()
    >>> model = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log()).fit(y)
    >>> model.params_["ma"].values.round(3)
    array([-0.402])

    Only some lags, and a year of weeks as two waves:

    >>> co2 = ps.datasets.co2()
    >>> weekly = ps.ARMA(order=([1, 2, 13], 1, 0), fourier={52.18: 2}).fit(co2[-300:])
    >>> weekly.params_["ar"].coords["ar_lag"].values
    array([ 1,  2, 13])

    Fat tails and volatility that comes in clusters, fitted together:

    >>> import numpy as np
    >>> returns = 100 * np.log(ps.datasets.sp500()).diff("time")
    >>> garch = ps.ARMA((1, 0), innovations="studentt", volatility=ps.GARCH(1, 1)).fit(returns)
    >>> garch.model_.likelihood
    'conditional'

    References
    ----------
    Box and Jenkins (1976), Time Series Analysis: Forecasting and Control; for waves in place of long seasons, Hyndman
    and Athanasopoulos (2021), Forecasting: Principles and Practice, section 10.5.
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, MAP, Laplace, ADVI, NUTS, Collapsed)
    rules: ClassVar[Mapping[str, Rule]] = {
        "period": or_none(partial(whole_number, lowest=1)),
        "trend": or_none(partial(one_of, choices=("n", "c", "t", "ct"))),
        "innovations": partial(one_of, choices=("normal", "studentt", "laplace", "skewt")),
    }

    def __init__(
        self,
        order: Sequence[int | Sequence[int]] = (1, 0, 1),
        seasonal_order: Sequence[int | Sequence[int]] = (0, 0, 0),
        period: int | None = None,
        trend: str | None = None,
        fourier: Mapping[float, int] | None = None,
        innovations: str = "normal",
        volatility: GARCH | None = None,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.order = order
        self.seasonal_order = seasonal_order
        self.period = period
        self.trend = trend
        self.fourier = fourier
        self.innovations = innovations
        self.volatility = volatility
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return ConditionalARMAModel if self._is_conditional() else ARMAModel

    def _is_conditional(self) -> bool:
        """Whether the likelihood is conditional on the first values."""
        words = getattr(self, "innovations", "normal")
        return (isinstance(words, str) and words != "normal") or getattr(self, "volatility", None) is not None

    def _require(self, inference: Any) -> None:
        super()._require(inference)
        if isinstance(inference, Laplace) and getattr(self, "innovations", None) == "laplace":
            raise IncompatibleError(
                got='inference=Laplace() with innovations="laplace", whose density has a kink where it is highest',
                expected="a likelihood with a curvature",
                remedy="Use NUTS(), or MLE(), whose standard errors come from the scores.",
            )

    def _orders(self) -> tuple[Order, SeasonalOrder]:
        order = _parts(self.order, "order", (2, 3), "(p, q) or (p, d, q)")
        p, d, q = (order[0], 0, order[1]) if len(order) == 2 else order
        seasonal = _parts(self.seasonal_order, "seasonal_order", (3, 4), "(P, D, Q) or (P, D, Q, period)")
        period = self.period
        if len(seasonal) == 4:
            if period is not None and period != seasonal[3]:
                raise ParameterError(
                    got=f"period={period} and seasonal_order={self.seasonal_order}",
                    expected="one length of the season",
                    remedy="Leave period= out.",
                )
            period = cast(int, seasonal[3])
        if any(seasonal[:3]) and (period is None or period < 2):
            raise ParameterError(
                got=f"seasonal_order={self.seasonal_order} with period={period}",
                expected="a period of at least 2 steps",
                remedy="Write seasonal_order=(0, 1, 1, 12) or period=12.",
            )
        used = int(period) if any(seasonal[:3]) and period is not None else 1
        return (p, cast(int, d), q), (seasonal[0], cast(int, seasonal[1]), seasonal[2], used)

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        order, seasonal = self._orders()
        trend, fourier = self.trend, self.fourier
        if fourier is not None and not isinstance(fourier, Mapping):
            raise ParameterError(
                got=f"fourier={fourier!r}",
                expected="a dict of periods and numbers of harmonics",
                remedy="Write fourier={365.25: 3, 7: 2}.",
            )
        if trend is None:
            trend = "n" if order[1] + seasonal[1] else "c"
        terms = ("c" in trend, info.n_covariates, "t" in trend, tuple((fourier or {}).items()))
        if self._is_conditional():
            laws = (self.innovations, self.volatility)
            return ConditionalARMAModel(Observation(info.n_variables), order, seasonal, *terms, *laws)
        return ARMAModel(Observation(info.n_variables), order, seasonal, *terms)

    def _names(self) -> dict[str, Any]:
        model = innermost(self.model_.model)
        if not isinstance(model, ARMAModel | ConditionalARMAModel):
            return super()._names()
        lags = dict(zip(("ar_lag", "ma_lag", "seasonal_ar_lag", "seasonal_ma_lag"), model.own_lags, strict=True))
        return {**super()._names(), **lags, "fourier_term": model.terms.names, "garch_term": list(GARCH.terms)}

    def roots(self) -> xr.Dataset:
        """Roots of the whole autoregressive and moving-average polynomials; stationary and invertible outside 1."""
        self._check_fitted()
        model, params = self._arma(), self.model_.params
        found: dict[str, list[np.ndarray]] = {"ar": [], "ma": []}
        for name, lags in zip(("ar", "ma", "seasonal_ar", "seasonal_ma"), model.own_lags, strict=True):
            if lags.size:
                kind = name.removeprefix("seasonal_")
                word = "autoregressive" if kind == "ar" else "moving-average"
                factor = Factor(word, lags, params[name][0].numpy(), model.period if name != kind else 1)
                # A root of a polynomial in B^step stands for its step-th roots.
                turns = np.exp(2j * np.pi * np.arange(factor.step) / factor.step)
                powers = factor_roots(factor).astype(complex) ** (1.0 / factor.step)
                found[kind].append((powers[:, None] * turns).ravel())
        return xr.Dataset(
            {kind: (f"{kind}_root", np.concatenate([np.zeros(0, complex), *parts])) for kind, parts in found.items()}
        )

    def summary(self) -> pd.DataFrame:
        """Estimates with standard errors, z values and 95 % intervals; what the fit reached is in ``attrs``.

        Coefficients are named by their lags, in seasons where they are seasonal, by their covariate or their wave.
        """
        self._check_fitted()
        estimates = self.params_
        rows = {}
        for name, value in estimates.items():
            flat = np.atleast_1d(value.values)
            known = [str(label) for label in value.coords[value.dims[-1]].values] if value.coords else []
            for i, v in enumerate(flat.ravel()):
                label = known[i] if len(known) == flat.size else str(i + 1)
                rows[f"{name}[{label}]" if value.ndim else str(name)] = {"estimate": float(v)}
        table = pd.DataFrame.from_dict(rows, orient="index")
        if self.draws_.covariance is not None:
            errors = self.standard_errors_
            table["std_error"] = np.concatenate([np.atleast_1d(errors[name].values).ravel() for name in estimates])
            table["z"] = table["estimate"] / table["std_error"]
            table["lower"] = table["estimate"] - 1.959964 * table["std_error"]
            table["upper"] = table["estimate"] + 1.959964 * table["std_error"]
        table.attrs = {
            "log_likelihood": self.log_likelihood_,
            "likelihood": self.model_.likelihood,
            "aic": self.aic,
            "bic": self.bic,
            "n_scored": self.n_scored_,
            "status": self.status_,
        }
        return table


ARIMA = ARMA


def _parts(value: Any, name: str, sizes: tuple[int, ...], expected: str) -> tuple[LagSet, ...]:
    """Orders as whole numbers, and lists of lags as tuples; every second entry and a period are numbers."""
    good = isinstance(value, tuple | list | np.ndarray) and len(value) in sizes
    parts: list[LagSet] = []
    for i, part in enumerate(value if good else ()):
        listed = isinstance(part, tuple | list | np.ndarray)
        lags = list(part) if listed else [part]
        good = good and all(isinstance(v, int | np.integer) and not isinstance(v, bool) and v >= listed for v in lags)
        good = good and not (listed and (i == 3 or (i == 1 and len(value) > 2))) and len(set(lags)) == len(lags)
        if good:
            parts.append(tuple(sorted(int(v) for v in lags)) if listed else int(part))
    if not good:
        raise ParameterError(
            got=f"{name}={value!r}",
            expected=f"whole numbers from 0, {expected}, or distinct lags from 1 in a list in place of a number",
            remedy=f"Check {name}.",
        )
    return tuple(parts)
