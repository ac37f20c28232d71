"""The family that made the data comes first, by a lead that was to be expected, and gets the weight of an average;
equal models are not told apart.

The rivals, and the network also where it is the true family, are fitted once, so that twenty runs cost little;
``benchmarks/compare.py`` fits every model in every run.
"""

import warnings

import numpy as np
import pytest
from scipy import signal, special

import probseq as ps
from probseq.evaluation import hac_mean, pseudo_bma_weights, stacking_weights

N_TRAIN, N_NET, N_TEST, N_LONG, N_RUNS = 400, 1500, 400, 3000, 20


def arma(n, seed):
    e = np.random.default_rng(seed).normal(size=n + 101)
    x = np.zeros(n + 101)
    for t in range(1, n + 101):
        x[t] = 0.85 * x[t - 1] + e[t] + 0.4 * e[t - 1]
    return x[101:]


def hmm(n, seed):
    rng = np.random.default_rng(seed)
    states = (rng.integers(2) + np.cumsum(rng.random(n) > 0.95)) % 2
    return np.where(states == 1, 1.5, -1.5) + rng.normal(size=n)


def recurrence(n, seed):
    e = 0.3 * np.random.default_rng(seed).normal(size=n + 100)
    x = np.zeros(n + 100)
    for t in range(1, n + 100):
        x[t] = 2 * np.cos(1.5 * x[t - 1]) + e[t]
    return x[100:]


PROCESSES = {"arma": arma, "hmm": hmm, "lstm": recurrence}


def family(name):
    if name == "arma":
        return ps.ARMA((1, 1))
    if name == "hmm":
        return ps.HMM(2, inference=ps.EM(n_init=2), random_state=0)
    training = ps.TrainingOptions(
        max_epochs=40, learning_rate=0.02, window=50, context=5, batch_size=8, validation_fraction=0.0
    )
    return ps.LSTM(8, inference=ps.MLE(training=training), random_state=0)


@pytest.mark.parametrize("true", PROCESSES)
def test_the_true_family_is_first_and_leads_as_expected(true):
    simulate = PROCESSES[true]
    first_data, long = simulate(N_NET if true == "lstm" else N_TRAIN, 999), simulate(N_LONG, 998)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.errors.ConvergenceWarning)
        models = {name: family(name).fit(first_data) for name in PROCESSES}
    steps = {name: model.log_prob_steps(long).values for name, model in models.items()}
    expected = {}
    for name in models.keys() - {true}:
        gap = hac_mean(steps[true] - steps[name])
        expected[name] = gap.mean / (gap.standard_error * np.sqrt(N_LONG / N_TEST))
    first, above, weights = 0, dict.fromkeys(expected, 0), []
    for seed in range(N_RUNS):
        y = simulate(N_TRAIN + N_TEST, seed)
        if true != "lstm":
            models[true] = family(true).fit(y[:N_TRAIN])
        found = ps.compare(models, y[N_TRAIN:], history=y[:N_TRAIN])
        first += found.best == true
        weights.append(found.table.loc[true, ["weight", "pseudo_bma"]].astype(float))
        for name in above:
            gap = found.difference(true, name)
            above[name] += gap.mean > 2 * gap.standard_error
    assert first >= 18
    # Learnt on 200 values of each run, and on all of the long series; stacking also mends what the true family's fit
    # has not found exactly.
    assert np.mean(weights, 0).min() > 0.9
    table, column = np.stack(list(steps.values()), -1), list(steps).index(true)
    assert stacking_weights(table)[column] > 0.8
    assert pseudo_bma_weights(table)[column] > 0.999
    for name, ratio in expected.items():
        # The ratio scatters by one about its expectation, of which the long series knows some tenths.
        assert abs(above[name] - N_RUNS * special.ndtr(ratio - 2)) <= 7, (name, ratio, above[name])


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_two_equally_good_models_are_told_apart_as_often_as_chance_allows(phi):
    low, high = (ps.IID().with_parameters(mean=[side], scale=[1.0]) for side in (-0.3, 0.3))
    above = 0
    for seed in range(200):
        y = signal.lfilter([1], [1, -phi], np.random.default_rng(seed).normal(size=150))[30:]
        found = ps.compare({"low": low, "high": high}, y)
        gap = found.difference("low", "high")
        above += abs(gap.mean) > 2 * gap.standard_error
    assert 4 <= above <= 20, above
