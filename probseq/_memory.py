"""Memory that is handed out again."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np

__all__ = ["spare"]

# Bytes of an array, and arrays, that each thread keeps at most.
_LARGEST = 1 << 23
_SMALLEST = 1 << 16
_KEPT = 5
_here = threading.local()


def spare(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """An uninitialised array in memory that this thread hands out again once nobody refers to it any longer.

    Fresh memory costs a page fault every 4 kB, as much time as a fast kernel takes to fill it.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if not _SMALLEST <= size <= _LARGEST:
        return np.empty(shape, kind)
    kept: list[np.ndarray] = _here.__dict__.setdefault("kept", [])
    for i in range(len(kept)):
        # Two references, the list's and the call's: a view anywhere would be one more.
        if size <= kept[i].size <= 2 * size and sys.getrefcount(kept[i]) == 2:
            kept.append(kept.pop(i))
            return kept[-1][:size].view(kind).reshape(shape)
    kept.append(np.empty(size, np.uint8))
    del kept[:-_KEPT]
    return kept[-1][:size].view(kind).reshape(shape)
