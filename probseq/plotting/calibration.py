"""Pictures of how forecasts keep what they promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ParameterError
from probseq.plotting.canvas import INK, PALETTE, axes_in, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_calibration_curves"]


def plot_calibration_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    histograms: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    error: tuple[ArrayLike, ArrayLike] | None = None,
    band: tuple[float, float] | None = None,
    unit: str = "",
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
    ax
        three axes to draw on.

    Raises
    ------
    ParameterError
        There is nothing to draw, or there are not three axes.
    """
    if not curves:
        raise ParameterError(got="no curve", expected="at least one model", remedy="Pass one.")
    covered, pits, widths = _panels(ax)
    covered.plot([0, 1], [0, 1], color=INK, lw=1.0, ls="--")
    if error is not None:
        level, se = (np.asarray(part, float) for part in error)
        covered.fill_between(level, level - 2 * se, level + 2 * se, color="#EEEEEE", lw=0, label="± 2 s.e.")
    if band is not None:
        pits.axhspan(*band, color="#EEEEEE", lw=0)
    pits.axhline(1.0, color=INK, lw=1.0, ls="--")
    for i, (name, (levels, coverage, width)) in enumerate(curves.items()):
        color = PALETTE[i % len(PALETTE)]
        covered.plot(levels, coverage, color=color, lw=1.6, marker="o", ms=3, label=name or "coverage")
        widths.plot(levels, width, color=color, lw=1.6, marker="o", ms=3)
        middles, density = (np.asarray(part, float) for part in histograms[name])
        pits.step(middles, density, where="mid", color=color, lw=1.6)
    for panel in (covered, pits):
        panel.set_xlim(0, 1)
    covered.set_ylim(0, 1)
    pits.set_ylim(bottom=0)
    widths.set_ylim(bottom=0)
    finish(covered, None, "probability of the interval", "share of values inside")
    covered.legend(loc="upper left", frameon=False, fontsize="small")
    finish(pits, None, "probability integral transform", "density")
    finish(widths, None, "probability of the interval", f"mean width ({unit})" if unit else "mean width")
    return np.array([covered, pits, widths], dtype=object)


def _panels(ax: Any) -> list[Axes]:
    if ax is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
        return list(axes)
    panels = list(axes_in(ax))
    if len(panels) != 3:
        raise ParameterError(got=f"{len(panels)} axes", expected="three", remedy="Leave ax out.")
    return panels
