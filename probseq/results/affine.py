"""The law of a x + b from that of x: exact answers in another unit or from another origin, whatever knows x."""

from __future__ import annotations

import numpy as np
import torch

from probseq.results.backends import Backend, JointLaw, PathsBackend
from probseq.results.joint import MarginalJoint
from probseq.results.quantiles import QuantilesBackend
from probseq.results.rows import RowsBackend
from probseq.results.trajectory import TrajectoryLaw

__all__ = ["AffineBackend", "AffineJoint", "affine_backend", "core_of"]

# Counts come back from their image as whole numbers up to rounding.
_ROUNDING = 1e-9


def affine_backend(backend: Backend, scale: np.ndarray, shift: np.ndarray) -> Backend:
    """The backend of ``scale * x + shift``, both (n, t, k), ``scale`` not zero.

    Paths stay paths and quantiles stay quantiles; a law is kept and its answers are translated.
    """
    if isinstance(backend, AffineBackend):
        return affine_backend(backend.inner, scale * backend.scale, scale * backend.shift + shift)
    if isinstance(backend, RowsBackend):
        rows = [
            affine_backend(part, scale[i : i + 1, : part.shape[1]], shift[i : i + 1, : part.shape[1]])
            for i, part in enumerate(backend.parts)
        ]
        return RowsBackend(rows)
    if isinstance(backend, PathsBackend):
        return PathsBackend(backend.paths * scale + shift, backend.discrete_variables, None, backend.finite)
    if isinstance(backend, QuantilesBackend):
        values = backend.values * scale[..., None] + shift[..., None]
        if (scale > 0).all():
            return type(backend)(backend.levels, values)
        if (scale < 0).all():
            return type(backend)(1.0 - backend.levels[::-1], values[..., ::-1])
    return AffineBackend(backend, scale, shift)


def core_of(backend: Backend) -> Backend:
    """What is behind an affine map, if there is one."""
    return backend.inner if isinstance(backend, AffineBackend) else backend


class _Image:
    """x -> scale * x + shift for arrays (n, t, k) and what has further dimensions in front of these."""

    def __init__(self, scale: np.ndarray, shift: np.ndarray, counted: np.ndarray) -> None:
        self.scale, self.shift, self.counted = scale, shift, counted

    def of(self, x: np.ndarray) -> np.ndarray:
        return x * self.scale + self.shift

    def source(self, y: np.ndarray) -> np.ndarray:
        """The x behind y; a count is whole again."""
        x = (y - self.shift) / self.scale
        if not self.counted.any():
            return x
        whole = np.rint(x)
        return np.where(self.counted & (np.abs(x - whole) <= _ROUNDING * (1.0 + np.abs(x))), whole, x)

    def log_slope(self, y: np.ndarray, certain: np.ndarray | None) -> np.ndarray:
        """log |dy/dx| of every measured value that is scored, (n, t, k); counts have none."""
        scored = ~np.isnan(y) & ~self.counted
        if certain is not None:
            scored &= ~certain
        return np.where(scored, np.log(np.abs(self.scale)), 0.0)


class AffineBackend(Backend):
    """The law of ``scale * x + shift``.

    Parameters
    ----------
    inner : Backend, the law of x
    scale, shift : (n, t, k), ``scale`` not zero
    """

    def __init__(self, inner: Backend, scale: np.ndarray, shift: np.ndarray) -> None:
        self.inner, self.scale, self.shift = inner, scale, shift
        self.name, self.exact, self.shape = inner.name, inner.exact, inner.shape
        self._image = _Image(scale, shift, inner.discrete_variables)

    @property
    def discrete_variables(self) -> np.ndarray:
        return self.inner.discrete_variables

    def source(self, y: np.ndarray) -> np.ndarray:
        """The x behind values y of the image."""
        return self._image.source(y)

    def image_of_ends(self, ends: np.ndarray) -> np.ndarray:
        """Lower and upper ends (n, t, k, 2, part) of intervals of x as those of the image."""
        scale, shift = self.scale[..., None, None], self.shift[..., None, None]
        moved = ends * scale + shift
        return np.where(scale < 0, moved[..., ::-1, :], moved)

    def mean(self) -> np.ndarray:
        return self._image.of(self.inner.mean())

    def variance(self) -> np.ndarray:
        return self.inner.variance() * self.scale**2

    def quantile(self, q: np.ndarray) -> np.ndarray:
        rising, falling = self.scale > 0, self.scale < 0
        x = self.inner.quantile(q) if rising.any() else np.zeros((*self.shape, len(q)))
        if falling.any():
            above = np.stack([self._upper(np.full(self.shape, p)) for p in 1.0 - q], -1)
            x = np.where(falling[..., None], above, x)
        return x * self.scale[..., None] + self.shift[..., None]

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        rising = self.scale > 0
        if rising.all():
            return self._image.of(self.inner._inverse(u))
        return self._image.of(np.where(rising, self.inner._inverse(u), self._upper(1.0 - u)))

    def _upper(self, p: np.ndarray) -> np.ndarray:
        """Largest x with P(X < x) <= p: the quantile, unless a count has exactly this probability up to it."""
        x = self.inner._inverse(p)
        counted = self._image.counted
        return np.where(counted & (self.inner.cdf(x) <= p + 1e-12), x + 1.0, x) if counted.any() else x

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        rising, z = self.scale > 0, self._image.source(x)
        if rising.all():
            return self.inner.cdf(z, left)
        above = 1.0 - self.inner.cdf(z, not left)
        return above if not rising.any() else np.where(rising, self.inner.cdf(z, left), above)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        slope = self._image.log_slope(y, getattr(self.inner, "certain", None)).sum(-1)
        return self.inner.log_prob(self._image.source(y)) - slope

    def crps(self, y: np.ndarray) -> np.ndarray:
        return np.abs(self.scale) * self.inner.crps(self._image.source(y))

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return self._image.of(self.inner.sample(n_paths, generator))

    def marginal(self, variables: list[int]) -> Backend:
        return AffineBackend(self.inner.marginal(variables), self.scale[..., variables], self.shift[..., variables])


class AffineJoint(JointLaw):
    """The joint law of ``scale * x + shift`` over all steps.

    Parameters
    ----------
    inner : JointLaw of x
    scale, shift : (n, t, k), ``scale`` not zero
    counted : (k,) bool
    """

    def __init__(self, inner: JointLaw, scale: np.ndarray, shift: np.ndarray, counted: np.ndarray) -> None:
        self.inner, self._image = inner, _Image(scale, shift, counted)

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return self._image.of(self.inner.sample(n_paths, generator))

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        slope = self._image.log_slope(values, _certain(self.inner)).sum((1, 2))
        return self.inner.log_prob(self._image.source(values)) - slope

    def closed(self) -> TrajectoryLaw | None:
        law = self.inner.closed()
        if law is None:
            return None
        n, _, k = law.shape
        diagonal = np.stack([np.diag(row) for row in self._image.scale.reshape(n, -1)])
        return law.linear(diagonal, k, self._image.shift.reshape(n, -1))

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        both = self.inner.sample_draws(n_paths, generator)
        return None if both is None else (self._image.of(both[0]), both[1])


def _certain(joint: JointLaw) -> np.ndarray | None:
    """Which values of a joint law are known, (n, t, k); None where none is."""
    if isinstance(joint, TrajectoryLaw):
        return joint.certain
    if isinstance(joint, AffineJoint):
        return _certain(joint.inner)
    if isinstance(joint, MarginalJoint):
        whole = _certain(joint.full)
        return None if whole is None else whole[..., joint.which]
    return None
