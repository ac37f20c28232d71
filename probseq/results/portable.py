"""Datasets that every file format can keep: plain coordinates, and attributes by the CF conventions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["attributed", "portable"]

_WORDS = {
    "mean": "predictive mean",
    "std": "predictive standard deviation",
    "quantiles": "predictive quantiles",
    "sample": "predictive paths",
    "probability": "probability of each category",
}
_CELL_METHODS = {"mean": "realization: mean", "std": "realization: standard_deviation"}
_COORDINATES = {
    "quantile": {"long_name": "probability level", "units": "1"},
    "path": {"standard_name": "realization", "units": "1"},
    "category": {"long_name": "category"},
    "variable": {"long_name": "variable"},
    "sequence": {"long_name": "sequence", "cf_role": "timeseries_id"},
    "horizon": {"long_name": "steps ahead", "units": "1"},
}


def portable(data: xr.Dataset) -> xr.Dataset:
    """The same Dataset with coordinates and attributes that netCDF and Zarr can store.

    Periods become their first instants, times with a zone become UTC, other objects become text.
    """
    for name, coordinate in data.coords.items():
        plain, note = _plain(data.indexes.get(name), coordinate.values)
        if plain is not None:
            fresh = xr.Variable(coordinate.dims, plain, {**coordinate.attrs, **note})
            data = data.assign_coords({name: fresh})
    for name in data.data_vars:
        data[name].attrs = _plain_attributes(data[name].attrs)
    return data


def _plain(index: pd.Index | None, values: np.ndarray) -> tuple[np.ndarray | None, dict[str, str]]:
    """What can be stored in the place of a coordinate and a note on it; None where it can be stored as it is."""
    if isinstance(index, pd.PeriodIndex):
        return index.to_timestamp().to_numpy(), {"comment": f"first instants of periods of frequency {index.freqstr}"}
    if isinstance(index, pd.DatetimeIndex) and index.tz is not None:
        return index.tz_convert("UTC").tz_localize(None).to_numpy(), {"comment": f"UTC; given in {index.tz}"}
    if values.dtype != object or all(isinstance(one, str) for one in values.flat):
        return None, {}
    return np.array(["" if one is None else str(one) for one in values.flat], dtype=object).reshape(values.shape), {}


def _plain_attributes(attrs: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    kept = (str, int, float, np.number, np.ndarray)
    return {
        str(key): int(value) if isinstance(value, bool) else value if isinstance(value, kept) else str(value)
        for key, value in attrs.items()
        if value is not None
    }


def attributed(data: xr.Dataset, name: Hashable) -> xr.Dataset:
    """The same Dataset with names and units as the CF conventions want them.

    Parameters
    ----------
    name : what the data are called, or None
    """
    for key in data.data_vars:
        one = data[key]
        called = one.attrs.get("long_name", name)
        words = _WORDS[str(key)] + ("" if called is None else f" of {called}")
        units = {"units": "1"} if key == "probability" else {}
        methods = {"cell_methods": _CELL_METHODS[str(key)]} if key in _CELL_METHODS else {}
        one.attrs = {**one.attrs, "long_name": words, **units, **methods}
    labels = {key: data[key].assign_attrs(_COORDINATES[str(key)]) for key in data.coords if key in _COORDINATES}
    if "time" in data.coords:
        dated = data["time"].dtype.kind == "M"
        kind = {"standard_name": "time"} if dated else {"long_name": "time step"}
        labels["time"] = data["time"].assign_attrs({**kind, "axis": "T"})
    known = {} if name is None else {"variable_name": str(name)}
    return data.assign_coords(labels).assign_attrs(Conventions="CF-1.11", source="probseq", **known)
