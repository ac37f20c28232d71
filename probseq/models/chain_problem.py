"""One set of hidden chains with their observations, and the kernels that answer for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probseq.kernels import chain, varying
from probseq.kernels.kbest import decode_k

__all__ = ["ChainProblem"]


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

    def sample_paths(self, uniform: np.ndarray) -> np.ndarray:
        """Draws from p(z_1:T | x_1:T), in the shape of ``uniform`` (D, path, n, t)."""
        if self.is_varying:
            return varying.sample_paths(self.initial, self.transition, self.emission.table, self.lengths, uniform)
        return chain.sample_paths(*self, uniform)
