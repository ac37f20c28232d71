"""Sequences and the latent states behind them, drawn from a network with latent variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.params import Params
from probseq.models.base import map_state
from probseq.models.latent_state import LatentState, keys_after, noise_of
from probseq.models.resampling import by_weight, normalised, of_particles

if TYPE_CHECKING:
    from probseq.models.latent_network import LatentNetwork

__all__ = ["simulate"]


def simulate(
    model: LatentNetwork,
    params: Params,
    state: LatentState,
    length: int,
    generator: torch.Generator | None = None,
    u: Tensor | None = None,
    temper: Callable[[Distribution], Distribution] | None = None,
) -> tuple[Tensor, Tensor, LatentState]:
    """Values (*draw, n, length, k), the latent states behind them (*draw, n, length, d), the state after them."""
    w, n_particles = model.split(params), state.z.shape[-2]
    shape = state.steps.shape
    z, own = of_particles((state.z, state.own), by_weight(state.log_weights, 1, generator))
    shared, reader, key = state.shared, state.reader, state.key
    values, latents = [], []
    for t in range(length):
        u_t = None if u is None else u.select(-2, t)
        prior = model.prior(w, z, own, shared, u_t)
        noise = torch.randn(z.shape, generator=generator, dtype=model.dtype, device=_home(generator, z))
        z = prior.at(noise.to(z.device))
        law = model.law(w, z, own, shared, u_t)[..., 0]
        x = (law if temper is None else temper(law)).sample((), generator=generator)
        seen = torch.ones_like(x, dtype=torch.bool)
        read = model.read(w, x, seen, u_t)
        _, reader = model.filter_guide.read(w.guide, reader, model.describe(read, shared))
        own, shared = model.advance(w, z, own, shared, read)
        key = keys_after(key, x, seen)
        values.append(x)
        latents.append(z.squeeze(-2))
    z, own = map_state(lambda leaf: leaf.expand(*shape, n_particles, *leaf.shape[len(shape) + 1 :]), (z, own))
    even = normalised(torch.zeros_like(state.log_weights))
    fresh = noise_of(key, n_particles, model.n_latent, model.dtype)
    final = LatentState(z, own, shared, reader, even, *fresh, steps=state.steps + length)
    if not length:
        k = model.observation.n_variables
        return z.new_empty((*shape, 0, k)), z.new_empty((*shape, 0, model.n_latent)), final
    return torch.stack(values, -2), torch.stack(latents, -2), final


def _home(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return like.device if generator is None else generator.device
