"""Pieces of HTML: figures, tables with headers, text whose dates stay whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd

from probseq.report import vector

__all__ = ["both_widths", "card", "figure", "listing", "paragraphs", "slug", "table", "whole"]


def slug(title: str) -> str:
    """The anchor of a heading."""
    return title.lower().replace(" ", "-")


def whole(text: str) -> str:
    """Escaped text in which no date, percentage or signed number is broken over two lines."""
    found = re.sub(r"\d{4}-\d\d-\d\d", r"<span class=whole>\g<0></span>", escape(text))
    return re.sub(r"(?<=\d) %", "&nbsp;%", found).replace("± ", "±&nbsp;")


def paragraphs(*texts: str, kind: str = "") -> str:
    """Paragraphs of plain text; empty ones are left out."""
    opening = f"<p class={kind}>" if kind else "<p>"
    return "".join(f"{opening}{whole(text)}</p>" for text in texts if text)


def listing(texts: list[str], kind: str = "") -> str:
    """An unordered list of plain text, nothing for no text."""
    if not texts:
        return ""
    return f"<ul{f' class={kind}' if kind else ''}>{''.join(f'<li>{whole(text)}</li>' for text in texts)}</ul>"


def figure(picture: str, title: str = "", text: str = "") -> str:
    """A picture over the whole width of the page."""
    return f"<figure>{_caption(title, text)}{picture}</figure>"


def card(picture: str, title: str, text: str = "") -> str:
    """A picture in a frame, several of which stand side by side."""
    return f"<figure class=card>{_caption(title, text)}{picture}</figure>"


def _caption(title: str, text: str) -> str:
    if not title and not text:
        return ""
    more = f"<span>{whole(text)}</span>" if text else ""
    return f"<figcaption>{f'<b>{escape(title)}</b>' if title else ''}{more}</figcaption>"


def both_widths(
    draw: Callable[[Any], Any], key: str, label: str, heights: tuple[float, float] = (3.2, 3.2), columns: int = 1
) -> str:
    """A picture drawn twice, for the desk and for a phone; the page shows one of them."""
    sizes = (("wide", vector.WIDE, heights[0]), ("narrow", vector.NARROW, heights[1]))
    return "".join(
        f"<div class={which}>"
        + vector.svg(draw, width=width, height=height, columns=columns, key=f"{key}-{which}", label=label)
        + "</div>"
        for which, width, height in sizes
    )


def table(frame: pd.DataFrame, corner: str, label: str, kind: str = "plain") -> str:
    """A table with row and column headers in a box that scrolls sideways where it is too wide; cells are text."""
    head = "".join(f"<th scope=col>{whole(str(c))}</th>" for c in frame.columns)
    rows: list[str] = []
    for name, row in frame.iterrows():
        cells: Any = "".join(f"<td>{whole(str(v))}</td>" for v in row)
        rows.append(f"<tr><th scope=row>{escape(str(name))}</th>{cells}</tr>")
    return (
        f'<div class=scroll role=region tabindex=0 aria-label="{escape(label)}"><table class={kind}><thead><tr>'
        f"<th scope=col>{escape(corner)}</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
