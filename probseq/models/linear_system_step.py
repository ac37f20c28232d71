"""The M-step of a linear dynamical system, and the coordinates of its states."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels.stationary_covariance import sum_of_powers
from probseq.models.linear_system_moments import ExpectedSums

__all__ = ["Coefficients", "maximise", "rotated", "staircase"]

# Gradient steps of one M-step with a stationary start, and the parts of one that are tried.
_STEPS, _SHORTER = 3, (1.0, 0.5, 0.25, 0.05, 0.005)
_BARRIER = 1e100


class Coefficients(NamedTuple):
    """transition (r, r), drive (r, m), loading (k, r), offset (k,), coefficients (m, k), noise : variances (k,) or
    (k, k), first_mean (r,), first_cov (r, r) : of the first state, where its law is no consequence of the others.
    """

    transition: np.ndarray
    drive: np.ndarray
    loading: np.ndarray
    offset: np.ndarray
    coefficients: np.ndarray
    noise: np.ndarray
    first_mean: np.ndarray
    first_cov: np.ndarray


def maximise(sums: ExpectedSums, old: Coefficients, start: str, floor: np.ndarray) -> Coefficients:
    """The M-step with an expanded model: the covariance Q of the shocks is free, then made one by other coordinates.

    Freeing Q and turning it back leaves the likelihood as it is and makes the steps longer (Liu, Rubin and Wu 1998,
    Parameter expansion to accelerate EM, Biometrika 85, 755-770). Regressions give everything in closed form, but for
    a stationary start, of which the transition is a part: there its expected log-likelihood is raised numerically.

    Parameters
    ----------
    sums : ExpectedSums
    old : Coefficients
        Those of the E-step.
    start : "stationary", "mean" or "free"
    floor : (k,)
        The least variances of the noise.
    """
    loading, offset, coefficients, noise = _observation(sums, old, floor)
    transition, drive, spread, mean, cov = _transition(sums, old, start)
    root = np.linalg.cholesky(spread)
    inverse = np.linalg.inv(root)
    return Coefficients(
        inverse @ transition @ root,
        inverse @ drive,
        loading @ root,
        offset,
        coefficients,
        noise,
        inverse @ mean,
        inverse @ cov @ inverse.T,
    )


def _observation(
    sums: ExpectedSums, old: Coefficients, floor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r = len(old.transition)
    full = old.noise.ndim == 2
    loading, offset, coefficients = old.loading.copy(), old.offset.copy(), old.coefficients.copy()
    joined = sums.xz.shape[-1] - r - 1
    if full:
        found = _regress(sums.zz[0], sums.xz)
        cross = found @ sums.xz.T
        noise = (sums.xx - cross - cross.T + found @ sums.zz[0] @ found.T) / sums.n_seen[0]
        noise = 0.5 * (noise + noise.T)
        short = np.sqrt(np.maximum(np.diag(noise), floor) / np.diag(noise).clip(1e-300))
        noise = noise * short * short[:, None]
    else:
        found, noise = np.concatenate([loading, offset[:, None], coefficients.T[:, :joined]], 1), old.noise.copy()
        for i in np.flatnonzero(sums.n_seen > 0):
            found[i] = _regress(sums.zz[i], sums.xz[i])
            left = sums.xx[i] - 2.0 * found[i] @ sums.xz[i] + found[i] @ sums.zz[i] @ found[i]
            noise[i] = max(left / sums.n_seen[i], floor[i])
    loading, offset = found[:, :r], found[:, r]
    if joined:
        coefficients = found[:, r + 1 :].T
    return loading, offset, coefficients, noise


def _transition(
    sums: ExpectedSums, old: Coefficients, start: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Transition, drive, covariance of the shocks, mean and covariance of the first state."""
    r = len(old.transition)
    one = np.eye(r)
    mean, cov = np.zeros(r), one
    if start != "stationary":
        mean = sums.first / sums.n_first
        cov = sums.first_first / sums.n_first - np.outer(mean, mean)
    if sums.n_moves == 0:
        return old.transition, old.drive, one, mean, 0.5 * (cov + cov.T)
    if start == "stationary":
        transition, spread = _stationary(sums, old.transition)
        drive = _regress(sums.past_past[r:, r:], sums.next_past[:, r:] - transition @ sums.past_past[:r, r:])
        return transition, drive, spread, mean, one
    found = _regress(sums.past_past, sums.next_past)
    left = _left(sums.next_next, sums.next_past, sums.past_past, found)
    if start == "mean":
        spread = (left + sums.n_first * cov) / (sums.n_moves + sums.n_first)
        cov = spread
    else:
        spread = left / sums.n_moves
    spread = 0.5 * (spread + spread.T)
    return found[:, :r], found[:, r:], spread, mean, 0.5 * (cov + cov.T)


def _regress(squares: np.ndarray, products: np.ndarray) -> np.ndarray:
    """products squares^(-1), the shortest solution where covariates do not tell their coefficients apart."""
    unit = np.sqrt(np.diag(squares))
    unit = np.where(unit > 0, unit, 1.0)
    scaled = squares / unit / unit[:, None]
    found: np.ndarray = np.linalg.lstsq(scaled, (products / unit).T, rcond=1e-14)[0].T / unit
    return found


