"""Does `compare` find the family that made the data, and is its standard error right?

Run as ``python benchmarks/compare.py``; ``--smoke`` takes seconds. Three processes are simulated: an ARMA(1, 1) with
0.85 and 0.4; a hidden Markov model with states at -1.5 and 1.5, standard deviation 1, staying with 0.95; and the
nonlinear recurrence x_t = 2 cos(1.5 x_{t-1}) + 0.3 e_t. For each seed an ARMA, an HMM and an LSTM are fitted to the
first part and compared on the second. The gap of a family to the true one, in nats a value, is computed beforehand on a
long series; over its standard error at the length of a test it says how often a ratio above two is to be expected,
which stands beside how often it came.

The null: two models of equal expected score, of which one should lead by over two standard errors in 2 to 10 %
of the runs. With independent differences, and with differences that are autocorrelated.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PROBSEQ_NUM_THREADS", "1")

import numpy as np
import torch
from _record import Record, add_options
from scipy import stats

import probseq as ps
from probseq.evaluation import hac_mean

Simulator = Callable[[int, int], np.ndarray]


def arma(n: int, seed: int) -> np.ndarray:
    e = np.random.default_rng(seed).normal(size=n + 101)
    x = np.zeros(n + 101)
    for t in range(1, n + 101):
        x[t] = 0.85 * x[t - 1] + e[t] + 0.4 * e[t - 1]
    return x[101:]


def hmm(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    switched = rng.random(n) > 0.95
    states = (rng.integers(2) + np.cumsum(switched)) % 2
    return np.where(states == 1, 1.5, -1.5) + rng.normal(size=n)


def recurrence(n: int, seed: int) -> np.ndarray:
    e = 0.3 * np.random.default_rng(seed).normal(size=n + 100)
    x = np.zeros(n + 100)
    for t in range(1, n + 100):
        x[t] = 2 * np.cos(1.5 * x[t - 1]) + e[t]
    return x[100:]


# With how many values each is fitted: a network finds a map in 1500, and an ARMA or HMM its few parameters in 400.
PROCESSES: dict[str, tuple[Simulator, int]] = {"ARMA": (arma, 400), "HMM": (hmm, 400), "LSTM": (recurrence, 1500)}


def fitted(train: np.ndarray, smoke: bool) -> dict[str, ps.ARMA | ps.HMM | ps.LSTM]:
    training = ps.TrainingOptions(
        max_epochs=2 if smoke else 60,
        learning_rate=0.02,
        window=50,
        context=5,
        batch_size=8,
        validation_fraction=0.0,
    )
    models = {
        "ARMA": ps.ARMA((1, 1)),
        "HMM": ps.HMM(2, random_state=0),
        "LSTM": ps.LSTM(8, inference=ps.MLE(training=training), random_state=0),
    }
    for model in models.values():
        model.fit(train)
    return models


def expected_ratio(models: dict, true: str, other: str, simulate: Simulator, n_test: int, n_long: int) -> float:
    """Gap to the true family over its standard error at ``n_test`` steps, from a long series of its own."""
    long = simulate(n_long, 10**6)
    steps = {name: models[name].log_prob_steps(long[500:], history=long[:500]).values for name in (true, other)}
    gap = hac_mean(steps[true] - steps[other])
    return gap.mean / (gap.standard_error * np.sqrt(gap.n_values / n_test))


def families(n_runs: int, n_test: int, n_long: int, smoke: bool, record: Record) -> None:
    print("| process | first | other | expected ratio | expected above 2 | came above 2 |")
    print("|---|---:|---|---:|---:|---:|")
    for true, (simulate, length) in PROCESSES.items():
        n_train = 60 if smoke else length
        wins, above = 0, {name: 0 for name in PROCESSES if name != true}
        expected = {name: 0.0 for name in above}
        for seed in range(n_runs):
            y = simulate(n_train + n_test, seed)
            models = fitted(y[:n_train], smoke)
            found = ps.compare(models, y[n_train:], history=y[:n_train])
            wins += found.best == true
            for name in above:
                gap = found.difference(true, name)
                above[name] += gap.mean > 2 * gap.standard_error
                if seed == 0:
                    expected[name] = expected_ratio(models, true, name, simulate, n_test, n_long)
        for name in above:
            share = stats.norm.cdf(expected[name] - 2)
            print(
                f"| {true} | {wins} of {n_runs} | {name} | {expected[name]:.1f} | {share:.2f} | "
                f"{above[name] / n_runs:.2f} |",
                flush=True,
            )
            cells = {"process": true, "runs": n_runs, "true family first": wins, "other": name}
            cells |= {"expected ratio": expected[name], "expected above 2": float(share)}
            record.value("the family that made the data", **cells, **{"came above 2": above[name] / n_runs})


def null(n_runs: int, n_test: int, record: Record) -> None:
    """Models that err by equal amounts to both sides."""
    print("| differences | steps | above 2 |\n|---|---:|---:|")
    pair = {
        "low": ps.IID().with_parameters(mean=[-0.2], scale=[1.0]),
        "high": ps.IID().with_parameters(mean=[0.2], scale=[1.0]),
    }
    for label, phi in (("independent", 0.0), ("autocorrelated, 0.5", 0.5)):
        above = 0
        for seed in range(n_runs):
            e = np.random.default_rng(seed).normal(size=n_test + 50)
            x = np.zeros(n_test + 50)
            for t in range(1, n_test + 50):
                x[t] = phi * x[t - 1] + e[t]
            gap = ps.compare(pair, x[50:]).difference("low", "high")
            above += abs(gap.mean) > 2 * gap.standard_error
        print(f"| {label} | {n_test} | {above / n_runs:.3f} |", flush=True)
        cells = {"differences": label, "steps": n_test, "runs": n_runs, "above 2": above / n_runs}
        record.value("two models of equal expected score", **cells)
        record.mark(f"share above two standard errors, {label} differences", above / n_runs, 0.10, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--null-runs", type=int, default=1000)
    add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    record = Record(
        "compare",
        "Does compare find the family that made the data?",
        "Shares of simulated runs: how often the true family leads, how often by more than two standard errors beside "
        "how often that is to be expected, and how often one of two models of equal expected score does.",
        args,
    )
    null(10 if args.smoke else args.null_runs, 200, record)
    families(
        1 if args.smoke else args.runs,
        60 if args.smoke else 1000,
        1000 if args.smoke else 20_000,
        args.smoke,
        record,
    )
    record.finish()


if __name__ == "__main__":
    main()
