"""How often do 90 % intervals of ARMA forecasts hold what comes? Simulated series of known order, and real ones.

Run ``python benchmarks/arma_coverage.py`` (some minutes): series simulated from known orders, n = 40 and 100, intervals
of one to twelve steps with the estimates taken for the truth, and with the uncertainty of the parameters
(``inference=ps.Collapsed()``). With ``--data FOLDER`` (the quarterly series of the M3 competition:
``quarterly-train.csv`` and ``quarterly-test.csv`` with id, type, values in a row) it reports real series instead, by
horizon: the order that ``AutoARMA`` chose with its estimates (plug-in), with parameter uncertainty, averaged over
orders, and conformal bands (half-widths of plug-in bands scaled so that nine of ten of the other half of the series
were covered). ``--smoke`` runs a few of each.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _record import Record, add_options
from scipy.signal import lfilter

import probseq as ps

LEVEL = 0.9
ORDERS = {
    "AR(1), 0.7": ([0.7], []),
    "AR(1), 0.95": ([0.95], []),
    "AR(2), 0.5 0.3": ([0.5, 0.3], []),
    "MA(1), 0.6": ([], [0.6]),
    "ARMA(1,1), 0.6 0.4": ([0.6], [0.4]),
}
HORIZON, AHEAD = 12, 8


def simulate(ar: list[float], ma: list[float], n: int, rng: np.random.Generator) -> np.ndarray:
    """A stationary series with mean zero and innovations of variance one."""
    return lfilter([1.0, *ma], [1.0, *(-np.array(ar))], rng.normal(size=n + 500))[500:]


def bounds(forecast: ps.Forecast) -> np.ndarray:
    """(time, 2)."""
    return forecast.quantile([(1 - LEVEL) / 2, (1 + LEVEL) / 2]).values


def interval_score(low: np.ndarray, high: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Width and a fine of 2 / (1 - level) times what lies outside: Gneiting and Raftery (2007)."""
    fine = 2 / (1 - LEVEL)
    return high - low + fine * np.maximum(low - y, 0) + fine * np.maximum(y - high, 0)


def simulated(n_series: int, record: Record) -> None:
    methods: dict[str, Callable[[], object]] = {
        "plug-in": lambda: ps.MLE(covariance=False),
        "parameters": lambda: ps.Collapsed(n_draws=200),
    }
    print(f"{n_series} series of each kind; cover of {LEVEL:.0%} intervals, standard error over series in brackets")
    print(
        f"{'series':22s}{'n':>5s} {'method':>12s}{'steps 1-12':>16s}{'1':>8s}{'4':>8s}{'12':>8s}{'width':>8s}{'ms':>8s}"
    )
    for n in (40, 100):
        for name, (ar, ma) in ORDERS.items():
            rng = np.random.default_rng(1)
            series = [simulate(ar, ma, n + HORIZON, rng) for _ in range(n_series)]
            for method, make in methods.items():
                hits, widths, begun = [], [], time.process_time()
                for i, x in enumerate(series):
                    model = ps.ARMA(order=(len(ar), len(ma)), inference=make(), random_state=i).fit(x[:n])
                    low, high = bounds(model.forecast(HORIZON)).T
                    hits.append((x[n:] >= low) & (x[n:] <= high))
                    widths.append((high - low).mean())
                each = np.array(hits)
                error = each.mean(1).std(ddof=1) / np.sqrt(n_series)
                ms = 1e3 * (time.process_time() - begun) / n_series
                row = "".join(f"{each[:, h - 1].mean():8.3f}" for h in (1, 4, 12))
                whole = f"{each.mean():8.3f} ({error:.3f})"
                print(f"{name:22s}{n:5d} {method:>12s}{whole:>16s}{row}{np.mean(widths):8.2f}{ms:8.0f}", flush=True)
                cells = {"series": name, "n": n, "band": method, "cover": each.mean(), "error": error}
                record.value("series of known order", **cells, width=np.mean(widths))


