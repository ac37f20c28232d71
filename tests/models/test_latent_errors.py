"""The error that a particle filter tells of itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from probseq.errors import ApproximationWarning
from probseq.models.base import Batch
from probseq.models.latent_bounds import Bound
from probseq.models.latent_errors import Lineages
from tests.models.test_latent_network import FAMILIES, LATENT, Linear, as_network, matrix, random_case, simulated

pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")
LAG = 20


@pytest.mark.parametrize("t", [1, 7, 19, 20, 21, 50])
def test_it_is_the_sum_over_all_windows(t):
    """Each window by itself, from lineages followed one by one."""
    rng, n = np.random.default_rng(t), 6
    before, after = (rng.dirichlet(np.ones(n), t) for _ in range(2))
    parent = np.sort(rng.integers(n, size=(t, n)), 1)
    lineages = Lineages(torch.tensor(before[:1]).log())
    for i in range(t):
        rows = (torch.tensor(leaf[i : i + 1]) for leaf in (np.log(before), np.log(after), parent))
        lineages.add(*rows, torch.tensor([True]))
    total = 0.0
    for begin in range(1 - LAG, t):
        first, last = max(begin, 0), min(begin + LAG, t) - 1
        descended = np.zeros(n)
        for particle in range(n):
            at = particle
            for i in range(last, first, -1):
                at = parent[i, at]
            descended[at] += after[last, particle]
        total += np.square(descended - before[first]).sum() / LAG
    assert float(lineages.variance()) == pytest.approx(total, rel=1e-12)


def test_it_is_about_the_spread_over_seeds():
    linear = Linear(matrix(1, LATENT, 7), 1.0)
    batch = simulated(linear, 10, 60)
    values, errors = [], []
    for seed in range(8):
        model, params = as_network(linear, proposal="prior", n_particles=500, seed=seed)
        steps = model.log_prob_steps(params, batch)
        values.append(steps.values.sum(-1))
        errors.append(steps.error.square().sum(-1))
    spread = float(torch.stack(values).var(0).mean().sqrt())
    assert 0.8 < float(torch.stack(errors).mean().sqrt()) / spread < 1.2


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_same_alone_and_together(family):
    model, params, batch = random_case(family, n_particles=30)
    whole = model.log_prob_steps(params, batch).error
    assert not bool(whole[~batch.seen.any(-1)].any())
    for i, length in enumerate(batch.lengths.tolist()):
        one = Batch(batch.x[i : i + 1, :length], batch.seen[i : i + 1, :length], batch.lengths[i : i + 1])
        assert torch.allclose(model.log_prob_steps(params, one).error[0], whole[i, :length], atol=1e-12)


def test_a_filter_in_training_is_silent():
    linear = Linear(matrix(10, LATENT, 7), 0.05)
    batch = simulated(linear, 1, 4)
    model, params = as_network(linear, proposal="prior", n_particles=100)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.trained_by(Bound("fivo", 100))._training_log_prob(
            params, batch, batch.seen, None, torch.Generator().manual_seed(0)
        )
    assert not told
    with pytest.warns(ApproximationWarning, match="carry the weight"):
        model.log_prob(params, batch)
