"""The laws of single steps drawn by ``probseq.plotting``: ridges of numbers, bars and shades of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probseq.errors import UnsupportedError
from probseq.plotting import plot_bars, plot_ridge, plot_shades
from probseq.results.regions import outer_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probseq.results.backends import Backend
    from probseq.results.forecast import Forecast

__all__ = ["draw_bars", "draw_ridge", "draw_shades", "step_names"]

_TAIL = 0.002
_POINTS, _BINS = 160, 30
_MOST_COUNTS = 400


def step_names(index: pd.Index, future: bool) -> list[str]:
    """Names of steps: their stamps, or how many steps ahead they are where there are none."""
    if index.dtype.kind in "iuf" or index.dtype == object:
        return [str(i + 1) if future else str(stamp) for i, stamp in enumerate(index)]
    if not isinstance(index, pd.DatetimeIndex) or not bool((index == index.normalize()).all()):
        return [str(stamp) for stamp in index]
    whole_months = len(index) > 1 and bool((index.day == 1).all())
    return [f"{stamp:%Y-%m}" if whole_months else f"{stamp:%Y-%m-%d}" for stamp in index]


def draw_ridge(
    forecast: Forecast,
    sequence: int,
    truth: np.ndarray | None,
    panels: list[Axes],
    labels: list[str],
    color: str,
    title: str | None,
) -> None:
    """One ridge a step: masses of counts, densities (differences of the cdf) of everything else."""
    length = len(forecast._index[sequence])
    names = step_names(forecast._index[sequence], forecast.future)
    for j, panel in enumerate(panels):
        one = forecast._backend.marginal([j])
        ends = one.quantile(np.array(outer_levels(one, _TAIL)))[sequence, :length, 0]
        counted = bool(one.discrete) and one.step == 1.0 and _whole(one, ends)
        values, heights = _masses(one, ends, sequence) if counted else _densities(one, ends, sequence)
        came = None if truth is None else truth[:, j]
        plot_ridge(
            names, values, heights, counted=counted, truth=came, title=title if j == 0 else None, xlabel=labels[j],
            ylabel="steps ahead" if forecast.future and names[0].isdigit() else "", color=color, ax=panel,
        )  # fmt: skip


def _whole(one: Backend, ends: np.ndarray) -> bool:
    """Whether the values are whole numbers, few enough for bars."""
    found = ends[np.isfinite(ends)]
    return bool(np.allclose(found, np.rint(found), atol=1e-9)) and float(np.ptp(found)) <= _MOST_COUNTS


def _masses(one: Backend, ends: np.ndarray, sequence: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    counts = np.arange(np.nanmin(ends), np.nanmax(ends) + 1.0)
    up_to = np.stack([one.cdf(np.full(one.shape, x)) for x in counts])[:, sequence, :, 0]
    below = np.stack([one.cdf(np.full(one.shape, x), left=True) for x in counts])[:, sequence, :, 0]
    return [counts] * len(ends), list((up_to - below).T[: len(ends)])


def _densities(one: Backend, ends: np.ndarray, sequence: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    n = _BINS if one.name == "paths" else _POINTS
    edges = np.linspace(np.nanmin(ends), np.nanmax(ends), n + 1)
    cdf = np.stack([one.cdf(np.full(one.shape, x)) for x in edges])[:, sequence, : len(ends), 0]
    density = np.diff(cdf, axis=0) / (edges[1] - edges[0] or 1.0)
    # What is known for certain would make every other step flat.
    certain = ends[:, 1] <= ends[:, 0]
    if certain.any() and not certain.all():
        density[:, certain] = np.minimum(density[:, certain], density[:, ~certain].max())
    middle = (edges[1:] + edges[:-1]) / 2
    return [middle] * len(ends), list(density.T)


def _categories(forecast: Forecast, sequence: int) -> tuple[np.ndarray, list[str]]:
    """Probabilities (t, category) of the first variable, and the names of the categories."""
    if not forecast._backend.nominal:
        raise UnsupportedError(
            got="bars of a forecast of numbers", expected="categories", remedy='Use kind="ridge" or "fan".'
        )
    p = forecast._backend.probs()[sequence, : len(forecast._index[sequence]), 0]
    words = forecast._labels.vocabulary
    tokens = list(range(p.shape[-1])) if words is None else words.tokens
    return p, [repr(token) if str(token).isspace() else str(token) for token in tokens]


def draw_bars(forecast: Forecast, sequence: int, truth: np.ndarray | None, panel: Axes, title: str | None) -> None:
    """Stacked bars of the probabilities of the first variable, with the category that came."""
    p, names = _categories(forecast, sequence)
    steps = step_names(forecast._index[sequence], forecast.future)
    plot_bars(steps, names, p, truth=_came(truth, names), xlabel=_ahead(forecast), title=title, ax=panel)


def draw_shades(forecast: Forecast, sequence: int, truth: np.ndarray | None, panel: Axes, title: str | None) -> None:
    """Probability of each category at each step of the first variable, and the categories that came."""
    p, names = _categories(forecast, sequence)
    steps = step_names(forecast._index[sequence], forecast.future)
    plot_shades(steps, names, p, truth=_came(truth, names), xlabel=_ahead(forecast), title=title, ax=panel)


def _came(truth: np.ndarray | None, names: list[str]) -> list[str | None] | None:
    return None if truth is None else [None if np.isnan(code) else names[int(code)] for code in truth[:, 0]]


def _ahead(forecast: Forecast) -> str:
    return "steps ahead" if forecast.future else ""
