"""What a forecast knows inside: a law for each step, paths, or quantiles; one set of questions for all three.

Every array is (n, t, k): sequences, steps, variables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.autoregressive_bits import AutoregressiveBits
from probseq.distributions.base import Distribution
from probseq.distributions.bit_margins import single_bits
from probseq.distributions.categorical import Bits
from probseq.distributions.compose import Mixture
from probseq.distributions.counts import lattice_index
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.low_rank import FactorNormal
from probseq.errors import UnsupportedError
from probseq.evaluation import crps as crps_of
from probseq.results.kinks import kinks_of
from probseq.results.panels import crps_mixture

if TYPE_CHECKING:
    from probseq.results.trajectory import TrajectoryLaw

__all__ = ["Backend", "JointLaw", "LawBackend", "PathsBackend", "category_probs"]

# Counts below this quantile add nothing to a score; to look for it pays where counts are about as many as this.
_NO_MASS, _MANY = 1e-14, 1000.0
# Laws without a moment of this order have heavy tails: beyond a probability of so much nothing is summed.
_LIGHT, _HEAVY_MASS = 8.0, 1e-8


class JointLaw(ABC):
    """The joint law over the steps of a forecast."""

    @abstractmethod
    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        """Draw paths, (path, n, t, k)."""

    @abstractmethod
    def log_prob(self, values: np.ndarray) -> np.ndarray:
        """log p(values | past) of all steps of ``values`` (n, t, k) together, NaN = missing; (n,)."""

    def closed(self) -> TrajectoryLaw | None:
        """The same law in closed form; None where it is known by its steps or paths only."""
        return None

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """Paths under each parameter draw (draw, path, n, t, k) and their weights (n, draw); None for one draw."""
        return None

    def weighted_paths(
        self, values: np.ndarray, n_paths: int, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Paths (path, n, t, k) through known values (n, t, k), NaN where open, and log-weights (path, n); or None."""
        return None


class Backend(ABC):
    """The questions that every forecast answers, on arrays."""

    name: str
    shape: tuple[int, int, int]
    exact: bool = False
    """Whether the law of each step is known, rather than simulated."""

    @property
    def substance(self) -> str:
        """What the forecast is made of, for messages."""
        return {"analytic": "the law of each step", "mixture": "mixtures of laws"}.get(self.name, self.name)

    @property
    def discrete_variables(self) -> np.ndarray:
        """Which variables are counted, (k,) bool."""
        return np.zeros(self.shape[-1], dtype=bool)

    @property
    def step(self) -> float:
        """Distance between neighbouring values of the counted variables."""
        return 1.0

    @property
    def nominal_variables(self) -> np.ndarray:
        """Which variables are labels without order, (k,) bool."""
        return np.zeros(self.shape[-1], dtype=bool)

    @property
    def discrete(self) -> bool:
        """All variables are counted."""
        return bool(self.discrete_variables.all())

    @property
    def nominal(self) -> bool:
        """All variables are labels without order."""
        return bool(self.nominal_variables.all())

    @abstractmethod
    def mean(self) -> np.ndarray:
        """E[x], (n, t, k)."""

    @abstractmethod
    def variance(self) -> np.ndarray:
        """Var[x], (n, t, k)."""

    @abstractmethod
    def quantile(self, q: np.ndarray) -> np.ndarray:
        """Quantiles at levels q (Q,), (n, t, k, Q)."""

    @abstractmethod
    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        """P(X <= x), or P(X < x) with ``left``, for x (n, t, k)."""

    @abstractmethod
    def crps(self, y: np.ndarray) -> np.ndarray:
        """Continuous ranked probability score at y (n, t, k), NaN where y is; in the data's unit."""

    @abstractmethod
    def marginal(self, variables: list[int]) -> Backend:
        """The forecast of some of the variables."""

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """log p(y_t) for every step by itself, over the values present, (n, t)."""
        raise UnsupportedError(
            got=f"log_prob of a forecast made of {self.substance}",
            expected="a forecast with densities (backend 'analytic' or 'mixture'), or joint=True where the model can",
            remedy="Use crps(y) or pinball(y, q); of a fitted model's paths log_prob(y, joint=True).",
        )

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        """Independent draws at each step, (path, n, t, k)."""
        u = torch.rand((n_paths, *self.shape), generator=generator, dtype=torch.float64).numpy()
        return np.stack([self._inverse(one) for one in u])

    @abstractmethod
    def _inverse(self, u: np.ndarray) -> np.ndarray:
        """Quantiles at one level for each value, u (n, t, k)."""

    def kinks(self) -> np.ndarray:
        """Levels at which the quantile function has no derivative, (kink, n, t, k)."""
        return np.empty((0, *self.shape))

    def probs(self) -> np.ndarray:
        """Probabilities of the categories, (n, t, k, C)."""
        if self.nominal_variables.any():
            raise UnsupportedError(
                got="probs() of a forecast of numbers and categories",
                expected="a forecast of categories",
                remedy="Choose one variable: marginal(variable).probs().",
            )
        raise UnsupportedError(
            got="probs() of a forecast of numbers",
            expected="a forecast of categories",
            remedy="Use cdf, quantile or log_prob.",
        )

    def mode(self) -> np.ndarray:
        """Most probable category, (n, t, k); NaN for numbers beside categories."""
        if self.nominal or not self.nominal_variables.any():
            return self.probs().argmax(-1).astype(float)
        best = np.full(self.shape, np.nan)
        for i in np.flatnonzero(self.nominal_variables):
            best[..., i] = self.marginal([int(i)]).mode()[..., 0]
        return best


