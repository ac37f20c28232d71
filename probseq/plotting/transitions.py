"""Pictures of how hidden states follow one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ShapeError
from probseq.plotting.canvas import new_axes, state_colors, state_words
from probseq.plotting.style import INK, PALETTE, finish, picture, shades_of, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_transition_graph", "plot_transition_matrix"]

_SHOWN_EDGE = 0.005
_LABELLED = 4
_NODE = 0.26
# Points, and inches of a cell that numbers of that size need.
_CELL_FONT, _CELL_WIDTH = 8.3, 0.42


@picture
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
    probs, words = _square(matrix, names)
    n = len(probs)
    ax = new_axes(ax, width=1.6 + 0.75 * max(n, 3), height=1.2 + 0.62 * max(n, 3))
    ax.imshow(probs, cmap=shades_of(color), vmin=0.0, vmax=1.0, interpolation="nearest")
    if n <= 12:
        for i, j in np.ndindex(n, n):
            if probs[i, j] > 0:
                ax.text(j, i, _share(float(probs[i, j])), ha="center", va="center", fontsize=_cell_font(ax, n),
                        color="white" if probs[i, j] > 0.6 else INK)  # fmt: skip
    finish(ax, title, "next state", "state")
    ax.grid(visible=False)
    if n > _LABELLED:
        words = [word.removeprefix("state ") for word in words]
    longest = max(map(len, words))
    crowded = n > _LABELLED and longest > 3
    ax.set_xticks(range(n), words, rotation=90 if crowded else 0 if longest < 9 else 30)
    ax.set_yticks(range(n), words)
    ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.5)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    return ax


@picture
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
    n, words = len(probs), [word.removeprefix("state ") for word in words]
    beside_ring = n > _LABELLED and max(map(len, words)) > 3
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
            _self_loop(ax, at[i], outward, radii[i], probs[i, i], colors[i], not beside_ring)
        ax.add_patch(Circle(tuple(at[i]), radii[i], facecolor=tint(colors[i], 0.4), edgecolor=colors[i], lw=1.5))
        # Names that are wider than a circle go outside of a crowded ring.
        place, lean = (at[i] + 3.0 * radii[i] * outward, float(outward[0])) if beside_ring else (at[i], 0.0)
        ax.text(
            float(place[0]),
            float(place[1]),
            words[i],
            ha="left" if lean > 0.3 else "right" if lean < -0.3 else "center",
            va="center",
            fontsize="medium",
            color=INK,
        )
    ax.set_aspect("equal")
    around = 3.2 * float(radii.max()) + 0.1
    wide = (reach + around) * (1 + 0.035 * max(map(len, words))) if beside_ring else reach + around
    ax.set_xlim(-wide, wide)
    vertical = 0.62 * (reach + around) if n == 2 else around
    ax.set_ylim(float(at[:, 1].min()) - vertical, float(at[:, 1].max()) + vertical)
    finish(ax, title, "", "")
    ax.set_axis_off()
    return ax


def _square(matrix: ArrayLike, names: Sequence[str] | None) -> tuple[NDArray[np.float64], list[str]]:
    probs = np.asarray(matrix, float)
    if probs.ndim != 2 or probs.shape[0] != probs.shape[1]:
        raise ShapeError(got=f"a matrix of shape {probs.shape}", expected="one row and one column a state")
    return probs, state_words(len(probs), names)


def _cell_font(ax: Axes, n: int) -> float:
    """A size of font, in points, at which four digits fit into a cell of a matrix."""
    width = float(ax.get_window_extent().width) / ax.figure.dpi / n
    return min(_CELL_FONT, _CELL_FONT * width / _CELL_WIDTH)


def _share(probability: float) -> str:
    """Two digits after the point, a third one below 0.01."""
    if probability < 0.001:
        return "<.001"
    return f"{probability:.2f}" if probability >= 0.01 else f"{probability:.3f}"


def _self_loop(
    ax: Axes,
    centre: NDArray[np.float64],
    outward: NDArray[np.float64],
    radius: float,
    probability: float,
    color: Any,
    numbered: bool,
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
    if not numbered:
        return
    place = centre + outward * (2.6 * radius + 0.14 * abs(outward[0]))
    ax.text(
        float(place[0]), float(place[1]), _share(probability), ha="center", va="center", fontsize="small", color=INK
    )
