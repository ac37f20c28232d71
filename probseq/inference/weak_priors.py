"""Weakly informative priors for parameters that a user gave none, in the units of the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Dirichlet,
    Distribution,
    LogNormal,
    Normal,
    TransformedDistribution,
    constraints,
)

from probseq.distributions.params import ParamSpec, Positive, PositiveDefinite, Real, Simplex, Sparse
from probseq.inference.posterior import LogPosterior
from probseq.inference.search import starting_point
from probseq.inference.units import real_unit
from probseq.models.base import Batch

__all__ = ["InverseWishart", "weak_priors"]

_WIDE = 10.0
_LOG_WIDE = 2.0
# How near to its bound a positive value is believed to be, relative to the bound, or to the unit where that is zero.
_LEAST = 1e-8


class InverseWishart(Distribution):
    r"""log p(S) = -(df + k + 1) / 2 log \|S\| - tr(scale S^-1) / 2 + constant, over positive definite k x k matrices.

    The mean is scale / (df - k - 1). Gelman et al. (2013), Bayesian Data Analysis, appendix A.

    Parameters
    ----------
    df : float, above k - 1
    scale : (k, k), positive definite
    """

    arg_constraints = {"df": constraints.positive, "scale": constraints.positive_definite}
    support = constraints.positive_definite

    def __init__(self, df: Tensor | float, scale: Tensor) -> None:
        self.df, self.scale = torch.as_tensor(df, dtype=scale.dtype), scale
        super().__init__(torch.Size(), scale.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        k = self.scale.shape[-1]
        factor = torch.linalg.cholesky(value)
        half = torch.linalg.solve_triangular(factor, torch.linalg.cholesky(self.scale), upper=False)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = 0.5 * self.df * torch.logdet(self.scale) - 0.5 * self.df * k * math.log(2)
        constant = constant - torch.special.multigammaln(0.5 * self.df, k)
        return constant - 0.5 * (self.df + k + 1) * log_det - 0.5 * half.square().sum((-2, -1))


def weak_priors(target: LogPosterior) -> dict[str, Distribution]:
    r"""Priors of the trainable parameters of a target that have none yet; alike for all states.

    Around the model's own starting value c, averaged over the states: real numbers N(c, 10 u), with u the standard
    deviation of the data for means and levels and 1 for what has no unit; positive ones low + LogNormal(log(c - low),
    2), a factor of 50 either way; covariances InverseWishart(k + 2, C), with mean C. Rows of probabilities are uniform,
    and so is what is bounded (stationary coefficients).
    """
    found: dict[str, Distribution] = {}
    centre = starting_point(target, torch.Generator().manual_seed(0))
    for name, spec in target.specs.items():
        if spec.trainable and name not in target.priors:
            prior = _weak(spec, centre[name].double(), target.batch, target.model.observation.discrete)
            if prior is not None:
                found[name] = prior
    return found


def _weak(spec: ParamSpec, value: Tensor, batch: Batch, discrete: bool) -> Distribution | None:
    constraint = spec.constraint
    axes = tuple(i for i, word in enumerate(spec.dims) if word == "state")
    if isinstance(constraint, Simplex):
        return Dirichlet(torch.ones(spec.shape[-1], dtype=torch.float64)) if spec.shape[-1] > 1 else None
    if isinstance(constraint, Positive):
        # The mean over the states before the logarithm: one state at zero must not drag the others along.
        least = _LEAST * (constraint.low or real_unit(spec, batch, discrete).clamp_max(1.0))
        logs = torch.log(torch.maximum(_over(value, axes) - constraint.low, torch.as_tensor(least, dtype=value.dtype)))
        law = LogNormal(logs, torch.as_tensor(_LOG_WIDE, dtype=torch.float64))
        if not constraint.low:
            return law
        return TransformedDistribution(law, AffineTransform(constraint.low, 1.0))
    if isinstance(constraint, PositiveDefinite):
        k = spec.shape[-1]
        matrix = _over(value, axes).reshape(-1, k, k)[0]
        return InverseWishart(k + 2.0, matrix)
    if isinstance(constraint, Real | Sparse):
        return Normal(_over(value, axes), _WIDE * real_unit(spec, batch, discrete))
    return None


def _over(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    return value.mean(axes, keepdim=True).expand(value.shape) if axes else value
