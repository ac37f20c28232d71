"""Simulated paths of an ARMA model: step by step, or many from one state at once."""

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

__all__ = ["paths_by_steps", "paths_from_one_state", "simulate_paths"]


def simulate_paths(
    model: ARMAModel, params: Params, state: ARMAState, shocks: np.ndarray
) -> tuple[np.ndarray, ARMAState]:
    """Paths of the levels without what covariates, line, waves and the mean add, and the state after them.

    Parameters
    ----------
    shocks : (D, n, length)
        Innovations.

    Returns
    -------
    y : (D, n, length), and the state.
    """
    _, n, length = shocks.shape
    if n > length + 1 and all(_same(leaf, len(model._draw(params))) for leaf in state):
        return paths_from_one_state(model, params, state, shocks)
    return paths_by_steps(model, params, state, shocks)


def paths_by_steps(
    model: ARMAModel, params: Params, state: ARMAState, shocks: np.ndarray
) -> tuple[np.ndarray, ARMAState]:
    """As `simulate_paths`, for sequences of any states."""
    work = Workspace(state, model._draw(params))
    y = np.empty(shocks.shape)
    for d, system, shift in model._draws(params):
        for rows in work.groups(d):
            mean, cov, diffuse = work.take(d, rows)
            shifts = np.tile(shift, (len(rows), 1))
            y[d, rows] = simulate(system, shifts, mean, cov, diffuse, shocks[d, rows])
            work.put(d, rows, mean, cov, diffuse)
    return y, work.close(state.age + shocks.shape[-1])


def paths_from_one_state(
    model: ARMAModel, params: Params, state: ARMAState, shocks: np.ndarray
) -> tuple[np.ndarray, ARMAState]:
    """As `simulate_paths`, for sequences of one state.

    The gains of the filter do not depend on the data, so that a path is linear in its innovations, and so is its last
    state: one path without noise and one for each unit innovation make all others.
    """
    n_draws, n, length = shocks.shape
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
        np.matmul(shocks[d], paths[1:], out=y[d])
        np.matmul(shocks[d], means[1:], out=last[d])
        y[d] += paths[0]
        last[d] += means[0]
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
