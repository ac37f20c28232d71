"""Text files read block by block hold what they hold in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from probseq.data.sequences import sequences
from probseq.data.textfile import TextFile
from probseq.data.vocabulary import Vocabulary
from probseq.errors import DataError, EmptyDataError, ParameterError, VocabularyError

LETTERS = list("abcdefg éü春眠不覺曉\t")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(LETTERS, n)) for n in rng.integers(0, 60, 1500)]


@pytest.fixture(scope="module")
def path(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("text") / "lines.txt"
    file.write_bytes("\r\n".join(lines).encode())
    return file


def _all(file: TextFile) -> list[np.ndarray]:
    return [codes for block in range(len(file.blocks)) for codes in file.read(block)]


@pytest.mark.parametrize("options", [{}, {"min_count": 2000}, {"end": False}, {"tokens": "word", "min_count": 2}])
def test_lines_are_those_in_memory(path, lines, options):
    file = TextFile(path, **options)
    data = sequences([line for line in lines if line], **options)
    assert len(file.blocks) > 5 and file.vocabulary == data.vocabulary and file.n_sequences == data.n_sequences
    assert file.n_tokens == data.lengths.sum() and file.longest == data.lengths.max()
    for codes, i in zip(_all(file), range(data.n_sequences), strict=True):
        np.testing.assert_array_equal(codes, data.block(i)[:, 0])
    whole = sequences(file)
    np.testing.assert_array_equal(whole.values, data.values)


@pytest.mark.parametrize("unit", ["character", "word"])
def test_one_long_text(path, unit):
    text = path.read_bytes().decode()
    file = TextFile(path, lines=False, tokens=unit)
    data = sequences(text, tokens=unit, end=False)
    assert len(file.blocks) > 5 and file.n_sequences == 1 and file.vocabulary == data.vocabulary
    codes = np.concatenate(_all(file))
    np.testing.assert_array_equal(codes, data.values[0, :, 0])
    first = len(file.read(0)[0])
    with_context = file.read(1, before=7)[0]
    np.testing.assert_array_equal(with_context[:7], codes[first - 7 : first])
    assert len(with_context) == file.blocks[1].n_tokens + 7
    np.testing.assert_array_equal(sequences(file).values, data.values)
    closed = TextFile(path, lines=False, tokens=unit, end=True)
    assert closed.read(len(closed.blocks) - 1)[0][-1] == closed.vocabulary.end_code


def test_a_file_takes_little_memory(tmp_path):
    path = tmp_path / "large.txt"
    line = "the quick brown fox jumps over the lazy dog; " * 5 + "\n"
    path.write_text(line * 20_000)
    tracemalloc.start()
    file = TextFile(path, vocabulary=Vocabulary.from_sequences([line], end="<end>"))
    for block in range(len(file.blocks)):
        file.read(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.n_tokens == 20_000 * len(line) == path.stat().st_size
    assert peak < 20e6


def test_bad_files(tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(DataError, match="byte 3.*iconv"):
        TextFile(latin)
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"\n\n")
    with pytest.raises(EmptyDataError):
        TextFile(empty)
    with pytest.raises(FileNotFoundError):
        TextFile(tmp_path / "none.txt")
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xef\xbb\xbfabc\nabd\n")
    file = TextFile(text)
    assert file.vocabulary.tokens == ("a", "b", "c", "d", "<end>") and file.texts() == ["abc", "abd"]
    with pytest.raises(VocabularyError, match="'d' at step .* of text.txt"):
        TextFile(text, vocabulary=Vocabulary.from_sequences(["abc"], end="<end>"))
    with pytest.raises(VocabularyError, match="vocabulary="):
        TextFile(text, vocabulary=file.vocabulary, min_count=2)
    with pytest.raises(ParameterError, match="tokens"):
        TextFile(text, tokens="line")
    text.write_text("xyz")
    with pytest.raises(DataError, match="changed"):
        file.read(0)
