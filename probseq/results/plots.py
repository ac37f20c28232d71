"""Labelled results drawn by ``probseq.plotting``: fan charts of forecasts, and who predicts better when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.errors import ParameterError, UnsupportedError
from probseq.plotting import PALETTE, axes_in, plot_cumulative_difference, plot_fan, plot_quantiles
from probseq.results.law_plots import draw_bars, draw_ridge, draw_shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probseq.data.sequences import Sequences
    from probseq.results.forecast import Forecast

__all__ = ["plot_comparison", "plot_forecast", "stamps", "unit_label"]

_HORIZONS_OF_HISTORY = 4
_KINDS = ("fan", "quantiles", "paths", "ridge", "bars", "shades")
_PATHS = 100


def stamps(index: pd.Index) -> np.ndarray:
    """Times that matplotlib understands: local clock times, numbers, or the number of the step for anything else."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        return np.asarray(index.tz_localize(None).to_numpy(), dtype="datetime64[ns]")
    if index.dtype.kind in "iuf":
        return index.to_numpy()
    return np.arange(len(index))


def plot_forecast(
    forecast: Forecast,
    truth: Any = None,
    *,
    kind: str | None = None,
    sequence: int = 0,
    levels: Sequence[float] = (0.5, 0.9),
    history: int | None = None,
    n_paths: int = 0,
    color: str = PALETTE[0],
    ax: Any = None,
) -> Any:
    """Draw a forecast of one sequence, one panel a variable; see ``Forecast.plot``.

    Returns
    -------
    Axes, or an array of them where there are several variables. ``ax`` takes the same.

    Raises
    ------
    ParameterError
        If there is no such sequence or kind, or ``ax`` does not have one panel a variable.
    UnsupportedError
        A picture of numbers for categories, or the other way round.
    """
    n, _, k = forecast._backend.shape
    if not -n <= sequence < n:
        raise ParameterError(got=f"sequence={sequence}", expected=f"a number below {n}", remedy="They count from 0.")
    sequence %= n
    kind = _kind(kind, forecast)
    length = len(forecast._index[sequence])
    seen = None if truth is None else forecast._values(truth)[sequence, :length]
    if kind in ("bars", "shades"):
        [panel] = _panels(ax, 1)
        draw_bars(forecast, sequence, seen, panel) if kind == "bars" else draw_shades(forecast, sequence, seen, panel)
        return panel
    panels = _panels(ax, k, tall=kind == "ridge")
    names = [unit_label(forecast._labels, j) for j in range(k)]
    if kind == "ridge":
        draw_ridge(forecast, sequence, seen, panels, names, color)
    else:
        _draw_steps(forecast, sequence, seen, panels, names, kind, tuple(levels), history, n_paths, color)
    return panels[0] if k == 1 else np.array(panels, dtype=object)


def _kind(kind: str | None, forecast: Forecast) -> str:
    """The kind of picture, by default that for numbers or for categories."""
    nominal = forecast._backend.nominal
    if kind is None:
        return "shades" if nominal else "fan"
    if kind not in _KINDS:
        raise ParameterError(got=f"kind={kind!r}", expected=f"one of {', '.join(_KINDS)}", remedy="Leave it out.")
    if nominal and kind not in ("bars", "shades"):
        raise UnsupportedError(
            got=f"kind={kind!r} for categories", expected="a picture of numbers", remedy='Use kind="bars".'
        )
    return kind


