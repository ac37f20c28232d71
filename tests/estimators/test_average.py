"""Averages of models of different families, against mixtures by hand."""

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.errors import CovariateError, DataError, IncompatibleError, ParameterError, UnsupportedError
from probseq.evaluation import pseudo_bma_weights, stacking_weights
from probseq.testing.cases import ModelCase
from probseq.testing.estimators import check_same_fit
from probseq.testing.models import model_checks


def ar(n=120, phi=0.7, seed=0):
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = phi * x[t - 1] + rng.normal()
    return x


X = ar()
NEW = ar(30, seed=1)


def models():
    return {"ar": ps.ARMA((1, 0)), "hmm": ps.HMM(2, random_state=0), "iid": ps.IID()}


def scores_held_out(n_first=96):
    early = {name: model.fit(X[:n_first]) for name, model in models().items()}
    return np.stack([m.log_prob_steps(X[n_first:], history=X[:n_first]).values for m in early.values()], -1)


@pytest.fixture(scope="module")
def stacked():
    return ps.Average(models()).fit(X)


@pytest.fixture(scope="module")
def alone():
    return {name: model.fit(X) for name, model in models().items()}


def given_weights(model):
    return model.params_.weights.values


def test_weights_are_learnt_on_the_last_part_and_models_refitted(stacked, alone):
    held_out = scores_held_out()
    np.testing.assert_allclose(given_weights(stacked), stacking_weights(held_out), atol=1e-6)
    pseudo = ps.Average(models(), "pseudo_bma", random_state=0).fit(X)
    np.testing.assert_allclose(given_weights(pseudo), pseudo_bma_weights(held_out, random_state=0), atol=1e-6)
    online = ps.Average(models(), "online", forgetting=0.9).fit(X)
    total = (0.9 ** np.arange(24, 0, -1)) @ held_out
    np.testing.assert_allclose(given_weights(online), np.exp(total - np.logaddexp.reduce(total)), atol=1e-6)
    assert list(stacked.models_) == ["ar", "hmm", "iid"]
    assert stacked.params_.weights.sel(component="ar").item() == given_weights(stacked)[0]
    for name, model in alone.items():
        assert float(stacked.models_[name].log_prob(NEW)) == pytest.approx(float(model.log_prob(NEW)), rel=1e-6)
    assert stacked.n_parameters_ == 2 + sum(m.n_parameters_ for m in alone.values())


def test_fixed_weights_are_a_mixture_at_each_step(stacked, alone):
    w = given_weights(stacked)
    each = np.stack([m.log_prob_steps(NEW).values for m in alone.values()], -1)
    with np.errstate(divide="ignore"):
        expected = np.logaddexp.reduce(each + np.log(w), -1)
    np.testing.assert_allclose(stacked.log_prob_steps(NEW), expected, atol=1e-6)
    assert stacked.score(NEW) == pytest.approx(expected.mean(), abs=1e-6)
    after = np.stack([m.log_prob_steps(NEW, history=ps.TRAINING).values for m in alone.values()], -1)
    with np.errstate(divide="ignore"):
        expected = np.logaddexp.reduce(after + np.log(w), -1)
    np.testing.assert_allclose(stacked.log_prob_steps(NEW, history=ps.TRAINING), expected, atol=1e-6)
    law = stacked.predictive(NEW)
    cdf = sum(w[i] * m.predictive(NEW).cdf(NEW).values for i, m in enumerate(alone.values()))
    np.testing.assert_allclose(law.cdf(NEW), cdf, atol=1e-6)


@pytest.mark.parametrize("forgetting", [1.0, 0.8])
def test_online_weights_follow_the_scores(alone, forgetting):
    online = ps.Average(models(), "online", forgetting).fit(X)
    w = given_weights(online)
    each = np.stack([m.log_prob_steps(NEW).values for m in alone.values()], -1)
    expected, before = [], []
    for row in each:
        before.append(w)
        expected.append(np.log(w @ np.exp(row)))
        w = (w * np.exp(row)) ** forgetting
        w /= w.sum()
    np.testing.assert_allclose(online.log_prob_steps(NEW), expected, atol=1e-6)
    along = online.component_weights(NEW)
    assert along.dims == ("time", "component")
    np.testing.assert_allclose(along, before, atol=1e-6)
    state = online.filter(NEW)
    np.testing.assert_allclose(state.tree.inner.log_weights.exp().reshape(-1), w, atol=1e-6)


