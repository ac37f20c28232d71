"""Coordinates without redundancy: probabilities by their log-ratios to the largest of their row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from probseq.distributions.params import ParamSpec, Simplex

__all__ = ["Coordinates"]


class Coordinates:
    """The coordinates of a flat unconstrained vector that move the parameters, around a centre.

    A softmax does not see a shift of its row, structural zeros have coordinates that do nothing, and known entries none
    to speak of. One entry of each row, the largest at the centre, stays where it is; the others of the row move.

    Parameters
    ----------
    specs : of the model
    centre : (m,), the flat coordinates of the point
    still : (m,) bool or None
        Further coordinates that stay at the centre.
    """

    def __init__(self, specs: Mapping[str, ParamSpec], centre: np.ndarray, still: np.ndarray | None = None) -> None:
        self.centre = centre
        still = np.zeros(centre.size, dtype=bool) if still is None else still
        moving = ~still
        rows = np.full(centre.size, -1)
        self.n_rows = 0
        self.owner = np.empty(centre.size, dtype=object)
        start = 0
        for name, spec in specs.items():
            if not spec.trainable:
                continue
            block = slice(start, start + spec.constraint.size(spec.shape))
            start = block.stop
            self.owner[block] = name
            if not isinstance(spec.constraint, Simplex) or not spec.shape:
                continue
            width = spec.shape[-1]
            free = spec.constraint.free(spec.shape).numpy().reshape(-1, width) & ~still[block].reshape(-1, width)
            logits = np.where(free, centre[block].reshape(-1, width), -np.inf)
            pivot = logits.argmax(-1)
            moves = free & (np.arange(width) != pivot[:, None]) & (free.sum(-1) > 1)[:, None]
            moving[block] = moves.ravel()
            number = self.n_rows + np.arange(len(free))[:, None]
            rows[block] = np.where(free & (free.sum(-1) > 1)[:, None], number, -1).ravel()
            self.n_rows += len(free)
        self.index = np.flatnonzero(moving)
        self._rows = rows

    @property
    def size(self) -> int:
        """Number r of coordinates."""
        return self.index.size

    def flat(self, z: np.ndarray) -> np.ndarray:
        """(*draw, r) -> (*draw, m)."""
        flat = np.broadcast_to(self.centre, (*z.shape[:-1], self.centre.size)).copy()
        flat[..., self.index] = z
        return flat

    def of(self, flat: np.ndarray) -> np.ndarray:
        """(*draw, m) -> (*draw, r): the inverse of ``flat``, for any point; rows are shifted to the centre's pivot."""
        moved = flat.copy()
        moving = np.isin(np.arange(self.centre.size), self.index)
        for row in range(self.n_rows):
            members = self._rows == row
            pivot = members & ~moving
            moved[..., members] += (self.centre[pivot] - flat[..., pivot]).sum(-1, keepdims=True)
        return moved[..., self.index]

    def spread(self, covariance: np.ndarray) -> np.ndarray:
        """A covariance (r, r) of these coordinates as one (m, m) of the flat vector, whose rows are centred."""
        m = self.centre.size
        whole = np.zeros((m, m))
        whole[np.ix_(self.index, self.index)] = covariance
        members = self._rows >= 0
        if members.any():
            rows = self._rows[members]
            sums = np.zeros((self.n_rows, m))
            np.add.at(sums, rows, whole[members])
            count = np.bincount(rows, minlength=self.n_rows)[:, None].clip(1)
            whole[members] -= (sums / count)[rows]
            sums = np.zeros((m, self.n_rows))
            np.add.at(sums.T, rows, whole.T[members])
            whole[:, members] -= (sums / count.T)[:, rows]
        return whole
