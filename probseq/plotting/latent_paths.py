"""Pictures of latent variables that are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ShapeError
from probseq.plotting.canvas import alone, new_axes, on_time, state_colors, state_words, times_of
from probseq.plotting.style import DASHES, LINE, finish, picture, strong, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_latent_paths"]


@picture
def plot_latent_paths(
    times: Any,
    means: ArrayLike,
    band: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "latent variable",
    ax: Axes | None = None,
) -> Axes:
    """Draw latent variables over time, each inside its band.

    Parameters
    ----------
    times
        shape (time,).
    means
        shape (time, state).
    band
        lower and upper bounds of the same shape.
    names
        names of the states, for the legend.
    title, xlabel, ylabel, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        Something does not have one row a time and one column a state.
    """
    when, centre = times_of(times), np.asarray(means, float)
    edges = [] if band is None else [np.asarray(edge, float) for edge in band]
    if centre.ndim != 2 or len(centre) != len(when) or any(edge.shape != centre.shape for edge in edges):
        shapes = ", ".join(str(one.shape) for one in (centre, *edges))
        raise ShapeError(got=f"means and band of shapes {shapes}", expected=f"shape ({len(when)}, state)")
    words, colors = state_words(centre.shape[1], names), state_colors(centre.shape[1])
    ax = new_axes(ax)
    on_time(ax, when)
    for j, (word, color) in enumerate(zip(words, colors, strict=True)):
        if edges and len(when) > 1:
            ax.fill_between(when, edges[0][:, j], edges[1][:, j], color=color, alpha=0.2, lw=0)
        elif edges:
            ax.vlines(when, edges[0][:, j], edges[1][:, j], color=tint(color, 0.4), lw=6)
        line = centre[:, j]
        ax.plot(when, line, color=strong(color), lw=LINE, ls=DASHES[j % len(DASHES)], label=word, **alone(line))
    return finish(ax, title, xlabel, ylabel, legend=True)
