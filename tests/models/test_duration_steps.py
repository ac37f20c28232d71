"""The M-step of durations on which the long run of the chain depends, against a general optimiser."""

import numpy as np
import pytest
import torch
from scipy import optimize

from probseq.distributions.durations import FreeDuration
from probseq.models.duration_steps import update_durations, weighted

DURATION = FreeDuration(4)
LEAVES = torch.tensor([[[5.0, 6.0, 4.0, 0.0], [9.0, 7.0, 3.0, 2.0]]], dtype=torch.float64)
STAYS = LEAVES.sum(-1, keepdim=True) - LEAVES.cumsum(-1)
STEPS = torch.arange(1.0, 5.0, dtype=torch.float64)


def start_of(weight):
    """Minus the log of the mean durations: what the density of a stationary start does with them."""

    def start(params):
        mean = (params["duration_probs"] * STEPS).sum(-1)
        return -0.5 * weight * mean.sum(-1, keepdim=True).log().expand(-1, 2)

    return start


def value(probs, start):
    tables = DURATION.tables({"duration_probs": probs})
    each = (weighted(LEAVES, tables.leave) + weighted(STAYS, tables.stay)).sum(-1)
    return (each + start({"duration_probs": probs})).sum()


@pytest.mark.parametrize("weight", [30.0, 600.0])
@pytest.mark.parametrize("least", [1e-3, 1e-9, 1e-200])
def test_one_step_comes_near_the_maximum_though_a_probability_is_near_zero(weight, least):
    start = start_of(weight)

    def objective(z):
        leaf = torch.tensor(z, requires_grad=True)
        loss = -value(torch.softmax(leaf.reshape(1, 2, 4), -1), start)
        loss.backward()
        return loss.item(), leaf.grad.numpy()

    best = -optimize.minimize(objective, np.zeros(8), jac=True, method="BFGS").fun
    probs = torch.tensor([[[0.3, 0.4, 0.3, least], [0.25, 0.25, 0.25, 0.25]]], dtype=torch.float64)
    probs = probs / probs.sum(-1, keepdim=True)
    gaps = [best - float(value(probs, start))]
    for _ in range(4):
        probs = update_durations(DURATION, LEAVES, STAYS, {"duration_probs": probs}, start, coupled=True)[
            "duration_probs"
        ]
        gaps.append(best - float(value(probs, start)))
    assert np.all(np.diff(gaps) <= 1e-10)
    assert gaps[1] < 0.02 * gaps[0] and gaps[1] < 0.5
    assert gaps[4] < 1e-4
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 2, dtype=torch.float64))
