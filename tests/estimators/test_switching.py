"""Switching linear systems for users: regimes found, forecasts, what a comparison says of an estimate, bad input."""

import warnings

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.errors import ConvergenceWarning, DegenerateWarning, HistoryError, IncompatibleError, UnsupportedError


def series(t=160, seed=0):
    rng = np.random.default_rng(seed)
    regime = np.repeat([0, 1, 0, 1], t // 4)
    slope, noise = np.array([0.5, -0.5])[regime], np.array([0.1, 0.4])[regime]
    return 50.0 + np.cumsum(slope + noise * rng.normal(size=t)) + 0.1 * rng.normal(size=t), regime


@pytest.fixture(scope="module")
def fitted():
    x, _ = series()
    return ps.SwitchingLDS(2, 1, n_particles=30, inference=ps.VariationalEM(n_init=2, tol=1e-2), random_state=0).fit(x)


def test_regimes_are_found(fitted):
    x, regime = series()
    found = fitted.smooth(x, n_paths=50)
    assert found["probability"].dims == ("time", "regime") and found["mean"].dims == ("time", "state")
    np.testing.assert_allclose(found["probability"].sum("regime"), 1.0)
    guess = found["probability"].values.argmax(-1)
    assert max((guess == regime).mean(), (guess == 1 - regime).mean()) > 0.9
    filtered = fitted.filter_states(x)
    assert filtered["std"].shape == (160, 1) and bool((found["std"] > 0).all())
    paths = fitted.sample_regimes(x, 5, random_state=0)
    assert paths.dims == ("path", "time") and set(np.unique(paths)) <= {0, 1}
    np.testing.assert_array_equal(paths, fitted.sample_regimes(x, 5, random_state=0))


def test_drifts_and_the_bound(fitted):
    move = fitted.params_["drift"].values[:, 0] * fitted.params_["loading"].values.item()
    assert np.ptp(move) > 0.5
    assert fitted.draws_.objective <= fitted.log_likelihood_ + 0.5
    assert (np.diff(fitted.draws_.trace) > -1e-6).all()
    assert not fitted.model_.exact


def test_forecasts_mix_what_may_come(fitted):
    forecast = fitted.forecast(10, n_paths=300, random_state=0)
    spread = forecast.std()
    assert float(spread[9]) > float(spread[0]) and forecast.mean().sizes["time"] == 10
    assert np.isfinite(float(fitted.log_prob([51.0, np.nan, 52.0])))


def test_a_comparison_says_what_is_an_estimate(fitted):
    x, _ = series()
    walk = ps.RandomWalk(drift=True).fit(x[:120])
    table = ps.compare({"switching": fitted, "walk": walk}, x[120:], history=x[:120])
    assert table is not None and "switching" in str(table)


def test_panels_with_other_lengths():
    parts = [series(80, seed)[0] for seed in (1, 2)]
    parts[1] = parts[1][:50]
    quick = ps.VariationalEM(n_init=1, max_iter=200, tol=0.1)
    model = ps.SwitchingLDS(2, 1, "own", 10, ps.Standardize(), quick, random_state=0).fit(parts, weights=[1, 2])
    found = model.smooth(parts, n_paths=10)["probability"]
    assert found.dims == ("sequence", "time", "regime") and np.isnan(found.values[1, 50:]).all()


def test_what_is_not_taken():
    with pytest.raises(IncompatibleError, match="VariationalEM"):
        ps.SwitchingLDS(inference=ps.MLE())
    with pytest.raises(UnsupportedError, match="covariates"):
        ps.SwitchingLDS().fit(np.arange(20.0), covariates=np.ones((20, 1)))


def test_a_constant_is_named():
    with pytest.warns(DegenerateWarning, match="no noise left") as said:
        ps.SwitchingLDS(2, 1, n_particles=5, inference=ps.VariationalEM(n_init=1), random_state=0).fit(np.ones(30))
    assert all(issubclass(one.category, ps.errors.ProbseqWarning) for one in said)


@pytest.mark.parametrize("transform", [None, ps.Difference()])
def test_what_was_hidden_behind_a_history_is_that_of_both_together(transform):
    x, _ = series(40)
    quick = ps.VariationalEM(n_init=1, max_iter=20)
    model = ps.SwitchingLDS(2, 1, n_particles=30, transform=transform, inference=quick, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[:30])
    whole = pd.Series(x)
    for history in (whole[:30], ps.TRAINING):
        for found, both in (
            (model.smooth(whole[30:], 20, history=history), model.smooth(whole, 20)),
            (model.filter_states(whole[30:], history=history), model.filter_states(whole)),
        ):
            for name in ("probability", "mean", "std"):
                np.testing.assert_array_equal(found[name], both[name][30:])
                assert np.isfinite(found[name]).all()
        paths = model.sample_regimes(whole[30:], 7, history=history)
        np.testing.assert_array_equal(paths, model.sample_regimes(whole, 7)[:, 30:])
    if transform is None:
        gap = model.filter_states(whole[33:], history=whole[:30])
        holes = whole.copy()
        holes[30:33] = np.nan
        np.testing.assert_array_equal(gap["mean"], model.filter_states(holes)["mean"][33:])
        parts = [whole[30:35], whole[20:23]]
        pasts = [whole[:30], whole[:20]]
        found = model.smooth(parts, 20, history=pasts)["mean"]
        assert np.isfinite(found[1, :3]).all() and np.isnan(found[1, 3:]).all()
        np.testing.assert_array_equal(
            model.filter_states(parts, history=pasts)["mean"][1, :3], model.filter_states(whole)["mean"][20:23]
        )
    else:
        # Nothing is known of a difference from one value.
        for found in (model.smooth([1.0], 5), model.filter_states([1.0])):
            assert found["mean"].shape == (1, 1) and np.isnan(found["mean"]).all()
        assert (model.sample_regimes([1.0], 3) == -1).all()
    with pytest.raises(HistoryError):
        model.smooth(whole[20:], history=whole[:30])
