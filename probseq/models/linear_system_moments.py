"""What expectation maximisation of a linear dynamical system needs to know of the states: weighted sums of moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probseq.kernels.linear_gaussian import System
from probseq.kernels.linear_gaussian_moments import smooth_moments
from probseq.models.linear_gaussian_likelihood import patterns_of

__all__ = ["Values", "ExpectedSums", "expected_sums"]


@dataclass(frozen=True, eq=False)
class Values:
    """The data as arrays.

    x : (n, t, k), less a constant for each variable that makes sums of squares exact. seen : (n, t, k) bool. lengths :
    (n,). u : (n, t, m), m = 0 without covariates. weights : (n,), of the sequences. drives, joins : whether covariates
    enter the states, the values.
    """

    x: np.ndarray
    seen: np.ndarray
    lengths: np.ndarray
    u: np.ndarray
    weights: np.ndarray
    drives: bool
    joins: bool


@dataclass(eq=False)
class ExpectedSums:
    """Sums over steps and sequences of expectations given the data; a = (s_(t-1), u_t), z = (s_t, 1, u_t).

    next_next (r, r), next_past (r, q), past_past (q, q), n_moves : of s_t s_t', s_t a', a a' over transitions.
    first (r,), first_first (r, r), n_first : of the first states. zz (k, q, q) or (1, q, q), xz (k, q), xx (k,) or
    (k, k), n_seen (k,) : of the values and what they are regressed on. log_prob : of the data.
    """

    next_next: np.ndarray
    next_past: np.ndarray
    past_past: np.ndarray
    n_moves: float
    first: np.ndarray
    first_first: np.ndarray
    n_first: float
    zz: np.ndarray
    xz: np.ndarray
    xx: np.ndarray
    n_seen: np.ndarray
    log_prob: float


def expected_sums(
    system: System,
    full: bool,
    coefficients: np.ndarray,
    added: np.ndarray,
    mean: np.ndarray,
    cov: np.ndarray,
    values: Values,
) -> ExpectedSums:
    """The E-step at one set of parameters.

    Parameters
    ----------
    system : System
    full : bool
        Whether the noise of the variables is correlated: what is missing is then a latent variable beside the states.
        Otherwise it is left out, and each variable has sums of its own.
    coefficients : (m, k), what covariates add to the values; zeros where they do not join
    added : (n, t, r), what covariates add to the states
    mean : (r,); cov : (r, r), of the first state
    values : Values
    """
    k, r = system.z.shape
    m = values.u.shape[-1]
    driven, joined = m * values.drives, m * values.joins
    q, p = r + 1 + joined, r + driven
    sums = ExpectedSums(
        np.zeros((r, r)), np.zeros((r, p)), np.zeros((p, p)), 0.0, np.zeros(r), np.zeros((r, r)), 0.0,
        np.zeros((1 if full else k, q, q)), np.zeros((k, q)), np.zeros((k, k) if full else k), np.zeros(k), 0.0,
    )  # fmt: skip
    groups: dict[bytes, list[int]] = {}
    for i, pattern in enumerate(patterns_of(values.seen, values.lengths)):
        if values.lengths[i] and values.weights[i] > 0:
            groups.setdefault(pattern + bytes(str(values.lengths[i]), "ascii"), []).append(i)
    for group in groups.values():
        rows = np.array(group)
        t, w = int(values.lengths[rows[0]]), values.weights[rows]
        x, u = values.x[rows, :t], values.u[rows, :t]
        seen = np.ascontiguousarray(values.seen[rows[0], :t])
        y = np.where(seen, x - u @ coefficients - added[rows, :t] @ system.z.T, 0.0)
        got = smooth_moments(system, y, seen, np.tile(mean, (len(rows), 1)), cov.copy())
        sums.log_prob += float(w @ got.values.sum(-1))
        states = got.mean + added[rows, :t]
        total = float(w.sum())
        sums.first += w @ states[:, 0]
        sums.first_first += (w[:, None] * states[:, 0]).T @ states[:, 0] + total * got.cov[0]
        sums.n_first += total
        if t > 1:
            after = states[:, 1:].reshape(-1, r)
            past = np.concatenate([states[:, :-1], u[:, 1:, :driven]], -1).reshape(-1, p)
            heavy = np.repeat(w, t - 1)[:, None]
            sums.next_next += (heavy * after).T @ after + total * got.cov[1:].sum(0)
            sums.next_past += (heavy * after).T @ past
            sums.next_past[:, :r] += total * got.across.sum(0).T
            sums.past_past += (heavy * past).T @ past
            sums.past_past[:r, :r] += total * got.cov[:-1].sum(0)
            sums.n_moves += total * (t - 1)
        z = np.concatenate([states, np.ones((*states.shape[:2], 1)), u[..., :joined]], -1)
        (_add_jointly if full else _add_each)(sums, system, coefficients, x, seen, z, got.cov, w)
    return sums


def _squares(z: np.ndarray, cov: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weighted sums over the series of E[z_t z_t'], (t, q, q), for z (c, t, q) whose first part has covariance cov."""
    r = cov.shape[-1]
    found = (w[:, None, None] * z).transpose(1, 2, 0) @ z.transpose(1, 0, 2)
    found[:, :r, :r] += w.sum() * cov
    result: np.ndarray = found
    return result


