"""Pictures of what a network attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ShapeError
from probseq.plotting.canvas import limits, name_ticks, new_axes, on_time, times_of, whole_ticks
from probseq.plotting.style import PALETTE, color_bar, finish, picture, shades_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_attention"]


@picture
def plot_attention(
    times: Any,
    weights: ArrayLike,
    *,
    tokens: Sequence[str] | None = None,
    title: str | None = None,
    xlabel: str = "",
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw attention weights as shades over time, the lags one above the other.

    Parameters
    ----------
    times
        one a step, shape (time,).
    weights
        how much each step draws on the state so many steps before, shape (time, lag).
    tokens
        what stands below the steps in place of times, such as the characters of a text, shape (time,).
    title, xlabel, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        There is not one row of weights, or not one token, a time.
    """
    when, shares = times_of(times), np.asarray(weights, float)
    if shares.ndim != 2 or len(shares) != len(when):
        raise ShapeError(
            got=f"weights of shape {shares.shape}",
            expected=f"one row for each of {len(when)} times, shape (time, lag)",
            remedy="Select one sequence, draw and head first.",
        )
    if tokens is not None and len(tokens) != len(when):
        raise ShapeError(got=f"{len(tokens)} tokens", expected=f"one for each of {len(when)} times")
    when = when if tokens is None else np.arange(len(when))
    ax = new_axes(ax)
    x = on_time(ax, when)
    if len(x):
        rows = np.arange(shares.shape[1])
        mesh = ax.pcolormesh(x, rows, shares.T, cmap=shades_of(color), vmin=0.0, shading="nearest")
        color_bar(mesh, ax, "weight")
        ax.set_xlim(*limits(x))
    finish(ax, title, xlabel, "lag")
    ax.grid(visible=False)
    whole_ticks(ax.yaxis)
    if tokens is not None:
        name_ticks(ax, [str(token) for token in tokens])
    return ax
