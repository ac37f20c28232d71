"""Paths of latent states given whole sequences, from the particles of a filter."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels.cells import Memory
from probseq.models.base import Batch, map_state
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_network import LatentNetwork
from probseq.models.latent_state import Cloud, LatentState
from probseq.models.resampling import by_weight, of_particles

__all__ = ["smooth_paths"]

# Numbers in one table of densities, of particles by paths.
_AT_ONCE = 2**24


def smooth_paths(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    n_paths: int,
    generator: torch.Generator | None = None,
    state: LatentState | None = None,
) -> Tensor:
    r"""Paths z_1:T from p(z_1:T | x_1:T), (*draw, n_paths, n, t, d), as well as the model's particles stand for it.

    Where z_t depends on z_{t-1} and on the data alone, paths are drawn backwards: z_t^i is taken with probability
    proportional to w_t^i p(z_{t+1} | z_t^i, h_{t+1}) (Godsill, Doucet and West 2004). Where each path has a memory of
    its own the paths are the lineages of the last particles (Kitagawa 1996), which have few ancestors in common at the
    beginning of a long sequence: take more particles there. Padding repeats nothing and is zero.
    """
    start = model.initial_state(params, batch.n) if state is None else state
    if not batch.t:
        draw = start.steps.shape[:-1]
        return start.z.new_zeros((*draw, n_paths, batch.n, 0, model.n_latent))
    with torch.no_grad():
        _, cloud = model.run(params, batch, start, keep=True)
        if cloud is None:
            raise RuntimeError("a filter that kept no particles")
        if model.memory == "path":
            paths = _lineages(batch, cloud, n_paths, generator)
        else:
            paths = _backwards(model, params, batch, cloud, start.own, n_paths, generator)
    inside = batch.real.unsqueeze(-1)
    return torch.where(inside, paths, 0.0)


def _at(leaf: Tensor, t: int, time: int) -> Tensor:
    return leaf.select(time, t)


def _lineages(batch: Batch, cloud: Cloud, n_paths: int, generator: torch.Generator | None) -> Tensor:
    """(*draw, m, n, t, d)."""
    time = cloud.log_weights.ndim - 2
    steps: list[Tensor] = []
    now = torch.zeros(0)
    for t in range(batch.t - 1, -1, -1):
        ends = (batch.lengths == t + 1).unsqueeze(-1)
        last = by_weight(_at(cloud.log_weights, t, time), n_paths, generator)
        now = last if not steps else torch.where(ends, last, now)
        steps.append(of_particles(_at(cloud.z, t, time), now))
        now = _at(cloud.parent, t, time).gather(-1, now)
    return torch.stack(steps[::-1], -2).movedim(-3, -4)


def _backwards(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    cloud: Cloud,
    own: Memory,
    n_paths: int,
    generator: torch.Generator | None,
) -> Tensor:
    """(*draw, m, n, t, d)."""
    w, time = model.split(params), cloud.log_weights.ndim - 2
    steps: list[Tensor] = []
    for t in range(batch.t - 1, -1, -1):
        z, log_weights = _at(cloud.z, t, time), _at(cloud.log_weights, t, time)
        taken = by_weight(log_weights, n_paths, generator)
        if steps:
            shared = map_state(lambda leaf, t=t: _at(leaf, t + 1, time), cloud.shared)
            u = None if batch.u is None else batch.u[:, t + 1].to(model.dtype)
            prior = model.prior(w, z, own, shared, u)
            before = _drawn(log_weights, prior, steps[-1], generator)
            taken = torch.where((batch.lengths <= t + 1).unsqueeze(-1), taken, before)
        steps.append(of_particles(z, taken))
    return torch.stack(steps[::-1], -2).movedim(-3, -4)


def _drawn(log_weights: Tensor, prior: DiagonalLaw, later: Tensor, generator: torch.Generator | None) -> Tensor:
    """Particles (*draw, n, m) from which z_{t+1} (*draw, n, m, d) may have come."""
    m, size = later.shape[-2], log_weights.numel()
    width = max(1, _AT_ONCE // max(1, size))
    loc, precision = prior.loc.double(), prior.scale.double() ** -2
    # The squares in one product: |z - mu|^2 / s^2 = z^2 . s^-2 - 2 z . (mu s^-2) + mu^2 . s^-2
    left = torch.cat([precision, -2.0 * loc * precision], -1).mT
    level = log_weights - prior.scale.double().log().sum(-1) - 0.5 * (loc.square() * precision).sum(-1)
    parts = []
    for first in range(0, m, width):
        z = later[..., first : first + width, :].double()
        table = level.unsqueeze(-2) - 0.5 * torch.cat([z.square(), z], -1) @ left
        weights = torch.softmax(table, -1)
        found = torch.multinomial(weights.flatten(0, -2), 1, generator=generator)
        parts.append(found.reshape(weights.shape[:-1]))
    return torch.cat(parts, -1)
