"""Missing values of networks with latent variables, against dense normal laws."""

from __future__ import annotations

import numpy as np
import pytest

import probseq as ps
from probseq.errors import ParameterError, UnsupportedError
from tests.estimators.test_latent_network import C, D, R, dense, given, linear

pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")
QUICK = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=2))


@pytest.fixture(scope="module")
def gaps():
    _, _, mean, cov = dense()
    x = np.random.default_rng(4).multivariate_normal(mean, cov)
    return np.where(np.isin(np.arange(len(x)), [0, 4, 5, 11]), np.nan, x)


def test_missing_values_of_a_linear_system_are_those_of_its_normal_law(gaps):
    model, missing = linear(), np.isnan(gaps)
    mean, std = given(gaps)
    expected, spread = C * mean + D, np.sqrt(C**2 * std**2 + R**2)
    found = model.impute(gaps, n_paths=2000)
    np.testing.assert_array_equal(found.values[~missing], gaps[~missing])
    np.testing.assert_allclose(found.values[missing], expected[missing], atol=0.15)
    draws = model.impute(gaps, 2000)
    assert draws.dims == ("path", "time")
    np.testing.assert_array_equal(draws.values[:, ~missing], np.tile(gaps[~missing], (2000, 1)))
    np.testing.assert_allclose(draws.values[:, missing].mean(0), expected[missing], atol=0.2)
    np.testing.assert_allclose(draws.values[:, missing].std(0), spread[missing], rtol=0.1)
    # Neighbouring gaps are drawn together, not each for itself.
    _, _, _, cov = dense()
    seen = ~missing
    left = cov[4, 5] - cov[4, seen] @ np.linalg.inv(cov[np.ix_(seen, seen)]) @ cov[seen, 5]
    assert np.cov(draws.values[:, 4], draws.values[:, 5])[0, 1] == pytest.approx(left, abs=0.15)


def test_an_answer_is_the_same_for_the_same_seed_and_whole_where_nothing_is_missing(gaps):
    model = linear()
    one, two = (model.impute(gaps, 3, random_state=5) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    whole = np.nan_to_num(gaps)
    np.testing.assert_array_equal(model.impute(whole), whole)


@pytest.mark.parametrize("family", [ps.DeepMarkov, ps.VRNN, ps.SRNN])
def test_every_family_fills_keys_and_tokens_and_scaled_numbers(family):
    rng = np.random.default_rng(0)
    settings = {"n_latent": 2, "hidden_size": 4, "inference": QUICK, "random_state": 0}
    rolls = [(rng.random((length, 3)) < 0.5).astype(float) for length in (6, 9)]
    music = family(head=ps.Bernoulli(), **settings).fit(rolls)
    holes = [roll.copy() for roll in rolls]
    holes[0][2, 1] = np.nan
    holes[1][:, 0] = np.nan
    found = music.impute(holes)
    assert found.dims == ("sequence", "time", "variable")
    for i, (hole, roll) in enumerate(zip(holes, rolls, strict=True)):
        one, missing = found.values[i, : len(roll)], np.isnan(hole)
        assert ((one[missing] > 0) & (one[missing] < 1)).all()
        np.testing.assert_array_equal(one[~missing], roll[~missing])
    assert np.isin(music.impute(holes, 2).values[:, 1, :, 0], (0, 1)).all()
    heights = 170 + 10 * rng.standard_normal(20)
    heights[3] = np.nan
    people = family(**settings).fit(heights)
    assert 120 < float(people.impute(heights)[3]) < 220
    members = ps.Ensemble(2, QUICK)
    words = family(head=ps.Categorical(), **settings | {"inference": members}).fit(["abab", "ba"])
    gaps = ps.sequences([["a", None, "a", "b"], ["b"]], vocabulary=words.vocabulary_)
    assert words.impute(gaps).values[0, 1] in ("a", "b")
    assert set(np.ravel(words.impute(gaps, 5)[:, 0, 1])) <= {"a", "b", "<end>"}


def test_where_parts_of_steps_are_missing_particles_come_from_the_prior():
    roll = (np.random.default_rng(2).random((12, 4)) < 0.5).astype(float)
    model = ps.DeepMarkov(n_latent=2, hidden_size=4, head=ps.Bernoulli(), inference=QUICK, random_state=0).fit(roll)
    part, whole = roll.copy(), roll.copy()
    part[3:, 2:] = np.nan
    whole[3:6] = np.nan
    trained = [model.impute(x) for x in (part, whole)]
    model._inside().proposal = "prior"
    blind = [model.impute(x) for x in (part, whole)]
    np.testing.assert_array_equal(trained[0], blind[0])
    assert (trained[1] != blind[1]).any()


def test_wrong_uses_are_named(gaps):
    model = linear()
    for options, name in (({"n_draws": 0}, "n_draws"), ({"n_draws": True}, "n_draws"), ({"n_paths": 0}, "n_paths")):
        with pytest.raises(ParameterError, match=name):
            model.impute(gaps, **options)
    level = np.random.default_rng(0).standard_normal(20).cumsum()
    memory = ps.VRNN(n_latent=2, hidden_size=4, inference=QUICK, random_state=0).fit(level)
    with pytest.raises(UnsupportedError, match="after a history"):
        memory.impute(gaps, history=np.arange(3.0))
    steps = ps.DeepMarkov(n_latent=2, hidden_size=4, transform=ps.Difference(), inference=QUICK, random_state=0)
    with pytest.raises(UnsupportedError, match="Difference"):
        steps.fit(level).impute(level)


def test_a_history_is_heard(gaps):
    model = linear()
    past, later = gaps[:6], np.concatenate([[np.nan], gaps[7:]])
    mean, _ = given(np.concatenate([past, later]))
    found = model.impute(later, n_paths=2000, history=past)
    assert float(found[0]) == pytest.approx(C * mean[6] + D, abs=0.15)
