"""Models behind data that they were fitted to a part of: what follows, for one sequence, many and texts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.data.sequences import sequences
from probseq.estimators.held_part import HeldValues, behind, hold_out, trajectories


def ar(n, seed):
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = 0.7 * x[t - 1] + rng.normal()
    return x


@pytest.fixture(scope="module")
def draws():
    return ps.ARMA((1, 0), inference=ps.Collapsed(n_draws=5), random_state=0)


def cut(model, data, share=0.3):
    data = sequences(data)
    first, rest, rows = hold_out(data, share)
    fitted = model.__sklearn_clone__().fit(first)
    return fitted, rest, rows, behind(fitted, data, rows)


def test_one_sequence_goes_on_as_behind_a_history(draws):
    y, new = ar(80, 0), ar(4, 1)
    fitted, rest, rows, whole = cut(draws, y)
    assert rows is None and rest.lengths.tolist() == [24]
    assert_allclose(whole.log_prob_steps(new, history=ps.TRAINING), fitted.log_prob_steps(new, history=y), rtol=1e-12)
    assert float(whole.log_prob(new, history=ps.TRAINING)) == float(whole.log_prob(new, history=y))
    assert_allclose(whole.forecast(2).mean(), fitted.forecast(2, history=y).mean(), rtol=1e-12)


def test_of_many_sequences_those_of_the_fit_do_not_weigh_its_draws(draws):
    panel = {name: ar(20 + 5 * i, i) for i, name in enumerate("abcd")}
    new = {name: ar(3, 9) for name in "abcd"}
    fitted, rest, rows, whole = cut(draws, panel, 0.5)
    assert rest.names == ("b", "d") and rows.tolist() == [0, 2]
    found = whole.log_prob(new, history=ps.TRAINING)
    kept = {name: new[name] for name in "ac"}
    assert_allclose(found.sel(sequence=["a", "c"]), fitted.log_prob(kept, history=ps.TRAINING), rtol=1e-12)
    for name in "bd":
        alone = fitted.log_prob({name: new[name]}, history={name: panel[name]})
        assert_allclose(found.sel(sequence=name), float(alone.squeeze()), rtol=1e-12)
    bands = ps.Conformal(draws, calibration_share=0.5).fit(panel)
    assert_allclose(bands.forecast(1).median(), bands.forecast(1, history=panel).median(), rtol=1e-12)
    assert list(bands.forecast(1).median()["sequence"].values) == list("abcd")


def test_a_text_that_has_ended_goes_on_before_its_end():
    texts = ["abab", "ba", "abba", "b"]
    fitted, rest, rows, whole = cut(ps.MarkovChain(2), texts, 0.5)
    known = fitted.log_prob(["ab"] * 4, history=texts)
    assert_allclose(whole.log_prob(["ab"] * 4, history=ps.TRAINING), known, rtol=1e-12)
    one, _, _, after = cut(ps.MarkovChain(2), "abababba", 0.1)
    assert_allclose(after.log_prob("ab", history=ps.TRAINING), one.log_prob("ab", history="abababba"), rtol=1e-12)


def test_forecasts_from_every_held_step():
    y = ar(60, 2)
    fitted, rest, _, _ = cut(ps.ARMA((1, 0)), y)
    ahead = trajectories(fitted, HeldValues.of(rest, True), 2)
    assert ahead.values.shape == (18, 2, 1) and np.isnan(ahead.values[-1, 1, 0])
    for i in (0, 7, 17):
        origin = 42 + i
        assert_allclose(ahead.values[i, :, 0][: 60 - origin], y[origin : origin + 2])
        assert_allclose(ahead.backend.mean()[i, :, 0], fitted.forecast(2, history=y[:origin]).mean(), rtol=1e-9)
