"""What the fit of an average of models has found: the weights, and the draws of every model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from probseq._types import Record
from probseq.inference.base import Draws

__all__ = ["AverageDraws", "PartFit"]


@dataclass(frozen=True)
class PartFit(Record):
    """What the fit of one averaged model has found.

    Parameters
    ----------
    info : dict
        Of the data, see ``DataInfo``.
    constants : tuple
        Of its transforms.
    draws : Draws
    """

    info: dict[str, Any]
    constants: tuple[Any, ...]
    draws: Draws


@dataclass(frozen=True)
class AverageDraws(Draws):
    """The weights, and what was found for each model.

    Parameters
    ----------
    parts : tuple of PartFit
    n_held_out : int
        How many steps the weights were learnt on.
    """

    parts: tuple[PartFit, ...] = field(default_factory=tuple)
    n_held_out: int = 0
