"""One set of hidden chains with their observations, and the kernels that answer for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.kernels import chain, torch_chain, varying
from probseq.kernels.kbest import decode_k
from probseq.models.base import Batch

__all__ = ["ChainProblem", "DeviceChainProblem", "remembered", "table_with_known_states"]

_KEPT: WeakKeyDictionary[Any, tuple[tuple[Tensor, ...], list[int], Any]] = WeakKeyDictionary()


class ChainProblem(NamedTuple):
    """D draws of a chain over n padded sequences, as the kernels take them.

    initial : (D, n or 1, s), the law of the state at the first step.
    transition : (D, s, s), or (D, n, t, s, s) where [:, :, t] moves into step t.
    emission : log p(x_t | z_t).
    lengths : (n,).
    """

    initial: np.ndarray
    transition: np.ndarray
    emission: chain.LogEmission
    lengths: np.ndarray

    @property
    def is_varying(self) -> bool:
        return self.transition.ndim == 5

    def filter_states(self, keep: bool = True) -> chain.Filtered:
        """Filtered and predicted states and log p(x_t | x_<t); only the last state unless ``keep``."""
        if self.is_varying:
            return varying.filter_states(self.initial, self.transition, self.emission.table, self.lengths, keep=keep)
        return chain.filter_states(*self, keep=keep)

    def after(self, last: Any) -> np.ndarray:
        """p(z_T+1 | x_1:T) from p(z_T | x_1:T), (D, n, s); unchanged for a sequence without steps."""
        ahead: np.ndarray = last @ self.transition
        return ahead if self.lengths.all() else np.where((self.lengths > 0)[:, None], ahead, last)

    def smooth(self) -> np.ndarray:
        """p(z_t | x_1:T), (D, n, t, s)."""
        if self.is_varying:
            arrays = (self.initial, self.transition, self.emission.table, self.lengths)
            return varying.expectations(*arrays).posterior
        return chain.expectations(*self).posterior

    def decode(self) -> chain.Paths:
        """The most probable paths."""
        if self.is_varying:
            return varying.decode(self.initial, self.transition, self.emission.table, self.lengths)
        return chain.decode(*self)

    def decode_k(self, k: int) -> chain.Paths:
        """The k most probable paths, states (D, n, k, t), best first."""
        return decode_k(*self, k)

    def sample_paths(self, uniform: Tensor) -> np.ndarray:
        """Draws from p(z_1:T | x_1:T), in the shape of ``uniform`` (D, path, n, t)."""
        numbers = uniform.numpy()
        if self.is_varying:
            return varying.sample_paths(self.initial, self.transition, self.emission.table, self.lengths, numbers)
        return chain.sample_paths(*self, numbers)


class DeviceChainProblem(NamedTuple):
    """As `ChainProblem` for tensors on any device, answered by batched torch.

    initial, transition, lengths : as in `ChainProblem`.
    table : (D or 1, n, t, s), log p(x_t | z_t).
    """

    initial: Tensor
    transition: Tensor
    table: Tensor
    lengths: Tensor

    def filter_states(self, keep: bool = True) -> torch_chain.Filtered:
        """Filtered and predicted states and log p(x_t | x_<t); only the last state unless ``keep``."""
        return torch_chain.filter_states(*self, keep=keep)

    def after(self, last: Any) -> Tensor:
        """p(z_T+1 | x_1:T) from p(z_T | x_1:T), (D, n, s); unchanged for a sequence without steps."""
        return torch.where((self.lengths > 0).unsqueeze(-1), last @ self.transition, last)

    def smooth(self) -> Tensor:
        """p(z_t | x_1:T), (D, n, t, s)."""
        return torch_chain.expectations(*self).posterior

    def decode(self) -> torch_chain.Paths:
        """The most probable paths."""
        return torch_chain.decode(*self)

    def decode_k(self, k: int) -> torch_chain.Paths:
        """The k most probable paths, states (D, n, k, t), best first; found on the processor."""
        initial, transition, table, lengths = (a.detach().cpu().numpy() for a in self)
        paths = decode_k(initial, transition, table, lengths, k)
        return torch_chain.Paths(*(torch.from_numpy(a).to(self.table.device) for a in paths))

    def sample_paths(self, uniform: Tensor) -> Tensor:
        """Draws from p(z_1:T | x_1:T), in the shape of ``uniform`` (D, path, n, t)."""
        return torch_chain.sample_paths(*self, uniform.to(self.table.device))


def remembered(owner: Any, params: Params, make: Callable[[], Any]) -> Any:
    """What ``make`` makes of parameters, kept for ``owner`` while the same tensors come and nobody writes to them.

    A fitted model is asked again and again; to lay out its parameters for a kernel takes as long as a short filter.
    """
    tensors = tuple(params.values())
    if any(tensor.is_inference() for tensor in tensors):
        return make()
    versions = [tensor._version for tensor in tensors]
    kept = _KEPT.get(owner)
    if kept is not None and kept[1] == versions and all(a is b for a, b in zip(kept[0], tensors, strict=True)):
        return kept[2]
    made = make()
    _KEPT[owner] = (tensors, versions, made)
    return made


def table_with_known_states(table: Tensor, batch: Batch) -> Tensor:
    """Log emissions (*draw, n, t, s) with -inf for the states that are known not to be."""
    if batch.states is None:
        return table
    known = batch.states.unsqueeze(-1)
    other = (known >= 0) & (known != torch.arange(table.shape[-1]))
    return torch.where(other, torch.full_like(table, -torch.inf), table)
