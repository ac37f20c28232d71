"""The bound of a deep Markov model against the same model in Pyro, by the same noise."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.func import functional_call
from torch.nn.functional import softplus

from probseq.distributions.emissions import Bernoulli, Normal
from probseq.models.base import Batch
from probseq.models.latent_families import DeepMarkovModel
from probseq.models.latent_trajectories import trajectories
from tests.models.test_latent_flow import of_pyro

LATENT, HIDDEN, VARIABLES, STEPS, SAMPLES = 3, 5, 2, 8, 2


def a_batch(head) -> Batch:
    """Ragged, with single values missing, whole steps, the first ones of a sequence and the last ones of another."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, STEPS, VARIABLES, generator=generator).double()
    x = (x > 0).double() if isinstance(head, Bernoulli) else x
    lengths = torch.tensor([8, 6, 8, 3])
    seen = torch.rand(x.shape, generator=generator) < 0.8
    seen[0, 3], seen[1, :2], seen[2, 6:] = False, False, False
    seen &= (torch.arange(STEPS) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return Batch(torch.where(seen, x, 0.0), seen, lengths)


class Moved(dist.Normal):
    """The normal law, whose draws are those of given noise."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale, validate_args=False)
        self.noise = noise

    def expand(self, batch_shape, _instance=None):
        return Moved(*(leaf.expand(batch_shape) for leaf in (self.loc, self.scale, self.noise)))

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise


class Peer:
    """z_t by a gated transition, x_t by one hidden layer, q(z_t | z_t-1, x) from nets of torch; laws of Pyro."""

    def __init__(self, model, params, batch, noise):
        self.w, self.model, self.batch, self.noise = model.split(params), model, batch, noise
        self.inside = model.filter_guide if model.smoother_guide is None else model.smoother_guide
        some = batch.seen.any(-1)
        last = [int(row.nonzero().max()) + 1 for row in some]
        self.used = some if self.inside.right is None else torch.arange(STEPS) < torch.tensor(last).unsqueeze(-1)
        bits = isinstance(model.head, Bernoulli)
        shown = torch.where(batch.seen, 2 * batch.x - 1 if bits else batch.x, 0.0)
        shown = shown if bits else torch.cat([shown, batch.seen.double()], -1)
        features = []
        if self.inside.left is not None:
            features.append(self.recurrent(self.inside.block_left, shown))
        if self.inside.right is not None:
            behind = shown.new_zeros(len(shown), STEPS, HIDDEN)
            for i, end in enumerate(last):
                behind[i, :end] = self.recurrent(self.inside.block_right, shown[i : i + 1, :end].flip(1))[0].flip(0)
            features.append(behind)
        self.features = torch.cat(features, -1)

    def recurrent(self, block, x):
        gru = nn.GRU(x.shape[-1], HIDDEN, batch_first=True).double()
        pieces = self.w.guide[block].split([leaf.numel() for leaf in gru.parameters()])
        named = {name: piece.view(leaf.shape) for piece, (name, leaf) in zip(pieces, gru.named_parameters())}
        return functional_call(gru, named, (x,))[0]

    def linear(self, name, x):
        w = self.w.model if f"{name}.weight" in self.w.model else self.w.guide
        return x @ w[f"{name}.weight"].mT + w[f"{name}.bias"]

    def net(self, name, x):
        return self.linear(f"{name}.1", torch.tanh(self.linear(f"{name}.0", x)))

    def transition(self, z):
        gate, proposed = torch.sigmoid(self.net("transition.gate", z)), self.net("transition.proposed", z)
        loc = (1 - gate) * self.linear("transition.linear.0", z) + gate * proposed
        return loc, softplus(self.linear("transition.scale.0", torch.tanh(proposed))) + 1e-4

    def generative(self):
        with pyro.plate("sequence", self.batch.n, dim=-2), pyro.plate("sample", SAMPLES, dim=-1):
            self.generate()

    def guide(self):
        with pyro.plate("sequence", self.batch.n, dim=-2), pyro.plate("sample", SAMPLES, dim=-1):
            self.infer()

    def generate(self):
        z = self.w.model["start"].expand(self.batch.n, SAMPLES, LATENT)
        for t in range(STEPS):
            loc, scale = self.transition(z)
            z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
            hidden = torch.tanh(self.linear("emission.0", z))
            found = hidden @ self.w.model["head.hidden"].mT + self.w.model["head.bias"]
            if isinstance(self.model.head, Bernoulli):
                law = dist.Bernoulli(logits=found)
            else:
                law = dist.Normal(found[..., :VARIABLES], softplus(found[..., VARIABLES:]))
            seen, x = (leaf[:, t].unsqueeze(1).expand(-1, SAMPLES, -1) for leaf in (self.batch.seen, self.batch.x))
            pyro.sample(f"x_{t}", law.mask(seen).to_event(1), obs=x)

    def infer(self):
        z = self.w.model["start"].expand(self.batch.n, SAMPLES, LATENT)
        for t in range(STEPS):
            beside = self.features[:, t].unsqueeze(1).expand(-1, SAMPLES, -1)
            seen_by = torch.cat([beside, z], -1)
            loc, raw = self.net(f"{self.inside.name}.combine", seen_by).chunk(2, -1)
            used, (blind, spread) = self.used[:, t, None, None], self.transition(z)
            law = Moved(
                torch.where(used, loc, blind), torch.where(used, softplus(raw) + 1e-4, spread), self.noise[:, t]
            )
            z = pyro.sample(f"z_{t}", self.bent(law, seen_by))

    def bent(self, law, seen_by):
        if self.inside.flow is None:
            return law.to_event(1)
        context = seen_by @ self.w.guide[f"{self.inside.name}.combine.0.weight"].mT
        steps = [of_pyro(self.inside.flow, self.w.guide, i) for i in range(len(self.inside.flow.names))]
        return dist.TransformedDistribution(law, [step.condition(context) for step in steps])


def a_case(head, inference, flow_layers, batch):
    model = DeepMarkovModel(
        head,
        head.observation(VARIABLES, None),
        LATENT,
        HIDDEN,
        inference=inference,
        flow_layers=flow_layers,
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(0)
    params = {
        name: 0.4 * torch.randn(spec.shape, generator=generator).double() for name, spec in model.parameters().items()
    }
    noise = torch.randn(batch.n, STEPS, SAMPLES, LATENT, generator=generator).double()
    return model, {name: value.requires_grad_() for name, value in params.items()}, noise


@pytest.mark.parametrize("head", [Bernoulli(), Normal()], ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("inference", ["left", "right", "both"])
def test_bound_and_slopes_are_those_of_pyro(head, inference):
    batch = a_batch(head)
    model, params, noise = a_case(head, inference, 0, batch)
    found = trajectories(model, params, batch, batch.seen, model.start(params, batch.n, SAMPLES), noise)
    total = (found.log_lik + found.log_ratio).sum()
    peer = Peer(model, params, batch, noise)
    loss = Trace_ELBO().differentiable_loss(peer.generative, peer.guide)
    assert total.item() == pytest.approx(-loss.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(each, list(params.values())) for each in (total, -loss))
    for a, b in zip(ours, theirs):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)
        assert bool(a.any())


def test_the_bound_with_flows_is_that_of_pyro():
    """Where everything is seen: elsewhere ours leave the prior as it is."""
    batch = a_batch(Normal())
    full = torch.ones_like(batch.seen)
    batch = Batch(torch.where(batch.seen, batch.x, 0.3), full, torch.full((batch.n,), STEPS))
    model, params, noise = a_case(Normal(), "both", 2, batch)
    found = trajectories(model, params, batch, full, model.start(params, batch.n, SAMPLES), noise)
    peer = Peer(model, params, batch, noise)
    loss = Trace_ELBO().differentiable_loss(peer.generative, peer.guide)
    assert (found.log_lik + found.log_ratio).sum().item() == pytest.approx(-loss.item(), rel=1e-12)
