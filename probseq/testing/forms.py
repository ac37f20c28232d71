"""Checks of how an estimator reads data and gives labels back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from probseq.errors import DataError
from probseq.testing.registry import Row

__all__ = ["check_coordinates", "check_input_forms", "check_ragged"]


def check_input_forms(row: Row) -> None:
    """Every form of the same data has the same likelihood."""
    x, u, fitted = row.values(seed=4), row.inputs(seed=4), row.fitted
    expected = float(fitted.log_prob(x, covariates=u))
    forms: dict[str, Any] = {
        "DataFrame": pd.DataFrame(x),
        "DataArray": xr.DataArray(x, dims=("time", "variable")),
        "tensor": torch.as_tensor(x),
        "3-D": x[None],
        "list of one": [x],
        "float32": x.astype(np.float32) if row.kind in ("count", "share", "code", "bit") else x,
    }
    if row.n_variables == 1:
        forms |= {
            "1-D": x[:, 0],
            "list": x[:, 0].tolist(),
            "Series": pd.Series(x[:, 0]),
            "1-D DataArray": xr.DataArray(x[:, 0], dims="time"),
        }
    if row.kind in ("count", "share", "code", "bit"):
        forms["integers"] = x.astype(int)
    for name, form in forms.items():
        got = float(np.squeeze(fitted.log_prob(form, covariates=u if np.ndim(x) == 2 else None).values))
        assert_allclose(got, expected, rtol=1e-6, err_msg=f"the {name} has another likelihood")
    if row.covariates:
        return
    y = row.values(17, seed=5)
    both = np.array([expected, float(fitted.log_prob(y))])
    joined = np.concatenate([x, y])
    keys = np.repeat(["a", "b"], [len(x), len(y)])
    steps = np.concatenate([np.arange(len(x)), np.arange(len(y))])
    index = pd.MultiIndex.from_arrays([keys, steps], names=["series", "time"])
    padded = np.full((2, *x.shape), np.nan)
    padded[0], padded[1, : len(y)] = x, y
    many: dict[str, Any] = {
        "list": ([x, y], {}),
        "lengths": (joined, {"lengths": [len(x), len(y)]}),
        "mapping": ({"a": x, "b": y}, {}),
        "MultiIndex": (pd.DataFrame(joined, index=index), {}),
    }
    for name, (form, options) in many.items():
        scores = fitted.log_prob(form, **options)
        assert scores.dims == ("sequence",), f"{name}: dims {scores.dims}"
        assert_allclose(scores, both, rtol=1e-6, err_msg=f"the {name} has another likelihood")


def check_ragged(row: Row) -> None:
    """Sequences of different lengths with gaps score as they do alone, and can be fitted."""
    parts = [row.values(t, seed=t) for t in (30, 12 + row.start, 21)]
    inputs = [row.inputs(len(p), seed=len(p)) for p in parts]
    if row.missing != "forbidden":
        for part in parts:
            part[row.start + 3, 0] = np.nan
    else:
        broken = row.values(30)
        broken[row.start + 2] = np.nan
        estimator = row.make()
        try:
            estimator.fit(broken)
        except DataError:
            assert not hasattr(estimator, "model_"), "half fitted"
        else:
            raise AssertionError("a gap that the model cannot integrate out raises no DataError")
    more: dict[str, Any] = {"covariates": inputs} if row.covariates else {}
    together = row.fitted.log_prob(parts, **more)
    for i, part in enumerate(parts):
        alone = row.fitted.log_prob(part, covariates=inputs[i])
        assert_allclose(together[i], alone, rtol=1e-5, err_msg=f"sequence {i} scores differently among others")
    again = row.make().fit(parts, **more)
    assert np.isfinite(again.score(parts, **more)), "a ragged fit does not score"
    steps = again.log_prob_steps(parts, **more)
    assert steps.dims == ("sequence", "time") and steps.shape == (3, 30)
    assert_array_equal(np.isfinite(steps[1, len(parts[1]) :]), False, "padding is scored")


def check_coordinates(row: Row) -> None:
    """Stamps, names and dimensions of the user come back; forecasts continue them."""
    x = row.values(seed=6)
    dates = pd.date_range("2020-01-31", periods=len(x), freq="ME")
    names = [f"v{i}" for i in range(row.n_variables)]
    frame = pd.DataFrame(x, index=dates, columns=names)
    u = row.inputs(seed=6)
    known = None if u is None else pd.DataFrame(u, index=dates, columns=list("ab")[: row.covariates])
    ahead = pd.date_range("2023-05-31", periods=3, freq="ME")
    future = None if u is None else pd.DataFrame(row.inputs(3), index=ahead, columns=list("ab")[: row.covariates])
    fitted = row.make().fit(frame, covariates=known)
    assert list(fitted.feature_names_in_) == names
    for result in (fitted.log_prob_steps(frame, covariates=known), fitted.predict(frame, covariates=known)):
        assert_array_equal(result.indexes["time"], dates, "the dates do not come back")
    prediction = fitted.predict(frame, covariates=known)
    assert "variable" in prediction.dims and list(prediction["variable"].values) == names, "the columns are lost"
    forecast = fitted.forecast(3, covariates=future)
    paths = forecast.sample(3)
    assert_array_equal(paths.indexes["time"], ahead, "the forecast does not continue the dates")
    array = xr.DataArray(
        x, dims=("time", "variable"), coords={"time": dates, "variable": names, "season": ("time", dates.month)}
    )
    steps = fitted.log_prob_steps(array, covariates=known)
    assert_array_equal(steps.indexes["time"], dates, "the dates of a DataArray do not come back")
    if row.n_variables == 1 and u is None:
        series = pd.Series(x[:, 0], index=dates, name="sales")
        one = row.make().fit(series)
        assert one.predict(series).dims == ("time",), f"dims {one.predict(series).dims} for a Series"
        assert one.log_prob_steps(series).dims == ("time",)
        many = pd.concat({"north": series, "south": series})
        per_series = one.log_prob(many)
        assert list(per_series["sequence"].values) == ["north", "south"], "the names of the series are lost"