def read(folder: Path, every: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, training values and the eight that follow."""
    found = []
    with (folder / "quarterly-train.csv").open() as first, (folder / "quarterly-test.csv").open() as second:
        for past, future in zip(csv.reader(first), csv.reader(second)):
            values = [np.array([float(v) for v in row[2:] if v not in ("", "NA")]) for row in (past, future)]
            found.append((past[0], *values))
    return found[::every]


def real(series: list[tuple[str, np.ndarray, np.ndarray]], record: Record) -> None:
    bands: dict[str, list[np.ndarray]] = {"plug-in": [], "parameters": [], "orders averaged": []}
    truth, scales = [], []
    for name, past, future in series:
        chosen = ps.AutoARMA(period=4).fit(past)
        order, seasonal = chosen.order_, chosen.seasonal_order_
        # As many draws as there are steps of the band to smooth.
        given = {"order": order, "seasonal_order": seasonal[:3], "period": 4, "trend": chosen.trend_}
        try:
            wide = ps.ARMA(**given, inference=ps.Collapsed(n_draws=200), random_state=0).fit(past)
        except ps.errors.ProbseqError as error:
            print(f"    {name}: {error}")
            continue
        averaged = ps.AutoARMA(period=4, average=True).fit(past)
        for method, model in zip(bands, (chosen, wide, averaged)):
            bands[method].append(bounds(model.forecast(AHEAD)))
        truth.append(future[:AHEAD])
        scales.append(np.abs(np.diff(past)).mean())
    y, scale = np.array(truth), np.array(scales)
    found = {method: np.array(each) for method, each in bands.items()}
    found["conformal"] = conformal(found["plug-in"], y)
    print(f"{len(y)} quarterly series; cover of {LEVEL:.0%} intervals by horizon (standard error over series), and the")
    print("interval score over the mean absolute change of the series, lower is better")
    rows = {}
    for method, each in found.items():
        low, high = each[..., 0], each[..., 1]
        hit = (y >= low) & (y <= high)
        score = (interval_score(low, high, y) / scale[:, None]).mean(1)
        rows[method] = {f"h={h}": hit[:, h - 1].mean() for h in range(1, AHEAD + 1)} | {
            "all": hit.mean(),
            "error": hit.mean(1).std(ddof=1) / np.sqrt(len(y)),
            "score": score.mean(),
            "its error": score.std(ddof=1) / np.sqrt(len(y)),
        }
        record.value("quarterly series of the M3 competition", band=method, series=len(y), **rows[method])
    print(pd.DataFrame.from_dict(rows, orient="index").round(3).to_string())


def conformal(band: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bands widened by a factor a horizon, learnt on the other half of the series, exchangeable with these."""
    centre, half = band.mean(-1), 0.5 * (band[..., 1] - band[..., 0])
    ratio = np.abs(y - centre) / half
    fold = np.arange(len(y)) % 2
    out = np.empty_like(band)
    for side in (0, 1):
        others = np.sort(ratio[fold != side], axis=0)
        rank = min(len(others), int(np.ceil(LEVEL * (len(others) + 1))))
        width = half[fold == side] * others[rank - 1]
        out[fold == side] = np.stack([centre[fold == side] - width, centre[fold == side] + width], -1)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the M3 quarterly series")
    parser.add_argument("--every", type=int, default=1, help="every so many series")
    parser.add_argument("--series", type=int, default=400, help="simulated series of each kind")
    parser.add_argument("--smoke", action="store_true", help="a few series, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.data is not None:
        record = Record(
            "arma_coverage_m3",
            "How often bands of ARMA forecasts hold what comes: real series",
            f"Share of values inside {LEVEL:.0%} intervals by horizon, its standard error over series, and the "
            "interval score over the mean absolute change of the series, lower is better.",
            options,
        )
        real(read(options.data, 100 if options.smoke else options.every), record)
    else:
        record = Record(
            "arma_coverage",
            "How often bands of ARMA forecasts hold what comes: series of known order",
            f"Share of values inside {LEVEL:.0%} intervals, one to {HORIZON} steps ahead, its standard error over "
            f"{3 if options.smoke else options.series} series of each kind, and the mean width.",
            options,
        )
        simulated(3 if options.smoke else options.series, record)
    record.finish()


if __name__ == "__main__":
    main()
