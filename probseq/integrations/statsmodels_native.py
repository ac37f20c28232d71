"""State-space results of statsmodels whose specification is one of ours: `ARMA`, `LocalLevel` and `LocalTrend`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Polynomial

from probseq.data.sequences import Sequences
from probseq.estimators.arma import ARMA
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import fit_transforms
from probseq.estimators.structural import LocalLevel, LocalTrend
from probseq.inference.base import Draws

__all__ = ["native_model"]

Parts = tuple[SequenceEstimator, dict[str, Any]]

_FACTOR = re.compile(r"(ar|ma)\.(S\.)?(?:D+\d*\.)*L(\d+)")


def native_model(results: Any, coefficients: np.ndarray, data: Sequences, status: str) -> SequenceEstimator | None:
    """Our own fitted model with the parameters of ``MLEResults``, None where we have none with this specification.

    coefficients : (m,), of the regressors in the data.
    """
    kinds = {cls.__name__ for cls in type(results.model).__mro__}
    parts = _arma(results) if "SARIMAX" in kinds else _structural(results) if "UnobservedComponents" in kinds else None
    if parts is None:
        return None
    estimator, values = parts
    if coefficients.size:
        values["coefficients"] = coefficients
    info = estimator._info(data)
    model = estimator._build(info)
    specs = model.parameters()
    params = {
        name: torch.as_tensor(np.asarray(values[name], dtype=np.float64)).reshape(specs[name].shape) for name in specs
    }
    if any(spec.constraint.violation(params[name]) for name, spec in specs.items()):
        return None
    draws = Draws({name: value.unsqueeze(0) for name, value in params.items()}, np.nan, np.nan, status)
    transforms, *_ = fit_transforms([], data)
    estimator._adopt(model, transforms, draws, info, data)
    estimator.draws_ = replace(draws, log_prob=estimator.log_likelihood_, objective=estimator.log_likelihood_)
    estimator.fit_seconds_ = 0.0
    return estimator


def _arma(results: Any) -> Parts | None:
    """Differences that start diffuse, and a stationary process behind them."""
    model, found = results.model, results.filter_results
    if model.measurement_error or model.hamilton_representation or model.time_varying_regression:
        return None
    start = found.initialization
    d, seasonal_d, period = int(model.order[1]), int(model.seasonal_order[1]), int(model.seasonal_order[3])
    kinds = [start.initialization_type] if start.initialization_type else []
    kinds += [block.initialization_type for block in start.blocks.values()]
    if kinds not in (["stationary"], ["approximate_diffuse", "stationary"], ["diffuse", "stationary"]):
        return None
    if (len(kinds) == 2) != (d + seasonal_d > 0):
        return None
    lags: dict[str, list[int]] = {"ar": [], "ma": [], "seasonal_ar": [], "seasonal_ma": []}
    values: dict[str, Any] = {name: [] for name in lags}
    for name, value in zip(model.param_names, np.asarray(results.params), strict=True):
        matched = _FACTOR.fullmatch(name)
        if matched:
            kind, seasonal, lag = matched.groups()
            factor = f"seasonal_{kind}" if seasonal else kind
            lags[factor].append(int(lag) // (period if seasonal else 1))
            values[factor].append(value)
    trend = _trend(results, d, seasonal_d, period, values)
    if trend is None:
        return None
    variance = found.scale if found.filter_concentrated else dict(zip(model.param_names, results.params))["sigma2"]
    values |= {"mean": trend[1], "trend": trend[2], "scale": np.sqrt(variance)}
    p, q, seasonal_p, seasonal_q = (_compact(lags[name]) for name in ("ar", "ma", "seasonal_ar", "seasonal_ma"))
    any_season = bool(seasonal_p or seasonal_d or seasonal_q)
    seasonal_order = (seasonal_p, seasonal_d, seasonal_q, period) if any_season else (0, 0, 0)
    return ARMA((p, d, q), seasonal_order, trend=trend[0]), values


def _compact(lags: list[int]) -> int | list[int]:
    """A number of lags, or the lags where some are left out."""
    return len(lags) if lags == list(range(1, len(lags) + 1)) else lags


def _trend(
    results: Any, d: int, seasonal_d: int, period: int, values: dict[str, Any]
) -> tuple[str, float, float] | None:
    """Our name of the trend, the mean and the slope of the differenced series; None where there is no such trend."""
    model, params = results.model, np.asarray(results.params, dtype=np.float64)
    spec = getattr(model, "_spec_arima", None)
    if spec is None:  # an intercept of the autoregression
        if not model._k_trend:
            return "n", 0.0, 0.0
        if model._k_trend > 1 or not model.polynomial_trend[0]:
            return None
        return "c", params[0] / ((1.0 - sum(values["ar"])) * (1.0 - sum(values["seasonal_ar"]))), 0.0
    terms = [int(term) for term in spec.trend_terms]
    at = Polynomial([spec.trend_offset - 1.0, 1.0])
    line = sum((c * at**term for c, term in zip(params, terms)), Polynomial([0.0]))
    for lag in [1] * d + [period] * seasonal_d:
        line = line - line(Polynomial([-float(lag), 1.0]))
    mean, slope = np.pad(line.coef, (0, 2))[:2]
    name = "".join(letter for i, letter in enumerate("ct") if d + seasonal_d + i in terms)
    if any(term > d + seasonal_d + 1 for term in terms) or (mean and "c" not in name):
        return None
    return name or "n", float(mean), float(slope)


def _structural(results: Any) -> Parts | None:
    """A level, perhaps with a slope, a dummy season and noise, all of which move; a diffuse start."""
    model = results.model
    plain = model.irregular and model.level and model.stochastic_level and results.filter_results.scale == 1.0
    others = model.cycle or model.autoregressive or model.freq_seasonal
    still = (model.trend and not model.stochastic_trend) or (model.seasonal and not model.stochastic_seasonal)
    start = results.filter_results.initialization.initialization_type
    if not plain or others or still or start not in ("approximate_diffuse", "diffuse"):
        return None
    names = {"irregular": "scale", "level": "level_scale", "trend": "slope_scale", "seasonal": "seasonal_scale"}
    variances = {
        name.removeprefix("sigma2.").partition("(")[0]: value
        for name, value in zip(model.param_names, np.asarray(results.params))
        if name.startswith("sigma2.")
    }
    if set(variances) - set(names):
        return None
    values = {names[name]: np.sqrt(value) for name, value in variances.items()}
    period = int(model.seasonal_periods) if model.seasonal else None
    return (LocalTrend(period=period) if model.trend else LocalLevel(period=period)), values
