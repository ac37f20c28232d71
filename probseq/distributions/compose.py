"""Mixtures of distributions and distributions pushed through a map, as true distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Affine, Bijection
from probseq.distributions.counts import discrete_icdf
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.product import IndependentParts
from probseq.distributions.pushforward import Pushforward
from probseq.distributions.quantiles import QuantileLaw
from probseq.distributions.skewed import DiagonalSkewedStudentT
from probseq.errors import IncompatibleError

__all__ = ["Mixture", "Pushforward", "mixture", "push"]

_BISECTIONS = 80


class Mixture(Distribution):
    r"""p(x) = sum_m w_m p_m(x), jointly over the variables of the event.

    Parameters
    ----------
    log_weights : (*B, M), normalised over M
    components : distribution with batch shape (*B, M)
    """

    def __init__(self, log_weights: Tensor, components: Distribution) -> None:
        if components.batch_shape != log_weights.shape:
            components = components.expand(torch.Size(log_weights.shape))
        self.log_weights, self.components = log_weights, components
        self.discrete, self.nominal = components.discrete, components.nominal  # type: ignore[misc]
        torch.distributions.Distribution.__init__(
            self, log_weights.shape[:-1], components.event_shape, validate_args=False
        )

    @property
    def step(self) -> float:  # type: ignore[override]
        return self.components.step

    def has_moment(self, order: float) -> Tensor:
        return (self.components.has_moment(order) | (self.weights == 0).unsqueeze(-1)).all(-2)

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        # For the component the mixture axis is one more event dimension behind the batch.
        return type(self)(move(self.log_weights, 1), self.components.map_batch(lambda t, e: move(t, e + 1)))

    @property
    def discrete_variables(self) -> Tensor:
        return self.components.discrete_variables

    @property
    def nominal_variables(self) -> Tensor:
        return self.components.nominal_variables

    @property
    def blocks(self) -> list[list[int]]:
        return self.components.blocks

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return self.components.is_likelihood

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return self.components.margins

    @property
    def dtype(self) -> torch.dtype:
        return self.log_weights.dtype

    def marginal(self, index: list[int]) -> Distribution:
        components = self.components.marginal(index)
        if isinstance(components, Mixture):
            return _flat(self.log_weights, components)
        return Mixture(self.log_weights, components)

    @property
    def weights(self) -> Tensor:
        return self.log_weights.exp()

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        each = self.components.log_prob_seen(value.unsqueeze(-2), seen.unsqueeze(-2))
        total = torch.logsumexp(self.log_weights + each, -1)
        # The weights sum to one up to rounding; what was not seen contributes exactly nothing.
        return torch.where(seen.any(-1), total, torch.zeros_like(total))

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.logsumexp(self.log_weights + self.components.log_prob(value.unsqueeze(-2)), -1)

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """Every part of every mixture as a component of one table."""
        joint = self.part_table(value, seen)
        top = joint.detach().amax(-2, keepdim=True)
        top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
        total = (joint - top).exp().sum(-2).log() + top.squeeze(-2)
        return torch.where(seen.any(-1, keepdim=True), total, torch.zeros_like(total))

    def part_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """log w_m p_m(value_r seen) of every part of every component, (*draw, r, M, s)."""
        n = len(self.batch_shape)
        # Parts outermost: sums over them then run along the components, which are contiguous.
        parts = self.components.map_batch(lambda t, e: t.transpose(n - 1, n).flatten(n - 1, n))
        table = parts.component_table(value, seen).unflatten(-1, self.log_weights.mT.shape[-2:])
        return self.log_weights.mT.unsqueeze(-3) + table

    def _average(self, each: Tensor) -> Tensor:
        w = self.weights.unsqueeze(-1)
        return torch.where(w > 0, w * each, torch.zeros_like(each)).sum(-2)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the components; of angles the direction of the mean resultant."""
        mean, angles = self._average(self.components.mean), self.circular_variables
        if not bool(angles.any()):
            return mean
        along = self.resultant
        return torch.where(angles, torch.atan2(along[..., 1], along[..., 0]).to(mean.dtype), mean)

    @property
    def variance(self) -> Tensor:
        """Law of total variance: within plus between components; of angles 1 - length of the mean resultant."""
        angles = self.circular_variables
        if bool(angles.all()):
            return 1.0 - self.resultant.norm(dim=-1)
        means = self.components.mean
        between = (means - self.mean.unsqueeze(-2)) ** 2
        total = self._average(self.components.variance + between)
        return torch.where(angles, 1.0 - self.resultant.norm(dim=-1).to(total.dtype), total)

    @property
    def circular_variables(self) -> Tensor:
        return self.components.circular_variables

    @property
    def resultant(self) -> Tensor:
        return (self.weights[..., None, None] * self.components.resultant).sum(-3)

    def cdf(self, value: Tensor) -> Tensor:
        return self._average(self.components.cdf(value.unsqueeze(-2)))

    def cdf_left(self, value: Tensor) -> Tensor:
        return self._average(self.components.cdf_left(value.unsqueeze(-2)))

    def density(self, value: Tensor) -> Tensor:
        """Marginal density or mass of every variable by itself, (*B, k)."""
        one = [self.marginal([i]).log_prob(value[..., i : i + 1]) for i in range(self.n_variables)]
        return torch.stack(one, -1).exp()

    def icdf(self, q: Tensor) -> Tensor:
        """Quantiles by bisection of the cdf between the extreme quantiles of the components."""
        q = q.expand(torch.broadcast_shapes(q.shape, (*self.batch_shape, self.n_variables)))
        if len(self.blocks) > 1:
            order = torch.argsort(torch.tensor([i for block in self.blocks for i in block]))
            return torch.cat([self.marginal(block).icdf(q[..., block]) for block in self.blocks], -1)[..., order]
        inner = self.components.icdf(q.unsqueeze(-2))
        used = (self.weights > 0).unsqueeze(-1)
        low = torch.where(used, inner, torch.full_like(inner, torch.inf)).amin(-2)
        high = torch.where(used, inner, torch.full_like(inner, -torch.inf)).amax(-2)
        if self.discrete:
            finite = torch.where(torch.isfinite(high), high, low)
            found = discrete_icdf(self.cdf, q, low, finite, self.step)
            return torch.where(torch.isfinite(high), found, high)
        open_end = ~(torch.isfinite(low) & torch.isfinite(high))
        a, b = torch.where(open_end, torch.zeros_like(low), low), torch.where(open_end, torch.zeros_like(high), high)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (a + b)
            below = self.cdf(middle) < q
            a, b = torch.where(below, middle, a), torch.where(below, b, middle)
            if bool((b - a <= 4e-16 * (a.abs() + b.abs())).all()):
                break
        return torch.where(open_end, torch.where(q < 0.5, low, high), 0.5 * (a + b))

    @property
    def probs(self) -> Tensor:
        """Category probabilities (*B, k, C) of a mixture of categories."""
        return (self.weights[..., None, None] * self.components.probs).sum(-3)  # type: ignore[attr-defined]

    @property
    def n_categories(self) -> int:
        return self.components.n_categories  # type: ignore[attr-defined,no-any-return]

    @property
    def mode(self) -> Tensor:
        """Most probable category of a mixture of categories."""
        return self.probs.argmax(-1).to(self.log_weights.dtype)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape)
        n_components = self.log_weights.shape[-1]
        every = self.components.sample(tuple(sample_shape), generator=generator)
        weights = self.weights.detach().expand(*shape, n_components).reshape(-1, n_components)
        label = torch.multinomial(weights, 1, generator=generator).reshape(*shape, 1, 1)
        return every.gather(-2, label.expand(*shape, 1, self.n_variables)).squeeze(-2)


