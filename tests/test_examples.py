"""Every example in a docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import probseq

ROOT = Path(probseq.__file__).parent


def modules_with_examples() -> list[str]:
    found = [path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(("probseq", *path.relative_to(ROOT).with_suffix("").parts)) for path in found]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_a_module(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_name_has_an_example() -> None:
    """Constants and modules apart."""
    named = {name: getattr(probseq, name) for name in probseq.__all__ if not name.startswith("__")}
    callables = {name: item for name, item in named.items() if callable(item) and not isinstance(item, ModuleType)}
    assert [name for name, item in callables.items() if ">>> " not in (item.__doc__ or "")] == []
