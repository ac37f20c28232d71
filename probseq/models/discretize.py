"""The transform for rounded data: densities as probabilities of the cells of a lattice."""

from __future__ import annotations

from typing import Any

import numpy as np

from probseq._types import number_in, positive_number
from probseq.errors import ParameterError, SupportError
from probseq.models.base import SequenceModel
from probseq.models.discretized import DiscretizedModel
from probseq.models.transforms import Transform

__all__ = ["Discretize"]

# How far data may lie beside their lattice point, in steps.
_OFF_LATTICE = 1e-6


class Discretize(Transform):
    r"""Score a density by the probability of the interval that a rounded value stands for.

    P(x) = F(x + width/2) - F(x - width/2) for x on the multiples of ``width``, with F the model's one-step cdf. Where
    ``width`` is 1 that is the measure of counts, so that ``compare`` can set a ``Normal`` beside a ``Poisson``. All
    that is predicted (masses, cdf, quantiles, moments, CRPS, PIT, paths) is of the rounded values.

    The model inside is fitted to the lattice values as if they were exact, by its density and its own inference, and
    reads them so when it goes on. ``log_likelihood_``, ``aic`` and all scores are of the probabilities, which sum to
    one over the lattice at every step. Where the spread is several widths the two fits agree; where it is less than
    one, a density can grow without bound on repeated values, and counts are better served by a family of counts. A
    missing value is summed over as the density would be, so that the law is that given what is missing.

    It comes first in ``transform=``, nearest to the data. Variables must be independent given the state.

    Parameters
    ----------
    width : float
        Step of the lattice, in the unit of the data.
    lowest : float or None
        The lowest possible value, a multiple of ``width``: it takes all probability below. 0 for counts. With
        ``[Discretize(), Log(shift=-0.5)]`` nothing lies below 0 anyway.

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.IID(transform=ps.Discretize(lowest=0)).with_parameters(mean=[1.0], scale=[1.0])
    >>> model.log_prob_steps([0.0, 1.0]).values.round(3)  # log of Phi(-0.5) and of Phi(0.5) - Phi(-0.5)
    array([-1.176, -0.96 ])
    """

    def __init__(self, width: float = 1.0, lowest: float | None = None) -> None:
        self.width, self.lowest = width, lowest

    def wrap(self, inner: SequenceModel[Any], constants: dict[str, Any]) -> SequenceModel[Any]:
        self._check()
        return DiscretizedModel(inner, float(self.width), None if self.lowest is None else float(self.lowest))

    def apply(self, values: np.ndarray, constants: dict[str, Any]) -> np.ndarray:
        self._check()
        steps = values / self.width
        beside = values[np.abs(steps - np.rint(steps)) > _OFF_LATTICE]
        if beside.size:
            raise SupportError(
                got=f"{beside.flat[0]:g} under {self!r}",
                expected=f"multiples of {self.width:g}",
                remedy="Round the data, or pass the step they were rounded to as width=.",
            )
        if self.lowest is not None and (below := values[steps < self.lowest / self.width - _OFF_LATTICE]).size:
            raise SupportError(
                got=f"{below.flat[0]:g} under {self!r}",
                expected=f"values from {self.lowest:g}",
                remedy="Leave lowest out, or lower it.",
            )
        return values

    def _check(self) -> None:
        positive_number("width", self.width, "Use width=1 for whole numbers.")
        if self.lowest is None:
            return
        number_in("lowest", self.lowest, "(-inf, inf)", "Use lowest=0 for counts.")
        steps = self.lowest / self.width
        if abs(steps - round(steps)) > _OFF_LATTICE:
            raise ParameterError(
                got=f"lowest={self.lowest!r} with width={self.width!r}",
                expected="a multiple of the width",
                remedy="Use lowest=0 for counts.",
            )
