"""Pages about benchmarks are read again when a result, or the code that shows it, has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def depend_on_results(app: Sphinx, docname: str, source: list[str]) -> None:
    """Note every file that a page of the folder reads, and the folder itself for files to come."""
    if docname.startswith("benchmarks/"):
        folder = ROOT / "docs" / "benchmarks" / "results"
        files = [folder, *folder.glob("*.json"), *(ROOT / "benchmarks" / name for name in ("_pages.py", "_record.py"))]
        for path in files:
            app.env.note_dependency(str(path))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect."""
    app.connect("source-read", depend_on_results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
