"""Bach's chorales (229 for training, 76 for validation, 77 for the test): bounds of networks with latent variables.

Minus the ELBO, the IWAE bound of 100 paths and the FIVO bound of 100 particles in nats per step of all 88 keys, every
step scored. Each is on average an upper bound of what a step costs under the model; ± is its Monte Carlo error. Beside
them an LSTM with the same Bernoulli head, which is deterministic and has an exact value. Training is stopped by the
validation part; the test part is scored once, at the end.

Run ``python benchmarks/chorales_latent.py``, with ``--only VRNN`` for networks with that word in their names, with
``--out FOLDER`` to keep the fitted models, with ``--smoke`` for a short run that only shows that everything works.
"""

# ruff: noqa: E402 - threads are pinned before torch loads

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PROBSEQ_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch
from _record import Record, add_options

import probseq as ps

# What other programs printed for these data; papers do not always say which bound, and the words here are theirs.
PUBLISHED = (
    ("deep Markov model, Krishnan et al. 2017", "quoted with 6.93 and with 6.39, without the name of the bound"),
    ("deep Markov model, Pyro's example", "6.87, ELBO"),
    ("LSTM, Bai et al. 2018, without the first steps", "8.45, exact"),
)
# Chorales that are scored at once.
TOGETHER = 20


def networks(smoke: bool) -> dict[str, Any]:
    """The networks by name."""
    training = ps.TrainingOptions(
        max_epochs=1 if smoke else 120, batch_size=20, learning_rate=3e-3, patience=1.0 if smoke else 0.3
    )
    bound = ps.AmortizedVI(kl_annealing=0.2, training=training)
    rates = {"max_epochs": 1 if smoke else 100, "learning_rate": 5e-3, "batch_size": 16}
    point = ps.MLE(training=ps.TrainingOptions(**rates, patience=0.3))
    bits: dict[str, Any] = {"head": ps.Bernoulli(), "random_state": 0}
    return {
        "VRNN": ps.VRNN(32, 150, inference=bound, **bits),
        "LSTM 200": ps.LSTM(200, dropout=0.5, weight_dropout=0.3, inference=point, **bits),
    }


def cost(values: list[Any], steps: int) -> tuple[float, float]:
    """Minus the sum over chorales in nats a step, and the Monte Carlo error of that."""
    total = sum(float(part.sum()) for part in values) / steps
    squares = sum(float(np.square(part.attrs.get("monte_carlo_error", 0.0)).sum()) for part in values)
    return -total, squares**0.5 / steps


def scores(net: Any, data: Any) -> dict[str, tuple[float, float]]:
    """ELBO, IWAE(100) and FIVO(100), or one exact value, each with its Monte Carlo error."""
    parts = [data[first : first + TOGETHER] for first in range(0, len(data), TOGETHER)]
    steps = sum(len(chorale) for chorale in data)
    if not hasattr(net, "elbo"):
        return {"exact": cost([net.log_prob(part) for part in parts], steps)}
    bounds = {"ELBO (5)": (net.elbo, 5), "IWAE (100)": (net.iwae, 100), "FIVO (100)": (net.fivo, 100)}
    return {
        name: cost([bound(part, n, random_state=0) for part in parts], steps) for name, (bound, n) in bounds.items()
    }


def shown(found: dict[str, tuple[float, float]]) -> str:
    """The cells of a row."""
    cells = []
    for name in ("ELBO (5)", "IWAE (100)", "FIVO (100)", "exact"):
        value, error = found.get(name, (None, 0.0))
        cells.append("" if value is None else f"{value:.3f}" + (f" ± {error:.3f}" if error else ""))
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", nargs="+", default=[""], help="networks with one of these words in their names")
    parser.add_argument("--out", type=Path, help="a folder to which the fitted models are saved")
    add_options(parser)
    args, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    train, valid, test = (ps.datasets.jsb_chorales(part) for part in ("train", "valid", "test"))
    if args.smoke:
        train, valid, test = train[:16], valid[:4], test[:4]
    record = Record(
        "chorales_latent",
        "Bach's chorales: bounds of networks with latent variables",
        "Minus the bound in nats per step of all 88 keys, every step scored, lower is better, with its Monte Carlo "
        "error; each is on average an upper bound of what a step costs under the model. Beside it the exact value of a "
        "deterministic network with the same head. Processor seconds of training.",
        args,
    )
    print("| network | part | ELBO (5) | IWAE (100) | FIVO (100) | exact | training, s | scoring, s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, net in networks(args.smoke).items():
        if not any(word in name for word in args.only):
            continue
        start = time.process_time()
        net.fit(train, validation=valid)
        trained = time.process_time() - start
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            net.save(args.out / f"{name.replace(' ', '_')}.probseq")
        for part, data in (("validation", valid), ("test", test)):
            start = time.process_time()
            found = scores(net, data)
            for bound, (value, error) in found.items():
                cells = {"network": name, "part": part, "bound": bound, "nats per step": value}
                record.value("nats per step", **cells, **{"Monte Carlo error": error, "training, s": trained})
            print(
                f"| {name} | {part} | {shown(found)} | {trained:.0f} | {time.process_time() - start:.0f} |", flush=True
            )
    print("\nPublished, test:")
    for name, words in PUBLISHED:
        print(f"  {name}: {words}")
        record.value("published, test part", model=name, words=words)
    record.finish()


if __name__ == "__main__":
    main()
