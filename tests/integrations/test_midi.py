"""MIDI files, read back by a parser that shares nothing with the writer."""

import struct
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probseq as ps
from probseq.errors import DataTypeError, ParameterError, ProbseqError, ShapeError, SupportError


class Track(NamedTuple):
    """notes : {(pitch, first step, step after the last)}; beat in microseconds; end in steps"""

    notes: set
    length: float
    beats: list
    programs: list
    channels: set
    forces: set


def variable_length(data, at):
    value = 0
    while True:
        value, more = value << 7 | data[at] & 0x7F, data[at] & 0x80
        at += 1
        if not more:
            return value, at


def parsed(path):
    """(format, tracks) of a file without running status."""
    data = path.read_bytes()
    name, size, kind, n, division = struct.unpack(">4sIHHH", data[:14])
    assert (name, size) == (b"MThd", 6)
    at, tracks = 14, []
    while at < len(data):
        name, size = struct.unpack(">4sI", data[at : at + 8])
        assert name == b"MTrk"
        tracks.append(track(data[at + 8 : at + 8 + size], division))
        at += 8 + size
    assert at == len(data) and len(tracks) == n
    return kind, tracks


def track(data, division):
    at, now, open_notes, found = 0, 0, {}, Track(set(), 0, [], [], set(), set())
    while at < len(data):
        wait, at = variable_length(data, at)
        now += wait
        status = data[at]
        if status == 0xFF:
            kind, size = data[at + 1], data[at + 2]
            content, at = data[at + 3 : at + 3 + size], at + 3 + size
            if kind == 0x51:
                found.beats.append(int.from_bytes(content, "big"))
            if kind == 0x2F:
                assert at == len(data) and not open_notes
                return found._replace(length=now / division)
            continue
        if status >> 4 == 0xC:
            found.programs.append(data[at + 1])
            at += 2
            continue
        assert status >> 4 in (8, 9)
        found.channels.add(status & 0xF)
        pitch, force = data[at + 1], data[at + 2]
        if status >> 4 == 9:
            assert pitch not in open_notes and force > 0
            open_notes[pitch] = now / division
            found.forces.add(force)
        else:
            found.notes.add((pitch, open_notes.pop(pitch), now / division))
        at += 3
    raise AssertionError("no end of the track")


def runs(roll, pitches):
    """Stretches of ones, found one step after the other."""
    found = set()
    for pitch, column in zip(pitches, roll.T, strict=True):
        start = None
        for step, on in enumerate([*column, 0]):
            if on and start is None:
                start = step
            if not on and start is not None:
                found.add((int(pitch), start, step))
                start = None
    return found


def test_a_chorale_comes_back(tmp_path):
    roll = ps.datasets.jsb_chorales("test")[3]
    ps.write_midi(tmp_path / "one.mid", roll, tempo=90, program=19, velocity=70)
    kind, (found,) = parsed(tmp_path / "one.mid")
    assert kind == 0
    assert found.notes == runs(roll.values, roll["variable"].values)
    assert found.length == roll.sizes["time"]
    assert found.beats == [round(60e6 / 90)] and found.programs == [19] and found.forces == {70}


@pytest.mark.parametrize(
    "roll",
    [
        np.zeros((5, 88)),
        np.zeros((0, 88)),
        np.ones((1, 88)),
        np.ones((300, 88)),
        np.eye(88),
        np.random.default_rng(0).random((400, 88)) < 0.4,
    ],
    ids=["silence", "no step", "one step", "all keys, held", "a scale", "noise"],
)
def test_any_roll_comes_back(tmp_path, roll):
    ps.write_midi(str(tmp_path / "x.mid"), roll)
    _, (found,) = parsed(tmp_path / "x.mid")
    assert found.notes == runs(roll, range(21, 109))
    assert found.length == len(roll)


def test_waits_of_every_length_are_written(tmp_path):
    for silence in (1, 2, 170, 171, 21845, 21846):
        roll = np.zeros((silence + 1, 88))
        roll[-1, 39] = 1
        ps.write_midi(tmp_path / "late.mid", roll)
        _, (found,) = parsed(tmp_path / "late.mid")
        assert found.notes == {(60, silence, silence + 1)}


