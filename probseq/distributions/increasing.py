"""Parameters that increase along an axis."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.params import Constraint, Positive

__all__ = ["Increasing"]


class Increasing(Constraint):
    """Strictly increasing numbers along the last axis: the first one, and positive steps."""

    def constrain(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        first, rest, inner = self._apart(flat, shape)
        return self._summed(first, Positive().constrain(rest, inner))

    def read(self, output: Tensor, shape: tuple[int, ...]) -> Tensor:
        first, rest, inner = self._apart(output, shape)
        return self._summed(first, Positive().read(rest, inner))

    def unconstrain(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        inner = (*shape[:-1], shape[-1] - 1)
        steps = Positive().unconstrain(value.diff(dim=-1), inner)
        lead = value.shape[: value.ndim - len(shape)]
        return torch.cat([value[..., :1], steps.reshape(*lead, *inner)], -1).reshape(*lead, -1)

    def log_abs_det(self, flat: Tensor, shape: tuple[int, ...]) -> Tensor:
        _, rest, inner = self._apart(flat, shape)
        return Positive().log_abs_det(rest, inner)

    def violation(self, value: Tensor) -> str | None:
        if not bool(torch.isfinite(value).all()):
            return "not finite"
        return None if bool((value.diff(dim=-1) > 0).all()) else "not increasing over the last axis"

    @staticmethod
    def _apart(flat: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """The first numbers (*B, *shape[:-1], 1), the coordinates of the steps (*B, m), and the steps' shape."""
        raw = flat.reshape(*flat.shape[:-1], *shape)
        return raw[..., :1], raw[..., 1:].reshape(*flat.shape[:-1], -1), (*shape[:-1], shape[-1] - 1)

    @staticmethod
    def _summed(first: Tensor, steps: Tensor) -> Tensor:
        return torch.cat([first, steps], -1).cumsum(-1)
