"""Steps that were asked for, each with the forecast that knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from probseq.results.forecast import Forecast

__all__ = ["Part", "StepsAhead"]


class Part(NamedTuple):
    """Steps that one forecast of one sequence knows.

    forecast : of t steps.
    rows : (m,) which of these were asked for.
    at : (m,) where their answers go.
    """

    forecast: Forecast
    rows: np.ndarray
    at: np.ndarray


class StepsAhead:
    """Several forecasts, asked as if they were one of T steps of k variables."""

    def __init__(self, parts: list[Part], n_variables: int) -> None:
        self.parts, self.n_steps, self.n_variables = parts, sum(len(part.at) for part in parts), n_variables

    def ask(self, question: Callable[[Forecast], np.ndarray]) -> np.ndarray:
        """Answers (T, k, ...) to a question that each forecast answers in (t, k, ...), whatever else its axes are."""
        answers = []
        for part in self.parts:
            found = np.asarray(question(part.forecast), dtype=float)
            answers.append(found.reshape(part.forecast.n_steps, self.n_variables, -1)[part.rows])
        return self._in_order(answers)

    def ask_of(self, question: Callable[[Forecast, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
        """Answers (T, k) to a question about values (T, k), which each forecast gets as (1, t, k), NaN elsewhere."""
        answers = []
        for part in self.parts:
            block = np.full((1, part.forecast.n_steps, self.n_variables), np.nan)
            block[0, part.rows] = values[part.at]
            answers.append(question(part.forecast, block).reshape(block.shape[1:])[part.rows][..., None])
        return self._in_order(answers)[..., 0]

    def _in_order(self, answers: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(answers)
        ordered = np.empty_like(joined)
        ordered[np.concatenate([part.at for part in self.parts])] = joined
        return ordered
