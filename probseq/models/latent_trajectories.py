"""Paths of latent states drawn from inference networks, and what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels import cells
from probseq.kernels.cells import Memory
from probseq.models.base import Batch, map_state
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_state import LatentState

if TYPE_CHECKING:
    from probseq.models.latent_guide import Guide
    from probseq.models.latent_network import LatentNetwork, Weights

__all__ = ["Trajectories", "trajectories"]


class Trajectories(NamedTuple):
    """Paths drawn from an inference network, and what they are worth; m samples of each sequence.

    z : (n, t, m, d)
    log_lik : (n, t, m), log p(x_t | z_t, ...) of the scored values
    divergence : (n, t, m, d), KL(q || p) of each latent variable given z_{t-1}; with flows it has no closed form, and
        -log_ratio stands in its place, (n, t, m, 1)
    log_ratio : (n, t, m), log p(z_t | z_{t-1}) - log q(z_t | z_{t-1}, x)
    paid : (n, t) bool, the steps at which the last two are counted
    final : the state after the last step, with m particles
    guiding : (n,), log-likelihood of the filtering network on these paths, where another one drew them; else zero
    """

    z: Tensor
    log_lik: Tensor
    divergence: Tensor
    log_ratio: Tensor
    paid: Tensor
    final: LatentState
    guiding: Tensor


class _Guided(NamedTuple):
    """context : (n, t, h); used : (n, t) bool, where the network has a say; everywhere : whether that is all steps"""

    context: Tensor
    used: Tensor
    everywhere: bool
    reader: Memory


def trajectories(
    model: LatentNetwork, params: Params, batch: Batch, scored: Tensor, start: LatentState, noise: Tensor
) -> Trajectories:
    """Draw from the inference network that training uses; parameters without draws.

    Values seen before the first scored one are context: there z_t is drawn by the network that filters, without
    gradients and free of charge, so that what is scored does not help to draw it.

    Parameters
    ----------
    scored : (n, t, k) bool
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
    smoother = model.smoother_guide
    # Beside a network that smooths, the one that filters learns from its paths alone.
    filtering = _guided(w, model.filter_guide, described if smoother is None else described.detach(), seen, start)
    guide = model.filter_guide if smoother is None else smoother
    guided = filtering if smoother is None else _guided(w, smoother, described, seen, start)
    context = _context(seen, scored)
    paid = _until_last(scored) & guided.used & ~context
    given = bool(context.any())
    known = guide.residual or not guided.everywhere or (given and not filtering.everywhere)
    z, own, along = start.z, start.own, _Along([], [], [], [])
    for i in range(t):
        prior = None
        if known:
            now = map_state(lambda leaf, i=i: leaf.unflatten(0, (n, t))[:, i], shared)
            prior = model.prior(w, z, own, now, None if u is None else u[:, i])
        memory = own.hidden[..., -1, :] if model.memory == "path" else None
        before, drawn = z, _drawn(w, guide, guided, i, z, memory, prior, noise)
        z = drawn.z
        if given:
            blind = _drawn(w, model.filter_guide, filtering, i, before, memory, prior, noise) if smoother else drawn
            z = torch.where(context[:, i, None, None], blind.z.detach(), z)
        along.add(before, own, drawn, z)
        if model.memory == "path":
            own, _ = model.advance(w, z, own, start.shared, read[:, i])
    before, own_before, law, base, drawn_z, log_det = along.folded()
    prior = model.prior(w, before, own_before, shared, folded)
    emitted = model.law(w, drawn_z, own_before, shared, folded)
    values = model.observation.filled(batch.x, scored).to(model.dtype).flatten(0, 1).unsqueeze(1)
    shape = (*drawn_z.shape[:-1], values.shape[-1])
    log_lik = emitted.training_score(values.expand(shape), scored.flatten(0, 1).unsqueeze(1).expand(shape))
    counted = paid.flatten()[:, None]
    ratio = prior.log_prob(drawn_z) - law.log_prob(base)
    ratio = torch.where(counted, ratio if log_det is None else ratio + log_det, 0.0)
    if log_det is None:
        divergence = torch.where(counted.unsqueeze(-1), law.kl(prior), 0.0)
    else:
        divergence = -ratio.unsqueeze(-1)
    guiding = log_lik.new_zeros(n)
    if smoother is not None and torch.is_grad_enabled():
        each = _guiding(model, w, filtering, before, own_before, drawn_z, prior).mean(-1).unflatten(0, (n, t))
        guiding = torch.where(filtering.used & ~context, each, 0.0).sum(1)
    final = start._replace(z=z, own=own, shared=last_shared, reader=filtering.reader, steps=start.steps + t)
    back = [leaf.unflatten(0, (n, t)) for leaf in (drawn_z, log_lik, divergence, ratio)]
    return Trajectories(back[0], back[1], back[2], back[3], paid, final, guiding)


