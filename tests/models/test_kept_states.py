"""States that are kept after some steps equal those of the whole trajectory."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from probseq.distributions.emissions import Normal, Observation
from probseq.models import base
from probseq.models.arma import ARMAModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.marginal import Marginalized
from probseq.results.joint import make_batch
from probseq.testing.cases import ModelCase

ORDERS = [((2, 0, 1), (0, 0, 0, 1)), ((0, 1, 1), (0, 1, 1, 4)), ((1, 1, 0), (1, 0, 0, 3))]


def batch_of(model, gaps):
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(3, 300, 1)), 1)
    for i, steps in enumerate(gaps):
        x[i, steps] = np.nan
    return make_batch(model, x, np.array([300, 280, 120]))


def leaves_of(state):
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves_of(part)]


def check(law, params, batch, steps, draws):
    start = law.initial_state(params, batch.n)
    kept, scan = law._states_at(params, batch, steps, start), law._scan(params, batch, start)
    for found, along, last in zip(leaves_of(kept), leaves_of(scan.states), leaves_of(scan.final), strict=True):
        for i, row in enumerate(steps.tolist()):
            for j, step in enumerate(row):
                at = (slice(None),) * draws + (i,)
                expected = last[at] if step == batch.lengths[i] else along[(*at, step)]
                assert_allclose(found[(*at, j)], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("order, seasonal", ORDERS)
def test_an_arma_that_settles_and_meets_gaps(order, seasonal):
    model = ARMAModel(Observation(1), order, seasonal)
    params = ModelCase(model).random_params((2,))
    batch = batch_of(model, ([2, 150, 151, 290], [], list(range(40, 60))))
    steps = torch.tensor([[300, 0, 3, 149, 152, 291], [280, 280, 1, 200, 7, 0], [120, 39, 61, 45, 0, 9]])
    check(model, params, batch, steps, 1)


def test_pieces_of_a_trajectory(monkeypatch):
    model = HiddenMarkovModel(3, Normal(), Observation(1))
    averaged = Marginalized(model, ModelCase(model).random_params((4,)))
    batch = batch_of(model, ([5], [], []))
    steps = torch.tensor([[300, 0, 64, 65, 299], [280, 1, 63, 128, 279], [120, 119, 64, 0, 120]])
    monkeypatch.setattr(base, "_STATE_ENTRIES", 64 * 3 * 4 * 3)
    for law in (averaged, averaged.frozen()):
        check(law, {}, batch, steps, 0)
