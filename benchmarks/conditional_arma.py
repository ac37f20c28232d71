"""AR(1)-GARCH(1, 1) with Student t innovations against arch, side by side in one process.

Run as ``python benchmarks/conditional_arma.py`` where arch is installed. Every figure is the median over rounds of the
ratio of processor times within a round; the peer goes first in one round and last in the next. All thread pools are
pinned to one thread.

The peer is ``arch.univariate.ARX(lags=1)`` with ``GARCH(1, 0, 1)`` and ``StudentsT``, its defaults otherwise. Both
sides are whole estimators: reading, starting values, maximum and standard errors. Ours starts the variance at its
unconditional value, arch at a smoothed average of the first squares, so that their likelihoods differ a little; the
last column says by how many nats our maximum is above our likelihood at arch's estimates.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _record import Record, add_options
from threadpoolctl import threadpool_limits

import probseq as ps

try:
    from arch.univariate import ARX, GARCH, StudentsT
except ImportError:
    ARX = None

TRUTH = {"ar": [0.1], "mean": 0.05, "omega": 0.05, "garch": [0.08, 0.9], "df": 6.0}


def make() -> ps.ARMA:
    return ps.ARMA((1, 0), innovations="studentt", volatility=ps.GARCH(1, 1))


def theirs(y: np.ndarray) -> dict[str, float]:
    found = ARX(y, lags=1, volatility=GARCH(1, 0, 1), distribution=StudentsT(), rescale=False).fit(disp="off")
    found.std_err  # noqa: B018 - computed when asked for, as ours always are
    return dict(found.params)


def lead(y: np.ndarray) -> float:
    """Our maximum less our likelihood at arch's estimates, in nats."""
    p = theirs(y)
    ar = p["y[1]"]
    values = {"ar": [ar], "mean": p["Const"] / (1 - ar), "omega": p["omega"], "df": p["nu"]}
    same = make().with_parameters(garch=[p["alpha[1]"], p["beta[1]"]], **values)
    return make().fit(y).log_likelihood_ - float(same.log_prob(y))


def clock(task: object, y: np.ndarray) -> float:
    start = time.process_time()
    task(y)  # type: ignore[operator]
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="one short round, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    rounds = 1 if options.smoke else options.rounds
    if ARX is None:
        y = make().with_parameters(**TRUTH).sample(500, random_state=0).values.ravel()
        print(f"arch is not installed; ours alone reached {make().fit(y).log_likelihood_:.4f} nats")
        return
    record = Record(
        "conditional_arma",
        "AR(1)-GARCH(1, 1) with Student t innovations beside arch",
        "Processor time of a whole fit: starting values, maximum and standard errors.",
        options,
        ["arch"],
    )
    print(f"{'steps':>6} {'arch, ms':>9} {'ours, ms':>9} {'ratio':>6} {'lead, nats':>11}")
    with threadpool_limits(1):
        for n in (1000,) if options.smoke else (1000, 2000, 4000):
            y = make().with_parameters(**TRUTH).sample(n, random_state=n).values.ravel()
            gap = lead(y)
            times = np.empty((rounds, 2))
            for i in range(rounds):
                for j in (0, 1) if i % 2 else (1, 0):
                    times[i, j] = clock((theirs, make().fit)[j], y)
            peer, own = np.median(times, 0) * 1e3
            print(f"{n:>6} {peer:>9.1f} {own:>9.1f} {np.median(times[:, 0] / times[:, 1]):>6.1f} {gap:>11.2e}")
            record.speed("fit", f"{n} steps", "arch", times[:, 1], times[:, 0])
            record.value("how far our maximum is above our likelihood at arch's estimates", steps=n, nats=gap)
    record.finish()


if __name__ == "__main__":
    main()
