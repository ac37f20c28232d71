"""The cache of compiled kernels knows what they are made of."""

from __future__ import annotations

from pathlib import Path

import numba
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


def test_processes_that_write_at_once_never_mix_their_signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the index before either has written to it."""
    files = [compiler._SharedCacheFile(str(tmp_path), "function-1.py311", "stamp") for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(compiler._SharedCacheFile, "_load_index", lambda self: {})
        for file, signature in zip(files, ("float32", "float64"), strict=True):
            file.save((signature,), f"code for {signature}")
    assert files[0].load(("float64",)) == "code for float64"
    assert files[0].load(("float32",)) is None
    files[0].save(("float32",), "code for float32")
    assert [files[1].load((s,)) for s in ("float32", "float64")] == ["code for float32", "code for float64"]


def _twice(x):
    return x + x


def test_every_signature_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    twice = compiler.kernel(_twice)
    assert twice(2) == 4 and twice(0.25) == 0.5
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    again = compiler.kernel(_twice)
    assert again(0.25) == 0.5 and again(2) == 4
    assert sum(again.stats.cache_hits.values()) == 2