class LawBackend(Backend):
    """A distribution for each step, batch shape (n, t)."""

    def __init__(self, law: Distribution, draws: Distribution | None = None, weights: Tensor | None = None) -> None:
        self.law, self.draws, self.weights = law, draws, weights
        self.exact = law.margins is None
        self.name = "quantiles" if not law.is_likelihood else "analytic" if draws is None else "mixture"
        n, t = law.batch_shape
        self.shape = (n, t, law.n_variables)

    @property
    def discrete_variables(self) -> np.ndarray:
        return self.law.discrete_variables.numpy()

    @property
    def nominal_variables(self) -> np.ndarray:
        return self.law.nominal_variables.numpy()

    def mean(self) -> np.ndarray:
        return _numpy(self._single.mean)

    def variance(self) -> np.ndarray:
        return _numpy(self._single.variance)

    @cached_property
    def _single(self) -> Distribution:
        """A law with the margins of this one, whose moments, cdf and quantiles cost less where values are bits."""
        # Averages over draws of its own would not be the sum of what the parameter draws say.
        return single_bits(self.law) if self.draws is None or self.law.margins is None else self.law

    def variance_within(self) -> np.ndarray:
        """The variance within parameter draws, averaged over them, (n, t, k)."""
        if self.draws is None or self.weights is None:
            return self.variance()
        return (_numpy(self.weights)[..., None] * _numpy(self.draws.variance)).sum(-2)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        levels = [self._single.icdf(torch.full(self.shape, float(p), dtype=torch.float64)) for p in q]
        return np.stack([_numpy(v) for v in levels], -1) if levels else np.zeros((*self.shape, 0))

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        return _numpy(self._single.icdf(torch.as_tensor(u)))

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        value = torch.as_tensor(np.nan_to_num(x, nan=0.0))
        p = _numpy(self._single.cdf_left(value) if left else self._single.cdf(value))
        return np.where(np.isnan(x), np.nan, p)

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        if not self.law.is_likelihood:
            raise UnsupportedError(
                got="log_prob of learnt quantiles",
                expected="a law that was fitted by its likelihood",
                remedy="Use crps(y) or quantile(q); or a head with a density, such as StudentT().",
            )
        seen = ~np.isnan(y)
        if not seen.all():
            # Any value inside the support will do where nothing was seen: the median is one.
            y = np.where(seen, y, _numpy(self.law.icdf(torch.full(self.shape, 0.5, dtype=torch.float64))))
        value = torch.as_tensor(y)
        log_prob = _numpy(self.law.log_prob_seen(value, torch.as_tensor(seen)))
        return np.where(seen.any(-1), log_prob, np.nan)

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return _numpy(self.law.sample((n_paths,), generator=generator))

    def crps(self, y: np.ndarray) -> np.ndarray:
        law = self._single
        if isinstance(law, Bits) and bool(((y == 0) | (y == 1) | np.isnan(y)).all()):
            score: np.ndarray = (y - _numpy(law.mean)) ** 2
            return score
        if len(law.blocks) > 1:
            score = np.empty(y.shape)
            for block in law.blocks:
                score[..., block] = LawBackend(law.marginal(block)).crps(y[..., block])
            return score
        if isinstance(law, DiagonalNormal | FullNormal | FactorNormal):
            return crps_of.crps_normal(y, _numpy(law.mean), _numpy(law.stddev))
        if isinstance(law, Mixture) and isinstance(law.components, DiagonalNormal | FullNormal | FactorNormal):
            mean, std = _numpy(law.components.mean), _numpy(law.components.stddev)
            weights = _numpy(law.weights)[..., None, :]
            return crps_of.crps_normal_mixture(y, weights, np.moveaxis(mean, -2, -1), np.moveaxis(std, -2, -1))
        if self.discrete:
            return self._crps_of_counts(y)
        if isinstance(law, Mixture):
            return crps_mixture(y, law)
        if isinstance(law, DiagonalStudentT):
            return crps_of.crps_student_t(y, _numpy(law.df), _numpy(law.loc), _numpy(law.scale))
        quantile = lambda p: _numpy(law.icdf(torch.as_tensor(p)))  # noqa: E731
        level = np.nan_to_num(self.cdf(y), nan=0.5)
        score = crps_of.crps_quantile(y, quantile, level=level, kinks=self.kinks())
        return np.where(law.has_moment(1).numpy() | np.isnan(y), score, np.inf)

    def _crps_of_counts(self, y: np.ndarray) -> np.ndarray:
        law = self._single
        # The weights of a single-precision mixture add up to one only to 1e-7, so its cdf never comes closer.
        dtype = law.log_weights.dtype if isinstance(law, Mixture) else law.mean.dtype
        tolerance = 1e-13 if dtype == torch.float64 else 1e-5
        nothing, step = _NO_MASS, law.step
        if not bool(law.has_moment(_LIGHT).all()):
            # What is cut off a tail like x^-a counts by its square.
            tolerance, nothing = max(tolerance, _HEAVY_MASS), _HEAVY_MASS
        negative = bool((law.cdf_left(torch.zeros_like(law.mean)) > 0).any())
        far = negative or bool((law.mean > _MANY * step).any())
        lowest = lattice_index(self._inverse(np.full(self.shape, nothing)), step) if far else 0
        cdf = lambda index: _numpy(law.cdf(torch.as_tensor(index * step)))  # noqa: E731
        score = crps_of.crps_discrete(lattice_index(y, step), cdf, lower=lowest, tolerance=tolerance)
        return np.where(law.has_moment(1).numpy() | np.isnan(y), step * score, np.inf)

    @property
    def step(self) -> float:
        return self.law.step

    def kinks(self) -> np.ndarray:
        return kinks_of(self.law)

    def marginal(self, variables: list[int]) -> LawBackend:
        draws = None if self.draws is None else self.draws.marginal(variables)
        return LawBackend(self.law.marginal(variables), draws, self.weights)

    def probs(self) -> np.ndarray:
        if isinstance(self.law, Bits | AutoregressiveBits):
            p = _numpy(self.law.mean)
            return np.stack([1 - p, p], -1)
        return category_probs(self.law) if self.nominal else super().probs()


