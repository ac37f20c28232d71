"""How far a particle filter's estimate may be off, from the lineages of its particles."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Lineages"]

_LAG = 20


class Lineages:
    r"""Var log p^(x_1:T), about sum_s sum_i (D_s^i - W_s^i)^2 / L over all windows of L = 20 steps that begin at s.

    W_s^i is the weight of a particle before a window and D_s^i what its descendants weigh at the end. Errors of steps
    that are less than L apart are correlated, since a particle that explains one value well has descendants that
    explain the next ones well: with L = 1 they would be taken for independent. Windows overlap, and those that stick
    out at either end are cut, so that the correlations count in proportion to the overlap (Bartlett's weights). Of the
    first order in one over the number of particles; what is further apart than L steps is left out.

    Parameters
    ----------
    log_weights : (*draw, n, particle), before the first step

    References
    ----------
    Chan and Lai (2013), A general theory of particle filters in hidden Markov models and some applications, Annals of
    Statistics 41, 2877-2904, for lineages; Olsson and Douc (2019), Numerically stable online estimation of variance in
    particle filters, Bernoulli 25, 1504-1535, for a fixed lag.
    """

    def __init__(self, log_weights: Tensor) -> None:
        self.same = torch.arange(log_weights.shape[-1], device=log_weights.device).expand(log_weights.shape)
        # Of every window that is open, in a ring: the particle at its beginning that each one now descends from.
        self.first = self.same.expand(_LAG, *log_weights.shape).clone()
        self.before = log_weights.new_zeros((_LAG, *log_weights.shape))
        self.after = log_weights.new_zeros(log_weights.shape)
        self.total = log_weights.new_zeros(log_weights.shape[:-1])
        self.t = 0

    def add(self, before: Tensor, after: Tensor, parent: Tensor, running: Tensor) -> None:
        """One step.

        Parameters
        ----------
        before, after : (*draw, n, particle), log-weights
        parent : (*draw, n, particle) int64, the particle of the step before that each goes on from
        running : (n,) bool, False where the sequence has ended: nothing changes there any more
        """
        on = running.unsqueeze(-1)
        self.first = self.first.gather(-1, torch.where(on, parent, self.same).expand_as(self.first))
        self.after = torch.where(on, after.detach().exp(), self.after)
        slot = self.t % _LAG
        self.first[slot], self.before[slot] = self.same, torch.where(on, before.detach().exp(), self.after)
        self.t += 1
        # The window that ends here; in the beginning one that is cut and begins with the first step.
        self.total = self.total + self._spread(self.t % _LAG if self.t >= _LAG else 0)

    def variance(self) -> Tensor:
        """(*draw, n)"""
        total, last = self.total, max(0, self.t - _LAG + 1)
        for s in range(last, self.t):
            total = total + self._spread(s % _LAG)
        # Windows that stick out at both ends hold all steps.
        return (total + max(0, _LAG - 1 - self.t) * self._spread(0)) / _LAG

    def _spread(self, slot: int) -> Tensor:
        descended = torch.zeros_like(self.after).scatter_add(-1, self.first[slot], self.after)
        return (descended - self.before[slot]).square().sum(-1)
