"""Pictures of what a network attends to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ShapeError
from probseq.plotting.canvas import PALETTE, finish, new_axes, times_of, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_attention"]


def plot_attention(
    times: ArrayLike,
    weights: ArrayLike,
    *,
    title: str | None = None,
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
    title, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        There is not one row of weights a time.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    when, shares = times_of(times), np.asarray(weights, float)
    if shares.ndim != 2 or len(shares) != len(when):
        raise ShapeError(
            got=f"weights of shape {shares.shape}",
            expected=f"one row for each of {len(when)} times, shape (time, lag)",
            remedy="Select one sequence, draw and head first.",
        )
    ax = new_axes(ax)
    dark: Any = tint(color, 0.9)
    shades = LinearSegmentedColormap.from_list("attention", ["white", dark])
    mesh = ax.pcolormesh(when, np.arange(shares.shape[1]), shares.T, cmap=shades, vmin=0.0, shading="nearest")
    bar = ax.figure.colorbar(mesh, ax=ax, label="weight")
    bar.outline.set_visible(False)  # type: ignore[operator]
    finish(ax, title, "", "lag")
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
