"""Moments of normal states whose joint precision is block tridiagonal, and of a Markov chain in a changing field."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from probseq.kernels.compiler import kernel

NormalChain = namedtuple("NormalChain", ["mean", "cov", "across", "log_det"])
NormalChain.__doc__ = """mean (n, r), cov (n, r, r), across (n - 1, r, r) : Cov[s_t, s_(t+1)].

log_det : log |J|, of the precision.
"""

FieldChain = namedtuple("FieldChain", ["probs", "pairs", "log_norm"])
FieldChain.__doc__ = """probs (n, K), pairs (K, K) : expected moves, log_norm : log of the sum over all paths."""


@kernel
def normal_chain(diagonal, upper, linear):
    """Moments of p(s_1..s_n) ~ exp(-s' J s / 2 + h' s), by elimination forwards and substitution backwards.

    Parameters
    ----------
    diagonal : (n, r, r), J_tt; upper : (n - 1, r, r), J_(t,t+1); linear : (n, r)

    Returns
    -------
    NormalChain
    """
    n, r = linear.shape
    inverses = np.empty((n, r, r))
    shifts = np.empty((n, r))
    log_det = 0.0
    block = diagonal[0].copy()
    shift = linear[0].copy()
    for t in range(n):
        if t:
            turn = inverses[t - 1] @ upper[t - 1]
            block = diagonal[t] - upper[t - 1].T @ turn
            shift = linear[t] - turn.T @ shifts[t - 1]
        block = 0.5 * (block + block.T)
        factor = np.linalg.cholesky(block)
        for i in range(r):
            log_det += 2.0 * np.log(factor[i, i])
        inverses[t] = np.linalg.inv(block)
        shifts[t] = shift
    mean, cov = np.empty((n, r)), np.empty((n, r, r))
    across = np.empty((n - 1, r, r))
    mean[n - 1] = inverses[n - 1] @ shifts[n - 1]
    cov[n - 1] = inverses[n - 1]
    for t in range(n - 2, -1, -1):
        turn = inverses[t] @ upper[t]
        mean[t] = inverses[t] @ shifts[t] - turn @ mean[t + 1]
        across[t] = -turn @ cov[t + 1]
        spread = inverses[t] + turn @ cov[t + 1] @ turn.T
        cov[t] = 0.5 * (spread + spread.T)
    return NormalChain(mean, cov, across, log_det)


@kernel
def field_chain(log_initial, log_moves, field):
    """p(z_1..z_n) ~ p(z_1) prod p(z_t | z_(t-1)) exp(sum_t field_t(z_t)): its marginals, moves and normalisation.

    Parameters
    ----------
    log_initial : (K,); log_moves : (K, K); field : (n, K), nats

    Returns
    -------
    FieldChain
    """
    n, k = field.shape
    moves = np.exp(log_moves)
    alpha, scaled = np.empty((n, k)), np.empty((n, k))
    log_norm = 0.0
    for t in range(n):
        top = np.max(field[t])
        scaled[t] = np.exp(field[t] - top)
        if t == 0:
            alpha[t] = np.exp(log_initial) * scaled[t]
        else:
            alpha[t] = (moves.T @ alpha[t - 1]) * scaled[t]
        total = np.sum(alpha[t])
        alpha[t] /= total
        log_norm += np.log(total) + top
    probs, pairs = np.empty((n, k)), np.zeros((k, k))
    probs[n - 1] = alpha[n - 1]
    beta = np.ones(k)
    for t in range(n - 2, -1, -1):
        ahead = scaled[t + 1] * beta
        both = np.empty((k, k))
        for i in range(k):
            for j in range(k):
                both[i, j] = alpha[t, i] * moves[i, j] * ahead[j]
        pairs += both / np.sum(both)
        beta = moves @ ahead
        beta /= np.sum(beta)
        probs[t] = alpha[t] * beta
        probs[t] /= np.sum(probs[t])
    return FieldChain(probs, pairs, log_norm)
