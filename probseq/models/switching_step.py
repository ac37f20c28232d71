"""Variational expectation maximisation of a switching system: states and regimes taken for independent given the data.

q(s) q(z) maximises E[log p(x, s, z)] + entropy, a lower bound of log p(x), one factor after the other: q(s) is normal
with a block-tridiagonal precision that averages over the regimes, q(z) a Markov chain in the field of the states'
expected log densities (Ghahramani and Hinton 2000, Variational learning for switching state-space models, Neural
Computation 12, 831-864, with one state that switches its dynamics). All parameters then follow in closed form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from probseq.kernels.switching import FieldChain, NormalChain, field_chain, normal_chain
from probseq.models.linear_system_step import staircase

__all__ = ["SwitchingCoefficients", "given_regimes", "improve"]

_LEAST_SHOCK, _LEAST_NOISE = 1e-8, 1e-12


class SwitchingCoefficients(NamedTuple):
    """initial (K,), switching (K, K), transition (K, r, r), drift (K, r), shock (K, r, r), start (r,).

    Of the values, K = 1 where all regimes share them: loading (K, k, r), offset (K, k), noise (K, k), variances.
    """

    initial: np.ndarray
    switching: np.ndarray
    transition: np.ndarray
    drift: np.ndarray
    shock: np.ndarray
    start: np.ndarray
    loading: np.ndarray
    offset: np.ndarray
    noise: np.ndarray


class _Sums:
    """Weighted expectations over all sequences, for every regime; a = (s_(t-1), 1), c = (s_t, 1)."""

    def __init__(self, n_regimes: int, r: int, k: int, own: bool) -> None:
        each = n_regimes if own else 1
        self.first, self.moves = np.zeros(n_regimes), np.zeros((n_regimes, n_regimes))
        self.after = np.zeros((n_regimes, r, r))
        self.cross, self.past = np.zeros((n_regimes, r, r + 1)), np.zeros((n_regimes, r + 1, r + 1))
        self.steps = np.zeros(n_regimes)
        self.start, self.start_square, self.n = np.zeros(r), np.zeros((r, r)), 0.0
        self.cc, self.xc = np.zeros((each, k, r + 1, r + 1)), np.zeros((each, k, r + 1))
        self.xx, self.seen = np.zeros((each, k)), np.zeros((each, k))


def improve(
    old: SwitchingCoefficients,
    belief: list[np.ndarray],
    x: list[np.ndarray],
    seen: list[np.ndarray],
    weights: np.ndarray,
    floor: np.ndarray,
) -> tuple[float, SwitchingCoefficients, list[np.ndarray]]:
    """The bound at ``old`` once q(s) and then q(z) are best given the rest, the best coefficients for these, and q(z).

    Parameters
    ----------
    old : SwitchingCoefficients
    belief : q(z_t = j) of every sequence, (t, K)
    x, seen : values (t, k), zero where they are missing, and which are not, of every sequence
    weights : of the sequences
    floor : (k,), the least variances of the noise
    """
    own = len(old.loading) > 1
    # The best coefficients do not depend on the unit of the weights, but how many steps a regression has would.
    unit = float(weights.mean())
    sums = _Sums(len(old.initial), old.start.size, old.offset.shape[1], own)
    bound, beliefs = 0.0, []
    for each, one, flags, weight in zip(belief, x, seen, weights, strict=True):
        if not len(one):
            beliefs.append(each)
            continue
        value, probs = _expect(old, each, one, flags, float(weight) / unit, own, sums)
        bound += float(weight) * value
        beliefs.append(probs)
    return bound, _maximise(old, sums, own, floor), beliefs


def given_regimes(old: SwitchingCoefficients, probs: np.ndarray, x: np.ndarray, seen: np.ndarray) -> NormalChain:
    """The normal law of the states (t, r) of one sequence, the regimes averaged in its log density.

    Exact where the regimes are known, which is where ``probs`` (t, K) are zeros and ones; x, seen : (t, k).
    """
    n = len(x)
    sure, turned, back, pushed, pulled = _products(old)
    own = len(old.loading) > 1
    share = probs if own else np.ones((n, 1))
    scaled = seen[:, None, :] / old.noise
    # Precision and linear term of the states, averaged over the regimes.
    values = np.einsum("tj,tji,jia,jib->tab", share, scaled, old.loading, old.loading, optimize=True)
    linear = np.einsum("tj,tji,jia,tji->ta", share, scaled, old.loading, x[:, None, :] - old.offset, optimize=True)
    diagonal = values
    diagonal[0] += sure[0]
    linear[0] += sure[0] @ old.start
    diagonal[1:] += np.tensordot(probs[1:], sure, 1)
    diagonal[:-1] += np.tensordot(probs[1:], back, 1)
    linear[1:] += probs[1:] @ pushed
    linear[:-1] -= probs[1:] @ pulled
    upper = -np.tensordot(probs[1:], turned.transpose(0, 2, 1), 1)
    return normal_chain(diagonal, upper, linear)


def _products(old: SwitchingCoefficients) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Q^(-1), Q^(-1) A, A' Q^(-1) A, Q^(-1) b and A' Q^(-1) b of every regime."""
    sure = np.linalg.inv(old.shock)
    turned = sure @ old.transition
    back = old.transition.transpose(0, 2, 1) @ turned
    pushed = (sure @ old.drift[..., None])[..., 0]
    pulled = (turned.transpose(0, 2, 1) @ old.drift[..., None])[..., 0]
    return sure, turned, back, pushed, pulled


