"""AutoARMA against statsforecast's AutoARIMA on quarterly series: seconds, and whose criterion is lower.

Run as ``python benchmarks/auto_arma.py --data FOLDER`` where both are installed; FOLDER holds ``quarterly-train.csv``,
a series a row: name, kind, values. Every series is fitted by both in turn, the peer first in one round and last in the
next, in one thread; the figure of a series is the median over rounds of the ratio of processor times within a round.

Criteria are compared in one likelihood, the exact one, at equal orders of differencing: where the two chose different
ones, ours is run again with the peer's. The peer's AICc is computed from its own estimates (scale at its best for
them), and once more from our maximum at its orders, which is what its search could have reached.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PROBSEQ_NUM_THREADS", "1")

import numpy as np
import torch
from _record import Record, add_options

import probseq as ps
from probseq.inference.orders import information_criterion
from probseq.models.base import Batch

try:
    from statsforecast.arima import auto_arima_f
except ImportError:
    auto_arima_f = None

PERIOD = 4
SAME = 1e-6


def read(folder: Path) -> dict[str, np.ndarray]:
    rows = [line.strip().split(",") for line in (folder / "quarterly-train.csv").read_text().splitlines()]
    return {row[0]: np.array([float(value) for value in row[2:] if value]) for row in rows}


def simulated(count: int) -> dict[str, np.ndarray]:
    """Random walks with a season, for a run without data."""
    rng = np.random.default_rng(0)
    return {str(i): 100 + np.cumsum(rng.normal(size=48)) + np.tile(rng.normal(size=4), 12) for i in range(count)}


def timed(function):
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def race(y: np.ndarray, rounds: int, min_root: float):
    """Both fits, and the seconds of the peer and of ours (rounds, 2)."""

    def ours():
        return ps.AutoARMA(period=PERIOD, min_root=min_root).fit(y)

    def peer():
        return auto_arima_f(y, period=PERIOD)

    table = np.empty((rounds, 2))
    for i in range(rounds):
        for column in (0, 1) if i % 2 else (1, 0):
            result, table[i, column] = timed((peer, ours)[column])
            if column:
                mine = result
            else:
                theirs = result
    return mine, theirs, table


def aicc_at(theirs, y: np.ndarray) -> tuple[float, float]:
    """AICc in the exact likelihood of the peer's estimates, and of our maximum at its orders."""
    p, q, seasonal_p, seasonal_q, _, d, seasonal_d = (int(v) for v in theirs["arma"])
    coef = {name: float(value) for name, value in theirs["coef"].items()}
    centre = coef.get("intercept", coef.get("drift"))
    seasonal = (seasonal_p, seasonal_d, seasonal_q)
    arma = ps.ARMA((p, d, q), seasonal, PERIOD if any(seasonal) else None, "n" if centre is None else "c")
    fit = arma.fit(y)
    params = {}
    for name, word, count in (("ar", "ar", p), ("ma", "ma", q), ("seasonal_ar", "sar", seasonal_p)) + (
        ("seasonal_ma", "sma", seasonal_q),
    ):
        if count:
            values = [coef[f"{word}{i + 1}"] for i in range(count)]
            params[name] = torch.tensor(values, dtype=torch.float64)
    if centre is not None:
        # A drift is a slope per step; ours is the mean of the differences.
        params["mean"] = torch.tensor(centre * (PERIOD if seasonal_d else 1), dtype=torch.float64)
    model = fit.model_.model
    batch = Batch(
        torch.from_numpy(y)[None, :, None], torch.ones(1, y.size, 1, dtype=torch.bool), torch.tensor([y.size])
    )
    k, n = fit.n_parameters_, fit.n_scored_
    # log L(s) = c - n log s - Q / (2 s^2): two values give c and Q.
    one, two = (
        float(model.log_prob({**params, "scale": torch.tensor(s, dtype=torch.float64)}, batch)) for s in (1.0, 2.0)
    )
    q_sum = (two + n * math.log(2.0) - one) / (0.5 - 0.125)
    best = one + 0.5 * q_sum - 0.5 * n * (math.log(q_sum / n) + 1.0)
    return information_criterion("aicc", best, k, n), information_criterion("aicc", fit.log_likelihood_, k, n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the series")
    parser.add_argument("--every", type=int, default=1, help="use every so manieth series")
    parser.add_argument("--min-root", type=float, default=1.01, help="as in AutoARMA; 1 allows unit roots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verbose", action="store_true", help="a line for every series")
    parser.add_argument("--smoke", action="store_true", help="three short series, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    smoke = options.smoke or options.data is None
    series = simulated(3) if smoke else dict(list(read(options.data).items())[:: options.every])
    rounds = 1 if smoke else options.rounds
    first = next(iter(series.values()))
    if auto_arima_f is None:
        print(f"statsforecast is not installed; ours alone chose {ps.AutoARMA(period=PERIOD).fit(first).order_}")
        return
    record = Record(
        "auto_arma",
        "The search for orders beside statsforecast",
        f"Processor time of AutoARMA and of statsforecast's AutoARIMA with its defaults, in turn; for every series the "
        f"median ratio of {rounds} rounds.",
        options,
        ["statsforecast"],
    )
    race(first, 1, options.min_root)  # compiles
    rows = []
    for name, y in series.items():
        try:
            mine, theirs, table = race(y, rounds, options.min_root)
            ratio, seconds = float(np.median(table[:, 0] / table[:, 1])), float(np.median(table[:, 1]))
            orders = tuple(int(v) for v in theirs["arma"][5:7])
            same = (mine.order_[1], mine.seasonal_order_[1]) == orders
            known = {"d": orders[0], "D": orders[1], "min_root": options.min_root}
            again = mine if same else ps.AutoARMA(period=PERIOD, **known).fit(y)
            estimates, reachable = aicc_at(theirs, y)
            ours = float(again.candidates_["criterion"][0])
        except (ps.errors.ProbseqError, ValueError) as error:
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        record.speed("choice of orders", f"{name}, {y.size} values", "statsforecast", table[:, 1], table[:, 0])
        rows.append((ratio, seconds, same, ours - estimates, ours - reachable))
        if options.verbose:
            found = (again.order_, again.seasonal_order_[:3], again.trend_, theirs["arma"])
            print(f"{name} n={y.size} ratio {ratio:6.1f} AICc ours - peer {ours - estimates:9.4f}", *found)
    ratios, ours, same, gain, bound = (np.array(column) for column in zip(*rows, strict=True))
    print(f"{len(rows)} series")
    print(f"time: peer / ours {np.exp(np.log(ratios).mean()):.1f} (geometric mean)")
    print(f"ours {1e3 * np.median(ours):.1f} ms (median)")
    print(f"series fitted at least 10 times as fast: {np.mean(ratios >= 10):.1%}")
    print(f"equal d and D chosen: {np.mean(same):.1%}; elsewhere ours was run again with the peer's")
    for words, which in (("all", np.ones_like(same)), ("equal d and D", same), ("the others", ~same)):
        if which.any():
            print(
                f"AICc equal or lower, {words}: {np.mean(gain[which] <= SAME):.1%} than the peer's estimates, "
                f"{np.mean(bound[which] <= 1e-4):.1%} than our maximum at the peer's orders"
            )
            estimates = {"than the peer's estimates": np.mean(gain[which] <= SAME)}
            reachable = {"than our maximum at the peer's orders": np.mean(bound[which] <= 1e-4)}
            title = "share of series with an AICc that is equal or lower"
            record.value(title, orders=words, series=int(which.sum()), **estimates, **reachable)
    record.mark("choice of orders: times as fast as statsforecast, geometric mean", np.exp(np.log(ratios).mean()), 10.0)
    record.finish()


if __name__ == "__main__":
    main()
