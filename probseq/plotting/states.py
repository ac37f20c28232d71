"""Pictures of hidden states: when they were visited, and what they emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ShapeError
from probseq.plotting.canvas import (
    alone,
    along,
    hide_times,
    limits,
    name_ticks,
    new_axes,
    on_time,
    panel_below,
    patch,
    runs,
    state_colors,
    state_words,
    times_of,
)
from probseq.plotting.style import BAR, DASHES, INK, MARKERS, beside, finish, picture, strong, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_emissions",
    "plot_state_probabilities",
    "plot_states",
]

_TICKS = 30


@picture
def plot_states(
    times: Any,
    values: ArrayLike,
    states: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    legend: bool = True,
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
    categories
        names of the values 0, 1, ..., where these are codes: points without a line.
    title, xlabel, ylabel
        texts; put the unit into ``ylabel``.
    legend
        whether to name the states beside the axes.
    ax
        where to draw; with probabilities its lower part becomes the second panel.

    Raises
    ------
    ShapeError
        Something does not have one value a time.
    """
    when = times_of(times)
    series, labels = np.asarray(values, float), np.asarray(states)
    along(labels, when, "states")
    along(series if series.ndim == 1 else series[:, 0], when, "values")
    weights = None if probabilities is None else np.asarray(probabilities, float)
    if weights is not None and (weights.ndim != 2 or len(weights) != len(when)):
        raise ShapeError(got=f"probabilities of shape {weights.shape}", expected=f"shape ({len(when)}, state)")
    n_states = max(int(labels.max(initial=-1)) + 1, 0 if weights is None else weights.shape[1])
    words = [f"state {s}" for s in range(n_states)] if names is None else list(names)
    colors = state_colors(n_states)
    ax = new_axes(ax, height=3.6 if weights is None else 4.6)
    x = on_time(ax, when)
    for s in range(n_states):
        ax.broken_barh(
            runs(x, labels == s), (0, 1), transform=ax.get_xaxis_transform(), color=tint(colors[s], 0.4), lw=0
        )
    columns = series.reshape(len(series), -1)
    for j, column in enumerate(columns.T):
        style: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3.5}
        if categories is None:
            style = {"lw": 1.0, "ls": DASHES[j % len(DASHES)], **alone(column)}
        ax.plot(when, column, color=tint(INK, 1 - 0.6 * j / columns.shape[1]), zorder=3, **style)
    ax.set_xlim(*limits(x))
    handles = [patch(tint(c, 0.4), word) for c, word in zip(colors, words, strict=False)]
    if weights is not None:
        plot_state_probabilities(when, weights, xlabel=xlabel, ax=panel_below(ax))
        hide_times(ax)
    finish(ax, title, xlabel if weights is None else "", ylabel)
    if categories is not None:
        codes = np.unique(series[~np.isnan(series)]).astype(int)
        codes = codes[np.unique(np.linspace(0, len(codes) - 1, _TICKS).round().astype(int))] if len(codes) else codes
        ax.set_yticks(codes, [categories[code] for code in codes])
    if legend:
        beside(ax, handles=handles)
    return ax


@picture
def plot_state_probabilities(times: Any, probabilities: ArrayLike, *, xlabel: str = "", ax: Axes | None = None) -> Axes:
    """Draw the probabilities of the states, stacked.

    Parameters
    ----------
    times
        shape (time,).
    probabilities
        p(z_t | ...), shape (time, state).
    xlabel, ax
        as in ``plot_states``.

    Raises
    ------
    ShapeError
        There is not one row a time.
    """
    when, weights = times_of(times), np.asarray(probabilities, float)
    if weights.ndim != 2 or len(weights) != len(when):
        raise ShapeError(got=f"probabilities of shape {weights.shape}", expected=f"shape ({len(when)}, state)")
    ax = new_axes(ax, height=1.6)
    x = on_time(ax, when)
    colors = [tint(c, 0.75) for c in state_colors(weights.shape[1])]
    if len(x) > 1:
        ax.stackplot(when, weights.T, colors=colors, lw=0)
    else:
        for color, height, bottom in zip(colors, weights.T, np.cumsum(weights, 1).T - weights.T):
            ax.bar(x, height, 2 * (limits(x)[1] - x) if len(x) else 1.0, bottom, color=color)
    ax.set_ylim(0, 1)
    return finish(ax, None, xlabel, "probability")


@picture
def plot_emissions(
    values: ArrayLike,
    grid: ArrayLike,
    densities: ArrayLike,
    weights: ArrayLike,
    *,
    discrete: bool = False,
    names: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    title: str | None = None,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw what the states emit over the histogram of the data, each state weighted by how often it occurs.

    Parameters
    ----------
    values
        the data of one variable, any shape; NaN is left out.
    grid
        where the laws are evaluated, shape (point,): the integers or codes for discrete variables.
    densities
        density or mass of each state, shape (state, point).
    weights
        shares of the states, shape (state,).
    discrete
        masses on the grid instead of densities.
    names
        names of the states.
    categories
        names of the grid's points, for categories.
    title, xlabel, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        The densities do not have one row a state and one column a point.
    """
    x, shares = np.asarray(grid, float), np.asarray(weights, float)
    heights = np.asarray(densities, float) * shares[:, None]
    if heights.shape != (len(shares), len(x)):
        raise ShapeError(got=f"densities of shape {np.shape(densities)}", expected=f"({len(shares)}, {len(x)})")
    words = state_words(len(shares), names)
    colors = state_colors(len(shares))
    ax = new_axes(ax, width=6.4)
    seen = np.asarray(values, float).ravel()
    seen = seen[~np.isnan(seen)]
    if discrete:
        gap = float(np.diff(x).min()) if len(x) > 1 else 1.0
        edges = np.append(x - 0.5 * gap, x[-1] + 0.5 * gap)
        share = np.histogram(seen, edges)[0] / max(len(seen), 1)
        ax.bar(x, share, 0.86 * gap, color=BAR, label="data")
        few = len(x) <= 30
        for i, (height, color, word) in enumerate(zip(heights, colors, words, strict=True)):
            ax.plot(x, height, color=strong(color), lw=1.8, ls="" if categories else DASHES[i % len(DASHES)],
                    marker=MARKERS[i % len(MARKERS)] if few else None, ms=4.5, label=word)  # fmt: skip
        ax.plot(x, heights.sum(0), color=INK, lw=1.2, ls="" if categories else "--", marker="_" if categories else None,
                ms=16, mew=1.6, label="all states")  # fmt: skip
    else:
        ax.hist(seen, bins="fd" if 1 < len(seen) else 1, range=(x[0], x[-1]), density=True, color=BAR,
                label="data")  # fmt: skip
        for i, (height, color, word) in enumerate(zip(heights, colors, words, strict=True)):
            ax.fill_between(x, height, color=tint(color, 0.25), lw=0, alpha=0.5)
            ax.plot(x, height, color=strong(color), lw=1.8, ls=DASHES[i % len(DASHES)], label=word)
        ax.plot(x, heights.sum(0), color=INK, lw=1.2, ls="--", label="all states")
    ax.set_ylim(bottom=0)
    finish(ax, title, xlabel, "probability" if discrete else "density", legend=True)
    if categories is not None:
        name_ticks(ax, list(categories), x.tolist())
    return ax