class PathsBackend(Backend):
    """Simulated trajectories, (path, n, t, k); every answer is that of their empirical distribution.

    ``finite`` are where mean and variance exist, both (n, t, k) or (n, 1, k); they are inf elsewhere, and so is a CRPS
    without a mean.
    """

    name = "paths"

    def __init__(
        self,
        paths: np.ndarray,
        discrete: bool | np.ndarray = False,
        n_categories: int | tuple[int | None, ...] | None = None,
        finite: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.paths, self.finite = paths, finite
        self.shape = paths.shape[1:]  # type: ignore[assignment]
        k = paths.shape[-1]
        self.categories = n_categories if isinstance(n_categories, tuple) else (n_categories,) * k
        self._discrete = np.broadcast_to(np.asarray(discrete, dtype=bool), (k,))

    @property
    def discrete_variables(self) -> np.ndarray:
        return self._discrete

    @property
    def nominal_variables(self) -> np.ndarray:
        return np.array([size is not None for size in self.categories])

    @property
    def n_categories(self) -> int | None:
        """The most categories of a variable; None unless all are categories."""
        return max(size or 0 for size in self.categories) if self.nominal else None

    def mean(self) -> np.ndarray:
        return self._where_finite(0, self.paths.mean(0))

    def variance(self) -> np.ndarray:
        return self._where_finite(1, self.paths.var(0))

    def _where_finite(self, which: int, value: np.ndarray) -> np.ndarray:
        return value if self.finite is None else np.where(self.finite[which], value, np.inf)

    def _rank(self, u: np.ndarray) -> np.ndarray:
        """Place, from 0, of the path that is the quantile at level u."""
        n_paths = len(self.paths)
        return np.clip(np.ceil(u * n_paths - 1e-9).astype(int) - 1, 0, n_paths - 1)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        rank = self._rank(q)
        # The last one is NaN if any is, as sums of paths that were not defined everywhere.
        ordered = np.partition(self.paths, np.unique([*rank, len(self.paths) - 1]), 0)
        return np.moveaxis(np.where(np.isnan(ordered[-1]), np.nan, ordered[rank]), 0, -1)

    def _inverse(self, u: np.ndarray) -> np.ndarray:
        ordered = np.sort(self.paths, 0)
        return np.where(np.isnan(ordered[-1]), np.nan, np.take_along_axis(ordered, self._rank(u)[None], 0)[0])

    def cdf(self, x: np.ndarray, left: bool = False) -> np.ndarray:
        below = self.paths < x if left else self.paths <= x
        return np.where(np.isnan(x), np.nan, below.mean(0))

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        p = self.paths.shape[0]
        index = torch.randint(p, (n_paths,), generator=generator).numpy()
        return self.paths[index]

    def crps(self, y: np.ndarray) -> np.ndarray:
        score = crps_of.crps_samples(y, self.paths)
        return np.where(np.isnan(y), score, self._where_finite(0, score))

    def marginal(self, variables: list[int]) -> PathsBackend:
        sizes = tuple(self.categories[i] for i in variables)
        finite = None if self.finite is None else (self.finite[0][..., variables], self.finite[1][..., variables])
        return PathsBackend(self.paths[..., variables], self._discrete[variables], sizes, finite)

    def probs(self) -> np.ndarray:
        if self.n_categories is None:
            return super().probs()
        return (self.paths[..., None] == np.arange(self.n_categories)).mean(0)


def category_probs(law: Distribution) -> np.ndarray:
    """Probabilities of the categories, (*B, k, C); a variable with fewer than C has zeros behind its own."""
    if len(law.blocks) == 1:
        return _numpy(law.probs)  # type: ignore[attr-defined]
    each = [(block, _numpy(law.marginal(block).probs)) for block in law.blocks]  # type: ignore[attr-defined]
    probs = np.zeros((*law.batch_shape, law.n_variables, max(p.shape[-1] for _, p in each)))
    for block, p in each:
        probs[..., block, : p.shape[-1]] = p
    return probs


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64, copy=False)