def test_a_path_keeps_its_model_only_if_weights_adapt():
    """Two models at -5 and 5: the model of a path is seen in every value."""
    parts = {
        "low": ps.IID().with_parameters(mean=[-5.0], scale=[1.0]),
        "high": ps.IID().with_parameters(mean=[5.0], scale=[1.0]),
    }
    data = np.random.default_rng(0).choice([-5.0, 5.0], 40)
    kept = ps.Average(parts, "online", 1.0, prefit=True).fit([0.0])
    redrawn = ps.Average(parts, [0.5, 0.5], prefit=True).fit(data)
    signs = np.sign(redrawn.forecast(6).sample(4000, random_state=0).values)
    assert abs(np.mean(signs[:, 0] != signs[:, 5]) - 0.5) < 0.04
    assert abs(np.mean((signs == 1).all(1)) - 0.5**6) < 0.01
    signs = np.sign(kept.sample(6, 200, random_state=0).values.reshape(200, 6))
    assert (signs == signs[:, :1]).all()
    assert 70 < (signs[:, 0] > 0).sum() < 130


def test_forecast_of_adapting_weights_is_the_mixture_of_forecasts(alone):
    online = ps.Average(models(), "online", 1.0).fit(X)
    w = given_weights(online)
    forecast = online.forecast(5)
    grid = np.linspace(-2, 2, 5)
    cdf = sum(w[i] * m.forecast(5).cdf(grid).values for i, m in enumerate(alone.values()))
    np.testing.assert_allclose(forecast.cdf(grid), cdf, atol=1e-6)
    total = [float(m.forecast(5).log_prob(NEW[:5], joint=True)) for m in alone.values()]
    expected = np.logaddexp.reduce(np.log(w) + total)
    assert float(forecast.log_prob(NEW[:5], joint=True)) == pytest.approx(expected, abs=1e-6)


def test_paths_of_fixed_weights_have_the_law_of_the_steps(stacked):
    forecast = stacked.forecast(2, n_paths=20_000, random_state=0)
    first = stacked.predictive([0.0], history=ps.TRAINING)
    for q in (-1.0, 0.0, 1.0):
        assert float(forecast.cdf([q, q])[0]) == pytest.approx(float(first.cdf([q])[0]), abs=0.015)
    joint = float(forecast.log_prob([0.3, -0.2], joint=True))
    assert joint == pytest.approx(float(stacked.log_prob([0.3, -0.2], history=ps.TRAINING)), abs=1e-9)


@pytest.mark.parametrize("weights", ["stacking", "pseudo_bma", "online"])
@pytest.mark.parametrize("truth", ["ar", "hmm"])
def test_weights_concentrate_on_the_true_model(truth, weights):
    made = {
        "ar": ps.ARMA((1, 0)).with_parameters(ar=[0.8], mean=0.0, scale=[1.0]),
        "hmm": ps.HMM(2).with_parameters(
            initial=[0.5, 0.5], transition=[[0.97, 0.03], [0.03, 0.97]], mean=[-2.0, 2.0], scale=[1.0, 1.0]
        ),
    }
    y = made[truth].sample(1500, random_state=3).values.ravel()
    average = ps.Average(made, weights, forgetting=1.0, prefit=True).fit(y)
    assert average.params_.weights.sel(component=truth) > 0.95


def test_models_that_condition_on_different_values_are_scored_where_all_score():
    mixed = ps.Average({"walk": ps.ARMA((0, 1, 1)), "ar": ps.ARMA((1, 0))}, "equal").fit(X)
    steps = mixed.log_prob_steps(NEW).values
    assert np.isnan(steps).tolist() == [True] + [False] * 29
    each = [m.log_prob_steps(NEW).values[1:] for m in mixed.models_.values()]
    np.testing.assert_allclose(steps[1:], np.logaddexp(*each) - np.log(2), rtol=1e-9)


