"""The chain kernels as differentiable torch functions; on other devices than the processor in batched torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probseq.kernels import chain, torch_chain, varying

__all__ = ["chain_log_prob_steps", "stationary_distribution", "varying_log_prob_steps"]


class _ChainLogProb(torch.autograd.Function):
    """log p(x_t | x_<t); its gradient is posterior probabilities, so that no graph over the steps is kept.

    ``transition`` may be (D, s, s), or (D or 1, n or 1, t, s, s) with ``begun``.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(initial, transition, log_emission, lengths, begun)
        steps, last = _filter(initial, transition, log_emission, lengths, begun)
        ctx.mark_non_differentiable(last)
        return steps, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        initial, transition, log_emission, lengths, begun = ctx.saved_tensors
        start, moves, posterior = _derivatives(initial, transition, log_emission, lengths, begun, gradient)
        # At an exact zero the derivative is not needed: structural zeros never move.
        start = torch.where(initial > 0, start / initial, torch.zeros_like(start))
        moves = torch.where(transition > 0, moves / transition, torch.zeros_like(moves))
        parts = zip((start, moves, posterior), (initial, transition, log_emission), strict=True)
        return *(part.sum_to_size(whole.shape) for part, whole in parts), None, None


def _filter(
    initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None
) -> tuple[Tensor, Tensor]:
    if not _compiled(initial):
        found = torch_chain.filter_states(initial, transition, log_emission, lengths, begun=begun, keep=False)
        return found.log_prob_steps, found.last
    start, matrix, table, counts, flags = _arrays(initial, transition, log_emission, lengths, begun)
    if matrix.ndim == 5:
        result = varying.filter_states(start, matrix, table, counts, begun=flags, keep=False)
    else:
        result = chain.filter_states(start, matrix, chain.table_emission(table), counts, keep=False)
    return torch.from_numpy(result.log_prob_steps), torch.from_numpy(result.last)


def _derivatives(
    initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """By the logarithms of the start (D, n, s) and of the transitions, and by the log emissions (D, n, t, s)."""
    if not _compiled(initial):
        found = torch_chain.expectations(initial, transition, log_emission, lengths, begun=begun, gain=gain)
        return found.start, found.moves, found.posterior
    start, matrix, table, counts, flags, weight = _arrays(initial, transition, log_emission, lengths, begun, gain)
    if matrix.ndim == 5:
        sums = varying.expectations(start, matrix, table, counts, begun=flags, gain=weight)
        return torch.from_numpy(sums.start), torch.from_numpy(sums.pairs), torch.from_numpy(sums.posterior)
    total = chain.expectations(start, matrix, chain.table_emission(table), counts, gain=weight)
    return torch.from_numpy(total.start), torch.from_numpy(total.counts), torch.from_numpy(total.posterior)


def _compiled(tensor: Tensor) -> bool:
    """Whether the compiled kernels serve: they know the memory of the processor and double precision only."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float64


def _arrays(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if a is None else a.detach().numpy() for a in tensors)


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
    steps, last = _ChainLogProb.apply(initial, transition, log_emission, lengths, None)
    return steps, last


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
    steps, last = _ChainLogProb.apply(initial, transition, log_emission, lengths, begun)
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
