"""ARMA against statsmodels and statsforecast, side by side in one process: likelihood, fit, paths, a panel.

Run as ``python benchmarks/arma.py``; statsforecast is left out where it is not installed, the panel without ``--data``,
the folder of M3's quarterly series. Every figure is the median over rounds of the ratio within a round; the peer goes
first in one round and last in the next. All thread pools are pinned to one thread, and processor time counts; for the
panel, which is also run with as many threads as there are processors, it is time on the wall.

The peers are ``statsmodels.tsa.arima.model.ARIMA`` with its defaults, for the likelihood also its fastest form, a
``SARIMAX`` without constant on the differenced data, for the fit also ``statsforecast.arima.ARIMA`` with ``CSS-ML``,
for paths ``simulate`` with all repetitions in one call. Ours is, for the likelihood, the kernel on bare parameters, as
``loglike`` takes them; for the fit, the inference on the mathematical model, and then the whole estimator; for paths
``forecast().sample`` and the model's own ``sample``. "nats" says how far our maximum is above statsmodels'.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import statsmodels.api as sm
import torch
from _record import Record, add_options
from threadpoolctl import threadpool_limits

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.inference.optimize import MLE
from probseq.kernels.profile import free_from_partial, profile_at
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch, map_state

try:
    from statsforecast import models as statsforecast
except ImportError:
    statsforecast = None

# What each figure should reach: times faster than the peer, or seconds.
MARKS = {
    "likelihood x ARIMA": 150.0,
    "estimator x ARIMA": 120.0,
    "estimator x CSS-ML": 50.0,
    "forecast().sample x simulate": 50.0,
    "panel s": 1.5,
}

# order, seasonal order, length, coefficients ar, ma, seasonal ar, seasonal ma
CASES = {
    "(2,1) n=200": ((2, 0, 1), (0, 0, 0, 0), 200, ([0.6, -0.3], [0.4], [], [])),
    "(2,1) n=1000": ((2, 0, 1), (0, 0, 0, 0), 1000, ([0.6, -0.3], [0.4], [], [])),
    "(2,1) n=10000": ((2, 0, 1), (0, 0, 0, 0), 10_000, ([0.6, -0.3], [0.4], [], [])),
    "airline 144": ((0, 1, 1), (0, 1, 1, 12), 144, None),
    "(1,1,1)(1,1,1)12 n=720": ((1, 1, 1), (1, 1, 1, 12), 720, ([0.5], [-0.4], [0.3], [-0.6])),
    "(1,0,1)(1,0,1)52 n=2000": ((1, 0, 1), (1, 0, 1, 52), 2000, ([0.6], [0.3], [0.5], [-0.3])),
}


def series(order, seasonal_order, n, coefficients):
    """Simulate with a fixed seed, or take the logarithm of the air passengers."""
    if coefficients is None:
        return np.log(ps.datasets.air_passengers().values.astype(float).ravel())
    model = make_model(order, seasonal_order, False)
    params = {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in zip(("ar", "ma", "seasonal_ar", "seasonal_ma"), coefficients)
        if value
    }
    params["scale"] = torch.tensor(1.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2024)
    x, _ = model.sample(params, model.initial_state(params, 1), n, generator)
    return x[0, :, 0].numpy()


def make_model(order, seasonal_order, constant):
    period = max(seasonal_order[3], 1)
    return ARMAModel(Observation(1), order, (*seasonal_order[:3], period), constant)


def clock(function: Callable[[], object], repeat: int = 1) -> float:
    """Seconds of the processor, which other programs on the machine do not lengthen much."""
    start = time.process_time()
    for _ in range(repeat):
        function()
    return (time.process_time() - start) / repeat


def compare(
    peers: list[Callable[[], object]], ours: list[Callable[[], object]], rounds: int, repeat: int
) -> np.ndarray:
    """Seconds (rounds, len(peers) + len(ours)), the order turned round every other time."""
    tasks = [(function, 1) for function in peers] + [(function, repeat) for function in ours]
    for function, _ in tasks:
        function()
    table = np.empty((rounds, len(tasks)))
    for i in range(rounds):
        for j in range(len(tasks))[:: 1 if i % 2 else -1]:
            table[i, j] = clock(*tasks[j])
    return table


def make_batch(y: np.ndarray) -> Batch:
    seen = torch.ones(1, y.size, 1, dtype=torch.bool)
    return Batch(torch.from_numpy(y.copy())[None, :, None], seen, torch.tensor([y.size]))


def likelihood(y, order, seasonal_order, rounds: int = 15) -> np.ndarray:
    """Seconds (rounds, 3) of one likelihood: statsmodels', its fastest form, ours."""
    (p, d, q), (seasonal_p, seasonal_d, seasonal_q, period) = order, seasonal_order
    w = y
    for lag in [1] * d + [period] * seasonal_d:
        w = w[lag:] - w[:-lag]
    constant = d + seasonal_d == 0
    profile = make_model((p, 0, q), (seasonal_p, 0, seasonal_q, period), constant).concentrated(make_batch(w))
    model = profile.model
    x = free_from_partial(np.linspace(0.3, 0.5, profile.size))
    arguments = (x, profile.orders, model.period, model.lags.ar, model.lags.ma)
    arguments += (profile.columns, profile.lengths, profile.weights, profile.n_columns)
    params = {name: value.numpy() for name, value in profile.parameters(x).items()}
    bare = np.concatenate([params.get(n, np.zeros(0)) for n in ("ar", "ma", "seasonal_ar", "seasonal_ma")])
    variance = params["scale"] ** 2
    whole = sm.tsa.ARIMA(y, order=order, seasonal_order=seasonal_order)
    fast = sm.tsa.SARIMAX(w, order=(p, 0, q), seasonal_order=(seasonal_p, 0, seasonal_q, period))
    at = np.concatenate([[params["mean"]] if constant else [], bare, [variance]])
    at_fast = np.append(bare, variance)
    if constant and abs(whole.loglike(at) - profile_at(*arguments)[2]) > 1e-6:
        raise SystemExit("the two likelihoods differ")
    return compare(
        [lambda: whole.loglike(at), lambda: fast.loglike(at_fast)], [lambda: profile_at(*arguments)], rounds, 20
    )


