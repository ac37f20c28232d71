"""The table of a comparison as text and HTML."""

from __future__ import annotations

import html
import io
import shutil
import textwrap

import numpy as np
import pandas as pd

__all__ = ["as_html", "as_text", "readable"]

_NO_BREAK = "\N{NO-BREAK SPACE}"
_BETWEEN = 3
"""Characters between two columns."""
_LEAST = 50
"""Characters below which no figure would be whole."""

# What people look at first: the others (crps_p, pinball, pseudo_bma) are in the table itself.
_COLUMNS = {
    "nats": "nats per {per}",
    "perplexity": "perplexity",
    "difference": "difference to the best",
    "se": "± s.e.",
    "likelihood": "likelihood",
    "monte_carlo": "± Monte Carlo",
    "confidence_set": "among the best",
    "crps": "CRPS",
    "cover50": "cover 50 %",
    "cover90": "cover 90 %",
    "pit_p": "PIT p",
    "weight": "weight",
    "parameters": "parameters",
    "seconds": "fit, s",
    "frozen": "nats, draws held",
    "draws": "draws in effect",
    "note": "note",
}
# What a narrow terminal does without, the first of them first.
_SPARED = (
    *("seconds", "parameters", "draws", "frozen", "cover50", "pit_p", "weight", "confidence_set", "cover90"),
    *("likelihood", "monte_carlo"),
)
_DIGITS = {
    "nats": 3,
    "perplexity": 1,
    "difference": 3,
    "se": 3,
    "monte_carlo": 4,
    "crps": 4,
    "pit_p": 2,
    "weight": 2,
    "seconds": 2,
    "frozen": 3,
    "draws": 1,
}


def readable(table: pd.DataFrame, per: str) -> pd.DataFrame:
    """The table as text for people: named columns, rounded, empty columns left out."""
    out = pd.DataFrame(index=table.index)
    for column, title in _COLUMNS.items():
        values = table[column]
        if column == "note" or values.isna().all() or (column == "likelihood" and values.isin(["exact", ""]).all()):
            continue
        if column in _DIGITS:
            text = [("" if pd.isna(v) else f"{v:.{_digits(values, _DIGITS[column])}f}") for v in values]
        elif column.startswith("cover"):
            text = ["" if pd.isna(v) else f"{100 * v:.0f} %" for v in values]
        elif column == "confidence_set":
            text = ["" if pd.isna(v) else "yes" if v else "no" for v in values]
        elif column == "likelihood":
            text = [str(v) for v in values]
        else:
            text = ["" if pd.isna(v) else f"{v:g}" for v in values]
        out[title.format(per=per)] = text
    return out


def as_text(shown: pd.DataFrame, caption: str, notes: list[str], width: int | None = None) -> str:
    """A table for a terminal, with a caption and a line for every note.

    ``width`` is in characters, of this terminal by default and without limit where there is none. Columns that do not
    fit are named below instead.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    wide = width or shutil.get_terminal_size((0, 0)).columns
    wide = max(wide, _LEAST) if wide else 0
    left, missing = _fitting(shown, wide) if wide else (shown, [])
    widths = {title: max(map(len, [title, *left[title]])) for title in left.columns}
    if wide and _width(left, widths) > wide:
        widths = {title: _narrowest(left, title) for title in left.columns}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    for title in left.columns:
        table.add_column(_bound(title), justify="right", width=widths[title])
    for name, row in left.iterrows():
        table.add_row(Text(str(name)), *map(Text, row))
    stream = io.StringIO()
    Console(
        file=stream,
        width=wide or _width(left, widths),
        no_color=True,
        force_terminal=False,
        force_jupyter=False,
    ).print(table)
    below = [caption, *notes]
    if missing:
        below.append(f"A wider terminal also shows {'; '.join(missing)}.")
    drawn = "\n".join(line.rstrip() for line in stream.getvalue().replace(_NO_BREAK, " ").splitlines()).strip("\n")
    return "\n".join([drawn, "", *(textwrap.fill(line, wide) if wide else line for line in below)])


def _fitting(shown: pd.DataFrame, width: int) -> tuple[pd.DataFrame, list[str]]:
    """The columns of a table that fit beside each other, and the titles of the others."""
    spared = [_COLUMNS[column] for column in _SPARED if _COLUMNS[column] in shown.columns]
    needed = {title: _narrowest(shown, title) for title in shown.columns}
    missing: list[str] = []
    while len(missing) < len(spared) and _width(shown, needed) > width:
        missing.append(spared[len(missing)])
        del needed[missing[-1]]
    return shown[list(needed)], missing


def _width(shown: pd.DataFrame, widths: dict[str, int]) -> int:
    """Characters of a line of a table whose columns are so wide."""
    names = max(len(str(name)) for name in ["model", *shown.index])
    return 1 + sum(width + _BETWEEN for width in [names, *widths.values()])


def _narrowest(shown: pd.DataFrame, title: str) -> int:
    return max(map(len, [*_bound(title).split(" "), *shown[title]]))


def _bound(title: str) -> str:
    """A title with what stays on one line held together."""
    for part in ("± s.e.", "50 %", "90 %", "PIT p", "fit, s"):
        title = title.replace(part, part.replace(" ", _NO_BREAK))
    return title


def as_html(shown: pd.DataFrame, caption: str, notes: list[str]) -> str:
    """The same for a notebook."""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"{shown.to_html()}<p>{html.escape(caption)}</p><ul>{items}</ul>"


def _digits(values: pd.Series, wanted: int) -> int:
    """Decimals that show a column of this size well."""
    top = float(values.abs().replace([np.inf], np.nan).max())
    return max(1, wanted - 1) if top >= 100 else wanted