class _Drawn(NamedTuple):
    """z : z_t; base : what flows bent to it, itself without flows; log_det : (n, m), None without"""

    law: DiagonalLaw
    base: Tensor
    z: Tensor
    log_det: Tensor | None


def _drawn(
    w: Weights,
    guide: Guide,
    guided: _Guided,
    i: int,
    z: Tensor,
    memory: Tensor | None,
    prior: DiagonalLaw | None,
    noise: Tensor,
) -> _Drawn:
    """z_t of step i from a network where it has a say, elsewhere from the prior."""
    proposal = guide.propose(w.guide, guided.context[:, i].unsqueeze(1), memory, z, prior)
    used = guided.used[:, i, None, None]
    law = proposal.law if prior is None or guided.everywhere else proposal.law.where(used, prior)
    base = law.at(noise[:, i])
    bent, log_det = guide.bend(w.guide, proposal, base)
    return _Drawn(law, base, base if log_det is None else torch.where(used, bent, base), log_det)


class _Along(NamedTuple):
    """What a loop over the steps leaves: z_{t-1}, memory before step t, how z_t was drawn, and z_t."""

    before: list[Tensor]
    own: list[Memory]
    drawn: list[_Drawn]
    z: list[Tensor]

    def add(self, before: Tensor, own: Memory, drawn: _Drawn, z: Tensor) -> None:
        self.before.append(before)
        self.own.append(own)
        self.drawn.append(drawn)
        self.z.append(z)

    def folded(self) -> tuple[Tensor, Memory, DiagonalLaw, Tensor, Tensor, Tensor | None]:
        """z_{t-1}, memory, normal law, its value, z_t and log |det|, leaves (n * t, m, ...)."""

        def fold(*leaves: Tensor) -> Tensor:
            return torch.stack(leaves, 1).flatten(0, 1)

        z = fold(*self.z)
        laws = map_state(fold, *(one.law for one in self.drawn))
        turned = [one.log_det for one in self.drawn if one.log_det is not None]
        base = fold(*(one.base for one in self.drawn)) if turned else z
        return fold(*self.before), map_state(fold, *self.own), laws, base, z, fold(*turned) if turned else None


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
    return _Guided(guide.context(w.guide, features), used, bool(used.all()), reader)


def _guiding(
    model: LatentNetwork, w: Weights, filtering: _Guided, before: Tensor, own: Memory, z: Tensor, prior: DiagonalLaw
) -> Tensor:
    """log q(z_t | z_{t-1}, x_<=t) of the filtering network on paths that another drew, with gradients for it alone.

    Its maximum is p(z_t | z_{t-1}, x_<=t) where the paths are from p(z | x): what particles should be drawn from.
    """
    memory = own.hidden[..., -1, :].detach() if model.memory == "path" else None
    known = DiagonalLaw(prior.loc.detach(), prior.scale.detach())
    context = filtering.context.flatten(0, 1).unsqueeze(1)
    proposal = model.filter_guide.propose(w.guide, context, memory, before.detach(), known)
    return model.filter_guide.log_prob(w.guide, proposal, z.detach())


def _until_last(scored: Tensor) -> Tensor:
    """(n, t) bool, up to the last step with a scored value."""
    return scored.any(-1).long().flip(1).cumsum(1).flip(1) > 0


def _context(seen: Tensor, scored: Tensor) -> Tensor:
    """(n, t) bool, up to the last step with something seen before the first with a scored value."""
    given = seen.any(-1) & (scored.any(-1).long().cumsum(1) == 0)
    return given.long().flip(1).cumsum(1).flip(1) > 0