def _draw_steps(
    forecast: Forecast,
    sequence: int,
    seen: np.ndarray | None,
    panels: list[Any],
    names: list[str],
    kind: str,
    levels: tuple[float, ...],
    history: int | None,
    n_paths: int,
    color: str,
) -> None:
    """Fans, quantiles or paths along time."""
    index = forecast._index[sequence]
    length = len(index)
    n_paths = n_paths or (_PATHS if kind == "paths" else 0)
    edges = {level: ((1 - level) / 2, (1 + level) / 2) for level in levels}
    wanted = sorted({0.5, *(edge for pair in edges.values() for edge in pair)})
    quantiles = forecast._mask(forecast._backend.quantile(np.array(wanted)))
    found = forecast._without_labels(quantiles, "quantile")[sequence, :length]
    paths = None if not n_paths else forecast._paths(n_paths, 0)[:, sequence, :length]
    times, past = _axis(forecast._history, index, sequence, history)
    for j, panel in enumerate(panels):
        at = {q: found[:, j, i] for i, q in enumerate(wanted)}
        before = None if past is None else (past[0], past[1][:, j])
        came = None if seen is None else seen[:, j]
        if kind == "quantiles":
            plot_quantiles(times, at, history=before, truth=came, ylabel=names[j], color=color, ax=panel)
            continue
        bands = {} if kind == "paths" else {level: (at[low], at[high]) for level, (low, high) in edges.items()}
        plot_fan(
            times,
            at[0.5],
            bands,
            history=before,
            truth=came,
            paths=None if paths is None else paths[..., j],
            ylabel=names[j],
            color=color,
            ax=panel,
        )


def plot_comparison(log_prob_steps: xr.DataArray, best: str, ax: Axes | None = None, ylabel: str | None = None) -> Axes:
    """Draw sum_{s <= t} (log p of each model - log p of ``best``) along the first sequence.

    Parameters
    ----------
    log_prob_steps : DataArray (time, model) or (sequence, time, model)
        Nats of each step, or another score of which more is better; NaN adds nothing.
    best : str
        The model at zero.
    ax : Axes or None
    ylabel : str or None
        None says nats.
    """
    scores = log_prob_steps.isel(sequence=0) if "sequence" in log_prob_steps.dims else log_prob_steps
    names = [str(name) for name in scores["model"].values]
    if best not in names:
        raise ParameterError(got=f"the model {best!r}", expected=f"one of {names}", remedy="Check the name.")
    index = scores.indexes["time"] if "time" in scores.indexes else pd.RangeIndex(scores.sizes["time"])
    values = scores.transpose("time", "model").values
    reference = values[:, names.index(best)]
    differences = {name: values[:, i] - reference for i, name in enumerate(names) if name != best}
    return plot_cumulative_difference(stamps(index), differences, reference=best, ylabel=ylabel, ax=ax)


def _panels(ax: Any, k: int, tall: bool = False) -> list[Any]:
    if ax is None:
        import matplotlib.pyplot as plt

        size = (8.0, 4.8 * k if tall else 3.6 if k == 1 else 2.6 * k)
        _, axes = plt.subplots(k, 1, figsize=size, layout="constrained", squeeze=False)
        return list(axes[:, 0])
    panels = axes_in(ax)
    if len(panels) != k:
        raise ParameterError(
            got=f"{len(panels)} axes for {k} variables",
            expected=f"{k}, one a variable",
            remedy="Leave ax out, or choose one variable with forecast.marginal(...).",
        )
    return panels


def _axis(
    past: Sequences | None, index: pd.Index, sequence: int, n_steps: int | None
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Times of the forecast, and (times, values) of the last steps before it."""
    ahead = stamps(index)
    if past is None:
        return ahead, None
    length = int(past.lengths[sequence])
    shown = min(length, _HORIZONS_OF_HISTORY * len(index) if n_steps is None else n_steps)
    if shown < 1:
        return ahead, None
    before = stamps(past.index[sequence])
    if before.dtype.kind != ahead.dtype.kind:  # dates whose step is not known: both sides count steps
        before, ahead = np.arange(length), np.arange(length, length + len(index))
    return ahead, (before[-shown:], past.block(sequence)[-shown:])


def unit_label(labels: Sequences, variable: int) -> str:
    """Name and unit of a variable, from the attributes of the data."""
    unit = str(labels.attrs.get("units", ""))
    name = "" if labels.name is None else str(labels.name)
    if not labels.flat and labels.n_variables > 1:
        name = str(labels.variables[variable])
    return unit if name in unit else ", ".join(part for part in (name, unit) if part)
