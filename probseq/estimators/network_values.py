"""Which values networks learn from: standardised where their law can be shifted, and of a size near one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from probseq.distributions.emissions import Emission, Gamma, Product
from probseq.errors import DataError
from probseq.models.transforms import Standardize, Transform

__all__ = ["check_sizes", "standardized"]

# Real numbers of other sizes are out of reach of weights that start near one and move by small steps.
_SMALL, _LARGE = 1e-6, 1e6


def standardized(transforms: Sequence[Transform], head: Emission) -> list[Transform]:
    """Transforms with ``Standardize`` behind them, of the variables whose law can be shifted."""
    shiftable = head.shiftable
    if isinstance(shiftable, tuple) and not all(shiftable):
        chosen = [i for i, one in enumerate(shiftable) if one]
        return [*transforms, Standardize(chosen)] if chosen else list(transforms)
    return [*transforms, Standardize()] if shiftable else list(transforms)


def check_sizes(head: Emission, transforms: Sequence[Transform], values: np.ndarray, inputs: np.ndarray | None) -> None:
    """Raise ``DataError`` for values (n, t, k) or inputs (n, t, m) that are typically of a size far from one."""
    # What hardly varies is small once standardised, and was warned of.
    small = any(isinstance(one, Standardize) for one in transforms)
    for i, (low, high) in enumerate(_limits(head, values.shape[-1])):
        _check_size(values[..., i], 0.0 if small else low, high, f"variable {i}")
    for i in range(0 if inputs is None else inputs.shape[-1]):
        _check_size(cast(np.ndarray, inputs)[..., i], _SMALL, _LARGE, f"covariate {i}")


def _limits(head: Emission, n_variables: int) -> list[tuple[float, float]]:
    """Between which sizes a training comes to terms with the values of each variable."""
    if isinstance(head, Product):
        return [limits for part in head.parts() for limits in _limits(part.emission, part.size)]
    if head.nominal or head.binary:
        return [(0.0, np.inf)] * n_variables
    if head.measure == "counting":
        return [(0.0, _LARGE)] * n_variables
    return [(_SMALL, _LARGE) if head.shiftable is True or isinstance(head, Gamma) else (0.0, np.inf)] * n_variables


def _check_size(values: np.ndarray, low: float, high: float, what: str) -> None:
    sizes = np.abs(values)
    sizes = sizes[sizes > 0]
    typical = float(np.median(sizes)) if sizes.size else low
    if not low <= typical <= high:
        raise DataError(
            got=f"values of a size of {typical:.2g} in {what}, as the network reads them",
            expected=f"sizes from {low:g} to {high:g}",
            remedy="Write another unit; of real numbers that are no covariates standardize=True finds one.",
        )
