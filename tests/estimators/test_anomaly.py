"""Anomalies: thresholds by hand, the rate of false alarms, which step and which variable."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.utils.estimator_checks import parametrize_with_checks

import probseq as ps
from probseq.errors import DataError, DataWarning, NotFittedError, ParameterError, ProbseqWarning


@parametrize_with_checks(
    [ps.AnomalyDetector(ps.IID(), false_alarm_rate=0.5, outlier_labels=True)],
    expected_failed_checks=lambda estimator: {"check_fit1d": "a 1-D array is one sequence of one variable"},
)
def test_scikit_learn_conventions(estimator, check):
    with warnings.catch_warnings():
        # Constant columns collapse, and y is said to be ignored.
        warnings.simplefilter("ignore", ProbseqWarning)
        check(estimator)


def normals(n, k=1, seed=0):
    return np.random.default_rng(seed).normal(size=(n, k))


def test_the_threshold_is_learnt_from_what_the_model_was_not_fitted_to():
    x = normals(500)
    found = ps.AnomalyDetector(ps.IID(), 0.01).fit(x)
    model = ps.IID().fit(x[:350])
    assert found.threshold_ == model.surprise_threshold(x[350:], 0.01, history=x[:350])
    assert_allclose(found.estimator_.params_["mean"], model.params_["mean"])
    new = normals(50, seed=1) * 3
    assert_allclose(found.score_samples(new), model.log_prob_steps(new), rtol=1e-12)
    assert_allclose(found.decision_function(new), model.log_prob_steps(new) + found.threshold_, rtol=1e-12)
    assert_array_equal(found.predict(new), model.anomalies(new, model.surprise(x[350:]), rate=0.01).anomaly)
    assert found.predict(new).values.any()


def test_calibration_by_sequences_and_by_data_of_ones_own():
    x = [normals(40, seed=i) for i in range(10)]
    found = ps.AnomalyDetector(ps.IID(), 0.05).fit(x)
    chosen = [1, 5, 8]
    model = ps.IID().fit([one for i, one in enumerate(x) if i not in chosen])
    assert found.threshold_ == model.surprise_threshold([x[i] for i in chosen], 0.05)
    other = normals(200, seed=99)
    found = ps.AnomalyDetector(ps.IID(), 0.05).fit(x, calibration=other)
    assert found.threshold_ == ps.IID().fit(x).surprise_threshold(other, 0.05)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_rate_of_false_alarms_in_simulated_series_is_that_asked_for(rate):
    """299 calibration steps make (n + 1) rate whole, so that the expected rate is exact for independent steps.

    Given the calibration the rate is Beta(3, 297) or Beta(30, 270); the mean over 60 series has the standard error
    below, and their steps add the binomial one.
    """
    rng = np.random.default_rng(0)
    shares, m = [], 200
    for _ in range(60):
        # Tails that the model does not have: its threshold is right all the same.
        found = ps.AnomalyDetector(ps.IID(), rate).fit(rng.standard_t(3, 100), calibration=rng.standard_t(3, 299))
        shares.append(float(found.predict(rng.standard_t(3, m)).mean()))
    spread = stats.beta(300 * rate, 300 - 300 * rate).var() + rate * (1 - rate) / m
    assert abs(np.mean(shares) - rate) < 3 * np.sqrt(spread / 60)


def test_false_alarms_in_a_series_with_memory():
    """The model is right, so that its surprises are independent: binomial error around the rate."""
    walk = ps.ARMA(order=(1, 0)).with_parameters(ar=[0.9], mean=[3.0], scale=[2.0])
    y = walk.sample(9000, random_state=4).values
    found = ps.AnomalyDetector(ps.ARMA(order=(1, 0)), 0.02, calibration_share=0.6).fit(y[:5000])
    flags = found.predict(y[5000:], history=ps.TRAINING)
    assert flags.time.values[0] == 0 or len(flags) == 4000
    assert abs(float(flags.mean()) - 0.02) < 3 * np.sqrt(0.02 * 0.98 * (1 / 4000 + 1 / 3000))


def test_which_step_and_which_variable():
    scale = np.array([1.0, 1.0, 50.0])
    x = normals(600, 3) * scale
    frame = pd.DataFrame(x, columns=["flow", "heat", "load"])
    new = frame.iloc[:8].copy()
    new.loc[2, "heat"] = 9.0
    new.loc[5, "load"] = -600.0
    new.loc[6] = np.nan
    new.loc[7, ["flow", "heat"]] = np.nan
    found = ps.AnomalyDetector(ps.IID()).fit(frame)
    said = found.anomalies(new)
    assert_array_equal(said.anomaly, [False, False, True, False, False, True, False, False])
    assert said.most_surprising.values[[2, 5, 6, 7]].tolist() == ["heat", "load", "", "load"]
    alone = ps.IID().fit(x[:420])
    assert_allclose(said.variable_surprise, alone.surprise(new.to_numpy(), per="variable"), rtol=1e-12)
    known = alone.surprise(x[420:], per="variable").values
    by_hand = (1 + (known[None] >= said.variable_surprise.values[:, None]).sum(1)) / (len(known) + 1)
    assert_allclose(said.variable_p_value, np.where(np.isnan(new), np.nan, by_hand))
    assert said.variable_p_value.dims == ("time", "variable")


def test_both_ways_to_ask_agree_also_where_a_rate_is_not_exact():
    """299 values and a rate of 1 - 0.9: a p-value of 0.1, which is not below the rate as floats are."""
    found = ps.AnomalyDetector(ps.IID(), 1 - 0.9).fit(normals(50), calibration=normals(299, seed=1))
    new = found.estimator_.params_["mean"].item() + np.linspace(1.2, 3.0, 400)
    p = found.anomalies(new).p_value
    assert (np.abs(p - 0.1) < 1e-12).any()
    assert_array_equal(found.predict(new), found.anomalies(new).anomaly)


def test_missing_values_are_never_flagged():
    found = ps.AnomalyDetector(ps.IID(), 0.9).fit(normals(100))
    x = np.full(30, np.nan)
    assert not found.predict(x).any() and np.isnan(found.decision_function(x)).all()
    labels = ps.AnomalyDetector(ps.IID(), 0.9, outlier_labels=True).fit(normals(100)).predict([np.nan, 40.0])
    assert labels.values.tolist() == [1, -1]
    ragged = [np.array([0.0, 50.0]), np.array([50.0])]
    assert_array_equal(ps.AnomalyDetector(ps.IID()).fit(normals(500)).predict(ragged), [[False, True], [True, False]])


def test_what_ordinary_data_think_impossible_is_no_alarm_where_they_are_so_often():
    def parts(n):
        return {"X": "ab" * 20, "calibration": "aab" * n}

    often = ps.AnomalyDetector(ps.MarkovChain(smoothing=0.0), 0.2).fit(**parts(20))
    assert often.threshold_ == np.inf and not often.predict("aab").any()
    assert (often.decision_function("aab") >= 0).all() and not often.anomalies("aab").anomaly.any()
    assert often.anomalies("aab").most_surprising.values.tolist() == ["x0"] * 4


def test_history_and_other_kinds_of_data():
    y = np.cumsum(normals(400)[:, 0])
    found = ps.AnomalyDetector(ps.RandomWalk(), 0.02).fit(y)
    after = found.predict([y[-1], y[-1] + 20.0], history=ps.TRAINING)
    assert after.values.tolist() == [False, True]
    assert_array_equal(after, found.predict([y[-1], y[-1] + 20.0], history=y))
    assert not found.predict([y[-1]]).any(), "a first value is conditioned on"
    text = ps.AnomalyDetector(ps.MarkovChain(), 0.05).fit(["ab" * 5] * 40)
    flags = text.predict("ababbab").values.tolist()
    assert flags == [False, False, False, False, True, False, False, False], "the end of a text is a step too"


def test_what_cannot_be_calibrated():
    with pytest.raises(DataError, match="at least 99"):
        ps.AnomalyDetector(ps.IID()).fit(normals(300))
    with pytest.raises(DataError, match="too short"):
        ps.AnomalyDetector(ps.IID(), 0.5).fit([1.0])
    with pytest.raises(NotFittedError):
        ps.AnomalyDetector().predict([1.0])
    with pytest.warns(DataWarning, match="y is ignored"):
        ps.AnomalyDetector(ps.IID(), 0.5).fit(normals(50), np.zeros(50))


@pytest.mark.parametrize(
    "arguments",
    [
        {"false_alarm_rate": 0.0},
        {"false_alarm_rate": 1},
        {"false_alarm_rate": "1 %"},
        {"calibration_share": 1.0},
        {"calibration_share": None},
        {"outlier_labels": "yes"},
        {"model": ps.IID},
        {"model": "IID"},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ParameterError, match=next(iter(arguments))) as error:
        ps.AnomalyDetector(**{"model": ps.IID(), **arguments}).fit(normals(400))
    assert error.value.remedy


def test_answers_have_no_unit_and_scores_have_nats():
    x = np.random.default_rng(0).normal(size=300)
    for labels in (False, True):
        detector = ps.AnomalyDetector(ps.IID(), false_alarm_rate=0.05, outlier_labels=labels).fit(x)
        assert detector.predict(x[:3]).attrs == {}
        assert detector.score_samples(x[:3]).attrs == {"unit": "nats"}
