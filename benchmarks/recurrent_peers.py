"""Bayesian LSTM training steps beside BLiTZ and bayesian-torch, and a whole training beside GluonTS's DeepAR.

A step is one gradient step of a mean-field posterior: batch 32, 100 steps, hidden 64, all in alternation on one thread.
All take it in the same bare loop, and ours inside its training loop too, with checks, schedule and clipping. BLiTZ and
bayesian-torch follow their documentation: one sample of the objective a step. Training: the same series, layer sizes,
lags, head, batch and number of gradient steps. Time is the processor's. Run ``python benchmarks/recurrent_peers.py``;
peers that are not installed are left out. Ratios are what matters.
"""

# ruff: noqa: E402 - threads are pinned before torch loads

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PROBSEQ_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch
from _record import Record, add_options
from recurrent import timed
from torch import Tensor, nn

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel

HIDDEN, N, STEPS = 64, 32, 100
LAGS = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24, 25, 35, 36, 37)
CONTEXT, AHEAD, WIDTH = 72, 24, 40

Step = Callable[[], Any]


def ours(x: Tensor, steps: int) -> float:
    """Median seconds of a mean-field step."""
    emission = Normal()
    model = RecurrentModel(emission, emission.observation(1), "lstm", hidden_size=HIDDEN)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((len(x),), x.shape[1]))
    return timed(model, batch, ps.MeanField().law(model, batch, torch.Generator().manual_seed(0)), steps)