def _left(next_next: np.ndarray, next_past: np.ndarray, past_past: np.ndarray, turn: np.ndarray) -> np.ndarray:
    cross = turn @ next_past.T
    left: np.ndarray = next_next - cross - cross.T + turn @ past_past @ turn.T
    return 0.5 * (left + left.T)


# a stationary start --------------------------------------------------------------------------------------------------


def _stationary(sums: ExpectedSums, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transition A and covariance Q with a higher expected log-likelihood of the states than (old, I), or the same."""
    r = len(old)
    ss, su, uu = sums.past_past[:r, :r], sums.past_past[:r, r:], sums.past_past[r:, r:]
    by_inputs = _regress(uu, sums.next_past[:, r:]), _regress(uu, su)
    after = sums.next_next - by_inputs[0] @ sums.next_past[:, r:].T
    cross = sums.next_past[:, :r] - by_inputs[0] @ su.T
    past = ss - by_inputs[1] @ su.T
    first, n_first, n_moves = sums.first_first, sums.n_first, sums.n_moves

    def value(turn: np.ndarray, spread: np.ndarray) -> float:
        if np.abs(np.linalg.eigvals(turn)).max() >= 1.0:
            return -np.inf
        p = sum_of_powers(turn, spread)
        start = n_first * np.linalg.slogdet(p)[1] + np.trace(np.linalg.solve(p, first))
        moves = n_moves * np.linalg.slogdet(spread)[1]
        return -0.5 * float(start + moves + np.trace(np.linalg.solve(spread, _left(after, cross, past, turn))))

    turn = _regress(past, cross)
    spread = _left(after, cross, past, turn) / n_moves
    if not value(turn, spread) >= value(old, np.eye(r)):
        turn, spread = old, np.eye(r)
    root = np.linalg.cholesky(spread)
    inverse = np.linalg.inv(root)
    past, cross, first = (inverse @ part @ inverse.T for part in (past, cross, first))
    # In these coordinates the transitions alone have a Hessian of one.
    scale = np.linalg.cholesky(past + 1e-12 * np.trace(past) * np.eye(r))
    begin = inverse @ turn @ root

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        a = begin + np.linalg.solve(scale.T, x.reshape(r, r).T).T
        if not np.isfinite(a).all() or np.abs(np.linalg.eigvals(a)).max() >= 1.0:
            return _BARRIER, np.zeros(x.size)
        p = sum_of_powers(a, np.eye(r))
        inside = np.linalg.inv(p)
        start = n_first * np.linalg.slogdet(p)[1] + np.trace(inside @ first)
        bend = sum_of_powers(np.ascontiguousarray(a.T), n_first * inside - inside @ first @ inside)
        moves = np.sum(a * (a @ past - 2.0 * cross))
        slope = bend @ a @ p + a @ past - cross
        return 0.5 * float(start + moves), np.linalg.solve(scale, slope.T).T.ravel()

    # The start adds little to that Hessian, so that plain gradient steps are nearly Newton's; a shorter one where not.
    x = np.zeros(r * r)
    least, slope = objective(x)
    for _ in range(_STEPS):
        if np.abs(slope).max() < 1e-10 * n_moves:
            break
        for part in _SHORTER:
            lower, next_slope = objective(x - part * slope)
            if lower < least:
                break
        else:
            break
        x, least, slope = x - part * slope, lower, next_slope
    polished = begin + np.linalg.solve(scale.T, x.reshape(r, r).T).T
    return root @ polished @ inverse, spread


# coordinates of the states -------------------------------------------------------------------------------------------


def rotated(found: Coefficients, turn: np.ndarray) -> Coefficients:
    """The same law for the states U s, with U orthogonal."""
    return found._replace(
        transition=turn @ found.transition @ turn.T,
        drive=turn @ found.drive,
        loading=found.loading @ turn.T,
        first_mean=turn @ found.first_mean,
        first_cov=turn @ found.first_cov @ turn.T,
    )


def staircase(transition: np.ndarray, loading: np.ndarray) -> np.ndarray:
    """The orthogonal U that gives the rows of (C U'; U A U') zeros right of a diagonal that is not negative."""
    (k, r), c, a = loading.shape, loading.copy(), transition.copy()
    whole = np.eye(r)
    for i in range(r):
        row = c[i] if i < k else a[i - k]
        length = np.linalg.norm(row[i:])
        # No direction to speak of: any will do.
        if length <= 1e-12 * np.linalg.norm(row):
            continue
        mirror = np.eye(r)
        way = row[i:].copy()
        way[0] += np.copysign(length, way[0])
        mirror[i:, i:] -= 2.0 * np.outer(way, way) / (way @ way)
        if (mirror[i:, i:] @ row[i:])[0] < 0:
            mirror[i] *= -1.0
        c, a, whole = c @ mirror.T, mirror @ a @ mirror.T, mirror @ whole
    return whole
