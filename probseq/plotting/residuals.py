"""Pictures of residuals that are standard normal if the model is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from probseq.errors import EmptyDataError, ShapeError
from probseq.plotting.canvas import new_panels, on_time, times_of, whole_ticks
from probseq.plotting.style import BAND, GUIDE, INK, PALETTE, THIN, finish, inside, picture, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_residuals"]

_LIMIT = 1.959964


@picture
def plot_residuals(
    times: Any,
    residuals: ArrayLike,
    segments: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    n_lags: int = 20,
    breaks: Sequence[int] = (),
    title: str | None = None,
    xlabel: str = "",
    color: str = PALETTE[0],
    ax: Any = None,
) -> NDArray[Any]:
    """Draw four panels: residuals in time, their histogram, normal quantiles, and autocorrelations.

    If the model is right one residual in twenty lies outside the lines at 1.96, the histogram follows the normal curve,
    the quantiles the diagonal, and autocorrelations stay inside their 95 % band.

    Parameters
    ----------
    times
        shape (time,).
    residuals
        shape (time,); NaN is left out.
    segments
        ends of the segments of discrete values, each of shape (time,).
    n_lags
        number of autocorrelations.
    breaks
        where a new sequence begins: pairs across it do not count as neighbours.
    title, xlabel, color
        as in ``plot_fan``.
    ax
        four axes, or a figure.

    Returns
    -------
    The four axes: index, histogram, quantiles, autocorrelations.

    Raises
    ------
    ShapeError
        Times and residuals differ in length.
    ParameterError
        There are not four axes.
    EmptyDataError
        No residual is a number.
    """
    when, z = times_of(times), np.asarray(residuals, float)
    if z.shape != when.shape:
        raise ShapeError(got=f"residuals of shape {z.shape}", expected=f"one for each of {len(when)} times")
    finite = z[np.isfinite(z)]
    if not len(finite):
        raise EmptyDataError(
            got="residuals none of which is a finite number",
            expected="at least one value that was seen and predicted",
            remedy="Pass longer data, or history=.",
        )
    panels = new_panels(ax, 2, 2, size=(8.6, 5.6), what="for times, histogram, quantiles and autocorrelations")
    _index_plot(panels[0], when, z, segments, color)
    finish(panels[0], title, xlabel, "residual")
    _histogram(panels[1], finite, color)
    _quantiles(panels[2], finite, color)
    _autocorrelations(panels[3], z, n_lags, breaks, color)
    return np.array(panels, dtype=object)


def _index_plot(ax: Axes, when: NDArray[Any], z: NDArray[np.float64], segments: Any, color: str) -> None:
    on_time(ax, when)
    outside = np.abs(z) > _LIMIT
    if segments is not None:
        low, high = (np.clip(np.asarray(end, float), -8.3, 8.3) for end in segments)
        ax.vlines(when, low, high, color=tint(color, 0.45), lw=1.4)
    size = 4 if len(when) <= 400 else 2
    ax.plot(when[~outside], z[~outside], ls="", marker="o", ms=size, color=tint(color, 0.8), mew=0)
    ax.plot(when[outside], z[outside], ls="", marker="o", ms=size + 1, color=PALETTE[4], mew=0)
    for level in (-_LIMIT, _LIMIT):
        ax.axhline(level, color=INK, lw=THIN, ls="--")
    ax.axhline(0, color=INK, lw=THIN)


def _histogram(ax: Axes, z: NDArray[np.float64], color: str) -> None:
    reach = max(3.2, float(np.abs(z).max(initial=0.0)) + 0.2)
    bins = int(np.clip(2 * len(z) ** (1 / 3) * reach / 3, 8, 60))
    ax.hist(z, bins=bins, range=(-reach, reach), density=True, color=tint(color, 0.55), ec="white", lw=0.7)
    x = np.linspace(-reach, reach, 200)
    ax.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=INK, lw=1.3, ls="--", label="standard normal")
    ax.set_ylim(0, 1.25 * ax.get_ylim()[1])
    finish(ax, None, f"residual ({len(z)} values)", "density")
    inside(ax, "upper left")


def _quantiles(ax: Axes, z: NDArray[np.float64], color: str) -> None:
    expected = special.ndtri((np.arange(len(z)) + 0.5) / max(len(z), 1))
    reach = max(3.0, float(np.abs(z).max(initial=0.0)) + 0.2)
    ax.plot([-reach, reach], [-reach, reach], color=INK, lw=GUIDE, ls="--")
    ax.plot(expected, np.sort(z), ls="", marker="o", ms=3, color=tint(color, 0.8), mew=0)
    side = max(3.0, float(np.abs(expected).max(initial=0.0)) + 0.2)
    ax.set_xlim(-side, side)
    ax.set_ylim(-reach, reach)
    finish(ax, None, "quantile of the standard normal", "quantile of the residuals")


def _autocorrelations(ax: Axes, z: NDArray[np.float64], n_lags: int, breaks: Sequence[int], color: str) -> None:
    found = np.where(np.isfinite(z), z, np.nan)
    block = np.searchsorted(np.asarray(breaks, dtype=int), np.arange(len(z)), side="right")
    centred = found - np.nanmean(found) if np.isfinite(found).any() else found
    power = np.nanmean(centred**2) if np.isfinite(found).any() else 1.0
    lags = np.arange(1, min(n_lags, len(z) - 1) + 1)
    values, bands = [], []
    for lag in lags:
        pairs = np.where(block[lag:] == block[:-lag], centred[lag:] * centred[:-lag], np.nan)
        n = int(np.isfinite(pairs).sum())
        values.append(np.nansum(pairs) / max(np.isfinite(centred).sum(), 1) / max(power, 1e-300))
        bands.append(_LIMIT / np.sqrt(max(n, 1)))
    ax.fill_between(lags, -np.array(bands), bands, color=BAND, lw=0)
    ax.vlines(lags, 0, values, color=tint(color, 0.8), lw=2.4)
    ax.axhline(0, color=INK, lw=THIN)
    reach = 1.2 * max([0.3, *np.abs(values), *bands]) if len(lags) else 1.0
    ax.set_ylim(-min(reach, 1.05), min(reach, 1.05))
    whole_ticks(ax.xaxis)
    finish(ax, None, "lag", "autocorrelation")
