"""Latent states that a user knows at some steps."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from probseq.data.sequences import Sequences, sequences
from probseq.errors import DataError, ShapeError
from probseq.estimators.base import SequenceEstimator
from probseq.inference.base import Progress
from probseq.models.base import Batch
from probseq.models.transitions import as_transitions

__all__ = ["SupervisedFit", "check_possible", "known_states"]


class SupervisedFit(SequenceEstimator):
    """The ``fit`` of families whose hidden states a user may know at some steps."""

    n_states: int

    def _possible(self) -> tuple[np.ndarray, np.ndarray]:
        """Which transitions (s, s) and which first states (s,) have no structural zero."""
        transitions = as_transitions(vars(self).get("transitions"))
        allowed = np.ones((self.n_states, self.n_states), dtype=bool)
        support = transitions.support(self.n_states)
        if support is not None:
            allowed &= support.numpy()
        if transitions.fixed is not None:
            allowed &= np.asarray(transitions.fixed, dtype=float) != 0
        start = vars(self).get("start", "free")
        first = np.ones(self.n_states, dtype=bool) if isinstance(start, str) else np.asarray(start, dtype=float) > 0
        return allowed, first

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        validation: Any = None,
        static: Any = None,
        weights: Any = None,
        states: Any = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to one or many sequences.

        Parameters
        ----------
        X, y, lengths, covariates, validation, static, weights, progress
            As in every family; see `SequenceEstimator.fit`.
        states : array or list of arrays
            States that are known at some steps, as long as the data, -1 or NaN where they are not: the fit then
            maximises log p(x, known states), and the states keep the numbers given.

        Returns
        -------
        self
        """
        data = sequences(X, lengths=lengths, covariates=covariates, static=static)

        def annotate(batch: Batch) -> Batch:
            if states is None:
                return batch
            known = known_states(states, data, batch.t, self.n_states)
            allowed, first = self._possible()
            check_possible(known.numpy(), batch.lengths.numpy(), allowed, first, data.names)
            return batch._replace(states=known)

        return self._fit(data, y, validation, weights, progress, annotate)


def check_possible(
    states: np.ndarray, lengths: np.ndarray, allowed: np.ndarray, first: np.ndarray, names: tuple[Any, ...]
) -> None:
    """Raise unless some path agrees with the known states (n, t) of every sequence.

    Parameters
    ----------
    allowed : (s, s) bool, which transitions are possible
    first : (s,) bool, which states a sequence may begin in
    """
    size = len(first)
    if allowed.all() and first.all():
        return
    reached = np.broadcast_to(first, (len(lengths), size))
    for t in range(states.shape[1]):
        if t:
            reached = (reached[:, :, None] & allowed).any(1)
        told = states[:, t, None]
        reached = reached & ((told < 0) | (told == np.arange(size)))
        stuck = ~reached.any(1) & (t < lengths)
        if stuck.any():
            i = int(stuck.argmax())
            raise DataError(
                got=f"states of sequence {names[i]!r} that no path can follow: state {states[i, t]} at step {t}",
                expected="known states that the start and the possible transitions allow",
                remedy="Correct the states, or allow the transition.",
            )


def known_states(states: Any, data: Sequences, n_steps: int, n_states: int) -> Tensor:
    """Labels of the last ``n_steps`` steps of the padded batch, (n, n_steps) int64, -1 where a state is not known.

    Parameters
    ----------
    states : array (time,), (sequence, time), or list of arrays
        In the order of ``data``; -1 or NaN where a state is not known. With ``lengths=`` also one concatenated array.
    n_steps : int
        Smaller than the padded length where a difference has used up the first steps.
    """
    lengths = data.lengths
    rows = _rows(states, lengths)
    padded = np.full((data.n_sequences, data.max_length), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        given = np.where(np.isnan(row), -1.0, row)
        if len(given) < lengths[i] or (given[lengths[i] :] != -1).any():
            raise ShapeError(
                got=f"{len(given)} states for sequence {data.names[i]!r} of {lengths[i]} steps",
                expected="one state a step, -1 where it is not known",
                remedy="Pass states as long as the data.",
            )
        wrong = given[(given != np.floor(given)) | (given < -1) | (given >= n_states)]
        if wrong.size:
            raise DataError(
                got=f"state {wrong[0]:g}",
                expected=f"whole numbers from 0 to {n_states - 1}, or -1 where a state is not known",
                remedy="Number the states from 0.",
            )
        padded[i, : lengths[i]] = given[: lengths[i]]
    return torch.from_numpy(padded[:, data.max_length - n_steps :].copy())


def _rows(states: Any, lengths: np.ndarray) -> list[np.ndarray]:
    n = len(lengths)
    several = isinstance(states, list | tuple) and len(states) == n and all(np.ndim(one) == 1 for one in states)
    if several:
        rows = [_numbers(one) for one in states]
        if all(len(row) == length for row, length in zip(rows, lengths, strict=True)):
            return rows
        raise ShapeError(
            got=f"states of {[len(row) for row in rows]} steps",
            expected=f"as many as the sequences have: {lengths.tolist()}",
            remedy="Pass one state a step, -1 where it is not known.",
        )
    array = _numbers(states)
    if array.ndim == 2 and array.shape[0] == n:
        return list(array)
    if array.ndim == 1 and array.size == lengths.sum():
        return np.split(array, np.cumsum(lengths)[:-1])
    raise ShapeError(
        got=f"states of shape {array.shape}",
        expected=f"one state a step: {int(lengths.sum())} in all, or a list of {n} arrays",
        remedy="Pass states as long as the data, -1 where a state is not known.",
    )


def _numbers(values: Any) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            got="states that are no numbers",
            expected="whole numbers from 0, -1 where a state is not known",
            remedy="Number the states from 0.",
        ) from error
