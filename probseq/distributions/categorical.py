"""Distributions of categories and of bits."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from probseq.distributions.base import ProductDistribution
from probseq.distributions.exponential import ExponentialFamily

__all__ = ["Bits", "Categories"]


class Categories(ProductDistribution):
    r"""P(x_i = c) = softmax(logits_i)_c for codes c = 0 .. C-1, independent over the k variables.

    ``mean`` and ``variance`` are of the codes and have a meaning for ordered categories only.

    Parameters
    ----------
    logits : (*B, k, C), log probabilities up to a constant; -inf is an exact zero
    """

    _event_dims: ClassVar[dict[str, int]] = {"logits": 2}
    discrete: ClassVar[bool] = True
    nominal: ClassVar[bool] = True
    logits: Tensor

    @property
    def log_probs(self) -> Tensor:
        return torch.log_softmax(self.logits, -1)

    @property
    def probs(self) -> Tensor:
        """(*B, k, C)."""
        return torch.softmax(self.logits, -1)

    @property
    def n_categories(self) -> int:
        return self.logits.shape[-1]

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        possible = (value >= 0) & (value < self.n_categories) & (value == torch.floor(value))
        code = torch.where(possible, value, torch.zeros_like(value)).long()
        log_probs = self.log_probs
        shape = torch.broadcast_shapes(code.shape, log_probs.shape[:-1])
        picked = log_probs.expand(*shape, self.n_categories).gather(-1, code.expand(shape).unsqueeze(-1)).squeeze(-1)
        return torch.where(possible, picked, torch.full_like(picked, -torch.inf))

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        codes = torch.arange(self.n_categories, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ codes

    @property
    def variance(self) -> Tensor:
        codes = torch.arange(self.n_categories, dtype=self.logits.dtype, device=self.logits.device)
        return (self.probs @ codes**2 - self.mean**2).clamp_min(0.0)

    def cdf(self, value: Tensor) -> Tensor:
        cumulative = torch.cumsum(self.probs, -1)
        code = torch.floor(value).long()
        shape = torch.broadcast_shapes(code.shape, cumulative.shape[:-1])
        code = code.expand(shape)
        picked = cumulative.expand(*shape, self.n_categories).gather(
            -1, code.clamp(0, self.n_categories - 1).unsqueeze(-1)
        )
        picked = picked.squeeze(-1)
        picked = torch.where(code < 0, torch.zeros_like(picked), picked)
        return torch.where(code >= self.n_categories - 1, torch.ones_like(picked), picked)

    def icdf(self, q: Tensor) -> Tensor:
        cumulative = torch.cumsum(self.probs, -1)
        below = (cumulative < q.unsqueeze(-1)).sum(-1)
        return below.clamp_max(self.n_categories - 1).to(self.logits.dtype)

    def entropy(self) -> Tensor:
        """Entropy in nats, (*B,)."""
        return torch.special.entr(self.probs).sum((-2, -1))

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        probs = self.probs.detach().expand(*shape, self.n_categories).reshape(-1, self.n_categories)
        return torch.multinomial(probs, 1, generator=generator).reshape(shape).to(self.logits.dtype)


class Bits(ExponentialFamily):
    r"""P(x_i = 1) = sigmoid(logit_i), independent over the k variables.

    Parameters
    ----------
    logit : (*B, k)
    """

    _event_dims: ClassVar[dict[str, int]] = {"logit": 1}
    discrete: ClassVar[bool] = True
    logit: Tensor

    def natural(self) -> list[Tensor]:
        return [self.logit]

    def statistics(self, value: Tensor) -> list[Tensor]:
        return [value]

    def log_normaliser(self) -> Tensor:
        return torch.nn.functional.softplus(self.logit)

    def log_base(self, value: Tensor) -> None:
        return None

    def inside(self, value: Tensor) -> Tensor:
        return (value == 0) | (value == 1)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logit)

    @property
    def variance(self) -> Tensor:
        return self.mean * torch.sigmoid(-self.logit)

    def cdf(self, value: Tensor) -> Tensor:
        below_one = torch.sigmoid(-self.logit)
        at_most = torch.where(value >= 1, torch.ones_like(below_one), below_one)
        return torch.where(value < 0, torch.zeros_like(at_most), at_most)

    def icdf(self, q: Tensor) -> Tensor:
        return (q > torch.sigmoid(-self.logit)).to(self.logit.dtype)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        return torch.bernoulli(self.mean.detach().expand(shape), generator=generator)
