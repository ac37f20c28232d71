"""The distribution of one event: k variables at one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from probseq.distributions.lookup import lookup_table

__all__ = ["Distribution", "ProductDistribution"]

# The quantile at level zero is the end of the support, which need not be inside it.
_LEAST_LEVEL = 2.0**-54


class Distribution(torch.distributions.Distribution):
    r"""A distribution with batch shape ``B`` over events of ``k`` variables (event shape ``(k,)``).

    Beyond ``torch.distributions`` it can marginalise coordinates that were not seen, answers for every variable its
    marginal ``cdf`` and ``icdf``, and draws from a given generator.

    Subclasses list their tensors in ``_event_dims``: name -> number of trailing event dimensions; everything that moves
    batch dimensions is derived from it.
    """

    _event_dims: ClassVar[dict[str, int]]
    discrete: ClassVar[bool] = False
    """All variables are counted."""
    step: ClassVar[float] = 1.0
    """Distance between neighbouring values of counted variables."""
    nominal: ClassVar[bool] = False
    """All variables are labels without order: no mean, no quantiles."""
    circular: ClassVar[bool] = False
    """All variables are angles: ``mean`` is the mean direction and ``variance`` the circular variance."""
    is_likelihood: ClassVar[bool] = True
    """Whether the law's log probability is what training maximises, so that it may be compared with others."""
    margins: ClassVar[str | None] = None
    """How the laws of single variables are approximated, in words; None where they are exact."""
    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, **tensors: Tensor) -> None:
        shapes = [t.shape[: t.ndim - self._event_dims[name]] for name, t in tensors.items()]
        alike = all(shape == shapes[0] for shape in shapes)
        batch_shape = shapes[0] if alike else torch.broadcast_shapes(*shapes)
        for name, tensor in tensors.items():
            event = tensor.shape[tensor.ndim - self._event_dims[name] :]
            setattr(self, name, tensor.expand((*batch_shape, *event)))
        super().__init__(batch_shape, self._event_shape_of(tensors), validate_args=False)

    @classmethod
    def _event_shape_of(cls, tensors: dict[str, Tensor]) -> torch.Size:
        name = next(n for n in tensors if cls._event_dims[n] > 0)
        return tensors[name].shape[tensors[name].ndim - cls._event_dims[name] :][:1]

    @property
    def n_variables(self) -> int:
        return self.event_shape[0]

    @property
    def discrete_variables(self) -> Tensor:
        """Which variables are counted, so that they have masses and not densities, (k,) bool."""
        return torch.full(tuple(self.event_shape), self.discrete)

    @property
    def nominal_variables(self) -> Tensor:
        """Which variables are labels without order, (k,) bool."""
        return torch.full(tuple(self.event_shape), self.nominal)

    @property
    def blocks(self) -> list[list[int]]:
        """Groups of variables of one kind: what depends on the kind is asked of the marginal of each group."""
        return [list(range(self.n_variables))]

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        tensor: Tensor = getattr(self, next(iter(self._event_dims)))
        return tensor.dtype

    # batch dimensions -------------------------------------------------------------------------------------------

    def map_batch(self, move: Callable[[Tensor, int], Tensor]) -> Self:
        """Rebuild with ``move(tensor, n_event_dims)`` applied to each parameter."""
        return type(self)(**{name: move(getattr(self, name), dims) for name, dims in self._event_dims.items()})

    def reshape(self, *batch_shape: int) -> Self:
        """Reshape the batch dimensions."""
        return self.map_batch(lambda t, e: t.reshape((*batch_shape, *t.shape[t.ndim - e :])))

    def movedim(self, source: int, destination: int) -> Self:
        """Move one batch dimension (both indices count from the front, or negative over the batch dimensions)."""
        n = len(self.batch_shape)
        return self.map_batch(lambda t, e: t.movedim(source % n, destination % n))

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: Any = None) -> Self:
        return self.map_batch(lambda t, e: t.expand((*batch_shape, *t.shape[t.ndim - e :])))

    def __getitem__(self, index: Any) -> Self:
        """Index the batch dimensions (an Ellipsis stands for batch dimensions only)."""
        wanted = index if isinstance(index, tuple) else (index,)
        has_ellipsis = any(i is Ellipsis for i in wanted)
        return self.map_batch(lambda t, e: t[(*wanted, *(slice(None),) * e)] if has_ellipsis else t[index])

    @abstractmethod
    def marginal(self, index: list[int]) -> Distribution:
        """Return the joint marginal of the listed variables."""

    # law ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        """log p(value[seen]): the coordinates with ``seen == False`` are integrated out exactly.

        Parameters
        ----------
        value : (*B, k), finite everywhere (unseen coordinates hold any value inside the support)
        seen : (*B, k) bool

        Returns
        -------
        (*B,); exactly 0 where nothing is seen.
        """

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value), (*B,), in nats."""
        return self.log_prob_seen(value, torch.ones_like(value, dtype=torch.bool))

    def training_score(self, value: Tensor, seen: Tensor) -> Tensor:
        """What training maximises, (*B,): log p(value[seen]), or the score of a law that has no density of its own."""
        return self.log_prob_seen(value, seen)

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        """log p(value_r seen | component j) for rows (r, k) and components in the last batch dimension.

        The plain broadcast of ``log_prob_seen``; families override it by equal, faster forms.

        Returns
        -------
        (*draw, r, s) for batch shape (*draw, s).
        """
        return self[..., None, :].log_prob_seen(value.unsqueeze(-2), seen.unsqueeze(-2))

    @abstractmethod
    def cdf(self, value: Tensor) -> Tensor:
        """P(X_i <= value_i) for each variable by itself, (*B, k)."""

    def cdf_left(self, value: Tensor) -> Tensor:
        """P(X_i < value_i) for each variable by itself, (*B, k)."""
        return self.cdf(torch.ceil(value) - 1.0) if self.discrete else self.cdf(value)

    @abstractmethod
    def icdf(self, q: Tensor) -> Tensor:
        """Smallest x with P(X_i <= x) >= q, for each variable by itself; q broadcasts against (*B, k)."""

    def has_moment(self, order: float) -> Tensor:
        """Whether E|X_i|^order is finite for each variable, (*B, k) of bool."""
        return torch.ones((*self.batch_shape, *self.event_shape), dtype=torch.bool)

    @property
    def circular_variables(self) -> Tensor:
        """Which variables are angles, (k,) bool."""
        return torch.full(tuple(self.event_shape), self.circular)

    @property
    def resultant(self) -> Tensor:
        """E[cos X_i] and E[sin X_i] of angles, (*B, k, 2); zero for other variables."""
        return torch.zeros((*self.batch_shape, *self.event_shape, 2), dtype=torch.float64)

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    @abstractmethod
    def sample(  # type: ignore[override]
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw (*sample_shape, *B, k) values without gradient."""


class ProductDistribution(Distribution):
    """Independent coordinates: the joint density is the product of the marginals."""

    @abstractmethod
    def coordinate_log_prob(self, value: Tensor) -> Tensor:
        """log p(value_i) for each variable, (*B, k)."""

    def log_prob_seen(self, value: Tensor, seen: Tensor) -> Tensor:
        each = self.coordinate_log_prob(value)
        return torch.where(seen, each, torch.zeros_like(each)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.coordinate_log_prob(value).sum(-1)

    def sample(  # type: ignore[override]
        self, sample_shape: torch.Size | tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw (*sample_shape, *B, k) values without gradient: quantiles at uniform levels."""
        shape = (*sample_shape, *self.batch_shape, *self.event_shape)
        level = torch.rand(shape, dtype=torch.float64, generator=generator).clamp_min(_LEAST_LEVEL)
        return self.icdf(level).detach().to(self.dtype)

    def component_table(self, value: Tensor, seen: Tensor) -> Tensor:
        if self.discrete:
            found = lookup_table(self[..., None, :].coordinate_log_prob, value, seen)
            if found is not None:
                return found
        return super().component_table(value, seen)

    def marginal(self, index: list[int]) -> Distribution:
        def pick(t: Tensor, e: int) -> Tensor:
            return t.index_select(t.ndim - e, torch.as_tensor(index)) if e else t

        return self.map_batch(pick)
