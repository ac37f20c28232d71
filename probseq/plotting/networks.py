"""Pictures of the inside of a recurrent network: gradients through time, spectra, compression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ShapeError
from probseq.plotting.canvas import new_axes, new_panels, square, state_colors, whole_ticks
from probseq.plotting.style import (
    DASHES,
    INK,
    LINE,
    MARKERS,
    PALETTE,
    THIN,
    beside,
    finish,
    inside,
    picture,
    strong,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_compression", "plot_gradient_norms", "plot_spectra"]

_MARKED = 60
_SMALLEST = 1e-300


@picture
def plot_gradient_norms(
    norms: ArrayLike,
    band: tuple[ArrayLike, ArrayLike],
    *,
    growth: ArrayLike,
    labels: Sequence[str],
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw norms of gradients by lag on a logarithmic scale, each over its band, with the line of its rate.

    Parameters
    ----------
    norms
        shape (layer, lag), from lag 0.
    band
        lower and upper bounds of the same shape.
    growth
        factor a step back, shape (layer,); its dashed line has the height of the norms from lag 1 on.
    labels
        one a layer, for the legend.
    title, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        The arrays do not fit each other.
    """
    middle, low, high = (np.asarray(one, float) for one in (norms, *band))
    rate = np.asarray(growth, float)
    if middle.ndim != 2 or not (middle.shape == low.shape == high.shape) or not len(middle) == len(rate) == len(labels):
        raise ShapeError(
            got=f"norms {middle.shape}, band {low.shape} and {high.shape}, growth {rate.shape}, {len(labels)} labels",
            expected="norms and band of shape (layer, lag), one rate and one label a layer",
        )
    ax = new_axes(ax)
    lag = np.arange(middle.shape[1])
    positive = middle[middle > 0]
    floor = max(float(positive.min()) * 1e-3, _SMALLEST) if len(positive) else 1e-12
    ax.set_yscale("log")
    for i, (value, bottom, top, one, label, color) in enumerate(
        zip(middle, low, high, rate, labels, state_colors(len(middle)))
    ):
        ax.fill_between(lag, np.maximum(bottom, floor), np.maximum(top, floor), color=color, alpha=0.16, lw=0)
        marker = MARKERS[i % len(MARKERS)] if len(lag) <= _MARKED else ""
        shown = np.where(value > 0, value, np.nan)
        ax.plot(lag, shown, color=strong(color), lw=LINE, marker=marker, ms=3.5, label=label)
        behind = (lag > 0) & (value > 0)
        if one > 0 and behind.sum() > 1:
            height = np.log(value[behind]).mean() + (lag[1:] - lag[behind].mean()) * np.log(one)
            ax.plot(lag[1:], np.exp(height), color=INK, lw=THIN, ls="--")
    whole_ticks(ax.xaxis)
    finish(ax, title, "lag, steps back", "norm of the gradient")
    inside(ax)
    return ax


@picture
def plot_spectra(
    eigenvalues: ArrayLike,
    singular_values: ArrayLike,
    *,
    names: Sequence[str] = ("",),
    title: str | None = None,
    ax: Any = None,
) -> NDArray[Any]:
    """Draw eigenvalues of all draws beside the unit circle, and singular values with 90 % of the draws.

    Parameters
    ----------
    eigenvalues
        complex, shape (draw, matrix, rank).
    singular_values
        the largest first, of the same shape.
    names
        one a matrix; a single empty one needs no legend.
    title
        as in ``plot_fan``.
    ax
        two axes, or a figure.

    Returns
    -------
    The two axes: eigenvalues, singular values.

    Raises
    ------
    ShapeError
        The arrays do not fit each other.
    ParameterError
        There are not two axes.
    """
    eigen, singular = np.asarray(eigenvalues, complex), np.asarray(singular_values, float)
    if eigen.ndim != 3 or eigen.shape != singular.shape or eigen.shape[1] != len(names):
        raise ShapeError(
            got=f"eigenvalues {eigen.shape}, singular values {singular.shape} and {len(names)} names",
            expected="two arrays of shape (draw, matrix, rank), one name a matrix",
        )
    left, right = new_panels(ax, 1, 2, size=(9.0, 3.9), what="for eigenvalues and singular values")
    colors = state_colors(len(names))
    angle = np.linspace(0, 2 * np.pi, 200)
    left.plot(np.cos(angle), np.sin(angle), color=INK, lw=THIN)
    # Clouds of many draws stay readable where each point is faint.
    alpha = float(np.clip(300 / eigen[:, 0].size, 0.15, 0.85))
    for i, (name, color) in enumerate(zip(names, colors)):
        points = eigen[:, i].ravel()
        marker = MARKERS[i % len(MARKERS)]
        left.plot(points.real, points.imag, ls="", marker=marker, ms=4, color=color, alpha=alpha, mew=0)
        low, middle, high = np.quantile(singular[:, i], [0.05, 0.5, 0.95], axis=0)
        rank = np.arange(1, len(middle) + 1)
        if len(singular) > 1:
            right.fill_between(rank, low, high, color=tint(color, 0.25), alpha=0.6, lw=0)
        look: dict[str, Any] = {"marker": marker, "ms": 3.5} if len(rank) <= _MARKED else {}
        right.plot(rank, middle, color=strong(color), lw=LINE, ls=DASHES[i % len(DASHES)], label=name, **look)
    reach = 1.08 * max(1.0, float(np.abs(eigen).max(initial=0.0)))
    square(left, reach)
    right.axhline(1, color=INK, lw=THIN, ls="--")
    right.set_ylim(bottom=0)
    finish(left, title, "eigenvalues, real part", "imaginary part")
    finish(right, None, "rank", "singular value")
    whole_ticks(right.xaxis)
    if any(names):
        beside(right)
    return np.array([left, right], dtype=object)


@picture
def plot_compression(
    ranks: ArrayLike,
    losses: ArrayLike,
    shares: ArrayLike,
    *,
    title: str | None = None,
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw what is lost by rank, each point with the share of numbers that is left.

    Parameters
    ----------
    ranks
        shape (rank,).
    losses
        nats per value, of the same shape.
    shares
        of the numbers of the network as it was, of the same shape.
    title, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        The arrays do not fit each other.
    """
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    rank, loss, share = (np.asarray(one, float) for one in (ranks, losses, shares))
    if rank.ndim != 1 or not rank.shape == loss.shape == share.shape:
        raise ShapeError(
            got=f"ranks {rank.shape}, losses {loss.shape} and shares {share.shape}",
            expected="three arrays of shape (rank,)",
        )
    ax = new_axes(ax)
    ax.axhline(0, color=INK, lw=THIN, ls="--")
    ax.plot(rank, loss, color=color, lw=LINE, marker="o", ms=5)
    for at, height, left in zip(rank, loss, share):
        words = ax.annotate(f"{left:.0%}", (at, height), (0, 8), textcoords="offset points", ha="center")
        words.set(fontsize="small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8})
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(rank.tolist()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.margins(x=0.06, y=0.14)
    return finish(ax, title, "rank (with the share of numbers left)", "nats lost per value")
