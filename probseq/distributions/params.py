"""Parameters with shapes and constraints, and their flat unconstrained view."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus

from probseq._types import Record

__all__ = [
    "Constraint",
    "Interval",
    "ParamSpec",
    "Params",
    "Positive",
    "PositiveDefinite",
    "Real",
    "Simplex",
    "Sparse",
    "flatten",
    "n_free_parameters",
    "read_outputs",
    "take_draw",
    "unconstrained_size",
    "unflatten",
]

Params = Mapping[str, Tensor]
"""Parameter values by name, each of shape (*draw, *spec.shape)."""

_TINY = 1e-12


class Constraint(ABC):
    """A set of allowed values with a smooth map from the whole of R^m onto it."""

    def size(self, shape: tuple[int, ...]) -> int:
        """Number m of unconstrained coordinates of a parameter of this shape."""
        return math.prod(shape)

    def n_free(self, shape: tuple[int, ...]) -> int:
        """Number of free parameters, as counted by AIC and BIC."""
        return self.size(shape)

    @abstractmethod
    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(*B, m) -> (*B, *shape)."""

    @abstractmethod
    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(*B, *shape) -> (*B, m), the inverse of ``constrain``."""

    def read(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The value that a network's raw output (*B, m) stands for, (*B, *shape): any smooth map onto the set."""
        return self.constrain(output, shape)

    @abstractmethod
    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        """log |d value / d flat|, (*B,): turns a prior density on values into one on ``flat``."""

    @abstractmethod
    def violation(self, value: Tensor) -> str | None:
        """Why ``value`` is not allowed, or None."""


class Real(Constraint):
    """Any finite number."""

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return flat.reshape((*flat.shape[:-1], *shape))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        return value.reshape(*value.shape[: value.ndim - len(shape)], -1)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros_like(flat[..., 0]) if flat.shape[-1] else flat.sum(-1)

    def violation(self, value: Tensor) -> str | None:
        return None if bool(torch.isfinite(value).all()) else "not finite"


