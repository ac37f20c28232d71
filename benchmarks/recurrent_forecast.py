"""A forecast of 30 draws x 100 paths x 24 steps in one batched pass, beside one draw at a time and GluonTS's DeepAR.

Two layers of 40 units, one series, single precision, one thread, processor time, all in alternation. One draw at a time
is the same code with the paths of each draw in a pass of their own. DeepAR's network has one set of weights and draws
3000 paths in its own predictor; it is left out where GluonTS is not installed. Run
``python benchmarks/recurrent_forecast.py``.
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

import probseq as ps
from probseq.distributions.params import take_draw

DRAWS, PATHS, HORIZON, WIDTH, LAYERS, LENGTH = 30, 100, 24, 40, 2, 200


def ours(y: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The forecast in one pass, and one draw at a time."""
    training = ps.TrainingOptions(max_epochs=1)
    net = ps.LSTM(WIDTH, LAYERS, inference=ps.MeanField(n_draws=DRAWS, training=training), random_state=0).fit(y)
    model, state = net.model_, net.training_state_
    inner = model._unpack(state)

    def together() -> Any:
        return net.forecast(HORIZON, n_paths=DRAWS * PATHS, random_state=0)

    def one_by_one() -> list[torch.Tensor]:
        generator, paths = torch.Generator().manual_seed(0), []
        for d in range(DRAWS):
            one = slice(d, d + 1)
            start = type(inner)(*(leaf[one].expand(1, PATHS, *leaf.shape[2:]) for leaf in inner))
            paths.append(model.model.sample(take_draw(model.params, one), start, HORIZON, generator)[0])
        return paths

    return together, one_by_one


def deepar(y: np.ndarray, folder: str) -> Callable[[], Any] | None:
    """GluonTS's predictor with as many paths, after one training step."""
    if importlib.util.find_spec("gluonts") is None:
        return None
    from gluonts.dataset.common import ListDataset
    from gluonts.torch.distributions import NormalOutput
    from gluonts.torch.model.deepar import DeepAREstimator

    data = ListDataset([{"start": "2000-01-01", "target": y}], freq="D")
    estimator = DeepAREstimator(
        freq="D",
        prediction_length=HORIZON,
        context_length=72,
        num_layers=LAYERS,
        hidden_size=WIDTH,
        dropout_rate=0.0,
        lags_seq=[1],
        time_features=[],
        distr_output=NormalOutput(),
        num_parallel_samples=DRAWS * PATHS,
        num_batches_per_epoch=1,
        trainer_kwargs={"max_epochs": 1, "logger": False, "enable_progress_bar": False, "default_root_dir": folder},
    )
    predictor = estimator.train(data)
    return lambda: list(predictor.predict(data))


def main(repeats: int, options: argparse.Namespace) -> None:
    """Print seconds and ratios."""
    record = Record(
        "recurrent_forecast",
        "Forecasts of Bayesian recurrent networks",
        f"Processor time of {DRAWS * PATHS} paths of {HORIZON} steps of an LSTM of {LAYERS} layers of {WIDTH} units. "
        f"Ours are of {DRAWS} draws of the weights, {PATHS} paths of each; DeepAR's network has one set of weights.",
        options,
        ["gluonts"],
    )
    torch.set_num_threads(1)
    y = np.cumsum(np.random.default_rng(0).normal(size=LENGTH))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        together, one_by_one = ours(y)
        ways = {"one pass": together, "one draw at a time": one_by_one}
        peer = deepar(y, folder)
        if peer is not None:
            ways["DeepAR (GluonTS)"] = peer
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for k in range(repeats + 1):
            for name, run in list(ways.items())[:: -1 if k % 2 else 1]:
                start = time.process_time()
                run()
                seconds[name].append(time.process_time() - start)
    first = statistics.median(seconds["one pass"][1:])
    for name, each in seconds.items():
        middle, least = statistics.median(each[1:]), min(each[1:])
        print(f"{name:20s} median {middle * 1e3:7.1f} ms, least {least * 1e3:7.1f} ms, ratio {middle / first:5.2f}")
    first = seconds["one pass"][1:]
    case = f"{DRAWS} draws x {PATHS} paths x {HORIZON} steps"
    record.speed("forecast", case, "probseq, one draw at a time", first, seconds["one draw at a time"][1:])
    if peer is not None:
        record.speed("forecast", case, "gluonts, DeepAR", first, seconds["DeepAR (GluonTS)"][1:])
    record.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one repetition")
    add_options(parser)
    given = parser.parse_args()
    main(1 if given.smoke else 15, given)
