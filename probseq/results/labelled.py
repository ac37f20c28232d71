"""What every forecast carries: its labels, its joint law, and how arrays become labelled results."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from probseq._random import RandomState, torch_generator
from probseq._types import whole_number
from probseq.data.labels import stamps_2d
from probseq.data.sequences import Sequences, sequences
from probseq.data.timeindex import is_default
from probseq.data.vocabulary import Vocabulary
from probseq.errors import ApproximationWarning, ShapeError, UnsupportedError
from probseq.results.backends import Backend, JointLaw, LawBackend, PathsBackend
from probseq.results.rows import RowsBackend
from probseq.results.truth import aligned_values, has_stamps, scattered_values

__all__ = ["DIMS", "EXACT", "LabelledLaw"]

DIMS = ("sequence", "time", "variable")
_IN_DATA_UNITS = {
    "mean", "quantile", "median", "std", "interval", "region", "sample",
    "crps", "pinball", "interval_score", "absolute_error", "energy_score",
}  # fmt: skip
EXACT = {"analytic": "exact", "mixture": "exact mixture over parameter draws"}


class LabelledLaw:
    """A backend with its names, stamps and mask; see `Forecast`, which asks it questions."""

    def __init__(
        self,
        backend: Backend,
        labels: Sequences,
        index: tuple[pd.Index, ...],
        *,
        joint: JointLaw | None = None,
        history: Sequences | None = None,
        scored: np.ndarray | None = None,
        method: str | None = None,
        future: bool = False,
        random_state: RandomState = None,
    ) -> None:
        self._backend, self._labels, self._index = backend, labels, index
        self._joint, self._history, self._scored = joint, history, scored
        self._random_state, self._generator = random_state, torch_generator(random_state)
        self.future = future
        self._origin: tuple[Self, np.ndarray] | None = None
        self._image_of: tuple[Self, np.ndarray, np.ndarray, bool] | None = None
        self._stamped = has_stamps(index, history is not None or index is labels.index)
        self.method = method or _method(backend)

    @property
    def exact(self) -> bool:
        """Whether the marginal law of each step is exact given the model and its draws."""
        return self._backend.exact

    @property
    def backend(self) -> str:
        """One of "analytic", "mixture", "paths" and "quantiles"."""
        return self._backend.name

    @property
    def discrete(self) -> bool:
        """Whether all variables are counted."""
        return self._backend.discrete

    @property
    def n_steps(self) -> int:
        return self._backend.shape[1]

    def __repr__(self) -> str:
        n, t, k = self._backend.shape
        index = self._index[0]
        ends = [_stamp(one) for one in (*index[:1], *index[1:][-1:])]
        apart = not all(one.equals(index) for one in self._index[1:])
        span = "stamps differ" if apart else " .. ".join(ends) or "none"
        kinds = self._backend.discrete_variables
        numbers = "counts" if self.discrete else "measurements and counts" if kinds.any() else "values"
        numbers = "numbers and categories" if self._backend.nominal_variables.any() else numbers
        what = "categories" if self._backend.nominal else numbers
        size = f"{t} step{'s' * (t != 1)} ({span})"
        size += f", {n} sequence{'s' * (n != 1)}" if self._labels.many else ""
        size += f", {k} variable{'s' * (k != 1)}" if not self._labels.flat else ""
        return f"<Forecast of {what}: {size}; {self.method}>"

    def _paths(self, n_paths: int, random_state: RandomState) -> np.ndarray:
        self._need_paths(n_paths, 1)
        generator = self._generator if random_state is None else torch_generator(random_state)
        source: Any = self._backend
        if self._joint is not None and not isinstance(self._backend, PathsBackend):
            source = self._joint
        paths = source.sample(int(n_paths), generator)
        return paths if self._scored is None else np.where(self._scored, paths, np.nan)

    def _need_paths(self, n_paths: int, least: int) -> None:
        whole_number("n_paths", n_paths, least, "Try 1000.")

    def _need_trajectories(self, method: str, instead: str) -> None:
        if not self.future and self.n_steps > 1:
            raise UnsupportedError(
                got=f"{method}() of one-step predictions, each given the true values before it",
                expected="the forecast of a trajectory",
                remedy=f"Use forecast(horizon).{method}(), or {instead}.",
            )

    @property
    def _has_loose_steps(self) -> bool:
        """Whether the steps of a trajectory are known one by one only, and its paths draw them one by one."""
        parts = self._backend.parts if isinstance(self._backend, RowsBackend) else [self._backend]
        by_paths = all(isinstance(part, PathsBackend) for part in parts)
        return self.future and self.n_steps > 1 and self._joint is None and not by_paths

    def _warn_of_independence(self, method: str) -> None:
        if self._has_loose_steps:
            warnings.warn(
                f"{method}() takes the steps as independent: a forecast made of {self._backend.substance} does not "
                "know how they hang together. Use Forecast.from_paths where they do.",
                ApproximationWarning,
                stacklevel=3,
            )

    def _need_numbers(self, method: str, instead: str, every: bool = False) -> None:
        """Raise where no variable is a number; with ``every`` where any is not."""
        nominal = self._backend.nominal_variables
        if nominal.all() or (every and nominal.any()):
            more = "" if nominal.all() else ", or choose the variables that are numbers with marginal()"
            raise UnsupportedError(
                got=f"{method}() of a forecast of categories", expected="numbers", remedy=f"Use {instead}{more}."
            )

    def _mask(self, array: np.ndarray) -> np.ndarray:
        """Blank (n, t, ...) arrays where nothing is predicted."""
        if self._scored is None:
            return array
        scored = self._scored.any(-1) if array.ndim == 2 else self._scored
        return np.where(scored.reshape(*scored.shape, *(1,) * (array.ndim - scored.ndim)), array, np.nan)

    def _without_labels(self, array: np.ndarray, name: str) -> np.ndarray:
        """Blank the variables that are categories where others are numbers, in results that only numbers have."""
        nominal = self._backend.nominal_variables
        if name == "mode" or nominal.all() or not nominal.any():
            return array
        return np.where(nominal.reshape(-1, *(1,) * (array.ndim - 3)), np.nan, array)

    def _label(
        self,
        array: np.ndarray,
        name: str,
        more: tuple[str, ...] = (),
        coords: dict[str, Any] | None = None,
        dims: tuple[str, ...] = DIMS,
        attrs: dict[Hashable, Any] | None = None,
    ) -> xr.DataArray:
        if dims == DIMS:
            array = self._without_labels(self._mask(array), name)
        if attrs is None and name in _IN_DATA_UNITS:
            attrs = dict(self._labels.attrs)
        coords = dict(coords or {})
        if self.future and "time" in dims:
            dims, coords = self._horizon(dims, coords)
        return self._labels.label(array, (*dims, *more), name=name, index=self._index, coords=coords, attrs=attrs)

    def _horizon(self, dims: tuple[str, ...], coords: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Steps after one common origin keep their dates; where origins differ, steps are counted."""
        if all(one.equals(self._index[0]) for one in self._index[1:]):
            return dims, {**coords, "horizon": ("time", range(1, self.n_steps + 1))}
        known = stamps_2d(self._index, self.n_steps)
        whole = all(one.dtype.kind in "iu" and len(one) == self.n_steps for one in self._index)
        stamps = (("sequence", "horizon"), known.astype(np.int64) if whole else known)
        return tuple("horizon" if d == "time" else d for d in dims), {**coords, "timestamp": stamps}

    def _values(self, y: Any) -> np.ndarray:
        """Values (n, t, k) from one number or from data in any form, matched by names and stamps where there are."""
        if isinstance(y, int | float | np.number) or (isinstance(y, np.ndarray | xr.DataArray) and y.ndim == 0):
            return np.full(self._backend.shape, float(y))
        return aligned_values(self._data(y), self._labels, self._index, self._backend.shape, self._stamped)

    def _scenario(self, values: Any) -> np.ndarray:
        """Values (n, t, k) of which some are known, NaN elsewhere: steps and variables that are left out are open."""
        return scattered_values(self._data(values), self._labels, self._index, self._backend.shape, self._stamped)

    def _data(self, y: Any) -> Sequences:
        """Values in any form; of one step of several sequences one value each."""
        words = self._labels.vocabulary
        data = y if isinstance(y, Sequences) else sequences(y) if words is None else self._tokens(y, words)
        n, t, _ = self._backend.shape
        if n > 1 and t == 1 and (data.n_sequences, data.max_length) == (1, n) and is_default(data.index[0]):
            index = (pd.RangeIndex(1),) * n
            each = np.ones(n, dtype=np.int64)
            data = replace(
                data,
                values=data.values.swapaxes(0, 1),
                lengths=each,
                index=index,
                names=self._labels.names,
                many=True,
                coords={},
            )
        if data.vocabulary is not None and data.max_length > t and all(is_default(one) for one in data.index):
            raise ShapeError(
                got=f"{data.max_length} tokens for a forecast of {t} step{'s' * (t != 1)}",
                expected="one token a step",
                remedy="Cut them to the horizon; log_prob_steps(text, history=...) reads a text of any length.",
            )
        return data

    def _tokens(self, y: Any, words: Vocabulary) -> Sequences:
        """A text, or tokens: with their ends where the forecast has a step for these."""
        n, t, _ = self._backend.shape
        given = [y] if isinstance(y, str) else y
        alone = isinstance(given, list | tuple) and 1 in (n, t) and len(given) == n * t
        if alone and all(isinstance(one, str) and one in words for one in given):
            y = np.array(given, dtype=object)
        data = sequences(y, vocabulary=words, end=False)
        return data if data.max_length >= self.n_steps else sequences(y, vocabulary=words)


def _method(backend: Backend) -> str:
    if isinstance(backend, LawBackend) and backend.law.margins is not None:
        return backend.law.margins
    return EXACT.get(backend.name, backend.name)


def _stamp(value: Any) -> str:
    whole_day = isinstance(value, pd.Timestamp) and value == value.normalize()
    return f"{value:%Y-%m-%d}" if whole_day else str(value)
