"""The law of the next steps of a linear-Gaussian state space, and paths of it."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.linear_gaussian import (
    factorise,
    make_factor,
    move_cov,
    move_matrix,
    move_mean,
    nothing_left,
    same,
    shrink,
)
from probseq.kernels.linear_gaussian_diffuse import augment, condition_on, drop_resolved, proper_coordinates


@kernel
def forecast_means(system, mean, horizon):
    """E[x_(t+h) | past], (c, horizon, k), from the means (c, r) of the next state."""
    k, r = system.z.shape
    n_series = mean.shape[0]
    result = np.empty((n_series, horizon, k))
    current, old = np.empty(r), np.empty(r)
    for s in range(n_series):
        current[:] = mean[s]
        for t in range(horizon):
            for i in range(k):
                total = system.d[i]
                for j in range(r):
                    total += system.z[i, j] * current[j]
                result[s, t, i] = total
            move_mean(system, current, old)
    return result


@kernel
def forecast_covs(system, cov, horizon):
    """Var[x_(t+h) | past], (horizon, k, k), from the covariance (r, r) of the next state."""
    z, h = system.z, system.h
    k = z.shape[0]
    result = np.empty((horizon, k, k))
    cov, half = cov.copy(), np.empty_like(cov)
    for t in range(horizon):
        result[t] = z @ cov @ z.T + h
        move_cov(system, cov, half)
    return result


@kernel
def forecast_joint(system, cov, horizon):
    """The covariance (horizon * k, horizon * k) of the next ``horizon`` values, step after step."""
    z, h = system.z, system.h
    k, r = z.shape
    result = np.empty((horizon * k, horizon * k))
    cov, half = cov.copy(), np.empty_like(cov)
    column, old = np.empty(r), np.empty(r)
    for t in range(horizon):
        for b in range(k):
            for i in range(r):
                column[i] = 0.0
                for j in range(r):
                    column[i] += cov[i, j] * z[b, j]
            for later in range(t, horizon):
                for a in range(k):
                    total = h[a, b] if later == t else 0.0
                    for j in range(r):
                        total += z[a, j] * column[j]
                    result[later * k + a, t * k + b] = total
                    result[t * k + b, later * k + a] = total
                old[:] = column
                for i in range(r):
                    column[i] = 0.0
                    for m in range(system.pointers[i], system.pointers[i + 1]):
                        column[i] += system.t[i, system.columns[m]] * old[system.columns[m]]
        move_cov(system, cov, half)
    return result


@kernel
def simulate(system, noise, mean, cov, diffuse):
    """Draw x (c, n, k) one step at a time given the state, which becomes that after the last draw.

    noise : (c, n, k) standard normals. While the predictive is diffuse the draw uses its finite part, and the path
    goes on from there.
    """
    n_series, n, k = noise.shape
    r = cov.shape[0]
    x = np.empty((n_series, n, k))
    factor = make_factor(r, k)
    every = np.ones(k, dtype=np.bool_)
    before, half, old = np.empty((r, r)), np.empty((r, r)), np.empty(r)
    steady = False
    for t in range(n):
        if not nothing_left(diffuse):
            _simulate_diffuse(system, noise[:, t], mean, cov, diffuse, x[:, t])
            move_cov(system, cov, half)
            move_matrix(system, diffuse, half)
            for s in range(n_series):
                move_mean(system, mean[s], old)
            continue
        if not steady:
            before[:] = cov
            factorise(system, cov, every, factor)
            shrink(factor, cov)
            move_cov(system, cov, half)
            steady = same(before, cov)
            if steady:
                cov[:] = before
        for s in range(n_series):
            for i in range(k):
                total = system.d[i]
                for j in range(r):
                    total += system.z[i, j] * mean[s, j]
                for b in range(i + 1):
                    root = math.sqrt(factor.f[b]) * noise[s, t, b]
                    total += root * (factor.lower[i, b] if b < i else 1.0)
                x[s, t, i] = total
            for a in range(k):
                if factor.f[a] > 0.0:
                    gain = noise[s, t, a] / math.sqrt(factor.f[a])
                    for i in range(r):
                        mean[s, i] += factor.w[i, a] * gain
            move_mean(system, mean[s], old)
    return x


@kernel
def _simulate_diffuse(system, noise, mean, cov, diffuse, x):
    k, r = system.z.shape
    proper = np.empty(k, dtype=np.bool_)
    proper_coordinates(system.z, diffuse, proper)
    b, a_cov, b_cov = augment(system.z, system.d, system.h, mean, cov, diffuse)
    start = np.diag(b_cov).copy()
    for first in (True, False):
        for i in range(k):
            if proper[i] == first:
                x[:, i] = b[:, r + i] + math.sqrt(max(0.0, a_cov[r + i, r + i])) * noise[:, i]
                infinite = not first and b_cov[r + i, r + i] > 0.0
                condition_on(r + i, infinite, x[:, i], b, a_cov, b_cov)
                if infinite:
                    drop_resolved(r, start, b_cov)
    mean[:] = b[:, :r]
    cov[:] = a_cov[:r, :r]
    diffuse[:] = b_cov[:r, :r]