def bare(x: Tensor) -> Step:
    """A mean-field step of ours in the same bare loop as the peers'."""
    emission = Normal()
    model = RecurrentModel(emission, emission.observation(1), "lstm", hidden_size=HIDDEN)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((len(x),), x.shape[1]))
    generator = torch.Generator().manual_seed(0)
    law, specs = ps.MeanField().law(model, batch, generator), model.parameters()
    optimizer = torch.optim.Adam(law.parameters(), lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        (weights,) = law.draw(generator)
        values, _ = model._training_log_prob(law.params(specs, weights), batch, batch.seen, None, generator)
        divergence = law.divergence()
        assert divergence is not None
        loss = divergence - values.sum()
        loss.backward()
        optimizer.step()

    return step


class Net(nn.Module):
    """A Bayesian recurrent layer that predicts mean and scale of the next value."""

    def __init__(self, layer: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def fit(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Log-likelihood of all values."""
        mean, rho = outputs.unbind(-1)
        return torch.distributions.Normal(mean, nn.functional.softplus(rho)).log_prob(x[..., 0]).sum()


def blitz(x: Tensor) -> Step:
    from blitz.modules import BayesianLinear, BayesianLSTM
    from blitz.utils import variational_estimator

    net = variational_estimator(Net)(BayesianLSTM(1, HIDDEN), BayesianLinear(HIDDEN, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)

    def step() -> None:
        optimizer.zero_grad()
        hidden, _ = net.layer(before)
        outputs = net.head(hidden.flatten(0, 1)).unflatten(0, x.shape[:2])
        loss = net.nn_kl_divergence() - net.fit(outputs, x)
        loss.backward()
        optimizer.step()

    return step


def bayesian_torch(x: Tensor) -> Step:
    from bayesian_torch.layers import LinearReparameterization, LSTMReparameterization

    net = Net(LSTMReparameterization(1, HIDDEN), LinearReparameterization(HIDDEN, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)

    def step() -> None:
        optimizer.zero_grad()
        hidden, _, divergence = net.layer(before)
        outputs, head_divergence = net.head(hidden)
        loss = divergence + head_divergence - net.fit(outputs, x)
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Step, steps: int) -> float:
    times = []
    for _ in range(steps):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return statistics.median(times[2:] if steps > 3 else times)


def panel(n: int = 60, t: int = 240) -> np.ndarray:
    """Seasonal series (n, t) of different sizes."""
    rng = np.random.default_rng(0)
    month, phase = np.arange(t), rng.uniform(0, 2 * np.pi, (n, 1))
    level = 100 + 5 * rng.normal(size=(n, t)).cumsum(1)
    return level + 20 * np.sin(2 * np.pi * month / 12 + phase) + 3 * rng.normal(size=(n, t))


def our_training(x: np.ndarray, steps: int) -> float:
    windows = len(x) * -(-x.shape[1] // (CONTEXT + AHEAD))
    epochs = -(-steps // -(-windows // N))
    options = ps.TrainingOptions(
        max_epochs=epochs, batch_size=N, window=CONTEXT + AHEAD, context=0, validation_fraction=0.0, learning_rate=1e-3
    )
    net = ps.LSTM(WIDTH, lags=LAGS, head=ps.StudentT(), inference=ps.MLE(training=options), random_state=0)
    start = time.process_time()
    net.fit(x[..., None])
    return (time.process_time() - start) / (epochs * -(-windows // N))


def gluonts_training(x: np.ndarray, steps: int, folder: str) -> float:
    import pandas as pd
    from gluonts.dataset.common import ListDataset
    from gluonts.torch.model.deepar import DeepAREstimator

    begin = pd.Period("2000-01", freq="M")
    data = ListDataset([{"start": begin, "target": row} for row in x], freq="M")
    estimator = DeepAREstimator(
        freq="M",
        prediction_length=AHEAD,
        context_length=CONTEXT,
        num_layers=1,
        hidden_size=WIDTH,
        lags_seq=list(LAGS),
        batch_size=N,
        num_batches_per_epoch=50,
        dropout_rate=0.0,
        trainer_kwargs={
            "max_epochs": steps // 50,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            "accelerator": "cpu",
        },
    )
    start = time.process_time()
    estimator.train(data, cache_data=True)
    return (time.process_time() - start) / steps


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    add_options(parser)
    args, _ = parser.parse_known_args()
    rounds = 1 if args.smoke else 5
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    record = Record(
        "recurrent_peers",
        "Bayesian LSTMs beside BLiTZ, bayesian-torch and GluonTS",
        f"Processor time of one gradient step of a mean-field posterior, median of each round: batch {N}, {STEPS} "
        f"steps, {HIDDEN} units, all in the same bare loop, ours inside its training loop too; and of a whole "
        "training of the same network as DeepAR's, a step.",
        args,
        ["blitz-bayesian-pytorch", "bayesian-torch", "gluonts"],
    )
    x = torch.randn(N, STEPS, 1, generator=torch.Generator().manual_seed(1)).cumsum(1) / 10
    peers = {"BLiTZ": ("blitz", blitz, 4.0), "bayesian-torch": ("bayesian_torch", bayesian_torch, 20.0)}
    packages = {"BLiTZ": "blitz-bayesian-pytorch", "bayesian-torch": "bayesian-torch"}
    chosen = {name: (build(x), mark) for name, (module, build, mark) in peers.items() if installed(module)}
    own = bare(x)
    times: dict[str, list[float]] = {name: [] for name in ("bare", "training", *chosen)}
    tasks: dict[str, Step] = {
        "training": lambda: ours(x, 8 if args.smoke else 40),
        "bare": lambda: seconds(own, 4 if args.smoke else 40),
        **{name: (lambda step=step: seconds(step, 2 if args.smoke else 6)) for name, (step, _) in chosen.items()},
    }
    for k in range(rounds):
        for name in list(tasks)[:: -1 if k % 2 else 1]:
            times[name].append(tasks[name]())
    middle = {name: 1e3 * statistics.median(each) for name, each in times.items()}
    print(f"one mean-field step: probseq {middle['bare']:.1f} ms, inside its training loop {middle['training']:.1f} ms")
    for name, (_, mark) in chosen.items():
        alone, inside = (
            statistics.median(b / a for a, b in zip(times[way], times[name])) for way in ("bare", "training")
        )
        ratios = f"{alone:.1f} times ours ({inside:.1f} times the training's, mark {mark:g})"
        print(f"    {name} {middle[name]:.1f} ms, {ratios}")
        record.speed("mean-field step, bare loop", "LSTM", packages[name], times["bare"], times[name])
        record.speed("mean-field step, our training loop", "LSTM", packages[name], times["training"], times[name])
        record.mark(f"mean-field step, bare loop: {name} over ours", alone, mark)
    if not chosen:
        record.value("mean-field step", loop="bare", ms=middle["bare"])
        record.value("mean-field step", loop="training", ms=middle["training"])

    data, steps = panel(), 50 if args.smoke else 500
    pairs = []
    for _ in range(1 if args.smoke else 3):
        mine = our_training(data, steps)
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((mine, gluonts_training(data, steps, folder) if installed("gluonts") else float("nan")))
    print(f"a whole training of {steps} steps: probseq {1e3 * statistics.median(a for a, _ in pairs):.1f} ms a step")
    if installed("gluonts"):
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"    DeepAR {1e3 * statistics.median(b for _, b in pairs):.1f} ms, {ratio:.2f} times ours (mark 1)")
        record.speed("training of a DeepAR, a step", "60 series of 240 months", "gluonts, DeepAR", *zip(*pairs))
        record.mark("training of a DeepAR: GluonTS over ours", ratio, 1.0)
    record.finish()


if __name__ == "__main__":
    main()
