"""A past and what follows it."""

import numpy as np
import pandas as pd
import pytest

from probseq.data.sequences import sequences
from probseq.errors import HistoryError

MONTHS = pd.date_range("2024-01-01", periods=8, freq="MS")
Y = pd.Series(np.arange(8.0), MONTHS)


def joined(history, X, **options):
    return sequences(X, **options).concat_history(sequences(history, **options))


@pytest.mark.parametrize(
    ("history", "X"),
    [
        (Y[:5], Y[5:]),
        (Y[:5], Y[7:]),
        (Y[:1], Y[4:]),
        (Y[:2].to_period("M"), Y[4:].to_period("M")),
        (pd.Series(np.arange(5.0), range(1900, 1905)), pd.Series([7.0], [1907])),
        (np.arange(5.0), pd.Series([7.0], [7])),
    ],
    ids=["next", "gap", "short history", "periods", "years", "counted"],
)
def test_a_gap_becomes_missing_steps(history, X):
    out = joined(history, X)
    gap = int(X.iloc[0]) - len(history)
    expected = [*np.asarray(history), *[np.nan] * gap, *np.asarray(X)]
    np.testing.assert_array_equal(out.values[0, :, 0], expected)
    assert out.index[0].is_unique and out.index[0].is_monotonic_increasing and len(out.index[0]) == out.lengths[0]
    assert out.lengths[0] - len(X) == len(history) + gap


def test_the_index_of_a_gap_is_filled():
    assert joined(Y[:3], Y[6:]).index[0].equals(MONTHS.delete([]))


@pytest.mark.parametrize(
    ("history", "X", "stamps"),
    [
        (np.arange(2.0), np.arange(2.0), [0, 1, 2, 3]),
        (Y[:2], np.arange(2.0), list(MONTHS[:2]) + [0, 0]),
        (pd.Series([1.0, 2.0], [1900, 1901]), [3.0, 4.0], [1900, 1901, 1902, 1903]),
        (np.arange(2.0), Y[:2], [0, 1, 2, 3]),
        (Y.iloc[[0, 1, 3]], Y.iloc[[5, 6]], list(MONTHS[[0, 1, 3, 5, 6]])),
    ],
    ids=["plain", "dated history", "years", "dated X", "irregular"],
)
def test_data_without_stamps_follow_directly(history, X, stamps):
    out = joined(history, X)
    np.testing.assert_array_equal(out.values[0, :, 0], np.concatenate([history, X]))
    if stamps[-1] != 0:
        assert list(out.index[0]) == stamps


def test_overlap_and_other_clocks_raise():
    cases = {
        "overlap": (Y[:5], Y[4:]),
        "2024-03-10": (Y[:2], pd.Series([1.0], [pd.Timestamp("2024-03-10")])),
        "same kind": (Y[:3], pd.Series([1.0], [1905])),
        "time zone": (Y[:3], Y[3:].tz_localize("UTC")),
    }
    for match, (history, X) in cases.items():
        with pytest.raises(HistoryError, match=match):
            joined(history, X, freq="MS") if match == "2024-03-10" else joined(history, X)


def test_many_sequences_are_matched_by_name():
    history = sequences({"a": [1.0], "b": [2.0, 2.0], "c": [3.0]})
    out = sequences({"b": [20.0], "a": [10.0]}).concat_history(history)
    assert out.names == ("b", "a") and out.lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(out.values[..., 0], [[2, 2, 20], [1, 10, np.nan]])
    by_position = sequences([[5.0], [6.0]]).concat_history(sequences([[1.0], [2.0]]))
    np.testing.assert_array_equal(by_position.values[..., 0], [[1, 5], [2, 6]])
    for X in ({"z": [1.0], "a": [1.0]}, [[1.0], [2.0]], [1.0]):
        with pytest.raises(HistoryError, match="history"):
            sequences(X).concat_history(history)


def test_both_must_be_of_one_kind():
    with pytest.raises(HistoryError, match="variables"):
        joined(np.zeros((2, 2)), np.zeros((2, 1)))
    with pytest.raises(HistoryError, match="same order"):
        joined(pd.DataFrame({"a": [1.0], "b": [1.0]}), pd.DataFrame({"b": [1.0], "a": [1.0]}))
    with pytest.raises(HistoryError, match="vocabulary"):
        joined("ab", "cd")
    with pytest.raises(HistoryError, match="covariates"):
        sequences([1.0], covariates=[1.0]).concat_history(sequences([1.0]))


def test_covariates_and_static_inputs_are_joined():
    history = sequences(Y[:2], covariates=Y.to_frame("u"), static=[9.0])
    out = sequences(Y[2:4], covariates=Y.to_frame("u")).concat_history(history)
    np.testing.assert_array_equal(out.covariates[0, :, 0], [0, 1, 2, 3])
    assert out.static.tolist() == [[9.0]]
    with pytest.raises(HistoryError, match="gap of 1 steps"):
        sequences(Y[3:4], covariates=Y.to_frame("u")).concat_history(history)


def test_text_goes_on():
    words = sequences("abc").vocabulary
    history = sequences("ab", vocabulary=words, end=False)
    assert sequences("c", vocabulary=words).concat_history(history).values[0, :, 0].tolist() == [0, 1, 2, 3]
