"""From data to the inner model's batch, through the transforms, and back to a model on the data's scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from probseq.data.sequences import Sequences
from probseq.distributions.emissions import ConditionalEmission, Emission, Normal
from probseq.distributions.emissions.base import CategoryCounts
from probseq.errors import DataError, IncompatibleError, ParameterError, ShapeError
from probseq.models.base import Batch, SequenceModel
from probseq.models.discretize import Discretize
from probseq.models.transforms import ContextScale, Difference, ElementwiseTransform, Transform

__all__ = [
    "DataInfo",
    "check_support",
    "FittedTransforms",
    "emission_or_normal",
    "emission_without_inputs",
    "fit_transforms",
    "future_inputs",
    "model_inputs",
    "n_codes",
    "numbers",
    "transform_list",
]


@dataclass(frozen=True)
class DataInfo:
    """What a family needs to know of the data to build its model.

    Parameters
    ----------
    n_variables : int
    n_categories : tuple of int or None
        What the values of each variable would have as codes; one number stands for all variables.
    n_covariates : int
    missing : bool
        Whether values are missing.
    tokens : tuple or None
        The tokens in the order of their codes, for families that look them up.
    """

    n_variables: int = 1
    n_categories: CategoryCounts = None
    n_covariates: int = 0
    missing: bool = False
    tokens: tuple[Any, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> DataInfo:
        """The inverse of ``to_dict``."""
        lists = {name: tuple(value) for name, value in kept.items() if isinstance(value, list)}
        return cls(**{**kept, **lists})


def model_inputs(data: Sequences) -> np.ndarray | None:
    """The covariates of every step (n, t, m), those that do not vary in time last; None if there are none."""
    return _beside(data.covariates, data.static, data.max_length)


def _beside(covariates: np.ndarray | None, static: np.ndarray | None, n_steps: int) -> np.ndarray | None:
    if static is None:
        return covariates
    every = np.repeat(static[:, None, :], n_steps, 1)
    return every if covariates is None else np.concatenate([covariates, every], -1)


def future_inputs(past: Sequences, horizon: int, covariates: Any, index: tuple[pd.Index, ...]) -> np.ndarray | None:
    """The inputs of the steps after ``past``; static ones are known, the others are given by name."""
    return _beside(past.future_covariates(horizon, covariates, index), past.static, horizon)


def emission_or_normal(emission: Any, name: str) -> Emission:
    """What users pass as ``emission=`` or ``head=``; None is ``Normal()``."""
    if emission is None:
        return Normal()
    if not isinstance(emission, Emission):
        raise ParameterError(
            got=f"{name}={emission!r}", expected="an emission such as ps.Normal()", remedy="Write its parentheses."
        )
    return emission


def emission_without_inputs(emission: Any, name: str) -> Emission:
    """The same for families whose laws do not read covariates or earlier values by a regression of their own."""
    law = emission_or_normal(emission, name)
    if isinstance(law, ConditionalEmission):
        raise IncompatibleError(
            got=f"{name}={law!r}",
            expected="a law without inputs of its own, such as ps.Normal() or ps.Poisson()",
            remedy="Use it as the emission of an HMM; networks read covariates and earlier values themselves.",
        )
    return law


def check_support(values: np.ndarray, emission: Emission | None, n_categories: CategoryCounts, name: str) -> None:
    """Raise for values (NaN = missing) that the emission, or the categories of the fit, give no probability."""
    if emission is not None:
        emission.check(values, name)
    sizes = n_categories if isinstance(n_categories, tuple) else (n_categories,) * values.shape[-1]
    for column, size in enumerate(sizes):
        if size is None:
            continue
        top = np.nanmax(values[..., column], initial=0)
        if top >= size:
            raise DataError(
                got=f"code {top:g} in {name}" if len(sizes) == 1 else f"code {top:g} in column {column} of {name}",
                expected=f"codes below {size}",
                remedy="Fit with all codes.",
            )


def transform_list(transform: Any) -> list[Transform]:
    """What users pass as ``transform=``: None, one transform or several, applied in order."""
    if transform is None:
        return []
    given = list(transform) if isinstance(transform, list | tuple) else [transform]
    for one in given:
        if not isinstance(one, Transform):
            raise ParameterError(
                got=f"transform={one!r}",
                expected="Log(), BoxCox(), Logit(), Standardize(), Difference(lag), ContextScale(), Discretize(), "
                "or a list of them",
                remedy="Write ps.Log() with its parentheses." if isinstance(one, type) else "Pass transform objects.",
            )
    if any(isinstance(one, Discretize) for one in given[1:]):
        raise ParameterError(
            got=f"transform={transform!r}",
            expected="Discretize() at most once and first: it rounds the data themselves, on their own scale",
            remedy="Write [ps.Discretize(), ps.Log(-0.5)].",
        )
    return given


@dataclass(frozen=True)
class FittedTransforms:
    """Transforms with the constants that they took from the training data."""

    transforms: tuple[Transform, ...]
    constants: tuple[dict[str, Any], ...]

    def given(self, batch: Batch) -> Batch:
        """A training batch of transformed sequences with the number of first steps that are conditioned on."""
        steps = 0
        for transform in self.transforms:
            if isinstance(transform, Difference):
                steps = max(0, steps - int(transform.lag))
            elif isinstance(transform, ContextScale):
                steps = max(steps, int(transform.length))
        return batch._replace(given=torch.full_like(batch.lengths, steps)) if steps else batch

    def check(self, values: np.ndarray) -> None:
        """Raise ``SupportError`` for values (n, t, k) that a lattice or an elementwise transform cannot take."""
        for transform, constants in zip(self.transforms, self.constants, strict=True):
            if not isinstance(transform, ElementwiseTransform | Discretize):
                return  # behind a difference the support depends on the past
            values = transform.apply(values, constants)

    def wrap(self, model: SequenceModel[Any]) -> SequenceModel[Any]:
        """The model on the data's scale: the last transform is the innermost wrapper."""
        for transform, constants in zip(reversed(self.transforms), reversed(self.constants), strict=True):
            model = transform.wrap(model, constants)
        return model


