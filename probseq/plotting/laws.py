"""Pictures of whole laws step by step: quantiles as lines, ridges of densities or masses, bars of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from probseq.errors import ShapeError
from probseq.plotting.canvas import (
    alone,
    along,
    draw_history,
    draw_truth,
    name_ticks,
    new_axes,
    on_time,
    times_of,
)
from probseq.plotting.style import GREY, INK, PALETTE, THIN, above, beside, color_bar, finish, picture, shades_of, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_bars", "plot_quantiles", "plot_ridge", "plot_shades"]

_RIDGE = 0.85
"""Height of the tallest ridge, in distances between two of them."""


@picture
def plot_quantiles(
    times: Any,
    quantiles: Mapping[float, ArrayLike],
    *,
    history: tuple[ArrayLike, ArrayLike] | None = None,
    truth: ArrayLike | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw one line a quantile, the darker the closer to the median, each with its level at its end.

    Parameters
    ----------
    times
        shape (time,).
    quantiles
        level -> values, shape (time,).
    history, truth, title, xlabel, ylabel, color, ax
        as in ``plot_fan``.
    """
    when = times_of(times)
    ax = new_axes(ax)
    on_time(ax, when)
    draw_history(ax, history)
    for level in sorted(quantiles, reverse=True):
        line = along(quantiles[level], when, f"quantile {level:g}")
        near = 1.0 - 2.0 * abs(level - 0.5)
        shade = tint(color, 0.45 + 0.55 * near)
        ax.plot(when, line, color=shade, lw=1.0 + near, **alone(line))
        known = np.flatnonzero(np.isfinite(line))
        if len(known):
            ax.annotate(
                f"{100 * level:g} %", (when[known[-1]], line[known[-1]]), (5, 0), textcoords="offset points",
                va="center", fontsize="small", color=INK,
            )  # fmt: skip
    draw_truth(ax, when, truth)
    finish(ax, title, xlabel, ylabel)
    if ax.get_legend_handles_labels()[1]:
        beside(ax, bbox_to_anchor=(1.06, 1.0))
    return ax


