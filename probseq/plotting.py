"""Pictures of forecasts, states and calibration, drawn from arrays.

Every function takes ``ax=None`` and returns the Axes it drew on; without one it makes a figure of its own. Matplotlib
is imported when the first picture is drawn, and its global settings stay as they are. Colours are those of Okabe and
Ito, which people with colour vision deficiencies tell apart. Times are numbers, strings or ``datetime64``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ParameterError, ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PALETTE", "plot_cumulative_difference", "plot_fan", "plot_pit", "plot_states", "plot_weights"]

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#7F7F7F")
"""Okabe and Ito (2008), with grey in place of black, which is for data."""

_INK = "#222222"
_SIZE = (8.0, 3.6)


def plot_fan(
    times: ArrayLike,
    median: ArrayLike,
    bands: Mapping[float, tuple[ArrayLike, ArrayLike]],
    *,
    history: tuple[ArrayLike, ArrayLike] | None = None,
    truth: ArrayLike | None = None,
    paths: ArrayLike | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "median",
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw a fan chart: the predictive median inside nested intervals, after the data that led to it.

    Parameters
    ----------
    times
        when the forecast is for, shape (time,).
    median
        predictive median, shape (time,).
    bands
        level -> (lower, upper), each of shape (time,), such as ``{0.5: (lo, hi), 0.9: (lo, hi)}``.
    history
        (times, values) of the data before.
    truth
        what happened, shape (time,); NaN is missing.
    paths
        predictive trajectories, shape (path, time).
    title, xlabel, ylabel
        texts; put the unit into ``ylabel``.
    label
        legend entry of the median.
    color
        colour of median and bands.
    ax
        where to draw.

    Raises
    ------
    ShapeError
        Something does not have one value a time.
    ParameterError
        A level lies outside (0, 1).
    """
    ax, when = _axes(ax), _times(times)
    for level in bands:
        if not 0 < level < 1:
            raise ParameterError(got=f"level={level:g}", expected="a probability between 0 and 1")
    if history is not None:
        past = _times(history[0])
        ax.plot(past, _along(history[1], past, "history"), color=_INK, lw=1.2, label="history")
    ordered = sorted(bands, reverse=True)
    for rank, level in enumerate(ordered):
        lower, upper = (_along(edge, when, f"band {level:g}") for edge in bands[level])
        shade = _tint(color, 0.18 + 0.42 * (rank + 1) / len(ordered))
        if len(when) == 1:
            ax.vlines(when, lower, upper, color=shade, lw=8 + 4 * (len(ordered) - rank), label=f"{100 * level:g} %")
        else:
            ax.fill_between(when, lower, upper, color=shade, lw=0, label=f"{100 * level:g} %")
    if paths is not None:
        lines = np.asarray(paths, float)
        _along(lines[0] if lines.ndim == 2 else lines, when, "paths")
        ax.plot(when, lines.T, color=_tint(color, 0.75, _INK), lw=0.6, alpha=max(0.15, min(0.7, 8 / len(lines))))
    marker = "o" if len(when) == 1 else None
    ax.plot(when, _along(median, when, "median"), color=_tint(color, 0.85, _INK), lw=1.8, marker=marker, label=label)
    if truth is not None:
        seen = _along(truth, when, "truth")
        ax.plot(when, seen, color=_INK, lw=0.9, marker="o", ms=3.2, mfc="white", mew=0.9, label="observed")
    return _finish(ax, title, xlabel, ylabel, legend=True)


