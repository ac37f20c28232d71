"""Tokens and codes."""

import json

import numpy as np
import pandas as pd
import pytest

from probseq.data.vocabulary import END, UNKNOWN, Vocabulary
from probseq.errors import ParameterError, VocabularyError


def test_tokens_are_sorted_and_special_ones_last():
    words = Vocabulary.from_sequences(["banana", "cab"], unknown=UNKNOWN, end=END)
    assert words.tokens == ("a", "b", "c", "n", UNKNOWN, END)
    assert (words.unknown_code, words.end_code, len(words)) == (4, 5, 6)
    assert "n" in words and "z" not in words
    assert words.encode("bz", end=True).tolist() == [1, 4, 5]


def test_rare_tokens_become_unknown():
    words = Vocabulary.from_sequences(["aab"], min_count=2)
    assert words.tokens == ("a", UNKNOWN)
    assert words.encode("ab").tolist() == [0, 1]


def test_missing_tokens_are_nan():
    words = Vocabulary.from_sequences([["x", None, np.nan, pd.NA]])
    assert words.tokens == ("x",)
    np.testing.assert_array_equal(words.encode([None, "x", np.nan, pd.NA]), [np.nan, 0, np.nan, np.nan])
    assert words.decode([np.nan, 0, -1]).tolist() == [None, "x", None]
    assert words.decode([np.nan, 0], text=True) == "\ufffdx"


def test_decode_stops_at_the_end():
    words = Vocabulary.from_sequences(["ab"], end=END)
    assert words.decode([0, 1, 2, 0, 0], text=True) == "ab"
    assert words.decode([2]).shape == (0,)
    assert words.decode(words.encode("abba", end=True), text=True) == "abba"


@pytest.mark.parametrize("code", [3, 0.5, 100])
def test_codes_outside_the_vocabulary(code):
    with pytest.raises(VocabularyError, match="from 0 to 2"):
        Vocabulary(("a", "b", "c")).decode([0, code])


def test_unknown_tokens_are_named():
    with pytest.raises(VocabularyError, match="'z' at step 2 of sequence 7"):
        Vocabulary(("a", "b")).encode("abz", where="sequence 7")


@pytest.mark.parametrize(
    ("tokens", "options", "match"),
    [
        (("a", "a"), {}, "'a' more than once"),
        ((), {}, "no tokens"),
        (("a",), {"end": "b"}, "end token 'b'"),
        (("a",), {"unknown": "b"}, "unknown token 'b'"),
    ],
)
def test_impossible_vocabularies(tokens, options, match):
    with pytest.raises(VocabularyError, match=match):
        Vocabulary(tokens, **options)


def test_a_text_that_contains_the_end_token():
    with pytest.raises(VocabularyError, match="more than once"):
        Vocabulary.from_sequences([["a", END]], end=END)


def test_json_round_trip():
    words = Vocabulary.from_sequences([np.array([3, 1]), np.array([2])], unknown=UNKNOWN, end=END)
    again = Vocabulary.from_dict(json.loads(json.dumps(words.to_dict())))
    assert again == words and hash(again) == hash(words)
    with pytest.raises(VocabularyError, match="type tuple"):
        Vocabulary(((1, 2),)).to_dict()


def test_mixed_kinds_of_tokens_have_an_order():
    assert Vocabulary.from_sequences([["b", 2, "a", 1]]).tokens == (1, 2, "a", "b")


def test_translate():
    old, new = Vocabulary.from_sequences(["ab"], end="."), Vocabulary.from_sequences(["cba"], end="!")
    np.testing.assert_array_equal(old.translate(np.array([[0, 1], [2, np.nan]]), new), [[0, 1], [3, np.nan]])


def test_words():
    words = Vocabulary.from_sequences(["Don't stop, well-known (old) friend!"], unit="word", end=END)
    assert words.split("Don't stop!") == ["Don't", "stop", "!"]
    text = "Don't stop, well-known (old) friend!"
    assert words.join(words.split(text)) == text
    assert words.decode(words.encode(text, end=True), text=True) == text
    assert Vocabulary.from_dict(words.to_dict()) == words != Vocabulary(words.tokens, end=END)
    assert words.join([]) == "" and words.join([None, "a"]) == "\ufffd a"
    with pytest.raises(ParameterError, match="lists of tokens"):
        Vocabulary.from_sequences(["a b"], unit="syllable")
    with pytest.raises(ParameterError, match="min_count"):
        Vocabulary.from_sequences(["a b"], min_count=0)