def _expect(
    old: SwitchingCoefficients,
    probs: np.ndarray,
    x: np.ndarray,
    seen: np.ndarray,
    weight: float,
    own: bool,
    sums: _Sums,
) -> tuple[float, np.ndarray]:
    n, r = len(x), old.start.size
    sure, turned, back, pushed, pulled = _products(old)
    scaled = seen[:, None, :] / old.noise
    found = given_regimes(old, probs, x, seen)
    mean, cov = found.mean, found.cov
    second = cov + mean[:, :, None] * mean[:, None, :]
    # E[log N(s_t; A s_(t-1) + b, Q)] and E[log N(x_t; C s_t + d, R)], of every regime.
    field = np.zeros((n, len(old.initial)))
    cross = found.across.transpose(0, 2, 1) + mean[1:, :, None] * mean[:-1, None, :]
    log_dets = np.linalg.slogdet(old.shock)[1]
    field[1:] = -0.5 * (
        np.tensordot(second[1:], sure, ((1, 2), (1, 2)))
        - 2.0 * np.tensordot(cross, turned, ((1, 2), (1, 2)))
        + np.tensordot(second[:-1], back, ((1, 2), (1, 2)))
        - 2.0 * mean[1:] @ pushed.T
        + 2.0 * mean[:-1] @ pulled.T
        + np.sum(old.drift * pushed, -1)
        + log_dets
        + r * math.log(2.0 * math.pi)
    )
    off = x[:, None, :] - old.offset - np.einsum("jia,ta->tji", old.loading, mean)
    spread = np.einsum("jia,tab,jib->tji", old.loading, cov, old.loading, optimize=True)
    each = (scaled * (off**2 + spread)).sum(-1) + (seen @ np.log(2.0 * math.pi * old.noise).T)
    field -= 0.5 * each
    with np.errstate(divide="ignore"):
        chain = field_chain(np.log(old.initial), np.log(old.switching), field)
    away = mean[0] - old.start
    start = np.trace(sure[0] @ (cov[0] + np.outer(away, away))) + log_dets[0]
    bound = chain.log_norm - 0.5 * (start + found.log_det) + 0.5 * n * r - 0.5 * r * math.log(2.0 * math.pi)
    bound += 0.5 * n * r * math.log(2.0 * math.pi)
    _collect(sums, chain, mean, second, cross, x, seen, weight, own)
    return float(bound), chain.probs


