"""The state of a network with latent variables: weighted particles, and the noise that will move them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.cells import Memory
from probseq.kernels.keyed_normals import fill_keyed, next_keys

__all__ = ["Cloud", "LatentState", "Noise", "first_keys", "keys_after", "noise_of"]


class LatentState(NamedTuple):
    """z : (*draw, n, particle, d), z_{t-1} of every particle
    own : leaves (*draw, n, particle, ...), the memory of each particle; empty where there is none
    shared : leaves (*draw, n, ...), the memory that all particles have in common; empty where there is none
    reader : leaves (*draw, n, ...), what the inference network remembers
    log_weights : (*draw, n, particle) float64, normalised
    noise : (*draw, n, particle, d), N(0, 1), by which z_t will be drawn
    begin : (*draw, n) float64 in [0, 1), where resampling after step t begins
    key : (*draw, n) int64, from which the noise comes: a function of the seed and of the values seen
    steps : (*draw, n) int64
    """

    z: Tensor
    own: Memory
    shared: Memory
    reader: Memory
    log_weights: Tensor
    noise: Tensor
    begin: Tensor
    key: Tensor
    steps: Tensor


class Noise(NamedTuple):
    """As in `LatentState`."""

    noise: Tensor
    begin: Tensor
    key: Tensor


class Cloud(NamedTuple):
    """Particles along sequences, before they are resampled.

    z : (*draw, n, t, particle, d)
    log_weights : (*draw, n, t, particle), after step t, normalised
    parent : (*draw, n, t, particle) int64, the particle of step t-1 that each of step t goes on from
    shared : leaves (*draw, n, t, ...), the memory before each step that all particles have in common
    """

    z: Tensor
    log_weights: Tensor
    parent: Tensor
    shared: Memory


def first_keys(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The same key everywhere: what is seen tells sequences apart."""
    return torch.full(shape, seed, dtype=torch.int64, device=device)


def keys_after(key: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """Keys (*draw, n) after values (*draw, n, k) or (n, k)."""
    shape = (*key.shape, x.shape[-1])
    values = x.detach().to("cpu", torch.float64).expand(shape).reshape(-1, shape[-1]).contiguous() + 0.0
    flags = seen.cpu().expand(shape).reshape(-1, shape[-1]).contiguous()
    found = np.empty(values.shape[0], dtype=np.int64)
    next_keys(key.cpu().contiguous().numpy().reshape(-1), values.numpy().view(np.int64), flags.numpy(), found)
    return torch.from_numpy(found).reshape(key.shape).to(key.device)


def noise_of(key: Tensor, n_particles: int, n_latent: int, dtype: torch.dtype) -> Noise:
    """Noise of the next step from keys (*draw, n)."""
    flat = key.cpu().contiguous().numpy().reshape(-1)
    normals, uniforms = np.empty((len(flat), n_particles * n_latent)), np.empty(len(flat))
    fill_keyed(flat, normals, uniforms)
    noise = torch.from_numpy(normals).to(dtype).reshape(*key.shape, n_particles, n_latent)
    return Noise(noise.to(key.device), torch.from_numpy(uniforms).reshape(key.shape).to(key.device), key)
