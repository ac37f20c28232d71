"""Where fits of linear dynamical systems begin: regressions on states that the data themselves suggest, and chance."""

from __future__ import annotations

import numpy as np
import torch

from probseq.models.linear_system_moments import Values
from probseq.models.linear_system_step import Coefficients

__all__ = ["starting_coefficients"]

# The largest eigenvalue of a stationary start, and the least share of a variance that begins as noise.
_LARGEST, _LEAST_NOISE = 0.98, 0.05
_RIDGE = 1e-3


def starting_coefficients(
    values: Values, r: int, full: bool, start: str, n_starts: int, reasoned: bool, generator: torch.Generator
) -> list[Coefficients]:
    """``n_starts`` sets of coefficients; reasoned ones first, the others random.

    The first is that of a stochastic subspace, the states that tell most about the future values from those before
    (Van Overschee and De Moor 1996, Subspace Identification for Linear Systems, chapter 3, with the weights of
    canonical correlations); the second an autoregression of the leading principal components, as far as there are so
    many.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    rng = np.random.default_rng(seed)
    size = np.sqrt(np.square(values.x).sum((0, 1)) / values.seen.sum((0, 1)).clip(1))
    size = np.where(size > 0, size, 1.0)
    series = [_filled(values, i, size) for i in range(len(values.x)) if values.lengths[i]]
    joined = np.zeros((values.u.shape[-1], values.x.shape[-1]))
    if values.joins and series:
        every, u = np.concatenate([one for one, _ in series]), np.concatenate([inputs for _, inputs in series])
        joined = np.linalg.lstsq(u - u.mean(0), every - every.mean(0), rcond=1e-10)[0]
        series = [(one - (inputs - u.mean(0)) @ joined, inputs) for one, inputs in series]
    found: list[Coefficients] = []
    if reasoned:
        for states in (_subspace(series, r), _components(series, r)):
            if states is not None and len(found) < n_starts:
                found.append(_regressed(states, series, r, start, values.drives))
    while len(found) < n_starts:
        found.append(_random(r, values, rng))
    return [_scaled(one, size, full, joined) for one in found]


def _filled(values: Values, i: int, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sequence (t, k) in units of its variables with gaps closed by straight lines, and its covariates."""
    t = int(values.lengths[i])
    x, seen, steps = values.x[i, :t] / size, values.seen[i, :t], np.arange(t)
    columns = [
        np.interp(steps, steps[seen[:, j]], x[seen[:, j], j]) if seen[:, j].any() else np.zeros(t)
        for j in range(x.shape[1])
    ]
    return np.stack(columns, 1), values.u[i, :t]


Series = list[tuple[np.ndarray, np.ndarray]]


