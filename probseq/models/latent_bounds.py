"""Lower bounds of the log-likelihood of networks with latent variables, for training and for comparing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels import cells
from probseq.kernels.cells import Memory
from probseq.models.base import Batch, map_state
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_state import LatentState, Noise

if TYPE_CHECKING:
    from probseq.models.latent_guide import Guide
    from probseq.models.latent_network import LatentNetwork, Weights

__all__ = ["BOUNDS", "Bound", "Trajectories", "elbo", "iwae", "path_values", "trained_bound", "trajectories"]

BOUNDS = ("elbo", "iwae", "fivo")
# Numbers of one layer of all samples that are evaluated at once.
_AT_ONCE = 2**24


def _always(done: float) -> float:
    return 1.0


class Bound(NamedTuple):
    """What training maximises.

    objective : "elbo", "iwae" (samples of whole paths) or "fivo" (particles that are resampled)
    n_samples : samples or particles of each sequence
    kl_weight : of the fraction of the training that lies behind, by which the divergence of the ELBO is multiplied
    free_bits : nats of divergence of each latent variable and step, on average, that cost nothing
    """

    objective: str = "elbo"
    n_samples: int = 1
    kl_weight: Callable[[float], float] = _always
    free_bits: float = 0.0


class Trajectories(NamedTuple):
    """Paths drawn from an inference network, and what they are worth; m samples of each sequence.

    z : (n, t, m, d)
    log_lik : (n, t, m), log p(x_t | z_t, ...) of the scored values
    divergence : (n, t, m, d), KL(q || p) of each latent variable given z_{t-1}
    log_ratio : (n, t, m), log p(z_t | z_{t-1}) - log q(z_t | z_{t-1}, x)
    final : the state after the last step, with m particles
    guiding : (), log-likelihood of the filtering network on these paths, where another one drew them; else zero
    """

    z: Tensor
    log_lik: Tensor
    divergence: Tensor
    log_ratio: Tensor
    final: LatentState
    guiding: Tensor


class _Guided(NamedTuple):
    context: Tensor
    used: Tensor
    reader: Memory


def trajectories(
    model: LatentNetwork, params: Params, batch: Batch, scored: Tensor, start: LatentState, noise: Tensor
) -> Trajectories:
    """Draw from the inference network that training uses; parameters without draws.

    Parameters
    ----------
    scored : (n, t, k) bool; the divergence counts from the first step with a scored value to the last
    start : the state before the first step, with m particles
    noise : (n, t, m, d), standard normal
    """
    w = model.split(params)
    seen = batch.seen & batch.real.unsqueeze(-1)
    n, t = batch.n, batch.t
    u = None if batch.u is None else batch.u.to(model.dtype)
    folded = None if u is None else u.flatten(0, 1)
    read = model.read(w, batch.x.flatten(0, 1), seen.flatten(0, 1), folded).unflatten(0, (n, t))
    shared, last_shared = _memory_of_data(model, w, read, start.shared)
    described = model.describe(read.flatten(0, 1), shared).unflatten(0, (n, t))
    guide = model.filter_guide if model.smoother_guide is None else model.smoother_guide
    guided = _guided(w, guide, described, seen, start)
    everywhere = bool(guided.used.all())
    z, own, along = start.z, start.own, _Along([], [], [], [])
    for i in range(t):
        prior = None
        if guide.residual or not everywhere:
            now = map_state(lambda leaf, i=i: leaf.unflatten(0, (n, t))[:, i], shared)
            prior = model.prior(w, z, own, now, None if u is None else u[:, i])
        memory = own.hidden[..., -1, :] if model.memory == "path" else None
        law = guide.propose(w.guide, guided.context[:, i].unsqueeze(1), memory, z, prior)
        law = DiagonalLaw(*(leaf.expand_as(z) for leaf in law))
        if prior is not None and not everywhere:
            law = law.where(guided.used[:, i, None, None], prior)
        before, z = z, law.at(noise[:, i])
        along.add(before, own, law, z)
        if model.memory == "path":
            own, _ = model.advance(w, z, own, start.shared, read[:, i])
    before, own_before, law, drawn = along.folded()
    prior = model.prior(w, before, own_before, shared, folded)
    if not everywhere:
        # Where the proposal is the prior their divergence is zero, not what rounding makes of it.
        law = law.where(guided.used.flatten()[:, None, None], prior)
    emitted = model.law(w, drawn, own_before, shared, folded)
    values = model.observation.filled(batch.x, scored).to(model.dtype).flatten(0, 1).unsqueeze(1)
    shape = (*drawn.shape[:-1], values.shape[-1])
    log_lik = emitted.training_score(values.expand(shape), scored.flatten(0, 1).unsqueeze(1).expand(shape))
    counted = (_span(scored) & guided.used).flatten()[:, None]
    divergence = torch.where(counted.unsqueeze(-1), law.kl(prior), 0.0)
    ratio = torch.where(counted, prior.log_prob(drawn) - law.log_prob(drawn), 0.0)
    reader, guiding = guided.reader, log_lik.new_zeros(())
    if model.smoother_guide is not None:
        guiding, reader = _guiding(model, w, described, seen, start, before, own_before, drawn, prior)
    final = start._replace(z=z, own=own, shared=last_shared, reader=reader, steps=start.steps + t)
    back = (drawn, log_lik, divergence, ratio)
    return Trajectories(*(leaf.unflatten(0, (n, t)) for leaf in back), final, guiding)


class _Along(NamedTuple):
    """What a loop over the steps leaves: z_{t-1}, memory before step t, law of z_t and z_t."""

    before: list[Tensor]
    own: list[Memory]
    laws: list[DiagonalLaw]
    z: list[Tensor]

    def add(self, before: Tensor, own: Memory, law: DiagonalLaw, z: Tensor) -> None:
        for kept, one in zip(self, (before, own, law, z)):
            kept.append(one)  # type: ignore[arg-type]

    def folded(self) -> tuple[Tensor, Memory, DiagonalLaw, Tensor]:
        """Leaves (n * t, m, ...)."""

        def fold(*leaves: Tensor) -> Tensor:
            return torch.stack(leaves, 1).flatten(0, 1)

        return fold(*self.before), map_state(fold, *self.own), map_state(fold, *self.laws), fold(*self.z)


def _memory_of_data(model: LatentNetwork, w: Weights, read: Tensor, start: Memory) -> tuple[Memory, Memory]:
    """The memory before every step that all paths share, leaves (n * t, ...), and that after the last."""
    n, t = read.shape[:2]
    if model.cells is None or model.memory != "data":
        return map_state(lambda leaf: leaf.repeat_interleave(t, 0), start), start
    passed = cells.whole(model.cells, w.model["layers"], read, start)
    before = torch.cat([start.hidden, passed.outputs[:, :-1]], 1).flatten(0, 1).unsqueeze(1)
    return Memory(before, before[:, :0]), passed.final


def _guided(w: Weights, guide: Guide, described: Tensor, seen: Tensor, start: LatentState) -> _Guided:
    """What an inference network makes of the data, and at which steps it has a say.

    Where nothing is seen, and where the network looks ahead nothing later either, the prior is the exact law.
    """
    step = torch.arange(1, seen.shape[1] + 1, device=seen.device)
    some = seen.any(-1)
    last = (some * step).amax(1) if seen.shape[1] else some.sum(1)
    used = some if guide.right is None else step <= last.unsqueeze(-1)
    reader = start.reader if guide.name == "filter" else guide.empty_reader(described[:, 0, 0])
    features, reader = guide.read_all(w.guide, reader, described, last)
    return _Guided(guide.context(w.guide, features), used, reader)


def _guiding(
    model: LatentNetwork,
    w: Weights,
    described: Tensor,
    seen: Tensor,
    start: LatentState,
    before: Tensor,
    own: Memory,
    drawn: Tensor,
    prior: DiagonalLaw,
) -> tuple[Tensor, Memory]:
    """sum log q(z_t | z_{t-1}, x_<=t) of the filtering network on paths that another drew, with gradients for it alone.

    Its maximum is p(z_t | z_{t-1}, x_<=t) where the paths are from p(z | x): what particles should be drawn from.
    """
    guided = _guided(w, model.filter_guide, described.detach(), seen, start)
    memory = own.hidden[..., -1, :].detach() if model.memory == "path" else None
    known = DiagonalLaw(prior.loc.detach(), prior.scale.detach())
    context = guided.context.flatten(0, 1).unsqueeze(1)
    law = model.filter_guide.propose(w.guide, context, memory, before.detach(), known)
    each = law.log_prob(drawn.detach())
    return torch.where(guided.used.flatten()[:, None], each, 0.0).mean(-1).sum(), guided.reader


def _span(scored: Tensor) -> Tensor:
    """(n, t) bool, from the first step with a scored value to the last."""
    some = scored.any(-1).long()
    return (some.cumsum(1) > 0) & (some.flip(1).cumsum(1).flip(1) > 0)


def trained_bound(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    scored: Tensor,
    state: LatentState | None,
    bound: Bound,
    generator: torch.Generator,
    done: float,
) -> tuple[Tensor, LatentState]:
    """What training maximises, (n,), and the state after the last step."""
    start = model.start(params, batch.n, bound.n_samples) if state is None else state

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=model.dtype, device=generator.device).to(start.z.device)

    if bound.objective == "fivo":

        def noise(now: LatentState) -> Noise:
            begin = torch.rand(now.begin.shape, generator=generator, dtype=torch.float64, device=generator.device)
            return Noise(drawn(*now.noise.shape), begin.to(now.begin.device), now.key)

        start = start._replace(**noise(start)._asdict())
        steps, _ = model.run(params, batch._replace(seen=batch.seen & scored), start, noise)
        return steps.values.sum(-1), steps.final
    found = trajectories(model, params, batch, scored, start, drawn(batch.n, batch.t, *start.z.shape[1:]))
    final = map_state(torch.Tensor.detach, found.final)
    if bound.objective == "iwae":
        total = (found.log_lik + found.log_ratio).sum(1)
        value = torch.logsumexp(total, -1) - math.log(total.shape[-1])
    else:
        value = found.log_lik.sum(1).mean(-1) - bound.kl_weight(done) * _cost(found.divergence, scored, bound.free_bits)
    # The filtering network learns beside the bound, whose value it leaves as it is.
    return value + (found.guiding - found.guiding.detach()) / batch.n, final


def _cost(divergence: Tensor, scored: Tensor, free: float) -> Tensor:
    """The divergence of each sequence, (n,); below ``free`` nats a step on average, a latent variable costs those."""
    steps = _span(scored).sum(1)
    if free <= 0.0:
        return divergence.sum((1, 3)).mean(-1)
    mean = divergence.mean(2).sum((0, 1)) / steps.sum().clamp_min(1)
    paid = torch.where(mean > free, divergence.mean(2).sum(1), free * steps.unsqueeze(-1))
    return paid.sum(-1)


def elbo(model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator) -> Tensor:
    """E_q[log p(x, z) - log q(z | x)] of each sequence, (n,), over ``n_samples`` paths; parameters without draws."""
    return path_values(model, params, batch, n_samples, generator, "elbo").mean(-1)


def iwae(model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator) -> Tensor:
    """log 1/m sum_i p(x, z^i) / q(z^i | x), (n,): on average a lower bound, the tighter the more samples.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
    """
    return torch.logsumexp(path_values(model, params, batch, n_samples, generator, "iwae"), -1) - math.log(n_samples)


def path_values(
    model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator, bound: str
) -> Tensor:
    """What each of ``n_samples`` paths adds to a bound, (n, m) in double precision: the ELBO is their mean.

    For "iwae" they are log p(x, z^i) - log q(z^i | x).
    """
    of = _elbo_of if bound == "elbo" else _ratio_of
    return torch.cat(_evaluated(model, params, batch, n_samples, generator, of), -1).double()


def _elbo_of(found: Trajectories) -> Tensor:
    return found.log_lik.sum(1) - found.divergence.sum((1, 3))


def _ratio_of(found: Trajectories) -> Tensor:
    return (found.log_lik + found.log_ratio).sum(1)


def _evaluated(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    n_samples: int,
    generator: torch.Generator,
    of: Callable[[Trajectories], Tensor],
) -> list[Tensor]:
    """(n, m) for parts of the samples that fit into memory."""
    width = batch.n * batch.t * max(model.hidden_size, model.n_latent, model.observation.n_variables)
    most = max(1, _AT_ONCE // max(1, width))
    scored, parts = batch.seen & batch.real.unsqueeze(-1), []
    with torch.no_grad():
        for first in range(0, n_samples, most):
            m = min(most, n_samples - first)
            noise = torch.randn((batch.n, batch.t, m, model.n_latent), generator=generator, dtype=model.dtype)
            start = model.start(params, batch.n, m)
            parts.append(of(trajectories(model, params, batch, scored, start, noise.to(start.z.device))))
    return parts
