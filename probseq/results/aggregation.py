"""One figure for several values of a forecast: sums, means and other functions over steps or variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probseq.errors import ParameterError, ShapeError
from probseq.results.backends import Backend

__all__ = ["FUNCTIONS", "Grouping", "checked_function", "name_of"]

FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


class Grouping:
    """Which values (t, k) are put together: runs of steps variable by variable, or the variables of each step.

    Parameters
    ----------
    n_steps, n_variables : int
    every : int or None
        Length of a run of steps; None for all.
    over : "time" or "variable"

    Raises
    ------
    ParameterError
        Runs that do not fill the steps, or an unknown ``over``.
    """

    def __init__(self, n_steps: int, n_variables: int, every: Any, over: str) -> None:
        if over not in ("time", "variable"):
            raise ParameterError(got=f"over={over!r}", expected='"time" or "variable"', remedy="Choose one of them.")
        if every is not None:
            _check_run(every, n_steps, over)
        self.n_steps, self.n_variables, self.over = n_steps, n_variables, over
        self.every = 1 if over == "variable" else n_steps if every is None else int(every)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and variables of the result."""
        return self.n_steps // self.every, 1 if self.over == "variable" else self.n_variables

    def matrix(self, how: str) -> np.ndarray | None:
        """The map (t' k', t k) of the values stacked step by step; None where it is not linear."""
        if how not in ("sum", "mean"):
            return None
        steps = np.kron(np.eye(self.shape[0]), np.ones((1, self.every)))
        variables = np.ones((1, self.n_variables)) if self.over == "variable" else np.eye(self.n_variables)
        total = np.kron(steps, variables)
        return total / total.sum(1, keepdims=True) if how == "mean" else total

    def finite(self, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
        """Where sums, means and extremes have a mean and a variance, (n, t', k'): where all their values have."""
        n, t, k = backend.shape
        laid = (n, t, k) if self.over == "variable" else (n, t // self.every, self.every, k)
        each = (np.isfinite(one).reshape(laid).all(2) for one in (backend.mean(), backend.variance()))
        mean, variance = (one.reshape(n, *self.shape) for one in each)
        return mean, variance

    def reduce(self, paths: np.ndarray, function: Callable[..., np.ndarray]) -> np.ndarray:
        """A function with ``axis=`` of the groups of paths (path, n, t, k); (path, n, t', k').

        Raises
        ------
        ParameterError
            The function failed.
        ShapeError
            It does not give one value a group.
        """
        p, n, t, k = paths.shape
        laid = paths if self.over == "variable" else paths.reshape(p, n, t // self.every, self.every, k)
        wanted = (p, n, t) if self.over == "variable" else (p, n, t // self.every, k)
        try:
            values = np.asarray(function(laid, axis=3), dtype=float)
        except TypeError as error:
            raise ParameterError(
                got=f"a function that failed ({error})",
                expected="a function of an array and axis=, such as np.median",
                remedy="Write lambda x, axis: ...",
            ) from error
        if values.shape != wanted:
            raise ShapeError(
                got=f"a function that turns {laid.shape} into {values.shape}",
                expected=f"{wanted}: one value for those on axis 3",
                remedy="Reduce along axis=.",
            )
        return values.reshape(p, n, *self.shape)


def _check_run(every: Any, n_steps: int, over: str) -> None:
    if over == "variable":
        raise ParameterError(
            got=f"every={every!r} with over='variable'",
            expected="one of them",
            remedy='Aggregate twice: aggregate(how, over="variable").aggregate(how, every=...).',
        )
    if not isinstance(every, int | np.integer) or isinstance(every, bool) or every < 1 or n_steps % every:
        raise ParameterError(
            got=f"every={every!r} for {n_steps} steps",
            expected="a whole number that divides the number of steps",
            remedy="Forecast whole groups, such as forecast(12).aggregate('sum', every=3).",
        )


def checked_function(function: Any, name: str) -> Callable[..., np.ndarray]:
    """``function`` if it can be called.

    Raises
    ------
    ParameterError
        It cannot.
    """
    if callable(function):
        return function
    raise ParameterError(got=f"{name}={function!r}", expected="a function", remedy="Pass one, such as np.exp.")


def name_of(function: Any) -> str:
    """A function's name for people; "function" where it has none."""
    name = getattr(function, "__name__", "<>")
    return "function" if name.startswith("<") else name
