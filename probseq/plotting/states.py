"""Pictures of hidden states: when they were visited, how they follow one another, what they emit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ShapeError
from probseq.plotting.canvas import (
    INK,
    PALETTE,
    along,
    beside,
    finish,
    hide_times,
    limits,
    new_axes,
    panel_below,
    patch,
    runs,
    state_colors,
    times_of,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_emissions",
    "plot_state_probabilities",
    "plot_states",
    "plot_transition_graph",
    "plot_transition_matrix",
]

_SHOWN_EDGE = 0.005
_LABELLED = 4
_NODE = 0.26


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
    ax.xaxis.update_units(when)
    x = np.asarray(ax.convert_xunits(when), float)
    for s in range(n_states):
        ax.broken_barh(
            runs(x, labels == s), (0, 1), transform=ax.get_xaxis_transform(), color=tint(colors[s], 0.4), lw=0
        )
    columns = series.reshape(len(series), -1)
    for j, column in enumerate(columns.T):
        ax.plot(when, column, color=tint(INK, 1 - 0.6 * j / columns.shape[1]), lw=1.0, zorder=3)
    ax.set_xlim(*limits(x))
    handles = [patch(tint(c, 0.4), word) for c, word in zip(colors, words, strict=False)]
    if weights is not None:
        plot_state_probabilities(when, weights, xlabel=xlabel, ax=panel_below(ax))
        hide_times(ax)
    finish(ax, title, xlabel if weights is None else "", ylabel)
    if legend:
        ax.legend(handles=handles, **beside(), title=None)
    return ax


def plot_state_probabilities(
    times: ArrayLike, probabilities: ArrayLike, *, xlabel: str = "", ax: Axes | None = None
) -> Axes:
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
    ax.stackplot(when, weights.T, colors=[tint(c, 0.75) for c in state_colors(weights.shape[1])], lw=0)
    ax.set_ylim(0, 1)
    return finish(ax, None, xlabel, "probability")


def plot_transition_matrix(
    matrix: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw a transition matrix as shades with its numbers; what is impossible stays empty.

    Parameters
    ----------
    matrix
        P(next state | state), shape (state, state), rows sum to one.
    names
        names of the states.
    title, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        The matrix is not square.
    """
    from matplotlib.colors import LinearSegmentedColormap

    probs, words = _square(matrix, names)
    n = len(probs)
    ax = new_axes(ax, width=1.6 + 0.75 * max(n, 3), height=1.2 + 0.62 * max(n, 3))
    dark: Any = tint(color, 0.9)
    shades = LinearSegmentedColormap.from_list("probability", ["white", dark])
    ax.imshow(probs, cmap=shades, vmin=0.0, vmax=1.0, interpolation="nearest")
    if n <= 12:
        for i, j in np.ndindex(n, n):
            if probs[i, j] > 0:
                ax.text(j, i, _share(float(probs[i, j])), ha="center", va="center", fontsize="small",
                        color="white" if probs[i, j] > 0.6 else INK)  # fmt: skip
    finish(ax, title, "next state", "state")
    ax.grid(visible=False)
    ax.set_xticks(range(n), words, rotation=0 if max(map(len, words)) < 9 else 30)
    ax.set_yticks(range(n), words)
    ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_transition_graph(
    matrix: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the chain as a graph: the wider an arrow, the more probable the move; below 0.5 % it is left out.

    Arrows between more than four states carry no numbers: the matrix has them.

    Parameters
    ----------
    matrix
        P(next state | state), shape (state, state).
    weights
        how often each state is visited, shape (state,): the area of its circle.
    names, title, ax
        as in ``plot_transition_matrix``.
    """
    from matplotlib.patches import Circle, FancyArrowPatch

    probs, words = _square(matrix, names)
    n = len(probs)
    often = np.full(n, 1 / n) if weights is None else np.asarray(weights, float)
    ax = new_axes(ax, width=4.8, height=4.2)
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n if n != 2 else np.array([np.pi, 0.0])
    reach = 0.0 if n == 1 else max(1.0, 0.34 * n)
    at = reach * np.column_stack([np.cos(angle), np.sin(angle)])
    radii = _NODE * np.sqrt(np.clip(often * n, 0.3, 3.0)) ** 0.5
    colors = state_colors(n)
    for i, j in np.ndindex(n, n):
        if i != j and probs[i, j] >= _SHOWN_EDGE:
            way = (at[j] - at[i]) / np.linalg.norm(at[j] - at[i])
            side = np.array([way[1], -way[0]])
            start, end = (at[i] + (0.95 * way + 0.3 * side) * radii[i], at[j] + (-1.02 * way + 0.3 * side) * radii[j])
            width = 0.8 + 3.2 * math.sqrt(probs[i, j])
            ax.add_patch(
                FancyArrowPatch(
                    tuple(start), tuple(end), connectionstyle="arc3,rad=0.18", arrowstyle="-|>",
                    mutation_scale=7 + 2.5 * width, lw=width, color=tint(colors[i], 0.75), shrinkA=0, shrinkB=0,
                )
            )  # fmt: skip
            # The middle of the curve, a little outside of it.
            away = 0.09 * np.linalg.norm(end - start) + 0.12 + 0.14 * abs(side[0])
            middle = 0.5 * (start + end) + side * away
            if n <= _LABELLED:
                ax.text(
                    float(middle[0]),
                    float(middle[1]),
                    _share(float(probs[i, j])),
                    ha="center",
                    va="center",
                    fontsize="small",
                    color=INK,
                )
    for i in range(n):
        outward = np.array([np.cos(angle[i]), np.sin(angle[i])]) if n > 1 else np.array([0.0, 1.0])
        if probs[i, i] >= _SHOWN_EDGE:
            _self_loop(ax, at[i], outward, radii[i], probs[i, i], colors[i])
        ax.add_patch(Circle(tuple(at[i]), radii[i], facecolor=tint(colors[i], 0.4), edgecolor=colors[i], lw=1.5))
        ax.text(
            float(at[i, 0]),
            float(at[i, 1]),
            words[i].replace("state ", ""),
            ha="center",
            va="center",
            fontsize="medium",
            color=INK,
        )
    ax.set_aspect("equal")
    room = reach + 3.2 * float(radii.max()) + 0.1
    ax.set_xlim(-room, room)
    vertical = room if n != 2 else 0.62 * room
    ax.set_ylim(-vertical, vertical)
    finish(ax, title, "", "")
    ax.set_axis_off()
    return ax


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
    words = _words(len(shares), names)
    colors = state_colors(len(shares))
    ax = new_axes(ax, width=6.4)
    seen = np.asarray(values, float).ravel()
    seen = seen[~np.isnan(seen)]
    if discrete:
        gap = float(np.diff(x).min()) if len(x) > 1 else 1.0
        edges = np.append(x - 0.5 * gap, x[-1] + 0.5 * gap)
        share = np.histogram(seen, edges)[0] / max(len(seen), 1)
        ax.bar(x, share, 0.86 * gap, color="#DDDDDD", label="data")
        few = len(x) <= 60
        for height, color, word in zip(heights, colors, words, strict=True):
            ax.plot(x, height, color=color, lw=1.8, ls="" if categories else "-", marker="o" if few else None, ms=4,
                    label=word)  # fmt: skip
        ax.plot(x, heights.sum(0), color=INK, lw=1.2, ls="" if categories else "--", marker="_" if categories else None,
                ms=16, mew=1.6, label="all states")  # fmt: skip
        if categories is not None:
            ax.set_xticks(x, categories)
    else:
        ax.hist(seen, bins="fd" if 1 < len(seen) else 1, range=(x[0], x[-1]), density=True, color="#DDDDDD",
                label="data")  # fmt: skip
        for height, color, word in zip(heights, colors, words, strict=True):
            ax.fill_between(x, height, color=tint(color, 0.25), lw=0, alpha=0.5)
            ax.plot(x, height, color=color, lw=1.8, label=word)
        ax.plot(x, heights.sum(0), color=INK, lw=1.2, ls="--", label="all states")
    ax.set_ylim(bottom=0)
    return finish(ax, title, xlabel, "probability" if discrete else "density", legend=True)


def _square(matrix: ArrayLike, names: Sequence[str] | None) -> tuple[NDArray[np.float64], list[str]]:
    probs = np.asarray(matrix, float)
    if probs.ndim != 2 or probs.shape[0] != probs.shape[1]:
        raise ShapeError(got=f"a matrix of shape {probs.shape}", expected="one row and one column a state")
    return probs, _words(len(probs), names)


def _words(n_states: int, names: Sequence[str] | None) -> list[str]:
    words = [f"state {s}" for s in range(n_states)] if names is None else [str(name) for name in names]
    if len(words) != n_states:
        raise ShapeError(got=f"{len(words)} names", expected=f"one for each of {n_states} states")
    return words


def _share(probability: float) -> str:
    """Two digits after the point, a third one below 0.01."""
    if probability < 0.001:
        return "<.001"
    return f"{probability:.2f}" if probability >= 0.01 else f"{probability:.3f}"


def _self_loop(
    ax: Axes, centre: NDArray[np.float64], outward: NDArray[np.float64], radius: float, probability: float, color: Any
) -> None:
    from matplotlib.patches import FancyArrowPatch

    side = np.array([-outward[1], outward[0]])
    start, end = (centre + radius * (0.75 * outward + sign * 0.66 * side) for sign in (1, -1))
    width = 0.8 + 3.2 * math.sqrt(probability)
    ax.add_patch(
        FancyArrowPatch(
            tuple(start), tuple(end), connectionstyle="arc3,rad=-1.7", arrowstyle="-|>", mutation_scale=7 + 2.5 * width,
            lw=width, color=tint(color, 0.75), shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
    place = centre + outward * (2.6 * radius + 0.14 * abs(outward[0]))
    ax.text(
        float(place[0]), float(place[1]), _share(probability), ha="center", va="center", fontsize="small", color=INK
    )
