"""The drawing of the library's layers, read from the contract that `make lint` checks, so that it cannot be untrue."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOMS = {
    "cli": "the command line",
    "extend": "what an emission, family or inference of one's own is made of",
    "integrations": "bridges to other libraries",
    "report": "the HTML report",
    "testing": "checks that anyone can run on them",
    "comparison": "tables that compare models, backtests, evidence",
    "estimators": "what users construct: hyper-parameters, a scikit-learn face, averages of models",
    "results": "tensors become labelled arrays: forecasts, states",
    "plotting": "pictures, from plain arrays",
    "evaluation": "scores and calibration, on plain arrays",
    "inference": "how parameters are found: points and draws",
    "models": "the mathematics of each family: its state, its prediction, its update",
    "distributions": "emissions, mixtures, transformed laws, constraints of parameters",
    "kernels": "compiled recursions, which know arrays and nothing else",
    "data": "the one door for what users bring, and the data sets",
    "errors": "what came, what was expected, what to do",
}


def layers_of(contract: Path) -> list[list[str]]:
    """Return the packages of each layer, the highest first, without private modules."""
    with contract.open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    layers = [[name for name in re.findall(r"\w+", row) if not name.startswith("_")] for row in rows]
    return [names for names in layers if names]


def drawing(layers: list[list[str]]) -> str:
    """Return the floors as HTML that reads well at any width."""
    unknown = {name for names in layers for name in names} ^ set(ROOMS)
    if unknown:
        raise ExtensionError(f"docs/_ext/layers.py and the layers of pyproject.toml differ by {sorted(unknown)}.")
    floors = (
        "".join(f'<div class="room"><code>{name}</code><span>{ROOMS[name]}</span></div>' for name in names)
        for names in layers
    )
    return '<div class="floors">' + "".join(f'<div class="floor">{rooms}</div>' for rooms in floors) + "</div>"


def fill_drawing(app: Sphinx, docname: str, source: list[str]) -> None:
    """Draw the layers where a page asks for them."""
    if "<!-- layers -->" in source[0]:
        contract = Path(app.srcdir).parent / "pyproject.toml"
        app.env.note_dependency(str(contract))
        source[0] = source[0].replace("<!-- layers -->", drawing(layers_of(contract)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Draw when a page is read."""
    app.connect("source-read", fill_drawing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
