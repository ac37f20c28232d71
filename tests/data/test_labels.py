"""Results carry the fixed dimension words and the user's coordinates."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probseq.data.labels import dataset
from probseq.data.sequences import sequences, to_list
from probseq.errors import ShapeError

DAYS = pd.date_range("2024-01-01", periods=3)


def test_dimensions_come_in_their_fixed_order():
    data = sequences([[1.0, 2.0], [3.0, 4.0]])
    out = data.label(np.zeros((3, 2, 4, 2, 5)), ("state", "time", "draw", "sequence", "path"), name="p")
    assert out.dims == ("draw", "path", "sequence", "time", "state")
    assert out.sizes == {"draw": 4, "path": 5, "sequence": 2, "time": 2, "state": 3}
    assert out.coords["state"].to_numpy().tolist() == [0, 1, 2] and out.name == "p"


@pytest.mark.parametrize(
    ("X", "dims"),
    [
        ([1.0, 2.0], ("time",)),
        (np.zeros((2, 1)), ("time", "variable")),
        ([[1.0, 2.0], [3.0, 4.0]], ("sequence", "time")),
        (np.zeros((1, 2, 1)), ("sequence", "time", "variable")),
    ],
)
def test_only_dimensions_that_came_in_go_out(X, dims):
    data = sequences(X)
    assert data.label(data.values, ("sequence", "time", "variable")).dims == dims
    assert data.label(np.zeros(data.n_sequences), ("sequence",)).dims == dims[:1] * ("sequence" in dims)


def test_coordinates_come_back():
    given = xr.DataArray(
        np.arange(6.0).reshape(3, 2),
        dims=("day", "tone"),
        coords={
            "day": DAYS,
            "tone": [60, 64],
            "holiday": ("day", [0, 1, 0]),
            "unit": ("tone", ["u", "v"]),
            "site": "here",
        },
        name="level",
        attrs={"units": "m"},
    )
    data = sequences(given)
    back = data.to_dataarray()
    assert back.identical(given.rename(day="time", tone="variable"))
    tail = data.slice_time(1).to_dataarray()
    assert tail.identical(back.isel(time=slice(1, None)))
    ahead = data.label(np.zeros((1, 2, 2)), ("sequence", "time", "variable"), index=data.future_index(2))
    assert ahead.indexes["time"].equals(pd.DatetimeIndex(["2024-01-04", "2024-01-05"]))
    assert "holiday" not in ahead.coords and ahead.coords["site"] == "here"


@pytest.mark.parametrize(
    "stamps",
    [
        pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        pd.period_range("2024-01", periods=3, freq="M"),
        pd.timedelta_range("1h", periods=3, freq="h"),
        pd.Index([1900, 1901, 1902]),
        pd.Index(["a", "b", "c"]),
    ],
    ids=["zone", "period", "duration", "years", "text"],
)
def test_indexes_come_back(stamps):
    one = sequences(pd.Series([1.0, 2.0, 3.0], stamps)).to_dataarray()
    assert one.indexes["time"].equals(stamps)
    ragged = sequences({"a": pd.Series([1.0, 2.0, 3.0], stamps), "b": pd.Series([1.0], stamps[:1])}).to_dataarray()
    assert ragged.coords["timestamp"].dims == ("sequence", "time")
    assert [list(part.indexes["time"]) for part in to_list(ragged)] == [list(stamps), list(stamps[:1])]
    again = sequences(ragged)
    assert list(again.index[0]) == list(stamps) and again.lengths.tolist() == [3, 1]


def test_equal_stamps_are_one_index():
    panel = sequences({"a": pd.Series([1.0, 2.0, 3.0], DAYS), "b": pd.Series([4.0, 5.0, 6.0], DAYS)}).to_dataarray()
    assert panel.indexes["time"].equals(DAYS) and "length" not in panel.coords
    shifted = sequences({"a": pd.Series([1.0], DAYS[:1]), "b": pd.Series([4.0], DAYS[1:2])}).to_dataarray()
    assert shifted.coords["time"].to_numpy().tolist() == [0]
    assert shifted.coords["timestamp"].to_numpy().ravel().tolist() == [
        stamp.value for stamp in DAYS[:2].as_unit("ns")
    ] or (pd.DatetimeIndex(shifted.coords["timestamp"].to_numpy().ravel()).equals(DAYS[:2]))


def test_padding_by_kind():
    data = sequences([[1.0, 2.0], [3.0]])
    kinds = {np.float64: np.nan, np.int64: -1, np.bool_: False}
    for kind, blank in kinds.items():
        out = data.label(np.ones((2, 2), dtype=kind), ("sequence", "time"))
        assert out.dtype == kind and out.to_numpy()[0].all()
        np.testing.assert_equal(out.to_numpy()[1, 1], kind(blank))
    assert out.coords["length"].to_numpy().tolist() == [2, 1]
    draws = data.label(np.ones((3, 2, 2, 4)), ("draw", "sequence", "time", "state")).to_numpy()
    assert np.isnan(draws[:, 1, 1]).all() and np.isfinite(draws[:, 0]).all()


def test_forecasts_of_ragged_sequences_have_their_own_stamps():
    data = sequences({"a": pd.Series([1.0, 2, 3], DAYS), "b": pd.Series([1.0, 2, 3], DAYS + pd.Timedelta("1D"))})
    ahead = data.label(np.zeros((2, 2)), ("sequence", "time"), index=data.future_index(2))
    parts = to_list(ahead)
    assert parts[1].indexes["time"].equals(pd.DatetimeIndex(["2024-01-05", "2024-01-06"]))
    assert np.isfinite(ahead).all()


def test_horizon_and_further_coordinates():
    data = sequences([1.0, 2.0])
    out = data.label(
        np.zeros((1, 3, 2)), ("sequence", "horizon", "quantile"), coords={"quantile": [0.1, 0.9]}, attrs={"units": "m"}
    )
    assert out.coords["horizon"].to_numpy().tolist() == [1, 2, 3]
    assert out.coords["quantile"].to_numpy().tolist() == [0.1, 0.9] and out.attrs == {"units": "m"}


def test_to_list_of_one_sequence():
    one = sequences([1.0, 2.0]).to_dataarray()
    assert to_list(one) == [one]


def test_a_word_for_every_axis():
    with pytest.raises(ShapeError, match="one dimension word"):
        sequences([1.0]).label(np.zeros((1, 1)), ("sequence",))


@pytest.mark.parametrize("X", [[1.0, 2.0, 3.0], [[1.0, 2.0, 3.0], [4.0]]])
def test_results_with_the_same_labels_do_not_share_what_a_user_writes(X):
    data = sequences(X)
    first = data.label(data.values, ("sequence", "time", "variable"), name="a", attrs={"unit": "m"})
    kept = first.copy(deep=True)
    second = data.label(data.values + 1, ("sequence", "time", "variable"), name="b")
    second.attrs["unit"] = "km"
    second["time"].attrs["unit"] = "s"
    second.coords["more"] = 1
    second.name = "c"
    third = data.label(data.values, ("sequence", "time", "variable"), name="a", attrs={"unit": "m"})
    assert third.identical(kept) and first.identical(kept) and np.nanmin(second) == 2


def test_ragged_results_that_are_blank_already_equal_those_that_are_not():
    data = sequences([[1.0, 2.0, 3.0], [4.0]])
    codes = np.array([[0, 1, 2], [3, 7, 7]])
    blank = np.array([[0, 1, 2], [3, -1, -1]])
    shown = data.label(codes, ("sequence", "time"))
    assert shown.identical(data.label(blank, ("sequence", "time"), padded=True))
    assert shown.to_numpy().tolist() == blank.tolist() and shown.coords["length"].to_numpy().tolist() == [3, 1]


def test_results_of_one_shape_share_nothing_that_users_change() -> None:
    data = sequences(np.arange(4.0))
    first, second = (data.label(np.zeros((1, 4)), ("sequence", "time"), name="a", attrs={"unit": "m"}) for _ in "ab")
    first.time.attrs["note"] = "mine"
    first.coords["other"] = ("time", np.ones(4))
    first.attrs["unit"] = "km"
    first[:] = 1.0
    third = data.label(np.zeros((1, 4)), ("sequence", "time"), name="a", attrs={"unit": "m"})
    for one in (second, third):
        assert one.attrs == {"unit": "m"} and not one.time.attrs and list(one.coords) == ["time"]
        assert (one == 0.0).all()
    assert list(first.sel(time=slice(1, 2)).time) == [1, 2]


@pytest.mark.parametrize(
    "stamps",
    [
        np.arange(5, 8),
        DAYS,
        DAYS.to_numpy(),
        DAYS.tz_localize("CET"),
        DAYS.tz_localize("CET").to_numpy(),
        DAYS.to_period("M") + np.arange(3),
        pd.Index(["a", "b", 3], dtype=object),
    ],
    ids=str,
)
def test_a_dataset_is_what_xarray_makes_of_its_parts(stamps):
    parts = {
        "score": (("model", "time"), np.arange(6.0).reshape(2, 3), {"units": "nats"}),
        "law": (("time", "quantile"), np.ones((3, 1)), {}),
    }
    coords = {"told": (("model",), ("exact", "paths")), "since": (("time",), np.array([1, 1, 2]))}
    labels = {"model": ("first", "b"), "time": stamps, "quantile": (0.5,), "horizon": range(1, 3)}
    made = dataset(parts, labels, coords)
    words = {
        "model": np.array(["first", "b"], dtype=object),
        "told": ("model", np.array(coords["told"][1], dtype=object)),
    }
    plain = xr.Dataset(parts, {**labels, **coords, **words, "quantile": [0.5]})
    xr.testing.assert_identical(made, plain)
    assert {name: one.dtype for name, one in made.variables.items()} == {n: o.dtype for n, o in plain.variables.items()}
    assert made.sizes == plain.sizes and list(made.indexes) == list(labels)
    made["model"].attrs["note"] = "mine"
    again = dataset(parts, labels, coords)
    assert not again["model"].attrs and again.sel(model="b", quantile=0.5)["law"].dims == ("time",)
    again.to_dataframe()
