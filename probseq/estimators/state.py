"""The state of a fitted model between two steps, for streaming."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import Tensor

from probseq.errors import FileFormatError
from probseq.models.base import map_state

__all__ = ["State", "leaves_of"]

_KEY = "leaf{:03d}"


def leaves_of(tree: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    found: list[Tensor] = []

    def collect(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    map_state(collect, tree)
    return found


class State:
    """What a fitted model remembers of the steps so far; constant in size, however many they were.

    Made by ``initial_state()``, ``filter(X)`` and ``update(state, x)``; used by ``predictive_at`` and ``forecast``.
    """

    def __init__(self, tree: Any, n: int) -> None:
        self.tree, self.n = tree, n

    def __repr__(self) -> str:
        size = sum(leaf.numel() * leaf.element_size() for leaf in leaves_of(self.tree))
        return f"<State of {self.n} sequence{'s' * (self.n != 1)}, {size} bytes>"

    def to_bytes(self) -> bytes:
        """The state as bytes (safetensors, no pickle); ``estimator.state_from_bytes`` reads them."""
        arrays = {_KEY.format(i): np.ascontiguousarray(leaf.numpy()) for i, leaf in enumerate(leaves_of(self.tree))}
        return save_tensors(arrays)

    @classmethod
    def from_bytes(cls, data: bytes, template: Any) -> State:
        """Read bytes into the structure of ``template``, a state of the same model for any number of sequences."""
        try:
            arrays = load_tensors(bytes(data))
        except (SafetensorError, ValueError, TypeError) as error:
            raise FileFormatError(
                got=f"bytes that are no state ({error})",
                expected="the result of State.to_bytes()",
                remedy="Save it again.",
            ) from error
        expected = leaves_of(template)
        known = [arrays.get(_KEY.format(i)) for i in range(len(expected))]
        fits = len(arrays) == len(expected) and all(
            a is not None and a.shape[1:] == tuple(e.shape[1:]) for a, e in zip(known, expected, strict=True)
        )
        if not fits:
            raise FileFormatError(
                got="a state of another model",
                expected="a state of this fitted model",
                remedy="Use the model that made it.",
            )
        queue = iter([torch.from_numpy(a.copy()) for a in known if a is not None])
        tree = map_state(lambda leaf: next(queue).to(leaf.dtype), template)
        return cls(tree, int(known[0].shape[0]) if known[0] is not None else 0)
