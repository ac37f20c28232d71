"""Data against what a model was fitted with, in scikit-learn's words."""

import re

import numpy as np
import pandas as pd
import pytest

from probseq.data.matching import matched
from probseq.data.sequences import sequences
from probseq.errors import CovariateError, DataError, ShapeError

NAMES = tuple(f"col_{i}" for i in range(5))


def frame(names):
    return sequences(pd.DataFrame(np.zeros((2, len(names))), columns=list(names)))


def test_data_of_the_same_kind_pass_unchanged():
    data = frame(NAMES)
    assert matched(data, NAMES, named=True) is data
    plain = sequences(np.zeros((2, 5)))
    assert matched(plain, NAMES, named=True) is plain
    series = sequences(pd.Series([1.0], name="other"))
    assert matched(series, ("level",), named=True) is series


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[::-1], "Feature names must be in the same order as they were in fit."),
        (
            tuple(f"another_{name}" for name in NAMES),
            "Feature names unseen at fit time:\n- another_col_0\n- another_col_1\n",
        ),
        (NAMES[:3], "Feature names seen at fit time, yet now missing:\n- col_3\n"),
    ],
)
def test_other_names(names, message):
    expected = "The feature names should match those that were passed during fit.\n" + message
    with pytest.raises(DataError, match=re.escape(expected)):
        matched(frame(names), NAMES, named=True)


def test_other_numbers():
    with pytest.raises(ShapeError, match=r"X has 1 features, but \w+ is expecting 3 features as input"):
        matched(sequences(np.zeros((4, 1))), ("x0", "x1", "x2"), named=False, who="HMM")
    with pytest.raises(ShapeError, match="Reshape your data"):
        matched(sequences(np.zeros(4)), ("x0", "x1", "x2"), named=False, who="HMM")


def test_covariates_take_the_order_of_the_fit():
    data = sequences([1.0], covariates=pd.DataFrame({"a": [1.0], "b": [2.0]}))
    out = matched(data, ("x0",), named=False, covariate_names=("b", "a"))
    assert out.covariates.tolist() == [[[2.0, 1.0]]] and out.covariate_names == ("b", "a")
    for names in (("a",), ("a", "b", "c"), ()):
        with pytest.raises(CovariateError):
            matched(data, ("x0",), named=False, covariate_names=names)
    with pytest.raises(CovariateError, match="no covariates"):
        matched(sequences([1.0]), ("x0",), named=False, covariate_names=("a",))


def test_static_inputs_take_the_order_of_the_fit():
    data = sequences({"p": [1.0]}, static=pd.DataFrame({"a": [1.0], "b": [2.0]}, ["p"]))
    assert matched(data, ("x0",), named=False, static_names=("b", "a")).static.tolist() == [[2.0, 1.0]]
    with pytest.raises(CovariateError, match="no static inputs"):
        matched(sequences([1.0]), ("x0",), named=False, static_names=("a",))
    with pytest.raises(CovariateError):
        matched(data, ("x0",), named=False)
