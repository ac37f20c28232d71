import numpy as np
import pytest

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import (
    brier_score,
    check_levels,
    crps_normal,
    interval_score,
    log_mean_exp,
    mase,
    mean_log_score,
    naive_scale,
    perplexity,
    pinball_loss,
    ranked_probability_score,
    rmse,
    smape,
    symmetric_error,
    to_bits,
    variogram_score,
    weighted_quantile_loss,
)


def test_log_scores_skip_what_is_not_scored():
    values = np.log([0.5, np.nan, 0.125])
    assert mean_log_score(values) == pytest.approx(-2 * np.log(2), abs=1e-15)
    assert perplexity(values) == pytest.approx(4, abs=1e-14)
    assert to_bits(values)[2] == pytest.approx(-3, abs=1e-15)
    with pytest.raises(EmptyDataError, match="no scored value"):
        mean_log_score([np.nan])


def test_mixture_of_log_scores():
    p = np.array([[0.2, 1e-300], [0.6, 1e-310]])
    np.testing.assert_allclose(log_mean_exp(np.log(p)), np.log(p[0] / 2 + p[1] / 2), rtol=1e-14)
    weights = np.log(np.array([3.0, 1.0]))[:, None]
    assert log_mean_exp(np.log(p), weights)[0] == pytest.approx(np.log(0.75 * 0.2 + 0.25 * 0.6), abs=1e-15)
    assert log_mean_exp(np.array([-np.inf, -np.inf])) == -np.inf
    assert log_mean_exp(np.array([-5000.0, -np.inf])) == pytest.approx(-5000 - np.log(2), abs=1e-11)


def test_pinball_loss_by_hand_and_as_a_crps():
    assert pinball_loss(3.0, 1.0, 0.9) == pytest.approx(1.8)
    assert pinball_loss(1.0, 3.0, 0.9) == pytest.approx(0.2)
    # CRPS = 2 int pinball dp: the midpoint rule over 20000 levels comes near.
    from scipy.special import ndtri

    p = (np.arange(20_000) + 0.5) / 20_000
    assert 2 * pinball_loss(0.7, ndtri(p), p).mean() == pytest.approx(crps_normal(0.7, 0, 1), abs=1e-7)


def test_interval_score_is_two_pinball_losses():
    # (u - l) + 2/a (...) = 2/a (pinball at a/2 + pinball at 1 - a/2), Gneiting & Raftery (2007).
    y = np.array([-3.0, 0.2, 5.0])
    expected = 2 / 0.2 * (pinball_loss(y, -1.0, 0.1) + pinball_loss(y, 2.0, 0.9))
    np.testing.assert_allclose(interval_score(y, -1.0, 2.0, 0.8), expected, rtol=1e-13)


def test_pinball_and_interval_agree_with_scoringrules():
    import scoringrules

    y = np.random.default_rng(0).normal(size=20)
    expected = scoringrules.quantile_score(y, np.full(20, 0.3), 0.7)
    np.testing.assert_allclose(pinball_loss(y, 0.3, 0.7), expected, rtol=0, atol=1e-14)
    expected = scoringrules.interval_score(y, np.full(20, -1.0), np.full(20, 0.5), 0.2)
    np.testing.assert_allclose(interval_score(y, -1.0, 0.5, 0.8), expected, rtol=0, atol=1e-13)


def test_weighted_quantile_loss_by_hand():
    y = np.array([1.0, -3.0, np.nan])
    q = np.array([[0.0, -4.0, 9.0], [2.0, -2.0, 9.0]])
    expected = np.mean([2 * (0.1 * 1 + 0.1 * 1) / 4, 2 * (0.1 * 1 + 0.1 * 1) / 4])
    assert weighted_quantile_loss(y, q, [0.1, 0.9]) == pytest.approx(expected, abs=1e-15)
    with pytest.raises(ShapeError, match="first axis"):
        weighted_quantile_loss(y, q.T, [0.1, 0.9])


def test_levels_are_probabilities():
    with pytest.raises(ParameterError, match=r"Write 0\.9\."):
        check_levels(90)
    for wrong in (0, 1, -0.1, np.nan, [0.5, 2]):
        with pytest.raises(ParameterError, match="between 0 and 1"):
            check_levels(wrong)


def test_categorical_scores_agree_with_scoringrules():
    import scoringrules

    rng = np.random.default_rng(1)
    p, y = rng.dirichlet(np.ones(4), size=8), rng.integers(0, 4, size=8)
    # scoringrules counts categories from 1.
    np.testing.assert_allclose(ranked_probability_score(y, p), scoringrules.rps_score(y + 1, p), rtol=0, atol=1e-14)
    hit = np.eye(4)[y]
    np.testing.assert_allclose(brier_score(y, p), ((p - hit) ** 2).sum(1), rtol=0, atol=1e-15)
    two = np.array([[0.3, 0.7]])
    assert brier_score([1], two)[0] == pytest.approx(2 * scoringrules.brier_score(1.0, 0.7), abs=1e-15)


