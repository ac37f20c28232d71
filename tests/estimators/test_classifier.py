"""Classes of sequences: Bayes' rule by hand, every form of data, scikit-learn's manners."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import probseq as ps
from probseq.errors import (
    DataError,
    DataWarning,
    IncompatibleError,
    NotFittedError,
    ParameterError,
    ProbseqWarning,
    ShapeError,
    SupportError,
)


@parametrize_with_checks([ps.SequenceClassifier(ps.IID()), ps.SequenceClassifier(ps.ARMA(order=(1, 0)))])
def test_scikit_learn_conventions(estimator, check):
    with warnings.catch_warnings():
        # Short and constant rows collapse, and the class is named.
        warnings.simplefilter("ignore", ProbseqWarning)
        check(estimator)


def blocks(seed=0, n=12, t=9):
    rng = np.random.default_rng(seed)
    y = np.array(["low", "high", "low"] * (n // 3))
    return np.where(y == "low", 0.0, 1.5)[:, None] + rng.normal(size=(n, t)), y


def by_hand(X, x, prior):
    """log P(c | x) for classes of independent normal values; X is (class, values)."""
    joint = np.log(prior) + np.stack([stats.norm.logpdf(x, c.mean(), c.std()).sum(-1) for c in X], -1)
    return joint - np.logaddexp.reduce(joint, -1, keepdims=True)


def test_the_posterior_is_bayes_rule_by_hand():
    X, y = blocks()
    new = np.random.default_rng(1).normal(0.7, 1.0, size=(5, 4))
    known = [X[y == label].ravel() for label in ("high", "low")]
    for prior, shares in (
        ("empirical", [1 / 3, 2 / 3]),
        ("uniform", [0.5, 0.5]),
        ([0.9, 0.1], [0.9, 0.1]),
        ({"low": 0.2, "high": 0.8}, [0.8, 0.2]),
    ):
        found = ps.SequenceClassifier(ps.IID(), prior).fit(X, y)
        assert_array_equal(found.classes_, ["high", "low"])
        assert_allclose(found.class_prior_, shares, rtol=1e-15)
        expected = by_hand(known, new, shares)
        assert_allclose(found.predict_log_proba(list(new)), expected, rtol=1e-10)
        assert_allclose(found.predict_proba(list(new)), np.exp(expected), rtol=1e-10)
        assert_array_equal(found.predict(list(new)), found.classes_[expected.argmax(1)])


def test_the_likelihood_of_a_class_is_that_of_its_model():
    X, y = blocks()
    found = ps.SequenceClassifier(ps.HMM(2, inference=ps.EM(n_init=1), random_state=0)).fit(X, y)
    nats = found.class_log_prob(X)
    assert nats.dims == ("sequence", "category")
    for label in ("high", "low"):
        alone = ps.HMM(2, inference=ps.EM(n_init=1), random_state=0).fit(list(X[y == label]))
        assert_allclose(nats.sel(category=label), alone.log_prob(list(X)), rtol=1e-10)


def test_every_form_of_data_gives_the_same():
    X, y = blocks()
    model = ps.SequenceClassifier(ps.ARMA(order=(1, 0)))
    expected = model.fit(X, y).predict_proba(X)
    index = pd.MultiIndex.from_product([range(len(X)), range(X.shape[1])], names=["series", "time"])
    forms = {
        "list": list(X),
        "3-D": X[..., None],
        "frame": pd.DataFrame(X),
        "series": pd.Series(X.ravel(), index=index),
        "lists": X.tolist(),
    }
    for name, form in forms.items():
        assert_allclose(model.fit(form, y).predict_proba(form), expected, rtol=1e-12, err_msg=name)
    lengths = [X.shape[1]] * len(X)
    flat = X.ravel()
    found = model.fit(flat, y, lengths=lengths)
    assert_allclose(found.predict_proba(flat, lengths=lengths), expected, rtol=1e-12)
    assert found.score(flat, y, lengths=lengths) == np.mean(y == found.classes_[expected.argmax(1)])
    names = [f"s{i}" for i in range(len(X))]
    by_name = model.fit(dict(zip(names, X, strict=True)), dict(zip(names[::-1], y[::-1], strict=True)))
    assert_allclose(by_name.predict_proba(X), expected, rtol=1e-12)


def test_ragged_sequences_of_several_variables_with_gaps_and_inputs():
    rng = np.random.default_rng(2)
    y = [0, 1] * 10
    X = [rng.normal(size=(rng.integers(5, 12), 2)) + label for label in y]
    X[3][2, 1] = np.nan
    found = ps.SequenceClassifier(ps.IID(ps.Normal("full"))).fit(X, y)
    assert found.n_features_in_ == 2
    parts = [ps.IID(ps.Normal("full")).fit([x for x, c in zip(X, y, strict=True) if c == label]) for label in (0, 1)]
    assert_allclose(found.class_log_prob(X), np.stack([p.log_prob(X) for p in parts], -1), rtol=1e-10)
    inputs = [rng.normal(size=(30, 1)) for _ in y]
    slopes = [u[:, 0] * (1 if c else -1) + 0.3 * rng.normal(size=30) for u, c in zip(inputs, y, strict=True)]
    driven = ps.SequenceClassifier(ps.ARMA(order=(0, 0))).fit(slopes, y, covariates=inputs)
    assert driven.score(slopes, y, covariates=inputs) == 1.0


def test_texts_of_classes_with_other_letters_share_a_vocabulary():
    texts, y = ["abababab", "babababa", "aacc", "ccaa"], ["two", "two", "three", "three"]
    found = ps.SequenceClassifier(ps.MarkovChain()).fit(texts, y)
    assert_array_equal(found.predict(["abab", "aac"]), ["two", "three"])
    assert len({model.vocabulary_ for model in found.models_.values()}) == 1


@pytest.mark.parametrize("width", [1, 2])
def test_codes_that_one_class_never_has(width):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.integers(0, 2, (6, 20, width)), rng.integers(0, 4, (6, 20, width))]).astype(float)
    y = [0] * 6 + [1] * 6
    found = ps.SequenceClassifier(ps.IID(ps.Categorical())).fit(X, y)
    assert found.score(X, y) == 1.0
    shares = np.stack([[(X[:6, :, i] == c).mean() for c in range(4)] for i in range(width)])
    new = np.array([[[1.0] * width, [0.0] * width]])
    assert_allclose(
        found.class_log_prob(new).sel(category=0), sum(np.log(shares[i, 1] * shares[i, 0]) for i in range(width))
    )
    with pytest.raises(SupportError, match="code 4"):
        found.predict(np.full((1, 3, width), 4.0))


def test_models_that_condition_on_first_values_are_compared_on_the_others():
    X, y = blocks()
    models = {"low": ps.IID(), "high": ps.RandomWalk()}
    found = ps.SequenceClassifier(models).fit(X, y)
    nats = found.class_log_prob(X)
    walk, still = found.models_["high"], found.models_["low"]
    assert_allclose(nats.sel(category="high"), walk.log_prob(list(X)), rtol=1e-10)
    assert_allclose(nats.sel(category="low"), still.log_prob_steps(list(X))[:, 1:].sum("time"), rtol=1e-10)


def test_what_is_missing_or_impossible_has_the_prior():
    X, y = blocks()
    found = ps.SequenceClassifier(ps.IID()).fit(X, y)
    assert_allclose(found.predict_proba([[np.nan, np.nan]]), [[1 / 3, 2 / 3]])
    texts = ps.SequenceClassifier(ps.MarkovChain(smoothing=0.0)).fit(["ab", "ab", "ba"], [0, 0, 1])
    with pytest.warns(DataWarning, match="probability zero in every class"):
        assert_allclose(texts.predict_proba(["aabb", "ab"]), [[2 / 3, 1 / 3], [1.0, 0.0]])
    sure = ps.SequenceClassifier(ps.MarkovChain(smoothing=0.0), {0: 1.0, 1: 0.0}).fit(["ab", "ab", "ba"], [0, 0, 1])
    with pytest.warns(DataWarning, match="that the prior allows"):
        assert_allclose(sure.predict_proba(["ba", "ab"]), [[1.0, 0.0], [1.0, 0.0]])


def test_long_sequences_tell_processes_apart_that_short_ones_do_not():
    """Error rate of two AR(1) processes falls with the length, as that of the exact rule does."""
    rng = np.random.default_rng(0)

    def simulate(phi, n, t):
        model = ps.ARMA(order=(1, 0)).with_parameters(ar=[phi], mean=[0.0], scale=[1.0])
        return model.sample(t, n, random_state=rng.integers(2**31)).values.reshape(n, t)

    X, y = np.concatenate([simulate(0.7, 60, 50), simulate(-0.2, 60, 50)]), np.repeat([1, 0], 60)
    found = ps.SequenceClassifier(ps.ARMA(order=(1, 0))).fit(X, y)
    new, truth = np.concatenate([simulate(0.7, 150, 40), simulate(-0.2, 150, 40)]), np.repeat([1, 0], 150)
    short, long = (found.score(list(new[:, :t]), truth) for t in (3, 40))
    assert long > 0.97 > short > 0.55


def test_model_selection():
    X, y = blocks(n=30)
    assert cross_val_score(ps.SequenceClassifier(ps.IID()), X, y, cv=3).mean() > 0.8
    search = GridSearchCV(ps.SequenceClassifier(ps.ARMA()), {"model__order": [(0, 0), (1, 0)]}, cv=2)
    assert search.fit(list(X), y).best_estimator_.model.order in ((0, 0), (1, 0))


def test_messages_name_the_class():
    X, y = blocks()
    with pytest.warns(ProbseqWarning, match="Class 'low'"):
        ps.SequenceClassifier({"low": ps.IID(), "high": ps.IID()}).fit(np.where((y == "low")[:, None], 1.0, X), y)
    counts = {"low": ps.IID(ps.Poisson()), "high": ps.IID()}
    with pytest.raises(SupportError, match="for class 'low'"):
        ps.SequenceClassifier(counts).fit(X, y)
    with pytest.raises(IncompatibleError, match="one base measure"):
        ps.SequenceClassifier(counts).fit(np.abs(X).round(), y)
    net = ps.LSTM(2, head=ps.Quantiles((0.1, 0.9)), inference=ps.MLE(training=ps.TrainingOptions(max_epochs=1)))
    with pytest.raises(IncompatibleError, match="likelihood"):
        ps.SequenceClassifier(net).fit(X, y)


def test_what_is_no_problem_of_classes():
    X, y = blocks()
    model = ps.SequenceClassifier(ps.IID())
    with pytest.raises(DataError, match="one class, 'low'"):
        model.fit(X, ["low"] * len(X))
    with pytest.raises(ShapeError, match="11 labels for 12 sequences"):
        model.fit(X, y[:-1])
    with pytest.raises(ShapeError, match="one sequence"):
        model.fit(X[0], y[:1])
    with pytest.raises(ShapeError, match="no label of sequence 1"):
        model.fit(list(X), {0: "a"})
    with pytest.raises(DataError, match="missing"):
        model.fit(X, [None, *y[1:]])
    with pytest.raises(NotFittedError):
        model.predict(X)
    fitted = model.fit(X, y)
    with pytest.raises(ShapeError, match="list"):
        fitted.predict(X[:, :3])
    assert fitted.score(X, np.where(y == "low", "low", "never seen")) == np.mean(
        (fitted.predict(X) == y) & (y == "low")
    )
    assert fitted.score(X, np.zeros(len(X))) == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"prior": "flat"},
        {"prior": [0.5, 0.6]},
        {"prior": [1.0]},
        {"prior": [-0.5, 1.5]},
        {"prior": [np.nan, 1.0]},
        {"prior": {"low": 1.0}},
        {"prior": None},
        {"model": "HMM"},
        {"model": ps.IID},
        {"model": {"low": ps.IID()}},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ParameterError) as error:
        ps.SequenceClassifier(**{"model": ps.IID(), **arguments}).fit(*blocks())
    assert next(iter(arguments)) in str(error.value) and error.value.remedy
