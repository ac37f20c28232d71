"""The table of a comparison as text and HTML."""

from __future__ import annotations

import html
import io

import numpy as np
import pandas as pd

__all__ = ["as_html", "as_text", "readable"]

# What fits on a screen: the others (crps_p, pinball, pseudo_bma) are in the table itself.
_COLUMNS = {
    "nats": "nats per {per}",
    "perplexity": "perplexity",
    "difference": "difference to the best",
    "se": "± s.e.",
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
_DIGITS = {
    "nats": 3,
    "perplexity": 1,
    "difference": 3,
    "se": 3,
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
        if column == "note" or values.isna().all():
            continue
        if column in _DIGITS:
            text = [("" if pd.isna(v) else f"{v:.{_digits(values, _DIGITS[column])}f}") for v in values]
        elif column.startswith("cover"):
            text = ["" if pd.isna(v) else f"{100 * v:.0f} %" for v in values]
        elif column == "confidence_set":
            text = ["" if pd.isna(v) else "yes" if v else "no" for v in values]
        else:
            text = ["" if pd.isna(v) else f"{v:g}" for v in values]
        out[title.format(per=per)] = text
    return out


def as_text(shown: pd.DataFrame, caption: str, notes: list[str]) -> str:
    """A table for a terminal, with a caption and a line for every note."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("model")
    for title in shown.columns:
        table.add_column(title, justify="right")
    for name, row in shown.iterrows():
        table.add_row(str(name), *row.tolist())
    stream = io.StringIO()
    Console(
        file=stream,
        width=max(100, 18 + 12 * len(shown.columns)),
        no_color=True,
        force_terminal=False,
        force_jupyter=False,
    ).print(table)
    return "\n".join([stream.getvalue().rstrip(), *notes])


def as_html(shown: pd.DataFrame, caption: str, notes: list[str]) -> str:
    """The same for a notebook."""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"{shown.to_html()}<p>{caption}</p><ul>{items}</ul>"


def _digits(values: pd.Series, wanted: int) -> int:
    """Decimals that show a column of this size well."""
    top = float(values.abs().replace([np.inf], np.nan).max())
    return max(1, wanted - 1) if top >= 100 else wanted
