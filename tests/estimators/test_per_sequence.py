"""One model a sequence: equal to fitting each by itself, and no failure loses the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import DataError, DataWarning, NotFittedError, ParameterError
from probseq.estimators.base import SequenceEstimator


def series() -> dict[str, pd.Series]:
    rng = np.random.default_rng(0)
    found = {}
    for name, n, start in (("a", 40, "2001-01-31"), ("b", 55, "1999-06-30"), ("c", 30, "2002-03-31")):
        values = 10 + np.convolve(rng.normal(size=n + 5), 0.5 ** np.arange(5), "valid")[:n]
        found[name] = pd.Series(values, index=pd.date_range(start, periods=n, freq="ME"))
    return found


@pytest.fixture(scope="module")
def panel() -> ps.PerSequence:
    return ps.PerSequence(ps.ARMA(order=(1, 0)), n_jobs=2).fit(series())


@pytest.fixture(scope="module")
def alone() -> dict[str, SequenceEstimator]:
    return {name: ps.ARMA(order=(1, 0)).fit(values) for name, values in series().items()}


def test_each_model_is_the_one_fitted_alone(panel: ps.PerSequence, alone: dict[str, SequenceEstimator]) -> None:
    assert len(panel) == 3 and list(panel.models_) == list("abc")
    for name, model in alone.items():
        assert panel[name].log_likelihood_ == model.log_likelihood_
        assert_allclose(panel.params_["ar"].sel(sequence=name).values, model.params_["ar"].values)
    assert panel.log_likelihood_ == pytest.approx(sum(model.log_likelihood_ for model in alone.values()))
    assert panel.n_parameters_ == 9
    assert list(panel.summary().index) == list("abc") and (panel.summary()["status"] == "converged").all()
    assert len(panel.failures_) == 0


def test_scores_go_by_name(panel: ps.PerSequence, alone: dict[str, SequenceEstimator]) -> None:
    data = series()
    mixed = {"c": data["c"], "a": data["a"]}
    found = panel.log_prob(mixed)
    assert list(found["sequence"].values) == ["c", "a"]
    for name in mixed:
        assert float(found.sel(sequence=name)) == pytest.approx(float(alone[name].log_prob(data[name])), rel=1e-12)
    steps = panel.log_prob_steps(mixed)
    assert_allclose(steps.sum("time").values, found.values, rtol=1e-12)
    assert_allclose(panel.score(mixed), found.values.sum() / 70, rtol=1e-12)
    first, rest = ({name: one.iloc[part] for name, one in data.items()} for part in (slice(20), slice(20, None)))
    ahead = panel.log_prob(rest, history=first)
    assert float(ahead.sel(sequence="b")) == pytest.approx(
        float(alone["b"].log_prob(rest["b"], history=first["b"])), rel=1e-12
    )


def test_forecasts_have_each_series_own_dates(panel: ps.PerSequence, alone: dict[str, SequenceEstimator]) -> None:
    joint = panel.forecast(4)
    assert joint.exact and joint.mean().sizes["sequence"] == 3
    for name, model in alone.items():
        own = model.forecast(4)
        for question in ("mean", "std", "median"):
            mine = getattr(joint, question)().sel(sequence=name).values
            assert_allclose(mine, getattr(own, question)().values, rtol=1e-12)
    low, high = (joint.quantile(q) for q in (0.05, 0.95))
    assert (low < high).all()
    held_out = {name: np.full(4, 10.0) for name in alone}
    total = joint.log_prob(held_out, joint=True)
    assert float(total.sel(sequence="b")) == pytest.approx(
        float(alone["b"].forecast(4).log_prob(np.full(4, 10.0), joint=True)), rel=1e-10
    )
    assert joint.sample(50, random_state=0).shape == (50, 3, 4)
    assert_allclose(panel.predict(horizon=4).values, joint.mean().values)
    few = panel.forecast(2, history={"b": series()["b"][:30]})
    assert_allclose(few.mean().values[0], alone["b"].forecast(2, history=series()["b"][:30]).mean().values)


def test_one_step_predictives_of_ragged_series(panel: ps.PerSequence, alone: dict[str, SequenceEstimator]) -> None:
    data = series()
    found = panel.predictive(data)
    for i, (name, model) in enumerate(alone.items()):
        own = model.predictive(data[name])
        n = len(data[name])
        assert_allclose(found.mean().values[i, :n], own.mean().values, rtol=1e-12)
        assert_allclose(found.crps(data).values[i, :n], own.crps(data[name]).values, rtol=1e-10)
        assert np.isnan(found.mean().values[i, n:]).all()
    assert_allclose(panel.predict(data).values, found.mean().values)


def test_other_families_keep_their_backends() -> None:
    counts = {"x": np.array([1, 0, 2, 3, 1, 0, 4, 2] * 4), "y": np.array([5, 6, 4, 7, 9, 6, 5, 4] * 3)}
    panel = ps.PerSequence(ps.HMM(1, emission=ps.Poisson()), n_jobs=1).fit(counts)
    forecast = panel.forecast(2)
    assert forecast.discrete
    assert_allclose(forecast.mean().values[:, 0], [counts["x"].mean(), counts["y"].mean()], rtol=1e-6)
    texts = ps.PerSequence(ps.MarkovChain()).fit({"one": "abab", "two": "bbba"})
    assert texts.forecast(1).probs().shape[:2] == (2, 1)


def test_failures_are_named_and_lose_nothing() -> None:
    data = {**series(), "flat": pd.Series(np.ones(20)), "short": pd.Series([1.0, 2.0])}
    with pytest.warns(DataWarning, match=r"2 of 5 series could not be fitted \(failures_\): 'flat', 'short'"):
        panel = ps.PerSequence(ps.ARMA(order=(1, 0))).fit(data)
    assert sorted(panel.failures_.index) == ["flat", "short"]
    assert "vary" in panel.failures_.loc["flat", "message"] and list(panel.models_) == list("abc")
    with pytest.raises(DataError, match="could not be fitted"):
        panel.log_prob({"flat": np.ones(5)})
    with pytest.raises(DataError, match="'new'"):
        panel.log_prob({"new": np.ones(5)})
    assert panel.forecast(2).mean().sizes["sequence"] == 3


def test_what_fits_say_is_collected() -> None:
    walk = {"walk": np.cumsum(np.random.default_rng(1).normal(size=200)) + 100}
    with pytest.warns(DataWarning, match="had something to say"):
        panel = ps.PerSequence(ps.ARMA(order=(2, 2))).fit({**walk, "noise": np.random.default_rng(2).normal(size=60)})
    assert len(panel.problems_) >= 1 and panel.problems_["message"].str.contains("root").any()


def test_saved_panels_come_back(tmp_path: object, panel: ps.PerSequence) -> None:
    path = f"{tmp_path}/panel.ps"
    panel.save(path)
    again = ps.load(path)
    assert isinstance(again, ps.PerSequence) and list(again.models_) == list("abc") and again.n_jobs == 2
    assert again.estimator.order == (1, 0)
    assert_allclose(again.forecast(3).mean().values, panel.forecast(3).mean().values)
    assert_allclose(again.log_prob(series()).values, panel.log_prob(series()).values)
    assert (again.forecast(3).mean()["timestamp"].values == panel.forecast(3).mean()["timestamp"].values).all()


def test_orders_of_their_own() -> None:
    panel = ps.PerSequence(ps.AutoARMA(max_p=1, max_q=1, d=0), n_jobs=1).fit(
        {k: v.to_numpy() for k, v in series().items()}
    )
    assert {panel[name].order_[1] for name in "abc"} == {0}
    assert panel.forecast(3).mean().shape == (3, 3)


def test_bad_use() -> None:
    with pytest.raises(NotFittedError):
        ps.PerSequence().forecast(2)
    with pytest.raises(ParameterError, match="estimator"):
        ps.PerSequence("arma").fit([1.0, 2.0])
    with pytest.raises(ParameterError, match="n_jobs"):
        ps.PerSequence(n_jobs=0).fit([1.0, 2.0])
    with pytest.raises(DataError, match="none of which could be fitted"):
        ps.PerSequence(ps.ARMA()).fit([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])


def test_random_families_draw_alike() -> None:
    torch.manual_seed(0)
    data = {"a": np.random.default_rng(3).normal(size=40), "b": np.random.default_rng(4).normal(size=50)}
    one, two = (ps.PerSequence(ps.HMM(2, random_state=0), n_jobs=jobs).fit(data) for jobs in (1, 2))
    assert_allclose(one.log_prob(data).values, two.log_prob(data).values, rtol=0)
