"""M-steps of the start and the transitions of a chain."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.params import Simplex
from probseq.models.chain_likelihood import stationary_distribution

__all__ = ["update_start", "update_transition"]

_EMPTY = 1e-12
_STEPS = 4
_HALVINGS = 12


def update_start(first: Tensor, previous: Tensor) -> Tensor:
    """Posterior probabilities of the first state, summed over sequences (D, s), as probabilities."""
    total = first.sum(-1, keepdim=True)
    return torch.where(total > _EMPTY, first / total.clamp_min(_EMPTY), previous)


def update_transition(
    counts: Tensor, first: Tensor, previous: Tensor, stationary: bool, simplex: Simplex | None = None
) -> Tensor:
    r"""argmax over A of sum_ij N_ij log A_ij, plus sum_i g_i log pi_i(A) where pi is the stationary distribution of A.

    Parameters
    ----------
    counts : (D, s, s) expected transitions N
    first : (D, s) expected first states g
    previous : (D, s, s); a state without transitions keeps its row
    stationary : whether the start is stationary. Then there is no closed form and a few natural-gradient steps are
        made, each of which raises the objective; their fixed point is the exact maximum.
    simplex : the structure of the rows: forbidden and fixed entries
    """
    if not stationary:
        return _rows(counts, previous, simplex)
    current = previous
    value = _objective(current, counts, first)
    for _ in range(_STEPS):
        goal = _step(current, counts, first, simplex)
        step = torch.ones_like(value)
        moved = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(_HALVINGS):
            width = torch.where(moved, torch.zeros_like(step), step)[..., None, None]
            trial = current + width * (goal - current)
            new = _objective(trial, counts, first)
            better = ~moved & (new > value)
            current = torch.where(better[..., None, None], trial, current)
            value = torch.where(better, new, value)
            moved = moved | better
            if bool(moved.all()):
                break
            step = torch.where(moved, step, 0.5 * step)
        if not bool(moved.any()):
            break
    return current


def _rows(wanted: Tensor, otherwise: Tensor, simplex: Simplex | None) -> Tensor:
    """Rows in proportion to ``wanted``, those without any as they were."""
    if simplex is not None and simplex.fixed is not None:
        wanted = wanted * simplex.free(tuple(wanted.shape[-2:]))
    total = wanted.sum(-1, keepdim=True)
    shares = wanted / total.clamp_min(_EMPTY)
    return torch.where(total > _EMPTY, shares if simplex is None else simplex.complete(shares), otherwise)


def _objective(transition: Tensor, counts: Tensor, first: Tensor) -> Tensor:
    start = stationary_distribution(transition)
    each = torch.xlogy(counts, transition).sum((-2, -1)) + torch.xlogy(first, start).sum(-1)
    return torch.nan_to_num(each, nan=-torch.inf)


def _step(transition: Tensor, counts: Tensor, first: Tensor, simplex: Simplex | None) -> Tensor:
    """A_ij proportional to N_ij + A_ij (G_ij - sum_k A_ik G_ik), with G the gradient of sum_i g_i log pi_i.

    Fixed entries stay, and the sum is the mean over the free ones.

    d pi = pi dA Z with Z = (I - A + 1 pi)^-1 (Kemeny and Snell 1960, theorem 4.3.7 and the perturbation of pi that
    follows from it), hence G_ij = pi_i (Z g / pi)_j.
    """
    s = transition.shape[-1]
    start = stationary_distribution(transition)
    eye = torch.eye(s, dtype=transition.dtype)
    system = eye - transition + start.unsqueeze(-2)
    ratio = torch.where(start > 0, first / start.clamp_min(1e-300), torch.zeros_like(first))
    potential, info = torch.linalg.solve_ex(system, ratio.unsqueeze(-1))
    potential = torch.where((info == 0)[..., None], potential.squeeze(-1), torch.zeros_like(first))
    gradient = start.unsqueeze(-1) * potential.unsqueeze(-2)
    movable = transition if simplex is None else transition * simplex.free((s, s))
    share = movable / movable.sum(-1, keepdim=True).clamp_min(1e-300)
    centred = gradient - (share * gradient).sum(-1, keepdim=True)
    wanted = (counts + transition * centred).clamp_min(0.0)
    return _rows(wanted, transition, simplex)
