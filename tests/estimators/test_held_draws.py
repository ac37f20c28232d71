"""Draws that keep the weights of the fit whatever is seen, against averages over models of one draw each."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtri

import probseq as ps
from probseq._random import torch_generator
from probseq.errors import ParameterError
from probseq.models.base import map_state
from probseq.models.marginal import Marginalized

WALK = np.random.default_rng(0).standard_normal(60).cumsum()
TRAIN, PAST, NEW = WALK[:30], np.array([4.0, -3.0, 6.0, 0.5]), np.array([2.0, -1.0, 3.0])
BEYOND = WALK[30:33]


def _members(model):
    """The same fit with one draw each."""
    found = []
    for d in range(model.model_.n_draws):
        one = copy.copy(model)
        one.model_ = Marginalized(model.model_.model, {k: v[d : d + 1] for k, v in model.model_.params.items()})
        one.training_state_ = one.model_.filter({}, one._batch(one.training_))
        found.append(one)
    return found


@pytest.fixture(scope="module", params=["net", "ARMA"])
def model(request):
    if request.param == "ARMA":
        return ps.ARMA(order=(1, 0), inference=ps.Collapsed(n_draws=6), random_state=0).fit(TRAIN)
    training = ps.TrainingOptions(max_epochs=3)
    inference = ps.MeanField(n_draws=5, training=training)
    return ps.RNN(hidden_size=2, inference=inference, random_state=0).fit(TRAIN)


@pytest.fixture(scope="module")
def members(model):
    return _members(model)


@pytest.fixture
def close(model):
    tolerance = {torch.float32: {"rtol": 2e-5, "atol": 2e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-12}}
    return lambda a, b: assert_allclose(a, b, **tolerance[model.model_.dtype])


def _average(log_probs):
    return np.logaddexp.reduce(np.array(log_probs), 0) - np.log(len(log_probs))


def test_scores_are_equal_averages_at_every_step(model, members, close):
    for history in (None, PAST, ps.TRAINING):
        each = _average([one.log_prob_steps(NEW, history=history).values for one in members])
        held = {"history": history, "weights": "frozen"}
        close(model.log_prob_steps(NEW, **held), each)
        close(model.log_prob(NEW, **held), each.sum())
        close(model.score(NEW, **held), each.mean())
        close(model.surprise(NEW, **held), -each)
        close(model.surprise(NEW, per="variable", **held).values.ravel(), -each)
        assert abs(float(model.log_prob(NEW, history=history)) - each.sum()) > 1e-4


def test_predictive_laws_and_their_parts_are_equal_averages(model, members, close):
    law = model.predictive(NEW, history=PAST, weights="frozen")
    laws = [one.predictive(NEW, history=PAST) for one in members]
    close(law.log_prob(NEW), _average([one.log_prob(NEW) for one in laws]))
    means, variances = (np.array([getattr(one, name)().values for one in laws]) for name in ("mean", "var"))
    close(law.mean(), means.mean(0))
    close(model.predict(NEW, history=PAST, weights="frozen"), means.mean(0))
    parts = law.decompose()
    close(parts["aleatoric"], variances.mean(0))
    close(parts["total"], variances.mean(0) + means.var(0))
    moved = model.predictive(NEW, history=PAST).decompose()
    assert np.abs(moved["epistemic"] - parts["epistemic"]).max() > 1e-4


def test_forecasts_weigh_all_draws_alike_and_paths_keep_theirs(model, members, close):
    if model.model_.dtype == torch.float32:
        one = model.forecast(1, history=PAST, weights="frozen", n_paths=4000, random_state=0)
        laws = [member.predictive([0.0], history=PAST) for member in members]
        spread = np.sqrt(np.mean([law.var().item() for law in laws]))
        assert one.mean().item() == pytest.approx(np.mean([law.mean().item() for law in laws]), abs=0.1 * spread)
        y = NEW[:2]
        joint = model.forecast(2, history=PAST, weights="frozen").log_prob(y, joint=True)
        close(joint, _average([float(member.log_prob(y, history=PAST)) for member in members]))
        return
    law = model.forecast(3, history=PAST, weights="frozen")
    laws = [member.forecast(3, history=PAST) for member in members]
    close(law.mean(), np.mean([one.mean() for one in laws], 0))
    close(law.decompose()["aleatoric"], np.mean([one.var() for one in laws], 0))
    close(law.log_prob(NEW, joint=True), _average([one.log_prob(NEW, joint=True) for one in laws]))
    close(model.predict(horizon=3, history=PAST, weights="frozen").values.ravel(), law.mean().values.ravel())


def test_states_hold_the_weights_however_they_were_made(model, close):
    batch = model.filter(PAST, weights="frozen")
    assert torch.equal(batch.tree.log_weights[0], model.model_.log_weights)
    state = model.initial_state()
    for x in PAST:
        state = model.update(state, x, weights="frozen")
    moved = model.filter(PAST)
    assert not torch.allclose(moved.tree.log_weights[0], model.model_.log_weights, atol=1e-3)
    expected = model.forecast(1, history=PAST, weights="frozen")
    others = [
        model.forecast(1, state=batch),
        model.forecast(1, state=state),
        model.forecast(1, state=moved, weights="frozen"),
    ]
    y = [1.5]
    for other in others:
        close(other.log_prob(y, joint=True), expected.log_prob(y, joint=True))
    close(model.predictive_at(batch).log_prob(y), expected.log_prob(y, joint=True))
    close(model.predictive_at(moved, weights="frozen").log_prob(y), expected.log_prob(y, joint=True))
    trained = model.filter(TRAIN, weights="frozen")
    close(model.predictive_at(trained).log_prob(y), model.forecast(1).log_prob(y, joint=True))


def test_generation_chooses_draws_by_the_weights_of_the_fit(model):
    for weights in ("frozen", "adapt"):
        tree = model.filter(PAST, weights=weights).tree
        state = map_state(lambda leaf: leaf.expand(50, *leaf.shape[1:]), tree)
        expected, _ = model.model_.sample({}, state, 2, torch_generator(0))
        paths = model.sample(2, 50, history=PAST, weights=weights, random_state=0)
        assert_array_equal(paths.values.ravel(), expected.ravel())


def test_residuals_and_thresholds_are_of_the_same_law(model, close):
    law = model.predictive(NEW, history=PAST, weights="frozen")
    close(model.residuals(NEW, history=PAST, weights="frozen"), ndtri(law.pit(NEW)))
    scores = model.surprise(WALK[30:], weights="frozen").values
    assert model.surprise_threshold(WALK[30:], 0.1, weights="frozen") == np.sort(scores)[27]
    found = model.anomalies(NEW, scores, history=PAST, weights="frozen")
    close(found["surprise"], model.surprise(NEW, history=PAST, weights="frozen"))


def test_panels_pass_the_weights_on():
    inference = ps.Collapsed(n_draws=4)
    data = {"a": TRAIN, "b": TRAIN[::-1] * 2}
    panel = ps.PerSequence(ps.ARMA(order=(1, 0), inference=inference, random_state=0)).fit(data)
    new, past = {"a": NEW, "b": -NEW}, {"a": PAST, "b": PAST}
    held = {"history": past, "weights": "frozen"}
    each = [panel[name].log_prob_steps(new[name], history=past[name], weights="frozen").values for name in new]
    assert_allclose(panel.log_prob_steps(new, **held), each, rtol=1e-10)
    assert_allclose(panel.log_prob(new, **held), np.sum(each, 1), rtol=1e-10)
    assert_allclose(panel.score(new, **held), np.mean(each), rtol=1e-10)
    means = [panel[name].forecast(2, history=past[name], weights="frozen").mean().values for name in new]
    assert_allclose(panel.forecast(2, **held).mean().values.ravel(), np.ravel(means), rtol=1e-10)
    assert_allclose(panel.predict(horizon=2, **held).values.ravel(), np.ravel(means), rtol=1e-10)
    laws = [panel[name].predictive(new[name], history=past[name], weights="frozen").mean().values for name in new]
    assert_allclose(panel.predictive(new, **held).mean().values.ravel(), np.ravel(laws), rtol=1e-10)


def test_text_scores_take_them_too(tmp_path):
    inference = ps.MeanField(n_draws=3, training=ps.TrainingOptions(max_epochs=2))
    model = ps.RNN(2, head=ps.Categorical(), inference=inference, random_state=0).fit(["abab", "abba", "baab"])
    nats = -float(model.log_prob("abba", weights="frozen"))
    assert model.perplexity("abba", weights="frozen") == pytest.approx(np.exp(nats / 5))
    assert model.bits_per_character("abba", weights="frozen") == pytest.approx(nats / 5 / np.log(2))
    path = tmp_path / "text.txt"
    path.write_text("abba\n", encoding="utf-8")
    file = ps.TextFile(path, vocabulary=model.vocabulary_)
    assert model.score(file, weights="frozen") == pytest.approx(-nats / 5, rel=1e-6)
    assert model.score(file) != pytest.approx(-nats / 5, rel=1e-9)


@pytest.mark.parametrize(
    "ask",
    [
        lambda m, w: m.log_prob(NEW, weights=w),
        lambda m, w: m.predictive(NEW, weights=w),
        lambda m, w: m.forecast(2, weights=w),
        lambda m, w: m.filter(NEW, weights=w),
        lambda m, w: m.update(m.initial_state(), 1.0, weights=w),
        lambda m, w: m.predictive_at(m.initial_state(), weights=w),
        lambda m, w: m.sample(2, weights=w),
        lambda m, w: m.residuals(NEW, weights=w),
    ],
)
def test_another_word_raises(ask):
    model = ps.IID().fit(TRAIN)
    with pytest.raises(ParameterError, match='"adapt" or "frozen"'):
        ask(model, "free")


def test_ordinary_residuals_know_no_held_draws():
    model = ps.HMM(2, random_state=0).fit(TRAIN)
    with pytest.raises(ParameterError, match="ordinary"):
        model.residuals(NEW, "ordinary", weights="frozen")


def _after_training(members, new):
    """Log-weights of equal draws after new values, written out."""
    each = np.array([float(one.log_prob(new, history=ps.TRAINING)) for one in members])
    return each - np.logaddexp.reduce(each)


def test_a_history_that_begins_with_the_training_data_weighs_draws_by_the_rest(model, members, close):
    past = np.concatenate([TRAIN, BEYOND])
    weights = _after_training(members, BEYOND)
    each = np.array([one.log_prob_steps(NEW, history=past).values for one in members])
    joint = np.logaddexp.reduce(weights[:, None] + each.cumsum(1), 0)
    close(np.cumsum(model.log_prob_steps(NEW, history=past)), joint)
    forecast = model.forecast(3, history=past, n_paths=10)
    close(forecast.log_prob(NEW, joint=True), joint[-1])
    law = model.predictive(NEW, history=past)
    close(law.log_prob(NEW)[0], joint[0])
    state = model.filter(BEYOND, history=ps.TRAINING)
    close(model.forecast(3, state=state, n_paths=10).log_prob(NEW, joint=True), joint[-1])
    changed = np.concatenate([TRAIN[:1] + 0.01, past[1:]])
    assert abs(float(model.log_prob(NEW, history=changed)) - joint[-1]) > 1e-3


def test_the_gap_behind_such_a_history_is_missing_steps():
    days = np.arange(38)
    inference = ps.Collapsed(n_draws=4)
    model = ps.ARMA(order=(1, 0), inference=inference, random_state=0).fit(_dated(WALK[:30], days[:30]))
    past = _dated(WALK[:33], days[:33])
    new = _dated(WALK[35:38], days[35:38])
    members = _members(model)
    weights = _after_training(members, past[30:])
    each = np.array([float(one.log_prob(new, history=past)) for one in members])
    assert_allclose(model.log_prob(new, history=past), np.logaddexp.reduce(weights + each), rtol=1e-10)


def _dated(values, days):
    return pd.Series(values, index=pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D"))


def test_many_series_each_with_as_much_after_the_fit_as_there_is(tmp_path):
    data = {"a": WALK[:20], "b": WALK[20:45]}
    whole = {"a": WALK[:20], "b": WALK[20:50]}
    inference = ps.Ensemble(3, ps.MLE(training=ps.TrainingOptions(max_epochs=2)))
    model = ps.RNN(2, inference=inference, random_state=0).fit(data)
    model.save(tmp_path / "net")
    for one in (model, ps.load(tmp_path / "net")):
        steps = one.log_prob_steps({"b": NEW, "a": NEW}, history=whole)
        fresh = one.log_prob_steps({"b": NEW, "a": NEW}, history=ps.TRAINING)
        assert_allclose(steps.sel(sequence="a"), fresh.sel(sequence="a"), rtol=1e-5)
        after = one.log_prob_steps({"b": np.concatenate([WALK[45:50], NEW])}, history=ps.TRAINING)
        assert_allclose(steps.sel(sequence="b"), after.values.ravel()[5:], rtol=1e-5)


def test_texts_that_go_on_after_those_of_the_fit():
    inference = ps.MeanField(n_draws=3, training=ps.TrainingOptions(max_epochs=2))
    model = ps.RNN(2, head=ps.Categorical(), inference=inference, random_state=0).fit("abbabaab")
    state = model.filter(ps.sequences("ba", vocabulary=model.vocabulary_, end=False), history=ps.TRAINING)
    expected = model.predictive_at(state).probs().values.ravel()
    assert_allclose(model.forecast(1, history="abbabaabba").probs().values.ravel(), expected, rtol=1e-5)
    again = model.forecast(1, history="abbabaab").probs().values
    assert_allclose(again, model.forecast(1).probs().values, rtol=1e-6)
    texts = model.sample(4, 30, history="abbabaabba", random_state=0)
    assert texts == model.sample(
        4, 30, history=ps.sequences("abbabaabba", vocabulary=model.vocabulary_, end=False), random_state=0
    )


def test_covariates_of_the_rest_are_its_own():
    u = np.sin(np.arange(40.0))
    inference = ps.Collapsed(n_draws=4)
    model = ps.ARMA(order=(1, 0), inference=inference, random_state=0).fit(TRAIN, covariates=u[:30])
    past = ps.sequences(WALK[:34], covariates=u[:34])
    new = {"covariates": u[34:37]}
    weights = _after_training(_members(model), ps.sequences(WALK[30:34], covariates=u[30:34]))
    each = np.array([float(one.log_prob(WALK[34:37], history=past, **new)) for one in _members(model)])
    assert_allclose(model.log_prob(WALK[34:37], history=past, **new), np.logaddexp.reduce(weights + each), rtol=1e-10)
