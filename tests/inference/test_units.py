"""Another unit of the data, or another zero, shifts objectives by the Jacobian and changes nothing else."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import probseq as ps
from probseq.distributions.params import ParamSpec, PositiveDefinite, Real, Simplex, Sparse
from probseq.inference.units import coordinate_units
from probseq.models.base import Batch

RNG = np.random.default_rng(11)
STATES = np.repeat([0, 1, 0, 1, 1, 0], 25)
NORMAL = 2.2 * STATES + RNG.normal(size=150)
PLANE = np.column_stack([NORMAL, NORMAL + RNG.normal(size=150)])
HEAVY = 6.0 * STATES + RNG.standard_t(3, size=150)
NOISE = RNG.normal(size=150)
PAST = np.array([sum(0.6**j * NOISE[t - j] for j in range(min(t + 1, 40))) for t in range(150)])

MAKERS = {
    "normal": (lambda by: ps.HMM(2, ps.Normal(), inference=by, random_state=0), NORMAL),
    "full": (lambda by: ps.HMM(2, ps.Normal("full"), inference=by, random_state=0), PLANE),
    "student": (lambda by: ps.HMM(2, ps.StudentT(), inference=by, random_state=0), HEAVY),
    "mixture": (lambda by: ps.HMM(1, ps.GaussianMixture(2), inference=by, random_state=0), NORMAL),
    "durations": (
        lambda by: ps.HSMM(2, ps.Normal(), duration=ps.PoissonDuration(30), inference=by, random_state=0),
        NORMAL[:100],
    ),
    "arma": (lambda by: ps.ARMA((1, 0, 1), inference=by, random_state=0), PAST),
}
UNITS = [(0.0, 1e-6), (0.0, 1e6), (1e3, 1.0), (1e6, 1.0)]


@pytest.mark.parametrize(
    ("name", "inference"),
    [
        *((name, ps.Laplace) for name in MAKERS),
        *((name, ps.MLE) for name in MAKERS if name != "durations"),
        ("arma", ps.MAP),
    ],
)
def test_objectives_follow_the_unit_of_the_data(name, inference):
    make, x = MAKERS[name]
    options = {"n_draws": 4} if inference is ps.Laplace else {"covariance": False}
    here = make(inference(**options)).fit(x)
    assert here.status_ == "converged"
    # The sums over durations are slow, and one small unit and one far zero are the whole path.
    for zero, unit in UNITS[::3] if name == "durations" else UNITS:
        there = make(inference(**options)).fit(zero + unit * x)
        assert there.status_ == here.status_
        value = there.draws_.objective + x.size * np.log(unit)
        assert_allclose(value, here.draws_.objective, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", [ps.Log(), [ps.Log(), ps.Standardize()]])
def test_draws_are_told_of_as_the_model_reads_the_data(transform):
    x = np.exp(3.0 + 0.5 * PAST)
    model = ps.ARMA((1, 0), transform=transform).fit(x)
    jacobian = -np.log(x).sum() - (x.size * np.log(np.std(np.log(x))) if isinstance(transform, list) else 0.0)
    assert_allclose(model.log_likelihood_, model.draws_.log_prob + jacobian, rtol=1e-10)
    assert model.draws_.objective == model.draws_.log_prob


@pytest.mark.parametrize("name", ["normal", "full", "arma"])
def test_standard_errors_follow_the_unit_of_the_data(name):
    make, x = MAKERS[name]
    by = ps.MLE() if name == "arma" else ps.EM(covariance=True, n_init=3)
    here = make(by).fit(x).standard_errors_["mean"].values
    assert np.isfinite(here).all()
    for zero, unit in [(0.0, 1e-7), (0.0, 1e7), (1e5, 1.0)]:
        there = make(by).fit(zero + unit * x).standard_errors_["mean"].values / unit
        assert_allclose(np.sort(there.ravel()), np.sort(here.ravel()), rtol=1e-4)


def test_random_starts_are_as_far_apart_in_any_unit():
    by = ps.MLE(n_init=4, covariance=False)
    optima = [
        ps.HMM(2, inference=by, random_state=0).fit(zero + unit * NORMAL).draws_.optima + 150 * np.log(unit)
        for zero, unit in [(0.0, 1.0), (0.0, 1e-4), (0.0, 1e6), (1e4, 1.0)]
    ]
    for other in optima[1:]:
        assert_allclose(other, optima[0], atol=1e-5)


def test_draws_of_chains_follow_the_unit_of_the_data():
    by = ps.NUTS(n_draws=20, n_chains=1, n_warmup=10)
    here, there = (ps.ARMA((1, 0, 0), inference=by, random_state=0).fit(unit * PAST) for unit in (1.0, 1e-6))
    assert_allclose(1e6 * there.params_["mean"].values, here.params_["mean"].values, atol=1e-8)
    assert_allclose(there.params_["ar"].values, here.params_["ar"].values, rtol=1e-6)


def test_units_by_the_dimensions_of_a_parameter():
    x = torch.tensor([[[0.0, 0.0], [2.0, 200.0]]], dtype=torch.float64)
    u = torch.tensor([[[5.0], [5.0]]], dtype=torch.float64)
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([2]), u)
    support = torch.tensor([[True, False], [True, True]])
    specs = {
        "mean": ParamSpec((2,), Real(), ("variable",)),
        "logit": ParamSpec((2,), Real(), ("variable",), unitless=True),
        "level": ParamSpec((), Real()),
        "slopes": ParamSpec((2, 1), Real(), ("variable", "covariate")),
        "past": ParamSpec((1, 2, 2), Real(), ("lag", "variable", "other_variable")),
        "odds": ParamSpec((2, 2), Sparse(support), ("state", "next_state")),
        "odds_slopes": ParamSpec((2, 2, 1), Sparse(support.unsqueeze(-1)), ("state", "next_state", "covariate")),
        "probs": ParamSpec((2,), Simplex(), ("state",)),
        "covariance": ParamSpec((2, 2), PositiveDefinite(), ("variable", "other_variable")),
        "known": ParamSpec((2,), Real(), ("variable",), trainable=False),
    }
    expected = {
        "mean": [1, 100],
        "logit": [1, 1],
        "level": [50.5],
        "slopes": [0.2, 20],
        "past": [1, 0.01, 100, 1],
        "odds": [1, 1, 1],
        "odds_slopes": [0.2, 0.2, 0.2],
        "probs": [1, 1],
        "covariance": [1, 100, 1],
    }
    assert_allclose(coordinate_units(specs, batch, False), np.concatenate(list(expected.values())))
    counts = coordinate_units({n: specs[n] for n in ("mean", "slopes", "past")}, batch, True)
    assert_allclose(counts, [1, 1, 0.2, 0.2, 1, 1, 1, 1])


def test_em_ends_where_the_search_ends_far_from_zero_and_near_it():
    for zero, unit in [(0.0, 1e-12), (1e6, 1.0), (1e8, 1.0), (1.7e9, 60.0)]:
        x = zero + unit * NORMAL
        ends = []
        for by in (ps.EM(), ps.MLE(covariance=False)):
            model = ps.HMM(2, inference=by, random_state=0).fit(x)
            assert model.status_ == "converged"
            ends.append(model.draws_.objective)
        assert_allclose(ends[0], ends[1], atol=1e-6)
        assert_allclose(ends[0] + 150 * np.log(unit), -215.885307, atol=2e-5 if zero < 1e7 else 1e-2)