def plot_states(
    times: ArrayLike,
    values: ArrayLike,
    states: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a series over the hidden states that were decoded from it.

    Parameters
    ----------
    times
        shape (time,).
    values
        the series, shape (time,) or (time, variable).
    states
        labels 0..k-1, shape (time,); -1 is left blank.
    probabilities
        p(z_t | x_1:T), shape (time, state): a second panel below shows them stacked.
    names
        names of the states.
    title, xlabel, ylabel
        texts; put the unit into ``ylabel``.
    ax
        where to draw; with probabilities its lower part becomes the second panel.

    Raises
    ------
    ShapeError
        Something does not have one value a time.
    """
    when = _times(times)
    series, labels = np.asarray(values, float), np.asarray(states)
    _along(labels, when, "states")
    _along(series if series.ndim == 1 else series[:, 0], when, "values")
    weights = None if probabilities is None else np.asarray(probabilities, float)
    if weights is not None and (weights.ndim != 2 or len(weights) != len(when)):
        raise ShapeError(got=f"probabilities of shape {weights.shape}", expected=f"shape ({len(when)}, state)")
    n_states = max(int(labels.max(initial=-1)) + 1, 0 if weights is None else weights.shape[1])
    words = [f"state {s}" for s in range(n_states)] if names is None else list(names)
    colors = _state_colors(n_states)
    ax = _axes(ax, height=3.6 if weights is None else 4.6)
    ax.xaxis.update_units(when)
    x = np.asarray(ax.convert_xunits(when), float)
    for s in range(n_states):
        ax.broken_barh(
            _runs(x, labels == s), (0, 1), transform=ax.get_xaxis_transform(), color=_tint(colors[s], 0.4), lw=0
        )
    columns = series.reshape(len(series), -1)
    for j, column in enumerate(columns.T):
        ax.plot(when, column, color=_tint(_INK, 1 - 0.6 * j / columns.shape[1]), lw=1.0, zorder=3)
    ax.set_xlim(*_limits(x))
    handles = [_patch(_tint(c, 0.4), word) for c, word in zip(colors, words, strict=False)]
    lowest = ax
    if weights is not None:
        lowest = _panel_below(ax)
        lowest.stackplot(when, weights.T, colors=[_tint(c, 0.75) for c in colors], lw=0)
        lowest.set_ylim(0, 1)
        _finish(lowest, None, xlabel, "probability")
        ax.tick_params(labelbottom=False)
        ax.xaxis.offsetText.set_visible(False)
    _finish(ax, title, xlabel if lowest is ax else "", ylabel)
    ax.legend(handles=handles, **_beside(), title=None)
    return ax


def plot_pit(
    pit_values: ArrayLike,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    title: str | None = None,
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw the histogram of PIT values with the band in which a calibrated forecast keeps each bar.

    Parameters
    ----------
    pit_values
        any shape; NaN is left out.
    n_bins
        number of bars.
    level
        probability that one bar of a calibrated forecast is inside the band.
    title, color, ax
        as in ``plot_fan``.
    """
    from probseq.evaluation.calibration import pit_histogram

    found = pit_histogram(pit_values, n_bins=n_bins, level=level)
    ax = _axes(ax, width=4.6)
    ax.axhspan(found.lower, found.upper, color="#EEEEEE", lw=0)
    ax.bar(
        found.edges[:-1], found.density, np.diff(found.edges), align="edge", color=_tint(color, 0.7), ec="white", lw=1
    )
    ax.axhline(1.0, color=_INK, lw=1.0, ls="--")
    for bound, label in ((found.lower, None), (found.upper, f"{100 * level:g} % of the bars if calibrated")):
        ax.axhline(bound, color=PALETTE[4], lw=1.0, label=label)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.25 * max(found.upper, found.density.max()))
    _finish(ax, title, f"probability integral transform ({found.n_values} values)", "density")
    ax.legend(loc="upper center", frameon=False, fontsize="small")
    return ax


def plot_weights(
    names: Sequence[str],
    weights: ArrayLike,
    errors: ArrayLike | None = None,
    *,
    title: str | None = None,
    xlabel: str = "weight",
    ax: Axes | None = None,
) -> Axes:
    """Draw one bar a model, in the order given from top to bottom: stacking weights, or any column of a table.

    Parameters
    ----------
    names
        shape (model,).
    weights
        length of the bars, shape (model,); negative ones point to the left, NaN has no bar.
    errors
        standard errors, drawn as whiskers of one to each side.
    title, xlabel, ax
        as in ``plot_fan``.
    """
    values = np.asarray(weights, float)
    if values.shape != (len(names),):
        raise ShapeError(got=f"weights of shape {values.shape}", expected=f"one for each of {len(names)} names")
    ax = _axes(ax, width=6.0, height=0.7 + 0.42 * len(names))
    rows = np.arange(len(names))
    colors = [_tint(PALETTE[i % len(PALETTE)], 0.75) for i in rows]
    whiskers = None if errors is None else np.nan_to_num(np.asarray(errors, float))
    ax.barh(rows, np.nan_to_num(values), height=0.62, color=colors, xerr=whiskers, ecolor=_INK, capsize=3)
    reach = np.abs(np.nan_to_num(values)) + (0 if whiskers is None else whiskers)
    span = float(reach.max(initial=0.0)) or 1.0
    for row, value in enumerate(values):
        left = value < 0
        text = f"{value:.3g}" if math.isfinite(value) else "none"
        ax.annotate(
            text, (math.copysign(reach[row], -1 if left else 1), row), (-4 if left else 4, 0),
            textcoords="offset points", va="center", ha="right" if left else "left", fontsize="small", color=_INK,
        )  # fmt: skip
    low, high = min(0.0, float(np.nanmin(values, initial=0.0))), max(0.0, float(np.nanmax(values, initial=0.0)))
    ax.set_xlim(low and -1.2 * span, high and 1.2 * span)
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.axvline(0, color=_INK, lw=0.8)
    _finish(ax, title, xlabel, "")
    ax.grid(axis="y", visible=False)
    return ax


