"""Data against what a model was fitted with, in scikit-learn's words."""

import re

import numpy as np
import pandas as pd
import pytest

from probseq.data.matching import matched
from probseq.data.sequences import sequences
from probseq.errors import CovariateError, ShapeError

NAMES = tuple(f"col_{i}" for i in range(5))


def frame(names):
    return sequences(pd.DataFrame(np.zeros((2, len(names))), columns=list(names)))


def test_data_of_the_same_kind_pass_unchanged():
    data = frame(NAMES)
    assert matched(data, NAMES, named=True) is data
    plain = sequences(np.zeros((2, 5)))
    assert matched(plain, NAMES, named=True) is plain
    series = sequences(pd.Series([1.0], name="other"))
    assert matched(series, ("level",), named=False) is series


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[::-1], "Feature names must be in the same order as they were in fit."),
        (
            tuple(f"another_{name}" for name in NAMES),
            "Feature names unseen at fit time:\n- another_col_0\n- another_col_1\n",
        ),
        (("x", *NAMES[1:]), "Feature names seen at fit time, yet now missing:\n- col_0\n"),
    ],
)
def test_other_names(names, message):
    with pytest.raises(ShapeError, match=re.escape(message)) as error:
        matched(frame(names), NAMES, named=True)
    assert "The feature names should match those that were passed during fit.\n" in str(error.value)


def test_numbers_are_names_too():
    for fitted, named in (((5, 7), True), (("x0", "x1"), False)):
        given = fitted if named else (0, 1)
        assert matched(frame(given), fitted, named=named).variables == given
        with pytest.raises(ShapeError, match="in this order"):
            matched(frame(given[::-1]), fitted, named=named)
    with pytest.raises(ShapeError, match="unseen at fit time"):
        matched(frame((5, 9)), (5, 7), named=True)
    # A file keeps a date that is a name as its text.
    dates = pd.date_range("2024-01-01", periods=2)
    assert matched(frame(dates), tuple(map(str, dates)), named=True).n_variables == 2


def test_other_numbers():
    with pytest.raises(ShapeError, match=r"X has 1 features, but \w+ is expecting 3 features as input"):
        matched(sequences(np.zeros((4, 1))), ("x0", "x1", "x2"), named=False, who="HMM")
    with pytest.raises(ShapeError, match="Reshape your data"):
        matched(sequences(np.zeros(4)), ("x0", "x1", "x2"), named=False, who="HMM")


def test_covariates_take_the_order_of_the_fit():
    data = sequences([1.0], covariates=pd.DataFrame({"a": [1.0], "b": [2.0]}))
    out = matched(data, ("x0",), named=False, inputs=("b", "a"))
    assert out.covariates.tolist() == [[[2.0, 1.0]]] and out.covariate_names == ("b", "a")
    for names in (("a",), ("a", "b", "c"), ("a", "c"), ()):
        with pytest.raises(CovariateError):
            matched(data, ("x0",), named=False, inputs=names)
    with pytest.raises(CovariateError, match=r"Missing: \['c'\]. Not known to the model: \['b'\]"):
        matched(data, ("x0",), named=False, inputs=("a", "c"))
    with pytest.raises(CovariateError, match="0 covariates"):
        matched(sequences([1.0]), ("x0",), named=False, inputs=("a",))


def test_covariates_without_names_go_by_position():
    plain = sequences([1.0], covariates=np.array([[1.0, 2.0]]))
    out = matched(plain, ("x0",), named=False, inputs=("b", "a"))
    assert out.covariates.tolist() == [[[1.0, 2.0]]] and out.covariate_names == ("b", "a")
    named = sequences([1.0], covariates=pd.DataFrame({"a": [1.0], "b": [2.0]}))
    assert matched(named, ("x0",), named=False, inputs=("u0", "u1")).covariates.tolist() == [[[1.0, 2.0]]]
    turned = sequences([1.0], covariates=pd.DataFrame({1: [1.0], 0: [2.0]}))
    assert matched(turned, ("x0",), named=False, inputs=("u0", "u1")).covariates.tolist() == [[[2.0, 1.0]]]


def test_static_inputs_take_the_order_of_the_fit():
    data = sequences({"p": [1.0]}, static=pd.DataFrame({"a": [1.0], "b": [2.0]}, ["p"]))
    out = matched(data, ("x0",), named=False, inputs=("b", "a"), n_static=2)
    assert out.static.tolist() == [[2.0, 1.0]] and out.static_names == ("b", "a")
    with pytest.raises(CovariateError, match="0 covariates"):
        matched(sequences([1.0]), ("x0",), named=False, inputs=("a",), n_static=1)
    with pytest.raises(CovariateError):
        matched(data, ("x0",), named=False)


def test_static_inputs_may_come_as_covariates():
    table = pd.DataFrame({"size": [7.0, 7.0], "u": [1.0, 2.0]})
    out = matched(sequences([0.0, 0.0], covariates=table), ("x0",), named=False, inputs=("u", "size"), n_static=1)
    assert out.covariates.tolist() == [[[1.0, 7.0], [2.0, 7.0]]] and out.static is None
    beside = sequences([0.0, 0.0], covariates=table[["u"]], static=pd.DataFrame({"size": [7.0]}))
    joined = matched(beside, ("x0",), named=False, inputs=("size", "u"))
    assert joined.covariates.tolist() == [[[7.0, 1.0], [7.0, 2.0]]]