def fitting(y, order, seasonal_order, rounds: int = 5) -> tuple[np.ndarray, float]:
    """Seconds (rounds, 4) of a fit, and how far our log-likelihood is above statsmodels'.

    The columns are statsmodels, statsforecast (NaN without it), our model and our estimator.
    """
    model = make_model(order, seasonal_order, order[1] + seasonal_order[1] == 0)
    batch = make_batch(y)
    inference = MLE(covariance=False)
    seasonal = seasonal_order if seasonal_order[3] else (0, 0, 0)
    found = {}

    def peer() -> None:
        found["peer"] = sm.tsa.ARIMA(y, order=order, seasonal_order=seasonal_order).fit().params

    def other() -> None:
        statsforecast.ARIMA(
            order=order,
            season_length=max(seasonal_order[3], 1),
            seasonal_order=seasonal_order[:3],
            include_mean=model.constant,
            method="CSS-ML",
        ).fit(y)

    def mathematical() -> None:
        found["ours"] = inference.fit(model, batch, torch.Generator())

    def estimator() -> None:
        ps.ARMA(order=order, seasonal_order=seasonal, inference=inference).fit(y)

    peers = [peer] if statsforecast is None else [peer, other]
    seconds = compare(peers, [mathematical, estimator], rounds, 5)
    if len(peers) == 1:
        seconds = np.insert(seconds, 1, np.nan, 1)
    theirs, at = {}, 0
    sizes = {"mean": int(model.constant), "ar": order[0], "ma": order[2]}
    sizes |= {"seasonal_ar": seasonal_order[0], "seasonal_ma": seasonal_order[2], "scale": 1}
    for name, size in sizes.items():
        if size:
            part = torch.as_tensor(found["peer"][at : at + size], dtype=torch.float64)
            theirs[name] = part.sqrt()[0] if name == "scale" else part[0] if name == "mean" else part
        at += size
    gain = found["ours"].log_prob - float(model.log_prob(theirs, batch))
    return seconds, gain


def paths(rounds: int, n: int = 1000, horizon: int = 24) -> np.ndarray:
    """Seconds of simulate and of both of our ways (rounds, 3): the airline model on the air passengers."""
    y = series((0, 1, 1), (0, 1, 1, 12), 144, None)
    theirs = sm.tsa.SARIMAX(y, order=(0, 1, 1), seasonal_order=(0, 1, 1, 12)).fit(disp=0)
    ours = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12)).fit(y)
    state = map_state(lambda leaf: leaf.expand(n, *leaf.shape[1:]), ours.training_state_)
    generator = torch.Generator()
    return compare(
        [lambda: theirs.simulate(horizon, anchor="end", repetitions=n)],
        [lambda: ours.forecast(horizon).sample(n), lambda: ours.model_.sample({}, state, horizon, generator)],
        rounds,
        5,
    )


def panel(folder: Path) -> tuple[int, np.ndarray]:
    """Number of series, and seconds on the wall and of the processor for the airline model of each: one thread, all."""
    rows = [line.split(",") for line in (folder / "quarterly-train.csv").read_text().split()]
    data = {row[0]: np.log([float(cell) for cell in row[2:] if cell]) for row in rows}
    airline = ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 4))
    few = dict(list(data.items())[:4])
    seconds = []
    for jobs in (1, os.cpu_count()):
        ps.PerSequence(airline, n_jobs=jobs, progress=False).fit(few)
        start = np.array([time.perf_counter(), time.process_time()])
        ps.PerSequence(airline, n_jobs=jobs, progress=False).fit(data)
        seconds.append(np.array([time.perf_counter(), time.process_time()]) - start)
    return len(data), np.array(seconds)


