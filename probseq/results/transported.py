"""Paths whose steps hang together as those of one law, and have the margins of another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from probseq.errors import UnsupportedError
from probseq.results.backends import Backend, JointLaw, PathsBackend

__all__ = ["TransportedJoint"]


class TransportedJoint(JointLaw):
    r"""The law of Q(b(F(x))), value by value, for x of the source: its copula, with other margins.

    Parameters
    ----------
    source : Backend
        The margins F of the source.
    joint : JointLaw or None
        The law of all steps of the source; None where they are its own paths, or steps by themselves.
    target : Backend
        Whose quantile function is Q.
    bend : function of levels (path, n, t, k), or None
        b, where the margins to have are not those of the target.
    """

    def __init__(
        self,
        source: Backend,
        joint: JointLaw | None,
        target: Backend,
        bend: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.source, self.joint, self.target, self.bend = source, joint, target, bend

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        own = self.joint is None or isinstance(self.source, PathsBackend)
        paths = (
            self.source.sample(n_paths, generator)
            if own or self.joint is None
            else self.joint.sample(n_paths, generator)
        )
        v = torch.rand(paths.shape, generator=generator, dtype=torch.float64).numpy()
        levels = np.stack([self._levels(x, u) for x, u in zip(paths, v, strict=True)])
        return np.stack([self.target._inverse(u) for u in (levels if self.bend is None else self.bend(levels))])

    def _levels(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """F(x), spread over the jump where values have a probability; inside (0, 1)."""
        top = self.source.cdf(x)
        bottom = self.source.cdf(x, left=True)
        return np.clip(bottom + v * (top - bottom), 1e-15, 1 - 1e-15)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        raise UnsupportedError(
            got="log_prob(joint=True) of steps whose margins were changed, each by itself",
            expected="the steps by themselves",
            remedy="Use log_prob(y), or the log_prob of the model that was fitted.",
        )
