"""The state of an ARMA model, and arrays to work on it draw by draw."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["ARMAState", "Workspace"]


class ARMAState(NamedTuple):
    """p(state_t | x_<t): what the past says about (v_t, ..., v_(t-r+1), y_(t-1), ..., y_(t-m)).

    mean : (*draw, n, k), in the unit of the data. cov : (*draw, n, k, k), in units of the innovation variance.
    diffuse : (*draw, n, m, m), the infinite part, of the last m coordinates. age : (*draw, n), steps so far.
    """

    mean: Tensor
    cov: Tensor
    diffuse: Tensor
    age: Tensor


class Workspace:
    """Arrays of a state with the draws flattened to one axis, (D, n, ...): read, overwritten, closed.

    Parameters
    ----------
    state : ARMAState
    draw : tuple of int
        The draw dimensions of its leaves.
    """

    def __init__(self, state: ARMAState, draw: tuple[int, ...]) -> None:
        self.draw = draw
        d = len(draw)
        self.mean, self.cov, self.diffuse = (
            np.array(leaf.detach().reshape(math.prod(draw), *leaf.shape[d:]).numpy(), order="C") for leaf in state[:3]
        )
        self.n_differences = self.diffuse.shape[-1]
        self.n_hidden = self.mean.shape[-1] - self.n_differences

    def whole_diffuse(self, part: np.ndarray) -> np.ndarray:
        """The infinite part over all k coordinates from that of the last m, (..., m, m) -> (..., k, k)."""
        k, r = self.mean.shape[-1], self.n_hidden
        result = np.zeros((*part.shape[:-2], k, k))
        result[..., r:, r:] = part
        return result

    def groups(self, d: int, flags: np.ndarray | None = None) -> list[np.ndarray]:
        """Sequences of draw d that share covariance, infinite part and flag, so that one filter serves them all."""
        n = self.mean.shape[1]
        if flags is None and (self.cov[d] == self.cov[d, :1]).all() and (self.diffuse[d] == self.diffuse[d, :1]).all():
            return [np.arange(n)]
        found: dict[tuple[bytes, bytes, bool], list[int]] = {}
        for i in range(n):
            flag = bool(flags[i]) if flags is not None else True
            found.setdefault((self.cov[d, i].tobytes(), self.diffuse[d, i].tobytes(), flag), []).append(i)
        return [np.array(rows) for rows in found.values()]

    def take(self, d: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (c, k) and the common covariance and infinite part (k, k) of a group."""
        first = rows[0]
        return self.mean[d, rows].copy(), self.cov[d, first].copy(), self.whole_diffuse(self.diffuse[d, first])

    def put(self, d: int, rows: np.ndarray, mean: np.ndarray, cov: np.ndarray, diffuse: np.ndarray) -> None:
        """Write a group back."""
        r = self.n_hidden
        self.mean[d, rows], self.cov[d, rows], self.diffuse[d, rows] = mean, cov, diffuse[r:, r:]

    def start(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """State of sequence i for all draws: (D, k), (D, k, k), (D, k, k)."""
        return self.mean[:, i], self.cov[:, i], self.whole_diffuse(self.diffuse[:, i])

    def put_row(self, i: int, mean: np.ndarray, cov: np.ndarray, diffuse: np.ndarray) -> None:
        """Write sequence i back for all draws."""
        r = self.n_hidden
        self.mean[:, i], self.cov[:, i], self.diffuse[:, i] = mean, cov, diffuse[:, r:, r:]

    def put_complete(
        self, rows: np.ndarray, mean: np.ndarray, cov: np.ndarray, levels: np.ndarray, lengths: np.ndarray
    ) -> None:
        """Write sequences without gaps back: hidden part (D, c, r), (D, c, r, r), and their known last levels."""
        r = self.n_hidden
        self.cov[:, rows] = 0.0
        self.diffuse[:, rows] = 0.0
        self.mean[:, rows, :r] = mean
        self.cov[:, rows, :r, :r] = cov
        for place, i in enumerate(rows):
            for j in range(self.n_differences):
                self.mean[:, i, r + j] = levels[:, place, lengths[place] - 1 - j]

    def close(self, age: Tensor) -> ARMAState:
        """The state these arrays now hold."""
        mean, cov, diffuse = (
            torch.from_numpy(part).reshape(*self.draw, *part.shape[1:]) for part in (self.mean, self.cov, self.diffuse)
        )
        return ARMAState(mean, cov, diffuse, age)
