"""The joint law of a forecast in closed form: conditioned on values, cut to variables, mapped linearly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import Mixture
from probseq.distributions.conditioning import given
from probseq.distributions.stacked import is_normal, linear_image, single_steps
from probseq.errors import ParameterError, SupportError
from probseq.results.backends import JointLaw

__all__ = ["TrajectoryLaw", "check_unchanged"]


def check_unchanged(known: np.ndarray, values: np.ndarray) -> None:
    """Raise ``ParameterError`` where values (n, t, k) are other than those known before; NaN is none."""
    changed = ~np.isnan(known) & ~np.isnan(values) & (values != known)
    if changed.any():
        raise ParameterError(
            got=f"{values[changed][0]:g} for a value known to be {known[changed][0]:g}",
            expected="values for steps that are still open",
            remedy="Start again from the forecast without conditions.",
        )


class TrajectoryLaw(JointLaw):
    """p(x_{T+1}, ..., x_{T+h} | past, known values) as a correlated normal, a map of one, or a mixture of such.

    Parameters
    ----------
    law : Distribution
        Batch shape (n,), event (t * k,), step-major; what it says of known values has no meaning.
    n_variables : k
    known : (n, t, k) or None
        The values that are certain, NaN elsewhere.
    by_draw : bool
        Whether the parts of a mixture are the parameter draws.
    """

    def __init__(
        self, law: Distribution, n_variables: int, known: np.ndarray | None = None, by_draw: bool = False
    ) -> None:
        self.law, self.by_draw = law, by_draw
        self.shape = (law.batch_shape[0], law.n_variables // n_variables, n_variables)
        self.known = np.full(self.shape, np.nan) if known is None else known

    @property
    def certain(self) -> np.ndarray:
        """Which values are known, (n, t, k) bool."""
        return ~np.isnan(self.known)

    def closed(self) -> TrajectoryLaw:
        return self

    def steps(self) -> Distribution:
        """The law of each step by itself, batch shape (n, t); a mixture has its parts behind, (n, t, draw)."""
        return single_steps(self.law, self.shape[-1])

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        """log p(values | past, known values) over the values that are neither missing nor known, (n,)."""
        seen = ~np.isnan(values) & ~self.certain
        return self.law.log_prob_seen(self._stack(np.where(seen, values, 0.0)), self._stack(seen)).numpy()

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        if not isinstance(self.law, Mixture):
            return self._fill(self.law.sample((n_paths,), generator=generator))
        weights = self.law.weights.to(torch.float64)
        label = torch.multinomial(weights, n_paths, replacement=True, generator=generator).T
        paths = torch.empty((n_paths, self.shape[0], self.law.n_variables), dtype=self.law.dtype)
        for d in torch.unique(label).tolist():
            chosen = label == d
            place = chosen.long().cumsum(0) - 1
            drawn = self.law.components[:, d].sample((int(place.max()) + 1,), generator=generator)
            path, sequence = torch.nonzero(chosen, as_tuple=True)
            paths[path, sequence] = drawn[place[path, sequence], sequence]
        return self._fill(paths)

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        if not (self.by_draw and isinstance(self.law, Mixture)):
            return None
        each = self.law.components.sample((n_paths,), generator=generator).movedim(-2, 0)
        return np.stack([self._fill(paths) for paths in each]), self.law.weights.numpy().astype(np.float64)

    def given(self, values: np.ndarray) -> TrajectoryLaw:
        """The same law once the values (n, t, k) that are not NaN are known.

        Raises
        ------
        ParameterError
            A value differs from one that was known before.
        SupportError
            A value cannot happen, such as a negative one under a logarithm.
        """
        check_unchanged(self.known, values)
        new = ~np.isnan(values) & ~self.certain
        x, seen = self._stack(np.where(new, values, 0.0)), self._stack(new)
        possible = torch.isfinite(self.law.log_prob_seen(x, seen)).numpy()
        if not possible.all():
            i = int(np.argmin(possible))
            raise SupportError(
                got=f"the values {values[i][new[i]][:4].tolist()} in sequence {i}",
                expected="values that the forecast thinks possible",
                remedy="Check their unit, and the range of the model's transform.",
            )
        known = np.where(new, values, self.known)
        return TrajectoryLaw(given(self.law, x, seen), self.shape[-1], known, self.by_draw)

    def marginal(self, which: list[int]) -> TrajectoryLaw:
        """The law of some of the variables."""
        _, t, k = self.shape
        index = [step * k + i for step in range(t) for i in which]
        return TrajectoryLaw(self.law.marginal(index), len(which), self.known[..., which], self.by_draw)

    def linear(self, matrix: np.ndarray, n_variables: int, constant: np.ndarray | None = None) -> TrajectoryLaw | None:
        """The law of linear combinations, exact; None where the law is not normal.

        Parameters
        ----------
        matrix : (l, t * k) or (n, l, t * k)
        n_variables : number of variables k' of the result; l = t' k'
        constant : what is added, (n, l), or None
        """
        if not is_normal(self.law):
            return None
        n, t, k = self.shape
        a = torch.as_tensor(matrix, dtype=self.law.dtype)
        certain = self._stack(self.certain)
        open_part = a * (~certain).unsqueeze(-2)
        shift = (a @ self._stack(np.nan_to_num(self.known)).to(a.dtype).unsqueeze(-1)).squeeze(-1)
        if constant is not None:
            shift = shift + torch.as_tensor(constant, dtype=a.dtype)
        settled = ~(open_part != 0).any(-1)
        law = linear_image(self.law, open_part, shift, settled)
        known = np.where(settled.numpy(), shift.numpy(), np.nan).reshape(n, -1, n_variables)
        return TrajectoryLaw(law, n_variables, known, self.by_draw)

    def _stack(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array).reshape(self.shape[0], -1)

    def _fill(self, paths: Tensor) -> np.ndarray:
        """Paths (path, n, t * k) with the known values in their places, (path, n, t, k)."""
        drawn = paths.reshape(-1, *self.shape).numpy().astype(np.float64, copy=False)
        return np.where(self.certain, self.known, drawn) if self.certain.any() else drawn
