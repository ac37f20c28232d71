"""What all values together say about the states of a linear-Gaussian model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.kernels.linear_gaussian import System
from probseq.kernels.linear_gaussian_smoother import smooth_series
from probseq.models.linear_gaussian_likelihood import patterns_of
from probseq.models.linear_gaussian_state import Workspace

__all__ = ["SmoothedStates", "smooth_groups"]


class SmoothedStates(NamedTuple):
    """Moments given all values of a sequence; zero on padding.

    mean (*draw, n, t, r), cov (*draw, n, t, r, r) : of the states. across (*draw, n, t, r, r) : Cov[s_t, s_(t+1)],
    zero at the last step. x (*draw, n, t, k), x_cov (*draw, n, t, k, k) : of the values, those that were seen and those
    that were not. signal (*draw, n, t, k), signal_cov : of Z s_t + d and what covariates add. noise (*draw, n, t, k),
    shock (*draw, n, t, r) : E[eps_t | x] and E[eta_t | x]; noise_z, shock_z : the same over their standard deviations,
    N(0, 1) under the model, 0 where nothing is known.
    """

    mean: Tensor
    cov: Tensor
    across: Tensor
    x: Tensor
    x_cov: Tensor
    signal: Tensor
    signal_cov: Tensor
    noise: Tensor
    noise_z: Tensor
    shock: Tensor
    shock_z: Tensor


def smooth_groups(
    found: list[System], work: Workspace, y: np.ndarray, seen: np.ndarray, lengths: np.ndarray
) -> SmoothedStates:
    """Smooth y (D, n, t, k) with seen (n, t, k); draws flattened, without what covariates add."""
    size, k, r = y.shape[:3], y.shape[3], work.mean.shape[-1]
    shapes = ((r,), (r, r), (r, r), (k,), (k, k), (k,), (k, k), (k,), (k,), (r,), (r,))
    whole = [np.zeros((*size, *shape)) for shape in shapes]
    for d, system in enumerate(found):
        for rows in work.groups(d, patterns_of(seen, lengths)):
            t = int(lengths[rows[0]])
            if t == 0:
                continue
            data = np.ascontiguousarray(y[d, rows, :t]), np.ascontiguousarray(seen[rows[0], :t])
            part = smooth_series(system, *data, *work.take(d, rows))
            part.across[-1] = 0.0
            signal = part.mean @ system.z.T + system.d
            signal_cov = system.z @ part.cov @ system.z.T
            leaves = (part.mean, part.cov, part.across, part.x, part.x_cov, signal, signal_cov)
            scores = [
                leaf
                for value, cov, size_of in (
                    (part.noise, part.noise_cov, system.h),
                    (part.shock, part.shock_cov, system.q),
                )
                for leaf in (value, _scores(value, cov, np.diag(size_of)))
            ]
            for target, leaf in zip(whole, (*leaves, *scores), strict=True):
                target[d, rows, :t] = leaf
    return SmoothedStates(*(torch.from_numpy(part) for part in whole))


def _scores(value: np.ndarray, cov: np.ndarray, size: np.ndarray) -> np.ndarray:
    variance = np.diagonal(cov, axis1=-2, axis2=-1)
    known = variance > 1e-12 * size
    return np.where(known, value / np.sqrt(np.where(known, variance, 1.0)), 0.0)
