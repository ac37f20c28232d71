"""Special functions that torch lacks; those by way of scipy have no gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["by_numpy", "log_half_step"]

# From here on four terms of the series are exact to rounding.
_LARGE = 30.0


def by_numpy(function: Callable[..., np.ndarray], *tensors: Tensor) -> Tensor:
    """``function`` of float64 arrays, as a tensor with the type and device of the last argument."""
    arrays = [tensor.detach().cpu().double().numpy() for tensor in tensors]
    with np.errstate(all="ignore"):
        result = function(*arrays)
    return torch.as_tensor(result, dtype=tensors[-1].dtype, device=tensors[-1].device)


def log_half_step(x: Tensor) -> Tensor:
    r"""log Gamma(x + 1/2) - log Gamma(x) - (log x) / 2 for x > 0, without loss of digits for large x.

    -1/(8x) + 1/(192x^3) - 1/(640x^5) + 17/(14336x^7) for large x: NIST Digital Library of Mathematical Functions,
    equation 5.11.8.
    """
    large = x > _LARGE
    near = torch.where(large, torch.full_like(x, _LARGE), x)
    inverse = 1.0 / torch.where(large, x, torch.full_like(x, _LARGE))
    square = inverse * inverse
    series = inverse * (-1 / 8 + square * (1 / 192 + square * (-1 / 640 + square * (17 / 14336))))
    return torch.where(large, series, torch.lgamma(near + 0.5) - torch.lgamma(near) - 0.5 * near.log())
