"""Padded batches in one pass over their memory."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel

__all__ = ["fill_missing", "find_missing"]


@kernel
def find_missing(values: np.ndarray, widths: np.ndarray, seen: np.ndarray) -> int:
    """Write which of ``values`` (n, w) are not NaN and before ``widths`` (n,) into ``seen``; count the others."""
    missing = values.size
    for i in range(len(values)):
        width = widths[i]
        found = 0
        for j in range(width):
            here = values[i, j] == values[i, j]
            seen[i, j] = here
            found += here
        seen[i, width:] = False
        missing -= found
    return missing


@kernel
def fill_missing(values: np.ndarray, widths: np.ndarray, fills: np.ndarray, seen: np.ndarray, out: np.ndarray) -> None:
    """As `find_missing`, and write into ``out`` the values that are seen, elsewhere ``fills`` (k,) by turns."""
    k = len(fills)
    for i in range(len(values)):
        width = widths[i]
        found = 0
        for j in range(width):
            here = values[i, j] == values[i, j]
            out[i, j] = values[i, j]
            seen[i, j] = here
            found += here
        if found < width:
            for j in range(width):
                if not seen[i, j]:
                    out[i, j] = fills[j % k]
        seen[i, width:] = False
        for start in range(width, values.shape[1], k):
            for v in range(k):
                out[i, start + v] = fills[v]
