"""Pictures of forecasts, of their calibration, and of who predicts better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ParameterError, ShapeError
from probseq.plotting.canvas import alone, along, draw_history, draw_truth, new_axes, on_time, times_of
from probseq.plotting.style import (
    BAND,
    DASHES,
    GUIDE,
    INK,
    LINE,
    MARKERS,
    PALETTE,
    THIN,
    finish,
    inside,
    picture,
    strong,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_cumulative_difference", "plot_fan", "plot_pit", "plot_weights"]


@picture
def plot_fan(
    times: Any,
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
    when = times_of(times)
    for level in bands:
        if not 0 < level < 1:
            raise ParameterError(got=f"level={level:g}", expected="a probability between 0 and 1")
    ax = new_axes(ax)
    on_time(ax, when)
    draw_history(ax, history)
    ordered = sorted(bands, reverse=True)
    for rank, level in enumerate(ordered):
        lower, upper = (along(edge, when, f"band {level:g}") for edge in bands[level])
        shade = tint(color, 0.18 + 0.42 * (rank + 1) / len(ordered))
        if len(when) == 1:
            ax.vlines(when, lower, upper, color=shade, lw=8 + 4 * (len(ordered) - rank), label=f"{100 * level:g} %")
        else:
            ax.fill_between(when, lower, upper, color=shade, lw=0, label=f"{100 * level:g} %")
    if paths is not None:
        lines = np.asarray(paths, float)
        along(lines[0] if lines.ndim == 2 else lines, when, "paths")
        alpha = max(0.15, min(0.7, 8 / len(lines)))
        # One step has no lines.
        marker = "_" if len(when) == 1 else None
        ax.plot(when, lines.T, color=tint(color, 0.75, INK), lw=0.6, alpha=alpha, marker=marker)
    middle = along(median, when, "median")
    ax.plot(when, middle, color=tint(color, 0.85, INK), lw=1.8, label=label, **alone(middle))
    draw_truth(ax, when, truth)
    return finish(ax, title, xlabel, ylabel, legend=True)


@picture
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
    ax = new_axes(ax, width=4.6)
    ax.axhspan(found.lower, found.upper, color=BAND, lw=0)
    ax.bar(
        found.edges[:-1], found.density, np.diff(found.edges), align="edge", color=tint(color, 0.7), ec="white", lw=1
    )
    ax.axhline(1.0, color=INK, lw=GUIDE, ls="--")
    for bound, label in ((found.lower, None), (found.upper, f"{100 * level:g} % of the bars if calibrated")):
        ax.axhline(bound, color=PALETTE[4], lw=GUIDE, label=label)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.25 * max(found.upper, found.density.max()))
    finish(ax, title, f"probability integral transform ({found.n_values} values)", "density")
    inside(ax, "upper center")
    return ax


@picture
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
    ax = new_axes(ax, width=6.0, height=0.7 + 0.42 * len(names))
    rows = np.arange(len(names))
    colors = [tint(PALETTE[i % len(PALETTE)], 0.75) for i in rows]
    whiskers = None if errors is None else np.nan_to_num(np.asarray(errors, float))
    ax.barh(rows, np.nan_to_num(values), height=0.62, color=colors, xerr=whiskers, ecolor=INK, capsize=3)
    reach = np.abs(np.nan_to_num(values)) + (0 if whiskers is None else whiskers)
    span = float(reach.max(initial=0.0)) or 1.0
    for row, value in enumerate(values):
        left = value < 0
        text = f"{value:.3g}" if math.isfinite(value) else "none"
        ax.annotate(
            text, (math.copysign(reach[row], -1 if left else 1), row), (-4 if left else 4, 0),
            textcoords="offset points", va="center", ha="right" if left else "left", fontsize="small", color=INK,
        )  # fmt: skip
    low, high = min(0.0, float(np.nanmin(values, initial=0.0))), max(0.0, float(np.nanmax(values, initial=0.0)))
    ax.set_xlim(low and -1.2 * span, high and 1.2 * span)
    ax.set_yticks(rows, names)
    ax.invert_yaxis()
    ax.axvline(0, color=INK, lw=THIN)
    finish(ax, title, xlabel, "")
    ax.grid(axis="y", visible=False)
    return ax


@picture
def plot_cumulative_difference(
    times: Any,
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
    when = times_of(times)
    ax = new_axes(ax)
    on_time(ax, when)
    ax.axhline(0, color=INK, lw=GUIDE, ls="--")
    for i, (name, difference) in enumerate(differences.items()):
        total = np.nancumsum(along(difference, when, name))
        color = strong(PALETTE[(i + 1) % len(PALETTE)])
        ax.plot(
            when, total, color=color, lw=LINE, ls=DASHES[i % len(DASHES)], drawstyle="steps-post", label=name,
            marker=MARKERS[i % len(MARKERS)] if len(when) == 1 else None,
        )  # fmt: skip
    return finish(ax, title, xlabel, f"nats ahead of {reference}" if ylabel is None else ylabel, legend=True)
