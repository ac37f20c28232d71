"""Pictures of a study as SVG text that takes its colours from the page, so that it follows light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from probseq.plotting import PALETTE, plot_pit, plot_states, plot_weights
from probseq.report.study import Study
from probseq.results.plots import plot_comparison, plot_forecast, stamps

__all__ = ["color_of", "crps_bars", "difference_bars", "fan", "lead", "limits", "night", "pit", "states", "svg"]

NARROW, WIDE = 4.8, 9.6
_LONGEST, _MOST_DOTS = 1500, 50
_HISTORY, _REACH = 1.5, 0.4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.edgecolor": "#222222",
    "text.color": "#222222",
}
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b")


def svg(draw: Callable[[Any], Any], *, width: float = NARROW, height: float = 2.9, key: str, label: str) -> str:
    """Draw on a new axes and return the picture as an ``<svg>`` element.

    Parameters
    ----------
    draw : callable
        Takes the axes.
    width, height : float
        Inches.
    key : str
        Different for every picture of a page: it makes identifiers unique and the output reproducible.
    label : str
        What a screen reader says.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        for ax in figure.axes:
            ax.tick_params(labelsize="small")
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
    text = re.sub(r'font: ([\d.]+px) [^;"]+', r"font-size: \1", text)
    text = re.sub(r' width="[^"]+pt" height="[^"]+pt"', "", text, count=1)
    text = re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', text, count=1)
    # Text without a colour of its own is black, which the style of the page replaces.
    return _HEX.sub(lambda found: f"var(--c{found.group()[1:].lower()})", text)


def night(color: str) -> str:
    """The colour ``rrggbb`` for a dark page: what is white in it turns into the page, what is black into light ink."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    white, black = rgb.min(), 1 - rgb.max()
    if white == 1:
        return _hex(_PAGE)
    pure = rgb - white
    page = white**1.6  # less than its share: tints need more colour on a dark page
    return _hex(page * _PAGE + (1 - page) / (1 - white) * (black * _INK + pure))


_PAGE, _INK = np.array([0.11, 0.125, 0.15]), np.array([0.91, 0.92, 0.94])


def _hex(rgb: np.ndarray) -> str:
    return "".join(f"{round(255 * float(v)):02x}" for v in np.clip(rgb, 0, 1))


def fan(study: Study, name: str, span: tuple[float, float], ax: Any) -> None:
    """The forecast of all held-out steps against what came, on a vertical axis that the models share (``limits``)."""
    shown = int(min(study.train.sizes["time"], _HISTORY * study.horizon))
    plot_forecast(study.forecasts[name], study.test, history=shown, color=color_of(study, name), ax=ax)
    if study.horizon > _MOST_DOTS:
        for line in ax.lines:
            line.set_marker("")
    ax.set_ylim(*span)
    _legend_below(ax)


def limits(study: Study) -> tuple[float, float]:
    """Vertical limits of the fans: all data, and the 90 % intervals as far as they stay within reach of the data."""
    shown = np.concatenate([study.train.values[-int(_HISTORY * study.horizon) :], study.test.values])
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    reach = high - low
    ends = [f.quantile([0.05, 0.95]).values for f in study.forecasts.values()]
    bottom = max(min(low, *(float(np.nanmin(e)) for e in ends)), low - _REACH * reach)
    top = min(max(high, *(float(np.nanmax(e)) for e in ends)), high + _REACH * reach)
    if low >= 0:
        bottom = max(bottom, 0.0)
    margin = 0.04 * (top - bottom)
    return bottom - margin, top + margin


def states(study: Study, ax: Any) -> None:
    """The series over its decoded states and their probabilities; the last part of a long one."""
    if study.states is None or study.smoothed is None:
        return
    keep = slice(max(0, study.states.size - _LONGEST), None)
    times = stamps(study.source.series.indexes["time"])[keep]
    probabilities = np.nan_to_num(study.smoothed.values[keep])
    values = study.source.series.values[keep]
    lower = plot_states(times, values, study.states.values[keep], probabilities, ylabel=study.source.unit, ax=ax)
    border = stamps(study.test.indexes["time"])[0]
    lower.axvline(border, color="#222222", lw=0.9, ls=":")
    _legend_below(lower, lower.figure.axes[-1])


def lead(study: Study, ax: Any) -> None:
    """Who wins when: the running sum of log-score differences to the best."""
    plot_comparison(study.comparison.log_prob_steps, study.comparison.best, ax)
    for line in ax.lines:
        if line.get_label() in study.models:
            line.set_color(color_of(study, line.get_label()))
    _legend_below(ax)


def difference_bars(study: Study, ax: Any) -> None:
    """Mean difference to the best with one standard error to each side."""
    table = study.comparison.table
    rows = table[table["difference"].notna()]
    names = [str(name) for name in rows.index]
    plot_weights(names, rows["difference"].to_numpy(), rows["se"].to_numpy(), xlabel="nats per value", ax=ax)
    _paint(study, ax, names)


def crps_bars(study: Study, ax: Any) -> None:
    """Mean CRPS of the forecasts of all held-out steps, the smallest on top."""
    scores = {name: study.crps(name) for name in study.forecasts}
    names = sorted(scores, key=lambda name: scores[name])
    plot_weights(names, [scores[name] for name in names], xlabel=study.source.unit or "unit of the data", ax=ax)
    _paint(study, ax, names)


def _paint(study: Study, ax: Any, names: list[str]) -> None:
    for bar, name in zip(ax.patches, names, strict=False):
        bar.set_facecolor(color_of(study, name))


def pit(study: Study, name: str, ax: Any) -> None:
    """Histogram of the PIT values of the one-step predictions."""
    values = study.comparison.pit(name)
    plot_pit(values, n_bins=max(4, min(10, values.size // 5)), color=color_of(study, name), ax=ax)
    ax.get_legend().remove()


def color_of(study: Study, name: str) -> str:
    """The same colour for a model in every picture."""
    return PALETTE[list(study.models).index(name) % len(PALETTE)]


def _legend_below(ax: Any, lowest: Any = None) -> None:
    legend = ax.get_legend()
    if legend is None:
        return
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        handles, labels = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
    legend.remove()
    home = ax if lowest is None else lowest
    home.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16 if lowest is None else -0.5),
        ncols=min(5, len(labels)), frameon=False, fontsize="small", handlelength=1.4, columnspacing=1.1,
    )  # fmt: skip
