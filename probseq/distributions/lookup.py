"""Tables of discrete laws: each mass is computed once a value, not once a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["lookup_table"]

_MOST_CODES = 4096


def lookup_table(log_mass: Callable[[Tensor], Tensor], x: Tensor, seen: Tensor) -> Tensor | None:
    """Sums over the variables of log masses looked up by value; None where the values are not small whole numbers.

    Parameters
    ----------
    log_mass : callable
        Values (V, 1, k) -> log masses (*draw, V, s, k).
    x, seen : (N, k)

    Returns
    -------
    (*draw, N, s)
    """
    shown = torch.where(seen, x, torch.zeros_like(x))
    low, high = (shown.amin(), shown.amax()) if shown.numel() else (x.new_zeros(()), x.new_zeros(()))
    codes = shown.long()
    if float(low) < 0 or not float(high) < _MOST_CODES or not torch.equal(codes.to(x.dtype), shown):
        return None
    size = int(high) + 1
    if size > 2 * len(x) + 8:
        return None
    grid = torch.arange(size, dtype=x.dtype).reshape(-1, 1, 1).expand(-1, 1, x.shape[-1])
    masses = log_mass(grid)
    if not bool(seen.all()):
        masses = torch.nn.functional.pad(masses, (0, 0, 0, 0, 0, 1))
        codes = torch.where(seen, codes, torch.full_like(codes, size))
    table = masses[..., 0].index_select(-2, codes[:, 0])
    for variable in range(1, x.shape[-1]):
        table = table + masses[..., variable].index_select(-2, codes[:, variable])
    return table
