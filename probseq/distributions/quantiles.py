"""The law that runs through given quantiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor

from probseq.distributions.base import Distribution, ProductDistribution

__all__ = ["QuantileLaw"]


class QuantileLaw(ProductDistribution):
    r"""Independent variables with quantile functions that are linear between known quantiles and logarithmic beyond.

    Between levels p_i and p_{i+1} the density is constant. Below the first quantile it falls exponentially, from the
    density of the first segment; above the last one in the same way: with s = (1 - p_Q) (v_Q - v_{Q-1}) / (p_Q -
    p_{Q-1}), P(X > x) = (1 - p_Q) exp(-(x - v_Q) / s). ``training_score`` is minus the mean pinball loss of the
    quantiles themselves; the density is made by the interpolation, so that it is no likelihood.

    Parameters
    ----------
    levels : tuple of Q increasing numbers in (0, 1), Q >= 2
    values : (*B, k, Q), increasing along the last axis, in the unit of the data
    """

    _event_dims: ClassVar[dict[str, int]] = {"values": 2}
    is_likelihood: ClassVar[bool] = False
    margins: ClassVar[str | None] = "learnt quantiles, linear between and exponential beyond"
    values: Tensor

    def __init__(self, levels: tuple[float, ...], values: Tensor) -> None:
        self.levels = levels
        super().__init__(values=values)

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        return type(self)(self.levels, move(self.values, 2))

    def marginal(self, index: list[int]) -> Distribution:
        return QuantileLaw(self.levels, self.values[..., index, :])

    def training_score(self, value: Tensor, seen: Tensor) -> Tensor:
        """-sum_i mean_q max(q (x_i - v_iq), (q - 1) (x_i - v_iq)) over the variables seen, (*B,)."""
        gap = value.unsqueeze(-1) - self.values
        each = torch.maximum(self._levels * gap, (self._levels - 1.0) * gap).mean(-1)
        return -torch.where(seen, each, torch.zeros_like(each)).sum(-1)

    @property
    def _levels(self) -> Tensor:
        return torch.tensor(self.levels, dtype=self.dtype, device=self.values.device)

    @property
    def _widths(self) -> Tensor:
        """Lengths of the segments, (*B, k, Q - 1)."""
        return self.values.diff(dim=-1).clamp_min(torch.finfo(self.dtype).tiny)

    @property
    def _tails(self) -> tuple[Tensor, Tensor]:
        """Mean excess below the first quantile and above the last one, (*B, k)."""
        steps, widths = self._levels.diff(), self._widths
        low = self.levels[0] * widths[..., 0] / steps[0]
        return low, (1.0 - self.levels[-1]) * widths[..., -1] / steps[-1]

    @property
    def upper_tail(self) -> Tensor:
        """The mean excess above the last quantile, (*B, k)."""
        return self._tails[1]

    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        value = value.to(self.dtype).expand(torch.broadcast_shapes(value.shape, self.values.shape[:-1]))
        first, last, (low, high) = self.values[..., 0], self.values[..., -1], self._tails
        inner = (self._levels.diff() / self._widths).log().expand(*value.shape, -1)
        inner = inner.gather(-1, self._segment(value).unsqueeze(-1)).squeeze(-1)
        below = self._levels[0].log() - low.log() - (first - value).clamp_min(0.0) / low
        above = (1.0 - self._levels[-1]).log() - high.log() - (value - last).clamp_min(0.0) / high
        return torch.where(value < first, below, torch.where(value > last, above, inner))

    def _segment(self, value: Tensor) -> Tensor:
        """The segment that a value falls into, the nearest one for values beyond, (*B, k)."""
        return ((value.unsqueeze(-1) > self.values).sum(-1) - 1).clamp(0, len(self.levels) - 2)

    def _ends(self, segment: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Value and level at the lower end of segments, and how far they are from the upper end."""
        levels, place = self._levels, segment.unsqueeze(-1)
        values = self.values.expand(*segment.shape, -1)
        start = values.gather(-1, place).squeeze(-1)
        width = self._widths.expand(*segment.shape, -1).gather(-1, place).squeeze(-1)
        return start, levels[segment], width, levels.diff()[segment]

    def cdf(self, value: Tensor) -> Tensor:
        value = value.to(self.dtype).expand(torch.broadcast_shapes(value.shape, self.values.shape[:-1]))
        first, last, (low, high) = self.values[..., 0], self.values[..., -1], self._tails
        start, level, width, step = self._ends(self._segment(value))
        inner = level + step * ((value - start) / width).clamp(0.0, 1.0)
        below = self.levels[0] * torch.exp(-(first - value).clamp_min(0.0) / low)
        above = 1.0 - (1.0 - self.levels[-1]) * torch.exp(-(value - last).clamp_min(0.0) / high)
        return torch.where(value < first, below, torch.where(value > last, above, inner))

    def icdf(self, q: Tensor) -> Tensor:
        q = q.to(self.dtype).expand(torch.broadcast_shapes(q.shape, self.values.shape[:-1]))
        levels, (low, high) = self._levels, self._tails
        place = ((q.unsqueeze(-1) > levels).sum(-1) - 1).clamp(0, len(self.levels) - 2)
        start, level, width, step = self._ends(place)
        inner = start + width * ((q - level) / step).clamp(0.0, 1.0)
        below = self.values[..., 0] + low * torch.log(q / levels[0]).clamp_max(0.0)
        above = self.values[..., -1] - high * torch.log((1.0 - q) / (1.0 - levels[-1])).clamp_max(0.0)
        return torch.where(q < levels[0], below, torch.where(q > levels[-1], above, inner))

    @property
    def mean(self) -> Tensor:
        middle, shifted = self._centred()
        return middle + self._first(shifted)

    @property
    def variance(self) -> Tensor:
        _, v = self._centred()
        a, b, (low, high) = v[..., :-1], v[..., 1:], self._tails
        square = (self._levels.diff() * (a * a + a * b + b * b)).sum(-1) / 3.0
        below = v[..., 0] ** 2 - 2.0 * v[..., 0] * low + 2.0 * low**2
        above = v[..., -1] ** 2 + 2.0 * v[..., -1] * high + 2.0 * high**2
        square = square + self.levels[0] * below + (1.0 - self.levels[-1]) * above
        return square - self._first(v) ** 2

    def _centred(self) -> tuple[Tensor, Tensor]:
        """The middle quantile, and all of them from there."""
        middle = self.values[..., len(self.levels) // 2]
        return middle, self.values - middle.unsqueeze(-1)

    def _first(self, v: Tensor) -> Tensor:
        low, high = self._tails
        inner = 0.5 * (self._levels.diff() * (v[..., :-1] + v[..., 1:])).sum(-1)
        return inner + self.levels[0] * (v[..., 0] - low) + (1.0 - self.levels[-1]) * (v[..., -1] + high)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        u = torch.rand(shape, generator=generator, dtype=self.dtype, device=self.values.device)
        info = torch.finfo(self.dtype)
        return self.icdf(u.clamp(info.tiny, 1.0 - info.eps / 2)).detach()
