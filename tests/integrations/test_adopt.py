"""Models of hmmlearn, adopted: the same scores, paths and posteriors."""

import numpy as np
import pytest
from hmmlearn import hmm, vhmm
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import DataTypeError, NotFittedError

RNG = np.random.default_rng(0)
LENGTHS = [50, 30, 40]
REGIME = np.repeat([0, 1, 2, 0, 1, 2], 20)
REAL = RNG.normal(size=(120, 2)) * np.array([1.0, 2.0])[None] + 4.0 * REGIME[:, None] * np.array([1.0, -0.5])
COUNTS = RNG.poisson(2 + 6 * REGIME[:, None], (120, 2))
CODES = (REGIME + RNG.integers(0, 2, 120))[:, None]
TRIALS = RNG.multinomial(9, [0.2, 0.5, 0.3], 120)
TRIALS[REGIME == 1] = RNG.multinomial(9, [0.7, 0.1, 0.2], 40)
RAGGED_TRIALS = TRIALS + RNG.integers(0, 3, TRIALS.shape)


def gaussian(covariance):
    return hmm.GaussianHMM(3, covariance_type=covariance, n_iter=5, random_state=0), REAL


def mixture(covariance):
    return hmm.GMMHMM(2, n_mix=2, covariance_type=covariance, n_iter=5, random_state=0), REAL


def variational(covariance):
    return vhmm.VariationalGaussianHMM(3, covariance_type=covariance, n_iter=5, random_state=0), REAL


KINDS = ("diag", "full", "spherical", "tied")
MODELS = {
    **{f"gaussian {kind}": gaussian(kind) for kind in KINDS},
    **{f"mixture {kind}": mixture(kind) for kind in KINDS},
    **{f"variational {kind}": variational(kind) for kind in KINDS},
    "categorical": (hmm.CategoricalHMM(3, n_iter=5, random_state=0), CODES),
    "multinomial": (hmm.MultinomialHMM(2, n_trials=9, n_iter=5, random_state=0), TRIALS),
    "multinomial ragged": (hmm.MultinomialHMM(2, n_iter=5, random_state=0), RAGGED_TRIALS),
    "poisson": (hmm.PoissonHMM(3, n_iter=5, random_state=0), COUNTS),
    "variational categorical": (vhmm.VariationalCategoricalHMM(3, n_iter=5, random_state=0), CODES),
    "scaling": (hmm.GaussianHMM(2, implementation="scaling", n_iter=5, random_state=0), REAL),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    model, x = MODELS[request.param]
    return model.fit(x, LENGTHS), x


def test_score_path_and_posteriors_are_equal(pair):
    theirs, x = pair
    ours = ps.from_hmmlearn(theirs)
    assert_allclose(ours.log_prob(x, lengths=LENGTHS).sum(), theirs.score(x, LENGTHS), rtol=1e-8)
    ends = np.cumsum(LENGTHS)
    posteriors = theirs.predict_proba(x, LENGTHS)
    log_prob, path = theirs.decode(x, LENGTHS)
    decoded, smoothed = ours.decode(x, lengths=LENGTHS), ours.smooth(x, lengths=LENGTHS)
    assert_allclose(decoded.attrs["log_prob"].sum(), log_prob, rtol=1e-8)
    for i, (end, length) in enumerate(zip(ends, LENGTHS, strict=True)):
        one = x[end - length : end]
        assert_allclose(smoothed[i, :length], posteriors[end - length : end], atol=1e-8)
        assert_allclose(ours.log_prob(one), theirs.score(one), rtol=1e-8)
        found, wanted = decoded[i, :length].values, path[end - length : end]
        if x.dtype == float:
            assert_array_equal(found, wanted)
        # Repeated codes and counts make several paths equally probable.
        assert_allclose(joint(theirs, one, found), joint(theirs, one, wanted), rtol=1e-10)


def joint(model, x, path):
    """log p(x, z) under hmmlearn's parameters."""
    with np.errstate(divide="ignore"):
        moves = np.log(model.transmat_)[path[:-1], path[1:]].sum()
        start = np.log(model.startprob_)[path[0]]
    return start + moves + model._compute_log_likelihood(x)[np.arange(len(x)), path].sum()


def test_an_adopted_model_is_a_fitted_one(pair, tmp_path):
    theirs, x = pair
    ours = ps.from_hmmlearn(theirs)
    free = theirs._get_n_fit_scalars_per_param()
    if isinstance(theirs, hmm.GMMHMM):
        free["w"] = theirs.n_components * (theirs.n_mix - 1)  # hmmlearn counts the weights of one state
    if not isinstance(theirs, vhmm.VariationalGaussianHMM):  # which counts the parameters of its posterior
        assert ours.n_parameters_ == sum(free.values())
    ours.save(tmp_path / "model")
    assert_allclose(ps.load(tmp_path / "model").log_prob(x), ours.log_prob(x))
    if not (isinstance(theirs, hmm.MultinomialHMM) and theirs.n_trials is not None and np.ndim(theirs.n_trials)):
        assert ours.forecast(2, history=x).sample(3).sizes["time"] == 2


def test_exact_zeros_and_parameters_set_by_hand():
    theirs = hmm.GaussianHMM(2, covariance_type="diag", init_params="")
    theirs.n_features = 1
    theirs.startprob_ = np.array([1.0, 0.0])
    theirs.transmat_ = np.array([[0.9, 0.1], [0.0, 1.0]])
    theirs.means_, theirs.covars_ = np.array([[0.0], [5.0]]), np.array([[1.0], [2.0]])
    x = np.array([[0.1], [0.3], [5.0], [4.0], [7.0]])
    ours = ps.from_hmmlearn(theirs)
    assert_allclose(ours.log_prob(x), theirs.score(x), rtol=1e-12)
    assert_allclose(ours.smooth(x), theirs.predict_proba(x), atol=1e-12)
    assert float(ours.params_["transition"][1, 0]) == 0.0


def test_decoding_by_the_largest_posterior():
    theirs = hmm.PoissonHMM(3, algorithm="map", n_iter=3, random_state=0).fit(COUNTS)
    ours = ps.from_hmmlearn(theirs)
    assert_array_equal(ours.smooth(COUNTS).argmax("state"), theirs.predict(COUNTS))


def test_refusals():
    with pytest.raises(NotFittedError, match="fit"):
        ps.from_hmmlearn(hmm.PoissonHMM(2))
    with pytest.raises(DataTypeError, match="PoissonHMM"):
        ps.from_hmmlearn(object())


def test_a_model_that_is_half_set_is_not_fitted():
    for half, missing in ((hmm.GaussianHMM(2), "covars"), (hmm.PoissonHMM(2), "lambdas"), (hmm.GMMHMM(2), "covars")):
        half.startprob_, half.transmat_ = np.array([1.0, 0.0]), np.eye(2)
        with pytest.raises(NotFittedError, match=f"without {missing}"):
            ps.from_hmmlearn(half)
