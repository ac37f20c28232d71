"""The model confidence set, against the statistic by hand and its promise on simulated scores."""

import numpy as np
import pytest
from scipy import signal, stats

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import model_confidence_set, paired_difference


def test_three_models_by_the_book():
    x = np.random.default_rng(0).normal(size=(40, 3)) + [0.35, 0.1, 0.0]
    n, h, rng = 40, 5, np.random.default_rng(1)
    kernel = np.clip(1 - np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / h, 0, None)
    error = x - x.mean(0)
    covariance = error.T @ kernel @ error / n**2 * n / (n + 1 - 2 * h + h * (h - 1) / n)
    law = stats.multivariate_t(np.zeros(3), covariance, df=1.5 * n / h, allow_singular=True)
    left, largest, expected = [0, 1, 2], 0.0, np.ones(3)
    while len(left) > 1:
        contrast = np.eye(3)[left].mean(0) - np.eye(3)[left]
        se = np.sqrt(np.diag(contrast @ covariance @ contrast.T))
        t = contrast @ x.mean(0) / se
        top = (law.rvs(100_000, random_state=rng) @ contrast.T / se).max(1)
        largest = max(largest, np.mean(top >= t.max()))
        expected[left.pop(int(t.argmax()))] = largest
    assert 0.05 < expected.min() < 0.9
    np.testing.assert_allclose(model_confidence_set(x[None], lag=4, n_draws=100_000), expected, atol=0.006)


@pytest.mark.parametrize("shape", [(1, 200), (25, 6)])
def test_two_models_are_the_test_of_their_paired_difference(shape):
    rng = np.random.default_rng(7)
    for lead in (0.03, 0.1, 0.2):
        x = rng.normal(size=(*shape, 2))
        x[..., 0] += lead
        x[0, 1:4, 1] = np.nan
        p = model_confidence_set(x, n_draws=100_000).min()
        assert p == pytest.approx(paired_difference(x[..., 0], x[..., 1]).p_value, abs=0.006)


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_the_best_is_kept_as_often_as_promised(phi):
    rng = np.random.default_rng(2)
    kept = size = 0
    for seed in range(200):
        x = signal.lfilter([1], [1, -phi], rng.normal(size=(220, 5)) + rng.normal(size=(220, 1)), axis=0)[20:]
        x[:, 3:] -= 1.5
        p = model_confidence_set(x[None], n_draws=1000, random_state=seed)
        kept += (p[:3] >= 0.1).all()  # all three are best
        size += (p[3:] >= 0.1).sum()
    assert 168 <= kept <= 192  # 180 by its promise, of standard deviation 4.2
    assert size <= 2


def test_one_value_or_one_sequence_with_values_tells_nothing_of_clusters():
    x = np.full((3, 60, 2), np.nan)
    x[1] = np.random.default_rng(8).normal(size=(60, 2))
    np.testing.assert_array_equal(model_confidence_set(x), model_confidence_set(x[1:2]))
    assert 0 < model_confidence_set(x).min()
    assert model_confidence_set(np.array([[[1.0, 2.0]]])).tolist() == [1.0, 1.0]
    assert model_confidence_set(np.random.default_rng(9).normal(size=(1, 12, 2)), lag=11).tolist() == [1.0, 1.0]


def test_equal_models_are_equal_and_a_constant_lead_is_certain():
    x = np.random.default_rng(11).normal(size=(1, 50, 1)) + [0.3, 0.1, 0.1, 0.1]
    assert model_confidence_set(x).tolist() == [1.0, 0.0, 0.0, 0.0]
    x[..., 0] = np.random.default_rng(12).normal(size=50)
    p = model_confidence_set(x)
    assert p[1] == p[2] == p[3]
    assert model_confidence_set(x[..., 1:] / 3).tolist() == [1.0, 1.0, 1.0]


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
    few = model_confidence_set(x)
    one = model_confidence_set(x[:, :1])
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
        model_confidence_set(np.zeros((1, 4, 2)), lag=-1)
