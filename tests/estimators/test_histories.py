"""What came before: texts that go on, training data under another name, and pasts that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.errors import DataError, DataTypeError, HistoryError, ParameterError, ShapeError, SupportError

WALK = np.random.default_rng(0).standard_normal(80).cumsum()


@pytest.fixture(scope="module")
def walk() -> ps.RandomWalk:
    return ps.RandomWalk().fit(WALK)


@pytest.fixture(scope="module")
def chain() -> ps.MarkovChain:
    return ps.MarkovChain(order=1, smoothing=0.5).fit("the quick brown fox jumps over the lazy dog " * 10)


def test_a_text_that_goes_on_has_not_ended(chain):
    # After q the text has u ten times; 0.5 is added to it and to all 28 tokens.
    expected = 10.5 / (10 + 0.5 * len(chain.vocabulary_))
    probs = chain.forecast(1, history="the q").probs().sel(category="u")
    assert probs.item() == pytest.approx(expected)
    assert chain.predict(horizon=2, history="the q").values.tolist() == ["u", "i"]
    whole, start = (float(chain.log_prob_steps(text).sum()) for text in ("the quick", "the q"))
    ended = float(chain.log_prob_steps("the q")[-1])
    assert float(chain.log_prob("uick", history="the q")) == pytest.approx(whole - (start - ended))


def test_a_fitted_text_goes_on_where_it_stopped(chain):
    text = "the quick brown fox jumps over the lazy dog " * 10
    onwards, again = chain.forecast(2), chain.forecast(2, history=text)
    np.testing.assert_array_equal(onwards.probs().values, again.probs().values)
    assert onwards.probs()["time"].values.tolist() == [len(text), len(text) + 1]
    # 90 spaces, 19 of them before a t; 0.5 is added to it and to all 28 tokens.
    assert onwards.probs().sel(category="t").values[0] == pytest.approx(19.5 / (90 + 14))


def test_training_data_are_recognised_without_their_covariates():
    days = pd.Series(WALK, index=pd.date_range("2020", periods=80))
    u = np.arange(80.0)
    model = ps.ARMA(order=(1, 0)).fit(days[:60], covariates=u[:60])
    by_name = model.log_prob(days[60:], history=ps.TRAINING, covariates=u[60:])
    assert float(model.log_prob(days[60:], history=days[:60], covariates=u[60:])) == float(by_name)
    walk = ps.RandomWalk().fit(days[:60])
    table = ps.compare({"arma": model, "rw": walk}, days[60:], history=days[:60], covariates=u[60:]).table
    assert table.loc["arma", "nats"] == pytest.approx(float(by_name) / 20)
    with_inputs = ps.sequences(days[60:], covariates=u[60:])
    again = ps.compare({"arma": model, "rw": walk}, with_inputs, history=days[:60]).table
    assert again["nats"].tolist() == table["nats"].tolist()


@pytest.mark.parametrize("past", [[5.0, 6.0, 0.0], [5.0, -3.0]])
def test_a_past_outside_the_support_is_no_past(past):
    model = ps.RandomWalk(transform=ps.Log()).fit(np.exp(WALK / 10))
    with pytest.raises(SupportError):
        model.forecast(2, history=past)
    with pytest.raises(SupportError):
        model.update(model.initial_state(), past[-1])


@pytest.mark.parametrize("text", ["hello", ["ab", "cde"]])
def test_a_model_of_numbers_reads_no_text(walk, text):
    for ask in (walk.score, lambda history: walk.forecast(2, history=history)):
        with pytest.raises(DataTypeError):
            ask(text)


def test_a_past_in_other_steps_does_not_join():
    days = pd.Series(WALK, index=pd.date_range("2020", periods=80))
    model = ps.RandomWalk().fit(days[:60])
    with pytest.raises(HistoryError, match="7D"):
        model.log_prob(days[60::7], history=ps.TRAINING)


@pytest.mark.parametrize("dated", [60, 80])
def test_values_without_stamps_follow_directly(dated):
    days = pd.Series(WALK, index=pd.date_range("2020", periods=80))
    past, new = (days[:60], WALK[60:]) if dated == 60 else (WALK[:60], days[60:])
    model = ps.RandomWalk().fit(past)
    expected = float(ps.RandomWalk().fit(WALK[:60]).log_prob(WALK[60:], history=WALK[:60]))
    assert float(model.log_prob(new, history=ps.TRAINING)) == expected
    assert float(model.log_prob(new, history=past[1:])) == expected


def test_a_past_that_was_read_is_checked_too(walk):
    with pytest.raises(ShapeError):
        walk.forecast(2, history=ps.sequences(np.c_[WALK, WALK]))


def test_states_behind_differences_want_whole_histories():
    model = ps.HMM(2, transform=ps.Difference(2), random_state=0).fit(WALK)
    with pytest.raises(DataError, match="lag=2"):
        model.smooth([WALK[10:13], WALK[20:32]], history=[WALK[:1], WALK[:9]])


def test_an_impossible_token_is_seen_all_the_same():
    model = ps.MarkovChain(order=2, smoothing=0).fit([0, 0, 1, 1, 0, 1])
    steps = model.log_prob_steps([0, 0, 1, 0, 1, 1]).values
    assert np.isneginf(steps[3])
    assert not np.isnan(steps).any()


def test_a_model_that_gave_zero_probability_is_last_without_an_error():
    fits = {"sure": ps.MarkovChain(2, smoothing=0), "smooth": ps.MarkovChain()}
    for model in fits.values():
        model.fit([0, 0, 1, 1, 0, 1])
    table = ps.compare(fits, [1, 1, 1, 0, 0, 0]).table
    assert table.index.tolist() == ["smooth", "sure"]
    assert np.isneginf(table.loc["sure", "difference"])
    assert np.isnan(table.loc["sure", "se"])
    assert "probability zero" in table.loc["sure", "note"]


def test_ragged_categories_are_padded_by_no_category():
    tokens = ps.MarkovChain().fit(["abc", "ab"]).predict(["abc", "a"])
    assert tokens.values[1].tolist()[2:] == ["", ""]
    codes = ps.MarkovChain().fit([[0, 1, 2], [1]]).predict([[0, 1, 2], [1]])
    assert codes.values[1].tolist()[1:] == [-1, -1]


def test_parameters_are_copies(walk):
    before = walk.score(WALK)
    walk.params_["scale"].values[:] = 50.0
    assert walk.score(WALK) == before


def test_lengths_do_not_pass_for_y(walk):
    with pytest.raises(DataError, match="lengths="):
        walk.score(WALK, [40, 40])


def test_one_path_of_covariates_serves_every_sample():
    u = np.arange(60.0)
    model = ps.ARMA(order=(1, 0)).fit(WALK[:60] + u, covariates=u)
    assert model.sample(5, 3, covariates=u[:5]).shape == (3, 5)


def test_states_belong_to_their_model(walk):
    other = ps.IID().fit(WALK)
    for state in (None, 1.0, other.initial_state()):
        with pytest.raises(ParameterError, match="state"):
            walk.update(state, 1.0)
    with pytest.raises(ParameterError):
        walk.forecast(2, state=walk.initial_state(), history=WALK)


def test_numpy_integers_are_integers():
    assert ps.SeasonalNaive(period=np.int64(4)).fit(WALK).score(WALK) == ps.SeasonalNaive(4).fit(WALK).score(WALK)
    assert np.isfinite(ps.MarkovChain(order=np.int64(1)).fit([0, 1, 1]).score([0, 1]))


@pytest.mark.parametrize("held_out", [np.c_[WALK, WALK], "garbage"])
def test_validation_data_are_checked(held_out):
    with pytest.raises(DataError):
        ps.HMM(random_state=0).fit(WALK, validation=held_out)


@pytest.mark.parametrize("fitted_to", [WALK, pd.Series(WALK, pd.date_range("2020", periods=80))])
def test_training_values_at_other_times_are_continued_there(fitted_to, tmp_path):
    model = ps.RandomWalk().fit(fitted_to)
    model.save(tmp_path / "walk")
    later = pd.Series(WALK, index=pd.date_range("2024-01-01", periods=80))
    for one in (model, ps.load(tmp_path / "walk")):
        forecast = one.forecast(2, history=later)
        np.testing.assert_array_equal(forecast.mean()["time"], pd.date_range("2024-03-21", periods=2))
        np.testing.assert_array_equal(forecast.std(), model.forecast(2).std())
        assert one.forecast(2, history=WALK).mean().equals(model.forecast(2).mean())
        new = pd.Series([0.0, 1.0], index=pd.date_range("2024-03-22", periods=2))
        assert one.log_prob(new, history=later).item() == pytest.approx(
            one.log_prob([np.nan, 0, 1], history=WALK).item()
        )
