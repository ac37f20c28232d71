"""scikit-learn's own checks, and model selection over ragged sequences."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import probseq as ps
from probseq.errors import DataError

EXPECTED = {
    "check_methods_sample_order_invariance": "rows are steps in time: their order matters",
    "check_methods_subset_invariance": "rows are steps in time: a step is predicted from those before it",
    "check_fit1d": "a 1-D array is one sequence of one variable",
}

# The checks fit 1 to 10 columns of positive and negative measurements. Left out are families that such data do not
# suit: counts and categories (PoissonProcess, MarkovChain, other emissions) and ARMA, which has one variable.
ESTIMATORS = [
    ps.HMM(n_states=2, inference=ps.EM(n_init=1, max_iter=20), random_state=0),
    ps.HMM(n_states=2, emission=ps.StudentT(df=4.0), inference=ps.EM(n_init=1, max_iter=20), random_state=0),
    ps.LSTM(
        hidden_size=2, inference=ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=1)), random_state=0
    ),
    ps.IID(),
    ps.RandomWalk(),
    ps.SeasonalNaive(period=2),
]


def expected(estimator):
    """Independent rows have no order."""
    return {"check_fit1d": EXPECTED["check_fit1d"]} if isinstance(estimator, ps.IID) else EXPECTED


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected)
def test_scikit_learn_conventions(estimator, check):
    with warnings.catch_warnings():
        # Constant and separable columns collapse, short fits do not converge, and y is said to be ignored.
        warnings.simplefilter("ignore", ps.errors.ProbseqWarning)
        check(estimator)


def ragged(n=6, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(15, 30, n)
    states = [np.cumsum(rng.random(t) < 0.2) % 2 for t in lengths]
    return [5.0 * s[:, None] + rng.normal(size=(len(s), 1)) for s in states]


def quick(n_states=1, **options):
    return ps.HMM(n_states=n_states, inference=ps.EM(n_init=1, max_iter=200, tol=1e-3), random_state=0, **options)


def test_grid_search_over_ragged_sequences():
    X = ragged()
    search = GridSearchCV(quick(), {"n_states": [1, 2]}, cv=KFold(3)).fit(X)
    assert search.best_params_ == {"n_states": 2}
    by_hand = [clone(quick(2)).fit([X[i] for i in a]).score([X[i] for i in b]) for a, b in KFold(3).split(X)]
    assert search.best_score_ == pytest.approx(np.mean(by_hand), rel=1e-10)


def test_grid_search_over_nested_parameters():
    X = ragged()
    X = [np.hstack([x, x + np.random.default_rng(1).normal(size=x.shape)]) for x in X]
    search = GridSearchCV(quick(2, emission=ps.Normal()), {"emission__covariance": ["spherical", "full"]}, cv=KFold(2))
    assert search.fit(X).best_params_ == {"emission__covariance": "full"}
    assert search.best_estimator_.emission.covariance == "full"


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_grid_search_with_covariates_by_metadata_routing(routing):
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(t, 1)) for t in (30, 22, 26, 35)]
    X = [3.0 * u + 0.1 * rng.normal(size=u.shape) for u in inputs]
    model = ps.ARMA(order=(0, 0)).set_fit_request(covariates=True).set_score_request(covariates=True)
    search = GridSearchCV(model, {"order": [(0, 0), (1, 0)]}, cv=KFold(2)).fit(X, covariates=inputs)
    assert search.best_score_ > 0.5  # a standard deviation of 0.1 gives 0.88 nats; without the input it would be -2.5
    assert search.best_estimator_.params_["coefficients"].values == pytest.approx([3.0], abs=0.05)


def test_lengths_under_row_splitting_raise(routing):
    X = np.concatenate(ragged())
    lengths = [len(x) for x in ragged()]
    model = quick(2).set_fit_request(lengths=True).set_score_request(lengths=True)
    with pytest.raises(DataError, match="lengths"):
        cross_val_score(model, X, params={"lengths": lengths}, cv=KFold(2), error_score="raise")


def test_array_rows_of_one_sequence_may_be_split():
    x = np.concatenate(ragged())
    scores = cross_val_score(quick(2), x, cv=KFold(3), error_score="raise")
    assert np.isfinite(scores).all()


def test_pipeline_passes_through():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.concatenate(ragged())
    pipe = make_pipeline(StandardScaler(), quick(2)).fit(x)
    assert pipe.score(x) == pytest.approx(pipe[-1].score(pipe[0].transform(x)))
