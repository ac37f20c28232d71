"""The picture of a piano roll."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probseq.errors import DataTypeError, ShapeError, SupportError
from probseq.plotting import plot_piano_roll

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    yield plt.subplots()[1]
    plt.close("all")


def test_shades_are_expectations_and_dots_notes(ax):
    roll = np.random.default_rng(0).random((6, 3))
    notes = (roll > 0.5).astype(float)
    assert plot_piano_roll(roll, notes, pitches=[72, 60, 65], title="one", ax=ax) is ax
    shown = ax.collections[0].get_array().reshape(128, 6)
    np.testing.assert_array_equal(shown[[72, 60, 65]], roll.T)
    assert shown.sum() == pytest.approx(roll.sum())
    dots = set(zip(*ax.lines[0].get_data(), strict=True))
    assert dots == {(t, pitch) for t, k in zip(*np.nonzero(notes), strict=True) for pitch in [[72, 60, 65][k]]}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["C4", "G4", "C5"]
    assert ax.get_ylim() == (58.5, 73.5)


def test_labels_of_an_array_are_the_pitches(ax):
    roll = xr.DataArray(np.eye(2), dims=("time", "variable"), coords={"variable": [48, 55]})
    plot_piano_roll(roll, ax=ax)
    shown = ax.collections[0].get_array().reshape(128, 2)
    assert shown[48, 0] == shown[55, 1] == 1
    plot_piano_roll(np.eye(88), ax=ax)
    assert ax.collections[1].get_array().reshape(128, 88)[21, 0] == 1


def test_frames_and_arrays_in_any_order_show_the_same_keys(ax):
    roll = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    frame = pd.DataFrame(roll, columns=[48, 55])
    array = xr.DataArray(roll.T, dims=("variable", "time"), coords={"variable": [48, 55]})
    for one in (frame, array):
        plot_piano_roll(one, notes=array, ax=ax)
        shown = ax.collections[-1].get_array().reshape(128, 3)
        np.testing.assert_array_equal(shown[[48, 55]], roll.T)
        np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [48, 48, 55])


def test_what_is_missing_is_grey_and_silence_has_an_octave(ax):
    roll = np.zeros((2, 88))
    roll[0] = np.nan
    plot_piano_roll(roll, times=np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), ax=ax)
    mesh = ax.collections[0]
    assert np.ma.getmaskarray(mesh.get_array()).reshape(128, 2)[21:109, 0].all()
    assert mesh.get_cmap().get_bad()[:3] == pytest.approx([0xEB / 255] * 3)
    assert ax.get_ylim()[1] - ax.get_ylim()[0] >= 12
    assert plot_piano_roll(np.zeros((0, 88)), ax=ax) is ax


def test_what_does_not_fit_raises(ax):
    with pytest.raises(DataTypeError, match="numbers"):
        plot_piano_roll("abc", ax=ax)
    for arguments in [(np.zeros(3),), (np.zeros((2, 3)), np.zeros((3, 2)))]:
        with pytest.raises(ShapeError, match="time, key"):
            plot_piano_roll(*arguments, ax=ax)
    for pitches in ([60], [60, 61, 61], [60, 61, 200], [60, 61, 61.5]):
        with pytest.raises(ShapeError, match="one a key"):
            plot_piano_roll(np.zeros((2, 3)), pitches=pitches, ax=ax)
    with pytest.raises(ShapeError, match="one for each of 2 steps"):
        plot_piano_roll(np.zeros((2, 3)), times=[1], ax=ax)
    with pytest.raises(SupportError, match="from 0 to 1.5"):
        plot_piano_roll(np.array([[0, 1.5]]), ax=ax)
