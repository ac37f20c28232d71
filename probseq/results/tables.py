"""Forecasts as tables: Datasets that files keep, data frames long and wide, and what notebooks show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from html import escape
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probseq._random import RandomState
from probseq.data.sequences import sequences
from probseq.data.vocabulary import Vocabulary
from probseq.distributions.categorical import Categories
from probseq.errors import DataError, DataTypeError, ParameterError
from probseq.evaluation.scores import check_levels
from probseq.results.backends import Backend, LawBackend, PathsBackend
from probseq.results.derived import DerivedForecasts
from probseq.results.portable import attributed, portable
from probseq.results.quantiles import QuantilesBackend

__all__ = ["ForecastTables"]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN = 12
# Notebooks do not wait for the quantiles of more values than these.
_MOST_VALUES = 5000
# What a law is read from, best first.
_ALONG = {"probability": "category", "sample": "path", "quantiles": "quantile"}


class ForecastTables(DerivedForecasts):
    """A forecast that is written down; see `Forecast`."""

    def _repr_html_(self) -> str:
        title = f"<p><b>{escape(repr(self))}</b></p>"
        if int(np.prod(self._backend.shape)) > _MOST_VALUES:
            return title
        table = self.to_dataframe()
        shown = table.head(_SHOWN).to_html(index=False, float_format=lambda v: f"{v:.4g}")
        more = f"<p>{_SHOWN} of {len(table)} rows</p>" if len(table) > _SHOWN else ""
        return f"{title}{shown}{more}"

    def _table(self, quantiles: Sequence[float]) -> xr.Dataset:
        if self._backend.nominal:
            return xr.Dataset({"probability": self.probs()})  # type: ignore[attr-defined]
        levels = np.atleast_1d(np.asarray(quantiles))
        if len(np.unique(levels)) < len(levels):
            raise ParameterError(
                got=f"quantiles={quantiles!r}", expected="different levels", remedy="Name each level once."
            )
        return xr.Dataset(
            {
                "mean": self._label(self._backend.mean(), "mean"),
                "std": self._label(np.sqrt(self._backend.variance()), "std"),
                "quantiles": self.quantile(levels.tolist()),  # type: ignore[attr-defined]
            }
        )

    def to_dataset(
        self, quantiles: Sequence[float] = _LEVELS, *, n_paths: int = 0, random_state: RandomState = 0
    ) -> xr.Dataset:
        """Mean, standard deviation and quantiles (or the category probabilities) as one Dataset.

        Its attributes follow the CF conventions, and ``to_netcdf`` and ``to_zarr`` can write all of it: periods become
        their first instants and times with a zone become UTC, since no file format knows others.

        Parameters
        ----------
        quantiles : their levels
        n_paths : with a number, also ``sample``: this many joint paths
        random_state : for the paths

        See Also
        --------
        from_dataset : the way back.
        """
        table = self._table(quantiles)
        if n_paths:
            table["sample"] = self.sample(n_paths, random_state)  # type: ignore[attr-defined]
        kept = {"method": self.method, "exact": int(self.exact), "future": int(self.future)}
        return attributed(portable(table), self._labels.name).assign_attrs(
            **kept, counted=self._backend.discrete_variables.astype(np.int64)
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Self:
        """The forecast that ``to_dataset`` wrote down, also when it comes from a file.

        Category probabilities come back exactly. Of numbers the paths come back where there are some (``n_paths``),
        otherwise a law that is linear between the quantiles and constant beyond them: for that, write many levels.

        Raises
        ------
        DataTypeError
            Something else than a Dataset.
        DataError
            There is neither ``sample`` nor ``quantiles`` nor ``probability``.

        Examples
        --------
        >>> import probseq as ps
        >>> forecast = ps.RandomWalk().with_parameters(scale=[2.0]).forecast(2, history=[0.0, 1.0])
        >>> again = ps.Forecast.from_dataset(forecast.to_dataset([0.1, 0.5, 0.9]))
        >>> again.interval(0.8).values.round(2).tolist() == forecast.interval(0.8).values.round(2).tolist()
        True
        """
        if not isinstance(dataset, xr.Dataset):
            raise DataTypeError(
                got=f"an object of type {type(dataset).__name__}",
                expected="a Dataset",
                remedy="Write forecasts by to_dataset(), read files by xarray.open_dataset(path).",
            )
        name = next((name for name in _ALONG if name in dataset), None)
        if name is None:
            raise DataError(
                got=f"a Dataset of {', '.join(map(str, dataset.data_vars))}",
                expected="sample, quantiles or probability",
                remedy="Write forecasts by to_dataset().",
            )
        stored, along = dataset[name], _ALONG[name]
        if "horizon" in stored.dims:
            stored = stored.rename(horizon="time")
            if "timestamp" in stored.coords and "length" not in stored.coords:
                lengths = stored["timestamp"].notnull().sum("time").values
                stored = stored.assign_coords(length=("sequence", lengths))
        first = stored.isel({along: 0}, drop=True)
        first = first.drop_vars([c for c in first.coords if c not in (*first.dims, "length", "timestamp")])
        first = first.rename(dataset.attrs.get("variable_name", None))
        attrs = {key: value for key, value in first.attrs.items() if key not in ("long_name", "cell_methods")}
        labels = sequences(first.assign_attrs(attrs).fillna(0.0))
        labels = replace(labels, attrs=attrs)
        missing = [dim for dim in ("sequence", "variable") if dim not in stored.dims]
        cube = stored.expand_dims(missing).transpose(along, "sequence", "time", "variable").values
        scored = ~np.isnan(cube).any(0)
        counted = np.atleast_1d(np.asarray(dataset.attrs.get("counted", 0), dtype=bool))
        backend: Backend
        if name == "sample":
            backend = PathsBackend(cube, np.broadcast_to(counted, cube.shape[-1:]))
        elif name == "quantiles":
            backend = QuantilesBackend(stored["quantile"].values, np.moveaxis(cube, 0, -1))
        else:
            logits = torch.log(torch.as_tensor(np.moveaxis(np.nan_to_num(cube, nan=1.0), 0, -1)))
            backend = LawBackend(Categories(logits=logits))
            names = tuple(stored["category"].values.tolist())
            labels = replace(labels, vocabulary=None if names == tuple(range(len(names))) else Vocabulary(names))
        method = f"{backend.name} written down of: {dataset.attrs.get('method', 'unknown')}"
        future = bool(dataset.attrs.get("future", "horizon" in dataset.coords))
        mask = None if scored.all() else scored
        return cls(backend, labels, labels.index, scored=mask, method=method, future=future)

    def to_dataframe(
        self,
        quantiles: Sequence[float] = _LEVELS,
        *,
        wide: bool = False,
        levels: Sequence[float] = (0.8, 0.9),
        model: str = "forecast",
    ) -> pd.DataFrame:
        """One row a value: sequence, time, variable (those the data have), mean, std and quantiles (q0.05, ...).

        Parameters
        ----------
        quantiles : levels of the long table
        wide : bool
            The columns that Nixtla's libraries use instead: ``unique_id, ds``, the point forecast under the name of the
            ``model``, and ``model-lo-90, model-hi-90`` for every central interval. Each variable is a series.
        levels : probabilities of the intervals of the wide table
        model : name of the wide table's columns
        """
        if wide:
            return self._wide(levels, model)
        data = self._table(quantiles)
        if self._backend.nominal:
            return data["probability"].to_dataframe().reset_index()
        frame = data[["mean", "std"]].to_dataframe()
        for q in np.atleast_1d(np.asarray(quantiles, dtype=float)):
            frame[f"q{q:g}"] = data["quantiles"].sel(quantile=q, method="nearest").drop_vars("quantile").to_series()
        return frame.reset_index()

    def _wide(self, levels: Sequence[float], model: str) -> pd.DataFrame:
        self._need_numbers("to_dataframe", "to_dataframe() without wide=True", every=True)
        shares = np.atleast_1d(check_levels(levels, "levels")).tolist()
        ends = [end for share in shares for end in ((1 - share) / 2, (1 + share) / 2)]
        found = self._mask(self._backend.quantile(np.array([0.5, *ends])))
        mean = self._mask(self._backend.mean())
        # Where there is no mean the point forecast is the median.
        point = np.where(np.isinf(mean), found[..., 0], mean)
        frames = []
        for i, index in enumerate(self._index):
            for j in range(self._backend.shape[-1]):
                steps = slice(0, len(index))
                columns: dict[str, Any] = {"unique_id": self._series_name(i, j), "ds": index, model: point[i, steps, j]}
                for rank, share in enumerate(shares):
                    for side, word in enumerate(("lo", "hi")):
                        columns[f"{model}-{word}-{100 * share:g}"] = found[i, steps, j, 1 + 2 * rank + side]
                frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def _series_name(self, sequence: int, variable: int) -> Hashable:
        name, column = self._labels.names[sequence], self._labels.variables[variable]
        if self._labels.flat:
            return name
        return f"{name}/{column}" if self._labels.many else column
