"""One mean-field training step beside the same network trained without a posterior, and beside Pyro's AutoNormal.

Batch 32, 100 steps, hidden 64; both nets go through the same loop; processor time. Run
``python benchmarks/recurrent.py``; ``--smoke`` is a short run that only shows that everything works.
"""

from __future__ import annotations

import argparse
import statistics
import time

import lightning.pytorch as pl
import torch
from _record import Record, add_options

import probseq.inference.training as training
from probseq.distributions.emissions import Normal
from probseq.distributions.params import flatten
from probseq.inference.options import TrainingOptions
from probseq.inference.variational import MeanField
from probseq.inference.weights import PointWeights, WeightLaw
from probseq.inference.windows import Windows
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel

TARGET = 1.25


class Clock(pl.Callback):
    """Seconds from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        """Note the time."""
        self.ends.append(time.process_time())

    def step(self) -> float:
        """The median step, the first few left out."""
        return statistics.median(b - a for a, b in zip(self.ends[3:], self.ends[4:]))


def timed(model: RecurrentModel, batch: Batch, law: WeightLaw, steps: int) -> float:
    clock = Clock()
    options = TrainingOptions(max_epochs=steps, batch_size=batch.n, trainer_kwargs={"callbacks": [clock]}, device="cpu")
    training.train(model, law, Windows(batch, batch.seen), torch.Generator().manual_seed(0), options)
    return clock.step()


def pyro_step(model: RecurrentModel, batch: Batch, steps: int) -> float:
    """One step of Pyro's AutoNormal with its analytic divergence, on the same network, in a bare loop."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, TraceMeanField_ELBO
    from pyro.infer.autoguide import AutoNormal
    from pyro.optim import Adam

    shapes = {name: piece.shape for name, piece in model.pieces.items()}

    def law() -> None:
        priors = {name: dist.Normal(torch.zeros(shape), 0.1).to_event(len(shape)) for name, shape in shapes.items()}
        drawn = [pyro.sample(name, prior) for name, prior in priors.items()]
        flat = torch.cat([value.flatten() for value in drawn])
        values = model.predictive({"weights": flat}, batch)[0].log_prob_seen(batch.x, batch.seen)
        pyro.factor("data", values.sum())

    pyro.clear_param_store()
    svi = SVI(law, AutoNormal(law), Adam({"lr": 1e-2}), TraceMeanField_ELBO())
    times = []
    for _ in range(steps):
        start = time.process_time()
        svi.step()
        times.append(time.process_time() - start)
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    add_options(parser)
    args, _ = parser.parse_known_args()
    rounds, steps = (2, 10) if args.smoke else (7, 40)
    torch.set_num_threads(args.threads)
    record = Record(
        "recurrent",
        "A training step of Bayesian recurrent networks",
        "Processor time of one gradient step of a mean-field posterior inside our training loop, median of each round: "
        "batch 32, 100 steps, 64 units; beside the same network trained without a posterior in the same loop, and "
        "beside Pyro's AutoNormal in a bare loop.",
        args,
        ["pyro-ppl"],
        args.threads,
    )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 100, 1, generator=generator).cumsum(1)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((32,), 100))
    emission = Normal()
    for cell in ("lstm", "gru", "rnn"):
        model = RecurrentModel(emission, emission.observation(1), cell, hidden_size=64)
        start = flatten(model.parameters(), model._initial_guess(batch, generator))
        points, bayes, peers = [], [], []
        tasks = (
            (points, lambda: timed(model, batch, PointWeights(start), steps)),  # noqa: B023
            (bayes, lambda: timed(model, batch, MeanField().law(model, batch, generator), steps)),  # noqa: B023
            (peers, lambda: pyro_step(model, batch, steps)),  # noqa: B023
        )
        for k in range(rounds):
            for found, run in tasks[:: -1 if k % 2 else 1]:
                found.append(run())
        record.speed("mean-field training step", cell.upper(), "pyro-ppl", bayes, peers)
        record.speed("mean-field training step", cell.upper(), "probseq, without a posterior", bayes, points)
        ratio = statistics.median(b / a for a, b in zip(points, bayes))
        record.mark(f"{cell.upper()}: mean-field step over a deterministic one", ratio, TARGET, at_least=False)
        peer = statistics.median(b / a for a, b in zip(points, peers))
        print(
            f"{cell}: deterministic {1e3 * statistics.median(points):.2f} ms a step, mean field "
            f"{1e3 * statistics.median(bayes):.2f} ms, ratio {ratio:.2f} (target at most {TARGET}); Pyro AutoNormal "
            f"{1e3 * statistics.median(peers):.2f} ms in a bare loop, ratio {peer:.2f}"
        )
    record.finish()


if __name__ == "__main__":
    main()
