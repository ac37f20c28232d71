"""Pictures of music: keys over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from probseq.errors import DataTypeError, ShapeError, SupportError
from probseq.plotting.canvas import limits, new_axes, on_time, times_of
from probseq.plotting.style import BAND, PALETTE, finish, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_piano_roll"]

_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
_NAMED = (0, 7)
_PIANO = 21
_FAINT = 0.05


@picture
def plot_piano_roll(
    roll: ArrayLike,
    notes: ArrayLike | None = None,
    *,
    pitches: ArrayLike | None = None,
    times: Any = None,
    title: str | None = None,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw how probable it is that each key sounds, as shades over time, and notes as dots upon them.

    Parameters
    ----------
    roll
        expectations, or notes (1 where a key sounds, else 0), shape (time, key); NaN is left grey. Of a DataArray
        ``variable`` are the keys, in whatever order its dimensions are.
    notes
        0 and 1 of the same shape, such as a sample or what was written: dots.
    pitches
        MIDI pitches of the keys, 60 for the middle C, shape (key,); by default the labels ``variable`` of a DataArray,
        the columns of a DataFrame, or a piano's, 21 (A0) and those above it.
    times
        shape (time,); steps by default.
    title, xlabel, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        Something does not have one row a time and one column a key.
    SupportError
        For expectations outside [0, 1].
    DataTypeError
        For rolls or notes that are no numbers.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    shades, dots = _numbers(roll), None if notes is None else _numbers(notes)
    if shades.ndim != 2 or (dots is not None and dots.shape != shades.shape):
        shapes = " and ".join(str(one.shape) for one in (shades, dots) if one is not None)
        raise ShapeError(
            got=f"piano rolls of shape {shapes}", expected="shape (time, key)", remedy="Select one sequence and path."
        )
    if not ((shades >= 0) & (shades <= 1) | np.isnan(shades)).all():
        raise SupportError(got=f"expectations from {np.nanmin(shades):g} to {np.nanmax(shades):g}", expected="0 to 1")
    keys = _keys(roll, pitches, shades.shape[1])
    when = times_of(np.arange(len(shades)) if times is None else times)
    if len(when) != len(shades):
        raise ShapeError(got=f"{len(when)} times", expected=f"one for each of {len(shades)} steps")
    ax = new_axes(ax)
    x = on_time(ax, when)
    # What does not sound is transparent, so that the lines of the grid show below.
    shade = to_rgb(PALETTE[0])
    colors = LinearSegmentedColormap.from_list("keys", [(*shade, 0.0), (*shade, 1.0)]).with_extremes(bad=BAND)
    low, high = _range(shades, dots, keys)
    if len(x):
        shown = np.zeros((len(x), 128))
        shown[:, keys] = shades
        ax.pcolormesh(x, np.arange(128), shown.T, cmap=colors, vmin=0.0, vmax=1.0, shading="nearest", rasterized=True)
        ax.set_xlim(*limits(x))
    if dots is not None:
        steps, struck = np.nonzero(dots == 1)
        ax.plot(x[steps], keys[struck], ls="", marker="o", ms=2.6, mew=0, color=PALETTE[4])
    finish(ax, title, xlabel, "")
    ax.grid(visible=False, axis="x")
    named = [pitch for pitch in range(low, high + 1) if pitch % 12 in _NAMED]
    ax.set_yticks(named, [f"{_NAMES[pitch % 12]}{pitch // 12 - 1}" for pitch in named])
    ax.set_ylim(low - 0.5, high + 0.5)
    return ax


def _numbers(roll: Any) -> NDArray[np.float64]:
    """Numbers with keys along the last dimension."""
    if isinstance(roll, xr.DataArray) and "variable" in roll.dims:
        roll = roll.transpose(..., "variable")
    try:
        return np.asarray(roll, dtype=float)
    except (TypeError, ValueError):
        raise DataTypeError(got=f"a piano roll of type {type(roll).__name__}", expected="numbers") from None


def _keys(roll: Any, pitches: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """One pitch a column."""
    labels = pitches
    if labels is None and isinstance(roll, xr.DataArray) and "variable" in roll.coords:
        labels = roll.coords["variable"].values
    elif labels is None and isinstance(roll, pd.DataFrame):
        labels = roll.columns
    found = np.asarray(np.arange(_PIANO, _PIANO + n) if labels is None else labels)
    if found.shape != (n,) or not np.isin(found, range(128)).all() or len(np.unique(found)) != n:
        raise ShapeError(
            got=f"pitches of shape {found.shape} and type {found.dtype}",
            expected=f"{n} different whole numbers from 0 to 127, one a key",
            remedy="Pass pitches=, 60 for the middle C.",
        )
    return found.astype(np.int64)


def _range(shades: NDArray[np.float64], dots: NDArray[np.float64] | None, keys: NDArray[np.int64]) -> tuple[int, int]:
    """The lowest and the highest pitch worth showing, and the keys beside them; at least an octave."""
    heard = (shades > _FAINT).any(0)
    if dots is not None:
        heard |= (dots == 1).any(0)
    low, high = (int(keys[heard].min()), int(keys[heard].max())) if heard.any() else (60, 60)
    apart = max(0, 12 - (high - low))
    return low - 1 - apart // 2, high + 1 + (apart + 1) // 2
