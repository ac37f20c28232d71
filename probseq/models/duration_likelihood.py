"""The semi-Markov kernels as a differentiable torch function, and the long run of a semi-Markov chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probseq.distributions.durations import DurationTables, log
from probseq.kernels import durations
from probseq.models.chain_likelihood import stationary_distribution

__all__ = ["duration_log_prob_steps", "long_run"]


class _DurationLogProb(torch.autograd.Function):
    """log p(x_t | x_<t); its gradient is expected moves, so that no graph over the steps is kept."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, belief: Tensor, trans: Tensor, leave: Tensor, stay: Tensor, table: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        tensors = (belief, trans, leave, stay, table, lengths)
        ctx.problem = durations.Renewals(*(a.detach().cpu().numpy() for a in tensors))
        result = durations.filter_states(ctx.problem, keep=False)
        steps, after = (torch.from_numpy(a) for a in (result.log_prob_steps, result.belief))
        ctx.mark_non_differentiable(after)
        return steps, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        sums = durations.expectations(ctx.problem, gain=gradient.detach().cpu().numpy())
        start = torch.from_numpy(sums.start)
        if ctx.problem.belief.shape[1] != start.shape[1]:
            start = start.sum(1, keepdim=True)
        moves = (torch.from_numpy(a) for a in (sums.counts.sum(1), sums.leaves, sums.stays, sums.posterior))
        return start, *moves, None


def duration_log_prob_steps(
    belief: Tensor, trans: Tensor, leave: Tensor, stay: Tensor, table: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(x_t | x_<t) (D, n, t), differentiable, and the belief after the last step (D, n, s, w), without gradient.

    All arguments but ``lengths`` (n,) are logarithms, as in `probseq.kernels.durations.Renewals`.
    """
    steps, after = _DurationLogProb.apply(belief, trans, leave, stay, table, lengths)
    return steps, after


def long_run(transition: Tensor, tables: DurationTables) -> Tensor:
    """Log share of time that a process which has run for ever spends in each state, (*draw, s), differentiable.

    nu_j E[d_j] / sum_k nu_k E[d_k], with nu = nu A the law of the states in the order of visits.
    """
    mean, _ = tables.residual()
    weight = log(stationary_distribution(transition)) + mean
    return torch.log_softmax(weight, -1)
