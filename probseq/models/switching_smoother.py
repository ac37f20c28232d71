"""Regimes and states of switching systems given all the data, by simulating regimes backwards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probseq.distributions.gaussian import lower_factor
from probseq.models.switching import Regimes, SwitchingState

__all__ = ["backward_paths"]


def backward_paths(
    found: Regimes,
    log_moves: Tensor,
    filtered: list[SwitchingState],
    x: Tensor,
    seen: Tensor,
    n_paths: int,
    generator: torch.Generator,
) -> Tensor:
    r"""Paths of regimes z_1..z_T given x_1..x_T of one sequence, (n_paths, T) int64.

    From the last step back, a history of step t is chosen with its weight times p(z_(t+1) | z_t) and the density of all
    later values given its normal state and the regimes that the path has already drawn, whose logarithm is a quadratic
    form in s_t (Fong, Godsill, Doucet and West 2002, Monte Carlo smoothing with application to audio signal
    enhancement, IEEE Trans. Signal Processing 50, 438-449; Lindsten, Bunch, Sarkka, Schon and Godsill 2016). Exact
    where the filter kept all histories.

    Parameters
    ----------
    found : Regimes, without draw dimensions
    log_moves : (K, K)
    filtered : the beliefs after each of the T steps, leaves (particle, ...)
    x, seen : (T, k)
    """
    r = found.transition.shape[-1]
    one = torch.eye(r, dtype=x.dtype)
    precision = torch.zeros(n_paths, r, r, dtype=x.dtype)
    linear = torch.zeros(n_paths, r, dtype=x.dtype)
    after: Tensor | None = None
    paths: list[Tensor] = []
    sure = torch.linalg.inv(found.noise)
    for t in range(len(filtered) - 1, -1, -1):
        state = filtered[t]
        alive = int((state.log_weights > -torch.inf).sum())
        weights, regime = state.log_weights[:alive].expand(n_paths, alive), state.regime[:alive]
        if after is not None:
            precision, linear = _pulled(found, after, precision, linear, x[t + 1], seen[t + 1], sure, one)
            root = lower_factor(state.cov[:alive] + 1e-300 * one)
            mean = state.mean[:alive]
            weights = weights + log_moves[regime][:, after].T + _evidence(mean, root, precision, linear, one)
        chosen = torch.multinomial(torch.softmax(weights, -1), 1, generator=generator).squeeze(-1)
        after = regime[chosen]
        paths.append(after)
    return torch.stack(paths[::-1], -1)


def _pulled(
    found: Regimes, z: Tensor, precision: Tensor, linear: Tensor, x: Tensor, seen: Tensor, sure: Tensor, one: Tensor
) -> tuple[Tensor, Tensor]:
    """What x_(t+1).. say of s_t from what x_(t+2).. say of s_(t+1), both as exp(-s' P s / 2 + h' s), (path, ...)."""
    loading = found.loading[z] * seen.to(x.dtype).unsqueeze(-1)
    weighted = loading.mT @ sure[z]
    precision = precision + weighted @ loading
    off = torch.where(seen, x - found.offset[z], 0.0)
    linear = linear + (weighted @ off.unsqueeze(-1)).squeeze(-1)
    root, turn = lower_factor(found.shock[z]), found.transition[z]
    # (I + P Q)^(-1), through the factor of Q.
    inner = one + root.mT @ precision @ root
    kept = one - precision @ root @ torch.linalg.solve(inner, root.mT)
    away = linear - (precision @ found.drift[z].unsqueeze(-1)).squeeze(-1)
    new = turn.mT @ kept @ precision @ turn
    return 0.5 * (new + new.mT), (turn.mT @ kept @ away.unsqueeze(-1)).squeeze(-1)


def _evidence(mean: Tensor, root: Tensor, precision: Tensor, linear: Tensor, one: Tensor) -> Tensor:
    """log of the integral of N(s; m, U U') exp(-s' P s / 2 + h' s), for every path and history, (path, history)."""
    turned = precision.unsqueeze(-3) @ root
    inner = lower_factor(one + root.mT @ turned)
    pulled = (precision.unsqueeze(-3) @ mean.unsqueeze(-1)).squeeze(-1)
    rest = linear.unsqueeze(-2) - pulled
    v = torch.linalg.solve_triangular(inner, root.mT @ rest.unsqueeze(-1), upper=False).squeeze(-1)
    size = inner.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    straight = (mean * (linear.unsqueeze(-2) - 0.5 * pulled)).sum(-1)
    value = straight + 0.5 * v.square().sum(-1) - size
    return torch.where(torch.isfinite(value), value, -math.inf)
