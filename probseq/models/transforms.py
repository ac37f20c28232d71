"""Transforms: hyper-parameters that describe the data on another scale; the wrapped model adds the log-Jacobian."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from probseq._types import Configuration, positive_number, truth_value, whole_number
from probseq.distributions.bijections import Affine, Bijection, BoxCoxInverse, Exponential, ScaledSigmoid
from probseq.errors import DataError, DegenerateWarning, ParameterError, ShapeError, SupportError
from probseq.models.base import SequenceModel
from probseq.models.context_scale import ContextScaledModel, ScaleRule
from probseq.models.particles import ParticleModel
from probseq.models.wrappers import DifferencedModel, ElementwiseModel, gap_error

__all__ = [
    "BoxCox",
    "ContextScale",
    "Difference",
    "ElementwiseTransform",
    "Log",
    "Logit",
    "Particles",
    "Standardize",
    "Transform",
]


# The square of a smaller scale has lost digits.
_SMALLEST = 1e-150


class Transform(Configuration, ABC):
    """A hyper-parameter: how to describe the data on another scale. Its constructor only stores."""

    def constants(self, values: np.ndarray) -> dict[str, Any]:
        """Estimate the transform's constants from training values (n, t, k), NaN = missing; JSON-able."""
        return {}

    @abstractmethod
    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        """The model on the data's scale."""

    @abstractmethod
    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        """Values (n, t, k) on the model's scale; NaN where not defined.

        Raises
        ------
        SupportError
            For values outside the transform's domain.
        """


class ElementwiseTransform(Transform):
    """A transform by a bijection."""

    @abstractmethod
    def bijection(self, constants: dict[str, Any]) -> Bijection:
        """The map from the model's to the data's scale."""

    def n_settled(self, constants: dict[str, Any]) -> int:
        """Number of constants that were estimated."""
        return 0

    def observation_check(self, values: np.ndarray, bijection: Bijection) -> None:
        outside = values[(values <= bijection.x_low) | (values >= bijection.x_high)]
        if outside.size:
            raise SupportError(
                got=f"{outside.flat[0]:g} under {self!r}",
                expected=f"values strictly between {bijection.x_low:g} and {bijection.x_high:g}",
                remedy="Shift the data, or choose another transform.",
            )

    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        return ElementwiseModel(inner, self.bijection(constants), self.n_settled(constants))

    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        bijection = self.bijection(constants)
        self.observation_check(values, bijection)
        return bijection.inverse(torch.as_tensor(values)).numpy()


class Log(ElementwiseTransform):
    """z = log(x - shift): positive data with a constant relative noise.

    Parameters
    ----------
    shift : float
        Lower bound of the data.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.IID(transform=ps.Log()).fit([1.0, 2.0, 4.0])
    >>> round(model.score([2.0]), 4), round(ps.IID(ps.LogNormal()).fit([1.0, 2.0, 4.0]).score([2.0]), 4)
    (-1.0428, -1.0428)
    """

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def bijection(self, constants: dict[str, Any]) -> Bijection:
        return Exponential(self.shift)


class BoxCox(ElementwiseTransform):
    """z = (x^lmbda - 1) / lmbda (Box and Cox 1964, J. R. Stat. Soc. B 26, eq. 1); lmbda = 0 is the logarithm.

    The law of z is cut to the range that x > 0 allows and renormalised at every step. A missing value is integrated
    over the whole line: the factors after it are exact up to the mass outside that range.

    Parameters
    ----------
    lmbda : float or None
        None estimates it by maximum likelihood of independent normal values, counted as one parameter.

    Examples
    --------
    >>> import probseq as ps
    >>> passengers = ps.datasets.air_passengers()
    >>> model = ps.ARMA((0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.BoxCox(0.2)).fit(passengers)
    >>> bool((model.forecast(12).quantile([0.01]) > 0).all())
    True
    """

    def __init__(self, lmbda: float | None = None) -> None:
        self.lmbda = lmbda

    def constants(self, values: np.ndarray) -> dict[str, Any]:
        if self.lmbda is not None:
            return {"lmbda": float(self.lmbda)}
        x = values[~np.isnan(values)]
        self.observation_check(x, Exponential())
        if np.unique(x).size < 3:
            raise DataError(
                got=f"{np.unique(x).size} different values under BoxCox()",
                expected="at least 3 to estimate lmbda",
                remedy="Pass BoxCox(lmbda=...).",
            )
        return {"lmbda": float(stats.boxcox_normmax(x, method="mle"))}

    def n_settled(self, constants: dict[str, Any]) -> int:
        return int(self.lmbda is None)

    def bijection(self, constants: dict[str, Any]) -> Bijection:
        lmbda = constants["lmbda"]
        return Exponential() if abs(lmbda) < 1e-8 else BoxCoxInverse(lmbda)


