"""Futures that are known in part, and other futures of the covariates, for models whose forecasts are paths."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import ApproximationWarning, ParameterError, SupportError, UnsupportedError

PHI, SCALE = 0.8, 0.5


def walk():
    """A network that is an autoregression, and the ARMA model that it is."""
    rng = np.random.default_rng(0)
    y = np.zeros(80)
    for t in range(1, 80):
        y[t] = PHI * y[t - 1] + SCALE * rng.normal()
    quick = ps.MLE(training=ps.TrainingOptions(max_epochs=1))
    net = ps.RNN(2, inference=quick, standardize=False, random_state=0).fit(y)
    weights = net.model_.params["weights"]
    weights.zero_()
    inner = net.model_.model
    inner.piece(net.model_.params, "head.direct")[..., 0, 0] = PHI
    scale = float(net.model_.predict_next({}, net.model_.initial_state({}, 1)).stddev)
    arma = ps.ARMA((1, 0), trend="n").with_parameters(ar=[PHI], scale=[scale])
    return net, arma, y


def test_known_values_of_a_network_that_is_an_autoregression():
    net, arma, y = walk()
    scenario = [np.nan, 1.0, np.nan, np.nan, -0.5]
    exact = arma.forecast(5, history=y).given(scenario)
    paths = net.forecast(5, history=y).given(scenario, n_paths=4000)
    spread = exact.std().values
    assert_allclose(paths.mean(), exact.mean(), atol=0.06 * spread.max())
    assert_allclose(paths.std(), spread, atol=0.06 * spread.max())
    assert_array_equal(paths.sample(10)[:, 1], 1.0)
    assert "worth" in paths.method and not paths.exact
    with pytest.raises(UnsupportedError, match="before marginal"):
        net.forecast(5, history=y).aggregate("sum").given([1.0])


def test_what_is_known_later_joins_what_was_known():
    net, arma, y = walk()
    early, late = [np.nan, 1.0, np.nan, np.nan, np.nan], [np.nan, np.nan, np.nan, np.nan, -0.5]
    first = net.forecast(5, history=y).given(early, n_paths=50)
    both = first.given(late, n_paths=4000, random_state=1)
    at_once = net.forecast(5, history=y).given([np.nan, 1.0, np.nan, np.nan, -0.5], n_paths=4000, random_state=1)
    assert_array_equal(both.sample(20, random_state=0), at_once.sample(20, random_state=0))
    exact = arma.forecast(5, history=y).given(early).given(late)
    assert_allclose(both.mean(), exact.mean(), atol=0.06 * exact.std().values.max())
    assert_allclose(both.given(early, n_paths=4000).mean(), exact.mean(), atol=0.06 * exact.std().values.max())
    for scenario in (both, exact):
        with pytest.raises(ParameterError, match="known to be 1"):
            scenario.given([np.nan, 2.0, np.nan, np.nan, np.nan])


def test_known_dates_join_by_their_stamps():
    net, _, y = walk()
    days = pd.date_range("2024-01-01", periods=85)
    forecast = net.forecast(5, history=pd.Series(y[:79], days[:79]))
    one, other = pd.Series([0.5], days[81:82]), pd.Series([-0.2], days[83:84])
    both = forecast.given(one, n_paths=20).given(other, n_paths=20)
    assert_array_equal(both.sample(3).sel(time=days[81]), 0.5)
    assert_array_equal(both.sample(3).sel(time=days[83]), -0.2)


def test_known_tokens_leave_a_forecast_of_tokens():
    chain = ps.MarkovChain(1, smoothing=0.5).fit(["abab", "abba", "baab"])
    forecast = chain.forecast(3, history="ab")
    known = forecast.given([None, "b", None], n_paths=4000)
    assert_array_equal(known.probs().sel(category="b")[1], 1.0)
    # p(x_1 | x_2 = b) by Bayes' rule; behind an end comes a fresh start.
    into_b = [
        chain.forecast(1, history=np.array(["a", "b", c], dtype=object)).probs().values.ravel()[1]
        for c in ("a", "b", "<end>")
    ]
    joint = chain.forecast(1, history="ab").probs().values.ravel() * into_b
    assert_allclose(known.probs()[0], joint / joint.sum(), atol=0.03)


def test_known_values_weigh_the_states_of_a_markov_model():
    """Two states that stay: a known late value tells the state, and with it the values before."""
    model = ps.HMM(2).with_parameters(
        initial=[0.5, 0.5], transition=[[0.99, 0.01], [0.01, 0.99]], mean=[[0.0], [5.0]], scale=[[1.0], [1.0]]
    )
    known = model.forecast(4, history=None).given([np.nan, np.nan, np.nan, 5.2], n_paths=3000)
    # The filtered odds are those of the density of 5.2; then three steps back through the chain.
    assert_allclose(known.mean()[2], 5.0 * 0.99, atol=0.15)
    assert_allclose(known.mean()[0], 5.0 * (0.99**3 + 3 * 0.99 * 0.01**2), atol=0.2)


def test_an_unlikely_scenario_warns_and_an_impossible_one_raises():
    net, _, y = walk()
    with pytest.warns(ApproximationWarning, match="worth"):
        net.forecast(3, history=y).given([np.nan, np.nan, 30.0], n_paths=20)
    counts = ps.HMM(2, ps.Poisson()).with_parameters(
        initial=[0.5, 0.5], transition=np.full((2, 2), 0.5), rate=[[1.0], [4.0]]
    )
    with pytest.raises(SupportError):
        counts.forecast(2, history=None).given([np.nan, 0.5])


def test_the_same_noise_under_other_covariates():
    """The same ``random_state`` gives both futures the same draws and noise: their difference is the effect alone."""
    rng = np.random.default_rng(1)
    u = rng.normal(size=(120, 1))
    y = 2.0 * u[:, 0] + 0.5 * rng.normal(size=120)
    training = ps.TrainingOptions(max_epochs=200, learning_rate=2e-2)
    inference = ps.MeanField(n_draws=4, training=training)
    net = ps.LSTM(3, inference=inference, random_state=0).fit(y, covariates=u)

    def future(level, seed=3):
        path = net.forecast(6, covariates=np.full((6, 1), level), n_paths=200, random_state=seed)
        return path._backend.paths[:, 0, :, 0]

    effect = future(1.0) - future(0.0)
    mixed = future(1.0) - future(0.0, seed=4)
    assert effect[:, 0].mean() == pytest.approx(2.0, abs=0.5)
    assert effect[:, 0].std() < 0.5 * mixed[:, 0].std()
    assert_array_equal(future(1.0), future(1.0))
    one, other = (
        net.forecast(6, covariates=np.full((6, 1), level), n_paths=200, random_state=3).sample(500, random_state=1)
        for level in (1.0, 0.0)
    )
    assert_allclose((one - other).mean(), effect.mean(), atol=4 * effect.std() / 500**0.5)
    assert float((one - other).std()) < 1.5 * effect.std()
