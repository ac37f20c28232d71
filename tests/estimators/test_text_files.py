"""Fits to text files and their scores, against the same text in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.errors import DataError, HistoryError, VocabularyError
from probseq.inference.files import FileBatch, FileWindows
from probseq.inference.options import TrainingOptions

WORDS = ["to be", "or not", "to be that", "is", "the question", "or"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(WORDS, n)) for n in rng.integers(1, 9, 900)]
    here = tmp_path_factory.mktemp("files")
    (here / "train.txt").write_text("\n".join(lines[:800]))
    (here / "test.txt").write_text("\n".join(lines[800:]))
    return here


def _net(**options) -> ps.LSTM:
    training = ps.TrainingOptions(max_epochs=3, learning_rate=0.02, **options)
    return ps.LSTM(12, head=ps.Categorical(), inference=ps.MLE(training=training), random_state=0)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("carry", [False, True])
def test_a_pass_scores_every_token_once(folder, lines, carry):
    file = ps.TextFile(folder / "train.txt", lines=lines)
    options = TrainingOptions(window=20, context=5, carry_state=carry)
    windows = FileWindows(file, range(len(file.blocks)), options)
    assert windows.n_values == file.n_tokens
    counts, shares, n = np.zeros(len(file.vocabulary)), 0.0, 0
    for mini in windows.passing(16, torch.Generator().manual_seed(0)):
        counts += np.bincount(mini.batch.x[mini.scored].long(), minlength=len(counts))
        shares, n = shares + float(mini.share), n + 1
    whole = ps.sequences(file)
    np.testing.assert_array_equal(counts, np.bincount(whole.values[whole.seen()].astype(int), minlength=len(counts)))
    assert abs(shares - 1) < 1e-6 and 0.4 < n / windows.n_batches(16) < 2.5
    again, other = (next(iter(windows.passing(16, torch.Generator().manual_seed(seed)))).batch.x for seed in (0, 1))
    first = next(iter(windows.passing(16, torch.Generator().manual_seed(0)))).batch.x
    assert torch.equal(first, again) and not (first.shape == other.shape and torch.equal(first, other))


def test_blocks_are_held_back_once(folder):
    batch = FileBatch.of(ps.TextFile(folder / "train.txt"))
    rest, held = batch.hold_back(0.3, torch.Generator().manual_seed(0))
    n_held = int(held.scored.sum())
    assert set(rest.blocks) < set(batch.blocks)
    assert rest.mini_batches(TrainingOptions()).n_values + n_held == batch.file.n_tokens


@pytest.mark.parametrize("lines", [True, False])
def test_a_network_is_fitted_to_a_file(folder, lines, tmp_path):
    file = ps.TextFile(folder / "train.txt", lines=lines)
    test = ps.TextFile(folder / "test.txt", lines=lines, vocabulary=file.vocabulary)
    model = _net(window=32).fit(file)
    in_memory = ps.sequences(test)
    np.testing.assert_allclose(model.score(test), model.score(in_memory), rtol=1e-5)
    np.testing.assert_allclose(model.perplexity(test), model.perplexity(in_memory), rtol=1e-5)
    both = (model.bits_per_character(one, end=False) for one in (test, in_memory))
    np.testing.assert_allclose(*both, rtol=1e-5)
    assert model.score(test) > -np.log(len(file.vocabulary)) + 0.5
    np.testing.assert_allclose(model.log_likelihood_, float(model.log_prob(ps.sequences(file)).sum()), rtol=1e-5)
    assert model.n_scored_ == file.n_tokens and model.vocabulary_ == file.vocabulary
    assert isinstance(model.sample(12, history="to be "), str)
    model.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model")
    assert loaded.score(test) == model.score(test)
    if lines:
        with pytest.raises(HistoryError):
            model.sample(3, history=ps.TRAINING)
    else:
        text = ps.sequences(file)
        one = model.log_prob("or not", history=ps.TRAINING)
        np.testing.assert_allclose(one, model.log_prob("or not", history=text), rtol=1e-4)
        np.testing.assert_allclose(loaded.log_prob("or not", history=ps.TRAINING), one)
        assert model.forecast(2).n_steps == 2


def test_the_posterior_of_a_network_from_a_file(folder):
    file = ps.TextFile(folder / "train.txt")
    training = ps.TrainingOptions(max_epochs=1)
    model = ps.LSTM(4, head=ps.Categorical(), inference=ps.MeanField(n_draws=2, training=training), random_state=0)
    model.fit(file, validation=ps.TextFile(folder / "test.txt", vocabulary=file.vocabulary))
    whole = ps.sequences(file)
    np.testing.assert_allclose(model.log_likelihood_, float(model.log_prob(whole).sum()), rtol=1e-5)
    np.testing.assert_allclose(model.score(file), model.score(whole), rtol=1e-5)


@pytest.mark.parametrize("lines", [True, False])
def test_ngrams_of_a_file_are_those_of_its_text(folder, lines):
    file = ps.TextFile(folder / "train.txt", lines=lines, tokens="word")
    streamed = ps.MarkovChain(2, "kneser_ney").fit(file)
    in_memory = ps.MarkovChain(2, "kneser_ney").fit(ps.sequences(file))
    test = ps.TextFile(folder / "test.txt", lines=lines, vocabulary=file.vocabulary)
    np.testing.assert_allclose(streamed.perplexity(test), in_memory.perplexity(ps.sequences(test)), rtol=1e-10)
    assert streamed.n_parameters_ == in_memory.n_parameters_
    np.testing.assert_allclose(streamed.aic, in_memory.aic, rtol=1e-10)


def test_what_a_file_cannot_do(folder):
    file = ps.TextFile(folder / "train.txt")
    additive = ps.MarkovChain(1).fit(file)  # in memory
    np.testing.assert_allclose(additive.score(file), additive.score(ps.sequences(file)), rtol=1e-12)
    with pytest.raises(DataError, match="lengths"):
        ps.MarkovChain(1, "kneser_ney").fit(file, lengths=[1, 2])
    model = ps.MarkovChain(1, "kneser_ney").fit(file)
    with pytest.raises(VocabularyError, match="vocabulary_"):
        model.score(ps.TextFile(folder / "test.txt", tokens="word"))
    with pytest.raises(DataError, match="history"):
        model.score(file, history="to")
    with pytest.raises(VocabularyError, match="TextFile"):
        ps.sequences(file, min_count=2)
