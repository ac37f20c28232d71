"""Calibration of Bayesian LSTMs one step ahead: cover of the 90 % band on three series, beside ARMA and an HMM.

The series, named before any model was fitted: weekly returns of the S&P 500 (per cent), the weekly CO2 record of
Mauna Loa (gaps before 1986 drawn as lines, since networks that see differences allow none), the monthly surface
temperature of the eastern tropical Pacific (El Nino, from statsmodels). Models are fitted once to all but the last
values, and predict each of those from all before it: 600, 600 and 500 values. Intervals are from a circular block
bootstrap. Run ``python benchmarks/recurrent_coverage.py``.
"""

# ruff: noqa: E402 - threads are pinned before torch loads

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PROBSEQ_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch
from _record import Record, add_options

import probseq as ps
from probseq.evaluation.scores import interval_score

LEVEL = 0.9
BLOCK, REPEATS = 25, 2000


def returns() -> np.ndarray:
    prices = np.asarray(ps.datasets.sp500(), dtype=float).ravel()
    return 100 * np.diff(np.log(prices))


def carbon() -> np.ndarray:
    x = np.asarray(ps.datasets.co2(), dtype=float).ravel()
    seen = np.flatnonzero(np.isfinite(x))
    return np.interp(np.arange(len(x)), seen, x[seen])


def temperature() -> np.ndarray:
    from statsmodels.datasets import elnino

    table = elnino.load_pandas().data
    return table.drop(columns="YEAR").to_numpy(dtype=float).ravel()


SERIES = {
    "S&P 500": (returns, 600, 1),
    "CO2": (carbon, 600, 52),
    "El Niño": (temperature, 500, 12),
}


def models(name: str, period: int, smoke: bool) -> dict[str, Any]:
    """Estimators by name; the transforms and lags are those that the kind of data suggests."""
    options = ps.TrainingOptions(max_epochs=2 if smoke else None)
    head = ps.StudentT() if name == "S&P 500" else ps.Normal()
    # A trend is no matter for a network: it sees differences of the CO2 record.
    setting: dict[str, Any] = {"head": head, "random_state": 0, "transform": ps.Difference() if name == "CO2" else None}
    lags = (1,) if period == 1 else (1, 2, period)
    nets = {
        "LSTM, mean field": ps.MeanField(training=options),
        "LSTM, dropout": ps.MCDropout(training=options),
        "LSTM, ensemble of 5": ps.Ensemble(2 if smoke else 5, ps.MLE(training=options)),
        "LSTM, one net": ps.MLE(training=options),
    }
    chosen = {label: ps.LSTM(16, lags=lags, inference=how, **setting) for label, how in nets.items()}
    arma = {
        "S&P 500": lambda: ps.ARMA((1, 1), innovations="studentt", volatility=ps.GARCH(1, 1)),
        "CO2": lambda: ps.ARMA((1, 1, 1), trend="c", fourier={52.18: 3}),
        "El Niño": lambda: ps.ARMA((2, 0, 0), fourier={12: 3}),
    }
    chosen["ARMA"] = arma[name]()
    if name == "S&P 500":
        chosen["HMM, 3 states"] = ps.HMM(3, emission=ps.StudentT(), random_state=0)
    return chosen


def bootstrap(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean from circular blocks of the series."""
    n = len(values)
    starts = rng.integers(0, n, (REPEATS, -(-n // BLOCK)))
    index = (starts[..., None] + np.arange(BLOCK)).reshape(REPEATS, -1)[:, :n] % n
    low, high = np.quantile(values[index].mean(1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    add_options(parser)
    args, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    record = Record(
        "recurrent_coverage",
        "How well bands of Bayesian networks are calibrated",
        f"Share of held-out values inside the {LEVEL:.0%} band one step ahead, with a 95 % interval from a circular "
        "block bootstrap; interval score (lower is better), nats per value (higher is better), processor "
        "seconds of the fit.",
        args,
        ["statsmodels"],
    )
    rng = np.random.default_rng(0)
    print("| series | model | cover of 90 % | 95 % interval | interval score | nats per value | seconds |")
    print("|---|---|---:|---|---:|---:|---:|")
    for name, (load, n_test, period) in SERIES.items():
        x = load()
        x = x[-330:] if args.smoke else x
        past, future = np.split(x, [-30 if args.smoke else -n_test])
        for label, model in models(name, period, args.smoke).items():
            start = time.process_time()
            model.fit(past)
            seconds = time.process_time() - start
            law = model.predictive(future, history=past)
            low, high = (np.asarray(law.quantile(q)).ravel() for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
            inside = ((future >= low) & (future <= high)).astype(float)
            a, b = bootstrap(inside, rng)
            score = np.mean(interval_score(future, low, high, LEVEL))
            nats = float(model.log_prob_steps(future, history=past).mean())
            cells = {"series": name, "model": label, "held-out values": len(future), "cover": inside.mean()}
            cells |= {"from": a, "to": b, "interval score": score, "nats per value": nats, "seconds": seconds}
            record.value("one step ahead", **cells)
            print(
                f"| {name} | {label} | {inside.mean():.3f} | {a:.3f} to {b:.3f} | "
                f"{score:.3f} | {nats:.3f} | {seconds:.0f} |",
                flush=True,
            )
    record.finish()


if __name__ == "__main__":
    main()
