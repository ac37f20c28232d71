"""Mixtures whose parts are laws of different kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import Mixture
from probseq.distributions.gaussian import DiagonalNormal, FullNormal

__all__ = ["SideBySide", "blend", "concatenated"]


class SideBySide(Distribution):
    """Laws of any kinds as the components of a mixture: batch shape (*B, M), the m-th of the last dimension is law m.

    Parameters
    ----------
    laws : of the same variables and base measures, with batch shapes that broadcast to (*B)
    """

    def __init__(self, laws: Sequence[Distribution]) -> None:
        shape = torch.broadcast_shapes(*(law.batch_shape for law in laws))
        self.laws = tuple(law if law.batch_shape == shape else law.expand(shape) for law in laws)
        self.discrete = all(law.discrete for law in laws)  # type: ignore[misc]
        self.nominal = all(law.nominal for law in laws)  # type: ignore[misc]
        torch.distributions.Distribution.__init__(
            self, torch.Size([*shape, len(laws)]), laws[0].event_shape, validate_args=False
        )

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> SideBySide:
        """As for every law, for moves that leave the last batch dimension as it is."""

        def inside(tensor: Tensor, n_event: int) -> Tensor:
            moved = move(tensor.unsqueeze(tensor.ndim - n_event), n_event)
            return moved.squeeze(moved.ndim - n_event - 1)

        return SideBySide([law.map_batch(inside) for law in self.laws])

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None) -> SideBySide:
        return SideBySide([law.expand(torch.Size(batch_shape[:-1])) for law in self.laws])

    def marginal(self, index: list[int]) -> Distribution:
        return SideBySide([law.marginal(index) for law in self.laws])

    @property
    def discrete_variables(self) -> Tensor:
        return self.laws[0].discrete_variables

    @property
    def nominal_variables(self) -> Tensor:
        return self.laws[0].nominal_variables

    @property
    def circular_variables(self) -> Tensor:
        return self.laws[0].circular_variables

    @property
    def step(self) -> float:  # type: ignore[override]
        return self.laws[0].step

    @property
    def blocks(self) -> list[list[int]]:
        return self.laws[0].blocks

    @property
    def is_likelihood(self) -> bool:  # type: ignore[override]
        return all(law.is_likelihood for law in self.laws)

    @property
    def margins(self) -> str | None:  # type: ignore[override]
        return next((law.margins for law in self.laws if law.margins), None)

    @property
    def dtype(self) -> torch.dtype:
        return self.laws[0].dtype

    # law ---------------------------------------------------------------------------------------------------------

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        each = [law.log_prob_seen(_part(value, m), _part(seen, m)) for m, law in enumerate(self.laws)]
        return torch.stack(torch.broadcast_tensors(*each), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        each = [law.log_prob(_part(value, m)) for m, law in enumerate(self.laws)]
        return torch.stack(torch.broadcast_tensors(*each), -1)

    def _each(self, ask: Callable[[Distribution], Tensor], n_event: int = 1) -> Tensor:
        """What every law answers, side by side before ``n_event`` dimensions."""
        found = torch.broadcast_tensors(*(ask(law) for law in self.laws))
        return torch.stack(found, found[0].ndim - n_event)

    def _at(self, ask: Callable[[Distribution, Tensor], Tensor], value: Tensor) -> Tensor:
        each = torch.broadcast_tensors(*(ask(law, _part(value, m)) for m, law in enumerate(self.laws)))
        return torch.stack(each, -2)

    @property
    def mean(self) -> Tensor:
        return self._each(lambda law: law.mean)

    @property
    def variance(self) -> Tensor:
        return self._each(lambda law: law.variance)

    def has_moment(self, order: float) -> Tensor:
        return self._each(lambda law: law.has_moment(order))

    @property
    def resultant(self) -> Tensor:
        return self._each(lambda law: law.resultant, 2)

    @property
    def probs(self) -> Tensor:
        """Category probabilities (*B, M, k, C) of laws of categories."""
        return self._each(lambda law: law.probs, 2)  # type: ignore[attr-defined]

    @property
    def n_categories(self) -> int:
        return self.laws[0].n_categories  # type: ignore[attr-defined,no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        return self._at(lambda law, x: law.cdf(x), value)

    def cdf_left(self, value: Tensor) -> Tensor:
        return self._at(lambda law, x: law.cdf_left(x), value)

    def icdf(self, q: Tensor) -> Tensor:
        return self._at(lambda law, level: law.icdf(level), q)

    def sample(self, sample_shape=(), generator=None) -> Tensor:  # type: ignore[no-untyped-def,override]
        return self._each(lambda law: law.sample(tuple(sample_shape), generator=generator))


def blend(log_weights: Tensor, laws: Sequence[Distribution]) -> Distribution:
    """sum_m w_m p_m(x) for laws of any kinds.

    Parameters
    ----------
    log_weights : (*B, M), normalised over M
    laws : M laws with batch shape (*B)
    """
    if len(laws) == 1:
        shape = torch.broadcast_shapes(laws[0].batch_shape, log_weights.shape[:-1])
        return laws[0] if laws[0].batch_shape == shape else laws[0].expand(shape)
    return concatenated(log_weights, laws) or Mixture(log_weights, SideBySide(laws))


def concatenated(log_weights: Tensor, laws: Sequence[Distribution]) -> Mixture | None:
    """``blend`` as one mixture with components of one kind; None where they are of several."""
    shape = torch.broadcast_shapes(*(law.batch_shape for law in laws), log_weights.shape[:-1])
    parts: list[Distribution] = []
    shares: list[Tensor] = []
    for m, law in enumerate(laws):
        wide = law if law.batch_shape == shape else law.expand(shape)
        own = log_weights[..., m : m + 1].expand(*shape, 1)
        if isinstance(wide, Mixture):
            parts.append(wide.components)
            shares.append(own + wide.log_weights)
        else:
            parts.append(wide.map_batch(lambda t, e: t.unsqueeze(t.ndim - e)))
            shares.append(own)
    if len({type(part) for part in parts}) > 1:
        parts = [_plain(part) for part in parts]
    kind = type(parts[0])
    # Only laws that are nothing but their tensors can be put together tensor by tensor.
    if kind.map_batch is not Distribution.map_batch or any(type(part) is not kind for part in parts):
        return None
    joined = {}
    for name, dims in kind._event_dims.items():
        tensors = [getattr(part, name) for part in parts]
        if len({t.shape[t.ndim - dims :] for t in tensors}) > 1:
            return None
        joined[name] = torch.cat(tensors, tensors[0].ndim - dims - 1)
    return Mixture(torch.cat(shares, -1), kind(**joined))


def _plain(law: Distribution) -> Distribution:
    """A normal of one variable in the one form that all families share."""
    if isinstance(law, FullNormal) and law.n_variables == 1:
        return DiagonalNormal(loc=law.loc, scale=law.scale_tril[..., 0])
    return law


def _part(value: Tensor, m: int) -> Tensor:
    """Entry m of the dimension of the components, which may be one for all, or not there."""
    return value if value.ndim < 2 else value.select(-2, m if value.shape[-2] > 1 else 0)
