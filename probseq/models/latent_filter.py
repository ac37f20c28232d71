"""A particle filter: propose, weigh and, where few particles carry the weight, resample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.errors import ApproximationWarning
from probseq.models.base import Batch, Steps, map_state, where_sequence
from probseq.models.latent_errors import Lineages
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_proposals import laplace_law
from probseq.models.latent_state import Cloud, LatentState, Noise, keys_after, noise_of
from probseq.models.resampling import effective_size, of_particles, resample

if TYPE_CHECKING:
    from probseq.models.latent_network import LatentNetwork, Weights

__all__ = ["Stepped", "run", "step"]

_FEW = 0.05
_TINY = 1e-300


class Stepped(NamedTuple):
    """value, error : (*draw, n); size : effective number of particles (*draw, n)
    z, log_weights : of the particles before they are resampled; chosen : (*draw, n, particle), which go on
    """

    value: Tensor
    error: Tensor
    size: Tensor
    z: Tensor
    log_weights: Tensor
    chosen: Tensor
    state: LatentState


def step(
    model: LatentNetwork,
    params: Params,
    state: LatentState,
    x: Tensor,
    seen: Tensor,
    u: Tensor | None = None,
    noise: Callable[[LatentState], Noise] | None = None,
) -> Stepped:
    """Propose, weigh and, where few particles carry the weight, resample.

    ``noise`` gives that of the next step; without it, it comes from the key of the state and the values seen.
    """
    w = model.split(params)
    own, shared, reader = state.own, state.shared, state.reader
    prior = model.prior(w, state.z, own, shared, u)
    read = model.read(w, x, seen, u)
    features, reader = model.filter_guide.read(w.guide, reader, model.describe(read, shared))
    values = model.observation.filled(x, seen).to(model.dtype).unsqueeze(-2)
    known = seen.unsqueeze(-2)

    def gain(z: Tensor) -> Tensor:
        law = model.law(w, z, own, shared, u)
        shape = (*z.shape[:-1], values.shape[-1])
        return law.log_prob_seen(values.expand(shape), known.expand(shape))

    some = known.any(-1)
    context = model.filter_guide.context(w.guide, features).unsqueeze(-2)
    z, ratio = _proposed(model, w, state, prior, context, some, gain)
    change = torch.where(some, gain(z) + ratio, 0.0).double()
    total = torch.logsumexp(state.log_weights + change, -1)
    possible = (total > -torch.inf).unsqueeze(-1)
    # Values that no particle can explain leave the weights as they are: none is preferred.
    log_weights = torch.where(possible, state.log_weights + change - total.unsqueeze(-1), state.log_weights)
    off = torch.where(possible, log_weights.detach().exp() - state.log_weights.detach().exp(), 0.0)
    own, shared = model.advance(w, z, own, shared, read)
    size = effective_size(log_weights.detach())
    few = size < 0.5 * z.shape[-2]
    chosen = torch.arange(z.shape[-2], device=z.device).expand(log_weights.shape)
    after_z, after_own, after_weights = z, own, log_weights
    if bool(few.any()):
        again = resample(log_weights, begin=state.begin)
        chosen = torch.where(few.unsqueeze(-1), again, chosen)
        after_z, after_own = of_particles((z, own), chosen)
        even = torch.full_like(log_weights, -math.log(z.shape[-2]))
        after_weights = torch.where(few.unsqueeze(-1), even, log_weights)
    after = LatentState(
        after_z, after_own, shared, reader, after_weights, state.noise, state.begin, state.key, state.steps + 1
    )
    if noise is None:
        key = keys_after(state.key, values.squeeze(-2), seen)
        fresh = noise_of(key, z.shape[-2], model.n_latent, model.dtype)
    else:
        fresh = noise(after)
    after = after._replace(noise=fresh.noise, begin=fresh.begin, key=fresh.key)
    return Stepped(total.to(model.dtype), off.square().sum(-1).sqrt(), size, z, log_weights, chosen, after)


def _proposed(
    model: LatentNetwork,
    w: Weights,
    state: LatentState,
    prior: DiagonalLaw,
    context: Tensor,
    some: Tensor,
    gain: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """z_t, drawn from q where ``some`` (n, 1) values are seen, and log p(z_t | z_{t-1}) - log q(z_t | z_{t-1}, x)."""
    if model.proposal == "prior":
        return prior.at(state.noise), torch.zeros_like(state.noise[..., 0])
    if model.proposal == "laplace":
        normal = laplace_law(prior, gain)
        z = normal.at(state.noise)
        return z, prior.log_prob(z) - normal.log_prob(z)
    guide, memory = model.filter_guide, state.own.hidden[..., -1, :] if model.memory == "path" else None
    proposal = guide.propose(w.guide, context, memory, state.z, prior)
    law = proposal.law.where(some.unsqueeze(-1), prior)
    base = law.at(state.noise)
    z, log_det = guide.bend(w.guide, proposal, base)
    if log_det is None:
        return z, prior.log_prob(z) - law.log_prob(z)
    z = torch.where(some.unsqueeze(-1), z, base)
    return z, prior.log_prob(z) - law.log_prob(base) + torch.where(some, log_det, 0.0)


def run(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    state: LatentState,
    noise: Callable[[LatentState], Noise] | None = None,
    keep: bool = False,
) -> tuple[Steps[LatentState], Cloud | None]:
    """Filter a batch; with ``keep`` also the particles along it.

    The errors of the steps are those of each step by itself, scaled so that their squares add up to the variance of the
    sum over the sequence, see ``Lineages``; NaN with a single particle, and where none explains a value.

    Warns
    -----
    ApproximationWarning
        Where less than one particle in twenty carries the weight of a step.
    """
    draws, parent = len(model._draw(params)), torch.arange(state.z.shape[-2], device=state.z.device)
    parent = parent.expand(state.log_weights.shape)
    values, errors, sizes, clouds = [], [], [], []
    # Training brings noise of its own, and asks for no error; its particles may collapse until it has learnt.
    lineages = Lineages(state.log_weights) if noise is None else None
    for t in range(batch.t):
        running = t < batch.lengths
        seen = batch.seen[:, t] & running.unsqueeze(-1)
        u = None if batch.u is None else batch.u[:, t]
        done = step(model, params, state, batch.x[:, t], seen, u, noise)
        some = seen.any(-1)
        values.append(torch.where(some, done.value, 0.0))
        errors.append(torch.where(some, done.error, 0.0))
        sizes.append(torch.where(some, done.size, float(done.z.shape[-2])))
        if lineages is not None:
            lineages.add(state.log_weights, done.log_weights, parent, running)
        if keep:
            clouds.append(Cloud(done.z, done.log_weights, parent, state.shared))
        parent = done.chosen
        state = map_state(lambda new, old, on=running: where_sequence(on, new, old, draws), done.state, state)
    scored = batch.seen & batch.real.unsqueeze(-1)
    if not batch.t:
        nothing = state.log_weights[..., :0].to(model.dtype)
        return Steps(nothing, scored, nothing, state), None
    error = torch.stack(errors, -1)
    if lineages is not None:
        _warn_of_collapse(torch.stack(sizes, -1), state.z.shape[-2])
        alone = error.square().sum(-1)
        ratio = torch.where(alone > 0.0, lineages.variance() / alone.clamp_min(_TINY), 1.0)
        error = error * ratio.sqrt().unsqueeze(-1)
    value = torch.stack(values, -1)
    # One particle has no spread to tell an error by, and particles of which none explains a value have none either.
    untold = scored.any(-1) & ((value == -torch.inf) | (state.z.shape[-2] == 1))
    steps = Steps(value, scored, torch.where(untold, torch.nan, error).to(model.dtype), state)
    along = map_state(lambda *leaves: torch.stack(leaves, draws + 1), *clouds) if keep else None
    return steps, along


def _warn_of_collapse(sizes: Tensor, n_particles: int) -> None:
    """Warn where a few particles carry all the weight; sizes (*draw, n, t)."""
    few = sizes < _FEW * n_particles
    if n_particles < 1.0 / _FEW or not bool(few.any()):
        return
    *_, sequence, step = (int(i) for i in (sizes == sizes.min()).nonzero()[0])
    warnings.warn(
        f"Of {n_particles} particles {float(sizes.min()):.1f} carry the weight at step {step} of sequence {sequence}, "
        f"and less than one in twenty at {int(few.sum())} steps: the likelihood is uncertain there. "
        'Take more particles, proposal="laplace", or train longer.',
        ApproximationWarning,
        stacklevel=2,
    )