def test_it_stands_in_a_comparison_and_in_a_file(stacked, alone, tmp_path):
    table = ps.compare({"average": stacked, **alone}, NEW, history=X).table
    assert np.isfinite(table["nats"]).all()
    stacked.save(tmp_path / "average.probseq")
    loaded = ps.load(tmp_path / "average.probseq")
    np.testing.assert_array_equal(loaded.log_prob_steps(NEW), stacked.log_prob_steps(NEW))
    same = {"n_paths": 50, "random_state": 0}
    np.testing.assert_array_equal(loaded.forecast(2, **same).mean(), stacked.forecast(2, **same).mean())
    for name, model in stacked.models_.items():
        check_same_fit(loaded.models_[name], model)
        np.testing.assert_array_equal(loaded.models_[name].forecast(2).mean(), model.forecast(2).mean())


def test_networks_and_panels_and_inputs():
    rng = np.random.default_rng(5)
    u = rng.normal(size=(80, 1))
    y = pd.Series(2 * u[:, 0] + ar(80, seed=6))
    both = ps.Average({"arma": ps.ARMA((1, 0)), "iid": ps.IID()}).fit(y, covariates=u)
    assert both.params_.weights.sel(component="arma") > 0.9
    held = ps.sequences(y[:20].to_numpy(), covariates=u[:20])
    told = ps.Average({"arma": ps.ARMA((1, 0)), "iid": ps.IID()}).fit(y, covariates=u, validation=held)
    assert told.params_.weights.equals(both.params_.weights)
    future = rng.normal(size=(3, 1))
    assert both.forecast(3, covariates=future).mean().shape == (3,)
    with pytest.raises(CovariateError):
        ps.Average({"iid": ps.IID(), "hmm": ps.HMM(2, random_state=0)}).fit(y, covariates=u)
    quick = ps.MLE(training=ps.TrainingOptions(max_epochs=2))
    panel = [ar(n, seed=n) for n in (30, 40, 1)]
    mixed = ps.Average({"net": ps.LSTM(2, inference=quick, random_state=0), "iid": ps.IID()}, "equal").fit(panel)
    steps = np.stack([m.log_prob_steps(panel).values for m in mixed.models_.values()])
    seen = np.arange(40) < np.array([[30], [40], [1]])
    expected = np.where(seen, np.logaddexp(*np.nan_to_num(steps)) - np.log(2), 0.0).sum(-1)
    np.testing.assert_allclose(mixed.log_prob(panel), expected, atol=1e-4)
    learnt = ps.Average({"a": ps.IID(), "b": ps.ARMA((1, 0))}).fit(panel)
    assert learnt.draws_.n_held_out == 6 + 8


def test_tokens_are_averaged():
    text = "abracadabra abracadabra abracadabra abracadabra "
    both = ps.Average([ps.MarkovChain(1), ps.MarkovChain(2)], "equal").fit(text)
    each = [m.log_prob_steps(text).values for m in both.models_.values()]
    np.testing.assert_allclose(both.log_prob_steps(text), np.logaddexp(*each) - np.log(2), rtol=1e-9)
    assert list(both.models_) == ["MarkovChain 1", "MarkovChain 2"]
    assert isinstance(both.sample(20, random_state=0), str)


@pytest.fixture(scope="module", params=["stacking", "online"])
def of_two(request):
    return ps.Average({"ar": ps.ARMA((1, 0)), "hmm": ps.HMM(2, random_state=0)}, request.param, 1.0).fit(X)


@pytest.mark.parametrize("name", [name for name, _ in model_checks(("check_missing_values",))])
def test_fitted_averages_keep_the_laws_of_a_model(name, of_two):
    dict(model_checks())[name](ModelCase(of_two.model_, {}))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ps.Average({}), ParameterError),
        (lambda: ps.Average({"a": 3}), ParameterError),
        (lambda: ps.Average({"a": ps.IID}), ParameterError),
        (lambda: ps.Average(models(), "loudest"), ParameterError),
        (lambda: ps.Average(models(), [1.0, 2.0]), ParameterError),
        (lambda: ps.Average(models(), {"ar": 1.0}), ParameterError),
        (lambda: ps.Average(models(), "online", forgetting=0.0), ParameterError),
        (lambda: ps.Average({"n": ps.IID(), "p": ps.IID(ps.Poisson())}, "equal"), (IncompatibleError, DataError)),
        (lambda: ps.Average({"n": ps.IID(), "q": ps.LSTM(head=ps.Quantiles())}), IncompatibleError),
    ],
)
def test_bad_arguments(make, error):
    with pytest.raises(error):
        make().fit(np.abs(np.round(X)))


