"""Splits come back in the form in which the data came."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from probseq.data import datasets
from probseq.data.sequences import sequences
from probseq.data.splits import split, split_sequences
from probseq.errors import EmptyDataError, HorizonError, ParameterError, ShapeError

MULTI = pd.MultiIndex.from_product([["b", "a"], range(4)])
LONG = pd.DataFrame({"unique_id": ["p", "q"] * 3, "ds": np.repeat([1, 2, 3], 2), "y": np.arange(6.0)})

FORMS = {
    "list": [1, 2, 3, 4],
    "tuple": (1.0, 2.0, 3.0),
    "array": np.arange(5.0),
    "2-D array": np.arange(8.0).reshape(4, 2),
    "3-D array": np.arange(12.0).reshape(2, 3, 2),
    "tensor": torch.arange(5.0),
    "text": "abcd",
    "words": np.array(["x", "y", "z"]),
    "Series": pd.Series(np.arange(4.0), pd.date_range("2024-01-01", periods=4)),
    "DataFrame": pd.DataFrame({"a": np.arange(4.0), "b": np.arange(4.0)}),
    "panel": pd.Series(np.arange(8.0), MULTI),
    "long table": LONG,
    "DataArray": datasets.air_passengers(),
    "DataArray of another dimension": xr.DataArray(np.arange(3.0), dims="day"),
    "many in a DataArray": xr.DataArray(np.zeros((2, 4)), dims=("sequence", "time")),
    "ragged list": [[1.0, 2.0, 3.0], [4.0, 5.0]],
    "mapping": {"p": np.arange(3.0), "q": np.arange(4.0)},
    "Sequences": sequences([[1.0, 2.0, 3.0], [4.0, 5.0]]),
    "ragged DataArray": sequences([[1.0, 2.0, 3.0], [4.0, 5.0]]).to_dataarray(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_end_of_every_sequence_is_held_out(form):
    y = FORMS[form]
    train, test = split(y, horizon=1)
    assert type(train) is type(y) and type(test) is type(y)
    whole, first, last = (
        sequences(part, end=False if form in ("text", "words") else None) for part in (y, train, test)
    )
    assert (first.lengths == whole.lengths - 1).all() and (last.lengths == 1).all()
    assert first.names == last.names == whole.names
    if whole.vocabulary is None:
        for i in range(whole.n_sequences):
            np.testing.assert_array_equal(np.concatenate([first.block(i), last.block(i)]), whole.block(i))


def test_coordinates_and_attributes_stay():
    y = datasets.air_passengers()
    train, test = split(y, horizon=24)
    assert xr.concat([train, test], "time").identical(y)
    assert test.time.to_numpy()[0] == np.datetime64("1959-01-01") and train.attrs == y.attrs


@pytest.mark.parametrize(("size", "held"), [(0.2, 2), (0.25, 3), (0.01, 1), (3, 3)])
def test_test_size(size, held):
    train, test = split(np.arange(10.0), test_size=size)
    assert (len(train), len(test)) == (10 - held, held)


def test_fractions_are_of_each_sequence():
    train, test = split(sequences([np.arange(10.0), np.arange(4.0)]), test_size=0.5)
    assert train.lengths.tolist() == [5, 2] and test.lengths.tolist() == [5, 2]
    np.testing.assert_array_equal(test.values[1, :, 0], [2, 3, np.nan, np.nan, np.nan])


def test_texts_are_held_out_whole():
    poems = datasets.tang_poems("qiyan")
    train, test = split(poems, test_size=0.1)
    assert [*train, *test] == list(poems) and len(test) == 53
    assert isinstance(test, datasets.SequenceList) and test.attrs == poems.attrs
    with pytest.raises(HorizonError, match="test_size"):
        split(poems, horizon=1)


def test_a_list_keeps_its_attributes():
    train, _ = split(datasets.jsb_chorales("test"), horizon=2)
    assert train.attrs["units"] == "1 where the key sounds"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, ParameterError),
        ({"horizon": 1, "test_size": 1}, ParameterError),
        ({"horizon": 0}, HorizonError),
        ({"horizon": 1.5}, HorizonError),
        ({"horizon": True}, HorizonError),
        ({"test_size": 0.0}, ParameterError),
        ({"test_size": 1.0}, ParameterError),
        ({"test_size": -1}, ParameterError),
        ({"horizon": 4}, ShapeError),
        ({"horizon": 9}, ShapeError),
    ],
)
def test_impossible_splits(options, kind):
    with pytest.raises(kind):
        split(np.arange(4.0), **options)


def test_a_short_sequence_is_named():
    for y in ({"long": [1.0, 2.0, 3.0], "short": [1.0]}, pd.Series([1.0, 2, 3], [["a", "a", "short"], [0, 1, 0]])):
        with pytest.raises(ShapeError, match="short|of 1 steps"):
            split(y, horizon=1)


MANY = {
    "list": [[float(i), i + 0.5] for i in range(6)],
    "texts": [f"text{i}" for i in range(6)],
    "3-D array": np.arange(6.0).reshape(6, 1, 1),
    "tensor": torch.arange(6.0).reshape(6, 1, 1),
    "DataArray": xr.DataArray(np.zeros((6, 2)), dims=("sequence", "time"), coords={"sequence": list("abcdef")}),
    "panel": pd.Series(np.arange(12.0), pd.MultiIndex.from_product([list("fedcba"), range(2)])),
    "long table": pd.DataFrame({"unique_id": list("fedcba"), "ds": 1, "y": 1.0}),
    "mapping": {name: [1.0] for name in "fedcba"},
    "Sequences": sequences([[float(i)] for i in range(6)]),
}


@pytest.mark.parametrize("form", MANY)
def test_whole_sequences_are_chosen_at_random(form):
    X = MANY[form]
    train, test = split_sequences(X, test_size=2, random_state=0)
    assert type(train) is type(X)
    first, last = sequences(train), sequences(test)
    assert (first.n_sequences, last.n_sequences) == (4, 2)
    whole = sequences(X)
    if whole.named_sequences or form == "Sequences":
        order = [name for name in whole.names if name in first.names]
        assert list(first.names) == order and set(first.names) | set(last.names) == set(whole.names)
    again = split_sequences(X, test_size=2, random_state=0)[1]
    assert sequences(again).fingerprint() == last.fingerprint()


def test_every_choice_happens():
    chosen = {split_sequences(MANY["texts"], test_size=1, random_state=seed)[1][0] for seed in range(60)}
    assert chosen == set(MANY["texts"])


@pytest.mark.parametrize(("X", "size"), [([1.0, 2.0], 1), (np.arange(3.0), 0.5), ([[1.0], [2.0]], 2), ("text", 1)])
def test_too_few_sequences(X, size):
    with pytest.raises(EmptyDataError, match="at least one sequence"):
        split_sequences(X, test_size=size)
