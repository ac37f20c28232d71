"""A normal law with independent coordinates of a flat weight vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from probseq.distributions.params import ParamSpec
from probseq.inference.weights import WeightLaw

__all__ = ["NormalWeights"]


class _Divergence(torch.autograd.Function):
    """sum_i precision_i [(mean_i - location_i)^2 + exp(2 rho_i)] / 2 - rho_i + constant, with its two derivatives."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, rho: Tensor, location: Tensor, precision: Tensor, constant: Tensor) -> Tensor:
        gap, square, half = mean - location, (2 * rho).exp(), 0.5 * precision
        ctx.save_for_backward(gap, square, half)
        return (half * (gap.square() + square) - rho).sum() + constant

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gap, square, half = ctx.saved_tensors
        each = slope * half
        return each * (2 * gap), 2 * (each * square) - slope, None, None, None


class NormalWeights(WeightLaw):
    r"""q(w) = prod_i N(w_i; mean_i, exp(rho_i)^2), with the prior prod_i N(w_i; location_i, (s_k(i) scale_i)^2).

    The factor s_k of a kind k of weights is 1, or learnt. Learnt, it has at every moment the value that makes the
    divergence smallest (empirical Bayes),

        s_k^2 = mean over i in k of [(mean_i - location_i)^2 + exp(2 rho_i)] / scale_i^2,

    which by the envelope theorem has the same gradient as if it were a parameter at its optimum.

    Parameters
    ----------
    mean, rho : (m,), where the search starts; rho is the logarithm of the standard deviation
    location, scale : (m,), of the prior
    antithetic : bool
        Every second draw mirrors the one before it at the mean.
    n_vectors : int
        Vectors of a draw.
    kinds : sequence of (kind, number of weights) or None
        Runs of the vector, in order, whose kinds share a factor s_k each; None leaves all factors at 1.
    local : (m,) bool or None
        Weights that are not drawn here: a draw has their mean, and the model is told their standard deviations
        (``RecurrentModel``, "local_scale"), for noise of what they produce in place of noise of their own.
    """

    location: Tensor
    log_scale: Tensor
    precision: Tensor
    free: Tensor | None

    def __init__(
        self,
        mean: Tensor,
        rho: Tensor,
        location: Tensor,
        scale: Tensor,
        antithetic: bool = True,
        n_vectors: int = 1,
        kinds: Sequence[tuple[str, int]] | None = None,
        local: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.rho = nn.Parameter(mean.clone()), nn.Parameter(rho.clone())
        self.register_buffer("location", location)
        self.register_buffer("precision", scale**-2)
        self.register_buffer("log_scale", scale.log())
        self.register_buffer("free", None if local is None else (~local).to(mean.dtype))
        self.antithetic, self.n_vectors = antithetic, n_vectors
        self._sizes = [] if kinds is None else [size for _, size in kinds]
        self._members: dict[str, list[int]] = {}
        for run, (kind, _) in enumerate(kinds or ()):
            self._members.setdefault(kind, []).append(run)
        self._noise: Tensor | None = None

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """``n_vectors`` of shape (m,); the mirror of a draw is the next one, of this step or of the following."""
        return tuple(self._one(generator) for _ in range(self.n_vectors))

    def _one(self, generator: torch.Generator) -> Tensor:
        if self._noise is not None:
            noise, self._noise = -self._noise, None
        else:
            noise = torch.empty_like(self.mean).normal_(generator=generator)
            if self.free is not None:
                noise = noise * self.free
            self._noise = noise if self.antithetic else None
        return torch.addcmul(self.mean, self.rho.exp(), noise)

    def params(self, specs: Mapping[str, ParamSpec], vector: Tensor) -> dict[str, Tensor]:
        """The weights, and the standard deviations of those that were not drawn, zero for all others."""
        params = super().params(specs, vector)
        if self.free is not None:
            params["local_scale"] = self.rho.exp() * (1 - self.free)
        return params

    def divergence(self) -> Tensor:
        """KL(q || prior) in nats, exact; with learnt factors at those that make it smallest."""
        if not self._members:
            constant = self.log_scale.sum() - 0.5 * self.mean.numel()
            found: Tensor = _Divergence.apply(self.mean, self.rho, self.location, self.precision, constant)
            return found
        moment = (self.mean - self.location).square() + (2 * self.rho).exp()
        each = [sum(self._sizes[run] for run in runs) for runs in self._members.values()]
        logs = [0.5 * size * square.log() for size, square in zip(each, self._squares(moment))]
        return torch.stack(logs).sum() + (self.log_scale - self.rho).sum()

    def _squares(self, moment: Tensor) -> list[Tensor]:
        """s_k^2 of every kind."""
        sums = [run.sum() for run in (self.precision * moment).split(self._sizes)]
        return [
            torch.stack([sums[run] for run in runs]).sum() / sum(self._sizes[run] for run in runs)
            for runs in self._members.values()
        ]

    def factors(self) -> dict[str, float]:
        """s_k by kind, where they are learnt."""
        if not self._members:
            return {}
        with torch.no_grad():
            moment = (self.mean - self.location).square() + (2 * self.rho).exp()
            return {kind: float(square.sqrt()) for kind, square in zip(self._members, self._squares(moment))}

    def prior_scale(self) -> Tensor:
        """Standard deviations of the prior, (m,), with learnt factors."""
        found, factors = self.log_scale.exp(), self.factors()
        of_run = {run: factors[kind] for kind, runs in self._members.items() for run in runs}
        if not of_run:
            return found
        sizes = enumerate(self._sizes)
        return found * torch.cat([torch.full((size,), of_run[run], dtype=found.dtype) for run, size in sizes])

    def centre(self) -> Tensor:
        return self.mean

    def noise_state(self) -> dict[str, Tensor]:
        """The noise whose mirror comes next."""
        return {} if self._noise is None else {"noise": self._noise}

    def restore_noise(self, state: dict[str, Tensor]) -> None:
        self._noise = state.get("noise")

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, m) draws; mirrored pairs where ``antithetic``."""
        with torch.no_grad():
            half = -(-n // 2) if self.antithetic else n
            noise = torch.randn(half, self.mean.numel(), dtype=self.mean.dtype, generator=generator)
            noise = torch.stack([noise, -noise], 1).flatten(0, 1)[:n] if self.antithetic else noise
            return self.mean + self.rho.exp() * noise