def verdict(name: str, value: float) -> str:
    """The figure beside its mark."""
    mark, low = MARKS[name], name.endswith(" s")
    good = value <= mark if low else value >= mark
    return f"{name}: {value:.3g}, wanted {'at most' if low else 'at least'} {mark:g}: {'yes' if good else 'NO'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one short case, to see that it runs")
    parser.add_argument("--data", type=Path, help="folder of M3's quarterly series, for the panel")
    add_options(parser)
    options = parser.parse_args()
    cases = dict(list(CASES.items())[:1]) if options.smoke else CASES
    warnings.simplefilter("ignore")
    record = Record(
        "arma",
        "ARMA beside statsmodels and statsforecast",
        "Processor time of one exact likelihood (our kernel, on bare parameters, as loglike takes them), of a whole "
        "fit of the estimator and of the inference alone, and of 1000 paths of 24 steps.",
        options,
        ["statsmodels", "statsforecast"],
    )
    heads = (
        "likelihood us",
        "x ARIMA",
        "x fastest",
        "fit ms",
        "x ARIMA",
        "estimator ms",
        "x ARIMA",
        "x CSS-ML",
        "nats",
    )
    print(f"{'case':26s}" + "".join(f"{head:>14s}" for head in heads))
    ratios = []
    for name, (order, seasonal_order, n, coefficients) in cases.items():
        y = series(order, seasonal_order, n, coefficients)
        one = likelihood(y, order, seasonal_order)
        first = np.median(one[:, :2] / one[:, 2:], 0)
        record.speed("likelihood", name, "statsmodels", one[:, 2], one[:, 0])
        record.speed("likelihood", name, "statsmodels, fastest form", one[:, 2], one[:, 1])
        rounds = 1 if options.smoke else 3 if n > 1000 else 7
        seconds, gain = fitting(y, order, seasonal_order, rounds)
        record.speed("fit", name, "statsmodels", seconds[:, 3], seconds[:, 0])
        if statsforecast is not None:
            record.speed("fit", name, "statsforecast, CSS-ML", seconds[:, 3], seconds[:, 1])
        record.speed("fit, inference alone", name, "statsmodels", seconds[:, 2], seconds[:, 0])
        record.value("how far our maximum is above that of statsmodels", case=name, nats=gain)
        second = np.median(seconds[:, [0, 0, 1]] / seconds[:, [2, 3, 3]], 0)
        ratios.append([*first, *second])
        micro, ms = 1e6 * np.median(one[:, 2]), 1e3 * np.median(seconds[:, 2:], 0)
        row = (micro, *first, ms[0], second[0], ms[1], *second[1:], gain)
        print(f"{name:26s}" + "".join(f"{value:14.4g}" for value in row), flush=True)
    mean = np.exp(np.log(ratios).mean(0))
    row = ("", *(f"{one:.0f}" for one in mean[:2]), "", f"{mean[2]:.0f}", "", *(f"{one:.0f}" for one in mean[3:]), "")
    print(f"{'geometric mean':26s}" + "".join(f"{value:>14s}" for value in row))
    found = {"likelihood x ARIMA": mean[0], "estimator x ARIMA": mean[3], "estimator x CSS-ML": mean[4]}
    seconds = paths(1 if options.smoke else 9)
    record.speed("paths, forecast().sample", "airline 144", "statsmodels", seconds[:, 1], seconds[:, 0])
    record.speed("paths, the model's sample", "airline 144", "statsmodels", seconds[:, 2], seconds[:, 0])
    times = np.median(seconds[:, :1] / seconds[:, 1:], 0)
    ms = 1e3 * np.median(seconds, 0)
    print(
        f"1000 paths of 24 steps: simulate {ms[0]:.3g} ms, forecast().sample {ms[1]:.3g} ms ({times[0]:.0f} times), "
        f"model's sample {ms[2]:.3g} ms ({times[1]:.0f} times)"
    )
    found["forecast().sample x simulate"] = times[0]
    if options.data is not None:
        n, seconds = panel(options.data)
        one, every = seconds[:, 0]
        print(f"{n} series with the airline model: {one:.3g} s with one thread, {every:.3g} s with {os.cpu_count()}")
        for threads, (wall, processor) in zip((1, os.cpu_count()), seconds):
            cells = {"series": n, "threads": threads, "seconds of the processor": processor, "on the wall": wall}
            record.value("the airline model fitted to each of the quarterly series of the M3 competition", **cells)
        if record.quiet:
            found["panel s"] = every
        else:
            print("other programs run on this machine: time on the wall is no measure")
    print("The search for orders has a file of its own: benchmarks/auto_arma.py")
    # The marks are for all six cases.
    for name, value in found.items():
        if np.isfinite(value) and not options.smoke:
            print(verdict(name, float(value)))
            words = name.replace(" x ", ", times as fast as ").removesuffix(" s")
            record.mark(words, float(value), MARKS[name], at_least=not name.endswith(" s"))
    record.finish()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