@picture
def plot_ridge(
    names: Sequence[str],
    values: Sequence[ArrayLike],
    heights: Sequence[ArrayLike],
    *,
    counted: bool = False,
    truth: ArrayLike | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw one law a row, from top to bottom: densities as areas, masses of counts as bars.

    Parameters
    ----------
    names
        of the rows.
    values, heights
        for each row the values and their densities (or masses), shape (value,) both.
    counted
        bars at whole numbers in place of an area.
    truth
        what happened in each row, shape (row,); NaN is missing.
    title, xlabel, ylabel, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        Not one of everything for each row.
    """
    if not len(names) == len(values) == len(heights):
        raise ShapeError(
            got=f"{len(names)} names, {len(values)} rows of values and {len(heights)} of heights",
            expected="as many of each",
        )
    ax = new_axes(ax, height=max(2.4, 0.9 + 0.32 * len(names)))
    tallest = max((float(np.nanmax(np.asarray(row, float), initial=0.0)) for row in heights), default=0.0) or 1.0
    for rank, (at, row) in enumerate(zip(values, heights, strict=True)):
        x, base = np.asarray(at, float), -float(rank)
        height = _RIDGE * along(row, x, "heights") / tallest
        fill, line = tint(color, 0.45), tint(color, 0.9, INK)
        if counted:
            ax.bar(x, height, 0.8, bottom=base, color=fill, ec=line, lw=0.4, zorder=2 + rank)
        else:
            ax.fill_between(x, base, base + height, color=fill, lw=0, zorder=2 + rank)
            ax.plot(x, base + height, color=line, lw=THIN, zorder=2 + rank)
    if truth is not None:
        seen = along(truth, np.arange(len(names)), "truth")
        ax.plot(
            seen, -np.arange(len(names)), color=INK, lw=0, marker="o", ms=4, mfc="white", label="observed",
            zorder=3 + len(names),
        )  # fmt: skip
    ax.set_yticks(-np.arange(len(names)), list(names))
    ax.set_ylim(-len(names) + 0.7, 1.1)
    return finish(ax, title, xlabel, ylabel, legend=True)


@picture
def plot_bars(
    names: Sequence[str],
    categories: Sequence[str],
    probs: ArrayLike,
    *,
    truth: Sequence[str | None] | None = None,
    most: int = 7,
    title: str | None = None,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw one stacked bar a step, with the probability of each category; rare ones are put together.

    Parameters
    ----------
    names
        of the steps.
    categories
        names of the categories.
    probs
        shape (step, category).
    truth
        for each step the category that came, or None.
    most
        how many categories have a colour of their own, the most probable ones.
    title, xlabel, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        ``probs`` has another shape.
    """
    p = _checked(probs, names, categories)
    ax = new_axes(ax)
    shown = np.sort(np.argsort(-p.sum(0), kind="stable")[: min(most, len(PALETTE) - 1)])
    where, bottom = np.arange(len(names)), np.zeros(len(names))
    middle: dict[tuple[int, int], float] = {}
    for color, c in zip(PALETTE, shown, strict=False):
        look: dict[str, Any] = {"color": tint(color, 0.75), "ec": "white", "lw": 0.6, "label": str(categories[c])}
        ax.bar(where, p[:, c], 0.8, bottom=bottom, **look)
        middle |= {(step, int(c)): float(bottom[step] + p[step, c] / 2) for step in range(len(names))}
        bottom = bottom + p[:, c]
    if len(shown) < len(categories):
        ax.bar(where, p.sum(1) - bottom, 0.8, bottom=bottom, color=tint(GREY, 0.3), ec="white", lw=0.6, label="others")
        middle |= {
            (step, c): float((bottom[step] + p[step].sum()) / 2)
            for step in range(len(names))
            for c in set(range(len(categories))) - set(shown.tolist())
        }
    if truth is not None:
        code = {str(name): c for c, name in enumerate(categories)}
        marks = [(step, middle[step, code[one]]) for step, one in enumerate(truth) if one in code]
        if marks:
            ax.plot(*zip(*marks, strict=True), color=INK, lw=0, marker="o", ms=5, mfc="white", label="observed")
    ax.set_ylim(0, 1)
    finish(ax, title, xlabel, "probability", legend=True)
    ax.grid(visible=False, axis="x")
    name_ticks(ax, list(names))
    return ax


@picture
def plot_shades(
    names: Sequence[str],
    categories: Sequence[str],
    probs: ArrayLike,
    *,
    truth: Sequence[str | None] | None = None,
    most: int = 30,
    title: str | None = None,
    xlabel: str = "",
    color: str = PALETTE[0],
    ax: Axes | None = None,
) -> Axes:
    """Draw the probability of each category (rows) at each step (columns) as shades.

    Parameters
    ----------
    names, categories, probs, truth
        as in ``plot_bars``.
    most
        how many categories have a row: those that came, and then those that are most probable at some step.
    title, xlabel, color, ax
        as in ``plot_fan``.

    Raises
    ------
    ShapeError
        ``probs`` has another shape.
    """
    p = _checked(probs, names, categories)
    code = {str(name): c for c, name in enumerate(categories)}
    came = np.array([code.get(str(one), -1) for one in (truth if truth is not None else [])], dtype=int)
    peak = p.max(0, initial=0.0)
    shown = np.argsort(-peak - np.isin(np.arange(len(categories)), came), kind="stable")[:most]
    shown = shown[np.argsort(-peak[shown], kind="stable")]
    ax = new_axes(ax, height=max(2.4, 1.0 + 0.21 * len(shown)))
    image = ax.imshow(p[:, shown].T, aspect="auto", cmap=shades_of(color), vmin=0.0, interpolation="nearest")
    ax.set_yticks(range(len(shown)), [str(categories[c]) for c in shown])
    steps, rows = np.nonzero(came[:, None] == shown)
    if len(steps):
        ax.plot(steps, rows, "o", ms=5, mfc="white", mec=INK, label="observed")
    color_bar(image, ax, "probability")
    finish(ax, title, xlabel, "")
    ax.grid(visible=False)
    if len(steps):
        above(ax)
    name_ticks(ax, list(names))
    return ax


def _checked(probs: ArrayLike, names: Sequence[str], categories: Sequence[str]) -> np.ndarray:
    p = np.asarray(probs, float)
    if p.shape != (len(names), len(categories)):
        raise ShapeError(got=f"probs of shape {p.shape}", expected=f"{(len(names), len(categories))}: step, category")
    return p
