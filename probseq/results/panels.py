"""The continuous ranked probability score of a mixture, from its distribution function."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.compose import Mixture

__all__ = ["crps_mixture"]

_LOWER = (
    1e-12,
    1e-9,
    1e-7,
    1e-6,
    1e-5,
    1e-4,
    1e-3,
    4e-3,
    0.01,
    0.02,
    0.04,
    0.07,
    0.1,
    0.15,
    0.2,
    0.25,
    0.31,
    0.37,
    0.44,
)
_LEVELS = (*_LOWER, 0.5, *(1.0 - p for p in reversed(_LOWER)))
_COMPONENT_LEVELS = (1e-6, 1e-3, 0.02, 0.15, 0.5, 0.85, 0.98, 1.0 - 1e-3, 1.0 - 1e-6)
_HEAVIEST = 8
_BISECTIONS = 14
_NODES = 10


def crps_mixture(y: np.ndarray, law: Mixture) -> np.ndarray:
    """int (F(x) - 1{x >= y})^2 dx by Gauss-Legendre panels between quantiles of the mixture and of its components.

    Panels at quantiles follow every scale, from a narrow component to a tail of two degrees of freedom. inf where the
    mean does not exist.

    Parameters
    ----------
    y : (n, t, k), NaN = missing
    law : continuous mixture with batch shape (n, t)

    Returns
    -------
    ndarray (n, t, k), in the unit of y; NaN where y is.
    """
    wide = law.map_batch(lambda tensor, _: tensor.detach().double())
    # Weights in single precision add up to one only to 1e-7, which a heavy tail would notice.
    law = Mixture(torch.log_softmax(wide.log_weights, -1), wide.components)
    target = torch.as_tensor(np.nan_to_num(y, nan=0.0), dtype=torch.float64)
    edges = _edges(law, target)
    nodes, weights = (torch.as_tensor(a).reshape(-1, 1, 1, 1) for a in np.polynomial.legendre.leggauss(_NODES))
    total = torch.zeros_like(target)
    for left, right in zip(edges[:-1], edges[1:], strict=True):
        half = 0.5 * (right - left)
        if bool((half == 0).all()):
            continue
        above = (left >= target).double()
        total = total + half * (weights * (law.cdf(left + half * (1.0 + nodes)) - above) ** 2).sum(0)
    total = torch.where(law.has_moment(1), total, torch.full_like(total, torch.inf))
    return np.where(np.isnan(y), np.nan, total.numpy())


def _edges(law: Mixture, target: Tensor) -> Tensor:
    """Ends of the panels, increasing along the first axis, (edge, n, t, k); ``target`` is one of them."""
    level = torch.tensor(_LEVELS, dtype=torch.float64).reshape(-1, 1, 1, 1)
    each = law.components.icdf(level.unsqueeze(-2))
    used = (law.weights > 0).unsqueeze(-1)
    low = torch.where(used, each, torch.full_like(each, torch.inf)).amin(-2)
    high = torch.where(used, each, torch.full_like(each, -torch.inf)).amax(-2)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        below = law.cdf(middle) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    n_heavy = min(_HEAVIEST, law.log_weights.shape[-1])
    heavy = law.log_weights.topk(n_heavy, -1)
    which = heavy.indices.unsqueeze(-1).expand(*heavy.indices.shape, law.n_variables)
    inner = [law.components.icdf(torch.tensor(p, dtype=torch.float64)).gather(-2, which) for p in _COMPONENT_LEVELS]
    parts = torch.cat(inner, -2).movedim(-2, 0)
    ends = torch.cat([0.5 * (low + high), parts, target.unsqueeze(0)])
    # What lies beyond the outermost quantile of the mixture has no mass that counts, unless the target is there.
    first, last = torch.minimum(low[0], target), torch.maximum(high[-1], target)
    return ends.clamp(first, last).sort(0).values