def _subspace(series: Series, r: int) -> list[np.ndarray] | None:
    """States (t, r) of every sequence, from its values before, zero where these are too few; None for short data."""
    k = series[0][0].shape[1] if series else 1
    lags = max(2, -(-r // k) + 1)
    past, future = [], []
    for x, _ in series:
        if len(x) >= 2 * lags:
            stacked = np.lib.stride_tricks.sliding_window_view(x, lags, 0).transpose(0, 2, 1)
            past.append(stacked[: len(x) - 2 * lags + 1, ::-1].reshape(-1, lags * k))
            future.append(stacked[lags : len(x) - lags + 1].reshape(-1, lags * k))
    n = sum(len(one) for one in past)
    if n < 2 * lags * k:
        return None
    p, f = np.concatenate(past), np.concatenate(future)
    ridge = _RIDGE * np.eye(lags * k)
    whiten_p = np.linalg.inv(np.linalg.cholesky(p.T @ p / n + ridge))
    whiten_f = np.linalg.inv(np.linalg.cholesky(f.T @ f / n + ridge))
    _, strength, way = np.linalg.svd(whiten_f @ (f.T @ p / n) @ whiten_p.T)
    reader = np.sqrt(strength[:r])[:, None] * way[:r] @ whiten_p
    states = []
    for x, _ in series:
        padded = np.concatenate([np.zeros((lags, k)), x])
        stacked = np.lib.stride_tricks.sliding_window_view(padded, lags, 0).transpose(0, 2, 1)[:-1]
        states.append(stacked[:, ::-1].reshape(len(x), lags * k) @ reader.T)
    return states


def _components(series: Series, r: int) -> list[np.ndarray] | None:
    """Leading principal components (t, r) of every sequence; None where there are not so many."""
    if not series or r > series[0][0].shape[1]:
        return None
    every = np.concatenate([x for x, _ in series])
    centre = every.mean(0)
    _, vectors = np.linalg.eigh(np.cov(every.T).reshape(every.shape[1], -1) if len(every) > 1 else np.eye(len(centre)))
    return [(x - centre) @ vectors[:, ::-1][:, :r] for x, _ in series]


def _regressed(states: list[np.ndarray], series: Series, r: int, start: str, drives: bool) -> Coefficients:
    """Coefficients of values and next states on states that are taken for known."""
    x = np.concatenate([one for one, _ in series])
    s = np.concatenate(states)
    z = np.concatenate([s, np.ones((len(s), 1))], 1)
    to_x = np.linalg.lstsq(z.T @ z + 1e-6 * np.eye(r + 1), z.T @ x, rcond=None)[0].T
    noise = np.square(x - z @ to_x.T).mean(0).clip(_LEAST_NOISE)
    after = np.concatenate([one[1:] for one in states])
    u = np.concatenate([inputs[1:] for _, inputs in series])
    past = np.concatenate([np.concatenate([one[:-1] for one in states]), u if drives else u[:, :0]], 1)
    turn = np.linalg.lstsq(past.T @ past + 1e-6 * np.eye(past.shape[1]), past.T @ after, rcond=None)[0].T
    left = after - past @ turn.T
    spread = left.T @ left / max(1, len(left)) + 1e-4 * np.eye(r)
    root = np.linalg.cholesky(spread)
    inverse = np.linalg.inv(root)
    transition = inverse @ turn[:, :r] @ root
    if start == "stationary":
        transition = transition * min(1.0, _LARGEST / max(1e-9, np.abs(np.linalg.eigvals(transition)).max()))
    first = inverse @ np.stack([one[0] for one in states]).mean(0)
    k, m = x.shape[1], u.shape[1]
    return Coefficients(
        transition, inverse @ turn[:, r:], to_x[:, :r] @ root, to_x[:, r], np.zeros((m, k)), noise, first, np.eye(r)
    )


def _random(r: int, values: Values, rng: np.random.Generator) -> Coefficients:
    """Stable systems of any rhythm, in which states and noise share the variance by chance."""
    k, m = values.x.shape[-1], values.u.shape[-1]
    turn = np.linalg.qr(rng.normal(size=(r, r)))[0] * rng.uniform(0.3, _LARGEST)
    share = np.asarray(rng.uniform(0.2, 0.8, k))
    # An orthogonal matrix times c has stationary variances 1 / (1 - c^2).
    variance = 1.0 / (1.0 - float(np.square(turn[0]).sum()))
    loading = rng.normal(size=(k, r)) * np.sqrt((1.0 - share) / (r * variance))[:, None]
    zero = np.zeros((r, m if values.drives else 0))
    return Coefficients(turn, zero, loading, np.zeros(k), np.zeros((m, k)), share, np.zeros(r), np.eye(r))


def _scaled(found: Coefficients, size: np.ndarray, full: bool, joined: np.ndarray) -> Coefficients:
    """In the units of the values."""
    noise = found.noise * size**2
    return found._replace(
        loading=found.loading * size[:, None],
        offset=found.offset * size,
        coefficients=joined * size,
        noise=np.diag(noise) if full else noise,
    )
