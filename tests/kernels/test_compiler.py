"""The cache of compiled kernels knows what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from probseq.kernels import compiler


def test_digest_covers_what_is_imported_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "a": "from probseq.kernels.b import (\n    one,\n    two,\n)\n",
        "b": "from probseq.kernels import c\n",
        "c": "x = 1\n",
        "d": "x = 1\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(compiler, "_HERE", tmp_path)

    def digest() -> str:
        compiler._digest.cache_clear()
        return compiler._digest(tmp_path / "a.py")

    first = digest()
    (tmp_path / "d.py").write_text("x = 2\n")
    assert digest() == first
    (tmp_path / "c.py").write_text("x = 2\n")
    assert digest() != first
    compiler._digest.cache_clear()
