"""One training step of a deep Markov model beside the same model in Pyro, and the particle filter over 77 chorales.

Chorales in batches of 20, latent size 32, hidden layers of 100; the inference network reads from the right. Pyro's
model is written as its own example does: one sample statement a latent state and one an observation, ``Trace_ELBO``.
Time is the processor's. Run ``python benchmarks/latent.py``; ``--smoke`` is a short run that only shows that everything
works.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from _record import Record, add_options
from torch import Tensor, nn

import probseq as ps
from probseq.distributions.emissions import Bernoulli
from probseq.errors import ApproximationWarning
from probseq.models.base import Batch
from probseq.models.latent_families import DeepMarkovModel, VariationalRecurrentModel

TARGET = 1.5
LATENT, HIDDEN = 32, 100


def chorales(split: str, n: int | None = None) -> Batch:
    rolls = [np.asarray(roll) for roll in ps.datasets.jsb_chorales(split)][:n]
    longest = max(map(len, rolls))
    x = torch.zeros(len(rolls), longest, 88)
    lengths = torch.tensor([len(roll) for roll in rolls])
    for i, roll in enumerate(rolls):
        x[i, : len(roll)] = torch.from_numpy(roll.astype(np.float32))
    seen = (torch.arange(longest) < lengths.unsqueeze(-1)).unsqueeze(-1).expand(x.shape)
    return Batch(x, seen, lengths)


def ours(batch: Batch) -> Callable[[], None]:
    head = Bernoulli()
    model = DeepMarkovModel(head, head.observation(88), LATENT, HIDDEN, inference="right")
    generator = torch.Generator().manual_seed(0)
    weights = {name: w.requires_grad_() for name, w in model._initial_guess(batch, generator).items()}
    optimizer = torch.optim.Adam(weights.values(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        values, _ = model._training_log_prob(weights, batch, batch.seen, None, generator)
        (-values.sum()).backward()
        optimizer.step()

    return step


class PyroMarkov(nn.Module):
    """z_t ~ gated transition, x_t ~ one hidden layer, q(z_t | z_{t-1}, right) with a GRU from the right."""

    def __init__(self) -> None:
        super().__init__()

        def net(into: int, out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(into, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, out))

        self.gate, self.proposed = net(LATENT, LATENT), net(LATENT, LATENT)
        self.plain, self.spread = nn.Linear(LATENT, LATENT), nn.Linear(LATENT, LATENT)
        self.emit = net(LATENT, 88)
        self.rnn = nn.GRU(88, HIDDEN, batch_first=True)
        self.look, self.back = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.loc, self.scale = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.z_0, self.z_q_0 = nn.Parameter(torch.zeros(LATENT)), nn.Parameter(torch.zeros(LATENT))

    def transition(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z_t."""
        gate, proposed = torch.sigmoid(self.gate(z)), self.proposed(z)
        spread = nn.functional.softplus(self.spread(torch.tanh(proposed)))
        return (1 - gate) * self.plain(z) + gate * proposed, spread

    def model(self, x: Tensor, mask: Tensor) -> None:
        """The generative model, with a name for every step."""
        import pyro
        import pyro.distributions as dist

        pyro.module("markov", self)
        z = self.z_0.expand(len(x), LATENT)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                loc, scale = self.transition(z)
                z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).mask(mask[:, t : t + 1]).to_event(1))
                law = dist.Bernoulli(logits=self.emit(z)).mask(mask[:, t : t + 1]).to_event(1)
                pyro.sample(f"x_{t}", law, obs=x[:, t])

    def guide(self, x: Tensor, mask: Tensor) -> None:
        """The inference network, with the same names."""
        import pyro
        import pyro.distributions as dist

        pyro.module("markov", self)
        last = mask.sum(1).long()
        step = torch.arange(x.shape[1])
        turn = torch.where(step < last.unsqueeze(-1), last.unsqueeze(-1) - 1 - step, step).unsqueeze(-1)
        outputs, _ = self.rnn(x.gather(1, turn.expand_as(x)))
        outputs = outputs.gather(1, turn.expand_as(outputs))
        z = self.z_q_0.expand(len(x), LATENT)
        with pyro.plate("sequences", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                hidden = torch.tanh(self.look(z) + self.back(outputs[:, t]))
                scale = nn.functional.softplus(self.scale(hidden))
                z = pyro.sample(f"z_{t}", dist.Normal(self.loc(hidden), scale).mask(mask[:, t : t + 1]).to_event(1))


def theirs(batch: Batch) -> Callable[[], None]:
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import ClippedAdam

    pyro.clear_param_store()
    net, mask = PyroMarkov(), batch.real
    svi = SVI(net.model, net.guide, ClippedAdam({"lr": 1e-3}), Trace_ELBO())
    return lambda: svi.step(batch.x, mask)


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def evaluated(batch: Batch, n_particles: int) -> float:
    head = Bernoulli()
    model = VariationalRecurrentModel(head, head.observation(88), LATENT, 150, n_particles=n_particles)
    params = model._initial_guess(batch, torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ApproximationWarning)  # a network that is not trained proposes badly
        return seconds(lambda: model.log_prob(params, batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    add_options(parser)
    args, _ = parser.parse_known_args()
    torch.set_num_threads(args.threads)
    record = Record(
        "latent",
        "Deep Markov models beside Pyro",
        "Processor time of one training step of the same deep Markov model on 20 chorales: latent size 32, hidden "
        "layers of 100.",
        args,
        ["pyro-ppl"],
        args.threads,
    )
    batch = chorales("train", 4 if args.smoke else 20)
    if args.smoke:
        batch = batch._replace(x=batch.x[:, :8], seen=batch.seen[:, :8], lengths=batch.lengths.clamp_max(8))
    own, peer = ours(batch), theirs(batch)
    own(), peer()
    rounds = 2 if args.smoke else 15
    pairs = []
    for k in range(rounds):
        taken = {run: seconds(run) for run in ((own, peer) if k % 2 else (peer, own))}
        pairs.append((taken[own], taken[peer]))
    record.speed("training step, deep Markov model", f"{batch.n} chorales", "pyro-ppl", *zip(*pairs))
    own_seconds, peer_seconds = (statistics.median(each) for each in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"deep Markov model, {batch.n} chorales of up to {batch.t} steps: {own_seconds:.3f} s a training step, Pyro "
        f"{peer_seconds:.3f} s, ratio {ratio:.2f} (target at most {TARGET})"
    )
    test, particles = (batch, 10) if args.smoke else (chorales("test"), 100)
    took = evaluated(test, particles)
    print(f"VRNN, {particles} particles over {test.n} chorales: {took:.1f} s (target under 30)")
    record.value("particle filter of a VRNN", chorales=test.n, particles=particles, seconds=took)
    record.mark("training step of a deep Markov model, ours over Pyro's", ratio, TARGET, at_least=False)
    record.mark("particle filter over the chorales, seconds", took, 30.0, at_least=False)
    record.finish()


if __name__ == "__main__":
    main()
