"""The model confidence set, against the statistic by hand and its promise on simulated scores."""

import numpy as np
import pytest

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import model_confidence_set


def test_two_models_are_the_bootstrap_test_of_their_difference():
    x = np.random.default_rng(0).normal(size=(40, 2))
    x[:, 0] += 0.3
    p = model_confidence_set(x[None], block=4, n_bootstrap=20_000, random_state=0)
    assert p[0] == 1.0
    # t_i = -+ half the difference over its error: one number, whose bootstrap is that of the difference of means.
    d = x[:, 0] - x[:, 1]
    starts = np.random.default_rng(1).integers(0, 37, (20_000, 10))
    error = d[starts[..., None] + np.arange(4)].mean((1, 2))
    error -= np.lib.stride_tricks.sliding_window_view(d, 4).mean()
    expected = np.mean(np.abs(error) >= abs(d.mean()))
    assert p[1] == pytest.approx(expected, abs=0.01)


def test_the_best_is_kept_as_often_as_promised():
    rng = np.random.default_rng(2)
    kept = size = 0
    for seed in range(200):
        x = rng.normal(size=(120, 5)) + rng.normal(size=(120, 1))
        x[:, 3:] -= 1.0
        p = model_confidence_set(x[None], n_bootstrap=200, random_state=seed)
        kept += (p[:3] >= 0.1).all()  # all three are best
        size += (p[3:] >= 0.1).sum()
    assert 165 <= kept <= 200  # 180 by its promise, of standard deviation 4.2
    assert size == 0


def test_order_of_models_and_constants_change_nothing():
    x = np.random.default_rng(3).normal(size=(1, 60, 4))
    x[..., 1] += 0.2
    p = model_confidence_set(x)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(model_confidence_set(x[..., order]), p[order])
    shift = np.random.default_rng(4).normal(size=(1, 1, 1))
    np.testing.assert_allclose(model_confidence_set(x + shift), p)
    assert p.max() == 1.0


def test_sequences_are_resampled_as_wholes():
    rng = np.random.default_rng(5)
    x = np.repeat(rng.normal(size=(12, 1, 2)), 50, 1)  # a step repeats its sequence: 12 values and not 600
    few = model_confidence_set(x, n_bootstrap=20_000)
    one = model_confidence_set(x[:, :1], n_bootstrap=20_000)
    np.testing.assert_allclose(few, one, atol=1e-12)
    assert few.min() > 0.01


def test_a_model_that_thought_the_data_impossible_is_out():
    x = np.random.default_rng(6).normal(size=(1, 30, 3))
    x[0, 4, 1] = -np.inf
    x[0, 5] = np.nan
    p = model_confidence_set(x)
    assert p[1] == 0.0 and p.max() == 1.0
    assert model_confidence_set(np.ones((1, 9, 1))).tolist() == [1.0]
    assert model_confidence_set(np.ones((1, 9, 2))).tolist() == [1.0, 1.0]


def test_bad_questions():
    with pytest.raises(ShapeError):
        model_confidence_set(np.zeros((4, 2)))
    with pytest.raises(EmptyDataError):
        model_confidence_set(np.full((1, 4, 2), np.nan))
    with pytest.raises(ParameterError):
        model_confidence_set(np.zeros((1, 4, 2)), block=0)
