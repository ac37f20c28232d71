"""The model confidence set, against the statistic by hand and its promise on simulated scores."""

import numpy as np
import pytest
from scipy import signal

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import model_confidence_set, paired_difference


def test_two_models_are_the_bootstrap_test_of_their_difference():
    x = np.random.default_rng(0).normal(size=(40, 2))
    x[:, 0] += 0.3
    p = model_confidence_set(x[None], block=4, n_bootstrap=20_000, random_state=0)
    assert p[0] == 1.0
    # t_i = -+ half the difference over its error: one number, whose bootstrap is that of the difference of means.
    d = x[:, 0] - x[:, 1]
    rng = np.random.default_rng(1)
    error = d[(rng.integers(0, 40, (20_000, 10))[..., None] + np.arange(4)) % 40].mean((1, 2)) - d.mean()
    error *= np.sqrt(40 / (40 + 1 - 8 + 12 / 40)) * np.sqrt(15 / rng.chisquare(15, 20_000))
    expected = np.mean(np.abs(error) >= abs(d.mean()))
    assert p[1] == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("shape", [(1, 200), (25, 6)])
def test_two_models_are_nearly_the_test_of_their_paired_difference(shape):
    rng = np.random.default_rng(7)
    for lead in (0.03, 0.1, 0.2):
        x = rng.normal(size=(*shape, 2))
        x[..., 0] += lead
        p = model_confidence_set(x, n_bootstrap=5000).min()
        assert p == pytest.approx(paired_difference(x[..., 0], x[..., 1]).p_value, abs=0.04)


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_the_best_is_kept_as_often_as_promised(phi):
    rng = np.random.default_rng(2)
    kept = size = 0
    for seed in range(200):
        x = signal.lfilter([1], [1, -phi], rng.normal(size=(220, 5)) + rng.normal(size=(220, 1)), axis=0)[20:]
        x[:, 3:] -= 1.5
        p = model_confidence_set(x[None], n_bootstrap=200, random_state=seed)
        kept += (p[:3] >= 0.1).all()  # all three are best
        size += (p[3:] >= 0.1).sum()
    assert 168 <= kept <= 192  # 180 by its promise, of standard deviation 4.2
    assert size <= 2


def test_the_first_values_count_as_much_as_any():
    x = np.random.default_rng(10).normal(size=(1, 60, 2))
    x[0, 0, 0] += 9.0
    p = [model_confidence_set(np.roll(x, shift, 1), n_bootstrap=5000).min() for shift in (0, 30)]
    assert p[0] == pytest.approx(p[1], abs=0.03)
    assert p[0] == pytest.approx(paired_difference(x[..., 0], x[..., 1]).p_value, abs=0.05)


def test_one_value_or_one_sequence_with_values_tells_nothing_of_clusters():
    x = np.full((3, 60, 2), np.nan)
    x[1] = np.random.default_rng(8).normal(size=(60, 2))
    np.testing.assert_array_equal(model_confidence_set(x), model_confidence_set(x[1:2]))
    assert 0 < model_confidence_set(x).min()
    assert model_confidence_set(np.array([[[1.0, 2.0]]])).tolist() == [1.0, 1.0]
    whole = np.random.default_rng(9).normal(size=(1, 12, 2))
    np.testing.assert_array_equal(model_confidence_set(whole, block=12), model_confidence_set(whole, block=6))


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