def _collect(
    sums: _Sums,
    chain: FieldChain,
    mean: np.ndarray,
    second: np.ndarray,
    cross: np.ndarray,
    x: np.ndarray,
    seen: np.ndarray,
    weight: float,
    own: bool,
) -> None:
    probs, pairs, _ = chain
    r = mean.shape[1]
    heavy = weight * probs[1:]
    sums.first += weight * probs[0]
    sums.moves += weight * pairs
    sums.steps += heavy.sum(0)
    sums.after += np.tensordot(heavy, second[1:], (0, 0))
    sums.cross[:, :, :r] += np.tensordot(heavy, cross, (0, 0))
    sums.cross[:, :, r] += heavy.T @ mean[1:]
    sums.past[:, :r, :r] += np.tensordot(heavy, second[:-1], (0, 0))
    sums.past[:, :r, r] += heavy.T @ mean[:-1]
    sums.past[:, r, :r] = sums.past[:, :r, r]
    sums.past[:, r, r] += heavy.sum(0)
    sums.start += weight * mean[0]
    sums.start_square += weight * second[0]
    sums.n += weight
    share = weight * (probs if own else np.ones((len(x), 1)))
    at = share[:, :, None] * seen[:, None, :]
    sums.cc[..., :r, :r] += np.tensordot(at, second, (0, 0))
    sums.cc[..., :r, r] += np.tensordot(at, mean, (0, 0))
    sums.cc[..., r, :r] = sums.cc[..., :r, r]
    sums.cc[..., r, r] += at.sum(0)
    kept = at * x[:, None, :]
    sums.xc[..., :r] += np.tensordot(kept, mean, (0, 0))
    sums.xc[..., r] += kept.sum(0)
    sums.xx += (kept * x[:, None, :]).sum(0)
    sums.seen += at.sum(0)


def _maximise(old: SwitchingCoefficients, sums: _Sums, own: bool, floor: np.ndarray) -> SwitchingCoefficients:
    r, n_regimes = old.start.size, len(old.initial)
    initial = sums.first / sums.first.sum()
    rows = sums.moves.sum(1, keepdims=True)
    switching = np.where(rows > 1e-12, sums.moves / np.where(rows > 1e-12, rows, 1.0), old.switching)
    transition, drift, shock = old.transition.copy(), old.drift.copy(), old.shock.copy()
    start = sums.start / sums.n
    away = sums.start_square - sums.n * np.outer(start, start)
    for j in range(n_regimes):
        # Fewer steps than a regression needs leave a regime as it is.
        if sums.steps[j] < r + 2.0:
            continue
        found = _regress(sums.past[j], sums.cross[j])
        both = found @ sums.cross[j].T
        left = sums.after[j] - both - both.T + found @ sums.past[j] @ found.T
        total = sums.steps[j]
        if j == 0:
            left, total = left + away, total + sums.n
        transition[j], drift[j], shock[j] = found[:, :r], found[:, r], _inside(left / total)
    loading, offset, noise = old.loading.copy(), old.offset.copy(), old.noise.copy()
    for j in range(len(loading)):
        for i in range(len(floor)):
            if sums.seen[j, i] < r + 2.0:
                continue
            found = _regress(sums.cc[j, i], sums.xc[j, i][None])[0]
            left = sums.xx[j, i] - 2.0 * found @ sums.xc[j, i] + found @ sums.cc[j, i] @ found
            loading[j, i], offset[j, i] = found[:r], found[r]
            noise[j, i] = max(left / sums.seen[j, i], floor[i])
    new = SwitchingCoefficients(initial, switching, transition, drift, shock, start, loading, offset, noise)
    return _in_units(new)


def _regress(squares: np.ndarray, products: np.ndarray) -> np.ndarray:
    unit = np.sqrt(np.diag(squares))
    unit = np.where(unit > 0, unit, 1.0)
    found: np.ndarray = np.linalg.lstsq(squares / unit / unit[:, None], (products / unit).T, rcond=1e-14)[0].T / unit
    return found


def _inside(matrix: np.ndarray) -> np.ndarray:
    """Symmetric, with eigenvalues that are no less than a sliver of the largest."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    found: np.ndarray = (vectors * values.clip(_LEAST_SHOCK * max(values[-1], 1e-300))) @ vectors.T
    return 0.5 * (found + found.T)


def _in_units(found: SwitchingCoefficients) -> SwitchingCoefficients:
    """The same law with shocks of unit covariance in the first regime, and the coordinates of `staircase` there."""
    root = np.linalg.cholesky(found.shock[0])
    inverse = np.linalg.inv(root)
    shock = inverse @ found.shock @ inverse.T
    turn = staircase(inverse @ found.transition[0] @ root, found.loading[0] @ root)
    root, inverse = root @ turn.T, turn @ inverse
    shock = turn @ shock @ turn.T
    shock[0] = np.eye(len(root))
    return found._replace(
        transition=inverse @ found.transition @ root,
        drift=found.drift @ inverse.T,
        shock=0.5 * (shock + shock.transpose(0, 2, 1)),
        start=inverse @ found.start,
        loading=found.loading @ root,
    )