def test_categorical_scores_mark_missing_and_refuse_unknown_labels():
    p = np.full((2, 3), 1 / 3)
    assert np.isnan(brier_score([-1, 0], p)[0])
    assert not np.isnan(ranked_probability_score([-1, 0], p)[1])
    with pytest.raises(ParameterError, match="label 3"):
        brier_score([0, 3], p)


def test_rmse_and_mase_by_hand():
    assert rmse([1.0, 4.0, np.nan], [1.0, 2.0, 0.0]) == pytest.approx(np.sqrt(2))
    # Naive errors of 1 3 2 are 2 and 1: mean 1.5; forecast errors 3 and 0: mean 1.5.
    assert mase([5.0, 2.0], [2.0, 2.0], [1.0, 3.0, 2.0]) == pytest.approx(1.0)
    assert mase([5.0, 2.0], [2.0, 2.0], [1.0, 3.0, 5.0], period=2) == pytest.approx(1.5 / 4)
    assert np.isnan(mase([1.0], [2.0], [3.0, 3.0]))
    with pytest.raises(ShapeError, match="period=3"):
        mase([1.0], [1.0], [1.0, 2.0, 3.0], period=3)


def test_mase_scales_every_variable_by_itself():
    history = np.array([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]])
    assert mase([[3.0, 30.0]], [[4.0, 40.0]], history) == pytest.approx(1.0)


def test_naive_scale_leaves_out_pairs_with_gaps():
    assert naive_scale([1.0, np.nan, 4.0, 5.0]) == pytest.approx(1.0)
    np.testing.assert_array_equal(naive_scale([[1.0, 0.0], [1.0, 3.0]]), [np.nan, 3.0])
    with pytest.raises(EmptyDataError):
        naive_scale([1.0, np.nan, 4.0])


def test_symmetric_error_by_hand():
    np.testing.assert_allclose(symmetric_error([0.0, 2.0, -1.0, np.nan], [0.0, 1.0, 1.0, 1.0]), [0, 2 / 3, 2, np.nan])
    assert smape([2.0, np.nan, 0.0], [1.0, 1.0, 0.0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_variogram_score_agrees_with_scoringrules(p):
    import scoringrules

    rng = np.random.default_rng(3)
    y, x = rng.normal(size=(4, 5)), rng.normal(size=(4, 30, 5))
    expected = scoringrules.vs_ensemble(y, x, p=p)
    samples = np.moveaxis(x, 1, 0)
    np.testing.assert_allclose(variogram_score(y, samples, p=p), expected, rtol=0, atol=1e-10)
    weights = rng.uniform(size=(4, 5, 5))
    expected = scoringrules.vs_ensemble(y, x, weights, p=p)
    np.testing.assert_allclose(variogram_score(y, samples, p=p, weights=weights), expected, rtol=0, atol=1e-10)


def test_variogram_score_sees_no_shift_and_refuses_no_order():
    rng = np.random.default_rng(4)
    y, x = rng.normal(size=3), rng.normal(size=(20, 3))
    assert variogram_score(y + 7, x) == pytest.approx(variogram_score(y, x), abs=1e-12)
    with pytest.raises(ParameterError, match="order"):
        variogram_score(y, x, p=0)


def test_shapes_are_not_broadcast_into_a_table():
    column, row = np.zeros((3, 1)), np.array([1.0, 2.0, 3.0])
    for error in (rmse, smape, lambda y, point: mase(y, point, [1.0, 3.0, 2.0])):
        with pytest.raises(ShapeError, match="one forecast a value"):
            error(column, row)
    assert rmse(row, 2.0) == pytest.approx(np.sqrt(2 / 3))


def test_ends_are_named():
    assert perplexity([-1000.0]) == np.inf
    assert np.isnan(weighted_quantile_loss([0.0, 0.0], [[1.0, 1.0]], [0.5]))
    with pytest.raises(EmptyDataError):
        weighted_quantile_loss([np.nan], [[1.0]], [0.5])
    with pytest.raises(ParameterError, match=r"label 0\.5"):
        brier_score([0.5], [[0.3, 0.7]])
    with pytest.raises(ParameterError, match="period"):
        naive_scale([1.0, 2.0, 3.0], 1.5)
    with pytest.raises(ShapeError, match="first axis"):
        variogram_score(np.zeros(3), np.zeros((5, 4)))
