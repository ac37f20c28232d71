"""partial_fit: learning from data as they come."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import HistoryError, IncompatibleError, UnsupportedError


def switching(t, seed=0):
    rng = np.random.default_rng(seed)
    z, states = 0, np.empty(t, dtype=int)
    for i in range(t):
        z = z if rng.random() < 0.93 else 1 - z
        states[i] = z
    return 3.0 * states + rng.normal(size=t)


def test_a_stream_in_pieces_comes_within_a_percent_of_the_whole():
    x = switching(1200)
    model = ps.HMM(2, inference=ps.EM(n_init=2), random_state=0)
    for start in range(0, len(x), 150):
        assert model.partial_fit(x[start : start + 150]) is model
    whole = ps.HMM(2, inference=ps.EM(n_init=2), random_state=0).fit(x)
    assert float(model.log_prob(x)) > whole.log_likelihood_ - 0.01 * abs(whole.log_likelihood_)
    assert model.status_ == "streaming" and model.n_scored_ == len(x)
    assert_allclose(model.log_likelihood_, whole.log_likelihood_, rtol=0.01)


def test_one_value_a_call_learns_transitions():
    x = switching(500)
    model = ps.HMM(2, inference=ps.EM(n_init=2), random_state=0).fit(x[:200])
    before = model.params_["transition"].values.copy()
    for value in x[200:]:
        model.partial_fit([value])
    assert model.online_.averages.n_steps == pytest.approx(500)
    # Every value but the first after the fit counts the move that led to it: all but one are counted.
    assert_allclose(float(model.online_.averages.counts.sum()), 1.0, atol=0.02)
    whole = ps.HMM(2, inference=ps.EM(n_init=2), random_state=0).fit(x)
    assert float(model.log_prob(x)) > whole.log_likelihood_ - 0.01 * abs(whole.log_likelihood_)
    assert np.abs(model.params_["transition"] - before).max() > 1e-3


def test_forecasts_go_on_from_the_new_end_and_states_carry_over():
    x = switching(400)
    index = pd.date_range("2020-01-01", periods=400, freq="D")
    series = pd.Series(x, index)
    model = ps.HMM(2, random_state=0).fit(series[:300]).partial_fit(series[300:])
    forecast = model.forecast(2)
    assert pd.Timestamp(forecast.mean()["time"].values[0]) == pd.Timestamp("2021-02-04")
    from_all = model.forecast(2, history=series)
    assert_allclose(forecast.mean(), from_all.mean(), rtol=1e-6)
    assert_allclose(
        model.score(series[300:], history=series[:300]) * 100, model.log_prob(series[300:], history=series[:300])
    )


def test_gaps_are_missing_steps_and_overlaps_raise():
    x = pd.Series(switching(300), pd.date_range("2020-01-01", periods=300, freq="D"))
    model = ps.HMM(2, random_state=0).fit(x[:200])
    model.partial_fit(x[220:])
    assert model.n_scored_ == 280
    with pytest.raises(HistoryError):
        model.partial_fit(x[100:])
    again = ps.HMM(2, random_state=0).fit(x[:200]).partial_fit(x[:50], history=None)
    assert again.n_scored_ == 250


def test_data_without_stamps_go_on_counting():
    x = switching(210)
    model = ps.HMM(2, random_state=0).fit(x[:100]).partial_fit(x[100:200])
    assert list(model.forecast(2).mean()["time"].values) == [200, 201]
    for value in x[200:203]:
        model.partial_fit([value])
    assert list(model.forecast(2).mean()["time"].values) == [203, 204]
    several = ps.HMM(2, random_state=0).fit([x[:60], x[60:110]]).partial_fit([x[110:120], x[120:150]])
    assert several.forecast(1).mean()["timestamp"].values.tolist() == [[70], [80]]
    dated = pd.Series(x[:100], pd.date_range("2020-01-01", periods=100, freq="D"))
    follow = ps.HMM(2, random_state=0).fit(dated).partial_fit(x[100:110])
    assert pd.Timestamp(follow.forecast(1).mean()["time"].values[0]) == pd.Timestamp("2020-04-20")


def test_a_missing_value_does_not_end_a_stream():
    x = switching(103)
    model = ps.HMM(2, random_state=0).fit(x[:100])
    before = model.log_likelihood_
    model.partial_fit([np.nan])
    assert model.n_scored_ == 100 and model.log_likelihood_ == pytest.approx(before, rel=1e-12)
    assert all(np.isfinite(value).all() for value in model.params_.values())
    model.partial_fit(x[101:])
    assert model.n_scored_ == 102 and list(model.forecast(1).mean()["time"].values) == [103]


def test_the_likelihood_of_the_paths_grows_with_the_data():
    x = switching(200)
    model = ps.HMM(2, random_state=0).fit(x[:100])
    first = model.path_log_prob_
    chain, batch, state, _ = model._problem(ps.sequences(x[100:]), ps.TRAINING)
    model.partial_fit(x[100:])
    params = model.model_.params
    both = float(chain.decode(params, batch, state).log_prob)
    assert_allclose(model.path_log_prob_ - first, both - float(chain.log_prob(params, batch, state)), rtol=1e-10)
    assert model.path_log_prob_ < first
    assert_allclose(model.icl, model.bic - 2 * model.path_log_prob_)


def test_many_sequences_and_transforms():
    rng = np.random.default_rng(0)
    data = [np.exp(switching(80, seed=i)) for i in range(6)]
    model = ps.HMM(2, transform=ps.Log(), random_state=0).fit(data[:3]).partial_fit(data[3:], history=None)
    whole = ps.HMM(2, transform=ps.Log(), random_state=0).fit(data)
    total = float(model.log_prob(data).sum())
    assert total > whole.log_likelihood_ - 0.01 * abs(whole.log_likelihood_)
    assert model.forecast(2, history=np.exp(rng.normal(size=5))).mean().notnull().all()


def test_known_parameters_and_loaded_models_learn_on(tmp_path):
    x = switching(300)
    known = ps.HMM(2).with_parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.1, 0.9]], mean=[[0.2], [2.5]], scale=[[1.0], [1.0]]
    )
    known.partial_fit(x)
    assert float(known.log_prob(x)) > float(ps.IID().fit(x).log_prob(x))
    model = ps.HMM(2, random_state=0).fit(x[:200])
    model.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model").partial_fit(x[200:])
    direct = model.partial_fit(x[200:])
    assert_allclose(loaded.params_["mean"], direct.params_["mean"], rtol=1e-9)


def test_what_cannot_learn_on_says_so():
    x = switching(60)
    averaged = ps.HMM(2, inference=ps.Laplace(n_draws=3), random_state=0).fit(x)
    with pytest.raises(UnsupportedError, match="3 parameter draws"):
        averaged.partial_fit(x)
    driven = ps.HMM(2, transitions=ps.CovariateTransitions(), random_state=0).fit(x, covariates=x[:, None])
    with pytest.raises(IncompatibleError, match="online EM"):
        driven.partial_fit(x, covariates=x[:, None])


def test_a_new_fit_forgets_what_was_learnt_on():
    x = switching(200)
    model = ps.HMM(2, inference=ps.EM(n_init=1), random_state=0).fit(x[:100]).partial_fit(x[100:])
    assert model.online_.averages.n_steps == pytest.approx(200)
    model.fit(x[:50])
    assert not hasattr(model, "online_")


@pytest.mark.filterwarnings("ignore::probseq.errors.IndexWarning")
@pytest.mark.parametrize("kind", ["texts", "uneven dates"])
def test_values_without_stamps_follow_uneven_ones(kind, tmp_path):
    days = np.cumsum(np.random.default_rng(0).integers(1, 9, 40))
    stamps = (
        [f"day {i}" for i in range(40)] if kind == "texts" else pd.Timestamp("2024-01-01") + pd.to_timedelta(days, "D")
    )
    x = switching(60)
    model = ps.HMM(2, inference=ps.EM(n_init=1), random_state=0).fit(pd.Series(x[:40], stamps))
    model.save(tmp_path / "model")
    for one in (model, ps.load(tmp_path / "model")):
        for start in (40, 50):
            one.partial_fit(x[start : start + 10])
            assert one.forecast(2).mean()["time"].values.tolist() == [start + 10, start + 11]
    assert float(one.log_prob([1.0], history=ps.TRAINING)) == float(model.log_prob([1.0], history=ps.TRAINING))
