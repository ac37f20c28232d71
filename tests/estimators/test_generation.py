"""Generation of tokens: tempered, cut, without some tokens, and by beam search against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.categorical import Categories
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.generation import tempering
from probseq.models.baseline import MarkovChainModel
from probseq.models.marginal import Marginalized

TEXTS = ["abba", "abab", "baab", "ababab", "bb"]


def _every(model, length, history=None):
    """All texts of at most ``length`` tokens with their ends, and log p of each."""
    letters = [token for token in model.vocabulary_.tokens if token != "<end>"]
    found = {}
    for n in range(length + 1):
        for letters_of in product(letters, repeat=n):
            text = "".join(letters_of)
            ended = n < length
            data = ps.sequences([text], vocabulary=model.vocabulary_, end=ended)
            found[text] = float(model.log_prob(data, history=history).item()) if n or ended else -np.inf
    return found


@pytest.fixture(scope="module")
def draws() -> ps.MarkovChain:
    """A chain of three quite different draws."""
    model = ps.MarkovChain(order=1, random_state=0).fit(TEXTS)
    size = model.model_.model.n_contexts, model.model_.model.n_tokens
    generator = torch.Generator().manual_seed(3)
    table = torch.softmax(2.0 * torch.randn(3, *size, generator=generator, dtype=torch.float64), -1)
    inner = model.model_.model
    assert isinstance(inner, MarkovChainModel)
    model.model_ = Marginalized(inner, {"transition": table}, torch.tensor([0.5, 0.3, 0.2]).double().log())
    return model


@pytest.mark.parametrize("history", [None, "ab"])
def test_a_wide_beam_finds_the_most_probable_texts(draws, history):
    found = _every(draws, 4, history)
    best = sorted(found, key=found.get, reverse=True)[:6]
    texts, log_prob = draws.sample(4, 6, beams=1000, history=history, log_prob=True)
    assert texts == best
    np.testing.assert_allclose(log_prob, [found[text] for text in best], rtol=1e-10)
    one, nats = draws.sample(4, beams=1000, history=history, log_prob=True)
    assert one == best[0] and nats.ndim == 0 and nats.attrs["unit"] == "nats"


def test_a_narrow_beam_is_greedy_and_may_miss(draws):
    greedy, p = draws.sample(4, beams=1, log_prob=True)
    state, expected = draws.initial_state(), ""
    for _ in range(4):
        token = draws.vocabulary_.tokens[int(np.argmax(draws.predictive_at(state).probs().values))]
        if token == "<end>":
            break
        expected += token
        state = draws.update(state, token)
    assert greedy == expected
    assert float(p) <= float(draws.sample(4, beams=50, log_prob=True)[1])


def test_log_prob_of_what_was_drawn(draws):
    texts, log_prob = draws.sample(5, 8, history="ab", log_prob=True, random_state=2)
    for text, value in zip(texts, log_prob.values, strict=True):
        data = ps.sequences([text], vocabulary=draws.vocabulary_, end=len(text) < 5)
        np.testing.assert_allclose(value, draws.log_prob(data, history="ab").item(), rtol=1e-10)
    numbers = ps.RandomWalk().fit([1.0, 2.0, 4.0, 3.0])
    path, p = numbers.sample(3, history=ps.TRAINING, log_prob=True, random_state=0)
    np.testing.assert_allclose(p, numbers.log_prob(path.values, history=ps.TRAINING), rtol=1e-12)


def test_one_draw_is_kept_along_a_text():
    """Of two draws one writes only a, the other only b: no text has both."""
    model = ps.MarkovChain(order=1).with_parameters(transition=np.full((3, 2), 0.5))
    certain = torch.tensor([[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3], dtype=torch.float64)
    model.model_ = Marginalized(model.model_.model, {"transition": certain})
    codes = np.stack([model.sample(12, random_state=seed).values for seed in range(20)])
    assert {tuple(np.unique(row)) for row in codes} == {(0.0,), (1.0,)}
    frozen = model.model_.frozen()
    mixed, _ = frozen.sample({}, frozen.initial_state({}, 20), 12, torch.Generator().manual_seed(0))
    assert len(torch.unique(mixed.sum((1, 2)))) > 2
    best = model.sample(5, 2, beams=8, log_prob=True)
    assert sorted(best[0].values.sum(1).ravel().tolist()) == [0.0, 5.0]
    np.testing.assert_allclose(best[1], np.log([0.5, 0.5]))


def test_excluded_tokens_never_come():
    model = ps.MarkovChain(1, "kneser_ney", random_state=0).fit(ps.sequences([*TEXTS, "abc"], min_count=2))
    assert "<unknown>" in "".join(model.sample(40, 30))
    texts = model.sample(40, 30, exclude="<unknown>")
    assert not any("<unknown>" in text for text in texts)
    assert "<unknown>" not in model.sample(6, 4, beams=10, exclude=["<unknown>", "a"])
    law = model.model_.predict_next({}, model.model_.initial_state({}, 1))
    code = model.vocabulary_.unknown_code
    kept = tempering(banned=torch.tensor([code]))(law).probs[0, 0]
    p = law.probs[0, 0].clone()
    p[code] = 0.0
    torch.testing.assert_close(kept, p / p.sum())


def test_what_leaves_no_token_to_draw_is_named():
    model = ps.MarkovChain(1, "kneser_ney", random_state=0).fit(TEXTS)
    for beams in (None, 3):
        with pytest.raises(ParameterError, match="exclude=all .* tokens"):
            model.sample(3, exclude=list(model.vocabulary_.tokens), beams=beams)
        with pytest.raises(ParameterError, match=r"exclude=\['a'\]"):
            model.sample(3, exclude=[["a"]], beams=beams)
    with pytest.raises(ParameterError, match="exclude=all 2 tokens"):
        ps.MarkovChain().fit([0.0, 1.0, 1.0, 0.0]).sample(3, exclude=[0, 1])
    turns = ps.MarkovChain(1).with_parameters(transition=[[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    for beams in (None, 3):
        with pytest.raises(ParameterError, match="gives a probability at some step"):
            turns.sample(4, exclude=0, beams=beams)


@pytest.mark.parametrize("temperature", [1e-30, 1e-300, np.float32(1e-30)])
def test_low_temperatures_give_the_most_probable(temperature):
    law = Categories(logits=torch.tensor([[0.0, 1.0, 0.9]]))
    assert tempering(temperature)(law).probs.tolist() == [[0.0, 1.0, 0.0]]


def test_a_high_temperature_keeps_exact_zeros():
    law = Categories(logits=torch.tensor([[0.0, 0.3, 0.7]]).log())
    expected = np.array([[0.0, 0.3**0.5, 0.7**0.5]])
    np.testing.assert_allclose(tempering(2.0)(law).probs, expected / expected.sum(), rtol=1e-6)


def test_text_goes_on_from_a_history():
    training = ps.TrainingOptions(max_epochs=60, learning_rate=0.05, validation_fraction=0.0)
    model = ps.LSTM(16, head=ps.Categorical(), random_state=0, inference=ps.MLE(training=training))
    model.fit(["春眠不覺曉，處處聞啼鳥。"] * 4)
    assert model.sample(7, history="春眠不覺曉", beams=3) == "，處處聞啼鳥。"
    assert model.sample(7, history="春眠不覺曉", temperature=0.01, random_state=1) == "，處處聞啼鳥。"


def test_what_beams_refuse(draws):
    for wrong in ({"beams": 0}, {"beams": True}, {"beams": 2, "n_sequences": 3}, {"beams": 2, "temperature": 0.5}):
        with pytest.raises(ParameterError, match="beams"):
            draws.sample(3, **wrong)
    with pytest.raises(ParameterError, match="exclude"):
        draws.sample(3, exclude="z")
    with pytest.raises(UnsupportedError, match="beams"):
        ps.IID().fit([1.0, 2.0, 4.0]).sample(3, beams=2)
    with pytest.raises(ParameterError, match="states"):
        ps.HMM(2, ps.Categorical()).fit([0, 1, 1, 0, 1]).sample(3, states=True, log_prob=True)
