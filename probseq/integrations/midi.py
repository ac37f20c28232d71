"""Piano rolls as standard MIDI files, which music programs play and engrave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from probseq._types import positive_number, whole_number
from probseq.errors import DataTypeError, ParameterError, ShapeError, SupportError

__all__ = ["write_midi"]

_TICKS = 96
_LONGEST = 2**28 // _TICKS - 1
_PIANO = 21
_KEYS = 88
_DRUMS = 9
_CHANNELS = tuple(channel for channel in range(16) if channel != _DRUMS)
_SLOWEST = 60e6 / (2**24 - 1)


class _Roll(NamedTuple):
    """pitches : (key,); sounds : (time, key) bool"""

    pitches: NDArray[np.int64]
    sounds: NDArray[np.bool_]


def write_midi(
    path: str | os.PathLike[str],
    roll: Any,
    *,
    tempo: float = 80.0,
    program: int = 0,
    velocity: int = 80,
) -> None:
    """Write piano rolls to a standard MIDI file: format 0 for one, format 1 with a track each for several.

    A key that sounds at consecutive steps is one long note: a piano roll does not tell it from a repeated one.

    Parameters
    ----------
    path : str or path
        The file, usually ``*.mid``; an existing one is overwritten.
    roll : DataArray (time, variable), DataFrame, array (time, 88), or a list of them
        1 or True where a key sounds, 0, False or NaN where it is silent. Labels of variables are MIDI pitches, 0 to 127
        (60 is middle C), as in ``ps.datasets.jsb_chorales()``; an array has the 88 keys of a piano, 21 (A0) to 108
        (C8). ``horizon`` may stand for ``time``. Several rolls, in a list or along one more dimension, are heard
        together, as voices are.
    tempo : float
        Steps a minute; each is written as a quarter note.
    program : int
        The instrument, 0 to 127 of General MIDI: 0 is a piano, 19 a church organ, 52 a choir.
    velocity : int
        How hard keys are struck, 1 to 127.

    Raises
    ------
    SupportError
        For values between 0 and 1: expectations are no notes.
    ShapeError
        For other dimensions, no roll, more than 15, or rolls of more than 2 796 201 steps.
    DataTypeError
        For labels that are no pitches, or data that are no numbers.
    ParameterError
        For a path, tempo, program or velocity out of range.

    References
    ----------
    MIDI Manufacturers Association (1996), Standard MIDI Files 1.0.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import probseq as ps
    >>> path = Path(tempfile.mkdtemp(), "chorale.mid")
    >>> ps.write_midi(path, ps.datasets.jsb_chorales("test")[0], program=19)
    >>> path.read_bytes()[:4]
    b'MThd'
    """
    if not isinstance(path, str | os.PathLike):
        raise ParameterError(got=f"path={path!r}", expected="the name of a file", remedy='Write "chorale.mid".')
    positive_number("tempo", tempo, "80 steps a minute is a walking pace.")
    if not _SLOWEST <= tempo <= 60e6:
        raise ParameterError(
            got=f"tempo={tempo!r}", expected="3.6 to 60 000 000 steps a minute, which MIDI can say", remedy="Try 80."
        )
    _byte("program", program, 0, "0 is a piano, 19 a church organ.")
    _byte("velocity", velocity, 1, "80 is neither loud nor soft.")
    rolls = [_read(one) for one in _single(roll)]
    if not 1 <= len(rolls) <= len(_CHANNELS):
        raise ShapeError(
            got=f"{len(rolls)} rolls",
            expected=f"1 to {len(_CHANNELS)}, as many as a MIDI file has channels for",
            remedy="Write one file for each.",
        )
    beat = _event(0, b"\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big"))
    tracks = [b"".join(_events(*one, int(program), int(velocity))) for one in zip(rolls, _CHANNELS)]
    if len(tracks) == 1:
        chunks = [_chunk(b"MTrk", beat + tracks[0])]
    else:
        chunks = [_chunk(b"MTrk", part) for part in (beat + _end(0), *tracks)]
    header = [min(len(chunks) - 1, 1), len(chunks), _TICKS]
    chunks.insert(0, _chunk(b"MThd", b"".join(number.to_bytes(2, "big") for number in header)))
    Path(path).write_bytes(b"".join(chunks))


def _byte(name: str, value: Any, lowest: int, remedy: str) -> None:
    whole_number(name, value, lowest, remedy)
    if value > 127:
        raise ParameterError(got=f"{name}={value!r}", expected=f"{lowest} to 127", remedy=remedy)


def _single(roll: Any) -> list[Any]:
    """The rolls one by one."""
    if isinstance(roll, list | tuple):
        return list(roll)
    if isinstance(roll, xr.DataArray) and roll.ndim == 3:
        further = [dim for dim in roll.dims if dim not in ("time", "horizon", "variable")]
        return [roll.isel({further[0]: i}) for i in range(roll.sizes[further[0]])] if len(further) == 1 else [roll]
    return [roll]


def _read(roll: Any) -> _Roll:
    labels: Any = range(_PIANO, _PIANO + _KEYS)
    if isinstance(roll, xr.DataArray):
        when = "time" if "time" in roll.dims else "horizon"
        if set(roll.dims) != {when, "variable"}:
            raise _no_roll(f"an array over {', '.join(map(str, roll.dims)) or 'nothing'}")
        roll = roll.transpose(when, "variable")
        labels = roll["variable"].values if "variable" in roll.coords else labels
    elif isinstance(roll, pd.DataFrame):
        labels = roll.columns
    try:
        values = np.asarray(roll, dtype=float)
    except (TypeError, ValueError):
        raise DataTypeError(got=f"a roll of type {type(roll).__name__}", expected="0 and 1") from None
    if values.ndim != 2 or len(labels) != values.shape[1]:
        raise _no_roll(f"an array of shape {values.shape}")
    if len(values) > _LONGEST:
        raise ShapeError(got=f"{len(values)} steps", expected=f"at most {_LONGEST}", remedy="Write several files.")
    if not np.isin(values[~np.isnan(values)], (0.0, 1.0)).all():
        raise SupportError(
            got=f"values from {np.nanmin(values):g} to {np.nanmax(values):g}",
            expected="1 where a key sounds and 0 where it does not",
            remedy="Write a sample, or `roll > 0.5`.",
        )
    return _Roll(_pitches(labels), values == 1.0)


def _no_roll(got: str) -> ShapeError:
    return ShapeError(
        got=got,
        expected="a piano roll over time and variable, with the pitches as labels or with 88 keys",
        remedy="Select one sequence, path or draw.",
    )


def _pitches(labels: Any) -> NDArray[np.int64]:
    try:
        found = np.asarray(list(labels), dtype=float)
    except (TypeError, ValueError):
        found = np.full(len(labels), np.nan)
    if not (np.isin(found, range(128)).all() and len(np.unique(found)) == len(found)):
        raise DataTypeError(
            got=f"variables {', '.join(map(str, list(labels)[:3]))}, ...",
            expected="pitches, different whole numbers from 0 to 127",
            remedy="Name them so: roll.assign_coords(variable=range(21, 109)).",
        )
    return found.astype(np.int64)


def _events(roll: _Roll, channel: int, program: int, velocity: int) -> Iterator[bytes]:
    """Everything that happens on a track; keys are let go before others are struck at the same time."""
    yield _event(0, bytes([0xC0 | channel, program]))
    silent = np.zeros((1, len(roll.pitches)), dtype=np.int8)
    change = np.diff(np.concatenate([silent, roll.sounds.astype(np.int8), silent]), axis=0)
    steps, keys = np.nonzero(change)
    starts = change[steps, keys] > 0
    now = 0
    for i in np.lexsort((roll.pitches[keys], starts, steps)):
        status, force = (0x90, velocity) if starts[i] else (0x80, 64)
        yield _event(int(steps[i]) - now, bytes([status | channel, int(roll.pitches[keys[i]]), force]))
        now = int(steps[i])
    yield _end(len(roll.sounds) - now)


def _end(steps: int) -> bytes:
    return _event(steps, b"\xff\x2f\x00")


def _event(steps: int, message: bytes) -> bytes:
    """A message after so many steps, whose ticks are written in groups of seven bits."""
    ticks = steps * _TICKS
    groups = [ticks & 0x7F]
    while ticks := ticks >> 7:
        groups.insert(0, 0x80 | ticks & 0x7F)
    return bytes(groups) + message


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "big") + content
