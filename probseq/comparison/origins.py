"""Where a backtest forecasts from: what of every sequence each forecast knows, and which fit it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probseq._types import whole_number
from probseq.data.labels import stamps_2d
from probseq.data.sequences import Sequences
from probseq.data.timeindex import is_default
from probseq.errors import HorizonError, ParameterError

__all__ = ["Origins", "plan_origins"]


@dataclass(frozen=True)
class Origins:
    """Origins of forecasts along one or many sequences.

    Parameters
    ----------
    cuts : (m, n) int
        How many first steps of each sequence a forecast knows.
    labels : (m,)
        Numbers of steps, or the stamps that were asked for.
    valid : (m, n) bool
        Whether there is a past to forecast from and a step behind it to compare with.
    groups : tuple of int arrays
        Positions of the origins that share a fit, in order; a fit knows what the first of its group does.
    """

    cuts: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    groups: tuple[np.ndarray, ...]

    def fitted_at(self) -> np.ndarray:
        """For every origin the label of the one at which its parameters were fitted, (m,)."""
        return np.concatenate([np.repeat(self.labels[group[:1]], len(group)) for group in self.groups])

    def truth(self, data: Sequences, horizon: int) -> np.ndarray:
        """The values behind every origin, (m, horizon, n, k); NaN where missing, behind the end and without origin."""
        at = self.cuts[:, None, :] + np.arange(horizon)[:, None]
        row = np.arange(data.n_sequences)
        there = (at < data.lengths) & self.valid[:, None, :]
        return np.where(there[..., None], data.values[row, np.minimum(at, data.max_length - 1)], np.nan)

    def stamps(self, data: Sequences, horizon: int) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Coordinates ``origin_time``, the last known stamp, and ``timestamp`` of each step; {} for counted steps.

        They have a sequence dimension where the stamps of sequences differ, and are blank where one has not begun.
        """
        if all(is_default(index) for index in data.index):
            return {}
        table = stamps_2d(data.index, data.max_length + horizon)
        counted = all(index.dtype.kind in "iu" for index in data.index)
        row = np.arange(data.n_sequences)
        first = table[row, np.maximum(self.cuts - 1, 0)]
        ahead = table[row, self.cuts[:, None, :] + np.arange(horizon)[:, None]]
        begun = self.cuts >= 1
        if not begun.all():
            first, ahead = np.where(begun, first, table[0, -1]), np.where(begun[:, None], ahead, table[0, -1])
        if counted and not np.isnan(first).any() and not np.isnan(ahead).any():
            first, ahead = first.astype(np.int64), ahead.astype(np.int64)
        one = (self.cuts == self.cuts[:, :1]).all() and all(i.equals(data.index[0]) for i in data.index[1:])
        if one:
            return {"origin_time": (("origin",), first[:, 0]), "timestamp": (("origin", "horizon"), ahead[..., 0])}
        dims = ("origin", "horizon", "sequence")
        return {"origin_time": (("origin", "sequence"), first), "timestamp": (dims, ahead)}


def plan_origins(
    data: Sequences, horizon: int, min_steps: int | None, stride: int, origins: Any, refit: int | None
) -> Origins:
    """Lay origins along the data and share them out among fits; arguments as in ``backtest``.

    Raises
    ------
    HorizonError
        If no origin leaves ``horizon`` steps behind it.
    ParameterError
        For origins that are no increasing steps or stamps inside the data, and other arguments that are none.
    """
    whole_number("stride", stride, 1)
    if refit is not None:
        whole_number("refit", refit, 1, "Pass the number of origins that share a fit, or None never to refit.")
    if origins is None:
        labels = _evenly(data, horizon, min_steps, int(stride))
        cuts = np.minimum(labels[:, None], data.lengths)
    else:
        if min_steps is not None or stride != 1:
            raise ParameterError(
                got="origins= together with min_steps= or stride=", expected="one of them", remedy="Leave one out."
            )
        labels, cuts = _asked(data, origins)
    valid = (cuts >= 1) & (cuts < data.lengths)
    if not valid.any(1).all():
        lost = labels[~valid.any(1)][0]
        raise ParameterError(
            got=f"the origin {lost}",
            expected="at least one step of a sequence before and behind every origin",
            remedy=f"The longest sequence has {data.max_length} steps.",
        )
    every = len(labels) if refit is None else int(refit)
    groups = tuple(np.arange(i, min(i + every, len(labels))) for i in range(0, len(labels), every))
    return Origins(cuts, labels, valid, groups)


def _evenly(data: Sequences, horizon: int, min_steps: int | None, stride: int) -> np.ndarray:
    longest = data.max_length
    first = max(1, longest // 2) if min_steps is None else whole_number("min_steps", min_steps, 1)
    if first > longest - horizon:
        raise HorizonError(
            got=f"horizon={horizon} behind the first {first} steps of a sequence of {longest}",
            expected=f"at most {max(0, longest - first)} steps to forecast",
            remedy="Use a shorter horizon, or fewer min_steps.",
        )
    return np.arange(first, longest - horizon + 1, stride)


def _asked(data: Sequences, origins: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels (m,) and cuts (m, n) of origins that were named."""
    given: Any = origins if isinstance(origins, pd.Index) else np.atleast_1d(origins)
    if not given.size or given.ndim > 1:
        raise ParameterError(
            got=f"origins of shape {given.shape}", expected="one origin or a list of them", remedy="Leave origins= out."
        )
    if given.dtype.kind not in "iu" and not isinstance(given, pd.Index):
        given = pd.Index(given)
    if given.dtype.kind in "iu" or all(is_default(index) for index in data.index):
        if given.dtype.kind not in "iu" or (given < 1).any():
            raise ParameterError(
                got=f"origins={list(given)}",
                expected="numbers of first steps that are known, from 1"
                + ("" if given.dtype.kind in "iu" else "; the data carry no stamps"),
                remedy="Try origins=[50, 60].",
            )
        given = np.asarray(given)
        cuts = np.minimum(given[:, None], data.lengths)
    else:
        try:
            given = _like(given, data.index[0])
            cuts = np.stack([index.searchsorted(given, side="right") for index in data.index], 1)
        except (TypeError, ValueError) as error:
            raise ParameterError(
                got=f"origins={list(given)} for stamps such as {data.index[0][0]}",
                expected="numbers of steps, or stamps as the data have them",
                remedy="Check their type.",
            ) from error
    if not (given[1:] > given[:-1]).all():
        raise ParameterError(got=f"origins={list(given)}", expected="increasing origins", remedy="Sort them.")
    return np.asarray(given), cuts


def _like(given: pd.Index, index: pd.Index) -> pd.Index:
    if isinstance(index, pd.DatetimeIndex):
        dates = pd.DatetimeIndex(given)
        return dates if index.tz is None or dates.tz is not None else dates.tz_localize(index.tz)
    return pd.PeriodIndex(given, freq=index.freq) if isinstance(index, pd.PeriodIndex) else given
