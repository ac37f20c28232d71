"""Perplexity and bits per character against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

import probseq as ps
from probseq.errors import DataError, UnsupportedError, VocabularyError

TEXTS = ["to be or not to be", "to do is to be", "do be do be do"]


def test_scores_of_characters():
    model = ps.MarkovChain(2, "kneser_ney").fit(TEXTS)
    steps = model.log_prob_steps(TEXTS).values
    with_ends, n = np.nansum(steps), sum(map(len, TEXTS))
    last = [steps[i, len(text)] for i, text in enumerate(TEXTS)]
    bits = -with_ends / np.log(2)
    np.testing.assert_allclose(model.bits_per_character(TEXTS), bits / (n + len(TEXTS)), rtol=1e-12)
    np.testing.assert_allclose(model.perplexity(TEXTS), 2 ** (bits / (n + len(TEXTS))), rtol=1e-12)
    inside = -(with_ends - sum(last)) / n
    np.testing.assert_allclose(model.perplexity(TEXTS, end=False), np.exp(inside), rtol=1e-12)
    np.testing.assert_allclose(model.bits_per_character(TEXTS, end=False), inside / np.log(2), rtol=1e-12)
    np.testing.assert_allclose(model.perplexity("be", history="to "), np.exp(-model.score("be", history="to ")))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    chain = ps.MarkovChain(1).with_parameters(transition=np.full((5, 4), 0.25))
    assert abs(chain.perplexity([0, 3, 1, 1]) - 4) < 1e-12


def test_what_has_which_score():
    words = ps.MarkovChain(1, "kneser_ney").fit(ps.sequences(TEXTS, tokens="word", min_count=2))
    assert words.perplexity(["to be or what"]) > 1 and words.vocabulary_.unit == "word"
    assert words.sample(8, random_state=0).count(" ") <= 7
    with pytest.raises(UnsupportedError, match="perplexity"):
        words.bits_per_character(TEXTS)
    tokens = ps.MarkovChain(1).fit([["to", "be"], ["be", "to"]])
    with pytest.raises(UnsupportedError, match="perplexity"):
        tokens.bits_per_character([["to"]])
    with pytest.raises(UnsupportedError, match="score"):
        ps.IID().fit([1.0, 2.0, 4.0]).perplexity([1.0])
    with pytest.raises(DataError, match="no token"):
        ps.MarkovChain(1).fit(TEXTS).perplexity([""], end=False)
    with pytest.raises(VocabularyError, match="min_count=2"):
        ps.MarkovChain(1).fit(TEXTS).score("xyz")


def test_words_survive_a_file(tmp_path):
    model = ps.MarkovChain(1, "kneser_ney").fit(ps.sequences(TEXTS, tokens="word"))
    model.save(tmp_path / "words")
    loaded = ps.load(tmp_path / "words")
    assert loaded.vocabulary_ == model.vocabulary_ and loaded.perplexity("to be") == model.perplexity("to be")
