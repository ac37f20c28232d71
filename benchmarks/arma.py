"""ARMA against statsmodels, side by side in one process: one likelihood, one fit, six cases.

Run as ``python benchmarks/arma.py``. Every figure is the median over rounds of the ratio within a round; the peer goes
first in one round and last in the next. All thread pools are pinned to one thread.

The peer is ``statsmodels.tsa.arima.model.ARIMA`` with its defaults, and for the likelihood also its fastest form, a
``SARIMAX`` without constant on the differenced data. Ours is, for the likelihood, the kernel on bare parameters, as
``loglike`` takes them; for the fit, the inference on the mathematical model, and then the whole estimator. The last
column says by how many nats our maximum is above the peer's.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import statsmodels.api as sm
import torch
from threadpoolctl import threadpool_limits

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.inference.optimize import MLE
from probseq.kernels.profile import free_from_partial, profile_at
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch

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
    start = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - start) / repeat


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


def likelihood(y, order, seasonal_order, rounds: int = 15) -> tuple[float, np.ndarray]:
    """Time of one likelihood (us), and the ratios of the peer's two forms to it."""
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
    seconds = compare(
        [lambda: whole.loglike(at), lambda: fast.loglike(at_fast)], [lambda: profile_at(*arguments)], rounds, 20
    )
    return 1e6 * float(np.median(seconds[:, 2])), np.median(seconds[:, :2] / seconds[:, 2:], 0)


def fitting(y, order, seasonal_order, rounds: int = 5) -> tuple[np.ndarray, np.ndarray, float]:
    """Seconds of the model's and the estimator's fit, their ratios, and the difference in log-likelihood."""
    model = make_model(order, seasonal_order, order[1] + seasonal_order[1] == 0)
    batch = make_batch(y)
    inference = MLE(covariance=False)
    seasonal = seasonal_order if seasonal_order[3] else (0, 0, 0)
    found = {}

    def peer() -> None:
        found["peer"] = sm.tsa.ARIMA(y, order=order, seasonal_order=seasonal_order).fit().params

    def mathematical() -> None:
        found["ours"] = inference.fit(model, batch, torch.Generator())

    def estimator() -> None:
        ps.ARMA(order=order, seasonal_order=seasonal, inference=inference).fit(y)

    seconds = compare([peer], [mathematical, estimator], rounds, 5)
    theirs, at = {}, 0
    sizes = {"mean": int(model.constant), "ar": order[0], "ma": order[2]}
    sizes |= {"seasonal_ar": seasonal_order[0], "seasonal_ma": seasonal_order[2], "scale": 1}
    for name, size in sizes.items():
        if size:
            part = torch.as_tensor(found["peer"][at : at + size], dtype=torch.float64)
            theirs[name] = part.sqrt()[0] if name == "scale" else part[0] if name == "mean" else part
        at += size
    gain = found["ours"].log_prob - float(model.log_prob(theirs, batch))
    return np.median(seconds[:, 1:], 0), np.median(seconds[:, :1] / seconds[:, 1:], 0), gain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one short case, to see that it runs")
    smoke = parser.parse_args().smoke
    cases = dict(list(CASES.items())[:1]) if smoke else CASES
    warnings.simplefilter("ignore")
    heads = ("likelihood us", "x ARIMA", "x fastest", "fit ms", "x ARIMA", "estimator ms", "x ARIMA", "nats")
    print(f"{'case':26s}" + "".join(f"{head:>14s}" for head in heads))
    ratios = []
    for name, (order, seasonal_order, n, coefficients) in cases.items():
        y = series(order, seasonal_order, n, coefficients)
        micro, first = likelihood(y, order, seasonal_order)
        seconds, second, gain = fitting(y, order, seasonal_order, rounds=3 if n > 1000 else 7)
        ratios.append([*first, *second])
        row = (micro, *first, 1e3 * seconds[0], second[0], 1e3 * seconds[1], second[1], gain)
        print(f"{name:26s}" + "".join(f"{value:14.4g}" for value in row), flush=True)
    mean = np.exp(np.log(ratios).mean(0))
    row = ("", f"{mean[0]:.0f}", f"{mean[1]:.0f}", "", f"{mean[2]:.0f}", "", f"{mean[3]:.0f}", "")
    print(f"{'geometric mean':26s}" + "".join(f"{value:>14s}" for value in row))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
