"""A study as one HTML page: no network, light and dark, for the desk, the phone and paper."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import probseq
from probseq.report import figures
from probseq.report.defaults import MODELS
from probseq.report.findings import findings, state_table, when
from probseq.report.study import Study

__all__ = ["render", "write_report"]

_PACKAGES = ("numpy", "scipy", "pandas", "xarray", "torch", "lightning", "numba", "matplotlib")


def write_report(study: Study, path: str | Path, command: str = "") -> Path:
    """Write the page to a file.

    Parameters
    ----------
    study : Study
    path : str or Path
    command : str
        The command that makes the same report.
    """
    target = Path(path)
    target.write_text(render(study, command), encoding="utf-8")
    return target


def render(study: Study, command: str = "") -> str:
    """The page as text."""
    sections = [
        ("Findings", _findings(study)),
        ("Ranking", _ranking(study)),
        ("Forecasts", _fans(study)),
        ("Hidden states", _states(study)),
        ("Who wins when", _lead(study)),
        ("Calibration", _calibration(study)),
        ("The models", _models(study)),
        ("The same again", _again(study, command)),
    ]
    shown = [(title, body) for title, body in sections if body]
    links = "".join(f'<a href="#{_slug(title)}">{title}</a>' for title, _ in shown)
    body = "".join(f'<section id="{_slug(title)}"><h2>{title}</h2>{text}</section>' for title, text in shown)
    page = _HEAD + f"<title>{escape(study.source.title)}: {len(study.models)} models compared</title>\n"
    text = f"{_header(study)}<nav>{links}</nav>{body}{_FOOT}"
    return f"{page}<style>{_CSS}{_colors(text)}</style></head><body><main>{text}</main></body></html>\n"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def _colors(text: str) -> str:
    """The colours of the pictures as variables, for light and dark pages."""
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6})\)", text)))
    day = "".join(f"--c{c}:#{c};" for c in used)
    dark = "".join(f"--c{c}:#{figures.night(c)};" for c in used)
    return f":root{{{day}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _header(study: Study) -> str:
    source, series = study.source, study.source.series
    missing = int(np.isnan(series.values).sum())
    times = series["time"].values
    facts = {
        "data": source.origin,
        "steps": f"{series.size}, {when(times[0])} to {when(times[-1])}" + (f"; {missing} missing" if missing else ""),
        "range": f"{np.nanmin(series):.5g} to {np.nanmax(series):.5g} {source.unit}".strip(),
        "fitted to": f"the first {study.train.size} steps",
        "held out": f"the last {study.horizon} steps, from {when(study.test['time'].values[0])}",
        "season": f"{study.profile.period} steps" if study.profile.period else "none found",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{_whole_dates(text)}</dd></div>" for name, text in facts.items())
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in source.notes)
    best = study.comparison.best
    return (
        f"<header><p class=kicker>probseq model comparison</p><h1>{escape(source.title)}</h1>"
        f"<p class=lede>{len(study.models)} models, the same held-out values: "
        f"<strong>{escape(best)}</strong> ({MODELS.get(best, best)}) predicts them best.</p>"
        f"<dl class=facts>{rows}</dl>{notes}</header>"
    )


def _whole_dates(text: str) -> str:
    """Text in which no date and no percentage is broken over two lines."""
    return re.sub(r"\d{4}-\d\d-\d\d", r"<span class=date>\g<0></span>", escape(text)).replace(" %", "&nbsp;%")


def _findings(study: Study) -> str:
    return f"<ol class=findings>{''.join(f'<li>{_whole_dates(text)}</li>' for text in findings(study))}</ol>"


def _ranking(study: Study) -> str:
    comparison = study.comparison
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    bars = ""
    if len(comparison.comparable) > 1:
        height = 0.7 + 0.36 * len(comparison.comparable)
        picture = figures.svg(
            lambda ax: figures.difference_bars(study, ax),
            height=height,
            key="gap",
            label="Mean log-score difference to the best model with one standard error",
        )
        bars = _card(picture, "One step ahead", "log score less that of the best, ± 1 standard error")
    far = figures.svg(
        lambda ax: figures.crps_bars(study, ax),
        height=0.7 + 0.36 * len(study.models),
        key="crps",
        label="Mean CRPS of the forecasts of all held-out steps",
    )
    bars += _card(far, f"All {study.horizon} steps at once", "mean CRPS of the forecast, lower is better")
    return (
        f"{_table(comparison.display_table(), 'model', 'ranked')}<p class=note>{escape(comparison.caption)} Each value "
        f"is predicted from everything before it.</p><ul class=note>{notes}</ul><div class=grid>{bars}</div>"
    )


def _fans(study: Study) -> str:
    span = figures.limits(study)
    cards = []
    for i, name in enumerate(study.comparison.table.index):
        picture = figures.svg(
            lambda ax, name=name: figures.fan(study, name, span, ax),  # type: ignore[misc]
            key=f"fan{i}",
            label=f"Fan chart of the forecast of {name} against what came",
        )
        forecast = study.forecasts[str(name)]
        cards.append(_card(picture, str(name), f"CRPS {study.crps(str(name)):.4g}; {forecast.method}"))
    return (
        f"<p>Every model forecasts all {study.horizon} held-out steps at once, knowing the training data only. Shades "
        f"hold half and nine tenths of the probability.</p><div class=grid>{''.join(cards)}</div>"
    )


def _states(study: Study) -> str:
    table = state_table(study)
    if table is None or study.states is None:
        return ""
    pictures = [
        f"<div class={which}>"
        + figures.svg(
            lambda ax: figures.states(study, ax),
            width=width,
            height=height,
            key=f"states-{which}",
            label="The series over the decoded states of the hidden Markov model",
        )
        + "</div>"
        for which, width, height in (("wide", figures.WIDE, 4.0), ("narrow", figures.NARROW, 3.8))
    ]
    name = next(n for n, m in study.models.items() if hasattr(m, "has_states") and m.has_states)
    return (
        f"<p>The most probable path of the states of <b>{escape(name)}</b> over the whole series, and below it the "
        "probability of each state given all the data. The dotted line is where the held-out values begin.</p>"
        f"<figure>{''.join(pictures)}</figure>{_table(table, '')}"
    )


def _lead(study: Study) -> str:
    if len(study.comparison.comparable) < 2:
        return ""
    pictures = [
        f"<div class={which}>"
        + figures.svg(
            lambda ax: figures.lead(study, ax),
            width=width,
            height=3.2,
            key=f"lead-{which}",
            label="Running sum of the log-score differences to the best model",
        )
        + "</div>"
        for which, width in (("wide", figures.WIDE), ("narrow", figures.NARROW))
    ]
    return (
        f"<p>The running sum of log-score differences to <b>{escape(study.comparison.best)}</b>, in nats. Where a line "
        f"falls, that model loses; a single deep step is one value that it thought next to impossible.</p>"
        f"<figure>{''.join(pictures)}</figure>"
    )


def _calibration(study: Study) -> str:
    cards = []
    for i, name in enumerate(study.comparison.table.index):
        if not study.comparison.pit(str(name)).size:
            continue
        row = study.comparison.table.loc[name]
        picture = figures.svg(
            lambda ax, name=name: figures.pit(study, name, ax),  # type: ignore[misc]
            height=2.3,
            key=f"pit{i}",
            label=f"Histogram of the PIT values of {name}",
        )
        held = f"50 % intervals held {100 * row['cover50']:.0f} %, 90 % ones {100 * row['cover90']:.0f} %"
        cards.append(_card(picture, str(name), f"{held}; p of uniformity {row['pit_p']:.2f}"))
    return (
        "<p>Where each held-out value fell in its prediction (0: below everything expected, 1: above). Calibrated "
        "predictions give equal bars, up to chance: 95 % of the bars inside the band. A U is too sure of itself, "
        f"a hump too cautious, a slope biased.</p><div class=grid>{''.join(cards)}</div>"
    )


def _models(study: Study) -> str:
    rows = {}
    for name, model in study.models.items():
        rows[name] = {
            "what": MODELS.get(name, type(model).__name__),
            "parameters": str(model.n_parameters_),
            "fit": f"{model.fit_seconds_:.2f} s",
            "ended": model.status_,
            "nats per value fitted": f"{model.log_likelihood_ / max(model.n_scored_, 1):.3f}",
        }
    said = "".join(f"<li>{escape(n)}: {escape(text)}</li>" for n, texts in study.warnings.items() for text in texts)
    return _table(pd.DataFrame.from_dict(rows, orient="index"), "model") + (
        f"<ul class=note>{said}</ul>" if said else ""
    )


def _again(study: Study, command: str) -> str:
    models = "\n".join(f'    "{name}": {study.code(name)},' for name in study.models)
    known = study.source.origin.removeprefix("example data set ").split(";")[0]
    example = study.source.origin.startswith("example")
    read = f'y = ps.datasets.load("{known}")' if example else f"y = ...  # {study.source.origin}, {study.source.title}"
    code = (
        f"import probseq as ps\n\n{read}\ntrain, test = ps.split(y, horizon={study.horizon})\n"
        f"models = {{\n{models}\n}}\nfor model in models.values():\n    model.fit(train)\n"
        f"print(ps.compare(models, test, history=train))\n"
    )
    line = f"<p>On the command line:</p><pre>{escape(command)}</pre>" if command else ""
    return f"{line}<p>In Python:</p><pre>{escape(code)}</pre><p class=note>{escape(_versions())}</p>"


def _versions() -> str:
    found = [f"probseq {probseq.__version__}", f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"{', '.join(found)}; {platform.system()} {platform.machine()}. Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."


def _card(picture: str, title: str, text: str = "") -> str:
    more = f"<span>{escape(text)}</span>" if text else ""
    return f"<figure class=card><figcaption><b>{escape(title)}</b>{more}</figcaption>{picture}</figure>"


def _table(frame: pd.DataFrame, corner: str, kind: str = "plain") -> str:
    head = "".join(f"<th scope=col>{escape(str(c))}</th>" for c in frame.columns)
    rows: list[str] = []
    for name, row in frame.iterrows():
        cells: Any = "".join(f"<td>{escape(str(v))}</td>" for v in row)
        rows.append(f"<tr><th scope=row>{escape(str(name))}</th>{cells}</tr>")
    return (
        f"<div class=scroll tabindex=0><table class={kind}><thead><tr><th scope=col>{corner}</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

_FOOT = "<footer>Log scores are in nats on the scale of the data; one nat is a factor of 2.72.</footer>"

_CSS = """
:root{--ink:#1d2129;--soft:#5d6675;--line:#dfe3e9;--page:#fff;--card:#f7f8fa;--mark:#0072b2}
@media screen and (prefers-color-scheme:dark){
:root{--ink:#e6e8ec;--soft:#9da6b4;--line:#343a44;--page:#15181d;--card:#1c2026;--mark:#6cb7e8}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1080px;margin:0 auto;padding:2.2rem 1.2rem 3rem}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;margin:.1rem 0 .6rem;letter-spacing:-.01em}
h2{font-size:1.3rem;margin:0 0 .7rem}
.kicker{color:var(--mark);font-weight:600;font-size:.85rem;margin:0}
.lede{font-size:1.1rem;margin:0 0 1.2rem}
p,.findings li{max-width:46rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.7rem 1.6rem;margin:0;
padding:1rem 0;border-block:1px solid var(--line)}
.facts div:first-child{grid-column:1/-1}.date{white-space:nowrap}
dt{color:var(--soft);font-size:.85rem}dd{margin:0}
nav{display:flex;flex-wrap:wrap;gap:.35rem 1.2rem;margin:1rem 0 0;font-size:.92rem}
nav a{color:var(--mark);text-decoration:none}nav a:hover{text-decoration:underline}
section{margin-top:2.6rem}
.findings{padding-left:1.3rem;margin:0}.findings li{margin:.45rem 0}.findings li::marker{color:var(--soft)}
.findings li:first-child{font-weight:600}
.note{color:var(--soft);font-size:.88rem}ul.note{padding-left:1.1rem}
.scroll{overflow-x:auto;border-block:1px solid var(--line)}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.45rem .7rem;text-align:right;white-space:nowrap}
thead th{color:var(--soft);font-weight:500;font-size:.84rem;vertical-align:bottom;white-space:normal;min-width:4.2rem}
tbody tr{border-top:1px solid var(--line)}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page)}
.ranked tbody tr:first-child>*{font-weight:600}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:0 0 1rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem .8rem .5rem;margin:0}
figcaption{display:flex;flex-wrap:wrap;gap:0 .8rem;align-items:baseline;margin-bottom:.3rem}
figcaption span{color:var(--soft);font-size:.85rem}
svg{display:block;width:100%;height:auto}
.card svg{max-width:34rem}
svg text{font-family:inherit;fill:var(--ink)}
.narrow{display:none}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;
font:.86rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);padding-top:.8rem}
@media (max-width:640px){.wide{display:none}.narrow{display:block}main{padding:1.3rem .9rem 2rem}
section{margin-top:2rem}}
@media print{nav{display:none}main{max-width:none;padding:0}.card,figure,tr{break-inside:avoid}h2{break-after:avoid}
body{font-size:10.5pt}.scroll{overflow:visible}.grid{grid-template-columns:1fr 1fr}
th,td{padding:.25rem .35rem}table{font-size:8.5pt}pre{white-space:pre-wrap}}
"""
