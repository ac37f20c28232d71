"""The head of the page and what it says of the data."""

from __future__ import annotations

from html import escape

import numpy as np

from probseq.report import figures
from probseq.report.findings import summary, when
from probseq.report.markup import both_widths, figure, listing, paragraphs, whole
from probseq.report.source import Source
from probseq.report.study import Study

__all__ = ["data", "header"]


def header(study: Study) -> str:
    """Title, the result in a sentence, and where the data come from."""
    return (
        f"<header><p class=kicker>probseq model comparison</p><h1>{escape(study.source.title)}</h1>"
        f"<p class=lede>{whole(summary(study))}</p></header>"
    )


def data(study: Study) -> str:
    """Facts and a picture of the series, split and missing values in it."""
    source, series = study.source, study.source.series
    values, times = series.values, series["time"].values
    missing = int(np.isnan(values).sum())
    unit = f" {source.unit}" if source.unit else ""
    lost = f"{missing} ({100 * missing / values.size:.1f} %), {int(np.isnan(study.test.values).sum())} of them held out"
    facts = {
        "source": source.origin,
        "steps": f"{series.size}, {when(times[0])} to {when(times[-1])}",
        "step": _step(source.freq),
        "missing": lost if missing else "none",
        "range": f"{np.nanmin(values):.5g} to {np.nanmax(values):.5g}{unit}",
        "mean, standard deviation": f"{np.nanmean(values):.5g}, {np.nanstd(values, ddof=1):.5g}{unit}",
        "fitted to": f"the first {study.train.size} steps",
        "held out": f"the last {study.horizon} steps, from {when(study.test['time'].values[0])}",
        "season": f"{study.profile.period} steps" if study.profile.period else "none found",
    }
    rows = "".join(
        f"<div{' class=long' if name == 'source' else ''}><dt>{name}</dt><dd>{whole(text)}</dd></div>"
        for name, text in facts.items()
    )
    label = f"The series: {series.size} steps, the last {study.horizon} held out" + f", {missing} missing" * bool(
        missing
    )
    picture = both_widths(lambda ax: figures.series(study, ax), "series", label, (2.9, 2.6))
    return f"<dl class=facts>{rows}</dl>{figure(picture)}{paragraphs(_rules(study))}{listing(_notes(source), 'note')}"


def _notes(source: Source) -> list[str]:
    """What was done while reading, and what the models do not see."""
    if source.freq is None and source.series.size > 2:
        return [*source.notes, "Times are irregular: models see the order of the values, not how far apart they are."]
    return list(source.notes)


_STEPS = {
    "M": "month",
    "Q": "quarter",
    "Y": "year",
    "A": "year",
    "W": "week",
    "D": "day",
    "B": "business day",
    "h": "hour",
}


def _step(freq: object) -> str:
    if freq is None:
        return "irregular"
    if isinstance(freq, str):
        word = freq.split("-")[0]
        short = word if word in _STEPS else word[:1]
        return f"one {_STEPS[short]}" if short in _STEPS and word in (short, f"{short}S", f"{short}E") else freq
    return f"{freq:g}" if isinstance(freq, int | float) else str(freq)


def _rules(study: Study) -> str:
    """On what the choice of the models rests."""
    if not study.chosen:
        return ""
    profile, said = study.profile, []
    if profile.counts:
        said.append("Small whole numbers are counts: most models give probabilities of whole numbers.")
    elif profile.positive:
        said.append(
            "All values fitted to are positive: models work on the log scale, and their forecasts come back from it."
        )
    if profile.wanders:
        said.append("The series has no fixed level: models of levels see its steps.")
    if profile.period:
        said.append(f"Its steps repeat every {profile.period} steps: those models that can take a season use this one.")
    return " ".join(said)
