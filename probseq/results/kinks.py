"""Where quantile functions have no derivative, which integrals over them have to know."""

from __future__ import annotations

import numpy as np

from probseq.distributions.base import Distribution
from probseq.distributions.laplace import DiagonalLaplace
from probseq.distributions.pushforward import Pushforward
from probseq.distributions.quantiles import QuantileLaw
from probseq.distributions.skewed import DiagonalSkewedStudentT

__all__ = ["kinks_of"]


def kinks_of(law: Distribution) -> np.ndarray:
    """Levels at which the quantile function of a law has no derivative, (kink, *B, k); none of most laws."""
    shape = (*law.batch_shape, law.n_variables)
    if isinstance(law, Pushforward) and law.bijection.onto_reals:
        return kinks_of(law.base)
    if isinstance(law, DiagonalLaplace):
        return np.full((1, *shape), 0.5)
    if isinstance(law, DiagonalSkewedStudentT):
        xi = law.skewness.detach().cpu().double().numpy()
        return np.broadcast_to(1.0 / (1.0 + xi**2), shape)[None]
    if isinstance(law, QuantileLaw):
        levels = np.asarray(law.levels, dtype=float).reshape(-1, *(1,) * len(shape))
        return np.broadcast_to(levels, (levels.shape[0], *shape))
    return np.empty((0, *shape))
