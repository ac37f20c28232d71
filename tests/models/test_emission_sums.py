"""Steps of EM from sums over the steps, against the same steps from tables of log emissions and posteriors."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import probseq as ps
from probseq.distributions.memory import Remembered
from probseq.models import emission_sums
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel

KINDS = {
    "Poisson": (ps.Poisson(), "counts"),
    "Poisson by code": (ps.Poisson(), "count"),
    "ZeroInflatedPoisson": (ps.ZeroInflatedPoisson(), "counts"),
    "NegativeBinomial by code": (ps.NegativeBinomial(), "count"),
    "Bernoulli": (ps.Bernoulli(), "many bits"),
    "Categorical by code": (ps.Categorical(4), "codes"),
    "Normal spherical": (ps.Normal("spherical"), "numbers"),
    "Normal full": (ps.Normal("full"), "numbers"),
    "Normal tied": (ps.Normal("tied"), "numbers"),
    "LogNormal": (ps.LogNormal(), "positive"),
    "LogNormal full": (ps.LogNormal("full"), "positive"),
    "Gamma": (ps.Gamma(), "positive"),
    "Beta": (ps.Beta(), "shares"),
    "VonMises": (ps.VonMises(), "angles"),
}


def data(kind, rng):
    """Three sequences with a part that drifts, so that states differ."""
    lengths = (260, 1, 410)
    drift = np.repeat(rng.normal(size=30), 25)[: sum(lengths), None]
    noise = rng.normal(size=(sum(lengths), 3))
    x = 1.5 * drift + noise
    if kind == "counts":
        x = rng.poisson(np.exp(1.5 + 0.4 * x)).astype(float)
        x[:, 0] *= 37
    elif kind == "count":
        x = rng.poisson(np.exp(1 + 0.5 * x[:, :1])).astype(float)
    elif kind == "many bits":
        x = (drift + rng.normal(size=(sum(lengths), 12)) > 0).astype(float)
    elif kind == "codes":
        x = np.clip(np.round(x[:, :2] + 1.5), 0, 3)
    elif kind == "positive":
        x = 50 * np.exp(0.5 * x)
    elif kind == "shares":
        x = 1 / (1 + np.exp(-x))
    elif kind == "angles":
        x = (x + np.pi) % (2 * np.pi) - np.pi
    else:
        x = 1000 + x
    return np.split(x, np.cumsum(lengths)[:-1])


def problem(emission, sequences, n_states=3):
    """A model, its data padded to the longest sequence, and two starts."""
    lengths = np.array([len(one) for one in sequences])
    x = np.full((len(sequences), lengths.max(), sequences[0].shape[1]), np.nan)
    for row, one in zip(x, sequences, strict=True):
        row[: len(one)] = one
    seen = torch.from_numpy(~np.isnan(x))
    batch = Batch(torch.from_numpy(np.nan_to_num(x, nan=emission.fill)), seen, torch.from_numpy(lengths))
    model = HiddenMarkovModel(n_states, emission, emission.observation(x.shape[-1]))
    return model, batch, model.em_start(batch, 2, "random", torch.Generator().manual_seed(0))


def compare(monkeypatch, model, batch, start, weights=None):
    """Two steps of two draws both ways."""
    sure = model.em_step(model.em_step(start, batch, weights).params, batch, weights)
    with monkeypatch.context() as patch:
        patch.setattr(HiddenMarkovModel, "_summed", lambda *_: None)
        other = model.em_step(model.em_step(start, batch, weights).params, batch, weights)
    assert_close(sure.log_prob, other.log_prob, rtol=1e-10, atol=1e-9)
    assert_close(sure.occupancy, other.occupancy, rtol=1e-9, atol=1e-9)
    for name in start:
        assert_close(sure.params[name], other.params[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_sums_equal_tables(monkeypatch, name, holes):
    emission, kind = KINDS[name]
    rng = np.random.default_rng(3)
    sequences = data(kind, rng)
    if holes:
        for x in sequences:
            gone = rng.random(x.shape) < 0.1
            x[gone.any(-1) if name.endswith(("full", "tied")) else gone] = np.nan
    model, batch, start = problem(emission, sequences)
    found = model._summed(start, batch)
    assert found is not None
    if name.endswith("by code"):
        assert len(found.emission.codes) == 3
    elif name != "Normal spherical":
        assert found.emission.natural.size > 0
    for weights in (None, torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)):
        compare(monkeypatch, model, batch, start, weights)


def test_partly_missing_correlated_events_keep_their_own_m_step():
    sequences = data("numbers", np.random.default_rng(3))
    sequences[0][5, 1] = np.nan
    model, batch, start = problem(ps.Normal("full"), sequences)
    assert model._summed(start, batch) is None


def test_known_states_and_large_terms_take_the_table(monkeypatch):
    sequences = data("numbers", np.random.default_rng(3))
    model, batch, start = problem(ps.Normal("full"), sequences)
    narrow = {**start, "covariance": 1e-6 * start["covariance"]}
    assert model._summed(narrow, batch).emission.natural.size == 0
    known = torch.rand(batch.x.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.2
    partly = batch._replace(states=torch.where(known, 1, -1))
    assert model._summed(start, partly).emission.natural.size == 0
    compare(monkeypatch, model, partly, start)


def test_many_statistics_are_not_kept():
    """Products of 12 variables take more memory than densities and posteriors of three states."""
    x = np.random.default_rng(0).normal(size=(300, 12))
    model, batch, start = problem(ps.Normal("full"), [x])
    assert model._summed(start, batch) is None


def test_events_that_differ_too_much_have_no_codes():
    seen = torch.ones(1, 100, 1, dtype=torch.bool)
    for x in (torch.arange(100.0), torch.full((100,), 0.5), torch.full((100,), -1.0), torch.full((100,), 1e9)):
        assert emission_sums._codes(x.reshape(1, 100, 1), seen) is None
    found = emission_sums._codes(torch.tensor([3.0, 0.0] * 50).reshape(1, 100, 1), seen)
    assert found.x.flatten().tolist() == [0.0, 3.0] and found.codes.flatten().tolist() == [1, 0] * 50


def test_results_are_remembered_as_long_as_the_data():
    calls = []
    total = Remembered(lambda x, seen, key: calls.append(key) or (x * seen).sum())
    x, seen, key = torch.ones(2, 3, 1), torch.ones(2, 3, 1, dtype=torch.bool), object()
    assert total(x, seen, key) == total(x, seen, key) == 6 and len(calls) == 1
    x[0] = 2.0
    assert total(x, seen, key) == 9 and len(calls) == 2
    assert total(x, seen, object()) == 9 and len(calls) == 3
    assert total(x.clone(), seen, key) == 9 and len(calls) == 4
    assert total._last is None
