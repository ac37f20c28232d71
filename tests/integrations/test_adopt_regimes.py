"""Markov-switching results of statsmodels, adopted: the same densities, probabilities of regimes and one-step means."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.regime_switching.markov_autoregression import MarkovAutoregression
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

import probseq as ps
from probseq.errors import NotFittedError, UnsupportedError

RNG = np.random.default_rng(0)
N = 60
STATE = np.arange(N) // 10 % 2
QUARTERS = pd.date_range("2000-01-01", periods=N, freq="QS")
Y = pd.Series(np.where(STATE, 3.0, -1.0) + RNG.normal(size=N) * np.where(STATE, 0.5, 1.0), QUARTERS, name="growth")
X = pd.DataFrame(RNG.normal(size=(N, 1)), QUARTERS, columns=["rate"])
AUTO, PLAIN = MarkovAutoregression, MarkovRegression

MODELS = {
    "order 1": (AUTO, {"order": 1}),
    "common ar": (AUTO, {"order": 2, "switching_ar": False}),
    "variances of order 1": (AUTO, {"order": 1, "switching_variance": True, "trend": "n"}),
    "variances of order 2": (AUTO, {"order": 2, "switching_variance": True}),
    "Hamilton": (AUTO, {"order": 4, "switching_ar": False}),
    "three regimes": (AUTO, {"order": 2, "k_regimes": 3, "switching_ar": [True, False]}),
    "common mean": (AUTO, {"order": 1, "switching_trend": False}),
    "levels": (PLAIN, {}),
    "levels and variances": (PLAIN, {"switching_variance": True}),
    "regression": (PLAIN, {"exog": X}),
    "common slope": (PLAIN, {"exog": X, "switching_exog": False, "switching_variance": True}),
}


def found(name, data=Y):
    """Results at known parameters, among them unequal probabilities of staying."""
    kind, options = MODELS[name]
    model = kind(data, **{"k_regimes": 2} | options)
    rng = np.random.default_rng(1)
    ranges = {"p": (0.1, 0.45), "const": (-2.0, 3.0), "sigma2": (0.5, 2.0), "ar": (-0.4, 0.4)}
    params = [rng.uniform(*ranges.get(one.partition("[")[0].partition(".")[0], (-1, 1))) for one in model.param_names]
    return model.smooth(np.array(params))


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    results = found(request.param)
    return results, ps.from_statsmodels(results)


def test_densities_regimes_and_predictions_are_equal(pair):
    theirs, ours = pair
    order, data = theirs.model.order, ours.training_
    steps = ours.log_prob_steps(data).values
    assert np.isnan(steps[:order]).all() and len(steps) == N
    assert_allclose(steps[order:], theirs.llf_obs, rtol=1e-10)
    assert_allclose(ours.log_likelihood_, theirs.llf, rtol=1e-12)
    assert_allclose(ours.aic, theirs.aic, rtol=1e-12)
    assert_allclose(ours.smooth(data)[order:], theirs.smoothed_marginal_probabilities, atol=1e-12)
    assert_allclose(ours.filter_states(data)[order:], theirs.filtered_marginal_probabilities, atol=1e-12)
    assert_allclose(ours.predict(data)[order:], theirs.predict(probabilities="predicted"), atol=1e-12)
    for name, value in zip(theirs.model.param_names, theirs.params, strict=True):
        assert float(ours.params_[name]) == value


def test_names_dates_files_and_forecasts(pair, tmp_path):
    theirs, ours = pair
    inputs = None
    if ours.covariate_names_:
        inputs = np.array([[0.5], [-0.5]])  # statsmodels forgets the names
    law = ours.forecast(2, covariates=inputs, random_state=0)
    assert_array_equal(law.mean().coords["time"], pd.date_range(QUARTERS[-1], periods=3, freq="QS")[1:])
    ours.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    along = None if inputs is None else X.values
    assert_array_equal(again.smooth(Y, covariates=along), ours.smooth(Y, covariates=along))
    assert_array_equal(again.forecast(2, covariates=inputs, random_state=0).mean(), law.mean())
    assert ours.training_.variables == ("growth",) and len(ours.training_.index[0]) == N


def test_the_first_forecast_is_the_mixture_over_the_regimes():
    theirs = found("order 1")
    ours = ps.from_statsmodels(theirs)
    _, _, a, b, variance, first, second = theirs.params
    mean, phi, moves = (a, b), (first, second), theirs.regime_transition[:, :, 0]
    now = theirs.filtered_marginal_probabilities.values[-1]
    expected = sum(
        now[i] * moves[j, i] * (mean[j] + phi[j] * (Y.iloc[-1] - mean[i]))
        for i, j in itertools.product(range(2), range(2))
    )
    one = ours.forecast(1)
    assert_allclose(one.mean().item(), expected, rtol=1e-12)
    assert one.var().item() > variance


def test_the_most_probable_path():
    theirs = found("variances of order 1", Y.iloc[:10])
    ours = ps.from_statsmodels(theirs)
    mean, phi = np.zeros(2), theirs.params.values[theirs.model.parameters["autoregressive"]]
    variance, moves = theirs.params.values[theirs.model.parameters["variance"]], theirs.regime_transition[:, :, 0]
    start, y = theirs.initial_probabilities, Y.values
    best = max(
        itertools.product(range(2), repeat=10),
        key=lambda s: (
            np.log(start[s[0]])
            + sum(
                np.log(moves[s[t], s[t - 1]])
                - 0.5 * np.log(variance[s[t]])
                - 0.5 * (y[t] - mean[s[t]] - phi[s[t]] * (y[t - 1] - mean[s[t - 1]])) ** 2 / variance[s[t]]
                for t in range(1, 10)
            )
        ),
    )
    assert_array_equal(ours.decode(Y.iloc[:10]), best)


def test_a_known_start_and_values_without_dates():
    model = MarkovAutoregression(Y.values, 2, 2)
    model.initialize_known(np.array([0.9, 0.1]))
    theirs = model.smooth(np.array([0.8, 0.3, -1.0, 3.0, 1.0, 0.1, 0.2, -0.2, 0.1]))
    ours = ps.from_statsmodels(theirs)
    assert_allclose(ours.log_likelihood_, theirs.llf, rtol=1e-12)
    assert_allclose(ours.smooth(Y.values)[2:], theirs.smoothed_marginal_probabilities, atol=1e-12)
    assert_array_equal(ours.forecast(2, random_state=0).mean().coords["time"], [N, N + 1])
    dated = MarkovAutoregression(Y.values, 2, 1, dates=QUARTERS).smooth(theirs.params[:7])
    assert_array_equal(ps.from_statsmodels(dated).training_.index[0], QUARTERS)


def test_a_fit_and_new_data():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MarkovAutoregression(Y, 2, 1, switching_ar=False).fit(disp=False, maxiter=20)
    ours = ps.from_statsmodels(theirs)
    assert_allclose(ours.log_likelihood_, theirs.llf, rtol=1e-12)
    other = Y * 0.7
    wanted = MarkovAutoregression(other, 2, 1, switching_ar=False).smooth(theirs.params)
    assert_allclose(ours.log_prob(other).item(), wanted.llf, rtol=1e-12)
    split = ours.log_prob(other.iloc[:20]) + ours.log_prob(other.iloc[20:], history=other.iloc[:20])
    assert_allclose(float(split), wanted.llf, rtol=1e-12)


def test_refusals():
    with pytest.raises(NotFittedError, match="fit"):
        ps.from_statsmodels(MarkovRegression(Y, 2))
    for options, word in (({"exog": X}, "regressors"), ({"trend": "ct"}, "trend"), ({"exog_tvtp": X}, "exog_tvtp")):
        model = MarkovAutoregression(Y, 2, 1, **options)
        if word == "exog_tvtp":
            model.initialize_known(np.array([0.5, 0.5]))
        with pytest.raises(UnsupportedError, match=word):
            ps.from_statsmodels(model.smooth(np.full(model.k_params, 0.3)))
    ours = ps.from_statsmodels(found("levels"))
    for call in (lambda: ours.fit(Y), lambda: ours.with_parameters()):
        with pytest.raises(UnsupportedError, match="known"):
            call()
