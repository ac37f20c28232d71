"""Cross-validation: every fold is a fit to the rest and a score of what was held out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

import probseq as ps
from probseq.errors import ParameterError, ShapeError

MODEL = ps.IID(ps.Normal())
RNG = np.random.default_rng(0)
MANY = [RNG.normal(size=(t, 2)) + i for i, t in enumerate((9, 12, 7, 15, 8))]


def test_folds_of_sequences():
    x = [one.copy() for one in MANY]
    x[3][2, 1] = np.nan
    found = ps.cross_validate(MODEL, x, n_splits=2)
    total, n = 0.0, []
    for i, held in enumerate(([0, 2, 4], [1, 3])):
        fitted = clone(MODEL).fit([x[j] for j in range(5) if j not in held])
        logs = float(fitted.log_prob([x[j] for j in held]).sum())
        n.append(sum(int((~np.isnan(x[j])).sum()) for j in held))
        assert_allclose(found["score"][i], logs / n[i], rtol=1e-10)
        total += logs
    assert_allclose(found["n_values"], n)
    assert_allclose(found["mean"], total / sum(n), rtol=1e-10)
    assert 0 < float(found["standard_error"]) < 10
    shuffled = ps.cross_validate(MODEL, x, n_splits=5, random_state=0)
    assert shuffled.sizes["fold"] == 5 and int(shuffled["n_values"].sum()) == sum(n)
    assert_allclose(sorted(shuffled["score"]), sorted(ps.cross_validate(MODEL, x, n_splits=5)["score"]))


def test_growing_windows_of_time():
    y = np.cumsum(RNG.normal(size=41))
    model = ps.RandomWalk()
    found = ps.cross_validate(model, y, by="time", n_splits=3)
    cuts = [10, 20, 30, 41]
    for i, (stop, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        fitted = clone(model).fit(y[:stop])
        assert_allclose(found["score"][i], fitted.score(y[stop:end], history=y[:stop]), rtol=1e-10)
    # The first value of each test part is scored: its past is known.
    assert list(found["n_values"]) == [10, 10, 11]
    assert np.isfinite(found["standard_error"])
    many = ps.cross_validate(MODEL, MANY, by="time", n_splits=1)
    fitted = clone(MODEL).fit([one[: len(one) // 2] for one in MANY])
    assert_allclose(many["mean"], fitted.score([one[len(one) // 2 :] for one in MANY]), rtol=1e-10)


def test_error_of_one_value_a_step_is_that_of_the_mean():
    y = RNG.normal(size=120)
    found = ps.cross_validate(MODEL, y, by="time", n_splits=1)
    fitted = clone(MODEL).fit(y[:60])
    steps = fitted.log_prob_steps(y[60:]).values
    from probseq.evaluation.uncertainty import hac_mean

    assert_allclose(found["standard_error"], hac_mean(steps).standard_error)


def test_covariates_and_tokens():
    u = RNG.normal(size=(40, 1))
    y = 2 * u[:, 0] + RNG.normal(size=40)
    found = ps.cross_validate(ps.ARMA((1, 0)), y, by="time", n_splits=2, covariates=u)
    assert np.isfinite(found["score"]).all()
    words = ["abba", "baab", "abab", "bbaa", "aabb"]
    assert np.isfinite(ps.cross_validate(ps.MarkovChain(), words, n_splits=5)["mean"])


def test_refusals():
    with pytest.raises(ParameterError, match="by='month'"):
        ps.cross_validate(MODEL, MANY, by="month")
    with pytest.raises(ParameterError, match="n_splits=1"):
        ps.cross_validate(MODEL, MANY, n_splits=1)
    with pytest.raises(ShapeError, match='by="time"'):
        ps.cross_validate(MODEL, MANY[0], n_splits=2)
    with pytest.raises(ShapeError, match="7 steps"):
        ps.cross_validate(MODEL, MANY, by="time", n_splits=7)


@pytest.mark.parametrize("estimator", ["x", None, {"a": ps.HMM(2)}, ps.HMM])
def test_what_is_no_estimator_raises(estimator):
    with pytest.raises(ParameterError, match="one estimator"):
        ps.cross_validate(estimator, ps.datasets.earthquakes(), by="time")
