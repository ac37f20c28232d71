"""Whether forecasts can be believed: coverage, reliability, sharpness and PIT as one labelled table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.errors import EmptyDataError, ParameterError, UnsupportedError
from probseq.evaluation.calibration import independence_test, pit, pit_histogram, uniformity_test
from probseq.evaluation.scores import check_levels
from probseq.results.backends import Backend
from probseq.results.forecast import Forecast

__all__ = ["calibration", "plot_calibration"]

_LEVELS = tuple(round(0.05 * i, 2) for i in range(1, 20))


def calibration(
    forecast: Forecast,
    y: Any,
    *,
    levels: Sequence[float] = _LEVELS,
    n_bins: int = 10,
    random_state: RandomState = 0,
) -> xr.Dataset:
    """Compare what a forecast promised with what came, each variable over all its steps and sequences.

    Parameters
    ----------
    forecast : Forecast
        One-step predictives (``predictive``) or a trajectory (``forecast``), or any other.
    y : the values that came, NaN = missing
    levels : probabilities in (0, 1), increasing
        Of central intervals, and of quantiles.
    n_bins : bars of the histogram of PIT values
    random_state : for counts, whose PIT is randomised

    Returns
    -------
    Dataset
        With ``variable`` in front where there are several:

        - ``coverage`` (level): share of the values inside the central interval, and ``coverage_error``, its standard
          error sqrt(p (1 - p) / n) if the forecast is right and values are independent; of counts the intervals hold
          more than ``level``, since no narrower ones exist;
        - ``sharpness`` (level): mean width of the interval, in the unit of the data: the smaller the better among
          forecasts that cover what they say;
        - ``reliability`` (level): share of the PIT values at most ``level``, how often a value stays below the
          quantile; randomised for counts, so that a right forecast has ``level`` itself;
        - ``pit_histogram`` (bin), a density over the middles of bins, with ``pit_lower`` and ``pit_upper``, between
          which 95 % of the bars of a right forecast are;
        - ``uniform_p``, the p-value of uniform PIT (Kolmogorov and Smirnov), and ``independent_p``, that of
          independent uniform ones (Berkowitz 2001), NaN for trajectories, whose steps err together; both p-values
          hold for independent values;
        - ``n_values``.

    Raises
    ------
    EmptyDataError
        No value of a variable is there and predicted.
    UnsupportedError
        All variables are categories.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> y = np.random.default_rng(0).normal(size=400)
    >>> narrow = ps.IID().with_parameters(mean=[0.0], scale=[0.5])
    >>> found = ps.calibration(narrow.predictive(y), y)
    >>> bool(found.coverage.sel(level=0.9) < 0.7), bool(found.uniform_p < 0.01)
    (True, True)
    """
    if not isinstance(forecast, Forecast):
        raise ParameterError(
            got=f"forecast of type {type(forecast).__name__}",
            expected="a Forecast",
            remedy="Write ps.calibration(model.predictive(test), test).",
        )
    asked = np.atleast_1d(check_levels(levels, "levels"))
    if asked.ndim != 1 or np.any(np.diff(asked) <= 0):
        raise ParameterError(got=f"levels={levels!r}", expected="increasing levels", remedy="Sort them.")
    whole_number("n_bins", n_bins, 2)
    backend, labels = forecast._backend, forecast._labels
    numbers = np.flatnonzero(~backend.nominal_variables)
    if not numbers.size:
        raise UnsupportedError(
            got="the calibration of categories", expected="numbers", remedy="Use forecast.brier_score(y)."
        )
    values = forecast._values(y)
    if forecast._scored is not None:
        values = np.where(forecast._scored, values, np.nan)
    u = _pit(backend, values, random_state)
    quantiles = backend.quantile(np.concatenate([(1 - asked) / 2, (1 + asked) / 2]))
    lower, upper = quantiles[..., : len(asked)], quantiles[..., len(asked) :]
    ordered = not forecast.future or forecast.n_steps == 1
    found = []
    for i in numbers:
        seen = ~np.isnan(values[..., i])
        if not seen.any():
            raise EmptyDataError(
                got=f"no value of variable {labels.variables[i]!r} that is there and predicted",
                expected="at least one",
                remedy="Pass longer data, or history=.",
            )
        ends = lower[:, :, i][seen], upper[:, :, i][seen]
        found.append(_one(values[..., i][seen], u[..., i], seen, ends, asked, int(n_bins), ordered))
    whole = xr.concat(found, "variable", data_vars="all", coords="minimal", compat="override", join="override")
    if labels.flat:
        whole = whole.isel(variable=0)
    else:
        whole = whole.assign_coords(variable=[labels.variables[i] for i in numbers])
    unit = labels.attrs.get("units")
    if unit is not None:
        whole["sharpness"].attrs["units"] = unit
    return whole.assign_attrs(method=forecast.method)


def _pit(backend: Backend, values: np.ndarray, random_state: RandomState) -> np.ndarray:
    """PIT values (n, t, k), randomised where numbers are counted."""
    upper, counted = backend.cdf(values), backend.discrete_variables
    if not counted.any():
        return upper
    below = np.where(counted, backend.cdf(values, left=True), upper)
    return pit(upper, below, numpy_generator(random_state).uniform(size=values.shape))


def _one(
    y: np.ndarray,
    each_pit: np.ndarray,
    seen: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    levels: np.ndarray,
    n_bins: int,
    ordered: bool,
) -> xr.Dataset:
    """The table of one variable: values (m,), PIT (n, t), ends (m, level)."""
    u = np.clip(np.where(seen, each_pit, np.nan), 0.0, 1.0)
    flat = u[seen]
    bars = pit_histogram(flat, n_bins)
    independent = float("nan")
    if ordered:
        # A sequence a row; NaN behind its end leaves no pair across two of them, unless it is full.
        breaks = tuple(range(u.shape[1], u.size, u.shape[1]))
        try:
            independent = independence_test(u, breaks).p_value
        except EmptyDataError:
            pass  # too few neighbours to test
    inside = (y[:, None] >= ends[0]) & (y[:, None] <= ends[1])
    return xr.Dataset(
        {
            "coverage": ("level", inside.mean(0)),
            "coverage_error": ("level", np.sqrt(levels * (1 - levels) / y.size)),
            "sharpness": ("level", (ends[1] - ends[0]).mean(0)),
            "reliability": ("level", (flat[:, None] <= levels).mean(0)),
            "pit_histogram": ("bin", bars.density),
            "pit_lower": bars.lower,
            "pit_upper": bars.upper,
            "uniform_p": uniformity_test(flat).p_value,
            "independent_p": independent,
            "n_values": y.size,
        },
        coords={"level": levels, "bin": (bars.edges[:-1] + bars.edges[1:]) / 2},
    )


def plot_calibration(found: xr.Dataset | Mapping[str, xr.Dataset], *, ax: Any = None) -> Any:
    """Draw coverage against its level, the histogram of PIT values, and the width of intervals, of one model or many.

    Parameters
    ----------
    found : what ``calibration`` returned, or a dict of such by the names of models; variables are drawn by themselves
    ax : three axes, or None

    Returns
    -------
    array of three Axes

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> train, test = ps.split(level, horizon=40)
    >>> forecast = ps.ARMA((1, 0)).fit(train).predictive(test, history=train)
    >>> axes = ps.plot_calibration(ps.calibration(forecast, test))
    >>> len(axes)
    3
    """
    from probseq.plotting import plot_calibration_curves

    tables = {"": found} if isinstance(found, xr.Dataset) else dict(found)
    curves = {}
    for name, table in tables.items():
        if not isinstance(table, xr.Dataset) or "pit_histogram" not in table:
            raise ParameterError(
                got=f"{type(table).__name__} under the name {name!r}",
                expected="what ps.calibration(forecast, y) returns",
                remedy="Pass plot_calibration(ps.calibration(forecast, y)).",
            )
        parts = {"": table}
        if "variable" in table.dims:
            parts = {str(v): table.sel(variable=v) for v in table["variable"].values}
        for variable, one in parts.items():
            curves[" ".join(word for word in (name, variable) if word)] = one
    if not curves:
        raise ParameterError(got="no curve", expected="at least one model", remedy="Pass one.")
    first = next(iter(curves.values()))
    return plot_calibration_curves(
        {name: (one["level"].values, one["coverage"].values, one["sharpness"].values) for name, one in curves.items()},
        {name: (one["bin"].values, one["pit_histogram"].values) for name, one in curves.items()},
        error=(first["level"].values, first["coverage_error"].values),
        band=(float(first["pit_lower"]), float(first["pit_upper"])),
        unit=str(first["sharpness"].attrs.get("units", "")),
        ax=ax,
    )
