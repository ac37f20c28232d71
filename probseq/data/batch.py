"""The one form that data have inside: a padded batch of sequences with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq._memory import spare
from probseq.data import covariates as inputs
from probseq.data import labels, timeindex
from probseq.data.intake import Coords, Cut, Intake
from probseq.data.timeindex import Freq
from probseq.data.vocabulary import Vocabulary
from probseq.errors import CovariateError, EmptyDataError, HorizonError

__all__ = ["Sequences", "as_intake", "pack"]

# Steps that are copied at a time to be hashed.
_DIGESTED = 8192


@dataclass(frozen=True, eq=False)
class Sequences:
    """One or many sequences as one padded array with everything needed to label results as the data were labelled.

    Attributes
    ----------
    values : ndarray of float64, shape (n, t, k)
        NaN where a value is missing, and beyond the length of a sequence. Tokens are their codes.
    lengths : ndarray of int64, shape (n,)
        Steps of each sequence.
    index : tuple of pd.Index
        The stamps of each sequence; a ``RangeIndex`` from 0 where there were none.
    names, variables : tuple
        Names of the sequences (default 0, 1, ...) and of the variables (default x0, x1, ...).
    many, flat : bool
        Whether results carry a ``sequence`` dimension, and whether they carry no ``variable`` dimension.
    named, named_sequences : bool
        Whether the user named the variables and the sequences.
    covariates : ndarray of float64, shape (n, t, m), or None
        Known inputs; NaN beyond the length of a sequence only. Their names are ``covariate_names``.
    static : ndarray of float64, shape (n, s), or None
        Inputs that do not vary in time. Their names are ``static_names``.
    vocabulary : Vocabulary or None
        What the codes of tokens stand for.
    is_text : bool
        Whether the tokens are the characters of a str.
    given_freq : str, number or None
        The frequency that the user gave.
    cut : tuple of (int, frequency)
        Where only the last steps are here, as after reading a file: for each sequence how many came before them, and
        the step of the whole index. Empty otherwise.
    name, attrs, time_attrs, coords
        Name and attributes of the data, those of their times, and further coordinates as ``{name: (dims, values)}``.
    """

    values: np.ndarray
    lengths: np.ndarray
    index: tuple[pd.Index, ...]
    names: tuple[Hashable, ...]
    variables: tuple[Hashable, ...]
    many: bool = False
    flat: bool = False
    named: bool = False
    named_sequences: bool = False
    covariates: np.ndarray | None = None
    covariate_names: tuple[Hashable, ...] = ()
    static: np.ndarray | None = None
    static_names: tuple[Hashable, ...] = ()
    vocabulary: Vocabulary | None = None
    is_text: bool = False
    given_freq: Freq = None
    cut: tuple[tuple[int, Freq], ...] = ()
    name: Hashable = None
    attrs: Mapping[Hashable, Any] = field(default_factory=dict)
    time_attrs: Mapping[Hashable, Any] = field(default_factory=dict)
    coords: Coords = field(default_factory=dict)

    @property
    def n_sequences(self) -> int:
        """Number of sequences."""
        return self.values.shape[0]

    @property
    def max_length(self) -> int:
        """Steps of the longest sequence."""
        return self.values.shape[1]

    @property
    def n_variables(self) -> int:
        """Number of variables."""
        return self.values.shape[2]

    @property
    def n_covariates(self) -> int:
        """Number of covariates."""
        return 0 if self.covariates is None else self.covariates.shape[2]

    def __len__(self) -> int:
        return self.n_sequences

    def without_units(self) -> Sequences:
        """The same values without attributes, for what is measured in another unit than the data."""
        coords = {key: value for key, value in self.coords.items() if key not in ("units", "long_name")}
        return replace(self, attrs={}, coords=coords)

    def __getitem__(self, which: Any) -> Sequences:
        return self.select(which)

    @cached_property
    def freq(self) -> tuple[Freq, ...]:
        """The step of each index, None where it is irregular; one too short to tell takes that of the others."""
        if self.given_freq is not None:
            return (self.given_freq,) * self.n_sequences
        if self.cut:
            return tuple(step for _, step in self.cut)
        found: list[Freq] = []
        for i, index in enumerate(self.index):
            same = i > 0 and (index is self.index[i - 1] or index.equals(self.index[i - 1]))
            found.append(found[-1] if same else timeindex.infer_step(index))
        known = {step for step in found if step is not None}
        if len(known) == 1:
            (common,) = known
            each = zip(found, self.index, strict=True)
            return tuple(common if step is None and len(index) < 3 else step for step, index in each)
        return tuple(found)

    @cached_property
    def regular(self) -> bool:
        """Whether every index has a stamp for every step of a known frequency."""
        return all(timeindex.is_contiguous(index) for index in self.index)

    @property
    def n_steps(self) -> tuple[int, ...]:
        """How many steps each sequence has, with those that were cut off before the ones that are here."""
        before = [n for n, _ in self.cut] or [0] * self.n_sequences
        return tuple(n + int(length) for n, length in zip(before, self.lengths, strict=True))

    def mask(self) -> np.ndarray:
        """Return which steps are real rather than padding, shape (n, t)."""
        return np.arange(self.max_length) < self.lengths[:, None]

    def seen(self) -> np.ndarray:
        """Return which values are present, shape (n, t, k)."""
        return self.mask()[..., None] & ~np.isnan(self.values)

    def require_values(self) -> Sequences:
        """Return self, or raise an EmptyDataError if every value is missing."""
        if not self.seen().any():
            raise EmptyDataError(
                got="data in which every value is missing",
                expected="at least one value that is not NaN",
                remedy="Check how the data were read.",
            )
        return self

    def block(self, i: int) -> np.ndarray:
        """Return the values of sequence `i` without padding, shape (t_i, k)."""
        return self.values[i, : self.lengths[i]]

    def select(self, which: int | slice | Sequence[int] | np.ndarray) -> Sequences:
        """Return one sequence (an int) or some of them, in the given order; a mask of bool works too."""
        one = isinstance(which, (int, np.integer))
        rows = np.arange(self.n_sequences)[which]
        rows = np.atleast_1d(rows)
        if not len(rows):
            raise EmptyDataError(got="no sequences selected", expected="at least one", remedy="Check the selection.")
        width = int(self.lengths[rows].max())
        coords: Coords = {}
        for key, (at, values) in self.coords.items():
            if "sequence" in at:
                values = np.take(values, rows[0] if one else rows, axis=at.index("sequence"))
                at = tuple(dim for dim in at if not (one and dim == "sequence"))
            if "time" not in at or width == self.max_length:
                coords[key] = (at, values)
        return replace(
            self,
            values=self.values[rows, :width],
            lengths=self.lengths[rows],
            index=tuple(self.index[i] for i in rows),
            names=tuple(self.names[i] for i in rows),
            many=self.many and not one,
            covariates=None if self.covariates is None else self.covariates[rows, :width],
            static=None if self.static is None else self.static[rows],
            cut=tuple(self.cut[i] for i in rows) if self.cut else (),
            coords=coords,
        )

    def slice_time(self, start: int | np.ndarray | None = None, stop: int | np.ndarray | None = None) -> Sequences:
        """Return steps ``start:stop`` of every sequence; negative numbers count from the end of each.

        Either may be an array of one number for each sequence.

        Raises
        ------
        EmptyDataError
            If nothing is left of a sequence.
        """
        starts, stops = (np.broadcast_to(np.asarray(end, dtype=object), self.n_sequences) for end in (start, stop))
        spans = [
            slice(*slice(first, last).indices(int(length))[:2])
            for first, last, length in zip(starts, stops, self.lengths, strict=True)
        ]
        for name, span in zip(self.names, spans, strict=True):
            if span.stop <= span.start:
                raise EmptyDataError(
                    got=f"no steps left of sequence {name!r} in a slice of its time",
                    expected="at least one step of every sequence",
                    remedy="Use a shorter horizon, or leave short sequences out.",
                )
        common = len({(span.start, span.stop) for span in spans}) == 1
        coords = {
            key: (at, np.take(values, np.arange(spans[0].start, spans[0].stop), at.index("time")))
            if "time" in at
            else (at, values)
            for key, (at, values) in self.coords.items()
            if "time" not in at or common
        }
        return replace(
            self,
            values=pack([self.values[i, span] for i, span in enumerate(spans)]),
            lengths=np.array([span.stop - span.start for span in spans], dtype=np.int64),
            index=tuple(index[span] for index, span in zip(self.index, spans, strict=True)),
            covariates=None
            if self.covariates is None
            else pack([self.covariates[i, span] for i, span in enumerate(spans)]),
            given_freq=self.given_freq if self.given_freq is not None else _one(self.freq),
            cut=tuple((before + span.start, step) for (before, step), span in zip(self.cut, spans, strict=False)),
            coords=coords,
        )

    def future_index(self, horizon: int, covariates: Any = None, freq: Any = None) -> tuple[pd.Index, ...]:
        """Return the stamps of the next `horizon` steps of each sequence.

        They follow `freq`, the frequency of the index, or the dates that future `covariates` carry, whichever is known
        first. Otherwise steps are counted, with an ``IndexWarning``.

        Raises
        ------
        HorizonError
            If `horizon` is not a positive integer.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
            raise HorizonError(
                got=f"horizon={horizon!r}", expected="a whole number of steps, 1 or more", remedy="Try horizon=1."
            )
        asked = timeindex.check_freq(freq)
        steps = self.freq if asked is None else (asked,) * self.n_sequences
        counted = [i for i, index in enumerate(self.index) if not timeindex.is_extendable(index, steps[i])]
        dated: dict[int, pd.Index] = {}
        if counted and covariates is not None:
            dated = inputs.covariate_dates(covariates, as_intake(self), counted, int(horizon))
            counted = [i for i in counted if i not in dated]
        if counted:
            timeindex.warn_counted([self.names[i] for i in counted] if self.many else [])
        out: list[pd.Index] = []
        n_steps = self.n_steps
        for i, index in enumerate(self.index):
            alike = i > 0 and i - 1 not in dated and (steps[i], n_steps[i]) == (steps[i - 1], n_steps[i - 1])
            if i in dated:
                out.append(dated[i])
            elif alike and index.equals(self.index[i - 1]):
                out.append(out[-1])
            else:
                out.append(timeindex.extend(index, int(horizon), steps[i], n_steps[i]))
        return tuple(out)

    def future_covariates(
        self, horizon: int, covariates: Any = None, index: Sequence[pd.Index] | None = None
    ) -> np.ndarray | None:
        """Return the covariates of the next `horizon` steps, shape (n, horizon, m), or None if the data have none.

        Columns are matched by name, rows by time where both sides carry stamps and by position otherwise.

        Raises
        ------
        CovariateError
            If they are missing, superfluous, or do not cover the horizon.
        """
        if self.covariates is None and covariates is None:
            return None
        if self.covariates is None or covariates is None:
            names = list(self.covariate_names)
            raise CovariateError(
                got="no future covariates" if covariates is None else "covariates for data that were given none",
                expected=f"the values of {names} over {horizon} future steps" if names else "no covariates",
                remedy="Pass covariates= to forecast." if names else "Leave covariates out, or fit with them.",
            )
        wanted = self.future_index(horizon, covariates) if index is None else tuple(index)
        return inputs.ahead(covariates, as_intake(self), wanted, self.covariate_names, horizon)

    def concat_history(self, history: Sequences) -> Sequences:
        """Return `history` followed by these data; see `probseq.data.history.concat_history`."""
        from probseq.data.history import concat_history

        return concat_history(history, self)

    @cached_property
    def _digest(self) -> str:
        out = hashlib.sha256()
        out.update(repr((self.values.shape[2], self.lengths.tolist(), [str(name) for name in self.names])).encode())
        for i in range(self.n_sequences):
            block = self.block(i)
            for start in range(0, len(block), _DIGESTED):
                part = block[start : start + _DIGESTED]
                out.update(np.ascontiguousarray(np.where(np.isnan(part), np.nan, part + 0.0)).data)
            if self.covariates is not None:
                out.update(np.ascontiguousarray(self.covariates[i, : self.lengths[i]] + 0.0).data)
        if self.static is not None:
            out.update(np.ascontiguousarray(self.static + 0.0).tobytes())
        if self.vocabulary is not None:
            out.update(repr(self.vocabulary).encode())
        return out.hexdigest()

    def fingerprint(self) -> str:
        """Return a SHA-256 of values, lengths, names and inputs; equal data in another form have the same."""
        return self._digest

    def label(
        self,
        array: Any,
        dims: Sequence[str],
        *,
        name: Hashable = None,
        index: Sequence[pd.Index] | None = None,
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[Hashable, Any] | None = None,
        padded: bool = False,
    ) -> xr.DataArray:
        """Return `array` as a DataArray with the dimension words in their fixed order and the user's coordinates.

        Parameters
        ----------
        array : array
            Always with its ``sequence`` and ``variable`` axes where `dims` name them; they are dropped if one sequence
            came in (``many`` is False) and if the data were 1-D (``flat``).
        dims : sequence of str
            One word an axis, in any order: draw, path, sequence, time, horizon, variable, state, then others.
        name, attrs
            Of the result.
        index : sequence of pd.Index, optional
            The stamps of the ``time`` axis where it is not that of the data, such as a forecast's.
        coords : mapping, optional
            Further coordinates, such as ``{"quantile": ("quantile", [0.1, 0.9])}``.
        padded : bool
            Whether `array` is blank already behind the end of each sequence.

        Returns
        -------
        xr.DataArray
            Where the stamps differ between sequences, ``time`` is the step number, ``length(sequence)`` the number of
            real steps, and ``timestamp(sequence, time)`` the stamps; padding is NaN, -1 for integers, False for bool.
        """
        return labels.label(self, array, dims, name=name, index=index, coords=coords, attrs=attrs, padded=padded)

    def to_dataarray(self) -> xr.DataArray:
        """Return the values as a DataArray, tokens as their codes."""
        return self.label(self.values, ("sequence", "time", "variable"), name=self.name, attrs=self.attrs)


