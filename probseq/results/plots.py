"""Labelled results drawn by ``probseq.plotting``: fan charts of forecasts, and who predicts better when."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.data.timeindex import is_default
from probseq.errors import ParameterError, UnsupportedError
from probseq.plotting import PALETTE, drawn_on, new_panels, plot_cumulative_difference, plot_fan, plot_quantiles
from probseq.plotting.canvas import stamps
from probseq.results.law_plots import draw_bars, draw_ridge, draw_shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probseq.data.sequences import Sequences
    from probseq.results.forecast import Forecast

__all__ = [
    "chosen_sequences",
    "plot_comparison",
    "plot_forecast",
    "sequence_title",
    "shown_tokens",
    "stamps",
    "time_label",
    "unit_label",
    "visible",
]

_HORIZONS_OF_HISTORY = 4
_KINDS = ("fan", "quantiles", "paths", "ridge", "bars", "shades")
_PATHS = 100
_LONGEST_NAME = 28


def plot_forecast(
    forecast: Forecast,
    truth: Any = None,
    *,
    kind: str | None = None,
    sequence: Any = 0,
    levels: Sequence[float] = (0.5, 0.9),
    history: int | None = None,
    n_paths: int = 0,
    color: str = PALETTE[0],
    ax: Any = None,
) -> Any:
    """Draw a forecast of one sequence or several, one panel a variable of each; see ``Forecast.plot``.

    Returns
    -------
    Axes, or an array of them where there are several panels. ``ax`` takes the same.

    Raises
    ------
    ParameterError
        If there is no such sequence or kind, or ``ax`` does not have one axes a panel.
    UnsupportedError
        A picture of numbers for categories, or the other way round.
    """
    n, _, k = forecast._backend.shape
    chosen = chosen_sequences(sequence, n)
    kind = _kind(kind, forecast)
    nominal = kind in ("bars", "shades")
    values = None if truth is None else forecast._values(truth)
    per = 1 if nominal else k
    panels = _panels(ax, per, len(chosen), tall=kind == "ridge" or nominal)
    names = [unit_label(forecast._labels, j) for j in range(k)]
    for place, i in enumerate(chosen):
        own = panels[place * per : (place + 1) * per]
        seen = None if values is None else values[i, : len(forecast._index[i])]
        title = sequence_title(forecast._labels, i)
        if kind == "bars":
            draw_bars(forecast, i, seen, own[0], title)
        elif kind == "shades":
            draw_shades(forecast, i, seen, own[0], title)
        elif kind == "ridge":
            draw_ridge(forecast, i, seen, own, names, color, title)
        else:
            _draw_steps(forecast, i, seen, own, names, kind, tuple(levels), history, n_paths, color, title)
    return drawn_on(panels)


def chosen_sequences(sequence: Any, n: int) -> list[int]:
    """Numbers of the sequences asked for: one, a list of them, or all for None."""
    asked = range(n) if sequence is None else [sequence] if np.ndim(sequence) == 0 else list(sequence)
    for one in asked:
        if isinstance(one, bool) or not isinstance(one, int | np.integer) or not -n <= one < n:
            raise ParameterError(got=f"sequence={one!r}", expected=f"a number below {n}", remedy="They count from 0.")
    if not len(asked):
        raise ParameterError(got="no sequence", expected="at least one", remedy="They count from 0.")
    return [int(one) % n for one in asked]


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
    title: str | None,
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
    before_it = forecast._history if forecast._history is not None else forecast._labels
    when = time_label(forecast._labels, before_it.index[sequence])
    for j, panel in enumerate(panels):
        head, foot = title if j == 0 else None, when if j == len(panels) - 1 else ""
        at = {q: found[:, j, i] for i, q in enumerate(wanted)}
        before = None if past is None else (past[0], past[1][:, j])
        came = None if seen is None else seen[:, j]
        if kind == "quantiles":
            plot_quantiles(
                times, at, history=before, truth=came, title=head, xlabel=foot, ylabel=names[j], color=color, ax=panel
            )
            continue
        bands = {} if kind == "paths" else {level: (at[low], at[high]) for level, (low, high) in edges.items()}
        plot_fan(
            times,
            at[0.5],
            bands,
            history=before,
            truth=came,
            paths=None if paths is None else paths[..., j],
            title=head,
            xlabel=foot,
            ylabel=names[j],
            color=color,
            ax=panel,
        )


def plot_comparison(
    log_prob_steps: xr.DataArray,
    best: str,
    ax: Axes | None = None,
    ylabel: str | None = None,
    *,
    xlabel: str | None = None,
) -> Axes:
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
    xlabel : str or None
        None is what the time coordinate says.
    """
    scores = log_prob_steps.isel(sequence=0) if "sequence" in log_prob_steps.dims else log_prob_steps
    names = [str(name) for name in scores["model"].values]
    if best not in names:
        raise ParameterError(got=f"the model {best!r}", expected=f"one of {names}", remedy="Check the name.")
    index = scores.indexes["time"] if "time" in scores.indexes else pd.RangeIndex(scores.sizes["time"])
    values = scores.transpose("time", "model").values
    reference = values[:, names.index(best)]
    differences = {name: values[:, i] - reference for i, name in enumerate(names) if name != best}
    kept = scores["time"].attrs if "time" in scores.coords else {}
    return plot_cumulative_difference(
        stamps(index),
        differences,
        reference=best,
        xlabel=_time_words(index, kept) if xlabel is None else xlabel,
        ylabel=ylabel,
        ax=ax,
    )


