"""The chain kernels as differentiable torch functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probseq.kernels import chain, varying

__all__ = ["chain_log_prob_steps", "stationary_distribution", "varying_log_prob_steps"]


class _ChainLogProb(torch.autograd.Function):
    """log p(x_t | x_<t); its gradient is posterior probabilities, so that no graph over the steps is kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        tensors = (initial, transition, log_emission, lengths)
        start, matrix, table, steps_each = (a.detach().cpu().numpy() for a in tensors)
        ctx.arrays = (start, matrix, table, steps_each)
        result = chain.filter_states(start, matrix, chain.table_emission(table), steps_each, keep=False)
        steps, last = (torch.from_numpy(a) for a in (result.log_prob_steps, result.last))
        ctx.mark_non_differentiable(last)
        return steps, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        initial, transition, table, lengths = ctx.arrays
        gain = gradient.detach().cpu().numpy()
        sums = chain.expectations(initial, transition, chain.table_emission(table), lengths, gain=gain)
        # At an exact zero the derivative is not needed: structural zeros never move.
        start = np.divide(sums.start, initial, out=np.zeros_like(sums.start), where=initial > 0)
        counts = np.divide(sums.counts, transition, out=np.zeros_like(sums.counts), where=transition > 0)
        if initial.shape[1] != start.shape[1]:
            start = start.sum(1, keepdims=True)
        return torch.from_numpy(start), torch.from_numpy(counts), torch.from_numpy(sums.posterior), None


def chain_log_prob_steps(
    initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(x_t | x_<t) (D, n, t), differentiable, and p(z_T | x_1:T) (D, n, s), without gradient; exact.

    Parameters
    ----------
    initial : (D, n or 1, s), p(z_1)
    transition : (D, s, s)
    log_emission : (D, n, t, s), nats
    lengths : (n,)
    """
    steps, last = _ChainLogProb.apply(initial, transition, log_emission, lengths)
    return steps, last


class _VaryingLogProb(torch.autograd.Function):
    """log p(x_t | x_<t) with a matrix for each step; its gradient is posterior probabilities of pairs of states."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        tensors = (initial, transition, log_emission, lengths)
        ctx.arrays = tuple(a.detach().cpu().numpy() for a in tensors)
        ctx.begun = None if begun is None else begun.cpu().numpy()
        result = varying.filter_states(*ctx.arrays, begun=ctx.begun, keep=False)
        steps, last = (torch.from_numpy(a) for a in (result.log_prob_steps, result.last))
        ctx.mark_non_differentiable(last)
        return steps, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        initial, transition, table, _lengths = ctx.arrays
        sums = varying.expectations(*ctx.arrays, begun=ctx.begun, gain=gradient.detach().cpu().numpy())
        # At an exact zero the derivative is not needed: structural zeros never move.
        start = np.divide(sums.start, initial, out=np.zeros_like(sums.start), where=initial > 0)
        pairs = np.divide(sums.pairs, transition, out=sums.pairs, where=transition > 0)
        shapes = (initial.shape, transition.shape, table.shape)
        parts = zip((start, pairs, sums.posterior), shapes, strict=True)
        return *(torch.from_numpy(part).sum_to_size(shape) for part, shape in parts), None, None


def varying_log_prob_steps(
    initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log p(x_t | x_<t) (D, n, t), differentiable, and p(z_T | x_1:T) (D, n, s), without gradient; exact.

    Parameters
    ----------
    initial : (D, n or 1, s), p(z_1), or where a sequence has begun p(z_0), the law of the state a step before
    transition : (D or 1, n or 1, t, s, s); transition[:, :, t] drives the move into step t
    log_emission : (D or 1, n, t, s), nats
    lengths : (n,)
    begun : (n,) bool or None
        Whether transition[:, :, 0] moves ``initial`` into the first step. None: no sequence has begun.
    """
    steps, last = _VaryingLogProb.apply(initial, transition, log_emission, lengths, begun)
    return steps, last


def stationary_distribution(transition: Tensor) -> Tensor:
    """pi with pi A = pi and sum 1, (*draw, s), differentiable.

    Solves pi (I - A + 1) = 1. A chain with several closed classes has many answers; then the long-run average from
    equal probabilities is returned.
    """
    s = transition.shape[-1]
    eye = torch.eye(s, dtype=transition.dtype, device=transition.device)
    system = (eye - transition + 1.0).mT
    ones = torch.ones(*transition.shape[:-1], 1, dtype=transition.dtype, device=transition.device)
    pi, info = torch.linalg.solve_ex(system, ones)
    pi = pi.squeeze(-1)
    off = (pi.unsqueeze(-2) @ transition).squeeze(-2) - pi
    good = (info == 0) & (off.abs().amax(-1) < 1e-8) & (pi.amin(-1) > -1e-8)
    if not bool(good.all()):
        # Cesaro average by repeated squaring of the lazy chain, which is aperiodic.
        power = 0.5 * (eye + transition)
        for _ in range(60):
            power = power @ power
            power = power / power.sum(-1, keepdim=True)
        pi = torch.where(good.unsqueeze(-1), pi, power.mean(-2))
    pi = pi.clamp_min(0.0)
    return pi / pi.sum(-1, keepdim=True)
