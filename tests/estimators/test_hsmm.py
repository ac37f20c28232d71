"""The estimator of hidden semi-Markov models: what it adds to every family."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError


def regimes(n_cycles=12, seed=0):
    """Runs of 4 steps at 0 and of 7 at 5, with noise."""
    x = np.tile(np.repeat([0.0, 5.0], [4, 7]), n_cycles)
    return x + np.random.default_rng(seed).normal(size=x.size) * 0.5


@pytest.fixture(scope="module")
def fitted():
    model = ps.HSMM(duration=ps.FreeDuration(10), inference=ps.EM(n_init=2, tol=1e-6), random_state=0)
    return model.fit(regimes()).order_states()


def test_durations_are_labelled(fitted):
    probs = fitted.duration_probabilities()
    assert probs.dims == ("state", "duration")
    assert_array_equal(probs.duration, np.arange(1, 11))
    assert_allclose(probs.sum("duration"), 1.0, rtol=1e-12)
    assert_array_equal(probs.argmax("duration") + 1, [4, 7])
    assert_allclose(fitted.expected_durations(), (probs * probs.duration).sum("duration"), rtol=1e-12)
    assert not fitted.duration_probabilities(15)[:, 10:].any()
    share = fitted.stationary_distribution()
    assert_allclose(share, fitted.expected_durations() / fitted.expected_durations().sum(), rtol=1e-12)
    with pytest.raises(ParameterError, match="longest"):
        fitted.duration_probabilities(0)


def test_the_default_knows_when_a_state_is_due(fitted):
    """After four steps at 0 the next is at 5, which no Markov chain of two states can know."""
    forecast = fitted.forecast(3, history=regimes(5)[: 4 * 11 + 4])
    assert_allclose(forecast.mean().values, 5.0, atol=0.5)
    markov = ps.HMM(inference=ps.EM(n_init=2, tol=1e-6), random_state=0).fit(regimes())
    assert fitted.score(regimes(seed=1)) > markov.score(regimes(seed=1)) + 0.1


def test_known_parameters_and_generation():
    model = ps.HSMM(2, ps.Poisson(), ps.PoissonDuration(20)).with_parameters(
        initial=[1, 0], transition=[[0, 1], [1, 0]], duration_mean=[3, 8], rate=[1.0, 30.0]
    )
    x, states = model.sample(400, states=True, random_state=0)
    assert_array_equal((x > 12).values, states.values == 1)
    runs = np.diff(np.flatnonzero(np.diff(states.values)))
    assert_allclose(sorted([runs[::2].mean(), runs[1::2].mean()]), [3, 8], atol=1.2)
    assert_allclose(model.duration_probabilities(60).sum("duration"), 1.0, rtol=1e-10)
    assert_array_equal(model.decode(x), states)


def test_known_states_are_kept():
    x = regimes()
    z = np.tile(np.repeat([1, 0], [4, 7]), 12)
    model = ps.HSMM(duration=ps.PoissonDuration(20), inference=ps.EM(n_init=1, tol=1e-4), random_state=0)
    model.fit(x, states=np.where(np.arange(x.size) < 30, z, -1))
    assert_array_equal(model.decode(x), z)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_short_and_strange_data():
    model = ps.HSMM(duration=ps.FreeDuration(5), inference=ps.EM(n_init=1, max_iter=20, tol=1e-2), random_state=0)
    several = model.fit([regimes(2), np.array([0.3]), np.array([np.nan, 5.0])])
    assert np.isfinite(several.log_prob([np.array([0.0])])).all()
    assert_allclose(several.log_prob(np.full(3, np.nan)), 0.0, atol=1e-12)
    with pytest.raises(ParameterError, match="whole number from 2.*followed by another"):
        ps.HSMM(1).fit(regimes(1))
    with pytest.raises(ParameterError, match="max_duration"):
        ps.HSMM(duration=ps.FreeDuration(0)).fit(regimes(1))
    with pytest.raises(ParameterError, match="parentheses"):
        ps.HSMM(duration=ps.PoissonDuration).fit(regimes(1))
    with pytest.raises(IncompatibleError, match="state only"):
        ps.HSMM(emission=ps.NormalRegression()).fit(regimes(1))
    with pytest.raises(IncompatibleError):
        ps.HSMM(inference=ps.MeanField())


def test_geometric_durations_give_the_published_fit_of_the_markov_model():
    """Zucchini and MacDonald (2009), two stationary Poisson states for the earthquakes: -l = 342.3183."""
    quick = ps.EM(n_init=2)
    model = ps.HSMM(2, ps.Poisson(), ps.GeometricDuration(), "stationary", inference=quick, random_state=0)
    model.fit(ps.datasets.earthquakes())
    assert_allclose(model.log_likelihood_, -342.3183, atol=5e-5)
    markov = ps.HMM(2, ps.Poisson(), start="stationary", inference=quick, random_state=0)
    assert_allclose(model.log_likelihood_, markov.fit(ps.datasets.earthquakes()).log_likelihood_, atol=1e-6)
    assert model.n_parameters_ == markov.n_parameters_ == 4
