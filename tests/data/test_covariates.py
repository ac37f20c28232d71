"""Known inputs are laid beside the right steps."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from probseq.data.sequences import sequences
from probseq.errors import CovariateError

DAYS = pd.date_range("2024-01-01", periods=6)
Y = pd.Series(np.arange(4.0), DAYS[:4])
U = pd.DataFrame({"a": np.arange(6.0), "b": -np.arange(6.0)}, DAYS)


def test_rows_are_matched_by_time():
    data = sequences(Y.iloc[1:], covariates=U)
    np.testing.assert_array_equal(data.covariates[0], U.to_numpy()[1:4])
    assert data.covariate_names == ("a", "b") and data.n_covariates == 2
    as_array = xr.DataArray(U.to_numpy(), dims=("time", "variable"), coords={"time": DAYS, "variable": ["a", "b"]})
    np.testing.assert_array_equal(sequences(Y, covariates=as_array).covariates[0], U.to_numpy()[:4])


@pytest.mark.parametrize(
    "form", [np.arange(4.0), [0.0, 1, 2, 3], np.arange(4.0)[:, None], np.arange(4.0)[None, :, None]]
)
def test_rows_without_stamps_are_matched_by_position(form):
    data = sequences(Y, covariates=form)
    np.testing.assert_array_equal(data.covariates[0, :, 0], np.arange(4.0))
    assert data.covariate_names == ("u0",)


def test_ragged_covariates_are_padded():
    data = sequences([[1.0, 2.0], [3.0]], covariates=[[5.0, 6.0], [7.0]])
    np.testing.assert_array_equal(data.covariates[..., 0], [[5, 6], [7, np.nan]])
    by_name = sequences({"p": [1.0, 2.0], "q": [3.0]}, covariates={"q": [7.0], "p": [5.0, 6.0]})
    np.testing.assert_array_equal(by_name.covariates, data.covariates)


def test_one_table_serves_all_sequences():
    panel = sequences({"p": Y, "q": Y.iloc[2:]}, covariates=U["a"])
    np.testing.assert_array_equal(panel.covariates[..., 0], [[0, 1, 2, 3], [2, 3, np.nan, np.nan]])
    plain = sequences(np.zeros((2, 3, 1)), covariates=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(plain.covariates[..., 0], [[1, 2, 3]] * 2)


def test_covariates_are_cut_by_lengths():
    data = sequences(np.arange(3.0), lengths=[1, 2], covariates=[4.0, 5.0, 6.0])
    np.testing.assert_array_equal(data.covariates[..., 0], [[4, np.nan], [5, 6]])


def test_covariates_of_an_end_token_cover_it_too():
    assert sequences("ab", covariates=[0.0, 1.0, 2.0]).covariates.shape == (1, 3, 1)


def test_future_covariates_by_name_and_time():
    data = sequences(Y, covariates=U)
    ahead = U[["b", "a"]]
    np.testing.assert_array_equal(data.future_covariates(2, ahead), U.to_numpy()[None, 4:])
    np.testing.assert_array_equal(data.future_covariates(2, U.to_numpy()[4:]), U.to_numpy()[None, 4:])
    assert sequences(Y).future_covariates(2) is None
    cases = {
        "no future covariates": None,
        "Missing: ..b..": U[["a"]],
        "Not known to the model: ..c..": U.assign(c=1.0),
        "no covariates at 2024-01-06": U.iloc[:5],
        "1 steps for a forecast of 2": U.to_numpy()[5:],
        "1 covariates": U.to_numpy()[4:, :1],
    }
    for match, given in cases.items():
        with pytest.raises(CovariateError, match=match):
            data.future_covariates(2, given)
    with pytest.raises(CovariateError, match="given none"):
        sequences(Y).future_covariates(2, U)


def test_future_covariates_of_many_sequences():
    data = sequences({"p": [1.0, 2.0], "q": [3.0]}, covariates={"p": [0.0, 0.0], "q": [0.0]})
    np.testing.assert_array_equal(data.future_covariates(1, {"q": [8.0], "p": [7.0]}), [[[7.0]], [[8.0]]])


def test_static_inputs():
    X = {"p": [1.0, 2.0], "q": [3.0]}
    forms = (
        np.array([[1.0], [2.0]]),
        [1.0, 2.0],
        {"q": [2.0], "p": [1.0]},
        {"q": 2.0, "p": 1.0},
        pd.Series({"q": 2.0, "p": 1.0}),
        pd.DataFrame({"s0": [2.0, 1.0]}, ["q", "p"]),
    )
    for form in forms:
        data = sequences(X, static=form)
        np.testing.assert_array_equal(data.static, [[1.0], [2.0]])
        assert data.static_names == ("s0",)
    assert sequences([1.0, 2.0], static=[5.0, 6.0]).static.tolist() == [[5.0, 6.0]]


def test_sequences_take_covariates_later():
    data = sequences(sequences(Y), covariates=U, static=[1.0])
    assert data.covariates.shape == (1, 4, 2) and data.static.shape == (1, 1)
