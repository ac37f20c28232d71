"""Text one token at a time: a step is one token, and a text that goes on has not ended."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import ShapeError, VocabularyError

TEXTS = ["abab", "abba", "baab", "ba"]


@pytest.fixture(scope="module")
def chain():
    return ps.MarkovChain(order=1, smoothing=0.5).fit(TEXTS)


@pytest.fixture(scope="module")
def words():
    return ps.MarkovChain(order=1, smoothing=0.5).fit(ps.sequences(["to be or not", "to be"], tokens="word"))


def test_tokens_of_a_stream_add_up_to_the_text(chain):
    state, total = chain.initial_state(), 0.0
    for token in [*"abba", "<end>"]:
        total += chain.predictive_at(state).log_prob(token).item()
        state = chain.update(state, token)
    assert total == pytest.approx(float(chain.log_prob("abba")), rel=1e-12)


def test_one_token_in_any_form(chain):
    state = chain.filter("ab")
    probs = chain.predictive_at(state).probs()
    for token in ("a", "b", "<end>"):
        expected = np.log(probs.sel(category=token).item())
        code = chain.vocabulary_.codes[token]
        for form in (token, [token], np.array([token], dtype=object), code):
            assert chain.predictive_at(state).log_prob(form).item() == pytest.approx(expected)


def test_a_filtered_text_has_not_ended(chain):
    expected = chain.forecast(1, history="ab").probs().values
    assert_allclose(chain.predictive_at(chain.filter("ab")).probs().values, expected)
    assert_allclose(chain.predictive_at(chain.filter("b", history="a")).probs().values, expected)
    ended = chain.filter(ps.sequences("ab", vocabulary=chain.vocabulary_))
    closed = chain.update(chain.filter("ab"), "<end>")
    assert_allclose(chain.predictive_at(ended).probs().values, chain.predictive_at(closed).probs().values)
    assert np.abs(chain.predictive_at(ended).probs().values - expected).max() > 0.05


def test_several_texts_take_one_token_each(chain):
    state = chain.filter(["ab", "a"])
    after = chain.update(state, ["a", "b"])
    alone = [chain.update(chain.filter(text), token) for text, token in (("ab", "a"), ("a", "b"))]
    probs = [chain.predictive_at(one).probs().values.ravel() for one in alone]
    assert_allclose(chain.predictive_at(after).probs().values.reshape(2, -1), probs)
    each = [chain.predictive_at(chain.filter(text)).log_prob(token) for text, token in (("ab", "a"), ("a", "b"))]
    law = chain.predictive_at(state)
    for form in (["a", "b"], "ab", [["a"], ["b"]], np.array(["a", "b"])):
        assert_allclose(law.log_prob(form).values.ravel(), np.ravel(each))
    hidden = chain.update(state, ["a", None])
    probs = chain.predictive_at(chain.update(chain.filter("a"), None)).probs().values.ravel()
    assert_allclose(chain.predictive_at(hidden).probs().values[1].ravel(), probs)


def test_numbers_too_are_one_a_sequence():
    model = ps.IID().with_parameters(mean=[0.0], scale=[1.0])
    law = model.predictive_at(model.initial_state(2))
    assert_allclose(law.log_prob([0.0, 2.0]).values.ravel(), -0.5 * np.log(2 * np.pi) - np.array([0.0, 2.0]))


def test_forecasts_take_texts_of_their_length_and_ends_where_these_fit(chain):
    forecast = chain.forecast(2, history="ab")
    steps = chain.log_prob_steps("ba", history="ab").values
    assert float(forecast.log_prob("ba", joint=True)) == pytest.approx(steps[:2].sum())
    closed = chain.log_prob_steps("b", history="ab").values
    assert float(forecast.log_prob("b", joint=True)) == pytest.approx(closed.sum())
    assert_allclose(chain.predictive("ab").log_prob("ab"), chain.log_prob_steps("ab"))
    several = chain.predictive(["ab", "a"])
    assert_allclose(several.log_prob(["ab", "a"]), chain.log_prob_steps(["ab", "a"]))


def test_words_are_tokens_too(words):
    state = words.filter("to")
    steps = words.log_prob_steps("be", history="to").values
    assert words.predictive_at(state).log_prob("be").item() == pytest.approx(steps[0])
    with pytest.raises(ShapeError, match="'to be', 2 tokens.*a word"):
        words.update(state, "to be")


def test_more_or_less_than_a_token_raises(chain):
    state = chain.filter("ab")
    for wrong in ("ab", ""):
        with pytest.raises(ShapeError, match="one token a step"):
            chain.update(state, wrong)
    with pytest.raises(ShapeError, match="2 tokens for a forecast of 1 step"):
        chain.predictive_at(state).log_prob("ab")
    with pytest.raises(ShapeError, match="3 tokens for a state of 1 sequence"):
        chain.update(state, ["a", "b", "a"])
    with pytest.raises(VocabularyError, match="'z'"):
        chain.update(state, "z")


def test_unknown_tokens_are_one_step():
    model = ps.MarkovChain(1).fit(ps.sequences(["aab", "aba", "abc"], min_count=2))
    state = model.filter("ab")
    known = model.predictive_at(state).log_prob("<unknown>").item()
    assert model.predictive_at(state).log_prob("z").item() == known
    given = ps.MarkovChain(1).fit([["one", "two"], ["two", "one", "two"]])
    state = given.update(given.initial_state(), "one")
    assert given.predictive_at(state).log_prob("two").item() == pytest.approx(
        float(given.log_prob_steps(np.array(["one", "two"], dtype=object))[1])
    )
