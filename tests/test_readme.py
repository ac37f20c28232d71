"""What the front page says is so: its files exist, its versions agree."""

from __future__ import annotations

import re
from pathlib import Path

import probseq

ROOT = Path(__file__).parents[1]


def test_files_that_the_front_page_names_exist() -> None:
    named = re.findall(r'(?:\]\(|src(?:set)?=")(?!http)([^)#"]+)', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "docs/_static/landing-dark.svg" in named
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_tutorial_stands_on_the_front_page() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "tutorials").glob("*.ipynb") if f"tutorials/{path.name}" not in page] == []


def test_the_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {probseq.__version__}\n" in citation