def _panels(ax: Any, k: int, n: int, tall: bool = False) -> list[Any]:
    """One panel a variable, those of each of n sequences below each other."""
    rows = k * n
    height = (4.8 if tall else 3.6 if rows == 1 else 2.6) * rows
    what = "one a variable" if n == 1 else "one for each variable of each sequence"
    return new_panels(ax, rows, 1, size=(8.0, height), what=what if rows > 1 else "")


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


def sequence_title(labels: Sequences, sequence: int) -> str | None:
    """The name of a sequence where there are many: its own, or "sequence" and its number."""
    if not labels.many:
        return None
    name = str(labels.names[sequence])
    return name if labels.named_sequences else f"sequence {name}"


def visible(token: Any) -> str:
    """A token as text; what leaves no mark on paper as Python writes it."""
    text = str(token)
    return text if text.strip() and text.isprintable() else repr(text)


def shown_tokens(labels: Sequences, sequence: int) -> list[str]:
    """The tokens of a sequence as texts, empty where one is missing."""
    words = labels.vocabulary.tokens if labels.vocabulary is not None else ()
    codes = labels.values[sequence, : labels.lengths[sequence], 0]
    return ["" if np.isnan(code) else visible(words[int(code)]) for code in codes]


def unit_label(labels: Sequences, variable: int) -> str:
    """Name and unit of a variable, from the data: ``long_name``, if short enough for an axis, or name; ``units``."""
    name = "" if labels.name is None else str(labels.name)
    key: Any = labels.name
    if labels.named and (labels.name is None or not labels.flat):
        key = labels.variables[variable]
        name = str(key)
    elif not labels.flat and labels.n_variables > 1:
        name = str(labels.variables[variable])
    long_name, unit = (_attribute(labels, word, variable, key) for word in ("long_name", "units"))
    if name in unit:
        return unit if name or not 0 < len(long_name) <= _LONGEST_NAME else f"{long_name}, {unit}".removesuffix(", ")
    name = long_name if 0 < len(long_name) <= _LONGEST_NAME else name
    return ", ".join(part for part in (name, unit) if part)


def time_label(labels: Sequences, index: pd.Index) -> str:
    """What stands below the times: name and unit of their coordinate; steps where they only count."""
    return _time_words(index, labels.time_attrs)


def _time_words(index: pd.Index, kept: Mapping[Hashable, Any]) -> str:
    dated = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)
    own = index.name not in (None, "time", "ds", "timestamp")
    name = str(kept.get("long_name", "") or (index.name if own else ""))
    unit = "" if dated else str(kept.get("units", ""))
    if not name and not unit and (is_default(index) or not dated and index.dtype.kind not in "iuf"):
        return "step"
    return ", ".join(part for part in (name or ("time" if unit else ""), unit) if part)


def _attribute(labels: Sequences, word: str, variable: int, key: Any) -> str:
    """An attribute of one variable: of the data, in a dict by variable, or in a coordinate along ``variable``."""
    dims, values = labels.coords.get(word, ((), np.empty(0)))
    if tuple(dims) == ("variable",) and len(values) == labels.n_variables:
        return str(values[variable])
    found = labels.attrs.get(word, "")
    if isinstance(found, Mapping):
        found = found.get(key, "")
    elif word == "long_name" and labels.n_variables > 1:
        found = ""
    return str(found)
