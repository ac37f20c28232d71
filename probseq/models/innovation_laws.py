"""Laws of innovations with mean zero, located and scaled by their standard deviation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.params import Params, ParamSpec, Positive
from probseq.distributions.skewed import DiagonalSkewedStudentT, skewed_moments
from probseq.kernels.conditional_profile import LAPLACE, LOWEST_DF, NORMAL, SKEWED, STUDENT

__all__ = ["INNOVATIONS", "InnovationLaw"]


@dataclass(frozen=True)
class InnovationLaw:
    """A family of laws with mean ``loc`` and standard deviation ``spread``.

    Parameters
    ----------
    name : str
        What users write.
    code : int
        What the kernels call it.
    shapes : names of its parameters beside location and scale, of "df" and "skewness"
    build : the law from (parameters, loc, spread), both (*B, 1), with shape parameters that broadcast against them
    """

    name: str
    code: int
    shapes: tuple[str, ...]
    build: Callable[[Params, Tensor, Tensor], Distribution]

    def parameters(self) -> dict[str, ParamSpec]:
        """Specifications of the shape parameters."""
        lowest = {"df": LOWEST_DF, "skewness": 0.0}
        return {name: ParamSpec((), Positive(lowest[name])) for name in self.shapes}

    def law(self, params: Params, loc: Tensor, spread: Tensor, draw: int) -> Distribution:
        """The law of x with mean ``loc`` and standard deviation ``spread``, (*draw, ...), batch of that shape."""
        trailing = (1,) * (loc.ndim - draw)
        shapes = {name: params[name].reshape(*params[name].shape, *trailing).unsqueeze(-1) for name in self.shapes}
        return self.build(shapes, loc.unsqueeze(-1), spread.unsqueeze(-1))


def _normal(shapes: Params, loc: Tensor, spread: Tensor) -> Distribution:
    return DiagonalNormal(loc=loc, scale=spread)


def _laplace(shapes: Params, loc: Tensor, spread: Tensor) -> Distribution:
    return DiagonalLaplace(loc=loc, scale=spread / math.sqrt(2.0))


def _student(shapes: Params, loc: Tensor, spread: Tensor) -> Distribution:
    df = shapes["df"].expand(loc.shape)
    return DiagonalStudentT(df=df, loc=loc, scale=spread * torch.sqrt((df - 2.0) / df))


def _skewed(shapes: Params, loc: Tensor, spread: Tensor) -> Distribution:
    df, skewness = (shapes[name] for name in ("df", "skewness"))
    mean, variance = skewed_moments(df, skewness)
    scale = spread / torch.sqrt(variance)
    df, skewness = df.expand(loc.shape), skewness.expand(loc.shape)
    return DiagonalSkewedStudentT(df=df, skewness=skewness, loc=loc - scale * mean, scale=scale)


INNOVATIONS = {
    law.name: law
    for law in (
        InnovationLaw("normal", NORMAL, (), _normal),
        InnovationLaw("laplace", LAPLACE, (), _laplace),
        InnovationLaw("studentt", STUDENT, ("df",), _student),
        InnovationLaw("skewt", SKEWED, ("df", "skewness"), _skewed),
    )
}
"""The laws by the name that users write."""