def mixture(log_weights: Tensor, components: Distribution) -> Distribution:
    """A mixture over the last batch dimension; a single component stays what it is."""
    if log_weights.shape[-1] == 1:
        single, shape = components[..., 0], log_weights.shape[:-1]
        return (
            single if shape == single.batch_shape else single.expand(torch.broadcast_shapes(shape, single.batch_shape))
        )
    if isinstance(components, Mixture):
        return _flat(log_weights, components)
    return Mixture(log_weights, components)


def _flat(log_weights: Tensor, components: Mixture) -> Distribution:
    """A mixture of mixtures is a mixture."""
    joint = log_weights.unsqueeze(-1) + components.log_weights
    n = len(components.batch_shape)
    inner: Any = components.components.map_batch(lambda t, e: t.flatten(n - 1, n))
    return Mixture(joint.flatten(-2), inner)


def push(law: Distribution, bijection: Bijection) -> Distribution:
    """The law of ``bijection.forward(z)`` for z ~ ``law``, in closed form where there is one."""
    if isinstance(law, IndependentParts):
        return law.map_parts(lambda part, own: push(part, bijection.select(own)))
    if law.discrete and not bool(bijection.changes(law.n_variables).any()):
        return law
    if law.discrete:
        raise IncompatibleError(
            got="a transform of a discrete distribution",
            expected="continuous values",
            remedy="Use a continuous emission (Normal, StudentT) with transform=, or no transform with counts.",
        )
    if isinstance(law, Mixture):
        if bijection.onto_reals:
            return Mixture(law.log_weights, push(law.components, _for_components(bijection)))
        pushed = Pushforward(law.components, _for_components(bijection))
        if law.n_variables > 1:
            # Renormalising a joint over several variables ties them together, which no mixture of ours expresses.
            raise IncompatibleError(
                got="a bounded transform (BoxCox) over a multivariate mixture",
                expected="one variable",
                remedy="Use Log, or one variable.",
            )
        mass = pushed.range_probability()[1].squeeze(-1)
        return Mixture(torch.log_softmax(law.log_weights + mass.log(), -1), pushed)
    if isinstance(bijection, Affine):
        if isinstance(law, QuantileLaw):
            return QuantileLaw(law.levels, bijection.loc.unsqueeze(-1) + bijection.scale.unsqueeze(-1) * law.values)
        if isinstance(law, FactorNormal):
            loc = bijection.forward(law.loc)
            scale = bijection.scale.expand(loc.shape)
            return FactorNormal(loc=loc, scale=law.scale * scale, factors=law.factors * scale.unsqueeze(-1))
        if isinstance(law, DiagonalNormal):
            return DiagonalNormal(loc=bijection.forward(law.loc), scale=law.scale * bijection.scale)
        if isinstance(law, FullNormal):
            scale = bijection.scale.expand(bijection.forward(law.loc).shape)
            return FullNormal(loc=bijection.forward(law.loc), scale_tril=law.scale_tril * scale.unsqueeze(-1))
        if isinstance(law, DiagonalStudentT):
            return DiagonalStudentT(df=law.df, loc=bijection.forward(law.loc), scale=law.scale * bijection.scale)
        if isinstance(law, DiagonalLaplace):
            return DiagonalLaplace(loc=bijection.forward(law.loc), scale=law.scale * bijection.scale)
        if isinstance(law, DiagonalSkewedStudentT):
            loc, scale = bijection.forward(law.loc), law.scale * bijection.scale
            return DiagonalSkewedStudentT(df=law.df, skewness=law.skewness, loc=loc, scale=scale)
    return Pushforward(law, bijection)


def _for_components(bijection: Bijection) -> Bijection:
    """Give batch-shaped affine maps the mixture axis of the components."""
    if isinstance(bijection, Affine):
        loc, scale = bijection.loc, bijection.scale
        return Affine(loc.unsqueeze(-2) if loc.ndim > 1 else loc, scale.unsqueeze(-2) if scale.ndim > 1 else scale)
    return bijection
