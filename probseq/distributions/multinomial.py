"""The multinomial distribution of counts that share a total."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
import torch
from scipy import special
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.counts import discrete_icdf
from probseq.distributions.special import by_numpy
from probseq.errors import UnsupportedError

__all__ = ["MultinomialCounts"]


class MultinomialCounts(Distribution):
    r"""P(x) = n! / (x_1! ... x_k! r!) prod_i p_i^{x_i} p_0^r, with r = n - sum_i x_i and p_0 = 1 - sum_i p_i.

    The rest r is always 0 where the variables are all categories, p_0 = 0; marginals have p_0 > 0.

    Parameters
    ----------
    probs : (*B, k)
    rest : (*B, 1), p_0
    n_trials : int or None
        n; None takes the sum of each event as known, which leaves no law of the counts without it.
    """

    _event_dims: ClassVar[dict[str, int]] = {"probs": 1, "rest": 1}
    discrete: ClassVar[bool] = True
    probs: Tensor
    rest: Tensor

    def __init__(self, probs: Tensor, rest: Tensor, n_trials: int | None = None) -> None:
        super().__init__(probs=probs, rest=rest)
        self.n_trials = n_trials

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        return type(self)(move(self.probs, 1), move(self.rest, 1), self.n_trials)

    def marginal(self, index: list[int]) -> Distribution:
        if sorted(index) == list(range(self.n_variables)):
            return MultinomialCounts(self.probs[..., index], self.rest, self.n_trials)
        n = self._trials("the marginal law of some counts")
        kept = self.probs[..., index]
        return MultinomialCounts(kept, (1.0 - kept.sum(-1, keepdim=True)).clamp(0.0, 1.0), n)

    def _trials(self, what: str) -> int:
        if self.n_trials is None:
            raise UnsupportedError(
                got=f"{what} of a multinomial whose total is not known",
                expected="the number of trials of a step",
                remedy="Use Multinomial(n_trials=...) where all steps have the same total.",
            )
        return self.n_trials

    def log_prob(self, value: Tensor) -> Tensor:
        return self._log_mass(value, torch.ones_like(value, dtype=torch.bool))

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        if self.n_trials is None and not bool((seen.all(-1) | ~seen.any(-1)).all()):
            self._trials("a partly missing event")
        return self._log_mass(value, seen)

    def _log_mass(self, value: Tensor, seen: Tensor) -> Tensor:
        value, seen = torch.broadcast_tensors(value, seen)
        shown = torch.where(seen, value, torch.zeros_like(value))
        total = shown.sum(-1)
        left = torch.zeros_like(total) if self.n_trials is None else self.n_trials - total
        whole = ((shown >= 0) & (shown == torch.floor(shown)) & torch.isfinite(shown)).all(-1) & (left >= 0)
        shown = torch.where(whole.unsqueeze(-1), shown, torch.zeros_like(shown))
        left = torch.where(whole, left, torch.zeros_like(left))
        unseen = torch.where(seen, torch.zeros_like(self.probs), self.probs).sum(-1) + self.rest.squeeze(-1)
        # 0 log 0 is 0, also for gradients.
        probs = torch.where(shown > 0, self.probs, torch.ones_like(self.probs))
        unseen = torch.where(left > 0, unseen, torch.ones_like(unseen))
        log_mass = (shown * probs.log()).sum(-1) - torch.lgamma(shown + 1).sum(-1)
        log_mass = log_mass + left * unseen.log() - torch.lgamma(left + 1) + torch.lgamma(shown.sum(-1) + left + 1)
        log_mass = torch.where(whole, log_mass, torch.full_like(log_mass, -torch.inf))
        return torch.where(seen.any(-1), log_mass, torch.zeros_like(log_mass))

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """One matrix product where events are seen whole or not at all."""
        whole = seen.all(-1)
        shown = torch.where(whole.unsqueeze(-1), value, torch.zeros_like(value))
        total = shown.sum(-1)
        right = total == total if self.n_trials is None else (total == self.n_trials) | ~whole
        sound = ((shown >= 0) & (shown == torch.floor(shown)) & torch.isfinite(shown)).all() & right.all()
        plain = bool(sound & (whole | ~seen.any(-1)).all()) and bool((self.probs > 0).all() & (self.rest == 0).all())
        if not plain:
            return super().component_table(value, seen)
        ways = torch.lgamma(total + 1) - torch.lgamma(shown + 1).sum(-1)
        return shown @ self.probs.log().mT + ways.unsqueeze(-1)

    @property
    def mean(self) -> Tensor:
        return self._trials("the mean") * self.probs

    @property
    def variance(self) -> Tensor:
        return self._trials("the variance") * self.probs * (1 - self.probs)

    def cdf(self, value: Tensor) -> Tensor:
        n = self._trials("the cdf")

        def function(probs: np.ndarray, x: np.ndarray) -> np.ndarray:
            inner = np.floor(x).clip(0, n - 1)
            p = special.betainc(n - inner, inner + 1, 1 - probs)
            return np.where(x < 0, 0.0, np.where(x >= n, 1.0, p))

        return by_numpy(function, self.probs, value)

    def icdf(self, q: Tensor) -> Tensor:
        n = self._trials("quantiles")
        q = q.expand(torch.broadcast_shapes(q.shape, self.probs.shape))
        return discrete_icdf(self.cdf, q, torch.zeros_like(q), torch.full_like(q, float(n)))

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        left = torch.full((*sample_shape, *self.batch_shape), float(self._trials("draws")), dtype=self.probs.dtype)
        share, columns = torch.ones_like(left), []
        probs = self.probs.detach()
        certain = bool((self.rest == 0).all())
        for i in range(self.n_variables):
            if certain and i == self.n_variables - 1:
                columns.append(left)
                break
            p = (probs[..., i] / share.clamp_min(1e-300)).clamp(0.0, 1.0)
            drawn = torch.binomial(left, p, generator=generator)
            columns.append(drawn)
            left, share = left - drawn, share - probs[..., i]
        return torch.stack(columns, -1)
