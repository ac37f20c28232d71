"""Smoothed paths of networks with latent variables against the Kalman smoother."""

from __future__ import annotations

import pytest
import torch

from probseq.distributions.emissions import Normal
from probseq.models.base import Batch
from probseq.models.latent_families import StochasticRecurrentModel, VariationalRecurrentModel
from probseq.models.latent_smoothing import smooth_paths
from tests.models.test_latent_network import LATENT, Linear, as_network, matrix, random_case, simulated

pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")


def test_paths_have_the_moments_of_the_kalman_smoother():
    linear = Linear(matrix(2, LATENT, 7), 2.0)
    batch = simulated(linear, 2, 20)
    batch = batch._replace(lengths=torch.tensor([20, 13]))
    batch = batch._replace(seen=batch.seen & batch.real.unsqueeze(-1))
    batch.seen[0, 5:8] = False
    exact = linear.smooth({}, batch)
    found = []
    for seed in range(5):
        model, params = as_network(linear, proposal="prior", n_particles=1000, seed=seed)
        found.append(smooth_paths(model, params, batch, 100, torch.Generator().manual_seed(seed)))
    paths = torch.cat(found)
    assert paths.shape == (500, 2, 20, LATENT)
    assert not bool(paths[:, 1, 13:].any())
    for i, length in enumerate(batch.lengths.tolist()):
        std = exact.cov[i, :length].diagonal(dim1=-2, dim2=-1).sqrt()
        off = (paths[:, i, :length].mean(0) - exact.mean[i, :length]) / std
        assert float(off.square().mean().sqrt()) < 0.2
        ratio = paths[:, i, :length].std(0) / std
        assert float((ratio - 1.0).square().mean().sqrt()) < 0.1


@pytest.mark.parametrize("family", [VariationalRecurrentModel, StochasticRecurrentModel])
def test_the_last_step_is_that_of_the_filter(family):
    model, params, batch = random_case(family, n_particles=400)
    _, cloud = model.run(params, batch, model.initial_state(params, batch.n), keep=True)
    paths = smooth_paths(model, params, batch, 1500, torch.Generator().manual_seed(0))
    for i, length in enumerate(batch.lengths.tolist()):
        weights = cloud.log_weights[i, length - 1].exp()
        mean = weights @ cloud.z[i, length - 1]
        assert torch.allclose(paths[:, i, length - 1].mean(0), mean, atol=0.12)


def test_lineages_keep_their_particles():
    """Two steps, of which the second one says what the first must have been: a lineage knows it."""
    head = Normal()
    model = VariationalRecurrentModel(head, head.observation(1, None), 1, 3, n_particles=300, dtype=torch.float64)
    x = torch.tensor([[[0.3], [-0.2]]]).double()
    batch = Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([2]))
    params = model._initial_guess(batch, torch.Generator().manual_seed(0))
    _, cloud = model.run(params, batch, model.initial_state(params, 1), keep=True)
    paths = smooth_paths(model, params, batch, 500, torch.Generator().manual_seed(0))
    parents = cloud.z[0, 0, cloud.parent[0, 1], 0]
    pairs = {(round(float(a), 12), round(float(b), 12)) for a, b in zip(parents, cloud.z[0, 1, :, 0])}
    assert {(round(float(p[0, 0, 0]), 12), round(float(p[0, 1, 0]), 12)) for p in paths} <= pairs


def test_draws_side_by_side():
    model, params, batch = random_case(StochasticRecurrentModel, n_particles=50)
    many = {name: torch.stack([value, value]) for name, value in params.items()}
    paths = smooth_paths(model, many, batch, 7, torch.Generator().manual_seed(0))
    assert paths.shape == (2, 7, batch.n, batch.t, 2)
