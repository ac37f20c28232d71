"""Every form of input gives the same batch, and comes back with its labels."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from numpy.testing import assert_array_equal

from probseq.data.sequences import Sequences, borrowed, sequences, to_list
from probseq.data.vocabulary import Vocabulary
from probseq.errors import CovariateError, DataError, ShapeError, VocabularyError

Y = [1.0, 2.0, np.nan, 4.0]
COLUMN = np.array(Y)[:, None]
WIDE = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, 7.0]])
DAYS = pd.date_range("2024-01-30", periods=4, freq="D")
MULTI = pd.MultiIndex.from_tuples([("b", 0), ("b", 1), ("a", 0)])
LONG = pd.DataFrame(
    {"unique_id": ["b", "a", "b"], "ds": pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-02"]), "y": [1.0, 3, 2]}
)

ONE = {
    "list": (Y, COLUMN, True),
    "list with None": ([1, 2, None, 4], COLUMN, True),
    "tuple": (tuple(Y), COLUMN, True),
    "1-D array": (np.array(Y), COLUMN, True),
    "float32": (np.array(Y, dtype=np.float32), COLUMN, True),
    "integers": (np.array([1, 2, 4]), np.array([[1.0], [2], [4]]), True),
    "bool": (np.array([True, False]), np.array([[1.0], [0]]), True),
    "objects": (np.array([1, 2.0, None, 4], dtype=object), COLUMN, True),
    "masked": (np.ma.masked_invalid(Y), COLUMN, True),
    "tensor": (torch.tensor(Y, requires_grad=True), COLUMN, True),
    "list of tensors of no dimension": ([torch.tensor(1.0), torch.tensor(2.0)], np.array([[1.0], [2.0]]), True),
    "Series": (pd.Series(Y, DAYS), COLUMN, True),
    "nullable Series": (pd.Series([1, 2, None, 4], dtype="Int64"), COLUMN, True),
    "DataArray": (xr.DataArray(Y, dims="time"), COLUMN, True),
    "DataArray of another dimension": (xr.DataArray(Y, dims="day"), COLUMN, True),
    "2-D array": (WIDE, WIDE, False),
    "2-D tensor": (torch.tensor(WIDE), WIDE, False),
    "DataFrame": (pd.DataFrame(WIDE, columns=["a", "b"]), WIDE, False),
    "DataFrame of one column": (pd.DataFrame({"a": Y}), COLUMN, False),
    "2-D DataArray": (xr.DataArray(WIDE, dims=("time", "variable")), WIDE, False),
    "transposed DataArray": (xr.DataArray(WIDE.T, dims=("variable", "time")), WIDE, False),
    "Dataset": (xr.Dataset({"a": ("time", WIDE[:, 0]), "b": ("time", WIDE[:, 1])}), WIDE, False),
    "ds and y": (LONG.iloc[[0, 2]].drop(columns="unique_id"), np.array([[1.0], [2.0]]), True),
}


@pytest.mark.parametrize("form", ONE)
def test_one_sequence(form):
    X, values, flat = ONE[form]
    data = sequences(X)
    np.testing.assert_array_equal(data.values, values[None])
    assert data.values.dtype == np.float64 and data.lengths.dtype == np.int64
    assert (data.many, data.flat, data.vocabulary) == (False, flat, None)
    assert data.to_dataarray().dims == (("time",) if flat else ("time", "variable"))
    assert sequences(data) is data


RAGGED = [np.array([[1.0], [2.0]]), np.array([[3.0]])]
MANY = {
    "lists": ([[1.0, 2.0], [3.0]], True),
    "arrays": ([np.array([1.0, 2.0]), np.array([3.0])], True),
    "object array": (np.array([np.array([1.0, 2.0]), np.array([3.0])], dtype=object), True),
    "tensors": ([torch.tensor([1.0, 2.0]), torch.tensor([3.0])], True),
    "columns": ([np.array([[1.0], [2.0]]), np.array([[3.0]])], False),
    "nested lists": ([[[1.0], [2.0]], [[3.0]]], False),
    "Series": ([pd.Series([1.0, 2.0]), pd.Series([3.0])], True),
    "DataFrames": ([pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [3.0]})], False),
    "DataArrays": ([xr.DataArray([1.0, 2.0], dims="time"), xr.DataArray([3.0], dims="time")], True),
    "mapping": ({"b": [1.0, 2.0], "a": [3.0]}, True),
    "MultiIndex Series": (pd.Series([1.0, 2.0, 3.0], MULTI), True),
    "MultiIndex DataFrame": (pd.DataFrame({"y": [1.0, 2.0, 3.0]}, MULTI), False),
    "long table": (LONG, True),
    "long table, id as index": (LONG.set_index("unique_id"), True),
}


@pytest.mark.parametrize("form", MANY)
def test_many_sequences(form):
    X, flat = MANY[form]
    data = sequences(X)
    assert data.lengths.tolist() == [2, 1]
    assert (data.many, data.flat) == (True, flat)
    for i, block in enumerate(RAGGED):
        np.testing.assert_array_equal(data.block(i), block)
    assert np.isnan(data.values[1, 1:]).all()
    np.testing.assert_array_equal(data.mask(), [[True, True], [True, False]])
    assert data.names == (("b", "a") if data.named_sequences else (0, 1))


def test_three_dimensions_are_sequence_time_variable():
    cube = np.arange(24.0).reshape(2, 3, 4)
    for X in (cube, torch.tensor(cube), xr.DataArray(cube, dims=("sequence", "time", "variable"))):
        data = sequences(X)
        np.testing.assert_array_equal(data.values, cube)
        assert data.many and not data.flat
    flat = sequences(xr.DataArray(cube[:, :, 0], dims=("sequence", "time")))
    assert flat.many and flat.flat and flat.values.shape == (2, 3, 1)


def test_the_input_is_copied():
    given = np.arange(5.0)
    data = sequences(given)
    given[0] = 99.0
    assert data.values[0, 0, 0] == 0.0


def test_lengths_cut_as_in_hmmlearn():
    X = np.arange(10.0).reshape(5, 2)
    data = sequences(X, lengths=[2, 3])
    np.testing.assert_array_equal(data.block(1), X[2:])
    every_other = np.arange(20.0).reshape(10, 2)[::2]
    for read in (sequences, borrowed):
        cut = read(every_other, lengths=[1, 4])
        np.testing.assert_array_equal(cut.block(1), every_other[1:])
        assert np.isnan(cut.values[0, 1:]).all()
    stamped = sequences(pd.Series(np.arange(5.0), range(1900, 1905)), lengths=np.array([2, 3]))
    assert stamped.index[1].tolist() == [1902, 1903, 1904]
    padded = sequences(np.zeros((2, 4, 1)), lengths=[4, 1])
    assert padded.lengths.tolist() == [4, 1] and np.isnan(padded.values[1, 1:]).all()
    words = sequences(np.array(["a", "b", "a"]), lengths=[1, 2])
    assert words.values[1, :, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("lengths", [[2, 2], [6], [5, 0], [-1, 6], [2.5, 2.5], 5, [[5]], [], "5", [True] * 5])
def test_wrong_lengths(lengths):
    with pytest.raises(DataError, match="lengths"):
        sequences(np.arange(5.0), lengths=lengths)


def test_lengths_with_separate_sequences():
    with pytest.raises(ShapeError, match="concatenated"):
        sequences([[1.0, 2.0], [3.0]], lengths=[2, 1])
    with pytest.raises(DataError, match="as they are"):
        sequences(sequences([1.0, 2.0]), lengths=[1, 1])


TOKENS = {
    "array of words": (np.array(["rain", "sun", "rain"]), [[0, 1, 0]], ("rain", "sun"), False),
    "array of objects": (np.array(["rain", "sun", None], dtype=object), [[0, 1, np.nan]], ("rain", "sun"), False),
    "list of characters": (["b", "a"], [[1, 0]], ("a", "b"), False),
    "Series of words": (pd.Series(["rain", "sun", "rain"]), [[0, 1, 0]], ("rain", "sun"), False),
    "categories": (pd.Series(["b", "b"], dtype=pd.CategoricalDtype(["c", "b"])), [[1, 1]], ("c", "b"), False),
    "column of words": (pd.DataFrame({"w": ["rain", "sun"]}), [[0, 1]], ("rain", "sun"), False),
    "DataArray of words": (xr.DataArray(["sun", "rain"], dims="time"), [[1, 0]], ("rain", "sun"), False),
    "lists of words": ([["sun", "rain"], ["sun"]], [[1, 0], [1, np.nan]], ("rain", "sun"), False),
    "arrays of words": ([np.array(["sun", "rain"]), np.array(["sun"])], [[1, 0], [1, np.nan]], ("rain", "sun"), False),
    "text": ("ab", [[0, 1, 2]], ("a", "b", "<end>"), True),
    "texts": (["ab", "b"], [[0, 1, 2], [1, 2, np.nan]], ("a", "b", "<end>"), True),
    "texts with an empty one": (["ab", ""], [[0, 1, 2], [2, np.nan, np.nan]], ("a", "b", "<end>"), True),
}


@pytest.mark.parametrize("form", TOKENS)
def test_tokens(form):
    X, codes, tokens, is_text = TOKENS[form]
    data = sequences(X)
    np.testing.assert_array_equal(data.values[..., 0], np.array(codes, dtype=float))
    assert data.vocabulary.tokens == tokens
    assert data.is_text == is_text
    again = sequences(X, vocabulary=data.vocabulary)
    np.testing.assert_array_equal(again.values, data.values)


def test_end_of_text():
    words = sequences("abc").vocabulary
    assert sequences("abc", end=False).vocabulary.end is None
    assert sequences("ab", vocabulary=words).lengths.tolist() == [3]
    assert sequences("ab", vocabulary=words, end=False).lengths.tolist() == [2]
    assert sequences(np.array(["x", "y"]), end=True).vocabulary.tokens == ("x", "y", "<end>")
    open_ended = Vocabulary(("a", "b"))
    assert sequences("ab", vocabulary=open_ended).lengths.tolist() == [2]
    with pytest.raises(VocabularyError, match="no end token"):
        sequences("ab", vocabulary=open_ended, end=True)
    dated = sequences(pd.Series(["a", "b"], pd.period_range("2024-01", periods=2, freq="M")), end=True)
    assert [str(stamp) for stamp in dated.index[0]] == ["2024-01", "2024-02", "2024-03"]


def test_a_vocabulary_reads_numbers_as_tokens():
    words = Vocabulary((10, 20))
    np.testing.assert_array_equal(sequences([20, 10, None], vocabulary=words).values[0, :, 0], [1, 0, np.nan])
    with pytest.raises(VocabularyError, match="the token 30 at step 1"):
        sequences([20, 30], vocabulary=words)
    with pytest.raises(VocabularyError, match="one token a step"):
        sequences(WIDE, vocabulary=words)
    with pytest.raises(VocabularyError, match="one of the 2 tokens"):
        sequences([1.0, 2.0], vocabulary=Vocabulary(("a", "b")))


def test_sequences_change_their_vocabulary():
    data = sequences("ba")
    wider = Vocabulary(("a", "z", "b", "."), end=".")
    assert sequences(data, vocabulary=wider).values[0, :, 0].tolist() == [2, 0, 3]
    with pytest.raises(VocabularyError, match="'b'"):
        sequences(data, vocabulary=Vocabulary(("a", "."), end="."))
    with pytest.raises(VocabularyError, match="numbers"):
        sequences(sequences([1.0]), vocabulary=wider)


def test_names_of_variables():
    assert sequences(WIDE).variables == ("x0", "x1") and not sequences(WIDE).named
    assert sequences(pd.DataFrame(WIDE)).variables == ("x0", "x1")
    named = sequences(pd.DataFrame(WIDE, columns=["a", "b"]))
    assert named.variables == ("a", "b") and named.named
    assert sequences(pd.Series(Y, name="level")).variables == ("level",)
    assert sequences(WIDE, variables=["a", "b"]).variables == ("a", "b")
    assert sequences(xr.DataArray(WIDE, dims=("time", "variable"), coords={"variable": [60, 64]})).variables == (60, 64)
    assert sequences([pd.Series([1.0], name="u"), pd.Series([2.0], name="v")]).names == ("u", "v")
    alike = sequences([pd.Series([1.0], name="u"), pd.Series([2.0], name="u")])
    assert alike.names == (0, 1) and alike.variables == ("u",)
    with pytest.raises(ShapeError, match="1 names"):
        sequences(WIDE, variables=["a"])


TABLE = pd.DataFrame(
    {
        "shop": ["n", "n", "s", "s"],
        "day": pd.to_datetime(["2024-01-01", "2024-01-02"] * 2),
        "sales": [1.0, 2.0, 3.0, np.nan],
        "price": [9.0, 8.0, 7.0, 6.0],
        "size": [100, 100, 250, 250],
    }
)


def test_columns_by_role():
    roles = {"sequence": "shop", "time": "day", "variables": "sales", "covariates": "price", "static": ["size"]}
    data = sequences(TABLE, **roles)
    np.testing.assert_array_equal(data.values[..., 0], [[1, 2], [3, np.nan]])
    np.testing.assert_array_equal(data.covariates[..., 0], [[9, 8], [7, 6]])
    np.testing.assert_array_equal(data.static, [[100], [250]])
    assert (data.names, data.variables) == (("n", "s"), ("sales",))
    assert (data.covariate_names, data.static_names) == (("price",), ("size",))
    assert data.index[1].equals(pd.DatetimeIndex(["2024-01-01", "2024-01-02"]))
    with pytest.raises(DataError, match=r"\['size'\] without a role"):
        sequences(TABLE, sequence="shop", time="day", variables="sales", covariates="price")
    with pytest.raises(DataError, match="Name them"):
        sequences(TABLE, sequence="shop", time="day")
    with pytest.raises(DataError, match="'prize'"):
        sequences(TABLE, **{**roles, "covariates": "prize"})
    with pytest.raises(CovariateError, match="'price', which varies within sequence 'n'"):
        sequences(TABLE, sequence="shop", time="day", variables="sales", static=["price", "size"])
    with pytest.raises(CovariateError, match="NaN in covariate 'sales' at step 1 of sequence 's'"):
        sequences(TABLE, **{**roles, "variables": "price", "covariates": "sales"})


def test_columns_of_a_wide_table():
    one = TABLE.iloc[:2].drop(columns=["shop", "size"])
    data = sequences(one, time="day", covariates="price")
    assert (data.many, data.variables, data.covariate_names) == (False, ("sales",), ("price",))
    both = sequences(one.set_index("day"))
    assert both.variables == ("sales", "price")
    with pytest.raises(DataError, match="without a role"):
        sequences(LONG.assign(extra=1.0))
    with pytest.raises(DataError, match="expected|Expected a DataFrame"):
        sequences([1.0], time="day")


def test_long_tables_may_be_interleaved_and_keep_the_order_of_appearance():
    data = sequences(LONG)
    assert data.names == ("b", "a")
    assert data.block(0)[:, 0].tolist() == [1.0, 2.0]


def test_selecting():
    data = sequences([[1.0, 2.0, 3.0], [4.0], [5.0, 6.0]], static=[[1.0], [2.0], [3.0]])
    one = data.select(1)
    assert not one.many and one.values.shape == (1, 1, 1) and one.static.tolist() == [[2.0]]
    some = data.select([2, 1])
    assert some.many and some.names == (2, 1) and some.values.shape == (2, 2, 1)
    assert data.select(slice(0, 2)).n_sequences == len(data[[0, 1]]) == 2
    assert data.select(np.array([False, True, False])).names == (1,)


def test_slicing_time():
    data = sequences([[1.0, 2.0, 3.0], [4.0, 5.0]], covariates=[[1.0, 2, 3], [4.0, 5]])
    last = data.slice_time(-1)
    assert last.values[..., 0].tolist() == [[3.0], [5.0]] and last.covariates[..., 0].tolist() == [[3.0], [5.0]]
    assert last.index[0].tolist() == [2]
    assert data.slice_time(np.array([1, 0])).lengths.tolist() == [2, 2]
    with pytest.raises(DataError, match="no steps left of sequence 1"):
        data.slice_time(2)


def test_fingerprint_knows_data_in_another_form():
    marks = {
        sequences(X).fingerprint() for X in (Y, np.array(Y), pd.Series(Y, DAYS, name="y"), xr.DataArray(Y, dims="time"))
    }
    assert len(marks) == 1
    others = [[1.0, 2.0, 3.0, 4.0], Y[:3], [Y], [Y, Y], np.array([Y]).T[:, [0, 0]]]
    found = {sequences(X).fingerprint() for X in others[:2] + others[3:]} | marks
    assert len(found) == 5
    assert sequences([[1.0, 2.0], [3.0]]).fingerprint() != sequences([[1.0], [2.0, 3.0]]).fingerprint()
    assert sequences(Y, covariates=[1.0, 2, 3, 4]).fingerprint() not in marks


def test_all_missing_is_found_on_request():
    data = sequences([np.nan, np.nan])
    assert not data.seen().any()
    with pytest.raises(DataError, match="every value is missing"):
        data.require_values()


def test_round_trip_through_a_dataarray():
    ragged = sequences({"b": [1.0, 2.0], "a": [3.0]})
    stamped = sequences(LONG)
    cube = sequences(np.arange(12.0).reshape(2, 3, 2))
    for data in (ragged, stamped, cube):
        again = sequences(data.to_dataarray())
        np.testing.assert_array_equal(again.values, data.values)
        assert again.lengths.tolist() == data.lengths.tolist()
        assert again.names == data.names
        assert all(one.equals(other) for one, other in zip(again.index, data.index, strict=True))
        assert (again.many, again.flat) == (data.many, data.flat)


def test_sequences_is_exported_with_to_list():
    assert isinstance(sequences([1.0]), Sequences)
    assert [one.to_numpy().tolist() for one in to_list(sequences([[1.0, 2.0], [3.0]]).to_dataarray())] == [[1, 2], [3]]


def test_reading_leaves_the_callers_array_alone():
    x = np.arange(12.0).reshape(6, 2)
    for read in (sequences(x), sequences(x, lengths=[2, 4]), sequences([x]), sequences(x[None])):
        assert not np.shares_memory(read.values, x)
    static = np.array([[1.0]])
    assert not np.shares_memory(sequences(x, static=static).static, static)


def test_borrowed_values_are_those_read():
    x = np.arange(12.0).reshape(6, 2)
    x.flags.writeable = False
    for options in ({}, {"lengths": [2, 4]}):
        assert_array_equal(borrowed(x, **options).values, sequences(x, **options).values)
    assert borrowed(x).values.flags.writeable


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("gap", [0.0, np.nan])
def test_large_values_are_found_in_cut_arrays(wrong, gap):
    x = np.array([[0.0], [gap], [1.0], [wrong]])
    with pytest.raises(DataError, match="step 1 of sequence 1"):
        sequences(x, lengths=[2, 2])


def test_words_and_rare_tokens():
    texts = ["To be, or not to be.", "To do is to be."]
    words = sequences(texts, tokens="word")
    assert words.vocabulary.unit == "word" and words.is_text and words.lengths.tolist() == [9, 7]
    assert words.vocabulary.decode(words.block(0)[:, 0], text=True) == texts[0]
    again = sequences(["to be"], vocabulary=words.vocabulary)
    assert again.lengths.tolist() == [3] and again.vocabulary == words.vocabulary
    rare = sequences(["abba", "abc"], min_count=2)
    assert rare.vocabulary.tokens == ("a", "b", "<unknown>", "<end>")
    assert_array_equal(rare.block(1)[:, 0], [0, 1, 2, 3])
    assert sequences([["x", "y", "x"]], min_count=2, end=False).vocabulary.tokens == ("x", "<unknown>")
    with pytest.raises(DataError, match="0 sample"):
        sequences(["a b", "  "], tokens="word", end=False)
    for wrong in ({"tokens": "word", "vocabulary": words.vocabulary}, {"min_count": 2, "vocabulary": words.vocabulary}):
        with pytest.raises(VocabularyError, match="from_sequences"):
            sequences(texts, **wrong)
    for X, wrong in (([1.0, 2.0], {"min_count": 2}), ([["a", "b"]], {"tokens": "word"}), (words, {"min_count": 2})):
        with pytest.raises(VocabularyError):
            sequences(X, **wrong)


def test_a_list_of_tokens_may_have_missing_ones():
    one = sequences(["ab", None, "c", float("nan")])
    assert one.vocabulary.tokens == ("ab", "c") and not one.many
    assert_array_equal(one.values[0, :, 0], [0, np.nan, 1, np.nan])
