"""Whole weights of sequences are the same as repeating the sequences."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import DataError
from probseq.inference.em import EM
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.transitions import LeftRight
from probseq.results.joint import make_batch

TIMES = np.array([3, 1, 0, 2])
EMISSIONS = {
    "diagonal": ps.Normal(),
    "spherical": ps.Normal("spherical"),
    "full": ps.Normal("full"),
    "tied": ps.Normal("tied"),
    "t": ps.StudentT(),
    "counts": ps.Poisson(),
    "codes": ps.Categorical(12),
    "mixed": ps.Product([ps.Normal(), ps.Poisson()]),
    "shared scale": ps.Tied(ps.Normal(), shared=("scale",)),
    "shared state": ps.Tied(ps.Poisson(), states=[0, 0, 1]),
}


def sequences(emission, seed: int = 0) -> list[np.ndarray]:
    """Four sequences of different lengths, with holes."""
    rng = np.random.default_rng(seed)
    found = []
    for length in (30, 17, 25, 9):
        level = 4.0 * ((np.arange(length) // 6) % 3)
        x = rng.poisson(1.0 + level[:, None], size=(length, 2)).clip(max=11).astype(float)
        if emission.measure != "counting":
            x[:, 0] += rng.normal(size=length)
        if emission.measure == "lebesgue":
            x[:, 1] += rng.normal(size=length)
        x[rng.random(x.shape) < 0.1] = np.nan
        found.append(x)
    return found


def batch_of(model, values):
    lengths = np.array([len(one) for one in values])
    array = np.full((len(values), lengths.max(), 2), np.nan)
    for row, one in zip(array, values, strict=True):
        row[: len(one)] = one
    return make_batch(model, array, lengths)


def repeated(values):
    return [one for one, times in zip(values, TIMES, strict=True) for _ in range(times)]


@pytest.mark.parametrize("start", ["free", "stationary"])
@pytest.mark.parametrize("name", EMISSIONS)
def test_em_steps_agree(name, start):
    emission = EMISSIONS[name]
    model = HiddenMarkovModel(3, emission, emission.observation(2), start)
    values = sequences(emission)
    once, often = batch_of(model, values), batch_of(model, repeated(values))
    generator = torch.Generator().manual_seed(0)
    params = others = model.em_start(once, 2, "kmeans", generator)
    weights = torch.tensor(TIMES, dtype=torch.float64)
    for _ in range(15):
        one, other = model.em_step(params, once, weights), model.em_step(others, often)
        assert_allclose(one.log_prob, other.log_prob, rtol=1e-8)
        assert_allclose(one.occupancy, other.occupancy, rtol=1e-8, atol=1e-8)
        params, others = one.params, other.params
    for parameter, value in params.items():
        assert_allclose(value, others[parameter], rtol=1e-8, atol=1e-8, err_msg=parameter)


def fitted(inference, values, weights=None, **options) -> ps.HMM:
    return ps.HMM(2, inference=inference, random_state=0, **options).fit(values, weights=weights)


@pytest.mark.parametrize(
    ("inference", "tolerance"), [(EM(n_init=6, tol=1e-12), 1e-8), (ps.MLE(tol=1e-10), 1e-6)], ids=["EM", "MLE"]
)
@pytest.mark.parametrize("transitions", [None, LeftRight()], ids=["free", "left-right"])
def test_fits_agree(inference, tolerance, transitions):
    values = [one[:, :1] for one in sequences(ps.Normal())]
    one = fitted(inference, values, TIMES, transitions=transitions)
    other = fitted(inference, repeated(values), transitions=transitions)
    assert_allclose(one.log_likelihood_, other.log_likelihood_, rtol=1e-8)
    order = [np.argsort(model.params_["mean"].values[:, 0]) for model in (one, other)]
    for name in ("mean", "scale"):
        assert_allclose(one.params_[name].values[order[0]], other.params_[name].values[order[1]], rtol=100 * tolerance)


@pytest.mark.parametrize("name", ["diagonal", "full", "t", "counts", "codes", "mixed"])
def test_independent_fits_agree(name):
    emission = EMISSIONS[name]
    values = sequences(emission)
    one, other = ps.IID(emission).fit(values, weights=TIMES), ps.IID(emission).fit(repeated(values))
    assert_allclose(one.log_likelihood_, other.log_likelihood_, rtol=1e-8)
    for parameter in one.params_:
        assert_allclose(one.params_[parameter], other.params_[parameter], rtol=1e-5, err_msg=parameter)


def test_arma_fits_agree():
    rng = np.random.default_rng(0)
    values = [np.cumsum(rng.normal(size=n)) * 0.3 + rng.normal(size=n) for n in (40, 30, 25, 20)]
    model = ps.ARMA(order=(1, 1), inference=ps.MLE(tol=1e-10))
    one = ps.ARMA(order=(1, 1), inference=ps.MLE(tol=1e-10)).fit(values, weights=TIMES)
    other = model.fit(repeated(values))
    assert_allclose(one.log_likelihood_, other.log_likelihood_, rtol=1e-8)
    for parameter in one.params_:
        assert_allclose(one.params_[parameter], other.params_[parameter], rtol=1e-3, atol=1e-4, err_msg=parameter)


def test_a_scale_of_all_weights_changes_no_estimate():
    values = sequences(ps.Poisson())
    one, other = (ps.IID(ps.Poisson()).fit(values, weights=scale * np.array([1.0, 2, 3, 4])) for scale in (1.0, 1e-3))
    assert_allclose(one.params_["rate"], other.params_["rate"], rtol=1e-8)


WRONG = {
    "numbers, one a sequence": ["a", "b"],
    "Missing: .1": {0: 1.0},
    "Unknown: .2": {0: 1.0, 1: 1.0, 2: 1.0},
    r"shape \(1,\)": [1.0],
    r"shape \(\)": 2.0,
    "the weight -1 of sequence 1": [1.0, -1.0],
    "the weight nan of sequence 0": [np.nan, 1.0],
    "the weight inf of sequence 1": [1.0, np.inf],
    "all zero": [0.0, 0.0],
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_weights_is_said(message):
    with pytest.raises(DataError, match=message):
        ps.IID().fit([[1.0, 2.0], [3.0, 5.0, 4.0]], weights=WRONG[message])


def test_weights_by_the_names_of_the_sequences():
    panel = {"a": [1.0, 2.0], "b": [3.0, 5.0, 4.0]}
    by_name = ps.IID().fit(panel, weights={"b": 3.0, "a": 1.0})
    assert by_name.log_likelihood_ == ps.IID().fit(panel, weights=[1.0, 3.0]).log_likelihood_
