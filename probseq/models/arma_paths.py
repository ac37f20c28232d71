"""Many paths of an ARMA model from one state: a mean and the answers to unit innovations, times the innovations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels.kalman import simulate
from probseq.models.arma_state import ARMAState, Workspace

if TYPE_CHECKING:
    from probseq.models.arma import ARMAModel

__all__ = ["paths_from_one_state"]


def paths_from_one_state(
    model: ARMAModel, params: Params, state: ARMAState, shocks: np.ndarray
) -> tuple[np.ndarray, ARMAState] | None:
    """Paths of the levels without what covariates, line, waves and the mean add, and the state after them.

    The gains of the filter do not depend on the data, so that a path is linear in its innovations, and so is its last
    state: one path without noise and one for each unit innovation make all others.

    Parameters
    ----------
    shocks : (D, n, length)
        Innovations.

    Returns
    -------
    y : (D, n, length), and the state; None where the sequences differ or are too few for this to be faster.
    """
    n_draws, n, length = shocks.shape
    if n <= length + 1 or not all(_same(leaf, len(model._draw(params))) for leaf in state):
        return None
    draw = model._draw(params)
    first = ARMAState(*(leaf.narrow(len(draw), 0, 1) for leaf in state))
    work = Workspace(first, draw)
    y, last = np.empty(shocks.shape), np.empty((n_draws, n, model.state_size))
    noise = np.concatenate([np.zeros((1, length)), np.eye(length)])
    only = np.array([0])
    for d, system, shift in model._draws(params):
        mean, cov, diffuse = work.take(d, only)
        shifts, means = (np.concatenate([part, np.zeros((length, model.state_size))]) for part in (shift, mean))
        paths = simulate(system, shifts, means, cov, diffuse, noise)
        y[d] = paths[0] + shocks[d] @ paths[1:]
        last[d] = means[0] + shocks[d] @ means[1:]
        work.put(d, only, means[:1], cov, diffuse)
    after = work.close(first.age + length)
    shape = (*draw, n)
    return y, ARMAState(
        torch.from_numpy(last).reshape(*shape, -1),
        after.cov.expand(*shape, *after.cov.shape[-2:]),
        after.diffuse.expand(*shape, *after.diffuse.shape[-2:]),
        after.age.expand(shape),
    )


def _same(leaf: Tensor, place: int) -> bool:
    """Whether all sequences of a leaf are alike."""
    return leaf.stride(place) == 0 or bool((leaf == leaf.narrow(place, 0, 1)).all())
