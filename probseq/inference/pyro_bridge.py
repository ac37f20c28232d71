"""The one place that knows Pyro: its no-U-turn sampler over a density with its own gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro.infer.mcmc
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Chain", "sample_chain"]

# Variances estimated from fewer iterations are worse than those that the density comes scaled by.
_ENOUGH_FOR_A_METRIC = 150

Density = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""A log density and its gradient at a point (r,)."""


class Chain(NamedTuple):
    """points : (n, r); values : (n,), the log density there; n_divergent : how many steps diverged after warm-up."""

    points: np.ndarray
    values: np.ndarray
    n_divergent: int


class _Potential(torch.autograd.Function):
    """Minus a log density, whose gradient is computed along with it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, density: Density) -> Tensor:  # type: ignore[override]
        value, gradient = density(z.detach().numpy())
        ctx.save_for_backward(torch.from_numpy(-gradient))
        return torch.tensor(-value, dtype=z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return outer * slope, None


def sample_chain(
    density: Density,
    start: np.ndarray,
    n_draws: int,
    n_warmup: int,
    seed: int,
    *,
    target_accept: float,
    max_tree_depth: int,
    report: Callable[[int, float], None],
) -> Chain:
    """Run one chain of NUTS with an adapted step size and, if the warm-up is long, diagonal mass matrix.

    Pyro draws from torch's global generator: it is seeded here and put back as it was.

    Parameters
    ----------
    density : log density and gradient
    start : (r,)
    seed : of this chain
    report : called with (iteration, log density) after every iteration

    Raises
    ------
    KeyboardInterrupt
        Before the first draw after the warm-up; later ones end the chain with what it has.
    """
    points: list[np.ndarray] = []
    values: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kernel = pyro.infer.mcmc.NUTS(
            potential_fn=lambda z: _Potential.apply(z["z"], density),
            target_accept_prob=target_accept,
            adapt_mass_matrix=n_warmup >= _ENOUGH_FOR_A_METRIC,
            max_tree_depth=max_tree_depth,
        )
        kernel.initial_params = {"z": torch.as_tensor(start, dtype=torch.float64)}
        kernel.setup(n_warmup)
        at = kernel.initial_params
        try:
            for i in range(n_warmup + n_draws):
                at = kernel.sample(at)
                energy: Any = kernel._potential_energy_last
                value = -float(energy)
                report(i + 1, value)
                if i >= n_warmup:
                    points.append(at["z"].detach().numpy().copy())
                    values.append(value)
        except KeyboardInterrupt:
            if not points:
                raise
        divergent = len(kernel._divergences)
        kernel.cleanup()
    return Chain(np.array(points).reshape(len(points), start.size), np.array(values), divergent)
