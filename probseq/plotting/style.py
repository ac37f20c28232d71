"""The one style of all pictures: colours, lines, dashes, sizes of texts, spines, grids and legends.

Sizes of texts are relative to the reader's ``font.size``; everything else is fixed here, and matplotlib's global
settings are neither read nor changed for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from probseq.plotting.fonts import fit_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BAND",
    "BAR",
    "DASHES",
    "GREY",
    "GUIDE",
    "INK",
    "LINE",
    "MARKERS",
    "PALETTE",
    "THIN",
    "above",
    "beside",
    "color_bar",
    "dress",
    "finish",
    "inside",
    "picture",
    "shades_of",
    "strong",
    "tint",
]

GREY = "#595959"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", GREY)
"""Okabe and Ito (2008), with a dark grey in place of black, which is for data."""

INK = "#222222"
"""What was observed, texts, and lines that guide the eye."""

BAND, BAR, _GRID, _SPINE = "#EBEBEB", "#DADADA", "#E6E6E6", "#8C8C8C"
LINE, THIN, GUIDE = 1.6, 0.9, 1.0
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
"""Lines that share a picture differ by these too, for those who see or print no colours."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_TITLE, _LABEL, _TICK, _LEGEND = "medium", "medium", "small", "small"
_PAPER_CONTRAST = 3.0

_P = ParamSpec("_P")
_R = TypeVar("_R")


def picture(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function that draws on axes and returns them keep what all pictures promise.

    Every text has a font with its glyphs, or there is a GlyphError; a function that fails leaves no figure behind.
    """

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        import matplotlib.pyplot as plt

        before = set(plt.get_fignums())
        try:
            found = draw(*args, **kwargs)
            for ax in np.asarray(found, dtype=object).ravel():
                fit_fonts(ax)
        except Exception:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            raise
        return found

    return drawn


def dress(ax: Axes) -> None:
    """Spines, grid and sizes of texts."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(_SPINE)
    ax.spines[:].set_linewidth(0.8)
    ax.grid(color=_GRID, lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=_TICK, color=_SPINE, labelcolor=INK, width=0.8, length=3.5)
    ax.tick_params(which="minor", length=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(fontsize=_LABEL, color=INK)
        axis.offsetText.set(fontsize=_TICK, color=INK)


def finish(ax: Axes, title: str | None, xlabel: str, ylabel: str, legend: bool = False) -> Axes:
    """Texts, ticks, grid and spines, the same in all pictures."""
    import matplotlib.dates as mdates

    dress(ax)
    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, mdates.AutoDateLocator):
        ax.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        # Eleven years, matplotlib's most, run into each other in a panel of a third of a page.
        width = ax.bbox.width / ax.figure.dpi
        locator.maxticks[mdates.YEARLY] = min(locator.maxticks[mdates.YEARLY], max(3, int(2 * width)))
    if title:
        ax.set_title(title, loc="left", fontsize=_TITLE, color=INK)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if legend and ax.get_legend_handles_labels()[1]:
        beside(ax)
    return ax


def beside(ax: Axes, **settings: Any) -> None:
    """A legend to the right of the axes, where it hides no data; axes make room for it in a figure that does not."""
    legend = ax.legend(
        **{"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "fontsize": _LEGEND, **settings}
    )
    if ax.figure.get_layout_engine() is not None or ax.get_subplotspec() is None:
        return
    fit_fonts(ax)  # before the legend is measured
    to_figure = ax.figure.transSubfigure.inverted()
    place = ax.get_position()
    neighbours = [
        other.get_position().x0 - 0.05
        for other in ax.figure.axes
        if other.get_position().x0 > place.x0 + 1e-6
        and min(other.get_position().y1, place.y1) > max(other.get_position().y0, place.y0)
    ]
    over = legend.get_window_extent().transformed(to_figure).x1 - min([0.995, *neighbours])
    if 0 < over < 0.6 * place.width:
        ax.set_position((place.x0, place.y0, place.width - over, place.height))


def above(ax: Axes) -> None:
    """A legend in one row over the right end of the axes."""
    n = len(ax.get_legend_handles_labels()[1])
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=n, frameon=False, fontsize=_LEGEND, borderaxespad=0.2)


def inside(ax: Axes, loc: Any = "best") -> None:
    """A legend in a corner that the picture keeps free."""
    ax.legend(loc=loc, frameon=False, fontsize=_LEGEND)


def color_bar(drawn: Any, ax: Axes, label: str) -> None:
    """What the shades of an image mean, beside its axes."""
    bar: Any = ax.figure.colorbar(drawn, ax=ax, label=label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=_TICK, color=_SPINE, labelcolor=INK, width=0.8, length=3.5)
    bar.ax.yaxis.label.set(fontsize=_LABEL, color=INK)


def shades_of(color: str) -> Any:
    """A colour map from white to a colour."""
    from matplotlib.colors import LinearSegmentedColormap

    dark: Any = tint(color, 0.9, INK)
    return LinearSegmentedColormap.from_list("shades", ["white", dark])


def tint(color: Any, strength: float, towards: str = "white") -> tuple[float, float, float]:
    """Mix a colour with another; opaque, so that what overlaps keeps its hue."""
    from matplotlib.colors import to_rgb

    near, far = np.array(to_rgb(color)), np.array(to_rgb(towards))
    red, green, blue = (strength * near + (1 - strength) * far).tolist()
    return red, green, blue


def strong(color: Any) -> tuple[float, float, float]:
    """The colour, darkened until thin lines of it have a contrast of 3:1 to white paper (WCAG 2.2, 1.4.11)."""
    strength = 1.0
    while 1.05 / (_luminance(tint(color, strength, INK)) + 0.05) < _PAPER_CONTRAST:
        strength -= 0.02
    return tint(color, strength, INK)


def _luminance(color: tuple[float, float, float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
