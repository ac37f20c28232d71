"""The example data: shapes, times, a few values known from print, size and licences."""

from importlib.resources import files

import numpy as np
import pytest
import xarray as xr

from probseq.data import datasets
from probseq.data.sequences import sequences
from probseq.errors import ParameterError

SHAPES = {
    "air_passengers": (144,),
    "co2": (2284,),
    "earthquakes": (107,),
    "lake_huron": (98,),
    "laser": (10093,),
    "old_faithful": (299, 2),
    "sp500": (1043,),
    "sunspots": (309,),
}


def test_every_data_set_has_a_row():
    assert set(datasets.names()) == {*SHAPES, "jsb_chorales", "tang_poems"}


@pytest.mark.parametrize("name", SHAPES)
def test_arrays(name):
    y = datasets.load(name)
    assert isinstance(y, xr.DataArray) and y.shape == SHAPES[name] and y.dims[0] == "time"
    assert {"long_name", "units", "source", "licence"} <= set(y.attrs) and y.name
    assert y.indexes["time"].is_monotonic_increasing and y.indexes["time"].is_unique
    assert sequences(y).regular
    assert int(np.isnan(y.astype(float)).sum()) == (59 if name == "co2" else 0)


def test_values_from_print():
    air = datasets.air_passengers()
    assert air.sel(time="1949-01").item() == 112 and air.sel(time="1960-12").item() == 432
    quakes = datasets.earthquakes()
    assert quakes.sel(time=[1900, 1901, 1943, 2006]).to_numpy().tolist() == [13, 14, 41, 11]
    assert datasets.lake_huron().sel(time=1875).item() == 580.38
    laser = datasets.laser()
    assert laser[:6].to_numpy().tolist() == [86, 141, 95, 41, 22, 21] and laser.dtype == float
    assert laser.min() == 0 and laser.max() == 255
    assert datasets.old_faithful()[0].to_numpy().tolist() == [80, 4.0166667]
    assert datasets.sunspots().sel(time=1700).item() == 5.0
    assert datasets.co2()[0].item() == 316.1
    close = datasets.sp500()
    assert close.sel(time="1999-01-08").item() == 1275.09 and close.sel(time="2018-12-28").item() == 2485.74
    assert set(close.time.dt.dayofweek.to_numpy().tolist()) == {4}


@pytest.mark.parametrize(("split", "count", "steps"), [("train", 229, 13807), ("valid", 76, 4602), ("test", 77, 4725)])
def test_chorales(split, count, steps):
    chorales = datasets.jsb_chorales(split)
    assert len(chorales) == count and sum(len(one) for one in chorales) == steps
    first = chorales[0]
    assert first.dims == ("time", "variable") and first.coords["variable"].to_numpy().tolist() == list(range(21, 109))
    assert set(np.unique(first).tolist()) == {0, 1}
    assert "licence" in chorales.attrs
    assert sequences(chorales).values.shape[0::2] == (count, 88)


def test_the_first_chord_of_the_first_chorale():
    first = datasets.jsb_chorales()[0]
    assert first.sizes["time"] == 129
    assert first.indexes["variable"][first[0].to_numpy() == 1].tolist() == [60, 72, 79, 88]


@pytest.mark.parametrize(("form", "counts", "phrase"), [("wuyan", (1608, 200, 200), 5), ("qiyan", (423, 52, 52), 7)])
def test_poems(form, counts, phrase):
    poems = datasets.tang_poems(form)
    parts = {name: datasets.tang_poems(form, name) for name in ("train", "valid", "test")}
    assert tuple(map(len, parts.values())) == counts and all(isinstance(poem, str) for poem in poems)
    assert sorted(poem for part in parts.values() for poem in part) == sorted(poems)
    assert parts["valid"][1] == poems[18] and parts["test"][1] == poems[19]
    phrases = [one for poem in poems for one in poem.replace("。", "，").split("，")[:-1]]
    assert all(len(one) == phrase for one in phrases) and len(set(phrases)) == len(phrases)
    assert not any("\ufffd" in poem for poem in poems)
    assert sequences(poems).is_text and "MIT" in poems.attrs["licence"]


def test_unknown_names():
    with pytest.raises(ParameterError, match="air_passengers"):
        datasets.load("airline")
    with pytest.raises(ParameterError, match="split"):
        datasets.load("jsb_chorales", split="dev")
    with pytest.raises(ParameterError, match="form"):
        datasets.tang_poems("song")
    with pytest.raises(ParameterError, match="split"):
        datasets.tang_poems("wuyan", "dev")


def test_files_are_small_and_licensed():
    folder = files("probseq.data") / "files"
    content = {entry.name: len(entry.read_bytes()) for entry in folder.iterdir()}
    assert sum(content.values()) < 700_000
    licences = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert all(name in licences for name in content if name != "LICENSES.md")
