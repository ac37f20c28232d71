"""Bach's chorales (229 for training, 76 for validation, 77 for the test): test nats per step of recurrent networks.

Protocol of Bai, Kolter and Koltun (2018): the log-likelihood of all 88 keys, summed over all steps but the first of
every chorale, over their number. The figure with the first steps, which they leave out, stands beside it. Settings were
chosen, and training is stopped, by the validation part; the test part is scored once, at the end. Published: LSTM 8.45,
GRU 8.43 (Bai et al. 2018, table 1); RNN-NADE 5.19 (Boulanger-Lewandowski et al. 2012, which scores every step).

For a posterior, *averaged* is log (1/D) sum_d p(chorale | w_d), the likelihood of the fitted model, *frozen* averages
over the draws at every step anew, *point* is the network with the posterior's mean weights, and *one draw* the mean
over draws, each for itself. The average over whole chorales needs more draws than that over steps: a chorale has
hundreds of nats, and the few draws that suit it best decide.

Run ``python benchmarks/chorales.py``, with ``--test`` to score the test part too, or with names of networks (``--only
"mean field" ensemble``). The whole table takes about a quarter of an hour of one core.
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

import torch
from _record import Record, add_options
from torch import Tensor

import probseq as ps

# Chorales that are scored at once, under all draws.
TOGETHER = 8


def options(epochs: int, rate: float, smoke: bool, **others: Any) -> ps.TrainingOptions:
    others = {"patience": 0.3, **others}
    return ps.TrainingOptions(max_epochs=1 if smoke else epochs, learning_rate=rate, batch_size=16, **others)


def networks(smoke: bool) -> dict[str, ps.LSTM | ps.GRU]:
    """The networks by name."""
    bits, nade, n_draws = ps.Bernoulli(), ps.AutoregressiveBernoulli(100), 4 if smoke else 500
    point = ps.MLE(training=options(100, 5e-3, smoke))
    late = ps.MLE(training=options(150, 1e-2, smoke))
    # Masks alone: the divergence of so many weights from their prior would outweigh what the chorales say.
    dropout = ps.MCDropout(0.5, 0.0, n_draws=20, kl_weight=0.0, training=options(100, 5e-3, smoke))
    # The mean of the weights is at its best long before their standard deviations have settled: no early stopping.
    mean_field = ps.MeanField(
        n_draws=n_draws,
        prior_scale="learnt",
        initial_scale=0.01,
        kl_warmup=0.5,
        draws_per_batch=4,
        training=options(400, 1e-2, smoke, patience=1.0),
    )
    noise: dict[str, Any] = {"dropout": 0.5, "weight_dropout": 0.3, "random_state": 0}
    return {
        "LSTM 200": ps.LSTM(200, head=bits, inference=point, **noise),
        "LSTM 200, ensemble of 3": ps.LSTM(200, head=bits, inference=ps.Ensemble(3, point), **noise),
        "GRU 64, mean field": ps.GRU(64, head=bits, inference=mean_field, random_state=0),
        "LSTM 200, dropout kept": ps.LSTM(200, head=bits, inference=dropout, random_state=0),
        "LSTM 128, autoregressive head": ps.LSTM(128, head=nade, dropout=0.3, inference=late, random_state=0),
    }


def sums(values: Tensor) -> Tensor:
    """Log-likelihoods (*draw, n, t) summed over all steps but the first, and over all: (*draw, 2)."""
    each = values.double().sum(-2)
    return torch.stack([each[..., 1:].sum(-1), each.sum(-1)], -1)


def scores(net: ps.LSTM | ps.GRU, data: Any) -> dict[str, list[float]]:
    """Minus the mean log-likelihood of a fitted network over all steps but the first ones, and over all, by score."""
    own, found, steps = net.model_, dict[str, Tensor](), torch.zeros(2)
    point = getattr(net.draws_, "point", None)
    for first in range(0, len(data), TOGETHER):
        batch = net._batch(net._read(data[first : first + TOGETHER], None))
        steps = steps + torch.stack([(batch.lengths - 1).sum(), batch.lengths.sum()])
        with torch.no_grad():
            parts = {"averaged": sums(own.log_prob_steps({}, batch).values)}
            if own.n_draws > 1:
                parts["frozen"] = sums(own.frozen().log_prob_steps({}, batch).values)
                parts["one draw"] = sums(own.model.log_prob_steps(own.params, batch).values).mean(0)
            if point:
                parts["point"] = sums(own.model.log_prob_steps(point, batch).values).squeeze(0)
        found = {name: part + found.get(name, 0.0) for name, part in parts.items()}
    return {name: (-total / steps).tolist() for name, total in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--test", action="store_true", help="score the test part, not only the validation part")
    parser.add_argument("--only", nargs="+", default=[""], help="networks with one of these words in their names")
    add_options(parser)
    args, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    train, valid, test = (ps.datasets.jsb_chorales(part) for part in ("train", "valid", "test"))
    if args.smoke:
        train, valid, test = train[:16], valid[:4], test[:4]
    record = Record(
        "chorales",
        "Bach's chorales: exact likelihoods of recurrent networks",
        "Minus the log-likelihood in nats per step of all 88 keys, lower is better: without the first step of each "
        "chorale (t > 1), as in Bai, Kolter and Koltun (2018), and with it; processor seconds of the fit.",
        args,
    )
    print("| network | score | validation, t > 1 | all | test, t > 1 | all | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, net in networks(args.smoke).items():
        if not any(word in name for word in args.only):
            continue
        start = time.process_time()
        net.fit(train, validation=valid)
        seconds = time.process_time() - start
        held = scores(net, valid)
        final = scores(net, test) if args.test or args.smoke else {}
        for kind, (late, every) in held.items():
            tested = "{:.3f} | {:.3f}".format(*final[kind]) if final else "- | -"
            print(f"| {name} | {kind} | {late:.3f} | {every:.3f} | {tested} | {seconds:.0f} |", flush=True)
            cells = {"network": name, "score": kind, "validation, t > 1": late, "validation": every}
            cells |= dict(zip(("test, t > 1", "test"), final[kind])) if final else {}
            record.value("nats per step", **cells, seconds=seconds)
    record.finish()


if __name__ == "__main__":
    main()
