"""Special functions that torch lacks, by way of scipy and without gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["by_numpy"]


def by_numpy(function: Callable[..., np.ndarray], *tensors: Tensor) -> Tensor:
    """``function`` of float64 arrays, as a tensor with the type and device of the last argument."""
    arrays = [tensor.detach().cpu().double().numpy() for tensor in tensors]
    with np.errstate(all="ignore"):
        result = function(*arrays)
    return torch.as_tensor(result, dtype=tensors[-1].dtype, device=tensors[-1].device)