def _one(steps: tuple[Freq, ...]) -> Freq:
    return steps[0] if len(set(steps)) == 1 else None


def pack(blocks: Sequence[np.ndarray], copy: bool = True) -> np.ndarray:
    """Return blocks (t_i, k) as a new array (n, t, k) padded by NaN; without `copy` one block may be the array."""
    if len(blocks) == 1:
        one = np.array(blocks[0], order="C") if copy else np.require(blocks[0], requirements=["C", "W"])
        return one[None]
    sizes = blocks.lengths if isinstance(blocks, Cut) else np.array([len(block) for block in blocks])
    shape = (len(blocks), int(sizes.max()), blocks[0].shape[1])
    out = np.empty(shape) if copy else spare(shape)
    if isinstance(blocks, Cut) and blocks.whole.dtype == out.dtype:
        # One item a step: numpy moves items under a mask much faster than rows.
        step = f"V{out.itemsize * shape[2]}"
        items, real = out.view(step)[..., 0], np.arange(shape[1]) < sizes[:, None]
        items[real] = np.ascontiguousarray(blocks.whole).view(step)[:, 0]
        items[~real] = np.full(shape[2], np.nan).view(step)
        return out
    out.fill(np.nan)
    for row, block in zip(out, blocks, strict=True):
        row[: len(block)] = block
    return out


def as_intake(data: Sequences) -> Intake:
    """Return `data` as a reader would have found them, for laying covariates beside them."""
    return Intake(
        [data.block(i) for i in range(data.n_sequences)],
        list(data.index),
        data.names if data.named_sequences else None,
        many=data.many,
    )
