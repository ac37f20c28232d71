"""Hidden Markov models answered by batched torch, as on a graphics processor, against the compiled kernels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from probseq.distributions.emissions import AutoregressiveNormal, Normal, Poisson, StudentT
from probseq.models import hmm
from probseq.models.base import Batch
from probseq.models.covariate_transitions import CovariateTransitions
from probseq.models.driven import DrivenHiddenMarkovModel
from probseq.models.hmm import HiddenMarkovModel

EMISSIONS = {"normal": Normal(), "full": Normal("full"), "student": StudentT(), "poisson": Poisson()}
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


def random_problem(emission, covariates=0, missing=0.2, n=3, t=9):
    rng = np.random.default_rng(1)
    x = rng.poisson(3.0, (n, t, 2)).astype(float) if isinstance(emission, Poisson) else rng.normal(size=(n, t, 2))
    lengths = np.array([t, t - 3, 1])
    seen = (rng.random(x.shape) >= missing) & (np.arange(t) < lengths[:, None])[..., None]
    u = torch.from_numpy(rng.normal(size=(n, t, covariates))) if covariates else None
    return Batch(*(torch.from_numpy(a) for a in (np.where(seen, x, 0.0), seen, lengths)), u)


def build(name):
    """A model, its parameters with two draws, and a batch."""
    generator = torch.Generator().manual_seed(2)
    if name in EMISSIONS:
        emission = EMISSIONS[name]
        batch = random_problem(emission)
        model = HiddenMarkovModel(3, emission, emission.observation(2))
        return model, model.em_start(batch, 2, "random", generator), batch
    driven = name == "driven"
    emission, transitions = (Normal(), CovariateTransitions()) if driven else (AutoregressiveNormal(1), None)
    batch = random_problem(emission, covariates=int(driven), missing=0.0)
    observation = replace(emission.observation(2), n_covariates=int(driven))
    model = DrivenHiddenMarkovModel(3, emission, observation, transitions=transitions, n_covariates=int(driven))
    return model, model.em_start(batch, 2, "random", generator), batch


def answers(model, params, batch):
    steps = model.log_prob_steps(params, batch)
    best = model.decode(params, batch)
    yield steps.values
    yield steps.final.probs
    yield model._scan(params, batch, model.initial_state(params, batch.n)).states.probs[:, batch.real]
    yield model.filter_states(params, batch)
    yield model.smooth(params, batch)
    yield best.states
    yield best.log_prob
    yield from model.decode(params, batch, k=3)
    generator = torch.Generator().manual_seed(3)
    yield model.sample_states(params, batch, 20, generator)


@pytest.mark.parametrize("name", [*EMISSIONS, "driven", "autoregressive"])
def test_batched_torch_gives_the_same_answers(monkeypatch, name):
    model, params, batch = build(name)
    expected = list(answers(model, params, batch))
    monkeypatch.setattr(hmm, "_on_processor", lambda batch: False)
    for one, other in zip(answers(model, params, batch), expected, strict=True):
        assert_close(one, other, **TOLERANCE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", EMISSIONS)
def test_cuda_gives_the_same_answers(name):
    model, params, batch = build(name)
    there = {key: value.cuda() for key, value in params.items()}
    device = Batch(*(None if part is None else part.cuda() for part in batch))
    for one, other in zip(answers(model, there, device), answers(model, params, batch), strict=True):
        assert_close(one.cpu(), other, **TOLERANCE)
    for value in (*there.values(), *params.values()):
        value.requires_grad_()
    model.log_prob(there, device).sum().backward()
    model.log_prob(params, batch).sum().backward()
    for key, value in params.items():
        assert_close(there[key].grad.cpu(), value.grad, rtol=1e-8, atol=1e-9)
