"""EM of hidden Markov models with every emission: it climbs, and finds what was simulated."""

from __future__ import annotations

import pytest
import torch

from probseq.distributions.emissions import (
    Beta,
    Gamma,
    GaussianMixture,
    LogNormal,
    Multinomial,
    NegativeBinomial,
    VonMises,
    ZeroInflatedPoisson,
)
from probseq.inference.em import EM
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel

TRUE = {
    "negative binomial": (NegativeBinomial(), {"mean": [[3.0], [12.0]], "dispersion": [[0.5], [0.2]]}),
    "zero-inflated": (ZeroInflatedPoisson(), {"rate": [[3.0], [9.0]], "zero_prob": [[0.5], [0.1]]}),
    "gamma": (Gamma(), {"mean": [[2.0], [9.0]], "shape": [[3.0], [8.0]]}),
    "log-normal": (LogNormal(), {"loc": [[0.0], [2.0]], "scale": [[0.5], [0.8]]}),
    "beta": (Beta(), {"mean": [[0.25], [0.7]], "concentration": [[6.0], [12.0]]}),
    "von mises": (VonMises(), {"loc": [[3.1], [0.5]], "concentration": [[4.0], [2.0]]}),
    "multinomial": (Multinomial(8), {"probs": [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]}),
    "mixture": (
        GaussianMixture(2),
        {
            "weights": [[0.5, 0.5], [0.8, 0.2]],
            "mean": [[[-8.0], [-4.0]], [[2.0], [7.0]]],
            "scale": [[[1.0], [0.7]], [[1.2], [1.0]]],
        },
    ),
}


def simulated(name, t=1500, holes=0.1):
    emission, values = TRUE[name]
    params = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
    k = params["probs"].shape[-1] if name == "multinomial" else 1
    model = HiddenMarkovModel(2, emission, emission.observation(k))
    params["initial"] = torch.tensor([0.5, 0.5], dtype=torch.float64)
    params["transition"] = torch.tensor([[0.95, 0.05], [0.1, 0.9]], dtype=torch.float64)
    g = torch.Generator().manual_seed(3)
    x, _, _ = model.simulate(params, model.initial_state(params, 1), t, g)
    seen = torch.rand(x.shape, generator=g) >= holes
    x = torch.where(seen, x, torch.full_like(x, emission.fill))
    return model, params, Batch(x, seen, torch.tensor([t]))


@pytest.mark.parametrize("name", TRUE)
def test_finds_what_was_simulated(name):
    model, params, batch = simulated(name)
    draws = EM(n_init=3, tol=1e-6).fit(model, batch, torch.Generator().manual_seed(0))
    assert draws.status == "converged"
    key = next(iter(TRUE[name][1])) if name != "mixture" else "mean"
    distance = torch.cdist(draws.params[key][0].flatten(1), params[key].flatten(1))
    order = distance.argmin(0)
    assert sorted(order.tolist()) == [0, 1]
    for other in TRUE[name][1]:
        found, true = draws.params[other][0][order], params[other]
        if name == "mixture":
            within = draws.params["mean"][0][order].squeeze(-1).argsort(-1)
            found = torch.stack([one[place] for one, place in zip(found, within, strict=True)])
        if other == "loc" and name == "von mises":
            assert bool((torch.cos(found - true) > 0.97).all())
        else:
            assert bool(((found - true).abs() <= 0.25 * true.abs() + 0.12).all()), (other, found, true)
    assert draws.log_prob >= float(model.log_prob(params, batch).sum())


@pytest.mark.parametrize("name", TRUE)
def test_the_likelihood_never_falls(name):
    model, _, batch = simulated(name, t=200)
    params = model.em_start(batch, 4, "kmeans", torch.Generator().manual_seed(1))
    previous = None
    for _ in range(30):
        step = model.em_step(params, batch)
        if previous is not None:
            assert bool((step.log_prob >= previous - 1e-10 * previous.abs()).all())
        params, previous = step.params, step.log_prob
