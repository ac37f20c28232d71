"""Axes, times and states that all pictures share."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ParameterError, ShapeError
from probseq.plotting.style import INK, PALETTE, THIN, finish, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK",
    "PALETTE",
    "alone",
    "along",
    "axes_in",
    "draw_history",
    "draw_truth",
    "drawn_on",
    "figure_class",
    "finish",
    "hide_times",
    "limits",
    "name_ticks",
    "new_axes",
    "new_panels",
    "on_time",
    "panel_below",
    "patch",
    "runs",
    "square",
    "stamps",
    "state_colors",
    "state_words",
    "times_of",
    "tint",
    "whole_ticks",
]

_SIZE = (8.0, 3.6)
# Inches of a letter, of a Chinese character and of a line of the small texts beside ticks.
_NARROW, _WIDE, _LINE_HEIGHT = 0.082, 0.125, 0.2


def new_axes(ax: Any, width: float = _SIZE[0], height: float = _SIZE[1]) -> Axes:
    """The axes given, or those of a new figure (inches); in a figure that is given they fill it."""
    return new_panels(ax, 1, 1, size=(width, height))[0]


def new_panels(
    ax: Any, rows: int, columns: int, *, size: tuple[float, float], what: str = "", **grid: Any
) -> list[Axes]:
    """The axes given, as many as there are panels, or new ones in a figure that is given or made.

    Parameters
    ----------
    ax
        None, one Axes, an array or list of Axes, a Figure or a SubFigure.
    rows, columns
        how new panels are laid out; they come row by row.
    size
        of a new figure, inches.
    what
        what each panel is for, in words for the error.
    grid
        further arguments of ``Figure.subplots``.

    Raises
    ------
    ParameterError
        There are not as many axes as panels, or something is no axes.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=size, layout="constrained")
    if isinstance(ax, figure_class()):
        figure: Any = ax
        return list(figure.subplots(rows, columns, squeeze=False, **grid).ravel())
    n, found = rows * columns, axes_in(ax)
    if len(found) != n:
        raise ParameterError(
            got=f"{len(found)} axes",
            expected=("1" if n == 1 else f"{n} axes") + (f", {what}" if what else ""),
            remedy="Leave ax out"
            + (f", pass a figure, or make them with plt.subplots({rows}, {columns})." if n > 1 else "."),
        )
    return found


def drawn_on(panels: list[Axes]) -> Axes | np.ndarray:
    """What a plot returns that makes as many panels as it needs: the only Axes, or a flat array of them."""
    return panels[0] if len(panels) == 1 else np.array(panels, dtype=object)


def figure_class() -> type:
    """What figures and parts of figures are."""
    from matplotlib.figure import FigureBase

    return FigureBase


def axes_in(ax: Any) -> list[Axes]:
    """The axes given, one or an array of them, or a ParameterError."""
    from matplotlib.axes import Axes

    found = [ax] if isinstance(ax, Axes) else list(np.asarray(ax, dtype=object).ravel())
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


def hide_times(ax: Axes) -> None:
    """Leave the labels of the time axis to the panel below."""
    ax.tick_params(labelbottom=False)
    ax.xaxis.offsetText.set_visible(False)


def patch(color: Any, label: str) -> Any:
    """An entry of a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label)


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


def times_of(times: Any) -> NDArray[Any]:
    """Times as an array (time,): numbers, strings, or ``datetime64`` for stamps and periods of any kind."""
    if isinstance(times, pd.Index):
        return stamps(times)
    when = np.asarray(times)
    if when.ndim != 1:
        raise ShapeError(got=f"times of shape {when.shape}", expected="one time a step, shape (time,)")
    if when.dtype != object or all(isinstance(one, str) for one in when):
        return when
    if all(isinstance(one, datetime.date) for one in when):
        return stamps(pd.DatetimeIndex(when))
    return stamps(pd.Index(when))


def stamps(index: pd.Index) -> NDArray[Any]:
    """Times that matplotlib understands: local clock times, numbers, or the number of the step for anything else."""
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        return np.asarray(index.tz_localize(None).to_numpy(), dtype="datetime64[ns]")
    if index.dtype.kind in "iuf":
        return index.to_numpy()
    return np.arange(len(index))


def on_time(ax: Axes, when: NDArray[Any]) -> NDArray[np.float64]:
    """Make the x-axis one of these times, with whole numbers for whole steps, and return where they lie on it."""
    ax.xaxis.update_units(when)
    if when.dtype.kind in "iub":
        whole_ticks(ax.xaxis)
    return np.asarray(ax.convert_xunits(when), float)


def whole_ticks(axis: Any) -> None:
    """Whole numbers along an axis that counts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def square(ax: Axes, reach: float) -> None:
    """A part of the plane around zero, the same length along both axes."""
    from matplotlib.ticker import MaxNLocator

    ax.set_aspect("equal", adjustable="box")
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))


def name_ticks(ax: Axes, names: Sequence[str], at: Sequence[float] | None = None) -> None:
    """Names below the x-axis: turned where they would touch each other, some left out where they would still."""
    places = list(range(len(names)) if at is None else at)
    widths = [sum(_WIDE if ord(one) >= 0x2E80 else _NARROW for one in name) for name in names]
    room = ax.get_window_extent().width / ax.figure.dpi / max(len(names), 1)
    if all(one + other < 2 * room for one, other in zip(widths, widths[1:])):
        ax.set_xticks(places, names)
        return
    every = math.ceil(_LINE_HEIGHT / room)
    shown = slice(None, None, every)
    short = max(widths) < every * room
    ax.set_xticks(
        places[shown], list(names)[shown], rotation=0 if short else 35, ha="center" if short else "right",
        rotation_mode="anchor",
    )  # fmt: skip


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
        line = along(history[1], past, "history")
        ax.plot(past, line, color=INK, lw=1.2, label="history", **alone(line))


def draw_truth(ax: Axes, when: NDArray[Any], truth: ArrayLike | None) -> None:
    """What happened, one value a time."""
    if truth is not None:
        seen = along(truth, when, "truth")
        ax.plot(when, seen, color=INK, lw=THIN, marker="o", ms=3.2, mfc="white", mew=0.9, label="observed", zorder=4)


def alone(line: NDArray[np.float64]) -> dict[str, Any]:
    """A marker for lines of which a value has no neighbour, since it would not be seen."""
    known = np.isfinite(line)
    lonely = known & ~np.append(known[1:], False) & ~np.insert(known[:-1], 0, False)
    if not lonely.any():
        return {}
    return {"marker": "o", "ms": 3.5, "markevery": np.flatnonzero(lonely).tolist()}


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
