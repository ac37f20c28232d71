"""Kneser-Ney smoothing against sums by hand, a slow reference over dictionaries, and the conformance checks."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError, ParameterError, UnsupportedError
from probseq.models.kneser_ney import KneserNeyModel
from probseq.models.ngrams import NGramCounter, NGramTables
from probseq.testing.cases import ModelCase
from probseq.testing.models import model_checks

POEMS = ps.datasets.tang_poems()[:120]


class Reference:
    """Chen and Goodman's equations over dictionaries of tuples, one token at a time; None is the start."""

    def __init__(self, texts: list[list[str]], order: int, tokens: tuple[str, ...]) -> None:
        self.tokens, self.order = tokens, order
        raw: Counter[tuple] = Counter()
        for text in texts:
            whole = [None, *text]
            for t in range(1, len(whole)):
                raw[tuple(whole[max(0, t - order) : t + 1])] += 1
        self.counts: list[Counter] = [Counter() for _ in range(order + 1)]
        self.counts[order] = Counter({gram: c for gram, c in raw.items() if len(gram) == order + 1})
        for m in range(order - 1, -1, -1):
            self.counts[m] = Counter({gram: c for gram, c in raw.items() if len(gram) == m + 1})
            for gram in self.counts[m + 1]:
                self.counts[m][gram[1:]] += 1
        self.discounts = []
        for table in self.counts:
            n = [sum(c == j for c in table.values()) for j in range(1, 5)]
            y = n[0] / (n[0] + 2 * n[1])
            found = [1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2] if n[2] else 0]
            usable = all(0 < d < j for j, d in enumerate(found, start=1))
            self.discounts.append(found if usable else [y] * 3)

    def prob(self, context: tuple, token: str) -> float:
        if len(context) == 0:
            lower = 1 / len(self.tokens)
        else:
            lower = self.prob(context[1:], token)
        table, d = self.counts[len(context)], self.discounts[len(context)]
        after = {gram[-1]: c for gram, c in table.items() if gram[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        left = sum(d[min(c, 3) - 1] for c in after.values()) / total
        own = after.get(token, 0)
        return (own - d[min(own, 3) - 1] if own else 0.0) / total + left * lower


@pytest.mark.parametrize("order", [1, 2, 3])
def test_equals_the_equations(order):
    texts = POEMS[:40]
    words = ps.Vocabulary.from_sequences(texts, min_count=2, end="<end>")
    model = ps.MarkovChain(order, "kneser_ney").fit(ps.sequences(texts, vocabulary=words))
    known = [[c if c in words else "<unknown>" for c in text] + ["<end>"] for text in texts]
    reference = Reference(known, order, words.tokens)
    estimated = np.stack([model.params_[f"discount_{j}"] for j in (1, 2, 3)], -1)
    np.testing.assert_allclose(estimated, reference.discounts, rtol=1e-12)
    held_out = POEMS[50]
    steps = model.log_prob_steps(held_out).values
    whole = [None, *(c if c in words else "<unknown>" for c in held_out), "<end>"]
    expected = [math.log(reference.prob(tuple(whole[max(0, t - order) : t]), whole[t])) for t in range(1, len(whole))]
    np.testing.assert_allclose(steps, expected, rtol=1e-10)


def test_a_bigram_model_by_hand():
    """abab, ab: bigrams (start a) 2, (a b) 3, (b a) 1, each token follows so many different ones: a 2, b 1."""
    model = ps.MarkovChain(1, "kneser_ney").fit(ps.sequences(["abab", "ab"], end=False))
    # No bigram has the count 4, nor a token: D = Y. Bigrams n_1 = 1, n_2 = 1: Y = 1/3. Unigrams n_1 = 1, n_2 = 1: 1/3.
    a, b = (2 - 1 / 3) / 3 + (2 / 9) / 2, (1 - 1 / 3) / 3 + (2 / 9) / 2
    start_a = (2 - 1 / 3) / 2 + (1 / 6) * a
    a_b = (3 - 1 / 3) / 3 + (1 / 9) * b
    b_b = (1 / 3) / 1 * b
    np.testing.assert_allclose(model.log_prob("abb"), math.log(start_a * a_b * b_b), rtol=1e-12)


def test_probabilities_sum_to_one_for_every_context():
    words = ps.Vocabulary.from_sequences(POEMS, min_count=3, end="<end>")
    model = ps.MarkovChain(2, "kneser_ney").fit(ps.sequences(POEMS, vocabulary=words))
    law = model.predictive(POEMS[:4] + ["龘龘，"])
    p = law.probs()
    np.testing.assert_allclose(p.sum("category").values[:4], 1.0, rtol=1e-12)
    assert float(p.min()) > 0 and p.sizes["category"] == len(words)
    np.testing.assert_allclose(law.log_prob(POEMS[:4] + ["龘龘，"]), model.log_prob_steps(POEMS[:4] + ["龘龘，"]))


def test_beats_additive_smoothing_and_keeps_little():
    words = ps.Vocabulary.from_sequences(POEMS[:100], min_count=2, end="<end>")
    train, test = (ps.sequences(part, vocabulary=words) for part in (POEMS[:100], POEMS[100:]))
    smoothed, additive = ps.MarkovChain(2, "kneser_ney").fit(train), ps.MarkovChain(1, 0.5).fit(train)
    assert smoothed.score(test) > additive.score(test)
    assert smoothed.n_parameters_ == smoothed.draws_.tables.n_entries < 10_000 < additive.n_parameters_
    with pytest.raises(ParameterError, match="min_count"):
        NGramCounter(5000, 6)


def test_counts_in_parts_are_the_counts_of_all():
    codes = np.random.default_rng(0).integers(-1, 4, (7, 30))
    whole, parts = NGramCounter(4, 3), NGramCounter(4, 3)
    whole.add(codes, np.array([1, 2, 1, 0, 1, 1, 1]))
    for row in (codes[:2], codes[1:2], codes[2:3], codes[4:]):
        parts.add(row)
    for a, b in zip(whole.tables().levels, parts.tables().levels, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_weight_of_two_is_a_sequence_twice():
    texts = ["abracadabra", "cabala", "barbara"]
    weighted = ps.MarkovChain(2, "kneser_ney").fit(texts, weights=[2, 1, 1])
    twice = ps.MarkovChain(2, "kneser_ney").fit([*texts, texts[0]])
    assert float(weighted.log_prob("abbab")) == float(twice.log_prob("abbab"))
    with pytest.raises(ParameterError, match="0.5"):
        ps.MarkovChain(2, "kneser_ney").fit(texts, weights=[0.5, 1, 1])


def test_missing_tokens_end_a_context():
    model = ps.MarkovChain(2, "kneser_ney").fit(["abracadabra"])
    after = model.log_prob_steps([*"abr", None, *"ca"]).values
    assert np.isnan(after[3])
    # Behind the gap nothing is known: the law of the shortest context, as for any other token before it.
    assert after[4] == model.log_prob_steps([*"abd", None, *"ca"]).values[4]
    assert after[5] != model.log_prob_steps([*"abrac", *"ca"]).values[5]
    other = ps.MarkovChain(1).fit(["abracadabra"])
    notes = ps.compare({"smooth": model, "chain": other}, [*"abr", None, *"ca"]).table["note"]
    assert "given the pattern of missing values" in notes["smooth"]
    assert "pattern" not in notes["chain"]


def _tables() -> NGramTables:
    counter = NGramCounter(3, 2)
    counter.add(np.random.default_rng(1).choice(3, (3, 25), p=[0.5, 0.3, 0.2]))
    return counter.tables()


@pytest.mark.parametrize("check", [c for _, c in model_checks()], ids=[n for n, _ in model_checks()])
def test_model(check):
    check(ModelCase(KneserNeyModel(Observation(1, "counting", 0.0, 3), 2, _tables()), missing="pattern"))


def test_generation_and_history():
    model = ps.MarkovChain(2, "kneser_ney", random_state=0).fit(POEMS)
    texts = model.sample(12, 3, history=POEMS[3][:2], temperature=0.5, top_k=3)
    assert len(texts) == 3 and all(len(text) <= 12 for text in texts)
    state = model.filter("白日")
    p = model.predictive_at(state).probs()
    assert abs(float(p.sum()) - 1) < 1e-12


def test_what_it_refuses():
    with pytest.raises(IncompatibleError, match="MLE"):
        ps.MarkovChain(2, "kneser_ney", inference=ps.MAP())
    with pytest.raises(ParameterError, match="kneser_ney"):
        ps.MarkovChain(2, "good_turing").fit("abab")
    with pytest.raises(UnsupportedError, match="fit"):
        ps.MarkovChain(2, "kneser_ney").with_parameters()
    with pytest.raises(ParameterError, match="order"):
        ps.MarkovChain(0, "kneser_ney").fit("abab")
    assert torch.equal(
        KneserNeyModel(Observation(1, "counting", 0.0, 2), 1)._law(
            torch.full((2, 3), 0.5, dtype=torch.float64), torch.tensor([[2]])
        ),
        torch.full((1, 2), 0.5, dtype=torch.float64),
    )
