"""Ascent on many independent objectives at once: limited-memory BFGS with a backtracking line search for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ascend"]

_MEMORY = 6
_HALVINGS = 20
_ARMIJO = 1e-4


def ascend(objective: Callable[[Tensor, bool], tuple[Tensor, Tensor]], start: Tensor, n_steps: int) -> Tensor:
    """Climb f_b(z_b) for every b of a batch; no f_b is lower at the result than at the start.

    Parameters
    ----------
    objective : callable
        (z (*B, m), whether the gradient is wanted) -> values (*B,) and gradients (*B, m); values that are not finite
        count as impossible.
    start : (*B, m)
    n_steps : int

    References
    ----------
    Nocedal and Wright (2006), Numerical Optimization, algorithms 7.4 and 3.1.
    """
    z = start
    value, slope = objective(z, True)
    moves: list[Tensor] = []
    bends: list[Tensor] = []
    for _ in range(n_steps):
        direction = _direction(slope, moves, bends)
        rise = (slope * direction).sum(-1)
        uphill = rise > 0
        if not bool(uphill.any()):
            break
        direction = torch.where(uphill.unsqueeze(-1), direction, torch.zeros_like(direction))
        length = torch.ones_like(value)
        if not moves:
            # Without curvature yet, the first step is at most one unit of the unconstrained scale.
            length = 1.0 / slope.norm(dim=-1).clamp_min(1.0)
        better = torch.zeros_like(uphill)
        best = z
        for _ in range(_HALVINGS):
            trial = z + length.unsqueeze(-1) * direction
            risen, _ = objective(trial, False)
            passed = uphill & ~better & torch.isfinite(risen) & (risen > value + _ARMIJO * length * rise)
            best = torch.where(passed.unsqueeze(-1), trial, best)
            better |= passed
            if bool((better | ~uphill).all()):
                break
            length = torch.where(better, length, 0.4 * length)
        if not bool(better.any()):
            break
        new_value, new_slope = objective(best, True)
        moves, bends = [*moves[1 - _MEMORY :], best - z], [*bends[1 - _MEMORY :], slope - new_slope]
        z, value, slope = best, new_value, new_slope
    return z


def _direction(slope: Tensor, moves: list[Tensor], bends: list[Tensor]) -> Tensor:
    """The two-loop recursion; pairs without positive curvature are left out for the b where they occur."""
    q = slope
    kept = []
    scale = torch.ones_like(slope[..., :1])
    for move, bend in zip(moves, bends, strict=True):
        product = (move * bend).sum(-1, keepdim=True)
        sound = product > 1e-10 * (bend * bend).sum(-1, keepdim=True) * 1e-6
        inverse = torch.where(sound, 1.0 / torch.where(sound, product, torch.ones_like(product)), 0.0)
        kept.append(inverse)
        square = (bend * bend).sum(-1, keepdim=True)
        scale = torch.where(sound, product / torch.where(sound, square, torch.ones_like(square)), scale)
    alphas = []
    for move, bend, inverse in zip(reversed(moves), reversed(bends), reversed(kept), strict=True):
        alpha = inverse * (move * q).sum(-1, keepdim=True)
        q = q - alpha * bend
        alphas.append(alpha)
    q = scale * q
    for move, bend, inverse, alpha in zip(moves, bends, kept, reversed(alphas), strict=True):
        q = q + (alpha - inverse * (bend * q).sum(-1, keepdim=True)) * move
    return q
