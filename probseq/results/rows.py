"""Forecasts of several sequences, each with a backend of its own, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from probseq.results.backends import Backend, JointLaw

__all__ = ["RowsBackend", "RowsJoint"]


class RowsBackend(Backend):
    """Answers of one backend a sequence, side by side; shorter ones are padded by NaN.

    Parameters
    ----------
    parts : backends of one sequence each, shapes (1, t_i, k)
    """

    def __init__(self, parts: Sequence[Backend]) -> None:
        self.parts = list(parts)
        names = list(dict.fromkeys(part.name for part in self.parts))
        self.exact = all(part.exact for part in self.parts)
        self.name = names[0] if len(names) == 1 else " and ".join(names)
        self.lengths = [part.shape[1] for part in self.parts]
        self.shape = (len(self.parts), max(self.lengths), self.parts[0].shape[2])

    @property
    def discrete_variables(self) -> np.ndarray:
        return self.parts[0].discrete_variables

    @property
    def nominal_variables(self) -> np.ndarray:
        return self.parts[0].nominal_variables

    def joined(self, answer: Callable[[Backend], np.ndarray], axis: int = 0) -> np.ndarray:
        """Answers of the parts, whose axes ``axis`` and ``axis + 1`` are sequence and time, one below the other."""
        found = [np.asarray(answer(part), dtype=float) for part in self.parts]
        widths = [[(0, 0)] * one.ndim for one in found]
        for width, length in zip(widths, self.lengths, strict=True):
            width[axis + 1] = (0, self.shape[1] - length)
        padded = [np.pad(one, width, constant_values=np.nan) for one, width in zip(found, widths, strict=True)]
        return np.concatenate(padded, axis)

    def _each(self, answer: Callable[[Backend, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
        rows = iter(values[i : i + 1, :length] for i, length in enumerate(self.lengths))
        return self.joined(lambda part: answer(part, next(rows)))

    def mean(self) -> np.ndarray:
        return self.joined(lambda part: part.mean())

    def variance(self) -> np.ndarray:
        return self.joined(lambda part: part.variance())

    def quantile(self, q: np.ndarray) -> np.ndarray:
        return self.joined(lambda part: part.quantile(q))

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        return self._each(lambda part, row: part.cdf(row, left), x)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        return self._each(lambda part, row: part.log_prob(row), y)

    def crps(self, y: np.ndarray) -> np.ndarray:
        return self._each(lambda part, row: part.crps(row), y)

    def probs(self) -> np.ndarray:
        return self.joined(lambda part: part.probs())

    def mode(self) -> np.ndarray:
        return self.joined(lambda part: part.mode())

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return self.joined(lambda part: part.sample(n_paths, generator), 1)

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        return self._each(lambda part, row: part._inverse(row), u)

    def marginal(self, variables: list[int]) -> RowsBackend:
        return RowsBackend([part.marginal(variables) for part in self.parts])


class RowsJoint(JointLaw):
    """The joint laws of sequences that know nothing of one another.

    Parameters
    ----------
    parts : laws of one sequence each over the same number of steps
    """

    def __init__(self, parts: Sequence[JointLaw]) -> None:
        self.parts = list(parts)

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return np.concatenate([part.sample(n_paths, generator) for part in self.parts], 1)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        return np.concatenate([part.log_prob(values[i : i + 1]) for i, part in enumerate(self.parts)])