class Logit(ElementwiseTransform):
    """z = log((x - low) / (high - x)): data between two bounds.

    Parameters
    ----------
    low, high : float

    Examples
    --------
    >>> import probseq as ps
    >>> shares = [0.2, 0.35, 0.5, 0.3, 0.9]
    >>> forecast = ps.IID(transform=ps.Logit(0, 1)).fit(shares).forecast(1)
    >>> bool(0 < forecast.quantile([0.001]).item() < forecast.quantile([0.999]).item() < 1)
    True
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def bijection(self, constants: dict[str, Any]) -> Bijection:
        if not self.low < self.high:
            raise ParameterError(got=repr(self), expected="low < high", remedy="Swap the bounds.")
        return ScaledSigmoid(self.low, self.high)


class Standardize(ElementwiseTransform):
    """z = (x - mean) / standard deviation, variable by variable, both from the training data and counted.

    Parameters
    ----------
    variables : list of int or None
        Positions of the variables to standardise; None means all. Counts can only stay as they are.

    Examples
    --------
    >>> import probseq as ps
    >>> x = [101.0, 99.0, 100.5, 98.5, 101.5]
    >>> plain, scaled = ps.IID().fit(x), ps.IID(transform=ps.Standardize()).fit(x)
    >>> round(plain.score(x), 4), round(scaled.score(x), 4)
    (-1.5653, -1.5653)
    """

    def __init__(self, variables: Sequence[int] | None = None) -> None:
        self.variables = variables

    def constants(self, values: np.ndarray) -> dict[str, Any]:
        flat = values.reshape(-1, values.shape[-1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            loc, scale = np.nanmean(flat, 0), np.nanstd(flat, 0)
        loc = np.where(np.isnan(loc), 0.0, loc)
        rounding = 1e-12 * np.abs(loc)
        flat_line = ~(scale > np.maximum(rounding, _SMALLEST))
        if self.variables is not None:
            others = np.ones(flat.shape[-1], dtype=bool)
            others[_positions(self.variables, flat.shape[-1])] = False
            loc[others], scale[others], flat_line[others] = 0.0, 1.0, False
        scale = np.where(flat_line, np.maximum(1.0, rounding), scale)
        if flat_line.any():
            i = int(np.argmax(flat_line))
            warnings.warn(
                f"Standardize: variable {i} is constant or missing; its scale is taken as {scale[i]:g}.",
                DegenerateWarning,
                stacklevel=2,
            )
        return {"loc": loc.tolist(), "scale": scale.tolist()}

    def n_settled(self, constants: dict[str, Any]) -> int:
        return 2 * len(constants["loc"] if self.variables is None else self.variables)

    def bijection(self, constants: dict[str, Any]) -> Bijection:
        return Affine(
            torch.tensor(constants["loc"], dtype=torch.float64), torch.tensor(constants["scale"], dtype=torch.float64)
        )


class Difference(Transform):
    """z_t = x_t - x_{t-lag}; the first ``lag`` values of every sequence are conditioned on, not scored.

    Parameters
    ----------
    lag : int
        1 for changes, the period for seasonal changes.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> model = ps.ARMA((1, 0), transform=ps.Difference()).fit(level)
    >>> int(model.log_prob_steps(level).isnull().sum())
    1
    """

    def __init__(self, lag: int = 1) -> None:
        self.lag = lag

    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        self._check()
        return DifferencedModel(inner, int(self.lag))

    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        self._check()
        if values.shape[1] <= self.lag:
            raise ShapeError(
                got=f"{values.shape[1]} steps under {self!r}",
                expected=f"more than {self.lag}",
                remedy="Pass longer sequences or a smaller lag.",
            )
        return values[:, self.lag :] - values[:, : -self.lag]

    def require_complete(self, values: np.ndarray) -> None:
        """Raise ``DataError`` where a value is missing."""
        if np.isnan(values).any():
            raise gap_error(int(self.lag))

    def _check(self) -> None:
        whole_number("lag", self.lag, 1)


class ContextScale(Transform):
    """z_t = (x_t - m) / s with a level m and a scale s of each sequence's own, read from its first ``length`` values.

    Those values are conditioned on, not scored; the model reads them, scaled, before it predicts the next. This is how
    one model serves many series of different size. Networks are trained on the later values only, other families are
    fitted to the scaled context too. Missing values are left out of m and s.

    Parameters
    ----------
    length : int
        How many first steps; sequences must be longer.
    center : bool
        True takes mean and standard deviation, False m = 0 and the mean absolute value, which keeps zero where it is.
    floor : float
        The smallest standard deviation, as a share of the mean absolute value, for contexts that hardly vary. Where
        that is zero too, or nothing was seen, the median scale (and, without a value, level) of the training sequences
        is taken.
    variables : list of int or None
        Positions of the variables to scale; None means all. Counts can only stay as they are.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.IID(transform=ps.ContextScale(2)).with_parameters(mean=[0.0], scale=[1.0])
    >>> model.log_prob_steps([10.0, 30.0, 20.0]).values.round(3)  # N(20, 10^2) at 20
    array([   nan,    nan, -3.222])
    """

    def __init__(
        self, length: int = 24, center: bool = True, floor: float = 0.01, variables: Sequence[int] | None = None
    ) -> None:
        self.length, self.center, self.floor, self.variables = length, center, floor, variables

    def constants(self, values: np.ndarray) -> dict[str, Any]:
        self._check()
        k = values.shape[-1]
        rule = self._rule({"loc": [0.0] * k, "scale": [0.0] * k})
        x = torch.as_tensor(values[:, : self.length])
        seen = ~x.isnan()
        loc, scale = (leaf.numpy() for leaf in rule(torch.where(seen, x, 0.0), seen))
        there = seen.any(1).numpy()
        kept = {"loc": [_median(loc[there[:, i], i], 0.0) for i in range(k)]}
        return {**kept, "scale": [_median(scale[scale[:, i] > 0, i], 1.0) for i in range(k)]}

    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        self._check()
        return ContextScaledModel(inner, int(self.length), self._rule(constants))

    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        x = torch.as_tensor(values)
        context = x[:, : self.length]
        seen = ~context.isnan()
        loc, scale = self._rule(constants)(torch.where(seen, context, 0.0), seen)
        return ((x - loc.unsqueeze(1)) / scale.unsqueeze(1)).numpy()

    def _rule(self, constants: dict[str, Any]) -> ScaleRule:
        loc, scale = (torch.tensor(constants[name], dtype=torch.float64) for name in ("loc", "scale"))
        chosen = torch.ones(len(loc), dtype=torch.bool)
        if self.variables is not None:
            chosen = torch.zeros_like(chosen)
            chosen[_positions(self.variables, len(loc))] = True
        return ScaleRule(bool(self.center), float(self.floor), loc, scale, chosen)

    def _check(self) -> None:
        whole_number("length", self.length, 1, "Use length=24.")
        truth_value("center", self.center)
        positive_number("floor", self.floor, "Use floor=0.01.")


class Particles(Transform):
    """No other scale: the model behind it sees complete data, with what is missing drawn; see ``ParticleModel``.

    Parameters
    ----------
    n_particles, seed : int
    """

    def __init__(self, n_particles: int = 100, seed: int = 0) -> None:
        self.n_particles, self.seed = n_particles, seed

    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        return ParticleModel(inner, int(self.n_particles), int(self.seed))

    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        return values


def _median(values: np.ndarray, otherwise: float) -> float:
    return float(np.median(values)) if values.size else otherwise


def _positions(given: Any, n_variables: int) -> list[int]:
    """The numbers of variables that a user chose."""
    if not isinstance(given, list | tuple) or not all(
        isinstance(i, int | np.integer) and 0 <= i < n_variables for i in given
    ):
        raise ParameterError(
            got=f"variables={given!r} for {n_variables} variables",
            expected=f"positions from 0 to {n_variables - 1}",
            remedy="Count the columns from 0.",
        )
    return [int(i) for i in given]