class Positive(Constraint):
    """x > low through the exponential, x = low + e^z: another unit of x is a shift of z.

    Parameters
    ----------
    low : float
        Lower bound, never reached.
    """

    def __init__(self, low: float = 0.0) -> None:
        self.low = float(low)

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        # Strictly above the bound also where the sum rounds to it.
        margin = 4 * torch.finfo(flat.dtype).eps * abs(self.low)
        return self.low + (_exponential(flat) + margin).reshape((*flat.shape[:-1], *shape))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        margin = 4 * torch.finfo(value.dtype).eps * abs(self.low)
        above = (value - self.low - margin).reshape(*value.shape[: value.ndim - len(shape)], -1)
        least = max(math.exp(-_longest(value.dtype)), _TINY * abs(self.low))
        return above.clamp_min(least).log()

    def read(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.low + (softplus(output) + _TINY).reshape((*output.shape[:-1], *shape))

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return flat.sum(-1)

    def violation(self, value: Tensor) -> str | None:
        ok = torch.isfinite(value) & (value > self.low)
        return None if bool(ok.all()) else f"not above {self.low:g}"


class Interval(Constraint):
    """low < x < high through the logistic function."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = float(low), float(high)

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        # Strictly inside, also where the logistic function rounds to one.
        unit = _TINY + (1.0 - 2.0 * _TINY) * torch.sigmoid(flat)
        return (self.low + (self.high - self.low) * unit).reshape((*flat.shape[:-1], *shape))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        unit = ((value - self.low) / (self.high - self.low) - _TINY) / (1.0 - 2.0 * _TINY)
        return torch.logit(unit.reshape(*value.shape[: value.ndim - len(shape)], -1), eps=_TINY)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        log_slope = torch.nn.functional.logsigmoid(flat) + torch.nn.functional.logsigmoid(-flat)
        return (log_slope + math.log(self.high - self.low) + math.log1p(-2.0 * _TINY)).sum(-1)

    def violation(self, value: Tensor) -> str | None:
        ok = (value > self.low) & (value < self.high)
        return None if bool(ok.all()) else f"not inside ({self.low:g}, {self.high:g})"


@dataclass(frozen=True, eq=False)
class Simplex(Constraint, Record):
    """Probabilities that sum to one over the last axis; entries outside ``support`` are exact zeros.

    Parameters
    ----------
    support : bool tensor of the parameter's shape, or None
        False marks a structural zero, which is not counted as a parameter.
    fixed : tensor of the parameter's shape, or None
        Known probabilities, NaN where an entry is free. The free entries of a row share what is left.
    """

    support: Tensor | None = None
    fixed: Tensor | None = None

    def free(self, shape: tuple[int, ...]) -> Tensor:
        """Which entries are neither structural zeros nor fixed, bool of ``shape``."""
        free = torch.ones(shape, dtype=torch.bool) if self.support is None else self.support
        return free if self.fixed is None else free & torch.isnan(self.fixed)

    def complete(self, shares: Tensor) -> Tensor:
        """Probabilities from the shares of the free entries, which sum to one over each row that has some."""
        if self.fixed is None:
            return shares
        fixed = torch.nan_to_num(self.fixed, nan=0.0).to(shares.dtype)
        return fixed + shares * (1.0 - fixed.sum(-1, keepdim=True))

    def n_free(self, shape: tuple[int, ...]) -> int:
        if self.support is None and self.fixed is None:
            return math.prod(shape[:-1]) * (shape[-1] - 1)
        return int((self.free(shape).sum(-1) - 1).clamp_min(0).sum())

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        logits = flat.reshape(*flat.shape[:-1], *shape)
        if self.support is None and self.fixed is None:
            return torch.softmax(logits, -1)
        free = self.free(shape)
        some = free.any(-1, keepdim=True)
        # A row without free entries must not become NaN on its way to being replaced.
        shares = torch.softmax(torch.where(free | ~some, logits, torch.full_like(logits, -torch.inf)), -1)
        return self.complete(torch.where(some, shares, torch.zeros_like(shares)))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        logits = torch.log(value.clamp_min(1e-30))
        if self.support is None and self.fixed is None:
            logits = logits - logits.mean(-1, keepdim=True)
        else:
            free = self.free(shape)
            count = free.sum(-1, keepdim=True).clamp_min(1)
            centred = logits - (logits * free).sum(-1, keepdim=True) / count
            logits = torch.where(free, centred, torch.zeros_like(logits))
        return logits.reshape(*value.shape[: value.ndim - len(shape)], -1)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Density with respect to the simplex of a softmax whose free direction is given a unit normal."""
        p = self.constrain(flat, shape)
        logits = flat.reshape(*flat.shape[:-1], *shape)
        log_p = torch.log(p.clamp_min(1e-300))
        if self.support is not None or self.fixed is not None:
            free = self.free(shape)
            log_p = torch.where(free, log_p, torch.zeros_like(log_p))
            logits = torch.where(free, logits, torch.zeros_like(logits))
        direction = -0.5 * logits.mean(-1) ** 2
        return (log_p.sum(-1) + direction).reshape(*flat.shape[:-1], -1).sum(-1)

    def violation(self, value: Tensor) -> str | None:
        if bool((value < 0).any()) or not bool(torch.isfinite(value).all()):
            return "negative or not finite"
        off = (value.sum(-1) - 1).abs().max()
        if bool(off > 1e-6):
            return f"not summing to one over the last axis (off by {float(off):.3g})"
        if self.support is not None and bool((value * ~self.support).any()):
            return "positive where the structure has a zero"
        if self.fixed is not None and bool(((value - self.fixed).abs() > 1e-8).any()):
            return "different from a fixed entry"
        return None


class Sparse(Constraint):
    """Finite numbers inside ``support`` (bool, the parameter's shape), exact zeros elsewhere, which are not counted."""

    def __init__(self, support: Tensor) -> None:
        self.support = support

    def size(self, shape: tuple[int, ...]) -> int:
        return int(self.support.sum())

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        value = torch.zeros(*flat.shape[:-1], *shape, dtype=flat.dtype, device=flat.device)
        value[..., self.support] = flat
        return value

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        return value[..., self.support]

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(flat.shape[:-1], dtype=flat.dtype, device=flat.device)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        return "not zero where the structure has a zero" if bool((value * ~self.support).any()) else None


class PositiveDefinite(Constraint):
    """Symmetric positive definite matrices over the last two axes, through their log-Cholesky factor."""

    def size(self, shape: tuple[int, ...]) -> int:
        k = shape[-1]
        return math.prod(shape[:-2]) * k * (k + 1) // 2

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        raw = self._lower(flat, shape)
        factor = torch.tril(raw, -1) + torch.diag_embed(_exponential(raw.diagonal(dim1=-2, dim2=-1)))
        return factor @ factor.mT

    def factor(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Lower Cholesky factor of ``read``, with the softplus on its diagonal, (*B, *shape)."""
        raw = self._lower(output, shape)
        return torch.tril(raw, -1) + torch.diag_embed(softplus(raw.diagonal(dim1=-2, dim2=-1)) + _TINY)

    def read(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        factor = self.factor(output, shape)
        return factor @ factor.mT

    @staticmethod
    def _lower(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        k = shape[-1]
        packed = flat.reshape(*flat.shape[:-1], *shape[:-2], k * (k + 1) // 2)
        row, col = torch.tril_indices(k, k, device=flat.device)
        raw = torch.zeros(*packed.shape[:-1], k, k, dtype=flat.dtype, device=flat.device)
        return _scatter(raw, row, col, packed)

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        k = shape[-1]
        factor = torch.linalg.cholesky(value)
        raw = torch.tril(factor, -1) + torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).log())
        row, col = torch.tril_indices(k, k, device=value.device)
        return raw[..., row, col].reshape(*value.shape[: value.ndim - len(shape)], -1)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        k = shape[-1]
        packed = flat.reshape(*flat.shape[:-1], *shape[:-2], k * (k + 1) // 2)
        row, col = torch.tril_indices(k, k)
        z = packed[..., (row == col).to(packed.device)]
        power = torch.arange(k + 1, 1, -1, dtype=flat.dtype, device=flat.device)
        return (math.log(2.0) + power * z).sum(-1).reshape(*flat.shape[:-1], -1).sum(-1)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        if bool((value - value.mT).abs().max() > 1e-8 * value.abs().max()):
            return "not symmetric"
        info = torch.linalg.cholesky_ex(value).info
        return None if bool((info == 0).all()) else "not positive definite"


def _longest(dtype: torch.dtype) -> float:
    """Largest size of a logarithm such that the square of its exponential is a number."""
    return 0.49 * math.log(torch.finfo(dtype).max)


def _exponential(z: Tensor) -> Tensor:
    """e^z, also where it would overflow or vanish."""
    longest = _longest(z.dtype)
    return z.clamp(-longest, longest).exp()


def _scatter(raw: Tensor, row: Tensor, col: Tensor, packed: Tensor) -> Tensor:
    k = raw.shape[-1]
    flat = raw.flatten(-2)
    return flat.index_add(-1, row * k + col, packed).reshape(*raw.shape[:-2], k, k)


@dataclass(frozen=True)
class ParamSpec:
    """Shape, constraint and meaning of one parameter.

    Parameters
    ----------
    shape : tuple of int
        Shape without draw dimensions.
    constraint : Constraint
    dims : tuple of str
        Dimension words for ``params_``, one per axis.
    prior : torch.distributions.Distribution or None
        Density of one value (broadcasts over ``shape``); None is flat.
    trainable : bool
        False for constants that inference leaves alone and that are not counted.
    unitless : bool
        True where ``dims`` are those of the data but a value has no unit of theirs: logits, logarithms, angles.
    """

    shape: tuple[int, ...]
    constraint: Constraint = field(default_factory=Real)
    dims: tuple[str, ...] = ()
    prior: torch.distributions.Distribution | None = None
    trainable: bool = True
    unitless: bool = False

    @property
    def n_free(self) -> int:
        return self.constraint.n_free(self.shape) if self.trainable else 0


def n_free_parameters(specs: Mapping[str, ParamSpec]) -> int:
    """Number of free parameters, structural zeros and sum constraints taken off."""
    return sum(spec.n_free for spec in specs.values())


def unconstrained_size(specs: Mapping[str, ParamSpec]) -> int:
    """Length of the flat unconstrained vector."""
    return sum(s.constraint.size(s.shape) for s in specs.values() if s.trainable)


def flatten(specs: Mapping[str, ParamSpec], params: Params) -> Tensor:
    """Concatenate the unconstrained coordinates of the trainable parameters, (*draw, m)."""
    parts = [s.constraint.unconstrain(params[n], s.shape) for n, s in specs.items() if s.trainable]
    return torch.cat(parts, -1)


def unflatten(specs: Mapping[str, ParamSpec], flat: Tensor) -> dict[str, Tensor]:
    """The inverse of ``flatten``: (*draw, m) -> values of the trainable parameters."""
    blocks = _blocks(specs, flat)
    return {name: specs[name].constraint.constrain(block, specs[name].shape) for name, block in blocks.items()}


def read_outputs(specs: Mapping[str, ParamSpec], outputs: Tensor) -> dict[str, Tensor]:
    """Values of the trainable parameters that a network's raw outputs (*B, m) stand for, see ``Constraint.read``."""
    blocks = _blocks(specs, outputs)
    return {name: specs[name].constraint.read(block, specs[name].shape) for name, block in blocks.items()}


def _blocks(specs: Mapping[str, ParamSpec], flat: Tensor) -> dict[str, Tensor]:
    sizes = {name: spec.constraint.size(spec.shape) for name, spec in specs.items() if spec.trainable}
    return dict(zip(sizes, flat[..., : sum(sizes.values())].split(list(sizes.values()), -1), strict=True))


def take_draw(params: Params, index: int | slice | Tensor) -> dict[str, Tensor]:
    """Select along the first draw dimension."""
    return {name: value[index] for name, value in params.items()}