def test_several_rolls_are_tracks_of_their_own_channels(tmp_path):
    rng = np.random.default_rng(1)
    rolls = [rng.random((length, 88)) < 0.1 for length in rng.integers(1, 9, size=15)]
    ps.write_midi(tmp_path / "many.mid", rolls)
    kind, (beat, *tracks) = parsed(tmp_path / "many.mid")
    assert kind == 1 and not beat.notes and len(beat.beats) == 1
    assert [one.notes for one in tracks] == [runs(roll, range(21, 109)) for roll in rolls]
    assert [one.channels for one in tracks if one.notes] == [
        {c} for c, roll in zip([*range(9), *range(10, 16)], rolls, strict=True) if roll.any()
    ]


def test_labels_say_the_pitches_whatever_the_order_of_dimensions(tmp_path):
    notes = np.array([[1.0, 0.0, np.nan], [1.0, 1.0, 0.0]])
    roll = xr.DataArray(notes, dims=("horizon", "variable"), coords={"variable": [72, 60, 127]})
    expected = {(72, 0, 2), (60, 1, 2)}
    paths = xr.concat([roll, 0 * roll], "path")
    for one in (roll, roll.T, pd.DataFrame(notes, columns=[72, 60, 127]), paths.transpose("variable", "path", ...)):
        ps.write_midi(tmp_path / "x.mid", one)
        assert set().union(*(found.notes for found in parsed(tmp_path / "x.mid")[1])) == expected


@pytest.mark.parametrize(
    ("roll", "error", "words"),
    [
        (np.full((2, 88), 0.5), SupportError, "from 0.5 to 0.5"),
        (np.full((2, 88), 2), SupportError, "1 where a key sounds"),
        (np.zeros((2, 87)), ShapeError, "88 keys"),
        (np.zeros(88), ShapeError, "piano roll"),
        (np.zeros((2, 2, 88)), ShapeError, "piano roll"),
        (xr.DataArray(np.zeros((2, 88)), dims=("time", "state")), ShapeError, "over time, state"),
        (xr.DataArray(np.zeros((2, 3, 4, 88)), dims=("draw", "path", "time", "variable")), ShapeError, "Select one"),
        ([], ShapeError, "0 rolls"),
        ([np.zeros((1, 88))] * 16, ShapeError, "16 rolls"),
        (np.zeros((2**28 // 96, 88), dtype=np.int8)[:, :0], ShapeError, "88 keys"),
        ([["a"]], DataTypeError, "type list"),
        (pd.DataFrame([[1, 0]], columns=["a", "b"]), DataTypeError, "pitches"),
        (pd.DataFrame([[1, 0]], columns=[60, 60]), DataTypeError, "different"),
        (pd.DataFrame([[1, 0]], columns=[60, 128]), DataTypeError, "0 to 127"),
    ],
)
def test_what_is_no_piano_roll_is_refused(tmp_path, roll, error, words):
    with pytest.raises(error, match=words) as caught:
        ps.write_midi(tmp_path / "x.mid", roll)
    assert isinstance(caught.value, ProbseqError)
    assert not (tmp_path / "x.mid").exists()


def test_rolls_longer_than_a_wait_can_be_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="at most 2796201"):
        ps.write_midi(tmp_path / "x.mid", pd.DataFrame({60: np.zeros(2796202)}))
    ps.write_midi(tmp_path / "x.mid", pd.DataFrame({60: np.zeros(2796201)}))
    assert parsed(tmp_path / "x.mid")[1][0].length == 2796201


@pytest.mark.parametrize(
    "options",
    [{"tempo": 0}, {"tempo": 3.5}, {"tempo": np.nan}, {"tempo": "fast"}, {"tempo": 1e8}, {"program": 128}]
    + [{"program": -1}, {"program": 1.5}, {"velocity": 0}, {"velocity": 128}],
)
def test_settings_that_midi_cannot_say_are_refused(tmp_path, options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        ps.write_midi(tmp_path / "x.mid", np.zeros((1, 88)), **options)
    with pytest.raises(ParameterError, match="path"):
        ps.write_midi(3, np.zeros((1, 88)))
