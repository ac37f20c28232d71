"""Axes, colours and times that all pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ParameterError, ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK",
    "PALETTE",
    "along",
    "axes_in",
    "beside",
    "draw_history",
    "draw_truth",
    "finish",
    "hide_times",
    "limits",
    "new_axes",
    "panel_below",
    "patch",
    "runs",
    "state_colors",
    "state_words",
    "times_of",
    "tint",
]

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#7F7F7F")
"""Okabe and Ito (2008), with grey in place of black, which is for data."""

INK = "#222222"
_SIZE = (8.0, 3.6)


def new_axes(ax: Axes | None, width: float = _SIZE[0], height: float = _SIZE[1]) -> Axes:
    """The axes given, or those of a new figure (inches)."""
    if ax is not None:
        return axes_in(ax)[0]
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def axes_in(ax: Any) -> list[Axes]:
    """The axes given, one or an array of them, or a ParameterError."""
    from matplotlib.axes import Axes

    found = list(np.asarray(ax, dtype=object).ravel())
    wrong = [one for one in found if not isinstance(one, Axes)]
    if wrong or not found:
        raise ParameterError(
            got=f"ax={wrong[0]!r}" if wrong else "no axes",
            expected="axes of matplotlib",
            remedy="Make them with plt.subplots(), or leave ax out.",
        )
    return found


def panel_below(ax: Axes) -> Axes:
    """Give the lower part of an axes to a second one that shares its x-axis."""
    place = ax.get_subplotspec()
    if place is None:
        return ax.inset_axes((0.0, -0.42, 1.0, 0.34), sharex=ax)
    grid = place.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.08)
    ax.set_subplotspec(grid[0])
    return ax.figure.add_subplot(grid[1], sharex=ax)


def finish(ax: Axes, title: str | None, xlabel: str, ylabel: str, legend: bool = False) -> Axes:
    """Texts, grid and spines, the same in all pictures."""
    import matplotlib.dates as mdates

    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E6E6E6", lw=0.7)
    ax.set_axisbelow(True)
    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, mdates.AutoDateLocator):
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        # Eleven years, matplotlib's most, run into each other in a panel of a third of a page.
        width = ax.bbox.width / ax.figure.dpi
        locator.maxticks[mdates.YEARLY] = min(locator.maxticks[mdates.YEARLY], max(3, int(2 * width)))
    if title:
        ax.set_title(title, loc="left", fontsize="medium")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if legend and ax.get_legend_handles_labels()[1]:
        ax.legend(**beside())
    return ax


def hide_times(ax: Axes) -> None:
    """Leave the labels of the time axis to the panel below."""
    ax.tick_params(labelbottom=False)
    ax.xaxis.offsetText.set_visible(False)


def beside() -> dict[str, Any]:
    """Place a legend to the right of the axes, where it hides no data."""
    return {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": "small"}


def patch(color: Any, label: str) -> Any:
    """An entry of a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label)


def tint(color: str, strength: float, towards: str = "white") -> tuple[float, float, float]:
    """Mix a colour with another; opaque, so that what overlaps keeps its hue."""
    from matplotlib.colors import to_rgb

    near, far = np.array(to_rgb(color)), np.array(to_rgb(towards))
    red, green, blue = (strength * near + (1 - strength) * far).tolist()
    return red, green, blue


def state_colors(n_states: int) -> list[Any]:
    """One colour a state: the palette, or shades where there are more states."""
    if n_states <= len(PALETTE):
        return list(PALETTE[:n_states])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(c) for c in colormaps["cividis"](np.linspace(0, 1, n_states))]


def state_words(n_states: int, names: Sequence[str] | None) -> list[str]:
    """The names of states, or what their numbers make."""
    words = [f"state {s}" for s in range(n_states)] if names is None else [str(name) for name in names]
    if len(words) != n_states:
        raise ShapeError(got=f"{len(words)} names", expected=f"one for each of {n_states} states")
    return words


def times_of(times: ArrayLike) -> NDArray[Any]:
    """Times as an array (time,)."""
    when = np.asarray(times)
    if when.ndim != 1:
        raise ShapeError(got=f"times of shape {when.shape}", expected="one time a step, shape (time,)")
    return when


def along(values: ArrayLike, when: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Values as an array with one a time; ``name`` is for the error."""
    array = np.asarray(values, float)
    if array.shape != when.shape:
        raise ShapeError(
            got=f"{name} of shape {array.shape}",
            expected=f"one value for each of {len(when)} times",
            remedy="Select one variable and one sequence first.",
        )
    return array


def draw_history(ax: Axes, history: tuple[ArrayLike, ArrayLike] | None) -> None:
    """The line of the data before a forecast, (times, values)."""
    if history is not None:
        past = times_of(history[0])
        ax.plot(past, along(history[1], past, "history"), color=INK, lw=1.2, label="history")


def draw_truth(ax: Axes, when: NDArray[Any], truth: ArrayLike | None) -> None:
    """What happened, one value a time."""
    if truth is not None:
        seen = along(truth, when, "truth")
        ax.plot(when, seen, color=INK, lw=0.9, marker="o", ms=3.2, mfc="white", mew=0.9, label="observed")


def limits(x: NDArray[np.float64]) -> tuple[float, float]:
    """Half a step before the first time and after the last."""
    half = 0.5 * float(np.median(np.diff(x))) if len(x) > 1 else 0.5
    return float(x[0]) - half, float(x[-1]) + half


def runs(x: NDArray[np.float64], inside: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(start, width) of every run of True; neighbours meet halfway between their times."""
    low, high = limits(x)
    bounds = np.concatenate([[low], (x[1:] + x[:-1]) / 2, [high]])
    change = np.diff(np.concatenate([[0], inside.astype(int), [0]]))
    starts, ends = bounds[np.flatnonzero(change == 1)], bounds[np.flatnonzero(change == -1)]
    return list(zip(starts.tolist(), (ends - starts).tolist()))