def fit_transforms(
    transforms: list[Transform], data: Sequences
) -> tuple[FittedTransforms, np.ndarray, np.ndarray, np.ndarray | None]:
    """Fit transforms in order; also the transformed values (n, t', k), lengths (n,) and covariates (n, t', m)."""
    values, lengths, covariates = data.values, data.lengths, model_inputs(data)
    constants = []
    for transform in transforms:
        known = transform.constants(values)
        if isinstance(transform, Difference):
            real = np.arange(values.shape[1]) < lengths[:, None]
            transform.require_complete(values[real])
        lag = int(transform.lag) if isinstance(transform, Difference) else 0
        values = transform.apply(values, known)
        constants.append(known)
        lengths = lengths - lag
        covariates = None if covariates is None else covariates[:, lag:]
        least = int(transform.length) if isinstance(transform, ContextScale) else 0
        if (lengths <= least).any():
            i = int(np.argmax(lengths <= least))
            raise ShapeError(
                got=f"sequence {data.names[i]!r} with {data.lengths[i]} step(s) under {transform!r}",
                expected="at least one step more than the " + ("context" if least else "lag"),
                remedy="Leave short sequences out, or use a smaller " + ("length." if least else "lag."),
            )
    return FittedTransforms(tuple(transforms), tuple(constants)), values, lengths, covariates


def n_codes(values: np.ndarray) -> int | None:
    """How many categories there are if the values are codes."""
    finite = values[~np.isnan(values)]
    return int(finite.max()) + 1 if finite.size and finite.min() >= 0 and finite.max() < 2**31 else None


def numbers(name: str, value: Any) -> np.ndarray:
    """The values of a parameter as an array of their own."""
    try:
        return np.asarray(value, dtype=np.float64).copy()
    except (TypeError, ValueError) as error:
        raise ParameterError(
            got=f"{name}={value!r}", expected="numbers, in rows of equal length", remedy="See params_ for the shapes."
        ) from error
