"""Forward and backward recursions of hidden chains in batched torch: a loop over time, all else at once.

Time comes first in every tensor here: log emissions (t, D, n, s), first states (D, n, s). Probabilities are scaled in
every step; sequences where that loses mass are found afterwards, without a wait in the loop, and repeated in logarithms
by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Limits(NamedTuple):
    """What a floating-point type can hold.

    tiny : products of such a number and ``dense`` stay normal numbers.
    dense : with all transitions above it, a state that lost its mass regains it in one step.
    floor : log of the smallest scaled likelihood.
    """

    tiny: float
    dense: float
    floor: float


LIMITS = {torch.float64: Limits(1e-200, 1e-100, -700.0), torch.float32: Limits(1e-25, 1e-12, -85.0)}


class Moves:
    """The transition matrices of D chains, ``matrices`` (D, s, s), or (D or 1, n or 1, t, s, s) for each step."""

    def __init__(self, matrices: Tensor, logarithmic: bool = False) -> None:
        self.varying = matrices.ndim == 5
        self.logarithmic = logarithmic
        self._matrices = matrices
        self._logs = matrices.log() if logarithmic and not self.varying else matrices

    def at(self, t: int) -> Tensor:
        """The matrix into step t or its logarithm, (D, n or 1, s, s)."""
        if not self.varying:
            return self._logs.unsqueeze(1)
        matrix = self._matrices[:, :, t]
        return matrix.log() if self.logarithmic else matrix

    def ahead(self, mass: Tensor, t: int) -> Tensor:
        """sum_i mass_i A_ij, (D, n, s); log sum exp in logarithms."""
        if self.logarithmic:
            return torch.logsumexp(mass.unsqueeze(-1) + self.at(t), -2)
        if self.varying:
            return (mass.unsqueeze(-2) @ self._matrices[:, :, t]).squeeze(-2)
        return mass @ self._matrices

    def back(self, mass: Tensor, t: int) -> Tensor:
        """sum_j A_ij mass_j, (D, n, s); log sum exp in logarithms."""
        if self.logarithmic:
            return torch.logsumexp(self.at(t) + mass.unsqueeze(-2), -1)
        if self.varying:
            return (self._matrices[:, :, t] @ mass.unsqueeze(-1)).squeeze(-1)
        return mass @ self._matrices.mT

    def columns(self, states: Tensor, t: int) -> Tensor:
        """A_ij over i for the states j (D, path, n) of step t, (D, path, n, s)."""
        turned = self.at(t).mT.unsqueeze(1)
        s = turned.shape[-1]
        turned = turned.expand(states.shape[0], states.shape[1], states.shape[2], s, s)
        return turned.gather(-2, states[..., None, None].expand(*states.shape, 1, s)).squeeze(-2)

    def watch(self, n_steps: int) -> Tensor:
        """As `recursions.watch_level`, (D or 1, 1 or n, 1)."""
        limits = LIMITS[self._matrices.dtype]
        each = self._matrices[:, :, 1:n_steps].flatten(2) if self.varying else self._matrices.flatten(1).unsqueeze(1)
        if each.shape[-1] == 0:
            return each.new_zeros(each.shape[0], each.shape[1], 1)
        smallest = torch.where(each > 0, each, torch.inf).amin(-1, keepdim=True)
        level = (limits.tiny * limits.dense / smallest).clamp_min(limits.tiny)
        return torch.where(each.amin(-1, keepdim=True) >= limits.dense, 0.0, level)


class Steps(NamedTuple):
    """Log emissions of a block of steps, ready for the recursion.

    shifted : (t, D or 1, n, s), minus the greatest over the states; 0 where nothing is known.
    peak : (t, D or 1, n), the greatest; -inf where no state can emit the observation.
    active : (t, 1, n), whether the step is before the end.
    """

    shifted: Tensor
    peak: Tensor
    active: Tensor

    @property
    def impossible(self) -> Tensor:
        return self.peak == -torch.inf


class Forward(NamedTuple):
    """Results of the forward recursion over a block, (t, D, n, s) or (t, D, n).

    ``filtered`` and ``predicted`` are probabilities or their logarithms; ``ratio`` is the likelihood over its
    normaliser (or its logarithm), 1 where nothing is known; ``steps`` log p(x_t | x_<t); ``lost`` (D, n) says where
    mass was lost.
    """

    filtered: Tensor
    predicted: Tensor
    ratio: Tensor
    steps: Tensor
    lost: Tensor


def steps_between(table: Tensor, lengths: Tensor, begin: int, end: int) -> Steps:
    """The block of a table (D or 1, n, t, s)."""
    block = table[:, :, begin:end].movedim(2, 0)
    active = (torch.arange(begin, end, device=table.device).unsqueeze(-1) < lengths).unsqueeze(1)
    peak = block.amax(-1)
    known = ((peak > -torch.inf) & active).unsqueeze(-1)
    shifted = torch.where(known, block - torch.where(known, peak.unsqueeze(-1), 0.0), 0.0)
    return Steps(shifted, torch.where(active, peak, 0.0), active)


def forward_scaled(start: Tensor, moves: Moves, watch: Tensor, block: Steps, begin: int) -> Forward:
    """The forward recursion in probabilities from ``start`` (D, n, s).

    ``start`` is p(z_1) where ``begin`` is 0, else the filtered probabilities of the step before.
    """
    limits = LIMITS[start.dtype]
    low = torch.where(watch > 0, torch.full_like(watch, limits.floor), math.log(limits.tiny))
    least = torch.where(watch > 0, low.exp(), 0.0)
    likelihood = torch.where(block.shifted < low, least, block.shifted.exp())
    likelihood = torch.where(block.shifted == -torch.inf, 0.0, likelihood)
    count = block.shifted.shape[0]
    predicted = start.new_empty(count, *start.shape)
    filtered = torch.empty_like(predicted)
    total = start.new_empty(count, *start.shape[:-1], 1)
    mass = start
    for i in range(count):
        predicted[i] = mass if begin + i == 0 else moves.ahead(mass, begin + i)
        joint = predicted[i] * likelihood[i]
        torch.sum(joint, -1, keepdim=True, out=total[i])
        mass = torch.div(joint, total[i], out=filtered[i])
    known = (block.active & ~block.impossible).unsqueeze(-1)
    vanished = (filtered < watch) & (predicted > 0) & (likelihood > 0) & known
    lost = vanished.any(-1).any(0) | (block.active & ~(total.squeeze(-1) >= limits.tiny)).any(0)
    ratio = torch.where(known, likelihood / total, 1.0)
    steps = torch.where(known.squeeze(-1), total.squeeze(-1).log(), 0.0) + block.peak
    return Forward(filtered, predicted, ratio, steps, lost)


def forward_log(start: Tensor, moves: Moves, block: Steps, begin: int) -> Forward:
    """As `forward_scaled` in logarithms, ``start`` and ``moves`` included."""
    count = block.shifted.shape[0]
    predicted = start.new_empty(count, *start.shape)
    filtered = torch.empty_like(predicted)
    total = start.new_empty(count, *start.shape[:-1], 1)
    mass = start
    for i in range(count):
        predicted[i] = mass if begin + i == 0 else moves.ahead(mass, begin + i)
        joint = predicted[i] + block.shifted[i]
        total[i] = torch.logsumexp(joint, -1, keepdim=True)
        mass = torch.where(total[i] > -torch.inf, joint - total[i], predicted[i])
        filtered[i] = mass
    known = (total > -torch.inf) & (block.active & ~block.impossible).unsqueeze(-1)
    ratio = torch.where(known, block.shifted - torch.where(known, total, 0.0), 0.0)
    gained = torch.where((total == -torch.inf).squeeze(-1) & block.active, -torch.inf, 0.0)
    steps = torch.where(known, total, 0.0).squeeze(-1) + gained + block.peak
    return Forward(filtered, predicted, ratio, steps, torch.zeros_like(steps[0], dtype=torch.bool))


def backward_scaled(moves: Moves, found: Forward, rise: Tensor) -> tuple[Tensor, Tensor]:
    """Posteriors and the derivatives by the predicted probabilities, both (t, D, n, s).

    With a gain g_t and ``rise`` g_t - g_{t+1} (t, D, n) they belong to sum_t g_t log p(x_t | x_<t): g = 1 gives
    p(z_t | x_1:T).
    """
    ratio = torch.where(found.filtered > 0, found.ratio, 0.0)
    value, after = torch.empty_like(found.filtered), torch.empty_like(found.filtered)
    last = len(value) - 1
    for t in range(last, -1, -1):
        value[t] = rise[t].unsqueeze(-1)
        if t < last:
            value[t] += moves.back(after[t + 1], t + 1)
        torch.mul(value[t], ratio[t], out=after[t])
    return torch.where(found.filtered > 0, found.filtered * value, 0.0), after


def backward_log(
    moves: Moves, found: Forward, rise: Tensor, gather: Callable[[int, Tensor], None] | None
) -> tuple[Tensor, Tensor]:
    """As `backward_scaled` for ``rise`` >= 0: posteriors, and the logarithm of the derivatives at the first step.

    ``gather`` is called for t >= 1 with p(z_{t-1} = i, z_t = j | x_1:T) (D, n, s, s).
    """
    shift = rise.log().unsqueeze(-1)
    posterior = torch.empty_like(found.filtered)
    after = torch.empty_like(found.filtered[0])
    last = len(posterior) - 1
    for t in range(last, -1, -1):
        value = shift[t].expand_as(after)
        if t < last:
            if gather is not None:
                pair = found.filtered[t].unsqueeze(-1) + moves.at(t + 1) + after.unsqueeze(-2)
                gather(t + 1, pair.exp())
            value = torch.logaddexp(moves.back(after, t + 1), value)
        value = torch.where(found.filtered[t] > -torch.inf, value, -torch.inf)
        after = value + found.ratio[t]
        posterior[t] = (found.filtered[t] + value).exp()
    return posterior, after
