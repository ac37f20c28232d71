"""What a backtest without refits costs: one pass of states, and forecasts from all origins as one batch.

Run as ``python benchmarks/backtest.py``. 200 origins of an ARMA whose parameters are known, medians of processor time:
``log_prob_steps`` of the series; the 200 forecasts with mean, quantiles and scores as one batch from states that are
there already; the whole backtest, and what it costs beyond that batch, in ``log_prob_steps``, of which three are the
budget; for comparison the same forecasts made one by one with ``forecast(horizon, state=)``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from _record import Record, add_options
from threadpoolctl import threadpool_limits

import probseq as ps
from probseq.comparison.held_forecasts import HeldForecasts, Question, answer
from probseq.comparison.origins import plan_origins

WHITE = (0, 0, 0, 1)
CASES = {
    "(2,1), n=300": (300, (2, 0, 1), WHITE),
    "(2,1), n=1000": (1000, (2, 0, 1), WHITE),
    "(2,1), n=5000": (5000, (2, 0, 1), WHITE),
    "(1,1,1), n=10 000": (10_000, (1, 1, 1), WHITE),
    "airline, n=1000": (1000, (0, 1, 1), (0, 1, 1, 12)),
}
ORIGINS = 200


def clock(task: Callable[[], object]) -> float:
    start = time.thread_time()
    task()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--horizon", type=int, default=12)
    parser.add_argument("--smoke", action="store_true", help="one short round, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    rounds, h = (1, 2) if options.smoke else (options.rounds, options.horizon)
    torch.set_num_threads(1)
    record = Record(
        "backtest",
        "What a backtest without refits costs",
        f"Median processor time of {rounds} rounds: one pass of log_prob_steps over the series; {ORIGINS} forecasts of "
        f"{h} steps from states that are there, as one batch; the whole backtest; the same forecasts made one by one.",
        options,
    )
    print("| case | log_prob_steps, ms | as a batch | backtest | beyond the batch, in log_prob_steps | one by one |")
    print("|---|---|---|---|---|---|")
    for name, (n, order, seasonal) in CASES.items():
        p, d, q = order
        known = {"ar": [0.6, 0.2][:p], "ma": [0.4][:q], "seasonal_ma": [0.3][: seasonal[2]]}
        known = {word: values for word, values in known.items() if values} | {"scale": 1.0}
        model = ps.ARMA(order=order, seasonal_order=seasonal, trend="n").with_parameters(**known)
        noise = np.random.default_rng(0).normal(size=n)
        y = np.cumsum(noise) if d else noise
        stride = (n - h - n // 4) // (ORIGINS - 1)
        origins = np.arange(n // 4, n - h + 1, stride)[:ORIGINS]
        data = model._read(y)
        plan = plan_origins(data, h, None, 1, origins, None)
        asked = Question(h, (0.05, 0.25, 0.5, 0.75, 0.95), (0.5, 0.9))
        states = along(model, y, origins)

        def forecasts() -> None:
            blank = HeldForecasts.blank(ORIGINS, 1, 1, asked)  # noqa: B023
            answer(model, data, plan.cuts, plan.valid, states, asked, blank)  # noqa: B023

        def singly() -> None:
            for j in range(0, ORIGINS, 20):
                forecast, truth = model.forecast(h, state=one(states, j)), y[origins[j] : origins[j] + h]  # noqa: B023
                forecast.mean(), forecast.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
                forecast.log_prob(truth), forecast.crps(truth)

        def whole() -> None:
            ps.backtest(model, y, h, origins=origins, n_jobs=1)  # noqa: B023

        tasks = (lambda: model.log_prob_steps(y), forecasts, singly, whole)  # noqa: B023
        for task in tasks:
            task()
        times = np.array([[clock(task) for task in tasks] for _ in range(rounds)]) * 1e3
        steps, ahead, single, run = np.median(times, 0)
        print(f"| {name} | {steps:.2f} | {ahead:.2f} | {run:.2f} | {(run - ahead) / steps:.1f} | {20 * single:.0f} |")
        cells = {"log_prob_steps, ms": steps, "batch, ms": ahead, "backtest, ms": run, "one by one, ms": 20 * single}
        beyond = {"beyond the batch, in log_prob_steps": (run - ahead) / steps}
        record.value(f"{ORIGINS} origins of an ARMA whose parameters are known", case=name, **cells, **beyond)
    record.finish()


def along(model: ps.ARMA, y: np.ndarray, origins: np.ndarray) -> object:
    """States after each origin, leaves (1, origin, ...)."""
    states = [model.filter(y[:origin], history=None).tree for origin in origins]
    return join(states)


def join(states: list[object]) -> object:
    if isinstance(states[0], torch.Tensor):
        return torch.stack(states, 1)  # type: ignore[arg-type]
    parts = [join(list(leaves)) for leaves in zip(*states, strict=True)]  # type: ignore[call-overload]
    kind = type(states[0])
    return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)


def one(states: object, j: int) -> object:
    """The state of one origin, as users carry it."""
    from probseq.estimators.state import State
    from probseq.models.base import map_state

    return State(map_state(lambda leaf: leaf[:, j], states), 1)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
