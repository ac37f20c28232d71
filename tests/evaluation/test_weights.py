import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from probseq.errors import EmptyDataError, ParameterError, ShapeError
from probseq.evaluation import pseudo_bma_weights, stacking_weights


def shortfall(log_prob, w):
    """The duality gap: an upper bound on how far the mean log score is from its maximum."""
    p = np.exp(log_prob - log_prob.max(1, keepdims=True))
    return (p / (p @ w)[:, None]).mean(0).max() - 1


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 60), st.floats(0.01, 60))
def test_stacking_reaches_its_maximum(seed, m, n, spread):
    log_prob = np.random.default_rng(seed).normal(size=(n, m)) * spread
    w = stacking_weights(log_prob)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1, abs=1e-12)
    assert shortfall(log_prob, w) <= 1e-10


def test_stacking_of_two_models_agrees_with_a_line_search():
    p = np.random.default_rng(1).uniform(size=(200, 2))
    best = optimize.minimize_scalar(
        lambda a: -np.log(a * p[:, 0] + (1 - a) * p[:, 1]).mean(),
        bounds=(0, 1),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert stacking_weights(np.log(p))[0] == pytest.approx(best.x, abs=1e-6)


def test_stacking_recovers_the_shares_of_a_mixture():
    rng = np.random.default_rng(2)
    n = 20_000
    y = np.where(rng.uniform(size=n) < 0.7, rng.normal(0, 1, n), rng.normal(4, 1, n))
    log_prob = np.stack([stats.norm.logpdf(y, 0, 1), stats.norm.logpdf(y, 4, 1), stats.norm.logpdf(y, -6, 1)], axis=1)
    np.testing.assert_allclose(stacking_weights(log_prob), [0.7, 0.3, 0], atol=0.012)


def test_stacking_by_hand():
    # One model for each value and nothing else: weights are the shares of the values.
    log_prob = np.log(np.array([[1.0, 1e-300], [1.0, 1e-300], [1e-300, 1.0]]))
    np.testing.assert_allclose(stacking_weights(log_prob), [2 / 3, 1 / 3], atol=1e-9)
    best = np.array([[0.0, -1.0], [-2.0, -2.5]])
    np.testing.assert_allclose(stacking_weights(best), [1, 0], atol=1e-9)
    np.testing.assert_allclose(stacking_weights(np.zeros((3, 4))), 0.25)
    assert stacking_weights(np.zeros((3, 1))) == [1.0]


def test_stacking_survives_impossible_and_missing_values():
    log_prob = np.array([[0.0, -np.inf], [-np.inf, 0.0], [-np.inf, -np.inf], [0.0, -np.inf], [np.nan, 0.0]])
    np.testing.assert_allclose(stacking_weights(log_prob), [2 / 3, 1 / 3], atol=1e-9)
    with pytest.raises(EmptyDataError):
        stacking_weights(np.full((2, 2), np.nan))


def test_scores_are_a_table():
    for weights in (stacking_weights, pseudo_bma_weights):
        with pytest.raises(ShapeError, match="value, model"):
            weights(np.zeros(3))


def test_pseudo_bma_by_hand():
    log_prob = np.array([[-1.0, -1.5], [-2.0, -1.0], [-0.5, -3.0]])
    total = log_prob.sum(0)
    expected = np.exp(total) / np.exp(total).sum()
    np.testing.assert_allclose(pseudo_bma_weights(log_prob, n_bootstrap=0), expected, rtol=1e-13)


def test_pseudo_bma_plus_is_less_sure_and_repeats():
    log_prob = np.random.default_rng(3).normal(size=(50, 2)) * 2 + np.array([0.3, 0.0])
    plain, plus = pseudo_bma_weights(log_prob, n_bootstrap=0), pseudo_bma_weights(log_prob)
    assert plus.max() < plain.max()
    np.testing.assert_array_equal(plus, pseudo_bma_weights(log_prob))


def test_pseudo_bma_ranks_models_that_are_sometimes_impossible():
    log_prob = np.array([[0.0, -np.inf], [0.0, -np.inf], [-np.inf, 0.0]])
    np.testing.assert_allclose(pseudo_bma_weights(log_prob, n_bootstrap=0), [1, 0], atol=1e-12)


def test_the_bootstrap_in_blocks_is_the_same(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(50, 3))
    whole = pseudo_bma_weights(scores, n_bootstrap=40)
    monkeypatch.setattr("probseq.evaluation.weights._BLOCK", 170)
    np.testing.assert_allclose(pseudo_bma_weights(scores, n_bootstrap=40), whole, rtol=1e-13)
    with pytest.raises(ParameterError, match="n_bootstrap"):
        pseudo_bma_weights(scores, n_bootstrap=-1)
