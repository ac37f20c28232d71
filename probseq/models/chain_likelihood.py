"""The chain kernels as differentiable torch functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probseq.kernels import chain

__all__ = ["chain_log_prob_steps", "stationary_distribution"]


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