def plot_cumulative_difference(
    times: ArrayLike,
    differences: Mapping[str, ArrayLike],
    *,
    reference: str = "the best",
    title: str | None = None,
    xlabel: str = "",
    ylabel: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw sum_{s <= t} (score of a model - score of the reference): where a line falls, the model loses.

    Parameters
    ----------
    times
        shape (time,).
    differences
        name -> log score minus that of the reference, shape (time,), in nats; NaN adds nothing.
    reference
        name of the model at zero.
    title, xlabel, ax
        as in ``plot_fan``.
    ylabel
        not given: "nats ahead of" the reference.
    """
    ax, when = _axes(ax), _times(times)
    ax.axhline(0, color=_INK, lw=1.0, ls="--")
    for i, (name, difference) in enumerate(differences.items()):
        total = np.nancumsum(_along(difference, when, name))
        ax.plot(when, total, color=PALETTE[(i + 1) % len(PALETTE)], lw=1.6, drawstyle="steps-post", label=name)
    return _finish(ax, title, xlabel, f"nats ahead of {reference}" if ylabel is None else ylabel, legend=True)


def _axes(ax: Axes | None, width: float = _SIZE[0], height: float = _SIZE[1]) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _panel_below(ax: Axes) -> Axes:
    """Give the lower part of an axes to a second one that shares its x-axis."""
    place = ax.get_subplotspec()
    if place is None:
        return ax.inset_axes((0.0, -0.42, 1.0, 0.34), sharex=ax)
    grid = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
    ax.set_subplotspec(grid[0])
    return ax.figure.add_subplot(grid[1], sharex=ax)


def _finish(ax: Axes, title: str | None, xlabel: str, ylabel: str, legend: bool = False) -> Axes:
    import matplotlib.dates as mdates

    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E6E6E6", lw=0.7)
    ax.set_axisbelow(True)
    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, mdates.AutoDateLocator):
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    if title:
        ax.set_title(title, loc="left", fontsize="medium")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if legend and ax.get_legend_handles_labels()[1]:
        ax.legend(**_beside())
    return ax


def _beside() -> dict[str, Any]:
    """Place a legend to the right of the axes, where it hides no data."""
    return {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": "small"}


def _patch(color: Any, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label)


def _tint(color: str, strength: float, towards: str = "white") -> tuple[float, float, float]:
    """Mix a colour with another; opaque, so that what overlaps keeps its hue."""
    from matplotlib.colors import to_rgb

    near, far = np.array(to_rgb(color)), np.array(to_rgb(towards))
    red, green, blue = (strength * near + (1 - strength) * far).tolist()
    return red, green, blue


def _state_colors(n_states: int) -> list[Any]:
    if n_states <= len(PALETTE):
        return list(PALETTE[:n_states])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(c) for c in colormaps["cividis"](np.linspace(0, 1, n_states))]


def _times(times: ArrayLike) -> NDArray[Any]:
    when = np.asarray(times)
    if when.ndim != 1:
        raise ShapeError(got=f"times of shape {when.shape}", expected="one time a step, shape (time,)")
    return when


def _along(values: ArrayLike, when: NDArray[Any], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, float)
    if array.shape != when.shape:
        raise ShapeError(
            got=f"{name} of shape {array.shape}",
            expected=f"one value for each of {len(when)} times",
            remedy="Select one variable and one sequence first.",
        )
    return array


def _limits(x: NDArray[np.float64]) -> tuple[float, float]:
    half = 0.5 * float(np.median(np.diff(x))) if len(x) > 1 else 0.5
    return float(x[0]) - half, float(x[-1]) + half


def _runs(x: NDArray[np.float64], inside: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(start, width) of every run of True; neighbours meet halfway between their times."""
    low, high = _limits(x)
    bounds = np.concatenate([[low], (x[1:] + x[:-1]) / 2, [high]])
    change = np.diff(np.concatenate([[0], inside.astype(int), [0]]))
    starts, ends = bounds[np.flatnonzero(change == 1)], bounds[np.flatnonzero(change == -1)]
    return list(zip(starts.tolist(), (ends - starts).tolist()))
