"""What the pictures of a study show, each drawn on axes that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special, stats

from probseq.evaluation.whiteness import autocorrelations
from probseq.plotting import PALETTE, plot_pit, plot_states, plot_weights
from probseq.plotting.style import BAND, GUIDE, INK, THIN, finish, strong
from probseq.report.study import Study
from probseq.results.plots import plot_comparison, plot_forecast, stamps

__all__ = [
    "LONGEST_STATES",
    "color_of",
    "coverage",
    "crps_bars",
    "fan",
    "intervals",
    "lead",
    "limits",
    "pit",
    "residuals",
    "series",
    "states",
]

LONGEST_STATES = 600
"""Steps of decoded states that a picture can show."""

_MOST_DOTS, _MOST_LAGS, _MOST_POINTS = 50, 20, 1500
_HISTORY, _REACH = 1.5, 0.4
_BORDER: dict[str, Any] = {"color": INK, "lw": THIN, "ls": ":"}


def color_of(study: Study, name: str) -> str:
    """The colour of a model, the same in every picture."""
    return PALETTE[list(study.models).index(name) % len(PALETTE)]


def series(study: Study, ax: Any) -> None:
    """The whole series: what the models saw, what was held out, and where values are missing."""
    train, test = study.train, study.test
    past, ahead = stamps(train.indexes["time"]), stamps(test.indexes["time"])
    marker = {"marker": "o", "ms": 2.6} if test.size <= 2 * _MOST_DOTS else {}
    ax.plot(*_thinned(past, train.values), color=INK, lw=1.1, label=f"fitted to ({train.size})")
    ax.plot(ahead, test.values, color=PALETTE[4], lw=1.3, label=f"held out ({test.size})", **marker)
    ax.axvline(ahead[0], **_BORDER)
    times, values = np.concatenate([past, ahead]), np.concatenate([train.values, test.values])
    missing = np.isnan(values)
    if missing.any():
        floor = np.full(int(missing.sum()), -0.02)
        ax.plot(
            times[missing], floor, ls="", marker="|", ms=7, color=PALETTE[3], clip_on=False,
            transform=ax.get_xaxis_transform(), label=f"missing ({missing.sum()})",
        )  # fmt: skip
    finish(ax, None, "", study.source.unit)
    ax.legend()
    _legend_below(ax)


def _thinned(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of every few steps of a long series, whose line looks the same."""
    n = len(values)
    if n <= _MOST_POINTS:
        return times, values
    keep: set[int] = {0, n - 1}
    for part in np.array_split(np.arange(n), _MOST_POINTS // 2):
        seen = part[~np.isnan(values[part])]
        keep |= (
            {int(seen[np.argmin(values[seen])]), int(seen[np.argmax(values[seen])])} if len(seen) else {int(part[0])}
        )
    rows = np.array(sorted(keep))
    return times[rows], values[rows]


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
    margin = 0.04 * (top - bottom) or 1.0
    return bottom - margin, top + margin


def states(study: Study, ax: Any) -> None:
    """The series over its decoded states and their probabilities; the last part of a long one."""
    if study.states is None or study.smoothed is None:
        return
    keep = slice(max(0, study.states.size - LONGEST_STATES), None)
    times = stamps(study.source.series.indexes["time"])[keep]
    probabilities = np.nan_to_num(study.smoothed.values[keep])
    values = study.source.series.values[keep]
    lower = plot_states(times, values, study.states.values[keep], probabilities, ylabel=study.source.unit, ax=ax)
    lower.axvline(stamps(study.test.indexes["time"])[0], **_BORDER)
    for panel in lower.figure.axes:
        _legend_below(panel)


def lead(study: Study, ax: Any) -> None:
    """Who wins when: the running sum of log-score differences to the best."""
    plot_comparison(study.comparison.log_prob_steps, study.comparison.best, ax)
    for line in ax.lines:
        if line.get_label() in study.models:
            line.set_color(strong(color_of(study, str(line.get_label()))))
    _legend_below(ax)


def intervals(study: Study, ax: Any) -> None:
    """Mean difference to the best: thick for one standard error to each side, thin for the 95 % interval."""
    names = [name for name in study.ranked if np.isfinite(study.comparison.table["difference"][name])]
    for row, name in enumerate(names):
        color = strong(color_of(study, name))
        if name != study.comparison.best:
            found = study.comparison.difference(name)
            ends = found.interval(0.95)
            if np.isfinite(ends).all():
                ax.plot(ends, [row, row], color=color, lw=1.4, marker="|", ms=8)
                one = found.standard_error
                ax.plot([found.mean - one, found.mean + one], [row, row], color=color, lw=5, solid_capstyle="butt")
            ax.plot(found.mean, row, ls="", marker="o", ms=6, color=color, mec="white", mew=1)
        else:
            ax.plot(0, row, ls="", marker="D", ms=7, color=color, mec="white", mew=1)
    ax.axvline(0, color=INK, lw=GUIDE, ls="--")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    finish(ax, None, f"nats per {study.comparison.per}, less those of {study.comparison.best}", "")
    ax.grid(axis="y", visible=False)


def crps_bars(study: Study, ax: Any) -> None:
    """Mean CRPS of the forecasts of all held-out steps, the smallest on top."""
    scores = {name: study.crps(name) for name in study.forecasts}
    names = sorted(scores, key=lambda name: scores[name])
    plot_weights(names, [scores[name] for name in names], xlabel=study.source.unit or "unit of the data", ax=ax)
    for bar, name in zip(ax.patches, names, strict=False):
        bar.set_facecolor(color_of(study, name))


def pit(study: Study, name: str, ax: Any) -> None:
    """Histogram of the PIT values of the one-step predictions."""
    values = study.comparison.pit(name)
    plot_pit(values, n_bins=int(np.clip(values.size // 6, 4, 10)), color=color_of(study, name), ax=ax)
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()


def coverage(study: Study, ax: Any) -> None:
    """Share of the values inside central intervals by the probability promised, one line a model."""
    levels = np.linspace(0.05, 0.95, 19)
    grid = np.linspace(0, 1, 201)
    sizes = set()
    for name in study.ranked:
        values = study.comparison.pit(name)
        if not values.size:
            continue
        sizes.add(values.size)
        inside = [float((np.abs(values - 0.5) <= level / 2).mean()) for level in levels]
        ax.plot(levels, inside, color=strong(color_of(study, name)), lw=1.5, marker="o", ms=2.8, label=name)
    n = max(sizes)
    low, high = (stats.binom.ppf(tail, n, grid) / n for tail in (0.025, 0.975))
    ax.fill_between(grid, low, high, color=BAND, lw=0, zorder=0, label="chance")
    ax.plot([0, 1], [0, 1], color=INK, lw=GUIDE, ls="--", zorder=1)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    finish(ax, None, "probability of the interval", "share of values inside")
    ax.legend()
    _legend_below(ax)


def residuals(study: Study, name: str, axes: Any) -> None:
    """Autocorrelations of the normal scores of the PIT values, and their quantiles against those of the normal law."""
    z, color = study.residuals(name), strong(color_of(study, name))
    left, right = axes
    seen = np.sort(z[np.isfinite(z)])
    lags = np.arange(1, min(_MOST_LAGS, max(1, len(seen) // 3)) + 1)
    band = special.ndtri(0.975) / np.sqrt(len(seen))
    left.axhspan(-band, band, color=BAND, lw=0)
    left.vlines(lags, 0, autocorrelations(z, len(lags)), color=color, lw=3)
    left.axhline(0, color=INK, lw=THIN)
    left.set_ylim(-1, 1)
    left.set_xlim(0.3, lags[-1] + 0.7)
    left.xaxis.get_major_locator().set_params(integer=True)
    finish(left, None, "steps apart", "autocorrelation")
    # The i-th smallest of n uniform values follows a Beta(i, n + 1 - i) law.
    i = np.arange(1, len(seen) + 1)
    expected = special.ndtri((i - 0.5) / len(seen))
    low, high = (special.ndtri(stats.beta.ppf(tail, i, len(seen) + 1 - i)) for tail in (0.025, 0.975))
    right.fill_between(expected, low, high, color=BAND, lw=0)
    reach = max(2.5, float(np.abs(seen).max()) + 0.3)
    right.plot([-reach, reach], [-reach, reach], color=INK, lw=GUIDE, ls="--")
    right.plot(expected, seen, ls="", marker="o", ms=3 if len(seen) <= 200 else 1.8, color=color, mew=0)
    side = max(2.2, float(expected.max()) + 0.3)
    right.set_xlim(-side, side)
    right.set_ylim(-reach, reach)
    finish(right, None, "expected if right", "residual")


def _legend_below(ax: Any) -> None:
    """Take the legend out of the axes and put it below the whole picture."""
    legend = ax.get_legend()
    if legend is None:
        return
    handles, labels = ax.get_legend_handles_labels()  # in the colours that lines have by now
    if not labels:
        handles, labels = legend.legend_handles, [text.get_text() for text in legend.get_texts()]
    legend.remove()
    most = 5 if ax.figure.get_size_inches()[0] < 6 else 9
    longest = max(map(len, labels))
    ax.figure.legend(
        handles, labels, loc="outside lower center", ncols=min(most, len(labels), max(1, most * 11 // longest)),
        frameon=False, fontsize="small", handlelength=1.4, columnspacing=1.1, borderpad=0.1,
    )  # fmt: skip