def _add_each(
    sums: ExpectedSums, system: System, coefficients: np.ndarray, x: np.ndarray, seen: np.ndarray, z: np.ndarray,
    cov: np.ndarray, w: np.ndarray,
) -> None:  # fmt: skip
    kept = np.where(seen, x, 0.0) * w[:, None, None]
    squares = _squares(z, cov, w)
    sums.zz += squares.sum(0) if seen.all() else np.tensordot(seen.astype(float), squares, (0, 0))
    sums.xz += np.tensordot(kept, z, ((0, 1), (0, 1)))
    sums.xx += (kept * x).sum((0, 1))
    sums.n_seen += w.sum() * seen.sum(0)


def _add_jointly(
    sums: ExpectedSums, system: System, coefficients: np.ndarray, x: np.ndarray, seen: np.ndarray, z: np.ndarray,
    cov: np.ndarray, w: np.ndarray,
) -> None:  # fmt: skip
    r = cov.shape[-1]
    total = w.sum()
    weights = np.concatenate([system.z, system.d[:, None], coefficients.T[:, : z.shape[-1] - r - 1]], 1)
    patterns, which = np.unique(seen, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        at = np.flatnonzero(which.ravel() == number)
        known, open_ = np.flatnonzero(pattern), np.flatnonzero(~pattern)
        if not known.size:
            continue
        there = cov[at].sum(0)
        here, part = np.where(pattern, x[:, at], 0.0), z[:, at]
        if open_.size:
            # E[x_open | x_known, s] is linear in s with slope K.
            turn = np.linalg.solve(system.h[np.ix_(known, known)], system.h[np.ix_(known, open_)]).T
            off = here[..., known] - part @ weights[known].T
            here[..., open_] = part @ weights[open_].T + off @ turn.T
            slope = system.z[open_] - turn @ system.z[known]
            rest = system.h[np.ix_(open_, open_)] - turn @ system.h[np.ix_(known, open_)]
            sums.xx[np.ix_(open_, open_)] += total * (slope @ there @ slope.T + at.size * rest)
            sums.xz[open_, :r] += total * slope @ there
        flat, regressors = here.reshape(-1, here.shape[-1]), part.reshape(-1, part.shape[-1])
        heavy = np.repeat(w, at.size)[:, None]
        sums.xx += (heavy * flat).T @ flat
        sums.xz += (heavy * flat).T @ regressors
        sums.zz[0] += (heavy * regressors).T @ regressors
        sums.zz[0, :r, :r] += total * there
        sums.n_seen += total * at.size