def test_bad_questions(stacked):
    with pytest.raises(UnsupportedError):
        stacked.with_parameters(weights=[1.0])
    with pytest.raises(DataError):
        ps.Average(models()).fit([[1.0], [2.0]])


@pytest.fixture(scope="module")
def drawn():
    """Models with several draws each."""
    return {
        name: ps.ARMA(order, inference=ps.Collapsed(n_draws=4), random_state=0).fit(X)
        for name, order in (("one", (1, 0)), ("two", (0, 1)))
    }


@pytest.mark.parametrize("given", [[0.3, 0.7], "online"])
def test_frozen_weights_are_those_of_the_draws_of_each_model(drawn, given):
    average = ps.Average(drawn, given, 0.9, prefit=True).fit(X)
    for weights in ("adapt", "frozen"):
        each = np.stack([m.log_prob_steps(NEW, weights=weights).values for m in drawn.values()], -1)
        w, expected = given_weights(average), []
        for row in each:
            expected.append(np.log(w @ np.exp(row)))
            if given == "online":
                w = (w * np.exp(row)) ** 0.9
                w /= w.sum()
        found = average.log_prob_steps(NEW, weights=weights)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(average.predictive(NEW, weights=weights).log_prob(NEW), expected, rtol=1e-10)
        after = [m.log_prob_steps(NEW[:1], history=X[:50], weights=weights).values for m in drawn.values()]
        step = average.log_prob_steps(NEW[:1], history=X[:50], weights=weights)
        if given != "online":
            np.testing.assert_allclose(step, np.log(given_weights(average) @ np.exp(after)), rtol=1e-12)
    adapt, frozen = (average.forecast(1, history=X[:50], weights=w).mean().values for w in ("adapt", "frozen"))
    assert adapt != frozen
    if given != "online":
        means = [m.forecast(1, history=X[:50], weights="frozen").mean().values for m in drawn.values()]
        np.testing.assert_allclose(frozen, given_weights(average) @ means, rtol=1e-12)


def test_averages_of_averages_hold_all_draws(drawn):
    inner = ps.Average(drawn, "equal", prefit=True).fit(X)
    outer = ps.Average({"inner": inner, "iid": ps.IID().fit(X)}, [0.5, 0.5], prefit=True).fit(X)
    each = [m.log_prob_steps(NEW, weights="frozen").values for m in (inner, outer.models_["iid"])]
    expected = np.logaddexp(*each) - np.log(2)
    np.testing.assert_allclose(outer.log_prob_steps(NEW, weights="frozen"), expected, rtol=1e-12)
    state = outer._held(outer.filter(NEW).tree, "frozen")
    again = outer._held(outer.filter(X[:5]).tree, "frozen")
    inside = [outer.model_._unpack(one).components[0].inner.components[0].log_weights for one in (state, again)]
    np.testing.assert_array_equal(*inside)
    np.testing.assert_allclose(inside[0].exp(), 0.25, rtol=1e-12)


def test_known_weights_are_no_free_parameters(alone):
    own = sum(m.n_parameters_ for m in alone.values())
    for weights, more in (("equal", 0), ([1.0, 2.0, 1.0], 0), ("stacking", 2)):
        assert ps.Average(alone, weights, prefit=True).fit(X).n_parameters_ == own + more


def test_fitted_models_read_the_data_alike():
    long, short = (ps.MarkovChain(order).fit("abcabcabab") for order in (1, 2))
    both = ps.Average({"long": long, "short": short}, "equal", prefit=True).fit("bcbc")
    each = [m.log_prob_steps("abc").values for m in (long, short)]
    np.testing.assert_allclose(both.log_prob_steps("abc"), np.logaddexp(*each) - np.log(2), rtol=1e-12)
    other = ps.MarkovChain().fit("xyzxyz")
    with pytest.raises(IncompatibleError, match="vocabularies"):
        ps.Average({"a": long, "x": other}, "equal", prefit=True).fit("abc")
    still = ps.IID().fit(X)
    with pytest.raises(DataError, match="2 features"):
        ps.Average({"a": still, "b": still}, "equal", prefit=True).fit(np.ones((9, 2)))
