"""What the fit of an average of models has found beside the models themselves."""

from __future__ import annotations

from dataclasses import dataclass

from probseq.inference.base import Draws

__all__ = ["AverageDraws"]


@dataclass(frozen=True)
class AverageDraws(Draws):
    """The weights of the models, as the only draw of a parameter.

    Parameters
    ----------
    n_held_out : int
        How many steps the weights were learnt on.
    """

    n_held_out: int = 0
