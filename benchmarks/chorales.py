"""Bach's chorales (229 for training, 76 for validation, 77 for the test): test nats per step of recurrent networks.

Protocol of Bai, Kolter and Koltun (2018): the log-likelihood of all 88 keys, summed over all steps but the first of
every chorale, over their number. The figure with the first steps, which they leave out, stands beside it. Settings were
chosen, and training is stopped, by the validation part; the test part is scored once, at the end. Published: LSTM 8.45,
GRU 8.43 (Bai et al. 2018, table 1); RNN-NADE 5.19 (Boulanger-Lewandowski et al. 2012, which scores every step).

For a posterior, *averaged* is log (1/D) sum_d p(chorale | w_d), the likelihood of the fitted model, *frozen* averages
over the draws at every step anew, and *point* is the network with the posterior's mean weights.
Run ``python benchmarks/chorales.py``.
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
from torch import Tensor

import probseq as ps


def options(epochs: int, rate: float, smoke: bool) -> ps.TrainingOptions:
    return ps.TrainingOptions(max_epochs=1 if smoke else epochs, learning_rate=rate, batch_size=16, patience=0.3)


def networks(smoke: bool) -> dict[str, ps.LSTM]:
    """The networks by name."""
    bits, nade = ps.Bernoulli(), ps.AutoregressiveBernoulli(100)
    point = ps.MLE(training=options(100, 5e-3, smoke))
    late = ps.MLE(training=options(150, 1e-2, smoke))
    # Masks alone: the divergence of so many weights from their prior would outweigh what the chorales say.
    dropout = ps.MCDropout(0.5, 0.0, n_draws=20, kl_weight=0.0, training=options(100, 5e-3, smoke))
    mean_field = ps.MeanField(n_draws=20, training=options(150, 1e-2, smoke))
    return {
        "LSTM 200": ps.LSTM(200, head=bits, dropout=0.5, weight_dropout=0.3, inference=point, random_state=0),
        "LSTM 100, mean field": ps.LSTM(100, head=bits, inference=mean_field, random_state=0),
        "LSTM 200, dropout kept": ps.LSTM(200, head=bits, inference=dropout, random_state=0),
        "LSTM 128, autoregressive head": ps.LSTM(128, head=nade, dropout=0.3, inference=late, random_state=0),
    }


def per_step(values: Tensor, lengths: Tensor) -> tuple[float, float]:
    """Minus the mean over all steps but the first ones, and over all, of log-likelihoods (n, t)."""
    n = len(lengths)
    late, every = float(values[:, 1:].sum()), float(values.sum())
    return -late / float(lengths.sum() - n), -every / float(lengths.sum())


def scores(net: ps.LSTM, data: Any) -> dict[str, tuple[float, float]]:
    """Averaged, frozen and point scores of a fitted network."""
    batch = net._batch(net._read(data, None))
    own = net.model_
    with torch.no_grad():
        found = {"averaged": own.log_prob_steps({}, batch).values}
        if own.n_draws > 1:
            found["frozen"] = own.frozen().log_prob_steps({}, batch).values
            point = net.draws_.point
            found["point"] = own.model.log_prob_steps(point, batch).values.squeeze(0)
    return {name: per_step(values.double(), batch.lengths) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--test", action="store_true", help="score the test part, not only the validation part")
    args, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    train, valid, test = (ps.datasets.jsb_chorales(part) for part in ("train", "valid", "test"))
    if args.smoke:
        train, valid, test = train[:16], valid[:4], test[:4]
    print("| network | score | validation, t > 1 | all | test, t > 1 | all | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, net in networks(args.smoke).items():
        start = time.process_time()
        net.fit(train, validation=valid)
        seconds = time.process_time() - start
        held = scores(net, valid)
        final = scores(net, test) if args.test or args.smoke else {}
        for kind, (late, every) in held.items():
            tested = "{:.3f} | {:.3f}".format(*final[kind]) if final else "- | -"
            print(f"| {name} | {kind} | {late:.3f} | {every:.3f} | {tested} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
