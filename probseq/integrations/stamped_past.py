"""All values so far of one series, in the pieces in which they came."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probseq.data.timeindex import extend, infer_step, steps_between
from probseq.errors import HistoryError

__all__ = ["StampedPast"]


class StampedPast:
    """Values and covariates with their stamps; a further piece costs no more the longer the past is.

    Parameters
    ----------
    values : DataFrame
        One row a step.
    inputs : DataFrame or None
        Covariates of these steps.
    """

    def __init__(self, values: pd.DataFrame, inputs: pd.DataFrame | None) -> None:
        self._values, self._inputs = [values], [] if inputs is None else [inputs]
        self._freq, self.last, self.n_steps = infer_step(values.index), values.index[-1:], len(values)

    @property
    def values(self) -> pd.DataFrame:
        """Every row."""
        self._values = [_joined(self._values)]
        return self._values[0]

    @property
    def inputs(self) -> pd.DataFrame | None:
        """The covariates of every row, or None."""
        if not self._inputs:
            return None
        self._inputs = [_joined(self._inputs)]
        return self._inputs[0]

    def rows(self, start: int, stop: int) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Values and covariates of the steps ``start:stop``."""
        inputs = self.inputs
        return self.values.iloc[start:stop], None if inputs is None else inputs.iloc[start:stop]

    def steps_until(self, stamp: pd.Index) -> int:
        """How many steps there are up to ``stamp``, an index of one."""
        if stamp[0] == self.last[0]:
            return self.n_steps
        return int(self.values.index.searchsorted(stamp[0], side="right"))

    def unseen(self, values: pd.DataFrame, inputs: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """The rows after the last step, behind missing ones for steps that were left out.

        Raises
        ------
        HistoryError
            If steps were left out whose covariates are not known.
        """
        new = values.index > self.last[0]
        values = values[new]
        inputs = inputs[new] if inputs is not None and self._inputs else None
        if not len(values):
            return values, inputs
        gap = steps_between(self.last, values.index, self._freq, "update") - 1
        if gap and inputs is not None:
            raise HistoryError(
                got=f"an update that begins {gap} steps late, with covariates",
                expected="the covariates of the steps between, too",
                remedy="Begin y with rows of NaN for them.",
            )
        if gap:
            between = extend(self.last, gap, self._freq)
            values = values.reindex(between.append(values.index))
        return values, inputs

    def contradicts(self, values: pd.DataFrame, inputs: pd.DataFrame | None) -> bool:
        """Whether rows of steps that are known already say something else of them.

        Raises
        ------
        HistoryError
            For steps that are before the first one, or between two.
        """
        known = values.index <= self.last[0]
        if not known.any():
            return False
        at = self.values.index.get_indexer(values.index[known])
        if (at < 0).any():
            raise HistoryError(
                got=f"an update with {values.index[known][at < 0][0]}, which is no step of the data so far",
                expected="steps that are known, or later ones",
                remedy="Fit anew to data with all steps.",
            )
        tables = [(self.values, values)]
        if inputs is not None and self.inputs is not None:
            tables.append((self.inputs, inputs))
        return any(not np.array_equal(held.iloc[at], given[known], equal_nan=True) for held, given in tables)

    def extended(self, values: pd.DataFrame, inputs: pd.DataFrame | None) -> None:
        """Add the rows that ``unseen`` has found."""
        self._values.append(values)
        if inputs is not None:
            self._inputs.append(inputs)
        self.last, self.n_steps = values.index[-1:], self.n_steps + len(values)

    def corrected(self, values: pd.DataFrame, inputs: pd.DataFrame | None) -> StampedPast:
        """A past in which these rows take the place of those of the same steps."""
        old = values.index <= self.last[0]
        held = self.inputs
        if held is not None and inputs is not None:
            held = _replaced(held, inputs[old])
        return StampedPast(_replaced(self.values, values[old]), held)


def _joined(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    return pieces[0] if len(pieces) == 1 else pd.concat(pieces)


def _replaced(held: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    changed = held.copy()
    changed.loc[given.index] = given
    return changed
