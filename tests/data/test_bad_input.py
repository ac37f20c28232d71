"""Bad input raises the right class with what came, what was expected and what to do."""

import datetime
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray as xr

from probseq.data.sequences import sequences
from probseq.errors import CovariateError, DataError, DataTypeError, EmptyDataError, ShapeError

DAY = pd.Timestamp("2024-01-01")

BAD = {
    "None": (None, DataTypeError, "got None|NoneType"),
    "object": (object(), DataTypeError, "type object.*array-like"),
    "function": (len, DataTypeError, "builtin_function"),
    "bytes": (b"abc", DataTypeError, "decode"),
    "generator": ((x for x in [1.0]), DataTypeError, "generator"),
    "set": ({1.0, 2.0}, DataTypeError, "set"),
    "number": (3.0, ShapeError, "Reshape your data"),
    "no dimension": (np.array(3.0), ShapeError, "Reshape your data"),
    "4-D": (np.zeros((2, 2, 2, 2)), ShapeError, "4 dimensions"),
    "empty list": ([], EmptyDataError, r"0 sample\(s\)"),
    "empty array": (np.array([]), EmptyDataError, r"0 sample\(s\) \(shape=\(0,\)\) .*while a minimum of 1 is required"),
    "no rows": (np.empty((0, 3)), EmptyDataError, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
    "no columns": (
        np.empty((12, 0)),
        EmptyDataError,
        r"0 feature\(s\) \(shape=\(12, 0\)\) while a minimum of \d* is required.",
    ),
    "no sequences": (np.empty((0, 3, 1)), EmptyDataError, r"0 sample\(s\)"),
    "no table": (pd.DataFrame(), EmptyDataError, r"0 (sample|feature)\(s\)"),
    "empty Series": (pd.Series([], dtype=float), EmptyDataError, r"0 sample\(s\)"),
    "one empty sequence": ([[1.0], []], EmptyDataError, "sequence 1"),
    "empty token array": ([np.array(["a"]), np.array([], dtype=str)], DataError, "sequence 1"),
    "text in a list": ([1.0, "two", 3.0], DataError, "the text 'two'"),
    "text in objects": (np.array([[1.0, "two"]], dtype=object), DataError, "the text 'two'"),
    "2-D text": (np.array([["a", "b"], ["c", "d"]]), ShapeError, "1-D array of tokens"),
    "column of text": (pd.DataFrame({"a": [1.0], "b": ["x"]}), DataError, "the text 'x' in column 'b'"),
    "column of dates": (
        pd.DataFrame({"a": [1.0], "b": [DAY]}),
        DataError,
        "dates.* in column 'b'|values of column 'b'",
    ),
    "column of zoned dates": (pd.DataFrame({"a": [1.0], "b": [DAY.tz_localize("UTC")]}), DataError, "dates"),
    "column of periods": (pd.DataFrame({"a": [1.0], "b": [DAY.to_period("D")]}), DataError, "dates"),
    "dates": (np.array(["2024-01-01"], dtype="datetime64[D]"), DataError, "dates or durations"),
    "durations": (np.array([1], dtype="timedelta64[s]"), DataError, "dates or durations"),
    "date objects": (np.array([datetime.date(2024, 1, 1)], dtype=object), DataError, "dates or durations"),
    "complex": (np.array([[1 + 1j]]), DataError, "Complex data not supported"),
    "complex objects": (np.array([1.0, 1j], dtype=object), DataError, "Complex data not supported"),
    "complex list": ([1.0, 2j], DataError, "Complex data not supported"),
    "complex tensor": (torch.tensor([1j]), DataError, "Complex data not supported"),
    "inf": (np.array([[0.0, np.inf]]), DataError, r"inf.*variable 'x1' at step 0.*NaN"),
    "minus inf in sequence": ([[1.0], [2.0, -np.inf]], DataError, "-inf.*step 1 of sequence 1"),
    "inf in a named column": (pd.DataFrame({"a": [np.inf]}), DataError, "variable 'a'"),
    "dict in objects": (
        np.array([[{"foo": "bar"}]], dtype=object),
        DataTypeError,
        "argument must be .* string.* number",
    ),
    "sparse matrix": (scipy.sparse.csr_matrix(np.eye(3)), DataTypeError, "Sparse data was passed"),
    "sparse array": (scipy.sparse.coo_array(np.eye(3)), DataTypeError, "sparse"),
    "mixed kinds": ([[1.0, 2.0], "text"], DataError, "sequence 1"),
    "different variables": ([np.zeros((2, 1)), np.zeros((2, 2))], ShapeError, "1 variables in sequence 0 and 2"),
    "different columns": (
        [pd.DataFrame({"a": [1.0], "b": [1.0]}), pd.DataFrame({"b": [1.0], "a": [1.0]})],
        ShapeError,
        "same order",
    ),
    "ragged rows": ([[[1.0, 2.0], [3.0]]], ShapeError, "rows of different lengths in sequence 0"),
    "nested too deep": ([np.zeros((2, 2, 2)), np.zeros((2, 2, 2))], ShapeError, "3 dimensions in sequence 0"),
    "duplicated stamps": (pd.Series([1.0, 2.0], [DAY, DAY]), DataError, "duplicated time stamp 2024-01-01"),
    "unsorted stamps": (pd.Series([1.0, 2.0], [DAY, DAY - pd.Timedelta("1D")]), DataError, "unsorted time index"),
    "unsorted numbers": (pd.Series([1.0, 2.0], [3, 2]), DataError, "3 is followed by 2"),
    "descending range": (pd.Series([1.0, 2.0], pd.RangeIndex(2, 0, -1)), DataError, "unsorted"),
    "missing stamp": (pd.Series([1.0, 2.0], [DAY, pd.NaT]), DataError, "missing time stamp at step 1"),
    "three levels": (pd.Series([1.0], pd.MultiIndex.from_tuples([(1, 2, 3)])), ShapeError, "MultiIndex of 3 levels"),
    "missing name": (pd.Series([1.0], pd.MultiIndex.from_arrays([[None], [0]])), DataError, "missing sequence name"),
    "column levels": (pd.DataFrame([[1.0]], columns=pd.MultiIndex.from_tuples([("a", "b")])), DataError, "2 levels"),
    "unknown dimensions": (xr.DataArray(np.zeros((2, 3)), dims=("path", "time")), ShapeError, "isel"),
    "no time": (xr.DataArray(np.zeros((2, 3)), dims=("sequence", "variable")), ShapeError, "time dimension"),
    "scalar DataArray": (xr.DataArray(1.0), ShapeError, "Reshape your data"),
    "repeated names": (
        xr.DataArray(np.zeros((2, 3)), dims=("sequence", "time"), coords={"sequence": ["a", "a"]}),
        DataError,
        "'a' more than once",
    ),
    "repeated columns": (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), DataError, "'a' more than once"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    X, kind, match = BAD[case]
    with pytest.raises(DataError, match=match) as caught:
        sequences(X)
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, ValueError)
    assert caught.value.got and caught.value.expected and caught.value.remedy
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_wrong_types_are_type_errors_too():
    with pytest.raises(TypeError):
        sequences(None)


@pytest.mark.parametrize("freq", ["nonsense", -1, 0, object(), True])
def test_bad_freq(freq):
    with pytest.raises(DataError, match="freq="):
        sequences([1.0], freq=freq)


Y = np.arange(4.0)
DATED = pd.Series(Y, pd.date_range("2024-01-01", periods=4))

COVARIATES = {
    "too few": (Y, Y[:3], "3 steps for X of 4 steps"),
    "too many without stamps": (Y, np.arange(5.0), "5 steps for X of 4"),
    "missing time": (DATED, DATED.iloc[1:], "no covariates at 2024-01-01"),
    "NaN": (Y, pd.DataFrame({"u": [1.0, np.nan, 3, 4]}), "NaN in covariate 'u' at step 1"),
    "inf": (Y, [1.0, np.inf, 3, 4], "inf"),
    "text": (Y, np.array(["a", "b", "c", "d"]), "get_dummies"),
    "text column": (Y, pd.DataFrame({"u": ["a", "b", "c", "d"], "v": Y}), "text 'a'"),
    "object": (Y, object(), "covariates with an object"),
    "other number of sequences": ([Y, Y], [Y, Y, Y], "3 sequences for data of 2"),
    "other names": ({"a": Y, "b": Y}, {"a": Y, "c": Y}, r"sequences \['b'\]"),
}


@pytest.mark.parametrize("case", COVARIATES)
def test_bad_covariates(case):
    X, covariates, match = COVARIATES[case]
    with pytest.raises(CovariateError, match=match):
        sequences(X, covariates=covariates)


STATIC = {
    "number of rows": ([1.0, 2.0, 3.0], "shape .3, 1. for 2 sequences"),
    "NaN": ([1.0, np.nan], "nan in static input 's0' of sequence 'b'"),
    "text": (["x", "y"], "text 'x'"),
    "names": (pd.DataFrame({"size": [1.0, 2.0]}, ["a", "c"]), r"sequences \['b'\]"),
    "dimensions": (np.zeros((2, 1, 1)), "shape"),
}


@pytest.mark.parametrize("case", STATIC)
def test_bad_static_inputs(case):
    static, match = STATIC[case]
    with pytest.raises(CovariateError, match=match):
        sequences({"a": Y, "b": Y}, static=static)
