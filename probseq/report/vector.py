"""Pictures of matplotlib as SVG text that takes its colours from the page, so that it follows light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np

__all__ = ["NARROW", "WIDE", "night", "svg"]

NARROW, WIDE = 4.8, 9.6
"""Inches: a card or a phone, and the whole page."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.edgecolor": "#222222",
    "text.color": "#222222",
}
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
_PLACES = re.compile(r'(?<= )(d|x|y|transform|points)="([^"]+)"')
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")


def svg(
    draw: Callable[[Any], Any],
    *,
    width: float = NARROW,
    height: float = 2.9,
    columns: int = 1,
    key: str,
    label: str,
) -> str:
    """Draw on new axes and return the picture as an ``<svg>`` element.

    Parameters
    ----------
    draw : callable
        Takes the axes, an array of them where there are several columns.
    width, height : float
        Inches.
    columns : int
        Panels side by side.
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
        draw(figure.subplots(1, columns))
        for ax in figure.axes:
            ax.tick_params(labelsize="small")
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text)
    text = _PLACES.sub(lambda found: f'{found[1]}="{_DECIMALS.sub(_short, found[2])}"', text)
    text = _own_names(text, key)
    text = re.sub(r'font: ?([\d.]+px) [^;"]+', r"font-size: \1", text)
    text = re.sub(r' width="[^"]+pt" height="[^"]+pt"', "", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
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


def _own_names(text: str, key: str) -> str:
    """Identifiers that begin with ``key``; those that nothing refers to are left out, and so are spaces."""
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r'\s+id="([^"]+)"', lambda found: f' id="{key}-{found[1]}"' if found[1] in wanted else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
    text = re.sub(r'(?<= style=")[^"]+', lambda found: re.sub(r"(?<=[:;]) ", "", found[0]), text)
    return re.sub(r'(?<= d=")[^"]+', lambda found: re.sub(r"\s*([MLCQz])\s*", r"\1", found[0]), text)


def _short(number: re.Match[str]) -> str:
    """A length in points, to a hundredth."""
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


_PAGE, _INK = np.array([0.11, 0.125, 0.15]), np.array([0.91, 0.92, 0.94])


def _hex(rgb: np.ndarray) -> str:
    return "".join(f"{round(255 * float(v)):02x}" for v in np.clip(rgb, 0, 1))
