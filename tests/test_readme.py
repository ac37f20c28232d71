"""What the front page says is so: its files exist, its versions agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

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


def test_quoted_speeds_are_the_recorded_ones() -> None:
    """A row quotes its mean over cases, the least and the greatest: each must be that of some task beside that peer."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(
        r"^\| [^|]+ \| (\S.*?) [\d.]+ \| ([\d.]+)(?: \(([\d.]+) to ([\d.]+)\))? \|$", page, re.MULTILINE
    )
    recorded: dict[str, dict[tuple[str, str], list[float]]] = {}
    for path in (ROOT / "docs" / "benchmarks" / "results").glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8")).get("speed", []):
            tasks = recorded.setdefault(row["peer"], {})
            tasks.setdefault((path.stem, row["task"]), []).append(row["ratio"])
    assert len(quoted) > 5
    for peer, mean, least, most in quoted:
        found = [
            [_short(np.exp(np.mean(np.log(ratios)))), *([_short(min(ratios)), _short(max(ratios))] if least else [])]
            for ratios in recorded[peer].values()
        ]
        assert [mean, *([least, most] if least else [])] in found


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 9.5 else f"{ratio:.1f}"
