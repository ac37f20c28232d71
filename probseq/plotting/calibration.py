"""Pictures of how forecasts keep what they promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ParameterError
from probseq.plotting.canvas import new_panels
from probseq.plotting.style import BAND, DASHES, GUIDE, INK, LINE, MARKERS, PALETTE, beside, finish, picture, strong

__all__ = ["plot_calibration_curves"]


@picture
def plot_calibration_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    histograms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    error: tuple[ArrayLike, ArrayLike] | None = None,
    band: tuple[float, float] | None = None,
    unit: str = "",
    title: str | None = None,
    ax: Any = None,
) -> np.ndarray:
    """Draw coverage by level, PIT values and widths by level side by side, one colour a name.

    Parameters
    ----------
    curves
        name -> (levels, coverage, mean width), each of shape (level,).
    histograms
        name -> (middles of bins, density), each of shape (bin,).
    error
        (levels, standard error of the coverage of a right forecast): a band of two of them around the diagonal.
    band
        within which the bars of a right forecast stay.
    unit
        of the widths.
    title
        above the first panel.
    ax
        three axes, or a figure.

    Returns
    -------
    The three axes: coverage, PIT values, widths.

    Raises
    ------
    ParameterError
        There is nothing to draw, or there are not three axes.
    """
    if not curves:
        raise ParameterError(got="no curve", expected="at least one model", remedy="Pass one.")
    covered, pits, widths = new_panels(ax, 1, 3, size=(11.0, 3.4), what="for coverage, PIT values and widths")
    covered.plot([0, 1], [0, 1], color=INK, lw=GUIDE, ls="--")
    if error is not None:
        level, se = (np.asarray(part, float) for part in error)
        covered.fill_between(level, level - 2 * se, level + 2 * se, color=BAND, lw=0, label="± 2 s.e.")
    if band is not None:
        pits.axhspan(*band, color=BAND, lw=0)
    pits.axhline(1.0, color=INK, lw=GUIDE, ls="--")
    for i, (name, (levels, coverage, width)) in enumerate(curves.items()):
        color, dash, marker = strong(PALETTE[i % len(PALETTE)]), DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
        look: dict[str, Any] = {"color": color, "lw": LINE, "ls": dash, "marker": marker, "ms": 3.5}
        covered.plot(levels, coverage, label=name or "coverage", **look)
        widths.plot(levels, width, **look)
        middles, density = (np.asarray(part, float) for part in histograms[name])
        half = 0.5 / len(middles)
        edges = np.concatenate([middles[:1] - half, middles, middles[-1:] + half])
        pits.step(edges, np.pad(density, 1, mode="edge"), where="mid", color=color, lw=LINE, ls=dash)
    for panel in (covered, pits):
        panel.set_xlim(0, 1)
    covered.set_ylim(0, 1)
    pits.set_ylim(bottom=0)
    widths.set_ylim(bottom=0)
    finish(covered, title, "probability of the interval", "share of values inside")
    finish(pits, None, "probability integral transform", "density")
    finish(widths, None, "probability of the interval", f"mean width, {unit}" if unit else "mean width")
    handles, labels = covered.get_legend_handles_labels()
    if len(curves) > 1 or error is not None:
        beside(widths, handles=handles, labels=labels)
    return np.array([covered, pits, widths], dtype=object)
