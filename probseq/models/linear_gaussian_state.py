"""The state of a linear-Gaussian model, its system matrices, and arrays to work on them draw by draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.linear_gaussian import System, make_system

__all__ = ["GaussianState", "StateSpace", "Workspace", "as_array", "systems"]


class StateSpace(NamedTuple):
    """x_t = Z s_t + d + eps_t, Var eps_t = H; s_(t+1) = T s_t + c + eta_t, Var eta_t = Q; s_1 ~ N(a1, P1 + kappa D).

    With kappa to infinity where ``diffuse`` is given. Leaves may leave the draw dimensions out where they are constant.

    design : Z (*draw, k, r). offset : d (*draw, k). noise : H (*draw, k, k). transition : T (*draw, r, r).
    drift : c (*draw, r). spread : Q (*draw, r, r). mean : a1 (*draw, r). cov : P1 (*draw, r, r).
    diffuse : D (r, r) or None.
    """

    design: Tensor
    offset: Tensor
    noise: Tensor
    transition: Tensor
    drift: Tensor
    spread: Tensor
    mean: Tensor
    cov: Tensor
    diffuse: Tensor | None = None

    def with_draws(self, draw: tuple[int, ...]) -> StateSpace:
        """Every leaf with the draw dimensions."""
        ranks = (2, 1, 2, 2, 1, 2, 1, 2)
        leaves = [leaf.expand(*draw, *leaf.shape[leaf.ndim - rank :]) for leaf, rank in zip(self[:8], ranks)]
        z, d, h, t, c, q, a, p = leaves
        return StateSpace(z, d, h, t, c, q, a, p, self.diffuse)


class GaussianState(NamedTuple):
    """p(s_t | x_<t), the law of the next hidden state.

    mean : (*draw, n, r). cov : (*draw, n, r, r), its finite part. diffuse : (*draw, n, r, r), its infinite part.
    proper : (*draw, n, k) bool, which coordinates of the next value have a proper predictive. age : (*draw, n), steps
    so far.
    """

    mean: Tensor
    cov: Tensor
    diffuse: Tensor
    proper: Tensor
    age: Tensor


def as_array(tensor: Tensor) -> np.ndarray:
    """Contiguous, without gradient."""
    return np.ascontiguousarray(tensor.detach().numpy())


def systems(space: StateSpace) -> Iterator[System]:
    """The state space of every draw, for kernels; leaves of shape (*draw, ...)."""
    ranks = (2, 1, 2, 2, 1, 2)
    flat = [as_array(leaf.reshape(-1, *leaf.shape[leaf.ndim - rank :])) for leaf, rank in zip(space[:6], ranks)]
    for d in range(len(flat[0])):
        yield make_system(*(leaf[d] for leaf in flat))


class Workspace:
    """Arrays of a state with the draws flattened to one axis, (D, n, ...): read, overwritten, closed.

    Parameters
    ----------
    state : GaussianState
    draw : tuple of int
        The draw dimensions of its leaves.
    """

    def __init__(self, state: GaussianState, draw: tuple[int, ...]) -> None:
        self.draw = draw
        d = len(draw)
        self.mean, self.cov, self.diffuse, self.proper = (
            np.array(leaf.detach().reshape(math.prod(draw), *leaf.shape[d:]).numpy(), order="C") for leaf in state[:4]
        )

    def groups(self, d: int, patterns: list[bytes] | None = None) -> list[np.ndarray]:
        """Sequences of draw d that share covariances and pattern of gaps, so that one filter serves them all."""
        n = self.mean.shape[1]
        alike = n > 0 and bool(
            (self.cov[d] == self.cov[d, :1]).all() and (self.diffuse[d] == self.diffuse[d, :1]).all()
        )
        found: dict[tuple[bytes, ...], list[int]] = {}
        for i in range(n):
            key = () if alike else (self.cov[d, i].tobytes(), self.diffuse[d, i].tobytes())
            found.setdefault(key if patterns is None else (*key, patterns[i]), []).append(i)
        return [np.array(rows) for rows in found.values()]

    def take(self, d: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (c, r) and the common covariance and infinite part (r, r) of a group."""
        return self.mean[d, rows].copy(), self.cov[d, rows[0]].copy(), self.diffuse[d, rows[0]].copy()

    def put(
        self, d: int, rows: np.ndarray, mean: np.ndarray, cov: np.ndarray, diffuse: np.ndarray, proper: np.ndarray
    ) -> None:
        """Write a group back."""
        self.mean[d, rows], self.cov[d, rows], self.diffuse[d, rows] = mean, cov, diffuse
        self.proper[d, rows] = proper

    def close(self, age: Tensor) -> GaussianState:
        """The state these arrays now hold."""
        mean, cov, diffuse, proper = (
            torch.from_numpy(a).reshape(*self.draw, *a.shape[1:])
            for a in (self.mean, self.cov, self.diffuse, self.proper)
        )
        return GaussianState(mean, cov, diffuse, proper, age)
