"""A study as one HTML page: no network, light and dark, for the desk, the phone and paper."""

from __future__ import annotations

from html import escape
from pathlib import Path

from probseq.report import results, summary
from probseq.report.catalogue import catalogue
from probseq.report.glossary import glossary
from probseq.report.markup import slug
from probseq.report.repeat import repeat
from probseq.report.study import Study
from probseq.report.style import style

__all__ = ["render", "write_page"]


def write_page(study: Study, path: str | Path, command: str = "") -> Path:
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
    parts = {
        "Findings": results.found(study),
        "The data": summary.data(study),
        "Ranking": results.ranking(study),
        "Forecasts": results.fans(study),
        "Hidden states": results.states(study),
        "Who wins when": results.lead(study),
        "Calibration": results.calibration(study),
        "Residuals": results.errors(study),
        "The models": catalogue(study),
        "The same again": repeat(study, command),
    }
    shown = {title: body for title, body in parts.items() if body}
    body = "".join(_section(title, text) for title, text in shown.items())
    body += _section("Words", glossary(body))
    links = "".join(f'<li><a href="#{slug(title)}">{title}</a></li>' for title in (*shown, "Words"))
    text = f'{summary.header(study)}<nav aria-label="Contents"><ul>{links}</ul></nav>{body}{_FOOT}'
    title = f"<title>{escape(study.source.title)}: {len(study.models)} models compared</title>\n"
    return f"{_HEAD}{title}<style>{style(text)}</style></head><body><main>{text}</main></body></html>\n"


def _section(title: str, text: str) -> str:
    return f"<section id={slug(title)}><h2>{title}</h2>{text}</section>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

_FOOT = "<footer>Log scores are in nats on the scale of the data; one nat is a factor of 2.72.</footer>"
