"""Laws of durations against scipy, and their tails against their definition."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from probseq.distributions.durations import (
    FreeDuration,
    GeometricDuration,
    NegativeBinomialDuration,
    PoissonDuration,
)
from probseq.errors import ParameterError


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def tables(duration, *arrays):
    names = duration.parameters(1)
    return duration.tables({name: tensor(value).requires_grad_() for name, value in zip(names, arrays, strict=True)})


@pytest.mark.parametrize("width", [1, 2, 30, 300])
@pytest.mark.parametrize("mean", [1.5, 20.0, 250.0, 2000.0])
@pytest.mark.parametrize("size", [None, 0.05, 1.0, 7.0, 500.0])
def test_masses_and_survivors_equal_scipy(width, mean, size):
    n = np.arange(width)
    if size is None:
        law, found = stats.poisson(mean - 1), tables(PoissonDuration(width), mean)
    else:
        law = stats.nbinom(size, size / (mean - 1 + size))
        found = tables(NegativeBinomialDuration(width), mean, size)
    log_survivor = law.logsf(n - 1)
    sound = log_survivor > -200  # scipy's own tails lose their digits further out
    assert_allclose(found.survivor[0].detach().numpy()[sound], log_survivor[sound], rtol=1e-10, atol=1e-10)
    hazard = (law.logpmf(n) - log_survivor)[sound]
    assert_allclose(found.leave[0].detach().numpy()[sound], hazard, rtol=1e-9, atol=1e-9)
    assert_allclose(found.leave.exp().detach() + found.stay.exp().detach(), 1.0, rtol=1e-13)
    (found.leave.sum() + found.stay.sum()).backward()


def test_the_tail_is_geometric_or_cut():
    whole = tables(PoissonDuration(40), 6.0).log_mass(40).exp()[0]
    found = tables(PoissonDuration(8), 6.0)
    mass = found.log_mass(200).exp()[0]
    assert_allclose(mass[:8].detach(), whole[:8].detach(), rtol=1e-12)
    assert_allclose(mass.sum().item(), 1.0, rtol=1e-12)
    ratio = mass[8:40] / mass[7:39]
    assert_allclose(ratio.detach(), found.stay[0, -1].exp().item(), rtol=1e-10)
    cut = tables(PoissonDuration(8, tail="truncated"), 6.0).log_mass(20).exp()[0]
    assert_allclose(cut[:8].detach(), (whole[:8] / whole[:8].sum()).detach(), rtol=1e-12)
    assert not cut[8:].any()


def test_size_one_is_geometric_and_a_large_size_is_poisson():
    one = tables(NegativeBinomialDuration(12), 5.0, 1.0)
    plain = tables(GeometricDuration(12), 5.0)
    assert_allclose(one.leave.detach(), plain.leave.detach(), rtol=1e-11)
    large, poisson = tables(NegativeBinomialDuration(12), 5.0, 1e9), tables(PoissonDuration(12), 5.0)
    assert_allclose(large.leave.detach(), poisson.leave.detach(), rtol=1e-7)


@pytest.mark.parametrize(
    "duration, arrays",
    [
        (PoissonDuration(9), (6.0,)),
        (NegativeBinomialDuration(9), (6.0, 0.7)),
        (NegativeBinomialDuration(9, "truncated"), (6.0, 0.7)),
        (GeometricDuration(), (6.0,)),
    ],
)
def test_mean_and_residual_follow_from_the_masses(duration, arrays):
    found = tables(duration, *arrays)
    mass = found.log_mass(3000).exp()[0].detach().numpy()
    d = np.arange(1, 3001)
    log_mean, residual = found.residual()
    assert_allclose(log_mean.exp().item(), (mass * d).sum(), rtol=1e-9)
    survivor = mass[::-1].cumsum()[::-1]
    width = residual.shape[-1]
    expected = [*(survivor[: width - 1] / survivor.sum()), survivor[width - 1 :].sum() / survivor.sum()]
    assert_allclose(residual[0].exp().detach(), expected, rtol=1e-9)


def test_free_durations_keep_exact_zeros():
    probs = tensor(0.0, 0.3, 0.0, 0.7, 0.0).reshape(1, 5)
    law = FreeDuration(5)
    found = law.tables({"duration_probs": probs})
    assert_allclose(found.leave.exp(), [[0.0, 0.3, 0.0, 1.0, 1.0]], rtol=1e-14)
    assert_allclose(found.stay.exp(), [[1.0, 0.7, 1.0, 0.0, 0.0]], rtol=1e-14)
    assert_allclose(law.from_hazards(found.leave.exp())["duration_probs"], probs, rtol=1e-14)
    assert_allclose(found.log_mass(7).exp(), [[0.0, 0.3, 0.0, 0.7, 0.0, 0.0, 0.0]], rtol=1e-14)


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "5"])
@pytest.mark.parametrize("make", [FreeDuration, PoissonDuration, NegativeBinomialDuration, GeometricDuration])
def test_bad_maxima_raise(make, bad):
    with pytest.raises(ParameterError, match="max_duration"):
        _ = make(bad).width


def test_bad_tails_raise():
    with pytest.raises(ParameterError, match="tail"):
        PoissonDuration(5, tail="long").parameters(2)
