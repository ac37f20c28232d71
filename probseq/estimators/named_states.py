"""Names that users give to the states of a fitted model."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor

from probseq.data.sequences import Sequences
from probseq.errors import ParameterError
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.predicting import Predicting
from probseq.inference.base import Draws
from probseq.models.base import SequenceModel

__all__ = ["NamedStates"]


class NamedStates(Predicting):
    """States with numbers, or with names; a fit takes the names away."""

    state_names_: tuple[str, ...] | None

    @abstractmethod
    def _n_named(self) -> int:
        """The number of states."""

    def label_states(self, names: Sequence[str] | Mapping[int, str] | None) -> Self:
        """A copy of the fitted model with names for its states, which results then carry.

        Parameters
        ----------
        names : list of str, dict from state number to name, or None
            In the order of the states; a dict leaves the others their numbers; None takes names away.

        Raises
        ------
        ParameterError
            For names that are too many, too few or not all different.
        """
        self._check_fitted()
        n_states = self._n_named()
        named = copy.copy(self)
        if names is None:
            named.state_names_ = None
            return named
        if isinstance(names, Mapping):
            chosen = [str(names.get(i, i)) for i in range(n_states)]
            fits = set(names) <= set(range(n_states))
        else:
            chosen = [str(name) for name in names] if isinstance(names, list | tuple | np.ndarray) else []
            fits = len(chosen) == n_states
        if not fits or len(set(chosen)) < n_states:
            raise ParameterError(
                got=f"names={names!r}",
                expected=f"{n_states} different names, or a dict whose keys are states 0 to {n_states - 1}",
                remedy='Try label_states(["calm", "crisis"]).',
            )
        named.state_names_ = tuple(chosen)
        return named

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: Tensor | None = None,
    ) -> None:
        super()._adopt(model, transforms, draws, info, data, weights)  # type: ignore[misc]
        self.state_names_ = None

    def _state_labels(self) -> np.ndarray:
        """The coordinate of a dimension ``state``."""
        names = self.state_names_
        return np.arange(self._n_named()) if names is None else np.asarray(names, dtype=object)
